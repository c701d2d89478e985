"""One event file: where its events end, and the walk over its blocks. docs/FORMAT.md, "Reading".

It gives out nothing whose checksums do not hold, and reads nothing behind a sealed end.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from dlog.core.block import (
    FRAGMENT_BYTES,
    FRAGMENT_DTYPE,
    HEADER_BYTES,
    BlockHeader,
    BlockType,
    check_block,
    decode_header,
    decode_raw,
)
from dlog.core.event_file import (
    INDEX_DTYPE,
    Closing,
    FileHeader,
    Sidecar,
    Totals,
    decode_closing,
    decode_file_header,
    decode_index,
    decode_sidecar,
    sidecar_path,
)
from dlog.core.run_files import PART_SUFFIX
from dlog.core.scan import WHOLE, Depth, SpanKind, scan
from dlog.errors import FormatError, StorageError
from dlog.limits import BLOCK_BYTES_MAX, MIB, PAGE_BYTES
from dlog.model.events import EVENT_BYTES, EVENT_DTYPE
from dlog.reader.beside import Beside
from dlog.reader.block import Block, Event, content_problem
from dlog.reader.file_bytes import FileBytes, Window

# Read at once, so that small blocks do not cost a system call each; a view of a block keeps no more
# than this (or than its block) in memory.
CHUNK_BYTES: Final = MIB
OUTLINE_BYTES: Final = 4 * PAGE_BYTES  # where only headers and fragment tables are wanted
_SIDECAR_BYTES_MAX: Final = MIB

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Tail:
    """Bytes [begin, end) behind the last whole block of an open file: torn, or being written now.
    No event in them was read. Nothing acknowledged lies there unless the disk lost it."""

    path: Path
    begin: int
    end: int
    reason: str


class EventFile:
    """One event file. It is opened where it is read, and keeps nothing of its blocks.

    header: the file header. sidecar: None where there is none beside it. sealed_bytes: where a
    fault ended the file without footer, as its sidecar or its successor says; no reader goes
    beyond. The successor may lie in another data directory, which `beside` must name. tail: what
    lies behind the last block of an open file, known once it was read to its end.
    """

    def __init__(self, path: PathLike, *, beside: Beside | None = None) -> None:
        """`beside`: the folders in which the run has files, if there are more than its own."""
        self.path = Path(path)
        with closing(FileBytes(self.path)) as file:
            self.path = file.path
            self.header = decode_file_header(file.read(0, PAGE_BYTES), path=str(self.path))
        self.tail: Tail | None = None
        self.sidecar: Sidecar | None = None
        self._sidecar_error: FormatError | None = None
        try:
            self.sidecar = _read_sidecar(self.path, self.header)
        except FormatError as error:
            # It matters only where the file has no footer.
            self._sidecar_error = error
        self._beside = beside or Beside()
        told = self._beside.seal(self.path, self.header, self.sidecar)
        self.sealed_bytes = told[0].at if told is not None else None

    @cached_property
    def void_from(self) -> int | None:
        """The block number from which on an open file is void: a later start of the logger gave
        these numbers again. None for no number."""
        if not self.is_open or self.sealed_bytes is not None:
            return None
        return self._beside.void_from(self.path, self.header)

    @property
    def is_open(self) -> bool:
        """Whether its name says that it still takes events (or that its logger died)."""
        return self.path.suffix == PART_SUFFIX

    def __repr__(self) -> str:
        return f"<EventFile {self.path}>"

    # --- blocks and events ----------------------------------------------------------------------

    def __iter__(self) -> Iterator[Event]:
        with closing(self.blocks()) as blocks:
            for block in blocks:
                yield from block

    def blocks(self, begin: int = PAGE_BYTES) -> Generator[Block, None, None]:
        """The event blocks, from the one that begins at byte `begin` on.

        Raises `FormatError` at damage, with path and offset, after all that is before it. Memory: a
        block, or a chunk of small ones.
        """
        with closing(self._walk(begin, whole=True)) as walk:
            for header, data in walk:
                yield self._block(header, data)

    def outline(self) -> Generator[tuple[BlockHeader, NDArray[Any]], None, None]:
        """Header and pieces (dtype FRAGMENT_DTYPE) of each events block, without the events."""
        with closing(self._walk(PAGE_BYTES, whole=self.is_open)) as walk:
            for header, data in walk:
                yield header, np.frombuffer(data, FRAGMENT_DTYPE, header.fragments, HEADER_BYTES)

    def block_at(self, offset: int) -> Block:
        """The block that begins at this byte."""
        with closing(FileBytes(self.path)) as file:
            return self.block_in(file, offset, PAGE_BYTES)

    def block_in(self, file: FileBytes, offset: int, size: int) -> Block:
        """The block at this byte of the opened file. `size`: how much to read at first."""
        data = file.read(offset, size)
        header = self._header(data, offset)
        if header.type is not BlockType.EVENTS:
            raise self._error("no events block", offset)
        if len(data) < header.block_bytes:
            data = file.read(offset, header.block_bytes)
        check_block(header, data, path=str(self.path))
        return self._block(header, data)

    def find(self, number: int) -> Iterator[Event]:
        """The events with this number. Only blocks are read whose range holds it."""
        rows = self.index
        holds = (rows["first_event"] <= number) & (rows["last_event"] >= number)
        for offset in rows["offset"][holds].tolist():
            block = self.block_at(offset)
            if bool((block.table["number"] == number).any()):
                yield from (event for event in block if event.number == number)

    @property
    def index(self) -> NDArray[Any]:
        """A row for each events block, dtype INDEX_DTYPE: from the footer, whose checksums are
        checked, or from the block headers where there is none."""
        footer = self.footer
        if footer is not None:
            return footer[0]
        rows = [
            (h.offset, h.number, h.first_event, h.last_event, h.time_ns, h.events, h.block_bytes)
            for h, _ in self.outline()
        ]
        return np.array(rows, INDEX_DTYPE)

    @property
    def closing(self) -> Closing | None:
        """What the closing block says; None for a file without footer."""
        footer = self.footer
        return footer[1] if footer is not None else None

    @property
    def totals(self) -> Totals:
        """Blocks, events and bytes: as the footer says, else counted from the block headers."""
        footer = self.footer
        if footer is not None:
            return footer[1].totals
        totals = Totals()
        for header, _ in self.outline():
            totals = totals.plus(header, payload_bytes(header))
        return totals

    @cached_property
    def footer(self) -> tuple[NDArray[Any], Closing] | None:
        """Index and closing block, or None where the file does not end in one that holds: an open
        or a sealed file, or a damaged one. Reading its blocks tells which."""
        if self.sealed_bytes is not None:
            return None
        with closing(FileBytes(self.path)) as file:
            try:
                return self._footer_in(file)
            except FormatError:
                return None

    def _footer_in(self, file: FileBytes) -> tuple[NDArray[Any], Closing]:
        """The footer, found from the end. Raises `FormatError`."""
        path, size = str(self.path), file.size()
        # One page, unless a recovery left many gaps in it: the last page on which a header holds.
        for begin in range(size - PAGE_BYTES, max(size - BLOCK_BYTES_MAX, 0), -PAGE_BYTES):
            with suppress(FormatError):
                last = self._header(file.read(begin, HEADER_BYTES), begin)
                break
        else:
            raise self._error("the file does not end in a closing block", size)
        if last.type is not BlockType.CLOSING or begin + last.block_bytes != size:
            raise self._error("the file does not end in a closing block", begin)
        data = file.read(begin, last.block_bytes)
        check_block(last, data, path=path)
        said = decode_closing(decode_raw(last, data, path=path), path=path, offset_bytes=begin)
        at = said.index_offset
        if not PAGE_BYTES <= at < begin:
            raise self._error(f"the closing block names an index at byte {at}", begin)
        index = self._header(file.read(at, HEADER_BYTES), at)
        if index.type is not BlockType.INDEX or at + index.block_bytes != begin:
            raise self._error("no index where the closing block names one", at)
        if index.crc != last.previous_crc:
            raise self._error("closing block of another index (chain)", begin)
        data = file.read(at, index.block_bytes)
        check_block(index, data, path=path)
        return decode_index(decode_raw(index, data, path=path), path=path, offset_bytes=at), said

    def _header(self, data: memoryview, offset: int) -> BlockHeader:
        return decode_header(data, salt=self.header.salt, offset=offset, path=str(self.path))

    def _block(self, header: BlockHeader, data: memoryview) -> Block:
        """The block in `data`, which `check_block` passed. Raises `FormatError`."""
        path = str(self.path)
        raw = decode_raw(header, data, path=path).toreadonly()
        pieces = np.frombuffer(data, FRAGMENT_DTYPE, header.fragments, HEADER_BYTES)
        table_bytes = header.events * EVENT_BYTES
        table = np.frombuffer(raw[:table_bytes], EVENT_DTYPE)
        block = Block(path, self.header.key.kind, header, pieces, table, raw[table_bytes:])
        problem = content_problem(block)
        if problem:
            raise self._error(problem, header.offset)
        return block

    # --- the walk -------------------------------------------------------------------------------

    def _walk(
        self, begin: int, *, whole: bool
    ) -> Generator[tuple[BlockHeader, memoryview], None, None]:
        """Header and bytes of each events block; without `whole` only up to the end of the fragment
        table, that much checked. It ends where the events do, or raises `FormatError`."""
        stop = self.sealed_bytes
        chain = self.header.crc if begin == PAGE_BYTES else None
        before: BlockHeader | None = None
        totals = Totals()
        position = begin
        with closing(FileBytes(self.path)) as file:
            window = Window(file, CHUNK_BYTES if whole else OUTLINE_BYTES)
            while stop is None or position < stop:
                try:
                    header = self._header(window.view(position, HEADER_BYTES), position)
                    data = self._checked(file, window, header, whole=whole)
                except FormatError as error:
                    if not self.is_open or stop is not None:
                        raise self._with_end(file, error) from None
                    if self._ends_at(file, position, error.reason):
                        return
                    window.forget()
                    continue
                stale = _stale_reason(header, before) or self._void_reason(header)
                if stale and self.is_open and stop is None:
                    self.tail = Tail(self.path, position, file.size(), stale)
                    return
                if stale:
                    raise self._error(stale, position)
                if chain is not None and header.previous_crc != chain:
                    raise self._error("not the block that was written here next (chain)", position)
                if header.type is not BlockType.EVENTS:
                    self._end_in_footer(file, header, totals if begin == PAGE_BYTES else None)
                    return
                if stop is not None and position + header.block_bytes > stop:
                    raise self._error(f"block goes beyond the sealed end at byte {stop}", position)
                yield header, data
                totals = totals.plus(header, payload_bytes(header))
                chain, before = header.crc, header
                position += header.block_bytes

    def _checked(
        self, file: FileBytes, window: Window, header: BlockHeader, *, whole: bool
    ) -> memoryview:
        """The bytes of a block, or of its header and fragment table, after their checksums."""
        if whole:
            data = window.view(header.offset, header.block_bytes)
            check_block(header, data, path=str(self.path))
            return data
        framed = HEADER_BYTES + header.fragments * FRAGMENT_BYTES
        stored_end = framed + header.stored_bytes
        data = window.view(header.offset, framed)
        padding = file.read(header.offset + stored_end, header.block_bytes - stored_end)
        if crc32c(padding, crc32c(data[HEADER_BYTES:])) != header.frame_crc:
            raise self._error("checksum of fragment table or padding does not hold", header.offset)
        return data

    def _ends_at(self, file: FileBytes, begin: int, reason: str) -> bool:
        """Whether an open file ends here, where no whole block began; no: by now one does.

        Several blocks go into one write, and a power cut may leave a later one whole. Raises
        `FormatError` where such a one knows that what is here was committed: then it is damage.
        """
        end = begin
        for span in scan(
            file, salt=self.header.salt, path=str(self.path), begin=begin, depth=Depth.STORED
        ):
            if span.kind in WHOLE and span.begin == begin:
                return False
            if span.kind in WHOLE and span.header is not None and span.header.durable > begin:
                raise self._error(f"{reason}; whole blocks follow at byte {span.begin}", begin)
            if span.kind is not SpanKind.ZEROS:
                end = span.end
        self.tail = Tail(self.path, begin, end, reason) if end > begin else None
        return True

    def _end_in_footer(self, file: FileBytes, index: BlockHeader, counted: Totals | None) -> None:
        """Check the footer that begins with this block. In an open file it may be unfinished."""
        try:
            _, said = self._footer_in(file)
            if said.index_offset != index.offset:
                raise self._error("the closing block names another index", index.offset)
            if counted is not None and said.totals != counted:
                raise self._error(f"totals: {said.totals}, but there are {counted}", index.offset)
        except FormatError as error:
            if not self.is_open:
                raise
            self.tail = Tail(self.path, index.offset, file.size(), error.reason)

    def _with_end(self, file: FileBytes, error: FormatError) -> FormatError:
        """The error, with what should have been there where a file just ends."""
        if file.size() > error.offset_bytes:
            return error
        if self.sealed_bytes is not None:
            reason = f"the file ends before its sealed end at byte {self.sealed_bytes}"
        elif self._sidecar_error is not None:
            reason = f"the file ends without footer, and: {self._sidecar_error}"
        else:
            reason = "the file ends without footer, and no sidecar says that it was sealed here"
        return self._error(reason, error.offset_bytes)

    def _void_reason(self, header: BlockHeader) -> str:
        void = self.void_from
        if void is None or header.type is not BlockType.EVENTS or header.number < void:
            return ""
        return void_words(void)

    def _error(self, reason: str, offset: int) -> FormatError:
        return FormatError(reason, path=str(self.path), offset_bytes=offset)


def void_words(number: int) -> str:
    return (
        f"a later start of the logger gave the block numbers from {number} on again: these were "
        "never acknowledged"
    )


def payload_bytes(header: BlockHeader) -> int:
    """Bytes of payload in an events block."""
    return header.raw_bytes - header.events * EVENT_BYTES


def _stale_reason(header: BlockHeader, before: BlockHeader | None) -> str:
    if before is None:
        return ""
    if header.boot < before.boot:
        return f"block of boot {header.boot} behind one of boot {before.boot}"
    if header.type is BlockType.EVENTS and header.number <= before.number:
        return f"block number {header.number} behind block number {before.number}"
    return ""


def _read_sidecar(path: Path, header: FileHeader) -> Sidecar | None:
    """The sidecar beside the file. Raises `FormatError` where it is not this file's."""
    beside = sidecar_path(str(path).removesuffix(PART_SUFFIX))
    try:
        with closing(FileBytes(Path(beside))) as file:
            content = bytes(file.read(0, _SIDECAR_BYTES_MAX + 1))
    except FileNotFoundError:
        return None
    except StorageError as error:
        raise FormatError(f"sidecar {error.reason}", path=beside) from error
    except OSError as error:
        if path.suffix == PART_SUFFIX:
            raise  # only the sidecar tells where a part that a fault sealed ends
        raise FormatError(f"sidecar cannot be read: {error.strerror}", path=beside) from error
    if len(content) > _SIDECAR_BYTES_MAX:
        raise FormatError(f"sidecar of over {_SIDECAR_BYTES_MAX} bytes", path=beside)
    sidecar = decode_sidecar(content, path=beside)
    if sidecar.file_uuid != header.file_uuid.hex():
        raise FormatError("sidecar of another file (file_uuid)", path=beside)
    return sidecar
