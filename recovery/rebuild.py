"""Rebuilds partly written or damaged event files into new, sealed ones. It never writes to, renames
or removes what it reads, and no output gets its name before it was fsynced and verified.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from crc32c import crc32c

from dlog.adapters.data_files import DataDirectory as Directory
from dlog.core.block import Place as BlockPlace
from dlog.core.block import moved_block
from dlog.core.event_file import (
    INDEX_DTYPE,
    FileHeader,
    HeaderText,
    Sidecar,
    Totals,
    encode_file_header,
    encode_footer,
    encode_sidecar,
    sidecar_path,
)
from dlog.core.run_files import is_event_file_name
from dlog.core.scan import Depth, Span, SpanKind, payload_bytes, scan
from dlog.errors import DlogError, FormatError, NameTaken, StorageError
from dlog.limits import MIB, PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    BlockNumber,
    FileKey,
    FileKind,
    Offset,
    PartNumber,
    RunNumber,
    StreamName,
    file_path,
    valid_stream_name,
)
from dlog.ports import DataFile
from dlog.reader.beside import Alone, Beside
from dlog.reader.event_file import void_words
from dlog.reader.file_bytes import header_of
from dlog.recovery.facts import (
    DataDirectory,
    FileSource,
    FileStage,
    Place,
    known_of,
    read_sidecar,
)
from dlog.recovery.judge import Opened, Progress, no_progress, open_header, verify_file
from dlog.recovery.report import (
    FileReport,
    Finding,
    FindingKind,
    Summary,
    Verdict,
    finding_line,
    shown,
    summarise,
    verdict_words,
    worst,
)
from dlog.recovery.verify import Plan, Task
from dlog.recovery.walk import index_row

Now = Callable[[], int]


class Mode(enum.StrEnum):
    PREFIX = "prefix"  # the longest intact prefix
    SALVAGE = "salvage"  # every intact block


class Outcome(enum.StrEnum):
    RECOVERED = "recovered"
    PLANNED = "planned"  # --dry-run
    LEFT = "left"  # good and closed: nothing to do
    NOTHING = "nothing"  # there is no whole block in it
    UNSUPPORTED = "unsupported"
    FAILED = "failed"  # could not be read, or the output could not be written


class Lost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A stretch of the source that is not in the output. Bytes [begin, end); blocks inclusive."""

    begin: int
    end: int
    reason: str
    blocks: tuple[int, int] | None = None


class Recovery(msgspec.Struct, kw_only=True):
    """What became of one source. `verdict` is on the source, also where the output is good.

    gaps: block numbers that are missing in the output, inclusive; some of them may stand in other
    parts of the stream. header_from: where the output's file header comes from.
    """

    source: str
    outcome: Outcome
    verdict: Verdict
    destination: str = ""
    mode: Mode = Mode.SALVAGE
    reason: str = ""
    header_from: str = "source"
    blocks_kept: int = 0
    events_kept: int = 0
    payload_bytes_kept: int = 0
    blocks_lost: int = 0
    events_lost: int = 0
    unacknowledged_events: int = 0
    gaps: list[tuple[int, int]] = []
    lost: list[Lost] = []
    source_sha256: str = ""
    size_bytes: int = 0
    report: FileReport | None = None


# --- what is kept -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Kept:
    """What a selection gave so far. next_number: of the block that would come without a gap, None
    where that is not known. left_*: whole blocks behind the end of a prefix."""

    next_number: int | None
    totals: Totals = field(default_factory=Totals)
    lost: list[Lost] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    unacknowledged_events: int = 0
    left: Totals = field(default_factory=Totals)


