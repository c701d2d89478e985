"""The bytes of one file, for reading alone: opened under either of its names, never written."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from dlog.core.block import HEADER_BYTES
from dlog.core.event_file import FileHeader, decode_file_header
from dlog.core.run_files import PART_SUFFIX
from dlog.errors import DlogError, StorageError
from dlog.limits import PAGE_BYTES

# Without O_NONBLOCK the open of a pipe would wait for its other end.
READ_ONLY: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class FileBytes:
    """An open file descriptor; `dlog.core.scan` reads from it too."""

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, and `StorageError` where it is no regular file."""
        self.path = path
        try:
            self._fd = os.open(path, READ_ONLY)
        except FileNotFoundError:
            # It may have been closed meanwhile, and so renamed.
            if path.suffix != PART_SUFFIX:
                raise
            self.path = path.with_suffix("")
            self._fd = os.open(self.path, READ_ONLY)
        mode = os.fstat(self._fd).st_mode
        if not stat.S_ISREG(mode):
            os.close(self._fd)
            what = "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
            raise StorageError(f"{what}: no event file", path=str(path))

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, size: int) -> memoryview:
        """Read-only bytes in memory of their own; fewer than `size` only at the end of the file."""
        # Bounded by the file: a length in it, though checked, is no reason to take that much.
        wanted = max(0, min(size, self.size() - offset))
        buffer = memoryview(cast(Any, np.empty(wanted, np.uint8)))
        return buffer[: self.read_into(offset, buffer)].toreadonly()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            try:
                got = os.preadv(self._fd, [buffer[filled:]], offset + filled)
            except OSError as error:
                raise StorageError(
                    error.strerror or str(error), path=str(self.path), offset_bytes=offset + filled
                ) from error
            if got == 0:
                break
            filled += got
        return filled

    def next_data(self, offset: int) -> int:
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: nothing but a hole up to the end. Others: this filesystem knows no holes.
            return self.size() if error.errno == errno.ENXIO else offset

    def close(self) -> None:
        os.close(self._fd)


def header_of(path: Path) -> FileHeader | None:
    """The header of a file, None where it cannot be read or does not hold."""
    with suppress(DlogError, OSError), closing(FileBytes(path)) as file:
        return decode_file_header(file.read(0, PAGE_BYTES), path=str(path))
    return None


class Window:
    """The bytes around where a walk stands. Views of it stay valid: it never reads into the same
    memory twice."""

    def __init__(self, file: FileBytes, chunk_bytes: int) -> None:
        self._file = file
        self._chunk_bytes = chunk_bytes
        self._block_bytes = PAGE_BYTES
        self._begin = 0
        self._data = memoryview(b"")

    def view(self, offset: int, size: int) -> memoryview:
        """Bytes from `offset` on: `size` of them, fewer only at the end of the file."""
        if size > HEADER_BYTES:
            self._block_bytes = size
        at = offset - self._begin
        if at < 0 or at + size > len(self._data):
            # Whole blocks of the size of the last one, so that few are read twice.
            blocks = max(1, self._chunk_bytes // self._block_bytes)
            self._data = self._file.read(offset, max(size, blocks * self._block_bytes))
            self._begin, at = offset, 0
        return self._data[at : at + size]

    def forget(self) -> None:
        self._data = memoryview(b"")
