"""The live state: what the journal says is going on, read and settled at a start.

It reads live prefixes alone, so that a start takes no longer the larger the archive is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from dlog.core import journal_records as records
from dlog.core.journal_records import (
    EndedRunRecord,
    FileRecord,
    LoggerRecord,
    MarkRecord,
    QuarantineRecord,
    RunRecord,
    SessionRecord,
    StreamRecord,
)
from dlog.core.record_rules import Known, contradiction, read_record
from dlog.core.states import FileState, LoggerState, RunState
from dlog.errors import JournalUnreadable
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    NO_RUN,
    ORPHAN_STREAM,
    FileKind,
    MarkKey,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
)
from dlog.ports import Journal
from dlog.services.parts import Part, Storage, put_stream
from dlog.services.restart import DirectCommits, Restart, refuse_outdated

ORPHAN_CONFIG: Final = StreamConfig(ranges=False)


@dataclass(frozen=True, slots=True)
class LiveState:
    """What goes on: the logger's record, its live runs, and of each stream the parts that are open
    again. lost: what the restart found gone, for people."""

    record: LoggerRecord
    runs: Sequence[RunRecord]
    streams: Sequence[StreamRecord]
    parts: dict[StreamKey, list[Part]]
    lost: Sequence[str]

    def of_run(self, run: int) -> list[tuple[StreamRecord, list[Part]]]:
        """The streams of a run, each with its open parts."""
        return [
            (stream, self.parts.get(StreamKey(RunNumber(run), StreamName(stream.stream)), []))
            for stream in self.streams
            if stream.run == run
        ]

    @property
    def orphans(self) -> tuple[StreamRecord, list[Part]]:
        """The stream of what belongs nowhere."""
        found = self.of_run(NO_RUN)
        return found[0] if found else (StreamRecord(run=NO_RUN, stream=ORPHAN_STREAM), [])


def live_runs(journal: Journal) -> list[RunRecord]:
    return _all(journal, records.RUNS, RunRecord)


def settle_live_state(
    journal: Journal, storage: Storage, orphans: StreamConfig = ORPHAN_CONFIG
) -> LiveState:
    """Read what is live, and settle every file that is not closed, before any thread runs."""
    runs = live_runs(journal)
    _refuse_contradictions(journal, storage, runs)
    live = {run.run: run for run in runs}
    files = []
    for record in _all(journal, records.FILES, FileRecord):
        if record.run == NO_RUN:
            files.append((record, orphans, True))
        elif record.run in live:
            files.append((record, live[record.run].streams[record.stream], True))
        else:
            files.append((record, config_of_ended(journal, record), False))
    refuse_outdated(
        storage,
        [record for record, _, _ in files],
        _all(journal, records.STREAMS, StreamRecord),
    )
    commits = DirectCommits(journal)
    _keep_ranges_open(journal, commits, [record for record, _, live in files if live])
    restart = Restart(replace(storage, commits=commits), open_sessions(journal))
    restart.drop_unfinished(_all(journal, records.QUARANTINE, QuarantineRecord))
    found = restart.settle(files)
    restart.finish_operations()
    parts: dict[StreamKey, list[Part]] = {}
    for part in found.parts:
        part.use(storage)
        parts.setdefault(part.key.stream_key, []).append(part)
    streams = _all(journal, records.STREAMS, StreamRecord)
    return LiveState(_logger_record(journal), runs, streams, parts, found.lost)


def _refuse_contradictions(journal: Journal, storage: Storage, runs: Sequence[RunRecord]) -> None:
    """Before anything is touched: what no logger wrote must not be settled as if one had."""
    known = Known(
        storage.boot,
        len(storage.directories),
        {run.run: run.streams for run in runs},
        lambda run: finished_run(journal, run) is not None,
    )
    found: list[FileRecord | StreamRecord | QuarantineRecord] = [
        *_all(journal, records.FILES, FileRecord),
        *_all(journal, records.STREAMS, StreamRecord),
        *_all(journal, records.QUARANTINE, QuarantineRecord),
    ]
    for record in found:
        problem = contradiction(record, known)
        if problem:
            what = "tail" if isinstance(record, QuarantineRecord) else "record"
            raise JournalUnreadable(
                f"the journal's {what} of run {record.run} {record.stream} cannot be: {problem}"
            )


def _keep_ranges_open(
    journal: Journal, commits: DirectCommits, files: Sequence[FileRecord]
) -> None:
    """A restart that sealed a part could not tell its stream so. Before the next one settles it,
    and its record goes, the stream's record has its range."""
    streams = {(s.run, s.stream): s for s in _all(journal, records.STREAMS, StreamRecord)}
    for record in files:
        stream = streams.get((record.run, record.stream))
        mine = (record.low, record.high)
        sealed = record.state is FileState.ERROR and record.sealed and record.high >= 0
        if stream is None or not sealed or record.kind != FileKind.EVENTS:
            continue
        if mine in stream.unmade or _goes_on(files, record):
            continue
        stream = msgspec.structs.replace(stream, unmade=[*stream.unmade, mine])
        streams[record.run, record.stream] = stream
        commits.submit([put_stream(stream)])


