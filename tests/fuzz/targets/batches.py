"""Batches as they are read again: from an object, from a peer, from whoever wrote into the bucket.

The input is a script: where to look, then batches, each behind how it is to be repaired. Walking, verifying, stamping,
iterating and looking up either refuse, or agree with the reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.repaired import COMPRESS, FIX_ALL, FIX_CRC, batches_of, written
from tests.reference import records as reference
from tests.support.batches import CODECS, NOW_MS, plain_records, raw_batch, some_inputs
from warp._records import (
    InvalidBatch,
    Record,
    build_batch,
    find_max_timestamp,
    find_offset_by_timestamp,
    iterate_records,
    parse_header,
    scan_batches,
    stamp_batches,
    verify_batch,
    verify_batches,
    whole_batches,
)

DECOMPRESSED_BYTES_MAX: Final = 1 << 18
BATCHES_MAX: Final = 6


def check(data: bytes) -> None:
    """Read it in every way there is."""
    script = Script(data)
    timestamp, from_offset = script.signed(8), script.signed(8)
    offset, limit_bytes = script.signed(2), script.signed(2)
    base_offset = script.number(8) >> 1
    first_always = bool(script.byte() & 1)
    single = batches_of(script, BATCHES_MAX)
    batches = b"".join(single) + script.rest()
    _check_walks(batches, offset, limit_bytes, first_always)
    _check_stamping(batches, base_offset)
    records = _records_of(batches)
    _check_lookups(batches, records, timestamp, from_offset)
    if records is not None:
        assert records == list(_reference_records(batches))


def _check_walks(batches: bytes, offset: int, limit_bytes: int, first_always: bool) -> None:
    try:
        spans = scan_batches(batches)
    except InvalidBatch as error:
        mark("scan", said(error))
    else:
        assert all(one.position + one.size_bytes <= len(batches) for one in spans)
        assert [one.position for one in spans] == _starts(one.size_bytes for one in spans)
        size = whole_batches(batches, limit_bytes, first_always)
        fitting = [end for one in spans if (end := one.position + one.size_bytes) <= limit_bytes]
        first = spans[0].size_bytes if spans and first_always else 0
        assert size == max(first, *fitting, 0)
    for read in (parse_header, verify_batch):
        try:
            header = read(batches, offset)
        except InvalidBatch:
            continue
        assert header.batch_length >= reference.HEADER.size - 12
        assert read is parse_header or offset + header.size_bytes <= len(batches)
    try:
        totals = verify_batches(batches, offset, limit_bytes)
    except InvalidBatch as error:
        mark("totals", said(error))
        return
    mark("totals", "read")
    inside = scan_batches(batches[offset : offset + totals.size_bytes])
    assert sum(one.size_bytes for one in inside) == totals.size_bytes
    assert sum(one.record_count for one in inside) == totals.record_count
    assert sum(one.last_offset_delta + 1 for one in inside) == totals.offset_count


def _starts(sizes: Iterable[int]) -> list[int]:
    starts, position = [], 0
    for size in sizes:
        starts.append(position)
        position += size
    return starts


def _check_stamping(batches: bytes, base_offset: int) -> None:
    buffer = bytearray(batches)
    try:
        end_offset = stamp_batches(buffer, base_offset, 0)
    except InvalidBatch as error:
        mark("stamp", said(error))
        return
    spans = scan_batches(bytes(buffer))
    mark("stamp", min(len(spans), 3))
    assert len(buffer) == len(batches) == sum(one.size_bytes for one in spans)
    for one in spans:
        assert one.base_offset == base_offset
        base_offset += one.last_offset_delta + 1
    assert base_offset == end_offset


def _records_of(batches: bytes) -> list[Record] | None:
    try:
        records = list(iterate_records(batches, DECOMPRESSED_BYTES_MAX))
    except InvalidBatch as error:
        mark("iterate", error.error_code, said(error))
        return None
    mark("iterate", min(len(records), 3))
    control = [one.position for one in scan_batches(batches) if one.attributes & reference.CONTROL]
    passed = list(iterate_records(batches, DECOMPRESSED_BYTES_MAX, skip_control=True))
    assert passed == records if not control else len(passed) <= len(records)
    return records


def _check_lookups(batches: bytes, records: list[Record] | None, timestamp: int, from_offset: int) -> None:
    """Where every record can be read, a look-up finds what a search through all of them finds.

    That goes for batches whose headers tell the truth about their largest timestamp, by which look-ups pass them over.
    """
    try:
        newest = find_max_timestamp(batches, DECOMPRESSED_BYTES_MAX)
        found = find_offset_by_timestamp(batches, timestamp, DECOMPRESSED_BYTES_MAX, from_offset=from_offset)
    except InvalidBatch:
        assert records is None, "a look-up refuses what can be read"
        return
    if records is None or not _headers_are_true(batches):
        return
    mark("look-up", found is None)
    late = [one for one in records if one.timestamp >= timestamp and one.offset >= from_offset]
    assert found == ((late[0].offset, late[0].timestamp) if late else None)
    largest = max((one.timestamp for one in records), default=-1)
    with_largest = [one.offset for one in records if one.timestamp == largest]
    assert newest == ((with_largest[0], largest) if largest > -1 else (-1, -1))


def _headers_are_true(batches: bytes) -> bool:
    for raw in _split(batches):
        header, records = _read_batch(raw)
        times = [one.timestamp for one in _records_in(header, records)]
        if times and header.max_timestamp != max(times):
            return False
    return True


def _split(batches: bytes) -> Iterator[bytes]:
    for one in scan_batches(batches):
        yield batches[one.position : one.position + one.size_bytes]


def _reference_records(batches: bytes) -> Iterator[Record]:
    for raw in _split(batches):
        yield from _records_in(*_read_batch(raw))


def _read_batch(raw: bytes) -> tuple[reference.Header, list[reference.RawRecord]]:
    """What follows the header of a batch without records is not looked at."""
    header = reference.decode_header(raw)
    return reference.read_batch(raw) if header.record_count else (header, [])


def _records_in(header: reference.Header, records: list[reference.RawRecord]) -> Iterator[Record]:
    for one in records:
        timestamp = header.base_timestamp + one.timestamp_delta
        if header.attributes & reference.LOG_APPEND_TIME:
            timestamp = header.max_timestamp
        # As Java's long: it wraps.
        timestamp = (timestamp + 2**63) % 2**64 - 2**63
        headers = tuple((name.decode("utf-8", "surrogateescape"), value) for name, value in one.headers)
        yield Record(header.base_offset + one.offset_delta, timestamp, one.key, one.value, headers)


def seeds() -> Iterable[bytes]:
    """One batch and several, of every codec."""
    start = NOW_MS.to_bytes(8, "big") + bytes(8) + bytes(2) + b"\x7f\xff" + (42).to_bytes(8, "big") + b"\1"
    for codec in CODECS:
        yield start + written(build_batch(some_inputs(5), codec=codec, base_offset=7), FIX_CRC)
    plain = written(raw_batch(plain_records(3)), FIX_ALL)
    squeezed = written(raw_batch(plain_records(3), attributes=4), FIX_ALL | COMPRESS)
    yield start + plain + squeezed + plain
    yield (
        start
        + written(raw_batch(plain_records(2), attributes=reference.CONTROL | reference.TRANSACTIONAL))
        + plain
    )
    yield start + written(raw_batch([], last_offset_delta=5)) + plain
    yield start + written(raw_batch(plain_records(2), attributes=reference.LOG_APPEND_TIME)) + b"cut short"


TARGET = Target(
    check,
    seeds,
    words=(
        b"\x01",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\x31",
    ),
)
