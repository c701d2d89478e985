"""A new data directory: durable when it is told to be made, on a filesystem that keeps only what
POSIX promises, and never made over what stands there."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from dlog.core.data_directory import CREATED, MARK
from dlog.creation import create_data_directory, create_where_none_is
from dlog.errors import Error
from dlog.faults.simulation.clock import SimulatedClock
from dlog.faults.simulation.disk import SimulatedDirectory, SimulatedDisk
from dlog.faults.simulation.steps import SimulatedCrash, StorageSteps, When
from dlog.services.data_directories import claim, create

PATH = "disk/daq/data"


class _Machine:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.steps = StorageSteps(Random(f"{seed}/steps"), SimulatedClock())
        self.disk = SimulatedDisk(self.steps)

    def above(self) -> SimulatedDirectory:
        return self.disk.directory("mnt")

    def power_cut(self) -> None:
        self.steps.crash_now()
        self.disk.crash(self.random)
        self.steps.restart()


def steps_of_a_creation() -> int:
    machine = _Machine(0)
    create(machine.above(), PATH)
    return machine.steps.count


@pytest.mark.parametrize("seed", range(5))
def test_what_was_made_is_there_after_a_power_cut(seed: int) -> None:
    machine = _Machine(seed)
    create(machine.above(), PATH)
    machine.power_cut()
    assert machine.above().names(PATH) == [CREATED]
    claim(SimulatedDirectory(machine.disk, f"mnt/{PATH}"), "aa" * 16)
    machine.power_cut()
    assert machine.above().names(PATH) == [CREATED, MARK]


@pytest.mark.parametrize("when", list(When))
@pytest.mark.parametrize("step", range(1, steps_of_a_creation() + 1))
@pytest.mark.parametrize("power_cut", [True, False])
def test_after_a_crash_inside_it_is_made_again(step: int, when: When, power_cut: bool) -> None:
    machine = _Machine(step)
    machine.steps.crash_at(step, when)
    with pytest.raises(SimulatedCrash):
        create(machine.above(), PATH)
    if power_cut:
        machine.disk.crash(machine.random)
    machine.steps.restart()
    create(machine.above(), PATH)  # also where only the killed program's page cache has its levels
    machine.power_cut()
    assert machine.above().names(PATH) == [CREATED]


def test_each_new_level_is_synced_before_the_next_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched)
    create_data_directory(tmp_path / "a" / "b")
    levels = [str(level) for level in (tmp_path.parent, tmp_path, tmp_path / "a")]
    places = [synced.index(level) for level in levels]
    assert places == sorted(places)
    assert str(tmp_path / "a" / "b") == synced[-1]
    assert os.listdir(tmp_path / "a" / "b") == [CREATED]


def test_an_empty_directory_becomes_one_and_a_repeated_creation_changes_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "lost+found").mkdir()
    create_data_directory(tmp_path)
    create_data_directory(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [CREATED, "lost+found"]


def test_nothing_is_made_over_what_stands_there(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("mine")
    with pytest.raises(Error, match="it holds photos"):
        create_data_directory(tmp_path)
    with pytest.raises(Error, match="is not a directory"):
        create_data_directory(tmp_path / "photos")
    assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.parametrize("path", ["link", "link/data"])
def test_nothing_is_made_where_a_dangling_link_leads(tmp_path: Path, path: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "mnt" / "daq")
    with pytest.raises(Error, match="is its disk mounted"):
        create_data_directory(tmp_path / path)
    assert os.listdir(tmp_path) == ["link"]


def test_a_link_to_a_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "daq").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "daq")
    create_data_directory(tmp_path / "link")
    assert os.listdir(tmp_path / "daq") == [CREATED]


def test_a_script_makes_all_directories_of_a_configuration_or_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    create_where_none_is([first, second])
    assert os.listdir(first) == os.listdir(second) == [CREATED]
    (second / CREATED).unlink()  # as where its disk is not mounted
    create_where_none_is([first, second])
    assert os.listdir(second) == []
