"""Rebuilds a lost or corrupt journal from the event files alone. The old journal is kept aside, and
no event file is touched: what a restart must cut or save aside is left for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from dlog.adapters.data_files import rename_without_replacing
from dlog.adapters.directory_lock import DirectoryLock
from dlog.adapters.journal import LmdbJournal
from dlog.core.event_file import FileHeader
from dlog.core.journal_records import (
    BOOT,
    LOGGER,
    META,
    BootRecord,
    ClosedFileRecord,
    CountRecord,
    Diversion,
    EndedRunRecord,
    FileRecord,
    JournalMeta,
    LoggerRecord,
    MarkRecord,
    OperationKind,
    OperationRecord,
    QuarantineRecord,
    RunRecord,
    SessionRecord,
    StreamRecord,
    closed_file_key,
    count_key,
    decode_record,
    done_operation_key,
    encode_record,
    ended_run_key,
    file_key,
    mark_key,
    quarantine_key,
    run_counts,
    run_key,
    session_key,
    stream_key,
    with_diversion,
)
from dlog.core.scan import SpanKind, scan
from dlog.core.states import FileState, LoggerState, RunState
from dlog.creation import refuse_no_text
from dlog.errors import DataDirectoryGone, DlogError, Error, JournalUnreadable, LockedByAnother
from dlog.limits import PAGE_BYTES, SESSIONS_MAX, WATERMARKS_PER_SESSION_MAX
from dlog.model.config import InitConfig, StreamConfig
from dlog.model.ids import (
    FileKey,
    FileKind,
    MarkKey,
    RunNumber,
    SessionId,
    StreamKey,
    file_path,
)
from dlog.model.status import Whereabouts
from dlog.ports import Change
from dlog.reader.beside import Beside
from dlog.recovery.evidence import (
    Range,
    Testimony,
    crc_of,
    durable_end,
    followed,
    hear,
    leave_out_void,
    ranges,
    trust,
    unmade,
)
from dlog.recovery.facts import (
    DataDirectory,
    FileSource,
    Place,
    is_folder,
    logger_runs,
    look_at,
    mark_of,
    place_of,
    why_away,
)
from dlog.recovery.judge import Progress, no_progress, open_header
from dlog.recovery.report import shown
from dlog.recovery.snapshot import Snapshot, read_journal

Now = Callable[[], int]

CHANGES_PER_COMMIT: Final = 4096
# Sessions of the past that are taken over; room is left for those to come.
SESSIONS_TAKEN_MAX: Final = SESSIONS_MAX // 2
SESSION_AGE_NS_MAX: Final = 7 * 24 * 3600 * 10**9
# Who the events of a rebuilt journal are counted for.
REBUILT_SOURCE: Final = "before-rebuild"
# Who may have had something in a tail that cannot be read, where no journal tells: it never ends.
_UNKNOWN_SESSION: Final = bytes(16)
_RENAME_EXCHANGE: Final = 2


class RebuildReport(msgspec.Struct, kw_only=True):
    """What a rebuilt journal holds, and what it could not learn from the files."""

    data: str
    journal: str
    old_journal: str = ""
    old_journal_readable: bool = False
    boot: int = 0
    logger: str = ""
    live_runs: list[int] = []
    ended_runs: list[int] = []
    open_files: int = 0
    closed_files: int = 0
    events: int = 0
    sessions: int = 0
    watermarks: int = 0
    quarantined: int = 0
    dry_run: bool = False
    problems: list[str] = []
    notes: list[str] = []


class _Book:
    """The records of the journal to be, gathered run by run."""

    def __init__(self, old: Snapshot | None) -> None:
        self.old = old
        self.changes: list[Change] = []
        self.counts: dict[RunNumber, list[tuple[str, str, CountRecord]]] = {}
        self.marks: dict[MarkKey, int] = {}
        self.session_times: dict[SessionId, int] = {}
        self.live_sessions: set[SessionId] = set()
        self.diverted: dict[SessionId, list[Diversion]] = {}
        self.boot = 0
        self.loggers: Counter[tuple[bytes, str]] = Counter()
        self.newest_streams: dict[str, StreamConfig] = {}

    def put(self, key: bytes, record: msgspec.Struct) -> None:
        self.changes.append((key, encode_record(key, record)))  # type: ignore[arg-type]

    def hear_header(self, header: FileHeader) -> None:
        self.loggers[header.logger_uuid, header.text.logger] += 1
        self.boot = max(self.boot, header.boot)


def rebuild(
    root: Path,
    others: Sequence[Path] = (),
    *,
    dry_run: bool = False,
    progress: Progress = no_progress,
    now: Now = time.time_ns,
) -> RebuildReport:
    """Make a new journal of `root` from its event files and those of the other data directories.

    Raises `Error` where a logger runs on it or it is no data directory.
    """
    try:
        if not is_folder(root / "runs") and not is_folder(root / "orphans"):
            raise Error(f"{root} is no data directory: it has no runs/ and no orphans/")
    except OSError as error:
        raise Error(f"{root}: {error.strerror}") from error
    refuse_no_text(root)
    if dry_run:
        # It needs no write access, and so makes no lock file.
        if logger_runs(root):
            raise Error(f"{root}: a logger runs on it; stop it first")
        return _Rebuild(root, others, progress, now).run(dry_run)
    try:
        lock = DirectoryLock.acquire(root)
    except LockedByAnother as error:
        raise Error(f"{error}; stop it first") from error
    except DataDirectoryGone as error:
        denied = isinstance(error.__cause__, PermissionError)
        why = "; only the user of the logger can rebuild its journal" if denied else ""
        raise Error(f"{error}{why}") from error
    with lock:
        return _Rebuild(root, others, progress, now).run(dry_run)


class _Rebuild:
    def __init__(self, root: Path, others: Sequence[Path], progress: Progress, now: Now) -> None:
        self._root = root.absolute()
        self._progress = progress
        self._now = now
        self._report = RebuildReport(
            data=shown(root), journal=shown(root / "journal"), live_runs=[], ended_runs=[],
            problems=[], notes=[],
        )  # fmt: skip
        self._old = look_at(self._root)
        self._refuse_shut()
        # The lock is ours.
        self._old.running = False
        self._report.old_journal_readable = self._old.snapshot is not None
        if self._old.journal_problem:
            self._report.notes.append(f"old journal: {self._old.journal_problem}")
        given = [path.absolute() for path in others]
        known = self._old.folders[1:]
        self._folders = [self._root, *(given or known)]
        self._refuse_away()
        self._old.folders, self._old.away = self._folders, {}
        self._beside = Beside(roots=self._folders)
        self._book = _Book(self._old.snapshot)

    def _refuse_away(self) -> None:
        """A journal without the files of a directory would give their numbers once more."""
        meta = self._old.snapshot.meta if self._old.snapshot is not None else None
        away = [(folder, reason) for folder in self._folders[1:]
                if (reason := why_away(folder, meta))]  # fmt: skip
        if away:
            raise Error(
                f"{'; '.join(f'{shown(folder)}: {reason}' for folder, reason in away)}; a journal "
                "cannot be rebuilt without its files. If they are lost for good, name those data "
                "directories with --also that are there"
            )

    def _refuse_shut(self) -> None:
        """Who may not look at the old journal knows nothing of what it holds."""
        if self._old.journal_shut:
            raise Error(f"the journal was not read: {self._old.journal_shut}; nothing is known to "
                        "be wrong with it. Try as the user of the logger")  # fmt: skip

    def run(self, dry_run: bool) -> RebuildReport:
        report, book = self._report, self._book
        report.dry_run = dry_run
        files: dict[RunNumber, list[tuple[int, Place]]] = {}
        survey = self._old.survey()
        if survey.shut:
            shut = "; ".join(f"{shown(f)}: {why}" for f, why in sorted(survey.shut.items()))
            raise Error(f"{shut}; a journal cannot be rebuilt without the files in it")
        report.notes += [
            f"left out: {shown(Path(out.folder, out.name))}: {out.reason}" for out in survey.left
        ]
        for number, path in survey.paths:
            place = place_of(path)
            if place.tail_begin is not None:
                self._quarantined(number, place)
            elif place.run is not None:
                files.setdefault(place.run, []).append((number, place))
        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            for run in sorted(files):
                heard = list(pool.map(self._hear, files[run]))
                self._run(run, [file for file in heard if file is not None])
        self._sessions()
        self._logger()
        if not dry_run:
            self._write()
        report.watermarks = sum(1 for key, _ in book.changes if key.startswith(b"mark/"))
        return report

    def _hear(self, file: tuple[int, Place]) -> Testimony | None:
        number, place = file
        if place.is_part and not self._report.dry_run:
            _make_durable(place.path)
        try:
            return hear(place, number, self._old, self._beside, self._progress)
        except (OSError, DlogError) as error:
            self._problem(place.path, str(error))
            return None

    def _problem(self, path: Path, text: str) -> None:
        self._report.problems.append(f"{shown(path)}: {text}")

    # --- one run ------------------------------------------------------------------------------

    def _run(self, run: RunNumber, files: list[Testimony]) -> None:
        streams: dict[StreamKey, list[Testimony]] = {}
        for file in files:
            key = file.key
            if file.header is not None:
                self._book.hear_header(file.header)
            for text in file.problems:
                self._problem(file.place.path, text)
            if key is None:
                self._problem(file.place.path, "nothing tells which stream it is of; left out")
                continue
            # The place of a file is what its record says: a file of elsewhere is not taken in.
            if file.place.final_path.name != Path(file_path(key)).name or key.run != run:
                self._problem(file.place.path, f"it should be {file_path(key)}; left out")
                continue
            streams.setdefault(key.stream_key, []).append(file)
        live = any(file.is_open for group in streams.values() for file in group)
        if self._was_over(run):
            live = False  # a part that a fault ended may wait for its directory
        for stream, group in streams.items():
            self._stream(stream, group, live)
        if run == 0 or not streams:
            return
        (self._report.live_runs if live else self._report.ended_runs).append(run)
        self._run_record(run, streams, live)

    def _was_over(self, run: RunNumber) -> bool:
        """Whether an old journal knows the run's end. One that failed at its start may have been
        started again."""
        ended = self._book.old.ended.get(run) if self._book.old is not None else None
        return ended is not None and ended.state is not RunState.FAILED

    def _run_record(
        self, run: RunNumber, streams: dict[StreamKey, list[Testimony]], live: bool
    ) -> None:
        book = self._book
        configs: dict[str, StreamConfig] = {}
        names: set[str] = set()
        started = 0
        for key, group in sorted(streams.items()):
            for file in group:
                if file.header is not None:
                    configs.setdefault(key.stream, file.header.text.config)
                    names |= set(file.header.text.streams)
                    started = started or file.header.text.run_started_ns
        for name in sorted(names - set(configs)):
            configs[name] = StreamConfig()
            self._report.notes.append(
                f"run {run} stream {name}: no file of it; it gets the default configuration"
            )
        book.newest_streams = configs
        old = book.old
        counts = book.counts.pop(run, [])
        if live:
            for source, stream, count in counts:
                book.put(count_key(source, run, stream), count)
            record = old.runs.get(run) if old is not None else None
            book.put(run_key(run), record or RunRecord(
                run=run, state=RunState.ACTIVE, streams=configs, started_ns=started,
            ))  # fmt: skip
            return
        ended = old.ended.get(run) if old is not None else None
        files = [file for group in streams.values() for file in group]
        closed_ns = max((f.sidecar.closed_ns for f in files if f.sidecar is not None), default=0)
        book.put(ended_run_key(run), ended or EndedRunRecord(
            run=run, state=RunState.ENDED, started_ns=started, ended_ns=closed_ns,
            reason="rebuilt from the files", streams=configs, files=len(files),
            counts=counts,
        ))  # fmt: skip

    # --- one stream ---------------------------------------------------------------------------

    def _stream(self, key: StreamKey, files: list[Testimony], live: bool) -> None:
        book, report = self._book, self._report
        leave_out_void(files)
        found = trust(files, self._old_durable(files))
        for text in found.problems:
            report.problems.append(f"{key}: {text}")
        spans = ranges(files)
        self._counts(key, files, found.last)
        for file in files:
            if len(file.rows):
                book.boot = max(book.boot, int(file.rows["boot"].max()))
            for session, time_ns in file.sessions.items():
                book.session_times[session] = max(book.session_times.get(session, 0), time_ns)
                if live:
                    book.live_sessions.add(session)
            self._marks(file, found.last)
            for number, session, diversion in file.diverted:
                if not file.is_open or number <= found.last:
                    told = book.diverted.get(session, [])
                    book.diverted[session] = with_diversion(told, diversion)
            if file.is_open:
                self._open_file(file, found.last, spans)
            else:
                self._closed_file(file)
        if live:
            self._stream_record(key, files, found.last, spans)

    def _counts(self, key: StreamKey, files: Sequence[Testimony], last: int) -> None:
        """What the files hold beyond what the old journal counted, so that the run's accounts add
        up; blocks do not tell the names of the sources, nor what was refused or came twice."""
        if key.run == 0:
            return
        held = {FileKind.EVENTS: 0, FileKind.GARBAGE: 0}
        payload_bytes = 0
        for file in files:
            assert file.key is not None
            rows = file.rows[file.rows["number"] <= last] if file.is_open else file.rows
            held[file.key.kind] += int(rows["events"].sum())
            payload_bytes += int(rows["payload_bytes"].sum())
        counted = self._old_counts(key)
        stored = held[FileKind.EVENTS] - sum(c.stored for _, c in counted)
        garbage = held[FileKind.GARBAGE] - sum(c.garbage for _, c in counted)
        payload_bytes -= sum(c.payload_bytes for _, c in counted)
        if stored > 0 or garbage > 0:
            rest = CountRecord(stored=max(0, stored), garbage=max(0, garbage),
                               payload_bytes=max(0, payload_bytes))  # fmt: skip
            counted = [*counted, (REBUILT_SOURCE, rest)]
        told = self._book.counts.setdefault(key.run, [])
        told += [(source, key.stream, count) for source, count in counted]

    def _old_counts(self, key: StreamKey) -> list[tuple[str, CountRecord]]:
        if self._book.old is None:
            return []
        prefix = run_counts(key.run)
        found = []
        for name, value in self._book.old.others.items():
            if not name.startswith(prefix):
                continue
            source, _, stream = name[len(prefix) :].decode().rpartition("/")
            if stream == key.stream:
                with contextlib.suppress(JournalUnreadable):
                    found.append((source, decode_record(name, value, CountRecord)))
        return found

    def _old_durable(self, files: Sequence[Testimony]) -> Iterator[tuple[Testimony, int]]:
        if self._book.old is None:
            return
        for file in files:
            key = file.key
            record = self._book.old.files.get(key) if key is not None else None
            if record is not None and file.header is not None and (
                record.file_uuid == file.header.file_uuid
            ):  # fmt: skip
                yield file, record.durable

    def _marks(self, file: Testimony, last: int) -> None:
        marks = self._book.marks
        for mark, sequence in file.marks.items():
            marks[mark] = max(marks.get(mark, 0), sequence)
        for number, mark, sequence in file.pieces:
            if number <= last:
                marks[mark] = max(marks.get(mark, 0), sequence)

    def _open_file(self, file: Testimony, last: int, spans: dict[int, Range]) -> None:
        key, header = file.key, file.header
        assert key is not None
        self._report.open_files += 1
        if header is None:
            self._headless(file, key, last)
            return
        end = durable_end(file, last)
        self._report.events += end.totals.events
        span = spans.get(key.part) if key.kind is FileKind.EVENTS else None
        state, reason = self._file_state(file, span)
        self._book.put(file_key(key), FileRecord(
            run=key.run, stream=key.stream, kind=key.kind, part=key.part, state=state,
            directory=file.directory, path=file_path(key), file_uuid=header.file_uuid,
            salt=header.salt, boot=header.boot, created_ns=header.created_ns, durable=end.durable,
            reserved=max(file.size, end.durable), crc32c=end.crc32c,
            last_header_offset=end.last_header_offset, chain=end.chain, totals=end.totals,
            low=span.low if span is not None else -1, high=span.high if span is not None else -1,
            predecessor_part=header.predecessor_part,
            predecessor_sealed=header.predecessor_sealed,
            predecessor_chain=header.predecessor_chain, sealed=state is FileState.ERROR,
            reason=reason,
        ))  # fmt: skip
        behind = file.rows[file.rows["number"] > last]
        if len(behind) and file.sealed_at is None:
            self._report.notes.append(
                f"{shown(file.place.path)}: {len(behind)} blocks from byte {end.durable} on are "
                "not known to be acknowledged; the next start saves them aside"
            )

    def _file_state(self, file: Testimony, span: Range | None) -> tuple[FileState, str]:
        if file.sealed_at is not None:
            return FileState.ERROR, f"sealed at {file.sealed_at}, as {file.seal_reason} says"
        if file.has_footer:
            return FileState.CLOSING, ""
        if span is None or span.newest:
            return FileState.OPEN, ""
        assert file.header is not None
        # Without ranges a full part closes at once, and nothing is late for it; nor is there
        # anything for an empty range.
        takes_late = file.header.text.config.ranges and span.high > span.low
        return (FileState.END if takes_late else FileState.CLOSING), ""

    def _headless(self, file: Testimony, key: FileKey, last: int) -> None:
        """A part whose header page does not hold: nothing was acknowledged in it, or it is for
        `dlog recover`; either way a restart writes nothing to it."""
        rows = file.rows[file.rows["number"] <= last]
        if not len(rows):
            self._report.notes.append(
                f"{shown(file.place.path)}: no block of it was acknowledged; the next start moves "
                "it aside"
            )
            self._book.put(file_key(key), FileRecord(
                run=key.run, stream=key.stream, kind=key.kind, part=key.part,
                state=FileState.CREATING, directory=file.directory, path=file_path(key),
                file_uuid=bytes(16), salt=bytes(16), boot=0, created_ns=self._now(),
                reserved=file.size,
            ))  # fmt: skip
            return
        end = durable_end(file, last)
        self._book.put(file_key(key), FileRecord(
            run=key.run, stream=key.stream, kind=key.kind, part=key.part, state=FileState.ERROR,
            directory=file.directory, path=file_path(key), file_uuid=bytes(16), salt=bytes(16),
            boot=int(rows["boot"][0]), created_ns=self._now(), durable=end.durable,
            reserved=file.size, crc32c=end.crc32c, last_header_offset=end.last_header_offset,
            chain=end.chain, totals=end.totals,
            reason="its header page does not hold: dlog recover makes a file of its blocks",
        ))  # fmt: skip

    def _closed_file(self, file: Testimony) -> None:
        key, header, sidecar = file.key, file.header, file.sidecar
        assert key is not None
        self._report.closed_files += 1
        totals = file.told_totals or file.totals
        self._report.events += totals.events
        status = sidecar.file_content_status if sidecar is not None else "good"
        uuid = header.file_uuid if header is not None else bytes(16)
        size, file_crc = file.size, file.crc32c
        if file.problems:
            status = "bad"
        if file.sealed_at is not None and file.sealed_at < file.size:
            size = file.sealed_at
            file_crc = crc_of(file.place.path, size)
        chain = int(file.rows["crc"][-1]) if len(file.rows) else (header.crc if header else 0)
        self._book.put(closed_file_key(key), ClosedFileRecord(
            run=key.run, stream=key.stream, kind=key.kind, part=key.part,
            directory=file.directory, path=file_path(key), file_uuid=uuid, size_bytes=size,
            crc32c=file_crc, created_ns=header.created_ns if header is not None else 0,
            closed_ns=sidecar.closed_ns if sidecar is not None else 0, totals=totals,
            status=status, sealed=file.sealed_at is not None,
            reason="; ".join(file.problems) or (sidecar.sealed if sidecar is not None else ""),
            chain=chain,
        ))  # fmt: skip

    def _stream_record(
        self, key: StreamKey, files: Sequence[Testimony], last: int, spans: dict[int, Range]
    ) -> None:
        next_part: dict[int, int] = {}
        newest: Testimony | None = None
        low = max((span.low for span in spans.values() if span.newest), default=-1)
        highest = low
        for file in files:
            part = file.key
            assert part is not None
            next_part[part.kind] = max(next_part.get(part.kind, 1), part.part + 1)
            rows = file.rows[file.rows["number"] <= last]
            span = spans.get(part.part) if part.kind is FileKind.EVENTS else None
            if span is not None and span.newest:
                highest = followed(highest, rows)
            if newest is None or newest.key is None or part.part >= newest.key.part:
                newest = file
        waiting = unmade(files, spans)
        old = self._book.old.streams.get(key) if self._book.old is not None else None
        if old is not None and old.low >= low:
            waiting = [one for one in waiting if one in map(tuple, old.unmade)]
        self._book.put(stream_key(key), StreamRecord(
            run=key.run, stream=key.stream, next_block=last + 1, highest_event=highest, low=low,
            next_part=next_part, directory=newest.directory if newest is not None else 0,
            unmade=waiting, anew=old.anew if old is not None else [],
        ))  # fmt: skip

    # --- what is not of one run ---------------------------------------------------------------

    def _quarantined(self, number: int, place: Place) -> None:
        assert place.tail_begin is not None
        path = f"quarantine/{place.path.name}"
        old = self._book.old
        known = next((q for q in old.quarantine if q.path == path), None) if old else None
        self._report.quarantined += 1
        # Its name ends in the boot that saved it: no later boot may come to the same name.
        self._book.boot = max(self._book.boot, int(place.path.stem.rpartition("_")[2]))
        if known is not None:
            self._book.put(quarantine_key(path), known)
            return
        needed: list[tuple[bytes, int, str, int]] = []
        begin = max(PAGE_BYTES, place.tail_begin)
        try:
            with FileSource(place.path) as source:
                opened = open_header(source, place)
                end, saved = source.size(), os.stat(place.path).st_mtime_ns
                readable = opened.header is not None
                spans = scan(source, salt=opened.salt or bytes(16), path=str(place.path),
                             begin=begin)  # fmt: skip
                for span in spans:
                    if span.kind is SpanKind.ZEROS:
                        continue
                    readable = readable and span.kind is SpanKind.BLOCK
                    needed += [
                        (f.session, f.run, f.stream, f.sequence) for f in span.fragments if f.last
                    ]
        except (OSError, DlogError) as error:
            self._problem(place.path, str(error))
            return
        if place.stream is None or place.kind is None or place.part is None or place.run is None:
            self._problem(place.path, "its name does not tell what it is of; left out")
            return
        self._book.put(quarantine_key(path), QuarantineRecord(
            path=path, directory=number, run=place.run, stream=place.stream, kind=place.kind,
            part=place.part, begin=begin, end=max(begin, end), saved_ns=saved, needed=needed,
            sessions=[] if readable else [_UNKNOWN_SESSION],
            # Nothing of it can be read: its saving was cut off before its file was.
            saving=end < PAGE_BYTES,
        ))  # fmt: skip

    def _sessions(self) -> None:
        """Sessions of live runs, then those of the last days; with what the old journal knew."""
        book, report = self._book, self._report
        newest = max(book.session_times.values(), default=0)
        recent = sorted(
            (s for s, t in book.session_times.items()
             if s in book.live_sessions or t > newest - SESSION_AGE_NS_MAX),
            key=lambda s: (s in book.live_sessions, book.session_times[s]), reverse=True,
        )  # fmt: skip
        taken = set(recent[:SESSIONS_TAKEN_MAX])
        old = book.old.sessions if book.old is not None else {}
        taken |= {s for s, record in old.items() if not record.closed}
        left = len(recent) - len(set(recent) & taken)
        if left:
            report.notes.append(f"{left} older sessions were not taken over")
        now_ns = self._now()
        for session in sorted(taken):
            known = old.get(session)
            if known is not None:
                record = msgspec.structs.replace(known, rebuilt=True)
            else:
                # Nothing tells what had been acknowledged: batches below a watermark may wait for
                # another stream. The source says it when it comes back.
                record = SessionRecord(session=session, name="", since_ns=now_ns, rebuilt=True)
            told = {(d.run, d.stream, d.why): d for d in record.diverted}
            for one in book.diverted.get(session, []):
                before = told.get((one.run, one.stream, one.why))
                if before is None or before.events < one.events:
                    told[one.run, one.stream, one.why] = one
            record = msgspec.structs.replace(record, diverted=list(told.values()))
            book.put(session_key(session), record)
        report.sessions = len(taken)
        per_session: dict[SessionId, list[MarkKey]] = {}
        for mark in book.marks:
            if mark.session in taken:
                per_session.setdefault(mark.session, []).append(mark)
        for marks in per_session.values():
            for mark in sorted(marks, key=lambda m: m.run)[-WATERMARKS_PER_SESSION_MAX:]:
                book.put(mark_key(mark), MarkRecord(sequence=book.marks[mark]))

    def _logger(self) -> None:
        book, report, old = self._book, self._report, self._book.old
        now_ns = self._now()
        whereabouts = self._whereabouts()
        uuid, name = bytes(16), whereabouts.name or "dlog"
        if book.loggers:
            (uuid, name), _ = book.loggers.most_common(1)[0]
        if len({found for found, _ in book.loggers}) > 1:
            report.problems.append("the files are of several loggers; the most frequent is taken")
        meta = old.meta if old is not None else None
        boot = max(book.boot, whereabouts.boot)
        if old is not None and old.boot is not None:
            boot = max(boot, old.boot.boot)
        known = old.logger if old is not None else None
        live = bool(report.live_runs)
        state = LoggerState.RUNNING if live else LoggerState.CONFIGURED
        address = whereabouts.event_address
        if known is None:
            init = InitConfig(event_address=address) if address else InitConfig()
            known = LoggerRecord(
                state=state,
                init=init,
                streams=book.newest_streams,
                event_address=init.event_address,
            )
        report.boot, report.logger = boot + 1, name
        uuid = meta.logger_uuid if meta else uuid
        book.put(META, JournalMeta(
            logger_uuid=uuid, name=meta.name if meta else name,
            data=tuple(str(folder) for folder in self._folders),
            marked=tuple(str(f) for f in self._folders[1:] if mark_of(f) == uuid.hex()),
            created_ns=meta.created_ns if meta else now_ns, rebuilt_ns=now_ns,
            coor_listen=meta.coor_listen if meta else whereabouts.coor_listen,
            coor_connect=meta.coor_connect if meta else "",
        ))  # fmt: skip
        book.put(BOOT, BootRecord(boot=boot + 1))
        book.put(LOGGER, msgspec.structs.replace(
            known, state=state, init=known.init or InitConfig(),
            streams=known.streams or book.newest_streams,
        ))  # fmt: skip
        book.put(done_operation_key(0), OperationRecord(
            kind=OperationKind.REBUILD, path="journal", boot=boot + 1, announced_ns=now_ns,
            done_ns=now_ns,
        ))  # fmt: skip

    def _whereabouts(self) -> Whereabouts:
        try:
            with FileSource(self._root / "logger.json") as source:
                return msgspec.json.decode(source.read(0, source.size()), type=Whereabouts)
        except (OSError, DlogError, msgspec.MsgspecError):
            return Whereabouts()

    # --- writing it ---------------------------------------------------------------------------

    def _write(self) -> None:
        """Built and read back under a name of its own; then it changes places with the old one."""
        made = _free_name(self._root, "journal.rebuilt")
        journal = LmdbJournal.create(made)
        try:
            for part in _chunks(self._book.changes, CHANGES_PER_COMMIT):
                journal.commit(part)
        finally:
            journal.close()
        back = read_journal(made)
        if back.problems or back.meta is None:
            raise Error(f"the journal in {made} does not read back: {'; '.join(back.problems)}")
        final = self._root / "journal"
        if not final.exists():
            _rename(made, final)
            return
        aside = _free_name(self._root, "journal.old")
        if not _exchange(made, final):
            # Not at one stroke here: between the two there is no journal, and a start says so.
            _rename(final, aside)
            _rename(made, final)
        else:
            _rename(made, aside)
        self._report.old_journal = shown(aside)


def _make_durable(path: Path) -> None:
    """What is taken over as acknowledged must be on the disk, and be read from there: after a kill
    its last blocks may be in the page cache alone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
    except OSError as error:
        raise Error(f"{path} cannot be made durable: {error.strerror}") from error


