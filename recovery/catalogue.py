"""What there is: the runs and files of a data directory, as its journal says, or, where there is no
journal, as the files and their sidecars say. It judges nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from dlog.core.event_file import FileHeader, Totals, sidecar_path
from dlog.core.journal_records import ClosedFileRecord, FileRecord
from dlog.core.run_files import PART_SUFFIX, LeftOut
from dlog.core.states import FileState
from dlog.errors import DlogError
from dlog.model.ids import FileKey, FileKind, RunNumber
from dlog.reader.beside import Beside
from dlog.reader.file_bytes import header_of
from dlog.reader.run_folder import own_files
from dlog.recovery.facts import (
    DataDirectory,
    look_at,
    place_of,
    read_sidecar,
)
from dlog.recovery.report import shut_words
from dlog.recovery.snapshot import Snapshot


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the catalogue. Times are nanoseconds since 1970-01-01 UTC, 0 for not known.

    size_bytes: of a file that is not closed, its durable bytes (on disk, where no journal tells).
    totals: None where only reading the file would tell. status: good, bad or recovered; sealed: why
    a fault ended it, "" where none did. problem: why it could not be looked at.
    """

    path: str
    run: int = 0
    stream: str = ""
    kind: str = ""
    part: int = 0
    state: str = ""
    size_bytes: int = 0
    totals: Totals | None = None
    created_ns: int = 0
    closed_ns: int = 0
    crc32c: str = ""
    status: str = ""
    sealed: str = ""
    problem: str = ""


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A run. state: "" where no journal tells. events, payload_bytes: of its closed and its durable
    files. by_stream: events of each stream. left: names in a folder that are none of its files."""

    run: int
    state: str = ""
    started_ns: int = 0
    ended_ns: int = 0
    comment: str = ""
    reason: str = ""
    events: int = 0
    payload_bytes: int = 0
    by_stream: dict[str, int] = {}
    files: list[FileEntry] = []
    left: list[str] = []


class SavedTail(msgspec.Struct, frozen=True, kw_only=True):
    """A tail that was never acknowledged and was saved aside. events_of: the run and stream."""

    path: str
    run: int = 0
    stream: str = ""
    begin: int = 0
    end: int = 0
    saved_ns: int = 0


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """The runs by number, what no run takes, and what was saved aside.

    journal: whether the journal told; else `journal_problem` says why not. running: a logger runs
    on the directory. left: names that are none of the run's files. unread: what could not be looked
    into, with the reason.
    """

    data: list[str]
    journal: bool
    journal_problem: str = ""
    running: bool = False
    runs: list[RunEntry] = []
    orphans: list[FileEntry] = []
    quarantine: list[SavedTail] = []
    left: list[str] = []
    unread: list[str] = []


def catalogue(root: Path) -> Catalogue:
    """Of a data directory."""
    data = look_at(root)
    if data.snapshot is not None:
        return _from_journal(data, data.snapshot)
    unread = []
    if data.journal_shut:
        problem = f"the journal: {shut_words(data.journal_shut)}"
        unread.append(data.journal_shut)
    else:
        problem = data.journal_problem or "there is no journal: this is what the files say"
    entries, tails = [], []
    beside = Beside(roots=data.roots)
    survey = data.survey()
    unread += [f"{folder}: {reason}" for folder, reason in survey.shut.items()]
    for _, path in survey.paths:
        if path.suffix == ".tail":
            place = place_of(path)
            tails.append(
                SavedTail(
                    path=str(path),
                    run=place.run or 0,
                    stream=place.stream or "",
                    begin=place.tail_begin or 0,
                    end=_size(path),
                )
            )
        else:
            entries.append(file_entry(path, beside))
    runs = sorted({entry.run for entry in entries if not _is_orphan(entry)})
    return Catalogue(
        data=[str(folder) for folder in data.folders],
        journal=False,
        journal_problem=problem,
        running=data.running,
        runs=[_with_files(RunEntry(run=run), entries) for run in runs],
        orphans=[entry for entry in entries if _is_orphan(entry)],
        quarantine=tails,
        left=_left(survey.left),
        unread=unread,
    )


def _left(left: Iterable[LeftOut]) -> list[str]:
    return [f"{out.folder}/{out.name}: {out.reason}" for out in left]


def _from_journal(data: DataDirectory, snapshot: Snapshot) -> Catalogue:
    # A file that is closed between two reads stands in both: the later state holds.
    records: dict[FileKey, FileRecord | ClosedFileRecord] = {**snapshot.files, **snapshot.closed}
    entries = [_of_record(data, records[key]) for key in sorted(records)]
    runs: dict[RunNumber, RunEntry] = {}
    streams: dict[RunNumber, list[str]] = {}
    for number, live in snapshot.runs.items():
        runs[number] = RunEntry(
            run=number, state=live.state, started_ns=live.started_ns, comment=live.comment,
            reason=live.abort_reason,
        )  # fmt: skip
        streams[number] = list(live.streams)
    for number, ended in snapshot.ended.items():
        runs[number] = RunEntry(
            run=number, state=ended.state, started_ns=ended.started_ns, ended_ns=ended.ended_ns,
            comment=ended.comment, reason=ended.reason,
        )  # fmt: skip
        streams[number] = list(ended.streams)
    for entry in entries:
        if not _is_orphan(entry):
            # Its run's record was not readable, or the journal was rebuilt without it.
            runs.setdefault(RunNumber(entry.run), RunEntry(run=entry.run))
    tails = [
        SavedTail(
            path=str(_folder(data, tail.directory) / tail.path), run=tail.run, stream=tail.stream,
            begin=tail.begin, end=tail.end, saved_ns=tail.saved_ns,
        )
        for tail in snapshot.quarantine
    ]  # fmt: skip
    return Catalogue(
        data=[str(folder) for folder in data.folders],
        journal=True,
        journal_problem="; ".join(snapshot.problems),
        running=data.running,
        runs=[_with_files(runs[n], entries, order=streams.get(n, ())) for n in sorted(runs)],
        orphans=[entry for entry in entries if _is_orphan(entry)],
        quarantine=tails,
    )


def _of_record(data: DataDirectory, record: FileRecord | ClosedFileRecord) -> FileEntry:
    path = str(_folder(data, record.directory) / record.path)
    entry = FileEntry(
        path=path,
        run=record.run,
        stream=record.stream,
        kind=FileKind(record.kind).name.lower(),
        part=record.part,
        totals=record.totals,
        created_ns=record.created_ns,
        crc32c=f"{record.crc32c:08x}",
        sealed=(record.reason or "sealed") if record.sealed else "",
    )
    if isinstance(record, FileRecord):
        return _open_entry(entry, record, away=record.directory in data.away)
    return msgspec.structs.replace(
        entry,
        state=FileState.CLOSED,
        size_bytes=record.size_bytes,
        closed_ns=record.closed_ns,
        status=record.status,
    )


def _open_entry(entry: FileEntry, record: FileRecord, *, away: bool) -> FileEntry:
    """Of a file that is not closed: what it holds up to its durable offset, where that is there."""
    path = Path(entry.path)
    part = path.with_name(path.name + PART_SUFFIX)
    entry = msgspec.structs.replace(
        entry, path=str(part), state=record.state, size_bytes=record.durable
    )
    if record.state is FileState.CREATING or away:
        return entry
    lost = record.reason if record.state is FileState.ERROR and not record.sealed else ""
    size = _size_of_either(part, path)
    if size is not None and size < record.durable:
        lost = (
            f"acknowledged events may be lost: it has {size} bytes, {record.durable} were "
            "acknowledged"
        )
    if not lost:
        return entry
    return msgspec.structs.replace(entry, totals=None, size_bytes=size or 0, problem=lost)


def _size_of_either(part: Path, final: Path) -> int | None:
    """Of a file that may be closed and so renamed meanwhile; 0 where it is gone, None where it
    cannot be seen."""
    for path in (part, final):
        try:
            return path.stat().st_size
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return 0


def file_entry(path: Path, beside: Beside | None = None) -> FileEntry:
    """What a file's sidecar, else its header, says; and, of an open file, its successor, which is
    looked for `beside` it (None: in its own folder)."""
    try:
        sidecar = None if path.suffix == PART_SUFFIX else read_sidecar(path)
    except (DlogError, OSError):
        sidecar = None
    if sidecar is not None:
        return FileEntry(
            path=str(path), run=sidecar.run, stream=sidecar.stream, kind=sidecar.kind,
            part=sidecar.part, state=FileState.CLOSED, size_bytes=sidecar.size_bytes,
            totals=sidecar.totals, created_ns=sidecar.created_ns, closed_ns=sidecar.closed_ns,
            crc32c=sidecar.crc32c, status=sidecar.file_content_status, sealed=sidecar.sealed,
        )  # fmt: skip
    place, header = place_of(path), header_of(path)
    if header is None:
        return FileEntry(
            path=str(path), run=place.run or 0, stream=place.stream or "",
            kind=place.kind.name.lower() if place.kind else "", part=place.part or 0,
            size_bytes=_size(path), problem="its header cannot be read",
        )  # fmt: skip
    is_open = path.suffix == PART_SUFFIX
    if is_open and (sealed := _sealed_entry(path, header, beside or Beside())) is not None:
        return sealed
    without = "" if is_open else f"no {Path(sidecar_path(path.name)).name} beside it"
    return FileEntry(
        path=str(path), run=header.key.run, stream=header.key.stream,
        kind=header.key.kind.name.lower(), part=header.key.part,
        state=FileState.OPEN if is_open else FileState.CLOSED, size_bytes=_size(path),
        created_ns=header.created_ns, problem=without,
    )  # fmt: skip


def _sealed_entry(path: Path, header: FileHeader, beside: Beside) -> FileEntry | None:
    """Of a part that a fault sealed and no start has settled yet; None where none did. What lies
    behind its end went on in the next part."""
    key = header.key
    try:
        sidecar = read_sidecar(place_of(path).final_path)
    except (DlogError, OSError):
        sidecar = None
    told = beside.seal(path, header, sidecar)
    if told is None:
        return None
    seal, successor = told
    why = sidecar.sealed if sidecar is not None else ""
    if successor is not None:
        why = f"its successor {successor.name} goes on from byte {seal.at}"
    return FileEntry(
        path=str(path), run=key.run, stream=key.stream, kind=key.kind.name.lower(), part=key.part,
        state=FileState.ERROR, size_bytes=seal.at, created_ns=header.created_ns,
        totals=sidecar.totals if sidecar is not None and sidecar.size_bytes == seal.at else None,
        sealed=why,
    )  # fmt: skip


def run_entry(folder: Path) -> RunEntry:
    """Of a folder with event files, without a journal. Raises `OSError`."""
    paths, left = own_files([folder])
    beside = Beside()
    entries = [file_entry(path, beside) for path in paths]
    run = RunEntry(run=entries[0].run if entries else 0, left=_left(left))
    return _with_files(run, entries, of_run=False)


def _with_files(
    run: RunEntry,
    entries: Iterable[FileEntry],
    *,
    of_run: bool = True,
    order: Sequence[str] = (),
) -> RunEntry:
    """The run with its files: streams in the order of its configuration, others by name."""
    place = {name: i for i, name in enumerate(order)}
    mine = [e for e in entries if not of_run or (e.run == run.run and not _is_orphan(e))]
    files = sorted(mine, key=lambda e: (place.get(e.stream, len(place)), e.stream, e.kind, e.part))
    by_stream: dict[str, int] = {}
    payload_bytes = 0
    for entry in files:
        totals = entry.totals or Totals()
        by_stream[entry.stream] = by_stream.get(entry.stream, 0) + totals.events
        payload_bytes += totals.payload_bytes
    return msgspec.structs.replace(
        run, files=files, by_stream=by_stream, events=sum(by_stream.values()),
        payload_bytes=payload_bytes,
    )  # fmt: skip


def _is_orphan(entry: FileEntry) -> bool:
    return entry.kind == FileKind.ORPHAN.name.lower()


def _folder(data: DataDirectory, number: int) -> Path:
    """A data directory by its number; one that the journal does not name any more stays visible."""
    return data.folders[number] if number < len(data.folders) else Path(f"<directory {number}>")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
