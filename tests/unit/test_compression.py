"""The codecs: what others write is read, what we write others read, and what is not well-formed is refused."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable

import aiokafka.codec
import cramjam
import kafka.codec
import lz4.frame
import pytest
import zstandard
from hypothesis import given, strategies as st

from warp._compression import CompressionError, ExpansionLimitError, compress, decompress

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = (GZIP, SNAPPY, LZ4, ZSTD)
NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
RANDOM = random.Random(7)
NOISE = RANDOM.randbytes(70_000)
TEXT = b"".join(b"record %d says the same as the one before it\n" % (number % 97) for number in range(4000))
SAMPLES = [b"", b"a", b"ab" * 5, NOISE[:1000], NOISE, TEXT, TEXT[:300] + NOISE + bytes(300_000)]


def zstd_without_size(data: bytes, level: int = 3, window_log: int = 0) -> bytes:
    """A frame as the Java client writes it: streamed, so its size is not declared."""
    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=window_log)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


def zstd_with_checksum(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def gzip_with_name(data: bytes) -> bytes:
    """A gzip header with every optional field: extra, name, comment and header CRC (RFC 1952, section 2.3)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    header = b"\x1f\x8b\x08\x1e" + bytes(4) + b"\x00\x03" + b"\x02\x00ex" + b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + body + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def snappy_raw(data: bytes) -> bytes:
    return bytes(cramjam.snappy.compress_raw(data))


def snappy_small_chunks(data: bytes) -> bytes:
    return kafka.codec.snappy_encode(data, True, 2000)


def snappy_two_streams(data: bytes) -> bytes:
    """The Java reader allows another header where a chunk could start."""
    half = len(data) // 2
    return kafka.codec.snappy_encode(data[:half]) + kafka.codec.snappy_encode(data[half:])


def lz4_linked(data: bytes) -> bytes:
    return lz4.frame.compress(data, block_linked=True, block_size=lz4.frame.BLOCKSIZE_MAX64KB)


def lz4_all_checksums(data: bytes) -> bytes:
    return lz4.frame.compress(data, block_checksum=True, content_checksum=True, store_size=False)


def lz4_large_blocks(data: bytes) -> bytes:
    return lz4.frame.compress(data, block_size=lz4.frame.BLOCKSIZE_MAX4MB, block_linked=False)


ENCODERS: list[tuple[int, Callable[[bytes], bytes]]] = [
    (GZIP, gzip.compress),
    (GZIP, gzip_with_name),
    (GZIP, kafka.codec.gzip_encode),
    (GZIP, aiokafka.codec.gzip_encode),
    (SNAPPY, snappy_raw),
    (SNAPPY, snappy_small_chunks),
    (SNAPPY, snappy_two_streams),
    (SNAPPY, kafka.codec.snappy_encode),
    (SNAPPY, aiokafka.codec.snappy_encode),
    (LZ4, lz4.frame.compress),
    (LZ4, lz4_linked),
    (LZ4, lz4_all_checksums),
    (LZ4, lz4_large_blocks),
    (LZ4, kafka.codec.lz4_encode),
    (LZ4, aiokafka.codec.lz4_encode),
    (ZSTD, zstd_without_size),
    (ZSTD, zstd_with_checksum),
    (ZSTD, kafka.codec.zstd_encode),
    (ZSTD, aiokafka.codec.zstd_encode),
]

DECODERS: list[tuple[int, Callable[[bytes], bytes]]] = [
    (GZIP, gzip.decompress),
    (GZIP, kafka.codec.gzip_decode),
    (GZIP, aiokafka.codec.gzip_decode),
    (SNAPPY, kafka.codec.snappy_decode),
    (SNAPPY, aiokafka.codec.snappy_decode),
    (LZ4, lz4.frame.decompress),
    (LZ4, kafka.codec.lz4_decode),
    (LZ4, aiokafka.codec.lz4_decode),
    (ZSTD, kafka.codec.zstd_decode),
    (ZSTD, aiokafka.codec.zstd_decode),
]


