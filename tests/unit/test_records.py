"""Batches and records: built, read by others, read back, stamped and walked."""

from __future__ import annotations

from typing import Any

import aiokafka.record.default_records
import kafka.record.default_records
import pytest
from hypothesis import given, strategies as st

from tests.reference import records as reference
from tests.reference.crc32c import crc32c
from tests.reference.records import Header, RawRecord, encode_batch, encode_record
from tests.support.batches import (
    CODECS,
    GOOD,
    INPUTS,
    MIB,
    Input,
    expected_records,
    rules,
    some_inputs,
)
from warp._records import (
    BatchHeader,
    InvalidBatch,
    Record,
    build_batch,
    iterate_records,
    parse_header,
    scan_batches,
    stamp_batches,
    validate_produce,
    verify_batch,
    verify_batches,
    whole_batches,
)


@pytest.mark.parametrize("codec", CODECS)
@given(inputs=INPUTS)
def test_what_is_built_reads_back_and_is_what_the_reference_reads(codec: int, inputs: list[Input]) -> None:
    batch = build_batch(inputs, codec=codec, base_offset=77)
    assert list(iterate_records(batch, MIB)) == expected_records(inputs, 77)
    header, raw = reference.read_batch(batch)
    assert [record.offset_delta for record in raw] == list(range(len(inputs)))
    assert [header.base_timestamp + record.timestamp_delta for record in raw] == [each[3] for each in inputs]
    assert [(record.key, record.value) for record in raw] == [each[:2] for each in inputs]
    assert [[(name.decode(), value) for name, value in record.headers] for record in raw] == [
        each[2] for each in inputs
    ]
    assert reference.with_crc(batch) == batch


@given(inputs=INPUTS, base_offset=st.integers(0, 2**62), producer_id=st.integers(-1, 2**63 - 1))
def test_an_uncompressed_batch_is_byte_for_byte_that_of_the_reference(
    inputs: list[Input], base_offset: int, producer_id: int
) -> None:
    built = build_batch(
        inputs,
        base_offset=base_offset,
        producer_id=producer_id,
        producer_epoch=3,
        base_sequence=9,
        leader_epoch=5,
    )
    first = inputs[0][3]
    body = b"".join(
        encode_record(
            RawRecord(timestamp - first, index, key, value, [(name.encode(), item) for name, item in headers])
        )
        for index, (key, value, headers, timestamp) in enumerate(inputs)
    )
    header = Header(
        base_offset=base_offset,
        leader_epoch=5,
        last_offset_delta=len(inputs) - 1,
        base_timestamp=first,
        max_timestamp=max(each[3] for each in inputs),
        producer_id=producer_id,
        producer_epoch=3,
        base_sequence=9,
        record_count=len(inputs),
    )
    assert built == encode_batch(header, body)


LIBRARIES = [kafka.record.default_records, aiokafka.record.default_records]


def library_name(library: Any) -> str:
    return str(library.__name__).split(".")[0]


@pytest.mark.parametrize("library", LIBRARIES, ids=library_name)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("count", [1, 2, 500])
def test_what_other_libraries_build_is_valid_and_reads_back(library: Any, codec: int, count: int) -> None:
    inputs = some_inputs(count)
    builder = library.DefaultRecordBatchBuilder(2, codec, 1, 4000, 5, 17, MIB)
    for offset, (key, value, headers, timestamp) in enumerate(inputs):
        assert builder.append(offset, timestamp, key, value, headers) is not None
    data = bytes(builder.build())
    batch = validate_produce(data, rules())
    assert bytes(batch.data) == data
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (4000, 5, 17)
    assert (batch.record_count, batch.last_offset_delta) == (count, count - 1)
    assert batch.max_timestamp == max(each[3] for each in inputs)
    assert batch.is_transactional
    assert list(iterate_records(data, MIB)) == expected_records(inputs)


@pytest.mark.parametrize("library", LIBRARIES, ids=library_name)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("count", [1, 2, 500])
def test_other_libraries_read_what_is_built(library: Any, codec: int, count: int) -> None:
    inputs = some_inputs(count, seed=2)
    data = build_batch(
        inputs, codec=codec, base_offset=1 << 40, producer_id=8, producer_epoch=1, base_sequence=3
    )
    batch = library.DefaultRecordBatch(data)
    assert batch.validate_crc()
    assert (batch.base_offset, batch.producer_id, batch.producer_epoch, batch.base_sequence) == (
        1 << 40,
        8,
        1,
        3,
    )
    assert (batch.compression_type, batch.is_transactional, batch.is_control_batch) == (codec, False, False)
    assert [
        Record(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))
        for record in batch
    ] == expected_records(inputs, 1 << 40)


