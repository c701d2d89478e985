"""The order in which events were sent, put together again from the streams they were stored in.

It merges pieces by position and decides nothing else; it does no I/O. docs/FORMAT.md, "The order of
sending".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlog.errors import FormatError
from dlog.model.events import EventTable


@dataclass(frozen=True, slots=True)
class SentPiece:
    """Events of one session in one stream, by position; none lies below those of the piece before.

    positions: in the session, shape (events,), dtype uint64. sequences: the batches. begins: where
    in `payload` each event begins; its size stands in the table. block_ns: when the block was
    closed in which the first of them lies. path: of its file, for errors.
    """

    positions: NDArray[Any]
    sequences: NDArray[Any]
    table: EventTable
    begins: NDArray[Any]
    payload: memoryview
    block_ns: int
    path: str

    def in_order(self) -> SentPiece:
        """Itself, sorted by position where it is not."""
        positions = self.positions
        if bool((positions[1:] >= positions[:-1]).all()):
            return self
        rows = np.argsort(positions, kind="stable")
        return replace(
            self, positions=positions[rows], sequences=self.sequences[rows],
            table=self.table[rows], begins=self.begins[rows],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SentRows:
    """Rows [begin, end) of a piece, which are next. also: the streams, by their position in the
    merge, in which these events stand as well: one event then, told once."""

    stream: int
    piece: SentPiece
    begin: int
    end: int
    also: tuple[int, ...] = ()


def ordered(group: Sequence[SentPiece]) -> list[SentPiece]:
    """The events of a group of blocks, by position: as they are where the pieces follow each other,
    else as one piece, which holds copies."""
    pieces = sorted(
        (piece.in_order() for piece in group if len(piece.positions)),
        key=lambda piece: int(piece.positions[0]),
    )
    if all(before.positions[-1] <= after.positions[0] for before, after in pairwise(pieces)):
        return pieces
    shifts = np.cumsum([0, *(len(piece.payload) for piece in pieces)])
    return [
        SentPiece(
            np.concatenate([piece.positions for piece in pieces]),
            np.concatenate([piece.sequences for piece in pieces]),
            np.concatenate([piece.table for piece in pieces]),
            np.concatenate([p.begins + shift for p, shift in zip(pieces, shifts, strict=False)]),
            memoryview(b"".join(piece.payload for piece in pieces)),
            pieces[0].block_ns,
            pieces[0].path,
        ).in_order()
    ]


class _Cursor:
    """Where the merge stands in one stream."""

    def __init__(self, stream: int, pieces: Iterator[SentPiece]) -> None:
        self.stream = stream
        self.row = 0
        self.piece: SentPiece | None = None
        self.position = 0
        self._pieces = pieces
        self._last = 0
        self._next_piece()

    def forward(self, row: int) -> None:
        assert self.piece is not None
        if row < len(self.piece.positions):
            self.row = row
            self.position = int(self.piece.positions[row])
        else:
            self._next_piece()

    def rows_below(self, position: int, *, including: bool) -> int:
        """The first row that is not below `position` (or not at it either)."""
        assert self.piece is not None
        positions = self.piece.positions
        if (last := int(positions[-1])) < position or (including and last == position):
            return len(positions)
        side = "right" if including else "left"
        return int(np.searchsorted(positions, np.uint64(position), side))  # type: ignore[call-overload]

    def event(self) -> tuple[int, int, int, int]:
        """What two copies of one event have in common."""
        assert self.piece is not None
        row = self.piece.table[self.row]
        return int(row["number"]), int(row["time_ns"]), int(row["run"]), int(row["size"])

    def _next_piece(self) -> None:
        for piece in self._pieces:
            if len(piece.positions) == 0:
                continue
            self.piece, self.row = piece, 0
            self.position = int(piece.positions[0])
            if self.position < self._last:
                raise FormatError(
                    f"event at position {self.position} of its session lies behind position "
                    f"{self._last}: the order of sending is not known",
                    path=piece.path,
                )
            self._last = int(piece.positions[-1])
            return
        self.piece = None


def merge(streams: Sequence[Iterator[SentPiece]]) -> Iterator[SentRows]:
    """The events of one session in the order of their positions, many rows at a time where they lie
    together. An event that stands in several streams comes once. It holds one piece a stream."""
    cursors = [
        cursor
        for position, pieces in enumerate(streams)
        if (cursor := _Cursor(position, pieces)).piece is not None
    ]
    while cursors:
        first = min(cursors, key=lambda c: c.position)
        others = [c for c in cursors if c is not first]
        piece, row = first.piece, first.row
        assert piece is not None
        if not others:
            yield SentRows(first.stream, piece, row, len(piece.positions))
            first.forward(len(piece.positions))
        else:
            ahead = min(c.position for c in others)
            if first.position < ahead:
                end = first.rows_below(ahead, including=False)
                yield SentRows(first.stream, piece, row, end)
                first.forward(end)
            else:
                same = [
                    c for c in others if c.position == first.position and c.event() == first.event()
                ]
                yield SentRows(first.stream, piece, row, row + 1, tuple(c.stream for c in same))
                first.forward(row + 1)
                for cursor in same:
                    cursor.forward(cursor.row + 1)
        cursors = [c for c in cursors if c.piece is not None]
