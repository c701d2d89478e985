"""Names of threads as the system shows them: `top -H`, and who measures what each of them takes.

Python keeps the names that it gives to itself. It decides nothing and never fails.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Final

_SET_NAME: Final = 15  # PR_SET_NAME
_LETTERS_MAX: Final = 15  # of Linux


def show_thread_name() -> None:
    """Of the calling thread; nothing happens where there is no such thing."""
    if sys.platform != "linux":
        return
    name = threading.current_thread().name.encode("ascii", "replace")[:_LETTERS_MAX]
    # Not by /proc: that would be a write, and `dlog faults` holds the writes of this program.
    ctypes.CDLL(None).prctl(_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)
