"""The event server: takes batches from the sources, admits them, and hands their pieces on.

One thread drives it. It decides by `core/` alone, acknowledges only what the committer says is
committed, and never touches a file or the journal.
"""

from __future__ import annotations

import logging
import queue
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import msgspec

from dlog.core.admission import Admission, hello_problem
from dlog.core.batch import Batch, decode_framed_batch
from dlog.core.block import Checksums, OrphanReason
from dlog.core.fate import TOO_MANY_STREAMS, Fate, Verdict
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.journal_records import SessionRecord
from dlog.core.pieces import Piece, select, split
from dlog.core.rotation import Selection
from dlog.core.states import ConnectionEvent, ConnectionState, RunState
from dlog.core.window import Account, grant, grant_to_settle
from dlog.errors import MessageError
from dlog.limits import (
    CLOSED_SESSIONS_MAX,
    EVENT_BYTES_MAX,
    HEARTBEAT_MS,
    MESSAGE_BYTES_MAX,
    REFUSALS_TOLD_MAX,
    RUNS_ACTIVE_MAX,
    SELECTIVE_RANGES_MAX,
    SESSIONS_MAX,
)
from dlog.model.ids import (
    NO_RUN,
    ORPHAN_STREAM,
    BootNumber,
    MarkKey,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
    valid_run_number,
)
from dlog.model.messages import (
    Acknowledgement,
    Bye,
    ByeDone,
    DivertedEvents,
    EndOfRun,
    Heartbeat,
    Hello,
    Refused,
    RefusedRange,
    Resend,
    RunStreams,
    Welcome,
    decode_body,
    encode_body,
)
from dlog.model.status import ConnectionStatus
from dlog.ports import Alarms, Clock, EventLink
from dlog.services.committer import Committer, Settled, Settlement
from dlog.services.routes import PieceTaker, Routes
from dlog.services.sessions import SILENCE_NS_MAX, Session, Sessions, count_skipped
from dlog.services.source_alarms import SourceAlarms

log = logging.getLogger("dlog.events")

HEARTBEAT_NS: Final = HEARTBEAT_MS * 1_000_000

_CLOSED: Final = "a newer session took over the name, or the session expired"
_ORPHAN_REASONS: Final = {reason.words: reason for reason in OrphanReason}


