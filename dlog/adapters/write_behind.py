"""Writes that go on while their caller prepares the next: a few threads that do nothing else.

They decide nothing, keep no order between writes, and die with the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from dlog.adapters.thread_names import show_thread_name
from dlog.errors import StorageError

# For one data directory: more at once do not make a disk faster.
THREADS_MAX: Final = 8


class WriteUnderWay:
    """A write that was begun."""

    __slots__ = ("_over", "_write", "error")

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._over = threading.Lock()
        self._over.acquire()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._write()
        except BaseException as error:  # noqa: BLE001 - it is raised by who waits for the write
            self.error = error
        finally:
            # Before anyone is told: who waits gives the memory back, and it must be his alone.
            del self._write
            self._over.release()

    def wait(self) -> StorageError | None:
        """Until it is over; why it failed. Raises what is no failure of storage."""
        with self._over:
            if self.error is None or isinstance(self.error, StorageError):
                return self.error
            raise self.error


class WriteThreads:
    """Begins writes; from any thread. Its threads are started as they are needed."""

    def __init__(self) -> None:
        self._begun: queue.SimpleQueue[WriteUnderWay] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._under_way = 0

    def begin(self, write: Callable[[], None]) -> WriteUnderWay:
        under_way = WriteUnderWay(write)
        with self._lock:
            self._under_way += 1
            if self._under_way > self._threads < THREADS_MAX:
                self._threads += 1
                # A write that hangs must not keep the process from ending.
                threading.Thread(target=self._run, name="dlog write", daemon=True).start()
        self._begun.put(under_way)
        return under_way

    def _run(self) -> None:
        show_thread_name()
        while True:
            self._begun.get().run()
            with self._lock:
                self._under_way -= 1
