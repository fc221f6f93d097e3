"""Makes batches of bytes that nobody could have guessed: lengths and checksums that fit, records that are compressed.

A fuzzer does not find a CRC-32C. So an input may ask that what stands in the way of the code behind be put right.
"""

from __future__ import annotations

import struct

from tests.fuzz.script import Script
from tests.reference.records import HEADER
from warp._compression import compress
from warp._crc32c import crc32c

FIX_CRC, FIX_LENGTH, FIX_COUNTS, COMPRESS = 1, 2, 4, 8
FIX_ALL = FIX_CRC | FIX_LENGTH | FIX_COUNTS

_LENGTH = struct.Struct(">i")
_CRC = struct.Struct(">I")
_COUNT = struct.Struct(">i")


def repaired(batch: bytes, how: int) -> bytes:
    """One batch with those things put right that `how` names."""
    if len(batch) < HEADER.size:
        return batch
    if how & COMPRESS:
        codec = batch[22] & 7
        if 0 < codec < 5:
            batch = batch[: HEADER.size] + compress(codec, batch[HEADER.size :])
    changed = bytearray(batch)
    if how & FIX_LENGTH:
        _LENGTH.pack_into(changed, 8, len(batch) - 12)
    if how & FIX_COUNTS:
        changed[16] = 2
        # The last offset delta follows from the number of records.
        (count,) = _COUNT.unpack_from(changed, 57)
        _COUNT.pack_into(changed, 23, max(-(2**31), count - 1))
    if how & FIX_CRC:
        _CRC.pack_into(changed, 17, crc32c(bytes(changed[21:])))
    return bytes(changed)


def batches_of(script: Script, count_max: int) -> list[bytes]:
    """Batches that stand in the input one after the other, each behind how it is to be repaired and its size."""
    batches: list[bytes] = []
    while script and len(batches) < count_max:
        how = script.byte()
        batches.append(repaired(script.take(script.number(2)), how))
    return batches


def written(batch: bytes, how: int = 0) -> bytes:
    """A batch as `batches_of` reads it."""
    return bytes([how]) + len(batch).to_bytes(2, "big") + batch