def _select(spans: Iterator[Span], mode: Mode, kept: _Kept, durable: int | None) -> Iterator[Span]:
    """The blocks to keep, in order; what is left out and where numbers are missing goes to `kept`.

    A whole block whose neighbour is not the one that it was written behind ends a prefix; salvage
    keeps it, with a gap in front of it where numbers are missing.
    """
    damaged = False
    for span in spans:
        header = span.header
        if span.kind is not SpanKind.BLOCK or header is None:
            # Index and closing block are made anew.
            if not (header is not None and header.number == 0):
                damaged = True
                if span.kind is not SpanKind.ZEROS:
                    kept.lost.append(_lost(span))
            continue
        if mode is Mode.PREFIX and (damaged or span.reason or kept.left.blocks):
            kept.left = kept.left.plus(header, payload_bytes(header))
            continue
        apart = damaged or bool(span.reason)
        if apart and kept.next_number is not None and header.number > kept.next_number:
            kept.gaps.append((kept.next_number, header.number - 1))
        damaged = False
        kept.next_number = header.number + 1
        kept.totals = kept.totals.plus(header, payload_bytes(header))
        if durable is not None and span.begin >= durable:
            kept.unacknowledged_events += header.events
        yield span


def _lost(span: Span) -> Lost:
    number = span.header.number if span.header is not None else 0
    return Lost(
        begin=span.begin, end=span.end, reason=span.reason,
        blocks=(number, number) if number else None,
    )  # fmt: skip


# --- the output's header ----------------------------------------------------------------------


def _output_header(
    source: FileSource, place: Place, opened: Opened, data: DataDirectory | None, now_ns: int
) -> tuple[FileHeader, str]:
    """A header for the output and where it comes from. Raises `FormatError` where nothing tells
    what the file is."""
    if opened.header is not None:
        found, origin = opened.header, "source"
    else:
        found, origin = _header_from_witnesses(source, place, opened, data, now_ns)
    fresh = replace(found, file_uuid=secrets.token_bytes(16), salt=secrets.token_bytes(16))
    return fresh, origin


def _header_from_witnesses(
    source: FileSource, place: Place, opened: Opened, data: DataDirectory | None, now_ns: int
) -> tuple[FileHeader, str]:
    """For a file whose header page is lost: sidecar, journal, another part, name, first block."""
    first = _first_block(source, opened)
    key = place.key
    sidecar = None
    with contextlib.suppress(DlogError, OSError):
        sidecar = read_sidecar(place.final_path)
    if sidecar is not None:
        key = FileKey(RunNumber(sidecar.run), StreamName(sidecar.stream),
                      FileKind[sidecar.kind.upper()], PartNumber(sidecar.part))  # fmt: skip
    elif key is None:
        key = _key_of(first, place)
    assert first.header is not None
    number, boot = first.header.number, first.header.boot
    made = FileHeader(
        key=key, file_uuid=b"", logger_uuid=bytes(16), salt=b"", boot=boot, created_ns=now_ns,
        first_block=number, text=HeaderText(logger="", config=StreamConfig()),
    )  # fmt: skip
    if sidecar is not None:
        text = HeaderText(logger=sidecar.logger, config=sidecar.config)
        uuid = bytes.fromhex(sidecar.logger_uuid)
        return replace(made, logger_uuid=uuid, created_ns=sidecar.created_ns, text=text), "sidecar"
    sibling = _sibling(place, key)
    if sibling is not None:
        text = msgspec.structs.replace(sibling.text, low=-1)
        return replace(made, logger_uuid=sibling.logger_uuid, text=text), "another part"
    snapshot = data.snapshot if data is not None else None
    run = snapshot.runs.get(key.run) if snapshot is not None else None
    if snapshot is not None and run is not None and key.stream in run.streams:
        meta = snapshot.meta
        text = HeaderText(logger=meta.name if meta else "", config=run.streams[key.stream],
                          run_started_ns=run.started_ns, streams=tuple(run.streams))  # fmt: skip
        uuid = meta.logger_uuid if meta else bytes(16)
        return replace(made, logger_uuid=uuid, text=text), "journal"
    return made, "name and blocks; the stream's configuration is not known"


