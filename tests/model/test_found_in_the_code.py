"""Counterexamples of the protocol model that held for the program too, each driven through it. The
rule that the model needed stands in its name."""

from __future__ import annotations

from dlog.core.source_session import Phase
from dlog.limits import KIB
from tests.simulated_logger import holds, running, send, work


def test_name_held_over_restart() -> None:
    """A second process of a name waits also where the logger was started again meanwhile: the first
    one is alive, and what it sent was not acknowledged."""
    world = running(drain_seconds=0.0)
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


def test_boundary_with_its_part() -> None:
    """A piece that is longer than a part is staged, and a crash comes before it is written: what
    the commit before told of the stream must not call its events late."""
    photons = {"part_events": 1, "block_bytes": 64 * KIB, "flush_interval_ms": 10_000}
    world = running(streams={"photons": photons}, drain_seconds=0.0)
    source = world.source("router-1")
    send(source, 1)  # the next small one will wait for more
    world.run_until(lambda: source.idle, "the first event is not stored")
    send(source, 2, size_bytes=64 * KIB)  # a group of its own
    send(source, 3, 4, 5)
    work(world, writers=False, rounds=10)
    work(world, rounds=10)
    assert source.machine.batches.acknowledged == 2
    world.kill()
    holds(world)
    assert [name for disk in world.disks for name in disk.contents() if "garbage" in name] == []
