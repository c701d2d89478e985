"""Verifies files, run folders and data directories, several files at once. It never writes a byte.

One `FileReport` for each file; a data directory has one more for its journal, and one for each file
that the journal knows and the disk does not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dlog.adapters.logger_address import LOGGER_FILE
from dlog.core.data_directory import MARK
from dlog.core.journal_records import ClosedFileRecord, FileRecord
from dlog.core.run_files import LeftOut
from dlog.core.scan import Depth
from dlog.core.states import FileState
from dlog.model.ids import FileKind
from dlog.reader.beside import Beside
from dlog.reader.file_bytes import header_of
from dlog.reader.run_folder import own_files, run_of
from dlog.recovery.facts import (
    DataDirectory,
    FileStage,
    Place,
    is_data_directory,
    is_folder,
    is_there,
    look_at,
    place_of,
)
from dlog.recovery.judge import Progress, could_not, no_progress, verify_file
from dlog.recovery.report import (
    Acknowledged,
    FileReport,
    Finding,
    FindingKind,
    Verdict,
    is_aside,
    shown,
    shut_words,
)

# What a logger leaves in its first data directory, the one with the journal, and in no other.
_OF_FIRST: Final = ("lock", LOGGER_FILE)

# --- many files -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One file to be verified, with what is known of its data directory, and of where the other
    files of its stream are: in all directories of the plan."""

    place: Place
    data: DataDirectory | None
    beside: Beside | None = None


@dataclass(slots=True)
class Plan:
    """What is to be verified, and reports that need no file to be read. remarks: what is so of all
    of it."""

    tasks: list[Task]
    reports: list[FileReport]
    remarks: list[str] = field(default_factory=list)

    @property
    def total_bytes(self) -> int:
        total = 0
        for task in self.tasks:
            try:
                total += os.stat(task.place.path).st_size
            except OSError:
                continue
        return total


def plan(paths: Sequence[Path]) -> Plan:
    """Find the files below the paths: files, run folders, data directories, in any mix."""
    planning = _Planning()
    planning.look_at_data_directories(paths)
    for path in paths:
        planning.add(path)
    planning.look_beside()
    return planning.plan


class _Planning:
    """Each data directory is looked at once, and each is reported on once."""

    def __init__(self) -> None:
        self.plan = Plan([], [])
        self._beside = Beside()
        self._data: dict[Path, DataDirectory] = {}  # by its resolved root
        self._covered: set[Path] = set()  # further directories, of a journal that was read
        self._journals: set[Path] = set()  # roots whose journal a report tells of

    def look_at_data_directories(self, paths: Sequence[Path]) -> None:
        """A directory may be given beside the one with its journal, in any order."""
        for path in paths:
            try:
                if is_folder(path / "journal"):
                    self._covered |= {f.resolve() for f in self._look_at(path).folders[1:]}
            except OSError:
                continue  # it is told when its turn comes

    def look_beside(self) -> None:
        """Whatever was named, in any order, may tell where a part ends."""
        for data in self._data.values():
            self._beside.add(data.roots)

    def _look_at(self, root: Path) -> DataDirectory:
        name = root.resolve()
        if name not in self._data:
            self._data[name] = look_at(root)
        return self._data[name]

    def add(self, path: Path) -> None:
        before = len(self.plan.tasks), len(self.plan.reports)
        try:
            if not is_folder(path):
                self._file(place_of(path))
                return
            if path.resolve() not in self._covered:
                self._folder(path)
                said = [r for r in self.plan.reports[before[1] :] if not is_aside(r)]
                if before[0] == len(self.plan.tasks) and not said:
                    self.plan.reports.append(_nothing(path))
        except OSError as error:
            self.plan.reports.append(_no_entry(path, error))

    def _file(self, place: Place) -> None:
        data = self._data_of(place)
        if data is not None and data.journal_shut and place.is_part:
            # Only the journal tells how much of it was acknowledged.
            self._journal(data)
        self._beside.add_folder(place.path.absolute().parent)
        self.plan.tasks.append(Task(place, data, self._beside))

    def _data_of(self, place: Place) -> DataDirectory | None:
        """The data directory that a file lies in, where it has a journal."""
        if place.root is None:
            return None
        try:
            return self._look_at(place.root) if is_folder(place.root / "journal") else None
        except OSError:
            return self._look_at(place.root)  # which tells that it is shut

    def _folder(self, path: Path) -> None:
        """A data directory, a folder in one, or any folder with such below it."""
        if is_data_directory(path):
            self._data_directory(path)
            return
        files = self._run_folder(path)
        if run_of(path) is None:
            for below in sorted(path.iterdir()):
                if below.is_symlink() or not is_folder(below):
                    if below.name.endswith(".tail"):
                        self._file(place_of(below))
                    continue
                try:
                    self._folder(below)
                except OSError as error:
                    self.plan.reports.append(_no_entry(below, error))
            return
        root = place_of(path / "any").root
        if root is not None and is_data_directory(root):
            data = self._look_at(root)
            if data.snapshot is None:
                self._journal(data)
            run = run_of(path)
            records = [r for r in _records(data) if r.run == run]
            self.plan.reports += _away(data, {r.directory for r in records}, records)
            self.plan.reports += _all_missing(data, records, set(files))

    def _run_folder(self, folder: Path) -> list[Path]:
        """The event files in one folder."""
        data = self._data_of(place_of(folder / "any"))
        data = data or DataDirectory(folder, [folder], None, "", running=False)
        own, left = own_files([folder], known=data.knows())
        instead, left = data.instead_of_files(left)
        for path in sorted([*own, *instead]):
            self._file(place_of(path))
        self._left(left)
        return [*own, *instead]

    def _left(self, left: Sequence[LeftOut]) -> None:
        """Name what no reader takes, folder by folder."""
        for folder in sorted({out.folder for out in left}):
            report = _directory(Path(folder))
            for out in left:
                if out.folder == folder:
                    report.note(f"left out: {shown(Path(out.name))}: {out.reason}")
            self.plan.reports.append(report)

    def _data_directory(self, root: Path) -> None:
        data = self._look_at(root)
        survey = data.survey()
        self.plan.tasks += [Task(place_of(f), data, self._beside) for _, f in survey.paths]
        self._journal(data)
        self.plan.reports += [
            _no_entry(folder, reason) for folder, reason in sorted(survey.shut.items())
        ]
        found = {path for _, path in survey.paths}
        shut = tuple(survey.shut)
        self.plan.reports += _away(data, data.away, _records(data))
        self.plan.reports += _all_missing(data, _records(data), found, shut)
        self._left(survey.left)

    def _journal(self, data: DataDirectory) -> None:
        """Its report, once."""
        name = data.root.resolve()
        if name in self._journals:
            return
        self._journals.add(name)
        if data.snapshot is None and not (data.journal_problem or data.journal_shut):
            self._no_journal(data.root)
        else:
            self.plan.reports.append(journal_report(data))

    def _no_journal(self, root: Path) -> None:
        """There is none where one should be, or the directory never had one of its own."""
        unknown = "its files are judged by themselves, and whether one is missing is not known"
        if any(is_there(root / name) for name in _OF_FIRST):
            why = (
                f"there is no journal: {unknown}. Make a new one from the event files: dlog "
                f"journal rebuild {shown(root)}"
            )
        elif is_there(root / MARK):
            why = (
                f"its journal is in the first data directory of its logger: {unknown}. Verify "
                "that one, which names this one too"
            )
        else:
            self.plan.remarks.append(f"{shown(root)} has no journal: {unknown}")
            return
        report = FileReport(path=shown(root / "journal"), state="journal", findings=[], notes=[])
        could_not(report, FindingKind.JOURNAL, why)
        self.plan.reports.append(report)


