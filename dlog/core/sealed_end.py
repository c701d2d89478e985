"""Where an event file ends without its journal, as the other files of its stream say.

It is given what the stream's files in all data directories hold, and opens none itself.
docs/FORMAT.md, "Where a file ends".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dlog.core.block import HEADER_BYTES, BlockHeader, BlockType, decode_header
from dlog.core.event_file import FileHeader, Sidecar
from dlog.core.scan import ByteSource, Depth, scan
from dlog.errors import FormatError
from dlog.limits import PAGE_BYTES


def is_beside(header: FileHeader, other: FileHeader) -> bool:
    """Whether both files share one row of block numbers: logger, run and stream, of any kind."""
    return (
        other.logger_uuid == header.logger_uuid
        and other.key.stream_key == header.key.stream_key
        and other.file_uuid != header.file_uuid
    )


# --- sealed by a fault ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seal:
    """A fault ended the file at byte `at`: nothing from there on counts.

    chain: crc of the last header before `at`, None where unknown. successor: the part that goes on
    for it and says so, None where its own sidecar does.
    """

    at: int
    chain: int | None = None
    successor: FileHeader | None = None


def seal_of(
    header: FileHeader, sidecar: Sidecar | None, others: Iterable[FileHeader], *, is_open: bool
) -> Seal | None:
    """The seal of a file, None where nothing tells of one.

    A closed file with a sidecar has its footer. The sidecar of an open file may be older than the
    fault that ended it.
    """
    if sidecar is not None and sidecar.file_uuid == header.file_uuid.hex():
        if sidecar.sealed:
            return Seal(sidecar.size_bytes)
        if not is_open:
            return None
    for other in others:
        if (
            is_beside(header, other)
            and other.key.kind == header.key.kind
            and other.predecessor_part == header.key.part
        ):
            return Seal(other.predecessor_sealed, other.predecessor_chain, other)
    return None


# --- written anew by a later boot -------------------------------------------------------------


class Numbered(NamedTuple):
    """A boot of the logger, and a block number that it wrote or was about to write."""

    boot: int
    number: int


class Own(NamedTuple):
    """Of an open file: the highest boot number in it, and the highest block number below an offset
    that a block of it tells to have been acknowledged."""

    boot: int
    acknowledged: int


def void_from(own: Own, others: Iterable[Numbered]) -> int | None:
    """The block number from which on an open, unsealed file's blocks are void; None for no number.

    Each boot goes on at the first number that is not committed. A block of an earlier boot with
    that number or a higher one was therefore never acknowledged, and its number stands, or will
    stand, in another file. A restart cuts such blocks; they stay where it could not: in a directory
    that was away, or on a disk that failed. What was acknowledged all the same is not void: then
    the journal was rebuilt without this file.
    """
    first = min((number for boot, number in others if boot > own.boot), default=None)
    return None if first is None else max(first, own.acknowledged + 1)


def own_of(header: FileHeader, blocks: Iterable[BlockHeader]) -> Own:
    """blocks: the headers of the file's blocks."""
    known = list(blocks)
    durable = max((block.durable for block in known), default=0)
    below = (block.number for block in known if block.offset < durable)
    return Own(last_boot(header, known), max(below, default=0))


def numbered_by(header: FileHeader) -> Numbered:
    """What the header of a file says. All blocks of that boot in the file are at or above it."""
    return Numbered(header.boot, header.first_block)


def block_headers(source: ByteSource, header: FileHeader, *, path: str) -> Iterator[BlockHeader]:
    """The headers of the file's event blocks that hold, whatever follows them.

    From header to header without the bytes between them; behind damage as a scan finds them.
    """
    position = PAGE_BYTES
    buffer = memoryview(bytearray(HEADER_BYTES))
    while position < source.size():
        size = source.read_into(position, buffer)
        try:
            found = decode_header(buffer[:size], salt=header.salt, offset=position, path=path)
        except FormatError:
            break
        if found.type is BlockType.EVENTS:
            yield found
        position += found.block_bytes
    for span in scan(source, salt=header.salt, path=path, begin=position, depth=Depth.STORED):
        if span.header is not None and span.header.type is BlockType.EVENTS:
            yield span.header


def last_boot(header: FileHeader, blocks: Iterable[BlockHeader]) -> int:
    """The highest boot number in a file."""
    return max((block.boot for block in blocks), default=header.boot)
