"""The address of the event server after a restart: kept, unless it was the system that chose its
port and another program has it by now."""

from __future__ import annotations

import pytest

from dlog.errors import Error
from dlog.faults.simulation.world import World
from dlog.model.ids import StreamName


def running(address: str) -> tuple[World, str]:
    world = World(1)
    assert world.do("INIT", event_address=address).ok
    assert world.do("CONFIGURE", streams={"photons": {}}).ok
    assert world.do("START RUN", run=1).ok
    return world, bound(world)


def bound(world: World) -> str:
    assert world.life is not None
    return world.life.commander.record.event_address


def alarms(world: World) -> dict[str, str]:
    assert world.life is not None
    return {alarm.name: alarm.text for alarm in world.life.alarms.raised()}


def test_a_free_port_is_kept() -> None:
    world, address = running("tcp://127.0.0.1:*")
    world.kill()
    world.boot()
    assert bound(world) == address
    assert alarms(world) == {}


def test_another_one_is_taken_where_a_program_has_it_by_now() -> None:
    world, address = running("tcp://127.0.0.1:*")
    world.kill()
    world.taken_addresses = frozenset({address})
    source = world.source("source")
    source.send(1, (StreamName("photons"),), 1, b"x")
    world.settle()
    assert bound(world) != address
    assert address in alarms(world)["event-address"]
    assert bound(world) in alarms(world)["event-address"]
    now = bound(world)
    world.kill()
    world.boot()
    assert bound(world) == now


def test_a_port_that_was_asked_for_is_not_exchanged() -> None:
    world, address = running("tcp://127.0.0.1:7000")
    assert address == "tcp://127.0.0.1:7000"
    world.kill()
    world.taken_addresses = frozenset({address})
    with pytest.raises(Error, match="7000: Address already in use"):
        world.boot()
    world.taken_addresses = frozenset()
    world.boot()
    assert bound(world) == address
