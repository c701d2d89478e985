"""The space watch: marks, a disk that does not say how full it is, and one that does not answer."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from dlog.adapters.patience import answered_within
from dlog.core import journal_records as records
from dlog.core.journal_records import CommandRecord, RunRecord
from dlog.errors import JournalGone, StorageError
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.disk import SimulatedDirectory, SimulatedDisk
from dlog.faults.simulation.steps import StorageSteps
from dlog.faults.simulation.world import World
from dlog.model.config import InitConfig
from dlog.model.ids import RunNumber, StreamName
from dlog.ports import Space
from dlog.services.committer import Ticket
from dlog.services.space_watch import HUNG_NS, INTERVAL_NS, SpaceWatch
from tests.simulated_logger import life_of, recorded
from tests.waiting import LONG, until

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


def test_a_start_in_the_first_second_of_a_hang_is_answered() -> None:
    world = World(1)
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {}})
    world.disks[0].hangs = True
    refused = world.do("START RUN", run=8)
    assert "no data directory can be used" in refused.error
    assert "no answer for 2 s" in refused.error
    world.disks[0].hangs = False
    assert world.do("START RUN", run=8).ok


def starting() -> tuple[World, int]:
    """A logger whose START RUN waits for the disk, and the number of that command."""
    world = World(1)
    world.do("INIT")
    world.do("CONFIGURE", streams={"photons": {}})
    world.asleep = frozenset({"photons"})
    number = world.give("START RUN", run=8)
    world.pump(20)
    assert number not in world.coor.answers
    return world, number


def test_a_run_whose_directory_hangs_while_it_is_made_is_refused_and_over_when_it_answers() -> None:
    world, number = starting()
    world.disks[0].hangs = True
    world.run_until(lambda: number in world.coor.answers, "COOR waits for the disk")
    answer = world.coor.answers[number]
    assert not answer.ok
    assert answer.error == (
        "disk0:data: the directory does not answer, and run 8 ends when it does"
    )
    world.disks[0].hangs, world.asleep = False, frozenset()
    world.run_until(
        lambda: world.life is not None and not world.life.commander.runs, "the run does not end"
    )
    assert "run 8 is ABORTED already" in world.do("STOP RUN", run=8).error
    world.pump(300)
    assert world.do("START RUN", run=9).ok
    assert world.problems() == []


def test_a_run_that_was_given_up_is_not_started_by_the_next_start() -> None:
    world, number = starting()
    world.disks[0].hangs = True
    world.run_until(lambda: number in world.coor.answers, "COOR waits for the disk")
    world.kill()
    world.disks[0].hangs, world.asleep = False, frozenset()
    world.boot()
    world.run_until(
        lambda: world.life is not None and not world.life.commander.runs, "the run does not end"
    )
    assert "run 8 is ABORTED already" in world.do("STOP RUN", run=8).error


@pytest.mark.parametrize("how", ["given up", "aborted"])
def test_the_refusal_of_a_start_and_the_end_of_its_run_are_one_commit(how: str) -> None:
    # Else a crash in between leaves a run that COOR was told of as refused, and starts it.
    world, number = starting()
    life = life_of(world)
    submit_made = life.committer.submit_made
    runs: list[RunRecord] = []

    def each_in_a_commit_of_its_own(*args: Any, **keywords: Any) -> Ticket:
        ticket = submit_made(*args, **keywords)
        life.committer.step()
        if not runs and [c for c in commands() if c.command == "START RUN"]:
            runs.extend(recorded(world, records.RUNS, RunRecord))
        return ticket

    def commands() -> list[CommandRecord]:
        return recorded(world, records.COMMANDS, CommandRecord)

    life.committer.submit_made = each_in_a_commit_of_its_own  # type: ignore[method-assign]
    if how == "aborted":
        world.give("ABORT RUN", run=8)
    else:
        world.disks[0].hangs = True
    world.run_until(lambda: number in world.coor.answers, "COOR waits for the disk")
    assert not world.coor.answers[number].ok
    assert [bool(run.abort_reason) for run in runs] == [True]


@pytest.mark.parametrize("answer", [True, False])
def test_a_disk_that_answers_in_time_is_heard(answer: bool) -> None:
    assert answered_within(LONG, "disk", lambda: answer) is answer


def test_a_disk_that_does_not_answer_is_not_waited_for() -> None:
    let_go = threading.Event()
    with pytest.raises(StorageError, match="no answer for"):
        answered_within(0.01, "disk", lambda: let_go.wait(LONG))
    let_go.set()


def test_what_a_disk_answers_wrong_is_raised() -> None:
    def ask() -> bool:
        raise StorageError("Input/output error", path="disk")

    with pytest.raises(StorageError, match="Input/output error"):
        answered_within(LONG, "disk", ask)


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
