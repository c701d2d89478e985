"""What the event files of a data directory testify when there is no journal: per file its blocks,
per stream which of them can be trusted. It reads and decides; it writes nothing.

Trusted means: surely committed, or in the consecutive prefix of block numbers. All numbers up to a
closed file's last block were committed before it was closed; so were those below the end of a
sealed file, those below a durable offset that a later block tells of, and those below the first
block of a later boot, since a restart cuts what was not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from dlog.core.block import FLAG_GROUP_END, FragmentEntry
from dlog.core.event_file import FileHeader, Sidecar, Totals
from dlog.core.journal_records import LATE, Diversion
from dlog.core.numbering import REACH
from dlog.core.scan import Depth, Span, SpanKind, payload_bytes, scan
from dlog.core.sealed_end import Numbered, Own, numbered_by, void_from
from dlog.errors import DlogError, FormatError
from dlog.limits import END_PARTS_MAX, PAGE_BYTES
from dlog.model.ids import BlockNumber, FileKey, FileKind, MarkKey, PartNumber, SessionId
from dlog.reader.beside import Beside
from dlog.recovery.facts import (
    DataDirectory,
    FileSource,
    FileStage,
    Place,
    known_of,
    read_sidecar,
)
from dlog.recovery.judge import Progress, no_progress, open_header
from dlog.recovery.walk import FileChecksum

ROW_DTYPE: Final = np.dtype(
    [
        ("number", "<u8"), ("offset", "<u8"), ("end", "<u8"), ("first_event", "<u8"),
        ("last_event", "<u8"), ("payload_bytes", "<u8"), ("crc", "<u4"), ("boot", "<u4"),
        ("events", "<u4"), ("durable", "<u8"), ("group_end", "?"),
    ]
)  # fmt: skip

ROWS_PACKED_AT: Final = 16_384


@dataclass(slots=True)
class Testimony:
    """One event file. rows: its whole event blocks, shape (blocks,), dtype ROW_DTYPE.

    sealed_at: where a fault ended it, None for no fault. has_footer: its index is whole, so that
    all its blocks had been committed. pieces: for an open file, the block in which each piece ends,
    with its watermark; for a closed one `marks` alone. crc32c: of the whole file, if closed.
    diverted: of garbage and orphan files, what lies in which block that was sent for elsewhere.
    """

    place: Place
    directory: int
    size: int
    header: FileHeader | None
    sidecar: Sidecar | None
    sealed_at: int | None
    seal_reason: str
    rows: NDArray[Any]
    totals: Totals
    told_totals: Totals | None
    has_footer: bool
    crc32c: int
    marks: dict[MarkKey, int]
    pieces: list[tuple[int, MarkKey, int]]
    sessions: dict[SessionId, int]
    problems: list[str]
    diverted: list[tuple[int, SessionId, Diversion]]

    @property
    def is_open(self) -> bool:
        return self.place.is_part

    @property
    def key(self) -> FileKey | None:
        return self.header.key if self.header is not None else self.place.key

    @property
    def last_number(self) -> int:
        """The highest block number that it is known to have held."""
        told = self.told_totals.last_block if self.told_totals is not None else 0
        return max(told, int(self.rows["number"].max()) if len(self.rows) else 0)


class _Gatherer:
    """Takes the spans of one file."""

    def __init__(self, keep_pieces: bool, kind: FileKind | None) -> None:
        self._keep_pieces = keep_pieces
        self._kind = kind
        self.diverted: list[tuple[int, SessionId, Diversion]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._packed: list[NDArray[Any]] = []  # an archive's rows would not fit as tuples
        self.totals = Totals()
        self.marks: dict[MarkKey, int] = {}
        self.pieces: list[tuple[int, MarkKey, int]] = []
        self.sessions: dict[SessionId, int] = {}
        self.damage: list[tuple[int, str]] = []  # where, and in words
        self.durable = 0  # the highest durable offset that a block tells of
        self.has_footer = False
        self.tail: tuple[int, str] | None = None

    def take(self, span: Span) -> None:
        if span.kind is SpanKind.INDEX:
            self.has_footer = True
        if span.kind is SpanKind.BLOCK:
            if self.tail is not None:
                self.damage.append(self.tail)
                self.tail = None
            self._block(span)
        elif span.lost_bytes:
            text = f"bytes [{span.begin}..{span.end}): {span.reason}"
            self.tail = self.tail or (span.begin, text)

    def _block(self, span: Span) -> None:
        header = span.header
        assert header is not None
        payload = payload_bytes(header)
        self.durable = max(self.durable, header.durable)
        self._rows.append((
            header.number, span.begin, span.end, header.first_event, header.last_event, payload,
            header.crc, header.boot, header.events, header.durable,
            bool(header.flags & FLAG_GROUP_END),
        ))  # fmt: skip
        if len(self._rows) == ROWS_PACKED_AT:
            self._pack()
        self.totals = self.totals.plus(header, payload)
        for entry in span.fragments:
            self._piece(entry, header.number, header.time_ns)
            if self._kind in (FileKind.GARBAGE, FileKind.ORPHAN):
                why = LATE if self._kind is FileKind.GARBAGE else entry.orphan_reason.words
                self.diverted.append((header.number, entry.session, Diversion(
                    run=entry.run, stream=entry.stream, why=why, events=entry.events,
                )))  # fmt: skip

    def _piece(self, entry: FragmentEntry, number: BlockNumber, time_ns: int) -> None:
        self.sessions[entry.session] = max(self.sessions.get(entry.session, 0), time_ns)
        if not entry.last:
            return
        if self._keep_pieces:
            self.pieces.append((number, entry.mark, entry.sequence))
        else:
            self.marks[entry.mark] = max(self.marks.get(entry.mark, 0), entry.sequence)

    def _pack(self) -> None:
        self._packed.append(np.array(self._rows, ROW_DTYPE))
        self._rows.clear()

    def rows(self) -> NDArray[Any]:
        self._pack()
        return np.concatenate(self._packed)


def hear(
    place: Place,
    directory: int,
    old: DataDirectory | None,
    beside: Beside,
    progress: Progress = no_progress,
) -> Testimony:
    """Read one event file through. Raises `OSError` or `DlogError` where it cannot be opened."""
    with FileSource(place.path) as source:
        opened = open_header(source, place)
        known = known_of(place, opened.header, old, beside)
        size = source.size()
        sealed_at = known.durable if known.stage is FileStage.SEALED else None
        end = size if sealed_at is None else min(size, sealed_at)
        problems = []
        # Nothing is acknowledged before the whole header page is durable.
        if opened.problem is not None and not (place.is_part and size < PAGE_BYTES):
            problems.append(f"header page: {opened.problem.reason}")
        file_crc = FileChecksum(progress)
        file_crc.data(memoryview(source.header_page()))
        key = opened.header.key if opened.header is not None else place.key
        gathered = _Gatherer(place.is_part, key.kind if key is not None else None)
        if opened.salt is not None:
            for span in scan(
                source, salt=opened.salt, path=str(place.path), end=end, chain=opened.chain,
                depth=Depth.FULL, observe=file_crc, memory=source.memory,
            ):  # fmt: skip
                gathered.take(span)
    sidecar = None
    with contextlib.suppress(DlogError, OSError):
        sidecar = read_sidecar(place.final_path)
    if gathered.tail is not None and not place.is_part:
        gathered.damage.append(gathered.tail)
    told = sidecar.totals if sidecar is not None and not place.is_part else None
    return Testimony(
        place, directory, size, opened.header, sidecar, sealed_at,
        known.witness if sealed_at is not None else "", gathered.rows(), gathered.totals, told,
        gathered.has_footer, file_crc.value, gathered.marks, gathered.pieces, gathered.sessions,
        # In an open file it is a torn write, unless a later block knows better.
        [*problems, *(text for at, text in gathered.damage
                      if not place.is_part or at < gathered.durable)],
        gathered.diverted,
    )  # fmt: skip


# --- what can be trusted ----------------------------------------------------------------------


@dataclass(slots=True)
class Trust:
    """The last block number of a stream that surely, or as far as the numbers tell, is committed.

    base: surely committed. problems: numbers that are missing or doubled above it.
    """

    base: int = 0
    last: int = 0
    problems: list[str] = field(default_factory=list)


def leave_out_void(files: Sequence[Testimony]) -> None:
    """Take out of the open files of one stream the blocks whose numbers a later boot gave again."""
    numbered = [numbered_by(file.header) for file in files if file.header is not None]
    for file in files:
        boots, first = np.unique(file.rows["boot"], return_index=True)
        lowest = file.rows["number"][first]  # numbers rise in a file
        numbered += map(Numbered, boots.tolist(), lowest.tolist())
    for file in files:
        void = None
        if file.is_open and file.sealed_at is None and len(file.rows):
            told = file.rows["number"][file.rows["offset"] < durable_told(file)]
            own = Own(int(file.rows["boot"].max()), int(told.max()) if len(told) else 0)
            void = void_from(own, numbered)
        if void is not None:
            file.rows = file.rows[file.rows["number"] < void]
            file.pieces = [piece for piece in file.pieces if piece[0] < void]


def trust(files: Sequence[Testimony], old_durable: Iterable[tuple[Testimony, int]] = ()) -> Trust:
    """How far the blocks of one stream go. files: all of its files, of every kind.

    old_durable: durable offsets that an old journal still tells of.
    """
    found = Trust()
    for file in files:
        if not file.is_open or file.sealed_at is not None or file.has_footer:
            found.base = max(found.base, file.last_number)
    told = [(file, durable_told(file)) for file in files]
    for file, durable in (*told, *old_durable):
        below = file.rows[file.rows["end"] <= durable]
        above = file.rows[file.rows["offset"] >= durable]
        if durable > PAGE_BYTES and len(above) and not (below["end"] == durable).any():
            # The last block below it is damaged: its number is one before the next.
            found.base = max(found.base, int(above["number"].min()) - 1)
        if len(below):
            found.base = max(found.base, int(below["number"].max()))
    rows = _all_rows(files)
    if len(rows):
        found.base = max(found.base, _before_last_boot(rows))
    numbers, counts = np.unique(rows["number"], return_counts=True)
    doubled = numbers[counts > 1]
    if len(doubled):
        found.problems.append(
            f"block numbers stand in two files: {int(doubled[0])} to {int(doubled[-1])}"
        )
    found.last = _consecutive(found, rows)
    return found


def durable_told(file: Testimony) -> int:
    """The highest durable offset that a block of the file tells of."""
    return int(file.rows["durable"].max()) if len(file.rows) else 0


def _all_rows(files: Sequence[Testimony]) -> NDArray[Any]:
    parts = [file.rows for file in files]
    rows = np.concatenate(parts) if parts else np.empty(0, ROW_DTYPE)
    return rows[np.argsort(rows["number"], kind="stable")]


def _before_last_boot(rows: NDArray[Any]) -> int:
    """The last number below the first block of the highest boot, if there was an earlier boot."""
    highest = rows["boot"].max()
    if (rows["boot"] == highest).all():
        return 0
    return int(rows["number"][rows["boot"] == highest].min()) - 1


def _consecutive(found: Trust, rows: NDArray[Any]) -> int:
    """The last number above the base that ends a group, with every number before it there."""
    above = rows[rows["number"] > found.base]
    last, expected = found.base, found.base + 1
    for row in above:
        number = int(row["number"])
        if number == expected - 1:
            break  # doubled: nothing tells which of the two counts
        if number != expected:
            found.problems.append(
                f"block numbers {expected} to {number - 1} are missing; {len(above)} blocks from "
                f"{number} on are not trusted and stay in their files. A logger that died while it "
                "wrote them leaves it so, and then none of them was acknowledged; otherwise a file "
                "of the stream is lost"
            )
            break
        if row["group_end"]:
            last = number
        expected = number + 1
    return last


# --- where files end --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DurableEnd:
    """The end D of a file that is not closed, and what lies below it."""

    durable: int
    last_header_offset: int
    chain: int
    crc32c: int
    totals: Totals


def durable_end(file: Testimony, last_number: int) -> DurableEnd:
    """D is the end of the last trusted block; where the file was sealed, what its witness said."""
    rows = file.rows[file.rows["number"] <= last_number]
    totals = Totals()
    for row in rows:
        totals = totals.plus_block(
            int(row["events"]), int(row["payload_bytes"]), int(row["first_event"]),
            int(row["last_event"]), int(row["number"]),
        )  # fmt: skip
    durable, offset = PAGE_BYTES, 0
    chain = file.header.crc if file.header is not None else 0
    if len(rows):
        durable, offset = int(rows["end"][-1]), int(rows["offset"][-1])
        chain = int(rows["crc"][-1])
    # Where the last block below that is damaged, the start finds acknowledged events lost.
    durable = max(durable, durable_told(file))
    if file.sealed_at is not None:
        durable = file.sealed_at
    durable = min(durable, file.size) if file.header is None else durable
    return DurableEnd(durable, offset, chain, crc_of(file.place.path, durable), totals)


def crc_of(path: Path, end: int) -> int:
    """The checksum of the first `end` bytes."""
    file_crc = 0
    with FileSource(path) as source:
        buffer = memoryview(bytearray(1 << 20))
        at = 0
        while at < end:
            got = source.read_into(at, buffer[: min(len(buffer), end - at)])
            if got == 0:
                raise FormatError("ends below its durable offset", path=str(path), offset_bytes=at)
            file_crc = crc32c(buffer[:got], file_crc)
            at += got
    return file_crc


# --- ranges -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range:
    """The range of event numbers of a part; low exclusive, high inclusive, -1 for open."""

    low: int
    high: int
    newest: bool  # it is the part that takes what is above all others


def ranges(files: Sequence[Testimony]) -> dict[int, Range]:
    """The range of each EVENTS part of a stream, by part number.

    A part that goes on for a sealed one takes over its range. A range ends where the next one
    begins, which stands in that part's header: the numbers in the blocks do not tell it, since a
    single wild one would close the range for all after it.
    """
    headers = {
        f.header.key.part: f.header
        for f in files
        if f.header is not None and f.header.key.kind is FileKind.EVENTS
    }
    roots: dict[PartNumber, PartNumber] = {}
    for part in sorted(headers):
        before = headers[part].predecessor_part
        roots[part] = roots.get(before, part) if before else part
    # Not in the order of their numbers: a part for late events may be made behind a newer range's.
    firsts = sorted(set(roots.values()), key=lambda part: (headers[part].text.low, part))
    found: dict[int, Range] = {}
    for position, root in enumerate(firsts):
        low = headers[root].text.low
        newest = position == len(firsts) - 1
        high = -1 if newest else headers[firsts[position + 1]].text.low
        for part, its_root in roots.items():
            if its_root == root:
                found[part] = Range(low, high, newest)
    return found


def unmade(files: Sequence[Testimony], spans: Mapping[int, Range]) -> list[tuple[int, int]]:
    """The closed ranges whose last part a fault ended: another one takes what comes late, unless
    it is too late for the range. Only the journal knew that; so they are opened once more."""
    last: dict[tuple[int, int], Testimony] = {}
    for file in files:
        span = spans.get(file.header.key.part) if file.header is not None else None
        if span is None or file.header is None or file.header.key.kind is not FileKind.EVENTS:
            continue
        before = last.get((span.low, span.high))
        if before is None or before.header is None or (
            before.header.key.part < file.header.key.part
        ):  # fmt: skip
            last[span.low, span.high] = file
    waiting = [
        (low, high) for (low, high), file in last.items()
        if file.sealed_at is not None and high > low
        and file.header is not None and file.header.text.config.ranges
    ]  # fmt: skip
    return sorted(waiting)[-END_PARTS_MAX:]


def followed(low: int, rows: NDArray[Any]) -> int:
    """How far a stream's numbers are followed in these blocks, from that boundary on. A block that
    may hold a wild number is passed over: the logger follows the next events by itself."""
    highest = low
    for row in rows:
        first, last = int(row["first_event"]), int(row["last_event"])
        if first <= highest + REACH and last - first < int(row["events"]) + REACH:
            highest = max(highest, last)
    return highest
