"""Filters and compression: both ways, and what a lying frame costs."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dlog.core.filters import (
    ELEMENT_BYTES,
    Compression,
    Compressor,
    Filter,
    apply_filter,
    decode_stored,
    undo_filter,
)
from dlog.errors import FormatError
from dlog.limits import COMPRESSION_GAIN_MIN
from tests.rig.commands import CHECKOUT

FILTERS = st.sampled_from(Filter)
ELEMENTS = st.sampled_from(ELEMENT_BYTES)


def array(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def decoded(
    stored: bytes,
    raw_bytes: int,
    kind: Filter = Filter.NONE,
    element_bytes: int = 1,
    compression: Compression = Compression.ZSTD,
) -> bytes:
    return bytes(
        decode_stored(
            memoryview(stored), raw_bytes, kind, element_bytes, compression,
            path="f", offset_bytes=4096,
        )
    )  # fmt: skip


@given(raw=st.binary(max_size=300), kind=FILTERS, element_bytes=ELEMENTS)
def test_a_filter_is_undone(raw: bytes, kind: Filter, element_bytes: int) -> None:
    filtered = apply_filter(array(raw), kind, element_bytes)
    assert len(filtered) == len(raw)
    assert undo_filter(filtered, kind, element_bytes).tobytes() == raw
    stored = filtered.tobytes()
    assert decoded(stored, len(raw), kind, element_bytes, Compression.NONE) == raw


@given(raw=st.binary(min_size=1, max_size=300), kind=FILTERS, element_bytes=ELEMENTS)
def test_what_is_filtered_and_compressed_comes_back(
    raw: bytes, kind: Filter, element_bytes: int
) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(
        apply_filter(array(raw), kind, element_bytes).tobytes()
    )
    assert decoded(packed, len(raw), kind, element_bytes) == raw


def test_the_filters_as_docs_format_shows_them() -> None:
    raw = struct.pack("<3H", 0x0102, 0x0103, 0x0201) + b"\xee"
    assert apply_filter(array(raw), Filter.SHUFFLE, 2).tobytes().hex() == "020301010102ee"
    assert apply_filter(array(raw), Filter.DELTA, 2).tobytes().hex() == "0402fc020001ee"


def test_a_filter_leaves_the_rest_behind_whole_elements_alone() -> None:
    assert apply_filter(array(b"abcdefg"), Filter.SHUFFLE, 4).tobytes() == b"abcdefg"
    assert apply_filter(array(b"abcdefghi"), Filter.SHUFFLE, 4).tobytes() == b"aebfcgdhi"
    assert apply_filter(array(b"abc"), Filter.DELTA, 8).tobytes() == b"abc"


def test_a_gain_too_small_is_stored_raw() -> None:
    compressor = Compressor(1)
    noise = np.random.default_rng(7).integers(0, 256, 10_000, np.uint8)
    assert compressor.compress(noise) is None
    packed = compressor.compress(np.zeros(10_000, np.uint8))
    assert packed is not None
    assert len(packed) < 10_000 * (1 - COMPRESSION_GAIN_MIN)


def test_a_frame_carries_size_and_checksum() -> None:
    packed = Compressor(3).compress(np.zeros(5000, np.uint8))
    assert packed is not None
    parameters = zstandard.get_frame_parameters(packed)
    assert parameters.content_size == 5000
    assert parameters.has_checksum


@pytest.mark.parametrize("behind", [b"x", zstandard.ZstdCompressor().compress(b"second")])
def test_bytes_behind_the_frame_are_damage(behind: bytes) -> None:
    packed = zstandard.ZstdCompressor().compress(b"first" * 20)
    with pytest.raises(FormatError, match="zstd") as caught:
        decoded(packed + behind, 100)
    assert (caught.value.path, caught.value.offset_bytes) == ("f", 4096)


@given(data=st.data())
def test_any_truncation_of_a_frame_is_damage(data: st.DataObject) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(b"detector" * 40)
    with pytest.raises(FormatError):
        decoded(packed[: data.draw(st.integers(0, len(packed) - 1))], 320)


@given(noise=st.binary(max_size=100), raw_bytes=st.integers(0, 2**20), kind=FILTERS)
def test_noise_in_place_of_a_frame_is_damage(noise: bytes, raw_bytes: int, kind: Filter) -> None:
    with pytest.raises(FormatError):
        decoded(noise, raw_bytes, kind, 2)


def test_a_frame_that_tells_no_size_or_another_one_is_damage() -> None:
    untold = zstandard.ZstdCompressor(write_content_size=False).compress(b"a" * 100)
    other = zstandard.ZstdCompressor().compress(b"a" * 101)
    for packed in (untold, other):
        with pytest.raises(FormatError, match="differs from the block header"):
            decoded(packed, 100)


def test_elements_of_three_bytes_are_damage() -> None:
    with pytest.raises(FormatError, match="elements of 3 bytes"):
        decoded(b"abc", 3, Filter.SHUFFLE, 3, Compression.NONE)


def frame_of_repeats(told_bytes: int, repeats: int) -> bytes:
    """A frame that tells a size, and would unpack to 128 KiB for every four bytes of it."""
    head = struct.pack("<IBBI", 0xFD2FB528, 2 << 6, 7 << 3, told_bytes)
    block = [(131_072 << 3) | (1 << 1) | (i == repeats - 1) for i in range(repeats)]
    return head + b"".join(struct.pack("<I", b)[:3] + b"A" for b in block)


def test_a_frame_that_lies_about_its_size_takes_no_more_than_it_says() -> None:
    told = 1_000_000
    code = (
        "import resource, sys; from tests.unit.test_filters import *\n"
        f"try: decoded(frame_of_repeats({told}, 10_000), {told})\n"
        "except FormatError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CHECKOUT
    ).stdout
    assert int(out) < before + 200_000, "KiB; unbounded it took 1.2 GiB"
