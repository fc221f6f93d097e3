"""CRC-32C (Castagnoli), byte by byte, as RFC 3720 appendix B.4 and every textbook have it."""

from __future__ import annotations

from collections.abc import Iterable

REFLECTED_POLYNOMIAL = 0x82F63B78


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (REFLECTED_POLYNOMIAL if byte & 1 else 0)
    return byte


TABLE = tuple(_table_entry(byte) for byte in range(256))


def crc32c(data: Iterable[int], crc: int = 0) -> int:
    """The CRC of `data`, going on from `crc`, the CRC of the bytes before it."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
