"""The shape of what verify and recover say: findings, verdicts, summaries, and their words.

One `FileReport` stands for one file; as JSON it is one object a line. It judges nothing and does no
I/O. docs/RECOVERY.md, "Reading a report".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec


class Verdict(enum.StrEnum):
    """What is said of a file; each verdict has its exit code, of design section 9."""

    GOOD = "good"
    CANNOT_RUN = "not-checked"  # no such file, no permission, not a file
    DAMAGED = "damaged"  # acknowledged events, or derived parts of a closed file
    NO_SIDECAR = "no-sidecar"  # whole, and its sidecar is gone: nothing is lost
    TORN = "torn-tail"  # nothing but an unacknowledged tail
    DISAGREE = "disagree"  # journal, name or sidecar and file contradict each other
    UNSUPPORTED = "not-supported"  # no event file, or of a format that this program does not know

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self]


EXIT_CODES: Final = {
    Verdict.GOOD: 0,
    Verdict.CANNOT_RUN: 1,
    Verdict.DAMAGED: 3,
    Verdict.NO_SIDECAR: 3,
    Verdict.TORN: 4,
    Verdict.DISAGREE: 5,
    Verdict.UNSUPPORTED: 6,
}
# Worst first: what several verdicts are together.
WORST_FIRST: Final = (
    Verdict.CANNOT_RUN, Verdict.DAMAGED, Verdict.NO_SIDECAR, Verdict.DISAGREE,
    Verdict.UNSUPPORTED, Verdict.TORN, Verdict.GOOD,
)  # fmt: skip


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that stands for several; GOOD for none."""
    given = set(verdicts)
    return next((v for v in WORST_FIRST if v in given), Verdict.GOOD)


class Acknowledged(enum.StrEnum):
    """Whether what a finding tells of had been acknowledged to its sources."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # a part file without journal
    DERIVED = "derived"  # no events: index, closing block, sidecar, catalogue


class FindingKind(enum.StrEnum):
    UNREADABLE_FILE = "unreadable-file"
    NOT_A_FILE = "not-a-file"
    NO_FILES = "no-files"
    FORMAT = "format"
    VERSION = "version"
    EMPTY = "empty"
    HEADER = "header"
    READ_ERROR = "read-error"
    DAMAGE = "damage"
    TAIL = "tail"
    CHAIN = "chain"
    SEQUENCE = "sequence"
    INDEX = "index"
    CLOSING = "closing"
    TOTALS = "totals"
    AFTER_END = "after-end"
    SIDECAR = "sidecar"
    NAME = "name"
    DURABLE = "durable"
    MISSING = "missing"
    UNKNOWN_FILE = "unknown-file"
    CATALOGUE = "catalogue"
    JOURNAL = "journal"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong. Bytes [begin, end); block and event numbers inclusive.

    blocks: first and last number that is concerned. events: how many. Where `exact` is false they
    are what the neighbours leave room for, and `events` is null where even that is not known.
    """

    kind: FindingKind
    verdict: Verdict
    reason: str
    begin: int | None = None
    end: int | None = None
    blocks: tuple[int, int] | None = None
    events: int | None = None
    event_numbers: tuple[int, int] | None = None
    exact: bool = False
    acknowledged: Acknowledged | None = None


