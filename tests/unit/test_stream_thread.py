"""The stream's thread: what it writes, in which order it settles, and what its faults cost."""

from __future__ import annotations

import pytest

from dlog.model.ids import RunNumber, StreamName
from dlog.simulation.steps import When
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
