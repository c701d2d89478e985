"""A question to a disk that may hang: a thread of its own asks, and is waited for only so long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError

from dlog.errors import NoThread, StorageError


def answered_within(seconds: float, path: str, ask: Callable[[], bool]) -> bool:
    """The answer, or what it raises. Raises `StorageError` where there is none in that time; the
    thread then stays until the disk answers."""
    answer: Future[bool] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - who asked raises it
            answer.set_exception(error)

    try:
        threading.Thread(target=run, name="disk question", daemon=True).start()
    except RuntimeError as error:
        raise NoThread(f"no thread can be started to look at {path}: {error}") from error
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise StorageError(f"no answer for {seconds:g} s", path=path) from None
