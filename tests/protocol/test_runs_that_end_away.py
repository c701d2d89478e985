"""A source whose connection was away while its run ended: it hears of it, what it had sent is
settled by the rules, and it is through without waiting for another run."""

from __future__ import annotations

import pytest

from dlog.faults.simulation.network import CALM, Weather
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.world import World
from dlog.limits import KIB, MIB
from dlog.model.ids import RunNumber
from tests.simulated_logger import OTHER_RUN, RUN, holds, life_of, running, send

LOST = Weather(drop=1.0)


def lost_on_the_way(world: World, source: SimulatedSource, events: int, **sent: int) -> None:
    """The source sends, nothing arrives, and neither side hears of the other."""
    world.network.weather = LOST
    for number in range(events):
        send(source, 100 + number, **sent)
        world.pump(1)
    world.pump(5)


def back_again(world: World, *sources: SimulatedSource) -> None:
    """The connection stands again, after the logger has missed the sources."""
    world.pump(200)
    world.network.weather = CALM
    for source in sources:
        source.lost()


def is_through(world: World, *sources: SimulatedSource) -> None:
    for source in sources:
        source.close()
        world.run_until(lambda s=source: s.machine.phase == "over", "the source's end")
    assert world.problems() == []
    assert world.failures == []


@pytest.mark.parametrize("ending", ["STOP RUN", "ABORT RUN"])
@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_lost_on_the_way_is_refused_while_no_run_is_active(
    ending: str, *, restarted: bool
) -> None:
    world = running(drain_seconds=0.0)
    source = world.source("router-1")
    send(source, 1, 2)
    world.settle()
    lost_on_the_way(world, source, 5)
    world.do(ending, run=RUN)
    if restarted:
        world.kill()
        world.boot()
    back_again(world, source)
    is_through(world, source)
    (report,) = source.machine.counts.report({}).values()
    assert (report.sent, report.acknowledged, report.pending) == (7, 2, 0)
    assert set(report.refused) <= {"no-run-active", "run-aborted"}
    assert sum(report.refused.values()) + report.run_ended == 5
    assert report.refused


def test_it_becomes_orphans_where_another_run_is_active() -> None:
    world = running(runs=(RUN, OTHER_RUN), drain_seconds=0.0)
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    lost_on_the_way(world, source, 5)
    world.do("STOP RUN", run=RUN)
    back_again(world, source)
    world.run_until(lambda: source.idle, "the source is not through")
    holds(world)
    assert source.machine.counts.reasons() == {}


def test_a_drain_that_still_lasts_when_it_is_back_stores_everything() -> None:
    world = running(drain_seconds=60.0)
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    lost_on_the_way(world, source, 5)
    world.give("STOP RUN", run=RUN)
    back_again(world, source)
    world.run_until(lambda: RUN not in life_of(world).commander.runs, "the end of the run")
    holds(world)
    assert source.machine.counts.reasons() == {}


def test_several_sources_with_more_than_the_window_are_all_settled() -> None:
    """Their windows were all that the memory has, and it is no more than that now."""
    world = running(drain_seconds=0.0, memory_bytes=16 * MIB)
    sources = [world.source(f"router-{n}", queue_bytes=16 * MIB) for n in range(4)]
    for source in sources:
        send(source, 1)
    world.settle()
    world.network.weather = LOST
    for source in sources:
        send(source, *range(2, 40), size_bytes=200 * KIB)
    world.pump(20)
    world.do("STOP RUN", run=RUN)
    back_again(world, *sources)
    is_through(world, *sources)
    for source in sources:
        (report,) = source.machine.counts.report({}).values()
        assert (report.sent, report.acknowledged, report.pending) == (39, 1, 0)


def test_events_for_the_next_run_wait_for_it_all_the_same() -> None:
    world = running(drain_seconds=0.0)
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    lost_on_the_way(world, source, 5)
    send(source, 1, 2, 3, run=9)
    world.do("STOP RUN", run=RUN)
    back_again(world, source)
    world.run_until(lambda: source.machine.counts.reasons() != {}, "what was lost is not settled")
    world.pump(200)
    (report,) = source.machine.counts.report({}).values()
    assert report.pending == 3
    world.do("START RUN", run=9)
    holds(world)
    (report,) = source.machine.counts.report({}).values()
    assert report.pending == 0
    assert report.acknowledged == 1 + 3


def test_events_for_a_run_that_has_not_begun_wait_though_there_is_window_left() -> None:
    """What is granted outlives the run before."""
    world = running()
    source = world.source("router-1")
    send(source, 1)
    world.settle()
    world.do("STOP RUN", run=RUN)
    send(source, 1, 2, run=9)
    world.pump(100)
    assert source.machine.counts.reasons() == {}
    world.do("START RUN", run=9)
    holds(world)
    assert source.machine.counts.reasons() == {}


def test_a_source_that_comes_after_the_end_of_its_run_is_told() -> None:
    """It was never listed to it, and no other run is there that would make orphans of them."""
    world = running(drain_seconds=0.0)
    world.do("STOP RUN", run=RUN)
    source = world.source("router-1")
    send(source, 1, 2)
    is_through(world, source)
    assert source.machine.counts.reasons() == {"run-ended": 2}
    assert source.machine.runs.is_over(RUN)


def test_a_source_that_is_before_its_run_is_not_told_that_it_is_over() -> None:
    world = running()
    world.do("STOP RUN", run=RUN)
    source = world.source("router-1")
    send(source, 1, run=9)
    world.pump(200)
    world.do("START RUN", run=RunNumber(9))
    holds(world)
    (report,) = source.machine.counts.report({}).values()
    assert (report.acknowledged, report.run_ended) == (1, 0)
