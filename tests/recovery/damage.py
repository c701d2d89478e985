"""Ways to damage an event file, for tests, and the events that are readable in one. Each way tells
which blocks it may have cost, so that a test can say what must still be there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from dlog.core.event_file import decode_file_header
from dlog.core.scan import scan
from dlog.limits import PAGE_BYTES
from dlog.recovery.facts import FileSource
from tests.event_files import BuiltFile


class Event(NamedTuple):
    """A stored event."""

    number: int
    time_ns: int
    payload: bytes


def readable_events(path: Path) -> list[Event]:
    """The events of every whole block, in file order."""
    events: list[Event] = []
    with FileSource(path) as source:
        header = decode_file_header(source.header_page(), path=str(path))
        for span in scan(source, salt=header.salt, path=str(path)):
            if span.content is None:
                continue
            payload, at = span.content.payload.tobytes(), 0
            for row in span.content.table:
                end = at + int(row["size"])
                events.append(Event(int(row["number"]), int(row["time_ns"]), payload[at:end]))
                at = end
    return events


def sent_events(built: BuiltFile, blocks: set[int] | None = None) -> list[Event]:
    """What was written, in the blocks with these numbers or in all."""
    return [
        Event(e.number, e.time_ns, e.payload)
        for b in built.blocks
        if blocks is None or b.number in blocks
        for e in b.events
    ]


@dataclass
class Damaged:
    """A file's content under way to its damage. hit: numbers of blocks that it may have cost."""

    built: BuiltFile
    content: bytearray
    other: bytes
    hit: set[int] = field(default_factory=set)

    def spoil(self, begin: int, data: bytes) -> None:
        """Put other bytes there; the file grows if need be, and hits the blocks that it changes."""
        end = begin + len(data)
        if bytes(self.content[begin:end]) == data:
            return
        for block in self.built.blocks:
            if block.offset < end and begin < block.offset + block.length:
                self.hit.add(block.number)
        if len(self.content) < begin:
            self.content += bytes(begin - len(self.content))
        self.content[begin:end] = data

    def cut(self, size: int) -> None:
        if size >= len(self.content):
            return
        for block in self.built.blocks:
            if block.offset + block.length > size:
                self.hit.add(block.number)
        del self.content[size:]

    @property
    def changed(self) -> bool:
        return bytes(self.content) != self.built.path.read_bytes()


Damage = Callable[[Damaged], None]


def _at(damaged: Damaged, fraction: float, below: int | None = None) -> int:
    return int(fraction * ((below or len(damaged.content)) - 1)) if damaged.content else 0


def zeroed_sectors(where: float, sectors: int) -> Damage:
    def apply(damaged: Damaged) -> None:
        begin = _at(damaged, where) // 512 * 512
        end = min(len(damaged.content), begin + 512 * sectors)
        damaged.spoil(begin, bytes(end - begin))

    return apply


def flipped_bit(where: float, bit: int) -> Damage:
    def apply(damaged: Damaged) -> None:
        if damaged.content:
            at = _at(damaged, where)
            damaged.spoil(at, bytes([damaged.content[at] ^ (1 << bit)]))

    return apply


def truncated(where: float) -> Damage:
    return lambda damaged: damaged.cut(_at(damaged, where))


def swapped_blocks(one: int, two: int) -> Damage:
    def apply(damaged: Damaged) -> None:
        blocks = damaged.built.blocks
        a, b = blocks[one % len(blocks)], blocks[two % len(blocks)]
        first = bytes(damaged.content[a.offset : a.offset + a.length])
        second = bytes(damaged.content[b.offset : b.offset + b.length])
        if len(first) == len(second) == a.length == b.length:
            damaged.spoil(a.offset, second)
            damaged.spoil(b.offset, first)

    return apply


def duplicated_block(one: int, where: float) -> Damage:
    """A block of this file stands a second time, at another page."""

    def apply(damaged: Damaged) -> None:
        block = damaged.built.blocks[one % len(damaged.built.blocks)]
        copy = bytes(damaged.content[block.offset : block.offset + block.length])
        page = _at(damaged, where) // PAGE_BYTES * PAGE_BYTES
        if page != block.offset and copy:
            damaged.spoil(page, copy)

    return apply


def foreign_block(where: float) -> Damage:
    """A page of another file at the same offset as there; not its header page, which would say that
    all of this is another file."""

    def apply(damaged: Damaged) -> None:
        page = max(PAGE_BYTES, _at(damaged, where) // PAGE_BYTES * PAGE_BYTES)
        damaged.spoil(page, damaged.other[page : page + PAGE_BYTES])

    return apply


def stale_end(length: int, page: bool) -> Damage:
    """Bytes behind the end: a page of the file's own past, or anything."""

    def apply(damaged: Damaged) -> None:
        old = bytes(damaged.content[PAGE_BYTES : 2 * PAGE_BYTES]) if page else b"\xa5" * length
        damaged.spoil(len(damaged.content), old)

    return apply


FRACTION = st.floats(0, 1, exclude_max=True)
BLOCK = st.integers(0, 50)
DAMAGES = st.one_of(
    st.builds(zeroed_sectors, FRACTION, st.integers(1, 20)),
    st.builds(flipped_bit, FRACTION, st.integers(0, 7)),
    st.builds(truncated, FRACTION),
    st.builds(swapped_blocks, BLOCK, BLOCK),
    st.builds(duplicated_block, BLOCK, FRACTION),
    st.builds(foreign_block, FRACTION),
    st.builds(stale_end, st.integers(1, 9000), st.booleans()),
)