def test_header_names_that_are_not_utf8_survive_a_round_trip() -> None:
    batch = build_batch([(None, None, [(b"\xff\xfename", b"x"), ("ünï", None)], 5)])
    (record,) = iterate_records(batch, MIB)
    assert record.headers == (("\udcff\udcfename", b"x"), ("ünï", None))
    assert build_batch([(record.key, record.value, record.headers, record.timestamp)]) == batch


def test_log_append_time_overrides_the_timestamps_of_records() -> None:
    inputs: list[Input] = [(None, b"a", [], 100), (None, b"b", [], 300)]
    batch = build_batch(inputs, log_append=True, append_time_ms=5000)
    assert parse_header(batch).is_log_append_time
    assert [record.timestamp for record in iterate_records(batch, MIB)] == [5000, 5000]
    assert [record.timestamp for record in iterate_records(build_batch(inputs, log_append=True), MIB)] == [
        300,
        300,
    ]


def test_batches_that_can_not_be_built_are_refused() -> None:
    with pytest.raises(ValueError, match="needs a record"):
        build_batch([])
    with pytest.raises(TypeError):
        build_batch([("text", None, [], 0)])  # type: ignore[list-item]
    with pytest.raises(OverflowError):
        build_batch([(None, None, [], 2**63)])
    with pytest.raises(ValueError, match="unknown codec"):
        build_batch([(None, None, [], 0)], codec=7)


def test_control_batches_can_be_passed_over() -> None:
    control = build_batch([(b"\0\0\0\1", b"\0\0\0\0\0\0", [], 5)], is_control=True, is_transactional=True)
    data = bytearray(build_batch([(b"a", None, [], 1)]) + control + build_batch([(b"b", None, [], 1)]))
    stamp_batches(data, 0)
    assert [record.key for record in iterate_records(data, MIB)] == [b"a", b"\0\0\0\1", b"b"]
    assert [record.offset for record in iterate_records(data, MIB, skip_control=True)] == [0, 2]


def three_batches() -> tuple[bytearray, list[int]]:
    sizes = [3, 1, 40]
    parts = [build_batch(some_inputs(size, seed=size), codec=index) for index, size in enumerate(sizes)]
    return bytearray(b"".join(parts)), [len(part) for part in parts]


def test_stamping_gives_consecutive_offsets_and_leaves_the_crc_alone() -> None:
    data, lengths = three_batches()
    before = bytes(data)
    assert stamp_batches(data, 1 << 40, 6) == (1 << 40) + 44
    assert [record.offset for record in iterate_records(data, MIB)] == list(range(1 << 40, (1 << 40) + 44))
    position = 0
    for length in lengths:
        header = reference.decode_header(bytes(data[position:]))
        assert header.leader_epoch == 6
        assert header.crc == crc32c(data[position + 21 : position + length])
        assert data[position + 16 : position + length] == before[position + 16 : position + length]
        position += length


def test_stamping_is_all_or_nothing() -> None:
    data, _ = three_batches()
    with_tail = data + GOOD[:70]
    before = bytes(with_tail)
    for broken in (with_tail, data + GOOD[:30]):
        before = bytes(broken)
        with pytest.raises(InvalidBatch):
            stamp_batches(broken, 5)
        assert broken == before
    with pytest.raises(InvalidBatch, match="run out"):
        stamp_batches(data, 2**63 - 44)
    assert stamp_batches(data, 2**63 - 45) == 2**63 - 1
    with pytest.raises(ValueError, match="negative"):
        stamp_batches(data, -1)
    with pytest.raises(BufferError):
        stamp_batches(bytes(data), 5)
    assert stamp_batches(bytearray(), 5) == 5


