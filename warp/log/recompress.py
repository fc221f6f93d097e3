"""Batches under another codec, for topics whose `compression.type` says how records are stored.

Only the records' blob is turned from one codec into the other; no record is looked at. The header keeps everything but
its length, its codec and its CRC.
"""

from __future__ import annotations

import struct

from warp._compression import compress, decompress
from warp._crc32c import crc32c
from warp._records import BatchHeader
from warp.objectstore.base import Buffer

CODECS = {"uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

_HEADER_BYTES = 61
_LENGTH = struct.Struct(">i")
_LENGTH_AT = 8
_LENGTH_COUNTS_FROM = 12
_CRC = struct.Struct(">I")
_CRC_AT = 17
_CRC_COVERS_FROM = 21
CODEC_AT = 22
CODEC_MASK = 0x07


def recompress(
    header: BatchHeader, data: Buffer, codec: int, decompressed_bytes_max: int, level: int | None = None
) -> Buffer:
    """A validated batch with its records under `codec` (0 to 4); `data` itself when they are already.

    `level` is the codec's; None is the library's own.

    Layout: record batch, magic 2 (KIP-98).
    """
    if header.codec == codec:
        return data
    records: Buffer = memoryview(data)[_HEADER_BYTES:]
    if header.codec:
        records = memoryview(decompress(header.codec, records, decompressed_bytes_max))
    if codec:
        records = compress(codec, records, level)
    batch = bytearray(memoryview(data)[:_HEADER_BYTES])
    batch += records
    _LENGTH.pack_into(batch, _LENGTH_AT, len(batch) - _LENGTH_COUNTS_FROM)
    batch[CODEC_AT] = batch[CODEC_AT] & ~CODEC_MASK | codec
    _CRC.pack_into(batch, _CRC_AT, crc32c(memoryview(batch)[_CRC_COVERS_FROM:]))
    return batch
