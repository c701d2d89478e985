"""What there is: the runs and files of a data directory, as its journal says, or, where there is no
journal, as the files and their sidecars say. It judges nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from dlog.core.event_file import Totals, sidecar_path
from dlog.core.journal_records import ClosedFileRecord, FileRecord
from dlog.core.states import FileState
from dlog.errors import DlogError
from dlog.model.ids import FileKey, FileKind, RunNumber
from dlog.reader.beside import Beside
from dlog.recovery.facts import (
    PART_SUFFIX,
    DataDirectory,
    look_at,
    place_of,
    read_header,
    read_sidecar,
)
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
    files. by_stream: events of each stream."""

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
    on the directory.
    """

    data: list[str]
    journal: bool
    journal_problem: str = ""
    running: bool = False
    runs: list[RunEntry] = []
    orphans: list[FileEntry] = []
    quarantine: list[SavedTail] = []


def catalogue(root: Path) -> Catalogue:
    """Of a data directory."""
    data = look_at(root)
    if data.snapshot is not None:
        return _from_journal(data, data.snapshot)
    problem = data.journal_problem or "there is no journal: this is what the files say"
    entries, tails = [], []
    beside = Beside(roots=data.roots)
    for _, path in data.paths():
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
    )


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
        return msgspec.structs.replace(
            entry, path=path + PART_SUFFIX, state=record.state, size_bytes=record.durable
        )
    return msgspec.structs.replace(
        entry,
        state=FileState.CLOSED,
        size_bytes=record.size_bytes,
        closed_ns=record.closed_ns,
        status=record.status,
    )


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
    place, header = place_of(path), read_header(path)
    if header is None:
        return FileEntry(
            path=str(path), run=place.run or 0, stream=place.stream or "",
            kind=place.kind.name.lower() if place.kind else "", part=place.part or 0,
            size_bytes=_size(path), problem="its header cannot be read",
        )  # fmt: skip
    is_open = path.suffix == PART_SUFFIX
    without = "" if is_open else f"no {Path(sidecar_path(path.name)).name} beside it"
    told = (beside or Beside()).seal(path, header, None) if is_open else None
    size, sealed = _size(path), ""
    if told is not None and told[1] is not None:
        size, sealed = told[0].at, f"its successor {told[1].name} goes on from byte {told[0].at}"
    return FileEntry(
        path=str(path), run=header.key.run, stream=header.key.stream,
        kind=header.key.kind.name.lower(), part=header.key.part,
        state=FileState.OPEN if is_open else FileState.CLOSED, size_bytes=size,
        created_ns=header.created_ns, sealed=sealed, problem=without,
    )  # fmt: skip


def run_entry(folder: Path) -> RunEntry:
    """Of a folder with event files, without a journal."""
    names = sorted(p for p in folder.iterdir() if p.name.endswith((".dlog", ".dlog.part")))
    beside = Beside()
    entries = [file_entry(path, beside) for path in names]
    return _with_files(RunEntry(run=entries[0].run if entries else 0), entries, of_run=False)


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
