"""Rotation: which part of a stream an event goes to, and why a part is full. It does no I/O.

A part is full by bytes, events or seconds. It then ENDs: its range closes at the highest event
number that the stream has stored, the next part takes what is above, and what comes late for a
range goes to its END part, or to the garbage file once that is CLOSED.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_BYTES, EventTable

Mask = NDArray[np.bool_]
Selection = slice | Mask


class Full(enum.StrEnum):
    """Why a part is full."""

    BYTES = "bytes"
    EVENTS = "events"
    SECONDS = "seconds"
    BLOCKS = "blocks"


@dataclass(frozen=True, slots=True)
class Fill:
    """How full a part is: bytes with what is staged for it, events, and its age."""

    bytes: int
    events: int
    blocks: int
    age_ns: int


def full(fill: Fill, config: StreamConfig, blocks_max: int) -> Full | None:
    """Why no further event may go into the part, or None. An empty part is never full."""
    if fill.events == 0:
        return None
    if config.part_bytes and fill.bytes >= config.part_bytes:
        return Full.BYTES
    if config.part_events and fill.events >= config.part_events:
        return Full.EVENTS
    if config.part_seconds and fill.age_ns >= config.part_seconds * 1e9:
        return Full.SECONDS
    if fill.blocks >= blocks_max:
        return Full.BLOCKS
    return None


def fitting(table: EventTable, payload_bytes: int, fill: Fill, config: StreamConfig) -> int:
    """How many of the first events of a table still go into a part that is not full. payload_bytes:
    of all its events.

    At least one where the part is empty or has room for any byte at all, so that an event larger
    than a part gets a part of its own.
    """
    count = len(table)
    if config.part_events:
        count = min(count, config.part_events - fill.events)
    if config.part_bytes:
        room = config.part_bytes - fill.bytes
        if len(table) * EVENT_BYTES + payload_bytes > room:
            ends = np.cumsum(table["size"][:count].astype(np.uint64) + EVENT_BYTES)
            count = max(1, int(np.searchsorted(ends, max(room, 0), side="right")))
    return count


@dataclass(frozen=True, slots=True)
class Range:
    """The event numbers that an END part takes: low exclusive (-1 for none), high inclusive."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Late:
    """Where the events of a table go: `on_time` to the current part, `ends[i]` to END part i,
    `garbage` to the garbage file. A mask is None where no event goes there."""

    on_time: Selection | None
    ends: tuple[tuple[int, Mask], ...]
    garbage: Mask | None


def sort_late(numbers: NDArray[Any], low: int, ends: Sequence[Range]) -> Late:
    """Sort the events of a table by the ranges. `low`: everything at or below it is late."""
    if low < 0 or int(np.minimum.reduce(numbers)) > low:
        return Late(slice(None), (), None)
    late = numbers <= np.uint64(low)
    rest = late.copy()
    chosen: list[tuple[int, Mask]] = []
    for i, part in enumerate(ends):
        mask = rest & (numbers <= np.uint64(part.high))
        if part.low >= 0:
            mask &= numbers > np.uint64(part.low)
        if mask.any():
            chosen.append((i, mask))
            rest &= ~mask
    return Late(~late if not late.all() else None, tuple(chosen), rest if rest.any() else None)
