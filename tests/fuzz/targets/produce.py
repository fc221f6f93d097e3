"""What producers send: one batch under the rules of a topic, judged by the native core and by the reference.

The input is a script: rules, what is to be put right, then the batch. Old message sets (magic 0 and 1) are among the
seeds; they are refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any, Final

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.repaired import COMPRESS, FIX_ALL, repaired
from tests.reference import records as reference
from tests.support.batches import CODECS, NOW_MS, plain_records, raw_batch, some_inputs
from warp._compression import CompressionError, compress, decompress
from warp._records import BatchRules, InvalidBatch, build_batch, needs_thread, validate_produce

DECOMPRESSED_BYTES_MAX: Final = 1 << 20
_LATEST = (3_600_000, 0, 2**63 - 1, 1)


def check(data: bytes) -> None:
    """Validate it natively and by the reference."""
    script = Script(data)
    choices, how = script.byte(), script.byte()
    rules: dict[str, Any] = {
        "max_message_bytes": 1048588 if choices & 1 else 300,
        "message_timestamp_type": choices >> 1 & 1,
        "now_ms": NOW_MS,
        "timestamp_before_max_ms": (2**63 - 1) if choices >> 2 & 1 else 1000,
        "timestamp_after_max_ms": _LATEST[choices >> 3 & 3],
        "require_key": bool(choices >> 5 & 1),
        "allow_zstd": not choices >> 6 & 1,
    }
    batch = repaired(script.rest(), how)
    needs_thread(batch)
    _compare(batch, rules)


def _compare(batch: bytes, rules: dict[str, Any]) -> None:
    try:
        found = validate_produce(batch, BatchRules(**rules, decompressed_bytes_max=DECOMPRESSED_BYTES_MAX))
        stored, code = bytes(found.data), 0
    except InvalidBatch as error:
        mark(error.error_code, said(error), bool(error.record_errors))
        stored, code = b"", error.error_code
    if _is_beyond_reference(batch):
        return
    expected, expected_code = b"", 0
    try:
        expected = reference.validate(batch, reference.Rules(**rules))
    except reference.Refused as error:
        expected_code = error.code
    assert (code, stored) == (expected_code, expected)


def _is_beyond_reference(batch: bytes) -> bool:
    """Whether the records can't be decompressed: the reference knows no limits, and trusts what it decompresses."""
    codec = batch[22] & 7 if len(batch) >= reference.HEADER.size else 0
    if codec == 0 or codec > 4:
        return False
    try:
        decompress(codec, batch[reference.HEADER.size :], DECOMPRESSED_BYTES_MAX)
    except CompressionError:
        return True
    return False


def message_set(magic: int, codec: int = 0) -> bytes:
    """A message of the formats before record batches, also one that wraps another (KIP-31, KIP-32)."""
    value = b"value" if codec == 0 else compress(codec, message_set(magic))
    body = struct.pack(">bb", magic, codec) + (struct.pack(">q", NOW_MS) if magic else b"")
    body += struct.pack(">i", 3) + b"key" + struct.pack(">i", len(value)) + value
    message = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", 0, len(message)) + message


def seeds() -> Iterable[bytes]:
    """Good batches of every codec, of a producer, with headers; records that the target compresses; message sets."""
    start = bytes([0b101, 0])
    for codec in CODECS:
        yield start + build_batch(some_inputs(6), codec=codec)
    yield start + build_batch(some_inputs(3), producer_id=7, producer_epoch=1, base_sequence=5)
    yield start + build_batch(
        some_inputs(3), producer_id=7, producer_epoch=1, base_sequence=5, is_transactional=True
    )
    yield bytes([0b111, FIX_ALL]) + build_batch(some_inputs(3))
    for codec in CODECS:
        yield bytes([0b100101, FIX_ALL | COMPRESS]) + raw_batch(plain_records(4), attributes=codec)
    yield from (start + message_set(magic) for magic in (0, 1))
    yield from (start + message_set(1, codec) for codec in (1, 2, 3))


TARGET = Target(
    check,
    seeds,
    words=(
        b"\x01",
        b"\xff\xff\xff\xff\x0f",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
        b"\x04\x22\x4d\x18",
        b"\x28\xb5\x2f\xfd",
        b"\x1f\x8b\x08\0",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
    ),
)
