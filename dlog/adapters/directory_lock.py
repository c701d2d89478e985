"""The lock that keeps a second logger off a data directory; it never breaks a lock.

An flock on `DATA/lock`, so the kernel releases it with the process, however that dies. The file
stays where it is: removing it would let two loggers lock two files of the same name. Should
somebody else remove it, the flock on DATA itself still holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Final

from dlog.adapters.owners import denied
from dlog.errors import DataDirectoryGone, LockedByAnother

LOCK_NAME: Final = "lock"
_PID_BYTES_MAX: Final = 32
LOOK_SECONDS_MAX: Final = 0.5


class DirectoryLock:
    """Held from `acquire` until `release`, the end of the `with` block or the process's death."""

    def __init__(self, root: Path, *fds: int) -> None:
        self._root = root
        self._fds = fds
        # An flock belongs to the open file, which a forked child shares: without this, a child that
        # outlives the logger would keep the next one out.
        os.register_at_fork(after_in_child=_ChildsCopy(self))

    @classmethod
    def acquire(cls, root: Path) -> DirectoryLock:
        """Raises `LockedByAnother`, naming the process that holds the directory."""
        fd = _open_lock_file(root)
        try:
            _lock(fd)
        except OSError as error:
            holder = _read_pid(fd)
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise DataDirectoryGone(f"{root}: cannot be locked: {error.strerror}") from error
            who = "its process number is not known" if holder is None else f"process {holder}"
            raise LockedByAnother(f"{root}: another logger runs on it ({who})") from None
        try:
            root_fd = _lock_root(root)
        except BaseException:
            os.close(fd)
            raise
        _write_pid(fd)
        return cls(root, fd, root_fd)

    @property
    def root(self) -> Path:
        return self._root

    def release(self) -> None:
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def is_locked(root: Path) -> bool | None:
    """Whether a logger runs on the data directory; None where that cannot be seen."""
    seen = [_is_locked(path) for path in (root / LOCK_NAME, root)]
    return True if True in seen else None if None in seen else False


def _is_locked(path: Path) -> bool | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a filesystem that cannot lock it
        return False
    finally:
        os.close(fd)
    return False


def _lock(fd: int) -> None:
    """`is_locked` holds the lock, shared, for the moment that it takes to see whether one runs:
    that is not another logger, and is waited for."""
    deadline = time.monotonic() + LOOK_SECONDS_MAX
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK or time.monotonic() > deadline:
                raise
            time.sleep(LOOK_SECONDS_MAX / 20)
        else:
            return


def _lock_root(root: Path) -> int:
    """Lock the directory too, where its filesystem can (NFS cannot); its descriptor."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            os.close(fd)
            raise LockedByAnother(
                f"{root}: another logger runs on it, whose file {LOCK_NAME} was deleted"
            ) from None
    return fd


def _open_lock_file(root: Path) -> int:
    try:
        return os.open(root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise DataDirectoryGone(
            f"no lock can be taken: {denied(error, root / LOCK_NAME)}"
        ) from error


def _read_pid(fd: int) -> int | None:
    text = os.pread(fd, _PID_BYTES_MAX, 0).strip()
    return int(text) if text.isdigit() else None


def _write_pid(fd: int) -> None:
    # Only words for people: a full disk must not keep the logger from its directory.
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)


class _ChildsCopy:
    """Called in a forked child to close its copy; weak, since a fork hook is never unregistered."""

    def __init__(self, lock: DirectoryLock) -> None:
        self._lock = weakref.ref(lock)

    def __call__(self) -> None:
        lock = self._lock()
        if lock is not None:
            lock.release()
