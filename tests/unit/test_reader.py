"""`dlog.read`: what it gives, where it ends, what it refuses."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

import dlog
from dlog.core.event_file import decode_sidecar, encode_sidecar
from dlog.errors import FormatError, FormatVersionError, NotThere, StorageError
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.ids import FileKind
from dlog.reader import Event, EventFile, Reader, event_file, in_sent_order
from dlog.reader.beside import Beside
from tests.event_files import (
    SESSION_A,
    SESSION_B,
    START_NS,
    BuiltFile,
    FileBuilder,
    Piece,
    SentEvent,
    build_file,
    build_orphans,
    build_run,
    make_entry,
    make_events,
    make_key,
    make_pieces,
    overwrite,
)


def told(reader: Reader) -> list[tuple[int, bytes]]:
    return [(event.number, bytes(event.payload)) for event in reader]


def numbers_until_error(reader: Reader) -> tuple[list[int], FormatError | None]:
    numbers: list[int] = []
    try:
        for event in reader:
            numbers.append(event.number)
    except FormatError as error:
        return numbers, error
    return numbers, None


def read_until_damage(path: Path) -> tuple[list[int], FormatError]:
    """The numbers of the events before it, and the error."""
    numbers, error = numbers_until_error(dlog.read(path))
    assert error is not None
    assert error.path == str(path)
    return numbers, error


# --- what is given ------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("filter_", ["none", "shuffle", "delta"])
@pytest.mark.parametrize("name", ["photons_0001.dlog", "photons_0001.dlog.part"])
def test_every_event_comes_once_and_as_it_was_sent(
    tmp_path: Path, compression: str, filter_: str, name: str
) -> None:
    config = StreamConfig(compression=compression, filter=filter_)  # type: ignore[arg-type]
    built = build_file(
        tmp_path / name, events=53, events_per_piece=7, events_per_block=9, config=config
    )
    reader = dlog.read(built.path)
    assert told(reader) == built.events
    assert reader.tails == ()
    assert told(reader) == built.events, "a second iteration begins again"


def test_an_event_tells_where_it_comes_from(tmp_path: Path) -> None:
    piece = Piece(
        [SentEvent(41, b"abc", 17, order=3), SentEvent(40, b"", 0, order=9)],
        SESSION_B, sequence=12, order_base=1000,
    )  # fmt: skip
    build_file(tmp_path / "x.dlog", key=make_key(9, "ccd"), pieces=[piece])
    first, second = dlog.read(tmp_path / "x.dlog")
    assert first == Event(
        41, 17, 9, "ccd", first.payload, FileKind.EVENTS, SESSION_B, 12, 1003, ("ccd",)
    )  # fmt: skip
    assert (first.payload, second.payload) == (b"abc", b"")
    assert (second.number, second.time_ns, second.position) == (40, 0, 1009)


def test_blocks_are_views_that_nobody_can_write(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=30)
    blocks = list(dlog.read(built.path).blocks())
    assert [b.number for b in blocks] == [1, 2, 3]
    for block, expected in zip(blocks, built.blocks, strict=True):
        assert block.offset == expected.offset
        assert block.table["number"].tolist() == [e.number for e in expected.events]
        assert block.payload.tobytes() == b"".join(e.payload for e in expected.events)
        assert [
            block.payload[begin:end].tobytes() for begin, end in itertools.pairwise(block.offsets)
        ] == [e.payload for e in expected.events]
        for array in (block.table, block.payload, block.offsets, block.pieces):
            assert not array.flags.writeable
        assert all(event.payload.readonly for event in block)


def test_a_view_outlives_the_reading(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=300, events_per_block=3)
    blocks = list(dlog.read(built.path).blocks())
    assert b"".join(b.payload.tobytes() for b in blocks) == b"".join(p for _, p in built.events)


def test_a_payload_that_numpy_looks_at_is_not_copied(tmp_path: Path) -> None:
    build_file(tmp_path / "x.dlog", pieces=[Piece([SentEvent(1, bytes(range(8)))])])
    (block,) = dlog.read(tmp_path / "x.dlog").blocks()
    (event,) = block
    values = np.frombuffer(event.payload, "<u2")
    assert np.shares_memory(values, block.payload)
    assert values.tolist() == [0x0100, 0x0302, 0x0504, 0x0706]


def test_totals_and_index_come_from_the_footer_and_agree_with_the_blocks(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=25)
    opened = build_file(tmp_path / "y.dlog.part", events=25)
    closed_file, open_file = EventFile(built.path), EventFile(opened.path)
    assert closed_file.closing is not None
    assert open_file.closing is None
    assert closed_file.totals == open_file.totals
    assert closed_file.totals.events == 25
    assert closed_file.index.tolist() == open_file.index.tolist()
    assert closed_file.index["offset"].tolist() == [b.offset for b in built.blocks]


@pytest.mark.parametrize("name", ["x.dlog", "x.dlog.part"])
def test_find_gives_the_events_of_a_number(tmp_path: Path, name: str) -> None:
    events = [*make_events(25), SentEvent(7, b"again")]
    built = build_file(tmp_path / name, events=events, events_per_piece=26)
    found = list(EventFile(built.path).find(7))
    assert [bytes(e.payload) for e in found] == [events[6].payload, b"again"]
    assert list(EventFile(built.path).find(700)) == []


def test_a_block_is_read_by_its_offset(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=25)
    file = EventFile(built.path)
    assert file.block_at(built.blocks[1].offset).number == 2
    assert [b.number for b in file.blocks(built.blocks[1].offset)] == [2, 3]
    with pytest.raises(FormatError, match="no block begins here"):
        file.block_at(built.blocks[1].offset + 8)
    with pytest.raises(FormatError, match="no events block"):
        file.block_at(built.data_end)


def test_a_file_without_events_gives_none(tmp_path: Path) -> None:
    for name in ("x.dlog", "y.dlog.part"):
        built = build_file(tmp_path / name, events=0)
        assert told(dlog.read(built.path)) == []
        assert EventFile(built.path).totals.blocks == 0


def test_large_events_and_many_pieces_in_a_block(tmp_path: Path) -> None:
    large = SentEvent(1, os.urandom(3_000_001))
    build_file(tmp_path / "x.dlog", pieces=[Piece([large]), Piece(make_events(3, first=2))])
    small = make_pieces(make_events(2000, size=2), 1)
    build_file(tmp_path / "y.dlog", pieces=small, events_per_block=2000)
    assert next(len(e.payload) for e in dlog.read(tmp_path / "x.dlog")) == 3_000_001
    assert [e.sequence for e in dlog.read(tmp_path / "y.dlog")] == list(range(1, 2001))


# --- folders, streams, several files ------------------------------------------------------------


def two_streams() -> dict[str, list[Piece]]:
    """Ninety events in batches of 12: every third to each stream alone, every third to both."""
    events = [e._replace(order=e.number) for e in make_events(90)]
    pieces: dict[str, list[Piece]] = {"photons": [], "control": []}
    for sequence, begin in enumerate(range(0, 90, 12), 1):
        batch = events[begin : begin + 12]
        for name, left_out in (("photons", 0), ("control", 1)):
            chosen = [e for e in batch if e.number % 3 != left_out]
            pieces[name].append(Piece(chosen, sequence=sequence))
    return pieces


def test_a_run_folder_is_read_by_stream_kind_and_part(tmp_path: Path) -> None:
    built = build_run(tmp_path, two_streams(), garbage_blocks={"photons": 1}, last_open=True)
    by_key = sorted(built, key=lambda file: file.key)
    with dlog.read(tmp_path / "runs" / "7") as events:
        assert told(events) == [event for file in by_key for event in file.events]
        assert events.streams == ("control", "photons")
        assert events.runs == (7,)
        assert [f.path for f in events.files] == [
            f.path for f in sorted(built, key=lambda f: f.key)
        ]
    kinds = {e.kind for e in dlog.read(tmp_path / "runs/7", streams=["photons"])}
    assert kinds == {FileKind.EVENTS, FileKind.GARBAGE}


def test_streams_are_chosen_by_name(tmp_path: Path) -> None:
    build_run(tmp_path, two_streams())
    reader = dlog.read(tmp_path / "runs/7", streams=["control"])
    assert {event.stream for event in reader} == {"control"}
    assert reader.streams == ("control",)


def test_a_file_that_is_closed_and_renamed_meanwhile_is_still_read(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog.part", events=12)
    reader = dlog.read(built.path)
    built.path.unlink()
    build_file(tmp_path / "photons_0001.dlog", events=12)
    assert told(reader) == built.events
    assert reader.tails == ()
    # Under its old name it is found too: somebody may have listed the folder before.
    assert told(dlog.read(built.path)) == built.events


def test_a_file_with_two_names_is_read_once(tmp_path: Path) -> None:
    built = build_file(tmp_path / "photons_0001.dlog", events=12)
    os.link(built.path, tmp_path / "photons_0001.dlog.part")
    assert told(dlog.read(tmp_path)) == built.events


def test_a_folder_without_event_files_and_a_missing_path_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no event files in this folder"):
        dlog.read(tmp_path)
    with pytest.raises(FileNotFoundError):
        dlog.read(tmp_path / "nothing.dlog")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dlog")
    with pytest.raises(StorageError, match="not a regular file"):
        dlog.read(tmp_path / "pipe.dlog")


def test_closing_the_reader_closes_the_files(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=100)
    before = len(os.listdir("/proc/self/fd"))
    with dlog.read(built.path) as reader:
        events, blocks = iter(reader), reader.blocks()
        next(events), next(blocks)
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before
    assert list(events) == []


# --- where a file ends --------------------------------------------------------------------------


def test_a_reserved_tail_of_zeros_is_no_finding(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog.part", events=30, reserved_bytes=5 * PAGE_BYTES)
    reader = dlog.read(built.path)
    assert told(reader) == built.events
    assert reader.tails == ()


def test_a_torn_tail_ends_the_events_and_is_told(tmp_path: Path) -> None:
    whole = build_file(tmp_path / "x.dlog.part", events=30, events_per_block=10)
    last = whole.blocks[-1]
    content = whole.path.read_bytes()
    for cut in (last.offset + 1, last.offset + 128, last.offset + last.length - 1):
        whole.path.write_bytes(content[:cut])
        reader = dlog.read(whole.path)
        assert told(reader) == whole.events[:20]
        (tail,) = reader.tails
        assert (tail.begin, tail.end) == (last.offset, cut)
        assert tail.reason


def test_a_torn_block_before_reserved_zeros_is_told_to_its_end(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog.part", events=30, reserved_bytes=3 * PAGE_BYTES)
    last = built.blocks[-1]
    overwrite(built.path, last.offset + 500, bytes(last.length - 500))
    reader = dlog.read(built.path)
    assert told(reader) == built.events[:20]
    assert [(t.begin, t.end) for t in reader.tails] == [(last.offset, last.offset + last.length)]


def test_blocks_of_an_earlier_boot_behind_the_end_are_no_events(tmp_path: Path) -> None:
    # A tail that was cut and came back: the new boot wrote one block over its first.
    old = FileBuilder(make_key(), boot=1)
    old.pieces(make_pieces(make_events(40), 10), 10)
    new = FileBuilder(make_key(), boot=1)
    new.pieces(make_pieces(make_events(10), 10), 10)
    new.boot = 2
    new.pieces(make_pieces(make_events(10, first=11), 10), 10)
    built = new.write(
        tmp_path / "x.dlog.part", closed=False, tail=bytes(old.content[len(new.content) :])
    )
    reader = dlog.read(built.path)
    assert told(reader) == built.events
    (tail,) = reader.tails
    assert tail.begin == built.data_end
    assert "boot 1 behind one of boot 2" in tail.reason


def test_damage_before_whole_blocks_is_an_error_in_an_open_file_too(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog.part", events=40)
    overwrite(built.path, built.blocks[1].offset + 200, b"\xff")
    numbers, error = read_until_damage(built.path)
    assert numbers == built.numbers[:10]
    assert error.offset_bytes == built.blocks[1].offset
    assert f"whole blocks follow at byte {built.blocks[2].offset}" in error.reason


def test_a_zeroed_block_before_whole_ones_is_damage(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog.part", events=40)
    overwrite(built.path, built.blocks[1].offset, bytes(built.blocks[1].length))
    numbers, error = read_until_damage(built.path)
    assert numbers == built.numbers[:10]
    assert error.offset_bytes == built.blocks[1].offset


def test_a_torn_write_of_several_blocks_ends_its_file_and_not_the_run(tmp_path: Path) -> None:
    """A power cut left the third block out and the fourth whole; no block knows of a commit there.
    What stands in other files is given all the same."""
    folder = tmp_path / "runs/7"
    torn = FileBuilder(make_key(stream="a"), durable=PAGE_BYTES)
    torn.pieces(make_pieces(make_events(40), 10), 10)
    built = torn.write(folder / "a_0001.dlog.part", closed=False)
    overwrite(built.path, built.blocks[2].offset, bytes(built.blocks[2].length))
    build_file(folder / "b_0001.dlog", key=make_key(stream="b"), events=15)
    with dlog.read(folder) as reader:
        found = [(event.stream, event.number) for event in reader]
        assert found == [("a", n) for n in range(1, 21)] + [("b", n) for n in range(1, 16)]
        (tail,) = reader.tails
        assert (tail.begin, tail.end) == (built.blocks[2].offset, built.size)
        assert len(list(reader.in_sent_order())) == 20  # fifteen of them in both


def test_a_file_that_grows_is_read_to_its_new_end(tmp_path: Path) -> None:
    builder = FileBuilder(make_key())
    builder.pieces(make_pieces(make_events(20), 10), 10)
    path = tmp_path / "x.dlog.part"
    first = builder.write(path, closed=False, tail=bytes(4 * PAGE_BYTES))
    blocks = dlog.read(path).blocks()
    assert next(blocks).number == 1
    builder.pieces(make_pieces(make_events(10, first=21), 10), 10)
    overwrite(path, first.data_end, bytes(builder.content[first.data_end :]))
    assert [block.number for block in blocks] == [2, 3]


def test_a_block_that_is_written_while_we_look_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first look meets half a block; by the time the scan looks it is whole.
    built = build_file(tmp_path / "x.dlog.part", events=20)
    content = built.path.read_bytes()
    last = built.blocks[-1]
    built.path.write_bytes(content[: last.offset + 200])
    file = EventFile(built.path)
    scan = event_file.scan

    def written_meanwhile(*arguments: Any, **options: Any) -> Any:
        built.path.write_bytes(content)
        return scan(*arguments, **options)

    monkeypatch.setattr(event_file, "scan", written_meanwhile)
    assert [e.number for e in file] == built.numbers
    assert file.tail is None


def test_an_unfinished_footer_of_an_open_file_costs_no_event(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=30, sidecar=False)
    path = built.path.rename(tmp_path / "x.dlog.part")
    content = path.read_bytes()
    assert told(dlog.read(path)) == built.events
    for end in range(built.data_end + 1, built.size, PAGE_BYTES // 2):
        path.write_bytes(content[:end])
        reader = dlog.read(path)
        assert told(reader) == built.events
        assert [t.begin for t in reader.tails] == [built.data_end]


def test_a_closed_file_without_footer_is_an_error_behind_its_events(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=30, closed=False)
    numbers, error = read_until_damage(built.path)
    assert numbers == built.numbers
    assert "without footer" in error.reason
    assert error.offset_bytes == built.data_end


def test_a_sealed_file_ends_where_its_sidecar_says(tmp_path: Path) -> None:
    whole = FileBuilder(make_key())
    whole.pieces(make_pieces(make_events(30), 10), 10)
    built = whole.write(tmp_path / "photons_0001.dlog", sealed="disk failed", tail=b"\x55" * 9000)
    assert told(dlog.read(built.path)) == built.events
    assert EventFile(built.path).sealed_bytes == built.data_end


def test_blocks_behind_a_sealed_end_are_not_read(tmp_path: Path) -> None:
    builder = FileBuilder(make_key())
    builder.pieces(make_pieces(make_events(20), 10), 10)
    sealed_at = len(builder.content)
    builder.pieces(make_pieces(make_events(20, first=21), 10), 10)
    built = builder.write(tmp_path / "x.dlog", sealed="fault")
    assert built.sidecar is not None
    sidecar = decode_sidecar(built.sidecar.read_bytes(), path="")
    built.sidecar.write_bytes(
        encode_sidecar(msgspec.structs.replace(sidecar, size_bytes=sealed_at))
    )
    assert [n for n, _ in told(dlog.read(built.path))] == built.numbers[:20]


def sealed_with_successor(folder: Path) -> tuple[BuiltFile, BuiltFile, list[int]]:
    """Part 1, sealed behind its second block; its third went to part 2 under the same number."""
    one = FileBuilder(make_key())
    events = make_events(40)
    one.pieces(make_pieces(events[:20], 10), 10)
    before = BuiltFile(
        Path(), one.key, one.header, tuple(one.blocks), len(one.content), len(one.content), None
    )
    one.pieces(make_pieces(events[20:30], 10, first_sequence=3, first_position=20), 10)
    first = one.write(folder / "photons_0001.dlog.part", closed=False)
    two = FileBuilder(make_key(part=2), first_block=3, predecessor=before)
    two.pieces(make_pieces(events[20:], 10, first_sequence=3, first_position=20), 10)
    return first, two.write(folder / "photons_0002.dlog"), [e.number for e in events]


def test_a_successor_beside_a_file_tells_where_it_was_sealed(tmp_path: Path) -> None:
    first, second, numbers = sealed_with_successor(tmp_path)
    assert EventFile(first.path).sealed_bytes == first.blocks[2].offset
    assert [e.number for e in dlog.read(first.path)] == numbers[:20]
    assert [e.number for e in dlog.read(tmp_path)] == numbers
    assert [e.number for e in in_sent_order(tmp_path)] == numbers
    assert EventFile(second.path).sealed_bytes is None


def test_a_successor_in_another_directory_counts_where_it_is_given_too(tmp_path: Path) -> None:
    first, second, numbers = sealed_with_successor(tmp_path / "a")
    (tmp_path / "b").mkdir()
    second.path.rename(tmp_path / "b" / second.path.name)
    assert [e.number for e in dlog.read([tmp_path / "a", tmp_path / "b"])] == numbers
    assert EventFile(first.path).sealed_bytes is None
    assert EventFile(first.path, beside=Beside([tmp_path / "b"])).sealed_bytes is not None


def test_damage_below_a_sealed_end_is_an_error(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=30, sealed="fault")
    content = built.path.read_bytes()
    built.path.write_bytes(content[:-PAGE_BYTES])
    numbers, error = read_until_damage(built.path)
    assert numbers == built.numbers[:20]
    assert "before its sealed end" in error.reason


# --- what is refused ----------------------------------------------------------------------------


def test_every_flipped_bit_of_a_closed_file_is_found(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=6, events_per_block=3, events_per_piece=6)
    content = built.path.read_bytes()
    events = dict(built.events)  # damage may cost events, and never makes one
    # Every byte of headers, tables and payloads; of the padding every 61st.
    interesting = [
        at
        for at in range(len(content))
        if content[at] or at % 61 == 0 or at % PAGE_BYTES < 300
    ]  # fmt: skip
    for at in interesting:
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        built.path.write_bytes(damaged)
        if at < PAGE_BYTES:
            with pytest.raises(FormatError):
                dlog.read(built.path)
            continue
        got, _ = read_until_damage(built.path)
        assert set(got) <= set(events)


@given(cut=st.integers(0, 24_575))
@settings(max_examples=60)
def test_a_closed_file_that_is_cut_anywhere_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.dlog"
    built = build_file(path, events=30)
    assert built.size == 24_576
    path.write_bytes(path.read_bytes()[:cut])
    if cut < PAGE_BYTES:
        with pytest.raises(FormatError):
            dlog.read(path)
        return
    got, error = read_until_damage(path)
    assert got == built.numbers[: 10 * sum(b.offset + b.length <= cut for b in built.blocks)]
    assert error.offset_bytes <= cut


@given(
    whole_pages=st.integers(0, 6), cut=st.sampled_from([0, 0, 1, 2000]),
    pages=st.lists(st.integers(0, 5) | st.binary(max_size=200), max_size=4),
    suffix=st.sampled_from(["", ".part"]),
)  # fmt: skip
def test_pages_in_any_order_are_the_first_events_or_a_format_error(
    tmp_path_factory: pytest.TempPathFactory,
    whole_pages: int,
    pages: list[int | bytes],
    cut: int,
    suffix: str,
) -> None:
    """The file up to some page, then pages of it or of noise."""
    pages = [*range(whole_pages), *pages]
    path = tmp_path_factory.mktemp("noise") / f"x.dlog{suffix}"
    built = build_file(path, events=30, sidecar=False)
    whole = built.path.read_bytes()
    content = b"".join(
        page.ljust(PAGE_BYTES, b"\0")
        if isinstance(page, bytes)
        else whole[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
        for page in pages
    )
    path.write_bytes(content[: len(content) - cut])
    got: list[int] = []
    accepted = False
    with contextlib.suppress(FormatError):
        got.extend(event.number for event in dlog.read(path))
        accepted = True
    assert not accepted or suffix or pages[:6] == [0, 1, 2, 3, 4, 5]
    assert got == built.numbers[: len(got)]


def test_swapped_blocks_are_found_by_the_chain(tmp_path: Path) -> None:
    # Blocks that say they lie where they lie, and are of this file, but not neighbours.
    builder = FileBuilder(make_key())
    builder.pieces(make_pieces(make_events(20), 10), 10)
    builder.chain ^= 1
    builder.pieces(make_pieces(make_events(10, first=21), 10), 10)
    built = builder.write(tmp_path / "x.dlog")
    numbers, error = read_until_damage(built.path)
    assert numbers == built.numbers[:20]
    assert "chain" in error.reason


def test_a_block_number_that_goes_back_is_an_error(tmp_path: Path) -> None:
    builder = FileBuilder(make_key())
    builder.pieces(make_pieces(make_events(10), 10), 10)
    builder.block(builder.blocks[0].entries, builder.blocks[0].events, number=1)
    numbers, error = read_until_damage(builder.write(tmp_path / "x.dlog").path)
    assert len(numbers) == 10
    assert "block number 1 behind block number 1" in error.reason


def test_totals_that_differ_from_the_blocks_are_an_error(tmp_path: Path) -> None:
    builder = FileBuilder(make_key())
    builder.pieces(make_pieces(make_events(20), 10), 10)
    builder.totals = builder.totals.plus_block(1, 1, 1, 1, 9)
    numbers, error = read_until_damage(builder.write(tmp_path / "x.dlog").path)
    assert len(numbers) == 20
    assert "totals" in error.reason


def test_bytes_behind_the_closing_block_are_an_error(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=20)
    with built.path.open("ab") as file:
        file.write(bytes(PAGE_BYTES))
    numbers, _ = read_until_damage(built.path)
    assert numbers == built.numbers


def test_a_future_version_has_its_own_error(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=1)
    page = bytearray(built.path.read_bytes()[:PAGE_BYTES])
    page[8] = 2
    page[-4:] = crc32c(page[:-4]).to_bytes(4, "little")
    overwrite(built.path, 0, bytes(page))
    with pytest.raises(FormatVersionError) as caught:
        dlog.read(built.path)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("content", [b"", b"DLOGFIL\x01", bytes(PAGE_BYTES)])
def test_an_open_file_without_header_page_holds_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "photons_0002.dlog.part").write_bytes(content)
    built = build_file(tmp_path / "photons_0001.dlog", events=5)
    reader = dlog.read(tmp_path)
    assert told(reader) == built.events
    assert [(t.begin, t.end) for t in reader.tails] == [(0, len(content))]
    with pytest.raises(FormatError):
        dlog.read(tmp_path / "photons_0002.dlog.part")


def test_a_file_of_a_folder_with_a_bad_header_is_an_error_at_its_turn(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "7"
    built = build_file(run / "photons_0001.dlog", events=5)
    bad = build_file(run / "photons_0002.dlog", key=make_key(part=2), events=5)
    overwrite(bad.path, 100, b"\xff")
    got, error = numbers_until_error(dlog.read(run))
    assert got == built.numbers
    assert error is not None
    assert error.path == str(bad.path)
    with pytest.raises(NotThere, match=r"no stream photon \(did you mean photons\?\); streams "):
        dlog.read(run, streams=["photon"])


def test_a_foreign_or_broken_sidecar_matters_only_without_footer(tmp_path: Path) -> None:
    built = build_file(tmp_path / "x.dlog", events=5)
    other = build_file(tmp_path / "y.dlog", events=5, closed=False, file_uuid=b"u" * 16)
    assert built.sidecar is not None
    (tmp_path / "y.dlog.json").write_bytes(built.sidecar.read_bytes())
    _, error = read_until_damage(other.path)
    assert "sidecar of another file" in error.reason
    for broken in (b"", b"{", b"\xff" * 10, b"[" * 100_000):
        built.sidecar.write_bytes(broken)
        assert told(dlog.read(built.path)) == built.events


# --- the order of sending -----------------------------------------------------------------------


def test_streams_are_merged_as_sent_and_an_event_of_two_comes_once(tmp_path: Path) -> None:
    build_run(tmp_path, two_streams(), garbage_blocks={"photons": 2}, last_open=True)
    reader = dlog.read(tmp_path / "runs/7")
    events = list(reader.in_sent_order())
    assert [e.number for e in events] == list(range(1, 91))
    assert [e.position for e in events] == list(range(1, 91))
    for event in events:
        wanted = {1: ("photons",), 2: ("control", "photons"), 0: ("control",)}[event.number % 3]
        assert event.streams == wanted
    assert reader.missing == []
    assert b"".join(reader.payloads_in_sent_order()) == b"".join(e.payload for e in make_events(90))


def test_sessions_come_by_the_time_of_their_first_event(tmp_path: Path) -> None:
    later = make_pieces(
        make_events(6, start_ns=START_NS + 5_000_000), 2, session=SESSION_A, first_position=100
    )  # fmt: skip
    earlier = make_pieces(make_events(6, first=50), 2, session=SESSION_B, first_position=900)
    mixed = [piece for pair in zip(later, earlier, strict=True) for piece in pair]
    build_run(tmp_path, {"photons": mixed, "other": make_pieces(make_events(1, first=7), 1)})
    events = list(in_sent_order(tmp_path / "runs/7"))
    # The session that is in two streams begins with its lowest position, in `other`.
    assert [e.number for e in events] == [7, 1, 2, 3, 4, 5, 6, 50, 51, 52, 53, 54, 55]


def late_group(tmp_path: Path) -> list[int]:
    """A group of blocks as the logger makes it at roll-over: part 1 (END) takes the late events of
    three batches, part 2 what is on time, garbage what is later still."""
    events = [SentEvent(n, b"%d" % n, order=i) for i, n in enumerate(
        [11, 3, 12, 1, 13, 14, 4, 2, 15, 16, 5, 17], 0)]  # fmt: skip
    batches = [Piece(events[i : i + 4], sequence=i // 4 + 2, order_base=100) for i in (0, 4, 8)]
    first = FileBuilder(make_key())
    first.pieces([Piece([SentEvent(10, b"10", order=0)], sequence=1)], 10)
    second = FileBuilder(make_key(part=2), first_block=2)
    garbage = FileBuilder(make_key(kind=FileKind.GARBAGE), first_block=2)
    for number, file, takes in (
        (2, first, range(3, 10)), (3, second, range(10, 99)), (4, garbage, range(3)),
    ):  # fmt: skip
        taken = [(b, [e for e in b.events if e.number in takes]) for b in batches]
        entries = [
            make_entry(file.key, b, chosen, 4, first=number == 2, last=number == 3)
            for b, chosen in taken
            if chosen
        ]
        chosen = [e for _, events in taken for e in events]
        file.block(entries, chosen, number=number, group_end=number == 4)
    run = tmp_path / "runs" / "7"
    first.write(run / "photons_0001.dlog")
    second.write(run / "photons_0002.dlog.part", closed=False)
    garbage.write(run / "photons.garbage_0001.dlog")
    return [10, *(e.number for e in events)]


def test_late_events_of_a_group_come_back_in_between(tmp_path: Path) -> None:
    numbers = late_group(tmp_path)
    reader = dlog.read(tmp_path / "runs/7")
    events = list(reader.in_sent_order())
    assert [e.number for e in events] == numbers
    assert [bytes(e.payload) for e in events] == [b"%d" % n for n in numbers]
    assert [e.sequence for e in events] == [1, *(2,) * 4, *(3,) * 4, *(4,) * 4]
    assert {e.number for e in events if e.kind is FileKind.GARBAGE} == {1, 2}
    assert reader.missing == []


def test_missing_blocks_are_told(tmp_path: Path) -> None:
    built = build_run(tmp_path, {"photons": make_pieces(make_events(90), 10)})
    built[1].path.unlink()
    reader = dlog.read(tmp_path / "runs/7")
    numbers = [e.number for e in reader.in_sent_order()]
    assert numbers == [n for f in (built[0], built[2]) for n in f.numbers]
    assert [(m.run, m.stream, m.first, m.last) for m in reader.missing] == [(7, "photons", 4, 6)]
    built[0].path.unlink()
    list((reader := dlog.read(tmp_path / "runs/7")).in_sent_order())
    assert [(m.first, m.last) for m in reader.missing] == [(1, 6)]


def test_a_block_number_in_two_files_is_an_error(tmp_path: Path) -> None:
    build_file(tmp_path / "photons_0001.dlog", events=20)
    build_file(tmp_path / "photons_0002.dlog", key=make_key(part=2), events=5, first_block=2)
    with pytest.raises(FormatError, match="block 2 stands also in"):
        list(in_sent_order(tmp_path))


def test_positions_that_go_back_are_an_error(tmp_path: Path) -> None:
    pieces = [
        Piece(make_events(3), sequence=1, order_base=50),
        Piece(make_events(3), sequence=2, order_base=10),
    ]
    build_file(tmp_path / "photons_0001.dlog", pieces=pieces, events_per_block=3)
    assert len(list(dlog.read(tmp_path))) == 6
    with pytest.raises(FormatError, match="order of sending is not known"):
        list(in_sent_order(tmp_path))


def test_different_events_at_one_position_all_come(tmp_path: Path) -> None:
    # A source that leaves all positions 0 loses the order between streams, and no event.
    zero = [e._replace(order=0) for e in make_events(10)]
    one = [e._replace(order=0) for e in make_events(10, first=100)]
    build_run(tmp_path, {"a": [Piece(zero)], "b": [Piece(one)]})
    assert {e.number for e in in_sent_order(tmp_path / "runs/7")} == {
        *range(1, 11),
        *range(100, 110),
    }


def test_orphans_come_under_the_run_and_stream_they_were_sent_for(tmp_path: Path) -> None:
    events = make_events(4)
    pieces = [
        Piece(events, run=99, stream="lost"),
        Piece(events, run=99, stream="also"),
        Piece(events[:1], run=3, stream="lost", sequence=2, order_base=70),
    ]
    build_orphans(tmp_path, pieces, events_per_block=20)
    plain = [(e.run, e.stream, e.number) for e in dlog.read(tmp_path / "orphans")]
    assert plain[:4] == [(99, "lost", n) for n in (1, 2, 3, 4)]
    sent = [(e.run, e.streams, e.number) for e in in_sent_order(tmp_path / "orphans")]
    assert sent == [(3, ("lost",), 1), *((99, ("also", "lost"), n) for n in (1, 2, 3, 4))]


@given(data=st.data())
@settings(max_examples=40)
def test_any_way_of_cutting_batches_into_streams_blocks_and_parts_gives_the_order_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    count = data.draw(st.integers(1, 60))
    masks = data.draw(st.lists(st.integers(1, 7), min_size=count, max_size=count))
    per_batch = data.draw(st.integers(1, 20))
    events = [
        SentEvent(1000 - i, b"%d;" % i * (i % 4), order=i, streams=m) for i, m in enumerate(masks)
    ]
    streams: dict[str, list[Piece]] = {}
    for sequence, begin in enumerate(range(0, count, per_batch), 1):
        batch = events[begin : begin + per_batch]
        for bit, name in enumerate(("a", "b", "c")):
            chosen = [e for e in batch if e.streams >> bit & 1]
            if chosen:
                streams.setdefault(name, []).append(Piece(chosen, sequence=sequence))
    build_run(
        folder, streams, events_per_block=data.draw(st.integers(1, 15)),
        blocks_per_part=data.draw(st.integers(1, 4)),
        garbage_blocks={name: data.draw(st.integers(0, 2)) for name in streams},
        last_open=data.draw(st.booleans()),
        config=StreamConfig(compression=data.draw(st.sampled_from(["none", "zstd"]))),
    )  # fmt: skip
    reader = dlog.read(folder / "runs/7")
    got = list(reader.in_sent_order())
    assert [(e.number, bytes(e.payload)) for e in got] == [(e.number, e.payload) for e in events]
    assert b"".join(reader.payloads_in_sent_order()) == b"".join(e.payload for e in events)
