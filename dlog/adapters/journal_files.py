"""The files of a journal before LMDB sees them, and the disk space behind them; it never opens an
environment.

In a journal's folder: data.mdb; lock.mdb, which may be lost; journal.failed, while a commit of
unknown outcome waits for the next opening; data.mdb.copy, a copy being made; data.mdb.failed-N, the
files that such copies took the place of.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dlog.adapters.child_processes import begun_deaf
from dlog.adapters.journal_probe import UNABLE
from dlog.errors import JournalUnreadable, NotReadable
from dlog.limits import JOURNAL_ASIDES_KEPT_MAX, JOURNAL_MAP_BYTES_MAX, KIB, MIB

DATA_NAME: Final = "data.mdb"
LOCK_NAME: Final = "lock.mdb"
FAILED_NAME: Final = "journal.failed"
COPY_NAME: Final = "data.mdb.copy"
ASIDE_PREFIX: Final = "data.mdb.failed-"

BALLAST_BYTES_DEFAULT: Final = 4 * MIB
AHEAD_BYTES_DEFAULT: Final = 8 * MIB
READERS_MAX: Final = 126
PROBE_SECONDS_MAX: Final = 60.0
FULL_CODES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What says that a reader was kept out, or its server is away, and nothing of what it would read.
SHUT_CODES: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN}
)
REBUILD_HINT: Final = "`dlog journal rebuild DATA` makes a new one from the event files"

_PROBE_PROGRAM: Final = Path(__file__).with_name("journal_probe.py")
# What LMDB makes of READERS_MAX readers.
_LOCK_BYTES: Final = 8 * KIB
# A multiple of every page size that Linux has.
_STEP_BYTES_MIN: Final = 64 * KIB
# A large journal grows by no more than this at a time: the disk is for the events.
_STEP_BYTES_MAX: Final = 64 * MIB

# A meta page of LMDB 0.9 (lmdb's mdb.c: MDB_page, MDB_meta, MDB_db), in the machine's byte order.
# Page number, pad, flags, two unused; magic, version, address, map size.
_META_HEAD: Final = struct.Struct("=QHHHHIIQQ")
# Pad (in the first: the page size), flags, depth, three page counts, entries, root.
_META_TREE: Final = struct.Struct("=IHHQQQQQ")
_META_TAIL: Final = struct.Struct("=QQ")  # last page, transaction
_META_BYTES: Final = _META_HEAD.size + 2 * _META_TREE.size + _META_TAIL.size
assert _META_BYTES == 152
_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_P_META: Final = 0x08
_PAGE_SIZES: Final = frozenset(1 << n for n in range(9, 17))


# --- disk space -------------------------------------------------------------------------------


class JournalSpace(NamedTuple):
    """How the disk space of a journal is divided, in bytes."""

    map_bytes_max: int = JOURNAL_MAP_BYTES_MAX
    ballast_bytes: int = BALLAST_BYTES_DEFAULT
    ahead_bytes: int = AHEAD_BYTES_DEFAULT


class Allocation:
    """The disk space of data.mdb: allocated from 0 to `end`, the last of it being the ballast."""

    def __init__(self, data: Path, space: JournalSpace) -> None:
        self.space = space
        self._fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        self.end = size - size % _STEP_BYTES_MIN
        # A journal that was copied or restored may have holes where the space was; where it cannot
        # be had again, only the free pages among those in use are left.
        if not self._allocate(0, self.end):
            found = meta_pages(data)
            used_bytes = (found.last_page + 1) * found.page_bytes
            self.end = used_bytes - used_bytes % _STEP_BYTES_MIN

    @property
    def ordinary_end(self) -> int:
        """Where ordinary commits must stop."""
        # Not 0, which would mean "as large as before"; LMDB lets no map end before its last page.
        return max(_STEP_BYTES_MIN, self.end - self.space.ballast_bytes)

    def keep_ahead(self, used_bytes: int) -> bool:
        """Allocate before it is needed, while the disk has room; whether the end moved."""
        if self.ordinary_end - used_bytes >= self.space.ahead_bytes:
            return False
        return self.extend(at_least=used_bytes + self.space.ahead_bytes)

    def extend(self, *, at_least: int = 0) -> bool:
        """Allocate more, as far as disk and limit allow; whether it is any more than before."""
        growth = min(max(self.end // 8, _STEP_BYTES_MIN), _STEP_BYTES_MAX)
        wanted = max(growth, self.space.ahead_bytes)
        end = max(self.end + wanted, at_least + self.space.ballast_bytes)
        step = min(end, self.space.map_bytes_max) - self.end
        # Asked first, since an allocation that fails may leave its first part allocated.
        step = min(step, self._free_bytes())
        while (step := step - step % _STEP_BYTES_MIN) > 0:
            if self._allocate(self.end, step):
                self.end += step
                return True
            step //= 2
        return False

    def whereabouts(self) -> str:
        """What became of data.mdb, where its name no longer leads to it."""
        if os.fstat(self._fd).st_nlink == 0:
            return "was deleted"
        with contextlib.suppress(OSError):  # without /proc the place is not known
            return f"was moved to {Path(os.readlink(f'/proc/self/fd/{self._fd}')).parent}"
        return "was moved"

    def close(self) -> None:
        os.close(self._fd)

    def _allocate(self, begin: int, count: int) -> bool:
        if count == 0:
            return True
        try:
            os.posix_fallocate(self._fd, begin, count)
        except OSError:
            return False
        return True

    def _free_bytes(self) -> int:
        found = os.fstatvfs(self._fd)
        return found.f_bavail * found.f_frsize


def allocate_first(data: Path, space: JournalSpace) -> None:
    """Space behind the pages of a new data.mdb, and all of it durable."""
    fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
    try:
        end = os.fstat(fd).st_size + space.ahead_bytes + space.ballast_bytes
        os.posix_fallocate(fd, 0, end + -end % _STEP_BYTES_MIN)
        os.fsync(fd)
    finally:
        os.close(fd)


def allocate_lock_file(path: Path) -> None:
    """LMDB writes its lock file through memory: without space for it, that is a SIGBUS.

    Not while this process has the journal open: closing any descriptor of the lock file drops the
    locks that the process holds on it.
    """
    fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        found = os.fstat(fd)
        if found.st_size < _LOCK_BYTES or found.st_blocks * 512 < _LOCK_BYTES:
            os.posix_fallocate(fd, 0, _LOCK_BYTES)
    finally:
        os.close(fd)


def may_register(path: Path) -> bool:
    """Whether a reader may enter itself into the lock file, so that no page that it reads is used
    again meanwhile. It makes none: a lock file of another user would keep the logger out."""
    try:
        fd = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # LMDB writes it through memory: without space for it, that is a SIGBUS.
        found = os.fstat(fd)
        return found.st_size >= _LOCK_BYTES and found.st_blocks * 512 >= _LOCK_BYTES
    finally:
        os.close(fd)


# --- meta pages -------------------------------------------------------------------------------


class MetaPages(NamedTuple):
    """What the newer of the two meta pages says."""

    page_bytes: int
    last_page: int
    transaction: int


def meta_pages(data: Path) -> MetaPages:
    found = _judge_meta_pages(data)
    if isinstance(found, str):
        raise JournalUnreadable(f"{found}; {REBUILD_HINT}")
    return found


def _judge_meta_pages(data: Path) -> MetaPages | str:
    """The newer meta page, or what is wrong with them."""
    with data.open("rb") as file:
        first = file.read(_META_BYTES)
        if len(first) < _META_BYTES:
            return f"{data} ends after {len(first)} bytes, inside its first meta page"
        page_bytes = _META_TREE.unpack_from(first, _META_HEAD.size)[0]
        if page_bytes not in _PAGE_SIZES:
            return f"{data} at byte 0: no meta page of a journal"
        file.seek(page_bytes)
        second = file.read(_META_BYTES)
    metas = []
    for number, page in enumerate((first, second)):
        meta = _meta(page, number, page_bytes)
        if meta is None:
            return f"{data} at byte {number * page_bytes}: no meta page of a journal"
        metas.append(meta)
    newer = metas[1] if metas[0].transaction < metas[1].transaction else metas[0]
    # The size is asked last: the writer of a running logger may be growing the file.
    size = data.stat().st_size
    needed = (newer.last_page + 1) * page_bytes
    if size < needed:
        return f"{data} is truncated: {size} of at least {needed} bytes"
    return newer


def _meta(page: bytes, number: int, page_bytes: int) -> MetaPages | None:
    if len(page) < _META_BYTES:
        return None
    head = _META_HEAD.unpack_from(page)
    tree = _META_TREE.unpack_from(page, _META_HEAD.size)
    last_page, transaction = _META_TAIL.unpack_from(page, _META_BYTES - _META_TAIL.size)
    if (head[0], head[2] & _P_META, head[5], head[6]) != (number, _P_META, _MAGIC, _VERSION):
        return None
    return MetaPages(page_bytes, last_page, transaction) if tree[0] == page_bytes else None


def rewrite_meta_pages(data: Path) -> None:
    """Write the meta pages as they read, and sync.

    The marker of a failed commit may itself have failed. Should the disk hold a newer meta page
    than the kernel shows (LMDB puts the old one back, but only into the page cache), then a power
    cut after further commits would bring it back, with its pages overwritten.
    """
    found = meta_pages(data)
    fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
    try:
        pages = os.pread(fd, 2 * found.page_bytes, 0)
        if os.pwrite(fd, pages, 0) != len(pages):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(fd)
    finally:
        os.close(fd)


# --- probing ----------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """Whether the journal can be read without dying; if not, why, for people. damaged: False where
    nothing is known of it, since the system gave too little to look."""

    readable: bool
    reason: str = ""
    damaged: bool = True


def probe(path: Path, live_prefixes: Sequence[bytes], *, for_writing: bool) -> Verdict:
    """Judge the meta pages here, and let a child read everything below the prefixes; with none,
    for a process that is itself expendable, there is no child.

    LMDB trusts its file: a truncated or scrambled one ends the process that reads it with a signal.
    `for_writing` also asks for the pages that the next commit would touch; only for whoever holds
    the lock of the data directory, since it goes past the journal's own locks.
    """
    data = path / DATA_NAME
    try:
        found = _judge_meta_pages(data)
    except OSError as error:
        if error.errno in SHUT_CODES and not for_writing:
            raise NotReadable(f"{data}: {error.strerror}") from error
        return Verdict(False, f"{data}: {error.strerror}")
    if isinstance(found, str):
        return Verdict(False, found)
    if not live_prefixes:
        return Verdict(True)
    specification = importlib.util.find_spec("lmdb")
    if specification is None or specification.origin is None:
        return Verdict(False, "lmdb is not installed")
    packages = str(Path(specification.origin).parent.parent)
    mode = "write" if for_writing else "read"
    # Isolated and without site, which halves the start of an interpreter.
    command = [sys.executable, "-I", "-S", str(_PROBE_PROGRAM), packages, mode, str(path)]
    try:
        # A probe that Ctrl-C ended would say that nothing can be read.
        with begun_deaf():
            child = subprocess.Popen(
                command + [prefix.hex() for prefix in live_prefixes],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        said, words = _output(child)
    except subprocess.TimeoutExpired:
        return Verdict(False, f"{path}: reading it did not end in {PROBE_SECONDS_MAX:.0f} s")
    except OSError as error:
        return _unable(path, f"no process to read it with: {error.strerror}")
    return _verdict(path, child.returncode, said.splitlines(), words)


def _output(child: subprocess.Popen[str]) -> tuple[str, str]:
    with child:
        try:
            return child.communicate(timeout=PROBE_SECONDS_MAX)
        except BaseException:
            child.kill()
            raise


def _unable(path: Path, why: str) -> Verdict:
    return Verdict(False, f"{path}: {why}; nothing is known to be wrong with it", damaged=False)


def _verdict(path: Path, code: int, said: list[str], words: str) -> Verdict:
    if code == 0 and said[-1:] == ["readable"]:
        return Verdict(True)
    if not said or code == UNABLE:
        # It says a word before it touches the journal.
        last = [*said, *words.strip().splitlines()[-1:]]
        return _unable(path, f"the process to read it with failed: {(last or ['no words'])[-1]}")
    doing = said[-1]
    if code == -signal.SIGKILL:
        return _unable(path, f"the process to read it with was killed while {doing}")
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return Verdict(False, f"{path} is damaged: {name} while {doing}")
    return Verdict(False, f"{path} is damaged: {doing}")


# --- after a commit of unknown outcome --------------------------------------------------------


def mark_failed(path: Path, reason: str) -> None:
    """Tell the next opening, if the disk lets us."""
    with contextlib.suppress(OSError):
        fd = os.open(path / FAILED_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # The name alone is the message; it counts where the words do not fit.
            sync_directory(path)
            os.write(fd, f"{reason}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)


def is_marked_failed(path: Path) -> bool:
    return (path / FAILED_NAME).exists()


def move_to_new_file(path: Path, copy_environment: Callable[[int], None]) -> None:
    """What the kernel shows of data.mdb and what the disk holds may differ: so all of it is written
    once more, by `copy_environment` to the descriptor of a new file, which then takes its place.

    Each step can be the last one: until the marker goes, the next opening begins again.
    """
    data, copy, aside = path / DATA_NAME, path / COPY_NAME, _next_aside_name(path)
    fd = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        copy_environment(fd)
        os.fsync(fd)
    except BaseException:
        copy.unlink(missing_ok=True)  # a full disk gets its space back
        raise
    finally:
        os.close(fd)
    # The old file gets its second name before the first is taken: there is always a data.mdb.
    os.link(data, aside)
    sync_directory(path)
    os.rename(copy, data)
    sync_directory(path)
    (path / FAILED_NAME).unlink()
    sync_directory(path)
    # The new file needs the space that the old one had allocated beyond its pages.
    os.truncate(aside, data.stat().st_size)
    _drop_old_asides(path)


def _asides(path: Path) -> list[int]:
    """The numbers of the files that failed, the oldest first."""
    ends = [name.removeprefix(ASIDE_PREFIX) for name in os.listdir(path) if ASIDE_PREFIX in name]
    return sorted(int(end) for end in ends if end.isdecimal())


def _next_aside_name(path: Path) -> Path:
    return path / f"{ASIDE_PREFIX}{max([0, *_asides(path)]) + 1}"


def _drop_old_asides(path: Path) -> None:
    """They are for whoever looks into the failure, and take the journal's space once more each. No
    opening reads them: what they held is in data.mdb."""
    old = _asides(path)[:-JOURNAL_ASIDES_KEPT_MAX]
    for number in old:
        (path / f"{ASIDE_PREFIX}{number}").unlink()
    if old:
        sync_directory(path)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_id(path: Path) -> tuple[int, int]:
    """Which file data.mdb is now."""
    found = os.stat(path / DATA_NAME)
    return found.st_dev, found.st_ino