def encoder_name(value: object) -> str:
    if isinstance(value, int):
        return NAMES[value]
    return f"{getattr(value, '__module__', None) or 'lib'}.{getattr(value, '__name__', value)}"


@pytest.mark.parametrize(("codec", "encode"), ENCODERS, ids=encoder_name)
@pytest.mark.parametrize("data", SAMPLES, ids=len)
def test_what_others_write_is_read_at_exactly_its_size(
    codec: int, encode: Callable[[bytes], bytes], data: bytes
) -> None:
    packed = encode(data)
    assert bytes(decompress(codec, packed, len(data))) == data
    assert bytes(decompress(codec, memoryview(b"x" + packed)[1:], len(data) + 100_000)) == data
    if data:
        with pytest.raises(ExpansionLimitError):
            decompress(codec, packed, len(data) - 1)
        with pytest.raises(ExpansionLimitError):
            decompress(codec, packed, 0)


@pytest.mark.parametrize(("codec", "decode"), DECODERS, ids=encoder_name)
@pytest.mark.parametrize("data", SAMPLES, ids=len)
def test_what_we_write_others_read(codec: int, decode: Callable[[bytes], bytes], data: bytes) -> None:
    assert bytes(decode(compress(codec, data))) == data


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(max_size=400).map(lambda piece: piece * 3), slack=st.integers(0, 50))
def test_round_trip_of_any_bytes(codec: int, data: bytes, slack: int) -> None:
    packed = compress(codec, data)
    assert bytes(decompress(codec, packed, len(data) + slack)) == data
    assert bytes(decompress(codec, bytearray(packed), len(data) + slack)) == data


@pytest.mark.parametrize(
    ("codec", "level"), [(GZIP, 1), (GZIP, 9), (LZ4, 9), (ZSTD, 1), (ZSTD, 19), (ZSTD, -5)]
)
def test_levels(codec: int, level: int) -> None:
    assert decompress(codec, compress(codec, TEXT, level), len(TEXT)) == TEXT


def test_codec_none_gives_the_same_bytes_back_within_the_limit() -> None:
    data = b"as they are"
    assert decompress(NONE, data, len(data)) is data
    assert compress(NONE, data) == data
    with pytest.raises(ExpansionLimitError):
        decompress(NONE, data, len(data) - 1)


@pytest.mark.parametrize("codec", [-1, 5, 6, 7, 100])
def test_an_unknown_codec_is_refused(codec: int) -> None:
    with pytest.raises(CompressionError):
        decompress(codec, b"data", 100)
    with pytest.raises(ValueError, match="unknown codec"):
        compress(codec, b"data")


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        decompress(GZIP, b"data", -1)
    with pytest.raises(ValueError, match="no levels"):
        compress(SNAPPY, b"data", 3)


@pytest.mark.parametrize("codec", CODECS)
def test_no_bytes_are_no_stream(codec: int) -> None:
    with pytest.raises(CompressionError):
        decompress(codec, b"", 100)


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_concatenated_frames_are_read_as_one_and_share_the_limit(codec: int) -> None:
    parts = [TEXT[:5000], b"", NOISE[:100], TEXT[:70_000]]
    packed, whole = b"".join(compress(codec, part) for part in parts), b"".join(parts)
    assert decompress(codec, packed, len(whole)) == whole
    with pytest.raises(ExpansionLimitError):
        decompress(codec, packed, len(whole) - 1)


@pytest.mark.parametrize("codec", [LZ4, ZSTD])
def test_skippable_frames_are_skipped(codec: int) -> None:
    skippable = (0x184D2A5A).to_bytes(4, "little") + (9).to_bytes(4, "little") + b"skip this"
    packed = skippable + compress(codec, TEXT) + skippable
    assert decompress(codec, packed, len(TEXT)) == TEXT
    with pytest.raises(CompressionError):
        decompress(codec, packed[:-1], len(TEXT))
    with pytest.raises(CompressionError):
        decompress(codec, packed + skippable[:6], len(TEXT))


