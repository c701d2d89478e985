"""Data directories and event files on a real filesystem; decides nothing about what is in them.

Names are durable when a call returns: the file, its folder and every new level of folders are
fsynced, in that order from the top. Event files are written with O_DIRECT where the filesystem
takes it, so that what is read back at a restart comes from the disk and not from a page cache that
a failed sync has left wrong; elsewhere the cache is dropped after each sync, for the same reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from dlog.adapters.write_behind import WorkThreads, WorkUnderWay
from dlog.core.system_errors import Meaning, meaning, storage_error
from dlog.errors import DataDirectoryGone, DlogError, InvariantBroken, StorageError
from dlog.limits import MIB, PAGE_BYTES
from dlog.model.ids import Offset
from dlog.ports import Space

_BOUNCE_BYTES: Final = MIB
_PIECES_AT_ONCE_MAX: Final = 1024  # IOV_MAX
_NOT_SUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_RENAME_NOREPLACE: Final = 1
_COPY_BYTES: Final = 4 * MIB
# While it is open, less what the umask takes.
_FILE_MODE: Final = 0o666


@contextlib.contextmanager
def _errors_of(path: str, offset_bytes: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, offset_bytes) from error


# --- one event file ---------------------------------------------------------------------------


class EventDataFile:
    """One open file. Writes and syncs end for good with the first sync that fails."""

    def __init__(self, directory: DataDirectory, path: str, fd: int, *, direct: bool) -> None:
        self._directory = directory
        self._path = path
        self._shown_path = directory.shown(path)
        self._fd = fd
        self._direct = direct and _set_direct(fd, True)
        self._bounce: mmap.mmap | None = None
        self._broken: str | None = None
        self._workers = directory.workers
        self._queued: list[tuple[Offset, memoryview]] = []
        self._under_way: WorkUnderWay | None = None

    @property
    def path(self) -> str:
        return self._path

    @property
    def direct(self) -> bool:
        """Whether the filesystem took O_DIRECT."""
        return self._direct

    def reserve(self, end: Offset) -> None:
        self._refuse_if_broken(end)
        size = self.size()
        if end <= size:
            return
        try:
            os.posix_fallocate(self._fileno(), size, end - size)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise storage_error(error, self._shown_path, size) from error
            # A filesystem that cannot reserve: zeros written are space reserved as well.
            self._write_zeros(size, end)

    def write(self, offset: Offset, data: memoryview) -> None:
        flat = self._checked(offset, data)
        if self._direct and not _is_page_aligned(flat):
            self._write_through_bounce(offset, flat)
        else:
            self._write_all(offset, [flat])

    def write_behind(self, offset: Offset, data: memoryview) -> None:
        # Begun with the sync that it needs, and all of them with one call: each thread that is
        # woken, and each that waits for its turn, leaves the disk idle.
        flat = self._checked(offset, data)
        if self._direct and not _is_page_aligned(flat):
            # Rare. The bounce is for the thread that the file belongs to.
            aligned = mmap.mmap(-1, len(flat))
            aligned[:] = flat
            flat = memoryview(aligned)
        self._queued.append((offset, flat))

    def _checked(self, offset: Offset, data: memoryview) -> memoryview:
        """The bytes to write: whole pages, at a page boundary."""
        if offset % PAGE_BYTES or data.nbytes % PAGE_BYTES or offset < 0:
            raise InvariantBroken(
                f"{self._shown_path}: {data.nbytes} bytes at {offset} are not whole pages"
            )
        self._refuse_if_broken(offset)
        return data if data.format == "B" and data.ndim == 1 else data.cast("B")

    def settle(self) -> None:
        before, self._under_way = self._under_way, None
        queued, self._queued = self._queued, []
        try:
            self._write_queued(queued)
        finally:
            if before is not None:
                before.wait()

    def _write_queued(self, queued: list[tuple[Offset, memoryview]]) -> None:
        try:
            for offset, together in _joined(queued):
                self._refuse_if_broken(offset)
                self._write_all(offset, together)
        except StorageError as error:
            # A sync that followed would report success for pages that were never written.
            self._broken = self._broken or f"an earlier write failed: {error.reason}"
            raise
        finally:
            queued.clear()  # the memory is the caller's again

    def sync(self) -> None:
        self.settle()
        self._sync()

    def sync_behind(self, over: Callable[[], None]) -> WorkUnderWay:
        before, queued = self._under_way, self._queued

        def sync() -> None:
            try:
                self._write_queued(queued)
            finally:
                if before is not None:
                    before.wait()
            self._sync()

        size_bytes = sum(len(data) for _, data in queued)
        self._under_way = self._workers.begin(sync, over, size_bytes)
        self._queued = []  # not before: what no sync will write must not be forgotten
        return self._under_way

    def _sync(self) -> None:
        self._refuse_if_broken(0)
        try:
            os.fdatasync(self._fileno())
        except OSError as error:
            # Never again: a second sync would report success for pages that the first one lost.
            self._broken = f"an earlier sync failed: {error.strerror}"
            raise storage_error(error, self._shown_path) from error
        if not self._direct:
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, offset: Offset, size: int) -> bytes:
        with _errors_of(self._shown_path, offset):
            if self._direct:
                return self._read_through_bounce(offset, size)
            return _read_fully(self._fileno(), offset, size)

    def size(self) -> Offset:
        with _errors_of(self._shown_path):
            return Offset(os.fstat(self._fileno()).st_size)

    def free_bytes(self) -> int:
        with _errors_of(self._shown_path):
            return _space(self._fileno()).free

    def cut(self, size: Offset) -> None:
        self._refuse_if_broken(size)
        with _errors_of(self._shown_path, size):
            os.ftruncate(self._fileno(), size)
            try:
                os.fsync(self._fileno())
            except OSError as error:
                self._broken = f"an earlier sync failed: {error.strerror}"
                raise

    def data_extents(self, begin: Offset, end: Offset) -> list[tuple[Offset, Offset]]:
        extents: list[tuple[Offset, Offset]] = []
        position: int = begin
        with _errors_of(self._shown_path, begin):
            end = min(end, self.size())
            while position < end:
                try:
                    data = os.lseek(self._fileno(), position, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nothing but a hole from here on
                        break
                    raise
                if data >= end:
                    break
                hole = min(os.lseek(self._fileno(), data, os.SEEK_HOLE), end)
                extents.append((Offset(data), Offset(hole)))
                position = hole
        return extents

    def lost(self, path: str) -> str:
        folder, name = _split(path)
        with _errors_of(self._directory.shown(path)):
            mine = os.fstat(self._fileno())
            try:
                with self._directory.folder(folder) as parent:
                    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                found = None
            except DataDirectoryGone as error:
                raise StorageError(str(error), path=self._directory.shown(path)) from error
        if found is not None and (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            return ""
        went = "was deleted" if mine.st_nlink == 0 else f"was moved{self._new_place()}"
        return went if found is None else f"{went}, and another file stands in its place"

    def _new_place(self) -> str:
        with contextlib.suppress(OSError):  # without /proc the place is not known
            return f" to {os.readlink(f'/proc/self/fd/{self._fileno()}')}"
        return ""

    def save(self, size: Offset) -> str:
        folder, name = _split(self._path)
        with _errors_of(self._shown_path), self._directory.folder(folder, make=True) as parent:
            how = "by a link"
            try:
                _link(self._fileno(), parent, name)
            except FileExistsError:
                raise
            except OSError:  # no name is left of it, or the filesystem has no links
                how = "as a copy"
                with _appearing(parent, name) as fd:
                    self._copy(fd, size)
            os.fsync(parent)
        return how

    def _copy(self, fd: int, size: int) -> None:
        for at in range(0, size, _COPY_BYTES):
            left = memoryview(self.read(Offset(at), min(_COPY_BYTES, size - at)))
            if len(left) < min(_COPY_BYTES, size - at):
                raise StorageError("it ends here", path=self._shown_path, offset_bytes=at)
            while left:
                left = left[os.write(fd, left) :]
        os.fsync(fd)

    def forget(self) -> None:
        before, self._under_way = self._under_way, None
        if before is not None:
            before.outcome()  # why it failed is not asked for here
        self._queued.clear()
        self._broken = self._broken or "what was written before was given up"

    def close(self) -> None:
        if self._fd >= 0:
            self.forget()  # what is not synced is not there
            fd, self._fd = self._fd, -1
            with _errors_of(self._shown_path):
                os.close(fd)

    def _fileno(self) -> int:
        if self._fd < 0:
            raise StorageError("the file is closed", path=self._shown_path)
        return self._fd

    def _refuse_if_broken(self, offset: int) -> None:
        if self._broken is not None:
            raise StorageError(self._broken, path=self._shown_path, offset_bytes=offset)

    def _write_all(self, offset: int, pieces: list[memoryview]) -> None:
        """Pieces that lie behind each other."""
        begin, left = offset, deque(pieces)
        while left:
            direct = self._direct
            try:
                count = os.pwritev(self._fileno(), list(islice(left, _PIECES_AT_ONCE_MAX)), offset)
            except OSError as error:
                if error.errno == errno.EINVAL and direct and offset == begin:
                    # Some filesystems take the flag and refuse the write; others may have found
                    # that out meanwhile.
                    self._direct = not _set_direct(self._fileno(), False)
                    if not self._direct:
                        continue
                reason = storage_error(error, self._shown_path, offset)
                raise reason from error
            if count == 0:
                raise StorageError(
                    "nothing was written", path=self._shown_path, offset_bytes=offset
                )
            offset += count
            while left and count >= len(left[0]):
                count -= len(left.popleft())
            if count:
                left[0] = left[0][count:]

    def _write_through_bounce(self, offset: int, data: memoryview) -> None:
        bounce = self._aligned()
        for begin in range(0, len(data), _BOUNCE_BYTES):
            piece = data[begin : begin + _BOUNCE_BYTES]
            with memoryview(bounce)[: len(piece)] as aligned:
                aligned[:] = piece
                self._write_all(offset + begin, [aligned])

    def _write_zeros(self, begin: int, end: int) -> None:
        # A page that the file ends in has its space; what lies behind its end reads as zeros.
        position = begin + -begin % PAGE_BYTES
        bounce = self._aligned()
        bounce[:] = bytes(_BOUNCE_BYTES)
        whole = end + -end % PAGE_BYTES
        while position < whole:
            count = min(_BOUNCE_BYTES, whole - position)
            with memoryview(bounce)[:count] as zeros:
                self._write_all(position, [zeros])
            position += count

    def _read_through_bounce(self, offset: int, size: int) -> bytes:
        """Whole pages into aligned memory, of which the bytes asked for are copied."""
        bounce = self._aligned()
        pieces: list[bytes] = []
        end = offset + size
        position = offset - offset % PAGE_BYTES
        while position < end:
            want = min(_BOUNCE_BYTES, end - position + -(end - position) % PAGE_BYTES)
            with memoryview(bounce)[:want] as aligned:
                count = os.preadv(self._fileno(), [aligned], position)
                first, last = max(0, offset - position), min(count, end - position)
                pieces.append(bytes(aligned[first:last]))
            if count < want and (count == 0 or count % PAGE_BYTES):
                break  # the end of the file
            position += count
        return b"".join(pieces)

    def _aligned(self) -> mmap.mmap:
        if self._bounce is None:
            self._bounce = mmap.mmap(-1, _BOUNCE_BYTES)
        return self._bounce


def _set_direct(fd: int, on: bool) -> bool:
    """Whether the flag stands as asked. Set after the opening, since an open with O_CREAT and a
    flag that the filesystem refuses creates the file all the same."""
    direct = getattr(os, "O_DIRECT", 0)
    if not direct:
        return not on
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | direct if on else flags & ~direct)
    except OSError:
        return False
    return True


def _is_page_aligned(data: memoryview) -> bool:
    # Read-only memory does not tell its address this way; it is rare, and copied.
    if data.readonly:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(data)) % PAGE_BYTES == 0


def _joined(
    queued: list[tuple[Offset, memoryview]],
) -> Iterator[tuple[Offset, list[memoryview]]]:
    """What lies behind each other, together."""
    begin, end, together = Offset(0), -1, list[memoryview]()
    for offset, data in queued:
        if offset != end and together:
            yield begin, together
            together = []
        begin = begin if together else offset
        together.append(data)
        end = offset + len(data)
    if together:
        yield begin, together


def _read_fully(fd: int, offset: int, size: int) -> bytes:
    pieces: list[bytes] = []
    while size > 0:
        piece = os.pread(fd, min(size, 16 * MIB), offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)


# --- one data directory -----------------------------------------------------------------------


class DataDirectory:
    """One data directory, known by its device and inode: should another one stand in its place (a
    filesystem unmounted, say), nothing is written there.

    holds_journal: if it cannot be reached, that is a FAILURE; of another directory it is a
    `StorageError` like each other one. away: why nothing in it may be used before the next start.
    """

    def __init__(self, root: Path, *, holds_journal: bool = True, away: str = "") -> None:
        self._root = root
        self._holds_journal = holds_journal
        self._away = away
        self.workers = WorkThreads()
        # Folders whose names this process has made durable, and which need no second fsync.
        self._durable_folders: set[tuple[str, ...]] = set()
        self._identity: tuple[int, int] | None = None
        if not away:
            with _errors_of(self.name), self.folder(()) as fd:
                self._identity = _identity(fd)

    def prepare(self) -> None:
        """Start what writing needs, so that a shortage of threads shows now. Raises `NoThread`."""
        self.workers.prepare()

    @property
    def name(self) -> str:
        return str(self._root)

    @property
    def root(self) -> Path:
        return self._root

    def create(self, path: str) -> EventDataFile:
        folder, name = _split(path)
        with _errors_of(self.shown(path)), self.folder(folder, make=True) as parent:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(name, flags, _FILE_MODE, dir_fd=parent)
            try:
                os.fsync(fd)
                # The directory too: a new name is not durable until then.
                os.fsync(parent)
            except OSError:
                os.close(fd)
                raise
            return EventDataFile(self, path, fd, direct=True)

    def open(self, path: str, *, writable: bool) -> EventDataFile:
        """Read-only opens are buffered: they may look at what another process writes now."""
        folder, name = _split(path)
        access = os.O_RDWR if writable else os.O_RDONLY
        with _errors_of(self.shown(path)), self.folder(folder) as parent:
            fd = os.open(name, access | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent)
            file = EventDataFile(self, path, fd, direct=writable)
            if writable and not file.direct:
                # What a restart judges must come from the disk as far as it can.
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return file

    def try_out(self, path: str, size: int) -> None:
        folder, name = _split(path)
        with _errors_of(self.shown(path)):
            try:
                with self.folder(folder) as parent:
                    fd = _open_to_try(parent, name)
            except FileNotFoundError:  # no folder yet; the filesystem is the same
                with self.folder(()) as parent:
                    fd = _open_to_try(parent, name)
        file = EventDataFile(self, path, fd, direct=True)
        try:
            size += -size % PAGE_BYTES
            file.reserve(Offset(size))
            file.write(Offset(0), memoryview(mmap.mmap(-1, size)))
            file.sync()
        finally:
            file.close()

    def exists(self, path: str) -> bool:
        folder, name = _split(path)
        with _errors_of(self.shown(path)):
            try:
                with self.folder(folder) as parent:
                    os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def names(self, folder: str) -> list[str]:
        parts = path_parts(folder) if folder else ()
        with _errors_of(self.shown(folder)):
            try:
                with self.folder(parts) as fd:
                    return sorted(os.listdir(fd))
            except FileNotFoundError:
                return []

    def rename(self, old: str, new: str) -> None:
        old_folder, old_name = _split(old)
        new_folder, new_name = _split(new)
        with (
            _errors_of(self.shown(new)),
            self.folder(old_folder) as old_parent,
            self.folder(new_folder, make=True) as new_parent,
        ):
            try:
                rename_without_replacing(old_parent, old_name, new_parent, new_name)
            except FileNotFoundError as error:
                raise storage_error(error, self.shown(old)) from error
            # The new name first: a crash in between may leave both, never neither.
            os.fsync(new_parent)
            os.fsync(old_parent)

    def sync_names(self, folder: str) -> None:
        with (
            _errors_of(self.shown(folder)),
            contextlib.suppress(FileNotFoundError),
            self.folder(path_parts(folder)) as fd,
        ):
            os.fsync(fd)

    def write_new(self, path: str, content: bytes) -> None:
        folder, name = _split(path)
        with _errors_of(self.shown(path)), self.folder(folder, make=True) as parent:
            with _appearing(parent, name) as fd:
                _finish_small_file(fd, content)
            os.fsync(parent)

    def read_all(self, path: str, size_max: int) -> bytes:
        folder, name = _split(path)
        with _errors_of(self.shown(path)), self.folder(folder) as parent:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent)
            try:
                content = _read_fully(fd, 0, size_max + 1)
            finally:
                os.close(fd)
        if len(content) > size_max:
            raise StorageError(f"more than {size_max} bytes", path=self.shown(path))
        return content

    def make_read_only(self, path: str) -> None:
        folder, name = _split(path)
        with _errors_of(self.shown(path)), self.folder(folder) as parent:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent)
            try:
                _take_write_away(fd)
                os.fsync(fd)
            finally:
                os.close(fd)

    def remove(self, path: str) -> None:
        folder, name = _split(path)
        with _errors_of(self.shown(path)), self.folder(folder) as parent:
            os.unlink(name, dir_fd=parent)
            os.fsync(parent)

    def space(self) -> Space:
        with _errors_of(str(self._root)), self.folder(()) as fd:
            return _space(fd)

    def shown(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextlib.contextmanager
    def folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """An open descriptor of a folder, reached level by level without following links."""
        fd = self._open_root()
        try:
            for depth, name in enumerate(parts, start=1):
                if make:
                    self._make_level(fd, parts[:depth])
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                try:
                    below = os.open(name, flags, dir_fd=fd)
                except NotADirectoryError:
                    self._refuse_link(fd, parts[:depth])
                    raise
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _refuse_link(self, parent: int, parts: tuple[str, ...]) -> None:
        with contextlib.suppress(OSError):
            target = os.readlink(parts[-1], dir_fd=parent)
            raise StorageError(
                f"a symbolic link to {target}, which is not followed inside a data directory",
                path=self.shown("/".join(parts)),
            )

    def _make_level(self, parent: int, parts: tuple[str, ...]) -> None:
        try:
            os.mkdir(parts[-1], dir_fd=parent)
        except FileExistsError:
            if parts in self._durable_folders:
                return
        # Also where it was there: the process that made it may have died before its fsync.
        os.fsync(parent)
        self._durable_folders.add(parts)

    def _open_root(self) -> int:
        if self._away:
            raise self._gone(self._away)
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if meaning(error) is Meaning.SHORT:
                raise
            raise self._gone(error.strerror or str(error)) from error
        if self._identity not in (None, _identity(fd)):
            os.close(fd)
            raise self._gone("not the directory that it was at start; is its disk mounted?")
        return fd

    def _gone(self, reason: str) -> DlogError:
        if self._holds_journal:
            return DataDirectoryGone(f"{self._root}: {reason}")
        return StorageError(reason, path=self.name)


def _space(fd: int) -> Space:
    found = os.fstatvfs(fd)
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def path_parts(path: str) -> tuple[str, ...]:
    parts = tuple(path.split("/"))
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise StorageError("not a path inside a data directory", path=path)
    return parts


def _split(path: str) -> tuple[tuple[str, ...], str]:
    parts = path_parts(path)
    return parts[:-1], parts[-1]


def rename_without_replacing(
    old_parent: int, old_name: str, new_parent: int, new_name: str
) -> None:
    """renameat2 where kernel and filesystem have it, link and unlink elsewhere."""
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2", None)
    if call is not None:
        old, new = os.fsencode(old_name), os.fsencode(new_name)
        if call(old_parent, old, new_parent, new, _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number))
    rename_by_link(old_parent, old_name, new_parent, new_name)


def rename_by_link(old_parent: int, old_name: str, new_parent: int, new_name: str) -> None:
    os.link(old_name, new_name, src_dir_fd=old_parent, dst_dir_fd=new_parent, follow_symlinks=False)
    # The new name before the old one goes: after a crash in between there are two, never none.
    os.fsync(new_parent)
    os.unlink(old_name, dir_fd=old_parent)


def _open_unnamed(parent: int) -> int | None:
    """A file without a name, gone with its descriptor; None on a filesystem without such files."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _FILE_MODE, dir_fd=parent)
    except OSError as error:
        if error.errno in (*_NOT_SUPPORTED, errno.EISDIR, errno.ENOENT):
            return None
        raise


