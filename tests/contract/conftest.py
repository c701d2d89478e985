"""The implementations that the contract suites run on, and small real filesystems that can fill.

Tests of this folder never say how an adapter does a thing, except where their file's name does.
"""

from __future__ import annotations

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
from dlog.limits import MIB
from dlog.ports import Directory, Journal
from tests.rig.filesystems import small_disk

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


@pytest.fixture(params=["tmpfs", pytest.param("ext4", marks=pytest.mark.long)])
def small_filesystem(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Of about 24 MiB."""
    with small_disk(tmp_path / "small", 26 * MIB, request.param) as place:
        yield place
