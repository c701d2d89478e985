"""Names of threads as the system shows them: `top -H`, and who measures what each of them takes.

Python keeps the names that it gives to itself. It decides nothing and never fails.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Final

_LETTERS_MAX: Final = 15  # of Linux


def show_thread_name() -> None:
    """Of the calling thread; nothing happens where there is no such thing."""
    thread = threading.current_thread()
    with contextlib.suppress(OSError):
        path = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        path.write_text(thread.name[:_LETTERS_MAX])
