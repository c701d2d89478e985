"""The event server: takes batches from the sources, admits them, and hands their pieces on.

One thread drives it. It decides by `core/` alone, acknowledges only what the committer says is
committed, and never touches a file or the journal.
"""

from __future__ import annotations

import logging
import queue
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from dlog.core.batch import Batch, decode_batch
from dlog.core.block import OrphanReason
from dlog.core.fate import TOO_MANY_STREAMS, Fate, Knowledge, Verdict, fate
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.core.journal_records import Refusal, SessionRecord
from dlog.core.pieces import Piece, select, split
from dlog.core.rotation import Selection
from dlog.core.states import CONNECTION, ConnectionEvent, ConnectionState, RunState
from dlog.core.window import Account, grant
from dlog.errors import MessageError, TransitionRefused
from dlog.limits import (
    CLOSED_SESSIONS_MAX,
    EVENT_BYTES_MAX,
    HEARTBEAT_MS,
    HEARTBEATS_MISSED_MAX,
    MESSAGE_BYTES_MAX,
    SELECTIVE_RANGES_MAX,
    SESSIONS_MAX,
    WATERMARKS_PER_SESSION_MAX,
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
    valid_source_name,
)
from dlog.model.messages import (
    Acknowledgement,
    Bye,
    ByeDone,
    EndOfRun,
    Heartbeat,
    Hello,
    Refused,
    RefusedRange,
    Resend,
    Welcome,
    decode_body,
    encode_body,
)
from dlog.model.status import ConnectionStatus
from dlog.ports import Alarms, Clock, EventLink, Severity
from dlog.services.committer import Committer, Settled, Settlement

log = logging.getLogger("dlog.events")

HEARTBEAT_NS: Final = HEARTBEAT_MS * 1_000_000
SKIPPED_KINDS_MAX: Final = 64
ENDED_TOLD_MAX: Final = 256

_ORPHAN_REASONS: Final = {reason.words: reason for reason in OrphanReason}


class PieceTaker(Protocol):
    """A stream's writer, as the event server sees it."""

    def offer(self, piece: Piece) -> None: ...


@dataclass(frozen=True, slots=True)
class RunRoute:
    """A live run: its state, and who takes the events of each of its streams."""

    state: RunState
    writers: Mapping[StreamName, PieceTaker]


@dataclass(frozen=True, slots=True)
class Routes:
    """All live runs, replaced as a whole. closed: runs whose writers take nothing any more, with
    the state that they are going to. waiting: why no credit may be granted though a run is active.
    """

    runs: Mapping[RunNumber, RunRoute] = field(default_factory=lambda: MappingProxyType({}))
    closed: Mapping[RunNumber, RunState] = field(default_factory=lambda: MappingProxyType({}))
    orphans: PieceTaker | None = None
    waiting: str = ""

    @property
    def any_active(self) -> bool:
        return any(r.state is not RunState.STARTING for r in self.runs.values())


