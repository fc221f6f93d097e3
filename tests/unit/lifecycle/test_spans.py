"""Extents of records that go by their age: none spans more than a part of that age, and what was cut stays cut."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.batches import NOW_MS
from tests.unit.lifecycle.compact_support import World, value_of
from tests.unit.lifecycle.merge_support import run, tiny_limits
from warp._compaction import KeyMap, compact_batches, note_keys
from warp._records import build_batch, scan_batches
from warp.ids import LogId, TopicId
from warp.lifecycle.compact_plan import SMALL_EXTENT_BYTES, joinable
from warp.lifecycle.levels import TOP_LEVEL
from warp.lifecycle.model import TopicLife
from warp.lifecycle.output import EXTENT_BYTES_MAX, SPAN_CUTS_MAX, SegmentWriter
from warp.lifecycle.retention import Retention
from warp.lifecycle.spans import SPAN_MS_MIN, is_later, span_ms_of
from warp.metadata.life_model import IndexRow, NewExtent

TOPIC = TopicId(b"topic of writing")
HOUR_MS = 3_600_000
SPAN_MS = 1000


def topic(**rules: object) -> TopicLife:
    return TopicLife(TOPIC, "t", [LogId(1)], **rules)  # type: ignore[arg-type]


def batch(time_ms: int, size: int = 10) -> bytes:
    return build_batch([(b"k", bytes(size), (), time_ms)])


def add(writer: SegmentWriter, base: int, times_ms: Sequence[int], size: int = 10) -> int:
    """Add a batch of one record for each time, all of them at once; the offset after them."""
    data = b"".join(batch(time_ms, size) for time_ms in times_ms)
    end = base + len(times_ms)
    writer.add(
        TOPIC, "t", 0, LogId(1), base, end, data, len(times_ms), min(times_ms), max(times_ms), SPAN_MS
    )  # fmt: skip
    return end


def extents_of(*runs: Sequence[int], size: int = 10) -> list[NewExtent]:
    writer, offset = SegmentWriter(1, size_max=2**30), 0
    for times_ms in runs:
        offset = add(writer, offset, times_ms, size)
    return writer.seal("segments/00/aa", NOW_MS).extents


def row(base: int, time_ms: int, size_bytes: int = 100) -> IndexRow:
    return IndexRow(LogId(1), base, base + 10, base, 5, size_bytes, time_ms, f"segments/00/{base}", 1)


# How long a span is


def test_spans_are_a_part_of_the_time_that_records_have() -> None:
    assert span_ms_of(topic(retention_ms=400 * HOUR_MS)) == 100 * HOUR_MS
    assert span_ms_of(topic(retention_ms=400 * HOUR_MS, compacts=True)) == 100 * HOUR_MS
    assert span_ms_of(topic(retention_ms=1)) == SPAN_MS_MIN


def test_where_nothing_goes_by_its_age_there_are_no_spans() -> None:
    assert span_ms_of(topic()) is None
    assert span_ms_of(topic(retention_bytes=1)) is None
    assert span_ms_of(topic(retention_ms=HOUR_MS, deletes=False, compacts=True)) is None
    assert not is_later(0, 2**62, None)


@pytest.mark.parametrize(
    ("before_ms", "next_ms", "later"),
    [(0, 999, False), (999, 1000, True), (1000, 999, False), (-1, 5000, False), (5000, -1, False)],
)
def test_spans_begin_at_multiples_of_their_length(before_ms: int, next_ms: int, later: bool) -> None:
    assert is_later(before_ms, next_ms, SPAN_MS) is later


# What is written


def test_an_extent_ends_where_a_later_span_begins_however_the_batches_come() -> None:
    times_ms = [5000, 5999, 6000, 6500, 9000]
    expected = [(0, 2, 5999), (2, 4, 6500), (4, 5, 9000)]
    for runs in (
        [times_ms],
        [[time_ms] for time_ms in times_ms],
        [times_ms[:1], times_ms[1:3], times_ms[3:]],
    ):
        found = [
            (extent.base_offset, extent.end_offset, extent.max_timestamp_ms) for extent in extents_of(*runs)
        ]
        assert found == expected, runs


def test_times_that_go_back_cut_nothing() -> None:
    mixed = [7000, 5000] * 20
    assert [extent.end_offset for extent in extents_of(mixed)] == [40]
    assert [extent.end_offset for extent in extents_of(*([time_ms] for time_ms in mixed))] == [40]
    assert [extent.end_offset for extent in extents_of([5000, *mixed])] == [1, 41]


def test_batches_that_only_cover_offsets_cut_nothing_whatever_came_with_them() -> None:
    kept = [build_batch([(key, b"v", (), time_ms)]) for key, time_ms in ((b"b", 5100), (b"a", 9000))]
    data = b"".join([batch(5050), *kept])
    keys = KeyMap(1024, bytes(16))
    for offset, content in ((1, data), (9, batch(9000))):
        note_keys(content, offset, keys, from_offset=0, until_offset=10, decompressed_bytes_max=1000)
    left = compact_batches(
        data, 1, keys, until_offset=4, now_ms=NOW_MS, horizon_ms=NOW_MS, decompressed_bytes_max=1000
    )
    assert [(span.record_count, span.max_timestamp) for span in scan_batches(left.batches)] == [
        (0, -1), (1, 5100), (1, 9000),
    ]  # fmt: skip
    writer = SegmentWriter(1, size_max=2**30)
    add(writer, 0, [5000])
    writer.add(TOPIC, "t", 0, LogId(1), 1, 4, left.batches, 2, 5100, 9000, SPAN_MS)
    found = writer.seal("segments/00/aa", NOW_MS).extents
    assert [(extent.end_offset, extent.max_timestamp_ms) for extent in found] == [(3, 5100), (4, 9000)]


@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_written_each_extent_is_of_one_span_and_no_two_could_be_one(seed: int) -> None:
    source, now_ms = random.Random(seed), 10**6
    runs: list[list[int]] = []
    for _ in range(source.randrange(1, 60)):
        now_ms += source.choice((0, 10, 300, 4000))
        runs.append([now_ms + source.randrange(-1500, 400) for _ in range(source.randrange(1, 9))])
    times_ms = [time_ms for times in runs for time_ms in times]
    found = extents_of(*runs, size=source.choice((10, 100_000)))
    assert [extent.base_offset for extent in found] == [0, *(extent.end_offset for extent in found[:-1])]
    assert found[-1].end_offset == len(times_ms)
    for extent in found:
        held = times_ms[extent.base_offset : extent.end_offset]
        assert max(held) == extent.max_timestamp_ms
        assert max(held) - held[0] < SPAN_MS
    for extent, following in pairwise(found):
        is_full = extent.size_bytes + 100_200 > EXTENT_BYTES_MAX
        first_ms = times_ms[following.base_offset]
        assert is_full or is_later(extent.max_timestamp_ms, first_ms, SPAN_MS)


def test_a_client_cannot_make_a_row_of_each_of_its_batches() -> None:
    times_ms = [SPAN_MS * number for number in range(SPAN_CUTS_MAX + 500)]
    found = extents_of(times_ms)
    assert len(found) == SPAN_CUTS_MAX + 1
    assert found[-1].end_offset == len(times_ms)


# What is joined


def test_small_extents_of_different_spans_are_left_apart() -> None:
    rows = [row(0, 5100), row(10, 5900), row(20, 6100), row(30, 8000), row(40, 7000)]
    assert joinable(rows, frozenset(), SPAN_MS) == {10, 20, 40, 50}
    assert joinable(rows, frozenset(), None) == {10, 20, 30, 40, 50}
    assert joinable(rows, frozenset({20}), SPAN_MS) == {40, 50}
    large = [row(0, 5100, SMALL_EXTENT_BYTES), row(10, 5200)]
    assert joinable(large, frozenset(), SPAN_MS) == set()


@pytest.mark.parametrize("seed", range(5))
def test_what_was_written_once_is_planned_no_more(seed: int) -> None:
    source, now_ms, runs = random.Random(seed), 10**6, []
    for _ in range(80):
        now_ms += source.choice((0, 50, 1200))
        runs.append([now_ms + source.randrange(-3000, 300) for _ in range(3)])
    rows = [
        row(0, 0)._replace(
            base_offset=e.base_offset, end_offset=e.end_offset, max_timestamp_ms=e.max_timestamp_ms
        )
        for e in extents_of(*runs)
    ]
    assert len(rows) > 10
    assert joinable(rows, frozenset(), SPAN_MS) == set()


class TimedWorld(World):
    """Its topics' records have eight hours, so that spans take two."""

    def __init__(self, path: Path, **options: int) -> None:
        super().__init__(path, **options)
        self.rules |= {"deletes": True, "retention_ms": 8 * HOUR_MS}

    async def retain(self) -> None:
        job = Retention(self.store, self.clock, self.policies, lambda log_id, offset: None, time=self.time)
        await job.run(await self.job_lease(3))

    async def check_ages(self) -> None:
        """No record has outlived its time by more than a span, and none has gone early."""
        now_ms = self.clock.time_ms()
        for log, history in self.history.items():
            [state] = (await self.store.log_states([log])).values()
            oldest_ms = min(w.timestamp_ms for w in history if w.offset >= state.start_offset)
            assert now_ms - oldest_ms < 10 * HOUR_MS + 1000
            gone = [w.timestamp_ms for w in history if w.offset < state.start_offset]
            assert all(now_ms - time_ms > 8 * HOUR_MS for time_ms in gone)

    async def check_spans(self) -> None:
        for log in self.history:
            for found in await self.rows(log):
                data = await self.objects.get(found.key, found.position, found.size_bytes)
                times_ms = [span.max_timestamp for span in scan_batches(data) if span.record_count]
                assert not times_ms or not is_later(times_ms[0], max(times_ms), 2 * HOUR_MS)


