"""What glibc does with the memory of messages that are freed: here, it keeps it for the next.

By itself it gives the end of each arena back to the system, and every message then pays for its
pages again. How much there is at once is bounded by the windows, not here.
"""

from __future__ import annotations

import ctypes
from typing import Final

from dlog.limits import GIB, MIB

_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> None:
    """For the whole process; nothing is done where the C library is another one."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    for option, value in (
        (_TRIM_THRESHOLD, GIB),
        # Without this, whole arenas still go: it is what one keeps at its end.
        (_TOP_PAD, 64 * MIB),
        # The largest that glibc takes; above it, each message would be a mapping of its own.
        (_MMAP_THRESHOLD, 32 * MIB),
    ):
        libc.mallopt(option, value)
