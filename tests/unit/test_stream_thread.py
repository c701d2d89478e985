"""The stream's thread: what it writes, in which order it settles, and what its faults cost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dlog.errors import StorageError
from dlog.faults.simulation.disk import SimulatedSync
from dlog.faults.simulation.steps import Fault, FaultKind, Operation, When
from dlog.faults.simulation.world import Life, World
from dlog.model.ids import RunNumber, StreamName
from dlog.ports import DataFile

RUN, OTHER_RUN = RunNumber(7), RunNumber(8)
PHOTONS = StreamName("photons")
SPACE_COMES_BACK_NS = 100_000_000_000


def life_of(world: World) -> Life:
    assert world.life is not None
    return world.life


def control(world: World, rounds: int = 4) -> None:
    """Everyone but the writers works."""
    life = life_of(world)
    for _ in range(rounds):
        world.clock.advance(10_000_000)
        for source in world.sources:
            source.step()
        world.coor.step(life.link)
        life.commander.step()
        life.committer.step()
        if life.events is not None:
            life.events.step()


@pytest.mark.parametrize("when", list(When))
def test_what_an_abort_refuses_is_settled_behind_what_was_taken_up_before(when: When) -> None:
    for step in range(1, 30):
        world = World(seed=step)
        world.do("INIT")
        world.do("CONFIGURE", streams={"photons": {"flush_interval_ms": 10_000}})
        world.do("START RUN", run=RUN)
        world.do("START RUN", run=OTHER_RUN)
        source = world.source("router-1")
        source.send(RUN, (PHOTONS,), 1, b"x" * 100)
        control(world)
        writer = next(w for w in life_of(world).writers if w.writer.key.run == RUN)
        writer.step()  # taken up, and waits for more
        source.send(RUN, (PHOTONS,), 2, b"x" * 100)
        control(world)
        world.give("ABORT RUN", run=RUN)
        control(world)
        world.steps.crash_at(world.steps.count + step, when)
        world.settle()
        assert world.problems(complete=True) == []


def test_a_run_that_ends_without_space_settles_all_that_was_handed_in() -> None:
    # What the writer had not fetched yet was never settled: its source waited for ever.
    world = World(seed=1)
    world.do("INIT", drain_seconds=0.05)
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=OTHER_RUN)
    world.do("START RUN", run=RUN)
    source = world.source("router-1", batch_events=1)
    world.pump(5)
    for number in range(60):
        source.send(RUN, (PHOTONS,), number, b"x" * 20_000)
    control(world)
    number = world.give("STOP RUN", run=RUN)
    control(world, rounds=20)
    no_space = frozenset({Operation.WRITE, Operation.RESERVE, Operation.CREATE})
    world.steps.inject(Fault(FaultKind.NO_SPACE, no_space, times=None))
    world.run_until(lambda: number in world.coor.answers, "STOP RUN is not answered")
    world.steps.clear_faults()
    world.settle()
    assert world.problems(complete=True) == []
    assert "no-space-at-end-of-run" in source.machine.counts.reasons()


class _SyncsOnlyHeaders:
    """A disk that takes a header page and fails at every later sync, as a thin volume may."""

    def __init__(self, file: DataFile) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync_behind(self, over: Callable[[], None]) -> SimulatedSync:
        def sync() -> None:
            raise StorageError("Input/output error", path=self._file.path)

        return SimulatedSync(sync, Random(1), over)


def test_a_disk_that_fails_at_every_sync_stalls_the_stream_and_no_more() -> None:
    world = World(1)
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {}, "raw": {}})
    life = life_of(world)
    (directory,) = life.directories
    create = directory.create

    def create_bad(path: str) -> DataFile:
        file = create(path)
        return _SyncsOnlyHeaders(file) if "photons" in path else file  # type: ignore[return-value]

    directory.create = create_bad  # type: ignore[method-assign, assignment]
    world.do("START RUN", run=RUN)
    bad, good = world.source("router-1"), world.source("router-2")
    bad.send(RUN, (PHOTONS,), 1, b"x")
    good.send(RUN, (StreamName("raw"),), 1, b"x")
    world.run_until(lambda: good.idle, "the other stream stands still")
    world.pump(100)
    assert not bad.idle
    parts = [name for name in directory.names("runs/7") if name.startswith("photons")]
    assert len(parts) < 20
    assert world.do("STOP RUN", run=RUN).ok
    assert world.problems(complete=True) == []


@pytest.mark.parametrize(
    ("command", "begun"),
    [("ABORT RUN", 0), ("STOP", 0), *((c, n) for c in ("STOP RUN", "STOP") for n in (1, 2, 3))],
)
def test_a_run_can_be_ended_while_a_full_journal_holds_up_its_writer(
    command: str, begun: int
) -> None:
    # A part took several commits to make or to close, of which those begun before the command were
    # not given the ballast: the run hung until there was space.
    world = World(seed=1)
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {"part_events": 10, "ranges": False}, "raw": {}})
    if not begun:
        world.fill_journal(SPACE_COMES_BACK_NS)
        world.give("START RUN", run=RUN)
        world.pump()
    else:
        world.do("START RUN", run=RUN)
        source = world.source("router-1")
        world.pump(3)
        for number in range(45):
            source.send(RUN, (PHOTONS,), number, b"x")
        world.pump(begun)
        world.fill_journal(SPACE_COMES_BACK_NS)
    begin_ns = world.clock.monotonic_ns()
    number = world.give(command, **({} if command == "STOP" else {"run": RUN}))
    world.run_until(lambda: number in world.coor.answers, f"{command} is not answered")
    assert world.coor.answers[number].ok
    assert world.clock.monotonic_ns() - begin_ns < SPACE_COMES_BACK_NS // 2