def in_world(path: Path, scenario: object, **options: int) -> None:
    async def inside() -> None:
        world = TimedWorld(path / "metadata.sqlite", **options)
        await world.open()
        try:
            await scenario(world)  # type: ignore[operator]
        finally:
            await world.close()

    run(inside())


def test_a_small_log_loses_its_old_records_though_it_is_compacted_all_the_time(tmp_path: Path) -> None:
    async def scenario(world: TimedWorld) -> None:
        for number in range(120):
            await world.append((b"key %d" % (number % 7), value_of(number)), (b"only %d" % number, b"x"))
            world.pass_hours(0.25)
            if number % 3 == 2:
                await world.compact()
                await world.retain()
                await world.check_ages()
                assert len(await world.rows(world.log)) <= 10
        await world.check_spans()
        await world.check_log(is_clean=False)

    in_world(tmp_path, scenario)


def test_a_pass_leaves_alone_what_earlier_ones_have_cut(tmp_path: Path) -> None:
    async def scenario(world: TimedWorld) -> None:
        for number in range(24):
            await world.append((b"only %d" % number, b"x"))
            world.pass_hours(0.25)
        await world.compact()
        before = await world.rows(world.log)
        assert len(before) >= 3
        world.pass_hours(2)
        for number in range(3):
            await world.append((b"new %d" % number, b"x"))
        await world.compact()
        after = await world.rows(world.log)
        assert after[:-1] == before
        assert after[-1].end_offset == 27
        await world.append((b"newest", b"x"))
        await world.compact()
        assert (await world.rows(world.log))[:-1] == before

    in_world(tmp_path, scenario)


