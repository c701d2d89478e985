"""Rotation: every event goes to one place, ranges never overlap, and parts are full in time."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import cast

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from dlog.core.journal_records import FileRecord
from dlog.core.pieces import Piece
from dlog.core.rotation import Fill, Full, Range, fitting, full, sort_late
from dlog.core.states import FileState
from dlog.faults.simulation.clock import SimulatedClock
from dlog.limits import MIB, PAGE_BYTES, PARTS_PER_BATCH_MAX
from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE, EventTable
from dlog.model.ids import (
    FileKind,
    MarkKey,
    Offset,
    PartNumber,
    RunNumber,
    Sequence,
    SessionId,
    StreamName,
)
from dlog.services.parts import Predecessor, SealedPart, Storage
from dlog.services.staging import Slot, Staging

MARK = MarkKey(SessionId(bytes(16)), RunNumber(7), StreamName("photons"))
NUMBERS = st.one_of(st.integers(0, 60), st.sampled_from([2**63, 2**64 - 2, 2**64 - 1]))


def table_of(numbers: list[int], sizes: list[int] | None = None) -> EventTable:
    table = np.zeros(len(numbers), EVENT_DTYPE)
    table["number"] = np.array(numbers, np.uint64)
    table["order"] = np.arange(len(numbers))
    table["size"] = sizes or 0
    return table


# --- when a part is full --------------------------------------------------------------------------

LIMITS = StreamConfig(part_bytes=1000, part_events=10, part_seconds=2.0)


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (Fill(999, 9, 4, 1_999_999_999), None),
        (Fill(1000, 9, 4, 0), Full.BYTES),
        (Fill(999, 10, 4, 0), Full.EVENTS),
        (Fill(999, 9, 4, 2_000_000_000), Full.SECONDS),
        (Fill(999, 9, 5, 0), Full.BLOCKS),
        (Fill(10**9, 0, 99, 10**12), None),  # an empty part is never full
    ],
)
def test_a_part_is_full_by_bytes_events_seconds_or_blocks(fill: Fill, reason: Full | None) -> None:
    assert full(fill, LIMITS, blocks_max=5) is reason


def test_without_limits_only_blocks_fill_a_part() -> None:
    unlimited = StreamConfig(part_bytes=0)
    assert full(Fill(2**60, 2**40, 4, 2**60), unlimited, 5) is None
    assert full(Fill(2**60, 2**40, 5, 2**60), unlimited, 5) is Full.BLOCKS


@given(
    st.lists(st.integers(0, 500), min_size=1, max_size=40),
    st.integers(0, 1500),
    st.integers(0, 9),
)
def test_what_fits_never_exceeds_the_part_but_for_one_event(
    sizes: list[int], used: int, events: int
) -> None:
    table = table_of(list(range(len(sizes))), sizes)
    fill = Fill(used, events, 0, 0)
    count = fitting(table, int(table["size"].sum()), fill, LIMITS)
    assert 1 <= count <= len(sizes)
    assert events + count <= 10
    needed = sum(sizes[:count]) + count * EVENT_BYTES
    assert count == 1 or used + needed <= 1000
    # And nothing is left out that would fit.
    if count < len(sizes):
        more = needed + sizes[count] + EVENT_BYTES
        assert events + count == 10 or used + more > 1000


def test_an_event_larger_than_a_part_gets_a_part_of_its_own() -> None:
    table = table_of([1, 2], [5000, 5000])
    assert fitting(table, int(table["size"].sum()), Fill(PAGE_BYTES, 0, 0, 0), LIMITS) == 1


# --- late events ----------------------------------------------------------------------------------


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, list[Range]]:
    """The ranges of END parts, some of which are closed already, and what is late."""
    bounds = sorted(draw(st.sets(st.integers(-1, 50), min_size=1, max_size=6)))
    parts = [Range(low, high) for low, high in pairwise(bounds)]
    kept = [part for part in parts if draw(st.booleans())]
    return bounds[-1], kept


@given(st.lists(NUMBERS, min_size=1, max_size=30), ranges())
def test_every_event_goes_to_exactly_one_place(
    numbers: list[int], known: tuple[int, list[Range]]
) -> None:
    low, ends = known
    late = sort_late(np.array(numbers, np.uint64), low, ends)
    places: list[list[str]] = [[] for _ in numbers]

    def put(chosen: object, where: str) -> None:
        for i in np.arange(len(numbers))[chosen]:  # type: ignore[index]
            places[i].append(where)

    if late.on_time is not None:
        put(late.on_time, "on time")
    for i, chosen in late.ends:
        put(chosen, f"end {i}")
    if late.garbage is not None:
        put(late.garbage, "garbage")
    for number, found in zip(numbers, places, strict=True):
        holding = [i for i, part in enumerate(ends) if part.low < number <= part.high]
        if number > low:
            assert found == ["on time"]
        elif holding:
            assert found == [f"end {holding[0]}"]
        else:
            assert found == ["garbage"]


# --- a stream's parts, over many batches ----------------------------------------------------------


def piece(numbers: list[int], sequence: int) -> Piece:
    table = table_of(numbers)
    return Piece(MARK, "router-1", Sequence(sequence), 0, table, np.empty(0, np.uint8), 1, 0)


def sealed_part(part: int, high: int, durable: int) -> SealedPart:
    record = FileRecord(
        run=7, stream="photons", kind=FileKind.EVENTS, part=part, state=FileState.ERROR, path="",
        directory=0, reserved=durable,
        file_uuid=bytes(16), salt=bytes(16), boot=1, created_ns=0, durable=durable, chain=part,
        high=high, sealed=True,
    )  # fmt: skip
    return SealedPart(cast(Storage, None), StreamConfig(), record)


@pytest.mark.parametrize("high", [20, -1])
def test_of_several_parts_that_were_sealed_the_next_one_names_the_last(high: int) -> None:
    """Another one would leave the end of the last untold to who reads without the journal."""
    parts = [sealed_part(2, high, 8192), sealed_part(1, high, 4096)]
    staging = Staging(
        StreamConfig(), SimulatedClock(), FileKind.EVENTS, low=max(high, -1), highest=high,
        parts=parts, ended=lambda *_: None, told=lambda _: None,
    )  # fmt: skip
    slot = staging.now if high < 0 else staging.ends[0]
    assert len(staging.ends) == (high >= 0)
    assert slot.predecessor == Predecessor(PartNumber(2), Offset(8192), 2)


@given(
    st.lists(st.one_of(st.lists(NUMBERS, min_size=1, max_size=12), st.just([])), max_size=12),
    st.integers(1, 8),
    st.booleans(),
)
def test_ranges_never_overlap_and_hold_what_is_in_their_parts(
    batches: list[list[int]], part_events: int, with_ranges: bool
) -> None:
    """An empty batch stands for time: the oldest part in END closes."""
    config = StreamConfig(part_events=part_events, ranges=with_ranges, part_bytes=64 * MIB)
    staging = Staging(
        config, SimulatedClock(), FileKind.EVENTS, low=-1, highest=-1, parts=(),
        ended=lambda *_: None, told=lambda _: None,
    )  # fmt: skip
    placed: Counter[int] = Counter()
    slots: dict[int, Slot] = {}
    content: dict[int, list[int]] = {}
    taken = 0
    for sequence, numbers in enumerate(batches, 1):
        if not numbers:
            if staging.ends:
                staging.ends.pop(0)
            continue
        before = len(staging.pieces)
        ended = {id(slot): slot.ended for slot in staging.ends}
        staging.take(piece(numbers, sequence))
        taken += len(numbers)
        (staged,) = staging.pieces[before:]
        assert sum(len(f.table) for f in staged.fragments) == len(numbers)
        for slot, table, *_ in staged.fragments:
            slots[id(slot)] = slot
            content.setdefault(id(slot), []).extend(int(n) for n in table["number"])
            placed[slot.kind] += len(table)
            if (late := ended.get(id(slot))) is not None:
                assert all(late.low < int(n) <= late.high for n in table["number"])
        assert sorted(int(n) for f in staged.fragments for n in f.table["number"]) == sorted(
            numbers
        )
    assert sum(placed.values()) == taken
    if not with_ranges:
        assert not placed[FileKind.GARBAGE]
        assert all(len(numbers) <= part_events for numbers in content.values())
        return
    held = sorted(
        (slot.ended.low, slot.ended.high) for slot in slots.values() if slot.ended is not None
    )
    for (_, high), (low, _) in pairwise(held):
        assert high <= low


@pytest.mark.parametrize("with_ranges", [True, False])
@pytest.mark.parametrize(
    ("batch_events", "largest"),
    [(100, 100), (6_400, 100), (6_500, 100), (6_501, 101), (10_000, 3_600)],
)
def test_a_batch_of_many_parts_leaves_each_at_its_limit_but_the_last(
    batch_events: int, largest: int, with_ranges: bool
) -> None:
    config = StreamConfig(part_events=100, ranges=with_ranges)
    staging = Staging(
        config, SimulatedClock(), FileKind.EVENTS, low=-1, highest=-1, parts=(),
        ended=lambda *_: None, told=lambda _: None,
    )  # fmt: skip
    staging.take(piece(list(range(batch_events)), 1))
    _, blocks = staging.group()
    sizes = [sum(len(f.table) for f in fragments) for _, fragments in blocks]
    assert sum(sizes) == batch_events
    assert max(sizes) == largest
    assert len(sizes) <= PARTS_PER_BATCH_MAX + 1
