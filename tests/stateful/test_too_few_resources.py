"""START RUN with too few descriptors or threads: refused with words, and what is active goes on."""

from __future__ import annotations

import pytest

from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.steps import When
from dlog.faults.simulation.world import World
from dlog.model.ids import StreamName

PHOTONS = StreamName("photons")
MANY = {f"s{n}": {} for n in range(20)}


def running(seed: int = 1) -> tuple[World, SimulatedSource]:
    """Run 1 is active; the streams of the next run are many."""
    world = World(seed)
    assert world.do("INIT").ok
    assert world.do("CONFIGURE", streams={"photons": {}}).ok
    assert world.do("START RUN", run=1).ok
    source = world.source("source")
    source.send(1, (PHOTONS,), 1, b"before")
    world.settle()
    assert world.do("CONFIGURE", streams=MANY).ok
    return world, source


def goes_on(world: World, source: SimulatedSource) -> None:
    source.send(1, (PHOTONS,), 2, b"after")
    world.settle()
    assert world.do("STOP RUN", run=1).ok
    assert world.do("STOP").ok
    world.run_until(lambda: world.stopped, "the logger does not end")
    assert world.problems(complete=True, stopped=True) == []
    assert world.failures == []


def test_a_run_for_which_descriptors_do_not_suffice_is_refused_before_anything_is_done() -> None:
    world, source = running()
    world.descriptors_left = 30
    answer = world.do("START RUN", run=2)
    assert not answer.ok
    assert "open files" in answer.error
    world.descriptors_left = 40
    assert world.do("START RUN", run=2).ok  # the number is free
    assert world.do("STOP RUN", run=2).ok
    goes_on(world, source)


@pytest.mark.parametrize("without", [{"s0"}, {"s7", "s19"}, set(MANY)])
def test_a_run_for_which_threads_do_not_suffice_fails_alone(without: set[str]) -> None:
    world, source = running()
    world.without_thread = frozenset(without)
    answer = world.do("START RUN", run=2)
    assert not answer.ok
    assert "no thread can be started" in answer.error
    goes_on(world, source)


@pytest.mark.parametrize("step", range(4, 100, 12))
def test_a_run_that_was_starting_at_a_crash_is_settled_by_the_restart(step: int) -> None:
    world, source = running(step)
    world.without_thread = frozenset({"s5"})
    world.steps.crash_at(world.steps.count + step, When.DURING)
    answer = world.do("START RUN", run=2)
    assert not answer.ok
    world.steps.no_crash()
    goes_on(world, source)