def test_scanning_lists_whole_batches() -> None:
    data, lengths = three_batches()
    stamp_batches(data, 10)
    spans = scan_batches(data + GOOD[:-1])
    assert [span.size_bytes for span in spans] == lengths
    assert [span.position for span in spans] == [0, lengths[0], lengths[0] + lengths[1]]
    assert [(span.base_offset, span.last_offset_delta, span.record_count) for span in spans] == [
        (10, 2, 3),
        (13, 0, 1),
        (14, 39, 40),
    ]
    assert [span.attributes for span in spans] == [0, 1, 2]
    assert [span.max_timestamp for span in spans] == [
        max(each[3] for each in some_inputs(n, n)) for n in (3, 1, 40)
    ]
    assert scan_batches(b"") == []
    with pytest.raises(InvalidBatch):
        scan_batches(data + bytes(61))


def test_verifying_looks_at_the_header_the_size_and_the_crc() -> None:
    data = GOOD + GOOD
    assert verify_batch(data).size_bytes == verify_batch(data, len(GOOD)).size_bytes == len(GOOD)
    big = build_batch([(None, bytes(100_000), [], 1)])
    assert verify_batch(big).crc == reference.decode_header(big).crc
    for broken, message in (
        (GOOD[:-1], "cut short"),
        (GOOD[:60], "shorter"),
        (GOOD[:-1] + b"\1", "wrong CRC"),
        (big[:-1] + b"\1", "wrong CRC"),
        (GOOD[:16] + b"\1" + GOOD[17:], "magic"),
    ):
        with pytest.raises(InvalidBatch, match=message) as raised:
            verify_batch(broken)
        assert raised.value.error_code == 2
    for offset in (-1, len(data) + 1):
        with pytest.raises(InvalidBatch, match="outside"):
            verify_batch(data, offset)


@given(batches=st.lists(INPUTS, min_size=1, max_size=5), limit=st.integers(0, 5000))
def test_verifying_many_says_what_their_headers_say_together(batches: list[list[Input]], limit: int) -> None:
    encoded = [build_batch(inputs) for inputs in batches]
    data = b"".join(encoded)
    at = 0
    while encoded:
        totals = verify_batches(data, at, limit)
        headers: list[BatchHeader] = []
        while not headers or (sum(header.size_bytes for header in headers) < limit and encoded):
            headers.append(verify_batch(encoded.pop(0)))
        times = [header.base_timestamp for header in headers if header.base_timestamp != -1]
        largest = [header.max_timestamp for header in headers]
        assert totals == (
            sum(header.size_bytes for header in headers),
            sum(header.last_offset_delta + 1 for header in headers),
            sum(header.record_count for header in headers),
            min(times, default=-1),
            max(largest),
            largest.count(-1),
        )
        at += totals.size_bytes
    assert at == len(data)


def test_verifying_many_finds_the_one_that_is_wrong() -> None:
    big = build_batch([(None, bytes(100_000), [], 1)])
    for good in (GOOD, big):
        for broken, message in (
            (GOOD[:-1], "cut short"),
            (GOOD[:60], "shorter"),
            (GOOD[:-1] + b"\1", "wrong CRC"),
            (GOOD[:16] + b"\1" + GOOD[17:], "magic"),
        ):
            data = good + good + broken
            assert verify_batches(data, 0, 2 * len(good)).size_bytes == 2 * len(good)
            with pytest.raises(InvalidBatch, match=message) as raised:
                verify_batches(data, 0, 10**6)
            assert raised.value.error_code == 2
    for offset in (-1, len(GOOD), len(GOOD) + 1):
        with pytest.raises(InvalidBatch, match="outside"):
            verify_batches(GOOD, offset, 10)


def test_whole_batches_fit_a_limit() -> None:
    data, lengths = three_batches()
    first, two = lengths[0], lengths[0] + lengths[1]
    for limit, expected in [
        (first - 1, 0),
        (first, first),
        (two - 1, first),
        (two, two),
        (10**9, len(data)),
        (0, 0),
    ]:
        assert whole_batches(data, limit, False) == expected
        assert whole_batches(data, limit, True) == max(expected, first)
        assert whole_batches(data[: two + 70], limit, True) == min(max(expected, first), two)
    assert whole_batches(b"", 100, True) == 0
    assert whole_batches(data[: first - 1], 100, True) == 0


@pytest.mark.parametrize("offset", [-1, len(GOOD) - 60, len(GOOD) + 1, 2**40])
def test_a_header_outside_the_buffer_is_refused(offset: int) -> None:
    with pytest.raises(InvalidBatch):
        parse_header(GOOD, offset)
