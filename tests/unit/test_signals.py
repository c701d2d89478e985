"""Signals: what the handler may do, whatever the main thread is in the middle of."""

from __future__ import annotations

import io
import signal
import threading

from dlog.adapters.logs import start_logging
from dlog.logger import Logger
from tests.waiting import LONG


def test_a_signal_waits_for_nothing_that_the_main_thread_may_hold() -> None:
    # It logged, and woke the link: where the main thread was just logging, it waited for itself.
    output = start_logging(stream=io.StringIO())
    logger = Logger.__new__(Logger)  # neither journal nor links are looked at
    handler = threading.Thread(
        target=logger._on_signal, args=(signal.SIGTERM, None), name="as if interrupted", daemon=True
    )
    try:
        with output._lines.mutex:
            handler.start()
            handler.join(LONG)
            assert not handler.is_alive()
    finally:
        output.close()
