"""Header page, footer and sidecar of an event file, both ways."""

from __future__ import annotations

import struct
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dlog.core.block import BlockHeader, BlockType, check_block, decode_header, decode_raw
from dlog.core.event_file import (
    INDEX_DTYPE,
    TEXT_BYTES_MAX,
    Closing,
    FileHeader,
    HeaderText,
    Sidecar,
    Totals,
    decode_closing,
    decode_file_header,
    decode_index,
    decode_sidecar,
    encode_file_header,
    encode_footer,
    encode_sidecar,
    footer_bytes,
    sidecar_path,
)
from dlog.errors import FormatError, FormatVersionError
from dlog.limits import PAGE_BYTES
from dlog.model.config import StreamConfig
from dlog.model.ids import (
    BlockNumber,
    BootNumber,
    FileKey,
    FileKind,
    Offset,
    PartNumber,
    RunNumber,
    StreamName,
)

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
BYTES_16 = st.binary(min_size=16, max_size=16)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,31}", fullmatch=True).map(StreamName)
CONFIGS = st.builds(
    StreamConfig, part_bytes=st.integers(0, 2**62), late_seconds=st.floats(0, 1e9),
    compression=st.sampled_from(["none", "zstd"]), filter=st.sampled_from(["none", "delta"]),
    directories=st.lists(st.integers(0, 9), max_size=4).map(tuple),
)  # fmt: skip
HEADERS = st.builds(
    FileHeader,
    key=st.builds(FileKey, U32.map(RunNumber), NAMES, st.sampled_from(FileKind), U32),
    file_uuid=BYTES_16, logger_uuid=BYTES_16, salt=BYTES_16, boot=U32.map(BootNumber),
    created_ns=U64, first_block=U64.map(BlockNumber),
    text=st.builds(
        HeaderText, logger=st.text(max_size=30), config=CONFIGS, run_started_ns=U64,
        streams=st.lists(NAMES, max_size=9).map(tuple),
    ),
    predecessor_part=U32.map(PartNumber), predecessor_sealed=U64.map(Offset),
    predecessor_chain=U32, compatible_flags=U32, crc=st.just(0),
)  # fmt: skip
EXAMPLE = FileHeader(
    FileKey(RunNumber(7), StreamName("photons"), FileKind.EVENTS, PartNumber(1)),
    b"f" * 16, b"l" * 16, b"s" * 16, BootNumber(3), 17, BlockNumber(1),
    HeaderText(logger="d0", config=StreamConfig()),
)  # fmt: skip


def page_of(header: FileHeader = EXAMPLE) -> bytearray:
    return bytearray(encode_file_header(header)[0])


def sealed(page: bytearray) -> bytes:
    """The page with its checksum made right again."""
    page[-4:] = crc32c(page[:-4]).to_bytes(4, "little")
    return bytes(page)


def refused(page: bytes) -> FormatError:
    with pytest.raises(FormatError) as caught:
        decode_file_header(page, path="f")
    assert caught.value.path == "f"
    return caught.value


# --- header page --------------------------------------------------------------------------------


@given(header=HEADERS)
def test_a_file_header_comes_back_and_begins_the_chain(header: FileHeader) -> None:
    page, crc = encode_file_header(header)
    assert len(page) == PAGE_BYTES
    decoded = decode_file_header(page, path="f")
    assert decoded.crc == crc == crc32c(page[:-4])
    assert msgspec.structs.asdict(decoded.text) == msgspec.structs.asdict(header.text)
    page_again, crc_again = encode_file_header(decoded)
    assert (page_again, crc_again) == (page, crc)


