"""Walks the blocks of an event file and classifies every byte behind the header page into spans.

It resynchronises after damage, never guesses, never writes, and does no I/O of its own: bytes come
from a `ByteSource`. docs/FORMAT.md, "Reading a damaged file". Memory is bounded by one block and
one window; time is linear in the bytes that are not holes.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from dlog.core.block import (
    HEADER_BYTES,
    MAGIC,
    BlockContent,
    BlockHeader,
    BlockType,
    FragmentEntry,
    check_block,
    decode_content,
    decode_fragments,
    decode_header,
    decode_raw,
)
from dlog.errors import FormatError
from dlog.limits import MIB, PAGE_BYTES
from dlog.model.events import EVENT_BYTES

WINDOW_BYTES: Final = 2 * MIB
_MAGIC_WORD: Final = int.from_bytes(MAGIC, "little")


class ByteSource(Protocol):
    """Random access to the bytes of one file; its size may change while it is read."""

    def size(self) -> int: ...

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill the buffer from `offset`; fewer bytes than its length only at the end of the file.

        Bytes that the disk does not give are filled with something that is neither zeros nor a
        block, and are the source's to report.
        """
        ...

    def next_data(self, offset: int) -> int:
        """The first offset, from `offset` on, that may hold something other than zeros."""
        ...


class Depth(enum.IntEnum):
    """How far a block is checked."""

    STORED = 1  # header, fragment table, padding, stored bytes
    FULL = 2  # also the raw bytes after decompression, and the event table against the header


class SpanKind(enum.StrEnum):
    BLOCK = "block"  # an events block, whole
    INDEX = "index"  # an index block, whole
    CLOSING = "closing"  # a closing block, whole
    STALE = "stale"  # a whole block of an earlier boot or number: it would double events
    DAMAGED = "damaged"  # its header holds, what is behind it does not
    TORN = "torn"  # its header holds, the bytes end inside the block
    UNREADABLE = "unreadable"  # no header that holds begins here
    ZEROS = "zeros"