def _first_block(source: FileSource, opened: Opened) -> Span:
    """A copy of the first whole block's span, without its data."""
    if opened.salt is not None:
        for span in scan(source, salt=opened.salt, path=str(source.path)):
            if span.kind is SpanKind.BLOCK:
                return Span(span.kind, span.begin, span.end, "", span.header, span.fragments)
    raise FormatError("its header page is lost and there is no whole block", path=str(source.path))


def _key_of(first: Span, place: Place) -> FileKey:
    entry = first.fragments[0] if first.fragments else None
    if entry is None or not valid_stream_name(entry.stream):
        raise FormatError("nothing tells which run and stream it is of", path=str(place.path))
    kind = place.kind or FileKind.EVENTS
    run = place.run if place.run is not None else entry.run
    return FileKey(run, place.stream or entry.stream, kind, place.part or PartNumber(1))


def _sibling(place: Place, key: FileKey) -> FileHeader | None:
    """The header of another file of the stream, in the same folder."""
    with contextlib.suppress(OSError):
        for path in sorted(place.path.absolute().parent.iterdir()):
            if not is_event_file_name(path.name) or path.name == place.path.name:
                continue
            header = header_of(path)
            if header is not None and header.key.stream_key == key.stream_key:
                return header
    return None


# --- the output -------------------------------------------------------------------------------


class _Writer:
    """A new event file under a name of its own, until `finish` gives it the final one."""

    def __init__(self, folder: Directory, name: str, header: FileHeader, now: Now) -> None:
        self._folder = folder
        self._name = name
        self._now = now
        parts = name.rsplit("/", 1)
        self._aside = "/".join([*parts[:-1], f".{parts[-1]}.{secrets.token_hex(4)}.recovering"])
        self.header = header
        self._chain = 0
        self._rows: list[tuple[int, ...]] = []
        self._totals = Totals()
        self._at = 0
        self._crc = 0
        self._file: DataFile = folder.create(self._aside)

    def _begin(self, first: int) -> None:
        """The header page. A source's header may name a later first block than its blocks do: the
        output's says what stands in it."""
        self.header = replace(
            self.header, first_block=BlockNumber(min(first, self.header.first_block))
        )
        page, self._chain = encode_file_header(self.header)
        self._write(memoryview(page))

    def block(self, span: Span) -> None:
        """Append a block: its bytes stay, its header gets its new place."""
        assert span.header is not None
        assert span.data is not None
        if not self._at:
            self._begin(span.header.number)
        out = memoryview(bytearray(span.data))
        place = BlockPlace(
            Offset(self._at),
            span.header.number,
            span.header.boot,
            self.header.salt,
            self._chain,
            Offset(self._at),
        )
        moved = moved_block(out, span.header, place)
        self._chain = moved.crc
        self._rows.append(index_row(moved))
        self._totals = self._totals.plus(moved, payload_bytes(moved))
        self._boot = moved.boot
        self._write(out)

    def finish(self, kept: _Kept, recovery: dict[str, Any]) -> None:
        """Footer, fsync, verification, sidecar, name, mode; every one durable before the next."""
        now_ns = self._now()
        if not self._at:
            self._begin(self.header.first_block)
        self._write(memoryview(encode_footer(
            np.array(self._rows, INDEX_DTYPE), self._totals, offset=Offset(self._at),
            boot=self._boot, salt=self.header.salt, previous_crc=self._chain, time_ns=now_ns,
            status="recovered", gaps=tuple(kept.gaps),
        )))  # fmt: skip
        self._file.sync()
        self._file.close()
        path = Path(self._folder.name) / self._aside
        problem = output_problem(path, self._totals, self._crc)
        if problem:
            raise StorageError(f"the output does not verify: {problem}", path=str(path))
        self._folder.make_read_only(self._aside)
        self._folder.write_new(
            sidecar_path(self._name), encode_sidecar(self._sidecar(now_ns, recovery))
        )
        try:
            self._folder.rename(self._aside, self._name)
        except BaseException:
            self._folder.remove(sidecar_path(self._name))
            raise

    def drop(self) -> None:
        """Remove the unfinished output; it never had its name."""
        with contextlib.suppress(DlogError, OSError):
            self._file.close()
        with contextlib.suppress(DlogError, OSError):
            self._folder.remove(self._aside)

    @property
    def size(self) -> int:
        return self._at

    def _write(self, data: memoryview) -> None:
        self._file.write(Offset(self._at), data)
        self._crc = crc32c(data, self._crc)
        self._at += len(data)

    def _sidecar(self, now_ns: int, recovery: dict[str, Any]) -> Sidecar:
        header, key = self.header, self.header.key
        return Sidecar(
            file=self._name.rsplit("/", 1)[-1], file_uuid=header.file_uuid.hex(),
            logger=header.text.logger, logger_uuid=header.logger_uuid.hex(), run=key.run,
            stream=key.stream, kind=key.kind.name.lower(), part=key.part, size_bytes=self._at,
            crc32c=f"{self._crc:08x}", file_content_status="recovered",
            created_ns=header.created_ns, closed_ns=now_ns, totals=self._totals,
            predecessor_part=header.predecessor_part, config=header.text.config,
            recovery=recovery,
        )  # fmt: skip


