"""The implementations that the contract suites run on, and small real filesystems that can fill.

Tests of this folder never say how an adapter does a thing, except where their file's name does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Protocol

import pytest

from dlog.adapters.data_files import DataDirectory
from dlog.adapters.journal import LmdbJournal
from dlog.adapters.journal_files import JournalSpace
from dlog.faults.simulation.disk import SimulatedDisk
from dlog.faults.simulation.journal import JournalStore, SimulatedJournal
from dlog.faults.simulation.steps import StorageSteps
from dlog.limits import KIB, MIB
from dlog.ports import Directory, Journal

SMALL_SPACE = JournalSpace(ballast_bytes=MIB, ahead_bytes=2 * MIB)


class Journals(Protocol):
    """One journal, whichever way it is kept."""

    def create(self) -> Journal: ...

    def open_again(self, journal: Journal) -> Journal:
        """Close it and open it anew, as a restart does."""
        ...


class RealJournals:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "journal"
        self._made: list[Journal] = []

    def create(self) -> Journal:
        self._made.append(LmdbJournal.create(self._path, space=SMALL_SPACE))
        return self._made[-1]

    def open_again(self, journal: Journal) -> Journal:
        journal.close()
        self._made.append(LmdbJournal.open(self._path, space=SMALL_SPACE))
        return self._made[-1]

    def close(self) -> None:
        for journal in self._made:
            journal.close()


class SimulatedJournals:
    def __init__(self) -> None:
        self._steps = StorageSteps(Random(1))
        self._store = JournalStore()

    def create(self) -> Journal:
        return SimulatedJournal(self._steps, self._store)

    def open_again(self, journal: Journal) -> Journal:
        journal.close()
        self._steps.restart()
        return SimulatedJournal(self._steps, self._store)


@pytest.fixture(params=["lmdb", "simulated"])
def journals(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journals]:
    if request.param == "simulated":
        yield SimulatedJournals()
        return
    real = RealJournals(tmp_path)
    yield real
    real.close()


@pytest.fixture
def journal(journals: Journals) -> Journal:
    return journals.create()


@pytest.fixture(params=["real", "simulated"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    if request.param == "simulated":
        return SimulatedDisk(StorageSteps(Random(1))).directory("data")
    root = tmp_path / "data"
    root.mkdir()
    return DataDirectory(root)


# --- filesystems that are small enough to fill ------------------------------------------------


@pytest.fixture(params=["tmpfs", "ext4"])
def small_filesystem(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Of about 24 MiB; skipped where this user may not mount one."""
    place = tmp_path / "mounted"
    place.mkdir()
    if request.param == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)]
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(26 * MIB)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("no mkfs.ext4 to make a small filesystem with")
        made = subprocess.run(
            ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], capture_output=True, check=False
        )
        if made.returncode:
            pytest.skip(f"mkfs.ext4: {made.stderr.decode()}")
        command = ["mount", "-o", "loop", str(image), str(place)]
    if shutil.which("mount") is None:
        pytest.skip("no mount to make a small filesystem with")
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small {request.param} can be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def fill(place: Path) -> Path:
    """Take all the space there is; removing the returned file gives it back."""
    hog = place / "hog"
    with hog.open("ab", buffering=0) as file:
        for size in (MIB, 64 * KIB, 4 * KIB, 512):
            while True:
                try:
                    if file.write(bytes(size)) < size:
                        break
                except OSError:
                    break
        os.fsync(file.fileno())
    return hog


@pytest.fixture(name="fill")
def fill_fixture() -> object:
    return fill


@pytest.fixture
def strace() -> str:
    """The tracer that makes system calls fail; skipped where it is missing or may not trace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("no strace to make system calls fail with")
    tried = subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace may not trace here: {tried.stderr.decode().strip()}")
    return found
