"""What is measured, in which order, and what comes of it: everything between two looks at the disk.

Each measurement under load stands between two short looks at what the disk takes at that moment,
since the disk of a shared machine is not the same from one minute to the next.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final, Protocol

import msgspec

from dlog.bench.disk import (
    DiskRate,
    Latency,
    filesystem_of,
    journal_latency,
    sync_latency,
    write_in_parallel,
)
from dlog.bench.pauses import Pauses, processor_pauses
from dlog.bench.rig import Load, Measured, Rig
from dlog.bench.verdict import Verdict, judge
from dlog.errors import Error
from dlog.limits import GIB, MIB

SIZES: Final = (256, 1024, 16 * 1024, 250_000)
STREAM_COUNTS: Final = (1, 4, 16)
# Parts of the highest rate at which latencies are looked at.
RATE_PARTS: Final = (0.1, 0.33, 0.5, 0.7, 0.85)
# The rate that is held is tried at this part of the highest one, and below it if that is too much.
MARGIN_PARTS: Final = (0.7, 0.5, 0.35)
USUAL_BYTES: Final = 1024
LOOK_SECONDS_MAX: Final = 0.5
PAUSES_SECONDS_MIN: Final = 2.0
BYTES_MIN: Final = 64 * MIB


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Of what kind it is; nothing in it says which one."""

    processors: int
    memory_bytes: int
    filesystem: str
    direct: bool
    kernel: str
    python: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement, and what the disk took around it: rates of 4 files in parallel."""

    kind: str  # size, streams, compression, mixed, rate, hold
    measured: Measured
    disk_rate: float

    @property
    def of_disk(self) -> float:
        return self.measured.stored_rate / self.disk_rate


class Qualification(msgspec.Struct, frozen=True, kw_only=True):
    """All that `dlog bench` says. disk: the best look at it, 4 files in parallel; disk_alone: one
    file; pauses: of the processors, while nothing else runs."""

    machine: Machine
    seconds: float
    bytes_max: int
    disk: DiskRate
    disk_alone: DiskRate
    sync: Latency
    journal: Latency
    pauses: Pauses
    rows: list[Row]
    verdict: Verdict
    rss_peak_bytes: int

    def of_kind(self, *kinds: str) -> list[Row]:
        return [row for row in self.rows if row.kind in kinds]


class Audience(Protocol):
    """Who watches."""

    def begins(self, what: str) -> None: ...

    def measured(self, row: Row) -> None: ...

    def ended(self) -> None:
        """One of `steps` is done."""
        ...


def steps() -> int:
    """How many there are, for a bar."""
    return 1 + len(SIZES) + len(STREAM_COUNTS) - 1 + 1 + 3 + len(RATE_PARTS) + 1


def qualify(folder: Path, *, seconds: float, bytes_max: int, audience: Audience) -> Qualification:
    """Measure everything, in a folder that exists. Raises `Error` where the machine does not let
    it; what was written is gone at the end."""
    _check_space(folder, bytes_max)
    return _Measuring(folder, seconds, bytes_max, audience).run()


def _check_space(folder: Path, bytes_max: int) -> None:
    free = shutil.disk_usage(folder).free
    # Space is reserved ahead, and the journal has its own.
    needed = bytes_max + GIB
    if free < needed:
        raise Error(
            f"{folder}: {free // MIB} MiB are free, and {needed // MIB} MiB are needed; give fewer "
            "--bytes or another --dir"
        )


class _Measuring:
    def __init__(self, folder: Path, seconds: float, bytes_max: int, audience: Audience) -> None:
        self._folder = folder
        self._seconds = seconds
        self._bytes_max = bytes_max
        self._audience = audience
        self._looks: list[DiskRate] = []
        self._rows: list[Row] = []

    def run(self) -> Qualification:
        self._audience.begins("the processors alone")
        pauses = processor_pauses(max(self._seconds, PAUSES_SECONDS_MIN))
        self._audience.begins("the disk alone")
        alone = write_in_parallel(
            self._folder, files=1, seconds=self._look_seconds, bytes_max=self._bytes_max
        )
        self._look()
        sync = sync_latency(self._folder, seconds=self._look_seconds)
        journal_folder = self._folder / "latency"
        journal_folder.mkdir()
        journal = journal_latency(journal_folder, seconds=self._look_seconds)
        shutil.rmtree(journal_folder)
        self._audience.ended()
        with Rig(self._folder / "logger") as rig:
            for kind, load in self._loads():
                self._measure(rig, kind, load)
            self._rates(rig)
            hold = self._hold(rig)
            peak = rig.rss_peak_bytes
        disk = max(self._looks, key=lambda look: look.rate)
        typical = median(look.rate for look in self._looks)
        return Qualification(
            machine=_machine(self._folder, disk.direct),
            seconds=self._seconds,
            bytes_max=self._bytes_max,
            disk=disk,
            disk_alone=alone,
            sync=sync,
            journal=journal,
            pauses=pauses,
            rows=self._rows,
            verdict=judge(
                [row.measured for row in self._rows if row.kind == "size"],
                hold,
                disk_rate=typical,
                durable=filesystem_of(self._folder) not in ("tmpfs", "ramfs"),
            ),
            rss_peak_bytes=peak,
        )

    @property
    def _look_seconds(self) -> float:
        return min(LOOK_SECONDS_MAX, self._seconds)

    def _load(self, name: str, event_bytes: int = USUAL_BYTES, **how: object) -> Load:
        load = Load(
            name=name, event_bytes=event_bytes, seconds=self._seconds, bytes_max=self._bytes_max
        )
        return msgspec.structs.replace(load, **how)

    def _loads(self) -> Iterator[tuple[str, Load]]:
        for size in SIZES:
            yield "size", self._load(f"{_size(size)} events", size)
        for count in STREAM_COUNTS:
            if count != 4:
                yield "streams", self._load(f"{count} stream{'s'[: count > 1]}", 16 * 1024,
                                            streams=count, sources=min(2, count))  # fmt: skip
        yield "mixed", self._load("mixed streams, variable lengths", mixed=True,
                                  bytes_max=self._bytes_max * 2 // 3)  # fmt: skip
        for name, stream in (
            ("waveforms, not compressed", {}),
            ("waveforms, zstd", {"compression": "zstd"}),
            ("waveforms, delta and zstd", {"compression": "zstd", "filter": "delta"}),
        ):
            yield "compression", self._load(name, 16 * 1024, content="waveforms", stream=stream)

    def _rates(self, rig: Rig) -> None:
        highest = self._highest(USUAL_BYTES)
        for part in RATE_PARTS:
            rate = part * highest
            self._measure(rig, "rate", self._load(f"{part:.0%} of the highest rate", rate=rate))

    def _hold(self, rig: Rig) -> Measured | None:
        """The highest rate, with a margin, that holds for every size of event."""
        lowest = min(row.measured.rate for row in self._rows if row.kind == "size")
        worst = min(
            (row for row in self._rows if row.kind == "size"), key=lambda row: row.measured.rate
        )
        size = worst.measured.load.event_bytes
        for part in MARGIN_PARTS:
            load = self._load(f"held, {_size(size)} events", size, rate=part * lowest)
            row = self._measure(rig, "hold", load)
            if row.measured.keeps_up:
                return row.measured
        return None

    def _highest(self, event_bytes: int) -> float:
        return next(
            row.measured.rate
            for row in self._rows
            if row.kind == "size" and row.measured.load.event_bytes == event_bytes
        )

    def _measure(self, rig: Rig, kind: str, load: Load) -> Row:
        self._audience.begins(load.name)
        before = self._looks[-1]
        measured = rig.measure(load)
        after = self._look()
        row = Row(kind=kind, measured=measured, disk_rate=(before.rate + after.rate) / 2)
        self._rows.append(row)
        self._audience.measured(row)
        self._audience.ended()
        return row

    def _look(self) -> DiskRate:
        look = write_in_parallel(
            self._folder, files=4, seconds=self._look_seconds, bytes_max=self._bytes_max
        )
        self._looks.append(look)
        return look


def _size(size: int) -> str:
    if size % 1024 == 0:
        return f"{size // 1024} KiB"
    return f"{size // 1000} kB" if size % 1000 == 0 else f"{size} B"


def _machine(folder: Path, direct: bool) -> Machine:
    return Machine(
        processors=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        filesystem=filesystem_of(folder),
        direct=direct,
        kernel=f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        python=platform.python_version(),
    )