@pytest.mark.parametrize(("codec", "encode"), ENCODERS, ids=encoder_name)
@pytest.mark.parametrize(
    "garbage", [b"\0", b"x", b"\x1f", b"garbage that is longer than a header", bytes(64)]
)
def test_trailing_garbage_is_an_error(codec: int, encode: Callable[[bytes], bytes], garbage: bytes) -> None:
    with pytest.raises(CompressionError):
        decompress(codec, encode(TEXT[:2000]) + garbage, 100_000)


@pytest.mark.parametrize(("codec", "encode"), ENCODERS, ids=encoder_name)
def test_every_truncation_is_an_error_or_ends_between_chunks(
    codec: int, encode: Callable[[bytes], bytes]
) -> None:
    """Only the Java library's snappy stream has no end mark: cut after a chunk it is a shorter stream."""
    data = TEXT[:3000] + NOISE[:300]
    packed = encode(data)
    for length in range(len(packed)):
        try:
            out = bytes(decompress(codec, packed[:length], len(data)))
        except CompressionError:
            continue
        assert codec == SNAPPY
        assert packed.startswith(b"\x82SNAPPY")
        assert data.startswith(out)


@pytest.mark.parametrize(("codec", "encode"), ENCODERS, ids=encoder_name)
def test_every_bit_flip_is_an_error_or_stays_within_the_limit(
    codec: int, encode: Callable[[bytes], bytes]
) -> None:
    data = TEXT[:600] + NOISE[:50]
    packed, limit = encode(data), 2 * len(data)
    for bit in range(8 * len(packed)):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            out = bytes(decompress(codec, flipped, limit))
        except CompressionError:
            continue
        assert len(out) <= limit
        if codec == GZIP:
            # Its checksum covers the data; only the header's decoration can change unnoticed.
            assert out == data


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_error_or_stay_within_the_limit(codec: int, data: bytes) -> None:
    prefixes = {
        GZIP: [b"\x1f\x8b\x08\x00" + bytes(6)],
        SNAPPY: [b"\x82SNAPPY\0\0\0\0\1\0\0\0\1"],
        LZ4: [b"\x04\x22\x4d\x18\x60\x40\x82", b"\x04\x22\x4d\x18"],
        ZSTD: [b"\x28\xb5\x2f\xfd\x20", b"\x28\xb5\x2f\xfd\x00\x58"],
    }
    for prefix in (b"", *prefixes[codec]):
        try:
            out = decompress(codec, prefix + data, 1000)
        except CompressionError:
            continue
        assert len(bytes(out)) <= 1000


def test_a_window_larger_than_the_limit_is_not_allocated_but_understood() -> None:
    """Level 22 announces a window of 128 MiB, whatever the data's size."""
    packed = zstd_without_size(TEXT, level=22, window_log=27)
    assert zstandard.get_frame_parameters(packed).window_size == 1 << 27
    assert decompress(ZSTD, packed, len(TEXT)) == TEXT
    assert decompress(ZSTD, packed, 1 << 28) == TEXT


def test_a_window_larger_than_libzstd_accepts_by_default_is_refused() -> None:
    packed = zstd_without_size(TEXT, window_log=28)
    with pytest.raises(CompressionError, match="window"):
        decompress(ZSTD, packed, 1 << 30)


def test_a_damaged_checksum_is_noticed() -> None:
    for codec, packed in (
        (ZSTD, zstd_with_checksum(TEXT)),
        (LZ4, lz4_all_checksums(TEXT)),
        (GZIP, gzip.compress(TEXT)),
    ):
        damaged = bytearray(packed)
        damaged[-5 if codec == GZIP else -1] ^= 1
        with pytest.raises(CompressionError, match="damaged"):
            decompress(codec, damaged, len(TEXT))


def test_zstd_frame_of_nothing_needs_the_checksum_of_nothing() -> None:
    packer = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compressobj()
    packed = packer.compress(b"") + packer.flush()
    assert bytes(decompress(4, packed, 10)) == b""
    with pytest.raises(CompressionError, match="the checksum of nothing is wrong"):
        decompress(4, packed[:-1] + b"\0", 10)
