"""The space watch: marks, a disk that does not say how full it is, and one that does not answer."""

from __future__ import annotations

import random
import threading

import pytest

from dlog.errors import JournalGone, StorageError
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.disk import SimulatedDirectory, SimulatedDisk
from dlog.faults.simulation.steps import StorageSteps
from dlog.faults.simulation.world import World
from dlog.model.config import InitConfig
from dlog.model.ids import RunNumber, StreamName
from dlog.ports import Space
from dlog.services.space_watch import HUNG_NS, INTERVAL_NS, SpaceWatch
from tests.waiting import until

RUN = RunNumber(7)
PHOTONS = StreamName("photons")
INIT = InitConfig(low_water_bytes=100, resume_bytes=200)


class _Directory(SimulatedDirectory):
    """A directory whose space the test says; None for a disk that fails."""

    free: int | None = 1000

    def space(self) -> Space:
        if self.free is None:
            raise StorageError("Input/output error", path=self.name)
        return Space(self.free, 1000)


def directory(name: str = "disk") -> _Directory:
    disk = SimulatedDisk(StorageSteps(random.Random(1)), name=name)
    found = disk.directory("data")
    found.__class__ = _Directory
    assert isinstance(found, _Directory)
    return found


def look(watch: SpaceWatch) -> bool:
    """As after the watches' own threads had their turn."""
    for each in watch.watches:
        each.step()
    return watch.look(INIT)


def test_a_disk_is_low_from_one_mark_to_the_other() -> None:
    clock, disk = SimulatedClock(), directory()
    watch = SpaceWatch([disk], clock)
    lows = []
    for free in (150, 99, 150, 199, 200, 150):
        disk.free = free
        clock.advance(INTERVAL_NS)
        assert look(watch)
        lows.append(bool(watch.low))
    assert lows == [False, True, True, True, False, False]


def test_a_disk_that_cannot_be_asked_stays_as_it_was_and_the_others_are_watched() -> None:
    # Its error ended the logger, and with it the runs on the other disks.
    clock, failing, sound = SimulatedClock(), directory(), directory()
    watch = SpaceWatch([failing, sound], clock)
    clock.advance(INTERVAL_NS)
    look(watch)
    failing.free, sound.free = None, 50
    clock.advance(INTERVAL_NS)
    assert look(watch)
    assert [disk.free_bytes for disk in watch.disks] == [1000, 50]
    assert watch.low == [watch.disks[1]]
    assert "Input/output error" in watch.disks[0].problem


def test_a_disk_that_is_low_and_goes_away_is_low_no_more() -> None:
    # The sources waited for space on a disk that was not there.
    clock, disk = SimulatedClock(), directory()
    watch = SpaceWatch([disk], clock)
    lows = []
    for free in (50, None, 150, 50):
        disk.free = free
        clock.advance(INTERVAL_NS)
        look(watch)
        lows.append(bool(watch.low))
    assert lows == [True, False, False, True]


class _Hanging(_Directory):
    """A directory that answers when it is let go."""

    let_go: threading.Event

    def space(self) -> Space:
        assert self.let_go.wait(90)
        return super().space()


def test_a_disk_that_hangs_holds_up_nobody_and_is_named() -> None:
    clock, hanging, sound = SimulatedClock(), directory("hanging"), directory("sound")
    hanging.__class__ = _Hanging
    assert isinstance(hanging, _Hanging)
    hanging.let_go = threading.Event()
    watch = SpaceWatch([hanging, sound], clock)
    clock.advance(INTERVAL_NS)
    watch.watches[1].step()
    thread = threading.Thread(target=watch.watches[0].run, daemon=True)
    thread.start()
    until(lambda: watch.watches[0].asked_ns != 0)
    clock.advance(HUNG_NS)
    assert watch.hung() == {}
    clock.advance(INTERVAL_NS)
    assert watch.hung() == {hanging.name: 6}
    assert watch.look(INIT)
    assert [disk.free_bytes for disk in watch.disks] == [0, 1000]
    assert [disk.problem for disk in watch.disks] == ["no answer for 6 s", ""]
    hanging.let_go.set()
    until(lambda: watch.watches[0].space is not None)
    watch.watches[0].stop()
    thread.join(90)
    assert not thread.is_alive()
    assert watch.hung() == {}
    clock.advance(INTERVAL_NS)
    assert watch.look(INIT)
    assert [disk.free_bytes for disk in watch.disks] == [1000, 1000]


def test_a_logger_whose_disk_hangs_answers_and_starts_no_run_there() -> None:
    world = World(1)
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=7)
    assert world.life is not None
    world.disks[0].hangs = True
    world.pump(700)
    alarms = {alarm.name: alarm.text for alarm in world.life.alarms.raised()}
    assert list(alarms) == ["hung disk0:data"]
    assert "disk0:data has not answered" in alarms["hung disk0:data"]
    refused = world.do("START RUN", run=8)
    assert not refused.ok
    assert "disk0:data: the directory does not answer" in refused.error
    assert world.do("PAUSE RUN", run=7).ok
    world.disks[0].hangs = False
    world.pump(300)
    assert world.life.alarms.raised() == []
    assert world.do("START RUN", run=8).ok


def test_a_second_directory_that_goes_away_is_an_alarm_until_it_is_back() -> None:
    # The line of the disk in the status had it, and an idle stream told of it at its end alone.
    world = World(1, directories=2)
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=7)
    assert world.life is not None
    world.disks[1].gone = True
    world.pump(700)
    [alarm] = world.life.alarms.raised()
    assert alarm.name == "directory disk1:data"
    assert "Input/output error" in alarm.text
    assert alarm.count == 1
    world.disks[1].gone = False
    world.pump(300)
    assert world.life.alarms.raised() == []


@pytest.mark.parametrize("busy", [False, True])
def test_a_journal_that_was_moved_ends_the_logger_before_anything_is_acknowledged(
    busy: bool,
) -> None:
    # A STATUS found it, and nothing before: until then the logger acknowledged into a file that no
    # start would find.
    world = World(1)
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=7)
    source = world.source("router-1")
    source.send(RUN, (PHOTONS,), 1, b"before")
    world.settle()
    world.store.gone = True
    if busy:
        source.send(RUN, (PHOTONS,), 2, b"after")
    for _ in range(300):
        if world.failures:
            break
        world.pump()
    (failure,) = world.failures
    assert isinstance(failure, JournalGone)
    assert source.idle is not busy
    world.store.gone = False  # somebody puts it back
    world.settle()
    assert world.do("STOP RUN", run=7).ok
    assert world.problems(complete=True) == []
