"""The walk over a file's blocks: what damage costs, and what it never costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from dlog.core.block import HEADER_BYTES, BlockType, encode_header
from dlog.core.event_file import decode_file_header
from dlog.core.scan import (
    WINDOW_BYTES,
    Depth,
    Span,
    SpanKind,
    guess_salt,
    scan,
)
from dlog.errors import FormatError
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from tests.event_files import (
    BuiltFile,
    FileBuilder,
    build_file,
    make_events,
    make_fragments,
    make_key,
    make_pieces,
)


class Memory:
    """A `ByteSource` of bytes."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content
        self.reads = 0

    def size(self) -> int:
        return len(self.content)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self.reads += 1
        data = self.content[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def next_data(self, offset: int) -> int:
        return offset


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> BuiltFile:
    """Header page and two blocks of a page each, open."""
    path = tmp_path_factory.mktemp("scan") / "photons_0001.dlog.part"
    return build_file(path, events=12, events_per_piece=6, events_per_block=6)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> BuiltFile:
    path = tmp_path_factory.mktemp("scan") / "photons_0001.dlog"
    return build_file(path, events=12, events_per_piece=6, events_per_block=6)


def spans(content: bytes | bytearray, built: BuiltFile, **options: object) -> list[Span]:
    arguments: dict[str, object] = {"salt": built.header.salt, "path": "test",
                                    "chain": built.header.crc or None, **options}  # fmt: skip
    return list(scan(Memory(content), **arguments))  # type: ignore[arg-type]


def good(found: list[Span]) -> list[int]:
    """Numbers of the whole event blocks."""
    return [s.header.number for s in found if s.kind is SpanKind.BLOCK and s.header is not None]


def covers(found: list[Span], begin: int, end: int) -> bool:
    """Whether the spans follow each other without gap or overlap."""
    edges = [begin, *(s.end for s in found)]
    return edges[-1] == end and all(
        s.begin == e for s, e in zip(found, edges[:-1], strict=True)
    )  # fmt: skip


def test_a_whole_file_is_its_blocks_index_and_closing_block(closed: BuiltFile) -> None:
    content = closed.path.read_bytes()
    found = spans(content, closed)
    kinds = [s.kind for s in found]
    assert kinds == [SpanKind.BLOCK, SpanKind.BLOCK, SpanKind.INDEX, SpanKind.CLOSING]
    assert covers(found, PAGE_BYTES, len(content))
    assert all(s.reason == "" for s in found)


def test_truncation_at_every_byte_gives_exactly_the_blocks_before_it(small: BuiltFile) -> None:
    content = small.path.read_bytes()
    for cut in range(PAGE_BYTES, len(content) + 1):
        found = spans(content[:cut], small)
        assert good(found) == [b.number for b in small.blocks if b.offset + b.length <= cut], cut
        assert covers(found, PAGE_BYTES, cut), cut
        if cut % PAGE_BYTES >= HEADER_BYTES:
            assert found[-1].kind is SpanKind.TORN, cut


@pytest.mark.long
def test_every_bit_flip_in_a_block_costs_that_block_and_no_other(small: BuiltFile) -> None:
    content = bytearray(small.path.read_bytes())
    source = Memory(content)
    for at in range(PAGE_BYTES, len(content)):
        hit = next(b.number for b in small.blocks if b.offset <= at < b.offset + b.length)
        for bit in range(8):
            content[at] ^= 1 << bit
            found = list(scan(source, salt=small.header.salt, path="test"))
            content[at] ^= 1 << bit
            assert good(found) == [b.number for b in small.blocks if b.number != hit], (at, bit)


def test_every_bit_flip_in_the_header_page_is_detected(small: BuiltFile) -> None:
    page = bytearray(small.path.read_bytes()[:PAGE_BYTES])
    for at in range(PAGE_BYTES):
        for bit in range(8):
            page[at] ^= 1 << bit
            with pytest.raises(FormatError):
                decode_file_header(bytes(page), path="test")
            page[at] ^= 1 << bit


def test_every_bit_flip_in_the_footer_is_detected_and_costs_no_event(closed: BuiltFile) -> None:
    content = bytearray(closed.path.read_bytes())
    source = Memory(content)
    whole = {SpanKind.INDEX, SpanKind.CLOSING}
    for at in range(closed.data_end, len(content)):
        bit = 1 << (at * 7 % 8)
        content[at] ^= bit
        found = list(scan(source, salt=closed.header.salt, path="test"))
        content[at] ^= bit
        assert good(found) == [1, 2], at
        assert len([s for s in found if s.kind in whole]) == 1, at


def test_blocks_that_changed_places_are_both_refused(small: BuiltFile) -> None:
    content = bytearray(small.path.read_bytes())
    one, two = (slice(b.offset, b.offset + b.length) for b in small.blocks)
    content[one], content[two] = content[two], content[one]
    found = spans(content, small)
    assert good(found) == []
    assert "own offset" in found[0].reason


def test_a_block_of_another_file_is_refused_at_its_own_offset(
    small: BuiltFile, tmp_path: Path
) -> None:
    other = build_file(
        tmp_path / "electrons_0001.dlog.part", key=make_key(stream="electrons"), events=12,
        events_per_piece=6, events_per_block=6,
    )  # fmt: skip
    content = bytearray(small.path.read_bytes())
    content[PAGE_BYTES : 2 * PAGE_BYTES] = other.path.read_bytes()[PAGE_BYTES : 2 * PAGE_BYTES]
    found = spans(content, small)
    assert good(found) == [2]
    assert "salt" in found[0].reason


def test_a_block_of_an_earlier_boot_does_not_come_back() -> None:
    built = FileBuilder(make_key(), boot=2)
    built.pieces(make_pieces(make_events(6), 6), 6)
    built.boot = 1
    built.pieces(make_pieces(make_events(6, first=7), 6, first_sequence=2), 6)
    found = list(scan(Memory(bytes(built.content)), salt=built.salt, path="test"))
    assert good(found) == [1]
    assert found[1].kind is SpanKind.STALE
    assert "boot 1 behind one of boot 2" in found[1].reason


def test_a_block_number_that_comes_again_is_not_taken_twice() -> None:
    built = FileBuilder(make_key())
    built.pieces(make_pieces(make_events(6), 6), 6)
    built.next_number = 1
    built.pieces(make_pieces(make_events(6), 6), 6)
    found = list(scan(Memory(bytes(built.content)), salt=built.salt, path="test"))
    assert good(found) == [1]
    assert found[1].kind is SpanKind.STALE


def test_a_whole_block_behind_another_than_its_neighbour_is_told_by_the_chain() -> None:
    built = FileBuilder(make_key())
    built.pieces(make_pieces(make_events(6), 6), 6)
    built.chain ^= 1
    built.pieces(make_pieces(make_events(6, first=7), 6, first_sequence=2), 6)
    found = list(scan(Memory(bytes(built.content)), salt=built.salt, path="test"))
    assert good(found) == [1, 2]
    assert "chain" in found[1].reason


def test_numbers_that_other_parts_hold_are_no_finding() -> None:
    built = FileBuilder(make_key())
    built.pieces(make_pieces(make_events(6), 6), 6)
    built.next_number = 9
    built.pieces(make_pieces(make_events(6, first=7), 6, first_sequence=2), 6)
    found = list(scan(Memory(bytes(built.content)), salt=built.salt, path="test"))
    assert good(found) == [1, 9]
    assert [s.reason for s in found] == ["", ""]


def test_zeros_between_blocks_are_one_span(small: BuiltFile) -> None:
    content = bytearray(small.path.read_bytes())
    content[PAGE_BYTES : 2 * PAGE_BYTES] = bytes(PAGE_BYTES)
    found = spans(content + bytes(3 * PAGE_BYTES), small)
    assert [s.kind for s in found] == [SpanKind.ZEROS, SpanKind.BLOCK, SpanKind.ZEROS]
    assert found[-1].lost_bytes == 0


def test_a_header_that_holds_inside_a_damaged_block_is_found() -> None:
    """However long a damaged block says that it is."""
    built = FileBuilder(make_key())
    built.pieces(make_pieces(make_events(200, size=100), 200), 200)
    content = bytearray(built.content)
    after = FileBuilder(make_key())
    after.content = bytearray(content[: 3 * PAGE_BYTES])
    after.next_number = 2
    pieces = make_pieces(make_events(2, first=900), 2, first_sequence=9)
    ((entries, events),) = make_fragments(make_key(), pieces, 2)
    block = after.block(entries, events)
    content[3 * PAGE_BYTES : 3 * PAGE_BYTES + block.length] = after.content[3 * PAGE_BYTES :]
    found = list(scan(Memory(bytes(content)), salt=built.salt, path="test"))
    assert good(found) == [2]
    assert found[0].kind is SpanKind.DAMAGED
    assert found[0].end == 3 * PAGE_BYTES


def test_events_that_do_not_fit_their_header_are_found_in_full_depth_alone(
    small: BuiltFile,
) -> None:
    """A header whose event range lies, under a checksum that holds."""
    content = bytearray(small.path.read_bytes())
    block = small.blocks[0]
    lying, _ = encode_header(structs.replace(block.header, last_event=999))
    content[block.offset : block.offset + HEADER_BYTES] = lying
    assert "event range" in spans(content, small)[0].reason
    assert spans(content, small, depth=Depth.STORED)[0].kind is SpanKind.BLOCK


def test_a_compressed_block_is_checked_to_its_raw_bytes(tmp_path: Path) -> None:
    config = StreamConfig(compression="zstd", filter="shuffle")
    path = tmp_path / "photons_0001.dlog"
    built = build_file(path, events=make_events(40, size=400), events_per_block=20, config=config)
    content = path.read_bytes()
    found = spans(content, built)
    tables = [s.content.table["number"].copy() for s in found if s.content is not None]
    assert len(tables) == 2  # views of the last block only hold until the next span
    assert [s.kind for s in found if s.header and s.header.type is BlockType.EVENTS] == [
        SpanKind.BLOCK, SpanKind.BLOCK,
    ]  # fmt: skip


def test_the_content_of_a_span_holds_until_the_next(tmp_path: Path) -> None:
    path = tmp_path / "photons_0001.dlog"
    built = build_file(path, events=make_events(300, size=3000), events_per_block=7)
    numbers: list[int] = []
    for span in scan(Memory(path.read_bytes()), salt=built.header.salt, path="test"):
        if span.content is not None:
            numbers += span.content.table["number"].tolist()
    assert numbers == built.numbers


class Seen:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.content = bytearray()

    def data(self, view: memoryview) -> None:
        self.content += view

    def zeros(self, count: int) -> None:
        self.content += bytes(count)


def test_the_observer_sees_every_byte_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "photons_0001.dlog"
    built = build_file(path, events=make_events(1800, size=3000), events_per_block=50)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for at in rng.integers(PAGE_BYTES, len(content), 20):
        content[at] ^= 0xFF
    assert len(content) > 2 * WINDOW_BYTES
    seen = Seen()
    list(scan(Memory(content), salt=built.header.salt, path="test", observe=seen))
    assert seen.content == content[PAGE_BYTES:]


def test_small_blocks_do_not_cost_a_read_each(tmp_path: Path) -> None:
    path = tmp_path / "photons_0001.dlog"
    built = build_file(path, events=200, events_per_block=1)
    source = Memory(path.read_bytes())
    found = list(scan(source, salt=built.header.salt, path="test"))
    assert len(good(found)) == 200
    assert source.reads < 10


def test_a_hole_of_terabytes_is_passed_at_once(small: BuiltFile) -> None:
    class Sparse(Memory):
        def size(self) -> int:
            return 1 << 44

        def next_data(self, offset: int) -> int:
            return offset if offset < len(self.content) else 1 << 44

        def read_into(self, offset: int, buffer: memoryview) -> int:
            assert offset < len(self.content) + 4 * WINDOW_BYTES
            buffer[:] = bytes(len(buffer))
            super().read_into(offset, buffer)
            return len(buffer)

    class Counted(Seen):
        count = 0

        def zeros(self, count: int) -> None:
            self.count += count

    source, seen = Sparse(small.path.read_bytes()), Counted()
    found = list(scan(source, salt=small.header.salt, path="test", observe=seen))
    assert PAGE_BYTES + len(seen.content) + seen.count == 1 << 44
    assert good(found) == [1, 2]
    assert found[-1].kind is SpanKind.ZEROS
    assert found[-1].end == 1 << 44


def test_the_salt_of_a_file_without_header_page_is_found(small: BuiltFile) -> None:
    content = bytearray(small.path.read_bytes())
    content[: PAGE_BYTES + 50] = bytes(PAGE_BYTES + 50)
    assert guess_salt(Memory(content), path="test") == small.header.salt
    assert guess_salt(Memory(bytes(20 * PAGE_BYTES)), path="test") is None


def test_blocks_of_another_stream_do_not_outvote_the_right_one(tmp_path: Path) -> None:
    """A failing disk may have put more of them here than there are of the file's own."""
    built, other = (
        build_file(tmp_path / f"{stream}_0001.dlog.part", key=make_key(stream=stream), events=60)
        for stream in ("photons", "muons")
    )
    content = bytearray(other.path.read_bytes())
    block = built.blocks[2]
    own = built.path.read_bytes()[block.offset : block.offset + block.length]
    content[block.offset : block.offset + block.length] = own
    content[:PAGE_BYTES] = bytes(PAGE_BYTES)
    source = Memory(content)
    assert guess_salt(source, path="test") == other.header.salt
    assert guess_salt(source, path="test", expected=(7, "photons")) == built.header.salt
