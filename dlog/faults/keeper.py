"""Keeps a real logger running, as a supervisor of services would: starts it, and starts it again
whenever it ends before its time. It knows neither faults nor events.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, Protocol

from dlog.adapters.coor_link import CoorClient, NoAnswer
from dlog.faults.system_calls import Decide, Interposed

_ASK_SECONDS: Final = 0.2
# So that a logger which cannot start does not take the whole machine.
_BETWEEN_STARTS_SECONDS: Final = 0.05


Start = Callable[[IO[bytes]], Interposed]


class Watcher(Protocol):
    """Is told of the process, by the keeper's thread."""

    def died(self, code: int) -> None:
        """The logger is gone; it is started again once this returns."""

    def answers(self, seconds: float) -> None:
        """It answers again, so long after `died` returned."""


class Keeper:
    """A logger on `folder/data`, started over and over until `stopping` was set and it ended with
    0. starts: how often."""

    def __init__(self, folder: Path, start: Start, watcher: Watcher) -> None:
        self._folder = folder
        self._start = start
        self._watcher = watcher
        self._over = threading.Event()
        self._halted = threading.Event()
        self._process: Interposed | None = None
        self.stopping = threading.Event()
        self.starts = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halted.set()
        self.kill()
        self._thread.join()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it has come to its good end within that time."""
        return self._over.wait(seconds)

    def kill(self) -> None:
        """kill -9, now."""
        process = self._process
        if process is not None:
            process.kill()

    def _run(self) -> None:
        try:
            with (self._folder / "logger.log").open("ab") as log:
                died_at = time.monotonic()
                while not self._halted.is_set():
                    with self._start(log) as process:
                        self._process = process
                        self.starts += 1
                        self._attend(process, died_at if self.starts > 1 else None)
                        code = process.process.wait()
                    if process.error is not None:
                        raise process.error
                    if code == 0 and self.stopping.is_set():
                        self._over.set()
                        return
                    if not self._halted.is_set():
                        self._watcher.died(code)
                        died_at = time.monotonic()
                        self._halted.wait(_BETWEEN_STARTS_SECONDS if code >= 0 else 0)
        except BaseException as error:  # noqa: BLE001 - the play reports it
            self.error = error

    def _attend(self, process: Interposed, died_at: float | None) -> None:
        """Until the logger answers, or is gone."""
        if died_at is None:
            return
        with CoorClient(self._folder / "data", name="keeper") as coor:
            while process.process.poll() is None and not self._halted.is_set():
                try:
                    status = coor.ask("STATUS", timeout=_ASK_SECONDS).data
                except NoAnswer:
                    continue
                if status["logger"]["pid"] == process.process.pid:
                    self._watcher.answers(time.monotonic() - died_at)
                    return


def start(folder: Path, decide: Decide | None, log: IO[bytes]) -> Interposed:
    """`dlog start` on `folder/dlog.toml`, as a user has it."""
    config = str(folder / "dlog.toml")
    program = [sys.executable, "-P", "-m", "dlog.cli", "start", "-c", config]
    return Interposed(program, folder / "data", decide, log=log)
