"""Judges one event file, from its header page to its sidecar, and against what the journal says of
it. It reads and never writes a byte. The rules of the verdicts: docs/RECOVERY.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dlog.core.block import BlockType
from dlog.core.event_file import (
    FileHeader,
    Sidecar,
    Totals,
    decode_file_header,
)
from dlog.core.journal_records import ClosedFileRecord
from dlog.core.run_files import is_event_file_name
from dlog.core.scan import Depth, guess_salt, scan
from dlog.core.states import FileState
from dlog.errors import FormatError, FormatVersionError, StorageError
from dlog.limits import PAGE_BYTES
from dlog.model.ids import file_name
from dlog.reader.beside import Beside
from dlog.reader.event_file import void_words
from dlog.recovery.facts import (
    DataDirectory,
    FileSource,
    FileStage,
    Place,
    known_of,
    place_of,
    read_sidecar,
)
from dlog.recovery.report import Acknowledged, FileReport, Finding, FindingKind, Verdict, shown
from dlog.recovery.walk import Damage, FileChecksum, Walked, walk

Progress = Callable[[int], None]


def no_progress(_count: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The beginning of a file: its header where it holds, the salt in any case if there is one."""

    header: FileHeader | None
    salt: bytes | None
    chain: int | None
    problem: Finding | None


def open_header(source: FileSource, place: Place) -> Opened:
    """Read the header page; without it the salt is taken from the blocks."""
    path = str(source.path)
    page = source.header_page()
    size = source.size()
    try:
        header = decode_file_header(page, path=path)
        return Opened(header, header.salt, header.crc, None)
    except FormatVersionError as error:
        return Opened(None, None, None, Finding(
            kind=FindingKind.VERSION, verdict=Verdict.UNSUPPORTED, reason=error.reason, begin=0,
            end=PAGE_BYTES,
        ))  # fmt: skip
    except FormatError as error:
        reason = error.reason
    if size < PAGE_BYTES:
        kind = FindingKind.EMPTY if size == 0 else FindingKind.HEADER
        ours = is_event_file_name(place.path.name) or place.tail_begin is not None
        foreign = size > 0 and not ours
        return Opened(None, None, None, Finding(
            kind=FindingKind.FORMAT if foreign else kind,
            verdict=Verdict.UNSUPPORTED if foreign else Verdict.DAMAGED,
            reason="not a dlog event file" if foreign else reason, begin=0, end=size,
        ))  # fmt: skip
    key = place.key
    salt = guess_salt(source, path=path, expected=(key.run, key.stream) if key else None)
    if salt is None and "magic" in reason and not _is_zero(page):
        return Opened(None, None, None, Finding(
            kind=FindingKind.FORMAT, verdict=Verdict.UNSUPPORTED, reason=reason, begin=0,
            end=min(size, PAGE_BYTES),
        ))  # fmt: skip
    return Opened(None, salt, None, Finding(
        kind=FindingKind.HEADER, verdict=Verdict.DAMAGED, reason=reason, begin=0, end=PAGE_BYTES,
        acknowledged=Acknowledged.DERIVED,
    ))  # fmt: skip


def _is_zero(page: bytes) -> bool:
    return not any(page)


def verify_file(
    place: Place,
    data: DataDirectory | None = None,
    *,
    beside: Beside | None = None,
    depth: Depth = Depth.FULL,
    progress: Progress = no_progress,
) -> FileReport:
    """The verdict on one file; never raises for what the file holds or for its disk.

    beside: where the other files of its stream are; None for its own folder and those of `data`.
    """
    beside = beside or Beside(roots=data.roots if data is not None else ())
    report = FileReport(path=shown(place.path), complete=depth is Depth.FULL, findings=[], notes=[])
    running = data is not None and data.running
    try:
        with FileSource(place.path) as source:
            _Judge(report, place, data, beside, source, depth, progress).run()
            for begin, end in source.unread:
                report.add(Finding(
                    kind=FindingKind.READ_ERROR, verdict=Verdict.DAMAGED, begin=begin, end=end,
                    reason="the disk does not give these bytes (read error)",
                ))  # fmt: skip
    except FileNotFoundError:
        other = renamed_since(place)
        if other is not None:
            return verify_file(other, data, beside=beside, depth=depth, progress=progress)
        if running:
            report.note("gone since the journal was read")
        else:
            could_not(report, FindingKind.UNREADABLE_FILE, "no such file")
    except StorageError as error:
        could_not(report, FindingKind.NOT_A_FILE, error.reason)
    except OSError as error:
        could_not(report, FindingKind.UNREADABLE_FILE, f"cannot be read: {error.strerror}")
    return report