def _directory(path: Path) -> FileReport:
    return FileReport(path=shown(path), state="directory", findings=[], notes=[])


def _no_entry(path: Path, error: OSError | str) -> FileReport:
    report = _directory(path)
    why = error if isinstance(error, str) else error.strerror
    could_not(report, FindingKind.UNREADABLE_FILE, f"cannot be looked into: {why}")
    return report


def _nothing(path: Path) -> FileReport:
    report = _directory(path)
    could_not(report, FindingKind.NO_FILES, "a directory without event files")
    return report


def verify(
    made: Plan, *, depth: Depth = Depth.FULL, workers: int = 0, progress: Progress = no_progress
) -> Iterator[FileReport]:
    """Verify all tasks of a plan, several files at once; reports come in the plan's order.

    Threads: checksums, decompression and reads all run without the interpreter's lock.
    """
    yield from made.reports
    count = workers or len(os.sched_getaffinity(0))
    if count == 1 or len(made.tasks) <= 1:
        for task in made.tasks:
            yield _verified(task, depth, progress)
        return
    pool = ThreadPoolExecutor(max_workers=count, thread_name_prefix="verify")
    over = False
    try:
        yield from pool.map(lambda task: _verified(task, depth, progress), made.tasks)
        over = True
    finally:
        # Whoever interrupts does not wait for the files that are being read.
        pool.shutdown(wait=over, cancel_futures=True)


def _verified(task: Task, depth: Depth, progress: Progress) -> FileReport:
    return verify_file(task.place, task.data, beside=task.beside, depth=depth, progress=progress)


def what_is_not_known(made: Plan, reports: Sequence[FileReport]) -> str:
    """Of open files without a journal, where no other data directory was named; "" for nothing."""
    tasks = {shown(task.place.path): task for task in made.tasks}
    for report in reports:
        task = tasks.get(report.path)
        if task is None or report.state != FileStage.OPEN or (
            task.data is not None and task.data.snapshot is not None
        ):  # fmt: skip
            continue
        header = header_of(task.place.path)
        beside = task.beside
        if header and beside and len(beside.folders_of(task.place.path, header)) == 1:
            return (
                f"{report.path}: without a journal, a part in another data directory may say that "
                "this one ends earlier; if there is another, name all of them in one command"
            )
    return ""


