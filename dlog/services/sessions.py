"""The sessions that the event server knows, by id, by name and by connection.

It keeps who is connected and what went over each connection; what is admitted is core/admission.py.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dlog.core.admission import SessionState
from dlog.core.journal_records import SessionRecord
from dlog.core.states import CONNECTION, ConnectionEvent, ConnectionState
from dlog.errors import TransitionRefused
from dlog.limits import HEARTBEAT_MS, HEARTBEATS_MISSED_MAX
from dlog.model.ids import MarkKey, RunNumber, SessionId, StreamName
from dlog.model.status import ConnectionStatus
from dlog.ports import Clock
from dlog.services.routes import PieceTaker

log = logging.getLogger("dlog.events")

SILENCE_NS_MAX: Final = HEARTBEATS_MISSED_MAX * HEARTBEAT_MS * 1_000_000
SKIPPED_KINDS_MAX: Final = 64
ENDED_TOLD_MAX: Final = 256


def count_skipped(counter: Counter[str], what: str) -> int:
    """Count a message that was passed over, and how many of its kind were; a peer that makes up
    kinds does not grow the table."""
    kind = what if what in counter or len(counter) < SKIPPED_KINDS_MAX else "other"
    counter[kind] += 1
    return counter[kind]


@dataclass(eq=False, slots=True)
class Session:
    """A session with its connection. closed: it takes nothing any more; forgetting: a commit that
    drops it is under way; opening: the commit that makes it is. resend_asked: the batch that it was
    last asked to send again from. runs_told, ended_told: runs that it was told of. takers: by run
    and stream, who took the last piece (None: it was refused), and of which batch."""

    state: SessionState
    name: str
    host: str
    process: int
    peer: bytes
    address: str
    connection: ConnectionState
    since_ns: int  # wall clock
    heard_ns: int  # monotonic
    closed: bool = False
    opening: bool = False
    forgetting: bool = False
    resend_asked: int = 0
    runs_told: set[int] = field(default_factory=set)
    ended_told: list[int] = field(default_factory=list)
    takers: dict[tuple[RunNumber, StreamName], tuple[PieceTaker | None, int]] = field(
        default_factory=dict
    )
    reconnects: int = 0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_message_ns: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def id(self) -> SessionId:
        return self.state.id

    @property
    def alive(self) -> bool:
        return self.connection is ConnectionState.CONNECTED and not self.closed

    @property
    def holds_name(self) -> bool:
        """No other session may have its name."""
        return not self.closed and (self.alive or self.opening)

    def may_come_back(self, now_ns: int) -> bool:
        """It was connected before the logger was started again, and has not missed its heartbeats:
        were its name given away now, a living source would lose what is not acknowledged."""
        return not self.closed and now_ns - self.heard_ns <= SILENCE_NS_MAX

    def happened(self, event: ConnectionEvent) -> bool:
        """Step by the table; whether the connection's state is another one now."""
        before = self.connection
        try:
            self.connection = CONNECTION.next(before, event)
        except TransitionRefused as error:
            log.debug("%s: %s", self.name, error)
        return self.connection is not before

    def came(self, size: int, clock: Clock) -> None:
        self.heard_ns = clock.monotonic_ns()
        self.last_message_ns = clock.wall_ns()
        self.messages_in += 1
        self.bytes_in += size

    def went(self, size: int) -> None:
        self.messages_out += 1
        self.bytes_out += size

    def may_go_to(self, mark: MarkKey, taker: PieceTaker | None) -> bool:
        """Whether this taker may have the next piece: another one has settled all before it.

        A watermark tells that all below it is settled. Two takers commit independently: the later
        piece could be committed before the earlier one, which a crash in between would lose.
        """
        last = self.takers.get((mark.run, mark.stream))
        if last is None or last[0] is taker or last[1] <= self.state.acknowledged:
            return True
        return any(first <= last[1] <= end for first, end in self.state.selective)

    def told(self, live: set[int]) -> list[int]:
        """The runs that it was told of and that are over now; `live` are told with this."""
        self.runs_told |= live
        over = self.runs_told - live
        self.runs_told -= over
        self.ended_told = [*self.ended_told, *sorted(over)][-ENDED_TOLD_MAX:]
        return self.ended_told

    def tell_ended(self, run: int) -> None:
        """It asked for a run that is over, though it was never told of it."""
        if run not in self.ended_told:
            self.ended_told = [*self.ended_told, run][-ENDED_TOLD_MAX:]

    def status(self) -> ConnectionStatus:
        return ConnectionStatus(
            kind="source",
            state=str(self.connection),
            name=self.name,
            host=self.host,
            process=self.process,
            address=self.address,
            since_ns=self.since_ns,
            reconnects=self.reconnects,
            messages_in=self.messages_in,
            messages_out=self.messages_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            last_message_ns=self.last_message_ns,
            skipped=dict(self.skipped),
        )


class Sessions:
    """All sessions. Iterating gives a copy, so that other threads may look."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._all: dict[SessionId, Session] = {}
        self._by_name: dict[str, Session] = {}
        self._by_peer: dict[bytes, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._all.values()))

    def get(self, session: SessionId) -> Session | None:
        return self._all.get(session)

    def named(self, name: str) -> Session | None:
        """The latest session of that name."""
        return self._by_name.get(name)

    def connected_by(self, peer: bytes) -> Session | None:
        return self._by_peer.get(peer)

    def load(self, sessions: Sequence[SessionRecord], marks: Mapping[MarkKey, int]) -> None:
        """The live sessions and watermarks of the journal."""
        for record in sessions:
            session = self.add(record, b"", "")
            session.connection = ConnectionState.LOST
        for key, sequence in marks.items():
            owner = self._all.get(key.session)
            if owner is not None:
                owner.state.mark(key, sequence)

    def add(self, record: SessionRecord, peer: bytes, address: str) -> Session:
        session = Session(
            SessionState.of(record),
            record.name,
            record.host,
            record.process,
            peer,
            address,
            ConnectionState.CONNECTING,
            record.since_ns,
            self._clock.monotonic_ns(),
            closed=record.closed,
        )
        self._all[session.id] = session
        self._enter(session)
        return session

    def reconnect(
        self, session: Session, peer: bytes, address: str, name: str, host: str, process: int
    ) -> None:
        """The session goes on over another connection."""
        self.disconnect(session)
        session.reconnects += session.peer != b""
        session.peer, session.address = peer, address
        session.name, session.host, session.process = name, host, process
        session.heard_ns = self._clock.monotonic_ns()
        self._enter(session)

    def _enter(self, session: Session) -> None:
        if session.peer:
            self._by_peer[session.peer] = session
        if session.name and not session.closed:
            self._by_name[session.name] = session

    def disconnect(self, session: Session) -> None:
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer]

    def remove(self, session: Session) -> None:
        self._all.pop(session.id, None)
        self.disconnect(session)
        if self._by_name.get(session.name) is session:
            del self._by_name[session.name]
