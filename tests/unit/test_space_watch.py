"""The space watch: marks, and a disk that does not even say how full it is."""

from __future__ import annotations

import random

from dlog.errors import StorageError
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.disk import SimulatedDirectory, SimulatedDisk
from dlog.faults.simulation.steps import StorageSteps
from dlog.model.config import InitConfig
from dlog.ports import Space
from dlog.services.space_watch import INTERVAL_NS, SpaceWatch

INIT = InitConfig(low_water_bytes=100, resume_bytes=200)


class _Directory(SimulatedDirectory):
    """A directory whose space the test says; None for a disk that fails."""

    free: int | None = 1000

    def space(self) -> Space:
        if self.free is None:
            raise StorageError("Input/output error", path=self.name)
        return Space(self.free, 1000)


def directory() -> _Directory:
    disk = SimulatedDisk(StorageSteps(random.Random(1)))
    found = disk.directory("data")
    found.__class__ = _Directory
    assert isinstance(found, _Directory)
    return found


def test_a_disk_is_low_from_one_mark_to_the_other() -> None:
    clock, disk = SimulatedClock(), directory()
    watch = SpaceWatch([disk], clock)
    lows = []
    for free in (150, 99, 150, 199, 200, 150):
        disk.free = free
        clock.advance(INTERVAL_NS)
        assert watch.look(INIT)
        lows.append(bool(watch.low))
    assert lows == [False, True, True, True, False, False]


def test_a_disk_that_cannot_be_asked_stays_as_it_was_and_the_others_are_watched() -> None:
    # Its error ended the logger, and with it the runs on the other disks.
    clock, failing, sound = SimulatedClock(), directory(), directory()
    watch = SpaceWatch([failing, sound], clock)
    clock.advance(INTERVAL_NS)
    watch.look(INIT)
    failing.free, sound.free = None, 50
    clock.advance(INTERVAL_NS)
    assert watch.look(INIT)
    assert [disk.free_bytes for disk in watch.disks] == [1000, 50]
    assert watch.low == [watch.disks[1]]
