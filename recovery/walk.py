"""Gathers the spans of one file into blocks, damage and footer: what verify, recover and rebuild
reckon from. It judges nothing and opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from dlog.core.block import BlockHeader, FragmentEntry
from dlog.core.checksum import with_zeros
from dlog.core.event_file import (
    INDEX_DTYPE,
    Closing,
    Totals,
    decode_closing,
    decode_index,
)
from dlog.core.scan import WHOLE, Span, SpanKind, payload_bytes
from dlog.errors import FormatError
from dlog.limits import PAGE_BYTES
from dlog.model.ids import MarkKey
from dlog.recovery.report import FindingKind

NO_ROWS: Final = np.empty(0, INDEX_DTYPE)


@dataclass(slots=True)
class Damage:
    """A stretch of a file that is no whole block. before, after: its whole neighbours' headers.

    headers: of blocks in it whose header holds. whole: those are all that is in it.
    """

    begin: int
    end: int
    reason: str
    before: BlockHeader | None
    after: BlockHeader | None = None
    headers: list[BlockHeader] = field(default_factory=list)
    whole: bool = True
    zeros: bool = True  # nothing but zeros

    def add(self, span: Span) -> None:
        self.end = span.end
        if span.header is not None:
            self.headers.append(span.header)
        else:
            self.whole = False
        if span.kind is not SpanKind.ZEROS:
            if self.zeros and span.reason:
                self.reason = span.reason
            self.zeros = False


@dataclass(slots=True)
class Walked:
    """What a walk over a file found. rows: an index of its whole event blocks."""

    begin: int
    end: int
    rows: NDArray[Any] = field(default_factory=lambda: NO_ROWS)
    totals: Totals = field(default_factory=Totals)
    damages: list[Damage] = field(default_factory=list)
    tail: Damage | None = None  # damage up to the end
    tail_zeros: int = 0  # zeros behind everything else
    breaks: list[tuple[BlockHeader, str]] = field(default_factory=list)
    doubled: list[tuple[BlockHeader, str]] = field(default_factory=list)
    index: tuple[int, int, NDArray[Any]] | None = None
    closing: tuple[int, int, Closing] | None = None
    after_end: int | None = None  # where something follows the closing block
    footer_problems: list[tuple[FindingKind, int, int, str]] = field(default_factory=list)
    durable: int = 0  # the highest durable offset that a whole block tells of
    last_crc: int | None = None  # of the last whole event block's header
    last_end: int = PAGE_BYTES
    group_end: bool = True  # the last whole event block ends a group


class _Rows:
    """Rows of an index, appended one by one without an object each."""

    def __init__(self) -> None:
        self._rows = np.zeros(1024, INDEX_DTYPE)
        self._count = 0

    def add(self, header: BlockHeader) -> None:
        if self._count == len(self._rows):
            self._rows = np.concatenate((self._rows, np.zeros(self._count, INDEX_DTYPE)))
        self._rows[self._count] = index_row(header)
        self._count += 1

    def done(self) -> NDArray[Any]:
        return self._rows[: self._count]


def index_row(header: BlockHeader) -> tuple[int, ...]:
    return (
        header.offset, header.number, header.first_event, header.last_event, header.time_ns,
        header.events, header.block_bytes,
    )  # fmt: skip


def walk(spans: Iterable[Span], *, begin: int, end: int, path: str) -> Walked:
    """Gather the spans of a file into blocks, damage and footer."""
    walked = Walked(begin, end)
    rows = _Rows()
    marks = _Marks()
    current: Damage | None = None
    previous: BlockHeader | None = None
    for span in spans:
        if walked.closing is not None and walked.after_end is None:
            walked.after_end = span.begin
        if span.kind not in WHOLE:
            if current is None:
                reason = "zeros where a block should be"
                current = Damage(span.begin, span.end, reason, previous)
            if span.kind is SpanKind.ZEROS:
                walked.tail_zeros = span.begin
            current.add(span)
            continue
        assert span.header is not None
        if current is not None:
            current.after = span.header
            walked.damages.append(current)
            current = None
        walked.tail_zeros = 0
        if span.reason:
            walked.breaks.append((span.header, span.reason))
        previous = span.header
        walked.durable = max(walked.durable, span.header.durable)
        _take_whole(walked, span, rows, marks, path)
    if current is not None:
        _end_with(walked, current)
    walked.rows = rows.done()
    return walked


def _take_whole(walked: Walked, span: Span, rows: _Rows, marks: _Marks, path: str) -> None:
    header = span.header
    assert header is not None
    if span.kind is SpanKind.BLOCK:
        rows.add(header)
        walked.totals = walked.totals.plus(header, payload_bytes(header))
        walked.last_crc, walked.last_end = header.crc, span.end
        walked.group_end = bool(header.flags & 1)
        problem = marks.problem(span.fragments)
        if problem:
            walked.doubled.append((header, problem))
        return
    assert span.raw is not None
    kind = FindingKind.INDEX if span.kind is SpanKind.INDEX else FindingKind.CLOSING
    try:
        if kind is FindingKind.INDEX:
            index = decode_index(span.raw, path=path, offset_bytes=span.begin).copy()
            walked.index = (span.begin, span.end, index)
        else:
            closing = decode_closing(span.raw, path=path, offset_bytes=span.begin)
            walked.closing = (span.begin, span.end, closing)
    except FormatError as error:
        walked.footer_problems.append((kind, span.begin, span.end, error.reason))


def _end_with(walked: Walked, tail: Damage) -> None:
    """The last stretch up to the end: zeros behind everything are no damage of their own."""
    if tail.zeros:
        walked.tail_zeros = tail.begin
        return
    if walked.tail_zeros > tail.begin:
        tail.end = walked.tail_zeros
    walked.tail = tail


class _Marks:
    """Whether the pieces of each session come in order; a piece that comes again doubles events."""

    def __init__(self) -> None:
        self._last: dict[MarkKey, tuple[int, bool]] = {}

    def problem(self, fragments: Sequence[FragmentEntry]) -> str:
        for entry in fragments:
            sequence, complete = self._last.get(entry.mark, (0, True))
            self._last[entry.mark] = (max(sequence, entry.sequence), entry.last)
            again = entry.sequence == sequence and (complete or entry.first)
            if entry.sequence < sequence or again:
                return (
                    f"batch {entry.sequence} of session {entry.session.hex()[:8]} comes behind "
                    f"batch {sequence}: its events may stand here twice"
                )
        return ""


class FileChecksum:
    """An `Observer` that keeps the crc32c of what it saw, and tells how far it is."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.value = 0
        self._progress = progress

    def data(self, view: memoryview) -> None:
        self.value = crc32c(view, self.value)
        self._progress(len(view))

    def zeros(self, count: int) -> None:
        self.value = with_zeros(self.value, count)
        self._progress(count)