_BEFORE_ITS_NAME: Final = frozenset({FindingKind.NAME, FindingKind.SIDECAR})


def output_problem(path: Path, totals: Totals, file_crc: int) -> str:
    """Why an output that was read back does not hold; "" where it does."""
    # Under a name that says that it is closed: no sidecar and no journal know it yet.
    place = Place(path, None, None, None, None, None, is_part=False)
    # Its neighbours here are of other recoveries.
    report = verify_file(place, beside=Alone())
    for finding in report.findings:
        if finding.kind not in _BEFORE_ITS_NAME:
            return finding_line(finding)
    found = (report.blocks, report.events, report.payload_bytes)
    if found != (totals.blocks, totals.events, totals.payload_bytes):
        return "it holds other blocks than were written"
    read_back = 0
    with FileSource(path) as source:
        for piece in _pieces(source, source.size()):
            read_back = crc32c(piece, read_back)
    return "" if read_back == file_crc else "its checksum differs from what was written"


def _pieces(source: FileSource, end: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(MIB))
    at = 0
    while at < end:
        got = source.read_into(at, buffer[: min(MIB, end - at)])
        if got == 0:
            return
        yield buffer[:got]
        at += got


# --- one source -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """One source and the name of its output inside `folder`, None for a dry run without one."""

    task: Task
    folder: Path
    name: str

    @property
    def destination(self) -> Path:
        return self.folder / self.name


def recover_file(
    job: Job,
    mode: Mode,
    *,
    dry_run: bool = False,
    report: FileReport | None = None,
    progress: Progress = no_progress,
    now: Now = time.time_ns,
) -> Recovery:
    """Judge the source, unless its report is given, then write what is whole of it; never raises
    for what the disk does."""
    place, data = job.task.place, job.task.data
    beside = job.task.beside
    report = report or verify_file(place, data, beside=beside, progress=progress)
    made = Recovery(
        source=shown(place.path), outcome=Outcome.FAILED, verdict=report.verdict,
        destination=shown(job.destination), mode=mode, report=report, gaps=[], lost=[],
    )  # fmt: skip
    if report.verdict in (Verdict.CANNOT_RUN, Verdict.UNSUPPORTED):
        made.reason = "; ".join(finding_line(f) for f in report.findings)
        if report.verdict is Verdict.UNSUPPORTED:
            made.outcome = Outcome.UNSUPPORTED
        return made
    try:
        with FileSource(place.path) as source:
            _recover_open(source, job, made, mode, dry_run, now)
    except FormatError as error:
        made.outcome, made.reason = Outcome.NOTHING, error.reason
    except (DlogError, OSError) as error:
        made.outcome, made.reason = Outcome.FAILED, str(error)
        made.verdict = Verdict.CANNOT_RUN
    return made


