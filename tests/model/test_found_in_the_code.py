"""Counterexamples of the protocol model that held for the program too, each driven through it. The
rule that the model needed stands in its name."""

from __future__ import annotations

from dlog.core.source_session import Phase
from dlog.faults.simulation.sources import SimulatedSource
from dlog.faults.simulation.world import Life, World
from dlog.limits import KIB
from dlog.model.ids import RunNumber, StreamName

RUN = RunNumber(7)
PHOTONS = StreamName("photons")


def running(**photons: object) -> World:
    world = World(1)
    world.do("INIT", drain_seconds=0.0)
    world.do("CONFIGURE", streams={"photons": photons})
    world.do("START RUN", run=RUN)
    return world


def life_of(world: World) -> Life:
    assert world.life is not None
    return world.life


def send(source: SimulatedSource, *numbers: int) -> None:
    for number in numbers:
        assert source.send(RUN, (PHOTONS,), number, bytes([number]) * 100)


def test_name_held_over_restart() -> None:
    """A second process of a name waits also where the logger was started again meanwhile: the first
    one is alive, and what it sent was not acknowledged."""
    world = running()
    first = world.source("router-1")
    send(first, 1)
    world.settle()
    second = world.source("router-1")
    send(second, 2)
    world.pump(100)
    send(first, 3)
    world.kill()
    first.silent = True  # the second one is the first to say HELLO, by a few milliseconds
    world.pump(10)
    first.silent = False
    world.run_until(lambda: first.idle, "the first source is not through")
    assert first.machine.phase is Phase.OPEN
    assert "name-in-use" in second.machine.detail
    first.close()
    world.run_until(lambda: second.idle, "the second source is not through")
    assert world.problems() == []


def turn(world: World, *, with_writers: bool) -> None:
    """Everyone works but perhaps the streams' writers."""
    life = life_of(world)
    for _ in range(10):
        world.clock.advance(25_000_000)
        for source in world.sources:
            source.step()
        if life.events is not None:
            life.events.step()
        for writer in life.writers if with_writers else ():
            writer.step()
        life.committer.step()


def test_boundary_with_its_part() -> None:
    """A piece that is longer than a part is staged, and a crash comes before it is written: what
    the commit before told of the stream must not call its events late."""
    world = running(part_events=1, block_bytes=64 * KIB, flush_interval_ms=10_000)
    source = world.source("router-1")
    send(source, 1)  # the next small one will wait for more
    world.run_until(lambda: source.idle, "the first event is not stored")
    assert source.send(RUN, (PHOTONS,), 2, bytes(64 * KIB))  # a group of its own
    send(source, 3, 4, 5)
    turn(world, with_writers=False)
    turn(world, with_writers=True)
    assert source.machine.batches.acknowledged == 2
    world.kill()
    world.settle()
    assert world.problems(complete=True) == []
    assert [name for disk in world.disks for name in disk.contents() if "garbage" in name] == []
