"""The space watch: how much is free on each data directory, whether that is too little, and whether
the directory answers at all.

It only looks, once in a while, and remembers; what follows from it is the commander's. Each
directory is asked in a thread of its own, since a disk that hangs holds up whoever asks it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

import msgspec

from dlog.errors import StorageError
from dlog.model.config import InitConfig
from dlog.model.status import DiskStatus
from dlog.ports import Clock, Directory, Journal, Space

log = logging.getLogger("dlog.space")

INTERVAL_NS: Final = 1_000_000_000
HUNG_NS: Final = 5_000_000_000  # without an answer


class DirectoryWatch:
    """Asks one directory, and the journal where it holds it, again and again.

    `run` or `step` is for its own thread; others read what it last learnt. space: None before the
    first answer. asked_ns: since when it waits for an answer, monotonic; 0 for not. journal_bytes:
    what the journal takes on the disk. problem, journal_problem: what is wrong, in words.
    """

    def __init__(self, directory: Directory, clock: Clock, journal: Journal | None = None) -> None:
        self.name = directory.name
        self.space: Space | None = None
        self.asked_ns = 0
        self.journal_bytes = 0
        self.journal_problem = ""
        self._directory = directory
        self._journal = journal
        self._clock = clock
        self._next_ns = 0
        self.problem = ""
        self._stopping = threading.Event()

    @property
    def hung_ns(self) -> int:
        """For how long it has not answered; 0 where that is not long."""
        since = self._clock.monotonic_ns() - asked if (asked := self.asked_ns) else 0
        return since if since > HUNG_NS else 0

    @property
    def answers(self) -> bool:
        return not self.problem and not self.hung_ns

    def refuse_waiting(self) -> None:
        """Raise `StorageError` where the directory does not answer now: whoever asks it would wait
        with this watch."""
        waited_ns = self._clock.monotonic_ns() - asked if (asked := self.asked_ns) else 0
        if waited_ns > INTERVAL_NS:
            raise StorageError(f"no answer for {waited_ns // 1_000_000_000} s", path=self.name)

    def stop(self) -> None:
        """From any thread: make `run` return, once the directory has answered."""
        self._stopping.set()

    def run(self) -> None:
        """Raises `Failure` where the journal or its directory is gone."""
        self.look()
        while not self._stopping.wait(INTERVAL_NS / 1e9):
            self.look()

    def step(self) -> None:
        """Look where it is time to."""
        if self._clock.monotonic_ns() >= self._next_ns:
            self._next_ns = self._clock.monotonic_ns() + INTERVAL_NS
            self.look()

    def look(self) -> None:
        self.asked_ns = self.asked_ns or self._clock.monotonic_ns()
        try:
            if self._journal is not None:
                self.journal_problem = self._journal.check_place()
                self.journal_bytes = self._journal.size_bytes()
            self.space = self._directory.space()
            self.problem = ""
        except StorageError as error:
            # A failing disk is told of by who writes to it; the other disks go on.
            if str(error) != self.problem:
                log.warning("%s", error)
            self.problem = str(error)
        self.asked_ns = 0


class SpaceWatch:
    """Below its low-water mark a disk is low, until it is above the mark to resume at."""

    def __init__(
        self, directories: Sequence[Directory], clock: Clock, journal: Journal | None = None
    ) -> None:
        """journal: the one in the first directory."""
        self.watches = [
            DirectoryWatch(directory, clock, None if number else journal)
            for number, directory in enumerate(directories)
        ]
        self._clock = clock
        self._next_ns = 0
        self.is_short = False  # one has less than it needs to go on once it is low
        self.disks = [DiskStatus(path=watch.name) for watch in self.watches]

    @property
    def low(self) -> list[DiskStatus]:
        """The disks that are low."""
        return [disk for disk in self.disks if disk.low]

    def hung(self) -> dict[str, int]:
        """The directories that do not answer, and for how many seconds."""
        return {w.name: hung_ns // 1_000_000_000 for w in self.watches if (hung_ns := w.hung_ns)}

    def failing(self) -> dict[str, str]:
        """The directories whose space could not be read when they were last asked, and why."""
        return {w.name: w.problem for w in self.watches if w.problem and not w.hung_ns}

    @property
    def journal_bytes(self) -> int:
        return self.watches[0].journal_bytes

    @property
    def journal_problem(self) -> str:
        return self.watches[0].journal_problem

    def look(self, init: InitConfig | None) -> bool:
        """Judge what the watches last learnt, where it is time to; whether it was."""
        if self._clock.monotonic_ns() < self._next_ns:
            return False
        self._next_ns = self._clock.monotonic_ns() + INTERVAL_NS
        low_water = init.low_water_bytes if init is not None else 0
        resume = init.resume_bytes if init is not None else 0
        hung = self.hung()
        looked = []
        for before, watch in zip(self.disks, self.watches, strict=True):
            seconds = hung.get(watch.name)
            problem = watch.problem if seconds is None else f"no answer for {seconds} s"
            if watch.space is None:
                looked.append(msgspec.structs.replace(before, problem=problem))
                continue
            free, total = watch.space
            # One that is away takes nothing: its space is none that the sources must wait for.
            low = not watch.problem and free < (resume if before.low else low_water)
            looked.append(DiskStatus(
                path=watch.name, free_bytes=free, total_bytes=total, low_water_bytes=low_water,
                low=low, problem=problem,
            ))  # fmt: skip
        self.disks = looked
        self.is_short = any(disk.total_bytes and disk.free_bytes < resume for disk in looked)
        return True
