"""One stream of one run: pieces in, groups of blocks out, by the clock and by what is waiting.

A `StreamWriter` has a thread of its own for all that may wait. What does not is done by who brings
it, where it is nobody's turn: a piece as far as a sync that is begun, and what follows from a sync
that is over (docs/decisions/0014). It answers nobody: acknowledgements come from the committer.
Which part an event goes to is services/staging.py, blocks and disk are services/block_store.py.
"""

from __future__ import annotations

import enum
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from dlog.core.fate import REFUSED_AT_END, RUN_ABORTED, Stall
from dlog.core.journal_records import FileRecord, StreamRecord
from dlog.core.pieces import Piece
from dlog.limits import MIB, SMALL_BLOCK_BYTES, SYNC_BYTES_MAX
from dlog.model.config import StreamConfig
from dlog.model.ids import NO_RUN, FileKind, RunNumber, StreamKey, StreamName
from dlog.ports import Severity
from dlog.quantities import events
from dlog.services.block_store import BlockStore
from dlog.services.committer import Committer, Settlement
from dlog.services.parts import Part, Storage
from dlog.services.staging import LateEvents, StagedPiece, Staging

log = logging.getLogger("dlog.stream")

SYNC_PATIENCE_NS: Final = 20_000_000
SYNCS_MAX: Final = 2  # under way at once
SMALL_SYNC_BYTES: Final = 2 * MIB
IDLE_SECONDS: Final = 0.2  # how often the time limits of the parts are looked at
NAMES_NS: Final = 1_000_000_000  # and how often the names of some of their files
NAMES_AT_ONCE: Final = 4


class Ending(enum.IntEnum):
    """How a writer ends; a later one may only be a harder one."""

    NOT = 0
    SETTLE = 1  # sync and report what is there; the parts stay open for the next start
    FINISH = 2  # store all that was handed in, close every part
    ABORT = 3  # what was not yet taken up is refused; close every part
    DISCARD = 4  # nothing was ever handed in: the run could not be started; remove every part


