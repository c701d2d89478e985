"""Verify and reading, over reading the files alone.

Measured in each round: what is read through memory depends, for minutes at a time, on what the host
of a virtual machine has done with that memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import dlog
from dlog.core.scan import Depth
from dlog.limits import MIB
from dlog.recovery.verify import plan, verify

_READ_BYTES: Final = 4 * MIB


def verify_over_reading(run: Path) -> float:
    """`verify --quick` of what is stored over reading the files alone, two threads. They come from
    the disk, not from memory; one is directly after the other."""
    files = _files(run)
    alone = _cold(files, lambda: _read_all(files, threads=2))
    return alone / _cold(files, lambda: _verify(files))


def events_over_reading(run: Path) -> float:
    """The same for reading blocks of events, one thread."""
    files = _files(run)
    alone = _cold(files, lambda: _read_all(files, threads=1))
    return alone / _cold(files, lambda: _read_events(run))


def _files(run: Path) -> list[Path]:
    return sorted(run.glob("*.dlog"))


def _cold(files: list[Path], work: Callable[[], None]) -> float:
    """Seconds that it takes, with nothing of the files in memory."""
    # Each finds the machine as after a reading: memory that it has just given back costs less than
    # memory that a virtual machine's host has taken away meanwhile.
    _read_all(files, threads=2)
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _read_all(files: list[Path], *, threads: int) -> None:
    def read(file: Path) -> None:
        memory = bytearray(_READ_BYTES)
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(memory):
                pass

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, files))


def _verify(files: list[Path]) -> None:
    for report in verify(plan(files), depth=Depth.STORED, workers=2):
        assert report.verdict.exit_code == 0, report


def _read_events(run: Path) -> None:
    highest = 0
    for block in dlog.read(run).blocks():
        highest = max(highest, int(block.table["number"].max()), int(block.payload[-1]))
