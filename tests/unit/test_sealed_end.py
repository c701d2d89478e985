"""Where a file ends without its journal: the two rules, on headers and numbers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlog.core.event_file import FileHeader, Sidecar
from dlog.core.sealed_end import (
    Numbered,
    Own,
    Seal,
    block_headers,
    last_boot,
    own_of,
    seal_of,
    void_from,
)
from dlog.faults.simulation.files_alone import BytesOf
from dlog.limits import PAGE_BYTES
from dlog.model.ids import FileKind
from dlog.reader.beside import Beside
from dlog.reader.file_bytes import FileBytes
from tests.event_files import BuiltFile, FileBuilder, build_file, make_events, make_key, make_pieces

BLOCKS_OF_TEN = 10


def built(part: int = 1, **told: object) -> FileBuilder:
    builder = FileBuilder(make_key(part=part), **told)  # type: ignore[arg-type]
    builder.pieces(make_pieces(make_events(20), BLOCKS_OF_TEN), BLOCKS_OF_TEN)
    return builder


def sealed(builder: FileBuilder) -> BuiltFile:
    end = len(builder.content)
    return BuiltFile(Path(), builder.key, builder.header, tuple(builder.blocks), end, end, None)


FIRST = built()
HEADER = FIRST.header
D = len(FIRST.content)
SUCCESSOR = built(2, first_block=3, predecessor=sealed(FIRST)).header


def sidecar(reason: str = "") -> Sidecar:
    return FIRST.sidecar(Path("photons_0001.dlog"), bytes(D - PAGE_BYTES), reason)


def end(told: Sidecar | None, *others: FileHeader, is_open: bool = True) -> int | None:
    seal = seal_of(HEADER, told, others, is_open=is_open)
    return seal.at if seal is not None else None


def test_its_successor_tells_where_a_part_was_sealed() -> None:
    assert seal_of(HEADER, None, [HEADER, SUCCESSOR], is_open=True) == Seal(
        D, FIRST.blocks[-1].header.crc, SUCCESSOR
    )
    assert end(None, HEADER) is None


def test_its_own_sidecar_comes_first() -> None:
    assert end(sidecar("fault"), SUCCESSOR) == D - PAGE_BYTES
    assert end(sidecar(), SUCCESSOR, is_open=False) is None


def test_the_sidecar_of_an_open_file_may_be_older_than_its_fault() -> None:
    assert end(sidecar(), SUCCESSOR) == D


def test_files_of_others_do_not_tell() -> None:
    other_logger = built(2, predecessor=sealed(FIRST), logger_uuid=bytes(16)).header
    garbage = FileBuilder(make_key(kind=FileKind.GARBAGE, part=2), predecessor=sealed(FIRST)).header
    assert end(None, other_logger, garbage) is None
    foreign = built(file_uuid=bytes(16)).sidecar(Path("x"), bytes(PAGE_BYTES), "fault")
    assert end(foreign) is None


@pytest.mark.parametrize(
    ("others", "number"),
    [
        ([], None),
        ([Numbered(1, 1), Numbered(2, 5)], None),  # nobody started after boot 2
        ([Numbered(3, 8)], 8),
        ([Numbered(3, 8), Numbered(4, 8), Numbered(5, 20)], 8),
        # Boot 4 found fewer committed than boot 3 had written by then.
        ([Numbered(3, 11), Numbered(4, 9)], 9),
    ],
)
def test_blocks_are_void_from_the_first_number_of_a_later_boot(
    others: list[Numbered], number: int | None
) -> None:
    assert void_from(Own(2, 0), others) == number


def test_what_was_acknowledged_is_not_void() -> None:
    """A later block of the file says that it was: the journal was rebuilt without this file."""
    assert void_from(Own(2, 9), [Numbered(3, 8)]) == 10
    builder = built(durable=PAGE_BYTES)
    assert own_of(builder.header, [block.header for block in builder.blocks]) == Own(1, 0)
    builder.durable = len(builder.content)
    builder.pieces(make_pieces(make_events(10, first=21), BLOCKS_OF_TEN), BLOCKS_OF_TEN)
    assert own_of(builder.header, [block.header for block in builder.blocks]) == Own(1, 2)


def test_headers_are_found_behind_damage_and_in_torn_blocks() -> None:
    builder = built()
    builder.boot = 3
    builder.pieces(make_pieces(make_events(20, first=21), BLOCKS_OF_TEN), BLOCKS_OF_TEN)
    content = bytearray(builder.content[: -PAGE_BYTES // 2])
    content[builder.blocks[1].offset] ^= 1
    found = list(block_headers(BytesOf(bytes(content)), builder.header, path="x"))
    assert [h.number for h in found] == [1, 3, 4]
    assert last_boot(builder.header, found) == 3


def test_who_asks_while_a_header_is_being_read_is_not_told_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Several files are verified, or heard for a rebuild, at once.
    first, second = tmp_path / "a_0001.dlog.part", tmp_path / "a_0002.dlog.part"
    before = build_file(first, key=make_key(stream="a"))
    build_file(second, key=make_key(stream="a", part=2), predecessor=before)
    together = Beside()
    told: list[object] = []

    read = FileBytes.read

    def slowly(file: FileBytes, offset: int, size: int) -> memoryview:
        if file.path == second and not told:
            monkeypatch.undo()
            told.append(together.seal(first, before.header, None))
        return read(file, offset, size)

    monkeypatch.setattr(FileBytes, "read", slowly)
    told.append(together.seal(first, before.header, None))
    assert told[0] == told[1]
    assert told[0] is not None
