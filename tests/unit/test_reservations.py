"""How far ahead a part reserves disk space: three times what its stream has written, within bounds,
and never what would take the disk below its low-water mark."""

from __future__ import annotations

import pytest

from dlog.faults.simulation.steps import Operation, When
from dlog.faults.simulation.world import Life, World
from dlog.limits import KIB, MIB
from dlog.model.ids import RunNumber, StreamName

RUN = RunNumber(7)
LOW_WATER, RESUME = 4 * MIB, 5 * MIB


def running(
    *streams: str, free_bytes: int, low_water: int = LOW_WATER, resume: int = RESUME
) -> World:
    """A run with these streams on one disk, and alarms as an operator would see them."""
    world = World(1, capacity_bytes=free_bytes)
    world.do(
        "INIT", low_water_bytes=low_water, resume_bytes=resume,
        stream_defaults={"reserve_bytes": 64 * MIB},
    )  # fmt: skip
    world.do("CONFIGURE", streams={name: {} for name in streams})
    world.do("START RUN", run=RUN)
    return world


def life_of(world: World) -> Life:
    assert world.life is not None
    return world.life


def reservations(world: World) -> int:
    return sum(step.operation is Operation.RESERVE for step in world.steps.history)


def held_bytes(world: World) -> dict[str, int]:
    """What each stream has reserved and not written, by its name."""
    return {
        str(w.writer.key.stream): sum(r.reserved - r.durable for r in w.writer.file_records())
        for w in life_of(world).writers
    }


def test_many_quiet_streams_hold_little_of_a_small_disk() -> None:
    # Each held 64 MiB: twelve streams of a few events stopped all sources with `disk-low`.
    names = [f"s{i}" for i in range(12)]
    world = running(*names, free_bytes=32 * MIB)
    source = world.source("router-1")
    for number, name in enumerate(names):
        source.send(RUN, (StreamName(name),), number, b"x")
    world.settle()
    world.pump(300)  # the space is looked at
    assert life_of(world).alarms.raised() == []
    held = held_bytes(world)
    assert max(held.values()) <= MIB + 64 * KIB
    assert min(held[name] for name in names) >= MIB


def test_a_busy_stream_reserves_more_and_more_at_once() -> None:
    world = running("busy", free_bytes=1 << 40)
    source = world.source("router-1")
    before = reservations(world)
    for number in range(40):
        assert source.send(RUN, (StreamName("busy"),), number, bytes(MIB))
        world.settle()
    assert reservations(world) - before <= 4
    assert held_bytes(world)["busy"] >= 16 * MIB


def test_a_reservation_leaves_what_lies_below_the_low_water_mark() -> None:
    room = 12 * MIB
    world = running("busy", free_bytes=LOW_WATER + room)
    source = world.source("router-1")
    for number in range(20):
        source.send(RUN, (StreamName("busy"),), number, bytes(MIB // 2))
        world.settle()
        # A longer reservation would fit on the disk, and stop the sources.
        assert world.disks[0].free_bytes() >= LOW_WATER
    world.pump(300)
    assert life_of(world).alarms.raised() == []
    assert world.problems(complete=True) == []


def test_below_the_mark_the_block_and_its_footer_still_find_their_space() -> None:
    world = running("busy", free_bytes=LOW_WATER - MIB, low_water=0)
    life_of(world).keep_free(LOW_WATER)  # as INIT would, which also stops the sources
    source = world.source("router-1")
    for number in range(4):
        source.send(RUN, (StreamName("busy"),), number, bytes(MIB // 4))
        world.settle()
    assert held_bytes(world)["busy"] < MIB // 4
    assert world.problems(complete=True) == []


def test_quiet_streams_give_back_what_they_reserved_before_the_sources_must_wait() -> None:
    # What streams held that had been busy once was of no use to the others: `disk-low` came with
    # half of the disk reserved and not written.
    names = [f"s{i}" for i in range(4)]
    world = running(*names, "late", free_bytes=48 * MIB, resume=12 * MIB)
    source = world.source("router-1")
    for name in names:
        assert source.send(RUN, (StreamName(name),), 1, bytes(MIB))
        world.settle()
    held = held_bytes(world)
    assert sum(held[name] for name in names) > 10 * MIB
    sent = 0
    while sent < 32:  # more than was left, before the others gave anything back
        if source.send(RUN, (StreamName("late"),), sent, bytes(MIB)):
            sent += 1
        world.pump(40, tick_ns=100_000_000)
        assert life_of(world).alarms.raised() == []
    world.settle()
    assert all(held_bytes(world)[name] < MIB for name in names)
    for name in names:
        assert source.send(RUN, (StreamName(name),), 7, b"x")
    world.settle()
    assert world.problems(complete=True) == []


@pytest.mark.long
@pytest.mark.parametrize("when", list(When))
def test_a_crash_while_a_stream_gives_back_what_it_reserved_loses_nothing(when: When) -> None:
    for step in range(1, 8):
        world = running("busy", free_bytes=60 * MIB)
        source = world.source("router-1")
        assert source.send(RUN, (StreamName("busy"),), 1, bytes(MIB))
        world.settle()
        (writer,) = [w.writer for w in life_of(world).writers if w.writer.key.run == RUN]
        for _ in range(2):
            writer.give_back()
        world.steps.crash_at(world.steps.count + step, when)
        world.pump(20)
        assert source.send(RUN, (StreamName("busy"),), 6, b"x")
        world.settle()
        assert world.problems(complete=True) == []
        assert world.lost == []
        assert world.unsettled == []
