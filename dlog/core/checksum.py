"""CRC-32C of bytes whose pieces have one already: joined by arithmetic, without the bytes.

A checksum is a polynomial over GF(2), and to append n bytes multiplies it by x^(8n) modulo the
generator (bits reflected, as everywhere with this CRC). It does no I/O.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final

from crc32c import crc32c

# The number one, x^0 in the highest bit.
_ONE: Final = 0x8000_0000
_MASK: Final = 0xFFFF_FFFF
_WORD: Final = bytes(4)
# Integers multiply as such polynomials do where each bit has a byte: 32 ones add up without a
# carry into the next, and the lowest bit of the sum is what counts.
_BIT_OF_EACH_BYTE: Final = int.from_bytes(bytes([1]) * 32, "little")
_DIGIT_OF_SUM: Final = bytes(ord("01"[total & 1]) for total in range(256))


def joined(crc: int, more_crc: int, more_bytes: int) -> int:
    """The checksum of A and B behind each other; that of A is `crc`, that of B, `more_bytes` long,
    is `more_crc`."""
    return _product(crc, _factor(more_bytes)) ^ more_crc if crc else more_crc


def with_zeros(crc: int, zeros: int) -> int:
    """The checksum of what has the checksum `crc`, with so many zero bytes behind it."""
    return _product(crc ^ _MASK, _factor(zeros)) ^ _MASK


def _spread(a: int) -> int:
    """A polynomial with a byte for each bit, x^0 in the lowest."""
    return int.from_bytes(format(a, "032b").encode(), "little") & _BIT_OF_EACH_BYTE


def _product(a: int, spread_b: int) -> int:
    """`a` times `b`, modulo the generator."""
    sums = (_spread(a) * spread_b).to_bytes(63, "little")
    product = int(sums.translate(_DIGIT_OF_SUM), 2)
    # From x^32 on: four zero bytes through the checksum multiply by x^32 modulo the generator.
    beyond = (product << 1) & _MASK
    return product >> 31 ^ crc32c(_WORD, beyond ^ _MASK) ^ _MASK


@lru_cache(maxsize=4096)  # the lengths of a stream's blocks are few, or all different
def _factor(length_bytes: int) -> int:
    """x^(8n), spread: a factor for each digit of n, at base 256."""
    power, place = _ONE, 0
    while length_bytes:
        if digit := length_bytes & 0xFF:
            power = _product(power, _digit_factor(digit, place))
        length_bytes >>= 8
        place += 1
    return _spread(power)


@cache  # at most 255 for each of eight places
def _digit_factor(digit: int, place: int) -> int:
    """x^(8 * digit * 256^place), spread; by squaring."""
    power, factor = _ONE, _spread(_ONE >> 8)  # x^8
    for _ in range(8 * place):
        factor = _squared(factor)
    while digit:
        if digit & 1:
            power = _product(power, factor)
        factor = _squared(factor)
        digit >>= 1
    return _spread(power)


def _squared(spread: int) -> int:
    # One times it is the factor as it was before it was spread.
    return _spread(_product(_product(_ONE, spread), spread))
