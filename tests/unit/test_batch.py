"""The batch: what is sent comes back in place, and nothing that is not whole passes."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlog.core.batch import (
    HEADER_BYTES,
    Batch,
    batch_bytes,
    decode_batch,
    encode_batch,
    encode_pieces,
    number_batch,
)
from dlog.core.frame import FRAME_BYTES, MessageKind, encode_frame
from dlog.errors import MessageError
from dlog.limits import (
    BATCH_EVENTS_MAX,
    EVENT_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    STREAM_NAME_BYTES_MAX,
    STREAMS_PER_BATCH_MAX,
)
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE
from dlog.model.ids import Sequence, SessionId, StreamName

U64 = st.integers(0, 2**64 - 1)
STREAM_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,31}", fullmatch=True).map(StreamName)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    names = tuple(draw(st.lists(STREAM_NAMES, min_size=1, max_size=4, unique=True)))
    settled = draw(st.booleans()) and draw(st.booleans())
    count = 0 if settled else draw(st.integers(1, 12))
    table = draw(hnp.arrays(EVENT_DTYPE, count, elements=_rows(len(names))))
    payload = np.frombuffer(draw(st.binary(min_size=int(table["size"].sum()))), np.uint8)
    payload = payload[: int(table["size"].sum())]
    return Batch(
        SessionId(draw(st.binary(min_size=16, max_size=16))),
        Sequence(draw(st.integers(1, 2**64 - 1))),
        draw(U64),
        draw(U64),
        names,
        table,
        payload,
        draw(st.integers(128, MESSAGE_BYTES_MAX))
        if settled
        else batch_bytes(count, len(names), len(payload)),
        settled,
    )


def _rows(streams: int) -> st.SearchStrategy[tuple[int, ...]]:
    u32 = st.integers(0, 2**32 - 1)
    return st.tuples(U64, U64, u32, st.integers(0, 30), st.integers(1, 2**streams - 1), u32)


def example(events: int = 3, size: int = 5, streams: tuple[str, ...] = ("photons",)) -> Batch:
    table = np.zeros(events, EVENT_DTYPE)
    table["number"], table["run"], table["size"] = np.arange(events), 7, size
    table["streams"], table["order"] = 1, np.arange(events)
    payload = np.arange(events * size).astype(np.uint8)
    names = tuple(StreamName(name) for name in streams)
    return Batch(SessionId(b"s" * 16), Sequence(1), 0, 0, names, table, payload, 0)


def refused(message: bytes | bytearray) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode_batch(memoryview(message))
    return caught.value


def sealed(message: bytearray) -> bytearray:
    """The message with all checksums made right again, as a lying source would send it."""
    at = FRAME_BYTES + HEADER_BYTES
    events, streams = struct.unpack_from("<II", message, FRAME_BYTES + 48)
    table_at = min(len(message), at + 32 * streams)
    payload_at = min(len(message), table_at + 32 * events)
    struct.pack_into("<I", message, FRAME_BYTES + 56, crc32c(message[at:table_at]))
    struct.pack_into("<I", message, FRAME_BYTES + 72, crc32c(message[table_at:payload_at]))
    struct.pack_into("<I", message, FRAME_BYTES + 76, crc32c(message[payload_at:]))
    frame = encode_frame(
        MessageKind.EVENTS, len(message) - FRAME_BYTES, bytes(message[FRAME_BYTES:at])
    )
    message[:FRAME_BYTES] = frame
    return message


@given(batch=batches())
def test_a_batch_comes_back(batch: Batch) -> None:
    message = encode_batch(batch)
    assert batch.settled or len(message) == batch.message_bytes
    decoded = decode_batch(memoryview(message))
    for name in ("session", "sequence", "position_bytes", "order_base", "streams", "settled",
                 "message_bytes"):  # fmt: skip
        assert getattr(decoded, name) == getattr(batch, name)
    assert decoded.table.tobytes() == batch.table.tobytes()
    assert decoded.payload.tobytes() == batch.payload.tobytes()


def test_table_and_payload_are_views_of_the_message() -> None:
    message = encode_batch(example())
    decoded = decode_batch(memoryview(message))
    whole = np.frombuffer(message, np.uint8)
    assert np.shares_memory(decoded.table, whole)
    assert np.shares_memory(decoded.payload, whole)


def test_the_table_lies_at_a_multiple_of_its_row_in_the_message() -> None:
    assert (FRAME_BYTES + HEADER_BYTES + STREAM_NAME_BYTES_MAX) % EVENT_BYTES == 0


@given(batch=batches(), data=st.data())
def test_any_flipped_bit_is_found(batch: Batch, data: st.DataObject) -> None:
    message = encode_batch(batch)
    bit = data.draw(st.integers(0, 8 * len(message) - 1))
    message[bit // 8] ^= 1 << bit % 8
    refused(message)


@given(batch=batches(), data=st.data())
def test_any_truncation_and_any_excess_is_found(batch: Batch, data: st.DataObject) -> None:
    message = encode_batch(batch)
    refused(message[: data.draw(st.integers(0, len(message) - 1))])
    refused(message + b"\0")


@given(noise=st.binary(max_size=400), framed=st.booleans())
def test_noise_is_a_message_error(noise: bytes, framed: bool) -> None:
    if framed:
        noise = encode_frame(MessageKind.EVENTS, len(noise), noise[:HEADER_BYTES]) + noise
    refused(noise)


def lies(limit: int, width: int) -> st.SearchStrategy[int]:
    """A length or a count of so many bytes, as likely as not one that no limit refuses."""
    return st.sampled_from([0, 1, 3, limit // 2, limit, limit + 1, 2 ** (8 * width) - 1])


@given(
    payload_bytes=lies(MESSAGE_BYTES_MAX, 8), events=lies(BATCH_EVENTS_MAX, 4),
    streams=lies(STREAMS_PER_BATCH_MAX, 4), flags=st.integers(0, 2),
    original=lies(MESSAGE_BYTES_MAX, 8), rest=st.binary(max_size=99),
)  # fmt: skip
@settings(max_examples=300)
def test_a_header_that_lies_allocates_nothing(
    payload_bytes: int, events: int, streams: int, flags: int, original: int, rest: bytes
) -> None:
    message = bytearray(encode_batch(example(1, 5)))[: FRAME_BYTES + HEADER_BYTES] + rest
    struct.pack_into("<QII", message, FRAME_BYTES + 40, payload_bytes, events, streams)
    struct.pack_into("<IQ", message, FRAME_BYTES + 60, flags, original)
    message = sealed(message)
    tracemalloc.start()
    try:
        decode_batch(memoryview(message))
    except MessageError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100_000


def changed(batch: Batch, offset: int, content: bytes) -> bytearray:
    message = encode_batch(batch)
    message[offset : offset + len(content)] = content
    return sealed(message)


TABLE_AT = FRAME_BYTES + HEADER_BYTES + STREAM_NAME_BYTES_MAX


@pytest.mark.parametrize(
    ("reason", "offset", "content"),
    [
        ("sequence", FRAME_BYTES + 16, bytes(8)),
        ("length", FRAME_BYTES + 40, struct.pack("<Q", 2**63)),
        ("oversized", FRAME_BYTES + 48, struct.pack("<I", BATCH_EVENTS_MAX + 1)),
        ("oversized", FRAME_BYTES + 52, struct.pack("<I", STREAMS_PER_BATCH_MAX + 1)),
        ("length", FRAME_BYTES + 52, struct.pack("<I", 2)),
        ("flags", FRAME_BYTES + 60, struct.pack("<IQ", 1, 500)),
        ("stream-name", FRAME_BYTES + HEADER_BYTES, b"../../etc"),
        ("stream-name", FRAME_BYTES + HEADER_BYTES, b"\xff\xfe"),
        ("stream-name", FRAME_BYTES + HEADER_BYTES, bytes(32)),
        ("length", TABLE_AT + 20, struct.pack("<I", 6)),
        ("oversized", TABLE_AT + 20, struct.pack("<I", EVENT_BYTES_MAX + 1)),
        ("stream-mask", TABLE_AT + 24, struct.pack("<I", 0)),
        ("stream-mask", TABLE_AT + 24, struct.pack("<I", 2)),
    ],
)
def test_a_source_that_lies_is_told_about_what(reason: str, offset: int, content: bytes) -> None:
    assert refused(changed(example(), offset, content)).reason == reason


def test_a_stream_named_twice_is_refused() -> None:
    error = refused(sealed(encode_batch(example(streams=("a", "a")))))
    assert error.reason == "stream-name"


@pytest.mark.parametrize("original", [0, 127, MESSAGE_BYTES_MAX + 1, 2**64 - 1])
def test_a_placeholder_stands_for_a_message_of_a_possible_length(original: int) -> None:
    placeholder = dataclasses.replace(example(events=0), settled=True, message_bytes=original)
    assert refused(encode_batch(placeholder)).reason == "length"


def test_a_batch_made_before_its_turn_gets_its_place_later() -> None:
    message = encode_batch(example())
    number_batch(message, Sequence(77), 123_456)
    decoded = decode_batch(memoryview(message))
    assert (decoded.sequence, decoded.position_bytes) == (77, 123_456)
    assert decoded.payload.tobytes() == example().payload.tobytes()


def test_a_batch_in_pieces_is_the_batch_as_a_whole() -> None:
    batch = example(events=6)
    rows = [batch.table[:2].tobytes(), bytearray(batch.table[2:].tobytes())]
    payload = [batch.payload[:1], memoryview(batch.payload[1:9].tobytes()), b"", batch.payload[9:]]
    assert encode_pieces(batch, 6, rows, payload) == encode_batch(batch)


def test_a_batch_without_events_is_refused_unless_settled() -> None:
    assert refused(encode_batch(example(events=0))).reason == "empty"


def test_sizes_that_add_up_only_modulo_2_to_the_32_are_refused() -> None:
    batch = example(events=2, size=0)
    table = batch.table.copy()
    table["size"] = [2**31, 2**31]
    message = encode_batch(example(events=2, size=0))
    message[TABLE_AT : TABLE_AT + 2 * EVENT_BYTES] = table.tobytes()
    assert refused(sealed(message)).reason == "oversized"


@pytest.mark.parametrize(("runs", "streams"), [(64, ("a",)), (32, ("a", "b"))])
def test_a_batch_of_more_runs_and_streams_than_can_be_split_is_refused(
    runs: int, streams: tuple[str, ...]
) -> None:
    # A mask as long as the table for each of 262,144 runs: 68 GB, from a message of 8 MiB.
    assert len(decode_batch(memoryview(encode_batch(of_runs(runs, streams)))).table) == runs
    assert refused(encode_batch(of_runs(runs + 1, streams))).reason == "oversized"


def of_runs(runs: int, streams: tuple[str, ...]) -> Batch:
    batch = example(events=runs, streams=streams)
    table = batch.table.copy()
    table["run"] = np.arange(1, runs + 1)
    return dataclasses.replace(batch, table=table)


def test_a_message_over_the_limit_is_refused_by_its_length() -> None:
    assert refused(encode_batch(example()) + bytes(MESSAGE_BYTES_MAX)).reason == "oversized"


def test_the_largest_event_fits_into_a_message() -> None:
    assert batch_bytes(1, STREAMS_PER_BATCH_MAX, EVENT_BYTES_MAX) <= MESSAGE_BYTES_MAX


@pytest.mark.parametrize(
    ("numbers", "known"),
    [
        ([7], (7, 7)),
        ([9, 3, 5], (3, 9)),
        ([2**40 + 9, 2**40 + 3], (2**40 + 3, 2**40 + 9)),
        (list(range(1000, 0, -1)), (1, 1000)),
        ([2**32 - 1, 2**32], None),  # their upper halves differ
        ([0, 2**64 - 1], None),
    ],
)
def test_the_range_of_the_numbers_is_known_or_not_told(
    numbers: list[int], known: tuple[int, int] | None
) -> None:
    table = np.zeros(len(numbers), EVENT_DTYPE)
    table["number"], table["run"], table["streams"] = numbers, 1, 1
    names = (StreamName("photons"),)
    message = encode_batch(
        Batch(SessionId(b"s" * 16), Sequence(1), 0, 0, names, table, np.zeros(0, np.uint8), 0)
    )
    assert decode_batch(memoryview(message)).numbers == known