def _recover_open(
    source: FileSource, job: Job, made: Recovery, mode: Mode, dry_run: bool, now: Now
) -> None:
    place, data = job.task.place, job.task.data
    opened = open_header(source, place)
    header, made.header_from = _output_header(source, place, opened, data, now())
    begin, end, durable, void = _bounds(source, opened, job.task)
    made.source_sha256 = _sha256(source, end)
    assert opened.salt is not None
    spans = scan(
        source, salt=opened.salt, path=str(place.path), begin=begin, end=end, depth=Depth.FULL,
        chain=opened.chain if begin == PAGE_BYTES else None, memory=source.memory,
    )  # fmt: skip
    kept = _Kept(_first_number(opened, place))
    chosen = _select(_without_void(spans, void, kept), mode, kept, durable)
    writer: _Writer | None = None
    try:
        for span in chosen:
            if writer is None and not dry_run:
                writer = _open_output(job, header, now)
            if writer is not None:
                writer.block(span)
        _tell(made, kept)
        if not kept.totals.blocks:
            made.outcome = Outcome.NOTHING
            made.reason = "there is no whole block in it"
        elif writer is None:
            made.outcome = Outcome.PLANNED
        else:
            writer.finish(kept, _provenance(made, place, source, end, now()))
            made.outcome, made.size_bytes = Outcome.RECOVERED, writer.size
    except BaseException:
        if writer is not None:
            writer.drop()
        raise


def _bounds(
    source: FileSource, opened: Opened, task: Task
) -> tuple[int, int, int | None, int | None]:
    """Where blocks begin and end, from where on they were never acknowledged, and from which number
    on they are void."""
    place, data = task.place, task.data
    beside = task.beside or Beside(roots=data.roots if data is not None else ())
    known = known_of(place, opened.header, data, beside)
    size = source.size()
    running = data is not None and data.running
    begin = max(PAGE_BYTES, place.tail_begin or 0)
    end = size
    # What lies behind the end of a sealed file went on in another part; what lies behind the
    # durable offset of a file that is being written will come again.
    if known.durable is not None and (known.stage is FileStage.SEALED or running):
        end = min(size, known.durable)
    durable = begin if known.stage is FileStage.TAIL else known.durable
    void = None
    if known.stage is FileStage.OPEN and opened.header is not None:
        void = beside.void_from(place.path, opened.header)
    return begin, end, durable, void


def _without_void(spans: Iterator[Span], void: int | None, kept: _Kept) -> Iterator[Span]:
    """The spans, but for blocks whose numbers stand in another file: those are told as lost."""
    for span in spans:
        header = span.header
        if (
            void is None
            or span.kind is not SpanKind.BLOCK
            or header is None
            or header.number < void
        ):
            yield span
        else:
            kept.lost.append(Lost(begin=span.begin, end=span.end, reason=void_words(void),
                                  blocks=(header.number, header.number)))  # fmt: skip


def _sha256(source: FileSource, end: int) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(source, end):
        digest.update(piece)
    return digest.hexdigest()


def _open_output(job: Job, header: FileHeader, now: Now) -> _Writer:
    """Raises `NameTaken` where the output or its sidecar is there already."""
    root, name = _existing_root(job.destination)
    folder = Directory(root)
    for taken in (name, sidecar_path(name)):
        if folder.exists(taken):
            raise NameTaken("is there already; nothing is overwritten", path=str(root / taken))
    return _Writer(folder, name, header, now)


def _existing_root(path: Path) -> tuple[Path, str]:
    """The nearest folder above that exists, and the rest: new levels become durable one by one."""
    path = path.absolute()
    root = path.parent
    while not root.is_dir():
        root = root.parent
    return root, path.relative_to(root).as_posix()


def _first_number(opened: Opened, place: Place) -> int | None:
    """The number of the file's first block, where its header tells."""
    if opened.header is None or place.tail_begin is not None:
        return None
    return opened.header.first_block


