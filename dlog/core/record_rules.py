"""Which records a journal can hold: the one set of rules for the start, `journal check` and
`journal rebuild`. It does no I/O.

A record whose checksum holds may still say what no logger ever wrote: made by a faulty rebuild, or
in a journal that was put together from two. It is refused with words before any thread meets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dlog.core.event_file import Totals
from dlog.core.journal_records import (
    BootRecord,
    ClosedFileRecord,
    CountRecord,
    FileRecord,
    JournalMeta,
    MarkRecord,
    QuarantineRecord,
    R,
    RunRecord,
    SessionRecord,
    StreamRecord,
    closed_file_key,
    decode_record,
    file_key,
    quarantine_key,
    run_key,
    session_key,
    stream_key,
)
from dlog.core.states import FileState
from dlog.errors import JournalUnreadable
from dlog.limits import PAGE_BYTES, RUN_NUMBER_MAX
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    NO_RUN,
    FileKey,
    FileKind,
    PartNumber,
    RunNumber,
    SessionId,
    StreamKey,
    StreamName,
    file_path,
    valid_stream_name,
)

_NUMBER_MAX: Final = 2**64 - 1
_UUID_BYTES: Final = 16


def read_record(key: bytes, value: bytes, kind: type[R]) -> R:
    """`decode_record` of a record that can be. Raises `JournalUnreadable`."""
    record = decode_record(key, value, kind)
    problem = "; ".join(_problems(key, record))
    if problem:
        raise JournalUnreadable(f"journal record {key!r} cannot be: {problem}")
    return record


@dataclass(frozen=True, slots=True)
class Known:
    """What the other records say. runs: the live ones with the streams of their configuration;
    ended: whether the catalogue has a run; directories: how many data directories there are."""

    boot: int
    directories: int
    runs: Mapping[int, Mapping[str, StreamConfig]]
    ended: Callable[[RunNumber], bool]


def contradiction(record: FileRecord | StreamRecord | QuarantineRecord, known: Known) -> str:
    """Why the record cannot stand beside the others, "" where it can."""
    # New parts of a stream go to another directory where its own is not configured any more.
    if not isinstance(record, StreamRecord) and not 0 <= record.directory < known.directories:
        return f"there is no data directory {record.directory}"
    if isinstance(record, QuarantineRecord):
        return ""
    if isinstance(record, FileRecord) and record.boot > known.boot:
        return f"it was made by boot {record.boot}, and the last one is {known.boot}"
    if record.run == NO_RUN:
        return ""
    streams = known.runs.get(record.run)
    if streams is not None:
        known_stream = record.stream in streams
        return "" if known_stream else "the run's configuration does not name its stream"
    if isinstance(record, StreamRecord):
        return f"run {record.run} is not live"
    return "" if known.ended(RunNumber(record.run)) else f"run {record.run} is not known"


# --- each record by itself --------------------------------------------------------------------


def _problems(key: bytes, record: object) -> Iterator[str]:
    match record:
        case FileRecord():
            yield from _file(key, record)
        case ClosedFileRecord():
            yield from _closed(key, record)
        case StreamRecord():
            yield from _stream(key, record)
        case RunRecord():
            yield from _number("its run", record.run, 1, RUN_NUMBER_MAX)
            if key != run_key(RunNumber(record.run)):
                yield f"it is of run {record.run}"
        case SessionRecord():
            yield from _session(key, record)
        case MarkRecord():
            yield from _number("its batch", record.sequence)
        case CountRecord():
            for name in ("stored", "duplicate", "garbage", "orphan", "payload_bytes"):
                yield from _number(name, getattr(record, name))
            for reason, events in record.refused.items():
                yield from _number(f"refused as {reason}", events)
        case QuarantineRecord():
            if key != quarantine_key(record.path):
                yield f"it is of {record.path}"
            yield from _number("its data directory", record.directory)
            if not PAGE_BYTES <= record.begin <= record.end <= _NUMBER_MAX:
                yield f"its bytes are [{record.begin}..{record.end})"
        case BootRecord():
            yield from _number("boot", record.boot, 1)
        case JournalMeta():
            if len(record.logger_uuid) != _UUID_BYTES or not record.data:
                yield "it names no logger, or no data directory"


def _number(what: str, number: int, least: int = 0, most: int = _NUMBER_MAX) -> Iterator[str]:
    if not least <= number <= most:
        yield f"{what} is {number}; {least} to {most} can be"


def _key(record: FileRecord | ClosedFileRecord) -> FileKey | None:
    """None where it is no key of a file."""
    numbers = 0 <= record.run <= RUN_NUMBER_MAX and 1 <= record.part <= RUN_NUMBER_MAX
    if not numbers or record.kind not in set(FileKind) or not valid_stream_name(record.stream):
        return None
    kind = FileKind(record.kind)
    if (record.run == NO_RUN) != (kind is FileKind.ORPHAN):
        return None
    return FileKey(RunNumber(record.run), StreamName(record.stream), kind, PartNumber(record.part))


def _file(key: bytes, record: FileRecord) -> Iterator[str]:
    its = _key(record)
    if its is None or key != file_key(its):
        yield f"it is of run {record.run} {record.stream}, kind {record.kind}, part {record.part}"
    elif record.path != file_path(its):
        yield f"its path is {record.path}, and should be {file_path(its)}"
    if len(record.file_uuid) != _UUID_BYTES or len(record.salt) != _UUID_BYTES:
        yield "its uuid or its salt has not 16 bytes"
    yield from _number("its data directory", record.directory)
    yield from _number("its boot", record.boot)
    yield from _number("its durable offset", record.durable)
    yield from _number("its reserved end", record.reserved)
    yield from _number("its last block's offset", record.last_header_offset, 0, record.durable)
    yield from _number("its predecessor", record.predecessor_part, 0, record.part - 1)
    yield from _number("its predecessor's end", record.predecessor_sealed)
    yield from _totals(record.totals)
    yield from _range(record.low, record.high)
    if record.state is FileState.END and record.kind == FileKind.EVENTS and record.high < 0:
        yield "it is END, and its range has no end"
    if record.state is FileState.CREATING:
        return
    if record.durable % PAGE_BYTES or (record.durable < PAGE_BYTES and not record.sealed):
        yield f"its durable offset {record.durable} is not the end of a block"
    if record.durable > record.reserved and not record.sealed:
        yield f"its durable offset {record.durable} is beyond what is reserved, {record.reserved}"


def _closed(key: bytes, record: ClosedFileRecord) -> Iterator[str]:
    its = _key(record)
    if its is None or key != closed_file_key(its):
        yield f"it is of run {record.run} {record.stream}, kind {record.kind}, part {record.part}"
    elif record.path != file_path(its):
        yield f"its path is {record.path}, and should be {file_path(its)}"
    yield from _number("its size", record.size_bytes)
    yield from _totals(record.totals)


def _totals(totals: Totals) -> Iterator[str]:
    for name in ("blocks", "events", "payload_bytes", "first_event", "last_event", "last_block"):
        yield from _number(f"{name} of its totals", getattr(totals, name))
    if totals.first_event > totals.last_event:
        yield f"its events are {totals.first_event} to {totals.last_event}"


def _range(low: int, high: int) -> Iterator[str]:
    """Low exclusive, high inclusive; -1 for open."""
    yield from _number("the begin of its range", low, -1)
    yield from _number("the end of its range", high, -1)
    if 0 <= high < low:
        yield f"its range begins behind {low} and ends at {high}"


def _stream(key: bytes, record: StreamRecord) -> Iterator[str]:
    if (
        not 0 <= record.run <= RUN_NUMBER_MAX
        or not valid_stream_name(record.stream)
        or key != stream_key(StreamKey(RunNumber(record.run), StreamName(record.stream)))
    ):
        yield f"it is of run {record.run} {record.stream}"
    yield from _number("its data directory", record.directory)
    yield from _number("its next block", record.next_block, 1)
    yield from _number("its highest event", record.highest_event, -1)
    yield from _number("the end of its last range", record.low, -1)
    for kind, part in record.next_part.items():
        if kind not in set(FileKind):
            yield f"it has parts of kind {kind}"
        yield from _number("its next part", part, 1, RUN_NUMBER_MAX)
    for low, high in record.unmade:
        yield from _range(low, high)
        if high < 0:
            yield "a range that lacks its part has no end"


def _session(key: bytes, record: SessionRecord) -> Iterator[str]:
    if len(record.session) != _UUID_BYTES or key != session_key(SessionId(record.session)):
        yield f"it is of session {record.session.hex()}"
    yield from _number("its acknowledged batch", record.acknowledged)
    yield from _number("its position", record.position_bytes)
    yield from _number("its first refusal", record.refused_from)
    for refusal in record.refused:
        if not 1 <= refusal.first <= refusal.last <= _NUMBER_MAX:
            yield f"a refusal of batches {refusal.first} to {refusal.last}"
        yield from _number("events refused", refusal.events)
