"""What dlog wants to reach: each target with its gate and its aim, and how a measurement stands.

Ratios wherever one machine's time says nothing about another's; each is taken within one run.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Standing(enum.StrEnum):
    AIM = "aim reached"
    GATE = "gate held"
    MISSED = "GATE MISSED"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Target:
    """gate: what must hold. aim: what is wanted. less: less is better."""

    key: str
    what: str
    gate: float
    aim: float
    unit: str = ""
    less: bool = False

    def standing(self, value: float | None) -> Standing:
        if value is None:
            return Standing.NOT_MEASURED
        sign = -1 if self.less else 1
        if sign * value >= sign * self.aim:
            return Standing.AIM
        if sign * value >= sign * self.gate:
            return Standing.GATE
        return Standing.MISSED


SIZES: Final = (256, 1024, 16 * 1024, 250_000)
PEER_SIZES: Final = (1024, 250_000)

TARGETS: Final = (
    *(
        Target(f"disk-{size}", f"durable, four streams, over the disk, {name}", 0.6, 0.85)
        for size, name in zip(SIZES, ("256 B", "1 KiB", "16 KiB", "250 kB"), strict=True)
    ),
    Target("mixed", "the same, mixed streams and variable lengths, 1 KiB", 0.35, 0.60),
    Target("hot", "one hot stream over one file", 0.45, 0.70),
    Target("durable", "durable over the same without any fsync", 0.90, 0.95),
    Target("filter-speed", "filter and zstd over zstd alone: speed", 1.6, 2.2),
    Target("filter-size", "filter and zstd over zstd alone: size", 0.7, 0.6, less=True),
    Target("mcap-1024", "over MCAP, 1 KiB", 5.0, 10.0),
    Target("mcap-250000", "over MCAP, 250 kB", 2.5, 4.0),
    Target("sqlite-1024", "over SQLite WAL FULL, 1 KiB", 4.0, 7.0),
    Target("sqlite-250000", "over SQLite WAL FULL, 250 kB", 2.5, 4.0),
    Target("hdf5-1024", "over h5py in batches, 1 KiB", 2.5, 4.0),
    Target("hdf5-250000", "over h5py in batches, 250 kB", 2.5, 4.0),
    Target("cpu", "logger CPU for a GB, the worst of the sizes", 0.90, 0.60, "s", less=True),
    Target("latency", "latency at a third of the highest rate, p99", 15.0, 5.0, "ms", less=True),
    Target("verify", "verify --quick over reading the files alone, two threads", 0.7, 0.95),
    Target("read", "reading blocks of events over reading the file alone", 0.5, 0.9),
    Target("restart-small", "restart, 10 open files, 1,000 closed ones", 1.0, 0.3, "s", less=True),
    Target("restart-large", "restart, 10 open files, 1,000,000 closed ones", 1.0, 0.3, "s",
           less=True),
    Target("restart-growth", "the second over the first", 1.5, 1.5, less=True),
    Target("memory", "memory under overload, above the configured one", 0.25, 0.10, less=True),
)  # fmt: skip
