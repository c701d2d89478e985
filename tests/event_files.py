"""Builds event files for tests, with the real encoders: whole, open, torn, sealed, of any kind.

It writes what a logger could have written, byte for byte the same each time, and tells what lies
where; damage is the business of the test. The short way:

    built = build_file(tmp_path / "photons_0001.dlog", events=50, events_per_block=10)
    built.events                    # [(number, payload), …] in file order
    built.blocks[2].offset, built.blocks[2].length, built.blocks[2].number

`pieces` gives full control: a piece is what one batch holds for one stream, and a piece with more
events than are left in a block straddles it, as it does in the logger:

    build_file(path, pieces=[Piece(make_events(7), sequence=1)], events_per_block=5)

`closed=False` makes a `.part` without footer, `sealed="…"` a file that a fault ended at its last
block. `build_run` writes several streams and parts under `<data>/runs/<run>/` with one row of block
numbers per stream, and `FileBuilder` puts a single file together block by block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from crc32c import crc32c

from dlog.core.block import (
    BlockHeader,
    Fragment,
    FragmentEntry,
    OrphanReason,
    Packing,
    Place,
    block_bytes_max,
    encode_block,
    number_range,
)
from dlog.core.event_file import (
    INDEX_DTYPE,
    FileHeader,
    HeaderText,
    Sidecar,
    Totals,
    encode_file_header,
    encode_footer,
    encode_sidecar,
    sidecar_path,
)
from dlog.core.filters import Compressor, Filter
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE
from dlog.model.ids import (
    ORPHAN_STREAM,
    BlockNumber,
    BootNumber,
    FileKey,
    FileKind,
    Offset,
    PartNumber,
    RunNumber,
    SessionId,
    StreamName,
    file_path,
)
from dlog.model.ids import Sequence as SequenceNumber

START_NS = 1_700_000_000_000_000_000  # when everything here happens; blocks follow 1 ms apart
LOGGER_UUID = bytes(range(16))
SESSION_A = SessionId(b"session-A-------")
SESSION_B = SessionId(b"session-B-------")


class SentEvent(NamedTuple):
    """An event as a source sends it. `order`: None counts on from the event before in its piece."""

    number: int
    payload: bytes
    time_ns: int = START_NS
    order: int | None = None
    streams: int = 1


@dataclass(frozen=True)
class Piece:
    """The events of one batch for one stream. `run`, `stream` (as sent): None takes the file's."""

    events: Sequence[SentEvent]
    session: SessionId = SESSION_A
    sequence: int = 1
    order_base: int = 0
    run: int | None = None
    stream: str | None = None
    orphan_reason: OrphanReason = OrphanReason.NONE


@dataclass(frozen=True)
class BuiltBlock:
    """A block that was written. `length` has its padding in it; `events` are in file order."""

    number: int
    offset: int
    length: int
    header: BlockHeader
    entries: tuple[FragmentEntry, ...]
    events: tuple[SentEvent, ...]


@dataclass(frozen=True)
class BuiltFile:
    """A file that was written. `data_end`: where its last event block ends (D)."""

    path: Path
    key: FileKey
    header: FileHeader
    blocks: tuple[BuiltBlock, ...]
    data_end: int
    size: int
    sidecar: Path | None

    @property
    def events(self) -> list[tuple[int, bytes]]:
        """(number, payload) in file order."""
        return [(e.number, e.payload) for b in self.blocks for e in b.events]

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.events]


def make_key(
    run: int = 7, stream: str = "photons", kind: FileKind = FileKind.EVENTS, part: int = 1
) -> FileKey:
    return FileKey(RunNumber(run), StreamName(stream), kind, PartNumber(part))


