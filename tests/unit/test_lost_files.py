"""An event file loses its name while it takes events: a clean-up script deletes it, somebody moves
it, or its folder, or puts another file in its place. What is acknowledged stays in a file that can
be found, and the operator is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dlog.faults.simulation.steps import Fault, FaultKind, Operation
from dlog.faults.simulation.world import Life, World
from dlog.limits import KIB
from dlog.model.ids import RunNumber, StreamName
from dlog.services.stream_thread import StreamWriter

RUN = RunNumber(7)
PHOTONS = StreamName("photons")
FIRST = "data/runs/7/photons_0001.dlog.part"
ALARM = "file-lost run 7 photons_0001.dlog"
SOON_ROUNDS = 500  # 5 s


def deleted(world: World) -> None:
    world.disks[0].delete(FIRST)


def moved(world: World) -> None:
    world.disks[0].move(FIRST, "data/kept/mine.part")


def replaced(world: World) -> None:
    deleted(world)
    world.disks[0].put(FIRST, b"somebody else's")


def replaced_by_a_copy(world: World) -> None:
    content = world.disks[0].contents()[FIRST]
    deleted(world)
    world.disks[0].put(FIRST, content)


def folder_moved(world: World) -> None:
    world.disks[0].move("data/runs/7", "data/kept/run-seven")


LOSSES = [deleted, moved, replaced, replaced_by_a_copy, folder_moved]
every_loss = pytest.mark.parametrize("lose", LOSSES, ids=[f.__name__ for f in LOSSES])
Loss = Callable[[World], None]


def running(**stream: object) -> World:
    """A run whose first part has 20 acknowledged events."""
    world = World(1)
    world.do("INIT", drain_seconds=0.1, settle_seconds=1.0)
    world.do("CONFIGURE", streams={"photons": stream})
    world.do("START RUN", run=RUN)
    send(world, range(20))
    return world


def send(world: World, numbers: range) -> None:
    source = world.sources[0] if world.sources else world.source("router-1")
    for number in numbers:
        assert source.send(RUN, (PHOTONS,), number, bytes([number]) * 5000)
    world.settle()


def life_of(world: World) -> Life:
    assert world.life is not None
    return world.life


def writer(world: World) -> StreamWriter:
    return next(w.writer for w in life_of(world).writers if w.writer.key.run == RUN)


def alarms(world: World) -> dict[str, str]:
    return {a.name: a.text for a in life_of(world).alarms.raised()}


def saved(world: World) -> str:
    """The alarm of the first part, once it has its name again."""
    world.run_until(lambda: "nothing" in alarms(world).get(ALARM, ""), "no alarm")
    return alarms(world)[ALARM]


@every_loss
def test_it_is_told_soon_and_what_was_acknowledged_has_its_name_again(lose: Loss) -> None:
    world = running()
    lose(world)
    world.pump(SOON_ROUNDS)
    assert "runs/7/photons_0001.dlog" in saved(world)
    send(world, range(20, 40))
    assert world.problems() == []
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(SOON_ROUNDS)  # the housekeeper settles it
    assert set(alarms(world)) == {ALARM}
    assert world.problems(complete=True) == []
    assert "data/runs/7/photons_0001.dlog" in world.disks[0].contents()


@every_loss
def test_events_that_come_meanwhile_are_stored_once(lose: Loss) -> None:
    world = running()
    source = world.sources[0]
    for number in range(20, 40):
        assert source.send(RUN, (PHOTONS,), number, bytes([number]) * 5000)
        world.pump(1)
        if number == 30:
            lose(world)
    world.pump(SOON_ROUNDS)
    assert saved(world)
    world.settle()
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(SOON_ROUNDS)
    assert world.problems(complete=True) == []


@every_loss
def test_a_file_that_is_lost_right_before_it_is_closed_is_saved(lose: Loss) -> None:
    world = running()
    lose(world)
    assert world.do("STOP RUN", run=RUN).ok
    assert saved(world)
    world.pump(SOON_ROUNDS)
    assert world.problems(complete=True) == []
    assert "data/runs/7/photons_0001.dlog" in world.disks[0].contents()


@every_loss
def test_a_reservation_notices_it(lose: Loss) -> None:
    world = running()
    lose(world)
    source = world.sources[0]
    # No longer than one look lasts: only a reservation can have seen it.
    for number in range(20, 40):
        assert source.send(RUN, (PHOTONS,), number, bytes([number]) * (150 * KIB))
    begin_ns = world.clock.monotonic_ns()
    world.run_until(lambda: bool(alarms(world)), "no alarm")
    assert world.clock.monotonic_ns() - begin_ns < 1_000_000_000
    world.settle()
    assert world.problems(complete=True) == []


@every_loss
def test_the_next_boot_finds_what_was_lost_before_an_orderly_end(lose: Loss) -> None:
    world = running()
    lose(world)
    world.terminate()
    world.power_cut = False
    send(world, range(20, 40))
    assert world.lost == []
    assert world.do("STOP RUN", run=RUN).ok
    assert world.problems(complete=True) == []


def test_a_part_that_waits_for_late_events_is_saved_too() -> None:
    world = running(part_events=10, late_seconds=1e6)
    assert len(writer(world).file_records()) >= 2
    deleted(world)
    world.pump(2 * SOON_ROUNDS)
    assert saved(world)
    world.sources[0].send(RUN, (PHOTONS,), 3, b"late")
    world.settle()
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(SOON_ROUNDS)
    assert world.problems(complete=True) == []
    assert not any("garbage" in path for path in world.disks[0].contents())


def test_it_is_held_open_until_there_is_space_to_save_it() -> None:
    world = running()
    disk = world.disks[0]
    deleted(world)
    fault = Fault(FaultKind.NO_SPACE, frozenset({Operation.WRITE, Operation.CREATE}), times=None)
    world.steps.inject(fault)
    world.pump(SOON_ROUNDS)
    (text,) = (text for name, text in alarms(world).items() if name.startswith("file-lost"))
    assert "No space left" in text
    assert "was deleted" in text
    world.pump(3 * SOON_ROUNDS)
    assert FIRST not in disk.contents()
    world.steps.clear_faults()
    assert saved(world)
    send(world, range(20, 40))
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(SOON_ROUNDS)
    assert world.problems(complete=True) == []


def test_a_file_that_somebody_puts_back_is_not_saved_twice() -> None:
    world = running()
    world.steps.inject(Fault(FaultKind.EIO, frozenset({Operation.NAME}), times=None))
    moved(world)
    world.pump(SOON_ROUNDS)
    assert alarms(world)
    world.disks[0].move("data/kept/mine.part", FIRST)
    world.steps.clear_faults()
    assert saved(world)
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(SOON_ROUNDS)
    assert world.problems(complete=True) == []


def test_each_file_that_is_deleted_while_it_takes_events_is_saved() -> None:
    world = running()
    source = world.sources[0]
    for round_ in range(600):
        if round_ % 20 == 0:
            source.send(RUN, (PHOTONS,), 20 + round_, bytes(200 * KIB))
        for record in writer(world).file_records():
            if f"data/{record.path}.part" in world.disks[0].contents():
                world.disks[0].delete(f"data/{record.path}.part")
        world.pump(1)
    assert len(alarms(world)) > 3
    world.settle()
    assert world.do("STOP RUN", run=RUN).ok
    world.pump(SOON_ROUNDS)
    assert world.problems(complete=True) == []
