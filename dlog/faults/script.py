"""The scripted life of a real logger: everything that it does once, in a few hundred storage calls.

INIT, CONFIGURE, two runs, roll-over by events, END, late events, garbage, orphans, a stream without
ranges, a pause, a kill -9 and the recovery from it, STOP RUN, ABORT RUN, STOP. Sources are the
library, COOR is the client. It goes on through whatever happens to the logger meanwhile, and judges
nothing but that it gets on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import dlog
from dlog.adapters.coor_link import CoorClient, NoAnswer
from dlog.errors import Error, EventsDiverted, EventsRefused, SourceError
from dlog.faults.keeper import Keeper
from dlog.faults.ledger import Ledger
from dlog.model.messages import Answer
from dlog.source import Report

LATE_SECONDS: Final = 0.25
# A fault lasts some seconds, a restart about one; only what hangs takes so long.
STEP_SECONDS_MAX: Final = 200.0
STRANGE_RUN: Final = 999
# START RUN may be refused while the disk fails; then another run number is taken.
RUN_STARTS_MAX: Final = 20
_ASK_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.01

CONFIGURATION: Final = f"""
[logger]
name = "faults"
data = ["data"]

[init]
drain_seconds = 5
settle_seconds = 2
memory_bytes = "64 MiB"
low_water_bytes = 0
resume_bytes = 0

[streams.photons]
part_events = 6
late_seconds = {LATE_SECONDS}
flush_interval_ms = 5
reserve_bytes = "1 MiB"

