"""A recorded file, opened for reading: bounded reads, and errors that say where. It owns the one
open file and its offset, and never judges what the bytes mean."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from dlog.errors import FormatError, StorageError
from dlog.limits import EVENT_BYTES_MAX, KIB, MIB

FIRST_BYTES_MAX: Final = 4 * KIB
READ_AHEAD_BYTES: Final = MIB


class Recording:
    """The file, at the offset up to which it was read."""

    __slots__ = ("_file", "offset_bytes", "path", "size_bytes")

    def __init__(self, path: Path, file: BinaryIO, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes  # as it was opened: what is appended later is not replayed
        self.offset_bytes = 0
        self._file = file

    @property
    def left_bytes(self) -> int:
        return self.size_bytes - self.offset_bytes

    def take(self, size_bytes: int) -> bytes:
        """The next bytes, at most one event's; fewer only where the file ends."""
        if size_bytes > EVENT_BYTES_MAX:
            raise self.error(f"an event of {size_bytes} B, where {EVENT_BYTES_MAX} B is the limit")
        try:
            taken = self._file.read(min(size_bytes, self.left_bytes))
        except OSError as error:
            raise self._storage_error(error) from error
        self.offset_bytes += len(taken)
        return taken

    def ahead(self, size_bytes: int) -> bytes:
        """The next bytes, without going on; fewer only where the file ends."""
        most = min(size_bytes, self.left_bytes, FIRST_BYTES_MAX)
        try:
            return os.pread(self._file.fileno(), most, self.offset_bytes)
        except OSError as error:
            raise self._storage_error(error) from error

    def line(self) -> bytes:
        """Up to the next newline, and with it; empty at the end of the file."""
        # One byte more than allowed tells a line that is too long from one that just fits.
        try:
            line = self._file.readline(min(EVENT_BYTES_MAX + 1, self.left_bytes))
        except OSError as error:
            raise self._storage_error(error) from error
        if len(line) > EVENT_BYTES_MAX:
            raise self.error(f"a line of more than {EVENT_BYTES_MAX} B, the limit of an event")
        self.offset_bytes += len(line)
        return line

    def error(self, reason: str) -> FormatError:
        """What is wrong with the bytes at the offset that was reached."""
        return FormatError(reason, path=str(self.path), offset_bytes=self.offset_bytes)

    def _storage_error(self, error: OSError) -> StorageError:
        return storage_error(error, self.path, self.offset_bytes)


@contextmanager
def opened(path: Path, *, may_be_empty: bool = False) -> Iterator[Recording]:
    """A regular file for reading, from its beginning; an empty one is refused unless told."""
    try:
        file = open(path, "rb", buffering=READ_AHEAD_BYTES, opener=_not_blocking)  # noqa: SIM115
    except OSError as error:
        raise storage_error(error, path) from error
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FormatError("not a regular file: no events are read from it", path=str(path))
        if status.st_size == 0 and not may_be_empty:
            raise FormatError("the file is empty: it holds no event", path=str(path))
        yield Recording(path, file, status.st_size)


def _not_blocking(path: str, flags: int) -> int:
    # The open of a pipe that nobody writes to would wait for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def first_bytes(path: Path) -> bytes:
    """What a format may be recognised by; nothing for a folder or anything else but a file."""
    if not path.is_file():
        return b""
    with opened(path, may_be_empty=True) as recording:
        return recording.ahead(FIRST_BYTES_MAX)


def storage_error(error: OSError, path: Path, offset_bytes: int = 0) -> StorageError:
    reason = error.strerror or str(error)
    return StorageError(reason, path=str(path), offset_bytes=offset_bytes)
