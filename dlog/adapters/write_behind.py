"""Writes and syncs that go on while their caller prepares the next: a few threads that do nothing
else.

They decide nothing and die with the process. What was begun first is taken up first, but may be
over later: work may wait for work that was begun before it, and never for what was begun after.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from dlog.adapters.thread_names import show_thread_name
from dlog.errors import NoThread, StorageError
from dlog.limits import SYNC_BYTES_MAX

# For one data directory: more at once do not make a disk faster, and what comes to it meanwhile, a
# commit of the journal above all, waits for all of it.
THREADS_MAX: Final = 16
BYTES_AT_ONCE_ENOUGH: Final = 3 * SYNC_BYTES_MAX


class WorkUnderWay:
    """A write or a sync that was begun. Its thread calls `over` when it is done."""

    __slots__ = ("_do", "_ended", "_is_over", "error", "over", "size_bytes")

    def __init__(
        self, do: Callable[[], None], over: Callable[[], None] | None = None, size_bytes: int = 0
    ) -> None:
        self._do = do
        self.over = over
        self.size_bytes = size_bytes  # to write
        self._ended = threading.Lock()
        self._ended.acquire()
        self._is_over = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._do()
        except StorageError as error:
            self.error = _without_frames(error)
        except BaseException as error:  # noqa: BLE001 - it is raised by who waits for the work
            self.error = error
        finally:
            # Before anyone is told: who waits gives the memory back, and it must be his alone.
            del self._do
            self._is_over = True
            self._ended.release()

    def is_over(self) -> bool:
        return self._is_over

    def has_failed(self) -> bool:
        """Whether it is over and was in vain."""
        return self._is_over and self.error is not None

    def wait(self) -> None:
        """Until it is over. Raises why it failed."""
        error = self.outcome()
        if error is not None:
            raise error

    def outcome(self) -> StorageError | None:
        """Wait until it is over; why it failed. Raises what is no failure of storage."""
        with self._ended:  # given free at the end, and not before
            pass
        if self.error is None or isinstance(self.error, StorageError):
            return self.error
        raise self.error


def _without_frames(error: StorageError) -> StorageError:
    """Frames hold views of the memory that was written, and whoever waits gives that back."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error


class WorkThreads:
    """Begins work; from any thread. Its threads are started as they are needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: deque[WorkUnderWay] = deque()  # until others have written
        self._ready: queue.SimpleQueue[WorkUnderWay] = queue.SimpleQueue()
        self._threads = 0
        self._under_way = 0
        self._bytes_at_once = 0

    def prepare(self) -> None:
        """Start the first thread, without which nothing can be begun. Raises `NoThread`."""
        with self._lock:
            if self._threads:
                return
            try:
                self._start_thread()
            except RuntimeError as error:
                raise NoThread(f"no thread can be started that writes: {error}") from error

    def begin(
        self, do: Callable[[], None], over: Callable[[], None] | None = None, size_bytes: int = 0
    ) -> WorkUnderWay:
        under_way = WorkUnderWay(do, over, size_bytes)
        with self._lock:
            if self._under_way >= self._threads < THREADS_MAX:
                self._start_thread()
            self._under_way += 1
            self._held.append(under_way)
            self._let_go()
        return under_way

    def _start_thread(self) -> None:
        # A write that hangs must not keep the process from ending.
        thread = threading.Thread(target=self._run, name="dlog write", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has none left
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _let_go(self) -> None:
        """With the lock: until the disk has enough to do."""
        while self._held and self._bytes_at_once < BYTES_AT_ONCE_ENOUGH:
            work = self._held.popleft()
            self._bytes_at_once += work.size_bytes
            self._ready.put(work)

    def _run(self) -> None:
        show_thread_name()
        while True:
            work = self._ready.get()
            work.run()
            with self._lock:
                self._under_way -= 1
                self._bytes_at_once -= work.size_bytes
                self._let_go()
            if work.over is not None:
                work.over()
            del work  # what it called need not live until there is something to do again
