"""A life at random: runs begin, pause and end, the logger is killed, stopped and cut off, its disk
fills up; whatever happens in which order, the sources' accounts and the files agree."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dlog.errors import EventsRefused, RunEnded, WindowFull
from dlog.limits import MIB
from tests.rig.exactly_once import assert_acknowledged_once
from tests.rig.filesystems import Hog, small_disk
from tests.rig.network import Relay
from tests.rig.processes import LoggerProcess, NewLogger
from tests.rig.sources import Sender
from tests.waiting import LONG

pytestmark = pytest.mark.long

# The same life each time, so that one that failed fails again; the soak looks for new ones.
SEED = int(os.environ.get("DLOG_LIFE_SEED", "3"))
SOAK_SEED = int(os.environ.get("DLOG_LIFE_SEED", random.SystemRandom().randrange(1, 2**31)))
STEPS = int(os.environ.get("DLOG_LIFE_STEPS", "12"))
SOAK_STEPS = int(os.environ.get("DLOG_SOAK_STEPS", "1000"))
DISK_BYTES = 768 * MIB

CONFIGURATION = """
[init]
drain_seconds = 3
settle_seconds = 2
memory_bytes = "64 MiB"
low_water_bytes = 0
resume_bytes = 0
[init.stream_defaults]
reserve_bytes = "1 MiB"
late_seconds = 0.5
[streams.a]
part_events = 400
[streams.b]
part_bytes = "1 MiB"
ranges = false
compression = "zstd"
[streams.c]
part_seconds = 1.0
"""
STREAMS = ("a", "b", "c", "a+b", "b+c")


def test_a_life_at_random_ends_with_accounts_that_agree(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    live(new_logger, tmp_path, SEED, STEPS)


@pytest.mark.soak
def test_a_long_life_at_random_ends_with_accounts_that_agree(
    new_logger: NewLogger, tmp_path: Path
) -> None:
    live(new_logger, tmp_path, SOAK_SEED, SOAK_STEPS)


def live(new_logger: NewLogger, folder: Path, seed: int, steps: int) -> None:
    print(f"\nDLOG_LIFE_SEED={seed} DLOG_LIFE_STEPS={steps}")
    with small_disk(folder / "s", DISK_BYTES) as disk:
        logger = new_logger(CONFIGURATION, data=disk / "data").start()
        with Relay(logger.event_address) as relay:
            life = Life(logger, relay, disk, random.Random(seed))
            try:
                for _ in range(steps):
                    life.step()
                life.end()
            finally:
                logger.kill()
                print(", ".join(f"{what} {n}" for what, n in sorted(life.happened.items())))


class Life:
    """What is true at any moment: which runs are active, and whether the disk is full."""

    def __init__(
        self, logger: LoggerProcess, relay: Relay, disk: Path, chance: random.Random
    ) -> None:
        self._logger, self._relay, self._chance = logger, relay, chance
        self._hog, self._full = Hog(disk), False
        self._runs: dict[int, str] = {}  # active ones, with their state
        self._last_run = 0
        self._aborted: set[int] = set()
        self.happened: Counter[str] = Counter()
        self._speakers = [Speaker(relay.address, f"source-{i}", i, self) for i in range(2)]
        self._start_run()
        for speaker in self._speakers:
            speaker.start()

    def active(self) -> list[int]:
        return list(self._runs)

    def step(self) -> None:
        possible: list[Callable[[], None]] = [
            self._kill, self._kill, self._terminate, self._cut, self._configure, self._wait,
        ]  # fmt: skip
        if len(self._runs) < 3:
            possible += [self._start_run] * 2
        if self._runs:
            possible += [self._stop_run, self._stop_run, self._abort_run, self._pause_or_resume]
        possible.append(self._give_back if self._full else self._fill)
        what = self._chance.choice(possible)
        self.happened[what.__name__.strip("_")] += 1
        what()
        time.sleep(self._chance.uniform(0.0, 0.3))

    # --- what may happen

    def _do(self, command: str, run: int) -> str:
        """Every command works at any time; the answer's state."""
        answer = self._logger.do(command, {"run": run})
        return str(answer.data.get("state", ""))

    def _start_run(self) -> None:
        run = self._last_run = self._last_run + 1
        answer = self._logger.ask("START RUN", {"run": run})
        if answer.ok:
            self._runs[run] = "ACTIVE"
        else:
            assert self._full, answer.error

    def _stop_run(self) -> None:
        run = self._chance.choice(list(self._runs))
        del self._runs[run]
        assert self._do("STOP RUN", run) == "ENDED"

    def _abort_run(self) -> None:
        run = self._chance.choice(list(self._runs))
        del self._runs[run]
        assert self._do("ABORT RUN", run) == "ABORTED"

    def _pause_or_resume(self) -> None:
        run = self._chance.choice(list(self._runs))
        if self._runs[run] == "PAUSED":
            self._resume_run(run)
        else:
            self._do("PAUSE RUN", run)
            self._runs[run] = "PAUSED"

    def _resume_run(self, run: int) -> None:
        self._do("RESUME RUN", run)
        self._runs[run] = "ACTIVE"

    def _configure(self) -> None:
        streams = {"a": {"part_events": self._chance.choice([100, 1000])}, "b": {}, "c": {}}
        assert self._logger.do("CONFIGURE", {"streams": streams}).ok

    def _kill(self) -> None:
        self._logger.kill()
        self._logger.start(auto=False, resume=bool(self._runs) and self._chance.random() < 0.3)

    def _terminate(self) -> None:
        self._logger.signal(signal.SIGTERM)
        assert self._logger.ended() == 0
        self._logger.start(auto=False)

    def _cut(self) -> None:
        self._relay.cut()

    def _wait(self) -> None:
        time.sleep(0.5)

    def _fill(self) -> None:
        self._hog.take()
        self._full = True

    def _give_back(self) -> None:
        self._hog.give_back()
        self._full = False

    # --- the end of it

    def end(self) -> None:
        if self._full:
            self._give_back()
        for speaker in self._speakers:
            speaker.halt()
        for run in list(self._runs):
            if self._runs[run] == "PAUSED":
                self._resume_run(run)
        if not self._runs:
            self._start_run()  # or what is left would wait for one
        for speaker in self._speakers:
            with suppress(EventsRefused):
                speaker.source.flush(LONG)
        for run in list(self._runs):
            assert self._do("STOP RUN", run) == "ENDED"
        for speaker in self._speakers:
            with suppress(EventsRefused):
                speaker.source.close(LONG)
        self._logger.stop()
        # Not before: the orphan file is closed after the run, and is renamed while one looks.
        assert_acknowledged_once(self._logger.data, *self._speakers)
        for speaker in self._speakers:
            refused = speaker.source.report().refused
            assert set(refused) <= {
                "run-ended", "run-aborted", "no-run-active", "no-space-at-end-of-run",
            }, refused  # fmt: skip
        self._logger.assert_verified()


class Speaker(Sender):
    """A source that sends to whatever runs are active."""

    def __init__(self, address: str, name: str, offset: int, life: Life) -> None:
        super().__init__(address, name, (), STREAMS, offset=offset, step=2, queue_bytes=8 * MIB)
        self._life = life

    def send_some(self) -> None:
        for run in self._life.active():
            self._send_burst(run)
        self._halt.wait(0.02)

    def _send_burst(self, run: int) -> None:
        for _ in range(20):
            try:
                self.send(run, timeout=0.2)
            except (RunEnded, WindowFull):
                return
