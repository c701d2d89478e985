"""The batch: the one message that carries events, as bytes and as values. It does no I/O.

Layout: docs/PROTOCOL.md, "Batch". A length is trusted only after the crc that covers it, and
nothing is copied: table and payload of a decoded batch are views of the message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from dlog.core.frame import FRAME_BYTES, MessageKind, check_frame, encode_frame
from dlog.errors import MessageError
from dlog.limits import (
    BATCH_EVENTS_MAX,
    EVENT_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    PIECES_PER_BATCH_MAX,
    STREAM_NAME_BYTES_MAX,
    STREAMS_PER_BATCH_MAX,
)
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE, EventTable, Payload
from dlog.model.ids import Sequence, SessionId, StreamName, valid_stream_name

# session, sequence, position_bytes, order_base, payload_bytes, events, streams, names_crc, flags,
# original bytes, table_crc, payload_crc
_HEADER: Final = struct.Struct("<16sQQQQIIIIQII32x")
HEADER_BYTES: Final = _HEADER.size
assert HEADER_BYTES == 112  # with the frame: 128, so that the table is 32-byte aligned in a message

# The source resends a batch that was acknowledged above the cumulative acknowledgement as this
# empty placeholder: its pieces are durable, and the sequence must have no gap.
FLAG_SETTLED: Final = 1

# The columns of the event table as 32-bit words.
_NUMBER, _NUMBER_HIGH, _RUN, _SIZE, _STREAMS = 0, 1, 4, 5, 6
_ROW_WORDS: Final = EVENT_BYTES // 4
_WIDE_WORDS: Final = 64 * _ROW_WORDS
assert EVENT_DTYPE.fields is not None
assert [EVENT_DTYPE.fields[n][1] for n in ("number", "run", "size", "streams")] == [0, 16, 20, 24]

Buffer: TypeAlias = bytes | bytearray | memoryview | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one session, in sending order.

    position_bytes: bytes of all messages of the session before this one (not counting resends).
    order_base: added to each event's `order` it gives the event's position in the session.
    streams: the names that the bits of the table's `streams` column stand for.
    message_bytes: length of the whole message; of a placeholder, of the message it stands for: what
    counts for the positions in the session.
    table_crc, payload_crc: crc32c of the two, as decoded and checked; they go with the events into
    the block. mixed_runs: whether there is more than one run in the table. numbers: the lowest and
    the highest event number, None where they are not known. Encoding looks at none.
    """

    session: SessionId
    sequence: Sequence
    position_bytes: int
    order_base: int
    streams: tuple[StreamName, ...]
    table: EventTable
    payload: Payload
    message_bytes: int
    settled: bool = False
    table_crc: int = 0
    payload_crc: int = 0
    mixed_runs: bool = False
    numbers: tuple[int, int] | None = None


def batch_bytes(events: int, streams: int, payload_bytes: int) -> int:
    """Length of a message with so much in it."""
    return (
        FRAME_BYTES
        + HEADER_BYTES
        + streams * STREAM_NAME_BYTES_MAX
        + events * EVENT_BYTES
        + payload_bytes
    )


def encode_batch(batch: Batch) -> bytearray:
    """The message of a batch; `message_bytes` is looked at for a placeholder alone."""
    table = np.ascontiguousarray(batch.table).view(np.uint8)
    return encode_pieces(batch, len(batch.table), [table], [batch.payload])


