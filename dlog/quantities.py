"""Numbers and times as people read them: counts, sizes, rates, durations. It prints nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal


def count(number: float) -> str:
    return f"{number:,.0f}"


def events(number: int) -> str:
    return "1 event" if number == 1 else f"{count(number)} events"


def size(number: float) -> str:
    """Bytes, as 1.5 GiB."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def rate(per_second: float) -> str:
    """Bytes a second, in the units that networks and disks are sold in."""
    value = float(per_second)
    for unit in ("B/s", "kB/s", "MB/s"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B/s" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB/s"


def duration(seconds: float) -> str:
    """As 3.2 s, 12 min 5 s, 4 h 10 min, 3 d 2 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    for long, short, in_long in (("min", "s", 60), ("h", "min", 3600), ("d", "h", 86400)):
        below = in_long * {"min": 60, "h": 24, "d": 10**9}[long]
        if whole < below:
            part = whole % in_long // {"s": 1, "min": 60, "h": 3600}[short]
            return f"{whole // in_long} {long} {part} {short}"
    raise AssertionError("days have no end")


def moment(time_ns: int, timespec: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """Local time with its zone, `2026-11-28 07:01:02 +01:00`; "" for 0. The zone is the one of
    that moment, so that no hour is meant twice when summer time ends."""
    if time_ns <= 0:
        return ""
    try:
        local = datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone()
    except (OverflowError, ValueError, OSError):
        return f"{time_ns // 10**9} s after 1970"
    text = local.replace(tzinfo=None).isoformat(sep=" ", timespec=timespec)
    zone = local.strftime("%z")
    return f"{text} {zone[:3]}:{zone[3:5]}"


def since(time_ns: int, now_ns: int | None = None) -> str:
    """How long ago a moment was; "never" for 0."""
    if time_ns <= 0:
        return "never"
    now_ns = time.time_ns() if now_ns is None else now_ns
    return duration(max(0.0, (now_ns - time_ns) / 1e9))


def by_reason(counts: Mapping[str, int]) -> str:
    """`late 3, aborted 12`."""
    return ", ".join(f"{reason} {count(number)}" for reason, number in sorted(counts.items()))
