"""What an error number of the system means for the logger: one table. It does no I/O."""

from __future__ import annotations

import enum
import errno
from typing import Final

from dlog.errors import DiskFull, FileTooLarge, NameTaken, NoDescriptor, StorageError


class Meaning(enum.Enum):
    FULL = "the filesystem takes no more"
    TOO_LONG = "no file may be so long: its part is full"
    SHORT = "no descriptor or memory is left: it says nothing about the disk"
    TAKEN = "the name is taken"
    LINK = "a symbolic link, which is not followed inside a data directory"
    FAULT = "the file or its directory cannot be used"  # every number that has no row


TABLE: Final = {
    errno.ENOSPC: Meaning.FULL,
    errno.EDQUOT: Meaning.FULL,
    errno.EFBIG: Meaning.TOO_LONG,
    errno.EMFILE: Meaning.SHORT,
    errno.ENFILE: Meaning.SHORT,
    errno.ENOMEM: Meaning.SHORT,
    errno.EAGAIN: Meaning.SHORT,
    errno.EEXIST: Meaning.TAKEN,
    errno.ELOOP: Meaning.LINK,
}


def meaning(error: OSError) -> Meaning:
    """What it means; a number that is not in the table is a fault."""
    return TABLE.get(error.errno or 0, Meaning.FAULT)


def storage_error(error: OSError, path: str, offset_bytes: int = 0) -> StorageError:
    """The error of dlog that stands for one of the system."""
    reason = error.strerror or str(error)
    match meaning(error):
        case Meaning.FULL:
            return DiskFull(reason, path=path, offset_bytes=offset_bytes)
        case Meaning.TOO_LONG:
            return FileTooLarge(reason, path=path, offset_bytes=offset_bytes)
        case Meaning.SHORT:
            return NoDescriptor(reason, path=path, offset_bytes=offset_bytes)
        case Meaning.TAKEN:
            return NameTaken(reason, path=path)
        case Meaning.LINK:
            return StorageError(Meaning.LINK.value, path=path, offset_bytes=offset_bytes)
        case Meaning.FAULT:
            return StorageError(reason, path=path, offset_bytes=offset_bytes)
