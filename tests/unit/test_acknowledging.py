"""COOR acknowledges alarms: which, what it is told, and when they come back."""

from __future__ import annotations

from dlog.faults.simulation.steps import Operation
from dlog.faults.simulation.world import World
from dlog.model.messages import Answer
from dlog.ports import Severity
from tests.simulated_logger import PHOTONS_FILES, fail, life_of, running, send

ACKNOWLEDGE = "ACKNOWLEDGE ALARM"
STORAGE = "storage run 7 stream photons"
LOST = "file runs/7/photons_0001.dlog"


def raised(world: World) -> list[str]:
    return [alarm.name for alarm in life_of(world).alarms.raised()]


def acknowledge(world: World, name: str, subject: str = "") -> Answer:
    return world.do(ACKNOWLEDGE, name=name, subject=subject)


def with_a_fault() -> World:
    world = running()
    one_more_fault(world, 1)
    return world


def one_more_fault(world: World, number: int) -> None:
    fail(world, Operation.SYNC_FILE, path=PHOTONS_FILES)
    send(world.source(f"router-{number}"), number)
    world.settle()


def test_an_alarm_that_was_acknowledged_comes_back_when_it_is_raised_anew() -> None:
    world = with_a_fault()
    assert raised(world) == [STORAGE]
    answer = acknowledge(world, "storage", "run 7 stream photons")
    assert (answer.ok, answer.data) == (True, {"alarms": [STORAGE]})
    assert raised(world) == []
    one_more_fault(world, 2)
    assert raised(world) == [STORAGE]


def test_without_a_subject_all_of_the_kind_are_acknowledged() -> None:
    world = running()
    for name in ("malformed a", "malformed b", "window a"):
        life_of(world).alarms.raise_alarm(name, Severity.WARNING, "why")
    assert acknowledge(world, "malformed").data == {"alarms": ["malformed a", "malformed b"]}
    assert acknowledge(world, "window a").data == {"alarms": ["window a"]}
    assert raised(world) == []


def test_a_name_that_does_not_stand_is_refused_with_those_that_do() -> None:
    world = running()
    assert acknowledge(world, "storage").error == "no alarm 'storage' stands; none does"
    life_of(world).alarms.raise_alarm("window a", Severity.WARNING, "why")
    answer = acknowledge(world, "window", "b")
    assert (answer.code, answer.error) == (
        "alarm",
        "no alarm 'window b' stands; these do: window a",
    )


def test_an_alarm_whose_cause_may_be_there_is_not_acknowledged() -> None:
    world = running()
    life_of(world).alarms.raise_alarm("hung data", Severity.ERROR, "why")
    answer = acknowledge(world, "hung", "data")
    assert not answer.ok
    assert answer.error.endswith("it goes away when the directory answers")
    assert raised(world) == ["hung data"]


def test_it_is_accepted_before_init() -> None:
    world = World(1)
    world.boot()
    life_of(world).alarms.raise_alarm("event-address", Severity.WARNING, "why")
    assert acknowledge(world, "event-address").ok
    assert raised(world) == []


def test_what_is_raised_once_more_while_the_answer_is_committed_stands() -> None:
    world = running()
    alarms = life_of(world).alarms
    alarms.raise_alarm("window a", Severity.WARNING, "why")
    number = world.give(ACKNOWLEDGE, name="window")
    world.coor.step(life_of(world).link)
    life_of(world).commander.step()
    alarms.raise_alarm("window a", Severity.WARNING, "why")
    world.run_until(lambda: number in world.coor.answers, "no answer")
    assert raised(world) == ["window a"]


def test_the_next_start_does_not_bring_an_acknowledged_alarm_back_but_another_finding() -> None:
    world = running()
    send(world.source("router-1"), 1)
    world.settle()
    world.kill()
    world.disks[0].delete(f"{PHOTONS_FILES}_0001.dlog.part")
    world.boot()
    assert raised(world) == [LOST]
    assert acknowledge(world, "file").ok
    assert raised(world) == []
    world.kill()
    world.boot()
    assert raised(world) == []
    alarms = life_of(world).alarms
    alarms.raise_alarm(LOST, Severity.ERROR, "something else")
    assert raised(world) == [LOST]
