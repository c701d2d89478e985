"""The block: header, fragment table, stored bytes, padding; encoded and decoded. It does no I/O.

Layout: docs/FORMAT.md, "Block". A length is trusted only after the header's own crc32c. Every
function that decodes raises `FormatError` with the reason; it never guesses.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np
from crc32c import crc32c
from msgspec import structs
from numpy.typing import NDArray

from dlog.core.checksum import joined
from dlog.core.filters import Compression, Compressor, Filter, apply_filter, decode_stored
from dlog.errors import FormatError
from dlog.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_EVENTS_MAX,
    BLOCK_PIECES_MAX,
    KIB,
    PAGE_BYTES,
    STREAM_NAME_BYTES_MAX,
)
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE, EventTable, Payload
from dlog.model.ids import (
    BlockNumber,
    BootNumber,
    MarkKey,
    Offset,
    RunNumber,
    Sequence,
    SessionId,
    StreamName,
)

MAGIC: Final = b"DLOGBLK\x01"
# magic, type, flags, boot, salt, file offset, block number, previous header's crc, fragments,
# events, filter, element bytes, compression, first event, last event, raw bytes, stored bytes,
# raw crc, stored crc, frame crc, block bytes, time (then the header's own crc)
_HEADER: Final = struct.Struct("<8sHHI16sQQIIIBBBxQQIIIIIIQQ4x")
_HEADER_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _HEADER.size + _HEADER_CRC.size
assert HEADER_BYTES == 128

# session, sequence, order base, run, events, events of the whole piece, payload bytes, flags,
# reserved, stream as sent
_FRAGMENT: Final = struct.Struct(f"<16sQQIIIII12x{STREAM_NAME_BYTES_MAX}s")
FRAGMENT_BYTES: Final = _FRAGMENT.size
assert FRAGMENT_BYTES == 96
# The same row for numpy, so that a block of many pieces needs no code for each of them.
FRAGMENT_DTYPE: Final = np.dtype(
    [
        ("session", "V16"),  # bytes as they are: an S field would drop trailing zeros
        ("sequence", "<u8"),
        ("order_base", "<u8"),
        ("run", "<u4"),
        ("events", "<u4"),
        ("piece_events", "<u4"),
        ("payload_bytes", "<u4"),
        ("flags", "<u4"),
        ("reserved", "V12"),
        ("stream", f"S{STREAM_NAME_BYTES_MAX}"),
    ]
)
assert FRAGMENT_DTYPE.itemsize == FRAGMENT_BYTES

FLAG_GROUP_END: Final = 1  # no piece is open behind this block: a commit may stop here
_COPY_ALONE_BYTES_MIN: Final = 128 * KIB
_JOINED_BYTES_MIN: Final = 64 * KIB

FRAGMENT_FIRST: Final = 1  # the piece begins here
FRAGMENT_LAST: Final = 2  # the piece ends here: from this block on it counts as stored


class OrphanReason(enum.IntEnum):
    """Why a fragment lies in an orphan file; bits 8 to 15 of its flags."""

    NONE = 0
    RUN_ENDED = 1
    RUN_FAILED = 2
    RUN_UNKNOWN = 3
    STREAM_UNKNOWN = 4
    OTHER = 255  # of a later version

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", "-") if self else ""


_ORPHAN_REASONS: Final = frozenset(OrphanReason)


class BlockType(enum.IntEnum):
    EVENTS = 1
    INDEX = 2
    CLOSING = 3


class BlockHeader(msgspec.Struct, frozen=True):
    """The fixed header of a block, as on disk; lengths in bytes.

    block_number: per (run, stream) across all files; 0 in index and closing blocks.
    previous_crc: crc of the header before it in the file; of the file header for the first.
    frame_crc: crc32c of fragment table and padding. block_bytes: all of it, padding included.
    time_ns: wall clock when the block was closed. durable: the file's durable offset D that was
    committed in the journal when the block was made, in bytes.
    """

    type: BlockType
    flags: int
    boot: BootNumber
    salt: bytes
    offset: Offset
    number: BlockNumber
    previous_crc: int
    fragments: int
    events: int
    filter: Filter
    element_bytes: int
    compression: Compression
    first_event: int
    last_event: int
    raw_bytes: int
    stored_bytes: int
    raw_crc: int
    stored_crc: int
    frame_crc: int
    block_bytes: int
    time_ns: int
    durable: Offset
    crc: int = 0


@dataclass(frozen=True, slots=True)
class FragmentEntry:
    """A row of the fragment table: what of a batch's piece lies in this block.

    events, payload_bytes: of this fragment. piece_events: of the whole piece.
    """

    session: SessionId
    sequence: Sequence
    order_base: int
    run: RunNumber
    stream: StreamName
    events: int
    piece_events: int
    payload_bytes: int
    first: bool
    last: bool
    orphan_reason: OrphanReason = OrphanReason.NONE

    @property
    def mark(self) -> MarkKey:
        return MarkKey(self.session, self.run, self.stream)


@dataclass(frozen=True, slots=True)
class BlockContent:
    """An events block, decoded: `table` and `payload` in file order, views of one raw buffer."""

    fragments: tuple[FragmentEntry, ...]
    table: EventTable
    payload: Payload


class Checksums(NamedTuple):
    """crc32c of a table and of a payload that were computed before, at the source."""

    table: int
    payload: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """Events of one batch's piece on their way into a block; views of the message, not copies.

    first_event, last_event: lowest and highest number. checksums: where they are known. They are
    not computed again: so they witness the way from the source to the disk, and that the copy into
    the block was a true one.
    """

    entry: FragmentEntry
    table: EventTable
    payload: Payload
    first_event: int
    last_event: int
    checksums: Checksums | None = None


@dataclass(frozen=True, slots=True)
class Packing:
    """How a stream's blocks are filtered and compressed; one a thread, it owns its compressor."""

    filter: Filter
    element_bytes: int
    compressor: Compressor | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block goes: what its header says of its file and its neighbours."""

    offset: Offset
    number: BlockNumber
    boot: BootNumber
    salt: bytes
    previous_crc: int
    durable: Offset


def block_bytes_max(fragments: int, events: int, payload_bytes: int) -> int:
    """Space that a block of so much takes at most: stored raw, padding included."""
    return padded(HEADER_BYTES + fragments * FRAGMENT_BYTES + events * EVENT_BYTES + payload_bytes)


def encode_block(
    fragments: Sequence_[Fragment],
    out: memoryview,
    place: Place,
    packing: Packing,
    *,
    group_end: bool,
    time_ns: int,
) -> BlockHeader:
    """Put a block of these fragments at the beginning of `out`; its length is `block_bytes`.

    `out` holds at least `block_bytes_max`. One copy an uncompressed byte, none an event.
    """
    framed = HEADER_BYTES + len(fragments) * FRAGMENT_BYTES
    events = sum(f.entry.events for f in fragments)
    raw_bytes = events * EVENT_BYTES + sum(f.entry.payload_bytes for f in fragments)
    buffer = np.frombuffer(out, np.uint8)
    raw = buffer[framed : framed + raw_bytes]
    _gather(fragments, out[framed : framed + raw_bytes], raw, events)
    first_event = min((f.first_event for f in fragments), default=0)
    last_event = max((f.last_event for f in fragments), default=0)
    raw_crc = _joined_checksums(fragments)
    if raw_crc is None:
        raw_crc = crc32c(raw.data)
    stored_bytes, stored_crc = raw_bytes, raw_crc
    kind, compression = Filter.NONE, Compression.NONE
    if packing.compressor is not None:
        packed = packing.compressor.compress(
            apply_filter(raw, packing.filter, packing.element_bytes)
        )
        if packed is not None:
            kind, compression = packing.filter, Compression.ZSTD
            stored_bytes, stored_crc = len(packed), crc32c(packed)
            out[framed : framed + stored_bytes] = packed
    block_bytes = padded(framed + stored_bytes)
    buffer[framed + stored_bytes : block_bytes] = 0
    out[HEADER_BYTES:framed] = b"".join(encode_fragment(f.entry) for f in fragments)
    frame_crc = crc32c(out[framed + stored_bytes : block_bytes], crc32c(out[HEADER_BYTES:framed]))
    header = BlockHeader(
        BlockType.EVENTS, FLAG_GROUP_END * group_end, place.boot, place.salt, place.offset,
        place.number, place.previous_crc, len(fragments), events, kind, packing.element_bytes,
        compression, first_event, last_event, raw_bytes, stored_bytes, raw_crc, stored_crc,
        frame_crc, block_bytes, time_ns, place.durable,
    )  # fmt: skip
    return _put_header(out, header)


def moved_block(out: memoryview, header: BlockHeader, place: Place) -> BlockHeader:
    """Give an encoded block in `out` a new place (another file); its number stays."""
    moved = structs.replace(
        header,
        offset=place.offset,
        boot=place.boot,
        salt=place.salt,
        previous_crc=place.previous_crc,
        durable=place.durable,
    )
    return _put_header(out, moved)


def _put_header(out: memoryview, header: BlockHeader) -> BlockHeader:
    packed, crc = encode_header(header)
    out[:HEADER_BYTES] = packed
    return structs.replace(header, crc=crc)


def _gather(
    fragments: Sequence_[Fragment], out: memoryview, raw: NDArray[np.uint8], events: int
) -> None:
    """Copy tables, then payloads, into `raw`, which is the memory of `out`."""
    row_at, byte_at = 0, events * EVENT_BYTES
    for fragment in fragments:
        row_end = row_at + fragment.entry.events * EVENT_BYTES
        byte_end = byte_at + fragment.entry.payload_bytes
        # As bytes: numpy copies records field by field, which takes ten times as long.
        table = np.frombuffer(np.ascontiguousarray(fragment.table), np.uint8)
        _copy(table, out, raw, row_at, row_end)
        _copy(fragment.payload, out, raw, byte_at, byte_end)
        row_at, byte_at = row_end, byte_end


def _copy(
    piece: NDArray[np.uint8], out: memoryview, raw: NDArray[np.uint8], begin: int, end: int
) -> None:
    # numpy lets other threads run while it copies, and waits for its turn afterwards: for a little
    # that takes far longer than the copy.
    if end - begin < _COPY_ALONE_BYTES_MIN and piece.flags.c_contiguous:
        out[begin:end] = piece.data
    else:
        raw[begin:end] = piece


def _joined_checksums(fragments: Sequence_[Fragment]) -> int | None:
    """The crc32c of all tables, then all payloads, where each is known; None where it is not, or
    where the pieces are so small that it takes longer than to read them."""
    size = sum(f.entry.events * EVENT_BYTES + f.entry.payload_bytes for f in fragments)
    if size < len(fragments) * _JOINED_BYTES_MIN:
        return None
    crc = 0
    for fragment in fragments:
        if fragment.checksums is None:
            return None
        crc = joined(crc, fragment.checksums.table, fragment.entry.events * EVENT_BYTES)
    for fragment in fragments:
        assert fragment.checksums is not None
        crc = joined(crc, fragment.checksums.payload, fragment.entry.payload_bytes)
    return crc


def number_range(table: EventTable) -> tuple[int, int]:
    """The lowest and the highest event number of a table that is not empty."""
    numbers = table["number"]
    # The reductions as they are: their methods cost as much again.
    return int(np.minimum.reduce(numbers)), int(np.maximum.reduce(numbers))


def padded(size: int) -> int:
    """`size` rounded up to whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def encode_header(header: BlockHeader) -> tuple[bytes, int]:
    """The 128 bytes of a header, and its crc; `crc` of the argument is not looked at."""
    packed = _HEADER.pack(
        MAGIC, header.type, header.flags, header.boot, header.salt, header.offset, header.number,
        header.previous_crc, header.fragments, header.events, header.filter, header.element_bytes,
        header.compression, header.first_event, header.last_event, header.raw_bytes,
        header.stored_bytes, header.raw_crc, header.stored_crc, header.frame_crc,
        header.block_bytes, header.time_ns, header.durable,
    )  # fmt: skip
    crc = crc32c(packed)
    return packed + _HEADER_CRC.pack(crc), crc


