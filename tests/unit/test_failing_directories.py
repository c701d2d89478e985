"""What a stream leaves behind on a disk that goes on failing: it tries again for ever, and no try
leaves a file. A file that may not grow any more is a part that is full."""

from __future__ import annotations

import re

import pytest

from dlog.faults.simulation.steps import Fault, FaultKind, Operation
from dlog.faults.simulation.world import World
from dlog.limits import KIB, MIB
from dlog.model.ids import RunNumber, StreamName

RUN = RunNumber(7)
PHOTONS = StreamName("photons")


def running(directories: int = 1) -> World:
    world = World(1, directories=directories)
    world.do("INIT", drain_seconds=0.1)
    world.do("CONFIGURE", streams={"photons": {}})
    world.do("START RUN", run=RUN)
    return world


def parts(world: World) -> set[str]:
    """The numbers of the parts that were ever made, wherever their files lie now."""
    paths = [path for disk in world.disks for path in disk.contents()]
    return {found for path in paths for found in re.findall(r"photons_(\d+)\.dlog", path)}


@pytest.mark.parametrize("directories", [1, 2])
def test_a_part_that_reaches_the_longest_file_of_its_filesystem_is_full(directories: int) -> None:
    world = running(directories)
    for disk in world.disks:
        disk.file_bytes_max = 4 * MIB
    source = world.source("router-1")
    for number in range(40):
        assert source.send(RUN, (PHOTONS,), number, bytes(300 * KIB))
        world.settle()
    assert world.life is not None
    assert world.life.alarms.raised() == []
    assert len(world.disks[0].contents()) >= 3  # the stream stays where there is space
    assert world.do("STOP RUN", run=RUN).ok
    assert world.problems(complete=True) == []


@pytest.mark.parametrize("directories", [1, 2])
def test_files_that_take_no_block_are_not_made_over_and_over(directories: int) -> None:
    world = running(directories)
    source = world.source("router-1")
    world.pump(20)
    for disk in world.disks:
        disk.file_bytes_max = 64 * KIB
    source.send(RUN, (PHOTONS,), 1, bytes(300 * KIB))
    world.pump(1000)
    assert len(parts(world)) <= 2 * directories
    assert world.life is not None
    (alarm,) = world.life.alarms.raised()
    assert alarm.name == "stalled run 7 stream photons"
    assert "File too large" in alarm.text
    for disk in world.disks:
        disk.file_bytes_max = 1 << 40
    world.settle()
    assert world.life.alarms.raised() == []
    assert world.problems(complete=True) == []


@pytest.mark.parametrize("directories", [1, 2])
@pytest.mark.parametrize(
    "operation", [Operation.RESERVE, Operation.WRITE, Operation.SYNC_FILE, Operation.CREATE]
)
def test_a_fault_that_lasts_leaves_no_file_at_each_try(
    operation: Operation, directories: int
) -> None:
    world = running(directories)
    source = world.source("router-1")
    source.send(RUN, (PHOTONS,), 1, b"x")
    world.settle()
    fault = Fault(FaultKind.EIO, frozenset({operation}), times=None, path_prefix="data/runs")
    world.steps.inject(fault)
    for number in range(2, 10):
        source.send(RUN, (PHOTONS,), number, bytes(300 * KIB))
    world.pump(300)
    before = parts(world)
    world.pump(600, tick_ns=500_000_000)
    assert parts(world) == before
    assert len(before) <= 2 + directories
    world.steps.clear_faults()
    world.settle()
    assert world.do("STOP RUN", run=RUN).ok
    assert world.problems(complete=True) == []


def test_a_restart_begins_no_file_where_the_last_one_failed() -> None:
    world = running()
    source = world.source("router-1")
    source.send(RUN, (PHOTONS,), 1, b"x")
    world.settle()
    fault = Fault(
        FaultKind.EIO, frozenset({Operation.RESERVE}), times=None, path_prefix="data/runs"
    )
    world.steps.inject(fault)
    for number in range(2, 10):
        source.send(RUN, (PHOTONS,), number, bytes(300 * KIB))
    world.pump(300)
    before = parts(world)
    for _ in range(5):
        world.kill()
        world.steps.inject(fault)
        world.pump(300)
    assert parts(world) == before
    world.steps.clear_faults()
    world.settle()
    assert world.problems(complete=True) == []
