"""The journal on LMDB: owns its environment and the only commits made to it.

It knows nothing of what the keys and values mean. What is promised on a full disk, and how, is told
in docs/decisions/0003-journal-space.md; in one picture, data.mdb from its beginning to its end:

    | pages in use | allocated, for any commit | ballast, for STOP and the like |
                                               ^ the map ends here for ordinary commits
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final

import lmdb

from dlog.adapters.journal_files import (
    DATA_NAME,
    FULL_CODES,
    LOCK_NAME,
    READERS_MAX,
    REBUILD_HINT,
    SHUT_CODES,
    Allocation,
    JournalSpace,
    allocate_first,
    allocate_lock_file,
    file_id,
    is_marked_failed,
    mark_failed,
    may_register,
    move_to_new_file,
    probe,
    rewrite_meta_pages,
    sync_directory,
)
from dlog.adapters.process_room import EXHAUSTED_CODES
from dlog.errors import (
    DiskFull,
    InvariantBroken,
    JournalFailed,
    JournalFull,
    JournalGone,
    JournalUnreadable,
    NameTaken,
    NotReadable,
    ResourcesExhausted,
)
from dlog.limits import JOURNAL_VALUE_BYTES_MAX, KIB, MIB
from dlog.ports import Change

KEY_BYTES_MAX: Final = 511
# One read transaction copies at most so much; the first of the two ends the chunk.
SCAN_PAIRS_MAX: Final = 16_384
SCAN_BYTES_MAX: Final = 16 * MIB
# What a reader that no writer knows of copies at once: faster than pages are used again, which
# might kill it. How often it begins again, each time with a quarter of the pairs.
_UNSEEN_PAIRS_MAX: Final = 256
_UNSEEN_TRIES: Final = 8

# Of the pages that a change copies, whatever its length.
_CHANGE_BYTES: Final = 32 * KIB

_UNFINISHED_SUFFIX: Final = ".new"
_FREE_PAGES_BYTES: Final = MIB
# Below this, a write cut short is the full disk's doing and not a failing one's.
_FULL_BELOW_BYTES: Final = MIB


class LmdbJournal:
    """`ports.Journal` on one LMDB environment; made by `create`, `open` or `open_read_only`."""

    # LMDB forbids a second opening in a process, and closing any descriptor of lock.mdb would drop
    # the locks of the first: so it is refused before anything is touched.
    _open_here: ClassVar[set[str]] = set()
    _open_here_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        path: Path,
        env: lmdb.Environment,
        allocation: Allocation | None,
        *,
        unseen: bool = False,
    ) -> None:
        """`path` was claimed; see `_claim`. unseen: a reader that is not in the lock file."""
        self._path = path
        self._env = env
        self._allocation = allocation  # None: read-only
        self._unseen = unseen
        self._map_bytes = env.info()["map_size"]
        self._file_id = file_id(path)
        self._data = str(path / DATA_NAME)
        # A remap moves the memory that readers look at: whoever reads or remaps holds this.
        self._mapped = threading.Lock()
        self._failed: str | None = None
        self._closed = False
        self._writing = 0  # number of the transaction that was begun, 0 for none yet
        self._page_bytes: int = env.stat()["psize"]
        self._not_looked_bytes = 0  # that may have been taken since the last look

    # --- opening ------------------------------------------------------------------------------

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is a journal, readable or not."""
        return path.exists()

    @classmethod
    def create(cls, path: Path, *, space: JournalSpace | None = None) -> LmdbJournal:
        """A new, empty journal; durable, or not there at all. Raises `NameTaken`, `DiskFull`."""
        space = space or JournalSpace()
        if cls.exists(path):
            raise NameTaken("there is a journal already", path=str(path))
        # Built under another name, so that a journal that exists is a complete one.
        unfinished = path.with_name(path.name + _UNFINISHED_SUFFIX)
        with cls._claim(path), _errors_of(path, "creating it"):
            _build(unfinished, space)
            os.rename(unfinished, path)
            sync_directory(path.parent)
            return cls._open_writer(path, space)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        live_prefixes: Sequence[bytes] = (b"",),
        space: JournalSpace | None = None,
    ) -> LmdbJournal:
        """The journal of the directory whose lock the caller holds. Raises `JournalUnreadable`, and
        `DiskFull` where a lock file or the copy after a failed commit finds no space.

        Everything below `live_prefixes` is read once, in a child process, before it is trusted.
        """
        with cls._claim(path), _errors_of(path, "opening it"):
            _refuse_unreadable(path, live_prefixes, for_writing=True)
            if is_marked_failed(path):
                move_to_new_file(path, lambda fd: _copy_environment(path, fd))
            rewrite_meta_pages(path / DATA_NAME)
            return cls._open_writer(path, space or JournalSpace())

    @classmethod
    def open_read_only(cls, path: Path, *, live_prefixes: Sequence[bytes] = (b"",)) -> LmdbJournal:
        """For other processes, also while a logger writes; it is never kept waiting by this.

        A process that may as well die on a damaged journal gives `live_prefixes=()`. It needs no
        write access: without a lock file that it may write to, it reads until nothing was
        overwritten meanwhile. Raises `NotReadable` where it is kept out.
        """
        with cls._claim(path), _errors_of(path, "opening it to read", for_writing=False):
            _refuse_unreadable(path, live_prefixes, for_writing=False)
            env, unseen = _open_reader(path)
            return cls(path, env, None, unseen=unseen)

    @classmethod
    def _open_writer(cls, path: Path, space: JournalSpace) -> LmdbJournal:
        allocate_lock_file(path)
        allocation = Allocation(path / DATA_NAME, space)
        try:
            env = _open_environment(path, map_size=allocation.ordinary_end)
        except BaseException:
            allocation.close()
            raise
        env.reader_check()
        journal = cls(path, env, allocation)
        journal._keep_ahead(allocation.space.ahead_bytes)
        return journal

    @classmethod
    @contextlib.contextmanager
    def _claim(cls, path: Path) -> Iterator[None]:
        """This process's only opening of the path, given back where the opening fails."""
        name = str(path.resolve())
        with cls._open_here_lock:
            if name in cls._open_here:
                raise InvariantBroken(f"{path}: the journal is open in this process already")
            cls._open_here.add(name)
        try:
            yield
        except BaseException:
            cls._release(path)
            raise

    @classmethod
    def _release(cls, path: Path) -> None:
        with cls._open_here_lock:
            cls._open_here.discard(str(path.resolve()))

    # --- reading ------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        if self._unseen:
            chunk, _ = self._copied_unseen(key, None)
            return next((value for name, value in chunk if name == key), None)
        with self._reading() as txn:
            return txn.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        after: bytes | None = None
        while True:
            if self._unseen:
                chunk, complete = self._copied_unseen(prefix, after)
            else:
                with self._reading() as txn:
                    chunk, complete = _copy_chunk(txn, prefix, after, SCAN_PAIRS_MAX)
            yield from chunk
            if complete:
                return
            after = chunk[-1][0]

    def _copied_unseen(
        self, prefix: bytes, after: bytes | None
    ) -> tuple[list[tuple[bytes, bytes]], bool]:
        """A chunk that no commit changed. Raises `NotReadable` where they come too fast.

        LMDB gives a page that transaction N uses to transaction N + 3 at the earliest, which begins
        after the commit of N + 2: what was read before that is whole.
        """
        pairs = _UNSEEN_PAIRS_MAX
        for _ in range(_UNSEEN_TRIES):
            before = self._env.info()["last_txnid"]
            copied: tuple[list[tuple[bytes, bytes]], bool] = [], True
            wrong: JournalUnreadable | None = None
            try:
                with self._reading() as txn:
                    copied = _copy_chunk(txn, prefix, after, pairs)
            except JournalUnreadable as error:
                wrong = error
            if self._env.info()["last_txnid"] <= before + 1:
                if wrong is not None:
                    raise wrong
                return copied
            pairs = max(1, pairs // 4)
        raise NotReadable(
            f"{self._path}: a logger writes to it, and without write access to {LOCK_NAME} it "
            "cannot be read meanwhile"
        )

    def size_bytes(self) -> int:
        self._refuse_if_unusable()
        blocks = 0
        for name in (DATA_NAME, LOCK_NAME):
            with contextlib.suppress(FileNotFoundError):  # `check_place` tells of that
                blocks += os.stat(self._path / name).st_blocks
        return blocks * 512

    def check_place(self) -> str:
        self._refuse_if_unusable()
        self._refuse_if_gone()
        if not (self._path / LOCK_NAME).exists():
            return (
                f"{self._path / LOCK_NAME} was deleted: commands that read the journal may fail "
                "until the logger is started again"
            )
        return ""

    def _refuse_if_gone(self) -> None:
        try:
            found = os.stat(self._data)
        except FileNotFoundError:
            found = None
        except OSError:
            return  # it cannot be seen now; a commit that fails says so itself
        if found is not None and (found.st_dev, found.st_ino) == self._file_id:
            return
        assert self._allocation is not None
        self._failed = (
            f"the journal {self._allocation.whereabouts()}"
            f"{', and another one stands in its place' if found is not None else ''}; put the "
            "folder back where it was and start the logger again. If it is lost: "
            f"{REBUILD_HINT}"
        )
        raise JournalGone(f"{self._path}: {self._failed}")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction[bytes]]:
        """A read transaction as short as the `with` block: while it lasts, no page is reused."""
        with self._mapped:
            self._refuse_if_unusable()
            with _errors_of(self._path, "reading it", for_writing=self._allocation is not None):
                if self._allocation is None:
                    self._follow_the_writer()
                with self._begin_reading() as txn:
                    yield txn

    def _begin_reading(self) -> lmdb.Transaction[bytes]:
        try:
            return self._env.begin()
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)  # to what the writer made of it
        except lmdb.ReadersFullError:
            self._env.reader_check()  # clears the slots of processes that died
        return self._env.begin()

    def _follow_the_writer(self) -> None:
        """A reader's part: clear the slots of dead readers, and notice a journal that was moved to
        a new file after a failed commit."""
        if not self._unseen:
            self._env.reader_check()
        now = file_id(self._path)
        if now != self._file_id:
            self._env.close()
            self._env, self._unseen = _open_reader(self._path)
            self._file_id = now

    # --- writing ------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> None:
        allocation = self._allocation
        if allocation is None:
            raise InvariantBroken(f"{self._path}: opened read-only, and yet a commit")
        self._refuse_if_unusable()
        size_bytes = _checked_bytes(changes)
        self._refuse_if_gone()  # what is acknowledged out of it would be lost
        self._fence(allocation.ordinary_end)
        while not self._try(changes):
            # Nothing was written: the map ended before the pages did.
            if self._env.reader_check():
                continue  # pages that processes now dead were reading
            if allocation.extend():
                self._fence(allocation.ordinary_end)
            elif use_ballast and self._map_bytes < allocation.end:
                self._fence(allocation.end)
            else:
                raise JournalFull(f"{self._path}: no space for a commit of {len(changes)} changes")
        self._keep_ahead(size_bytes)

    def _try(self, changes: Sequence[Change]) -> bool:
        """Commit; False where the map had no room, so that nothing was changed or written."""
        self._writing = 0
        try:
            self._transact(changes)
        except lmdb.MapFullError:
            return False
        except lmdb.Error as error:
            if self._is_full(error) and self._stands_where_it_stood():
                raise JournalFull(f"{self._path}: {error}") from error
            raise self._fail(error) from error
        return True

    def _transact(self, changes: Sequence[Change]) -> None:
        txn = self._env.begin(write=True)
        self._writing = txn.id()
        try:
            for key, value in changes:
                if value is None:
                    txn.delete(key)
                else:
                    txn.put(key, value)
        except BaseException:
            txn.abort()
            raise
        txn.commit()

    def _is_full(self, error: lmdb.Error) -> bool:
        """Whether the disk had no space; a write that it cut short says EIO."""
        code = _code(error)
        if code in FULL_CODES:
            return True
        if code != errno.EIO:
            return False
        with contextlib.suppress(OSError):
            found = os.statvfs(self._path)
            return found.f_bavail * found.f_frsize < _FULL_BELOW_BYTES
        return False

    def _stands_where_it_stood(self) -> bool:
        """Whether the last commit is known not to have happened: the meta page was not reached.

        Once a meta page failed, LMDB refuses every later transaction, and the outcome is unknown.
        """
        try:
            self._env.begin(write=True).abort()
        except lmdb.Error:
            return False
        last: int = self._env.info()["last_txnid"]
        return not self._writing or last == self._writing - 1

    def _fence(self, end: int) -> None:
        """Let the map end here, so that LMDB takes no page beyond it."""
        if self._map_bytes == end:
            return
        try:
            with self._mapped:
                self._env.set_mapsize(end)
        except lmdb.Error as error:
            raise self._fail(error) from error
        self._map_bytes = end

    def _keep_ahead(self, taken_bytes: int) -> None:
        """Now and then: each call into LMDB waits for its turn at the interpreter, and where the
        space ends meanwhile, the fence holds."""
        allocation = self._allocation
        assert allocation is not None
        self._not_looked_bytes += taken_bytes
        if self._not_looked_bytes < allocation.space.ahead_bytes // 4:
            return
        self._not_looked_bytes = 0
        used_bytes = (self._env.info()["last_pgno"] + 1) * self._page_bytes
        if allocation.keep_ahead(used_bytes):
            self._fence(allocation.ordinary_end)

    def _fail(self, error: lmdb.Error) -> JournalFailed:
        """From here on every call raises, and the next opening is told by a marker."""
        self._failed = str(error)
        mark_failed(self._path, self._failed)
        return JournalFailed(f"{self._path}: {error}")

    def _refuse_if_unusable(self) -> None:
        if self._failed is not None:
            raise JournalFailed(f"{self._path}: a commit failed before: {self._failed}")
        if self._closed:
            raise InvariantBroken(f"{self._path}: the journal is closed")

    # --- closing ------------------------------------------------------------------------------

    def close(self) -> None:
        with self._mapped:
            if self._closed:
                return
            self._closed = True
            self._env.close()
        if self._allocation is not None:
            self._allocation.close()
        self._release(self._path)

    def __enter__(self) -> LmdbJournal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _copy_chunk(
    txn: lmdb.Transaction[bytes], prefix: bytes, after: bytes | None, pairs_max: int
) -> tuple[list[tuple[bytes, bytes]], bool]:
    """Pairs below the prefix that follow `after`, and whether these are the last."""
    pairs: list[tuple[bytes, bytes]] = []
    copied_bytes = 0
    with txn.cursor() as cursor:
        start = prefix if after is None else after
        found = cursor.set_range(start) if start else cursor.first()
        if found and cursor.key() == after:
            found = cursor.next()
        while found and (key := cursor.key()).startswith(prefix):
            if len(pairs) == pairs_max or copied_bytes >= SCAN_BYTES_MAX:
                return pairs, False
            pairs.append((key, cursor.value()))
            copied_bytes += len(pairs[-1][1])
            found = cursor.next()
    return pairs, True