def encode_fragment(entry: FragmentEntry) -> bytes:
    flags = FRAGMENT_FIRST * entry.first | FRAGMENT_LAST * entry.last | entry.orphan_reason << 8
    return _FRAGMENT.pack(
        entry.session, entry.sequence, entry.order_base, entry.run, entry.events,
        entry.piece_events, entry.payload_bytes, flags, entry.stream.encode(),
    )  # fmt: skip


def decode_header(data: memoryview | bytes, *, salt: bytes, offset: int, path: str) -> BlockHeader:
    """The header in the first 128 bytes of `data`, found at `offset` of a file with that salt.

    Raises `FormatError` unless magic, crc, salt, own offset and every length hold.
    """

    def fail(reason: str) -> FormatError:
        return FormatError(reason, path=path, offset_bytes=offset)

    if len(data) < HEADER_BYTES:
        raise fail(f"{len(data)} bytes are less than a block header")
    if bytes(data[:8]) != MAGIC:
        raise fail("no block begins here (magic)")
    (crc,) = _HEADER_CRC.unpack_from(data, _HEADER.size)
    if crc32c(data[: _HEADER.size]) != crc:
        raise fail("block header checksum does not hold")
    fields = _HEADER.unpack_from(data)
    try:
        header = BlockHeader(
            BlockType(fields[1]), fields[2], fields[3], fields[4], fields[5], fields[6], fields[7],
            fields[8], fields[9], Filter(fields[10]), fields[11], Compression(fields[12]),
            fields[13], fields[14], fields[15], fields[16], fields[17], fields[18], fields[19],
            fields[20], fields[21], fields[22], crc,
        )  # fmt: skip
    except ValueError as error:
        raise fail(f"block header: {error}") from error
    if header.salt != salt:
        raise fail("block of another file (salt)")
    if header.offset != offset:
        raise fail(f"block says that it lies at byte {header.offset} (own offset)")
    problem = _lengths_problem(header)
    if problem:
        raise fail(problem)
    return header


