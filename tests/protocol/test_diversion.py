"""Nothing is diverted in silence: what goes to a garbage or orphan file is told by an alarm within
a second, and to the source that sent it, exactly once, whatever dies in between."""

from __future__ import annotations

import pytest

from dlog.errors import StreamUnknown
from dlog.faults.simulation.sources import WILD, SimulatedSource
from dlog.faults.simulation.steps import When
from dlog.faults.simulation.world import World
from dlog.model.ids import FileKind, StreamName
from dlog.services.source_alarms import ORPHAN_ALARMS_MAX
from tests.protocol.test_rules import two_runs
from tests.simulated_logger import OTHER_RUN, PHOTONS, RUN, holds, life_of, send

SECOND_NS = 1_000_000_000
ROLLING: dict[str, dict[str, object]] = {
    "photons": {"part_events": 4, "late_seconds": 0.5}, "raw": {}
}  # fmt: skip
PHOTON = StreamName("photon")


def alarms(world: World) -> dict[str, str]:
    return {alarm.name: alarm.text for alarm in life_of(world).alarms.raised()}


def told(source: SimulatedSource) -> dict[tuple[int, str, str], int]:
    return source.machine.counts.diverted


def alarm_within_a_second(world: World, name: str) -> str:
    """The alarm's text."""
    before_ns = world.clock.monotonic_ns()
    world.run_until(lambda: name in alarms(world), f"the alarm {name}")
    assert world.clock.monotonic_ns() - before_ns <= SECOND_NS
    return alarms(world)[name]


def with_closed_ranges(seed: int = 1) -> tuple[World, SimulatedSource]:
    """Numbers up to 16 are late, and their ranges are closed up to 12 at least."""
    world = two_runs(seed, streams=ROLLING)
    source = world.source("router-1")
    send(source, *range(1, 18))
    world.settle()
    world.pump(60)
    return world, source


def test_late_events_are_an_alarm_with_the_number_that_closed_their_range() -> None:
    world, source = with_closed_ranges()
    send(source, 3)
    text = alarm_within_a_second(world, "garbage run 7 stream photons")
    assert text == (
        "1 event of router-1 (event number 3) came late and went to the garbage file of run 7 "
        "stream photons: the range up to event 16 is closed"
    )
    holds(world)
    assert told(source) == {(RUN, "photons", "late"): 1}


@pytest.mark.parametrize(
    ("run", "stream", "why", "there"),
    [
        (RUN, PHOTON, "stream-unknown", "run 7 has the streams photons, raw"),
        (9, PHOTONS, "run-unknown", "active runs: 7, 8"),
    ],
)
def test_orphans_are_an_alarm_that_says_what_there_is(
    run: int, stream: StreamName, why: str, there: str
) -> None:
    world = two_runs()
    source = world.source("router-1")
    send(source, 1, 2, run=run, streams=(stream,))
    text = alarm_within_a_second(world, f"orphan run {run} stream {stream}")
    assert f"{why}; {there}" in text
    holds(world)
    assert told(source) == {(run, stream, why): 2}


def test_made_up_streams_have_one_alarm_together() -> None:
    world = two_runs()
    source = world.source("router-1")
    for number in range(2 * ORPHAN_ALARMS_MAX):
        send(source, number, streams=(StreamName(f"s{number}"),))
    holds(world)
    orphans = [name for name in alarms(world) if name.startswith("orphan ")]
    assert len(orphans) == ORPHAN_ALARMS_MAX + 1
    assert "orphan (others)" in orphans


def test_the_alarms_of_a_run_stand_until_another_one_begins_after_it() -> None:
    world, source = with_closed_ranges()
    send(source, 3)
    send(source, 3, streams=(PHOTON,))
    world.settle()
    mine = {"garbage run 7 stream photons", "orphan run 7 stream photon"}
    world.do("STOP RUN", run=RUN)
    assert mine <= alarms(world).keys()
    world.do("START RUN", run=99)
    assert not mine & alarms(world).keys()


def test_a_source_knows_the_streams_of_the_runs_that_take_events() -> None:
    world = two_runs()
    source = world.source("router-1")
    assert not source.machine.runs.streams
    world.run_until(lambda: bool(source.machine.runs.streams), "the source is told")
    with pytest.raises(
        StreamUnknown,
        match=r"no stream photon \(did you mean photons\?\); its streams: photons, raw",
    ):
        source.machine.check_run_has(RUN, (PHOTON, PHOTONS))
    source.machine.check_run_has(RUN, (PHOTONS,))
    world.do("START RUN", run=99)
    world.settle()
    assert set(source.machine.runs.streams) == {RUN, OTHER_RUN, 99}
    world.do("STOP RUN", run=99)
    world.kill()
    world.run_until(lambda: source.machine.boot == 2, "the source is back")
    assert set(source.machine.runs.streams) == {RUN, OTHER_RUN}


@pytest.mark.parametrize("when", [When.DURING, When.AFTER])
def test_diverted_events_are_counted_exactly_once_whenever_the_logger_dies(when: When) -> None:
    for step in range(1, 40, 6):
        world, source = with_closed_ranges(step)
        world.steps.crash_at(world.steps.count + step, when)
        send(source, 3, 18, 5)
        send(source, 7, streams=(PHOTON,))
        holds(world)
        late = told(source).get((RUN, "photons", "late"), 0)
        # After a restart ranges are open for some time: what comes again then is in time.
        files = world.findings().files
        garbage = sum(f.record.totals.events for f in files if f.kind is FileKind.GARBAGE)
        assert (late, told(source)[RUN, "photon", "stream-unknown"]) == (garbage, 1), step


@pytest.mark.long
def test_parts_whose_range_is_empty_close_whenever_the_logger_dies() -> None:
    """Numbers far apart, one to a part: none is followed before 32 of them came."""
    for step in range(1, 60, 11):
        world = two_runs(
            step, streams={"photons": {"part_events": 1, "late_seconds": 1}, "raw": {}}
        )
        source = world.source("router-1", batch_events=1)
        for n in range(1, 60):
            if n % 8 == 0:
                world.steps.crash_at(world.steps.count + step, When.AFTER)
            assert source.send(RUN, (PHOTONS,), 10_000 * n, b"x")
            if n % 4 == 0:
                world.settle()
        holds(world)
        assert told(source) == {}, step


@pytest.mark.long
def test_a_wild_number_closes_no_range_whenever_the_logger_dies() -> None:
    for step in range(1, 80, 13):
        world = two_runs(step, streams=ROLLING)
        source = world.source("router-1")
        send(source, 1, 2)
        world.steps.crash_at(world.steps.count + step, When.AFTER)
        source.send(RUN, (PHOTONS,), WILD, b"wild")
        send(source, *range(3, 12))
        world.settle()
        world.pump(60)
        send(source, *range(12, 30))
        send(source, *range(20))  # and begins anew
        holds(world)
        assert told(source) == {}, step