def _checked_bytes(changes: Sequence[Change]) -> int:
    """About what they take at most."""
    size_bytes = len(changes) * _CHANGE_BYTES
    for key, value in changes:
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise InvariantBroken(f"a journal key of {len(key)} bytes; 1 to {KEY_BYTES_MAX} can be")
        if value is not None and len(value) > JOURNAL_VALUE_BYTES_MAX:
            raise InvariantBroken(
                f"a journal value of {len(value)} bytes; {JOURNAL_VALUE_BYTES_MAX} can be"
            )
        size_bytes += len(value or b"")
    return size_bytes


def _code(error: OSError | lmdb.Error) -> int:
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
    return code or 0


@contextlib.contextmanager
def _errors_of(path: Path, doing: str, *, for_writing: bool = True) -> Iterator[None]:
    try:
        yield
    except (OSError, lmdb.Error) as error:
        if _code(error) in FULL_CODES:
            raise DiskFull(f"no space for {doing}: {error}", path=str(path)) from error
        if _code(error) in EXHAUSTED_CODES:
            raise ResourcesExhausted(f"{path}: {doing}: {error}") from error
        if _code(error) in SHUT_CODES and not for_writing:
            raise NotReadable(f"{path}: {_words(error)}") from error
        # LMDB's own codes, for what a file should not hold, are negative; the system's are not.
        hint = f"; {REBUILD_HINT}" if _code(error) < 0 else ""
        raise JournalUnreadable(f"{path}: {doing}: {error}{hint}") from error