def test_a_shorter_retention_cuts_what_was_written_under_a_longer_one(tmp_path: Path) -> None:
    async def scenario(world: TimedWorld) -> None:
        world.rules["retention_ms"] = None
        for number in range(24):
            await world.append((b"%d" % number, b"x"))
            world.pass_hours(0.5)
        await world.compact()
        assert len(await world.rows(world.log)) == 1
        world.rules["retention_ms"] = 8 * HOUR_MS
        await world.append((b"0", b"y"))
        await world.compact()
        await world.check_spans()
        await world.retain()
        await world.check_ages()
        await world.check_log(is_clean=False)

    in_world(tmp_path, scenario)


def test_a_quiet_log_loses_its_old_records_however_often_it_is_merged(tmp_path: Path) -> None:
    """In a small cluster the segments on top are joined over and over again, until they are large."""
    limits = tiny_limits(due_segments=(1, 1, 1), due_small_segments=4, small_segment_bytes=10**6)

    async def scenario(world: TimedWorld) -> None:
        world.rules["compacts"] = False
        job, lease = world.job(limits), await world.lease()
        for number in range(80):
            await world.append((None, value_of(number)))
            world.pass_hours(0.5)
            for _ in range(3):
                await job.run(lease)
            await world.retain()
            await world.check_ages()
        await world.check_spans()
        assert len(await world.rows(world.log)) <= 10
        assert set(await world.levels()) == {TOP_LEVEL}
        written = job.counters.segments_written
        for _ in range(4):
            await job.run(lease)
        assert job.counters.segments_written == written
        await world.check()

    in_world(tmp_path, scenario)


def test_small_segments_full_of_extents_are_not_joined_again_and_again(tmp_path: Path) -> None:
    limits = tiny_limits(due_segments=(1, 1, 1), due_small_segments=4, swap_rows_max=4)

    async def scenario(world: TimedWorld) -> None:
        job, lease = world.job(limits), await world.lease()
        await world.commit({log: [world.batch(20, 1)] for log in world.topics[0].logs})
        for _ in range(6):
            await job.run(lease)
        assert len((await world.levels())[TOP_LEVEL]) >= 6
        written = job.counters.segments_written
        for _ in range(6):
            await job.run(lease)
        assert job.counters.segments_written == written
        await world.check()

    in_world(tmp_path, scenario, partitions=24)