def _goes_on(files: Sequence[FileRecord], before: FileRecord) -> bool:
    """Whether there is a part already that goes on for that one, or did until its range closed."""
    return any(
        (f.run, f.stream, f.kind, f.predecessor_part)
        == (before.run, before.stream, before.kind, before.part)
        and f.state in (FileState.OPEN, FileState.END, FileState.CLOSING)
        for f in files
    )


def _logger_record(journal: Journal) -> LoggerRecord:
    value = journal.get(records.LOGGER)
    if value is None:
        return LoggerRecord(state=LoggerState.PREINITIALIZED)
    record = read_record(records.LOGGER, value, LoggerRecord)
    if record.state in (LoggerState.STOPPED, LoggerState.FAILED):
        # The number of the next command goes on, so that recorded answers are dropped in turn.
        return LoggerRecord(
            state=LoggerState.PREINITIALIZED, next_command_order=record.next_command_order
        )
    return record


def directories_held(journal: Journal) -> set[int]:
    """Positions of the data directories with something that is not settled."""
    files = {file.directory for file in _all(journal, records.FILES, FileRecord)}
    return files | {tail.directory for tail in _all(journal, records.QUARANTINE, QuarantineRecord)}


def config_of_ended(
    journal: Journal, record: FileRecord, orphans: StreamConfig = ORPHAN_CONFIG
) -> StreamConfig:
    """The frozen configuration of a file whose run is in the catalogue, or never was."""
    if record.run == NO_RUN:
        return orphans
    ended = _ended(journal, RunNumber(record.run))
    return ended.streams.get(record.stream, StreamConfig()) if ended else StreamConfig()


def finished_run(journal: Journal, run: RunNumber) -> RunState | None:
    """How a run that is not live ended, None for one that never was."""
    ended = _ended(journal, run)
    return ended.state if ended else None


def _ended(journal: Journal, run: RunNumber) -> EndedRunRecord | None:
    key = records.ended_run_key(run)
    value = journal.get(key)
    return read_record(key, value, EndedRunRecord) if value is not None else None


def sessions(journal: Journal) -> list[SessionRecord]:
    return _all(journal, records.SESSIONS, SessionRecord)


def open_sessions(journal: Journal) -> list[bytes]:
    """The sessions whose sources may still send something."""
    return [record.session for record in sessions(journal) if not record.closed]


def watermarks(journal: Journal) -> dict[MarkKey, int]:
    """Highest committed batch by session, run and stream as sent."""
    found = {}
    for key, value in journal.scan(records.MARKS):
        session, run, stream = key[len(records.MARKS) :].decode().split("/")
        mark = MarkKey(SessionId(bytes.fromhex(session)), RunNumber(int(run)), StreamName(stream))
        found[mark] = read_record(key, value, MarkRecord).sequence
    return found


def _all(journal: Journal, prefix: bytes, kind: type[records.R]) -> list[records.R]:
    return [read_record(key, value, kind) for key, value in journal.scan(prefix)]