def encode_pieces(
    batch: Batch,
    events: int,
    table: Iterable[Buffer],
    payload: Iterable[Buffer],
    memory: Callable[[int], bytearray | None] = lambda size: None,
) -> bytearray:
    """The message of a batch whose table and payload come in pieces, each copied once; those of
    the argument are not looked at. memory: gives the memory for a message of that length, or None.
    """
    names = b"".join(name.encode().ljust(STREAM_NAME_BYTES_MAX, b"\0") for name in batch.streams)
    rows = [p.data if isinstance(p, np.ndarray) else p for p in table]
    pieces = [p.data if isinstance(p, np.ndarray) else p for p in payload]
    payload_bytes = sum(map(len, pieces))
    size = batch_bytes(events, len(batch.streams), payload_bytes)
    body_at = FRAME_BYTES + HEADER_BYTES
    table_at = body_at + len(names)
    payload_at = table_at + events * EVENT_BYTES
    given = memory(size)
    if given is None:
        # Joined, so that the memory is not filled with zeros before it is filled.
        message = bytearray().join((bytes(body_at), names, *rows, *pieces))
    else:
        message = given
        at = body_at
        with memoryview(message) as view:
            for piece in (names, *rows, *pieces):
                view[at : at + len(piece)] = piece
                at += len(piece)
    with memoryview(message) as view:
        header = _HEADER.pack(
            batch.session,
            batch.sequence,
            batch.position_bytes,
            batch.order_base,
            payload_bytes,
            events,
            len(batch.streams),
            crc32c(names),
            FLAG_SETTLED if batch.settled else 0,
            batch.message_bytes if batch.settled else 0,
            crc32c(view[table_at:payload_at]),
            crc32c(view[payload_at:]),
        )
    message[:FRAME_BYTES] = encode_frame(MessageKind.EVENTS, size - FRAME_BYTES, header)
    message[FRAME_BYTES:body_at] = header
    return message


def number_batch(message: bytearray, sequence: Sequence, position_bytes: int) -> None:
    """Give an encoded batch its place in the session: it is made before its turn comes."""
    end = FRAME_BYTES + HEADER_BYTES
    session, _, _, *rest = _HEADER.unpack_from(message, FRAME_BYTES)
    header = _HEADER.pack(session, sequence, position_bytes, *rest)
    message[:FRAME_BYTES] = encode_frame(MessageKind.EVENTS, len(message) - FRAME_BYTES, header)
    message[FRAME_BYTES:end] = header


def decode_batch(message: memoryview) -> Batch:
    """The batch in a message of kind EVENTS. Raises `MessageError`; allocates nothing before."""
    check_frame(message, MESSAGE_BYTES_MAX)
    return decode_framed_batch(message)


def decode_framed_batch(message: memoryview) -> Batch:
    """As `decode_batch`, of a message that passed `check_frame`."""
    if len(message) < FRAME_BYTES + HEADER_BYTES:
        raise MessageError(
            "truncated", f"a batch of {len(message)} bytes has no room for its header"
        )
    header = _HEADER.unpack_from(message, FRAME_BYTES)
    session, sequence, position, order_base, payload_bytes, events, streams = header[:7]
    names_crc, flags, original, table_crc, payload_crc = header[7:]
    if events > BATCH_EVENTS_MAX or streams > STREAMS_PER_BATCH_MAX:
        raise MessageError(
            "oversized",
            f"{events} events for {streams} streams in a batch; "
            f"at most {BATCH_EVENTS_MAX} and {STREAMS_PER_BATCH_MAX}",
        )
    if flags & FLAG_SETTLED and not FRAME_BYTES + HEADER_BYTES <= original <= MESSAGE_BYTES_MAX:
        # It moves the position in the session, and with it what is granted.
        raise MessageError("length", f"batch {sequence} stands for a message of {original} bytes")
    expected = batch_bytes(events, streams, payload_bytes)
    if expected != len(message):
        raise MessageError(
            "length", f"the header announces {expected} bytes, the message has {len(message)}"
        )
    body_at = FRAME_BYTES + HEADER_BYTES
    table_at = body_at + streams * STREAM_NAME_BYTES_MAX
    payload_at = table_at + events * EVENT_BYTES
    regions = (
        ("stream names", message[body_at:table_at], names_crc),
        ("event table", message[table_at:payload_at], table_crc),
        ("payload", message[payload_at:], payload_crc),
    )
    for what, region, crc in regions:
        if crc32c(region) != crc:
            raise MessageError("crc", f"batch {sequence}: checksum of the {what} does not hold")
    names = _decode_names(bytes(regions[0][1]))
    table = np.frombuffer(regions[1][1], EVENT_DTYPE)
    words = np.frombuffer(regions[1][1], np.uint32)
    mixed_runs, numbers = _check_table(
        table, words, len(names), payload_bytes, sequence, bool(flags & FLAG_SETTLED)
    )
    return Batch(
        SessionId(session),
        Sequence(sequence),
        position,
        order_base,
        names,
        table,
        np.frombuffer(message[payload_at:], np.uint8),
        original if flags & FLAG_SETTLED else len(message),
        bool(flags & FLAG_SETTLED),
        table_crc,
        payload_crc,
        mixed_runs,
        numbers,
    )


