"""The logger's claim on the processors: before what else runs on its machine, where it may."""

from __future__ import annotations

import contextlib
import os
from typing import Final

NICENESS: Final = -10


def run_before_others() -> int:
    """The niceness of the process from now on; for the first thread, before there are others.

    Who started it with a niceness of their own has said what they want, and an ordinary user may
    not be allowed more: then it stays as it is.
    """
    if os.getpriority(os.PRIO_PROCESS, 0) == 0:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    return os.getpriority(os.PRIO_PROCESS, 0)
