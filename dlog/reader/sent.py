"""Events in the order in which they were sent: which blocks hold what, and how to take them.

The order itself is decided in `dlog.core.sent_order`. docs/FORMAT.md, "The order of sending".
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlog.core.sent_order import SentPiece, SentRows, sent_piece
from dlog.errors import FormatError
from dlog.limits import MESSAGE_BYTES_MAX
from dlog.model.ids import EventNumber, FileKind, RunNumber, Sequence, SessionId, StreamName
from dlog.reader.block import Block, Event, stream_of
from dlog.reader.event_file import EventFile
from dlog.reader.file_bytes import FileBytes

# Of a batch that straddles blocks: none holds more, whatever a file says.
_HELD_BYTES_MAX: Final = MESSAGE_BYTES_MAX


class FeedKey(NamedTuple):
    """Whose events are in order among themselves: one session's in one stream as it was sent. The
    late ones in garbage files are apart."""

    run: RunNumber
    session: SessionId
    stream: StreamName
    kind: FileKind


@dataclass(frozen=True, slots=True)
class Sent:
    """Rows that come next, where they come from, and every stream in which they stand."""

    key: FeedKey
    rows: SentRows
    streams: tuple[StreamName, ...]


class Numbering:
    """All blocks of a stream of a run, in whatever file they lie, by their number."""

    def __init__(self) -> None:
        self._files: list[EventFile] = []
        self._numbers, self._offsets = array("Q"), array("Q")
        self._sizes, self._file_of = array("I"), array("I")
        # Of each block, its place in the order of numbers; made by `finish`.
        self._rank: NDArray[np.intp] = np.empty(0, np.intp)

    def add(self, file: EventFile, feeds: dict[FeedKey, Feed]) -> None:
        """Read the outline of a file, and note in `feeds` what lies where."""
        self._files.append(file)
        with closing(file.outline()) as outline:
            for header, pieces in outline:
                row = len(self._numbers)
                self._numbers.append(header.number)
                self._offsets.append(header.offset)
                self._sizes.append(header.block_bytes)
                self._file_of.append(len(self._files) - 1)
                columns = (pieces[name].tolist() for name in ("run", "session", "stream"))
                for run, session, stream in set(zip(*columns, strict=True)):
                    name = StreamName(stream.decode("ascii", "replace"))
                    key = FeedKey(run, session, name, file.header.key.kind)
                    feeds.setdefault(key, Feed(self)).blocks.append(row)

    def finish(self) -> list[tuple[int, int]]:
        """The gaps: numbers from 1 on that no block has, inclusive. Raises `FormatError` where two
        blocks have one number."""
        numbers = np.frombuffer(self._numbers, np.uint64)
        order = np.argsort(numbers, kind="stable")
        self._rank = np.empty_like(order)
        self._rank[order] = np.arange(len(order))
        numbers = np.concatenate([np.zeros(1, np.uint64), numbers[order]])
        steps = np.diff(numbers)
        twice = np.flatnonzero(steps == 0)
        if len(twice):
            row = int(twice[0])
            other, other_at, _ = self._place(int(order[row - 1])) if row else self._place(0)
            file, at, _ = self._place(int(order[row]))
            raise FormatError(
                f"block {int(numbers[row + 1])} stands also in {other.path} at byte {other_at}",
                path=str(file.path),
                offset_bytes=at,
            )
        gaps = np.flatnonzero(steps > 1).tolist()
        return [(int(numbers[i]) + 1, int(numbers[i + 1]) - 1) for i in gaps]

    def by_number(self, blocks: array[int]) -> list[int]:
        """These blocks in the order of their numbers."""
        rows = np.frombuffer(blocks, np.uint32)
        in_order: list[int] = rows[np.argsort(self._rank[rows])].tolist()
        return in_order

    def read(self, blocks: Iterable[int]) -> Generator[Block, None, None]:
        opened: tuple[EventFile, FileBytes] | None = None
        try:
            for row in blocks:
                file, offset, size = self._place(row)
                if opened is None or opened[0] is not file:
                    if opened is not None:
                        opened[1].close()
                    opened = file, FileBytes(file.path)
                yield file.block_in(opened[1], offset, size)
        finally:
            if opened is not None:
                opened[1].close()

    def _place(self, row: int) -> tuple[EventFile, int, int]:
        """File, offset and length of a block."""
        return self._files[self._file_of[row]], self._offsets[row], self._sizes[row]


@dataclass(slots=True)
class Feed:
    """The blocks in which a session's events of one stream lie."""

    numbering: Numbering
    blocks: array[int] = field(default_factory=lambda: array("I"))

    def first(self, key: FeedKey) -> tuple[int, int]:
        """Position and time of the first event; the block's time where the event has none."""
        with closing(self.pieces(key)) as pieces:
            for piece in pieces:
                _, block_ns = piece.source
                return int(piece.positions[0]), int(piece.table["time_ns"][0]) or block_ns
        return 0, 0

    def pieces(self, key: FeedKey) -> Generator[SentPiece, None, None]:
        """Batch by batch, from however many blocks and files each straddles."""
        held: list[_Part] = []
        with closing(self.numbering.read(self.numbering.by_number(self.blocks))) as blocks:
            for part in (part for block in blocks for part in _parts(block, key)):
                if held and (part.batch != held[0].batch or _bytes(held) > _HELD_BYTES_MAX):
                    yield _joined(held)
                    held = []
                held.append(part)
                if sum(p.end - p.begin for p in held) >= part.piece_events:
                    yield _joined(held)
                    held = []
        if held:
            yield _joined(held)


