"""A source's side of the event link as a pure machine: events, messages and times in, messages
out.

It owns what is not acknowledged yet and every decision of the protocol (docs/PROTOCOL.md); it has
no thread, no socket and no clock. Whoever drives it calls

* `add` / `add_many` for the caller's events, if `has_room` says so;
* `next_message(now_ns)` while the link takes messages, and again at `due_ns()`;
* `receive(message, now_ns)` for what the logger says, `lost(now_ns)` when the connection is gone.

Messages may vanish anywhere: everything is repeated until it is answered.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from dlog.core.batch import Batch, encode_batch, number_batch
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.packer import PackedBatch, Packer, Packing, StreamSet, event_bytes
from dlog.core.source_counts import SourceCounts
from dlog.core.source_runs import RunsTold
from dlog.core.states import Machine
from dlog.errors import MessageError, SourceError, SourceRefused
from dlog.limits import (
    CONTROL_MESSAGE_BYTES_MAX,
    EVENT_BYTES_MAX,
    HEARTBEAT_MS,
    HEARTBEATS_MISSED_MAX,
    MESSAGE_BYTES_MAX,
    STREAMS_PER_BATCH_MAX,
)
from dlog.model.events import EVENT_DTYPE, Payload
from dlog.model.ids import EventNumber, RunNumber, Sequence, SessionId, StreamName
from dlog.model.messages import (
    Acknowledgement,
    Bye,
    ByeDone,
    EndOfRun,
    Heartbeat,
    Hello,
    Refused,
    Resend,
    Welcome,
    decode_body,
    encode_body,
)

_MS: Final = 1_000_000
# Runs for which the last batch's number is kept.
_LAST_OF_RUN_MAX: Final = 4096
# Heartbeats without progress before what was sent is sent again; doubled each time in vain.
_PATIENCE_HEARTBEATS: Final = 3
_PATIENCE_HEARTBEATS_MAX: Final = 48
_DETAIL_LETTERS_MAX: Final = 300


class Phase(enum.StrEnum):
    GREETING = "greeting"  # HELLO goes out until WELCOME comes
    OPEN = "open"  # batches go out as the window allows
    LEAVING = "leaving"  # all is acknowledged; BYE goes out until BYE-DONE comes
    OVER = "over"  # the session is closed at the logger
    REFUSED = "refused"  # for good; nothing goes out any more


class Happening(enum.StrEnum):
    WELCOMED = "WELCOME"
    SILENCE = "connection or heartbeats lost, or another boot"
    REFUSED_FOR_NOW = "REFUSED, retry = true"
    REFUSED_FOR_GOOD = "REFUSED, retry = false"
    REFUSED_AFTER_BYE = "REFUSED, retry = false, after BYE"
    ALL_DONE = "close asked for and everything acknowledged"
    BYE_DONE = "BYE-DONE"


PHASES: Final = Machine(
    "source session",
    {
        (Phase.GREETING, Happening.WELCOMED): Phase.OPEN,
        (Phase.GREETING, Happening.SILENCE): Phase.GREETING,
        (Phase.GREETING, Happening.REFUSED_FOR_NOW): Phase.GREETING,
        (Phase.GREETING, Happening.REFUSED_FOR_GOOD): Phase.REFUSED,
        (Phase.GREETING, Happening.REFUSED_AFTER_BYE): Phase.OVER,
        # A second HELLO, sent for want of an answer, is answered as well.
        (Phase.OPEN, Happening.WELCOMED): Phase.OPEN,
        (Phase.OPEN, Happening.SILENCE): Phase.GREETING,
        (Phase.OPEN, Happening.REFUSED_FOR_NOW): Phase.GREETING,
        (Phase.OPEN, Happening.REFUSED_FOR_GOOD): Phase.REFUSED,
        (Phase.OPEN, Happening.REFUSED_AFTER_BYE): Phase.OVER,
        (Phase.OPEN, Happening.ALL_DONE): Phase.LEAVING,
        (Phase.LEAVING, Happening.WELCOMED): Phase.LEAVING,
        # A logger that was not started again needs no HELLO before BYE; one that was says so.
        (Phase.LEAVING, Happening.SILENCE): Phase.LEAVING,
        (Phase.LEAVING, Happening.REFUSED_FOR_NOW): Phase.GREETING,
        (Phase.LEAVING, Happening.REFUSED_AFTER_BYE): Phase.OVER,
        (Phase.LEAVING, Happening.BYE_DONE): Phase.OVER,
    },
)


@dataclass(slots=True, eq=False)
class NumberedBatch:
    """A batch that has its place in the session; its message is the same at every resend."""

    sequence: Sequence
    position_bytes: int
    message_bytes: int  # of the original, also when only the placeholder is sent
    run: RunNumber
    events: int
    pieces: dict[StreamName, int]
    queue_bytes: int
    message: bytearray  # the placeholder, once it is settled
    settled: bool = False
    sent: bool = False

    def settle(self, session: SessionId) -> None:
        """Free its memory: what it holds will not be needed again."""
        self.settled = True
        self.message = _placeholder(session, self)


def _placeholder(session: SessionId, batch: NumberedBatch) -> bytearray:
    return encode_batch(
        Batch(
            session,
            batch.sequence,
            batch.position_bytes,
            0,
            (),
            np.empty(0, EVENT_DTYPE),
            np.empty(0, np.uint8),
            batch.message_bytes,
            settled=True,
        )
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """What must outlive the process so that another one can go on with the session: the cumulative
    acknowledgement, the bytes of the session up to there, and the refusals accounted for."""

    acknowledged: int = 0
    position_bytes: int = 0
    refusals_seen: int = 0


class SourceSession:
    """See the module. `replay`: the session of `dlog send`: the events are given again from the
    session's first after a restart, and batches are numbered in packing order, whatever the runs'
    states are, so that each gets the number that it had before.
    """

    def __init__(
        self,
        session: SessionId,
        *,
        name: str,
        host: str,
        process: int,
        queue_bytes: int,
        packing: Packing,
        now_ns: int,
        replay: bool = False,
        progress: Progress | None = None,
    ) -> None:
        if len(session) != 16:
            raise ValueError("a session is 16 bytes")
        if replay and packing.linger_ns is not None:
            raise ValueError("a replay is packed without linger, or it would not repeat itself")
        self.session = session
        self.name = name
        self.host = host
        self.process = process
        self.queue_bytes = queue_bytes
        self.replay = replay
        self.packer = Packer(session, packing)
        self.phase = Phase.GREETING
        self.failure: SourceError | None = None
        self.detail = ""  # the last thing that the logger said against us
        self.waiting = ""  # why the logger grants no credit
        self.logger_name = ""
        self.boot = 0
        self.event_bytes_max = EVENT_BYTES_MAX
        self.reconnects = 0
        self.batches_resent = 0
        self.skipped: dict[str, int] = {}
        self._message_bytes_max = MESSAGE_BYTES_MAX
        # --- what waits without a number: closed batches by run, each with its place in the order
        self._queues: dict[RunNumber, deque[tuple[int, PackedBatch]]] = {}
        self.batches_closed = 0
        self._run_bytes: dict[RunNumber, int] = {}  # of events without a number, open ones too
        self._queued_bytes = 0
        # --- what has a number and is not below the cumulative acknowledgement
        self._numbered: dict[int, NumberedBatch] = {}
        self._last = 0  # highest number given
        self._last_end_bytes = 0  # position behind it
        self._cursor = 1  # next number to go out
        self._last_of_run: dict[RunNumber, int] = {}
        # --- what the logger said last
        self._progress = progress or Progress()
        self._resume_from = self._progress
        self._acknowledged = self._progress.acknowledged
        self._selective: list[tuple[int, int]] = []
        self._limit_bytes = 0
        self._next = 1
        self._refusals_saved = self._progress.refusals_seen
        self.runs = RunsTold()
        self._to_answer: set[RunNumber] = set()
        self._answered_ns: dict[RunNumber, int] = {}
        # --- times
        self._first_ack_to_come = True
        self._closing = False
        self._complete = False  # nothing was taken since the last flush
        self._heartbeat_ns = HEARTBEAT_MS * _MS
        self._hello_at_ns = now_ns
        self._heartbeat_at_ns = now_ns
        self._bye_at_ns = now_ns
        self._bye_said = False
        self._heard_ns = now_ns
        self._moved_ns = now_ns  # when `next` last went forward, or we went back
        self._patience = _PATIENCE_HEARTBEATS
        self._resend_answered: tuple[int, int] = (0, 0)  # next, when
        self._wanted_bytes = 0
        self._wanted_told = 0
        # --- counts
        self.counts = SourceCounts(self._progress.refusals_seen)
        self.events_settled = 0
        self.events_run_ended = 0

    # --- events in --------------------------------------------------------------------------------

    def check_run(self, run: RunNumber) -> None:
        """Raises `RunEnded` where the run takes no events any more."""
        if not self._repeating:
            self.runs.check(run)

    def has_room(self, run: RunNumber, size_bytes: int) -> bool:
        """Whether so much of the queue may be taken. Something that is larger than the queue may be
        taken when it is empty; a paused run gets half of it, so that the others go on."""
        if self._queued_bytes and self._queued_bytes + size_bytes > self.queue_bytes:
            return False
        waiting = self._run_bytes.get(run, 0)
        if run not in self.runs.held or not waiting:
            return True
        return waiting + size_bytes <= self.queue_bytes // 2

    def add(
        self,
        run: RunNumber,
        streams: StreamSet,
        number: EventNumber,
        time_ns: int,
        payload: bytes | bytearray | memoryview,
        now_ns: int,
    ) -> None:
        """Take one event. Raises `RunEnded`; the caller has asked `has_room`."""
        if not self.runs.takes_events(run):
            self.check_run(run)
        self._take(run, event_bytes(len(payload)))
        self.packer.add(run, streams, number, time_ns, payload, now_ns)
        if self.packer.anything_closed:
            self._enqueue()

    def add_many(
        self,
        run: RunNumber,
        streams: StreamSet,
        numbers: NDArray[np.uint64],
        times_ns: NDArray[np.uint64] | int,
        sizes: NDArray[Any],
        payload: Payload,
        now_ns: int,
    ) -> None:
        """Take events of one stream set. Raises `RunEnded`; the caller has asked `has_room`."""
        self.check_run(run)
        self._take(run, event_bytes(0) * len(sizes) + len(payload))
        self.packer.add_many(run, streams, numbers, times_ns, sizes, payload, now_ns)
        if self.packer.anything_closed:
            self._enqueue()

    def check_streams(self, streams: StreamSet) -> None:
        """Raises `SourceError` where these streams are too many for the session."""
        if len(streams) > STREAMS_PER_BATCH_MAX:
            raise SourceError(
                f"an event for {len(streams)} streams; at most {STREAMS_PER_BATCH_MAX}"
            )
        for name in streams:
            self.counts.open_stream(name)

    def flush(self) -> None:
        """Close the open batches now."""
        if self.replay and not self._repeating:
            for run in self.runs.closing():
                self._drop_open(run)
        self.packer.close_all()
        self._enqueue()
        self._complete = True

    def close(self) -> None:
        """Say BYE once everything is acknowledged."""
        self.flush()
        self._closing = True

    def _take(self, run: RunNumber, size_bytes: int) -> None:
        self._complete = False
        self._queued_bytes += size_bytes
        self._run_bytes[run] = self._run_bytes.get(run, 0) + size_bytes

    def _enqueue(self) -> None:
        """Closed batches go to their run's queue, in the order in which they were closed."""
        for batch in self.packer.taken():
            self.counts.taken(batch.pieces)
            self._queues.setdefault(batch.run, deque()).append((self.batches_closed, batch))
            self.batches_closed += 1
            if self.runs.is_over(batch.run) and not self._repeating:
                self._drop_run(batch.run)

    # --- what is known ----------------------------------------------------------------------------

    @property
    def queued_bytes(self) -> int:
        return self._queued_bytes

    @property
    def events_taken(self) -> int:
        return self.packer.events

    @property
    def events_pending(self) -> int:
        return self.packer.events - self.events_settled - self.events_run_ended

    @property
    def acknowledged(self) -> int:
        """The cumulative acknowledgement: a batch number."""
        return self._acknowledged

    @property
    def batches_unsettled(self) -> int:
        return sum(not batch.settled for batch in self._numbered.values())

    @property
    def idle(self) -> bool:
        """Everything that was taken is settled."""
        return not (self.packer.anything_open or self._queues or self._numbered or self._repeating)

    @property
    def progress(self) -> Progress:
        """To be made durable; then `progress_saved`."""
        return self._progress

    def progress_saved(self, progress: Progress) -> None:
        """The caller has accounted for so many refusals: the logger may forget them."""
        self._refusals_saved = max(self._refusals_saved, progress.refusals_seen)

    @property
    def _known(self) -> int:
        """Batches up to this number may have been sent by an earlier process of this session."""
        if not self.replay:
            return 0
        highest_selective = self._selective[-1][1] if self._selective else 0
        return max(self._acknowledged, self._next - 1, highest_selective)

    @property
    def _repeating(self) -> bool:
        """The batches of an earlier process are still being given again."""
        return self.replay and self._last < self._known

    # --- messages out -----------------------------------------------------------------------------

    def due_ns(self) -> int | None:
        """When `next_message` should be asked again, if nothing happens before."""
        times = []
        if self.phase is Phase.GREETING:
            times.append(self._hello_at_ns)
        elif self.phase is Phase.OPEN:
            times += [
                self._heartbeat_at_ns,
                self._heard_ns + HEARTBEATS_MISSED_MAX * self._heartbeat_ns,
            ]
        elif self.phase is Phase.LEAVING:
            times.append(self._bye_at_ns)
        packing_ns = self.packer.due_ns()
        if packing_ns is not None:
            times.append(packing_ns)
        return min(times, default=None)

    def next_message(self, now_ns: int) -> bytes | bytearray | None:
        """The next message to send now, or None. Taken as sent; it may be lost."""
        self.packer.close_due(now_ns)
        if self.packer.anything_closed:
            self._enqueue()
        self._watch(now_ns)
        match self.phase:
            case Phase.GREETING:
                return self._hello(now_ns)
            case Phase.OPEN:
                return self._next_when_open(now_ns)
            case Phase.LEAVING:
                return self._bye(now_ns)
            case _:
                return None

    def lost(self, now_ns: int) -> None:
        """The connection is gone: whatever was under way is lost."""
        if self.phase is Phase.OPEN:
            self.reconnects += 1
        if (self.phase, Happening.SILENCE) in PHASES.table:
            self._step(Happening.SILENCE)
        self._greet(now_ns)
        self._bye_at_ns = now_ns

    def _step(self, happening: Happening) -> None:
        self.phase = PHASES.next(self.phase, happening)

    def _greet(self, now_ns: int) -> None:
        self._hello_at_ns = now_ns
        self._first_ack_to_come = True

    def _watch(self, now_ns: int) -> None:
        """What time alone decides."""
        if self.phase is not Phase.OPEN:
            return
        if now_ns - self._heard_ns >= HEARTBEATS_MISSED_MAX * self._heartbeat_ns:
            self.detail = "the logger is silent"
            self.lost(now_ns)
            return
        patience_ns = self._patience * self._heartbeat_ns
        if self._cursor > self._next and now_ns - self._moved_ns >= patience_ns:
            self._patience = min(2 * self._patience, _PATIENCE_HEARTBEATS_MAX)
            self._go_back(self._next, now_ns)
        if self._complete and self._repeating and not (self._queues or self._first_ack_to_come):
            self._fail("fewer events were given again than the session had")
        elif self._closing and self.idle and not self._first_ack_to_come:
            self._step(Happening.ALL_DONE)
            self._bye_at_ns = now_ns

    def _go_back(self, sequence: int, now_ns: int) -> None:
        self._cursor = max(sequence, self._acknowledged + 1)
        self._moved_ns = now_ns

    def _hello(self, now_ns: int) -> bytes | bytearray | None:
        if now_ns < self._hello_at_ns:
            return None
        self._hello_at_ns = now_ns + self._heartbeat_ns
        self._heard_ns = now_ns
        lowest, position_bytes = self._lowest()
        return self._control(
            MessageKind.HELLO,
            Hello(
                session=self.session,
                name=self.name,
                host=self.host,
                process=self.process,
                lowest=lowest,
                position_bytes=position_bytes,
            ),
        )

    def _lowest(self) -> tuple[int, int]:
        """The lowest unacknowledged batch and the bytes before it."""
        if self._last < self._resume_from.acknowledged:
            return self._resume_from.acknowledged + 1, self._resume_from.position_bytes
        for batch in self._numbered.values():
            return batch.sequence, batch.position_bytes
        return self._last + 1, self._last_end_bytes

    def _next_when_open(self, now_ns: int) -> bytes | bytearray | None:
        for run in sorted(self._to_answer):
            if self._sent_all_of(run):
                self._to_answer.discard(run)
                self._answered_ns[run] = now_ns
                last = max(self._last_of_run.get(run, 0), self._known)
                return self._control(
                    MessageKind.END_OF_RUN, EndOfRun(session=self.session, run=run, last=last)
                )
        if now_ns >= self._heartbeat_at_ns:
            return self._heartbeat(now_ns)
        batch = self._next_batch(now_ns)
        if batch is not None:
            return batch.message
        # A message larger than our share of the window is granted only when it is asked for.
        if self._wanted_bytes > self._wanted_told:
            return self._heartbeat(now_ns)
        return None

    def _heartbeat(self, now_ns: int) -> bytes:
        self._heartbeat_at_ns = now_ns + self._heartbeat_ns
        self._wanted_told = self._wanted_bytes
        return self._control(
            MessageKind.HEARTBEAT,
            Heartbeat(
                session=self.session,
                sent=0 if self._first_ack_to_come else self._cursor - 1,
                refusals_seen=self._refusals_saved if self.replay else self.counts.refusals_seen,
                wanted_bytes=self._wanted_bytes,
            ),
        )

    def _bye(self, now_ns: int) -> bytes | bytearray | None:
        if now_ns < self._bye_at_ns:
            return None
        self._bye_at_ns = now_ns + self._heartbeat_ns
        self._bye_said = True
        return self._control(MessageKind.BYE, Bye(session=self.session))

    def last_words(self) -> bytes:
        """BYE of a session that is given up with events unacknowledged."""
        return self._control(MessageKind.BYE, Bye(session=self.session))

    def _control(self, kind: MessageKind, body: msgspec.Struct) -> bytes:
        return encode_control(kind, encode_body(body))

    def _sent_all_of(self, run: RunNumber) -> bool:
        """Whether every event of the run that was taken is in a batch that was sent."""
        last = max(self._last_of_run.get(run, 0), self._known)
        return not self._queues.get(run) and last < self._cursor and not self._repeating

    # --- batches out ------------------------------------------------------------------------------

    def _next_batch(self, now_ns: int) -> NumberedBatch | None:
        """The next batch that the window allows, given its number where it has none."""
        if self._first_ack_to_come:
            return None
        if self._next <= self._acknowledged:
            # HELLO named a batch that was acknowledged meanwhile, and the logger waits for it.
            while self._last < self._acknowledged and self._number_next():
                pass
            if self._last >= self._acknowledged:
                self._step(Happening.SILENCE)
                self._greet(now_ns)
            return None
        self._wanted_bytes = 0
        while True:
            batch = self._numbered.get(self._cursor)
            if batch is None:
                if not self._number_next():
                    return None
                continue  # to the new one, or on from it where `_recall` found it admitted already
            length = len(batch.message)
            if batch.position_bytes + length > self._limit_bytes:
                self._wanted_bytes = length
                return None
            if self._cursor == self._next:
                self._moved_ns = now_ns
            self._cursor += 1
            self.batches_resent += batch.sent
            batch.sent = True
            return batch

    def _number_next(self) -> bool:
        """Give the next packed batch its number; whether there was one that may go out."""
        chosen = self._choose()
        if chosen is None:
            return False
        if self.runs.is_over(chosen) and not self._repeating:
            self._drop_run(chosen)
            return bool(self._queues)
        packed = self._queues[chosen][0][1]
        fresh = self._last >= self._known
        if fresh and self._last_end_bytes + len(packed.message) > self._limit_bytes:
            self._wanted_bytes = len(packed.message)
            return False
        if len(packed.message) > self._message_bytes_max:
            self._fail(
                f"a batch of {len(packed.message)} bytes; the logger takes messages of up to "
                f"{self._message_bytes_max}"
            )
            return False
        self._dequeue(chosen)
        self._last += 1
        number_batch(packed.message, Sequence(self._last), self._last_end_bytes)
        batch = NumberedBatch(
            Sequence(self._last),
            self._last_end_bytes,
            len(packed.message),
            packed.run,
            packed.events,
            packed.pieces,
            packed.queue_bytes,
            packed.message,
        )
        self._last_end_bytes += len(packed.message)
        self._last_of_run[packed.run] = self._last
        if len(self._last_of_run) > _LAST_OF_RUN_MAX:
            self._forget_runs()
        self._numbered[self._last] = batch
        if not fresh:
            self._recall(batch)
        return True

    def _forget_runs(self) -> None:
        """Of a run whose batches are all acknowledged, the last one's number is of no use."""
        for run, last in list(self._last_of_run.items()):
            if last <= self._acknowledged:
                del self._last_of_run[run]

    def _recall(self, batch: NumberedBatch) -> None:
        """A batch that an earlier process of this session may have sent."""
        resume = self._resume_from
        if batch.sequence == resume.acknowledged and self._last_end_bytes != resume.position_bytes:
            self._fail("the events given again are not those of the session that is to go on")
            return
        if batch.sequence <= self._acknowledged:
            self._settle(batch)
            del self._numbered[batch.sequence]
            self._progress = Progress(
                max(batch.sequence, resume.acknowledged),
                max(self._last_end_bytes, resume.position_bytes),
                self.counts.refusals_seen,
            )
        elif any(first <= batch.sequence <= last for first, last in self._selective):
            self._settle(batch)
        # What is admitted already is not sent again; the logger's RESEND says if it is needed.
        if batch.sequence < self._next:
            self._cursor = max(self._cursor, batch.sequence + 1)

    def _choose(self) -> RunNumber | None:
        """The run whose oldest batch is the next one to go out."""
        heads = [(queue[0][0], run) for run, queue in self._queues.items()]
        if not self.replay:
            heads = [head for head in heads if head[1] not in self.runs.held]
        if not heads:
            return None
        run = min(heads)[1]
        return None if run in self.runs.held and not self._repeating else run

    def _dequeue(self, run: RunNumber) -> PackedBatch:
        queue = self._queues[run]
        packed = queue.popleft()[1]
        if not queue:
            del self._queues[run]
        left = self._run_bytes[run] - packed.queue_bytes
        if left:
            self._run_bytes[run] = left
        else:
            del self._run_bytes[run]
        return packed

    # --- messages in ------------------------------------------------------------------------------

    def receive(self, message: bytes | memoryview, now_ns: int) -> None:
        """What the logger says. What cannot be understood is skipped and counted."""
        try:
            view = memoryview(message)
            kind = check_frame(view, CONTROL_MESSAGE_BYTES_MAX + 16)
            body = control_body(view)
            self._dispatch(kind, body, now_ns)
        except MessageError as error:
            self._skip(error.reason)
            self.detail = f"a message of the logger cannot be read: {error}"[:_DETAIL_LETTERS_MAX]

    def _dispatch(self, kind: int, body: memoryview, now_ns: int) -> None:
        match kind:
            case MessageKind.WELCOME:
                welcome = decode_body(body, Welcome)
                if self._ours(welcome.session, now_ns):
                    self._on_welcome(welcome, now_ns)
            case MessageKind.ACKNOWLEDGEMENT:
                ack = decode_body(body, Acknowledgement)
                if self._ours(ack.session, now_ns):
                    self._on_acknowledgement(ack, now_ns)
            case MessageKind.RESEND:
                resend = decode_body(body, Resend)
                if self._ours(resend.session, now_ns):
                    self._on_resend(resend, now_ns)
            case MessageKind.REFUSED:
                refused = decode_body(body, Refused)
                if self._ours(refused.session, now_ns):
                    self._on_refused(refused, now_ns)
            case MessageKind.BYE_DONE:
                done = decode_body(body, ByeDone)
                if self._ours(done.session, now_ns) and self.phase is Phase.LEAVING:
                    self._step(Happening.BYE_DONE)
            case _:
                self._skip(f"kind-{kind}")

    def _skip(self, what: str) -> None:
        key = what if what in self.skipped or len(self.skipped) < 32 else "other"
        self.skipped[key] = self.skipped.get(key, 0) + 1

    def _ours(self, session: bytes, now_ns: int) -> bool:
        if session != self.session:
            self._skip("session")
            return False
        self._heard_ns = now_ns
        return True

    def _on_welcome(self, welcome: Welcome, now_ns: int) -> None:
        if self.phase not in (Phase.GREETING, Phase.OPEN):
            return
        self._step(Happening.WELCOMED)
        self._first_ack_to_come = True
        self._heartbeat_ns = max(10, welcome.heartbeat_ms) * _MS
        if self.boot not in (0, welcome.boot):
            self.runs.logger_restarted(now_ns + HEARTBEATS_MISSED_MAX * self._heartbeat_ns)
        self.boot = welcome.boot
        self.logger_name = welcome.logger
        self.detail = ""
        self.event_bytes_max = min(EVENT_BYTES_MAX, welcome.event_bytes_max)
        self._message_bytes_max = welcome.message_bytes_max
        self._heartbeat_at_ns = now_ns
        self._patience = _PATIENCE_HEARTBEATS
        self._answered_ns.clear()
        self._wanted_told = 0

    def _on_acknowledgement(self, ack: Acknowledgement, now_ns: int) -> None:
        if self.phase is not Phase.OPEN:
            return
        if ack.boot < self.boot:
            self._skip("old-boot")
            return
        if ack.boot > self.boot:
            self.detail = f"the logger was started again (boot {ack.boot})"
            self.lost(now_ns)
            return
        if not self._plausible(ack):
            return
        self._acknowledge(ack)
        self._limit_bytes = ack.limit_bytes
        self.waiting = ack.waiting[:_DETAIL_LETTERS_MAX]
        if ack.next > self._next or self._first_ack_to_come:
            self._moved_ns = now_ns
            self._patience = _PATIENCE_HEARTBEATS
        self._next = ack.next
        if self._first_ack_to_come:
            # What is below is admitted by this boot; what is above was dropped or never came.
            self._first_ack_to_come = False
            self._cursor = min(ack.next, self._last + 1)
        self._cursor = max(self._cursor, min(self._acknowledged, self._last) + 1)
        self._learn_runs(ack, now_ns)

    def _plausible(self, ack: Acknowledgement) -> bool:
        """Whether the logger can mean this session as we know it; if not, it is given up."""
        if ack.next <= self._acknowledged and self._first_ack_to_come:
            self._fail(
                f"the logger expects batch {ack.next}, but has acknowledged {self._acknowledged}: "
                "it has lost its journal"
            )
            return False
        claimed = max(ack.acknowledged, ack.next - 1)
        if not self.replay and claimed > self._last:
            self._fail(
                f"the logger knows batch {claimed} of this session, of which {self._last} was sent"
            )
            return False
        return True

    def _acknowledge(self, ack: Acknowledgement) -> None:
        self.counts.refusals(ack)
        self._acknowledged = max(self._acknowledged, ack.acknowledged)
        self._selective = [(a, b) for a, b in ack.selective if b > self._acknowledged]
        end_bytes = None
        while self._numbered:
            sequence = next(iter(self._numbered))
            if sequence > self._acknowledged:
                break
            batch = self._numbered.pop(sequence)
            end_bytes = batch.position_bytes + batch.message_bytes
            self._settle(batch)
        for first, last in self._selective:
            for sequence in range(max(first, self._acknowledged + 1), min(last, self._last) + 1):
                self._settle(self._numbered[sequence])
        if end_bytes is not None and self._acknowledged <= self._last:
            self._progress = Progress(self._acknowledged, end_bytes, self.counts.refusals_seen)
        elif self.counts.refusals_seen != self._progress.refusals_seen:
            self._progress = Progress(
                self._progress.acknowledged,
                self._progress.position_bytes,
                self.counts.refusals_seen,
            )

    def _settle(self, batch: NumberedBatch) -> None:
        if batch.settled:
            return
        batch.settle(self.session)
        self._queued_bytes -= batch.queue_bytes
        self.events_settled += batch.events
        self.counts.settled(batch.pieces)

    def _on_resend(self, resend: Resend, now_ns: int) -> None:
        if self.phase is not Phase.OPEN or resend.boot != self.boot or self._first_ack_to_come:
            return
        if not self._acknowledged < resend.next < self._cursor:
            return
        # One for each batch that was in flight: only the first of them asks for something new.
        number, when_ns = self._resend_answered
        if number == resend.next and now_ns - when_ns < self._heartbeat_ns:
            return
        self._resend_answered = (resend.next, now_ns)
        self._go_back(resend.next, now_ns)

    def _on_refused(self, refused: Refused, now_ns: int) -> None:
        self.detail = f"{refused.code}: {refused.detail}"[:_DETAIL_LETTERS_MAX]
        if self.phase in (Phase.REFUSED, Phase.OVER):
            return
        if refused.retry:
            again = self.phase is not Phase.GREETING
            self._step(Happening.REFUSED_FOR_NOW)
            if again:
                self._greet(now_ns)
        elif self._bye_said:
            # Nothing is left that could be lost: BYE was carried out, only its answer was not heard.
            self._step(Happening.REFUSED_AFTER_BYE)
        else:
            self._fail(self.detail)

    def _fail(self, detail: str) -> None:
        """The session cannot go on; nothing that it holds will be acknowledged."""
        self.detail = detail
        self.failure = SourceRefused(detail)
        self._step(Happening.REFUSED_FOR_GOOD)

    # --- runs -------------------------------------------------------------------------------------

    def _learn_runs(self, ack: Acknowledgement, now_ns: int) -> None:
        news = self.runs.learn(ack, now_ns)
        for run in news.ending:
            self._begin_end(run)
        for run in news.over:
            self._end_run(run)
        for run in map(RunNumber, ack.ending):
            answered_ns = self._answered_ns.get(run)
            if answered_ns is None or now_ns - answered_ns >= self._heartbeat_ns:
                self._to_answer.add(run)

    def _begin_end(self, run: RunNumber) -> None:
        """The run ends: what was taken for it goes out, nothing more is taken."""
        if not self.replay:
            self.packer.close_run(run)
            self._enqueue()
        elif not self._repeating:
            self._drop_open(run)

    def _drop_open(self, run: RunNumber) -> None:
        """Give up a replay's open batches: cut short here, they would not come out the same when
        the events are given again."""
        kept = self._queues.pop(run, None)
        self.packer.close_run(run)
        self._enqueue()
        self._drop_run(run)
        if kept:
            self._queues[run] = kept

    def _end_run(self, run: RunNumber) -> None:
        self._to_answer.discard(run)
        self._answered_ns.pop(run, None)
        if not self._repeating:
            self._last_of_run.pop(run, None)
            self.packer.close_run(run)
            self._enqueue()
            self._drop_run(run)

    def _drop_run(self, run: RunNumber) -> None:
        """What waits for a run that is over is counted and given up."""
        while self._queues.get(run):
            packed = self._dequeue(run)
            self._queued_bytes -= packed.queue_bytes
            self.events_run_ended += packed.events
            self.counts.run_ended(packed.pieces)
