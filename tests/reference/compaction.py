"""Compaction of batches by key, one step at a time: what the native core is held against.

Kafka's rules: the newest record of each key stays, records without key go, tombstones go once their batch's delete
horizon has passed. What goes leaves no gap in the offsets that batches cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.reference.records import (
    CONTROL,
    DELETE_HORIZON,
    HEADER,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    Header,
    RawRecord,
    decode_header,
    encode_batch,
    encode_record,
    read_batch,
)
from warp._compression import compress

INT32_MAX = 2**31 - 1


def split(data: bytes) -> list[bytes]:
    """The single batches."""
    batches = []
    while data:
        size = 12 + decode_header(data).batch_length
        batches.append(data[:size])
        data = data[size:]
    return batches


def note(data: bytes, base_offset: int, newest: dict[bytes, int], until_offset: int) -> None:
    """Note the newest offset of each key below an offset."""
    for raw in split(data):
        header, records = read_batch(raw)
        if not header.attributes & (CONTROL | TRANSACTIONAL):
            for record in records:
                offset = base_offset + record.offset_delta
                if record.key is not None and offset < until_offset:
                    newest[record.key] = max(newest.get(record.key, -1), offset)
        base_offset += header.last_offset_delta + 1


def compact(
    data: bytes,
    base_offset: int,
    newest: dict[bytes, int],
    *,
    until_offset: int,
    now_ms: int,
    horizon_ms: int,
) -> bytes:
    """The batches that are left, tiling the same offsets."""
    kept: list[bytes] = []
    offset, gone_ms = base_offset, -1
    for raw in split(data):
        header, records = read_batch(raw)
        header = replace(header, base_offset=offset, leader_epoch=0)
        offset += header.last_offset_delta + 1
        if header.attributes & TRANSACTIONAL and not header.attributes & CONTROL:
            horizon_ms = -1
        if header.attributes & (CONTROL | TRANSACTIONAL) and records:
            kept.append(encode_batch(header, raw[HEADER.size :]))
            continue
        left = [r for r in records if _is_kept(header, r, newest, until_offset, now_ms)]
        if left:
            kept.append(_rewritten(raw, header, records, left, until_offset, horizon_ms))
        else:
            gone_ms = max(gone_ms, header.max_timestamp)
    return _tiled(kept, base_offset, offset, gone_ms)


def _is_kept(
    header: Header, record: RawRecord, newest: dict[bytes, int], until_offset: int, now_ms: int
) -> bool:
    offset = header.base_offset + record.offset_delta
    has_passed = bool(header.attributes & DELETE_HORIZON) and header.base_timestamp <= now_ms
    if offset >= until_offset:
        return True
    if record.key is None or (record.value is None and has_passed):
        return False
    return offset >= newest.get(record.key, -1)


def _rewritten(
    raw: bytes, header: Header, records: Sequence[RawRecord], left: Sequence[RawRecord], until: int, horizon: int
) -> bytes:  # fmt: skip
    end = header.base_offset + header.last_offset_delta + 1
    has_tombstone = any(record.value is None for record in left)
    gets_horizon = has_tombstone and horizon != -1 and not header.attributes & DELETE_HORIZON and end <= until
    if len(left) == len(records) and not gets_horizon:
        return encode_batch(header, raw[HEADER.size :])
    times = [_as_long(header.base_timestamp + record.timestamp_delta) for record in left]
    if not header.attributes & LOG_APPEND_TIME:
        header = replace(header, max_timestamp=max(-1, *times))
    if gets_horizon:
        header = replace(header, attributes=header.attributes | DELETE_HORIZON, base_timestamp=horizon)
    deltas = [_as_long(time - header.base_timestamp) for time in times]
    left = [replace(record, timestamp_delta=delta) for record, delta in zip(left, deltas, strict=True)]
    payload = compress(header.codec, b"".join(map(encode_record, left)))
    return encode_batch(replace(header, batch_length=0, record_count=len(left)), payload)


def _as_long(value: int) -> int:
    """As Java's long: it wraps."""
    return (value + 2**63) % 2**64 - 2**63


def _tiled(kept: Sequence[bytes], base_offset: int, end_offset: int, gone_ms: int) -> bytes:
    """The batches with every gap behind one covered by stretching it, or by batches without records."""
    out: list[bytes] = []
    covered = base_offset
    for raw, until in zip(
        [None, *kept], [*(decode_header(k).base_offset for k in kept), end_offset], strict=True
    ):
        if raw is not None:
            header = decode_header(raw)
            covered = header.base_offset + header.last_offset_delta + 1
            delta = until - 1 - header.base_offset
            is_fixed = bool(header.attributes & (CONTROL | TRANSACTIONAL))
            if covered < until and delta <= INT32_MAX and not is_fixed:
                header = replace(header, last_offset_delta=delta, base_sequence=-1)
                raw, covered = encode_batch(header, raw[HEADER.size :]), until
            out.append(raw)
        while covered < until:
            time_ms = -1 if kept else gone_ms
            delta = min(until - 1 - covered, INT32_MAX)
            empty = Header(covered, leader_epoch=0, last_offset_delta=delta)
            out.append(encode_batch(replace(empty, base_timestamp=time_ms, max_timestamp=time_ms), b""))
            covered += delta + 1
    return b"".join(out)
