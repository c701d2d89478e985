"""A second data directory that goes away while the logger runs or is not there at a start, and is
back at a later one: every acknowledged event stands exactly once in the end."""

from __future__ import annotations

import pytest

from dlog.core import journal_records as records
from dlog.core.journal_records import FileRecord
from dlog.core.states import FileState
from dlog.faults.simulation.campaign import play
from dlog.faults.simulation.disk import SimulatedDisk
from dlog.faults.simulation.menu import SCENARIOS
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.steps import When
from dlog.faults.simulation.world import World
from dlog.model.ids import StreamName

FAR, NEAR, BOTH = StreamName("far"), StreamName("near"), StreamName("both")
STREAMS = {
    "far": {"directories": [1]},
    "near": {"directories": [0]},
    "both": {"directories": [1, 0]},
}


def running(seed: int) -> tuple[World, SimulatedSource]:
    """A run with a stream in each directory and one in both, and a source that has sent to each."""
    world = World(seed, directories=2)
    assert world.do("INIT").ok
    assert world.do("CONFIGURE", streams=STREAMS).ok
    assert world.do("START RUN", run=1).ok
    source = world.source("source")
    send(source, 1)
    world.settle()
    return world, source


def send(source: SimulatedSource, number: int, *streams: StreamName) -> None:
    for stream in streams or (FAR, NEAR, BOTH):
        source.send(1, (stream,), number, b"%d" % number)


def alarms(world: World) -> dict[str, str]:
    assert world.life is not None
    return {alarm.name: alarm.text for alarm in world.life.alarms.raised()}


def records_in_second(world: World) -> list[FileRecord]:
    found = [
        records.decode_record(key, value, FileRecord)
        for key, value in world.store.pairs.items()
        if key.startswith(records.FILES)
    ]
    return [record for record in found if record.directory == 1]


def ends_well(world: World) -> None:
    assert world.do("STOP RUN", run=1).ok
    assert world.do("STOP").ok
    world.run_until(lambda: world.stopped, "the logger does not end")
    assert world.problems(complete=True, stopped=True) == []
    assert world.lost == []
    assert world.failures == []


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_has_another_directory_goes_on_and_what_has_none_waits(seed: int) -> None:
    world, source = running(seed)
    world.disks[1].gone = True
    world.disk_failed = True
    send(source, 2, NEAR, BOTH)
    world.settle()
    send(source, 3)
    world.pump(200)
    assert world.failures == []
    assert any("disk1:data" in text for text in alarms(world).values())
    assert source.machine.events_pending == 1  # of the stream that has no other
    world.disks[1].gone = False
    world.settle()
    ends_well(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_start_without_it_goes_on_and_its_files_stay_as_they_are(seed: int) -> None:
    world, source = running(seed)
    world.disk_failed = True
    before = world.disks[1].contents()
    world.disks[1].gone = True
    for number in (2, 3, 4):
        # The journal remembers what is not settled, however often the logger starts without it.
        world.kill()
        send(source, number, NEAR, BOTH)
        world.settle()
        assert "directory disk1:data" in alarms(world)
        there = records_in_second(world)
        assert {record.stream for record in there} == {"far", "both"}
        assert all(record.state is FileState.ERROR and record.sealed for record in there)
    send(source, 5)
    world.pump(200)
    assert source.machine.events_pending == 1
    assert set(before) == set(world.disks[1].contents())
    world.kill()
    world.disks[1].gone = False
    world.settle()
    assert "directory disk1:data" not in alarms(world)
    ends_well(world)


def test_a_run_ends_without_it_and_its_files_are_settled_when_it_is_back() -> None:
    world, source = running(5)
    world.disk_failed = True
    world.disks[1].gone = True
    world.kill()
    send(source, 2, NEAR, BOTH)
    world.settle()
    assert world.do("STOP RUN", run=1).ok
    assert world.do("STOP").ok
    world.run_until(lambda: world.stopped, "the logger does not end")
    world.stopped = False
    world.boot()
    assert records_in_second(world)
    assert world.life is not None
    world.kill()
    world.disks[1].gone = False
    world.boot()
    assert world.do("STOP").ok
    world.run_until(lambda: world.stopped, "the logger does not end")
    assert records_in_second(world) == []
    assert world.problems(complete=True, stopped=True) == []
    assert world.lost == []
    assert world.failures == []


def test_a_directory_that_is_empty_is_not_taken_for_one_that_lost_all() -> None:
    world, source = running(6)
    world.disk_failed = True
    world.kill()
    mounted = world.disks[1]
    bare = SimulatedDisk(world.steps, name="disk1")  # the mount point, without its disk
    world.disks[1] = bare
    send(source, 2, NEAR, BOTH)
    world.settle()
    assert "directory disk1:data" in alarms(world)
    assert "mounted" in alarms(world)["directory disk1:data"]
    assert world.lost == []
    world.kill()
    assert bare.contents() == {}
    world.disks[1] = mounted
    send(source, 3)
    world.settle()
    ends_well(world)


@pytest.mark.parametrize("step", range(1, 40, 3))
def test_a_crash_while_it_is_found_away_changes_nothing(step: int) -> None:
    world, source = running(step)
    world.disk_failed = True
    world.disks[1].gone = True
    world.kill()
    world.steps.crash_at(world.steps.count + step, When.DURING)
    send(source, 2, NEAR, BOTH)
    world.settle()
    world.steps.no_crash()
    world.kill()
    world.disks[1].gone = False
    send(source, 3)
    world.settle()
    ends_well(world)


def test_without_the_directory_of_the_journal_the_logger_cannot_go_on() -> None:
    world, _ = running(8)
    world.disks[0].gone = True
    with pytest.raises(AssertionError, match="does not start"):
        world.pump(1000)
    assert "disk0:data" in str(world.failures[0])


def test_a_run_whose_only_directory_is_away_is_refused_before_anything_is_done() -> None:
    world, source = running(9)
    world.disks[1].gone = True
    world.disk_failed = True
    answer = world.do("START RUN", run=2)
    assert not answer.ok
    assert "disk1:data" in answer.error
    assert world.do("CONFIGURE", streams={"both": {"directories": [1, 0]}}).ok
    assert world.do("START RUN", run=2).ok  # it has another, and the number is free
    source.send(2, (BOTH,), 1, b"x")
    world.settle()
    assert world.failures == []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_random_histories_in_which_it_goes_away_and_comes_back_hold(seed: int) -> None:
    outcome = play(seed, SCENARIOS["away"].menu)
    assert outcome.problems == [], outcome.story
