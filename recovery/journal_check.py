"""Checks a journal read-only: every record's checksum and shape, and whether the records agree with
each other and with the names and sizes of the files. It opens no event file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from dlog.core.journal_records import (
    ACKNOWLEDGED,
    COMMAND_ORDER,
    COMMANDS,
    COUNTS,
    DONE_OPERATIONS,
    OPERATIONS,
    SCHEMA_VERSION,
    AcknowledgedRecord,
    ClosedFileRecord,
    CommandRecord,
    CountRecord,
    FileRecord,
    OperationRecord,
    QuarantineRecord,
    StreamRecord,
    decode_record,
)
from dlog.core.record_rules import Known, contradiction, read_record
from dlog.core.states import RUN_LIVE, FileState, LoggerState
from dlog.errors import JournalUnreadable
from dlog.model.ids import FileKey, FileKind, PartNumber, StreamKey
from dlog.recovery.facts import DataDirectory, is_data_directory, look_at
from dlog.recovery.judge import could_not
from dlog.recovery.report import FileReport, Finding, FindingKind, Verdict, shown, shut_words
from dlog.recovery.snapshot import Snapshot

READS_OF_A_RUNNING_LOGGER: Final = 3


def check(root: Path, data: DataDirectory | None = None) -> FileReport:
    """The verdict on the journal of a data directory: good, 5 for what disagrees or cannot be read,
    6 for a schema of another version, 1 where there is no journal or where it may not be looked at.
    data: what was read of it."""
    report = FileReport(path=shown(root / "journal"), state="journal", findings=[], notes=[])
    data = data or look_at(root)
    snapshot = data.snapshot
    if snapshot is None:
        _not_read(report, data)
        return report
    if snapshot.meta is not None and snapshot.meta.schema != SCHEMA_VERSION:
        report.add(Finding(
            kind=FindingKind.VERSION, verdict=Verdict.UNSUPPORTED,
            reason=f"journal schema {snapshot.meta.schema}; this program reads {SCHEMA_VERSION}",
        ))  # fmt: skip
        return report
    for problem in _lasting_problems(root, data, snapshot):
        report.add(Finding(
            kind=FindingKind.JOURNAL, verdict=Verdict.DISAGREE, reason=problem
        ))  # fmt: skip
    _note_counts(report, snapshot)
    for number, reason in data.away.items():
        report.note(f"{shown(data.folders[number])}: {reason}; its files were not looked at")
    for folder, reason in sorted(_shut_folders(data, snapshot).items()):
        could_not(
            report, FindingKind.UNREADABLE_FILE, f"{shown(folder)} cannot be looked into: {reason}"
        )
    return report


def _not_read(report: FileReport, data: DataDirectory) -> None:
    if data.journal_shut:
        could_not(report, FindingKind.JOURNAL, shut_words(data.journal_shut))
    elif data.journal_problem:
        report.add(Finding(
            kind=FindingKind.JOURNAL, verdict=Verdict.DISAGREE, reason=data.journal_problem
        ))  # fmt: skip
    else:
        could_not(report, FindingKind.JOURNAL, why_none(data.root))


def why_none(root: Path) -> str:
    """Why a directory without a journal has none."""
    try:
        has_files = is_data_directory(root)
    except OSError as error:
        return f"{shown(root)} cannot be looked into: {error.strerror}"
    if not has_files:
        return f"{shown(root)} is no data directory: it has neither a journal nor event files"
    return f"there is no journal; dlog journal rebuild {shown(root)} makes one from the event files"


def _lasting_problems(root: Path, data: DataDirectory, snapshot: Snapshot) -> list[str]:
    """On a running logger records change between the reads of two prefixes: what is still so when
    all is read again is a problem."""
    problems = list(_problems(data, snapshot))
    for _ in range(READS_OF_A_RUNNING_LOGGER - 1):
        if not problems or not data.running:
            break
        data = look_at(root)
        again = set(_problems(data, data.snapshot)) if data.snapshot is not None else set()
        problems = [problem for problem in problems if problem in again]
    return problems


def _problems(data: DataDirectory, snapshot: Snapshot) -> Iterator[str]:
    yield from snapshot.problems
    yield from _other_records(snapshot)
    yield from _singles(snapshot)
    yield from _contradictions(snapshot)
    for key, record in snapshot.files.items():
        yield from _file(snapshot, key, record)
    for stream, stream_record in snapshot.streams.items():
        yield from _stream(snapshot, stream, stream_record)
    yield from _marks(snapshot)
    yield from _disk(data, snapshot)


def _other_records(snapshot: Snapshot) -> Iterator[str]:
    for key, value in snapshot.others.items():
        try:
            if key.startswith(COMMANDS):
                decode_record(key, value, CommandRecord)
            elif key.startswith(COUNTS):
                read_record(key, value, CountRecord)
            elif key.startswith((OPERATIONS, DONE_OPERATIONS)):
                decode_record(key, value, OperationRecord)
            elif key.startswith(ACKNOWLEDGED):
                decode_record(key, value, AcknowledgedRecord)
            elif not key.startswith(COMMAND_ORDER):
                yield f"record {key!r} is of no known kind"
        except JournalUnreadable as error:
            yield str(error)


def _singles(snapshot: Snapshot) -> Iterator[str]:
    for name, record in (("meta", snapshot.meta), ("boot", snapshot.boot)):
        if record is None:
            yield f"there is no {name} record"
    logger = snapshot.logger
    live = [run for run, record in snapshot.runs.items() if record.state in RUN_LIVE]
    if logger is not None and live and logger.state in (
        LoggerState.PREINITIALIZED, LoggerState.INITIALIZED, LoggerState.CONFIGURED,
    ):  # fmt: skip
        yield f"the logger is {logger.state}, and run {live[0]} is live"
    for run in snapshot.runs.keys() & snapshot.ended.keys():
        yield f"run {run} is both live and ended"


def _contradictions(snapshot: Snapshot) -> Iterator[str]:
    """What a start refuses."""
    known = Known(
        snapshot.boot.boot if snapshot.boot is not None else 0,
        len(snapshot.meta.data) if snapshot.meta is not None else 0,
        {run: record.streams for run, record in snapshot.runs.items()},
        lambda run: run in snapshot.ended,
    )
    named: list[tuple[str, FileRecord | StreamRecord | QuarantineRecord]] = [
        *((str(key), file) for key, file in snapshot.files.items()),
        *((str(key), stream) for key, stream in snapshot.streams.items()),
        *((tail.path, tail) for tail in snapshot.quarantine),
    ]
    for name, record in named:
        problem = contradiction(record, known)
        if problem:
            yield f"{name}: {problem}"


def _file(snapshot: Snapshot, key: FileKey, record: FileRecord) -> Iterator[str]:
    name = str(key)
    if key in snapshot.closed:
        yield f"{name} is both open and in the catalogue of closed files"
    if key.run in snapshot.ended:
        # Only what waits for its directory, or for the housekeeper, outlasts its run.
        if record.state not in (FileState.CREATING, FileState.ERROR):
            yield f"{name}: its run is not live"
    elif key.stream_key not in snapshot.streams:
        yield f"{name}: its stream has no record"
    if record.state is FileState.CREATING:
        return
    if record.predecessor_part:
        before = FileKey(key.run, key.stream, key.kind, PartNumber(record.predecessor_part))
        yield from _predecessor(name, record, snapshot.files.get(before) or
                                snapshot.closed.get(before))  # fmt: skip


def _predecessor(
    name: str, record: FileRecord, before: FileRecord | ClosedFileRecord | None
) -> Iterator[str]:
    if before is None:
        yield f"{name}: it goes on for part {record.predecessor_part}, which nothing tells of"
        return
    end = before.size_bytes if isinstance(before, ClosedFileRecord) else before.durable
    if not before.sealed:
        yield f"{name}: it goes on for part {record.predecessor_part}, which is not sealed"
    elif end != record.predecessor_sealed:
        yield (
            f"{name}: it goes on from byte {record.predecessor_sealed} of part "
            f"{record.predecessor_part}, which was sealed at {end}"
        )


def _stream(snapshot: Snapshot, key: StreamKey, record: StreamRecord) -> Iterator[str]:
    files: dict[FileKey, FileRecord | ClosedFileRecord] = {}
    files |= {k: r for k, r in snapshot.files.items() if k.stream_key == key}
    files |= {k: r for k, r in snapshot.closed.items() if k.stream_key == key}
    for file, its in files.items():
        if file.part >= record.next_part.get(file.kind, 1):
            yield f"{file}: the stream's next part is {record.next_part.get(file.kind, 1)}"
        if its.totals.last_block >= record.next_block:
            yield (
                f"{file}: holds block {its.totals.last_block}, and the stream's next block is "
                f"{record.next_block}"
            )
    opened = [
        str(k) for k, r in files.items()
        if isinstance(r, FileRecord) and r.state is FileState.OPEN and k.kind is FileKind.EVENTS
    ]  # fmt: skip
    if len(opened) > 1:
        yield f"{key}: several parts are OPEN: {', '.join(sorted(opened))}"


def _marks(snapshot: Snapshot) -> Iterator[str]:
    orphaned = {mark.session for mark in snapshot.marks} - set(snapshot.sessions)
    for session in sorted(orphaned):
        yield f"watermarks of session {session.hex()}, which has no record"


def _disk(data: DataDirectory, snapshot: Snapshot) -> Iterator[str]:
    """Names and sizes alone; `dlog verify` looks inside."""
    for key, record in snapshot.files.items():
        if record.durable == 0 or key in snapshot.closed:
            continue  # nothing was acknowledged in it
        if not 0 <= record.directory < len(data.folders) or record.directory in data.away:
            continue
        path = data.folders[record.directory] / record.path
        size = max(_size(path), _size(path.with_name(path.name + ".part")))
        if size < 0 and _shut(path):
            continue
        if size < 0:
            yield f"{record.path} is not there; {record.durable} bytes of it were acknowledged"
        elif size < record.durable:
            yield f"{record.path} has {size} bytes; {record.durable} were acknowledged"
    for closed in snapshot.closed.values():
        if 0 <= closed.directory < len(data.folders) and closed.directory not in data.away:
            path = data.folders[closed.directory] / closed.path
            size = _size(path)
            if size < 0 and _shut(path):
                continue
            if size != closed.size_bytes:
                there = "is not there" if size < 0 else f"has {size} bytes"
                yield f"{closed.path} {there}; the catalogue says {closed.size_bytes} bytes"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _shut(path: Path) -> str:
    """Why the files of a folder cannot be seen, "" where they can."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _shut_folders(data: DataDirectory, snapshot: Snapshot) -> dict[Path, str]:
    """The folders of the files that cannot be seen."""
    found: dict[Path, str] = {}
    for record in snapshot.records():
        if 0 <= record.directory < len(data.folders) and record.directory not in data.away:
            path = data.folders[record.directory] / record.path
            if path.parent not in found and (reason := _shut(path)):
                found[path.parent] = reason
    return found


def _note_counts(report: FileReport, snapshot: Snapshot) -> None:
    held: tuple[tuple[str, Callable[[], int]], ...] = (
        ("live runs", lambda: len(snapshot.runs)),
        ("ended runs", lambda: len(snapshot.ended)),
        ("open files", lambda: len(snapshot.files)),
        ("closed files", lambda: len(snapshot.closed)),
        ("sessions", lambda: len(snapshot.sessions)),
        ("watermarks", lambda: len(snapshot.marks)),
    )
    report.note(", ".join(f"{count()} {name}" for name, count in held))
    if snapshot.meta is not None and snapshot.meta.rebuilt_ns:
        report.note("rebuilt from the event files")
