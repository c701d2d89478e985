"""Rounds of measurements, each with everything once, so that what is compared was measured side by
side: dlog, the disk without a logger, dlog without sync, and the peers.

A disk of a shared machine changes from minute to minute: only ratios within a round are kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from dlog.bench.disk import write_in_parallel
from dlog.bench.pauses import processor_pauses
from dlog.bench.rig import Load, Measured, Rig
from tests.benchmarks.peers import PEERS, Order, Written
from tests.benchmarks.reading import events_over_reading, verify_over_reading
from tests.benchmarks.targets import PEER_SIZES, SIZES
from tests.rig.commands import CHECKOUT

Say = Callable[[str], None]
# What changes most from one moment to the next, and takes few seconds.
_TIMES_A_ROUND: Final = 3


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Of each measurement."""

    seconds: float = 2.0
    bytes_max: int = 3 << 30


class Found:
    """Values by name, one a round."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        self.values[name].append(value)

    def medians(self) -> dict[str, float]:
        return {name: median(values) for name, values in self.values.items()}


class Rounds:
    def __init__(self, folder: Path, bounds: Bounds, say: Say) -> None:
        self._folder = folder
        self._bounds = bounds
        self._say = say
        self.ratios = Found()
        self.absolute = Found()  # bytes a second, for the table of what was seen

    def run(self, rounds: int, *, peers: bool = True) -> None:
        with Rig(self._folder / "logger") as rig:
            # Warms up: imports, memory, the journal's first pages. Half of it, to be read later.
            to_read = msgspec.structs.replace(
                self._load(1024), bytes_max=self._bounds.bytes_max // 2
            )
            rig.measure(to_read, keep=True)
            for number in range(1, rounds + 1):
                self._say(f"round {number} of {rounds}")
                self._sizes(rig)
                self._mixed(rig)
                self._hot(rig)
                self._unsynced()
                if peers:
                    self._peers(rig)
                self._latency(rig)
                self._reading(rig.run_folder(1))

    # --- one round -------------------------------------------------------------------------------

    def _sizes(self, rig: Rig) -> None:
        worst = 0.0
        disk = self._disk(4)
        for size in SIZES:
            measured = self._measure(rig, self._load(size))
            after = self._disk(4)
            self.ratios.add(f"disk-{size}", measured.stored_rate / ((disk + after) / 2))
            self.absolute.add(f"dlog-{size}", measured.stored_rate)
            self.absolute.add(f"sources-cpu-{size}", _sources_cpu(measured))
            self.absolute.add(f"cpu-{size}", measured.cpu_seconds_per_gb)
            if size == 1024:
                for name, seconds in measured.logger_threads.items():
                    self.absolute.add(f"cpu-thread-{name}", seconds / (measured.stored_bytes / 1e9))
            worst = max(worst, measured.cpu_seconds_per_gb)
            disk = after
        self.ratios.add("cpu", worst)

    def _mixed(self, rig: Rig) -> None:
        before = self._disk(4)
        load = msgspec.structs.replace(
            self._load(1024), mixed=True, bytes_max=self._bounds.bytes_max * 2 // 3
        )
        measured = self._measure(rig, load)
        disk = (before + self._disk(4)) / 2
        self.ratios.add("mixed", measured.stored_rate / disk)
        self.absolute.add("dlog-mixed", measured.stored_rate)

    def _hot(self, rig: Rig) -> None:
        before = self._disk(1)
        load = msgspec.structs.replace(self._load(16 * 1024), streams=1, sources=1)
        measured = self._measure(rig, load)
        disk = (before + self._disk(1)) / 2
        self.ratios.add("hot", measured.stored_rate / disk)
        self.absolute.add("dlog-hot", measured.stored_rate)

    def _unsynced(self) -> None:
        # Two that start together: one and the same logger differs by some percent from start to
        # start, and would do so in every pair of the run.
        load = self._load(16 * 1024)
        unsynced_load = msgspec.structs.replace(load, name=f"{load.name}, nothing synced")
        with (
            Rig(self._folder / "synced") as synced,
            Rig(self._folder / "unsynced", module="tests.benchmarks.without_fsync") as unsynced,
        ):
            for each in (synced, unsynced):
                each.measure(load)
            before = self._measure(unsynced, unsynced_load).stored_rate
            for _ in range(_TIMES_A_ROUND):
                rate = self._measure(synced, load).stored_rate
                after = self._measure(unsynced, unsynced_load).stored_rate
                self.ratios.add("durable", rate / ((before + after) / 2))
                self.absolute.add("dlog-unsynced", (before + after) / 2)
                before = after

    def _peers(self, rig: Rig) -> None:
        for size in PEER_SIZES:
            load = self._load(size)
            before = self._measure(rig, load).stored_rate
            written = {peer: self._peer(peer, size).rate for peer in PEERS}
            dlog = (before + self._measure(rig, load).stored_rate) / 2
            for peer, rate in written.items():
                self.ratios.add(f"{peer}-{size}", dlog / rate)
                self.absolute.add(f"{peer}-{size}", rate)

    def _latency(self, rig: Rig) -> None:
        self.absolute.add("longest-pause", processor_pauses(self._bounds.seconds).longest_ms)
        highest = self.absolute.values["dlog-1024"][-1]
        load = msgspec.structs.replace(self._load(1024), rate=highest / 3)
        for _ in range(_TIMES_A_ROUND):
            measured = self._measure(rig, load)
            self.ratios.add("latency", measured.latency_ms["p99"])
            self.absolute.add("latency-p50", measured.latency_ms["p50"])

    def _reading(self, run: Path) -> None:
        for _ in range(_TIMES_A_ROUND):
            self.ratios.add("verify", verify_over_reading(run))
            self.ratios.add("read", events_over_reading(run))
        self._say("  verify and reading are measured")

    # --- one measurement -------------------------------------------------------------------------

    def _load(self, event_bytes: int) -> Load:
        return Load(
            name=f"{event_bytes} B", event_bytes=event_bytes, seconds=self._bounds.seconds,
            bytes_max=self._bounds.bytes_max,
        )  # fmt: skip

    def _measure(self, rig: Rig, load: Load) -> Measured:
        measured = rig.measure(load)
        self._say(
            f"  dlog {load.name}{' mixed' * load.mixed}, {load.streams} streams: "
            f"{measured.stored_rate / 1e6:.0f} MB/s, {measured.cpu_seconds_per_gb:.2f} s/GB, "
            f"{measured.cpu_busy:.0%} busy"
            + (f", p99 {measured.latency_ms['p99']:.1f} ms" if measured.latency_ms else "")
        )
        return measured

    def _disk(self, files: int) -> float:
        look = write_in_parallel(
            self._folder, files=files, seconds=self._bounds.seconds / 2,
            bytes_max=self._bounds.bytes_max,
        )  # fmt: skip
        self.absolute.add(f"disk-{files}", look.rate)
        self._say(f"  disk, {files} files: {look.rate / 1e6:.0f} MB/s")
        return look.rate

    def _peer(self, peer: str, event_bytes: int) -> Written:
        folder = self._folder / "peer"
        folder.mkdir()
        order = Order(
            peer=peer, folder=str(folder), event_bytes=event_bytes, seconds=self._bounds.seconds,
            bytes_max=self._bounds.bytes_max,
        )  # fmt: skip
        text = msgspec.json.encode(order).decode()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.peers", text], cwd=CHECKOUT, check=True,
                capture_output=True, timeout=60 + 10 * self._bounds.seconds,
            )  # fmt: skip
        finally:
            shutil.rmtree(folder)
            os.sync()  # as after a run of dlog: who is measured next does not pay for it
        written = msgspec.json.decode(done.stdout, type=Written)
        self._say(f"  {peer}, {event_bytes} B: {written.rate / 1e6:.0f} MB/s")
        return written


def _sources_cpu(measured: Measured) -> float:
    return measured.sources_cpu_seconds / (measured.stored_bytes / 1e9)
