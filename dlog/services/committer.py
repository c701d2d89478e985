"""The committer: the only writer of the journal. It groups what all others hand in into one commit.

It keeps the settlement ledger: which batches of a session are settled, what is committed as the
cumulative acknowledgement. It touches no event file and waits for no stream.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from dlog.core import journal_records as records
from dlog.core.journal_records import (
    CountRecord,
    Diversion,
    EndedRunRecord,
    FileRecord,
    MarkRecord,
    QuarantineRecord,
    Refusal,
    SessionRecord,
    StreamRecord,
)
from dlog.core.record_rules import read_record
from dlog.errors import InvariantBroken, JournalFailed, JournalFull
from dlog.limits import (
    COUNTS_PER_RUN_MAX,
    ORPHAN_SOURCES_MAX,
    REFUSALS_TOLD_MAX,
)
from dlog.model.ids import (
    NO_RUN,
    FileKey,
    FileKind,
    MarkKey,
    PartNumber,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
)
from dlog.ports import Change, Clock, Journal

log = logging.getLogger("dlog.committer")

JOURNAL_FULL_RETRY_SECONDS = 0.1
LATENCY_SAMPLES = 1000
OTHER_SOURCES = "(others)"  # no source can have this name


class Settlement(msgspec.Struct, frozen=True):
    """A piece (or a part of its events) that the next commit settles.

    mark: what it was sent for, None for a placeholder; watermark: whether one is kept of it.
    count_run, count_stream: what it is counted under. shares: settlements that the whole batch
    needs; 0 where it was admitted before and only counts. reason: of refused or orphan events.
    """

    session: SessionId
    sequence: int
    shares: int
    message_bytes: int
    source: str
    mark: MarkKey | None
    count_run: RunNumber
    count_stream: StreamName
    stored: int = 0
    garbage: int = 0
    orphan: int = 0
    duplicate: int = 0
    refused: int = 0
    reason: str = ""
    payload_bytes: int = 0
    watermark: bool = True

    @property
    def events(self) -> int:
        return self.stored + self.garbage + self.orphan + self.duplicate + self.refused


@dataclass(frozen=True, slots=True)
class Progress:
    """A finished sync of one stream: everything in it is durable on disk.

    first_block, last_block: the block numbers that it adds, consecutive. committed: called by the
    committer's thread once it is in the journal.
    """

    stream: StreamRecord
    files: tuple[FileRecord, ...]
    settlements: tuple[Settlement, ...]
    first_block: int
    last_block: int
    received_ns: int = 0  # monotonic, when the oldest piece in it was taken up; for the latency
    committed: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a commit made true of a session, for the acknowledgement."""

    session: SessionId
    acknowledged: int
    position_bytes: int
    selective: tuple[tuple[int, int], ...]
    settled_bytes: int  # position plus the bytes of the selective batches
    refused: tuple[Refusal, ...]
    refused_from: int
    diverted: tuple[Diversion, ...] = ()


class Ticket:
    """Changes on their way into the journal; `then` runs on the committer's thread."""

    def __init__(self, drive: Callable[[], None] | None) -> None:
        self._done = threading.Event()
        self._error: JournalFailed | None = None
        self._drive = drive

    def resolve(self, error: JournalFailed | None) -> None:
        self._error = error
        self._done.set()

    def wait(self) -> None:
        # Where one thread drives everything (simulation), waiting means to let the committer work.
        while self._drive is not None and not self._done.is_set():
            self._drive()
        self._done.wait()
        if self._error is not None:
            raise self._error


@dataclass(slots=True)
class _Changes:
    make: Callable[[Committer], Sequence[Change]]
    ticket: Ticket
    use_ballast: bool
    then: Callable[[], None] | None
    last: bool = False


@dataclass(slots=True)
class _Group:
    """What goes into one commit."""

    items: list[_Changes | Progress | Settlement] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    touched: set[SessionId] = field(default_factory=set)
    use_ballast: bool = False


class SettledListener(Protocol):
    def settled(self, news: Sequence[Settled]) -> None: ...


