"""A Hypothesis state machine drives the whole logger, services unchanged, against a simple model.

The model knows the runs that COOR was told of and what every source was told is settled; the
witness compares it with what lies on the disks after each step. Hypothesis finds the short story.
"""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dlog.errors import JournalFailed
from dlog.faults.simulation.network import CALM, Weather
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.steps import Fault, FaultKind, Operation, When
from dlog.faults.simulation.world import FREE, World
from dlog.model.ids import StreamName

STREAMS = ("photons", "raw")
LAST_RUN = 1000
FAULTS = [
    (FaultKind.EIO, Operation.SYNC_FILE),
    (FaultKind.EIO, Operation.WRITE),
    (FaultKind.EIO, Operation.CREATE),
    (FaultKind.NO_SPACE, Operation.RESERVE),
    (FaultKind.SHORT_WRITE, Operation.WRITE),
]
stream_sets = st.lists(st.sampled_from(STREAMS), min_size=1, max_size=2, unique=True)


class LoggerMachine(RuleBasedStateMachine):
    """model: the live runs and whether each is paused; what was sent is in the world's history."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(1)
        self.runs: dict[int, bool] = {}
        self.next_run = 1
        self.highest: dict[int, int] = {}
        self.names = 0
        self.sources: list[SimulatedSource] = []
        self.journal_failed = False
        self.found: list[str] = []
        self.world.after_crash = lambda: self.found.extend(self.world.problems())

    @initialize(
        seed=st.integers(0, 2**16),
        part_events=st.sampled_from([0, 2, 5]),
        ranges=st.booleans(),
        late_seconds=st.sampled_from([0.0, 1.0]),
        begun=st.booleans(),
    )
    def begin(
        self, seed: int, part_events: int, ranges: bool, late_seconds: float, begun: bool
    ) -> None:
        self.world = World(seed)
        self.world.after_crash = lambda: self.found.extend(self.world.problems())
        streams = {
            name: {"part_events": part_events, "ranges": ranges, "late_seconds": late_seconds}
            for name in STREAMS
        }
        assert self.world.do("INIT", drain_seconds=1.0).ok
        assert self.world.do("CONFIGURE", streams=streams).ok
        self.start_run()
        self.connect()
        if begun:  # with a part that is full: from here on there may be late events, and garbage
            for number in range(1, 8):
                self.sources[0].send(1, (StreamName("photons"),), number, b"begun")
            self.highest[1] = 7
            self.world.settle()

    # --- COOR --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.runs) < 3)
    @rule()
    def start_run(self) -> None:
        run, self.next_run = self.next_run, self.next_run + 1
        if self.world.do("START RUN", run=run).ok:
            self.runs[run] = False

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def pause_or_resume(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self.runs)))
        command = "RESUME RUN" if self.runs[run] else "PAUSE RUN"
        assert self.world.do(command, run=run).ok
        self.runs[run] = not self.runs[run]

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), command=st.sampled_from(["STOP RUN", "ABORT RUN"]))
    def end_run(self, data: st.DataObject, command: str) -> None:
        run = data.draw(st.sampled_from(sorted(self.runs)))
        assert self.world.do(command, run=run).ok
        del self.runs[run]

    @rule(run=st.integers(1, 5))
    def wrong_command(self, run: int) -> None:
        """One that the run's state does not accept changes nothing."""
        if run not in self.runs:
            assert not self.world.do("PAUSE RUN", run=run).ok
        elif not self.runs[run]:
            assert not self.world.do("RESUME RUN", run=run).ok
        assert not self.world.do("NONSENSE").ok

    # --- sources -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.sources) < 3)
    @rule(batch_events=st.integers(1, 6))
    def connect(self, batch_events: int = 3) -> None:
        self.names += 1
        name = f"router-{self.names}"
        self.sources.append(self.world.source(name, batch_events=batch_events))

    @precondition(lambda self: self.sources and self.runs)
    @rule(
        data=st.data(),
        streams=stream_sets,
        events=st.integers(1, 8),
        late=st.booleans(),
        size=st.sampled_from([0, 10, 3000]),
    )
    def send(
        self, data: st.DataObject, streams: list[str], events: int, late: bool, size: int
    ) -> None:
        source = data.draw(st.sampled_from(self.sources))
        run = data.draw(st.sampled_from(sorted(self.runs)))
        for i in range(events):
            highest = self.highest.get(run, 0)
            number = 1 + i % max(1, highest) if late else highest + 1
            self.highest[run] = max(highest, number)
            source.send(run, tuple(map(StreamName, streams)), number, bytes([number % 256]) * size)

    @precondition(lambda self: self.sources)
    @rule(data=st.data(), run=st.sampled_from([1, 2, 77]), stream=st.sampled_from(["raw", "other"]))
    def send_stray(self, data: st.DataObject, run: int, stream: str) -> None:
        source = data.draw(st.sampled_from(self.sources))
        source.send(run, (StreamName(stream),), 5, b"stray")

    @precondition(lambda self: self.sources)
    @rule(data=st.data(), garbage=st.binary(max_size=200), framed=st.booleans())
    def garbage(self, data: st.DataObject, garbage: bytes, framed: bool) -> None:
        source = data.draw(st.sampled_from(self.sources))
        self.world.network.send_to_logger(source.peer, (b"DLOG" if framed else b"") + garbage)

    @rule(rounds=st.sampled_from([1, 3, 20, 150]))
    def time_passes(self, rounds: int) -> None:
        self.world.pump(rounds)

    @rule()
    def everything_is_settled(self) -> None:
        """Where nothing is in the way, all that was sent comes through."""
        if not self.runs or any(self.runs.values()) or self.world.network.weather != CALM:
            return
        if self.world.disk_failed or any(source.silent for source in self.sources):
            return
        self.world.settle()
        assert self.world.problems(complete=True) == []

    # --- trouble -----------------------------------------------------------------------------

    @rule(steps=st.integers(1, 30), when=st.sampled_from(list(When)), power_cut=st.booleans())
    def crash_soon(self, steps: int, when: When, power_cut: bool) -> None:
        self.world.power_cut = power_cut
        self.world.steps.crash_at(self.world.steps.count + steps, when)

    @rule(power_cut=st.booleans())
    def crash_now(self, power_cut: bool) -> None:
        self.world.power_cut = power_cut
        if self.world.life is not None:
            self.world.kill()

    @rule(weather=st.sampled_from([CALM, Weather(drop=0.2), Weather(0.1, 0.1, 0.2)]))
    def weather_changes(self, weather: Weather) -> None:
        self.world.network.weather = weather

    @rule()
    def network_is_cut(self) -> None:
        self.world.network.cut()

    @precondition(lambda self: self.sources)
    @rule(data=st.data(), silent=st.booleans())
    def source_hangs(self, data: st.DataObject, silent: bool) -> None:
        data.draw(st.sampled_from(self.sources)).silent = silent

    @rule(fault=st.sampled_from(FAULTS), times=st.sampled_from([1, 2, None]))
    def disk_fails(self, fault: tuple[FaultKind, Operation], times: int | None) -> None:
        kind, operation = fault
        self.world.disk_failed = True
        self.world.steps.inject(
            Fault(kind, frozenset({operation}), path_prefix="data/runs", times=times)
        )

    @rule(left=st.sampled_from([0, 8192, 2**20]))
    def disk_fills(self, left: int) -> None:
        self.world.disk_failed = True
        (disk,) = self.world.disks
        disk.capacity_bytes = FREE
        disk.capacity_bytes -= disk.free_bytes() - left

    @rule()
    def disk_is_mended(self) -> None:
        self.world.steps.clear_faults()
        self.world.disks[0].capacity_bytes = FREE

    @rule(duration_ms=st.sampled_from([0, 300, 3000]))
    def journal_fills(self, duration_ms: int) -> None:
        self.world.fill_journal(duration_ms * 1_000_000)

    @rule()
    def commit_fails(self) -> None:
        self.journal_failed = True
        self.world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.COMMIT})))

    # --- what holds --------------------------------------------------------------------------

    @invariant()
    def the_contract_holds(self) -> None:
        assert self.found == []
        assert self.world.problems() == []
        assert self.world.lost == []
        assert self.world.tails == []
        for failure in self.world.failures:
            assert isinstance(failure, JournalFailed)
            assert self.journal_failed
        for source in self.sources:
            assert source.machine.failure is None

    def teardown(self) -> None:
        """All trouble is over: everything comes to a good end."""
        world = self.world
        if not self.sources:
            return
        self.disk_is_mended()
        world.free_journal()
        world.network.weather = CALM
        for source in self.sources:
            source.silent = False
        for run, paused in self.runs.items():
            assert not paused or world.do("RESUME RUN", run=run).ok
        assert world.do("START RUN", run=LAST_RUN).ok
        world.settle()
        for run in [*self.runs, LAST_RUN]:
            assert world.do("STOP RUN", run=run).ok
        assert world.do("STOP").ok
        assert world.problems(complete=True) == []
        self.the_contract_holds()


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        (40, 25),
        pytest.param(300, 25, marks=pytest.mark.long),
        pytest.param(5000, 60, marks=pytest.mark.soak),
    ],
)
def test_the_logger_keeps_its_contract_whatever_happens_to_it(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        LoggerMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
