"""Compaction by key, natively, against a slow and obvious implementation, and against hostile bytes."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

import pytest
from hypothesis import given, seed, settings, strategies as st

from tests.reference import compaction as reference
from tests.reference.records import Header, RawRecord, encode_batch, encode_record, read_batch
from warp._compaction import Compacted, KeyMap, compact_batches, note_keys
from warp._records import InvalidBatch, Record, build_batch, iterate_records, scan_batches, stamp_batches

LIMIT = 1 << 20
SECRET = bytes(range(16))
FAR = 1 << 60
NOW_MS = 1_700_000_000_000
Pair = tuple[bytes | None, bytes | None]


def batch(
    *pairs: Pair, time_ms: int = NOW_MS, codec: int = 0, producer: int = -1, sequence: int = -1
) -> bytes:
    return build_batch(
        [(key, value, [("h", b"1")], time_ms + index) for index, (key, value) in enumerate(pairs)],
        codec=codec,
        producer_id=producer,
        producer_epoch=0 if producer >= 0 else -1,
        base_sequence=sequence,
    )


def key_map(bytes_max: int = 1 << 16) -> KeyMap:
    return KeyMap(bytes_max, SECRET)


def noted(keys: KeyMap, data: bytes, base: int = 0, *, since: int = 0, until: int = FAR) -> int:
    return note_keys(data, base, keys, from_offset=since, until_offset=until, decompressed_bytes_max=LIMIT)


def compacted(
    data: bytes, base: int = 0, keys: KeyMap | None = None, *, until: int = FAR, now: int = 0, horizon: int = -1
) -> Compacted:  # fmt: skip
    """Noted and compacted; the tiling is what it was."""
    if keys is None:
        keys = key_map()
        noted(keys, data, base, until=until)
    result = compact_batches(
        data, base, keys, until_offset=until, now_ms=now, horizon_ms=horizon, decompressed_bytes_max=LIMIT
    )
    before, after = bytearray(data), bytearray(result.batches)
    assert stamp_batches(before, base) == stamp_batches(after, base) == result.end_offset
    assert after == result.batches, "offsets are stamped"
    return result


def left(result: Compacted) -> list[Record]:
    return list(iterate_records(result.batches, LIMIT))


def pairs_at(result: Compacted) -> dict[int, Pair]:
    return {record.offset: (record.key, record.value) for record in left(result)}


# ---- the map ----


def test_a_map_tells_the_newest_offset_of_each_key() -> None:
    keys = key_map()
    data = batch((b"a", b"1"), (b"b", b"1"), (None, b"1"), (b"", b"1"), (b"a", b"2"))
    assert noted(keys, data, 100) == 105
    assert len(keys) == 3
    found = [keys.newest_offset(key) for key in (b"a", b"b", b"", b"c")]
    assert found == [104, 101, 103, None]


def test_an_older_offset_does_not_replace_a_newer_one() -> None:
    keys = key_map()
    noted(keys, batch((b"a", b"1")), 10)
    noted(keys, batch((b"a", b"1")), 5)
    assert keys.newest_offset(b"a") == 10


def test_digests_are_those_of_siphash() -> None:
    """Keys with the same first bytes, of every length around a word, are all different ones."""
    keys = key_map()
    source = random.Random(1).randbytes(40)
    noted(keys, batch(*((source[:size], b"") for size in range(40))))
    assert [keys.newest_offset(source[:size]) for size in range(40)] == list(range(40))
    assert len(keys) == 40


@pytest.mark.parametrize("bytes_max", [48, 72, 240, 4_800])
def test_a_full_map_says_where_it_stopped_and_still_knows_its_keys(bytes_max: int) -> None:
    keys = key_map(bytes_max)
    data = batch(*((b"%d" % (index // 2), b"v") for index in range(1_000)))
    stopped = noted(keys, data)
    assert stopped == 2 * keys.keys_max
    assert len(keys) == keys.keys_max >= 1
    assert keys.newest_offset(b"0") == 1
    # What was noted goes on counting, and so do further records of known keys.
    assert noted(keys, batch((b"0", b"v")), 5_000) == 5_001
    assert keys.newest_offset(b"0") == 5_000


def test_a_map_needs_memory_and_a_secret() -> None:
    with pytest.raises(ValueError, match="48 bytes"):
        KeyMap(47, SECRET)
    with pytest.raises(ValueError, match="16 bytes"):
        KeyMap(48, b"short")


def test_keys_are_noted_from_one_offset_to_another() -> None:
    keys = key_map()
    data = batch((b"a", b""), (b"b", b"")) + batch((b"c", b""), (b"d", b"")) + batch((b"e", b""))
    assert noted(keys, data, 10, since=11, until=13) == 13
    assert [keys.newest_offset(key) for key in (b"a", b"b", b"c", b"d", b"e")] == [None, 11, 12, None, None]


def test_keys_of_transactions_and_control_records_are_passed_over() -> None:
    keys = key_map()
    data = build_batch([(b"t", b"", [], 0)], is_transactional=True, producer_id=1, producer_epoch=0)
    data += build_batch([(b"c", b"", [], 0)], is_control=True, is_transactional=True, producer_id=1)
    assert noted(keys, data + batch((b"a", b""))) == 3
    assert len(keys) == 1


# ---- what is kept ----


@pytest.mark.parametrize("codec", range(5))
def test_the_newest_record_of_each_key_stays_where_it_was(codec: int) -> None:
    data = batch((b"a", b"1"), (b"b", b"1"), codec=codec) + batch((b"c", b"1"), (b"a", b"2"), codec=codec)
    result = compacted(data, 70)
    assert pairs_at(result) == {71: (b"b", b"1"), 72: (b"c", b"1"), 73: (b"a", b"2")}
    assert (result.record_count, result.dropped_count, result.horizon_count) == (3, 1, 0)
    assert [record.timestamp - NOW_MS for record in left(result)] == [1, 0, 1]
    assert all(record.headers == (("h", b"1"),) for record in left(result))
    assert [span.attributes & 7 for span in scan_batches(result.batches)] == [codec, codec]


def test_a_batch_that_keeps_all_its_records_keeps_its_bytes() -> None:
    data = batch((b"a", b"1"), producer=7, sequence=4, codec=4)
    result = compacted(data, 9)
    assert result.batches[16:] == data[16:]
    assert (result.dropped_count, result.record_count) == (0, 1)


def test_a_batch_that_loses_records_keeps_its_producer_and_last_offset() -> None:
    data = batch((b"a", b"1"), (b"b", b"1"), producer=7, sequence=40) + batch((b"b", b"2"))
    header, records = read_batch(bytes(compacted(data, 5).batches)[: -len(batch((b"b", b"2")))])
    assert (header.base_offset, header.last_offset_delta, header.record_count) == (5, 1, 1)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 0, 40)
    assert (header.base_timestamp, header.max_timestamp) == (NOW_MS, NOW_MS)
    assert records[0].offset_delta == 0


def test_a_batch_that_loses_records_keeps_the_time_at_which_it_was_appended() -> None:
    data = build_batch([(b"a", b"1", [], 5), (b"b", b"2", [], 5), (b"a", b"3", [], 5)], log_append=True)
    header = replace(read_header(data), max_timestamp=-7)
    (span,) = scan_batches(bytes(compacted(encode_batch(header, data[61:])).batches))
    assert (span.record_count, span.max_timestamp) == (2, -7)


def test_records_without_key_go() -> None:
    result = compacted(batch((None, b"1"), (b"a", b"1"), (None, None)))
    assert pairs_at(result) == {1: (b"a", b"1")}


def test_nothing_is_dropped_above_the_offset_up_to_which_it_may() -> None:
    data = batch((b"a", b"1"), (None, b"1"), (b"a", b"2"), (None, b"2"), (b"a", b"3"))
    assert list(pairs_at(compacted(data, until=2))) == [0, 2, 3, 4]
    keys = key_map()
    noted(keys, data)
    assert list(pairs_at(compacted(data, keys=keys, until=2))) == [2, 3, 4]


# ---- tombstones ----


@pytest.mark.parametrize("codec", [0, 1, 4])
def test_a_tombstone_gets_a_horizon_and_goes_once_it_has_passed(codec: int) -> None:
    data = batch((b"a", b"1"), (b"a", None), (b"b", b"1"), codec=codec)
    first = compacted(data, horizon=NOW_MS + 1_000)
    assert pairs_at(first) == {1: (b"a", None), 2: (b"b", b"1")}
    assert first.horizon_count == 1
    header, _ = read_batch(bytes(first.batches))
    assert header.attributes == 0x40 | codec
    assert header.base_timestamp == NOW_MS + 1_000
    assert [record.timestamp - NOW_MS for record in left(first)] == [1, 2]
    soon = compacted(bytes(first.batches), now=NOW_MS + 999, horizon=NOW_MS + 5_000)
    assert soon.batches == first.batches, "a horizon is set once"
    late = compacted(bytes(first.batches), now=NOW_MS + 1_000, horizon=NOW_MS + 5_000)
    assert pairs_at(late) == {2: (b"b", b"1")}
    assert [record.timestamp - NOW_MS for record in left(late)] == [2]


def test_no_horizon_is_set_where_none_may_be() -> None:
    data = batch((b"a", None), (b"b", None))
    assert compacted(data, horizon=-1).batches == compacted(data, until=1, horizon=5).batches
    assert compacted(data, until=2, horizon=5).horizon_count == 1


def test_a_tombstone_after_a_transaction_gets_no_horizon() -> None:
    open_data = build_batch([(b"a", b"1", [], 0)], is_transactional=True, producer_id=1, producer_epoch=0)
    result = compacted(open_data + batch((b"a", None)), horizon=5)
    assert (result.is_transactional, result.horizon_count) == (True, 0)
    assert list(pairs_at(result)) == [0, 1]
    before = compacted(batch((b"b", None)) + open_data, horizon=5)
    assert (before.is_transactional, before.horizon_count) == (True, 1)


# ---- tiling ----


def spans(result: Compacted) -> list[tuple[int, int, int]]:
    """Base offset, last offset and record count of each batch."""
    return [
        (span.base_offset, span.base_offset + span.last_offset_delta, span.record_count)
        for span in scan_batches(result.batches)
    ]


def test_a_hole_at_the_start_is_covered_by_an_empty_batch_and_others_by_the_batch_before() -> None:
    one, gone = batch((b"a", b"1"), producer=3, sequence=8), batch((None, b"x"), (None, b"y"))
    result = compacted(gone + gone + one + gone + batch((b"b", b"1")) + gone, 1_000)
    assert spans(result) == [(1_000, 1_003, 0), (1_004, 1_006, 1), (1_007, 1_009, 1)]
    header, _ = read_batch(bytes(result.batches[61 : 61 + len(one)]))
    assert (header.producer_id, header.base_sequence) == (3, -1)


def test_an_extent_of_which_nothing_is_left_is_one_empty_batch_with_its_time() -> None:
    gone = batch((None, b"x"), time_ms=50) + batch((None, b"x"), time_ms=40)
    result = compacted(gone, 7)
    assert spans(result) == [(7, 8, 0)]
    assert (result.record_count, result.first_timestamp_ms, result.max_timestamp_ms) == (0, -1, 50)
    again = compacted(bytes(result.batches) + bytes(result.batches), 7)
    assert spans(again) == [(7, 10, 0)]
    assert (again.dropped_count, again.max_timestamp_ms) == (0, 50)


def test_control_batches_are_not_stretched() -> None:
    marker = build_batch([(b"c", b"", [], 0)], is_control=True, is_transactional=True, producer_id=1)
    result = compacted(marker + batch((None, b"x")))
    assert spans(result) == [(0, 0, 1), (1, 1, 0)]
    assert result.batches[16 : len(marker)] == marker[16:]


def test_holes_too_long_for_one_batch_are_covered_by_several() -> None:
    most = 2**31 - 1
    long = encode_batch(Header(last_offset_delta=most, base_timestamp=5, max_timestamp=5), b"")
    result = compacted(long + long + batch((b"a", b"1")), 3)
    assert spans(result) == [(3, 3 + most, 0), (4 + most, 4 + 2 * most, 0), (5 + 2 * most, 5 + 2 * most, 1)]
    after = compacted(batch((b"a", b"1")) + long, 3)
    assert spans(after) == [(3, 3, 1), (4, 4 + most, 0)]
    fits = encode_batch(Header(last_offset_delta=most - 1), b"")
    assert spans(compacted(batch((b"a", b"1")) + fits, 3)) == [(3, 3 + most, 1)]


# ---- bytes that are wrong ----


def wrong(data: bytes) -> str:
    """What is said of them, alike by both."""
    keys = key_map()
    with pytest.raises(InvalidBatch) as noting:
        noted(keys, data)
    with pytest.raises(InvalidBatch) as filtering:
        compacted(data, keys=keys)
    assert str(noting.value) == str(filtering.value)
    return str(noting.value)


def raw(*records: RawRecord, last_delta: int = 5, count: int | None = None, tail: bytes = b"") -> bytes:
    header = Header(last_offset_delta=last_delta, record_count=len(records) if count is None else count)
    return encode_batch(header, b"".join(map(encode_record, records)) + tail)


def test_damage_is_an_invalid_batch_and_nothing_worse() -> None:
    data = bytearray(batch((b"a", b"1")))
    data[-1] ^= 1
    assert wrong(bytes(data)) == "batch has a wrong CRC"
    assert wrong(batch((b"a", b"1"))[:-1]) == "batch is cut short"
    assert wrong(bytes(10)) == "batch is shorter than its header"
    one, other = RawRecord(0, 0, b"a", b""), RawRecord(0, 0, b"b", b"")
    outside = "record lies outside the offsets of its batch, or out of order"
    assert wrong(raw(one, other)) == outside
    assert wrong(raw(replace(one, offset_delta=6))) == outside
    assert wrong(raw(replace(one, offset_delta=-1))) == outside
    assert wrong(raw(one, count=2_000_000_000)) == "batch has fewer bytes than records"
    assert wrong(raw(one, tail=b"x" * 10)) == "bytes are left after the last record"
    assert wrong(raw(one, count=2, tail=bytes(7))) == "record is empty"


@pytest.mark.parametrize("codec", range(1, 5))
def test_a_decompression_bomb_is_an_invalid_batch(codec: int) -> None:
    assert "decompressed" in wrong(batch((b"a", bytes(LIMIT + 1)), codec=codec))


def test_bytes_that_are_not_of_their_codec_are_an_invalid_batch() -> None:
    data = encode_batch(Header(attributes=4, last_offset_delta=0, record_count=1), b"nonsense")
    assert "decompressed" in wrong(data)


def test_offsets_do_not_run_over() -> None:
    with pytest.raises(InvalidBatch, match="offsets run out"):
        noted(key_map(), batch((b"a", b"")), 2**63 - 1)


@settings(max_examples=150, deadline=None)
@seed(20261123)
@given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 255), st.integers(0, 4))
def test_hostile_bytes_under_a_right_crc_end_in_an_answer(
    noise: bytes, at: int, byte: int, codec: int
) -> None:
    data = bytearray(batch((b"a", b"1"), (b"a", None), (b"b", b"2"), codec=codec))
    place = 61 + at % (len(data) - 61)
    data[place] = byte
    data[place + 1 : place + 1 + len(noise)] = noise
    struct.pack_into(">i", data, 8, len(data) - 12)
    body = encode_batch(read_header(bytes(data)), bytes(data[61:]))
    try:
        compacted(body, horizon=5)
    except InvalidBatch:
        return


def read_header(data: bytes) -> Header:
    return replace(Header(*struct.unpack_from(">qiibIhiqqqhii", data)), batch_length=0)


# ---- against the reference ----

RECORD = st.tuples(
    st.sampled_from([None, b"", b"a", b"b", b"c", b"d" * 20]),
    st.sampled_from([None, b"", b"1", b"v" * 40]),
)
BATCH = st.tuples(
    st.lists(RECORD, min_size=1, max_size=6),
    st.integers(0, 4),
    st.sampled_from(["plain", "plain", "plain", "idempotent", "append", "transactional", "control", "empty"]),
    st.integers(0, 5_000),
)  # fmt: skip


def built(pairs: list[Pair], codec: int, kind: str, time_ms: int) -> bytes:
    if kind == "empty":
        return encode_batch(Header(last_offset_delta=len(pairs) - 1, max_timestamp=time_ms), b"")
    with_producer = kind in ("idempotent", "transactional", "control")
    return build_batch(
        [(key, value, [], time_ms + 3 * index) for index, (key, value) in enumerate(pairs)],
        codec=0 if kind == "control" else codec,
        producer_id=9 if with_producer else -1,
        producer_epoch=0 if with_producer else -1,
        base_sequence=3 if kind == "idempotent" else -1,
        is_transactional=kind in ("transactional", "control"),
        is_control=kind == "control",
        log_append=kind == "append",
    )


@settings(max_examples=200, deadline=None)
@seed(20261123)
@given(
    st.lists(BATCH, min_size=1, max_size=8),
    st.integers(0, 100),
    st.integers(0, 60),
    st.lists(st.integers(0, 3_000), min_size=1, max_size=3),
)
def test_batches_are_compacted_as_by_the_reference(
    batches: list[tuple[list[Pair], int, str, int]], base: int, reach: int, times: list[int]
) -> None:
    data = b"".join(built(*each) for each in batches)
    until = base + reach
    for now in sorted(times):
        newest: dict[bytes, int] = {}
        reference.note(data, base, newest, until)
        expected = reference.compact(
            data, base, newest, until_offset=until, now_ms=now, horizon_ms=now + 1_000
        )
        result = compacted(data, base, until=until, now=now, horizon=now + 1_000)
        assert bytes(result.batches) == expected
        data = bytes(result.batches)