def _tell(made: Recovery, kept: _Kept) -> None:
    """Fill in what was kept and lost, with the gap behind the last block where it is known."""
    totals = kept.totals
    made.blocks_kept, made.events_kept = totals.blocks, totals.events
    made.payload_bytes_kept = totals.payload_bytes
    made.unacknowledged_events = kept.unacknowledged_events
    made.lost = kept.lost
    findings = made.report.findings if made.report is not None else []
    missing = [f.blocks[1] for f in findings if f.blocks is not None and _takes_blocks(f)]
    last = max([kept.left.last_block, *missing])
    if totals.blocks and last > totals.last_block:
        kept.gaps.append((totals.last_block + 1, last))
    made.gaps = kept.gaps
    made.blocks_lost = sum(high - low + 1 for low, high in kept.gaps)
    made.events_lost = kept.left.events + sum(f.events or 0 for f in findings if _takes_blocks(f))


def _takes_blocks(finding: Finding) -> bool:
    return finding.kind in (FindingKind.DAMAGE, FindingKind.DURABLE)


def _provenance(
    made: Recovery, place: Place, source: FileSource, end: int, now_ns: int
) -> dict[str, Any]:
    """What the output's sidecar says of how it came to be."""
    findings = made.report.findings if made.report is not None else []
    return {
        "tool": "dlog recover",
        "recovered_ns": now_ns,
        "mode": str(made.mode),
        "source": place.path.name,
        "source_bytes": end,
        "source_sha256": made.source_sha256,
        "source_verdict": verdict_words(made.verdict),
        "source_findings": [finding_line(f) for f in findings],
        "header_from": made.header_from,
        "blocks_kept": made.blocks_kept,
        "events_kept": made.events_kept,
        "blocks_lost_at_most": made.blocks_lost,
        "events_lost_known": made.events_lost,
        "unacknowledged_events": made.unacknowledged_events,
        "gaps": [list(gap) for gap in made.gaps],
        "lost": [msgspec.to_builtins(lost) for lost in made.lost],
    }


# --- many sources -----------------------------------------------------------------------------


class CannotRecover(StorageError):
    """SRC and DST do not go together; nothing was written."""


def destinations(sources: Sequence[Path], made: Plan, output: Path) -> list[Job]:
    """Where each output goes. Raises `CannotRecover` where SRC and DST are the same, DST lies in
    SRC, or two sources would get one name; an output that exists is refused later, by name."""
    for source in sources:
        _refuse_same(source, output)
    single = len(sources) == 1 and not sources[0].is_dir()
    if single and not output.is_dir():
        if output.exists() or output.is_symlink():
            raise CannotRecover("is there already; nothing is overwritten", path=str(output))
        return [Job(task, output.parent, output.name) for task in made.tasks]
    if output.exists() and not output.is_dir():
        raise CannotRecover("is there already, and is no directory", path=str(output))
    jobs = [Job(task, output, _output_name(task.place)) for task in made.tasks]
    seen: dict[str, Path] = {}
    for job in jobs:
        before = seen.setdefault(job.name, job.task.place.path)
        if before != job.task.place.path:
            raise CannotRecover(
                f"{before} and {job.task.place.path} would both be {job.name}", path=str(output)
            )
    return jobs


def _refuse_same(source: Path, output: Path) -> None:
    there, goal = source.resolve(), output.resolve()
    if there == goal:
        raise CannotRecover("SRC and DST are the same", path=str(output))
    if there.is_dir() and there in goal.parents:
        raise CannotRecover("DST lies inside SRC", path=str(output))


def _output_name(place: Place) -> str:
    """As in a data directory where the source lies in one; else the source's final name."""
    if place.tail_begin is not None:
        return f"quarantine/{place.path.name}.dlog"
    if place.root is not None and place.key is not None:
        return file_path(place.key)
    return place.final_path.name


