"""Packing: which events share a batch, when a batch is closed, and that the same events without
linger make the same batches again."""

from __future__ import annotations

import array
import ctypes
import itertools
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from dlog.core.batch import Batch, decode_batch, number_batch
from dlog.core.many_events import ManyEvents, flat, payload_and_sizes, unsigned
from dlog.core.packer import (
    BATCH_BYTES_MIN,
    OPEN_BATCHES_MAX,
    PackedBatch,
    Packer,
    Packing,
    StreamSet,
    event_bytes,
)
from dlog.limits import EVENT_BYTES_MAX, KIB
from dlog.model.ids import EventNumber, RunNumber, Sequence, SessionId, StreamName
from tests.logger_model import pieces_of

SESSION = SessionId(b"s" * 16)
A, B, C = (StreamName(name) for name in "abc")
RUN = RunNumber(7)
MS = 1_000_000


def packer(**options: object) -> Packer:
    return Packer(SESSION, Packing(**{"linger_ns": None, **options}))  # type: ignore[arg-type]


def add(
    packer: Packer, payload: bytes, *streams: StreamName, run: RunNumber = RUN, now_ns: int = 0
) -> None:
    packer.add(run, streams or (A,), EventNumber(packer.events + 100), 5, payload, now_ns)


def decoded(packed: PackedBatch, number: int = 1, position_bytes: int = 0) -> Batch:
    number_batch(packed.message, Sequence(number), position_bytes)
    return decode_batch(memoryview(packed.message))


def streams_of(packer: Packer) -> list[tuple[int, StreamSet, int]]:
    packer.close_all()
    batches = packer.taken()
    return [(b.run, decoded(b).streams, b.events) for b in batches]


def test_an_event_comes_out_as_it_went_in() -> None:
    made = packer()
    add(made, b"payload", B, A)
    made.close_all()
    (packed,) = made.taken()
    batch = decoded(packed, 3, 999)
    assert (batch.session, batch.sequence, batch.position_bytes) == (SESSION, 3, 999)
    assert (batch.order_base, batch.streams, bytes(batch.payload)) == (0, (B, A), b"payload")
    assert batch.table.tolist() == [(100, 5, 7, 7, 0b11, 0)]
    assert packed.pieces == {A: 1, B: 1}
    assert packed.queue_bytes == event_bytes(7)


def test_streams_and_runs_are_kept_apart() -> None:
    made = packer()
    for _ in range(3):
        add(made, b"x", A)
        add(made, b"x", B)
        add(made, b"x", A, run=RunNumber(8))
    assert streams_of(made) == [(7, (A,), 3), (7, (B,), 3), (8, (A,), 3)]


def test_overlapping_stream_sets_share_a_batch_so_that_order_is_kept() -> None:
    made = packer()
    add(made, b"0", A)
    add(made, b"1", A, B)
    add(made, b"2", A)
    add(made, b"3", B)
    made.close_all()
    (packed,) = made.taken()
    batch = decoded(packed)
    assert batch.streams == (A, B)
    assert batch.table["streams"].tolist() == [1, 3, 1, 2]
    assert packed.pieces == {A: 3, B: 2}


def test_a_set_that_joins_two_batches_closes_them_first() -> None:
    made = packer()
    add(made, b"0", A)
    add(made, b"1", B)
    add(made, b"2", C)
    add(made, b"3", A, B)
    assert streams_of(made) == [(7, (A,), 1), (7, (B,), 1), (7, (C,), 1), (7, (A, B), 1)]


def test_more_streams_than_a_batch_may_name_begin_another() -> None:
    made = packer()
    names = [StreamName(f"s{i}") for i in range(40)]
    for first, second in itertools.pairwise(names):
        add(made, b"x", first, second)
    streams = streams_of(made)
    assert sum(events for _, _, events in streams) == 39
    assert max(len(names) for _, names, _ in streams) <= 32


def test_a_batch_is_closed_by_bytes() -> None:
    made = packer(batch_bytes=BATCH_BYTES_MIN)
    for _ in range(10):
        add(made, bytes(1000))
    made.close_all()
    lengths = [len(packed.message) for packed in made.taken()]
    assert len(lengths) == 4
    assert max(lengths) <= BATCH_BYTES_MIN