def test_every_flipped_bit_of_a_file_header_is_found() -> None:
    page = page_of()
    for bit in range(8 * PAGE_BYTES):
        page[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode_file_header(bytes(page), path="f")
        page[bit // 8] ^= 1 << bit % 8


@given(cut=st.integers(0, PAGE_BYTES - 1))
def test_any_truncation_of_a_file_header_is_found(cut: int) -> None:
    refused(bytes(page_of()[:cut]))


@given(noise=st.binary(max_size=200), with_magic=st.booleans(), fill=st.booleans())
def test_noise_is_no_file_header(noise: bytes, with_magic: bool, fill: bool) -> None:
    data = b"DLOGFIL\x01" * with_magic + noise
    refused(sealed(bytearray(data.ljust(PAGE_BYTES, b"\0"))) if fill else data)


def test_each_kind_of_bad_header_is_called_by_its_name() -> None:
    assert refused(b"").reason == "the file is empty"
    assert "magic" in refused(b"From root Mon").reason
    assert "magic" in refused(b"\x89HDF\r\n\x1a\n".ljust(PAGE_BYTES)).reason
    assert "ends in its header page" in refused(bytes(page_of()[:100])).reason
    damaged = page_of()
    damaged[3000] = 1
    assert "checksum" in refused(bytes(damaged)).reason


@pytest.mark.parametrize("change", [(7, b"\x02"), (8, b"\x02"), (16, b"\x01")])
def test_a_later_format_is_told_apart_from_damage(change: tuple[int, bytes]) -> None:
    page = page_of()
    at, content = change
    page[at : at + len(content)] = content
    assert isinstance(refused(sealed(page)), FormatVersionError)
    page[50] ^= 1
    assert not isinstance(refused(bytes(page)), FormatVersionError), (
        "damaged, so not to be believed"
    )


def test_a_compatible_flag_is_passed_over() -> None:
    page = page_of()
    struct.pack_into("<I", page, 12, 0x8000_0001)
    assert decode_file_header(sealed(page), path="f").compatible_flags == 0x8000_0001


def with_text(text: bytes) -> bytes:
    page = page_of()
    page[160:-4] = bytes(PAGE_BYTES - 164)
    page[160 : 160 + len(text)] = text
    struct.pack_into("<I", page, 120, len(text))
    return sealed(page)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff", b'{"logger": 3}', b"[" * 3000, b'{"logger":"a"}']
)
def test_a_text_that_is_not_what_it_should_be_is_refused(text: bytes) -> None:
    assert "file header" in refused(with_text(text)).reason


def test_a_key_that_a_later_version_adds_is_passed_over() -> None:
    text = msgspec.json.decode(msgspec.json.encode(EXAMPLE.text))
    text["weather"] = text["config"]["window_bytes"] = {"a": [1]}
    decoded = decode_file_header(with_text(msgspec.json.encode(text)), path="f")
    assert decoded.text.config == StreamConfig()


def test_a_text_too_long_for_the_page_is_refused_on_both_sides() -> None:
    text = HeaderText(logger="x" * TEXT_BYTES_MAX, config=StreamConfig())
    with pytest.raises(FormatError, match="at most"):
        encode_file_header(replace(EXAMPLE, text=text))
    page = page_of()
    struct.pack_into("<I", page, 120, TEXT_BYTES_MAX + 1)
    assert "text of" in refused(sealed(page)).reason


@pytest.mark.parametrize("name", [b"../../etc/passwd", b"", b"a.b", b"\xff"])
def test_a_stream_that_would_lead_elsewhere_is_refused(name: bytes) -> None:
    page = page_of()
    page[128:160] = name.ljust(32, b"\0")
    assert "file header" in refused(sealed(page)).reason


def test_an_unknown_kind_of_file_is_refused() -> None:
    page = page_of()
    struct.pack_into("<I", page, 80, 9)
    assert "FileKind" in refused(sealed(page)).reason


# --- footer -------------------------------------------------------------------------------------

TOTALS = st.builds(
    Totals, blocks=U32, events=U64, payload_bytes=U64, first_event=U64, last_event=U64,
    last_block=U64,
)  # fmt: skip


@given(
    index=hnp.arrays(INDEX_DTYPE, st.integers(0, 200)),
    totals=TOTALS,
    offset=st.integers(1, 2**40).map(lambda page: Offset(page * PAGE_BYTES)),
    gaps=st.lists(st.tuples(U64, U64), max_size=400).map(tuple),
)
def test_a_footer_comes_back(
    index: np.ndarray, totals: Totals, offset: Offset, gaps: tuple[tuple[int, int], ...]
) -> None:
    status = "recovered" if gaps else "good"
    footer = memoryview(
        encode_footer(
            index, totals, offset=offset, boot=BootNumber(4), salt=b"s" * 16, previous_crc=99,
            time_ns=17, status=status, gaps=gaps,
        )
    )  # fmt: skip
    first = block_in(footer, 0, offset)
    assert (first.type, first.previous_crc, first.number) == (BlockType.INDEX, 99, 0)
    raw = decode_raw(first, footer, path="f")
    assert decode_index(raw, path="f", offset_bytes=offset).tobytes() == index.tobytes()
    last = block_in(footer, first.block_bytes, offset)
    assert (last.type, last.previous_crc) == (BlockType.CLOSING, first.crc)
    said = decode_closing(
        decode_raw(last, footer[first.block_bytes :], path="f"), path="f", offset_bytes=0
    )
    assert said == Closing(
        totals=totals, index_offset=offset, index_bytes=first.block_bytes, status=status, gaps=gaps
    )
    assert first.block_bytes + last.block_bytes == len(footer)
    if not gaps:
        assert len(footer) == footer_bytes(len(index))
        assert last.block_bytes == PAGE_BYTES


def block_in(footer: memoryview, at: int, offset: int) -> BlockHeader:
    header = decode_header(footer[at:], salt=b"s" * 16, offset=offset + at, path="f")
    check_block(header, footer[at:], path="f")
    return header


def test_an_index_with_half_a_row_is_refused() -> None:
    with pytest.raises(FormatError, match="whole number of rows"):
        decode_index(memoryview(bytes(47)), path="f", offset_bytes=8192)


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"totals": 1}', b"[" * 100_000])
def test_a_closing_block_that_is_no_such_text_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="closing block") as caught:
        decode_closing(memoryview(text), path="f", offset_bytes=8192)
    assert caught.value.offset_bytes == 8192