def _chunks(changes: Sequence[Change], size: int) -> Iterable[Sequence[Change]]:
    for begin in range(0, len(changes), size):
        yield changes[begin : begin + size]


def _free_name(root: Path, stem: str) -> Path:
    number = 1
    while (path := root / f"{stem}-{number}").exists():
        number += 1
    return path


@contextlib.contextmanager
def _folder_of(path: Path) -> Iterator[int]:
    """The folder of a path, open while names in it change; they are durable behind it."""
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
        # The directory too: a new name is not durable until then.
        os.fsync(fd)
    finally:
        os.close(fd)


def _rename(old: Path, new: Path) -> None:
    with _folder_of(old) as folder:
        rename_without_replacing(folder, old.name, folder, new.name)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places at one stroke; False where the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2", None)
    if call is None:
        return False
    with _folder_of(one) as folder:
        names = os.fsencode(one.name), os.fsencode(other.name)
        return bool(call(folder, names[0], folder, names[1], _RENAME_EXCHANGE) == 0)


def rebuild_lines(report: RebuildReport) -> list[str]:
    """A rebuild for people."""
    head = f"{report.journal}: " + ("would hold" if report.dry_run else "rebuilt with")
    lines = [
        f"{head} {len(report.live_runs)} active and {len(report.ended_runs)} ended runs, "
        f"{report.open_files} open and {report.closed_files} closed files, {report.events} events, "
        f"{report.sessions} sessions with {report.watermarks} watermarks; boot {report.boot}"
    ]
    if report.old_journal:
        lines.append(f"    the old journal is kept: {report.old_journal}")
    lines += [f"    problem: {text}" for text in report.problems]
    lines += [f"    note: {text}" for text in report.notes]
    return lines


def data_directory_bytes(root: Path) -> int:
    """How much there is to read, for the progress."""
    total = 0
    for _, path in DataDirectory(root, [root], None, "", False).paths():
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