@lru_cache(maxsize=256)  # a source names the same streams in every batch
def _decode_names(region: bytes) -> tuple[StreamName, ...]:
    names = []
    for begin in range(0, len(region), STREAM_NAME_BYTES_MAX):
        raw = region[begin : begin + STREAM_NAME_BYTES_MAX].rstrip(b"\0")
        name = raw.decode("ascii", "replace")
        if not valid_stream_name(name):
            raise MessageError("stream-name", f"{name!r} is not a stream name")
        names.append(StreamName(name))
    if len(set(names)) != len(names):
        raise MessageError("stream-name", "a batch names a stream twice")
    return tuple(names)


def _check_table(
    table: EventTable,
    words: NDArray[np.uint32],
    streams: int,
    payload_bytes: int,
    sequence: int,
    settled: bool,
) -> tuple[bool, tuple[int, int] | None]:
    """Whether there are events of several runs in it; the lowest and the highest event number."""
    if sequence == 0:
        raise MessageError("sequence", "batches are numbered from 1")
    if len(table) == 0:
        if payload_bytes or not settled:
            raise MessageError("empty", f"batch {sequence} has no events")
        return False, None
    if settled:
        raise MessageError("flags", f"batch {sequence} is marked settled and has events")
    # Two passes over all columns tell all that is asked of most of them. Every other pass would be
    # one that this thread, which no other can stand in for, waits after.
    lowest = _of_columns(np.minimum, words)
    highest = _of_columns(np.maximum, words)
    _check_sizes(table["size"], int(lowest[_SIZE]), int(highest[_SIZE]), payload_bytes, sequence)
    if lowest[_STREAMS] == 0 or int(highest[_STREAMS]) >> streams:
        raise MessageError(
            "stream-mask", f"batch {sequence}: an event is meant for no stream that it names"
        )
    mixed = bool(lowest[_RUN] != highest[_RUN])
    # The sources pack one run to a batch. A mask is made for each pair, as long as the table.
    runs = table["run"]
    if mixed and len(np.unique(runs)) * streams > PIECES_PER_BATCH_MAX:
        raise MessageError(
            "oversized",
            f"batch {sequence}: events of {len(np.unique(runs))} runs for {streams} streams; "
            f"at most {PIECES_PER_BATCH_MAX} pairs of them",
        )
    numbers = None
    if lowest[_NUMBER_HIGH] == highest[_NUMBER_HIGH]:
        above = int(highest[_NUMBER_HIGH]) << 32
        numbers = above | int(lowest[_NUMBER]), above | int(highest[_NUMBER])
    return mixed, numbers


def _of_columns(operation: np.ufunc, words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Shape (8,): each column of the table, given as its words, reduced to one.

    Many rows at a time first: numpy's loop over rows of eight words takes eight times as long.
    """
    whole = len(words) - len(words) % _WIDE_WORDS
    rest = words[whole:]
    if whole:
        wide: NDArray[np.uint32] = operation.reduce(words[:whole].reshape(-1, _WIDE_WORDS))
        rest = np.concatenate((wide, rest))
    found: NDArray[np.uint32] = operation.reduce(rest.reshape(-1, _ROW_WORDS))
    return found


def _check_sizes(
    sizes: NDArray[np.uint32], lowest: int, highest: int, payload_bytes: int, sequence: int
) -> None:
    if highest > EVENT_BYTES_MAX:
        raise MessageError("oversized", f"batch {sequence}: an event is over {EVENT_BYTES_MAX} B")
    alike = lowest == highest
    total_bytes = highest * len(sizes) if alike else int(np.add.reduce(sizes, dtype=np.uint64))
    if total_bytes != payload_bytes:
        raise MessageError(
            "length", f"batch {sequence}: the sizes of its events do not add up to its payload"
        )
