"""A source's side of the event link as a pure machine: events, messages and times in, messages
out.

It owns the decisions of the protocol (docs/PROTOCOL.md); it has no thread, no socket and no clock.
Whoever drives it calls

* `add` / `add_many` for the caller's events, if `has_room` says so;
* `next_message(now_ns)` while the link takes messages, and again at `due_ns()`;
* `receive(message, now_ns)` for what the logger says, `lost(now_ns)` when the connection is gone.

Messages may vanish anywhere: everything is repeated until it is answered.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import msgspec

from dlog.core.frame import (
    FRAME_BYTES,
    MessageKind,
    check_frame,
    control_body,
    encode_control,
)
from dlog.core.many_events import ManyEvents
from dlog.core.packer import Packer, Packing, StreamSet, event_bytes
from dlog.core.source_batches import Progress, SourceBatches
from dlog.core.source_counts import SourceCounts
from dlog.core.source_runs import RunsTold
from dlog.core.states import Machine
from dlog.errors import MessageError, SourceError, SourceRefused, StreamUnknown
from dlog.limits import (
    CONTROL_MESSAGE_BYTES_MAX,
    EVENT_BYTES_MAX,
    HEARTBEAT_MS,
    HEARTBEATS_MISSED_MAX,
    MESSAGE_BYTES_MAX,
    STREAMS_PER_BATCH_MAX,
)
from dlog.model.ids import EventNumber, RunNumber, SessionId
from dlog.model.messages import (
    Acknowledgement,
    Bye,
    ByeDone,
    EndOfRun,
    Heartbeat,
    Hello,
    Refused,
    Resend,
    RunStreams,
    Welcome,
    decode_body,
    encode_body,
)

_MS: Final = 1_000_000
_HEARTBEAT_MS_MIN: Final = 10
# Heartbeats without progress before what was sent is sent again unasked; doubled each time in vain.
_PATIENCE_HEARTBEATS: Final = 6
_PATIENCE_HEARTBEATS_MAX: Final = 48
_DETAIL_LETTERS_MAX: Final = 300
_SKIPPED_KINDS_MAX: Final = 32
_UNLISTED_MAX: Final = 64


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


_P, _H = Phase, Happening
PHASES: Final = Machine(
    "source session",
    MappingProxyType(
        {
            (_P.GREETING, _H.WELCOMED): _P.OPEN,
            (_P.GREETING, _H.SILENCE): _P.GREETING,
            (_P.GREETING, _H.REFUSED_FOR_NOW): _P.GREETING,
            (_P.GREETING, _H.REFUSED_FOR_GOOD): _P.REFUSED,
            (_P.GREETING, _H.REFUSED_AFTER_BYE): _P.OVER,
            (_P.OPEN, _H.SILENCE): _P.GREETING,
            (_P.OPEN, _H.REFUSED_FOR_NOW): _P.GREETING,
            (_P.OPEN, _H.REFUSED_FOR_GOOD): _P.REFUSED,
            (_P.OPEN, _H.REFUSED_AFTER_BYE): _P.OVER,
            (_P.OPEN, _H.ALL_DONE): _P.LEAVING,
            # Perhaps another boot, which knows the session from its journal alone: BYE needs HELLO.
            (_P.LEAVING, _H.SILENCE): _P.GREETING,
            (_P.LEAVING, _H.REFUSED_FOR_NOW): _P.GREETING,
            (_P.LEAVING, _H.REFUSED_AFTER_BYE): _P.OVER,
            (_P.LEAVING, _H.BYE_DONE): _P.OVER,
        }
    ),
)


class SourceSession:
    """See the module. `replayed`: the one run of a `dlog send`, whose events are given again from
    the session's first after a restart; `progress` is what the earlier process made durable.
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
        replayed: RunNumber | None = None,
        progress: Progress | None = None,
    ) -> None:
        if len(session) != 16:
            raise ValueError("a session is 16 bytes")
        if replayed is not None and packing.linger_ns is not None:
            raise ValueError("a replay is packed without linger, or it would not repeat itself")
        progress = progress or Progress()
        self.session = session
        self.name = name
        self.host = host
        self.process = process
        self.queue_bytes = queue_bytes
        self.replayed = replayed
        self.replay = replayed is not None
        self.packer = Packer(session, packing)
        self.counts = SourceCounts(progress.refusals_seen)
        self.batches = SourceBatches(session, self.counts, replayed=replayed, progress=progress)
        self.runs = RunsTold()
        self.phase = Phase.GREETING
        self.failure: SourceError | None = None
        # --- what the logger said last
        self.detail = ""  # against us
        self.waiting = ""  # why it grants no credit
        self.told = False  # an acknowledgement has come since HELLO
        self.logger_name = ""
        self.logger_uuid = b""
        self._acknowledged_by = progress.logger_uuid  # b"" where nothing was acknowledged
        self.boot = 0
        self.event_bytes_max = EVENT_BYTES_MAX
        self._message_bytes_max = MESSAGE_BYTES_MAX
        self._limit_bytes = 0
        # --- what is to be said
        self._closing = False
        self._all_given = False  # nothing was taken since the last flush
        self.awaited: list[RunNumber] = []  # by callers that wait without any event
        self._to_answer: set[RunNumber] = set()
        self._answered_ns: dict[RunNumber, int] = {}
        self._refusals_saved = progress.refusals_seen
        self._refusals_confirmed = progress.refusals_seen  # in the last heartbeat
        self._wanted_bytes = 0
        self._wanted_told = 0
        self._settle_bytes = 0
        self._bye_said = False
        # --- times
        self._heartbeat_ns = HEARTBEAT_MS * _MS
        self._hello_at_ns = now_ns
        self._greeted_from = 1
        self._welcomed_ns = now_ns
        self._heartbeat_at_ns = now_ns
        self._bye_at_ns = now_ns
        self._heard_ns = now_ns
        self._moved_ns = now_ns  # when the logger last admitted something, or we went back
        self._patience = _PATIENCE_HEARTBEATS
        self._resend_answered = (0, 0)  # from which number, when
        # --- counts
        self.reconnects = 0
        self.batches_resent = 0
        self.skipped: dict[str, int] = {}

    # --- events in --------------------------------------------------------------------------------

    def check_run(self, run: RunNumber) -> None:
        """Raises `RunEnded` where the run takes no events any more."""
        if self.runs.takes_events(run) or self.batches.repeating:
            return
        if self.replay:
            self._drop_open(run)
        self.runs.check(run)

    def has_room(self, run: RunNumber, size_bytes: int) -> bool:
        """Whether so much of the queue may be taken. Something that is larger than the queue may be
        taken when it is empty; a paused run gets half of it, so that the others go on."""
        queued_bytes = self.batches.queued_bytes
        if queued_bytes and queued_bytes + size_bytes > self.queue_bytes:
            return False
        if run not in self.runs.held:
            return True
        waiting_bytes = self.batches.waiting_bytes(run)
        return not waiting_bytes or waiting_bytes + size_bytes <= self.queue_bytes // 2

    def add(
        self,
        run: RunNumber,
        streams: StreamSet,
        number: EventNumber,
        time_ns: int,
        payload: bytes | bytearray | memoryview,
        now_ns: int,
    ) -> bool:
        """Take one event: whether that is news to who drives `next_message`; else it goes with what
        is waited for already. Raises `RunEnded`; the caller has asked `has_room`."""
        news = self._begin_to_take(run, event_bytes(len(payload)))
        self.packer.add(run, streams, number, time_ns, payload, now_ns)
        return self._enqueue() or news

    def add_many(self, run: RunNumber, streams: StreamSet, events: ManyEvents, now_ns: int) -> bool:
        """The same for events of one stream set."""
        news = self._begin_to_take(run, events.queue_bytes)
        self.packer.add_many(run, streams, events, now_ns)
        return self._enqueue() or news

    def _begin_to_take(self, run: RunNumber, queue_bytes: int) -> bool:
        """Whether no batch is open."""
        self.check_run(run)
        self._all_given = False
        self.batches.take(run, queue_bytes)
        return not self.packer.anything_open

    def check_streams(self, streams: StreamSet) -> None:
        """Raises `SourceError` where these streams are too many for a batch or for the session."""
        if len(streams) > STREAMS_PER_BATCH_MAX:
            raise SourceError(
                f"an event for {len(streams)} streams; at most {STREAMS_PER_BATCH_MAX}"
            )
        for name in streams:
            self.counts.open_stream(name)

    def check_run_has(self, run: RunNumber, streams: StreamSet) -> None:
        """Raises `StreamUnknown` where the run is known, and has not all of these streams. Not of a
        replay: it must come out the same again, whatever was known when."""
        known = self.runs.streams.get(run)
        if known is not None and not known.issuperset(streams) and not self.replay:
            stream = next(name for name in streams if name not in known)
            raise StreamUnknown(stream, run, sorted(known))

    def flush(self) -> int:
        """Close the open batches now. Returns the place behind them, see `settled_before`."""
        if self.replay and not self.batches.repeating:
            for run in self.runs.closing():
                self._drop_open(run)
        self.packer.close_all()
        self._enqueue()
        self._all_given = True
        return self.batches.closed

    def close(self) -> int:
        """Say BYE once everything is acknowledged. Returns what `flush` does."""
        self._closing = True
        return self.flush()

    def _enqueue(self) -> bool:
        """Whether there was anything to send."""
        if not self.packer.anything_closed:
            return False
        self.batches.enqueue(self.packer.taken())
        return True

    # --- what is known ----------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Everything that was taken is settled."""
        return self.batches.empty and not self.packer.anything_open and not self.batches.repeating

    def settled_before(self, place: int) -> bool:
        """The same for what was taken before a `flush` that returned this place."""
        return self.batches.settled_before(place) and not self.batches.repeating

    @property
    def events_pending(self) -> int:
        return self.packer.events - self.batches.events_settled - self.batches.events_run_ended

    @property
    def progress(self) -> Progress:
        """To be made durable; then `progress_saved`."""
        return replace(
            self.batches.progress,
            refusals_seen=self.counts.refusals_seen,
            logger_uuid=self._acknowledged_by,
        )

    def progress_saved(self, progress: Progress) -> None:
        """The caller has accounted for so many refusals: the logger may forget them."""
        self._refusals_saved = max(self._refusals_saved, progress.refusals_seen)

    # --- messages out -----------------------------------------------------------------------------

    def due_ns(self) -> int | None:
        """When `next_message` should be asked again, if nothing happens before."""
        times = [self.packer.due_ns()]
        match self.phase:
            case Phase.GREETING:
                times.append(self._hello_at_ns)
            case Phase.OPEN:
                times += [self._heartbeat_at_ns, self._heard_ns + self._silence_ns]
            case Phase.LEAVING:
                times.append(self._bye_at_ns)
            case Phase.OVER | Phase.REFUSED:
                return None
        return min((time for time in times if time is not None), default=None)

    def next_message(self, now_ns: int) -> bytes | bytearray | None:
        """The next message to send now, or None. Taken as sent; it may be lost."""
        self.packer.close_due(now_ns)
        self._enqueue()
        if self.phase is Phase.OPEN:
            self._watch(now_ns)
        if self.phase is Phase.OPEN:
            message = self._next_when_open(now_ns)
            if message is not None or self.phase is Phase.OPEN:
                return message
        match self.phase:
            case Phase.GREETING:
                return self._hello(now_ns)
            case Phase.LEAVING:
                return self._bye(now_ns)
            case _:
                return None

    def lost(self, now_ns: int) -> None:
        """The connection is gone, and whatever was under way with it."""
        if (self.phase, Happening.SILENCE) not in PHASES.table:
            return
        self.reconnects += self.phase is Phase.OPEN
        self._step(Happening.SILENCE)
        self._greet_at(now_ns)

    def _step(self, happening: Happening) -> None:
        self.phase = PHASES.next(self.phase, happening)

    def _greet_at(self, now_ns: int) -> None:
        self.told = False
        self._hello_at_ns = self._bye_at_ns = now_ns

    @property
    def _silence_ns(self) -> int:
        return HEARTBEATS_MISSED_MAX * self._heartbeat_ns

    def _watch(self, now_ns: int) -> None:
        """What time decides while the session is open."""
        batches = self.batches
        if now_ns - self._heard_ns >= self._silence_ns:
            self.detail = "the logger is silent"
            self.lost(now_ns)
        elif not self.told:
            return
        elif self._all_given and batches.repeating and not batches.anything_queued:
            self._fail("fewer events were given again than the session had")
        elif self._closing and self.idle:
            self._step(Happening.ALL_DONE)
            self._bye_at_ns = now_ns
        elif (
            batches.cursor > batches.admitted + 1
            and now_ns - self._moved_ns >= self._patience * self._heartbeat_ns
        ):
            self._patience = min(2 * self._patience, _PATIENCE_HEARTBEATS_MAX)
            self._go_back(batches.admitted + 1, now_ns)

    def _go_back(self, number: int, now_ns: int) -> None:
        self.batches.cursor = max(number, self.batches.acknowledged + 1)
        self._moved_ns = now_ns

    def _hello(self, now_ns: int) -> bytes | None:
        if now_ns < self._hello_at_ns:
            return None
        self._hello_at_ns = now_ns + self._heartbeat_ns
        lowest, position_bytes = self.batches.lowest()
        self._greeted_from = lowest
        hello = Hello(
            session=self.session,
            name=self.name,
            host=self.host,
            process=self.process,
            lowest=lowest,
            position_bytes=position_bytes,
            refusals_seen=self.counts.refusals_seen,
        )
        return _control(MessageKind.HELLO, hello)

    def _next_when_open(self, now_ns: int) -> bytes | bytearray | None:
        answer = self._end_of_run(now_ns)
        if answer is not None:
            return answer
        # Refusals are confirmed at once: the logger may wait for that to tell of more.
        if now_ns >= self._heartbeat_at_ns or self._refusals_seen > self._refusals_confirmed:
            return self._heartbeat(now_ns)
        batch = self._next_batch(now_ns)
        if batch is not None or self.phase is not Phase.OPEN:
            return batch
        # A message larger than our share of the window is granted only when it is asked for.
        if self._wanted_bytes > self._wanted_told:
            return self._heartbeat(now_ns)
        return self._end_of_run(now_ns)

    def _end_of_run(self, now_ns: int) -> bytes | None:
        """The answer for a run that ends, once all its events have been sent."""
        for run in sorted(self._to_answer):
            if not self.batches.sent_all_of(run):
                continue
            self._to_answer.discard(run)
            self._answered_ns[run] = now_ns
            answer = EndOfRun(session=self.session, run=run, last=self.batches.last_of(run))
            return _control(MessageKind.END_OF_RUN, answer)
        return None

    @property
    def _refusals_seen(self) -> int:
        """How many refusals the logger may forget."""
        return self._refusals_saved if self.replay else self.counts.refusals_seen

    def _heartbeat(self, now_ns: int) -> bytes:
        self._heartbeat_at_ns = now_ns + self._heartbeat_ns
        self._refusals_confirmed = self._refusals_seen
        self._wanted_told = self._wanted_bytes
        heartbeat = Heartbeat(
            session=self.session,
            sent=self.batches.cursor - 1 if self.told else 0,
            refusals_seen=self._refusals_confirmed,
            wanted_bytes=self._wanted_bytes,
            settle_bytes=self._settle_bytes,
            unlisted=self._unlisted(),
        )
        return _control(MessageKind.HEARTBEAT, heartbeat)

    def _unlisted(self) -> list[int]:
        """Runs that are waited for and that the logger has not spoken of: they may begin, or were
        over before we came. While another run is active, events go out without waiting; but those
        of a replay."""
        if not self.told:
            return []
        runs = set(self.awaited)
        if self.replay or not self.runs.any_listed:
            runs |= self.batches.runs_waiting
        return sorted(int(run) for run in runs if not self.runs.state(run))[:_UNLISTED_MAX]

    def _bye(self, now_ns: int) -> bytes | None:
        if now_ns < self._bye_at_ns:
            return None
        self._bye_at_ns = now_ns + self._heartbeat_ns
        self._bye_said = True
        return self.last_words()

    def last_words(self) -> bytes:
        """BYE; also of a session that is given up with events unacknowledged."""
        return _control(MessageKind.BYE, Bye(session=self.session))

    # --- batches out ------------------------------------------------------------------------------

    def _next_batch(self, now_ns: int) -> bytearray | None:
        """The next batch that the window allows, given its number where it has none."""
        batches = self.batches
        self._wanted_bytes = self._settle_bytes = 0
        if not self.told:
            return None
        if batches.admitted < batches.acknowledged:
            self._catch_up(now_ns)
            return None
        while (batch := batches.at_cursor()) is None:
            if not self._number_next():
                return None
        if batch.content is not None and batch.message_bytes > self._message_bytes_max:
            batches.give_up(batch)
        if batch.content is not None and not self._may_go(batch.run):
            return None
        message = batch.message(self.session)
        # A placeholder needs no window: the logger holds nothing for it.
        if batch.content is not None and batch.end_bytes > self._limit_bytes:
            self._wanted_bytes = len(message)
            self._settle_bytes = batches.settle_bytes(self.runs.is_over)
            return None
        if batches.cursor == batches.admitted + 1:
            self._moved_ns = now_ns
        batches.cursor += 1
        self.batches_resent += batch.sent
        batch.sent = True
        return message

    def _catch_up(self, now_ns: int) -> None:
        """HELLO named a batch that was acknowledged meanwhile, and the logger waits for it: HELLO
        again, as soon as the number and position of the right one are known."""
        batches = self.batches
        while batches.last < batches.acknowledged and self._number_next():
            pass
        if batches.last >= batches.acknowledged and self.phase is Phase.OPEN:
            self._step(Happening.SILENCE)
            self._greet_at(now_ns)

    def _number_next(self) -> bool:
        """Give the next packed batch its number; whether to look on."""
        batches = self.batches
        run = batches.next_run(self.runs.held)
        if run is None:
            return False
        if self.runs.is_over(run) and not batches.repeating:
            batches.drop_run(run)
            return True
        if self.replay and not batches.repeating and not self.runs.may_send(run):
            # A file has time. Sent now, its events would be orphans, or refused.
            return False
        length = batches.next_bytes(run)
        too_large = length > self._message_bytes_max
        if too_large and batches.next_events(run) > 1 and not self.replay:
            batches.cut_next(run, self._message_bytes_max)
            return True
        if not batches.repeating and not too_large:
            if not self._may_go(run):
                return False
            if batches.end_bytes + length > self._limit_bytes:
                self._wanted_bytes = length
                return False
        try:
            batches.number_next(run)
        except SourceRefused as error:
            self._fail(str(error))
            return False
        return True

    def _may_go(self, run: RunNumber) -> bool:
        """While no run is listed there may be window left, but what is sent is refused: a batch
        waits for its run to begin, unless that is over."""
        return self.runs.any_listed or self.runs.is_over(run)

    # --- messages in ------------------------------------------------------------------------------

    def receive(self, message: bytes | memoryview, now_ns: int) -> None:
        """What the logger says. What cannot be understood is skipped and counted."""
        try:
            view = memoryview(message)
            kind = check_frame(view, FRAME_BYTES + CONTROL_MESSAGE_BYTES_MAX)
            self._dispatch(kind, control_body(view), now_ns)
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
            case MessageKind.RUN_STREAMS:
                told = decode_body(body, RunStreams)
                if self._ours(told.session, now_ns) and told.boot == self.boot:
                    self.runs.learn_streams(told)
            case MessageKind.BYE_DONE:
                done = decode_body(body, ByeDone)
                if self._ours(done.session, now_ns) and self.phase is Phase.LEAVING:
                    self._step(Happening.BYE_DONE)
            case _:
                self._skip(f"kind-{kind}")

    def _skip(self, what: str) -> None:
        known = what in self.skipped or len(self.skipped) < _SKIPPED_KINDS_MAX
        key = what if known else "other"
        self.skipped[key] = self.skipped.get(key, 0) + 1

    def _ours(self, session: bytes, now_ns: int) -> bool:
        if session != self.session:
            self._skip("session")
            return False
        self._heard_ns = now_ns
        return True

    def _on_welcome(self, welcome: Welcome, now_ns: int) -> None:
        if self.phase is Phase.OPEN and welcome.boot != self.boot:
            self.lost(now_ns)
        if self._is_another(welcome.logger_uuid):
            self._wait_for_ours(welcome.logger, welcome.logger_uuid, "it takes this session")
            return
        # In OPEN it answers a HELLO that was said again for want of an answer: all batches went out
        # behind it, so nothing was lost.
        if self.phase is not Phase.GREETING:
            return
        self._step(Happening.WELCOMED)
        self.told = False
        self._welcomed_ns = now_ns
        self._heartbeat_ns = max(_HEARTBEAT_MS_MIN, welcome.heartbeat_ms) * _MS
        if self.logger_uuid not in (b"", welcome.logger_uuid):
            self.runs = RunsTold()  # it says nothing of the runs of the other one
        elif self.boot not in (0, welcome.boot):
            self.runs.logger_restarted(now_ns + self._silence_ns)
        self.boot = welcome.boot
        self.logger_name = welcome.logger
        self.logger_uuid = welcome.logger_uuid
        self.detail = ""
        self._message_bytes_max = welcome.message_bytes_max
        # In a replay an event has its place whatever the limit, and is refused there.
        if not self.replay:
            self.event_bytes_max = min(EVENT_BYTES_MAX, welcome.event_bytes_max)
            self.packer.bound(welcome.message_bytes_max)
        self._heartbeat_at_ns = now_ns
        self._wanted_told = 0
        self._answered_ns.clear()

    def _on_acknowledgement(self, ack: Acknowledgement, now_ns: int) -> None:
        if self.phase is not Phase.OPEN:
            return
        if ack.boot != self.boot:
            # An older one is a message from before a restart; a newer one tells of a restart.
            if ack.boot > self.boot:
                self.detail = f"the logger was started again (boot {ack.boot})"
                self.lost(now_ns)
            return
        if not self._plausible(ack, now_ns):
            return
        batches = self.batches
        self.counts.refusals(ack)
        self.counts.learn_diverted(ack)
        if ack.next > batches.admitted + 1 or not self.told:
            self._moved_ns = now_ns
            self._patience = _PATIENCE_HEARTBEATS
        if not self.told:
            # What is below is admitted; what is above was dropped, or never came.
            batches.cursor = min(ack.next, batches.last + 1)
        batches.acknowledge(ack.acknowledged, ack.selective, ack.next - 1)
        if ack.acknowledged or ack.selective:
            self._acknowledged_by = self.logger_uuid
        self.told = True
        self._limit_bytes = ack.limit_bytes
        self.waiting = ack.waiting[:_DETAIL_LETTERS_MAX]
        self._learn_runs(ack, now_ns)

    def _plausible(self, ack: Acknowledgement, now_ns: int) -> bool:
        """Whether the logger can mean this session as we know it; if not, it is given up."""
        batches = self.batches
        highest = max(ack.acknowledged, ack.next - 1, *(last for _, last in ack.selective), 0)
        if ack.next < self._greeted_from and not self.told:
            # The answer to an earlier HELLO, or a logger that cannot have written our session.
            if ack.acknowledged >= self._greeted_from - 1:
                # It has, and an earlier HELLO that came late set it back: it is told again.
                if now_ns - self._welcomed_ns >= self._heartbeat_ns:
                    self._step(Happening.SILENCE)
                    self._greet_at(now_ns)
            elif now_ns - self._welcomed_ns >= self._silence_ns:
                self._fail(
                    f"the logger expects batch {ack.next}, although it has acknowledged all up to "
                    f"{self._greeted_from - 1}: it has lost its journal"
                )
            return False
        if highest > batches.last and not self.replay:
            self._fail(f"the logger knows a batch {highest}; {batches.last} were sent")
        return self.phase is Phase.OPEN

    def _on_resend(self, resend: Resend, now_ns: int) -> None:
        if self.phase is not Phase.OPEN or resend.boot != self.boot or not self.told:
            return
        if not self.batches.acknowledged < resend.next < self.batches.cursor:
            return
        # One for each batch that was under way: only the first of them asks for something new.
        number, when_ns = self._resend_answered
        if number == resend.next and now_ns - when_ns < self._heartbeat_ns:
            return
        self._resend_answered = (resend.next, now_ns)
        self._go_back(resend.next, now_ns)

    def _on_refused(self, refused: Refused, now_ns: int) -> None:
        if self.phase in (Phase.REFUSED, Phase.OVER):
            return
        self.detail = f"{refused.code}: {refused.detail}"[:_DETAIL_LETTERS_MAX]
        another = self._is_another(refused.logger_uuid)
        if another:
            self._wait_for_ours(refused.logger, refused.logger_uuid, self.detail)
        if refused.retry or (another and not self._bye_said):
            again = self.phase is not Phase.GREETING
            self._step(Happening.REFUSED_FOR_NOW)
            if again:
                self._greet_at(now_ns)
        elif self._bye_said:
            # Nothing is left that could be lost: BYE was carried out, its answer was not heard.
            self._step(Happening.REFUSED_AFTER_BYE)
        else:
            self._fail(self.detail)

    def _is_another(self, uuid: bytes) -> bool:
        """Whether it is not the logger that has acknowledged batches of this session: what that one
        does not have yet belongs to it, and nothing is given up on the word of another."""
        return self._acknowledged_by not in (b"", uuid)

    def _wait_for_ours(self, name: str, uuid: bytes, said: str) -> None:
        self.detail = (
            f"another logger ({name}, {uuid.hex()}) is at this address; waiting for "
            f"{self._acknowledged_by.hex()}, which has acknowledged events. It said: {said}"
        )[:_DETAIL_LETTERS_MAX]

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
        elif not self.batches.repeating:
            self._drop_open(run)

    def _end_run(self, run: RunNumber) -> None:
        """The run is over: what was not sent is given up, and counted."""
        self._to_answer.discard(run)
        self._answered_ns.pop(run, None)
        if not self.batches.repeating:
            self._drop_open(run)
            self.batches.drop_run(run)

    def _drop_open(self, run: RunNumber) -> None:
        """Give up the run's open batches. Of a replay: sent as they are, cut short, they would not
        come out the same when the events are given again; so nothing may follow them either."""
        before = self.batches.closed
        self.packer.close_run(run)
        self._enqueue()
        self.batches.drop_newest(run, self.batches.closed - before)
        self.batches.given_up = self.replay


def _control(kind: MessageKind, body: msgspec.Struct) -> bytes:
    return encode_control(kind, encode_body(body))