def test_a_batch_is_closed_by_events() -> None:
    made = packer(batch_events=4)
    for _ in range(9):
        add(made, b"")
    assert [packed.events for packed in made.taken()] == [4, 4]
    assert made.open_pieces() == {A: 1}


def test_an_event_larger_than_a_batch_makes_its_own() -> None:
    made = packer(batch_bytes=BATCH_BYTES_MIN)
    add(made, b"small")
    add(made, bytes(10 * BATCH_BYTES_MIN))
    assert [packed.events for packed in made.taken()] == [1, 1]
    assert not made.anything_open


def test_the_oldest_batches_are_closed_when_too_much_is_open() -> None:
    made = packer(open_bytes=3000)
    for name in (A, B, C):
        add(made, bytes(1200), name)
    assert [list(packed.pieces) for packed in made.taken()] == [[A]]
    assert made.open_bytes == 2 * event_bytes(1200)


def test_open_batches_are_bounded_in_number() -> None:
    made = packer(open_bytes=10**9)
    for i in range(OPEN_BATCHES_MAX + 5):
        add(made, b"", A, run=RunNumber(i + 1))
    assert len(made.taken()) == 5


def test_all_batches_are_closed_after_a_span_of_events() -> None:
    made = packer(span_events=4)
    for i in range(9):
        add(made, b"", (A, B)[i % 2])
    assert [packed.events for packed in made.taken()] == [2, 2, 2, 2]


def test_the_first_event_of_a_quiet_time_does_not_wait() -> None:
    made = packer(linger_ns=5 * MS)
    add(made, b"", now_ns=1000 * MS)
    assert made.due_ns() == 1000 * MS
    made.close_due(1000 * MS)
    assert len(made.taken()) == 1


def test_events_that_follow_soon_wait_together() -> None:
    made = packer(linger_ns=5 * MS)
    add(made, b"", now_ns=1000 * MS)
    made.close_due(1000 * MS)
    add(made, b"", now_ns=1001 * MS)
    add(made, b"", now_ns=1002 * MS)
    assert made.due_ns() == 1005 * MS
    made.close_due(1004 * MS)
    assert len(made.taken()) == 1
    made.close_due(1005 * MS)
    assert [packed.events for packed in made.taken()] == [2]
    assert made.due_ns() is None


def test_a_slow_stream_is_not_kept_waiting_by_a_fast_one() -> None:
    made = packer(linger_ns=5 * MS, batch_events=2)
    add(made, b"", B, now_ns=999 * MS)
    made.close_due(999 * MS)
    add(made, b"", B, now_ns=1000 * MS)
    for ms in range(1000, 1005):
        add(made, b"", A, now_ns=ms * MS)
        add(made, b"", A, now_ns=ms * MS)
        made.close_due(ms * MS)
    made.close_due(1005 * MS)
    assert B in {name for packed in made.taken()[1:] for name in packed.pieces}


def test_the_caller_may_use_a_buffer_again() -> None:
    made = packer()
    for size in (10, 10 * KIB):
        buffer = bytearray(b"a" * size)
        made.add(RUN, (A,), EventNumber(0), 0, buffer, 0)
        buffer[:] = b"b" * size
    array = np.full((4, 3000), ord("a"), np.uint8)
    made.add_many(RUN, (A,), many(array), 0)
    array[:] = 0
    made.close_all()
    (packed,) = made.taken()
    assert set(bytes(decoded(packed).payload)) == {ord("a")}


def many(payload: np.ndarray, sizes: list[int] | None = None, first: int = 0) -> ManyEvents:
    data, size_array = payload_and_sizes(payload, sizes)
    numbers = np.arange(first, first + len(size_array), dtype=np.uint64)
    return ManyEvents(numbers, 5, size_array, data)


# Mostly small, so that batches stay open, and meet one for several of their streams.
payloads = st.lists(
    st.tuples(
        st.sampled_from([(A,), (B,), (A, B), (C,), (B, C)]),
        st.sampled_from([1, 1, 2]).map(RunNumber),
        st.lists(st.sampled_from([0, 1, 50, 50, 50, 1000, 5000, 9000]), min_size=1, max_size=6),
        st.booleans(),
    ),
    min_size=4, max_size=20,
)  # fmt: skip


