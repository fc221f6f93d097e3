"""Record batches for tests: well-formed ones, and ones that are wrong in a chosen place."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.reference import records as reference
from tests.reference.records import Header, RawRecord, encode_batch, encode_record
from warp._records import BatchRules, Record, build_batch

NOW_MS = 1_700_000_000_000
MIB = 1 << 20
CODECS = range(5)
Input = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes | None]], int]

TIMESTAMPS = st.one_of(st.just(-1), st.integers(0, NOW_MS + 3_600_000))
BLOBS = st.one_of(st.none(), st.binary(max_size=20), st.binary(min_size=120, max_size=140))
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.one_of(st.none(), st.binary(max_size=5))), max_size=3)
INPUTS = st.lists(st.tuples(BLOBS, BLOBS, HEADERS, TIMESTAMPS), min_size=1, max_size=20)


def rules(**changes: Any) -> BatchRules:
    """The rules of a topic with default configs, but for `changes`."""
    values: dict[str, Any] = {
        "max_message_bytes": 1048588,
        "message_timestamp_type": 0,
        "now_ms": NOW_MS,
        "timestamp_before_max_ms": 2**63 - 1,
        "timestamp_after_max_ms": 3600000,
        "require_key": False,
        "decompressed_bytes_max": 64 * MIB,
    }
    return BatchRules(**values | changes)


def some_inputs(count: int, seed: int = 1) -> list[Input]:
    source = random.Random(seed)
    return [
        (
            source.choice([None, b"", b"key-%d" % index]),
            source.choice([None, b"value " * source.randrange(20)]),
            [("trace", source.randbytes(3)), ("none", None)] if index % 3 == 0 else [],
            NOW_MS + source.randrange(-1000, 1000),
        )
        for index in range(count)
    ]


def expected_records(inputs: Sequence[Input], base_offset: int = 0) -> list[Record]:
    return [
        Record(base_offset + index, timestamp, key, value, tuple(headers))
        for index, (key, value, headers, timestamp) in enumerate(inputs)
    ]


def raw_batch(records: Sequence[RawRecord], **fields: Any) -> bytes:
    """A batch of these records with consistent counts, but for `fields` of the header."""
    defaults: dict[str, Any] = {
        "last_offset_delta": len(records) - 1,
        "record_count": len(records),
        "base_timestamp": NOW_MS,
        "max_timestamp": NOW_MS + max((record.timestamp_delta for record in records), default=0),
    }
    body = b"".join(encode_record(record) for record in records)
    return encode_batch(Header(**defaults | fields), body)


def plain_records(count: int) -> list[RawRecord]:
    return [RawRecord(index, index, b"k", b"v") for index in range(count)]


GOOD = build_batch([(b"key", b"value", [], NOW_MS)] * 3)


def patched(at: int, value: bytes, data: bytes = GOOD) -> bytes:
    """With other bytes at a place of the header, and the CRC that belongs to them."""
    return reference.with_crc(data[:at] + value + data[at + len(value) :])
