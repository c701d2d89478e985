"""CRC-32C of bytes whose pieces have one already: joined by arithmetic, without the bytes.

A checksum is a polynomial over GF(2), and to append n bytes multiplies it by x^(8n) modulo the
generator (bits reflected, as everywhere with this CRC). It does no I/O.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Final

# Castagnoli's generator and the number one, x^0 in the highest bit.
_GENERATOR: Final = 0x82F63B78
_ONE: Final = 0x8000_0000
_MASK: Final = 0xFFFF_FFFF


def joined(crc: int, more_crc: int, more_bytes: int) -> int:
    """The checksum of A and B behind each other; that of A is `crc`, that of B, `more_bytes` long,
    is `more_crc`."""
    return _product(crc, _power(more_bytes)) ^ more_crc if crc else more_crc


def with_zeros(crc: int, zeros: int) -> int:
    """The checksum of what has the checksum `crc`, with so many zero bytes behind it."""
    return _product(crc ^ _MASK, _power(zeros)) ^ _MASK


def _product(a: int, b: int) -> int:
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & _MASK
        b = b >> 1 ^ (_GENERATOR if b & 1 else 0)
    return product


@lru_cache(maxsize=4096)  # the lengths of a stream's blocks are few, or all different
def _power(length_bytes: int) -> int:
    """x^(8n): a factor for each digit of n, at base 256."""
    power, place = _ONE, 0
    while length_bytes:
        if digit := length_bytes & 0xFF:
            power = _product(power, _digit_power(digit, place))
        length_bytes >>= 8
        place += 1
    return power


@cache  # at most 255 for each of eight places
def _digit_power(digit: int, place: int) -> int:
    """x^(8 * digit * 256^place), by squaring."""
    power, factor = _ONE, _ONE >> 8  # x^8
    for _ in range(8 * place):
        factor = _product(factor, factor)
    while digit:
        if digit & 1:
            power = _product(power, factor)
        factor = _product(factor, factor)
        digit >>= 1
    return power