@settings(max_examples=60)
@given(
    script=payloads,
    batch_events=st.sampled_from([1, 7, 30]),
    open_bytes=st.sampled_from([0, 5000, 10**6]),
    span_events=st.sampled_from([0, 7]),
)
def test_every_event_comes_out_once_and_each_stream_in_order(
    script: list[tuple[StreamSet, RunNumber, list[int], bool]],
    batch_events: int,
    open_bytes: int,
    span_events: int,
) -> None:
    options = {
        "batch_bytes": BATCH_BYTES_MIN, "batch_events": batch_events, "open_bytes": open_bytes,
        "span_events": span_events,
    }  # fmt: skip

    def packed() -> list[PackedBatch]:
        made = packer(**options)
        for streams, run, sizes, at_once in script:
            first = made.events
            contents = [bytes([(first + i) % 251]) * size for i, size in enumerate(sizes)]
            if at_once:
                data = np.frombuffer(b"".join(contents), np.uint8)
                made.add_many(run, streams, many(data, sizes, first), 0)
            else:
                for i, content in enumerate(contents):
                    made.add(run, streams, EventNumber(first + i), 5, content, 0)
        made.close_all()
        assert made.open_bytes == 0
        return made.taken()

    batches = packed()
    # The same events make the same batches again: that is how a replay goes on.
    assert [b.message for b in packed()] == [b.message for b in batches]
    found: dict[tuple[int, str], list[tuple[int, int, bytes]]] = {}
    for batch in batches:
        assert batch.events <= batch_events
        assert len(batch.message) <= BATCH_BYTES_MIN or batch.events == 1
        for key, events in pieces_of(decoded(batch)):
            found.setdefault(key, []).extend(events)
    expected: dict[tuple[int, str], list[tuple[int, int, bytes]]] = {}
    position = 0
    for streams, run, sizes, _ in script:
        for size in sizes:
            for name in streams:
                event = (position, position, bytes([position % 251]) * size)
                expected.setdefault((run, name), []).append(event)
            position += 1
    assert found == expected


def test_many_events_are_cut_into_parts() -> None:
    events = many(np.zeros((10, 100), np.uint8))
    parts = list(events.parts(300))
    assert [len(part) for part in parts] == [2, 2, 2, 2, 2]
    assert sum(part.queue_bytes for part in parts) == events.queue_bytes == 10 * 132
    assert np.concatenate([part.numbers for part in parts]).tolist() == list(range(10))


def test_an_array_of_any_type_gives_its_rows_as_bytes() -> None:
    data, sizes = payload_and_sizes(np.arange(6, dtype="<u2").reshape(3, 2), None)
    assert data.tobytes() == np.arange(6, dtype="<u2").tobytes()
    assert sizes.tolist() == [4, 4, 4]
    data, sizes = payload_and_sizes(np.zeros((0, 5)), None)
    assert (len(data), len(sizes)) == (0, 0)
    data, sizes = payload_and_sizes(np.zeros((3, 0)), None)
    assert (len(data), sizes.tolist()) == (0, [0, 0, 0])


@pytest.mark.parametrize(
    ("payload", "sizes"),
    [
        (np.zeros(5, np.uint8), None),
        (b"12345", [2, 2]),
        (b"12345", [-1, 6]),
        (b"12345", [2.5, 2.5]),
        (b"12345", [[5]]),
        (b"", [EVENT_BYTES_MAX + 1]),
    ],
)
def test_sizes_that_cannot_be_are_refused(payload: object, sizes: object) -> None:
    with pytest.raises(ValueError, match=r"sizes|axis"):
        payload_and_sizes(payload, sizes)  # type: ignore[arg-type]


def test_numbers_that_cannot_be_are_refused() -> None:
    assert unsigned([1, 2], 2, "numbers").dtype == np.uint64
    for wrong in ([1], [-1, 2], [0.5, 1.0]):
        with pytest.raises(ValueError, match="numbers"):
            unsigned(wrong, 2, "numbers")


def test_a_payload_that_does_not_lie_in_one_piece_is_flattened() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert bytes(flat(array[:, ::2])) == array[:, ::2].tobytes()
    assert bytes(flat(memoryview(b"abc"))) == b"abc"
    assert bytes(flat(np.empty(0))) == b""


class _Hit(ctypes.Structure):
    _fields_ = (("Pixel", ctypes.c_uint16), ("Zdata", ctypes.c_double))


class _Node(ctypes.Structure):
    _fields_ = (("value", ctypes.c_int), ("next", ctypes.POINTER(ctypes.c_int)))


