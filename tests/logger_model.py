"""A logger for tests of the source's side, in memory and without I/O: a few lines for each rule of
docs/PROTOCOL.md, so that one can see that it is right. It crashes when it is told to.

It never looks into the source; what it gets is bytes, and what it says is bytes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from dlog.core.batch import Batch, decode_batch
from dlog.core.frame import MessageKind, check_frame, control_body, encode_control
from dlog.limits import MESSAGE_BYTES_MAX
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

Key = tuple[int, str]  # run, stream
Event = tuple[int, int, bytes]  # number, position in the session, payload


@dataclass
class Piece:
    """What a batch holds for a stream of a run, admitted and not committed."""

    sequence: int
    key: Key
    events: list[Event]


@dataclass
class Kept:
    """What the journal and the files hold: it outlives a crash."""

    known: bool = False  # the session
    closed: bool = False
    acknowledged: int = 0
    position_bytes: int = 0
    settled: set[int] = field(default_factory=set)  # above `acknowledged`
    lengths: dict[int, int] = field(default_factory=dict)  # of those
    marks: dict[Key, int] = field(default_factory=dict)
    stored: dict[Key, list[Event]] = field(default_factory=lambda: defaultdict(list))
    refusals: list[RefusedRange] = field(default_factory=list)
    refusals_seen: int = 0


class LoggerModel:
    """One session's logger. `say` is what goes to the source, in order."""

    heartbeat_ms = 100

    def __init__(self, *, window_bytes: int = 10**9, rewinds: bool = True) -> None:
        self.kept = Kept()
        self.boot = 1
        self.window_bytes = window_bytes
        self.message_bytes_max = MESSAGE_BYTES_MAX
        # Whether HELLO sets the admitted number back to what it says, although more is committed.
        self.rewinds = rewinds
        self.active: set[int] = set()
        self.held: set[int] = set()
        self.ending: set[int] = set()
        self.ended: set[int] = set()
        self.ended_before: set[int] = set()  # before the source came
        self.refuse_runs: set[int] = set()
        self.name_in_use = False  # by another session
        self.streams: dict[int, list[str]] = {}  # as RUN-STREAMS tells them, after WELCOME
        self.diverted: list[DivertedEvents] = []
        self.waiting = ""
        self.duplicates = 0
        self.dropped = 0
        self.say: list[bytes] = []
        self._forget()

    def _forget(self) -> None:
        """What a crash takes away."""
        self.open = False
        self.admitted = self.kept.acknowledged
        self.position_bytes = self.kept.position_bytes
        self.high = self.admitted
        self.limit_bytes = self.kept.position_bytes
        self.marks = dict(self.kept.marks)
        self.queues: dict[Key, deque[Piece]] = defaultdict(deque)
        self.left: dict[int, set[Key]] = {}  # admitted batches: pieces that are not committed
        self.lengths = dict(self.kept.lengths)
        self.session = b""
        self.ends: dict[int, int] = {}  # answers to END-OF-RUN

    def crash(self) -> None:
        self.boot += 1
        self.say.clear()
        self._forget()

    def forget_session(self) -> None:
        """The session is over; what was stored stays."""
        stored = self.kept.stored
        self.kept = Kept(stored=stored)
        self.say.clear()
        self._forget()

    # --- messages ---------------------------------------------------------------------------------

    def hear(self, message: bytes) -> None:
        view = memoryview(bytes(message))
        kind = check_frame(view, MESSAGE_BYTES_MAX)
        if kind == MessageKind.HELLO:
            self._hello(decode_body(control_body(view), Hello))
        elif kind == MessageKind.BYE:
            self._bye(decode_body(control_body(view), Bye))
        elif not self.open:
            self._refuse(self.session or b"?" * 16, "unknown-session", retry=True)
        elif kind == MessageKind.EVENTS:
            self._batch(decode_batch(view))
        elif kind == MessageKind.HEARTBEAT:
            heartbeat = decode_body(control_body(view), Heartbeat)
            seen = heartbeat.refusals_seen
            assert seen <= self.kept.refusals_seen + len(self.kept.refusals)
            del self.kept.refusals[: max(0, seen - self.kept.refusals_seen)]
            self.kept.refusals_seen = max(seen, self.kept.refusals_seen)
            self.ended |= self.ended_before.intersection(heartbeat.unlisted)
            if heartbeat.settle_bytes and not self.active:
                self.limit_bytes = max(
                    self.limit_bytes, self.position_bytes + heartbeat.settle_bytes
                )
            if heartbeat.sent > self.admitted:
                self._resend("sent and not come")
        elif kind == MessageKind.END_OF_RUN:
            answer = decode_body(control_body(view), EndOfRun)
            if answer.run in self.ending:
                self.ends[answer.run] = answer.last
        else:
            raise AssertionError(f"a source never sends kind {kind}")

    def _hello(self, hello: Hello) -> None:
        self.session = hello.session
        if self.name_in_use:
            self._refuse(hello.session, "name-in-use", retry=True)
            return
        if self.kept.closed:
            self._refuse(hello.session, "closed", retry=False)
            return
        if not self.kept.known and hello.lowest != 1:
            self._refuse(hello.session, "expired", retry=False)
            return
        if hello.lowest > self.kept.acknowledged + 1:
            self._refuse(hello.session, "gap", retry=False)
            raise AssertionError("the source forgot unacknowledged batches")
        self.kept.known = True
        self.open = True
        if hello.lowest <= self.kept.acknowledged and not self.rewinds:
            self.admitted = self.kept.acknowledged
            self.position_bytes = self.kept.position_bytes
        else:
            self.admitted = hello.lowest - 1
            self.position_bytes = hello.position_bytes
        self._say(
            MessageKind.WELCOME,
            Welcome(
                session=hello.session, boot=self.boot, logger="model", logger_uuid=bytes(16),
                heartbeat_ms=self.heartbeat_ms, message_bytes_max=self.message_bytes_max,
                event_bytes_max=self.message_bytes_max - 65536,
            ),
        )  # fmt: skip
        for run, streams in self.streams.items():
            told = RunStreams(session=hello.session, boot=self.boot, run=run, streams=streams)
            self._say(MessageKind.RUN_STREAMS, told)
        self.acknowledge()

    def _bye(self, bye: Bye) -> None:
        if not self.open:
            self._refuse(bye.session, "unknown-session", retry=True)
            return
        self.kept.closed = True
        self.open = False
        self._say(MessageKind.BYE_DONE, ByeDone(session=bye.session))

    def _batch(self, batch: Batch) -> None:
        n = batch.sequence
        if n > self.admitted + 1:
            self.dropped += 1
            self._resend("gap")
            return
        if n <= self.admitted:
            self.duplicates += 1
            return
        assert batch.position_bytes == self.position_bytes, "a batch keeps its position"
        assert batch.settled or batch.position_bytes + batch.message_bytes <= self.limit_bytes
        self.admitted = n
        self.position_bytes += batch.message_bytes
        self.lengths[n] = batch.message_bytes
        if n <= self.high or n <= self.kept.acknowledged or n in self.kept.settled:
            self.duplicates += 1
            return
        self.high = n
        self.left[n] = set()
        for key, events in pieces_of(batch):
            if n <= self.marks.get(key, 0):
                self.duplicates += 1
                continue
            self.marks[key] = n
            self.left[n].add(key)
            self.queues[key].append(Piece(n, key, events))

    # --- what it does by itself -------------------------------------------------------------------

    def commit(self, key: Key, pieces: int) -> None:
        """The first so many pieces of a stream become durable."""
        queue = self.queues[key]
        for _ in range(min(pieces, len(queue))):
            piece = queue.popleft()
            self.kept.marks[key] = piece.sequence
            if key[0] in self.refuse_runs:
                self.kept.refusals.append(
                    RefusedRange(
                        first=piece.sequence, last=piece.sequence, run=key[0], stream=key[1],
                        reason="run-aborted", events=len(piece.events),
                    )
                )  # fmt: skip
            else:
                self.kept.stored[key] += piece.events
            self.left[piece.sequence].discard(key)
        self._settle()

    def _settle(self) -> None:
        for n in [n for n, left in self.left.items() if not left]:
            del self.left[n]
            self.kept.settled.add(n)
            self.kept.lengths[n] = self.lengths[n]
        while self.kept.acknowledged + 1 in self.kept.settled:
            self.kept.acknowledged += 1
            self.kept.settled.discard(self.kept.acknowledged)
            self.kept.position_bytes += self.kept.lengths.pop(self.kept.acknowledged)
        if self.admitted < self.kept.acknowledged and not self.rewinds:
            self.admitted = self.kept.acknowledged
            self.position_bytes = self.kept.position_bytes

    def commit_all(self) -> None:
        for key in list(self.queues):
            self.commit(key, len(self.queues[key]))

    def acknowledge(self) -> None:
        """What is repeated with each heartbeat and each commit."""
        if not self.open:
            return
        if not self.waiting:
            settled = self.kept.position_bytes + sum(self.kept.lengths.values())
            self.limit_bytes = max(self.limit_bytes, settled + self.window_bytes)
        self._say(
            MessageKind.ACKNOWLEDGEMENT,
            Acknowledgement(
                session=self.session, boot=self.boot, acknowledged=self.kept.acknowledged,
                limit_bytes=self.limit_bytes, next=self.admitted + 1,
                selective=ranges(self.kept.settled), refusals_from=self.kept.refusals_seen,
                refusals=list(self.kept.refusals), active=sorted(self.active),
                held=sorted(self.held), ending=sorted(self.ending), ended=sorted(self.ended),
                diverted=self.diverted, waiting=self.waiting,
            ),
        )  # fmt: skip

    def end_run(self, run: int) -> None:
        """The run ends now, whatever the sources have said."""
        self.active.discard(run)
        self.held.discard(run)
        self.ending.discard(run)
        self.ended.add(run)

    def _resend(self, why: str) -> None:
        self._say(
            MessageKind.RESEND,
            Resend(session=self.session, boot=self.boot, next=self.admitted + 1, why=why),
        )

    def _refuse(self, session: bytes, code: str, *, retry: bool) -> None:
        self._say(
            MessageKind.REFUSED,
            Refused(
                session=session,
                boot=self.boot,
                logger="l",
                logger_uuid=bytes(16),
                code=code,
                detail="",
                retry=retry,
            ),
        )

    def _say(self, kind: MessageKind, body: msgspec.Struct) -> None:
        self.say.append(encode_control(kind, encode_body(body)))


def pieces_of(batch: Batch) -> Iterator[tuple[Key, list[Event]]]:
    """The pieces of a batch, each with its events in the order of the table."""
    found: dict[Key, list[Event]] = defaultdict(list)
    at = 0
    for row in batch.table:
        payload = batch.payload[at : at + int(row["size"])].tobytes()
        at += int(row["size"])
        for bit, name in enumerate(batch.streams):
            if int(row["streams"]) >> bit & 1:
                event = (int(row["number"]), int(row["order"]) + batch.order_base, payload)
                found[int(row["run"]), name].append(event)
    yield from found.items()


def ranges(numbers: set[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as inclusive ranges."""
    found: list[tuple[int, int]] = []
    for n in sorted(numbers):
        if found and found[-1][1] == n - 1:
            found[-1] = (found[-1][0], n)
        else:
            found.append((n, n))
    return found
