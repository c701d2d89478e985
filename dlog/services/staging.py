"""Staging: which part each event of a stream goes to, until a group of blocks is made of them.

It knows the parts of the stream by their ranges and how full they are (core/rotation.py decides),
keeps pieces whole, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from dlog.core.block import Fragment, FragmentEntry, number_range
from dlog.core.numbering import Latecomers, Numbering
from dlog.core.pieces import Piece, select
from dlog.core.rotation import Fill, Late, Mask, Range, Selection, fitting, full, sort_late
from dlog.core.states import FileState
from dlog.limits import (
    BLOCK_EVENTS_MAX,
    BLOCK_PIECES_MAX,
    BLOCKS_PER_FILE_MAX,
    END_PARTS_MAX,
    HEARTBEAT_MS,
    HEARTBEATS_MISSED_MAX,
    PAGE_BYTES,
    PARTS_PER_BATCH_MAX,
)
from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_BYTES, EventTable, Payload
from dlog.model.ids import FileKind
from dlog.ports import Clock
from dlog.services.parts import Part, Predecessor, SealedPart

# How long after a restart the sources may take to say HELLO: as long as a silence may last.
SOURCES_RETURN_NS: Final = HEARTBEATS_MISSED_MAX * HEARTBEAT_MS * 1_000_000


@dataclass(eq=False, slots=True)
class Slot:
    """A part, or one to be made: what a block is built for.

    ended: the range of an END part. predecessor: the part sealed by a fault that it goes on for.
    """

    kind: FileKind
    low: int = -1
    part: Part | None = None
    ended: Range | None = None
    ended_ns: int = 0
    predecessor: Predecessor | None = None
    staged_bytes: int = 0
    staged_events: int = 0

    @property
    def holds_blocks(self) -> bool:
        """Whether there is a part with more than its header page."""
        return self.part is not None and self.part.end > PAGE_BYTES


class StagedFragment(NamedTuple):
    """Events of a piece that go to one part; their lowest and highest number."""

    slot: Slot
    table: EventTable
    payload: Payload
    first_event: int
    last_event: int


class LateEvents(NamedTuple):
    """Events of a source whose range is closed, for people. boundary: the number that closed it.
    anew: they go to the current part, since the source counts anew."""

    source: str
    events: int
    lowest: int
    highest: int
    boundary: int
    anew: bool


@dataclass(slots=True)
class StagedPiece:
    """A piece on its way into the next group."""

    piece: Piece
    fragments: list[StagedFragment] = field(default_factory=list)

    def entries(self, order: dict[int, int]) -> list[tuple[Slot, Fragment]]:
        """Its fragments in the order of the blocks that they go to; the last one says so."""
        ordered = sorted(self.fragments, key=lambda f: order[id(f.slot)])
        end = len(ordered) - 1
        return [
            (
                slot,
                Fragment(
                    _entry(self.piece, table, payload, i == 0, i == end),
                    table,
                    payload,
                    first,
                    last,
                    self.piece.checksums if table is self.piece.table else None,
                ),
            )
            for i, (slot, table, payload, first, last) in enumerate(ordered)
        ]


class Staging:
    """Used by one thread at a time. `ended` is called for a part that is full and goes on taking
    late events; the caller tells the journal before anything follows from it. `told` is called for
    events that go to the garbage file (garbage), or would if their source did not count anew."""

    def __init__(
        self,
        config: StreamConfig,
        clock: Clock,
        kind: FileKind,
        *,
        low: int,
        highest: int,
        anew: Sequence[bytes] = (),
        parts: Sequence[Part],
        unmade: Sequence[tuple[int, int]] = (),
        ended: Callable[[Part, int], None],
        told: Callable[[LateEvents], None],
    ) -> None:
        self._config = config
        self._has_ranges = config.ranges and kind is FileKind.EVENTS
        self._clock = clock
        self._tell_ended = ended
        self._tell_late = told
        self.latecomers = Latecomers(anew)
        self.low = low
        self.now = Slot(kind, low=low)
        self.ends: list[Slot] = []
        # Full parts without a range, or with an empty one, until their blocks are synced.
        self.closing: list[Slot] = []
        self.garbage = Slot(FileKind.GARBAGE)
        self.pieces: list[StagedPiece] = []
        self.bytes = 0
        self.events = 0
        self.since_ns = 0
        self._adopt(parts, unmade)
        # A boundary may be committed before the events that led to it.
        self.numbering = Numbering(max(highest, self.low))
        self._ranged: tuple[EventTable, tuple[int, int]] | None = None  # of the last piece

    def _adopt(self, parts: Sequence[Part], unmade: Sequence[tuple[int, int]]) -> None:
        """The open parts that a restart settled, and the ranges that lack one."""
        opened: list[Slot] = []
        parts = sorted(parts, key=lambda p: p.key.part)
        for part in parts:
            if isinstance(part, SealedPart):
                continue
            record = part.record
            slot = Slot(part.key.kind, low=record.low, part=part)
            if part.key.kind is FileKind.GARBAGE:
                self.garbage = slot
            elif record.state is FileState.END:
                self._adopt_end(slot, record.high)
            else:
                opened.append(slot)
        # A crash between the creation of a part and the commit that ENDs the one before it leaves
        # two OPEN: the older one ends where the newer one begins.
        for older, newer in pairwise(opened):
            assert older.part is not None
            if self._has_ranges and newer.low > older.low:
                older.part.ended(newer.low)
                self._adopt_end(older, newer.low)
            else:
                self.closing.append(older)
        if opened:
            self.now = opened[-1]
        self.low = max(self.low, self.now.low)
        for part in parts:
            if isinstance(part, SealedPart):
                self._adopt_sealed(part)
        for low, high in unmade:
            if Range(low, high) not in [slot.ended for slot in self.ends]:
                self._adopt_end(Slot(FileKind.EVENTS, low=low), high)
        self.now.low = self.low

    def _adopt_sealed(self, part: SealedPart) -> None:
        """A part that names it goes on for it, so that no reader goes beyond its durable offset;
        where there is one already, nothing is left to do. Of several, each goes on for the one
        before it: the last is the one to name."""
        record = part.record
        slot = self.garbage if part.key.kind is FileKind.GARBAGE else self.now
        if part.key.kind is FileKind.EVENTS and record.high >= 0:
            mine = Range(record.low, record.high)
            known = next((slot for slot in self.ends if slot.ended == mine), None)
            slot = known or Slot(part.key.kind, low=record.low)
            if known is None:
                self._adopt_end(slot, record.high)
        if slot.part is None:
            slot.predecessor = part.predecessor

    def _adopt_end(self, slot: Slot, high: int) -> None:
        slot.ended = Range(slot.low, high)
        # Its time goes on when the sources are back: what they had sent in time is not late.
        slot.ended_ns = self._clock.monotonic_ns() + SOURCES_RETURN_NS
        self.ends.append(slot)
        self.low = max(self.low, high)

    def slots(self) -> list[Slot]:
        """All of them, in the order in which a group's blocks are numbered."""
        return [*self.ends, *self.closing, self.now, self.garbage]

    @property
    def boundary(self) -> int:
        """`low` as the journal may be told of it: not beyond a range whose part is not made yet.
        After a crash its events would be late, with no part to go to but garbage."""
        return min([self.low, *(slot.low for slot in self.ends if slot.part is None)])

    # --- taking pieces -----------------------------------------------------------------------

    @property
    def is_all_for_now(self) -> bool:
        """Whether all that is staged goes to the current part."""
        return self.events == self.now.staged_events

    def is_plain(self, piece: Piece) -> bool:
        """Whether all of it goes to the current part, as all that is staged does."""
        now = self.now
        if not self.is_all_for_now or self.is_full():
            return False
        if self._has_ranges:
            lowest, highest = self._numbers_of(piece)
            late = piece.mark.session in self.latecomers.sessions
            if (lowest <= self.low or late) and not self._is_all_anew(piece, highest):
                return False
        fits = fitting(piece.table, len(piece.payload), self.fill(now), self._config)
        return fits == len(piece.table)

    def has_room_for(self, piece: Piece) -> bool:
        """Whether the piece may go into the same group as what is staged."""
        return not self.pieces or (
            self.bytes + len(piece.payload) <= 2 * self._config.block_bytes
            and self.events + len(piece.table) <= BLOCK_EVENTS_MAX
            and len(self.pieces) < BLOCK_PIECES_MAX
        )

    def take(self, piece: Piece) -> None:
        """Stage a piece whole, in as many fragments as it has parts to go to."""
        if not self.pieces:
            self.since_ns = self._clock.monotonic_ns()
        staged = StagedPiece(piece)
        table, payload = piece.table, piece.payload
        rolled = 0
        while len(table):
            # A batch that is many parts long goes over a bounded number of them: the last one then
            # takes more than its limit.
            if rolled < PARTS_PER_BATCH_MAX and self.is_full():
                self.roll()
                rolled += 1
            table, payload = self._sort(staged, table, payload)
            if not len(table):
                break
            count = len(table)
            if rolled < PARTS_PER_BATCH_MAX:
                count = fitting(table, len(payload), self.fill(self.now), self._config)
            chosen = slice(None) if count == len(table) else slice(0, count)
            self._follow(self._stage(staged, self.now, *select(table, payload, chosen)))
            if count == len(table):
                break
            table, payload = select(table, payload, slice(count, None))
        self.pieces.append(staged)

    def take_plain(self, piece: Piece) -> None:
        """Stage a piece that `is_plain`, and nothing is looked at again."""
        if not self.pieces:
            self.since_ns = self._clock.monotonic_ns()
        staged = StagedPiece(piece)
        self._follow(self._stage(staged, self.now, piece.table, piece.payload))
        self.pieces.append(staged)

    def _sort(
        self, staged: StagedPiece, table: EventTable, payload: Payload
    ) -> tuple[EventTable, Payload]:
        """Put what is late where it belongs; what is left is on time."""
        if not self._has_ranges:
            return table, payload
        piece = staged.piece
        if table is piece.table and piece.numbers and self._is_all_anew(piece, piece.numbers[1]):
            return table, payload
        ranges = [slot.ended for slot in self.ends if slot.ended is not None]
        late = sort_late(table["number"], self.low, ranges)
        now, garbage = late.on_time, late.garbage
        if not isinstance(now, slice) and self._counts_anew(piece, table, late):
            now, garbage = _either(now, garbage), None
        for i, chosen in late.ends:
            self._stage(staged, self.ends[i], *select(table, payload, chosen))
        if garbage is not None:
            self._stage(staged, self.garbage, *select(table, payload, garbage))
        if piece.mark.session in self.latecomers.sessions:
            end = int(table["number"][-1])
            if end > self.low and self.numbering.is_near(end):
                self.latecomers.caught_up(piece.mark.session)
        return select(table, payload, slice(0, 0) if now is None else now)

    def _is_all_anew(self, piece: Piece, highest: int) -> bool:
        """Whether all of it is below the boundary, no range is open there, and its source counts
        anew: then it is as good as on time."""
        anew = highest <= self.low and not self.ends
        return anew and self.latecomers.counts_anew(piece.mark.session)

    def _counts_anew(self, piece: Piece, table: EventTable, late: Late) -> bool:
        """Whether the piece's events whose ranges are closed belong to the current part."""
        session = piece.mark.session
        before = self.latecomers.counts_anew(session)
        rows = table[table["number"] <= np.uint64(self.low)]
        closed = table[late.garbage] if late.garbage is not None else rows[:0]
        positions = rows["order"].astype(np.uint64) + np.uint64(piece.order_base)
        anew = self.latecomers.came(session, rows["number"], positions, closed["number"], self.low)
        if len(closed) and not before:
            lowest, highest = number_range(closed)
            above = [slot.low for slot in self.ends if slot.low >= highest]
            boundary = min(above, default=self.low)
            self._tell_late(LateEvents(piece.source, len(closed), lowest, highest, boundary, anew))
        return anew

    def _follow(self, fragment: StagedFragment) -> None:
        """The numbers of events that go to the current part."""
        _, table, _, first, last = fragment
        if self._has_ranges and not self.numbering.follows(first, last, len(table)):
            self.numbering.look(table["number"], last)

    def _stage(
        self, staged: StagedPiece, slot: Slot, table: EventTable, payload: Payload
    ) -> StagedFragment:
        whole = table is staged.piece.table
        first, last = self._numbers_of(staged.piece) if whole else number_range(table)
        size = len(table) * EVENT_BYTES + len(payload)
        fragment = StagedFragment(slot, table, payload, first, last)
        staged.fragments.append(fragment)
        slot.staged_bytes += size
        slot.staged_events += len(table)
        self.bytes += size
        self.events += len(table)
        return fragment

    def _numbers_of(self, piece: Piece) -> tuple[int, int]:
        """The lowest and the highest number; those of the last piece are asked for twice."""
        if piece.numbers is not None:
            return piece.numbers
        if self._ranged is None or self._ranged[0] is not piece.table:
            self._ranged = piece.table, number_range(piece.table)
        return self._ranged[1]

    def fill(self, slot: Slot) -> Fill:
        if slot.part is not None:
            return slot.part.fill(slot.staged_bytes, slot.staged_events)
        return Fill(PAGE_BYTES + slot.staged_bytes, slot.staged_events, 0, 0)

    def is_full(self) -> bool:
        return full(self.fill(self.now), self._config, BLOCKS_PER_FILE_MAX) is not None

    def roll(self) -> None:
        """The current part is full. With ranges it goes on taking late events, else it closes."""
        old = self.now
        if not self._has_ranges:
            self.closing.append(old)
            self.now = Slot(old.kind)
            return
        high = self.numbering.bound()
        if high <= self.low:
            # No number was followed: its range is empty, and nothing can be late for it.
            self.closing.append(old)
            self.now = Slot(old.kind, low=self.low)
            return
        self.low = high
        old.ended = Range(old.low, high)
        old.ended_ns = self._clock.monotonic_ns()
        self.ends.append(old)
        self.now = Slot(old.kind, low=self.low)
        if old.part is None:
            return  # it is created in END, and the boundary is committed with its events
        self._tell_ended(old.part, high)

    # --- making groups, closing parts --------------------------------------------------------

    def group(self) -> tuple[list[StagedPiece], list[tuple[Slot, list[Fragment]]]]:
        """Everything staged: the pieces, and a block's fragments for each slot in their order."""
        slots = [slot for slot in self.slots() if slot.staged_events]
        order = {id(slot): i for i, slot in enumerate(slots)}
        blocks: list[tuple[Slot, list[Fragment]]] = [(slot, []) for slot in slots]
        for staged in self.pieces:
            for slot, fragment in staged.entries(order):
                blocks[order[id(slot)]][1].append(fragment)
        pieces = self.pieces
        self.clear()
        return pieces, blocks

    def clear(self) -> None:
        """Nothing is staged any more."""
        for slot in self.slots():
            slot.staged_bytes = slot.staged_events = 0
        self.pieces = []
        self.bytes = self.events = 0

    def over(self, now_ns: int, busy: set[int]) -> list[Slot]:
        """END parts that take nothing any more, by time or number, taken out; not those with blocks
        under way (`busy`, by id)."""
        over_ns = int(self._config.late_seconds * 1e9)
        too_many = len(self.ends) - END_PARTS_MAX
        found = [
            slot
            for i, slot in enumerate(self.ends)
            if (i < too_many or now_ns - slot.ended_ns >= over_ns)
            and not slot.staged_events
            and id(slot) not in busy
        ]
        self.ends = [slot for slot in self.ends if slot not in found]
        return found

    def take_full(self, busy: set[int]) -> list[Slot]:
        """Parts that are full and have no range, taken out; not those with blocks under way."""
        waiting = [slot for slot in self.closing if slot.staged_events or id(slot) in busy]
        found = [slot for slot in self.closing if slot not in waiting]
        self.closing = waiting
        garbage = self.garbage
        if (
            garbage.part is not None
            and not garbage.staged_events
            and id(garbage) not in busy
            and full(self.fill(garbage), self._config, BLOCKS_PER_FILE_MAX)
        ):
            self.garbage = Slot(FileKind.GARBAGE)
            found.append(garbage)
        return found


def _either(one: Mask | None, other: Mask | None) -> Selection | None:
    """What one mask chooses, or the other; None chooses nothing."""
    if one is None or other is None:
        return other if one is None else one
    both = one | other
    return slice(None) if both.all() else both


def _entry(
    piece: Piece, table: EventTable, payload: Payload, first: bool, last: bool
) -> FragmentEntry:
    return FragmentEntry(
        piece.mark.session,
        piece.sequence,
        piece.order_base,
        piece.mark.run,
        piece.mark.stream,
        len(table),
        len(piece.table),
        len(payload),
        first,
        last,
        piece.orphan_reason,
    )
