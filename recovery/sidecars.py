"""Makes the sidecars again that are gone, each from its own event file, once that was verified. It
changes no event file and overwrites nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from dlog.adapters.data_files import DataDirectory as Directory
from dlog.core.event_file import Sidecar, encode_sidecar, sidecar_path
from dlog.core.scan import Depth
from dlog.errors import DlogError
from dlog.reader import EventFile
from dlog.reader.beside import Beside
from dlog.recovery.evidence import crc_of
from dlog.recovery.facts import FileStage, known_of
from dlog.recovery.judge import Progress, no_progress, verify_file
from dlog.recovery.report import (
    FileReport,
    Finding,
    Verdict,
    finding_line,
    shown,
    verdict_words,
    worst,
)
from dlog.recovery.verify import Task


class MadeSidecar(msgspec.Struct, kw_only=True):
    """What became of one event file's sidecar. verdict: on the file, with its sidecar if made."""

    source: str
    verdict: Verdict
    made: bool = False
    sidecar: str = ""
    reason: str = ""


def make_sidecars(
    tasks: Sequence[Task], *, dry_run: bool = False, progress: Progress = no_progress
) -> Iterator[MadeSidecar]:
    """Of each closed file that is whole and has none. Never raises for what the disk does."""
    for task in tasks:
        if task.place.is_part or task.place.tail_begin is not None:
            continue  # it gets its sidecar when it is closed
        report = _judged(task, progress)
        said = MadeSidecar(source=shown(task.place.path), verdict=report.verdict)
        if report.verdict is Verdict.NO_SIDECAR and len(report.findings) == 1:
            _make(task, said, dry_run=dry_run)
        elif report.verdict is not Verdict.GOOD:
            said.reason = "; ".join(map(finding_line, _in_the_way(report)))
        yield said


def _in_the_way(report: FileReport) -> list[Finding]:
    """What keeps it from having a sidecar made; that it has none does not."""
    if report.verdict is not Verdict.NO_SIDECAR:
        return report.findings
    return [found for found in report.findings if found.verdict is not Verdict.NO_SIDECAR]


def _judged(task: Task, progress: Progress = no_progress) -> FileReport:
    return verify_file(
        task.place, task.data, depth=Depth.FULL, progress=progress, beside=task.beside
    )


def _make(task: Task, said: MadeSidecar, *, dry_run: bool) -> None:
    path = task.place.path
    said.sidecar = shown(Path(sidecar_path(str(path))))
    try:
        content = encode_sidecar(_sidecar_of(task))
    except (DlogError, OSError) as error:
        said.verdict, said.reason = Verdict.CANNOT_RUN, str(error)
        return
    if not dry_run:
        try:
            Directory(path.absolute().parent).write_new(sidecar_path(path.name), content)
        except DlogError as error:
            said.reason = str(error)  # the file was checked: it is whole, and has no sidecar
            return
        said.verdict = _judged(task).verdict
    said.made = True


def _sidecar_of(task: Task) -> Sidecar:
    """What the logger wrote, as the file and the journal tell it. Raises `DlogError`, `OSError`."""
    path = task.place.path
    beside = task.beside or Beside()
    file = EventFile(path, beside=beside)
    header, found = file.header, os.stat(path)
    known = known_of(task.place, header, task.data, beside)
    status, sealed, closed_ns = "good", "", found.st_mtime_ns
    if file.closing is not None:
        status = file.closing.status
    elif known.stage is FileStage.SEALED:
        sealed = f"sealed at byte {known.durable} ({known.witness})"
    if known.closed is not None:
        status, closed_ns = known.closed.status, known.closed.closed_ns
        sealed = known.closed.reason if known.closed.sealed else ""
    return Sidecar(
        file=path.name, file_uuid=header.file_uuid.hex(), logger=header.text.logger,
        logger_uuid=header.logger_uuid.hex(), run=header.key.run, stream=header.key.stream,
        kind=header.key.kind.name.lower(), part=header.key.part, size_bytes=found.st_size,
        crc32c=f"{crc_of(path, found.st_size):08x}", file_content_status=status, sealed=sealed,
        created_ns=header.created_ns, closed_ns=closed_ns, totals=file.totals,
        predecessor_part=header.predecessor_part, config=header.text.config,
    )  # fmt: skip


def sidecar_line(said: MadeSidecar) -> str:
    """For people."""
    if said.made:
        return f"{said.source}: sidecar made -> {said.sidecar}"
    if said.verdict is Verdict.GOOD:
        return f"{said.source}: has its sidecar"
    if said.verdict is Verdict.NO_SIDECAR:
        return f"{said.source}: whole, no sidecar made: {said.reason}"
    return f"{said.source}: no sidecar made, {verdict_words(said.verdict)}: {said.reason}"


def sidecars_line(told: Sequence[MadeSidecar], others: Sequence[FileReport], dry_run: bool) -> str:
    """All of them in one. others: reports of the plan that are of no file."""
    made = sum(said.made for said in told)
    verdict = overall(told, others)
    return (
        f"{made} sidecars {'would be ' if dry_run else ''}made, of {len(told)} closed files; "
        f"the files: {verdict_words(verdict)}"
    )


def overall(told: Sequence[MadeSidecar], others: Sequence[FileReport]) -> Verdict:
    return worst([*(said.verdict for said in told), *(report.verdict for report in others)])
