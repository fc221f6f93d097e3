"""Looking up records by timestamp and offset inside batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from tests.reference.records import Header, RawRecord, encode_batch, encode_record
from tests.support.batches import (
    CODECS,
    INPUTS,
    MIB,
    NOW_MS,
    Input,
    expected_records,
    some_inputs,
)
from warp._records import (
    InvalidBatch,
    Record,
    build_batch,
    find_max_timestamp,
    find_offset_by_timestamp,
    iterate_records,
    stamp_batches,
)


def stored(inputs: Sequence[Input], **options: Any) -> list[Record]:
    """The obvious way to look something up: list everything."""
    return list(iterate_records(build_batch(inputs, **options), MIB))


@given(inputs=INPUTS, codec=st.sampled_from(CODECS), pick=st.integers(0, 19), shift=st.integers(-1, 1))
def test_the_first_record_at_or_after_a_timestamp_is_found(
    inputs: list[Input], codec: int, pick: int, shift: int
) -> None:
    timestamp = max(inputs[pick % len(inputs)][3] + shift, 0)
    batch = build_batch(inputs, codec=codec, base_offset=100)
    hits = [(index + 100, each[3]) for index, each in enumerate(inputs) if each[3] >= timestamp]
    assert find_offset_by_timestamp(batch, timestamp, MIB) == (hits[0] if hits else None)
    later = [hit for hit in hits if hit[0] >= 103]
    assert find_offset_by_timestamp(batch, timestamp, MIB, from_offset=103) == (later[0] if later else None)


@given(inputs=INPUTS, codec=st.sampled_from(CODECS))
def test_the_first_record_with_the_largest_timestamp_is_found(inputs: list[Input], codec: int) -> None:
    batch = build_batch(inputs, codec=codec, base_offset=100)
    largest = max(each[3] for each in inputs)
    first = [each[3] for each in inputs].index(largest)
    assert find_max_timestamp(batch, MIB) == ((100 + first, largest) if largest >= 0 else (-1, -1))


def test_look_ups_go_over_consecutive_batches() -> None:
    parts: list[list[Input]] = [
        [(None, None, [], time) for time in times] for times in ([5, 9, 1], [20, 3], [20, 7])
    ]
    data = bytearray(b"".join(build_batch(part, codec=4) for part in parts))
    stamp_batches(data, 0)
    assert find_offset_by_timestamp(data, 6, MIB) == (1, 9)
    assert find_offset_by_timestamp(data, 10, MIB) == (3, 20)
    assert find_offset_by_timestamp(data, 10, MIB, from_offset=4) == (5, 20)
    assert find_offset_by_timestamp(data, 21, MIB) is None
    assert find_max_timestamp(data, MIB) == (3, 20)
    assert find_max_timestamp(b"", MIB) == (-1, -1)
    assert find_offset_by_timestamp(b"", 0, MIB) is None


def test_with_log_append_time_the_first_offset_of_the_batch_is_found() -> None:
    inputs: list[Input] = [(None, None, [], time) for time in (50, 10, 70)]
    batch = build_batch(inputs, base_offset=30, log_append=True, append_time_ms=60)
    assert find_offset_by_timestamp(batch, 55, MIB) == (30, 60)
    assert find_offset_by_timestamp(batch, 55, MIB, from_offset=31) == (31, 60)
    assert find_offset_by_timestamp(batch, 61, MIB) is None
    assert find_max_timestamp(batch, MIB) == (30, 60)


def test_compacted_batches_with_gaps_keep_their_offsets() -> None:
    body = b"".join(encode_record(RawRecord(delta, delta, b"k", b"v")) for delta in (2, 7))
    header = Header(base_offset=100, last_offset_delta=9, record_count=2, base_timestamp=50, max_timestamp=57)
    data = encode_batch(header, body)
    assert [(record.offset, record.timestamp) for record in iterate_records(data, MIB)] == [
        (102, 52),
        (107, 57),
    ]
    assert find_offset_by_timestamp(data, 53, MIB) == (107, 57)
    empty = encode_batch(dataclasses.replace(header, record_count=0), b"")
    assert list(iterate_records(empty + data, MIB)) == list(iterate_records(data, MIB))


LOOK_UPS: list[Callable[[bytes, int], object]] = [
    lambda data, limit: list(iterate_records(data, limit)),
    lambda data, limit: find_offset_by_timestamp(data, NOW_MS, limit),
    find_max_timestamp,
]


@pytest.mark.parametrize("look_up", LOOK_UPS)
def test_look_ups_keep_to_the_limit_on_expansion(look_up: Callable[[bytes, int], object]) -> None:
    data = build_batch([(None, bytes(10_000), [], NOW_MS)], codec=4)
    look_up(data, 10_100)
    with pytest.raises(InvalidBatch) as raised:
        look_up(data, 10_000)
    assert raised.value.error_code == 10


def test_an_iterator_keeps_the_buffer_alive_and_lets_it_go() -> None:
    data = bytearray(build_batch(some_inputs(10)))
    records = iterate_records(data, MIB)
    first = next(records)
    with pytest.raises(BufferError):
        data.clear()
    assert [first, *records] == expected_records(some_inputs(10))
    del records
    data.clear()