def _lengths_problem(header: BlockHeader) -> str | None:
    """Bounds first: nothing is allocated on the word of a header whose lengths do not fit."""
    framed = HEADER_BYTES + header.fragments * FRAGMENT_BYTES
    if header.fragments > BLOCK_PIECES_MAX or header.events > BLOCK_EVENTS_MAX:
        return f"block of {header.fragments} fragments, {header.events} events is over the limits"
    if header.raw_bytes > BLOCK_BYTES_MAX or header.block_bytes > BLOCK_BYTES_MAX:
        return f"block of {header.block_bytes} bytes is over the limit"
    if padded(framed + header.stored_bytes) != header.block_bytes:
        return "block lengths do not add up"
    if header.compression is Compression.NONE and header.stored_bytes != header.raw_bytes:
        return "block is stored raw, but its two lengths differ"
    if header.type is BlockType.EVENTS and header.events * EVENT_BYTES > header.raw_bytes:
        return "block is too short for its event table"
    return None


def check_block(header: BlockHeader, data: memoryview, *, path: str) -> None:
    """Check the stored bytes, fragment table and padding of a whole block. Raises `FormatError`."""
    framed = HEADER_BYTES + header.fragments * FRAGMENT_BYTES
    stored_end = framed + header.stored_bytes
    if len(data) < header.block_bytes:
        raise FormatError(
            f"block is torn: {len(data)} of {header.block_bytes} bytes are there",
            path=path, offset_bytes=header.offset,
        )  # fmt: skip
    frame = crc32c(data[stored_end : header.block_bytes], crc32c(data[HEADER_BYTES:framed]))
    if frame != header.frame_crc:
        raise FormatError(
            "checksum of fragment table or padding does not hold",
            path=path, offset_bytes=header.offset,
        )  # fmt: skip
    if crc32c(data[framed:stored_end]) != header.stored_crc:
        raise FormatError(
            "checksum of the stored bytes does not hold", path=path, offset_bytes=header.offset
        )


