"""The block: what is written is read, and not one bit of it may differ."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from dlog.core.block import (
    FRAGMENT_BYTES,
    FRAGMENT_DTYPE,
    HEADER_BYTES,
    MAGIC,
    BlockHeader,
    BlockType,
    Checksums,
    Fragment,
    FragmentEntry,
    OrphanReason,
    Packing,
    Place,
    block_bytes_max,
    check_block,
    decode_content,
    decode_fragments,
    decode_header,
    encode_block,
    encode_fragment,
    encode_header,
    moved_block,
    number_range,
    padded,
)
from dlog.core.filters import Compression, Compressor, Filter
from dlog.errors import FormatError
from dlog.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_EVENTS_MAX,
    BLOCK_PIECES_MAX,
    EVENT_BYTES_MAX,
    PAGE_BYTES,
)
from dlog.model.events import EVENT_BYTES
from dlog.model.ids import (
    BlockNumber,
    BootNumber,
    Offset,
    RunNumber,
    Sequence,
    SessionId,
    StreamName,
)
from tests.event_files import SentEvent, make_table

SALT = b"0123456789abcdef"
PLACE = Place(Offset(4096), BlockNumber(5), BootNumber(2), SALT, 77, Offset(4096))
PLAIN = Packing(Filter.NONE, 2, None)

EVENTS = st.lists(
    st.builds(
        SentEvent,
        st.integers(0, 2**64 - 1),
        # Also such that a block is several pages long.
        st.builds(bytes.__mul__, st.binary(max_size=30), st.sampled_from([1, 1, 200])),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=8,
)


def entry_of(events: list[SentEvent], run: int = 7, **changes: object) -> FragmentEntry:
    values: dict[str, object] = {
        "session": SessionId(b"s" * 16), "sequence": Sequence(3), "order_base": 1000,
        "run": RunNumber(run), "stream": StreamName("photons"), "events": len(events),
        "piece_events": len(events), "payload_bytes": sum(len(e.payload) for e in events),
        "first": True, "last": True, **changes,
    }  # fmt: skip
    return FragmentEntry(**values)  # type: ignore[arg-type]


@st.composite
def fragments(draw: st.DrawFn) -> list[Fragment]:
    made = []
    for events in draw(st.lists(EVENTS, min_size=1, max_size=4)):
        entry = entry_of(
            events,
            draw(st.integers(0, 2**32 - 1)),
            session=SessionId(draw(st.binary(min_size=16, max_size=16))),
            sequence=draw(st.integers(1, 2**64 - 1)),
            order_base=draw(st.integers(0, 2**64 - 1)),
            piece_events=draw(st.integers(len(events), 2**32 - 1)),
            first=draw(st.booleans()),
            last=draw(st.booleans()),
            orphan_reason=draw(st.sampled_from(OrphanReason)),
        )
        made.append(fragment_of(entry, events))
    return made


def fragment_of(entry: FragmentEntry, events: list[SentEvent]) -> Fragment:
    payload = np.frombuffer(b"".join(e.payload for e in events), np.uint8)
    table = make_table(entry.run, events)
    return Fragment(entry, table, payload, *number_range(table))


@st.composite
def packings(draw: st.DrawFn) -> Packing:
    return Packing(
        draw(st.sampled_from(Filter)),
        draw(st.sampled_from([1, 2, 4, 8])),
        Compressor(1) if draw(st.booleans()) else None,
    )


def encoded(
    made: list[Fragment], packing: Packing = PLAIN, *, group_end: bool = True
) -> tuple[bytearray, BlockHeader]:
    size = block_bytes_max(
        len(made), sum(f.entry.events for f in made), sum(f.entry.payload_bytes for f in made)
    )
    out = bytearray(b"\xaa" * size)  # a recycled buffer: what was in it must not get into the file
    header = encode_block(made, memoryview(out), PLACE, packing, group_end=group_end, time_ns=123)
    return out[: header.block_bytes], header


SMALL = [
    fragment_of(entry_of(events), events)
    for events in ([SentEvent(9, b"abc"), SentEvent(4, b"")], [SentEvent(7, bytes(40))])
]


def decode(block: bytes | bytearray) -> object:
    header = decode_header(memoryview(block), salt=SALT, offset=4096, path="f")
    check_block(header, memoryview(block), path="f")
    return decode_content(header, memoryview(block), path="f")


def refused(act: Callable[[], object]) -> FormatError:
    with pytest.raises(FormatError) as caught:
        act()
    assert caught.value.path == "f"
    assert caught.value.offset_bytes == 4096
    return caught.value


@given(made=fragments(), packing=packings(), group_end=st.booleans())
def test_a_block_comes_back(made: list[Fragment], packing: Packing, group_end: bool) -> None:
    block, written = encoded(made, packing, group_end=group_end)
    header = decode_header(memoryview(block), salt=SALT, offset=4096, path="f")
    assert header == written
    assert len(block) == header.block_bytes == padded(len(block))
    assert header.flags == int(group_end)
    assert (header.number, header.boot, header.previous_crc, header.time_ns) == (5, 2, 77, 123)
    check_block(header, memoryview(block), path="f")
    content = decode_content(header, memoryview(block), path="f")
    assert content.fragments == tuple(f.entry for f in made)
    assert content.table.tobytes() == b"".join(f.table.tobytes() for f in made)
    assert content.payload.tobytes() == b"".join(f.payload.tobytes() for f in made)
    numbers = content.table["number"]
    assert (header.first_event, header.last_event) == (numbers.min(), numbers.max())


@given(made=fragments(), packing=packings(), data=st.data())
def test_any_flipped_bit_is_found(
    made: list[Fragment], packing: Packing, data: st.DataObject
) -> None:
    block, _ = encoded(made, packing)
    bit = data.draw(st.integers(0, 8 * len(block) - 1))
    block[bit // 8] ^= 1 << bit % 8
    refused(lambda: decode(block))


@pytest.mark.parametrize("packing", [PLAIN, Packing(Filter.DELTA, 2, Compressor(1))])
def test_every_flipped_bit_of_a_block_is_found(packing: Packing) -> None:
    block, _ = encoded(SMALL, packing)
    for bit in range(8 * len(block)):
        block[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode(block)
        block[bit // 8] ^= 1 << bit % 8


@given(cut=st.integers(0, PAGE_BYTES - 1))
@example(cut=0)
@example(cut=HEADER_BYTES)
def test_any_truncation_is_found(cut: int) -> None:
    block, _ = encoded(SMALL)
    refused(lambda: decode(block[:cut]))


@given(noise=st.binary(max_size=300), with_magic=st.booleans())
def test_noise_is_a_format_error(noise: bytes, with_magic: bool) -> None:
    data = memoryview(MAGIC * with_magic + noise)
    refused(lambda: decode_header(data, salt=SALT, offset=4096, path="f"))


# Where the fields of a header lie, as docs/FORMAT.md says.
FIELDS = {
    "type": (8, "<H"), "salt": (16, "16s"), "offset": (32, "<Q"), "fragments": (52, "<I"),
    "events": (56, "<I"), "filter": (60, "<B"), "element_bytes": (61, "<B"),
    "compression": (62, "<B"), "raw_bytes": (80, "<I"), "stored_bytes": (84, "<I"),
    "block_bytes": (100, "<I"),
}  # fmt: skip


def forged(**changes: int | bytes) -> bytes:
    """A block whose header says anything, with a checksum that holds."""
    block, _ = encoded(SMALL)
    for name, value in changes.items():
        at, form = FIELDS[name]
        struct.pack_into(form, block, at, value)
    struct.pack_into("<I", block, HEADER_BYTES - 4, crc32c(block[: HEADER_BYTES - 4]))
    return bytes(block)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"type": 9}, "BlockType"),
        ({"filter": 9}, "Filter"),
        ({"compression": 9}, "Compression"),
        ({"salt": b"another file's.."}, "another file"),
        ({"offset": 8192}, "own offset"),
        ({"fragments": BLOCK_PIECES_MAX + 1}, "over the limits"),
        ({"events": BLOCK_EVENTS_MAX + 1}, "over the limits"),
        ({"raw_bytes": BLOCK_BYTES_MAX + 1}, "over the limit"),
        ({"block_bytes": 2**32 - 4096}, "over the limit"),
        ({"block_bytes": 8192}, "do not add up"),
        ({"stored_bytes": 0}, "differ"),
        ({"events": 300}, "too short for its event table"),
        ({"fragments": 3}, "fragment table or padding"),
        ({"element_bytes": 3, "filter": 1}, "elements of 3"),
        ({"events": 2}, "fragment table does not add up"),
        ({"compression": 1}, "zstd"),
    ],
)
def test_a_header_that_lies_is_found_by_its_contradiction(
    changes: dict[str, int | bytes], reason: str
) -> None:
    block = forged(**changes)
    assert reason in refused(lambda: decode(block)).reason


def lie(*limits: int) -> st.SearchStrategy[int]:
    return st.sampled_from([0, 2, *(n for limit in limits for n in (limit // 2, limit, limit + 1))])


LIES: dict[str, st.SearchStrategy[int]] = {
    "fragments": lie(BLOCK_PIECES_MAX), "events": lie(BLOCK_EVENTS_MAX),
    "raw_bytes": lie(BLOCK_BYTES_MAX), "stored_bytes": lie(200, BLOCK_BYTES_MAX),
    "filter": st.sampled_from(Filter), "compression": st.sampled_from(Compression),
}  # fmt: skip


@given(
    names=st.sets(st.sampled_from(sorted(LIES)), min_size=1, max_size=2), packing=packings(),
    adds_up=st.booleans(), data=st.data(),
)  # fmt: skip
@settings(max_examples=300)
def test_a_header_that_lies_allocates_nothing_on_its_word(
    names: set[str], packing: Packing, adds_up: bool, data: st.DataObject
) -> None:
    """All of its checksums hold, and often its lengths fit each other."""
    block, header = encoded(SMALL, packing)
    header = structs.replace(header, **{name: data.draw(LIES[name]) for name in sorted(names)})
    # The last fragment tells the same length as the header.
    last = SMALL[-1].entry
    rest_bytes = sum(f.table.nbytes + f.entry.payload_bytes for f in SMALL) - last.payload_bytes
    last = replace(last, payload_bytes=max(0, header.raw_bytes - rest_bytes))
    at = HEADER_BYTES + FRAGMENT_BYTES
    block[at : at + FRAGMENT_BYTES] = encode_fragment(last)
    framed = HEADER_BYTES + header.fragments * FRAGMENT_BYTES
    stored_end = framed + header.stored_bytes
    header = structs.replace(
        header,
        block_bytes=padded(stored_end) if adds_up else header.block_bytes,
        frame_crc=crc32c(block[stored_end:], crc32c(block[HEADER_BYTES:framed])),
        stored_crc=crc32c(block[framed:stored_end]),
    )
    block[:HEADER_BYTES] = encode_header(header)[0]
    tracemalloc.start()
    try:
        decode(block)
    except FormatError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200_000


def test_an_orphan_reason_or_flag_of_a_later_version_costs_no_event() -> None:
    block, header = encoded(SMALL)
    struct.pack_into("<I", block, HEADER_BYTES + 48, 3 | 99 << 8 | 1 << 20 | 1 << 5)
    entry, _ = decode_fragments(header, memoryview(block), path="f")
    assert entry == replace(SMALL[0].entry, orphan_reason=OrphanReason.OTHER)


def test_the_numpy_row_of_a_fragment_is_its_struct() -> None:
    entry = entry_of([SentEvent(1, b"abc")], 9, last=False, orphan_reason=OrphanReason.RUN_ENDED)
    row = np.frombuffer(encode_fragment(entry), FRAGMENT_DTYPE)[0]
    assert row["session"].tobytes() == entry.session
    for name in ("sequence", "order_base", "run", "events", "piece_events", "payload_bytes"):
        assert row[name] == getattr(entry, name)
    assert row["stream"] == b"photons"
    assert row["flags"] == 1 | OrphanReason.RUN_ENDED << 8
    assert row["reserved"].tobytes() == bytes(12)


def test_a_moved_block_keeps_its_number_and_its_bytes() -> None:
    block, header = encoded(SMALL)
    place = Place(Offset(81920), BlockNumber(99), BootNumber(3), b"x" * 16, 5, Offset(8192))
    moved = moved_block(memoryview(block), header, place)
    again = decode_header(memoryview(block), salt=b"x" * 16, offset=81920, path="f")
    assert again == moved
    assert (again.number, again.boot, again.previous_crc) == (5, 3, 5)
    check_block(again, memoryview(block), path="f")


def test_a_recycled_buffer_leaves_nothing_in_the_padding() -> None:
    block, header = encoded(SMALL)
    end = HEADER_BYTES + header.fragments * FRAGMENT_BYTES + header.stored_bytes
    assert set(block[end:]) == {0}


def test_sizes_in_the_table_that_do_not_add_up_are_found() -> None:
    block, header = encoded(SMALL)
    at = HEADER_BYTES + len(SMALL) * FRAGMENT_BYTES
    struct.pack_into("<I", block, at + 20, 4)
    stored = bytes(block[at : at + header.stored_bytes])
    lying = structs.replace(header, stored_crc=crc32c(stored), raw_crc=crc32c(stored))
    block[:HEADER_BYTES] = encode_header(lying)[0]
    assert "do not add up to the payload" in refused(lambda: decode(block)).reason


def test_a_block_of_the_largest_message_fits() -> None:
    assert block_bytes_max(1, 1, EVENT_BYTES_MAX) <= BLOCK_BYTES_MAX
    assert BLOCK_EVENTS_MAX * EVENT_BYTES < BLOCK_BYTES_MAX


def test_types_are_those_of_the_specification() -> None:
    assert {t.name: int(t) for t in BlockType} == {"EVENTS": 1, "INDEX": 2, "CLOSING": 3}
    assert {f.name: int(f) for f in Filter} == {"NONE": 0, "SHUFFLE": 1, "DELTA": 2}
    assert {c.name: int(c) for c in Compression} == {"NONE": 0, "ZSTD": 1}


@given(made=fragments(), packing=packings())
def test_checksums_from_the_source_are_those_of_the_block(
    made: list[Fragment], packing: Packing
) -> None:
    made = [*made, fragment_of_bytes(500_000)]
    known = [with_checksums(f) for f in made]
    assert encoded(known, packing) == encoded(made, packing)


def test_a_copy_that_is_not_true_is_found_by_the_checksums_of_the_source() -> None:
    fragment = with_checksums(fragment_of_bytes(100_000))
    other = fragment.payload.copy()
    other[0] ^= 1
    block, _ = encoded([dataclasses.replace(fragment, payload=other)])
    assert "stored bytes does not hold" in refused(lambda: decode(block)).reason


def fragment_of_bytes(size: int) -> Fragment:
    events = [SentEvent(1, bytes(size), 0, 0, 0)]
    return fragment_of(entry_of(events), events)


def with_checksums(fragment: Fragment) -> Fragment:
    table = fragment.table.view(np.uint8).reshape(-1)
    checksums = Checksums(crc32c(table.data), crc32c(fragment.payload.data))
    return dataclasses.replace(fragment, checksums=checksums)
