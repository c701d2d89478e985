"""The merge of streams in the order of sending."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlog.core.sent_order import SentPiece, SentRows, merge, ordered
from dlog.errors import FormatError
from dlog.model.events import EVENT_DTYPE

Sent = tuple[int, int]  # position, number


def piece(events: list[Sent]) -> SentPiece:
    table = np.zeros(len(events), EVENT_DTYPE)
    table["number"] = [number for _, number in events]
    table["size"] = 1
    payload = bytes(number % 256 for _, number in events)
    return SentPiece(
        np.array([position for position, _ in events], np.uint64),
        np.zeros(len(events), np.uint64),
        table,
        np.arange(len(events)),
        memoryview(payload),
        0,
        "f",
    )


def told(rows: list[SentRows]) -> list[tuple[int, int, tuple[int, ...]]]:
    """Position, number and streams of each event; its payload is looked at on the way."""
    out = []
    for r in rows:
        for row in range(r.begin, r.end):
            number = int(r.piece.table["number"][row])
            assert r.piece.payload[int(r.piece.begins[row])] == number % 256
            out.append((int(r.piece.positions[row]), number, (r.stream, *r.also)))
    return out


def merged(streams: list[list[list[Sent]]]) -> list[tuple[int, int, tuple[int, ...]]]:
    return told(list(merge([iter([piece(p) for p in pieces]) for pieces in streams])))


@given(
    streams=st.lists(
        st.lists(st.lists(st.integers(0, 60), max_size=6), max_size=4), min_size=1, max_size=4
    )
)
def test_the_merge_is_the_sorted_union(streams: list[list[list[int]]]) -> None:
    # An event's number is its position, so that equal positions are one event.
    ordered_streams = []
    for pieces in streams:
        numbers = iter(sorted({n for p in pieces for n in p}))
        ordered_streams.append([[(n, n) for n, _ in zip(numbers, p, strict=False)] for p in pieces])
    got = merged(ordered_streams)
    wanted = heapq.merge(*([e for p in pieces for e in p] for pieces in ordered_streams))
    assert [n for n, _, _ in got] == sorted({n for n, _ in wanted})
    for number, _, places in got:
        having = {i for i, s in enumerate(ordered_streams) if any((number, number) in p for p in s)}
        assert set(places) == having


def test_rows_that_lie_together_come_together() -> None:
    one, other = piece([(i, i) for i in range(1000)]), piece([(500, 7000), (2000, 7001)])
    rows = list(merge([iter([one]), iter([other])]))
    assert [(r.stream, r.begin, r.end) for r in rows] == [
        (0, 0, 500), (0, 500, 501), (1, 0, 1), (0, 501, 1000), (1, 1, 2),
    ]  # fmt: skip


def test_a_position_twice_in_a_stream_is_two_events() -> None:
    assert len(merged([[[(1, 1), (1, 2)], [(1, 3)]]])) == 3


def test_another_event_at_the_same_position_is_another_event() -> None:
    assert {n for _, n, _ in merged([[[(1, 10)]], [[(1, 11)]]])} == {10, 11}


def test_a_position_that_goes_back_is_an_error() -> None:
    with pytest.raises(FormatError, match="order of sending is not known") as caught:
        merged([[[(5, 1)], [(4, 2)]]])
    assert caught.value.path == "f"


def test_no_more_than_a_piece_a_stream_is_taken_ahead() -> None:
    taken = []

    def pieces() -> Iterator[SentPiece]:
        for i in range(10):
            taken.append(i)
            yield piece([(i, i)])

    rows = merge([pieces(), iter([piece([(100, 100)])])])
    next(rows)
    assert taken == [0]


@given(
    group=st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=4),
    base=st.sampled_from([0, 2**63]),
)
def test_a_group_is_put_in_order_and_keeps_every_event(group: list[list[int]], base: int) -> None:
    pieces = [piece([(base + n, n) for n in numbers]) for numbers in group]
    got = ordered(pieces)
    rows = [SentRows(0, p, 0, len(p.positions)) for p in got]
    assert [n for _, n, _ in told(rows)] == sorted(n for numbers in group for n in numbers)


def test_blocks_that_follow_each_other_are_not_copied() -> None:
    one, other = piece([(1, 1), (2, 2)]), piece([(3, 3)])
    assert ordered([other, one]) == [one, other]
    assert ordered([one])[0] is one
