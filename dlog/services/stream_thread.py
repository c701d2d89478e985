"""One stream of one run: pieces in, blocks into its parts, synced, reported to the committer.

One thread drives one `StreamWriter`. Pieces are put in groups of blocks, one block a part; a group
is what a commit may stop behind. It answers nobody: acknowledgements come from the committer.
"""

from __future__ import annotations

import enum
import logging
import queue
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import msgspec

from dlog.core.block import (
    BlockHeader,
    Fragment,
    FragmentEntry,
    Packing,
    Place,
    block_bytes_max,
    encode_block,
    moved_block,
)
from dlog.core.fate import NO_SPACE, RUN_ABORTED, STORAGE_FAILED
from dlog.core.filters import Compression, Compressor, Filter
from dlog.core.journal_records import FileRecord, OperationKind, StreamRecord
from dlog.core.pieces import Piece, select
from dlog.core.rotation import Fill, Range, Selection, fitting, full, sort_late
from dlog.core.states import FileState
from dlog.errors import DiskFull, StorageError
from dlog.limits import (
    BLOCK_EVENTS_MAX,
    BLOCK_PIECES_MAX,
    BLOCKS_PER_FILE_MAX,
    END_PARTS_MAX,
    MIB,
    PAGE_BYTES,
    SMALL_BLOCK_BYTES,
    SYNC_BYTES_MAX,
)
from dlog.model.config import StreamConfig
from dlog.model.events import EVENT_BYTES, EventTable, Payload
from dlog.model.ids import (
    NO_RUN,
    BlockNumber,
    FileKind,
    Offset,
    RunNumber,
    StreamKey,
    StreamName,
)
from dlog.ports import Buffer, Severity
from dlog.services.committer import Committer, Progress, Settlement
from dlog.services.parts import (
    Part,
    Predecessor,
    Storage,
    allot,
    put_file,
    put_stream,
)

log = logging.getLogger("dlog.stream")

RETRY_NS: Final = 200_000_000  # between two tries for space
RETRY_NS_MAX: Final = 10_000_000_000  # for a directory that goes on failing
SYNC_PATIENCE_NS: Final = 20_000_000
NEW_PART_BYTES: Final = MIB  # what a new part needs beside its first block
IDLE_SECONDS: Final = 0.2  # how often the time limits of the parts are looked at


class Ending(enum.IntEnum):
    """How a writer ends; a later one may only be a harder one."""

    NOT = 0
    SETTLE = 1  # sync and report what is there; the parts stay open for the next start
    FINISH = 2  # store all that was handed in, close every part
    ABORT = 3  # what was not yet taken up is refused; close every part


@dataclass(eq=False, slots=True)
class _Slot:
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


@dataclass(slots=True)
class _Staged:
    """A piece on its way into the next group."""

    piece: Piece
    fragments: list[tuple[_Slot, EventTable, Payload]] = field(default_factory=list)


@dataclass(slots=True)
class _Block:
    """An encoded block that is not synced yet; its number never changes."""

    slot: _Slot
    header: BlockHeader
    buffer: Buffer
    payload_bytes: int
    written: bool = False


