"""What producers send: what is accepted, what is stored of it, and with which error code the rest is refused."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.reference import records as reference
from tests.reference.records import Header, RawRecord, encode_batch, encode_record
from tests.support.batches import (
    CODECS,
    GOOD,
    INPUTS,
    MIB,
    NOW_MS,
    Input,
    patched,
    raw_batch,
    rules,
)
from warp._records import (
    InvalidBatch,
    ValidatedBatch,
    build_batch,
    iterate_records,
    needs_thread,
    parse_header,
    validate_produce,
)


def refusal(data: bytes, **changes: Any) -> InvalidBatch:
    with pytest.raises(InvalidBatch) as raised:
        validate_produce(data, rules(**changes))
    return raised.value


@given(inputs=INPUTS, codec=st.sampled_from(CODECS))
def test_a_valid_batch_is_stored_as_it_came_without_a_copy(inputs: list[Input], codec: int) -> None:
    data = build_batch(inputs, codec=codec, producer_id=12, producer_epoch=0, base_sequence=2**31 - 1)
    batch = validate_produce(data, rules())
    assert isinstance(batch.data, memoryview)
    assert batch.data.obj is data
    header = reference.decode_header(data)
    for field in dataclasses.fields(header):
        assert getattr(batch, field.name) == getattr(header, field.name), field.name
        assert getattr(parse_header(b"junk" + data, 4), field.name) == getattr(header, field.name), field.name
    assert (batch.codec, batch.size_bytes) == (codec, len(data))
    assert not batch.is_transactional
    assert not batch.is_control
    assert not batch.is_log_append_time


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("stated", [-1, 0, NOW_MS + 5, 2**63 - 1])
def test_a_wrong_max_timestamp_is_put_right_in_a_copy(codec: int, stated: int) -> None:
    built = build_batch([(None, b"v", [], NOW_MS - 7), (None, b"w", [], NOW_MS - 9)], codec=codec)
    wrong = reference.with_crc(built[:35] + stated.to_bytes(8, "big", signed=True) + built[43:])
    untouched = bytearray(wrong)
    batch = validate_produce(untouched, rules())
    assert untouched == wrong
    assert batch.max_timestamp == NOW_MS - 7
    assert bytes(batch.data) == built
    assert batch.crc == reference.decode_header(built).crc


@pytest.mark.parametrize("codec", CODECS)
def test_log_append_time_is_stamped_into_a_copy(codec: int) -> None:
    """Timestamps that create time would refuse do not matter then."""
    data = build_batch([(b"k", b"v", [], -5), (b"k", b"w", [], 2**62)], codec=codec, leader_epoch=-1)
    untouched = bytearray(data)
    batch = validate_produce(untouched, rules(message_timestamp_type=1, timestamp_before_max_ms=0))
    assert untouched == data
    assert batch.is_log_append_time
    assert (batch.max_timestamp, batch.attributes) == (NOW_MS, 8 | codec)
    assert bytes(batch.data) == reference.validate(
        data, reference.Rules(message_timestamp_type=1, now_ms=NOW_MS)
    )
    assert [(record.value, record.timestamp) for record in iterate_records(batch.data, MIB)] == [
        (b"v", NOW_MS),
        (b"w", NOW_MS),
    ]


def with_length(length: int) -> bytes:
    return GOOD[:8] + length.to_bytes(4, "big", signed=True) + GOOD[12:]


FRAME_FAULTS: dict[str, tuple[bytes, int]] = {
    "no bytes": (b"", 87),
    "too short for a magic": (GOOD[:16], 2),
    "cut in the header": (GOOD[:60], 2),
    "cut after the header": (GOOD[:61], 2),
    "cut at the end": (GOOD[:-1], 2),
    "magic 0": (GOOD[:16] + b"\0" + GOOD[17:], 87),
    "magic 1": (GOOD[:16] + b"\1" + GOOD[17:], 87),
    "magic 3": (GOOD[:16] + b"\3" + GOOD[17:], 87),
    "two batches": (GOOD + GOOD, 87),
    "a batch and the start of another": (GOOD + GOOD[:5], 87),
    "base offset 1": (b"\0\0\0\0\0\0\0\1" + GOOD[8:], 87),
    "negative base offset": (b"\xff" * 8 + GOOD[8:], 87),
    "length 0": (with_length(0), 2),
    "length 48": (with_length(48), 2),
    "negative length": (with_length(-1), 2),
    "least length": (with_length(-(2**31)), 2),
    "length one more": (with_length(len(GOOD) - 11), 2),
    "greatest length": (with_length(2**31 - 1), 2),
    "CRC": (GOOD[:17] + b"\0\0\0\0" + GOOD[21:], 2),
    "last byte": (GOOD[:-1] + b"\1", 2),
}
HEADER_FAULTS: dict[str, tuple[bytes, int]] = {
    "no records": (patched(57, b"\0\0\0\0"), 87),
    "negative count": (patched(57, b"\xff\xff\xff\xff"), 87),
    "one record less": (patched(57, b"\0\0\0\2"), 87),
    "one record more": (patched(57, b"\0\0\0\4"), 87),
    "count and delta 0": (patched(23, b"\xff\xff\xff\xff", patched(57, b"\0\0\0\0")), 87),
    "control": (patched(21, b"\0\x20"), 87),
    "delete horizon": (patched(21, b"\0\x40"), 87),
    "log append time": (patched(21, b"\0\x08"), 32),
    "codec 5": (patched(21, b"\0\5"), 76),
    "codec 7": (patched(21, b"\0\7"), 76),
    "producer without sequence": (patched(43, (5).to_bytes(8, "big") + b"\0\0" + b"\xff" * 4), 87),
    "producer without epoch": (patched(43, (5).to_bytes(8, "big") + b"\xff\xff" + bytes(4)), 87),
    "producer id -2": (patched(43, (-2).to_bytes(8, "big", signed=True)), 87),
    "transactional without producer": (patched(21, b"\0\x10"), 87),
    "one record more in both counts": (patched(23, b"\0\0\0\3", patched(57, b"\0\0\0\4")), 87),
    "one record less in both counts": (patched(23, b"\0\0\0\1", patched(57, b"\0\0\0\2")), 87),
    "greatest count": (patched(23, b"\x7f\xff\xff\xfe", patched(57, b"\x7f\xff\xff\xff")), 87),
    "compressed by its header only": (patched(21, b"\0\4"), 87),
}


@pytest.mark.parametrize("name", [*FRAME_FAULTS, *HEADER_FAULTS])
def test_a_faulty_batch_is_refused_with_kafkas_code(name: str) -> None:
    data, code = (FRAME_FAULTS | HEADER_FAULTS)[name]
    error = refusal(data)
    assert error.error_code == code
    assert error.message
    assert str(error) == error.message
    assert error.record_errors == []


def test_checks_come_in_kafkas_order() -> None:
    """Each step takes back one fault; the code is that of the first one left."""
    zstd = build_batch([(b"k", b"v", [], NOW_MS)], codec=4)
    crc_wrong = zstd[:17] + b"\0\0\0\0" + zstd[21:]
    limits = {"allow_zstd": False, "max_message_bytes": 10}
    assert refusal(b"\1" * 8 + crc_wrong[8:16] + b"\1" + crc_wrong[17:] + b"more", **limits).error_code == 87
    assert refusal(b"\1" * 8 + crc_wrong[8:] + b"more", **limits).error_code == 76
    assert refusal(b"\1" * 8 + crc_wrong[8:] + b"more", max_message_bytes=10).message.endswith("one batch")
    assert refusal(b"\1" * 8 + crc_wrong[8:], max_message_bytes=10).message.endswith(
        "base offset other than 0"
    )
    assert refusal(crc_wrong[:-1], max_message_bytes=10).error_code == 10
    assert refusal(crc_wrong[:-1]).message.startswith("batch length")
    assert refusal(crc_wrong).message.endswith("wrong CRC")
    validate_produce(zstd, rules())


def test_the_size_limit_counts_the_whole_batch_as_it_came() -> None:
    packed = build_batch([(None, bytes(100_000), [], NOW_MS)], codec=4)
    validate_produce(packed, rules(max_message_bytes=len(packed)))
    assert refusal(packed, max_message_bytes=len(packed) - 1).error_code == 10


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_that_expands_too_far_is_too_large(codec: int) -> None:
    packed = build_batch([(None, bytes(100_000), [], NOW_MS)], codec=codec)
    validate_produce(packed, rules(decompressed_bytes_max=100_100))
    assert refusal(packed, decompressed_bytes_max=100_000).error_code == 10


def test_a_compacted_topic_needs_keys() -> None:
    data = build_batch([(b"k", b"", [], NOW_MS), (None, b"", [], NOW_MS), (b"", b"", [], NOW_MS)])
    validate_produce(data, rules())
    error = refusal(data, require_key=True)
    assert error.error_code == 87
    assert error.record_errors == [(1, "a compacted topic can't take a record without a key")]


@pytest.mark.parametrize(
    ("timestamp", "is_valid"),
    [
        (NOW_MS, True),
        (NOW_MS + 3_600_000, True),
        (NOW_MS + 3_600_001, False),
        (2**63 - 1, False),
        (NOW_MS - 1000, True),
        (NOW_MS - 1001, False),
        (0, False),
        (-1, True),
        (-2, False),
    ],
)
def test_timestamps_have_to_lie_around_the_present(timestamp: int, is_valid: bool) -> None:
    data = build_batch([(None, b"", [], NOW_MS), (None, b"", [], timestamp)])
    if is_valid:
        assert validate_produce(data, rules(timestamp_before_max_ms=1000)).record_count == 2
    else:
        error = refusal(data, timestamp_before_max_ms=1000)
        assert error.error_code == 32
        (found,) = error.record_errors
        assert found[0] == 1
        assert str(timestamp) in found[1]


def test_one_bad_timestamp_makes_the_code_invalid_timestamp() -> None:
    data = build_batch([(None, b"", [], NOW_MS), (b"k", b"", [], 2**62), (None, b"", [], NOW_MS)])
    error = refusal(data, require_key=True)
    assert error.error_code == 32
    assert [index for index, _ in error.record_errors] == [0, 1, 2]


def test_a_timestamp_beyond_64_bits_is_refused() -> None:
    data = raw_batch([RawRecord(0, 0, b"k", b""), RawRecord(2**63 - 1, 1, b"k", b"")], max_timestamp=NOW_MS)
    error = refusal(data, timestamp_after_max_ms=2**63 - 1)
    assert (error.error_code, error.record_errors) == (32, [(1, "timestamp does not fit into 64 bits")])


def test_offsets_inside_have_to_be_dense() -> None:
    data = raw_batch([RawRecord(0, 0, b"k", b""), RawRecord(0, 2, b"k", b""), RawRecord(0, 2, b"k", b"")])
    error = refusal(data)
    assert (error.error_code, error.record_errors) == (87, [(1, "offset delta is 2, not 1")])


def test_only_the_first_record_errors_are_listed() -> None:
    error = refusal(build_batch([(None, b"", [], NOW_MS)] * 1000), require_key=True)
    assert [index for index, _ in error.record_errors] == list(range(64))


def test_the_record_at_which_reading_stops_is_named() -> None:
    body = encode_record(RawRecord(0, 0, b"k", b"v"))
    data = encode_batch(Header(record_count=2, last_offset_delta=1), body + b"\x08\0\0\2")
    assert refusal(data).message.startswith("record 1 of 2: ")


@given(
    records=st.lists(
        st.builds(
            RawRecord,
            timestamp_delta=st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1)),
            offset_delta=st.integers(-1, 5),
            key=st.one_of(st.none(), st.just(b"k")),
            value=st.none(),
            attributes=st.integers(-128, 127),
        ),
        max_size=4,
    ),
    are_offsets_dense=st.booleans(),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "base_offset": st.integers(-1, 1),
            "attributes": st.sampled_from([8, 16, 32, 64, 128, 0x4000, 5]),
            "last_offset_delta": st.integers(-1, 4),
            "record_count": st.integers(-1, 5),
            "base_timestamp": st.one_of(
                st.integers(-2, NOW_MS + 9**8), st.sampled_from([-(2**63), 2**63 - 1])
            ),
            "max_timestamp": st.integers(-2, 9),
            "producer_id": st.integers(-3, 3),
            "producer_epoch": st.integers(-2, 2),
            "base_sequence": st.integers(-2, 2),
            "magic": st.integers(1, 3),
            "batch_length": st.integers(45, 80),
        },
    ),
    topic=st.builds(
        reference.Rules,
        max_message_bytes=st.sampled_from([80, 1048588]),
        message_timestamp_type=st.integers(0, 1),
        now_ms=st.sampled_from([0, NOW_MS]),
        timestamp_before_max_ms=st.sampled_from([0, 2, 2**63 - 1]),
        timestamp_after_max_ms=st.sampled_from([0, 3_600_000, 2**63 - 1]),
        require_key=st.booleans(),
    ),
)
def test_the_verdict_is_that_of_the_reference(
    records: list[RawRecord], are_offsets_dense: bool, fields: dict[str, int], topic: reference.Rules
) -> None:
    if are_offsets_dense:
        records = [dataclasses.replace(record, offset_delta=index) for index, record in enumerate(records)]
    data = raw_batch(records, **{"max_timestamp": NOW_MS} | fields)
    assert outcome(data, topic) == reference_outcome(data, topic)


def outcome(data: bytes, topic: reference.Rules) -> bytes | int:
    try:
        batch: ValidatedBatch = validate_produce(data, rules(**topic.__dict__))
    except InvalidBatch as error:
        return error.error_code
    return bytes(batch.data)


def reference_outcome(data: bytes, topic: reference.Rules) -> bytes | int:
    try:
        return reference.validate(data, topic)
    except reference.Refused as error:
        return error.code


def test_rules_that_make_no_sense_are_refused() -> None:
    for name in (
        "max_message_bytes",
        "timestamp_before_max_ms",
        "timestamp_after_max_ms",
        "decompressed_bytes_max",
    ):
        with pytest.raises(ValueError, match="negative"):
            rules(**{name: -1})
    with pytest.raises(ValueError, match="timestamp type"):
        rules(message_timestamp_type=2)
    with pytest.raises(TypeError):
        validate_produce(GOOD, None)  # type: ignore[arg-type]


def noise(count: int) -> bytes:
    return random.Random(3).randbytes(count)


@pytest.mark.parametrize(
    ("codec", "value", "expected"),
    [
        (0, bytes(4 * MIB), False),
        (1, noise(1000), False),
        (1, noise(10_000), True),
        (2, noise(200_000), False),
        (2, noise(300_000), True),
        (3, noise(900_000), False),
        (3, noise(1_100_000), True),
        (4, noise(200_000), False),
        (4, noise(300_000), True),
        # Few bytes that expand to many take as long as many.
        (2, bytes(300_000), True),
        (3, bytes(4 * MIB), True),
        (4, bytes(300_000), True),
    ],
)
def test_large_compressed_batches_are_worth_a_thread(codec: int, value: bytes, expected: bool) -> None:
    assert needs_thread(build_batch([(None, value, [], 0)], codec=codec)) is expected


def test_needs_thread_takes_anything() -> None:
    assert not needs_thread(b"")
    assert not needs_thread(GOOD[:40])
    assert needs_thread(patched(21, b"\0\4")), "malformed: what it costs to find out is unknown"
