"""Waiting for an event of other threads or processes, with one generous bound for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 60.0  # seconds; a test that works never waits that long, however busy the machine is


def until(holds: Callable[[], object], what: str = "it never happened") -> None:
    deadline = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)