class StreamWriter:
    """`offer`, `end`, `seal` and `nudge` are for any thread, `step` for the stream's own."""

    def __init__(
        self,
        storage: Storage,
        committer: Committer,
        config: StreamConfig,
        stream: StreamRecord,
        parts: Sequence[Part],
        *,
        run_started_ns: int,
        streams: tuple[str, ...],
        finished: Callable[[StreamKey], None],
        ready: Callable[[StreamKey, str], None],
    ) -> None:
        self.key = StreamKey(RunNumber(stream.run), StreamName(stream.stream))
        self._storage = storage
        self._clock = storage.clock
        self._committer = committer
        self._config = config
        self._run_started_ns = run_started_ns
        self._streams = streams
        self._finished = finished
        self._ready = ready
        self._inbox: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._intake: deque[Piece] = deque()
        self.ending = Ending.NOT
        self.over = False
        self._seal_wanted = False
        self._offered = 0  # events; written by who offers
        self._settled = 0  # events; written by this thread
        # As of the last sync; working numbers run ahead of it.
        self._stream = stream
        self._next_block = stream.next_block
        self._highest = stream.highest_event
        self._low = stream.low
        kind = FileKind.ORPHAN if self.key.run == NO_RUN else FileKind.EVENTS
        self._now = _Slot(kind, low=stream.low)
        self._ends: list[_Slot] = []
        self._closing: list[_Slot] = []  # full parts without ranges, until their blocks are synced
        self._garbage = _Slot(FileKind.GARBAGE)
        self._adopt(parts)
        self._staged: list[_Staged] = []
        self._staged_bytes = 0
        self._staged_events = 0
        self._staged_since_ns = 0
        self._blocks: list[_Block] = []
        self._settlements: list[Settlement] = []
        self._first_unsynced = self._next_block
        self._received_ns = 0
        self._retry_ns = 0
        self._tries = 0
        self.stalled = ""  # why nothing can be written now
        compression = Compression[config.compression.upper()]
        self._packing = Packing(
            Filter[config.filter.upper()] if compression else Filter.NONE,
            config.element_bytes,
            Compressor(config.compression_level) if compression else None,
        )

    def _adopt(self, parts: Sequence[Part]) -> None:
        """The open parts that a restart settled."""
        opened: list[_Slot] = []
        for part in sorted(parts, key=lambda p: p.key.part):
            record = part.record
            slot = _Slot(part.key.kind, low=record.low, part=part)
            if part.key.kind is FileKind.GARBAGE:
                self._garbage = slot
            elif record.state is FileState.END:
                self._adopt_end(slot, record.high)
            else:
                opened.append(slot)
        # A crash between the creation of a part and the commit that ENDs the one before it leaves
        # two OPEN: the older one ends where the newer one begins.
        for older, newer in pairwise(opened):
            assert older.part is not None
            if self._config.ranges and older.kind is FileKind.EVENTS:
                older.part.ended(newer.low)
                self._adopt_end(older, newer.low)
            else:
                self._closing.append(older)
        if opened:
            self._now = opened[-1]
        self._low = max(self._low, self._now.low)
        self._now.low = self._low

    def _adopt_end(self, slot: _Slot, high: int) -> None:
        slot.ended = Range(slot.low, high)
        slot.ended_ns = self._clock.monotonic_ns()
        self._ends.append(slot)
        self._low = max(self._low, high)

    # --- from any thread ---------------------------------------------------------------------

    def offer(self, piece: Piece) -> None:
        """Take a piece; bounded by the windows of the sources. From one thread alone."""
        self._offered += len(piece.table)
        self._inbox.put(piece)

    def end(self, how: Ending) -> None:
        self.ending = max(self.ending, how)
        self._inbox.put(None)

    def nudge(self) -> None:
        """Space may be back: try now."""
        self._retry_ns = 0
        self._inbox.put(None)

    def seal(self) -> None:
        """Close the current part once what was handed in is stored; another opens when needed."""
        self._seal_wanted = True
        self._inbox.put(None)

    @property
    def pending(self) -> int:
        """Events in memory that are not handed to the committer yet; a moment's view."""
        return max(0, self._offered - self._settled)

    def file_records(self) -> list[FileRecord]:
        """The open parts, for status; a moment's view from another thread."""
        slots = [*self._ends, *self._closing, self._now, self._garbage]
        return [s.part.record for s in slots if s.part is not None]

    # --- the stream's thread -----------------------------------------------------------------

    def run(self) -> None:
        """Open the first part, then until the end. Raises what makes the logger fail."""
        self.start()
        while not self.over:
            self.step(block=True)

    def start(self) -> None:
        """Make the first part, so that a stream that cannot be written is known at START RUN."""
        problem = ""
        if self._now.part is None and self._now.kind is FileKind.EVENTS:
            try:
                self._open(self._now)
            except StorageError as error:
                problem = str(error)
        self._ready(self.key, problem)

    def step(self, *, block: bool = False) -> None:
        """Take what has come, write what is ready, report what is synced."""
        self._fetch(block)
        now_ns = self._clock.monotonic_ns()
        if self._blocks and not self._store():
            self._give_up_if_ending()
            return
        if self.ending is Ending.ABORT:
            self._refuse_intake(RUN_ABORTED)
        while self._intake:
            self._take(self._intake.popleft())
            if self._group_is_full() and not self._flush():
                self._give_up_if_ending()
                return
        self._look_at_time(now_ns)
        if self._staged and (self.ending or self._group_is_due(now_ns)) and not self._flush():
            self._give_up_if_ending()
            return
        if (self._inbox.empty() or self._sync_is_due(now_ns)) and not self._sync():
            self._give_up_if_ending()
            return
        if self.ending and not self._intake and not self._staged and self._inbox.empty():
            self._end()

    def _fetch(self, block: bool) -> None:
        """Everything that has come; wait for it where there is nothing else to do."""
        wait = block and not self._intake and not (self.ending and not self.stalled)
        try:
            item = self._inbox.get(timeout=self._patience()) if wait else self._inbox.get_nowait()
        except queue.Empty:
            return
        size = 0
        while True:
            if item is not None:
                self._intake.append(item)
                size += len(item.payload)
                # A group at a time, so that a fast source does not keep us from writing.
                if size >= self._config.block_bytes and not self.stalled:
                    return
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _patience(self) -> float:
        if self.stalled:
            return IDLE_SECONDS
        if self._staged:
            due_ns = self._staged_since_ns + self._config.flush_interval_ms * 1_000_000
            return max(0.0, min(IDLE_SECONDS, (due_ns - self._clock.monotonic_ns()) / 1e9))
        return IDLE_SECONDS

    def _group_is_full(self) -> bool:
        return self._staged_bytes >= self._config.block_bytes

    def _group_is_due(self, now_ns: int) -> bool:
        if self._staged_bytes >= SMALL_BLOCK_BYTES:
            return True
        return now_ns - self._staged_since_ns >= self._config.flush_interval_ms * 1_000_000

    def _sync_is_due(self, now_ns: int) -> bool:
        """What is written waits for more no longer than it waited to be written."""
        patience_ns = max(SYNC_PATIENCE_NS, self._config.flush_interval_ms * 1_000_000)
        return self._received_ns > 0 and now_ns - self._received_ns > patience_ns

    # --- where events go ---------------------------------------------------------------------

    def _take(self, piece: Piece) -> None:
        """Stage a piece whole, in as many fragments as it has parts to go to."""
        if self._staged and (
            self._staged_bytes + len(piece.payload) > 2 * self._config.block_bytes
            or self._staged_events + len(piece.table) > BLOCK_EVENTS_MAX
            or len(self._staged) >= BLOCK_PIECES_MAX
        ):
            # A failure is found again by the caller: the group stays staged or in `_blocks`.
            self._flush()
        if not self._staged:
            self._staged_since_ns = self._clock.monotonic_ns()
        staged = _Staged(piece)
        table, payload = piece.table, piece.payload
        rolled = 0
        while len(table):
            # A batch that is many parts long goes over a bounded number of them: the last one then
            # takes more than its limit.
            if rolled < END_PARTS_MAX and self._is_full():
                self._roll()
                rolled += 1
            table, payload = self._sort(staged, table, payload)
            if not len(table):
                break
            count = len(table)
            if rolled < END_PARTS_MAX:
                count = fitting(table, self._fill(self._now), self._config)
            chosen = slice(None) if count == len(table) else slice(0, count)
            self._stage(staged, self._now, *select(table, payload, chosen))
            self._highest = max(self._highest, int(table["number"][:count].max()))
            table, payload = select(table, payload, slice(count, None))
        self._staged.append(staged)

    def _sort(
        self, staged: _Staged, table: EventTable, payload: Payload
    ) -> tuple[EventTable, Payload]:
        """Put what is late where it belongs; what is left is on time."""
        if not self._config.ranges or self._now.kind is FileKind.ORPHAN:
            return table, payload
        ranges = [slot.ended for slot in self._ends if slot.ended is not None]
        late = sort_late(table["number"], self._low, ranges)
        for i, chosen in late.ends:
            self._stage(staged, self._ends[i], *select(table, payload, chosen))
        if late.garbage is not None:
            self._stage(staged, self._garbage, *select(table, payload, late.garbage))
        on_time: Selection = late.on_time if late.on_time is not None else slice(0, 0)
        return select(table, payload, on_time)

    def _stage(self, staged: _Staged, slot: _Slot, table: EventTable, payload: Payload) -> None:
        size = len(table) * EVENT_BYTES + len(payload)
        staged.fragments.append((slot, table, payload))
        slot.staged_bytes += size
        slot.staged_events += len(table)
        self._staged_bytes += size
        self._staged_events += len(table)

    def _fill(self, slot: _Slot) -> Fill:
        if slot.part is not None:
            return slot.part.fill(slot.staged_bytes, slot.staged_events)
        return Fill(PAGE_BYTES + slot.staged_bytes, slot.staged_events, 0, 0)

    def _is_full(self) -> bool:
        return full(self._fill(self._now), self._config, BLOCKS_PER_FILE_MAX) is not None

    def _roll(self) -> None:
        """The current part is full. With ranges it goes on taking late events, else it closes."""
        old = self._now
        if old.kind is FileKind.ORPHAN or not self._config.ranges:
            self._closing.append(old)
            self._now = _Slot(old.kind)
            return
        self._low = self._highest
        old.ended = Range(old.low, self._highest)
        old.ended_ns = self._clock.monotonic_ns()
        self._ends.append(old)
        self._now = _Slot(old.kind, low=self._low)
        if old.part is None:
            # It is created in END, and the boundary is committed with its events: were it earlier,
            # a crash would leave events below the boundary with no part to go to but garbage.
            return
        old.part.ended(self._highest)
        self._stream = msgspec.structs.replace(self._stream, low=self._low)
        number, announced = self._storage.operations.announce(
            OperationKind.END, old.part.record.path, f"at event {self._highest}"
        )
        self._storage.commits.submit(
            [announced, put_file(old.part.record), put_stream(self._stream)]
        )
        self._storage.commits.submit(self._storage.operations.done(number))

    # --- from staged pieces to blocks --------------------------------------------------------

    def _flush(self) -> bool:
        """Make a group of what is staged and write it. False where nothing can be written now."""
        if self._staged:
            self._encode_group()
        if not self._store():
            return False
        if sum(b.header.block_bytes for b in self._blocks) >= SYNC_BYTES_MAX:
            return self._sync()
        return True

    def _encode_group(self) -> None:
        """One block a slot, numbered in the order of the slots; the last one ends the group."""
        slots = [s for s in self._slots() if s.staged_events]
        order = {id(slot): i for i, slot in enumerate(slots)}
        fragments: list[list[Fragment]] = [[] for _ in slots]
        for staged in self._staged:
            pieces = sorted(staged.fragments, key=lambda f: order[id(f[0])])
            for i, (slot, table, payload) in enumerate(pieces):
                entry = _entry(staged.piece, table, payload, i == 0, i == len(pieces) - 1)
                fragments[order[id(slot)]].append(Fragment(entry, table, payload))
            self._settlements.append(self._settlement(staged))
        for slot, content in zip(slots, fragments, strict=True):
            self._blocks.append(self._encode(slot, content, group_end=slot is slots[-1]))
            slot.staged_bytes = slot.staged_events = 0
        if not self._received_ns:
            self._received_ns = self._staged_since_ns
        self._staged.clear()
        self._staged_bytes = self._staged_events = 0

    def _encode(self, slot: _Slot, fragments: list[Fragment], *, group_end: bool) -> _Block:
        events = sum(f.entry.events for f in fragments)
        payload_bytes = sum(f.entry.payload_bytes for f in fragments)
        buffer = self._storage.buffers.take(block_bytes_max(len(fragments), events, payload_bytes))
        number = BlockNumber(self._next_block)
        self._next_block += 1
        # Where it goes is put into the header when it is written: its part may not exist yet.
        nowhere = Place(Offset(0), number, self._storage.boot, bytes(16), 0)
        header = encode_block(
            fragments,
            buffer.view,
            nowhere,
            self._packing,
            group_end=group_end,
            time_ns=self._clock.wall_ns(),
        )
        return _Block(slot, header, buffer, payload_bytes)

    def _settlement(self, staged: _Staged) -> Settlement:
        piece = staged.piece
        events = len(piece.table)
        garbage = sum(len(t) for slot, t, _ in staged.fragments if slot.kind is FileKind.GARBAGE)
        orphan = events if self._now.kind is FileKind.ORPHAN else 0
        return Settlement(
            piece.mark.session,
            piece.sequence,
            piece.shares,
            piece.message_bytes,
            piece.source,
            piece.mark,
            *self._counted_as(),
            stored=events - garbage - orphan,
            garbage=garbage,
            orphan=orphan,
            payload_bytes=len(piece.payload),
        )

    def _counted_as(self) -> tuple[RunNumber, StreamName]:
        return self.key.run, self.key.stream

    # --- from blocks to the disk -------------------------------------------------------------

    def _slots(self) -> list[_Slot]:
        """All of them, in the order in which a group's blocks are numbered."""
        return [*self._ends, *self._closing, self._now, self._garbage]

    def _store(self) -> bool:
        """Write every block that is not written. False (and stalled) where that cannot be now."""
        if self.stalled and self._clock.monotonic_ns() < self._retry_ns:
            return False
        failures = 0
        while (block := next((b for b in self._blocks if not b.written), None)) is not None:
            try:
                self._make_room(block.slot, block.header.block_bytes)
            except DiskFull as error:
                failures += 1
                if failures >= self._directories():
                    return self._stall(NO_SPACE, error)
                self._leave_directory(block.slot)
                continue
            except StorageError as error:
                failures += 1
                self._fault(block.slot, error)
                if failures > self._directories():
                    return self._stall(STORAGE_FAILED, error)
                continue
            try:
                self._write(block)
            except StorageError as error:
                failures += 1
                self._fault(block.slot, error)
                if failures > self._directories():
                    return self._stall(STORAGE_FAILED, error)
        if self.stalled:
            log.warning("%s: writing again", self.key)
            self._storage.alarms.clear_alarm(f"stalled {self.key}")
            self.stalled = ""
            self._tries = 0
        return True

    def _make_room(self, slot: _Slot, block_bytes: int) -> None:
        """A part with space reserved for the block and the footer behind it."""
        if slot.part is None:
            self._refuse_without_space(block_bytes)
            self._open(slot)
        assert slot.part is not None
        end = slot.part.needs_reservation(block_bytes)
        if end is not None:
            slot.part.reserve(end, use_ballast=bool(self.ending))

    def _refuse_without_space(self, block_bytes: int) -> None:
        """No file is begun that could not take the block: each try would leave one behind."""
        directory = self._storage.directories[self._stream.directory]
        if directory.space().free < block_bytes + NEW_PART_BYTES:
            raise DiskFull("no space left for a new part", path=directory.name)

    def _open(self, slot: _Slot) -> None:
        key, self._stream = allot(self._stream, slot.kind)
        ended = slot.ended
        slot.part = Part.create(
            self._storage,
            self._config,
            key,
            self._stream,
            run_started_ns=self._run_started_ns,
            streams=self._streams,
            low=slot.low,
            high=ended.high if ended else -1,
            state=FileState.END if ended else FileState.OPEN,
            predecessor=slot.predecessor,
            use_ballast=bool(self.ending),
        )

    def _write(self, block: _Block) -> None:
        part = block.slot.part
        assert part is not None
        block.header = moved_block(block.buffer.view, block.header, part.place(block.header.number))
        part.write(block.header, block.buffer.view, block.payload_bytes)
        block.written = True

    def _directories(self) -> int:
        return len(self._config.directories or self._storage.directories)

    def _next_directory(self) -> None:
        order = self._config.directories or tuple(range(len(self._storage.directories)))
        here = order.index(self._stream.directory) if self._stream.directory in order else -1
        self._stream = msgspec.structs.replace(
            self._stream, directory=order[(here + 1) % len(order)]
        )

    def _leave_directory(self, slot: _Slot) -> None:
        """No space here: the blocks of the slot go to a part in the next directory.

        Where some are written and not synced in the old part, they are written again in the new
        one, and so the old one is sealed like after a fault; else it is closed as any other.
        """
        if slot.part is not None and slot.part.dirty:
            self._seal(slot, "no space left in its directory")
        elif slot.part is not None:
            self._close(slot)
        self._next_directory()

    def _fault(self, slot: _Slot, error: StorageError) -> None:
        """Contract 8: the part is sealed at its durable offset, its blocks go to a new one."""
        self._storage.alarms.raise_alarm(f"storage {self.key}", Severity.ERROR, str(error))
        log.error("%s: %s", self.key, error)
        if slot.part is not None:
            self._seal(slot, str(error))
        self._next_directory()

    def _seal(self, slot: _Slot, reason: str) -> None:
        assert slot.part is not None
        slot.predecessor = slot.part.seal_by_fault(reason, use_ballast=bool(self.ending))
        slot.part = None
        for block in self._blocks:
            if block.slot is slot:
                block.written = False

    def _stall(self, why: str, error: StorageError) -> bool:
        self._tries += 1
        wait_ns = RETRY_NS if why == NO_SPACE else min(RETRY_NS << self._tries, RETRY_NS_MAX)
        self._retry_ns = self._clock.monotonic_ns() + wait_ns
        if not self.stalled:
            log.error("%s: nothing can be written: %s", self.key, error)
            self._storage.alarms.raise_alarm(f"stalled {self.key}", Severity.ERROR, str(error))
        self.stalled = why
        return False

    def _sync(self) -> bool:
        """fdatasync what was written, and tell the committer. False where that cannot be now."""
        while True:
            failed = self._sync_parts()
            if failed is None:
                break
            self._fault(*failed)
            if not self._store():
                return False
        if self._blocks or self._settlements:
            self._report()
        self._close_full()
        return True

    def _sync_parts(self) -> tuple[_Slot, StorageError] | None:
        for slot in {id(b.slot): b.slot for b in self._blocks}.values():
            if slot.part is not None and slot.part.dirty:
                try:
                    slot.part.sync()
                except StorageError as error:
                    return slot, error
        return None

    def _report(self) -> None:
        """Everything in `_blocks` is durable: what the next commit may tell."""
        touched = {id(b.slot): b.slot for b in self._blocks}.values()
        self._stream = msgspec.structs.replace(
            self._stream, next_block=self._next_block, highest_event=self._highest, low=self._low
        )
        self._committer.progress(
            Progress(
                self._stream,
                tuple(slot.part.record for slot in touched if slot.part is not None),
                tuple(self._settlements),
                self._first_unsynced,
                self._next_block - 1,
                self._received_ns,
            )
        )
        self._first_unsynced = self._next_block
        self._received_ns = 0
        self._settled += sum(s.events for s in self._settlements)
        self._settlements.clear()
        for block in self._blocks:
            block.buffer.release()
        self._blocks.clear()

    # --- time, and the end -------------------------------------------------------------------

    def _look_at_time(self, now_ns: int) -> None:
        if self._is_full() or (self._seal_wanted and self._inbox.empty()):
            if self._fill(self._now).events:
                self._roll()
            self._seal_wanted = False
        over_ns = int(self._config.late_seconds * 1e9)
        unsynced = {id(b.slot) for b in self._blocks}
        too_many = len(self._ends) - END_PARTS_MAX
        for i, slot in enumerate(list(self._ends)):
            over = i < too_many or now_ns - slot.ended_ns >= over_ns
            if over and not slot.staged_events and id(slot) not in unsynced:
                self._ends.remove(slot)
                self._close(slot)

    def _close_full(self) -> None:
        """Parts that take nothing any more, once all of theirs is synced and reported."""
        done = [s for s in self._closing if not s.staged_events]
        for slot in done:
            self._closing.remove(slot)
            self._close(slot)
        garbage = self._garbage
        if (
            garbage.part is not None
            and not garbage.staged_events
            and full(self._fill(garbage), self._config, BLOCKS_PER_FILE_MAX)
        ):
            self._garbage = _Slot(FileKind.GARBAGE)
            self._close(garbage)

    def _close(self, slot: _Slot) -> None:
        """A part that cannot be sealed stays in ERROR at its durable offset; the next start tries
        again. Ending a run always succeeds."""
        part = slot.part
        if part is None:
            return
        slot.part = None
        ballast = bool(self.ending)
        try:
            if part.dirty:
                part.seal_by_fault(
                    "ended with blocks that could not be stored", use_ballast=ballast
                )
            else:
                part.close(use_ballast=ballast)
        except StorageError as error:
            log.error("%s: %s", self.key, error)
            self._storage.alarms.raise_alarm(f"close {part.key}", Severity.ERROR, str(error))

    def _give_up_if_ending(self) -> None:
        """Ending while nothing can be written: what is not stored is refused, with its reason."""
        if self.ending in (Ending.NOT, Ending.SETTLE):
            if self.ending is Ending.SETTLE:
                self._end()
            return
        for settlement in self._settlements:
            self._committer.settle(refused(settlement, self.stalled))
        for staged in self._staged:
            self._committer.settle(refused(self._settlement(staged), self.stalled))
        self._settlements.clear()
        self._staged.clear()
        for block in self._blocks:
            block.buffer.release()
        self._blocks.clear()
        for slot in self._slots():
            slot.staged_bytes = slot.staged_events = 0
        self._refuse_intake(self.stalled)
        self._end()

    def _refuse_intake(self, reason: str) -> None:
        while self._intake:
            piece = self._intake.popleft()
            self._committer.settle(refused(self._settlement(_Staged(piece)), reason))

    def _end(self) -> None:
        for slot in self._slots():
            if self.ending is Ending.SETTLE:
                if slot.part is not None:
                    slot.part.let_go()
            else:
                self._close(slot)
        self.over = True
        self._finished(self.key)


def refused(settlement: Settlement, reason: str) -> Settlement:
    """The same piece, settled by refusal."""
    return replace(
        settlement,
        stored=0,
        garbage=0,
        orphan=0,
        payload_bytes=0,
        refused=settlement.events,
        reason=reason,
    )


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