def _words(error: OSError | lmdb.Error) -> str:
    return os.strerror(_code(error))


def _refuse_unreadable(path: Path, live_prefixes: Sequence[bytes], *, for_writing: bool) -> None:
    try:
        os.stat(path / DATA_NAME)
    except FileNotFoundError:
        raise JournalUnreadable(f"{path}: no journal there; {REBUILD_HINT}") from None
    verdict = probe(path, live_prefixes, for_writing=for_writing)
    if not verdict.damaged:
        raise ResourcesExhausted(verdict.reason)
    if not verdict.readable:
        raise JournalUnreadable(f"{verdict.reason}; {REBUILD_HINT}")


def _open_environment(
    path: Path, *, map_size: int = 0, readonly: bool = False, lock: bool = True
) -> lmdb.Environment:
    """Always synchronous: LMDB without sync would report commits that no disk has seen."""
    with _as_text(path) as text:
        return lmdb.open(
            text,
            map_size=map_size,
            readonly=readonly,
            lock=lock,
            create=False,
            max_readers=READERS_MAX,
            max_dbs=0,
            lib_version=0,  # of a new one; the format of an existing one decides
        )


@contextlib.contextmanager
def _as_text(path: Path) -> Iterator[str]:
    """LMDB takes no path that is not UTF-8, where a copy of a journal may stand all the same."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)
    else:
        yield str(path)


def _open_reader(path: Path) -> tuple[lmdb.Environment, bool]:
    """Read-only, and whether no writer will know of it."""
    unseen = not may_register(path)
    return _open_environment(path, readonly=True, lock=not unseen), unseen


def _copy_environment(path: Path, fd: int) -> None:
    """Not a compact copy: that would begin to count transactions anew, while a reader in another
    process may keep a lock table alive that says how far the old file had counted."""
    with _open_environment(path, readonly=True, lock=False) as env:
        env.copyfd(fd, compact=False)


def _build(path: Path, space: JournalSpace) -> None:
    path.mkdir(exist_ok=True)
    data = path / DATA_NAME
    for left in (data, path / LOCK_NAME):  # by a creation that was cut off
        left.unlink(missing_ok=True)
    data.touch()
    allocate_lock_file(path)
    with _open_environment(path, map_size=8 * _FREE_PAGES_BYTES) as env:
        # Free pages: a commit takes these before it makes the file longer.
        with env.begin(write=True) as txn:
            txn.put(b"ballast", bytes(_FREE_PAGES_BYTES))
        with env.begin(write=True) as txn:
            txn.delete(b"ballast")
    allocate_first(data, space)
    sync_directory(path)
