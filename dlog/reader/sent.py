"""Events in the order in which they were sent: which blocks hold what, and how to take them.

The order itself is decided in `dlog.core.sent_order`. docs/FORMAT.md, "The order of sending".
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlog.core.block import FLAG_GROUP_END
from dlog.core.sent_order import SentPiece, SentRows, ordered
from dlog.errors import FormatError
from dlog.limits import MESSAGE_BYTES_MAX
from dlog.model.ids import EventNumber, FileKind, RunNumber, Sequence, SessionId, StreamName
from dlog.reader.block import Block, Event
from dlog.reader.event_file import EventFile
from dlog.reader.file_bytes import FileBytes

# Of a group that lies in several blocks: none holds more, whatever a file says.
_HELD_BYTES_MAX: Final = 2 * MESSAGE_BYTES_MAX


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
        self._ends_group = array("B")
        # Of each block, its place in the order of numbers, and its group; made by `finish`.
        self._rank: NDArray[np.intp] = np.empty(0, np.intp)
        self._group: NDArray[np.intp] = np.empty(0, np.intp)

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
                self._ends_group.append(header.flags & FLAG_GROUP_END)
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
        ends = np.frombuffer(self._ends_group, np.uint8)[order].astype(np.intp)
        self._group = np.empty_like(order)
        self._group[order] = np.cumsum(ends) - ends
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

    def groups(self, blocks: array[int]) -> list[list[int]]:
        """These blocks in the order of their numbers, by group."""
        rows = np.frombuffer(blocks, np.uint32)
        rows = rows[np.argsort(self._rank[rows])]
        borders = np.flatnonzero(np.diff(self._group[rows])) + 1
        return [part.tolist() for part in np.split(rows, borders)]

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
                return int(piece.positions[0]), int(piece.table["time_ns"][0]) or piece.block_ns
        return 0, 0

    def pieces(self, key: FeedKey) -> Generator[SentPiece, None, None]:
        """Group by group: within a group the blocks of different files hold what lies between."""
        groups = self.numbering.groups(self.blocks)
        with closing(self.numbering.read(row for group in groups for row in group)) as blocks:
            for group in groups:
                held: list[SentPiece] = []
                for block in islice(blocks, len(group)):
                    held.append(_piece(block, key))
                    if sum(len(piece.payload) for piece in held) > _HELD_BYTES_MAX:
                        yield from ordered(held)
                        held = []
                yield from ordered(held)


def _piece(block: Block, key: FeedKey) -> SentPiece:
    """What of a block belongs to the feed; views where that is all of it."""
    pieces, table, begins = block.pieces, block.table, block.offsets[:-1]
    mine = (
        (pieces["session"] == np.void(key.session))
        & (pieces["run"] == key.run)
        & (pieces["stream"] == key.stream.encode())
    )
    if not bool(mine.all()):
        rows = np.repeat(mine, pieces["events"])
        pieces, table, begins = pieces[mine], table[rows], begins[rows]
    positions = table["order"] + np.repeat(pieces["order_base"], pieces["events"])
    sequences = np.repeat(pieces["sequence"], pieces["events"])
    return SentPiece(
        positions, sequences, table, begins, block.raw_payload, block.header.time_ns, block.path
    )


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
    rows = slice(sent.rows.begin, sent.rows.end)
    numbers: list[EventNumber] = piece.table["number"][rows].tolist()
    times = piece.table["time_ns"][rows].tolist()
    begins = piece.begins[rows].tolist()
    sizes = piece.table["size"][rows].tolist()
    positions = piece.positions[rows].tolist()
    sequences: list[Sequence] = piece.sequences[rows].tolist()
    for number, time_ns, begin, size, position, sequence in zip(
        numbers, times, begins, sizes, positions, sequences, strict=True
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