@dataclass(slots=True)
class _Ledger:
    """A session's batches above its cumulative acknowledgement."""

    record: SessionRecord
    open: dict[int, int] = field(default_factory=dict)  # batch -> shares to come
    sizes: dict[int, int] = field(default_factory=dict)  # of batches known and not acknowledged
    settled: set[int] = field(default_factory=set)  # above the cumulative acknowledgement
    settled_bytes: int = 0
    marks: set[bytes] = field(default_factory=set)  # keys of its watermarks written by this boot
    refusals: dict[tuple[int, str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, r in enumerate(self.record.refused, self.record.refused_from):
            self.refusals[r.run, r.stream, r.reason] = number

    def refuse(self, s: Settlement) -> None:
        """Note a refusal for the source. One that its source may have been told never changes; one
        behind those grows by what is refused for the same reason of the same stream of a run, so
        that there are no more of them than such streams. `refusals` has the number of the last."""
        # Of streams beyond those that a session may have no list is kept.
        stream = str(s.mark.stream) if s.mark is not None and s.watermark else ""
        key = (s.mark.run if s.mark is not None else 0, stream, s.reason)
        refused, n = self.record.refused, s.sequence
        at = self.refusals.get(key, -1) - self.record.refused_from
        if at < REFUSALS_TOLD_MAX:
            at = len(refused)
            refused.append(
                Refusal(first=n, last=n, run=key[0], stream=stream, reason=s.reason, events=0)
            )
            self.refusals[key] = self.record.refused_from + at
        before = refused[at]
        refused[at] = msgspec.structs.replace(
            before,
            first=min(before.first, n),
            last=max(before.last, n),
            events=before.events + s.refused,
        )

    def selective(self) -> tuple[tuple[int, int], ...]:
        ranges: list[tuple[int, int]] = []
        for n in sorted(self.settled):
            if ranges and ranges[-1][1] == n - 1:
                ranges[-1] = (ranges[-1][0], n)
            else:
                ranges.append((n, n))
        return tuple(ranges)


class Committer:
    """`submit…` and `settle` are called from any thread; `step` by the committer's thread alone."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        *,
        single_thread: bool = False,
        while_full: Callable[[], None] | None = None,
    ) -> None:
        """single_thread: who waits drives the committer. while_full: what such a one does while
        the journal is full, so that others may make room."""
        self._journal = journal
        self._clock = clock
        self._inbox: queue.SimpleQueue[_Changes | Progress | Settlement | None] = (
            queue.SimpleQueue()
        )
        self._drive = self._drive_once if single_thread else None
        self._while_full = while_full
        self._ledgers: dict[SessionId, _Ledger] = {}
        self._counts: dict[tuple[str, RunNumber, StreamName], CountRecord] = {}
        self._next_block: dict[tuple[int, str], int] = {}
        self._listener: SettledListener | None = None
        self._failed: JournalFailed | None = None
        self._stuck: _Group | None = None
        self._closed = False  # nothing is taken in any more
        self.full_since_ns: int | None = None
        self.commits = 0
        self._latency_ns: deque[int] = deque(maxlen=LATENCY_SAMPLES)

    # --- handing in (any thread) -------------------------------------------------------------

    def submit(self, changes: Sequence[Change], *, use_ballast: bool = False) -> Ticket:
        """Changes that become durable in the next commit, after all that was handed in before."""
        return self.submit_made(lambda _: changes, use_ballast=use_ballast)

    def submit_made(
        self,
        make: Callable[[Committer], Sequence[Change]],
        *,
        use_ballast: bool = False,
        then: Callable[[], None] | None = None,
        last: bool = False,
    ) -> Ticket:
        """As `submit`; the changes are made on the committer's thread when the group is formed.
        last: nothing is committed behind them, whatever other threads still hand in."""
        if self._failed is not None:
            raise self._failed
        ticket = Ticket(self._drive)
        self._inbox.put(_Changes(make, ticket, use_ballast, then, last))
        return ticket

    def progress(self, progress: Progress) -> None:
        self._inbox.put(progress)

    def settle(self, settlement: Settlement) -> None:
        """A piece that no file takes: duplicate or refused."""
        self._inbox.put(settlement)

    def stop(self) -> None:
        """Make `run` return once all that was handed in before is committed."""
        self._inbox.put(None)

    # --- the committer's own thread ----------------------------------------------------------

    def listen(self, listener: SettledListener) -> None:
        self._listener = listener

    def load(self) -> None:
        """Read the live sessions, counters and streams of the journal; before anything else."""
        for key, value in self._journal.scan(records.SESSIONS):
            session = read_record(key, value, SessionRecord)
            self._ledgers[SessionId(session.session)] = _Ledger(
                session, settled_bytes=session.position_bytes
            )
        for key, value in self._journal.scan(records.COUNTS):
            run, source, stream = key[len(records.COUNTS) :].split(b"/")
            counted = (source.decode(), RunNumber(int(run)), StreamName(stream.decode()))
            self._counts[counted] = read_record(key, value, CountRecord)
        for key, value in self._journal.scan(records.STREAMS):
            stream_record = read_record(key, value, StreamRecord)
            self._next_block[stream_record.run, stream_record.stream] = stream_record.next_block

    def run(self) -> None:
        """Until `stop`. Raises what makes the logger fail."""
        while self.step(block=True):
            pass

    def step(self, *, block: bool = False) -> bool:
        """Commit one group of all that is waiting. False once `stop`, or what was submitted as the
        last, is reached."""
        if self._closed:
            if self._stuck is not None:
                time.sleep(JOURNAL_FULL_RETRY_SECONDS)
                self._commit(self._stuck)
            return self._stuck is not None
        stuck = self._stuck is not None
        try:
            item = self._inbox.get(
                block=block, timeout=JOURNAL_FULL_RETRY_SECONDS if stuck and block else None
            )
        except queue.Empty:
            if self._stuck is not None:
                self._commit(self._stuck)
            return True
        group = self._stuck or _Group()
        more = True
        fresh: list[_Changes | Progress | Settlement] = []
        while item is not None:
            fresh.append(item)
            if isinstance(item, _Changes) and item.last:
                self._closed = True
                break
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                break
        else:
            more = False
        if fresh:
            self._add(group, fresh)
        if group.items:
            self._commit(group)
        if not more and self._stuck is not None:
            self._inbox.put(None)  # not before what was handed in is committed
            return True
        return more and not (self._closed and self._stuck is None)

    def _drive_once(self) -> None:
        self.step()
        if self._stuck is not None:
            if self._while_full is None:
                raise JournalFull("the journal is full, and nobody else could make room")
            self._while_full()

    def _add(self, group: _Group, fresh: list[_Changes | Progress | Settlement]) -> None:
        group.changes += self._changes(fresh, group.touched)
        group.items += fresh
        # A command that may use the ballast takes along all that was handed in before it, so that
        # the order of the journal stays that of the hand-in.
        group.use_ballast = group.use_ballast or any(
            isinstance(i, _Changes) and i.use_ballast for i in fresh
        )

    def _commit(self, group: _Group) -> None:
        """Commit; while the journal is full the same group is kept, with what comes behind it."""
        try:
            if group.changes:
                self._journal.commit(group.changes, use_ballast=group.use_ballast)
        except JournalFull:
            if self.full_since_ns is None:
                self.full_since_ns = self._clock.monotonic_ns()
                log.error("journal full: no acknowledgement until there is space")
            self._stuck = group
            return
        except JournalFailed as error:
            self._failed = error
            for item in group.items:
                if isinstance(item, _Changes):
                    item.ticket.resolve(error)
            raise
        if self.full_since_ns is not None:
            log.warning("journal commits again")
        self.full_since_ns = None
        self._stuck = None
        self.commits += 1
        self._announce(group.items, group.touched)

    def _changes(
        self, group: Sequence[_Changes | Progress | Settlement], touched: set[SessionId]
    ) -> list[Change]:
        changes: list[Change] = []
        marks: dict[MarkKey, int] = {}
        counted: set[tuple[str, RunNumber, StreamName]] = set()
        for item in group:
            match item:
                case Progress():
                    changes += self._progress_changes(item)
                    for settlement in item.settlements:
                        self._settle(settlement, marks, counted, touched)
                case Settlement():
                    self._settle(item, marks, counted, touched)
                case _Changes():
                    # What was counted before these changes must be seen by them, and only that.
                    changes += self._flush(marks, counted, touched)
                    changes += item.make(self)
        changes += self._flush(marks, counted, touched)
        return changes

    def _flush(
        self,
        marks: dict[MarkKey, int],
        counted: set[tuple[str, RunNumber, StreamName]],
        touched: set[SessionId],
    ) -> list[Change]:
        changes: list[Change] = []
        for mark, sequence in marks.items():
            key = records.mark_key(mark)
            changes.append((key, records.encode_record(key, MarkRecord(sequence=sequence))))
            if mark.session in self._ledgers:
                self._ledgers[mark.session].marks.add(key)
        for source, run, stream in counted:
            key = records.count_key(source, run, stream)
            changes.append((key, records.encode_record(key, self._counts[source, run, stream])))
        for session in touched:
            ledger = self._ledgers.get(session)
            if ledger is not None:
                key = records.session_key(session)
                changes.append((key, records.encode_record(key, ledger.record)))
        marks.clear()
        counted.clear()
        return changes

    def _progress_changes(self, progress: Progress) -> list[Change]:
        stream = progress.stream
        expected = self._next_block.get((stream.run, stream.stream), 1)
        if progress.last_block >= progress.first_block:
            if progress.first_block != expected:
                raise InvariantBroken(
                    f"run {stream.run} stream {stream.stream}: block {progress.first_block} is "
                    f"durable, block {expected} was expected"
                )
            self._next_block[stream.run, stream.stream] = progress.last_block + 1
        changes = [_put(records.stream_key(_stream_key(stream)), stream)]
        for file in progress.files:
            changes.append(_put(records.file_key(file_record_key(file)), file))
        return changes

    # --- the ledger --------------------------------------------------------------------------

    def _settle(
        self,
        settlement: Settlement,
        marks: dict[MarkKey, int],
        counted: set[tuple[str, RunNumber, StreamName]],
        touched: set[SessionId],
    ) -> None:
        if settlement.events:
            counted.add(self._count(settlement))
        ledger = self._ledgers.get(settlement.session)
        if ledger is None or ledger.record.closed or settlement.shares == 0:
            return
        n = settlement.sequence
        # A duplicate is at or below the mark, which must never go back.
        if settlement.mark is not None and settlement.watermark and not settlement.duplicate:
            marks[settlement.mark] = max(n, marks.get(settlement.mark, 0))
        if settlement.refused:
            ledger.refuse(settlement)
        if settlement.garbage or settlement.orphan:
            ledger.record = msgspec.structs.replace(
                ledger.record,
                diverted=records.with_diversion(ledger.record.diverted, _diversion(settlement)),
            )
        touched.add(settlement.session)
        if n <= ledger.record.acknowledged or n in ledger.settled:
            return
        ledger.sizes[n] = settlement.message_bytes
        left = ledger.open.get(n, settlement.shares) - 1
        if left:
            ledger.open[n] = left
            return
        ledger.open.pop(n, None)
        ledger.settled.add(n)
        ledger.settled_bytes += settlement.message_bytes
        self._advance(ledger)

    @staticmethod
    def _advance(ledger: _Ledger) -> None:
        acknowledged = ledger.record.acknowledged
        position = ledger.record.position_bytes
        while acknowledged + 1 in ledger.settled:
            acknowledged += 1
            ledger.settled.remove(acknowledged)
            position += ledger.sizes.pop(acknowledged)
        if acknowledged != ledger.record.acknowledged:
            ledger.record = msgspec.structs.replace(
                ledger.record, acknowledged=acknowledged, position_bytes=position
            )

    def _count(self, s: Settlement) -> tuple[str, RunNumber, StreamName]:
        """What it was counted under: no run ever ends for which the orphans are counted, and so
        only so many sources have counters of their own there."""
        key = (s.source, s.count_run, s.count_stream)
        if s.count_run == NO_RUN and key not in self._counts:
            orphans = sum(run == NO_RUN for _, run, _ in self._counts)
            if orphans >= ORPHAN_SOURCES_MAX:
                key = (OTHER_SOURCES, s.count_run, s.count_stream)
        settled = CountRecord(
            stored=s.stored,
            duplicate=s.duplicate,
            garbage=s.garbage,
            orphan=s.orphan,
            refused={s.reason: s.refused} if s.refused else {},
            payload_bytes=s.payload_bytes,
        )
        self._counts[key] = _sum(self._counts.get(key, CountRecord()), settled)
        return key

    def _announce(
        self, group: Sequence[_Changes | Progress | Settlement], touched: set[SessionId]
    ) -> None:
        """Tell everyone, after the commit and never before."""
        now = self._clock.monotonic_ns()
        for item in group:
            if isinstance(item, Progress):
                item.committed()
                if item.received_ns:
                    self._latency_ns.append(now - item.received_ns)
            if isinstance(item, _Changes):
                item.ticket.resolve(None)
                if item.then is not None:
                    item.then()
        if touched and self._listener is not None:
            self._listener.settled([self.settled_of(s) for s in touched if s in self._ledgers])

    def settled_now(self, session: SessionId) -> list[Settled]:
        """The same for one session, from its committer's thread; none where it is forgotten."""
        return [self.settled_of(session)] if session in self._ledgers else []

    def settled_of(self, session: SessionId) -> Settled:
        ledger = self._ledgers[session]
        return Settled(
            session,
            ledger.record.acknowledged,
            ledger.record.position_bytes,
            ledger.selective(),
            ledger.settled_bytes,
            tuple(ledger.record.refused),
            ledger.record.refused_from,
            tuple(ledger.record.diverted),
        )

    # --- changes that are made on this thread (from `submit_made`) ---------------------------

    def open_session(self, record: SessionRecord) -> list[Change]:
        """A session that is new, or a rebuilt one that says where it stands."""
        session = SessionId(record.session)
        self._ledgers[session] = _Ledger(record, settled_bytes=record.position_bytes)
        return [_put(records.session_key(session), record)]

    def close_session(self, session: SessionId, *, forget: bool) -> list[Change]:
        """BYE forgets it; a newer one of its name, or expiry, closes it: it is remembered, so that
        it is refused should it come back, but its watermarks are of no use any more."""
        ledger = self._ledgers.get(session)
        if ledger is None:
            return []
        key = records.session_key(session)
        # Those of this very commit, too: the journal does not have them yet.
        known = {mark for mark, _ in self._journal.scan(records.session_marks(session))}
        marks: list[Change] = [(mark, None) for mark in sorted(known | ledger.marks)]
        if not forget:
            ledger.record = msgspec.structs.replace(ledger.record, closed=True, refused=[])
            kept: Change = _put(key, ledger.record)
        else:
            kept = (key, None)
            del self._ledgers[session]
        return [kept, *marks, *self._needed_no_more(session, ledger.record.acknowledged)]

    def _needed_no_more(self, session: SessionId, acknowledged: int) -> list[Change]:
        """Tails in quarantine need no watermark to know what was settled before a BYE."""
        changes = []
        for key, record in self._tails():
            left = [n for n in record.needed if n[0] != session or n[3] > acknowledged]
            given_up = any(n[0] == session for n in left)
            sessions = [s for s in record.sessions if s != session or given_up]
            after = msgspec.structs.replace(record, needed=left, sessions=sessions)
            if after != record:
                changes.append(_put(key, after))
        return changes

    def drained(self, session: SessionId, run: RunNumber) -> list[Change]:
        """All that the session's source ever had for the run is settled: what cannot be read in a
        saved tail of the run holds nothing of it that is not stored."""
        return [
            _put(key, msgspec.structs.replace(record, sessions=left))
            for key, record in self._tails()
            if record.run == run
            and (left := [s for s in record.sessions if s != session]) != record.sessions
        ]

    def _tails(self) -> list[tuple[bytes, QuarantineRecord]]:
        return [
            (key, records.decode_record(key, value, QuarantineRecord))
            for key, value in self._journal.scan(records.QUARANTINE)
        ]

    def refusals_seen(self, session: SessionId, seen: int) -> list[Change]:
        """Refusals numbered below `seen` reached the source."""
        ledger = self._ledgers.get(session)
        if ledger is None or seen <= ledger.record.refused_from:
            return []
        kept = ledger.record.refused[seen - ledger.record.refused_from :]
        ledger.record = msgspec.structs.replace(ledger.record, refused=kept, refused_from=seen)
        return [_put(records.session_key(session), ledger.record)]

    def end_run(self, record: EndedRunRecord) -> list[Change]:
        """The run leaves the live state with its counters, and enters the catalogue."""
        run = RunNumber(record.run)
        changes: list[Change] = [(records.run_key(run), None)]
        counts = []
        for source, count_run, stream in sorted(self._counts):
            if count_run == run:
                counts.append((source, str(stream), self._counts.pop((source, run, stream))))
                changes.append((records.count_key(source, run, stream), None))
        streams = {name for of_run, name in self._next_block if of_run == run}
        # Those too that never stored anything: a restart must not read them for ever.
        for stream_name in sorted(streams | set(record.streams)):
            self._next_block.pop((run, stream_name), None)
            changes.append((records.stream_key(StreamKey(run, StreamName(stream_name))), None))
        ended = msgspec.structs.replace(record, counts=_within_a_record(counts))
        return [*changes, _put(records.ended_run_key(run), ended)]

    def latency(self) -> list[int]:
        """From taking up a stream's oldest piece to its commit, of the last syncs; nanoseconds."""
        return list(self._latency_ns)

    def counts_now(self) -> dict[tuple[str, RunNumber, StreamName], CountRecord]:
        """A copy, for status; may be called from any thread."""
        return dict(self._counts)


def _put(key: bytes, record: msgspec.Struct) -> Change:
    assert isinstance(record, records._Record)
    return key, records.encode_record(key, record)


def _stream_key(record: StreamRecord) -> StreamKey:
    return StreamKey(RunNumber(record.run), StreamName(record.stream))


def file_record_key(record: FileRecord) -> FileKey:
    return FileKey(
        RunNumber(record.run),
        StreamName(record.stream),
        FileKind(record.kind),
        PartNumber(record.part),
    )


def _sum(a: CountRecord, b: CountRecord) -> CountRecord:
    refused = a.refused
    if b.refused:
        refused = {**refused, **{r: refused.get(r, 0) + n for r, n in b.refused.items()}}
    return CountRecord(
        stored=a.stored + b.stored,
        duplicate=a.duplicate + b.duplicate,
        garbage=a.garbage + b.garbage,
        orphan=a.orphan + b.orphan,
        refused=refused,
        payload_bytes=a.payload_bytes + b.payload_bytes,
    )


def _within_a_record(
    counts: Sequence[tuple[str, str, CountRecord]],
) -> list[tuple[str, str, CountRecord]]:
    """The counters of a run, those beyond a limit as one source: a record has a largest size, and
    a run that many short-lived sources sent to must end, too."""
    others: dict[str, CountRecord] = {}
    for _, stream, count in counts[COUNTS_PER_RUN_MAX:]:
        others[stream] = _sum(others.get(stream, CountRecord()), count)
    rest = [(OTHER_SOURCES, stream, count) for stream, count in sorted(others.items())]
    return [*counts[:COUNTS_PER_RUN_MAX], *rest]


def _diversion(s: Settlement) -> Diversion:
    assert s.mark is not None
    why = records.LATE if s.garbage else s.reason
    return Diversion(
        run=int(s.mark.run), stream=str(s.mark.stream), why=why, events=s.garbage + s.orphan
    )