@dataclass(eq=False, slots=True)
class _Session:
    """What is known of a session; what is committed of it comes from the committer."""

    id: SessionId
    name: str
    host: str
    process: int
    peer: bytes
    address: str
    state: ConnectionState
    since_ns: int
    heard_ns: int  # monotonic
    admitted: int  # last admitted; a HELLO may set it back
    position: int  # bytes of the session's messages up to and including that one
    high: int  # highest ever admitted in this boot
    high_position: int
    acknowledged: int
    settled_bytes: int
    selective: tuple[tuple[int, int], ...] = ()
    refused: tuple[Refusal, ...] = ()
    refused_from: int = 0
    limit: int = 0
    wanted: int = 0
    marks: dict[tuple[RunNumber, StreamName], int] = field(default_factory=dict)
    end_of_run: dict[RunNumber, int] = field(default_factory=dict)
    runs_told: set[int] = field(default_factory=set)
    ended_told: list[int] = field(default_factory=list)
    closed: bool = False
    rebuilt: bool = False
    opening: bool = False
    forgetting: bool = False
    resend_asked: int = 0
    reconnects: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_message_ns: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    detail: str = ""

    @property
    def alive(self) -> bool:
        return self.state is ConnectionState.CONNECTED


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this logger is, for WELCOME."""

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
        self._alarms = alarms
        self._memory_bytes = memory_bytes
        # A message must leave room for others in the memory that the windows share.
        self._message_bytes_max = min(MESSAGE_BYTES_MAX, memory_bytes // 4)
        self._expiry_ns = int(expiry_seconds * 1e9)
        self._finished_run = finished_run
        self._drained = drained
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._routes = Routes()
        self._sessions: dict[SessionId, _Session] = {}
        self._by_name: dict[str, _Session] = {}
        self._by_peer: dict[bytes, _Session] = {}
        self._draining: dict[RunNumber, set[SessionId]] = {}
        self._next_tick_ns = 0
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
        """For status; a moment's view from another thread."""
        return [self._connection(s) for s in list(self._sessions.values()) if not s.closed]

    def memory_in_use(self) -> int:
        """Bytes of messages that were admitted and are not settled; a moment's view."""
        return sum(max(0, s.high_position - s.settled_bytes) for s in list(self._sessions.values()))

    # --- its own thread ----------------------------------------------------------------------

    def load(self, sessions: Sequence[SessionRecord], marks: Mapping[MarkKey, int]) -> None:
        """The live sessions and watermarks of the journal; before anything else."""
        now = self._clock.monotonic_ns()
        for record in sessions:
            session = self._remember(record, b"", "", now)
            session.state = ConnectionState.LOST
            session.closed = record.closed
            session.rebuilt = record.rebuilt
        for key, sequence in marks.items():
            owner = self._sessions.get(key.session)
            if owner is not None:
                owner.marks[key.run, key.stream] = sequence

    def run(self) -> None:
        """Until `stop`. Raises what makes the logger fail."""
        while not self._stopping:
            self.step(self._patience_ms())

    def step(self, timeout_ms: int = 0) -> None:
        for peer, message, address in self._link.receive(timeout_ms):
            if not self._quiet:
                self.receive(peer, message, address)
        self.work()

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
        session = self._by_peer.get(peer)
        if session is not None:
            session.heard_ns = self._clock.monotonic_ns()
            session.last_message_ns = self._clock.wall_ns()
            session.messages_in += 1
            session.bytes_in += len(message)
        try:
            kind = check_frame(message, MESSAGE_BYTES_MAX)
            self._dispatch(kind, peer, session, message, address)
        except MessageError as error:
            self._malformed(peer, session, address, error)

    def _dispatch(
        self, kind: int, peer: bytes, session: _Session | None, message: memoryview, address: str
    ) -> None:
        if kind == MessageKind.HELLO:
            self._hello(peer, decode_body(control_body(message), Hello), address)
        elif kind not in (
            MessageKind.EVENTS,
            MessageKind.HEARTBEAT,
            MessageKind.END_OF_RUN,
            MessageKind.BYE,
        ):
            self._skip(session, f"unknown-type-{kind}")
        elif session is None or session.closed or session.opening:
            if session is None or not session.opening:
                self._refuse(peer, _session_of(peer), "unknown-session", "say HELLO first", True)
        elif kind == MessageKind.EVENTS:
            self._batch(session, decode_batch(message))
        elif kind == MessageKind.HEARTBEAT:
            self._heartbeat(session, decode_body(control_body(message), Heartbeat))
        elif kind == MessageKind.END_OF_RUN:
            answer = decode_body(control_body(message), EndOfRun)
            session.end_of_run[RunNumber(answer.run)] = answer.last
            if RunNumber(answer.run) not in self._draining:
                session.end_of_run.pop(RunNumber(answer.run))
            self._look_at_draining()
        else:
            decode_body(control_body(message), Bye)
            self._bye(session)

    def _malformed(
        self, peer: bytes, session: _Session | None, address: str, error: MessageError
    ) -> None:
        self._skip(session, error.reason)
        who = session.name if session else _name_of(peer)
        log.warning("message of %s (%s) dropped: %s", who, address, error)
        self._alarms.raise_alarm(
            f"malformed {who}", Severity.WARNING, f"{who} at {address}: {error}"
        )
        if session is not None and error.reason in ("crc", "length", "truncated"):
            # Damaged on its way, perhaps: the next try may be whole. It is asked for once.
            self._ask_resend(session, str(error))

    def _skip(self, session: _Session | None, what: str) -> None:
        counter = session.skipped if session is not None else self.strangers
        if what in counter or len(counter) < SKIPPED_KINDS_MAX:
            counter[what] += 1
        else:
            counter["other"] += 1

    # --- sessions ----------------------------------------------------------------------------

    def _hello(self, peer: bytes, hello: Hello, address: str) -> None:
        session_id = SessionId(hello.session)
        problem = _hello_problem(peer, hello)
        if problem:
            self._refuse(peer, session_id, "bad-name", problem, False)
            return
        known = self._sessions.get(session_id)
        rival = self._by_name.get(hello.name)
        if rival is not None and rival.id != session_id and self._lives(rival):
            self._refuse(
                peer,
                session_id,
                "name-in-use",
                f"a source named {hello.name} is connected from {rival.host} process "
                f"{rival.process} ({rival.address})",
                True,
            )
            self._alarms.raise_alarm(
                f"name-in-use {hello.name}",
                Severity.WARNING,
                f"{hello.name}: second session from {hello.host} process {hello.process} "
                f"({address}) refused",
            )
        elif known is None:
            self._open(peer, hello, address, rival)
        elif known.name and known.name != hello.name:
            self._refuse(
                peer, session_id, "bad-name", f"the session is that of {known.name}", False
            )
        elif known.closed:
            self._refuse(peer, session_id, "closed", "a newer session took over the name", False)
        elif known.opening:
            return
        elif hello.lowest > known.acknowledged + 1 and not known.rebuilt:
            self._refuse(
                peer,
                session_id,
                "gap",
                f"lowest unacknowledged batch {hello.lowest}, but only {known.acknowledged} is "
                "acknowledged",
                False,
            )
            self._alarms.raise_alarm(
                f"gap {hello.name}",
                Severity.ERROR,
                f"{hello.name}: HELLO from batch {hello.lowest}, {known.acknowledged} committed",
            )
        else:
            self._reopen(known, peer, hello, address)

    def _lives(self, session: _Session) -> bool:
        return not session.closed and (session.alive or session.opening)

    def _open(self, peer: bytes, hello: Hello, address: str, rival: _Session | None) -> None:
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
        if sum(not s.closed for s in self._sessions.values()) >= SESSIONS_MAX:
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
            self._forget_peer(rival)
            log.info("session of %s closed: a new one took over the name", rival.name)
        session = self._remember(record, peer, address, self._clock.monotonic_ns())
        session.opening = True
        closing = rival.id if rival is not None else None
        self._committer.submit_made(
            lambda c: [
                *(c.close_session(closing, forget=False) if closing else []),
                *c.open_session(record),
            ],
            then=lambda: self._post(lambda: self._opened(session)),
        )

    def _remember(self, record: SessionRecord, peer: bytes, address: str, now: int) -> _Session:
        session = _Session(
            SessionId(record.session),
            record.name,
            record.host,
            record.process,
            peer,
            address,
            ConnectionState.CONNECTING,
            record.since_ns,
            now,
            record.acknowledged,
            record.position_bytes,
            record.acknowledged,
            record.position_bytes,
            record.acknowledged,
            record.position_bytes,
            refused=tuple(record.refused),
            refused_from=record.refused_from,
            limit=record.position_bytes,
        )
        self._sessions[session.id] = session
        if not record.closed and record.name:
            self._by_name[session.name] = session
        if peer:
            self._by_peer[peer] = session
        return session

    def _reopen(self, session: _Session, peer: bytes, hello: Hello, address: str) -> None:
        if session.rebuilt:
            self._adopt_rebuilt(session, hello)
        self._forget_peer(session)
        session.reconnects += session.peer != b""
        session.peer, session.address = peer, address
        session.host, session.process = hello.host, hello.process
        session.name = hello.name
        self._by_peer[peer] = session
        self._by_name[session.name] = session
        session.heard_ns = self._clock.monotonic_ns()
        session.admitted = hello.lowest - 1
        session.position = hello.position_bytes
        session.resend_asked = 0
        self._opened(session)

    def _adopt_rebuilt(self, session: _Session, hello: Hello) -> None:
        """The blocks tell what is stored, not what was acknowledged: the source knows that."""
        session.rebuilt = False
        if hello.lowest - 1 < session.acknowledged:
            return
        record = SessionRecord(
            session=session.id,
            name=hello.name,
            host=hello.host,
            process=hello.process,
            acknowledged=hello.lowest - 1,
            position_bytes=hello.position_bytes,
            since_ns=session.since_ns,
        )
        session.acknowledged = session.high = record.acknowledged
        session.settled_bytes = session.high_position = record.position_bytes
        session.limit = record.position_bytes
        self._committer.submit_made(lambda c: c.open_session(record))

    def _opened(self, session: _Session) -> None:
        """The session is in the journal: it may send."""
        session.opening = False
        if session.closed:
            return
        self._become(session, ConnectionEvent.ACCEPTED)
        session.since_ns = self._clock.wall_ns()
        self._alarms.clear_alarm(f"source-lost {session.name}")
        self._alarms.clear_alarm(f"name-in-use {session.name}")
        log.info(
            "source %s connected from %s (%s), from batch %d",
            session.name,
            session.host,
            session.address,
            session.admitted + 1,
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
        self._grant()
        self._acknowledge(session)

    def _become(self, session: _Session, event: ConnectionEvent) -> None:
        try:
            session.state = CONNECTION.next(session.state, event)
        except TransitionRefused as error:
            log.debug("%s: %s", session.name, error)

    def _forget_peer(self, session: _Session) -> None:
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer]

    def _heartbeat(self, session: _Session, heartbeat: Heartbeat) -> None:
        session.wanted = min(heartbeat.wanted_bytes, self._message_bytes_max)
        if heartbeat.refusals_seen > session.refused_from:
            seen = min(heartbeat.refusals_seen, session.refused_from + len(session.refused))
            session.refused = session.refused[seen - session.refused_from :]
            session.refused_from = seen
            self._committer.submit_made(lambda c: c.refusals_seen(session.id, seen))
        if heartbeat.sent > session.admitted and not session.resend_asked:
            # The last messages before a pause may have been lost around a reconnection.
            self._ask_resend(session, f"batch {heartbeat.sent} was sent and did not come")
        elif heartbeat.sent > session.admitted:
            session.resend_asked = 0
        if not session.alive:
            self._become(session, ConnectionEvent.ACCEPTED)
            self._alarms.clear_alarm(f"source-lost {session.name}")
        self._grant()

    def _bye(self, session: _Session) -> None:
        """The session is over: its watermarks go with it."""
        session.closed = session.forgetting = True

        def forgotten() -> None:
            self._send(session, MessageKind.BYE_DONE, ByeDone(session=session.id))
            self._drop(session)

        self._committer.submit_made(
            lambda c: c.close_session(session.id, forget=True),
            then=lambda: self._post(forgotten),
        )

    def _drop(self, session: _Session) -> None:
        self._sessions.pop(session.id, None)
        self._forget_peer(session)
        if self._by_name.get(session.name) is session:
            del self._by_name[session.name]
        self._alarms.clear_alarm(f"source-lost {session.name}")
        for kind in ("malformed", "refused", "window", "gap"):
            self._alarms.clear_alarm(f"{kind} {session.name}")
        log.info("source %s is gone, with its session", session.name)
        self._look_at_draining()

    # --- batches -----------------------------------------------------------------------------

    def _batch(self, session: _Session, batch: Batch) -> None:
        n = batch.sequence
        if batch.session != session.id:
            raise MessageError("session", f"batch {n} names another session than its connection")
        if n > session.admitted + 1:
            self._skip(session, "out-of-sequence")
            self._ask_resend(session, f"batch {n} came, {session.admitted + 1} is next")
            return
        if n <= session.admitted:
            self._count_duplicates(session, batch)
            return
        problem = self._window_problem(session, batch)
        if problem:
            self._skip(session, "window")
            log.warning("batch %d of %s dropped: %s", n, session.name, problem)
            self._alarms.raise_alarm(
                f"window {session.name}", Severity.WARNING, f"{session.name}: {problem}"
            )
            return
        session.admitted = n
        session.position = batch.position_bytes + batch.message_bytes
        session.resend_asked = 0
        if n <= session.high or n <= session.acknowledged:
            # It was admitted before the source said HELLO again: the first copy settles it.
            self._count_duplicates(session, batch)
            return
        session.high, session.high_position = n, session.position
        self._admit(session, batch)

    def _window_problem(self, session: _Session, batch: Batch) -> str:
        if batch.position_bytes != session.position:
            return (
                f"it says that it begins at byte {batch.position_bytes} of the session, "
                f"byte {session.position} was expected"
            )
        end = batch.position_bytes + batch.message_bytes
        if batch.settled or batch.sequence <= session.high:
            return ""
        if end > session.limit or end - session.settled_bytes > self._memory_bytes:
            return f"it ends at byte {end} of the session, the window at {session.limit}"
        return ""

    def _admit(self, session: _Session, batch: Batch) -> None:
        """Hand each piece to whom it is meant for; each is one of the batch's shares."""
        if batch.settled:
            self._settle(session, batch, 1, None, NO_RUN, ORPHAN_STREAM, 0)
            return
        pieces = split(batch)
        for mark, chosen in pieces:
            self._admit_piece(session, batch, mark, chosen, len(pieces))

    def _admit_piece(
        self, session: _Session, batch: Batch, mark: MarkKey, chosen: Selection, shares: int
    ) -> None:
        key = (mark.run, mark.stream)
        events = _chosen_events(batch, chosen)
        count_run, count_stream = self._counted_as(mark)
        if batch.sequence <= session.marks.get(key, 0):
            self._settle(
                session, batch, shares, mark, count_run, count_stream, events, duplicate=True
            )
            return
        verdict, taker = self._fate(mark)
        if key not in session.marks and len(session.marks) >= WATERMARKS_PER_SESSION_MAX:
            self._settle(
                session,
                batch,
                shares,
                None,
                count_run,
                count_stream,
                events,
                reason=TOO_MANY_STREAMS,
            )
            return
        session.marks[key] = batch.sequence
        if taker is None:
            self._settle(
                session, batch, shares, mark, count_run, count_stream, events, reason=verdict.reason
            )
            self._alarms.raise_alarm(
                f"refused {session.name}",
                Severity.WARNING,
                f"events of {session.name} for {StreamKey(mark.run, mark.stream)} refused: "
                f"{verdict.reason}",
            )
            return
        table, payload = select(batch.table, batch.payload, chosen)
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
            )
        )

    def _fate(self, mark: MarkKey) -> tuple[Verdict, PieceTaker | None]:
        routes = self._routes
        route = routes.runs.get(mark.run)
        knowledge = Knowledge.RUN_UNKNOWN
        if route is not None:
            state: RunState | None = route.state
            known = mark.stream in route.writers
            knowledge = Knowledge.STREAM_KNOWN if known else Knowledge.STREAM_UNKNOWN
        else:
            state = routes.closed.get(mark.run) or self._finished_run(mark.run)
        verdict = fate(routes.any_active, state, knowledge)
        match verdict.fate:
            case Fate.STORED:
                assert route is not None
                return verdict, route.writers[mark.stream]
            case Fate.ORPHAN:
                return verdict, routes.orphans
            case Fate.REFUSED:
                return verdict, None

    def _counted_as(self, mark: MarkKey) -> tuple[RunNumber, StreamName]:
        """What a piece is counted under: its stream where that is known, else the orphans."""
        route = self._routes.runs.get(mark.run)
        if route is not None and mark.stream in route.writers:
            return mark.run, mark.stream
        return NO_RUN, ORPHAN_STREAM

    def _count_duplicates(self, session: _Session, batch: Batch) -> None:
        """A batch that was admitted before: its pieces only count."""
        if batch.settled:
            return
        for mark, chosen in split(batch):
            self._settle(
                session,
                batch,
                0,
                mark,
                *self._counted_as(mark),
                _chosen_events(batch, chosen),
                duplicate=True,
            )

    def _settle(
        self,
        session: _Session,
        batch: Batch,
        shares: int,
        mark: MarkKey | None,
        run: RunNumber,
        stream: StreamName,
        events: int,
        *,
        duplicate: bool = False,
        reason: str = "",
    ) -> None:
        self._committer.settle(
            Settlement(
                session.id,
                batch.sequence,
                shares,
                batch.message_bytes,
                session.name,
                mark,
                run,
                stream,
                duplicate=events if duplicate else 0,
                refused=events if reason else 0,
                reason=reason,
            )
        )

    def _ask_resend(self, session: _Session, why: str) -> None:
        """Once for each gap; the source's heartbeat makes us ask again."""
        following = session.admitted + 1
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
        for settled in news:
            session = self._sessions.get(settled.session)
            if session is None:
                continue
            session.acknowledged = settled.acknowledged
            session.settled_bytes = settled.settled_bytes
            session.selective = settled.selective
            if settled.refused_from >= session.refused_from:
                session.refused, session.refused_from = settled.refused, settled.refused_from
        self._grant()
        for settled in news:
            session = self._sessions.get(settled.session)
            if session is not None and session.alive:
                self._acknowledge(session)
        self._look_at_draining()

    def _grant(self) -> None:
        """Raise the limits of the live sessions, where a run is active and there is space."""
        if not self._routes.any_active or self._routes.waiting:
            return
        accounts = {
            s.id: Account(self._window_base(s), s.limit, s.wanted)
            for s in self._sessions.values()
            if s.alive and not s.closed
        }
        for session_id, limit in grant(
            accounts, self._memory_bytes, self._message_bytes_max
        ).items():
            self._sessions[session_id].limit = limit

    @staticmethod
    def _window_base(session: _Session) -> int:
        """Settled bytes; batches above too many selective ranges free no window."""
        if len(session.selective) <= SELECTIVE_RANGES_MAX:
            return session.settled_bytes
        return min(session.settled_bytes, session.limit)

    def _acknowledge(self, session: _Session) -> None:
        routes = self._routes
        active, held, ending = [], [], []
        for run, route in routes.runs.items():
            if route.state is RunState.ACTIVE:
                active.append(int(run))
            elif route.state is RunState.PAUSED:
                held.append(int(run))
            elif route.state is RunState.ENDING:
                ending.append(int(run))
        session.runs_told.update(active, held, ending)
        over = session.runs_told - {int(run) for run in routes.runs}
        if over:
            session.runs_told -= over
            session.ended_told = [*session.ended_told, *sorted(over)][-ENDED_TOLD_MAX:]
        waiting = routes.waiting or ("" if routes.any_active else "no run is active")
        self._send(
            session,
            MessageKind.ACKNOWLEDGEMENT,
            Acknowledgement(
                session=session.id,
                boot=self._identity.boot,
                acknowledged=session.acknowledged,
                limit_bytes=session.limit,
                next=session.admitted + 1,
                selective=list(session.selective[:SELECTIVE_RANGES_MAX]),
                refusals_from=session.refused_from,
                refusals=[
                    RefusedRange(
                        first=r.first,
                        last=r.last,
                        run=r.run,
                        stream=r.stream,
                        reason=r.reason,
                        events=r.events,
                    )
                    for r in session.refused
                ],
                active=active,
                held=held,
                ending=ending,
                ended=session.ended_told,
                waiting=waiting,
            ),
        )

    def _send(self, session: _Session, kind: MessageKind, message: msgspec.Struct) -> None:
        data = encode_control(kind, encode_body(message))
        if self._link.send(session.peer, data):
            session.messages_out += 1
            session.bytes_out += len(data)

    def _refuse(self, peer: bytes, session: SessionId, code: str, detail: str, retry: bool) -> None:
        self.strangers[f"refused-{code}"] += 1
        log.warning("%s refused (%s): %s", _name_of(peer), code, detail)
        message = Refused(
            session=session, boot=self._identity.boot, code=code, detail=detail, retry=retry
        )
        self._link.send(peer, encode_control(MessageKind.REFUSED, encode_body(message)))

    # --- runs --------------------------------------------------------------------------------

    def _apply(self, routes: Routes) -> None:
        self._routes = routes
        for run in list(self._draining):
            if run not in routes.runs:
                del self._draining[run]
                for session in self._sessions.values():
                    session.end_of_run.pop(run, None)
        self._grant()
        for session in self._sessions.values():
            if session.alive:
                self._acknowledge(session)

    def _start_draining(self, run: RunNumber) -> None:
        """Whom to wait for: who is connected, and who ever sent events of the run."""
        self._draining[run] = {
            s.id
            for s in self._sessions.values()
            if not s.closed and (s.alive or s.opening or any(r == run for r, _ in s.marks))
        }
        for session in self._sessions.values():
            if session.alive:
                self._acknowledge(session)
        self._look_at_draining()

    def _look_at_draining(self) -> None:
        for run, waited_for in list(self._draining.items()):
            left = {s for s in waited_for if not self._is_drained(s, run)}
            if left:
                self._draining[run] = left
                continue
            del self._draining[run]
            self._drained(run)

    def _is_drained(self, session_id: SessionId, run: RunNumber) -> bool:
        session = self._sessions.get(session_id)
        if session is None or session.closed:
            return True
        last = session.end_of_run.get(run)
        if last is None or session.high < last:
            return False
        return last <= session.acknowledged or self._is_settled(session, last, run)

    def _is_settled(self, session: _Session, last: int, run: RunNumber) -> bool:
        """All up to `last` is settled, by the selective list above the acknowledgement."""
        following = session.acknowledged + 1
        for first, end in session.selective:
            if first > following:
                break
            following = max(following, end + 1)
        return following > last

    def waited_for(self, run: RunNumber) -> list[str]:
        """The names of the sources that the end of the run still waits for; from any thread."""
        return [
            self._sessions[s].name for s in self._draining.get(run, set()) if s in self._sessions
        ]

    # --- time --------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._clock.monotonic_ns()
        self._next_tick_ns = now + HEARTBEAT_NS
        for session in list(self._sessions.values()):
            silent_ns = now - session.heard_ns
            if session.alive and silent_ns > HEARTBEATS_MISSED_MAX * HEARTBEAT_NS:
                self._become(session, ConnectionEvent.DROPPED)
                session.since_ns = self._clock.wall_ns()
                log.warning("source %s lost: silent for %.1f s", session.name, silent_ns / 1e9)
                self._alarms.raise_alarm(
                    f"source-lost {session.name}",
                    Severity.WARNING,
                    f"{session.name} ({session.address}) is silent",
                )
            elif session.alive:
                self._acknowledge(session)
            elif silent_ns > self._expiry_ns and not session.opening:
                self._expire(session)
        closed = [s for s in self._sessions.values() if s.closed and not s.forgetting]
        for session in closed[:-CLOSED_SESSIONS_MAX]:
            self._expire(session)
        self._look_at_draining()

    def _expire(self, session: _Session) -> None:
        log.warning("session of %s expired: its watermarks are dropped", session.name)
        session.closed = session.forgetting = True
        session.heard_ns = self._clock.monotonic_ns()
        self._committer.submit_made(
            lambda c: c.close_session(session.id, forget=True),
            then=lambda: self._post(lambda: self._drop(session)),
        )

    def _connection(self, s: _Session) -> ConnectionStatus:
        return ConnectionStatus(
            kind="source",
            state=str(s.state),
            name=s.name,
            host=s.host,
            process=s.process,
            address=s.address,
            since_ns=s.since_ns,
            reconnects=s.reconnects,
            messages_in=s.messages_in,
            messages_out=s.messages_out,
            bytes_in=s.bytes_in,
            bytes_out=s.bytes_out,
            last_message_ns=s.last_message_ns,
            skipped=dict(s.skipped),
            detail=s.detail,
        )


def _chosen_events(batch: Batch, chosen: Selection) -> int:
    return len(batch.table) if isinstance(chosen, slice) else int(chosen.sum())


def _session_of(peer: bytes) -> SessionId:
    return SessionId(peer[-16:])


def _name_of(peer: bytes) -> str:
    return peer[:-17].decode("ascii", "replace") if len(peer) > 17 else repr(peer)


def _hello_problem(peer: bytes, hello: Hello) -> str:
    if not valid_source_name(hello.name):
        return f"{hello.name[:80]!r} is not a source name"
    if len(hello.session) != 16:
        return f"a session of {len(hello.session)} bytes; 16 are needed"
    if peer != hello.name.encode() + b"/" + hello.session:
        return "the routing id is not name, slash and session"
    if hello.lowest < 1 or hello.position_bytes < 0:
        return f"lowest {hello.lowest}, position {hello.position_bytes}"
    return ""