def needs_recovery(place: Place, report: FileReport) -> bool:
    """Whether a file of a directory is unfinished or damaged."""
    unfinished = place.is_part or place.tail_begin is not None
    return unfinished or report.verdict in (Verdict.DAMAGED, Verdict.TORN, Verdict.CANNOT_RUN)


def recover(
    jobs: Sequence[Job],
    mode: Mode,
    *,
    all_of_them: bool,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Iterator[Recovery]:
    """Recover one source after the other. all_of_them: also the good, closed ones."""
    for job in jobs:
        task = job.task
        report = verify_file(task.place, task.data, beside=task.beside, progress=progress)
        if all_of_them or needs_recovery(job.task.place, report):
            yield recover_file(job, mode, dry_run=dry_run, report=report)
            continue
        yield Recovery(
            source=shown(job.task.place.path), outcome=Outcome.LEFT, verdict=report.verdict,
            mode=mode, report=report, gaps=[], lost=[], blocks_kept=report.blocks,
            events_kept=report.events,
        )  # fmt: skip


class RecoverySummary(msgspec.Struct, frozen=True, kw_only=True):
    """All sources in one: the verdict, on the sources, is the exit code."""

    verdict: Verdict
    sources: Summary
    outcomes: dict[str, int]
    blocks_kept: int
    events_kept: int
    events_lost: int


def summarise_recoveries(
    recoveries: Sequence[Recovery], others: Sequence[FileReport]
) -> RecoverySummary:
    """others: reports of the plan that are of no file, such as the journal's."""
    reports = [r.report for r in recoveries if r.report is not None]
    outcomes: dict[str, int] = {}
    for recovery in recoveries:
        outcomes[str(recovery.outcome)] = outcomes.get(str(recovery.outcome), 0) + 1
    written = [r for r in recoveries if r.outcome in (Outcome.RECOVERED, Outcome.PLANNED)]
    return RecoverySummary(
        verdict=worst([r.verdict for r in recoveries] + [o.verdict for o in others]),
        sources=summarise([*reports, *others]),
        outcomes=outcomes,
        blocks_kept=sum(r.blocks_kept for r in written),
        events_kept=sum(r.events_kept for r in written),
        events_lost=sum(r.events_lost for r in recoveries),
    )


def recovery_lines(recovery: Recovery) -> list[str]:
    """A recovery for people."""
    head = f"{recovery.source}: {recovery.outcome}"
    if recovery.outcome in (Outcome.RECOVERED, Outcome.PLANNED):
        head += (
            f" -> {recovery.destination}, {recovery.blocks_kept} blocks, "
            f"{recovery.events_kept} events"
        )
    if recovery.outcome is Outcome.LEFT and recovery.verdict is Verdict.NO_SIDECAR:
        head += ", whole as it is; its sidecar is gone: dlog recover --sidecars makes it again"
    elif recovery.outcome is Outcome.LEFT:
        head += ", good as it is"
    if recovery.reason:
        head += f": {recovery.reason}"
    lines = [head]
    if recovery.header_from != "source":
        lines.append(f"    its header page is lost; taken from: {recovery.header_from}")
    for low, high in recovery.gaps:
        numbers = f"block {low}" if low == high else f"blocks {low} to {high}"
        lines.append(f"    gap: {numbers} at most")
    if recovery.unacknowledged_events:
        lines.append(
            f"    {recovery.unacknowledged_events} events of it were never acknowledged: their "
            "sources may send them again"
        )
    if recovery.report is not None and recovery.outcome is not Outcome.LEFT:
        lines += [f"    {f.kind}: {finding_line(f)}" for f in recovery.report.findings]
    return lines


def recovery_summary_line(summary: RecoverySummary) -> str:
    done = ", ".join(f"{count} {name}" for name, count in summary.outcomes.items())
    text = (
        f"{done or 'nothing to do'}; kept {summary.blocks_kept} blocks, {summary.events_kept} "
        f"events; the sources: {verdict_words(summary.verdict)}"
    )
    if summary.events_lost:
        text += f", at least {summary.events_lost} events lost"
    return text