# --- totals -------------------------------------------------------------------------------------


@given(blocks=st.lists(st.tuples(st.integers(1, 9), U32, U64, U64), max_size=8))
def test_totals_add_up_whatever_the_order_of_the_events(
    blocks: list[tuple[int, int, int, int]],
) -> None:
    totals = Totals()
    for number, (events, payload_bytes, one, other) in enumerate(blocks, 1):
        totals = totals.plus_block(events, payload_bytes, min(one, other), max(one, other), number)
    assert totals.blocks == totals.last_block == len(blocks)
    assert totals.events == sum(b[0] for b in blocks)
    assert totals.payload_bytes == sum(b[1] for b in blocks)
    if blocks:
        assert totals.first_event == min(min(b[2:]) for b in blocks)
        assert totals.last_event == max(max(b[2:]) for b in blocks)


# --- sidecar ------------------------------------------------------------------------------------

SIDECARS = st.builds(
    Sidecar, file=st.text(max_size=20), file_uuid=st.text(max_size=32), logger=st.text(max_size=9),
    logger_uuid=st.text(max_size=32), run=U32, stream=NAMES, kind=st.sampled_from(["events"]),
    part=U32, size_bytes=st.integers(0, 2**62), crc32c=st.text(max_size=8), sealed=st.text(),
    created_ns=U64, closed_ns=U64, totals=TOTALS, config=CONFIGS,
    recovery=st.one_of(st.none(), st.just({"source": "x", "lost": [1, 2]})),
)  # fmt: skip


@given(sidecar=SIDECARS)
def test_a_sidecar_comes_back_and_ends_in_a_newline(sidecar: Sidecar) -> None:
    content = encode_sidecar(sidecar)
    assert content.endswith(b"}\n")
    assert decode_sidecar(content, path="f") == sidecar


@given(noise=st.binary(max_size=100))
def test_noise_is_no_sidecar(noise: bytes) -> None:
    with pytest.raises(FormatError):
        decode_sidecar(noise, path="f")


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"file": "\xff"}', b'{"recovery":' * 50_000])
def test_text_that_would_break_a_decoder_is_no_sidecar(text: bytes) -> None:
    with pytest.raises(FormatError):
        decode_sidecar(text, path="f")


def test_a_sidecar_lies_beside_its_file() -> None:
    assert sidecar_path("runs/7/photons_0001.dlog") == "runs/7/photons_0001.dlog.json"
