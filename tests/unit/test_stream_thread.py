"""The stream's thread: what it writes, in which order it settles, and what its faults cost."""

from __future__ import annotations

import pytest

from dlog.model.ids import RunNumber, StreamName
from dlog.simulation.steps import Fault, FaultKind, Operation, When
from dlog.simulation.world import Life, World

RUN, OTHER_RUN = RunNumber(7), RunNumber(8)
PHOTONS = StreamName("photons")


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
