"""Verifies files, run folders and data directories, several files at once. It never writes a byte.

One `FileReport` for each file; a data directory has one more for its journal, and one for each file
that the journal knows and the disk does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dlog.core.journal_records import ClosedFileRecord, FileRecord
from dlog.core.scan import Depth
from dlog.core.states import FileState
from dlog.model.ids import FileKind
from dlog.reader.beside import Beside
from dlog.recovery.facts import (
    DataDirectory,
    FileStage,
    Place,
    is_data_directory,
    is_event_file_name,
    look_at,
    place_of,
    read_header,
)
from dlog.recovery.judge import Progress, could_not, no_progress, verify_file
from dlog.recovery.report import Acknowledged, FileReport, Finding, FindingKind, Verdict, shown

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
    """What is to be verified, and reports that need no file to be read."""

    tasks: list[Task]
    reports: list[FileReport]

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
    made = Plan([], [])
    known: dict[Path, DataDirectory | None] = {}
    folders = [path for path in paths if not is_data_directory(path)]
    beside = Beside(path if path.is_dir() else path.parent for path in folders)
    for path in paths:
        if path.is_dir():
            _plan_folder(made, path, known, beside)
        else:
            place = place_of(path)
            made.tasks.append(Task(place, _data_of(place, known), beside))
    for data in known.values():
        beside.add(data.roots if data is not None else ())
    return made


def _data_of(place: Place, known: dict[Path, DataDirectory | None]) -> DataDirectory | None:
    """The data directory that a file lies in, looked at once."""
    root = place.root
    if root is None or not (root / "journal").is_dir():
        return None
    root = root.resolve()
    if root not in known:
        known[root] = look_at(root)
    return known[root]


def _plan_folder(
    made: Plan, path: Path, known: dict[Path, DataDirectory | None], beside: Beside
) -> None:
    if is_data_directory(path):
        data = look_at(path)
        known[path.resolve()] = data
        before = len(made.tasks)
        made.tasks += [Task(place_of(file), data, beside) for _, file in data.paths()]
        journal = journal_report(data, {t.place.path for t in made.tasks[before:]})
        if journal:
            made.reports += journal
        elif len(made.tasks) == before:
            made.reports.append(_nothing(path))
        return
    files = []
    for folder, below, names in os.walk(path, onerror=lambda error: _no_entry(made, error)):
        below.sort()
        files += [
            Path(folder, n) for n in sorted(names) if is_event_file_name(n) or n.endswith(".tail")
        ]
    if not files:
        made.reports.append(_nothing(path))
    for file in files:
        place = place_of(file)
        made.tasks.append(Task(place, _data_of(place, known), beside))


def _no_entry(made: Plan, error: OSError) -> None:
    report = FileReport(
        path=shown(Path(error.filename)), state="directory", findings=[], notes=[]
    )  # fmt: skip
    could_not(report, FindingKind.UNREADABLE_FILE, f"cannot be read: {error.strerror}")
    made.reports.append(report)


def _nothing(path: Path) -> FileReport:
    report = FileReport(path=shown(path), state="directory", findings=[], notes=[])
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
        header = read_header(task.place.path)
        beside = task.beside
        if header and beside and len(beside.folders_of(task.place.path, header)) == 1:
            return (
                f"{report.path}: without a journal, a part in another data directory may say that "
                "this one ends earlier; if there is another, name all of them in one command"
            )
    return ""


# --- the journal of a data directory ----------------------------------------------------------


def journal_report(data: DataDirectory, found: set[Path]) -> list[FileReport]:
    """The report on the journal itself, and one for each file that it knows and nobody finds."""
    report = FileReport(path=shown(data.root / "journal"), state="journal", findings=[], notes=[])
    if data.running:
        report.note("a logger runs on this data directory: files are judged up to what was durable "
                    "when its journal was read")  # fmt: skip
    if data.journal_problem:
        report.add(Finding(kind=FindingKind.JOURNAL, verdict=Verdict.DISAGREE,
                           reason=data.journal_problem))  # fmt: skip
        return [report]
    snapshot = data.snapshot
    if snapshot is None:
        return []
    for problem in snapshot.problems:
        report.add(Finding(kind=FindingKind.JOURNAL, verdict=Verdict.DISAGREE, reason=problem))
    for reason in _run_problems(data):
        report.add(Finding(kind=FindingKind.CATALOGUE, verdict=Verdict.DISAGREE, reason=reason))
    missing = []
    records: list[FileRecord | ClosedFileRecord] = [*snapshot.closed.values()]
    records += [r for k, r in snapshot.files.items() if k not in snapshot.closed]
    for record in records:
        lost = _missing(data, record, found)
        if lost is not None:
            missing.append(lost)
    return [report, *_away(data, records), *missing]


def _away(
    data: DataDirectory, records: Sequence[FileRecord | ClosedFileRecord]
) -> Iterator[FileReport]:
    """What nobody can look at is neither good nor damaged."""
    for number, reason in data.away.items():
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
    data: DataDirectory, record: FileRecord | ClosedFileRecord, found: set[Path]
) -> FileReport | None:
    if record.directory in data.away:
        return None
    if not 0 <= record.directory < len(data.folders):
        path = Path(record.path)
    else:
        path = data.folders[record.directory] / record.path
    part = path.with_name(path.name + ".part")
    if path in found or part in found or path.exists() or part.exists():
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