# --- the journal of a data directory ----------------------------------------------------------


def journal_report(data: DataDirectory) -> FileReport:
    """The report on the journal itself, read or not."""
    report = FileReport(path=shown(data.root / "journal"), state="journal", findings=[], notes=[])
    if data.snapshot is None:
        if data.journal_shut:
            could_not(report, FindingKind.JOURNAL, shut_words(data.journal_shut))
        else:
            report.add(Finding(kind=FindingKind.JOURNAL, verdict=Verdict.DISAGREE,
                               reason=data.journal_problem))  # fmt: skip
        return report
    if data.running:
        report.note("a logger runs on this data directory: files are judged up to what was durable "
                    "when its journal was read")  # fmt: skip
    for problem in data.snapshot.problems:
        report.add(Finding(kind=FindingKind.JOURNAL, verdict=Verdict.DISAGREE, reason=problem))
    for reason in _run_problems(data):
        report.add(Finding(kind=FindingKind.CATALOGUE, verdict=Verdict.DISAGREE, reason=reason))
    return report


def _records(data: DataDirectory) -> list[FileRecord | ClosedFileRecord]:
    return data.snapshot.records() if data.snapshot is not None else []


def _all_missing(
    data: DataDirectory,
    records: Sequence[FileRecord | ClosedFileRecord],
    found: set[Path],
    shut: Sequence[Path] = (),
) -> list[FileReport]:
    """A report for each file that the journal knows and nobody finds. shut: folders that nobody
    could look into."""
    reports = (_missing(data, record, found, shut) for record in records)
    return [report for report in reports if report is not None]


def _away(
    data: DataDirectory,
    wanted: Collection[int],
    records: Sequence[FileRecord | ClosedFileRecord],
) -> Iterator[FileReport]:
    """What nobody can look at is neither good nor damaged. wanted: the directories, by number."""
    for number, reason in data.away.items():
        if number not in wanted:
            continue
        report = FileReport(
            path=shown(data.folders[number]), state="directory", findings=[], notes=[]
        )
        files = sum(record.directory == number for record in records)
        could_not(
            report,
            FindingKind.UNREADABLE_FILE,
            f"{reason}; {files} files in it were not looked at",
        )
        yield report


def _missing(
    data: DataDirectory,
    record: FileRecord | ClosedFileRecord,
    found: set[Path],
    shut: Sequence[Path],
) -> FileReport | None:
    if record.directory in data.away:
        return None
    if not 0 <= record.directory < len(data.folders):
        path = Path(record.path)
    else:
        path = data.folders[record.directory] / record.path
    part = path.with_name(path.name + ".part")
    if path in found or part in found or any(folder in path.parents for folder in shut):
        return None
    if is_there(path) or is_there(part):
        return None
    creating = isinstance(record, FileRecord) and record.state is FileState.CREATING
    if creating:
        return None
    totals = record.totals
    report = FileReport(
        path=shown(path), state="missing", acknowledgement="the journal", run=record.run,
        stream=record.stream, kind=FileKind(record.kind).name.lower(), part=record.part,
        findings=[], notes=[],
    )  # fmt: skip
    acknowledged = record.size_bytes if isinstance(record, ClosedFileRecord) else record.durable
    report.add(Finding(
        kind=FindingKind.MISSING, verdict=Verdict.DAMAGED,
        reason="the journal knows this file, and it is not there", begin=0, end=acknowledged,
        blocks=(totals.last_block - totals.blocks + 1, totals.last_block)
        if totals.blocks else None,
        events=totals.events,
        event_numbers=(totals.first_event, totals.last_event) if totals.events else None,
        exact=True,
        acknowledged=Acknowledged.YES if totals.events else Acknowledged.DERIVED,
    ))  # fmt: skip
    return report


def _run_problems(data: DataDirectory) -> Iterator[str]:
    """Ended runs of the catalogue against the files of the catalogue."""
    snapshot = data.snapshot
    assert snapshot is not None
    for run, ended in snapshot.ended.items():
        # A file that a fault ended may be settled later than its run.
        if not ended.counts or any(key.run == run for key in snapshot.files):
            continue
        files = [r for r in snapshot.closed.values() if r.run == run]
        if ended.files and ended.files != len(files):
            yield f"run {run}: {ended.files} files, and the catalogue names {len(files)}"
        bad = any(r.status == "bad" for r in files)
        for stream in {s for _, s, _ in ended.counts}:
            counts = [c for _, s, c in ended.counts if s == stream]
            for kind, told in (
                (FileKind.EVENTS, sum(c.stored for c in counts)),
                (FileKind.GARBAGE, sum(c.garbage for c in counts)),
            ):
                held = sum(
                    r.totals.events for r in files if r.stream == stream and r.kind == kind
                )  # fmt: skip
                if held != told and not bad:
                    yield (
                        f"run {run} stream {stream}: {told} events were counted as "
                        f"{'stored' if kind is FileKind.EVENTS else 'garbage'}, its closed files "
                        f"hold {held}"
                    )
