"""What the disk takes without a logger: the limit that a logger is measured against.

Plain system calls, none of dlog's own code: what it measures must not change with what it judges.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
import time
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import numpy as np

from dlog.adapters.journal import LmdbJournal
from dlog.errors import Error
from dlog.limits import MIB

BLOCK_BYTES: Final = MIB
SYNC_BYTES: Final = 8 * MIB
AHEAD_BYTES: Final = 64 * MIB
_REFUSED: Final = (errno.EINVAL, errno.EOPNOTSUPP)


class DiskRate(msgspec.Struct, frozen=True, kw_only=True):
    """files: written in parallel. direct: O_DIRECT was taken. synced: with fdatasync."""

    files: int
    bytes: int
    seconds: float
    direct: bool
    synced: bool = True

    @property
    def rate(self) -> float:
        return self.bytes / self.seconds


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    p50: float
    p99: float
    count: int


class _Writer:
    """One file, one thread: blocks of 1 MiB, reserved ahead, fdatasync every 8 MiB."""

    def __init__(self, path: Path, *, synced: bool) -> None:
        self._path = path
        self._synced = synced
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.direct = _set_direct(self.fd)
        self.bytes = 0
        self.error: OSError | None = None
        self._reserved = 0

    def run(self, until: float, bytes_max: int) -> None:
        try:
            self._write(until, bytes_max)
        except OSError as error:
            self.error = error

    def _write(self, until: float, bytes_max: int) -> None:
        memory = mmap.mmap(-1, BLOCK_BYTES)
        memory[:] = np.random.default_rng(self.fd).bytes(BLOCK_BYTES)
        since_sync = 0
        while self.bytes < bytes_max and time.monotonic() < until:
            if self.bytes + BLOCK_BYTES > self._reserved:
                self._reserve()
            os.pwrite(self.fd, memory, self.bytes)
            self.bytes += BLOCK_BYTES
            since_sync += BLOCK_BYTES
            if since_sync >= SYNC_BYTES:
                self._sync()
                since_sync = 0
        self._sync()

    def _reserve(self) -> None:
        try:
            os.posix_fallocate(self.fd, self._reserved, AHEAD_BYTES)
        except OSError as error:
            if error.errno not in (*_REFUSED, errno.ENOSYS):
                raise
        self._reserved += AHEAD_BYTES

    def _sync(self) -> None:
        if not self._synced:
            return
        os.fdatasync(self.fd)
        if not self.direct:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def remove(self) -> None:
        os.close(self.fd)
        self._path.unlink(missing_ok=True)


def write_in_parallel(
    folder: Path, *, files: int, seconds: float, bytes_max: int, synced: bool = True
) -> DiskRate:
    """Files written by as many threads. Raises `Error` where the disk refuses."""
    writers: list[_Writer] = []
    try:
        for i in range(files):
            writers.append(_Writer(folder / f"disk-{i}", synced=synced))
        begin = time.monotonic()
        threads = [
            threading.Thread(target=w.run, args=(begin + seconds, bytes_max // files), daemon=True)
            for w in writers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end = time.monotonic()
        for writer in writers:
            if writer.error is not None:
                raise Error(f"{folder}: {writer.error.strerror}")
        return DiskRate(
            files=files,
            bytes=sum(w.bytes for w in writers),
            seconds=end - begin,
            direct=all(w.direct for w in writers),
            synced=synced,
        )
    except OSError as error:
        raise Error(f"{folder}: {error.strerror}") from error
    finally:
        for writer in writers:
            writer.remove()
        os.sync()


def sync_latency(folder: Path, *, seconds: float) -> Latency:
    """Of one page written and fdatasynced: what an acknowledgement waits for at least, twice."""
    writer = _Writer(folder / "latency", synced=True)
    try:
        memory = mmap.mmap(-1, 4096)
        memory[:] = b"x" * 4096
        taken = []
        os.posix_fallocate(writer.fd, 0, 4 * MIB)
        end = time.monotonic() + seconds
        for i in range(1000):
            begin = time.perf_counter()
            os.pwrite(writer.fd, memory, i * 4096)
            os.fdatasync(writer.fd)
            taken.append(time.perf_counter() - begin)
            if time.monotonic() > end and i >= 10:
                break
        return _latency(taken)
    except OSError as error:
        raise Error(f"{folder}: {error.strerror}") from error
    finally:
        writer.remove()


def journal_latency(folder: Path, *, seconds: float) -> Latency:
    """Of a commit as the logger makes them: some small records."""
    taken: list[float] = []
    with LmdbJournal.create(folder / "journal") as journal:
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(taken) < 10:
            number = len(taken)
            value = number.to_bytes(8, "little") * 40
            changes = [(f"bench/{i}".encode(), value) for i in range(8)]
            begin = time.perf_counter()
            journal.commit(changes)
            taken.append(time.perf_counter() - begin)
    return _latency(taken)


def filesystem_of(folder: Path) -> str:
    """Its type, as the kernel names it; "" where that cannot be told."""
    here = os.stat(folder).st_dev
    found = ""
    try:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            major, minor = before.split()[2].split(":")
            if os.makedev(int(major), int(minor)) == here:
                found = after.split()[0]
    except OSError:
        return ""
    return found


def _set_direct(fd: int) -> bool:

    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
        os.pwrite(fd, mmap.mmap(-1, 4096), 0)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)
        return False
    return True


def _latency(taken: list[float]) -> Latency:
    ordered = sorted(taken)
    return Latency(
        p50=median(ordered) * 1e3, p99=ordered[int(0.99 * (len(ordered) - 1))] * 1e3,
        count=len(ordered),
    )  # fmt: skip