_WORDS = (ctypes.c_uint16 * 2)(1, 256)
_DATES = np.array(["2026-01-01", "NaT"], "M8[s]")
_TABLE = np.array([(1, 2.5), (3, 4.5)], "<u2, >f8")


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (array.array("H", [1, 256]), b"\1\0\0\1"),
        (_WORDS, b"\1\0\0\1"),
        (memoryview(_WORDS), b"\1\0\0\1"),
        (_Hit(7, 0.0), bytes(_Hit(7, 0.0))),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (np.array([1, 2], ">u2"), b"\0\1\0\2"),
        (np.float64(1.5), np.float64(1.5).tobytes()),
        (np.array(7, "<u4"), b"\7\0\0\0"),
        (np.array([1 + 2j]), np.array([1 + 2j]).tobytes()),
        (np.arange(6, dtype=np.uint8).reshape(2, 3).T, b"\0\3\1\4\2\5"),
        (np.asfortranarray([[1, 2], [3, 4]], np.uint8), b"\1\2\3\4"),
        (np.array(["a", "bc"], "S2"), b"a\0bc"),
        (_DATES, _DATES.tobytes()),
        (_TABLE, _TABLE.tobytes()),
        (np.zeros((0, 4)), b""),
        (np.zeros((3, 0)), b""),
        (array.array("d"), b""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_buffer_is_stored_as_its_bytes(payload: Any, content: bytes) -> None:
    assert bytes(flat(payload)) == content


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("abc", "str is not bytes: encode it"),
        (np.str_("abc"), "str_ is not bytes: encode it"),
        (5, "type int"),
        ([1, 2], "type list"),
        (None, "type NoneType"),
        (np.array([None, 1]), "ndarray with dtype object"),
        (np.array(["a"], np.dtypes.StringDType()), "ndarray with dtype StringDType"),
        (np.array([(1, None)], [("n", "u4"), ("o", "O")]), "ndarray with dtype"),
        (memoryview(np.array([None, 1])), "type memoryview"),
        ((ctypes.c_void_p * 2)(), "type c_void_p_Array_2"),
        ((ctypes.c_char_p * 2)(), "type c_char_p_Array_2"),
        ((ctypes.py_object * 2)(), "type py_object_Array_2"),
        (_Node(), "type _Node"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_buffer_of_values_is_refused_with_its_type(payload: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        flat(payload)
    with pytest.raises(TypeError, match=words):
        payload_and_sizes(payload, None)
    with pytest.raises(TypeError, match=words):
        payload_and_sizes(payload, [1])


def test_any_buffer_whose_first_axis_counts_the_events_may_be_given() -> None:
    rows = ((ctypes.c_uint16 * 3) * 2)((1, 2, 3), (4, 5, 6))
    data, sizes = payload_and_sizes(rows, None)
    assert (data.tobytes(), sizes.tolist()) == (bytes(rows), [6, 6])
    data, sizes = payload_and_sizes(np.array([["2026", "2027"]], "M8[Y]").T, None)
    assert sizes.tolist() == [8, 8]
    data, sizes = payload_and_sizes(_WORDS, [1, 3])
    assert data.tobytes() == bytes(_WORDS)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_bytes": 100}, {"batch_bytes": 2**40}, {"batch_events": 0}, {"linger_ns": -1},
        {"open_bytes": -1}, {"span_events": -1},
    ],
)  # fmt: skip
def test_packing_that_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"batch_|negative"):
        Packing(**options)  # type: ignore[arg-type]


def test_what_is_given_at_once_and_is_a_little_larger_stays_together() -> None:
    rows = np.zeros((64, KIB), np.uint8)
    made = Packer(SESSION, Packing(batch_bytes=64 * KIB))
    made.add_many(RUN, (A,), many(rows), 0)
    made.add_many(RUN, (A,), many(rows, first=64), 0)
    assert [batch.events for batch in made.taken()] == [64, 64]


def test_batches_of_a_replay_do_not_depend_on_what_was_given_at_once() -> None:
    rows = np.zeros((96, KIB), np.uint8)
    found = []
    for at_once in (96, 64, 7, 1):
        made = packer(batch_bytes=64 * KIB)
        for begin in range(0, len(rows), at_once):
            made.add_many(RUN, (A,), many(rows[begin : begin + at_once], first=begin), 0)
        found.append(streams_of(made))
    assert found == [found[0]] * 4