[streams.raw]
ranges = false
part_events = 5
compression = "zstd"
flush_interval_ms = 5
reserve_bytes = "1 MiB"
"""


class Stuck(Error):
    """It does not get on: what should happen by itself did not, in a generous time."""


class Script:
    """The life, from INIT to STOP; its sources are closed at the end of the `with` block."""

    def __init__(self, folder: Path, keeper: Keeper, ledger: Ledger, tell: Callable[[str], None]):
        self._folder = folder
        self._data = folder / "data"
        self._keeper = keeper
        self._ledger = ledger
        self._tell = tell
        self._coor = CoorClient(self._data, name="faults")
        self._commands = 0
        self._sources: dict[str, dlog.Source] = {}

    def __enter__(self) -> Script:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for source in self._sources.values():
            source.abandon()
        self._coor.close()

    def reports(self) -> list[Report]:
        return [source.report() for source in list(self._sources.values())]

    # --- from beginning to end

    def play(self) -> None:
        from dlog.adapters.configuration_file import configure_parameters, init_parameters

        config = self._folder / "dlog.toml"
        self._do("INIT", init_parameters(config))
        self._do("CONFIGURE", configure_parameters(config))
        run, other = self._start_run(1), self._start_run(2)
        first, second = self._source("router-1"), self._source("router-2")
        for number in range(2, 26, 2):
            streams = ("photons", "raw") if number % 6 == 0 else ("photons",)
            self._send(first, run, streams, number)
        self._send(second, other, ("photons",), *range(2, 14, 2))
        self._flush()
        self._send(first, run, ("photons",), 3, 28)  # the first is late: its part is in END
        self._wait_for_closed_ranges()
        self._send(first, run, ("photons",), 5, 7, 30)  # late for a closed range: garbage
        self._send(first, STRANGE_RUN, ("photons",), 1)
        self._flush()
        self._do("PAUSE RUN", {"run": other})
        self._send(first, run, ("photons",), *range(32, 46, 2), 31, 33)
        self._send(second, other, ("raw",), 20)  # held until the run goes on
        self._tell("kill -9, by the script")
        self._keeper.kill()
        self._do("RESUME RUN", {"run": other})
        self._send(first, run, ("photons", "raw"), 35, 37, 46)
        self._send(second, STRANGE_RUN, ("nowhere",), 99)
        self._flush()
        self._do("STOP RUN", {"run": run})
        self._do("ABORT RUN", {"run": other})
        self._goodbye()
        self.stop()

    def _start_run(self, number: int) -> int:
        for attempt in range(RUN_STARTS_MAX):
            run = number + 10 * attempt
            answer = self._ask("START RUN", {"run": run})
            if answer.ok:
                return run
            self._tell(f"START RUN {run} refused: {answer.error}")
            self._until(lambda: not self._ledger.failing, "the fault is over")
        raise Stuck(f"no run could be started in {RUN_STARTS_MAX} attempts")

    def _wait_for_closed_ranges(self) -> None:
        """Until no part is in END any more: from then on what is late is garbage. Not for long:
        after a restart, ranges stay open until the sources can be back."""
        deadline = time.monotonic() + 4 * LATE_SECONDS
        while time.monotonic() < deadline:
            answer = self._ask("STATUS")
            files = [f for r in answer.data["runs"] for s in r["streams"] for f in s["files"]]
            if all(file["state"] != "END" for file in files):
                return
            time.sleep(_LOOK_SECONDS)

    def _goodbye(self) -> None:
        for source in self._sources.values():
            try:
                source.close(STEP_SECONDS_MAX)
            except EventsDiverted:
                pass  # to garbage, as this script means it
            except SourceError as error:
                self._ledger.problem(f"{source.name}: {error}")

    def stop(self) -> None:
        """STOP, until the logger has ended with 0."""
        self._keeper.stopping.set()
        deadline = time.monotonic() + STEP_SECONDS_MAX
        while not self._keeper.over:
            # A kill behind the answer, and before the end, leaves a logger that runs anew.
            if self._answer_of(self._next_id(), "STOP", {}) is not None:
                self._keeper.wait(1.0)
            self._check(deadline, "the logger ends after STOP")

    # --- COOR

    def _do(self, command: str, parameters: dict[str, Any] | None = None) -> None:
        """A command that must not be refused."""
        answer = self._ask(command, parameters)
        if not answer.ok:
            self._ledger.problem(f"{command} was refused: {answer.error}")

    def _ask(self, command: str, parameters: dict[str, Any] | None = None) -> Answer:
        """The answer, under one id, however often the logger dies over it."""
        command_id = self._next_id()
        deadline = time.monotonic() + STEP_SECONDS_MAX
        while True:
            answer = self._answer_of(command_id, command, parameters or {})
            if answer is not None:
                if command != "STATUS":
                    self._tell(f"{command} {parameters.get('run', '') if parameters else ''}")
                return answer
            self._check(deadline, f"{command} is answered")

    def _next_id(self) -> tuple[str, int]:
        self._commands += 1
        return self._coor.session, self._commands

    def _answer_of(
        self, command_id: tuple[str, int], command: str, parameters: dict[str, Any]
    ) -> Answer | None:
        try:
            return self._coor.ask(command, parameters, _ASK_SECONDS, command_id=command_id)
        except NoAnswer:
            return None

    # --- sources

    def _source(self, name: str) -> dlog.Source:
        source = dlog.Source(self._data, name=name, linger_ms=1.0, batch_bytes=64 * 1024)
        self._sources[name] = source
        return source

    def _send(self, source: dlog.Source, run: int, streams: Sequence[str], *numbers: int) -> None:
        for number in numbers:
            # Noted first: what is not noted must never be found.
            payload = self._ledger.event(source.name, run, streams, number)
            source.send(streams, payload, run=run, number=number, timeout=STEP_SECONDS_MAX)

    def _flush(self) -> None:
        """Until everything that was sent is acknowledged."""
        for source in self._sources.values():
            try:
                source.flush(STEP_SECONDS_MAX)
            except EventsRefused as error:
                self._ledger.problem(f"{source.name}: {error}")
            except SourceError as error:
                raise Stuck(f"{source.name}: {error}") from error
        self._tell("everything sent is acknowledged")

    # --- waiting

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + STEP_SECONDS_MAX
        while not holds():
            time.sleep(_LOOK_SECONDS)
            self._check(deadline, what)

    def _check(self, deadline: float, what: str) -> None:
        if self._keeper.error is not None:
            raise Stuck(f"the logger could not be kept running: {self._keeper.error!r}")
        if time.monotonic() > deadline:
            raise Stuck(f"after {STEP_SECONDS_MAX:g} s it is still not so: {what}")
