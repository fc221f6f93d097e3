"""Compressed bytes: every codec, with a limit on what comes out.

The input is a script: a codec, a limit, then the bytes; or bytes to be compressed and decompressed again. What is
decompressed never exceeds the limit, what a library reads without limits is the same, and what Warp refuses although
a library reads it, it refuses for a reason that is on the list.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from typing import Final

import cramjam
import lz4.frame
import zstandard

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.reference import records as reference
from warp._compression import CompressionError, ExpansionLimitError, compress, decompress

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
CODECS = (GZIP, SNAPPY, LZ4, ZSTD)
LIMIT_BYTES_MAX: Final = 1 << 20
REFERENCE_BYTES_MAX: Final = 1 << 24
"""What the libraries may make of an input before the comparison is given up."""


def check(data: bytes) -> None:
    """Decompress what came; or compress it, and decompress that."""
    script = Script(data)
    choice = script.byte()
    codec = CODECS[choice & 3]
    limit_bytes = script.number(3) % (LIMIT_BYTES_MAX + 1)
    if choice & 4:
        _check_round_trip(codec, script.rest() * (1 + (choice >> 3)), limit_bytes)
    else:
        _check_foreign(codec, script.rest(), limit_bytes)


def _check_round_trip(codec: int, data: bytes, limit_bytes: int) -> None:
    packed = compress(codec, data)
    assert bytes(decompress(codec, packed, len(data))) == data
    try:
        found = bytes(decompress(codec, packed, limit_bytes))
    except ExpansionLimitError:
        assert len(data) > limit_bytes
    else:
        assert len(data) <= limit_bytes
        assert found == data


def _check_foreign(codec: int, data: bytes, limit_bytes: int) -> None:
    try:
        found = bytes(decompress(codec, data, limit_bytes))
    except CompressionError as error:
        mark(codec, said(error))
        return
    mark(codec, "read", len(found).bit_length())
    assert len(found) <= limit_bytes
    assert bytes(decompress(codec, memoryview(data), len(found))) == found
    if found:
        try:
            decompress(codec, data, len(found) - 1)
        except ExpansionLimitError:
            pass
        else:
            raise AssertionError("read more than it was allowed")
    assert _library_reads(codec, data) == found


def _library_reads(codec: int, data: bytes) -> bytes:
    """What the codec's library, or Python's own, reads where Warp has read something."""
    if codec == GZIP:
        return gzip.decompress(data)
    if codec == SNAPPY:
        return reference.decompress(codec, data)
    if codec == LZ4:
        return _unlz4(data)
    with zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(
        data, read_across_frames=True
    ) as reader:
        return reader.read(REFERENCE_BYTES_MAX)


def _unlz4(data: bytes) -> bytes:
    """Frame by frame, because the library's own function stops at what is to be skipped."""
    found = b""
    while data:
        if data[1:4] == b"\x2a\x4d\x18" and data[0] >> 4 == 5:
            data = data[8 + int.from_bytes(data[4:8], "little") :]
            continue
        reader = lz4.frame.LZ4FrameDecompressor()
        found += reader.decompress(data, REFERENCE_BYTES_MAX)
        assert reader.eof
        data = reader.unused_data or b""
    return found


def seeds() -> Iterable[bytes]:
    """Each codec in the forms in which clients send it, and bombs."""
    text = b"the quick brown fox jumps over the lazy dog, and so on " * 3
    for choice, codec in enumerate(CODECS):
        start = bytes([choice]) + (100_000).to_bytes(3, "big")
        packed = compress(codec, text)
        yield start + packed
        yield start + compress(codec, b"")
        yield start + compress(codec, bytes(60_000))
        yield bytes([choice]) + (99).to_bytes(3, "big") + packed
        yield bytes([choice | 4]) + (100).to_bytes(3, "big") + text
        yield bytes([choice | 4 | 0xF8]) + (100).to_bytes(3, "big") + text
        if codec != SNAPPY:
            yield start + packed * 2
    yield from _of_other_clients(text)


def _of_other_clients(text: bytes) -> Iterable[bytes]:
    snappy, lz4_, zstd = (bytes([choice]) + (100_000).to_bytes(3, "big") for choice in (1, 2, 3))
    yield snappy + bytes(cramjam.snappy.compress_raw(text))
    for options in (
        {"store_size": True},
        {"content_checksum": True, "block_checksum": True},
        {"block_linked": True, "compression_level": 9},
        {"auto_flush": True, "block_size": lz4.frame.BLOCKSIZE_MAX4MB},
    ):
        options.pop("auto_flush", None)
        yield lz4_ + lz4.frame.compress(text, **options)
    yield lz4_ + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + lz4.frame.compress(text)
    streamed = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compressobj()
    yield zstd + streamed.compress(text) + streamed.flush()
    yield zstd + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstandard.ZstdCompressor().compress(text)
    long = zstandard.ZstdCompressionParameters.from_level(3, window_log=24, enable_ldm=True)
    yield zstd + zstandard.ZstdCompressor(compression_params=long).compress(text)
    raw = zlib.compressobj(0, zlib.DEFLATED, 31)
    yield bytes([0]) + (100_000).to_bytes(3, "big") + raw.compress(text) + raw.flush()


TARGET = Target(
    check,
    seeds,
    words=(
        b"\x1f\x8b\x08",
        b"\x1f\x8b\x08\x1f",
        b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
        b"\x04\x22\x4d\x18",
        b"\x50\x2a\x4d\x18",
        b"\x28\xb5\x2f\xfd",
        b"\xff\xff\xff\xff\x0f",
        b"\0\0\0\0",
        b"\xff\xff\xff\x7f",
        b"\x01\0\0\x80",
    ),
)
