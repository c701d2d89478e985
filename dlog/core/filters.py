"""Filters and compression of a block's raw bytes, both ways. It does no I/O and keeps no state.

docs/FORMAT.md, "Stored bytes". Filters act on whole elements of 1 to 8 bytes; bytes behind the
last whole element are passed through.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from dlog.errors import FormatError
from dlog.limits import COMPRESSION_GAIN_MIN

ELEMENT_BYTES: Final = (1, 2, 4, 8)


class Filter(enum.IntEnum):
    NONE = 0
    SHUFFLE = 1  # byte 0 of every element, then byte 1 of every element, …
    DELTA = 2  # each element less the one before, then shuffled


class Compression(enum.IntEnum):
    NONE = 0
    ZSTD = 1


def apply_filter(raw: NDArray[np.uint8], kind: Filter, element_bytes: int) -> NDArray[np.uint8]:
    """The filtered bytes, of the same length; `raw` itself where there is nothing to do."""
    whole = len(raw) // element_bytes * element_bytes
    if kind is Filter.NONE or whole == 0:
        return raw
    out = np.empty_like(raw)
    out[whole:] = raw[whole:]
    elements = raw[:whole].view(f"<u{element_bytes}")
    if kind is Filter.DELTA:
        elements = _differences(elements)
    # Whole elements are shifted, and numpy does that many at a time: to move single bytes with a
    # stride takes four times as long.
    for i, plane in enumerate(out[:whole].reshape(element_bytes, -1)):
        np.right_shift(elements, 8 * i, out=plane, casting="unsafe")
    return out


def undo_filter(filtered: NDArray[np.uint8], kind: Filter, element_bytes: int) -> NDArray[np.uint8]:
    """The inverse of `apply_filter`."""
    whole = len(filtered) // element_bytes * element_bytes
    if kind is Filter.NONE or whole == 0:
        return filtered
    out = np.empty_like(filtered)
    out[whole:] = filtered[whole:]
    elements = out[:whole].view(f"<u{element_bytes}")
    *lower, highest = filtered[:whole].reshape(element_bytes, -1)
    elements[...] = highest
    for plane in reversed(lower):
        np.left_shift(elements, 8, out=elements)
        np.bitwise_or(elements, plane, out=elements)
    if kind is Filter.DELTA:
        _sum_up(elements)
    return out


def _differences(elements: NDArray[Any]) -> NDArray[Any]:
    """Of neighbours, the sign in the lowest bit: so the higher bytes of small ones are all zeros.
    As two's complement they would be zeros and ones at random, which zstd has to store."""
    found = np.empty_like(elements)
    found[0] = elements[0]
    np.subtract(elements[1:], elements[:-1], out=found[1:])
    signs = found.view(f"<i{found.itemsize}") >> (8 * found.itemsize - 1)
    np.left_shift(found, 1, out=found)
    np.bitwise_xor(found, signs.view(found.dtype), out=found)
    return found


def _sum_up(differences: NDArray[Any]) -> None:
    """The inverse of `_differences`, in place."""
    signs = differences & 1
    np.negative(signs, out=signs)
    np.right_shift(differences, 1, out=differences)
    np.bitwise_xor(differences, signs, out=differences)
    np.cumsum(differences, dtype=differences.dtype, out=differences)


class Compressor:
    """zstd at one level, for one thread: a compressor is never shared."""

    def __init__(self, level: int) -> None:
        # write_checksum: a flipped byte inside a frame may pass otherwise.
        self._zstd = zstandard.ZstdCompressor(
            level=level, write_checksum=True, write_content_size=True
        )

    def compress(self, filtered: NDArray[np.uint8]) -> bytes | None:
        """The compressed bytes, or None where they would gain under COMPRESSION_GAIN_MIN."""
        compressed = self._zstd.compress(filtered.data)
        if len(compressed) > len(filtered) * (1 - COMPRESSION_GAIN_MIN):
            return None
        return compressed


def decode_stored(
    stored: memoryview,
    raw_bytes: int,
    kind: Filter,
    element_bytes: int,
    compression: Compression,
    *,
    path: str,
    offset_bytes: int,
) -> memoryview:
    """The raw bytes. `raw_bytes` was checked against the limits by the caller."""

    def fail(reason: str) -> FormatError:
        return FormatError(reason, path=path, offset_bytes=offset_bytes)

    if element_bytes not in ELEMENT_BYTES:
        raise fail(f"filter with elements of {element_bytes} bytes")
    plain: memoryview | bytes = stored
    if compression is Compression.ZSTD:
        try:
            # The frame's own size is compared first: max_output_size is ignored where it is told.
            if zstandard.frame_content_size(stored) != raw_bytes or raw_bytes == 0:
                raise fail("size in the zstd frame differs from the block header")
            # In one shot into a buffer of that size: a streaming decoder believes the size only
            # at the end, and 40 KiB of repeats made it take 1.2 GiB before.
            plain = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise fail(f"zstd: {error}") from error
        if len(plain) != raw_bytes:
            raise fail("the zstd frame does not hold what it says")
    if kind is Filter.NONE:
        return memoryview(plain)
    return undo_filter(np.frombuffer(plain, np.uint8), kind, element_bytes).data
