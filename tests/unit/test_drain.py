"""The end of a run: whom it waits for."""

from __future__ import annotations

from dlog.core.states import RunState
from dlog.faults.simulation.world import World
from dlog.services.sessions import SILENCE_NS_MAX
from tests.simulated_logger import PHOTONS, RUN, connected


def stopping_behind_a_restart() -> World:
    """A logger that was killed and is told to end the run before its source is back; the source
    never sent events of that run."""
    world, _, source = connected()
    world.do("START RUN", run=RUN + 1)
    world.kill()
    world.boot()
    assert world.life is not None
    source.send(RUN + 1, (PHOTONS,), 2, b"y")
    world.give("STOP RUN", run=RUN + 1)
    runs = world.life.commander.runs
    world.run_until(
        lambda: RUN + 1 not in runs or runs[RUN + 1].record.state is RunState.ENDING, "ENDING"
    )
    world.pump(20, tick_ns=1_000_000)
    return world


def test_the_end_of_a_run_waits_for_who_may_come_back_behind_a_restart() -> None:
    world = stopping_behind_a_restart()
    assert world.life is not None
    assert RUN + 1 in world.life.commander.runs
    world.sources[0].silent = False
    world.run_until(lambda: RUN + 1 not in world.life.commander.runs, "the end of the run")
    world.settle()
    assert world.problems(complete=True) == []


def test_who_does_not_come_back_is_not_waited_for() -> None:
    world = stopping_behind_a_restart()
    begin = world.clock.monotonic_ns()
    world.run_until(lambda: RUN + 1 not in world.life.commander.runs, "the end of the run")
    waited_ns = world.clock.monotonic_ns() - begin
    assert waited_ns < 2 * SILENCE_NS_MAX
