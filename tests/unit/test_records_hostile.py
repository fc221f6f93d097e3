"""Hostile record batches: whatever the bytes, the worst that happens is InvalidBatch, and it is the right one."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.reference import records as reference
from tests.reference.records import HEADER, Header, RawRecord, encode_batch, encode_record, encode_varint
from tests.support.batches import CODECS, GOOD, MIB, NOW_MS, rules, some_inputs
from warp._compression import compress
from warp._records import (
    InvalidBatch,
    build_batch,
    find_max_timestamp,
    find_offset_by_timestamp,
    iterate_records,
    needs_thread,
    parse_header,
    scan_batches,
    stamp_batches,
    validate_produce,
    verify_batch,
    verify_batches,
    whole_batches,
)

TOPIC = reference.Rules(now_ms=NOW_MS)
CAPTURED = {codec: build_batch(some_inputs(6), codec=codec) for codec in CODECS}

READERS: dict[str, Callable[[Any], object]] = {
    "validate_produce": lambda data: validate_produce(data, rules(decompressed_bytes_max=MIB)),
    "needs_thread": needs_thread,
    "parse_header": parse_header,
    "verify_batch": verify_batch,
    "verify_batches": lambda data: verify_batches(data, 0, 2**40),
    "stamp_batches": lambda data: stamp_batches(bytearray(data), 5),
    "scan_batches": scan_batches,
    "whole_batches": lambda data: whole_batches(data, 1000, True),
    "iterate_records": lambda data: list(iterate_records(data, MIB)),
    "find_offset_by_timestamp": lambda data: find_offset_by_timestamp(data, NOW_MS, MIB),
    "find_max_timestamp": lambda data: find_max_timestamp(data, MIB),
}


def read_with_everything(data: bytes) -> None:
    """Nothing but InvalidBatch may come out of any reader, or the test fails."""
    for read in READERS.values():
        try:
            read(data)
        except InvalidBatch:
            continue


def flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def outcome(data: bytes) -> bytes | int:
    """What is stored, or the error code."""
    try:
        return bytes(validate_produce(data, rules()).data)
    except InvalidBatch as error:
        return error.error_code


def reference_outcome(data: bytes) -> bytes | int:
    try:
        return reference.validate(data, TOPIC)
    except reference.Refused as error:
        return error.code


def batch_around(records: bytes, count: int, codec: int = 0) -> bytes:
    """A batch whose header is in order and that holds these bytes as its records."""
    header = Header(
        attributes=codec,
        record_count=count,
        last_offset_delta=count - 1,
        base_timestamp=NOW_MS,
        max_timestamp=NOW_MS,
    )
    return encode_batch(header, compress(codec, records))


@pytest.mark.parametrize("codec", CODECS)
def test_every_truncation_is_refused(codec: int) -> None:
    data = CAPTURED[codec]
    for length in range(len(data)):
        cut = data[:length]
        assert outcome(cut) == (87 if length == 0 else 2), length
        read_with_everything(cut)


@pytest.mark.parametrize("codec", CODECS)
def test_every_truncation_of_the_records_under_a_right_header_is_refused(codec: int) -> None:
    data = CAPTURED[codec]
    for length in range(HEADER.size, len(data)):
        size = struct.pack(">i", length - 12)
        cut = reference.with_crc(data[:8] + size + data[12:length])
        assert outcome(cut) == 87, length
        read_with_everything(cut)


@pytest.mark.parametrize("codec", CODECS)
def test_every_bit_flip_is_noticed_but_in_the_leader_epoch(codec: int) -> None:
    data = CAPTURED[codec]
    for bit in range(8 * len(data)):
        flipped, place = flip(data, bit), bit // 8
        if 12 <= place < 16:
            assert outcome(flipped) == flipped
        elif place < 8 or place == 16:
            assert outcome(flipped) == 87
        elif place < 12:
            assert outcome(flipped) in {2, 87}
        else:
            assert outcome(flipped) == 2
        read_with_everything(flipped)


def test_every_bit_flip_under_a_right_crc_gets_the_verdict_of_the_reference() -> None:
    data = CAPTURED[0]
    for bit in range(8 * 21, 8 * len(data)):
        fixed = reference.with_crc(flip(data, bit))
        codec = fixed[22] & 7
        if codec in (0, 5, 6, 7):
            assert outcome(fixed) == reference_outcome(fixed), bit
        else:
            assert outcome(fixed) == 87, bit
        read_with_everything(fixed)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_every_bit_flip_in_compressed_records_under_a_right_crc_is_survived(codec: int) -> None:
    data = CAPTURED[codec]
    for bit in range(8 * HEADER.size, 8 * len(data)):
        fixed = reference.with_crc(flip(data, bit))
        # What changes only the values of records is as good as what was there before.
        assert isinstance(outcome(fixed), bytes) or outcome(fixed) in {10, 32, 87}, bit
        read_with_everything(fixed)


@given(records=st.binary(max_size=60), count=st.integers(1, 4))
def test_any_bytes_as_records_get_the_verdict_of_the_reference(records: bytes, count: int) -> None:
    data = batch_around(records, count)
    assert outcome(data) == reference_outcome(data)
    read_with_everything(data)


SMALL = st.integers(-3, 12)
OFF_BY_ONE = st.sampled_from([0, 0, 0, -1, 1])
PIECES = st.one_of(
    SMALL.map(encode_varint),
    st.binary(max_size=3),
    st.sampled_from([-(2**63), -(2**31), 2**31 - 1, 2**31, 2**32, 2**63 - 1]).map(encode_varint),
)


@given(
    bodies=st.lists(
        st.tuples(st.lists(PIECES, max_size=10).map(b"".join), st.sampled_from([0, 0, 0, -1, 1])),
        min_size=1,
        max_size=3,
    ),
    count_error=OFF_BY_ONE,
)
def test_almost_records_get_the_verdict_of_the_reference(
    bodies: list[tuple[bytes, int]], count_error: int
) -> None:
    records = b"".join(encode_varint(len(body) + 1 + error) + b"\0" + body for body, error in bodies)
    data = batch_around(records, max(len(bodies) + count_error, 1))
    assert outcome(data) == reference_outcome(data)
    read_with_everything(data)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    read_with_everything(data)
    read_with_everything(GOOD + data)
    read_with_everything(GOOD[:16] + b"\2" + data)


@given(
    position=st.integers(0, HEADER.size - 1),
    value=st.sampled_from(
        [b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"]
    ),
    codec=st.sampled_from(CODECS),
    times=st.integers(1, 3),
)
def test_extreme_values_in_the_header_are_survived(
    position: int, value: bytes, codec: int, times: int
) -> None:
    data = CAPTURED[codec]
    changed = reference.with_crc(data[:position] + value + data[position + len(value) :])
    read_with_everything(changed)
    read_with_everything(data + changed * times)
    read_with_everything(changed[: len(data) // 2])


RECORD = encode_record(RawRecord(0, 0, b"k", b"v"))
HUGE = encode_varint(2**31 - 1)
NO_LENGTH, CUT = "record length is malformed or missing", "record is longer than what is left"


def sized(body: bytes) -> bytes:
    """A record of this body, under its right length."""
    return encode_varint(len(body)) + body


MALFORMED_RECORDS: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", NO_LENGTH),
    "length 0": (b"\0", "record is empty"),
    "negative length": (b"\x01", CUT),
    "greatest length": (HUGE + RECORD, CUT),
    "length of six bytes": (b"\x90\x80\x80\x80\x80\0" + RECORD[1:], NO_LENGTH),
    "length above 32 bits": (b"\x90\x80\x80\x80\x10" + RECORD[1:], NO_LENGTH),
    "length without end": (b"\x80", NO_LENGTH),
    "one byte less than its length": (RECORD[:-1], CUT),
    "one byte after the record": (RECORD + b"\0", "bytes are left after the last record"),
    "a record after the record": (RECORD + RECORD, "bytes are left after the last record"),
    "length one too small": (b"\x0e" + RECORD[1:], "record has a malformed header count"),
    "length one too large": (b"\x12" + RECORD[1:] + b"\0", "record does not end where its length says"),
    "attributes only": (sized(b"\0"), "record has a malformed timestamp"),
    "timestamp of eleven bytes": (sized(b"\0" + b"\x80" * 10 + b"\0\0\1\1\0"), "malformed timestamp"),
    "timestamp above 64 bits": (sized(b"\0" + b"\x80" * 9 + b"\2\0\1\1\0"), "malformed timestamp"),
    "offset without end": (sized(b"\0\0\x80"), "malformed offset"),
    "key length -2": (sized(b"\0\0\0\3\1\0"), "malformed key"),
    "least key length": (sized(b"\0\0\0" + encode_varint(-(2**31)) + b"\1\0"), "malformed key"),
    "greatest key length": (sized(b"\0\0\0" + HUGE + b"\1\0"), "malformed key"),
    "key longer than its record": (sized(b"\0\0\0\x08\1\0") + b"next", "malformed key"),
    "value length -2": (sized(b"\0\0\0\1\3\0"), "malformed value"),
    "greatest value length": (sized(b"\0\0\0\1" + HUGE + b"\0"), "malformed value"),
    "value longer than its record": (sized(b"\0\0\0\1\4\0") + b"next", "malformed value"),
    "no header count": (sized(b"\0\0\0\1\1"), "malformed header count"),
    "negative header count": (sized(b"\0\0\0\1\1\1"), "malformed headers"),
    "greatest header count": (sized(b"\0\0\0\1\1" + HUGE), "malformed headers"),
    "one header more than there are": (sized(b"\0\0\0\1\1\4\0\1"), "malformed headers"),
    "null header name": (sized(b"\0\0\0\1\1\2\1\1"), "malformed headers"),
    "header value length -2": (sized(b"\0\0\0\1\1\2\0\3"), "malformed headers"),
    "greatest header name length": (sized(b"\0\0\0\1\1\2" + HUGE + b"\1"), "malformed headers"),
    "header longer than its record": (sized(b"\0\0\0\1\1\2\4\1") + b"next", "malformed headers"),
}


@pytest.mark.parametrize("name", MALFORMED_RECORDS)
@pytest.mark.parametrize("codec", CODECS)
def test_malformed_records_are_refused_for_what_is_wrong_with_them(name: str, codec: int) -> None:
    records, message = MALFORMED_RECORDS[name]
    data = batch_around(records, 1, codec)
    for read in (READERS["validate_produce"], READERS["iterate_records"], READERS["find_max_timestamp"]):
        with pytest.raises(InvalidBatch, match=message) as raised:
            read(data)
        assert raised.value.error_code == 87


def test_a_negative_offset_is_refused() -> None:
    data = batch_around(sized(b"\0\0\1\1\1\0"), 1)
    assert outcome(data) == 87
    with pytest.raises(InvalidBatch, match="outside the offsets of its batch"):
        list(iterate_records(data, MIB))


def test_varints_longer_than_needed_are_read_as_kafka_reads_them() -> None:
    body = b"\0" + b"\x80\x80\0" + b"\x80\0" + b"\x81\0" + b"\1" + b"\x80\0"
    data = batch_around(bytes([2 * len(body) | 0x80]) + b"\0" + body, 1)
    assert outcome(data) == data == reference_outcome(data)


@pytest.mark.parametrize("bits", range(64))
def test_timestamp_deltas_of_every_size_read_back(bits: int) -> None:
    for delta in (2**bits - 1, -(2**bits), 2**bits >> 1):
        data = encode_batch(Header(record_count=1), encode_record(RawRecord(delta, 0, None, None)))
        (record,) = iterate_records(data, MIB)
        assert record.timestamp == delta


@pytest.mark.parametrize("count", [2, 1000, 2**31 - 1])
@pytest.mark.parametrize("codec", CODECS)
def test_a_count_larger_than_the_bytes_is_refused_at_once(count: int, codec: int) -> None:
    data = batch_around(RECORD, count, codec)
    assert outcome(data) == 87
    read_with_everything(data)


def test_a_timestamp_that_wraps_does_so_as_in_java() -> None:
    header = Header(record_count=1, base_timestamp=2**63 - 1, max_timestamp=2**63 - 1)
    data = encode_batch(header, encode_record(RawRecord(1, 0, None, None)))
    assert [record.timestamp for record in iterate_records(data, MIB)] == [-(2**63)]
    assert outcome(data) == 32


def test_refusing_leaks_nothing() -> None:
    """A refusal holds neither the buffer nor a reference to it."""
    data = bytearray(CAPTURED[4])
    data[-1] ^= 1
    before = sys.getrefcount(data)
    for _ in range(100):
        for read in (READERS["validate_produce"], READERS["iterate_records"], READERS["find_max_timestamp"]):
            with pytest.raises(InvalidBatch):
                read(data)
    assert sys.getrefcount(data) == before
    data.clear()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("wrong", [None, 5, "text", [1, 2]])
def test_what_is_no_buffer_is_a_type_error(name: str, wrong: object) -> None:
    read = (lambda data: stamp_batches(data, 5)) if name == "stamp_batches" else READERS[name]
    with pytest.raises(TypeError):
        read(wrong)


def test_bytes_after_the_records_are_malformed_whatever_else_is_wrong() -> None:
    late = RawRecord(2**40, 0, b"k", b"v")
    with pytest.raises(InvalidBatch, match="bytes are left after the last record") as raised:
        validate_produce(batch_around(encode_record(late) + b"\0", 1, 0), rules())
    assert raised.value.error_code == 87
    assert [index for index, _ in raised.value.record_errors] == [0]