WHOLE: Final = frozenset({SpanKind.BLOCK, SpanKind.INDEX, SpanKind.CLOSING})


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [begin, end) of a file and what they are.

    reason: why they are not good; of a whole block, why it is not the neighbour of what is before
    it (chain). header: where one holds. data, content, raw: of a whole block, views that are valid
    until the next span is asked for; content at depth FULL of events, raw of index and closing.
    """

    kind: SpanKind
    begin: int
    end: int
    reason: str = ""
    header: BlockHeader | None = None
    fragments: tuple[FragmentEntry, ...] = ()
    data: memoryview | None = None
    content: BlockContent | None = None
    raw: memoryview | None = None

    @property
    def lost_bytes(self) -> int:
        return 0 if self.kind in WHOLE or self.kind is SpanKind.ZEROS else self.end - self.begin


class Observer(Protocol):
    """Sees every byte of a scan once and in order: as a view, or as a count of zeros of a hole."""

    def data(self, view: memoryview) -> None: ...

    def zeros(self, count: int) -> None: ...


Memory = Callable[[int], memoryview]


def _any_memory(size: int) -> memoryview:
    return memoryview(bytearray(size))


class _Window:
    """A sliding view of the source, so that small blocks do not cost a read each."""

    def __init__(
        self,
        source: ByteSource,
        begin: int,
        end: int,
        observe: Observer | None = None,
        memory: Memory = _any_memory,
    ) -> None:
        self._source = source
        self._memory = memory
        self._end = end
        self._observe = observe
        self._observed = begin
        self._begin = begin
        self._filled = 0
        # No larger than what there is to read.
        self._buffer = memory(min(2 * WINDOW_BYTES, max(0, end - begin)))

    def view(self, offset: int, size: int) -> memoryview:
        """Bytes from `offset` on: `size` of them, fewer only at the end."""
        size = min(size, self._end - offset)
        have_end = self._begin + self._filled
        if offset < self._begin or offset + size > have_end:
            self._move(offset, size)
        at = offset - self._begin
        return self._buffer[at : min(at + size, self._filled)]

    def skip_hole(self, offset: int) -> int:
        """The offset of the next byte that may not be zero, at most the end."""
        have_end = self._begin + self._filled
        if offset < have_end:
            return offset
        position = min(max(self._source.next_data(offset), offset), self._end)
        return position // PAGE_BYTES * PAGE_BYTES if position < self._end else position

    def finish(self) -> None:
        """Let the observer see what no span asked for."""
        while self._observe is not None and self._observed < self._end:
            at = self.skip_hole(self._observed)
            if at >= self._end:
                self._observe.zeros(self._end - self._observed)
                return
            before = self._observed
            self.view(max(at, before), WINDOW_BYTES)
            if self._observed == before:
                return

    def _move(self, offset: int, size: int) -> None:
        have_end = self._begin + self._filled
        keep = self._buffer[offset - self._begin : self._filled] if (
            self._begin <= offset < have_end
        ) else self._buffer[:0]  # fmt: skip
        # Whole windows ahead, so that a walk over small blocks reads rarely; and whole pages.
        wanted = max(size, len(keep)) + WINDOW_BYTES
        wanted = min(wanted + -wanted % PAGE_BYTES, self._end - offset)
        kept = len(keep)
        if wanted > len(self._buffer):
            # A new one: somebody may still hold views of the old one.
            buffer = self._memory(wanted)
            buffer[:kept] = keep
            self._buffer = buffer
        else:
            self._buffer[:kept] = keep
        if self._observe is not None and offset + kept > self._observed:
            # What was passed over is a hole.
            self._observe.zeros(offset + kept - self._observed)
            self._observed = offset + kept
        got = self._source.read_into(offset + kept, self._buffer[kept:wanted])
        self._begin, self._filled = offset, kept + got
        if self._observe is not None and offset + self._filled > self._observed:
            self._observe.data(self._buffer[self._observed - offset : self._filled])
            self._observed = offset + self._filled


def scan(
    source: ByteSource,
    *,
    salt: bytes,
    path: str,
    begin: int = PAGE_BYTES,
    end: int | None = None,
    chain: int | None = None,
    depth: Depth = Depth.FULL,
    observe: Observer | None = None,
    memory: Memory = _any_memory,
) -> Iterator[Span]:
    """The spans of [begin, end), in order and without gaps between them.

    chain: crc of the header before `begin` (of the file header, for the first block), None where it
    is not known. observe: sees every byte of [begin, end), once and in order. memory: gives so many
    writable bytes for the source to read into.
    """
    limit = source.size() if end is None else min(end, source.size())
    window = _Window(source, begin, limit, observe, memory)
    walk = _Walk(window, salt, path, limit, chain, depth)
    yield from walk.spans(begin)
    window.finish()


class _Walk:
    def __init__(
        self, window: _Window, salt: bytes, path: str, end: int, chain: int | None, depth: Depth
    ) -> None:
        self._window = window
        self._salt = salt
        self._path = path
        self._end = end
        self._depth = depth
        # Of the header that ends exactly where the next one should begin; None behind damage.
        self._chain = chain
        self._number = 0
        self._boot = 0

    def spans(self, begin: int) -> Iterator[Span]:
        position = begin
        while position < self._end:
            try:
                header = self._header_at(position)
            except FormatError as error:
                self._chain = None
                for span in self._region(position, error.reason):
                    position = span.end
                    yield span
                continue
            for span in self._block(header):
                position = span.end
                yield span

    def _header_at(self, offset: int) -> BlockHeader:
        view = self._window.view(offset, HEADER_BYTES)
        return decode_header(view, salt=self._salt, offset=offset, path=self._path)

    def _block(self, header: BlockHeader) -> Iterator[Span]:
        begin, end = header.offset, header.offset + header.block_bytes
        data = self._window.view(begin, header.block_bytes)
        try:
            span = self._whole(header, data)
        except FormatError as error:
            # A header that holds inside it wins, so that damage never costs a second block.
            following = self._next_header(begin + PAGE_BYTES, min(end, self._end))
            torn = end > self._end and following is None
            self._chain = header.crc if following is None and not torn else None
            self._boot = max(self._boot, header.boot)
            yield Span(
                SpanKind.TORN if torn else SpanKind.DAMAGED,
                begin, following if following is not None else min(end, self._end),
                error.reason, header,
            )  # fmt: skip
            return
        yield span
        if span.kind is SpanKind.STALE:
            self._chain = None
            return
        self._chain = header.crc
        self._boot = header.boot
        if header.type is BlockType.EVENTS:
            self._number = header.number

    def _whole(self, header: BlockHeader, data: memoryview) -> Span:
        """The span of a block that holds. Raises `FormatError`."""
        begin, end = header.offset, header.offset + header.block_bytes
        check_block(header, data, path=self._path)
        reason = self._stale_reason(header)
        if reason:
            return Span(SpanKind.STALE, begin, end, reason, header)
        if self._chain is not None and self._chain != header.previous_crc:
            reason = "the block before it is not the one that it was written behind (chain)"
        if header.type is not BlockType.EVENTS:
            kind = SpanKind.INDEX if header.type is BlockType.INDEX else SpanKind.CLOSING
            raw = decode_raw(header, data, path=self._path)
            return Span(kind, begin, end, reason, header, data=data, raw=raw)
        if self._depth is Depth.STORED:
            fragments = decode_fragments(header, data, path=self._path)
            return Span(SpanKind.BLOCK, begin, end, reason, header, fragments, data)
        content = decode_content(header, data, path=self._path)
        problem = content_problem(header, content)
        if problem:
            raise FormatError(problem, path=self._path, offset_bytes=begin)
        return Span(SpanKind.BLOCK, begin, end, reason, header, content.fragments, data, content)

    def _stale_reason(self, header: BlockHeader) -> str:
        if header.boot < self._boot:
            return f"block of boot {header.boot} behind one of boot {self._boot}"
        if header.type is BlockType.EVENTS and header.number <= self._number:
            return f"block number {header.number} behind block number {self._number}"
        return ""

    def _region(self, begin: int, reason: str) -> Iterator[Span]:
        """What lies between `begin`, where no header holds, and the next one that does."""
        zeros_end = self._zeros(begin)
        if zeros_end > begin:
            yield Span(SpanKind.ZEROS, begin, zeros_end)
            return
        following = self._next_header(begin + PAGE_BYTES, self._end)
        end = self._end if following is None else following
        # Zeros at its end are their own span: behind the last block they are a reservation.
        data_end = self._last_data(begin, end)
        yield Span(SpanKind.UNREADABLE, begin, data_end, reason)
        if data_end < end:
            yield Span(SpanKind.ZEROS, data_end, end)

    def _zeros(self, begin: int) -> int:
        """Where the zeros at `begin` end, in whole pages; `begin` where there are none."""
        position = begin
        while position < self._end:
            position = self._window.skip_hole(position)
            if position >= self._end:
                return self._end
            view = self._window.view(position, WINDOW_BYTES)
            if not view:
                return self._end
            used = np.frombuffer(view, np.uint8) != 0
            at = int(used.argmax())
            if used[at]:
                return position + at // PAGE_BYTES * PAGE_BYTES
            position += len(view)
        return min(position, self._end)

    def _last_data(self, begin: int, end: int) -> int:
        """Where the last page of [begin, end) that is not all zeros ends."""
        last = min(begin + PAGE_BYTES, end)
        position = begin
        while position < end:
            position = self._window.skip_hole(position)
            view = self._window.view(position, min(WINDOW_BYTES, end - position))
            if position >= end or not view:
                break
            used = np.flatnonzero(np.frombuffer(view, np.uint8))
            if len(used):
                page_end = (position + int(used[-1])) // PAGE_BYTES * PAGE_BYTES + PAGE_BYTES
                last = max(last, min(page_end, end))
            position += len(view)
        return last

    def _next_header(self, begin: int, end: int) -> int | None:
        """The next page in [begin, end) at which a header of this file holds."""
        position = begin
        while position < end:
            position = self._window.skip_hole(position)
            if position >= end:
                return None
            view = self._window.view(position, min(WINDOW_BYTES, end - position))
            pages = (len(view) + PAGE_BYTES - 1) // PAGE_BYTES
            if pages == 0:
                return None
            for page in _magic_pages(view):
                offset = position + page * PAGE_BYTES
                try:
                    self._header_at(offset)
                except FormatError:
                    continue
                return offset
            position += pages * PAGE_BYTES
        return None


def _magic_pages(view: memoryview) -> list[int]:
    """Which pages of the view begin with the magic of a block."""
    whole = len(view) // PAGE_BYTES * PAGE_BYTES
    words = np.frombuffer(view[:whole], "<u8")[:: PAGE_BYTES // 8]
    pages = [int(page) for page in np.flatnonzero(words == _MAGIC_WORD)]
    if len(view) - whole >= HEADER_BYTES and bytes(view[whole : whole + 8]) == MAGIC:
        pages.append(whole // PAGE_BYTES)
    return pages


def content_problem(header: BlockHeader, content: BlockContent) -> str:
    """Why the event table does not fit its header and fragments; "" where it does."""
    table = content.table
    if len(table):
        first, last = int(table["number"].min()), int(table["number"].max())
        if (first, last) != (header.first_event, header.last_event):
            return f"events {first} to {last}, but the header says otherwise (event range)"
    at = 0
    for entry in content.fragments:
        rows = table[at : at + entry.events]
        at += entry.events
        if int(rows["size"].sum(dtype=np.uint64)) != entry.payload_bytes:
            return "sizes of the events do not add up to their fragment"
        if entry.events and not bool((rows["run"] == entry.run).all()):
            return "events of another run than their fragment says"
    return ""


def payload_bytes(header: BlockHeader) -> int:
    """Bytes of payload in an events block."""
    return header.raw_bytes - header.events * EVENT_BYTES


def guess_salt(
    source: ByteSource, *, path: str, expected: tuple[int, str] | None = None
) -> bytes | None:
    """The salt of a file whose header page is lost: the one that most of its whole blocks have.

    expected: run and stream, where the name tells; then blocks of others, which a failing disk may
    have put here, do not count as long as there is one of the right stream.
    """
    votes: Counter[tuple[bool, bytes]] = Counter()
    window = _Window(source, 0, source.size())
    position = PAGE_BYTES
    while (header := _any_header(window, position, source.size(), path)) is not None:
        data = window.view(header.offset, header.block_bytes)
        position = header.offset + PAGE_BYTES
        try:
            check_block(header, data, path=path)
            fragments = decode_fragments(header, data, path=path)
        except FormatError:
            continue
        ours = expected is not None and any((f.run, f.stream) == expected for f in fragments)
        votes[ours, header.salt] += 1
        position = header.offset + header.block_bytes
    if not votes:
        return None
    (_, salt), _ = max(votes.items(), key=lambda vote: (vote[0][0], vote[1]))
    return salt


def _any_header(window: _Window, begin: int, end: int, path: str) -> BlockHeader | None:
    """The next header that holds in all but the salt."""
    position = begin
    while position < end:
        position = window.skip_hole(position)
        view = window.view(position, WINDOW_BYTES) if position < end else memoryview(b"")
        if not view:
            return None
        pages = (len(view) + PAGE_BYTES - 1) // PAGE_BYTES
        for page in _magic_pages(view):
            offset = position + page * PAGE_BYTES
            head = window.view(offset, HEADER_BYTES)
            try:
                # The salt's place in the header: magic, type, flags and boot stand before it.
                return decode_header(head, salt=bytes(head[16:32]), offset=offset, path=path)
            except FormatError:
                continue
        position += pages * PAGE_BYTES
    return None
