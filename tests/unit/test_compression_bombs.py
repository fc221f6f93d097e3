"""Small inputs that announce or hold huge outputs are refused, and the memory for them is never taken.

All bombs go off in one child process, whose address space is limited to little more than the codecs' own limit: to
allocate what a bomb announces is a MemoryError there.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import lz4.frame
import pytest

from warp._compression import CompressionError, ExpansionLimitError, decompress

MIB = 1 << 20
LIMIT_BYTES = 16 * MIB
ADDRESS_SPACE_SLACK_BYTES = 2 * LIMIT_BYTES + 32 * MIB
GZIP, SNAPPY, LZ4, ZSTD = range(1, 5)


def gzip_zeros(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()


def snappy_block(size: int) -> bytes:
    """A raw block of `size` zero bytes, size being 1 modulo 64: a literal, then copies of 64 bytes in three each."""
    preamble, rest = b"", size
    while rest > 127:
        preamble, rest = preamble + bytes([rest & 127 | 128]), rest >> 7
    return preamble + bytes([rest]) + b"\0\0" + b"\xfe\x01\x00" * (size // 64)


def snappy_stream(*chunks: bytes) -> bytes:
    framed = b"".join(struct.pack(">I", len(chunk)) + chunk for chunk in chunks)
    return b"\x82SNAPPY\0" + struct.pack(">II", 1, 1) + framed


def xxh32_of_a_few_bytes(data: bytes) -> int:
    """XXH32 with seed 0 of less than 16 bytes, as the xxHash specification has it."""
    primes = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
    value = primes[4] + len(data)
    words = len(data) // 4
    for (word,) in struct.iter_unpack("<I", data[: 4 * words]):
        value = (value + word * primes[2]) & 0xFFFFFFFF
        value = ((value << 17 | value >> 15) & 0xFFFFFFFF) * primes[3]
    for byte in data[4 * words :]:
        value = (value + byte * primes[4]) & 0xFFFFFFFF
        value = ((value << 11 | value >> 21) & 0xFFFFFFFF) * primes[0]
    value &= 0xFFFFFFFF
    value = ((value ^ value >> 15) * primes[1]) & 0xFFFFFFFF
    value = ((value ^ value >> 13) * primes[2]) & 0xFFFFFFFF
    return value ^ value >> 16


def lz4_zeros(blocks: int, declared: int | None = None) -> bytes:
    """Blocks of 4 MiB of zeros each."""
    four_mib = lz4.frame.BLOCKSIZE_MAX4MB
    plain = lz4.frame.compress(bytes(4 * MIB), block_size=four_mib, block_linked=False, store_size=False)
    descriptor, block = plain[4:6], plain[7:-4]
    if declared is not None:
        descriptor = bytes([descriptor[0] | 8, descriptor[1]]) + struct.pack("<Q", declared)
    checksum = xxh32_of_a_few_bytes(descriptor) >> 8 & 0xFF
    return plain[:4] + descriptor + bytes([checksum]) + block * blocks + bytes(4)


def zstd_zeros(blocks: int, declared: int | None = None, window_byte: int = 0x58) -> bytes:
    """Run-length blocks of 128 KiB of zeros each, in four bytes each."""
    head = b"\x28\xb5\x2f\xfd"
    head += bytes([0x00, window_byte]) if declared is None else bytes([0xE0]) + struct.pack("<Q", declared)
    block = (131072 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (0 << 3 | 1).to_bytes(3, "little")
    return head + block * blocks + last


def zstd_compressed_blocks(blocks: int) -> bytes:
    """Compressed blocks that are garbage inside but could, by their headers, hold 128 KiB each."""
    block = (4 << 3 | 2 << 1).to_bytes(3, "little") + b"\xff\xff\xff\xff"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * blocks + (1).to_bytes(3, "little")


EMPTY_GZIP = zlib.compressobj(9, zlib.DEFLATED, 31).flush()
SKIPPABLE = struct.pack("<II", 0x184D2A50, 0)

BOMBS: dict[str, tuple[int, Callable[[], bytes], type[CompressionError]]] = {
    "gzip": (GZIP, lambda: gzip_zeros(256 * MIB), ExpansionLimitError),
    "gzip, many members": (GZIP, lambda: gzip_zeros(MIB) * 100, ExpansionLimitError),
    "gzip, empty members without end": (GZIP, lambda: EMPTY_GZIP * 50_000, CompressionError),
    "snappy, preamble of 4 GiB": (SNAPPY, lambda: b"\xff\xff\xff\xff\x0f" + bytes(20), CompressionError),
    "snappy, preamble above 32 bits": (SNAPPY, lambda: b"\xff\xff\xff\xff\x7f" + bytes(20), CompressionError),
    "snappy, preamble without end": (SNAPPY, lambda: b"\xff" * 100, CompressionError),
    "snappy, preamble above the limit": (
        SNAPPY,
        lambda: b"\x81\x80\x80\x08" + bytes(900_000),
        ExpansionLimitError,
    ),
    "snappy, densest block": (SNAPPY, lambda: snappy_block(64 * MIB + 1), ExpansionLimitError),
    "snappy, densest chunks": (
        SNAPPY,
        lambda: snappy_stream(*[snappy_block(MIB + 1)] * 64),
        ExpansionLimitError,
    ),
    "snappy, chunk that lies": (SNAPPY, lambda: snappy_stream(b"\xff\xff\xff\xff\x0f\0a"), CompressionError),
    "snappy, tiny chunks without end": (
        SNAPPY,
        lambda: snappy_stream(*[b"\1\0a"] * 150_000),
        CompressionError,
    ),
    "snappy, empty chunks without end": (SNAPPY, lambda: snappy_stream(*[b"\0"] * 150_000), CompressionError),
    "snappy, headers without end": (SNAPPY, lambda: snappy_stream() * 60_000, CompressionError),
    "lz4, no size": (LZ4, lambda: lz4_zeros(64), ExpansionLimitError),
    "lz4, declared size of 2^62": (LZ4, lambda: lz4_zeros(1, declared=1 << 62), CompressionError),
    "lz4, declared size of 2^64 - 1": (LZ4, lambda: lz4_zeros(1, declared=(1 << 64) - 1), CompressionError),
    "lz4, declared and plausible": (LZ4, lambda: lz4_zeros(64, declared=256 * MIB), ExpansionLimitError),
    "lz4, declared too small": (LZ4, lambda: lz4_zeros(64, declared=1000), CompressionError),
    "lz4, many frames": (LZ4, lambda: lz4_zeros(1) * 50, ExpansionLimitError),
    "lz4, empty frames without end": (LZ4, lambda: lz4_zeros(0) * 50_000, CompressionError),
    "zstd, no size": (ZSTD, lambda: zstd_zeros(8192), ExpansionLimitError),
    "zstd, no size, window of 128 MiB": (
        ZSTD,
        lambda: zstd_zeros(8192, window_byte=0x88),
        ExpansionLimitError,
    ),
    "zstd, no size, largest window": (ZSTD, lambda: zstd_zeros(8192, window_byte=0xFF), CompressionError),
    "zstd, no size, garbage blocks": (ZSTD, lambda: zstd_compressed_blocks(8192), CompressionError),
    "zstd, declared size of 2^60": (ZSTD, lambda: zstd_zeros(1, declared=1 << 60), CompressionError),
    "zstd, declared size of 2^64 - 1": (
        ZSTD,
        lambda: zstd_zeros(1, declared=(1 << 64) - 1),
        CompressionError,
    ),
    "zstd, declared and plausible": (
        ZSTD,
        lambda: zstd_zeros(8192, declared=1024 * MIB),
        ExpansionLimitError,
    ),
    "zstd, declared too small": (ZSTD, lambda: zstd_zeros(8192, declared=200_000), CompressionError),
    "zstd, declared as nothing": (ZSTD, lambda: zstd_zeros(8192, declared=0), CompressionError),
    "zstd, many frames": (ZSTD, lambda: zstd_zeros(8) * 500, ExpansionLimitError),
    "zstd, empty frames without end": (ZSTD, lambda: zstd_zeros(0) * 50_000, CompressionError),
    "zstd, skippable frames without end": (ZSTD, lambda: SKIPPABLE * 100_000, CompressionError),
    "zstd, skippable frame of 4 GiB": (
        ZSTD,
        lambda: SKIPPABLE[:4] + b"\xff" * 4 + bytes(99),
        CompressionError,
    ),
}


def defuse(codec: int, bomb: bytes) -> str:
    """What comes of it: the name of the error, or how many bytes came out."""
    try:
        return str(len(bytes(decompress(codec, bomb, LIMIT_BYTES))))
    except (CompressionError, MemoryError) as error:
        return type(error).__name__


def hold(size: int) -> str:
    """What comes of holding that many bytes."""
    try:
        return str(len(bytearray(size)))
    except MemoryError:
        return "MemoryError"


def set_them_all_off() -> None:
    """The child process: prints a JSON object with what came of each bomb."""
    import resource
    from pathlib import Path

    bombs = {name: (codec, make()) for name, (codec, make, _) in BOMBS.items()}
    duds = {GZIP: EMPTY_GZIP, SNAPPY: snappy_block(65), LZ4: lz4_zeros(1), ZSTD: zstd_zeros(1)}
    for codec, small in duds.items():
        decompress(codec, small, LIMIT_BYTES)  # so that the libraries are loaded before the limit is set
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE_SLACK_BYTES, hard))
    outcomes = {"that the limit holds": hold(2 * ADDRESS_SPACE_SLACK_BYTES)}
    for name, (codec, bomb) in bombs.items():
        outcomes[name] = defuse(codec, bomb)
    print(json.dumps(outcomes))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    program = "from tests.unit.test_compression_bombs import set_them_all_off; set_them_all_off()"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    parsed: dict[str, str] = json.loads(ran.stdout)
    return parsed


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_without_the_memory_it_asks_for(name: str, outcomes: dict[str, str]) -> None:
    assert outcomes["that the limit holds"] == "MemoryError"
    assert outcomes[name] == BOMBS[name][2].__name__


@pytest.mark.parametrize(
    ("codec", "packed", "size"),
    [
        (GZIP, gzip_zeros(16 * MIB), 16 * MIB),
        (SNAPPY, snappy_block(8 * MIB + 1), 8 * MIB + 1),
        (SNAPPY, snappy_stream(*[snappy_block(MIB + 1)] * 15), 15 * MIB + 15),
        (LZ4, lz4_zeros(4), 16 * MIB),
        (LZ4, lz4_zeros(4, declared=16 * MIB), 16 * MIB),
        (ZSTD, zstd_zeros(128), 16 * MIB),
        (ZSTD, zstd_zeros(128, window_byte=0x88), 16 * MIB),
        (ZSTD, zstd_zeros(128, declared=16 * MIB), 16 * MIB),
        (ZSTD, zstd_zeros(8) * 16, 16 * MIB),
    ],
)
def test_the_same_shapes_within_the_limit_are_read(codec: int, packed: bytes, size: int) -> None:
    """So the bombs above are refused for their size and not because they are malformed."""
    assert bytes(decompress(codec, packed, LIMIT_BYTES)) == bytes(size)