def _open_for_itself(parent: int, name: str) -> int:
    """A new file under a name that nobody else uses."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent)  # of a process that died
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(name, flags, _FILE_MODE, dir_fd=parent)


def _link(fd: int, parent: int, name: str) -> None:
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent, follow_symlinks=True)


def _open_to_try(parent: int, name: str) -> int:
    """A file without a name, or one that has it for an instant, and nothing in it then."""
    fd = _open_unnamed(parent)
    if fd is None:
        fd = _open_for_itself(parent, f"{name}.try")
        os.unlink(f"{name}.try", dir_fd=parent)
    return fd


@contextlib.contextmanager
def _appearing(parent: int, name: str) -> Iterator[int]:
    """A new file for the caller to write and sync, which has its name after that: it is there whole
    or not at all. Where it cannot be without a name, it has another one until then."""
    fd = _open_unnamed(parent) if os.path.isdir("/proc/self/fd") else None
    unfinished = "" if fd is not None else f"{name}.new"
    if fd is None:
        fd = _open_for_itself(parent, unfinished)
    try:
        yield fd
        if unfinished:
            rename_without_replacing(parent, unfinished, parent, name)
        else:
            _link(fd, parent, name)
    except BaseException:
        if unfinished:
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=parent)
        raise
    finally:
        os.close(fd)


def _finish_small_file(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]
    _take_write_away(fd)
    os.fsync(fd)


def _take_write_away(fd: int) -> None:
    """Read-only for all who may read it. The mode of a file is its owner's: what another member of
    the group made stays as it is."""
    found = os.fstat(fd)
    try:
        os.fchmod(fd, stat.S_IMODE(found.st_mode) & ~0o222)
    except PermissionError:
        if found.st_uid == os.geteuid():
            raise