def make_events(
    count: int, *, first: int = 1, size: int = 100, start_ns: int = START_NS
) -> list[SentEvent]:
    """Events numbered from `first`, 1 µs apart, with payloads that differ and compress.

    Sizes vary around `size`; one in eleven is empty where `size` is 0 or more than 10.
    """
    events = []
    for number in range(first, first + count):
        length = 0 if size > 10 and number % 11 == 10 else max(0, size + number % 7 - 3)
        ramp = np.arange(length // 2 + 1, dtype="<u2") // 3 + number
        payload = ramp.astype("<u2").tobytes()[:length]
        events.append(SentEvent(number, payload, start_ns + number * 1000))
    return events


def make_pieces(
    events: Sequence[SentEvent],
    per_piece: int,
    *,
    session: SessionId = SESSION_A,
    first_sequence: int = 1,
    first_position: int = 0,
) -> list[Piece]:
    """The events cut into batches of `per_piece`; their positions in the session count on."""
    return [
        Piece(
            events[begin : begin + per_piece],
            session,
            first_sequence + i,
            first_position + begin,
        )
        for i, begin in enumerate(range(0, len(events), per_piece))
    ]


def make_fragments(
    key: FileKey, pieces: Iterable[Piece], events_per_block: int
) -> list[tuple[list[FragmentEntry], list[SentEvent]]]:
    """Pieces laid into blocks of at most so many events; a piece goes on in the next block."""
    blocks: list[tuple[list[FragmentEntry], list[SentEvent]]] = []
    room = 0
    for piece in pieces:
        events = _with_orders(piece.events)
        begin = 0
        while begin < len(events):
            if room == 0:
                blocks.append(([], []))
                room = events_per_block
            taken = events[begin : begin + room]
            entries, in_block = blocks[-1]
            entries.append(
                make_entry(
                    key, piece, taken, len(events),
                    first=begin == 0, last=begin + len(taken) == len(events),
                )
            )  # fmt: skip
            in_block.extend(taken)
            begin += len(taken)
            room -= len(taken)
    return blocks


def make_entry(
    key: FileKey,
    piece: Piece,
    taken: Sequence[SentEvent],
    piece_events: int,
    *,
    first: bool,
    last: bool,
) -> FragmentEntry:
    return FragmentEntry(
        piece.session,
        SequenceNumber(piece.sequence),
        piece.order_base,
        RunNumber(key.run if piece.run is None else piece.run),
        StreamName(key.stream if piece.stream is None else piece.stream),
        len(taken),
        piece_events,
        sum(len(e.payload) for e in taken),
        first,
        last,
        piece.orphan_reason,
    )


def _with_orders(events: Sequence[SentEvent]) -> list[SentEvent]:
    out: list[SentEvent] = []
    for event in events:
        order = event.order
        if order is None:
            before = out[-1].order if out else None
            order = 0 if before is None else before + 1
        out.append(event._replace(order=order))
    return out


def make_table(run: int, events: Sequence[SentEvent]) -> np.ndarray[Any, Any]:
    """The event table of these events."""
    rows = [(e.number, e.time_ns, run, len(e.payload), e.streams, e.order or 0) for e in events]
    return np.array(rows, EVENT_DTYPE)


@dataclass
class FileBuilder:
    """One event file in memory, put together block by block.

    Everything that is random in a real file is derived from the key unless given.
    """

    key: FileKey
    config: StreamConfig = field(default_factory=StreamConfig)
    boot: int = 1
    first_block: int = 1
    salt: bytes = b""
    file_uuid: bytes = b""
    logger_uuid: bytes = LOGGER_UUID
    logger: str = "test-logger"
    created_ns: int = START_NS
    predecessor: BuiltFile | None = None  # the part that was sealed and that this one goes on for
    streams: tuple[str, ...] = ()
    low: int = -1
    durable: int = 0  # what its blocks say of D; 0: all that is before them was committed

    def __post_init__(self) -> None:
        self.salt = self.salt or _derived(self.key, "salt")
        self.file_uuid = self.file_uuid or _derived(self.key, "uuid")
        self.header = FileHeader(
            self.key, self.file_uuid, self.logger_uuid, self.salt, BootNumber(self.boot),
            self.created_ns, BlockNumber(self.first_block),
            HeaderText(logger=self.logger, config=self.config, run_started_ns=START_NS,
                       streams=self.streams or (self.key.stream,), low=self.low),
            **self._predecessor(),
        )  # fmt: skip
        page, self.chain = encode_file_header(self.header)
        self.content = bytearray(page)
        self.blocks: list[BuiltBlock] = []
        self.next_number = self.first_block
        self.totals = Totals()
        self.now_ns = self.created_ns
        compressor = (
            Compressor(self.config.compression_level) if self.config.compression == "zstd" else None
        )
        self.packing = Packing(
            Filter[self.config.filter.upper()], self.config.element_bytes, compressor
        )

    def _predecessor(self) -> dict[str, Any]:
        if self.predecessor is None:
            return {}
        before = self.predecessor
        chain = before.blocks[-1].header.crc if before.blocks else _header_crc(before.header)
        return {
            "predecessor_part": before.key.part,
            "predecessor_sealed": Offset(before.data_end),
            "predecessor_chain": chain,
        }

    def block(
        self,
        entries: Sequence[FragmentEntry],
        events: Sequence[SentEvent],
        *,
        number: int | None = None,
        group_end: bool = True,
        packing: Packing | None = None,
    ) -> BuiltBlock:
        """Append a block. `events` are those of all entries, one behind the other."""
        fragments, at = [], 0
        for entry in entries:
            taken = events[at : at + entry.events]
            at += entry.events
            payload = np.frombuffer(b"".join(e.payload for e in taken), np.uint8)
            table = make_table(entry.run, taken)
            fragments.append(Fragment(entry, table, payload, *number_range(table)))
        out = memoryview(
            bytearray(
                block_bytes_max(
                    len(entries), len(events), sum(len(e.payload) for e in events)
                )
            )
        )  # fmt: skip
        self.now_ns += 1_000_000
        place = Place(
            Offset(len(self.content)),
            BlockNumber(self.next_number if number is None else number),
            BootNumber(self.boot),
            self.salt,
            self.chain,
            Offset(self.durable or len(self.content)),
        )
        header = encode_block(
            fragments, out, place, packing or self.packing, group_end=group_end, time_ns=self.now_ns
        )
        self.content += out[: header.block_bytes]
        self.chain = header.crc
        self.next_number = header.number + 1
        payload_bytes = header.raw_bytes - header.events * EVENT_BYTES
        self.totals = self.totals.plus(header, payload_bytes)
        built = BuiltBlock(
            header.number, header.offset, header.block_bytes, header, tuple(entries), tuple(events)
        )
        self.blocks.append(built)
        return built

    def pieces(self, pieces: Iterable[Piece], events_per_block: int) -> None:
        """Append blocks of these pieces; a block's group-end flag says whether a piece is open."""
        for entries, events in make_fragments(self.key, pieces, events_per_block):
            self.block(entries, events, group_end=entries[-1].last)

    def index(self) -> np.ndarray[Any, Any]:
        rows = [
            (b.offset, b.number, b.header.first_event, b.header.last_event, b.header.time_ns,
             b.header.events, b.length)
            for b in self.blocks
        ]  # fmt: skip
        return np.array(rows, INDEX_DTYPE)

    def footer(self) -> bytes:
        return encode_footer(
            self.index(), self.totals, offset=Offset(len(self.content)),
            boot=BootNumber(self.boot), salt=self.salt, previous_crc=self.chain,
            time_ns=self.now_ns + 1_000_000,
        )  # fmt: skip

    def write(
        self,
        path: Path,
        *,
        closed: bool = True,
        sidecar: bool | None = None,
        sealed: str = "",
        tail: bytes = b"",
    ) -> BuiltFile:
        """Write it to `path`, with the folders above it.

        closed: with its footer; a sealed file never has one. sidecar: None means where the file is
        closed or sealed. tail: bytes behind the last block of a file that has no footer.
        """
        data_end = len(self.content)
        content = bytes(self.content) + (self.footer() if closed and not sealed else tail)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        beside = None
        if sidecar if sidecar is not None else closed or bool(sealed):
            beside = Path(sidecar_path(str(path).removesuffix(".part")))
            size = data_end if sealed else len(content)
            beside.write_bytes(encode_sidecar(self.sidecar(path, content[:size], sealed)))
        return BuiltFile(
            path, self.key, self.header, tuple(self.blocks), data_end, len(content), beside
        )

    def sidecar(self, path: Path, content: bytes, sealed: str = "") -> Sidecar:
        return Sidecar(
            file=path.name.removesuffix(".part"),
            file_uuid=self.file_uuid.hex(),
            logger=self.logger,
            logger_uuid=self.logger_uuid.hex(),
            run=self.key.run,
            stream=self.key.stream,
            kind=self.key.kind.name.lower(),
            part=self.key.part,
            size_bytes=len(content),
            crc32c=f"{crc32c(content):08x}",
            sealed=sealed,
            created_ns=self.created_ns,
            closed_ns=self.now_ns + 2_000_000,
            totals=self.totals,
            predecessor_part=self.header.predecessor_part,
            config=self.config,
        )


def _derived(key: FileKey, what: str) -> bytes:
    return hashlib.blake2b(f"{key!s} {int(key.kind)} {what}".encode(), digest_size=16).digest()


def _header_crc(header: FileHeader) -> int:
    return encode_file_header(header)[1]


def build_file(
    path: Path,
    *,
    key: FileKey | None = None,
    events: int | Sequence[SentEvent] = 50,
    events_per_piece: int = 10,
    pieces: Sequence[Piece] | None = None,
    events_per_block: int = 10,
    config: StreamConfig | None = None,
    closed: bool | None = None,
    sidecar: bool | None = None,
    sealed: str = "",
    reserved_bytes: int = 0,
    tail: bytes = b"",
    **builder: Any,
) -> BuiltFile:
    """Write an event file with `events` (a number of them, or the events) or `pieces` in it.

    closed: None means by the name, whose `.part` is an open file. reserved_bytes: zeros behind the
    last block of an open file, as fallocate leaves them; tail: any other bytes there. Further
    arguments (`salt`, `boot`, `first_block`, `predecessor`, …) are those of `FileBuilder`.
    """
    if closed is None:
        closed = path.suffix != ".part" and not sealed
    file = FileBuilder(key or make_key(), config or StreamConfig(), **builder)
    if pieces is None:
        sent = make_events(events) if isinstance(events, int) else events
        pieces = make_pieces(sent, events_per_piece)
    file.pieces(pieces, events_per_block)
    return file.write(
        path, closed=closed, sidecar=sidecar, sealed=sealed, tail=tail + bytes(reserved_bytes)
    )


def build_run(
    data: Path,
    streams: Mapping[str, Sequence[Piece]],
    *,
    run: int = 7,
    events_per_block: int = 10,
    blocks_per_part: int = 3,
    garbage_blocks: Mapping[str, int] | None = None,
    last_open: bool = False,
    config: StreamConfig | None = None,
    **builder: Any,
) -> list[BuiltFile]:
    """Write a run's files, `<data>/runs/<run>/<stream>_<part>.dlog`, each with its sidecar.

    A stream's blocks go to its parts in turn, so pieces straddle parts. garbage_blocks: so many of
    the last blocks of that stream go to its garbage file. last_open: the last part of each stream
    is a `.part` without footer.
    """
    built = []
    for name, pieces in streams.items():
        blocks = make_fragments(make_key(run, name), pieces, events_per_block)
        late = (garbage_blocks or {}).get(name, 0)
        plan: list[tuple[FileKey, list[tuple[list[FragmentEntry], list[SentEvent]]]]] = []
        kept = blocks[: len(blocks) - late]
        for part, begin in enumerate(range(0, max(1, len(kept)), blocks_per_part), 1):
            plan.append((make_key(run, name, part=part), kept[begin : begin + blocks_per_part]))
        if late:
            plan.append((make_key(run, name, FileKind.GARBAGE), blocks[-late:]))
        number, low = 1, -1
        for position, (key, content) in enumerate(plan):
            file = FileBuilder(
                key, config or StreamConfig(), first_block=number,
                streams=tuple(streams), low=low, **builder,
            )  # fmt: skip
            for entries, events in content:
                file.block(entries, events, group_end=entries[-1].last)
            number, low = file.next_number, file.totals.last_event
            path = data / file_path(key)
            if last_open and position == len(plan) - 1:
                path = path.with_name(path.name + ".part")
            built.append(file.write(path, closed=path.suffix != ".part"))
    return built


def build_orphans(data: Path, pieces: Sequence[Piece], **builder: Any) -> BuiltFile:
    """Write `<data>/orphans/orphan_0001.dlog`; the pieces name run and stream as they were sent."""
    key = make_key(0, ORPHAN_STREAM, FileKind.ORPHAN)
    return build_file(data / file_path(key), key=key, pieces=pieces, **builder)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Damage a file in place (also a read-only one)."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.chmod(0o644)
    path.write_bytes(data)


def pages(size: int) -> int:
    """`size` rounded up to whole pages."""
    return -(-size // PAGE_BYTES) * PAGE_BYTES
