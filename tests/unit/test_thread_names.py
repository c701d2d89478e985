"""Threads have names where the system shows them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from dlog.adapters.thread_names import show_thread_name


def test_a_thread_shows_its_name_as_far_as_there_is_room() -> None:
    seen: list[str] = []

    def run() -> None:
        show_thread_name()
        path = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
        seen.append(path.read_text().strip())

    if not Path("/proc/self/task").exists():
        pytest.skip("no /proc here")
    thread = threading.Thread(target=run, name="stream 12/photons-of-all-kinds")
    thread.start()
    thread.join()
    assert seen == ["stream 12/photo"]