class FileReport(msgspec.Struct, kw_only=True):
    """The verdict on one file. Totals are over the blocks that are whole and below `judged_bytes`.

    state: open, closed, sealed, recovered, tail (of a quarantine), journal, directory, unknown.
    acknowledgement: how it is known what was acknowledged. judged_bytes: what lies behind is void,
    reserved or being written. notes: facts that are no findings.
    """

    path: str
    verdict: Verdict = Verdict.GOOD
    state: str = "unknown"
    acknowledgement: str = "unknown"
    run: int | None = None
    stream: str | None = None
    kind: str | None = None
    part: int | None = None
    size_bytes: int = 0
    judged_bytes: int = 0
    blocks: int = 0
    events: int = 0
    payload_bytes: int = 0
    first_event: int | None = None
    last_event: int | None = None
    complete: bool = True  # false with --quick: nothing was decompressed
    findings: list[Finding] = []
    notes: list[str] = []

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self.verdict = worst((self.verdict, finding.verdict))

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def events_lost(self) -> int:
        """Events of the findings whose count is known."""
        return sum(f.events or 0 for f in self.findings if f.kind is not FindingKind.TAIL)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All reports in one: the verdict is the exit code. files: without what is only noted."""

    verdict: Verdict
    files: int
    good: int
    blocks: int
    events: int
    payload_bytes: int
    events_lost: int
    by_verdict: dict[str, int]


def summarise(reports: Iterable[FileReport]) -> Summary:
    files = [report for report in reports if not is_aside(report)]
    counts: dict[str, int] = {}
    for report in files:
        counts[report.verdict] = counts.get(report.verdict, 0) + 1
    return Summary(
        verdict=worst(r.verdict for r in files),
        files=len(files),
        good=counts.get(Verdict.GOOD, 0),
        blocks=sum(r.blocks for r in files),
        events=sum(r.events for r in files),
        payload_bytes=sum(r.payload_bytes for r in files),
        events_lost=sum(r.events_lost for r in files),
        by_verdict=counts,
    )


def is_aside(report: FileReport) -> bool:
    """Whether it has nothing but notes on a directory, and says nothing of any file of a run."""
    return report.state == "directory" and not report.findings


def shut_words(why: str) -> str:
    """That a journal was not looked at, and what that means."""
    return (
        f"it was not read: {why}. Nothing is known to be wrong with it; try as the user of the "
        "logger"
    )


def shown(path: Path) -> str:
    """A path as text that JSON can hold, whatever bytes its name has."""
    return str(path).encode("utf-8", "backslashreplace").decode()


_WORDS: Final = {
    Verdict.GOOD: "good",
    Verdict.CANNOT_RUN: "COULD NOT BE CHECKED",
    Verdict.DAMAGED: "DAMAGED",
    Verdict.NO_SIDECAR: "whole, no sidecar",
    Verdict.TORN: "torn tail",
    Verdict.DISAGREE: "DISAGREES",
    Verdict.UNSUPPORTED: "not supported",
}


def verdict_words(verdict: Verdict) -> str:
    return _WORDS[verdict]


def finding_line(finding: Finding) -> str:
    """A finding in one line for people."""
    parts = []
    if finding.begin is not None:
        end = "" if finding.end is None else str(finding.end)
        parts.append(f"bytes [{finding.begin}..{end})")
    parts.append(finding.reason)
    about = "" if finding.exact else "at most "
    if finding.blocks is not None:
        first, last = finding.blocks
        named = f"block {first}" if first == last else f"blocks {first} to {last}"
        parts.append(named if finding.exact else f"{named} at most")
    if finding.events is not None:
        parts.append(f"{about}{finding.events} events")
    elif finding.event_numbers is not None:
        parts.append("an unknown number of events")
    if finding.event_numbers is not None:
        parts.append(f"event numbers {finding.event_numbers[0]} to {finding.event_numbers[1]}")
    match finding.acknowledged:
        case Acknowledged.YES:
            parts.append("acknowledged")
        case Acknowledged.NO:
            parts.append("never acknowledged")
        case Acknowledged.UNKNOWN:
            parts.append("unknown whether acknowledged")
        case Acknowledged.DERIVED:
            parts.append("derived: no events lost")
        case None:
            pass
    return "; ".join(parts)


def report_lines(report: FileReport) -> list[str]:
    """A report for people: one line where it is good, its findings and notes below it."""
    head = f"{report.path}: {verdict_words(report.verdict)}"
    if report.blocks or report.stream:
        head += f", {report.blocks} blocks, {report.events} events"
        if report.first_event is not None:
            head += f" ({report.first_event} to {report.last_event})"
    if report.state not in ("closed", "unknown", "journal", "directory"):
        head += f", {report.state}"
    if not report.complete:
        head += ", quick"
    if is_aside(report):
        head = f"{report.path}:"
    lines = [head]
    lines += [f"    {f.kind}: {finding_line(f)}" for f in report.findings]
    lines += [f"    note: {text}" for text in report.notes]
    return lines


def summary_line(summary: Summary) -> str:
    others = ", ".join(
        f"{count} {verdict_words(Verdict(name))}"
        for name, count in summary.by_verdict.items()
        if name != Verdict.GOOD
    )
    text = f"{summary.files} checked, {summary.good} good"
    if others:
        text += f", {others}"
    text += f"; {summary.blocks} blocks, {summary.events} events, {summary.payload_bytes} bytes"
    if summary.events_lost:
        text += f"; at least {summary.events_lost} events lost"
    return text