def decode_fragments(
    header: BlockHeader, data: memoryview, *, path: str
) -> tuple[FragmentEntry, ...]:
    """The fragment table of a block that `check_block` passed."""
    entries = []
    for i in range(header.fragments):
        (session, sequence, order_base, run, events, piece_events, payload, flags, name) = (
            _FRAGMENT.unpack_from(data, HEADER_BYTES + i * FRAGMENT_BYTES)
        )
        reason = flags >> 8 & 0xFF
        entries.append(
            FragmentEntry(
                SessionId(session),
                Sequence(sequence),
                order_base,
                RunNumber(run),
                StreamName(name.rstrip(b"\0").decode("ascii", "replace")),
                events,
                piece_events,
                payload,
                bool(flags & FRAGMENT_FIRST),
                bool(flags & FRAGMENT_LAST),
                OrphanReason(reason) if reason in _ORPHAN_REASONS else OrphanReason.OTHER,
            )
        )
    payload_bytes = header.raw_bytes - header.events * EVENT_BYTES
    if header.type is BlockType.EVENTS and (
        sum(e.events for e in entries) != header.events
        or sum(e.payload_bytes for e in entries) != payload_bytes
    ):
        raise FormatError(
            "fragment table does not add up to the block", path=path, offset_bytes=header.offset
        )
    return tuple(entries)


def decode_raw(header: BlockHeader, data: memoryview, *, path: str) -> memoryview:
    """The raw bytes of a block that `check_block` passed, their own crc checked."""
    framed = HEADER_BYTES + header.fragments * FRAGMENT_BYTES
    stored = data[framed : framed + header.stored_bytes]
    raw = decode_stored(
        stored, header.raw_bytes, header.filter, header.element_bytes, header.compression,
        path=path, offset_bytes=header.offset,
    )  # fmt: skip
    if header.compression is Compression.NONE and header.filter is Filter.NONE:
        holds = header.stored_crc == header.raw_crc
    else:
        holds = crc32c(raw) == header.raw_crc
    if not holds:
        raise FormatError(
            "checksum of the raw bytes does not hold", path=path, offset_bytes=header.offset
        )
    return raw


def decode_content(header: BlockHeader, data: memoryview, *, path: str) -> BlockContent:
    """Events of a block that `check_block` passed. Raises `FormatError` where they do not fit."""
    fragments = decode_fragments(header, data, path=path)
    raw = decode_raw(header, data, path=path)
    table = np.frombuffer(raw[: header.events * EVENT_BYTES], EVENT_DTYPE)
    payload = np.frombuffer(raw[header.events * EVENT_BYTES :], np.uint8)
    if int(table["size"].sum(dtype=np.uint64)) != len(payload):
        raise FormatError(
            "sizes of the events do not add up to the payload",
            path=path, offset_bytes=header.offset,
        )  # fmt: skip
    return BlockContent(fragments, table, payload)
