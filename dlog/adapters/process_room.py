"""Whether the system still gives this process what libzmq needs for a context.

libzmq ends the process where it gets no descriptor, memory or thread: so all three are taken and
given back before each context is made.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from typing import Final

from dlog.errors import ResourcesExhausted
from dlog.limits import MIB

# What a system call says where a limit of the process or of the system is reached.
EXHAUSTED_CODES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
# A context with its two threads and its first sockets.
_DESCRIPTORS: Final = 16
_THREADS: Final = 2
_MEMORY_BYTES: Final = 64 * MIB


def require_room_for_sockets() -> None:
    """Raises `ResourcesExhausted` where a context could not be made."""
    with contextlib.ExitStack() as taken:
        try:
            for _ in range(_DESCRIPTORS):
                taken.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise ResourcesExhausted(
                f"too few file descriptors for a socket ({error.strerror}); more are allowed by "
                "`ulimit -n`, or LimitNOFILE of systemd"
            ) from error
        try:
            taken.callback(mmap.mmap(-1, _MEMORY_BYTES).close)
        except (OSError, MemoryError) as error:
            raise ResourcesExhausted(
                f"no {_MEMORY_BYTES // MIB} MiB of memory for a socket and its threads; is the "
                "process limited (`ulimit -v`)?"
            ) from error
        may_end = threading.Event()
        taken.callback(may_end.set)
        try:
            for _ in range(_THREADS):
                threading.Thread(target=may_end.wait, daemon=True).start()
        except RuntimeError as error:
            raise ResourcesExhausted(
                f"no thread for a socket ({error}); is their number limited (`ulimit -u`), or "
                "memory (`ulimit -v`)?"
            ) from error
