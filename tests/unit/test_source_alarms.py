"""An alarm about a source stands for as long as its cause, and no longer."""

from __future__ import annotations

from dlog.core.frame import MessageKind, encode_control
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.world import World
from dlog.model.messages import Hello, encode_body
from dlog.ports import Severity
from dlog.services.source_alarms import OF_A_SESSION
from tests.simulated_logger import life_of, running, send


def stands(world: World, name: str) -> bool:
    return name in [alarm.name for alarm in life_of(world).alarms.raised()]


def settled(world: World, name: str = "router-1") -> SimulatedSource:
    """A source of which an event is stored."""
    source = world.source(name)
    send(source, 1)
    world.settle()
    return source


def say_hello(world: World, source: SimulatedSource, lowest: int) -> None:
    hello = Hello(
        session=source.session, name=source.name, host="h", process=1, lowest=lowest,
        position_bytes=10_000,
    )  # fmt: skip
    events = life_of(world).events
    assert events is not None
    events.receive(
        source.peer, memoryview(encode_control(MessageKind.HELLO, encode_body(hello))), ""
    )


def test_a_name_is_not_in_use_any_more_once_the_second_source_is_gone() -> None:
    world = running()
    settled(world)
    second = world.source("router-1")
    world.run_until(lambda: stands(world, "name-in-use router-1"), "the second is refused")
    world.pump(100)
    assert stands(world, "name-in-use router-1")
    second.silent = True
    world.run_until(lambda: not stands(world, "name-in-use router-1"), "the alarm stands")


def test_a_name_is_not_in_use_any_more_once_the_second_source_has_it() -> None:
    world = running()
    first = settled(world)
    world.source("router-1")
    world.run_until(lambda: stands(world, "name-in-use router-1"), "the second is refused")
    first.close()
    world.run_until(lambda: not stands(world, "name-in-use router-1"), "the alarm stands")
    world.pump(100)
    assert life_of(world).alarms.raised() == []


def test_a_lost_source_is_no_alarm_once_it_is_back_or_another_one_has_its_name() -> None:
    world = running()
    source = settled(world)
    source.silent = True
    world.run_until(lambda: stands(world, "source-lost router-1"), "it is not missed")
    source.silent = False
    world.run_until(lambda: not stands(world, "source-lost router-1"), "it is back")
    source.silent = True
    world.run_until(lambda: stands(world, "source-lost router-1"), "it is not missed again")
    world.source("router-1")
    world.run_until(lambda: not stands(world, "source-lost router-1"), "its name is taken")


def test_a_lost_source_is_no_alarm_once_its_session_has_expired() -> None:
    world = running(session_expiry_seconds=20.0)
    settled(world).silent = True
    world.run_until(lambda: stands(world, "source-lost router-1"), "it is not missed")
    world.run_until(lambda: not stands(world, "source-lost router-1"), "its session expires")


def test_the_end_of_an_old_session_says_nothing_of_the_source_that_has_its_name_now() -> None:
    world = running(session_expiry_seconds=20.0)
    old = settled(world)
    old.silent = True
    world.run_until(lambda: stands(world, "source-lost router-1"), "it is not missed")
    new = settled(world)
    new.silent = True
    world.run_until(lambda: stands(world, "source-lost router-1"), "the new one is not missed")
    events = life_of(world).events
    assert events is not None
    (session,) = [s for s in events._sessions if s.id == old.session]
    events._drop(session)  # as when so many are remembered that the oldest is forgotten
    assert stands(world, "source-lost router-1")


def test_a_gap_is_no_alarm_once_the_source_is_taken_in_again() -> None:
    world = running()
    source = settled(world)
    source.silent = True
    say_hello(world, source, 5)
    assert stands(world, "gap router-1")
    say_hello(world, source, 2)
    assert not stands(world, "gap router-1")


def test_what_a_source_did_is_no_alarm_once_another_one_has_its_name() -> None:
    world = running()
    source = settled(world)
    events = life_of(world).events
    assert events is not None
    events.receive(source.peer, memoryview(b"not a message"), "")
    assert stands(world, "malformed router-1")
    source.silent = True
    world.run_until(lambda: stands(world, "source-lost router-1"), "it is not missed")
    world.source("router-1")
    world.run_until(lambda: not life_of(world).alarms.raised(), "the alarms stand")


def test_what_a_source_did_is_no_alarm_once_its_session_ends() -> None:
    world = running()
    source = settled(world)
    for kind in OF_A_SESSION:
        life_of(world).alarms.raise_alarm(f"{kind} router-1", Severity.WARNING, "why")
    source.close()
    world.run_until(lambda: not life_of(world).alarms.raised(), "the alarms stand")