class StreamWriter:
    """`step` is for the stream's own thread; `offer`, `end`, `seal`, `give_back`, `nudge` for any.

    turn: held by who works on the stream now, whichever thread that is.
    """

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
        self._clock = storage.clock
        self._alarms = storage.alarms
        self._committer = committer
        self._config = config
        self._finished = finished
        self._ready = ready
        self.turn = threading.Lock()
        self._turn_wanted = False  # by its own thread
        self._inbox: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        self._intake: deque[Piece] = deque()
        self._queued = 0  # pieces that were put into the inbox; written by who offers
        self._unqueued = 0  # of these, what left the intake
        # What somebody met in his turn and nobody foresaw: the stream stands somewhere in between,
        # and nobody may go on with it, while the logger ends.
        self._broken: BaseException | None = None
        self.ending = Ending.NOT
        self.over = False
        self._seal_wanted = False
        self._give_back_wanted = False
        self._offered_before = -1  # at the last call of `give_back`
        self._offered = 0  # events; written by who offers
        self._refused = 0  # events
        self._offered_bytes = 0
        self._taken_bytes = 0  # of pieces that were made into blocks, or refused
        self._interval_ns = config.flush_interval_ms * 1_000_000
        self._small_ns = self._clock.monotonic_ns() - self._interval_ns  # the last small block
        self._names_ns = self._clock.monotonic_ns() + NAMES_NS
        self._names_at = 0  # the next slot whose file is looked at
        self._store = BlockStore(
            storage,
            committer,
            config,
            stream,
            run_started_ns=run_started_ns,
            streams=streams,
            sync_over=self._sync_over,
            boundary=lambda: self._staging.boundary,
        )
        for part in parts:
            part.use(self._store.storage)
        self._staging = Staging(
            config,
            storage.clock,
            FileKind.ORPHAN if self.key.run == NO_RUN else FileKind.EVENTS,
            low=stream.low,
            highest=stream.highest_event,
            anew=stream.anew,
            parts=parts,
            unmade=stream.unmade,
            ended=self._store.ended,
            told=self._tell_late,
        )

    # --- from any thread ---------------------------------------------------------------------

    def offer(self, piece: Piece) -> None:
        """Take a piece; bounded by the windows of the sources. From one thread alone, which does
        at once what needs no waiting: to wake the stream's own would take longer."""
        self._offered += len(piece.table)
        self._offered_bytes += _bytes_of(piece)
        if self._try_turn():
            try:
                if self._take_at_once(piece):
                    return
            except BaseException as error:
                self._broken = error
                raise
            finally:
                self.turn.release()
        self._queued += 1
        self._inbox.put(piece)

    def end(self, how: Ending) -> None:
        self.ending = max(self.ending, how)
        self.use_ballast()
        self._inbox.put(None)

    def use_ballast(self) -> None:
        """Whatever its thread commits and waits for is needed to end the run: so is what it waits
        for now."""
        self._store.journal_full = self._committer.full_since_ns is not None
        self._store.ending = True
        self._committer.submit([], use_ballast=True)

    def nudge(self) -> None:
        """Space may be back: try now."""
        self._store.nudge()
        self._inbox.put(None)

    def seal(self) -> None:
        """Close the current part once what was handed in is stored; another opens when needed."""
        self._seal_wanted = True
        self._inbox.put(None)

    def give_back(self) -> None:
        """Space is short: if nothing has come since the last call, what is reserved ahead goes."""
        if self._offered == self._offered_before and not self.ending:
            self._give_back_wanted = True
            self._inbox.put(None)
        self._offered_before = self._offered

    def _sync_over(self) -> None:
        """A sync of the stream is over; called by the thread that synced."""
        if self._try_turn():
            try:
                if self._follow_syncs():
                    return
            except Exception as error:  # noqa: BLE001 - its own thread raises it
                self._broken = error
            finally:
                self.turn.release()
        self._inbox.put(None)

    @property
    def pending(self) -> int:
        """Events in memory that are not handed to the committer yet; a moment's view."""
        return max(0, self._offered - self._store.settled - self._refused)

    @property
    def held_bytes(self) -> int:
        """What of the sources' messages is in memory here; a moment's view."""
        return max(0, self._offered_bytes - self._taken_bytes) + self._store.bytes

    def file_records(self) -> list[FileRecord]:
        """The open parts, for status; a moment's view from another thread."""
        parts = [slot.part for slot in self._staging.slots()]
        return [part.record for part in parts if part is not None]

    @property
    def stalled(self) -> Stall | None:
        """Why nothing can be written now, None where it can."""
        return self._store.stalled

    # --- in a turn that never waits ----------------------------------------------------------

    def _try_turn(self) -> bool:
        return not self._turn_wanted and self.turn.acquire(blocking=False)

    def _take_at_once(self, piece: Piece) -> bool:
        """Take the piece as far as that goes without waiting; False where its thread must do it."""
        staging = self._staging
        if self._queued != self._unqueued or not self._is_plain() or not staging.is_plain(piece):
            return False
        if not staging.has_room_for(piece) or not self._store.has_room(
            staging.now.part, len(staging.pieces) + 1, staging.bytes + _bytes_of(piece)
        ):
            return False
        staging.take_plain(piece)
        self._go_on()
        if staging.pieces and not self._store.syncs:
            self._inbox.put(None)  # its thread knows when its time has come
        return True

    def _follow_syncs(self) -> bool:
        """Tell of the syncs that are over, and begin the next one; False where that is more."""
        store, staging = self._store, self._staging
        if not self._is_plain():
            return False
        while store.sync_is_over():
            if store.sync_has_failed():
                return False
            store.end_sync()
        if staging.closing or not staging.is_all_for_now:
            return False
        if not store.has_room(staging.now.part, len(staging.pieces), staging.bytes):
            return False
        self._go_on()
        return not staging.pieces or store.syncs > 0

    def _is_plain(self) -> bool:
        """Whether nothing is going on but events that come and are stored as they are."""
        return not (
            self.ending
            or self._seal_wanted
            or self._broken
            or self._store.stalled
            or self._store.compresses
        )

    def _go_on(self) -> None:
        """Make a group of what is staged, where it can be synced now or is a whole block; and begin
        a sync. Where something is in the way, its thread meets it again."""
        store, staging = self._store, self._staging
        if self._group_is_full() or (
            staging.pieces
            and self._next_sync_is_due()
            and self._group_is_due(self._clock.monotonic_ns())
        ):
            self._make_group()
            if not store.try_store():
                self._inbox.put(None)
                return
        if self._next_sync_is_due():
            store.begin_sync()

    def _next_sync_is_due(self) -> bool:
        """Whether one more may begin: also while another one is under way, if that is small, and
        the disk has time, or if there is much for this one."""
        store = self._store
        return store.syncs < SYNCS_MAX and (
            store.syncing_bytes <= SMALL_SYNC_BYTES or store.unsynced_bytes >= SYNC_BYTES_MAX
        )

    # --- the stream's thread -----------------------------------------------------------------

    def run(self) -> None:
        """Open the first part, then until the end. Raises what makes the logger fail."""
        try:
            self.start()
            while not self.over:
                self.step(block=True)
        except BaseException as error:
            self._broken = error
            raise

    def start(self) -> None:
        """Make the first part, so that a stream that cannot be written is known at START RUN."""
        problem = ""
        now = self._staging.now
        if now.part is None and now.kind is FileKind.EVENTS and not self._store.doubtful:
            with self.turn:
                problem = self._store.open_first(now)
        self._ready(self.key, problem)

    def step(self, *, block: bool = False) -> None:
        """Take what has come, write what is ready, report what is synced."""
        fresh = self._fetch(block)
        self._turn_wanted = True
        with self.turn:
            self._turn_wanted = False
            self._intake += fresh
            if self._broken is not None:
                raise self._broken
            try:
                if not self._work():
                    self._give_up_if_ending()
                elif self.ending and self._is_idle():
                    self._end()
            except BaseException as error:
                self._broken = error
                raise

    def _work(self) -> bool:
        """False where nothing can be written now."""
        now_ns = self._clock.monotonic_ns()
        self._look_at_names(now_ns)
        if self._store.sync_is_over() and not self._end_sync():
            return False
        if self._store.pending and not self._store.store():
            self._store.begin_sync()  # what is whole does not wait for what finds no space
            return False
        if self.ending is Ending.ABORT and self._intake:
            # What was taken up goes first: a watermark says that all below it is settled.
            if not (self._flush() and self._sync()):
                return False
            self._refuse_intake(RUN_ABORTED)
        while self._intake:
            if not self._staging.has_room_for(self._intake[0]) and not self._flush():
                return False
            self._staging.take(self._next_piece())
            if self._group_is_full() and not self._flush():
                return False
        self._look_at_time(now_ns)
        due = self.ending or self._group_is_due(now_ns)
        if self._staging.pieces and due and not self._flush():
            return False
        if self._inbox.empty() or self._sync_is_due(now_ns):
            return self._sync()
        return True

    def _is_idle(self) -> bool:
        waiting = self._intake or self._staging.pieces or self._store.pending
        return not waiting and self._inbox.empty()

    def _next_piece(self) -> Piece:
        self._unqueued += 1
        return self._intake.popleft()

    def _fetch(self, block: bool) -> list[Piece]:
        """Everything that has come; wait for it where there is nothing else to do."""
        fresh: list[Piece] = []
        # While nothing can be written, what is taken in waits too: it must not keep us running.
        wait = block and (bool(self.stalled) or not (self._intake or self.ending))
        try:
            item = self._inbox.get(timeout=self._patience()) if wait else self._inbox.get_nowait()
        except queue.Empty:
            return fresh
        size = 0
        while True:
            if item is not None:
                fresh.append(item)
                size += len(item.payload)
                # A group at a time, so that a fast source does not keep us from writing.
                if size >= self._config.block_bytes and not self.stalled:
                    return fresh
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return fresh

    def _patience(self) -> float:
        if self.stalled:
            return IDLE_SECONDS
        if self._staging.pieces:
            wait_ns = self._group_due_ns() - self._clock.monotonic_ns()
            return max(0.0, min(IDLE_SECONDS, wait_ns / 1e9))
        return IDLE_SECONDS

    def _group_is_full(self) -> bool:
        return self._staging.bytes >= self._config.block_bytes

    def _group_is_due(self, now_ns: int) -> bool:
        return self._staging.bytes >= SMALL_BLOCK_BYTES or now_ns >= self._group_due_ns()

    def _group_due_ns(self) -> int:
        """Small blocks come one flush interval after the other, or sooner by as much as they are
        larger: so the first one of a quiet time waits for nothing."""
        missing = max(0, SMALL_BLOCK_BYTES - self._staging.bytes)
        return self._small_ns + self._interval_ns * missing // SMALL_BLOCK_BYTES

    def _sync_is_due(self, now_ns: int) -> bool:
        """What is written waits for more no longer than it waited to be written."""
        patience_ns = max(SYNC_PATIENCE_NS, self._interval_ns)
        return self._store.received_ns > 0 and now_ns - self._store.received_ns > patience_ns

    # --- groups ------------------------------------------------------------------------------

    def _flush(self) -> bool:
        """Make a group of what is staged and write it. False where nothing can be written now."""
        self._make_group()
        if not self._store.store():
            return False
        if self._store.unsynced_bytes < SYNC_BYTES_MAX:
            return True
        # The next one writes while this one syncs.
        if self._store.syncs >= SYNCS_MAX and not self._end_sync():
            return False
        self._store.begin_sync()
        return True

    def _make_group(self) -> None:
        if self._staging.pieces:
            since_ns = self._staging.since_ns
            if self._staging.bytes < SMALL_BLOCK_BYTES:
                self._small_ns = self._clock.monotonic_ns()
            pieces, blocks = self._staging.group()
            settlements = [self._settlement(piece) for piece in pieces]
            numbering, anew = self._staging.numbering, self._staging.latecomers.anew
            self._store.add(blocks, settlements, since_ns, numbering.highest, anew)

    def _sync(self) -> bool:
        """Have what is written synced: behind, or where the stream ends, now. False where that
        cannot be."""
        store = self._store
        while store.pending:
            if not store.syncs:
                store.begin_sync()
            if not (self.ending or store.sync_is_over()):
                break
            if not self._end_sync():
                return False
        self._close_full()
        return True

    def _end_sync(self) -> bool:
        if not self._store.end_sync():
            return False
        self._close_full()
        return True

    def _close_full(self) -> None:
        for slot in self._staging.take_full(self._store.busy()):
            self._store.close(slot)

    def _settlement(self, staged: StagedPiece) -> Settlement:
        piece = staged.piece
        self._taken_bytes += _bytes_of(piece)
        events = len(piece.table)
        garbage = sum(len(f.table) for f in staged.fragments if f.slot.kind is FileKind.GARBAGE)
        orphan = events if self.key.run == NO_RUN else 0
        return Settlement(
            piece.mark.session,
            piece.sequence,
            piece.shares,
            piece.message_bytes,
            piece.source,
            piece.mark,
            self.key.run,
            self.key.stream,
            stored=events - garbage - orphan,
            garbage=garbage,
            orphan=orphan,
            reason=piece.orphan_reason.words if orphan else "",
            payload_bytes=len(piece.payload),
        )

    def _tell_late(self, late: LateEvents) -> None:
        numbers = str(late.lowest)
        if late.highest != late.lowest:
            numbers = f"{late.lowest} to {late.highest}"
        if late.anew:
            log.warning(
                "%s: %s counts anew (event number %s): its events are not late for the ranges up "
                "to event %d, which are closed",
                self.key,
                late.source,
                numbers,
                late.boundary,
            )
            return
        self._alarms.raise_alarm(
            f"garbage {self.key}",
            Severity.WARNING,
            f"{events(late.events)} of {late.source} (event number {numbers}) came late and went "
            f"to the garbage file of {self.key}: the range up to event {late.boundary} is closed",
        )

    # --- time, and the end -------------------------------------------------------------------

    def _look_at_time(self, now_ns: int) -> None:
        staging = self._staging
        if staging.is_full() or (self._seal_wanted and self._inbox.empty()):
            if staging.fill(staging.now).events:
                staging.roll()
            self._seal_wanted = False
        for slot in staging.over(now_ns, self._store.busy()):
            self._store.close(slot)
        if self._give_back_wanted:
            self._give_back_wanted = False
            if self._is_idle() and not self.stalled:
                self._store.give_back(staging.slots())

    def _look_at_names(self, now_ns: int) -> None:
        """Whether somebody deleted or moved an open file: a few files at a time, in turn."""
        if now_ns < self._names_ns:
            return
        self._names_ns = now_ns + NAMES_NS
        slots = self._staging.slots()
        first = self._names_at % len(slots)
        self._names_at = first + NAMES_AT_ONCE
        self._store.look_at_names((slots[first:] + slots[:first])[:NAMES_AT_ONCE])

    def _give_up_if_ending(self) -> None:
        """Ending while nothing can be written: what is not stored is refused, with its reason."""
        if self.ending is Ending.NOT:
            return
        self._store.begin_sync()
        while self._store.syncs and self._end_sync():
            pass  # what is stored is not refused
        if not self._store.stalled:
            return  # what had to be written anew found space
        if self.ending is not Ending.SETTLE:
            # All of it: nobody else would settle what is left there.
            self._intake += self._fetch(block=False)
            why = REFUSED_AT_END[self._store.stalled]
            staged = [self._settlement(piece) for piece in self._staging.pieces]
            for settlement in [*self._store.drop(), *staged]:
                self._refuse(settlement, why)
            self._staging.clear()
            self._refuse_intake(why)
        self._end()

    def _refuse_intake(self, reason: str) -> None:
        while self._intake:
            self._refuse(self._settlement(StagedPiece(self._next_piece())), reason)

    def _refuse(self, settlement: Settlement, reason: str) -> None:
        self._refused += settlement.events
        self._committer.settle(refused(settlement, reason))
        self._alarms.raise_alarm(
            f"refused {settlement.source}",
            Severity.WARNING,
            f"events of {settlement.source} for {self.key} refused: {reason}",
        )

    def _end(self) -> None:
        for slot in self._staging.slots():
            if self.ending is Ending.DISCARD:
                self._store.discard(slot)
            elif self.ending is not Ending.SETTLE:
                self._store.close(slot)
            elif slot.part is not None:
                slot.part.let_go()
        self._store.over()
        self.over = True
        self._finished(self.key)


def _bytes_of(piece: Piece) -> int:
    return piece.table.nbytes + piece.payload.nbytes


def refused(settlement: Settlement, reason: str) -> Settlement:
    """The same piece, settled by refusal."""
    return structs.replace(
        settlement,
        stored=0,
        garbage=0,
        orphan=0,
        payload_bytes=0,
        refused=settlement.events,
        reason=reason,
    )
