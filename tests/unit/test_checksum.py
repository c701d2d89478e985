"""Joined checksums are those of the joined bytes."""

from __future__ import annotations

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from dlog.core.checksum import joined, with_zeros


@given(a=st.binary(max_size=300), b=st.binary(max_size=300))
def test_joined_is_the_checksum_of_both(a: bytes, b: bytes) -> None:
    assert joined(crc32c(a), crc32c(b), len(b)) == crc32c(a + b)


@pytest.mark.parametrize("length", [1, 255, 256, 4096, 65_535, 65_536, 1_048_000, 20_000_003])
def test_long_pieces_too(length: int) -> None:
    piece = b"dlog" * (length // 4) + b"x" * (length % 4)
    assert joined(crc32c(b"before"), crc32c(piece), length) == crc32c(b"before" + piece)


@given(a=st.binary(max_size=50), zeros=st.integers(0, 300_000))
def test_zeros_need_not_be_there(a: bytes, zeros: int) -> None:
    assert with_zeros(crc32c(a), zeros) == crc32c(a + bytes(zeros))


def test_what_joins_many_is_the_same_in_any_grouping() -> None:
    pieces = [bytes([i]) * (i * 37) for i in range(40)]
    crc = 0
    for piece in pieces:
        crc = joined(crc, crc32c(piece), len(piece))
    assert crc == crc32c(b"".join(pieces))
