"""Compaction: batches of a log, from an object, merged by key natively and by the reference.

The input is a script: offsets, times and limits, then batches, each behind how it is to be repaired. What the native
core reads it reads as the reference does; what it refuses, it refuses as a whole. Offsets go on tiling.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.repaired import COMPRESS, FIX_ALL, FIX_CRC, batches_of, written
from tests.reference import compaction as reference
from tests.reference.records import (
    CONTROL,
    DELETE_HORIZON,
    HEADER,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    Malformed,
    RawRecord,
    read_batch,
)
from tests.support.batches import CODECS, NOW_MS, raw_batch
from warp._compaction import Compacted, KeyMap, compact_batches, note_keys
from warp._compression import CompressionError, decompress
from warp._records import InvalidBatch, scan_batches

DECOMPRESSED_BYTES_MAX: Final = 1 << 18
BATCHES_MAX: Final = 6
MAP_BYTES_MAX: Final = 1 << 15
SECRET: Final = b"sixteen bytes..."
COMPLETE: Final = 2**63 - 1


def check(data: bytes) -> None:
    """Note the keys, compact, compare, and see what is left stay as it is when it is compacted again."""
    script = Script(data)
    base_offset, until_delta = script.number(8) >> 1, script.number(2)
    has_horizon = script.byte() & 1
    horizon_ms = NOW_MS + script.signed(4) if has_horizon else -1
    keys = KeyMap(MAP_BYTES_MAX >> script.byte() % 8, SECRET)
    until_offset = min(base_offset + until_delta, 2**63 - 1)
    batches = b"".join(batches_of(script, BATCHES_MAX)) + script.rest()
    stopped = _noted(batches, base_offset, keys, until_offset)
    if stopped is None:
        return
    until_offset = min(stopped, until_offset)
    compacted = _compacted(batches, base_offset, keys, until_offset, horizon_ms)
    if compacted is not None:
        _compare(batches, base_offset, until_offset, horizon_ms, compacted)


def _noted(batches: bytes, base_offset: int, keys: KeyMap, until_offset: int) -> int | None:
    """Where noting stopped; None where it was refused."""
    try:
        stopped = note_keys(
            batches,
            base_offset,
            keys,
            from_offset=base_offset,
            until_offset=until_offset,
            decompressed_bytes_max=DECOMPRESSED_BYTES_MAX,
        )
    except InvalidBatch as error:
        mark("note", said(error))
        return None
    mark("note", stopped < until_offset, min(len(keys), 4))
    assert len(keys) <= keys.keys_max
    return stopped


def _compacted(
    batches: bytes, base_offset: int, keys: KeyMap, until_offset: int, horizon_ms: int
) -> Compacted | None:
    try:
        compacted = compact_batches(
            batches,
            base_offset,
            keys,
            until_offset=until_offset,
            now_ms=NOW_MS,
            horizon_ms=horizon_ms,
            decompressed_bytes_max=DECOMPRESSED_BYTES_MAX,
        )
    except InvalidBatch as error:
        mark("compact", said(error))
        return None
    mark(
        "compact",
        min(compacted.record_count, 3),
        min(compacted.dropped_count, 3),
        compacted.horizon_count > 0,
    )
    return compacted


def _compare(batches: bytes, base_offset: int, until_offset: int, horizon_ms: int, found: Compacted) -> None:
    kept = bytes(found.batches)
    next_offset = base_offset
    for one in scan_batches(kept):
        assert one.base_offset == next_offset, "the offsets do not tile"
        next_offset += one.last_offset_delta + 1
    assert next_offset == found.end_offset
    if _are_all_looked_at(batches, base_offset, until_offset):
        newest: dict[bytes, int] = {}
        reference.note(batches, base_offset, newest, until_offset)
        expected = reference.compact(
            batches, base_offset, newest, until_offset=until_offset, now_ms=NOW_MS, horizon_ms=horizon_ms
        )
        assert kept == expected


def _are_all_looked_at(batches: bytes, base_offset: int, until_offset: int) -> bool:
    """Whether the native core reads the records of all batches, as the reference does: some it may pass on unread."""
    for one in scan_batches(batches):
        if one.record_count and (one.attributes & (CONTROL | TRANSACTIONAL) or base_offset >= until_offset):
            batch = batches[one.position : one.position + one.size_bytes]
            try:
                decompress(one.attributes & 7, batch[HEADER.size :], DECOMPRESSED_BYTES_MAX)
                read_batch(batch)
            except (CompressionError, Malformed):
                return False
        base_offset += one.last_offset_delta + 1
    return True


def seeds() -> Iterable[bytes]:
    """Keys that supersede each other, tombstones, horizons, transactions, every codec, what is compacted already."""

    def record(index: int, key: bytes | None, value: bytes | None = b"v") -> RawRecord:
        return RawRecord(index, index, key, value)

    def start(until: int, horizon: int = 0) -> bytes:
        offsets = (100).to_bytes(8, "big") + until.to_bytes(2, "big")
        return offsets + (bytes([1]) + bytes(4) if horizon else bytes(1)) + bytes(1)

    several = [record(0, b"a"), record(1, b"b", None), record(2, None), record(3, b"a")]
    for codec in CODECS:
        one = written(raw_batch(several, attributes=codec), FIX_ALL | (COMPRESS if codec else 0))
        yield start(8) + one + one
        yield start(8, 1) + one + one
        yield start(6) + one + one
    plain = written(raw_batch(several), FIX_CRC)
    of_horizon = written(raw_batch(several, attributes=DELETE_HORIZON, base_timestamp=NOW_MS - 5), FIX_CRC)
    yield start(12) + of_horizon + plain
    yield start(12) + written(raw_batch(several, attributes=TRANSACTIONAL, producer_id=4), FIX_CRC) + plain
    yield start(12) + written(raw_batch(several, attributes=CONTROL | TRANSACTIONAL), FIX_CRC) + plain
    yield start(12) + written(raw_batch(several, attributes=LOG_APPEND_TIME), FIX_CRC) + plain
    yield start(20) + written(raw_batch([], last_offset_delta=9), FIX_CRC) + plain + plain
    gaps = [replace(one, offset_delta=3 * one.offset_delta) for one in several]
    yield start(20) + written(raw_batch(gaps, last_offset_delta=20), FIX_CRC) + plain


TARGET = Target(
    check,
    seeds,
    words=(
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x01",
        b"\x02a",
        b"\x08\0\0\0\x02a\x02v\0",
    ),
)