class _Routed(NamedTuple):
    """A piece of a batch, and who takes it; None: it is refused."""

    mark: MarkKey
    chosen: Selection
    verdict: Verdict
    taker: PieceTaker | None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this logger is, for WELCOME and REFUSED."""

    name: str
    uuid: bytes
    boot: BootNumber


class EventServer:
    """`routes`, `settled`, `drain` and `stop` are called from any thread; the rest by its own."""

    def __init__(
        self,
        identity: Identity,
        link: EventLink,
        committer: Committer,
        clock: Clock,
        alarms: Alarms,
        *,
        memory_bytes: int,
        expiry_seconds: float,
        finished_run: Callable[[RunNumber], RunState | None],
        drained: Callable[[RunNumber], None],
    ) -> None:
        self._identity = identity
        self._link = link
        self._committer = committer
        self._clock = clock
        self._alarms = SourceAlarms(alarms)
        self._memory_bytes = memory_bytes
        # A message must leave room for others in the memory that the windows share.
        self._message_bytes_max = min(MESSAGE_BYTES_MAX, memory_bytes // 4)
        self._expiry_ns = int(expiry_seconds * 1e9)
        self._finished_run = finished_run
        self._drained = drained
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._routes = Routes()
        self._sessions = Sessions(clock)
        self._draining: dict[RunNumber, set[SessionId]] = {}
        self._next_tick_ns = 0
        self._held_by_the_gone = 0  # bytes in memory that no live session answers for
        self._stopping = False
        self._quiet = False
        self.strangers: Counter[str] = Counter()  # what came outside any session, by reason
        committer.listen(self)

    # --- from any thread ---------------------------------------------------------------------

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        self._link.wake()

    def routes(self, routes: Routes, applied: Callable[[], None] | None = None) -> None:
        """New routes; `applied` is called once no piece goes by the old ones any more."""

        def apply() -> None:
            self._apply(routes)
            if applied is not None:
                applied()

        self._post(apply)

    def settled(self, news: Sequence[Settled]) -> None:
        self._post(lambda: self._take_settled(news))

    def drain(self, run: RunNumber) -> None:
        """Ask every session for the end of the run; `drained` is called when all are through."""
        self._post(lambda: self._start_draining(run))

    def quiesce(self) -> None:
        """Take nothing any more, but go on acknowledging. What comes is sent again later."""

        def quiesce() -> None:
            self._quiet = True

        self._post(quiesce)

    def stop(self) -> None:
        """Make `run` return."""

        def stop() -> None:
            self._stopping = True

        self._post(stop)

    def connections(self) -> list[ConnectionStatus]:
        """For status; a moment's view from another thread. What came outside any session is one
        connection without a name."""
        found = [s.status() for s in self._sessions if not s.closed]
        if self.strangers:
            found.append(
                ConnectionStatus(
                    kind="source",
                    state=str(ConnectionState.REFUSED),
                    skipped=dict(self.strangers),
                    detail="outside any session",
                )
            )
        return found

    @property
    def has_sessions(self) -> bool:
        """Whether any session is open: its source may have events. A moment's view."""
        return any(not session.closed for session in self._sessions)

    def memory_in_use(self) -> int:
        """Bytes of messages that were admitted and are not settled; a moment's view."""
        return sum(max(0, s.state.high_position - s.state.settled_bytes) for s in self._sessions)

    # --- its own thread ----------------------------------------------------------------------

    def load(self, sessions: Sequence[SessionRecord], marks: Mapping[MarkKey, int]) -> None:
        """The live sessions and watermarks of the journal; before anything else."""
        self._sessions.load(sessions, marks)

    def use(self, link: EventLink, *, memory_bytes: int, expiry_seconds: float) -> None:
        """Go on with other parameters (INIT), while nobody drives it. The sessions stay: pieces
        that were admitted may still be on their way, and the journal does not know them yet."""
        if link is not self._link:
            for session in self._sessions:
                session.happened(ConnectionEvent.DROPPED)
                self._sessions.disconnect(session)
        self._link = link
        self._memory_bytes = memory_bytes
        self._message_bytes_max = min(MESSAGE_BYTES_MAX, memory_bytes // 4)
        self._expiry_ns = int(expiry_seconds * 1e9)
        self._stopping = False

    def run(self) -> None:
        """Until `stop`. Raises what makes the logger fail."""
        # The first that is asked for is the routes. Before they stand nothing is said to a source:
        # a run that is not told of looks like one that is over.
        self._inbox.get()()
        while not self._stopping:
            self.step(self._patience_ms())

    def step(self, timeout_ms: int = 0) -> None:
        messages = self._link.receive(timeout_ms)
        # First what was asked for before these were sent: events for a run whose START RUN was
        # answered must not be judged by the routes before it.
        self.work()
        for peer, message, address in messages:
            if not self._quiet:
                self.receive(peer, message, address)

    def work(self) -> None:
        """What other threads asked for, and what is due."""
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                break
            action()
        if self._clock.monotonic_ns() >= self._next_tick_ns:
            self._tick()

    def _patience_ms(self) -> int:
        return max(0, min(HEARTBEAT_MS, (self._next_tick_ns - self._clock.monotonic_ns()) // 10**6))

    # --- messages ----------------------------------------------------------------------------

    def receive(self, peer: bytes, message: memoryview, address: str) -> None:
        """One message of a source. Whatever is wrong with it is counted and reported; nothing of a
        malformed one is used."""
        session = self._sessions.connected_by(peer)
        if session is not None:
            session.came(len(message), self._clock)
        try:
            kind = check_frame(message, MESSAGE_BYTES_MAX)
            self._dispatch(kind, peer, session, message, address)
        except MessageError as error:
            self._malformed(peer, session, address, error)

    def _dispatch(
        self, kind: int, peer: bytes, session: Session | None, message: memoryview, address: str
    ) -> None:
        if kind == MessageKind.HELLO:
            self._hello(peer, decode_body(control_body(message), Hello), address)
        elif kind not in (
            MessageKind.EVENTS,
            MessageKind.HEARTBEAT,
            MessageKind.END_OF_RUN,
            MessageKind.BYE,
        ):
            skipped = session.skipped if session is not None else self.strangers
            count_skipped(skipped, f"unknown-type-{kind}")
        elif session is None or session.closed or session.opening:
            if kind == MessageKind.BYE and session is None:
                self._bye_without_hello(peer)
            elif session is None or not session.opening:
                self._refuse(peer, _session_of(peer), "unknown-session", "say HELLO first", True)
        else:
            if not session.alive:
                self._found_again(session)
            self._of_session(kind, session, message)

    def _of_session(self, kind: int, session: Session, message: memoryview) -> None:
        """A message of a session that is open."""
        if kind == MessageKind.EVENTS:
            self._batch(session, decode_framed_batch(message))
        elif kind == MessageKind.HEARTBEAT:
            self._heartbeat(session, decode_body(control_body(message), Heartbeat))
        elif kind == MessageKind.END_OF_RUN:
            self._end_of_run(session, decode_body(control_body(message), EndOfRun))
        else:
            decode_body(control_body(message), Bye)
            self._bye(session)

    def _malformed(
        self, peer: bytes, session: Session | None, address: str, error: MessageError
    ) -> None:
        count_skipped(session.skipped if session is not None else self.strangers, error.reason)
        called = session.name if session is not None else _name_of(peer)
        self._alarms.malformed(session, f"{called} at {address}", str(error))
        if session is not None and error.reason in ("crc", "length", "truncated"):
            # Damaged on its way, perhaps: the next try may be whole. It is asked for once.
            self._ask_resend(session, str(error))

    # --- sessions ----------------------------------------------------------------------------

    def _hello(self, peer: bytes, hello: Hello, address: str) -> None:
        session_id = SessionId(hello.session)
        problem = hello_problem(peer, hello)
        if problem:
            self._refuse(peer, session_id, "bad-name", problem, False)
            return
        known = self._sessions.get(session_id)
        rival = self._sessions.named(hello.name)
        now_ns = self._clock.monotonic_ns()
        if known is not None and known.closed and known.name in ("", hello.name):
            # Before its name is looked at: whoever has that would make it wait for nothing.
            self._refuse(peer, session_id, "closed", _CLOSED, False)
        elif rival is not None and rival.id != session_id and rival.holds_name:
            self._refuse(
                peer,
                session_id,
                "name-in-use",
                f"a source named {hello.name} is connected from {rival.host} process "
                f"{rival.process} ({rival.address})",
                True,
            )
            self._alarms.name_in_use(hello, address, now_ns)
        elif rival is not None and rival.id != session_id and rival.may_come_back(now_ns):
            self._refuse(
                peer,
                session_id,
                "name-in-use",
                f"a source named {hello.name}, on {rival.host} process {rival.process}, may come "
                "back: the logger was started again",
                True,
            )
        elif known is None:
            self._open(peer, hello, address, rival)
        elif known.name and known.name != hello.name:
            self._refuse(
                peer, session_id, "bad-name", f"the session is that of {known.name}", False
            )
        elif known.opening:
            return
        elif not known.state.accepts(hello):
            self._refuse(
                peer,
                session_id,
                "gap",
                f"lowest unacknowledged batch {hello.lowest}, but only {known.state.acknowledged} "
                "is acknowledged",
                False,
            )
            self._alarms.gap(hello, known.state.acknowledged)
        else:
            self._reopen(known, peer, hello, address)

    def _open(self, peer: bytes, hello: Hello, address: str, rival: Session | None) -> None:
        """A session that the journal does not know."""
        if hello.lowest != 1:
            self._refuse(
                peer,
                SessionId(hello.session),
                "expired",
                f"the session is not known (any more), and begins at batch {hello.lowest}",
                False,
            )
            return
        if sum(not s.closed for s in self._sessions) >= SESSIONS_MAX and not self._make_room():
            self._refuse(
                peer, SessionId(hello.session), "too-many", f"{SESSIONS_MAX} sessions", True
            )
            return
        record = SessionRecord(
            session=hello.session,
            name=hello.name,
            host=hello.host,
            process=hello.process,
            since_ns=self._clock.wall_ns(),
        )
        if rival is not None:
            rival.closed = True
            self._sessions.disconnect(rival)
            self._alarms.over(rival)
            log.info("session of %s closed: a new one took over the name", rival.name)
        session = self._sessions.add(record, peer, address)
        session.opening = True
        closing = rival.id if rival is not None else None
        self._committer.submit_made(
            lambda c: [
                *(c.close_session(closing, forget=False) if closing else []),
                *c.open_session(record),
            ],
            then=lambda: self._post(lambda: self._opened(session)),
        )

    def _make_room(self) -> bool:
        """Sources that died without a word must not keep new ones out until they expire: the one
        that is gone for longest goes. False where all are here."""
        gone = [s for s in self._sessions if not s.closed and not s.holds_name]
        if gone:
            self._expire(min(gone, key=lambda s: s.heard_ns))
        return bool(gone)

    def _reopen(self, session: Session, peer: bytes, hello: Hello, address: str) -> None:
        if session.state.rebuilt:
            self._adopt(session, hello)
        self._sessions.reconnect(session, peer, address, hello.name, hello.host, hello.process)
        session.state.reopen(hello)
        session.resend_asked = 0
        self._opened(session)

    def _adopt(self, session: Session, hello: Hello) -> None:
        """A session of a rebuilt journal: its source says where it stands."""
        state = session.state
        if not state.adopt(hello):
            seen = state.refused_from
            self._committer.submit_made(lambda c: c.refusals_seen(session.id, seen))
            return
        record = SessionRecord(
            session=session.id,
            name=hello.name,
            host=hello.host,
            process=hello.process,
            acknowledged=state.acknowledged,
            position_bytes=state.settled_bytes,
            since_ns=session.since_ns,
            refused=list(state.refused),
            refused_from=state.refused_from,
            diverted=list(state.diverted),
        )
        self._committer.submit_made(lambda c: c.open_session(record))

    def _opened(self, session: Session) -> None:
        """The session is in the journal: it may send."""
        session.opening = False
        if session.closed:
            return
        session.happened(ConnectionEvent.ACCEPTED)
        session.since_ns = self._clock.wall_ns()
        self._alarms.opened(session)
        log.info(
            "source %s connected from %s (%s), from batch %d",
            session.name,
            session.host,
            session.address,
            session.state.admitted + 1,
        )
        self._send(
            session,
            MessageKind.WELCOME,
            Welcome(
                session=session.id,
                boot=self._identity.boot,
                logger=self._identity.name,
                logger_uuid=self._identity.uuid,
                heartbeat_ms=HEARTBEAT_MS,
                message_bytes_max=self._message_bytes_max,
                event_bytes_max=min(EVENT_BYTES_MAX, self._message_bytes_max - 65536),
            ),
        )
        self._tell_streams(session, self._routes.runs)
        self._grant()
        self._acknowledge(session)

    def _tell_streams(self, session: Session, runs: Iterable[RunNumber]) -> None:
        """So that a source that misspells a stream is told by its library, with the next event."""
        for run in runs:
            route = self._routes.runs[run]
            if route.state is RunState.STARTING:
                continue
            streams = sorted(map(str, route.writers))
            message = RunStreams(
                session=session.id, boot=self._identity.boot, run=run, streams=streams
            )
            self._send(session, MessageKind.RUN_STREAMS, message)

    def _heartbeat(self, session: Session, heartbeat: Heartbeat) -> None:
        state = session.state
        state.wanted = min(heartbeat.wanted_bytes, self._message_bytes_max)
        state.settle = max(0, heartbeat.settle_bytes)
        for run in filter(valid_run_number, heartbeat.unlisted[:RUNS_ACTIVE_MAX]):
            if run not in self._routes.runs and self._finished_run(RunNumber(run)) is not None:
                session.tell_ended(run)
        if heartbeat.refusals_seen > state.refused_from:
            seen = min(heartbeat.refusals_seen, state.refused_from + len(state.refused))
            state.refused = state.refused[seen - state.refused_from :]
            state.refused_from = seen
            self._committer.submit_made(
                lambda c: c.refusals_seen(session.id, seen),
                then=lambda: self.settled(self._committer.settled_now(session.id)),
            )
        if heartbeat.sent > state.admitted and not session.resend_asked:
            # The last messages before a pause may have been lost around a reconnection.
            self._ask_resend(session, f"batch {heartbeat.sent} was sent and did not come")
        elif heartbeat.sent > state.admitted:
            session.resend_asked = 0
        self._grant()

    def _found_again(self, session: Session) -> None:
        """A source that was missed and is heard: it has its window back before anything of it is
        judged, since all of this time it may have sent by the old one."""
        session.happened(ConnectionEvent.ACCEPTED)
        self._alarms.heard(session)
        self._tell_streams(session, self._routes.runs)
        self._grant()

    def _end_of_run(self, session: Session, answer: EndOfRun) -> None:
        run = RunNumber(answer.run)
        if run in self._draining:
            session.state.end_of_run[run] = answer.last
            self._look_at_draining()

    def _bye(self, session: Session) -> None:
        """The session is over: its watermarks go with it."""
        session.closed = session.forgetting = True

        def forgotten() -> None:
            self._say_bye_done(session.peer, session.id)
            self._drop(session)

        self._committer.submit_made(
            lambda c: c.close_session(session.id, forget=True),
            then=lambda: self._post(forgotten),
        )

    def _bye_without_hello(self, peer: bytes) -> None:
        """The first answer was lost, or this boot knows the session from the journal alone."""
        session = self._sessions.get(_session_of(peer))
        if session is None or session.forgetting:
            self._say_bye_done(peer, _session_of(peer))
        elif peer == session.name.encode() + b"/" + session.id:
            session.peer = peer
            self._bye(session)

    def _say_bye_done(self, peer: bytes, session: SessionId) -> None:
        message = encode_body(ByeDone(session=session))
        self._link.send(peer, encode_control(MessageKind.BYE_DONE, message))

    def _drop(self, session: Session) -> None:
        self._sessions.remove(session)
        self._gone(session)

    def _gone(self, session: Session) -> None:
        """Nobody waits for its source any more."""
        self._look_at_the_gone()
        if self._sessions.named(session.name) in (None, session):  # else it is another one's
            self._alarms.over(session)
        log.info("source %s is gone, with its session", session.name)
        self._look_at_draining()

    # --- batches -----------------------------------------------------------------------------

    def _batch(self, session: Session, batch: Batch) -> None:
        n = batch.sequence
        if batch.session != session.id:
            raise MessageError("session", f"batch {n} names another session than its connection")
        admission, why = session.state.judge(batch, self._memory_bytes)
        match admission:
            case Admission.ADMIT:
                pieces = self._routed(batch)
                if not all(session.may_go_to(piece.mark, piece.taker) for piece in pieces):
                    # It is not asked for at once: the source's heartbeat makes us ask.
                    count_skipped(session.skipped, "before-its-turn")
                    return
                session.resend_asked = 0
                session.state.admit(batch)
                self._admit(session, batch, pieces)
            case Admission.DUPLICATE:
                session.state.admit(batch)
                self._count_duplicates(session, batch)
            case Admission.GAP:
                count_skipped(session.skipped, "out-of-sequence")
                self._ask_resend(session, why)
            case Admission.WINDOW:
                count_skipped(session.skipped, "window")
                if session.state.was_granted(batch):
                    self._ask_resend(session, why)
                else:
                    self._alarms.window(session, why)

    def _routed(self, batch: Batch) -> list[_Routed]:
        """The pieces of a batch, with who takes them now."""
        if batch.settled:
            return []
        return [
            _Routed(mark, chosen, *self._routes.taker_of(mark, self._finished_run))
            for mark, chosen in split(batch)
        ]

    def _admit(self, session: Session, batch: Batch, pieces: Sequence[_Routed]) -> None:
        """Hand each piece to whom it is meant for; each is one of the batch's shares."""
        if batch.settled:
            self._settle(session, batch, 1, None, count=(NO_RUN, ORPHAN_STREAM), events=0)
            return
        for piece in pieces:
            self._admit_piece(session, batch, piece, len(pieces))

    def _admit_piece(self, session: Session, batch: Batch, piece: _Routed, shares: int) -> None:
        mark, chosen, verdict, taker = piece
        settle = partial(
            self._settle,
            session,
            batch,
            shares,
            count=self._routes.counted_as(mark),
            events=_chosen_events(batch, chosen),
        )
        if session.state.is_duplicate(mark, batch.sequence):
            settle(mark, duplicate=True)
            return
        if not session.state.has_room_for(mark):
            settle(mark, reason=TOO_MANY_STREAMS, watermark=False)
            return
        session.state.mark(mark, batch.sequence)
        session.takers[mark.run, mark.stream] = (taker, batch.sequence)
        if taker is None:
            settle(mark, reason=verdict.reason)
            self._alarms.refused(session, StreamKey(mark.run, mark.stream), verdict.reason)
            return
        if verdict.fate is Fate.ORPHAN:
            self._tell_orphan(session, mark, _chosen_events(batch, chosen), verdict.reason)
        table, payload = select(batch.table, batch.payload, chosen)
        whole = table is batch.table
        taker.offer(
            Piece(
                mark,
                session.name,
                batch.sequence,
                batch.order_base,
                table,
                payload,
                shares,
                batch.message_bytes,
                _ORPHAN_REASONS.get(verdict.reason, OrphanReason.NONE),
                Checksums(batch.table_crc, batch.payload_crc) if whole else None,
                batch.numbers if whole else None,
            )
        )

    def _tell_orphan(self, session: Session, mark: MarkKey, number: int, reason: str) -> None:
        route = self._routes.runs.get(mark.run)
        if route is not None:
            there = f"run {mark.run} has the streams {', '.join(sorted(map(str, route.writers)))}"
        else:
            there = "active runs: " + (", ".join(map(str, sorted(self._routes.runs))) or "none")
        stream = StreamKey(mark.run, mark.stream)
        self._alarms.orphan(session, stream, number, f"{reason}; {there}")

    def _count_duplicates(self, session: Session, batch: Batch) -> None:
        """A batch that was admitted before: its pieces only count."""
        if batch.settled:
            return
        for mark, chosen in split(batch):
            self._settle(
                session,
                batch,
                0,
                mark,
                count=self._routes.counted_as(mark),
                events=_chosen_events(batch, chosen),
                duplicate=True,
            )

    def _settle(
        self,
        session: Session,
        batch: Batch,
        shares: int,
        mark: MarkKey | None,
        *,
        count: tuple[RunNumber, StreamName],
        events: int,
        duplicate: bool = False,
        reason: str = "",
        watermark: bool = True,
    ) -> None:
        self._committer.settle(
            Settlement(
                session.id,
                batch.sequence,
                shares,
                batch.message_bytes,
                session.name,
                mark,
                *count,
                duplicate=events if duplicate else 0,
                refused=events if reason else 0,
                reason=reason,
                watermark=watermark,
            )
        )

    def _ask_resend(self, session: Session, why: str) -> None:
        """Once for each gap; the source's heartbeat makes us ask again."""
        following = session.state.admitted + 1
        if session.resend_asked == following:
            return
        session.resend_asked = following
        log.info("%s: asked to send again from batch %d: %s", session.name, following, why)
        self._send(
            session,
            MessageKind.RESEND,
            Resend(session=session.id, boot=self._identity.boot, next=following, why=why),
        )

    # --- acknowledgements --------------------------------------------------------------------

    def _take_settled(self, news: Sequence[Settled]) -> None:
        told = []
        for settled in news:
            session = self._sessions.get(settled.session)
            if session is None:
                continue
            state = session.state
            state.acknowledged = settled.acknowledged
            state.settled_bytes = settled.settled_bytes
            state.selective = settled.selective
            state.diverted = settled.diverted
            # The commit may be older than what the source has confirmed, and tell a new one too.
            seen = max(state.refused_from, settled.refused_from)
            state.refused = settled.refused[seen - settled.refused_from :]
            state.refused_from = seen
            state.refused_whole = settled.refused_from + REFUSALS_TOLD_MAX
            told.append(session)
        self._grant()
        for session in told:
            if session.alive:
                self._acknowledge(session)
        self._look_at_draining()

    def _grant(self) -> None:
        """Raise the limits of the live sessions, where a run is active and there is space. While no
        run is, raise them only for what is to be settled."""
        if self._routes.any_active and self._routes.waiting:
            return
        alive = {s.id: s.state for s in self._sessions if s.alive}
        accounts = {
            session: Account(
                state.settled_bytes, state.limit, state.wanted, state.high_position, state.settle
            )
            for session, state in alive.items()
            # Batches above too many selective ranges free no window: the list is bounded.
            if len(state.selective) <= SELECTIVE_RANGES_MAX
        }
        out = sum(max(0, s.limit - s.settled_bytes) for i, s in alive.items() if i not in accounts)
        budget = self._memory_bytes - self._held_by_the_gone - out
        if self._routes.any_active:
            limits = grant(accounts, budget, self._message_bytes_max)
        else:
            limits = grant_to_settle(accounts, budget)
        for session, limit in limits.items():
            state = alive[session]
            state.limit, state.limit_told = limit, max(limit, state.limit_told)

    def _acknowledge(self, session: Session) -> None:
        routes, state = self._routes, session.state
        by_state: dict[RunState, list[int]] = {s: [] for s in RunState}
        for run, route in routes.runs.items():
            by_state[route.state].append(int(run))
        active, held = by_state[RunState.ACTIVE], by_state[RunState.PAUSED]
        ending = by_state[RunState.ENDING]
        waiting = routes.waiting or ("" if routes.any_active else "no run is active")
        acknowledged, selective, refused = state.told()
        self._send(
            session,
            MessageKind.ACKNOWLEDGEMENT,
            Acknowledgement(
                session=session.id,
                boot=self._identity.boot,
                acknowledged=acknowledged,
                limit_bytes=state.limit,
                next=state.admitted + 1,
                selective=selective[:SELECTIVE_RANGES_MAX],
                refusals_from=state.refused_from,
                refusals=[
                    RefusedRange(
                        first=r.first,
                        last=r.last,
                        run=r.run,
                        stream=r.stream,
                        reason=r.reason,
                        events=r.events,
                    )
                    for r in refused
                ],
                diverted=[
                    DivertedEvents(run=d.run, stream=d.stream, why=d.why, events=d.events)
                    for d in state.diverted
                ],
                active=active,
                held=held,
                ending=ending,
                ended=session.told({*active, *held, *ending}),
                waiting=waiting,
            ),
        )

    def _send(self, session: Session, kind: MessageKind, message: msgspec.Struct) -> None:
        data = encode_control(kind, encode_body(message))
        if self._link.send(session.peer, data):
            session.went(len(data))

    def _refuse(self, peer: bytes, session: SessionId, code: str, detail: str, retry: bool) -> None:
        refused = count_skipped(self.strangers, f"refused-{code}")
        if refused.bit_count() == 1:  # a peer that tries without end must not fill the log
            log.warning("%s refused (%s, %d by now): %s", _name_of(peer), code, refused, detail)
        message = Refused(
            session=session,
            boot=self._identity.boot,
            logger=self._identity.name,
            logger_uuid=self._identity.uuid,
            code=code,
            detail=detail,
            retry=retry,
        )
        self._link.send(peer, encode_control(MessageKind.REFUSED, encode_body(message)))

    # --- runs --------------------------------------------------------------------------------

    def _apply(self, routes: Routes) -> None:
        before, self._routes = self._routes, routes
        for run in before.runs.keys() - routes.runs.keys():
            self._alarms.run_over([StreamKey(run, name) for name in before.runs[run].writers])
        if routes.runs.keys() - before.runs.keys():
            self._alarms.run_begins(routes.runs.keys())
        news = [
            run
            for run, route in routes.runs.items()
            if run not in before.runs or before.runs[run].state is not route.state
        ]
        for session in self._sessions:
            if session.alive:
                self._tell_streams(session, news)
        for run in [run for run in self._draining if run not in routes.runs]:
            del self._draining[run]
            for session in self._sessions:
                session.state.end_of_run.pop(run, None)
        self._grant()
        self._acknowledge_all()

    def _acknowledge_all(self) -> None:
        for session in self._sessions:
            if session.alive:
                self._acknowledge(session)

    def _start_draining(self, run: RunNumber) -> None:
        """Whom to wait for: who is connected, may come back, or ever sent events of the run."""
        self._draining[run] = {s.id for s in self._sessions if not s.closed}
        self._acknowledge_all()
        self._look_at_draining()

    def _look_at_draining(self) -> None:
        for run, waited_for in list(self._draining.items()):
            left = {s for s in waited_for if not self._is_drained(s, run)}
            for session in waited_for - left:
                self._tell_drained(session, run)
            if left:
                self._draining[run] = left
                continue
            del self._draining[run]
            self._drained(run)

    def _is_drained(self, session_id: SessionId, run: RunNumber) -> bool:
        session = self._sessions.get(session_id)
        if session is None or session.closed or session.state.is_drained(run):
            return True
        # It may hold events that it never got to send, as behind a crash of ours.
        may_hold = session.holds_name or session.may_come_back(self._clock.monotonic_ns())
        return not may_hold and not session.state.sent_events_of(run)

    def _tell_drained(self, session_id: SessionId, run: RunNumber) -> None:
        session = self._sessions.get(session_id)
        if session is not None and session.state.is_drained(run):
            self._committer.submit_made(lambda c: c.drained(session_id, run))

    def waited_for(self, run: RunNumber) -> list[str]:
        """The names of the sources that the end of the run still waits for; from any thread."""
        waited_for = self._draining.get(run, set())
        return sorted(s.name for s in self._sessions if s.id in waited_for)

    # --- time --------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock.monotonic_ns()
        self._next_tick_ns = now + HEARTBEAT_NS
        for session in self._sessions:
            silent_ns = now - session.heard_ns
            if session.alive and silent_ns > SILENCE_NS_MAX:
                self._lose(session, silent_ns)
            elif session.alive:
                self._acknowledge(session)
            elif silent_ns > self._expiry_ns and not session.opening and not session.closed:
                self._expire(session)
        closed = [s for s in self._sessions if s.closed and not s.forgetting]
        for session in closed[:-CLOSED_SESSIONS_MAX]:
            self._forget(session)
        self._look_at_the_gone()
        self._alarms.look_at_names(now)
        self._look_at_draining()

    def _look_at_the_gone(self) -> None:
        """What sources that died or gave up have in memory is not there for others."""
        alive = (s.state for s in self._sessions if s.alive)
        held = sum(max(0, state.high_position - state.settled_bytes) for state in alive)
        self._held_by_the_gone = max(0, self._routes.held_bytes - held)

    def _lose(self, session: Session, silent_ns: int) -> None:
        # What it was granted and did not use is for others; it asks anew when it comes back.
        session.state.limit = min(session.state.limit, session.state.high_position)
        session.happened(ConnectionEvent.DROPPED)
        session.since_ns = self._clock.wall_ns()
        log.warning("source %s lost: silent for %.1f s", session.name, silent_ns / 1e9)
        self._alarms.lost(session)

    def _expire(self, session: Session) -> None:
        """It is remembered as closed: its source may not know that anything of it was stored, and
        would begin anew."""
        log.warning("session of %s expired: its watermarks are dropped", session.name)
        session.closed = True
        self._sessions.disconnect(session)
        self._committer.submit_made(
            lambda c: c.close_session(session.id, forget=False),
            then=lambda: self._post(lambda: self._gone(session)),
        )

    def _forget(self, session: Session) -> None:
        """Of those that are closed the oldest go: so many are remembered."""
        session.forgetting = True
        self._committer.submit_made(
            lambda c: c.close_session(session.id, forget=True),
            then=lambda: self._post(lambda: self._drop(session)),
        )


def _chosen_events(batch: Batch, chosen: Selection) -> int:
    return len(batch.table) if isinstance(chosen, slice) else int(chosen.sum())


def _session_of(peer: bytes) -> SessionId:
    return SessionId(peer[-16:])


def _name_of(peer: bytes) -> str:
    return peer[:-17].decode("ascii", "replace") if len(peer) > 17 else repr(peer)