class _Part(NamedTuple):
    """Rows of a block that are a piece, or a part of one."""

    block: Block
    begin: int
    end: int
    batch: tuple[int, int]  # sequence, order base
    piece_events: int


def _parts(block: Block, key: FeedKey) -> Iterator[_Part]:
    row = 0
    for piece in block.pieces:
        begin, row = row, row + int(piece["events"])
        if (
            piece["session"].tobytes() == key.session
            and int(piece["run"]) == key.run
            and stream_of(piece) == key.stream
        ):
            batch = int(piece["sequence"]), int(piece["order_base"])
            yield _Part(block, begin, row, batch, int(piece["piece_events"]))


def _bytes(parts: list[_Part]) -> int:
    return sum(int(p.block.offsets[p.end] - p.block.offsets[p.begin]) for p in parts)


def _joined(parts: list[_Part]) -> SentPiece:
    block, begin, end = parts[0][:3]
    sequence, order_base = parts[0].batch
    table, begins, payload = block.table[begin:end], block.offsets[begin:end], block.raw_payload
    if len(parts) > 1:
        table = np.concatenate([p.block.table[p.begin : p.end] for p in parts])
        begins = np.cumsum(table["size"], dtype=np.int64) - table["size"]
        views = (
            p.block.raw_payload[p.block.offsets[p.begin] : p.block.offsets[p.end]] for p in parts
        )
        payload = memoryview(b"".join(views))
    source = Sequence(sequence), block.header.time_ns
    return sent_piece(order_base, table, begins, payload, path=block.path, source=source)


def in_order_of_time(feeds: dict[FeedKey, Feed]) -> list[list[FeedKey]]:
    """The feeds of each session of each run, by run and by the time of their first event."""
    sessions: dict[tuple[RunNumber, SessionId], list[FeedKey]] = {}
    for key in feeds:
        sessions.setdefault((key.run, key.session), []).append(key)
    begin_ns = {
        session: min(feeds[key].first(key) for key in keys)[1] for session, keys in sessions.items()
    }
    order = sorted(sessions, key=lambda session: (session[0], begin_ns[session], session[1]))
    return [sorted(sessions[session]) for session in order]


def events_of(sent: Sent) -> Iterator[Event]:
    key, piece = sent.key, sent.rows.piece
    sequence: Sequence = piece.source[0]
    rows = slice(sent.rows.begin, sent.rows.end)
    numbers: list[EventNumber] = piece.table["number"][rows].tolist()
    times = piece.table["time_ns"][rows].tolist()
    begins = piece.begins[rows].tolist()
    sizes = piece.table["size"][rows].tolist()
    positions = piece.positions[rows].tolist()
    for number, time_ns, begin, size, position in zip(
        numbers, times, begins, sizes, positions, strict=True
    ):
        yield Event(
            number, time_ns, key.run, key.stream, piece.payload[begin : begin + size], key.kind,
            key.session, sequence, position, sent.streams,
        )  # fmt: skip


def payloads_of(sent: Sent) -> Iterator[memoryview]:
    """Their payloads, in one piece where they lie one behind the other."""
    piece, rows = sent.rows.piece, slice(sent.rows.begin, sent.rows.end)
    begins = piece.begins[rows]
    ends = begins + piece.table["size"][rows]
    if bool((ends[:-1] == begins[1:]).all()):
        yield piece.payload[int(begins[0]) : int(ends[-1])]
        return
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        yield piece.payload[begin:end]
