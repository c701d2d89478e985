"""What the measurements say of a machine: the rate that it holds, and what keeps it from more.

Decisions alone: measurements in, words out.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from dlog.bench.rig import Measured
from dlog.quantities import rate

# Of what the disk takes, or of the processors' time: beyond it, that is what limits.
DISK_PART: Final = 0.85
BUSY_PART: Final = 0.88
# Above this an acknowledgement is late for whoever waits for it.
LATE_MS: Final = 50.0


class Limit(enum.StrEnum):
    DISK = "the disk"
    PROCESSORS = "the processors"
    WAITING = "waiting for each other"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """rate: payload bytes a second that are held; 0 where none was. highest_rate: the lowest of the
    highest rates over the sizes of events."""

    sentence: str
    rate: float
    highest_rate: float
    limit: Limit
    warnings: list[str]


def judge(
    sizes: Sequence[Measured], hold: Measured | None, *, disk_rate: float, durable: bool
) -> Verdict:
    """sizes: at full speed, one for each size of event. hold: a load by a rate, kept up with."""
    slowest = min(sizes, key=lambda each: each.rate)
    limit = limit_of(slowest, disk_rate)
    warnings = []
    if not durable:
        warnings.append(
            "the directory lies in memory: what is measured is not durable; give --dir on a disk"
        )
    p99 = hold.latency_ms.get("p99", 0.0) if hold is not None else 0.0
    if p99 > LATE_MS:
        warnings.append(
            f"at the rate that is held, one event in a hundred waits {p99:.0f} ms or more for its "
            "acknowledgement"
        )
    return Verdict(
        sentence=_sentence(slowest, hold, limit, disk_rate),
        rate=hold.load.rate if hold is not None else 0.0,
        highest_rate=slowest.rate,
        limit=limit,
        warnings=warnings,
    )


def limit_of(measured: Measured, disk_rate: float) -> Limit:
    """What was used up when it went as fast as it could."""
    if measured.stored_rate >= DISK_PART * disk_rate:
        return Limit.DISK
    if measured.cpu_busy >= BUSY_PART:
        return Limit.PROCESSORS
    return Limit.WAITING


def _sentence(slowest: Measured, hold: Measured | None, limit: Limit, disk_rate: float) -> str:
    because = _because(slowest, limit, disk_rate)
    if hold is None:
        return f"This machine took {rate(slowest.rate)} at most, and held no rate: {because}"
    margin = 1 - hold.load.rate / slowest.rate
    latency = hold.latency_ms.get("p99", 0.0)
    return (
        f"This machine holds {rate(hold.load.rate)} durably, with a margin of {margin:.0%} to the "
        f"{rate(slowest.rate)} that it took at most for any size of event, and acknowledges 99 % "
        f"of the events within {latency:.1f} ms; {because}"
    )


def _because(slowest: Measured, limit: Limit, disk_rate: float) -> str:
    logger = slowest.cpu_seconds_per_gb
    sources = slowest.sources_cpu_seconds / (slowest.stored_bytes / 1e9)
    match limit:
        case Limit.DISK:
            return f"the disk limits it, which takes {rate(disk_rate)} without a logger."
        case Limit.PROCESSORS:
            return (
                f"the processors limit it ({logger:.2f} s a GB for the logger, {sources:.2f} s for "
                f"the sources on the same machine), not the disk, which takes {rate(disk_rate)}."
            )
        case Limit.WAITING:
            return (
                f"neither the disk ({rate(disk_rate)} without a logger) nor the processors "
                f"({slowest.cpu_busy:.0%} busy) are used up: one thread or the time of a sync "
                "limits it."
            )
        case _:
            assert_never(limit)