def renamed_since(place: Place) -> Place | None:
    """Where a file went that a running logger closed between the look at the names and its open."""
    if place.is_part and place.final_path.exists():
        return place_of(place.final_path)
    return None


def could_not(report: FileReport, kind: FindingKind, reason: str) -> None:
    report.add(Finding(kind=kind, verdict=Verdict.CANNOT_RUN, reason=reason))


class _Judge:
    """One file, from its header to its sidecar, into one report."""

    def __init__(
        self,
        report: FileReport,
        place: Place,
        data: DataDirectory | None,
        beside: Beside,
        source: FileSource,
        depth: Depth,
        progress: Progress,
    ) -> None:
        self._report = report
        self._place = place
        self._data = data
        self._beside = beside
        self._running = data is not None and data.running
        self._source = source
        self._depth = depth
        self._path = str(place.path)
        self._crc = FileChecksum(progress)
        self._sidecar: Sidecar | None = None
        self._sidecar_shut = False

    def run(self) -> None:
        report, place = self._report, self._place
        report.size_bytes = report.judged_bytes = self._source.size()
        opened = open_header(self._source, place)
        self._header = opened.header
        self._known = known_of(place, opened.header, self._data, self._beside)
        self._identify()
        self._sidecar = self._read_sidecar()
        if self._sidecar_shut and self._known.closed is None and self._known.record is None:
            return  # nothing else tells where a part that a fault sealed ends
        if self._known.problem:
            self._add(FindingKind.DURABLE, Verdict.DISAGREE, self._known.problem)
        if opened.problem is not None and not self._header_problem(opened.problem):
            return
        self._crc.data(memoryview(self._source.header_page()))
        if self._known.stage is FileStage.CREATING:
            self._creating()
            return
        begin, end = self._bounds()
        walked = self._walk(begin, end, opened)
        if self._known.stage is FileStage.OPEN and self._known.durable is None:
            walked = self._without_void(self._without_torn_writes(walked, opened), opened)
        self._blocks(walked)
        self._order(walked)
        if self._known.stage is FileStage.CLOSED:
            self._footer(walked)
        self._durable(walked)
        self._beyond(walked, opened)
        self._check_sidecar(walked)
        self._check_name()
        self._check_catalogue(walked)

    # --- what it is ---------------------------------------------------------------------------

    def _add(
        self,
        kind: FindingKind,
        verdict: Verdict,
        reason: str,
        *,
        begin: int | None = None,
        end: int | None = None,
        acknowledged: Acknowledged | None = None,
    ) -> None:
        self._report.add(Finding(
            kind=kind, verdict=verdict, reason=reason, begin=begin, end=end,
            acknowledged=acknowledged,
        ))  # fmt: skip

    def _identify(self) -> None:
        report, place, known = self._report, self._place, self._known
        key = self._header.key if self._header is not None else place.key
        report.state = str(known.stage)
        report.acknowledgement = known.witness or (
            "unknown: an open file without a journal is judged by its blocks"
        )
        if key is not None:
            report.run, report.stream, report.part = key.run, key.stream, key.part
            report.kind = key.kind.name.lower()

    def _header_problem(self, problem: Finding) -> bool:
        """Report it; whether there is anything behind it to go on with."""
        report, known = self._report, self._known
        if problem.verdict is Verdict.UNSUPPORTED:
            report.state = "unknown"
            report.add(problem)
            return False
        size = report.size_bytes
        if known.stage is FileStage.TAIL:
            # It may be a copy whose making was cut off; its own file is cut after that alone.
            self._add(problem.kind, Verdict.TORN, problem.reason, begin=problem.begin,
                      end=problem.end, acknowledged=Acknowledged.NO)  # fmt: skip
            return size >= PAGE_BYTES
        if size >= PAGE_BYTES:
            report.add(problem)
            return True
        # Nothing can be acknowledged before the whole header page is durable.
        if known.stage is FileStage.CREATING or (known.durable is None and self._place.is_part):
            if self._running:
                report.note("being created")
                return False
            acknowledged = Acknowledged.NO if known.record else Acknowledged.UNKNOWN
            self._add(FindingKind.EMPTY if size == 0 else FindingKind.HEADER, Verdict.TORN,
                      f"{problem.reason}: it was cut off before its first block", begin=0, end=size,
                      acknowledged=acknowledged)  # fmt: skip
            return False
        expected = self._expected_totals(None)
        self._report.add(Finding(
            kind=problem.kind, verdict=Verdict.DAMAGED, reason=problem.reason, begin=0,
            end=max(size, known.durable or 0),
            events=expected.events if expected else None,
            event_numbers=(expected.first_event, expected.last_event)
            if expected and expected.events else None,
            exact=expected is not None, acknowledged=Acknowledged.YES,
        ))  # fmt: skip
        return False

    def _creating(self) -> None:
        if self._running:
            self._report.note("being created")
            return
        self._add(FindingKind.TAIL, Verdict.TORN,
                  "its creation was not finished; nothing in it was acknowledged", begin=0,
                  end=self._report.size_bytes, acknowledged=Acknowledged.NO)  # fmt: skip

    def _bounds(self) -> tuple[int, int]:
        begin = PAGE_BYTES
        end = size = self._report.size_bytes
        if self._place.tail_begin is not None:
            begin = max(PAGE_BYTES, self._place.tail_begin)
        if self._known.durable is not None:
            end = min(size, self._known.durable)
        self._report.judged_bytes = end
        return begin, end

    def _walk(self, begin: int, end: int, opened: Opened) -> Walked:
        if opened.salt is None:
            # No header, no block: everything behind the page is one stretch.
            walked = Walked(begin, end)
            if end > begin:
                walked.tail = Damage(begin, end, "no block that holds", None, whole=False)
                walked.tail.zeros = False
            return walked
        spans = scan(
            self._source, salt=opened.salt, path=self._path, begin=begin, end=end,
            chain=opened.chain if begin == PAGE_BYTES else None, depth=self._depth,
            observe=self._crc, memory=self._source.memory,
        )  # fmt: skip
        walked = walk(spans, begin=begin, end=end, path=self._path)
        report, totals = self._report, walked.totals
        report.blocks, report.events = totals.blocks, totals.events
        report.payload_bytes = totals.payload_bytes
        if totals.events:
            report.first_event, report.last_event = totals.first_event, totals.last_event
        return walked

    def _without_torn_writes(self, walked: Walked, opened: Opened) -> Walked:
        """Several blocks go into one write, and a power cut may leave a later one whole: the file
        ends at the first damage that no later block knows to have been committed."""
        torn = next((d for d in walked.damages if d.begin >= walked.durable), None)
        if torn is None:
            return walked
        end = walked.tail_zeros or walked.end
        walked = self._walk(walked.begin, torn.begin, opened)
        walked.tail = Damage(torn.begin, end, torn.reason, torn.before, whole=False)
        return walked

    def _without_void(self, walked: Walked, opened: Opened) -> Walked:
        """The file ends at the first block whose number a later start of the logger gave again."""
        if opened.header is None:
            return walked
        void = self._beside.void_from(self._place.path, opened.header)
        rows = walked.rows[walked.rows["number"] >= void] if void is not None else walked.rows[:0]
        if void is None or not len(rows):
            return walked
        end = walked.tail.end if walked.tail is not None else walked.tail_zeros or walked.end
        kept = self._walk(walked.begin, int(rows["offset"][0]), opened)
        self._report.add(Finding(
            kind=FindingKind.TAIL, verdict=Verdict.TORN, reason=void_words(void), begin=kept.end,
            end=end, blocks=(int(rows["number"][0]), int(rows["number"][-1])),
            events=int(rows["events"].sum()), exact=walked.tail is None,
            acknowledged=Acknowledged.NO,
        ))  # fmt: skip
        return kept

    # --- damage -------------------------------------------------------------------------------

    def _expected_totals(self, walked: Walked | None) -> Totals | None:
        """What a witness says that the judged bytes held."""
        if walked is not None and walked.closing is not None:
            return walked.closing[2].totals
        if self._known.closed is not None:
            return self._known.closed.totals
        if self._known.record is not None:
            return self._known.record.totals
        if self._sidecar is not None and not self._place.is_part:
            return self._sidecar.totals
        return None

    def _events_end(self, walked: Walked) -> int | None:
        """Where the event blocks of a closed file end, if a part of the footer tells."""
        if walked.closing is not None:
            return walked.closing[2].index_offset
        if walked.index is not None:
            return walked.index[0]
        for damage in [*walked.damages, *([walked.tail] if walked.tail else [])]:
            for header in damage.headers:
                if header.type is BlockType.INDEX:
                    return header.offset
        expected = self._expected_totals(walked)
        if expected is not None and expected.blocks == walked.totals.blocks:
            return walked.last_end
        return None

    def _acknowledged(self) -> Acknowledged:
        match self._known.stage:
            case FileStage.TAIL | FileStage.CREATING:
                return Acknowledged.NO
            case FileStage.OPEN if self._known.durable is None:
                return Acknowledged.UNKNOWN
            case _:
                return Acknowledged.YES

    def _blocks(self, walked: Walked) -> None:
        """Findings of damage among the event blocks, and of a torn tail."""
        stage = self._known.stage
        torn_is_tail = stage is FileStage.TAIL or (
            stage is FileStage.OPEN and self._known.durable is None
        )
        events_end = self._events_end(walked) if stage is FileStage.CLOSED else None
        damages = list(walked.damages)
        if walked.tail is not None and not torn_is_tail:
            damages.append(walked.tail)
        if (
            walked.tail is None and walked.tail_zeros and stage is not FileStage.CLOSED
            and not torn_is_tail
        ):  # fmt: skip
            # Below a durable offset there is no reservation.
            reason = "zeros below the durable offset"
            damages.append(Damage(walked.tail_zeros, walked.end, reason, None, whole=False))
        among = [d for d in damages if events_end is None or d.begin < events_end]
        for damage in damages:
            if damage not in among:
                if walked.after_end is None or damage.begin < walked.after_end:
                    self._footer_damage(damage)
                continue
            verdict = Verdict.TORN if stage is FileStage.TAIL else Verdict.DAMAGED
            self._report.add(self._lost(
                walked, damage, FindingKind.DAMAGE, verdict, self._acknowledged(),
                alone=len(among) == 1,
            ))  # fmt: skip
        if walked.tail is not None and torn_is_tail and not self._running:
            self._report.add(self._lost(
                walked, walked.tail, FindingKind.TAIL, Verdict.TORN, self._acknowledged(),
                alone=False,
            ))  # fmt: skip
        elif walked.tail is not None and torn_is_tail:
            self._report.note("being written: its last bytes are not a whole block yet")

    def _footer_damage(self, damage: Damage) -> None:
        kind = FindingKind.CLOSING
        if any(h.type is BlockType.INDEX for h in damage.headers) or (
            damage.after is not None and damage.after.type is BlockType.CLOSING
        ):
            kind = FindingKind.INDEX
        self._add(kind, Verdict.DAMAGED, damage.reason, begin=damage.begin, end=damage.end,
                  acknowledged=Acknowledged.DERIVED)  # fmt: skip

    def _lost(
        self,
        walked: Walked,
        damage: Damage,
        kind: FindingKind,
        verdict: Verdict,
        acknowledged: Acknowledged,
        *,
        alone: bool,
    ) -> Finding:
        """Which blocks and events a damage took: from the index, its own headers, the totals, or
        else what its neighbours leave room for."""
        blocks: tuple[int, int] | None = None
        numbers: tuple[int, int] | None = None
        events: int | None = None
        exact = False
        held = [h for h in damage.headers if h.type is BlockType.EVENTS]
        expected = self._expected_totals(walked)
        # A file that ends too early lost more than the block that it ends in.
        short = damage is walked.tail and expected is not None
        if walked.index is not None:
            index = walked.index[2]
            hit = index[(index["offset"] >= damage.begin) & (index["offset"] < damage.end)]
            if len(hit):
                blocks = (int(hit["number"].min()), int(hit["number"].max()))
                numbers = (int(hit["first_event"].min()), int(hit["last_event"].max()))
                events, exact = int(hit["events"].sum()), True
        elif held and damage.whole and not short:
            blocks = (min(h.number for h in held), max(h.number for h in held))
            numbers = (min(h.first_event for h in held), max(h.last_event for h in held))
            events, exact = sum(h.events for h in held), True
        else:
            blocks, numbers = between(damage, expected)
            if expected is not None and alone:
                events, exact = max(0, expected.events - walked.totals.events), True
        return Finding(
            kind=kind, verdict=verdict, reason=damage.reason, begin=damage.begin, end=damage.end,
            blocks=blocks, events=events, event_numbers=numbers, exact=exact,
            acknowledged=acknowledged,
        )  # fmt: skip

    def _order(self, walked: Walked) -> None:
        for header, reason in walked.breaks:
            self._report.add(Finding(
                kind=FindingKind.CHAIN, verdict=Verdict.DAMAGED, reason=reason,
                begin=header.offset, end=header.offset + header.block_bytes,
                blocks=(header.number, header.number) if header.number else None,
                acknowledged=self._acknowledged(),
            ))  # fmt: skip
        recovered = walked.closing is not None and walked.closing[2].status == "recovered"
        for header, reason in walked.doubled:
            if recovered:
                # It was a finding of the source, and stands in the sidecar as one.
                self._report.note(f"block {header.number}: {reason}")
                continue
            self._report.add(Finding(
                kind=FindingKind.SEQUENCE, verdict=Verdict.DAMAGED, reason=reason,
                begin=header.offset, end=header.offset + header.block_bytes,
                blocks=(header.number, header.number), acknowledged=self._acknowledged(),
            ))  # fmt: skip
        file_header = self._header
        if file_header is None or not len(walked.rows) or self._place.tail_begin is not None:
            return
        first = int(walked.rows["number"][0])
        if first < file_header.first_block:
            self._add(FindingKind.SEQUENCE, Verdict.DAMAGED,
                      f"block {first}, but the file header begins at {file_header.first_block}",
                      begin=int(walked.rows["offset"][0]))  # fmt: skip

    # --- footer, durable offset, what lies behind --------------------------------------------

    def _footer(self, walked: Walked) -> None:
        derived = Acknowledged.DERIVED
        for kind, begin, end, reason in walked.footer_problems:
            self._add(kind, Verdict.DAMAGED, reason, begin=begin, end=end, acknowledged=derived)
        whole = not any(f.kind is FindingKind.DAMAGE for f in self._report.findings)
        problems = self._index_problems(walked, whole)
        index_begin = walked.index[0] if walked.index is not None else None
        for kind, reason in problems:
            self._add(kind, Verdict.DAMAGED, reason, begin=index_begin, acknowledged=derived)
        if walked.closing is None and walked.tail is None and not walked.footer_problems:
            self._no_footer(walked, whole)
        elif walked.index is None and whole and not self._has(FindingKind.INDEX):
            self._add(FindingKind.INDEX, Verdict.DAMAGED, "there is no index",
                      begin=walked.last_end, acknowledged=derived)  # fmt: skip
        if walked.after_end is not None:
            self._add(FindingKind.AFTER_END, Verdict.DAMAGED,
                      "bytes behind the closing block, where a file ends",
                      begin=walked.after_end, end=walked.end, acknowledged=derived)  # fmt: skip

    def _no_footer(self, walked: Walked, whole: bool) -> None:
        """A closed file that ends behind a whole block, or in zeros: are blocks missing?"""
        begin = walked.tail_zeros or walked.last_end
        expected = self._expected_totals(walked)
        if expected is not None and expected.blocks > walked.totals.blocks and whole:
            first = walked.totals.last_block + 1
            self._report.add(Finding(
                kind=FindingKind.DAMAGE, verdict=Verdict.DAMAGED,
                reason=f"{expected.blocks - walked.totals.blocks} blocks are missing at the end",
                begin=begin, end=walked.end, blocks=(first, max(first, expected.last_block)),
                events=max(0, expected.events - walked.totals.events),
                event_numbers=(walked.totals.last_event + 1, expected.last_event)
                if expected.last_event > walked.totals.last_event else None,
                exact=True, acknowledged=Acknowledged.YES,
            ))  # fmt: skip
            return
        known = Acknowledged.DERIVED if expected is not None else Acknowledged.UNKNOWN
        reason = "the file ends without index and closing block"
        if expected is None:
            reason += "; blocks may be missing in front of them"
        if walked.index is not None:
            reason = "the file ends without closing block"
        self._add(FindingKind.CLOSING, Verdict.DAMAGED, reason, begin=begin, end=walked.end,
                  acknowledged=known)  # fmt: skip

    def _has(self, kind: FindingKind) -> bool:
        return any(f.kind is kind for f in self._report.findings)

    def _index_problems(self, walked: Walked, whole: bool) -> Iterator[tuple[FindingKind, str]]:
        index = walked.index
        if index is not None:
            rows = index[2]
            here = np.isin(rows["offset"], walked.rows["offset"])
            if len(rows[here]) != len(walked.rows) or not np.array_equal(rows[here], walked.rows):
                yield FindingKind.INDEX, "the index does not describe the blocks"
            elif whole and not bool(here.all()):
                yield FindingKind.INDEX, "the index has blocks that the file does not have"
        if walked.closing is None:
            return
        closing = walked.closing[2]
        if index is not None and (closing.index_offset, closing.index_bytes) != (
            index[0], index[1] - index[0],
        ):  # fmt: skip
            yield FindingKind.CLOSING, "the closing block points to another index"
        if whole and closing.totals != walked.totals:
            yield FindingKind.TOTALS, difference("closing block", closing.totals, walked.totals)
        if closing.status == "recovered":
            self._report.state = "recovered"
            missing = sum(last - first + 1 for first, last in closing.gaps)
            self._report.note(f"recovered; {missing} block numbers are missing in it")

    def _durable(self, walked: Walked) -> None:
        """Against the offset that the journal or another witness of a seal names."""
        known, report = self._known, self._report
        if known.durable is None:
            return
        if report.size_bytes < known.durable:
            expected = self._expected_totals(walked)
            whole = not self._has(FindingKind.DAMAGE)
            blocks, numbers = None, None
            if expected is not None and expected.last_block > walked.totals.last_block:
                blocks = (walked.totals.last_block + 1, expected.last_block)
            if expected is not None and expected.last_event > walked.totals.last_event:
                numbers = (walked.totals.last_event + 1, expected.last_event)
            report.add(Finding(
                kind=FindingKind.DURABLE, verdict=Verdict.DAMAGED,
                reason=f"the file ends below its durable offset ({known.witness})",
                begin=report.size_bytes, end=known.durable, blocks=blocks,
                events=max(0, expected.events - walked.totals.events)
                if expected is not None and whole else None,
                event_numbers=numbers, exact=whole and expected is not None,
                acknowledged=Acknowledged.YES,
            ))  # fmt: skip
            return
        if any(f.verdict is Verdict.DAMAGED for f in report.findings):
            return
        header_crc = self._header.crc if self._header is not None else None
        crc = walked.last_crc if walked.last_crc is not None else header_crc
        if walked.last_end != known.durable:
            self._add(FindingKind.DURABLE, Verdict.DISAGREE,
                      f"{known.witness} says that blocks end at byte {known.durable}",
                      begin=walked.last_end)  # fmt: skip
        elif known.chain is not None and crc is not None and crc != known.chain:
            self._add(FindingKind.DURABLE, Verdict.DISAGREE,
                      f"the last block is not the one that {known.witness} knows (chain)",
                      end=known.durable)  # fmt: skip
        elif known.record is not None and known.record.totals != walked.totals:
            self._add(FindingKind.TOTALS, Verdict.DISAGREE,
                      difference("journal", known.record.totals, walked.totals))  # fmt: skip

    def _beyond(self, walked: Walked, opened: Opened) -> None:
        """What lies behind the durable offset of a file that is not closed."""
        known, size = self._known, self._report.size_bytes
        if known.durable is None or size <= known.durable or opened.salt is None:
            return
        if self._running:
            self._report.note("being written; judged up to its durable offset")
            return
        spans = scan(self._source, salt=opened.salt, path=self._path, begin=known.durable,
                     chain=walked.last_crc, depth=Depth.STORED)  # fmt: skip
        behind = walk(spans, begin=known.durable, end=size, path=self._path)
        end = behind.tail_zeros or size
        if behind.tail is None and not behind.damages and not behind.totals.blocks and (
            behind.index is None and behind.closing is None
        ):  # fmt: skip
            return
        if known.stage is FileStage.SEALED:
            if self._place.is_part:
                self._report.note(
                    f"bytes [{known.durable}..{end}) are void: the part was sealed before them "
                    f"({known.witness})"
                )
            else:
                reason = f"bytes behind the end of a sealed file ({known.witness})"
                self._add(FindingKind.AFTER_END, Verdict.DAMAGED, reason, begin=known.durable,
                          end=end, acknowledged=Acknowledged.DERIVED)  # fmt: skip
            return
        if behind.durable > known.durable:
            told = f"a block behind it was written when {behind.durable} bytes were acknowledged"
            self._add(
                FindingKind.DURABLE,
                Verdict.DISAGREE,
                f"{told}: the journal is an older copy",
                begin=known.durable,
                end=end,
            )
            return
        record = known.record
        if record is not None and record.state is FileState.CLOSING and not behind.totals.blocks:
            self._report.note("its footer was being written")
            return
        if record is not None and record.reserved and end > record.reserved:
            self._add(FindingKind.TAIL, Verdict.DISAGREE,
                      "bytes behind everything that was ever reserved", begin=record.reserved,
                      end=end, acknowledged=Acknowledged.NO)  # fmt: skip
        totals = behind.totals
        self._report.add(Finding(
            kind=FindingKind.TAIL, verdict=Verdict.TORN,
            reason="written, never acknowledged; the next start saves it aside",
            begin=known.durable, end=end,
            blocks=(int(behind.rows["number"][0]), totals.last_block) if totals.blocks else None,
            events=totals.events if behind.tail is None and not behind.damages else None,
            event_numbers=(totals.first_event, totals.last_event) if totals.events else None,
            exact=behind.tail is None and not behind.damages, acknowledged=Acknowledged.NO,
        ))  # fmt: skip

    # --- sidecar, name, catalogue -------------------------------------------------------------

    def _read_sidecar(self) -> Sidecar | None:
        if self._known.stage is FileStage.TAIL:
            return None
        try:
            return read_sidecar(self._place.final_path)
        except FormatError as error:
            reason = error.reason
        except OSError as error:
            self._sidecar_shut = True
            could_not(
                self._report, FindingKind.SIDECAR, f"its sidecar cannot be read: {error.strerror}"
            )
            return None
        if self._place.is_part:
            self._report.note(reason)
        else:
            self._add(FindingKind.SIDECAR, Verdict.DAMAGED, reason,
                      acknowledged=Acknowledged.DERIVED)  # fmt: skip
        return None

    def _check_sidecar(self, walked: Walked) -> None:
        sidecar, final = self._sidecar, not self._place.is_part
        if sidecar is None:
            if final and self._known.stage is not FileStage.TAIL and not self._has(
                FindingKind.SIDECAR
            ):  # fmt: skip
                self._add(FindingKind.SIDECAR, Verdict.NO_SIDECAR,
                          "there is no sidecar: dlog recover --sidecars makes it again",
                          acknowledged=Acknowledged.DERIVED)  # fmt: skip
            return
        if not final:
            self._report.note("its sidecar is there: it was being closed")
            return
        for reason in list(self._sidecar_problems(sidecar, walked)):
            self._add(FindingKind.SIDECAR, Verdict.DAMAGED, reason,
                      acknowledged=Acknowledged.DERIVED)  # fmt: skip
        if sidecar.file_content_status == "bad":
            told = f": {sidecar.sealed}" if sidecar.sealed else ""
            self._add(FindingKind.DURABLE, Verdict.DAMAGED,
                      f"acknowledged bytes were lost before it was closed{told}",
                      acknowledged=Acknowledged.YES)  # fmt: skip

    def _sidecar_problems(self, sidecar: Sidecar, walked: Walked) -> Iterator[str]:
        size = self._report.size_bytes
        # Of a file that is damaged itself, sums that differ say nothing new.
        damaged = self._report.verdict is Verdict.DAMAGED
        if sidecar.size_bytes != size:
            yield f"{sidecar.size_bytes} bytes, but the file has {size}"
        elif sidecar.crc32c != f"{self._crc.value:08x}" and not damaged:
            yield f"crc32c {sidecar.crc32c}, but the file has {self._crc.value:08x}"
        totals = walked.closing[2].totals if walked.closing is not None else walked.totals
        if sidecar.totals != totals and not (damaged and walked.closing is None):
            yield difference("sidecar", sidecar.totals, totals)
        header = self._header
        if header is None:
            return
        key = header.key
        told = (sidecar.run, sidecar.stream, sidecar.kind, sidecar.part)
        if told != (key.run, key.stream, key.kind.name.lower(), key.part):
            yield f"it is of run {told[0]} stream {told[1]} part {told[3]} ({told[2]})"
        if sidecar.file_uuid != header.file_uuid.hex():
            yield "it is of another file (file uuid)"
        if sidecar.logger_uuid != header.logger_uuid.hex() or sidecar.logger != header.text.logger:
            yield "it is of another logger"
        if sidecar.config != header.text.config:
            yield "another stream configuration than the file header has"
        if sidecar.created_ns != header.created_ns:
            yield "another time of creation than the file header has"
        if sidecar.predecessor_part != header.predecessor_part:
            yield "another predecessor than the file header has"

    def _check_name(self) -> None:
        header, place = self._header, self._place
        if header is None or place.tail_begin is not None:
            return
        name = place.final_path.name
        if name == file_name(header.key):
            if place.run is not None and place.run != header.key.run:
                self._add(FindingKind.NAME, Verdict.DISAGREE,
                          f"it lies in the folder of run {place.run} and is of run "
                          f"{header.key.run}")  # fmt: skip
            return
        recovered = self._sidecar is not None and self._sidecar.recovery is not None
        if recovered and self._sidecar is not None and self._sidecar.file == name:
            return
        reason = f"its name should be {file_name(header.key)}, as the file header says"
        self._add(FindingKind.NAME, Verdict.DISAGREE, reason)

    def _check_catalogue(self, walked: Walked) -> None:
        closed = self._known.closed
        if closed is not None:
            for reason in list(self._catalogue_problems(closed, walked)):
                self._add(FindingKind.CATALOGUE, Verdict.DISAGREE, reason)
        elif (
            self._data is not None and self._data.snapshot is not None
            and self._known.record is None and self._known.stage is not FileStage.TAIL
            and not self._known.problem
        ):  # fmt: skip
            if self._running:
                self._report.note("newer than the journal that was read")
            else:
                self._add(FindingKind.UNKNOWN_FILE, Verdict.DISAGREE,
                          "the journal does not know this file")  # fmt: skip

    def _catalogue_problems(self, closed: ClosedFileRecord, walked: Walked) -> Iterator[str]:
        size = self._report.size_bytes
        damaged = self._report.verdict is Verdict.DAMAGED
        if closed.size_bytes != size:
            yield f"{closed.size_bytes} bytes, but the file has {size}"
        elif closed.crc32c != self._crc.value and not damaged:
            yield f"crc32c {closed.crc32c:08x}, but the file has {self._crc.value:08x}"
        totals = walked.closing[2].totals if walked.closing is not None else walked.totals
        if closed.totals != totals and not (damaged and walked.closing is None):
            yield difference("catalogue", closed.totals, totals)


def between(
    damage: Damage, expected: Totals | None
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Block and event numbers that the neighbours of a damage leave room for, inclusive."""
    before, after = damage.before, damage.after
    if after is not None and after.type is not BlockType.EVENTS:
        after = None
    low_block = before.number + 1 if before is not None else 1
    low_event = before.last_event + 1 if before is not None else 0
    if after is not None:
        high_block, high_event = after.number - 1, after.first_event - 1
    elif expected is not None:
        high_block, high_event = expected.last_block, expected.last_event
    else:
        return None, None
    return (
        (low_block, high_block) if high_block >= low_block else None,
        (low_event, high_event) if high_event >= low_event else None,
    )


def difference(who: str, told: Totals, found: Totals) -> str:
    """Which of the totals differ, in words."""
    names = ("blocks", "events", "payload_bytes", "first_event", "last_event", "last_block")
    parts = [
        f"{name} {getattr(told, name)} (in the file {getattr(found, name)})"
        for name in names
        if getattr(told, name) != getattr(found, name)
    ]
    return f"totals of the {who} differ: " + ", ".join(parts)
