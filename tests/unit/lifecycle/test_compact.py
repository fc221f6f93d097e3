"""Compaction of whole logs: what is kept, when a log is compacted, and how far."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.lifecycle.compact_support import DAY_MS, MIB, World
from tests.unit.lifecycle.merge_support import run
from warp._records import build_batch, scan_batches
from warp.ids import LogId
from warp.lifecycle.compact_plan import CompactionLimits, Memory, dirt_of
from warp.metadata.life_model import LogDirt

SMALL = CompactionLimits(memory_bytes=4_000)
"""Outputs of 1,000 bytes, windows of 250, and 60 keys in the map."""

Scenario = Callable[[World], Coroutine[Any, Any, None]]


def with_world(path: Path, scenario: Scenario, **options: Any) -> None:
    async def inside() -> None:
        world = World(path / "metadata.sqlite", **options)
        await world.open()
        try:
            await scenario(world)
        finally:
            await world.close()

    run(inside())


def test_the_newest_record_of_each_key_is_kept(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(5):
            await world.append((b"a", b"%d" % number), (b"b%d" % number, b"x"), codec=number)
        job = await world.compact()
        assert list(await world.seen()) == [1, 3, 5, 7, 8, 9]
        assert await world.clean_offset() == 10
        await world.check_log(is_clean=True)
        assert (job.counters.records_dropped, job.counters.records_kept) == (4, 6)
        assert job.counters.segments_written == 1

    with_world(tmp_path, scenario)


def test_a_log_that_is_clean_is_left_alone_until_more_comes(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.append((b"a", b"1"), (b"b", b"1"))
        await world.compact()
        before = await world.rows(world.log)
        job = await world.compact()
        assert job.counters.passes_over_logs == 0
        assert await world.rows(world.log) == before
        await world.append((b"a", b"2"))
        await world.compact(job)
        assert await world.seen() == {1: (b"b", b"1"), 2: (b"a", b"2")}

    with_world(tmp_path, scenario)


def test_records_without_key_go_once_a_topic_is_compacted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.append((None, b"1"), (b"a", b"1"), (None, b"2"))
        await world.compact()
        assert list(await world.seen()) == [1, 2], "the last record of a log stays"
        await world.append((b"b", b"1"))
        await world.compact()
        assert list(await world.seen()) == [1, 3]

    with_world(tmp_path, scenario)


def test_tombstones_are_seen_for_their_time_and_gone_at_the_next_pass(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.append((b"a", b"1"), (b"b", b"1"))
        await world.append((b"a", None))
        await world.append((b"c", b"1"))
        await world.compact()
        assert list(await world.seen()) == [1, 2, 3]
        world.pass_hours(23)
        await world.append((b"d", b"1"))
        await world.compact()
        assert list(await world.seen()) == [1, 2, 3, 4]
        world.pass_hours(2)
        await world.append((b"e", b"1"))
        await world.compact()
        assert list(await world.seen()) == [1, 3, 4, 5]
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


def test_the_time_of_tombstones_is_the_topics(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.rules["delete_retention_ms"] = 0
        await world.append((b"a", None), (b"b", b"1"))
        await world.append((b"c", b"1"))
        await world.compact()
        assert list(await world.seen()) == [0, 1, 2]
        await world.append((b"d", b"1"))
        await world.compact()
        assert list(await world.seen()) == [1, 2, 3]

    with_world(tmp_path, scenario)


def test_a_clean_part_that_is_large_enough_waits_for_its_ratio(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.rules["min_cleanable_dirty_ratio"] = 0.5
        for number in range(8):
            await world.append((b"%d" % number, b"x" * 100))
        job = await world.compact()
        assert await world.clean_offset() == 8
        for number in range(9):
            await world.append((b"0", b"x" * 100))
            await world.compact(job)
            dirty = number + 1
            assert await world.clean_offset() == (8 if dirty <= 8 else 17)

    with_world(tmp_path, scenario)


def test_the_size_of_the_clean_part_is_remembered_when_a_merge_joins_it_with_more(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.rules["min_cleanable_dirty_ratio"] = 0.5
        for number in range(20):
            await world.append((b"%d" % number, b"x" * 100))
        job = await world.compact()
        await world.append((b"0", b"x"))
        await world.append((b"1", b"x"))
        for _ in range(4):
            await world.merge()
        await world.compact(job)
        assert await world.clean_offset() == 20
        # Who does not remember may do it once too often.
        await world.compact()
        assert await world.clean_offset() in (20, 22)
        await world.check_log()

    with_world(tmp_path, scenario)


def test_records_younger_than_the_least_lag_stay(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.rules["min_compaction_lag_ms"] = DAY_MS
        await world.append((b"a", b"1"))
        await world.append((b"a", b"2"))
        world.pass_hours(12)
        await world.append((b"a", b"3"))
        await world.append((b"b", b"1"))
        await world.compact()
        assert await world.clean_offset() == 0
        world.pass_hours(13)
        await world.compact()
        assert await world.clean_offset() == 2
        assert list(await world.seen()) == [1, 2, 3]
        world.pass_hours(13)
        await world.compact()
        assert list(await world.seen()) == [2, 3]

    with_world(tmp_path, scenario)


def test_records_that_have_lagged_for_too_long_are_compacted_whatever_the_ratio(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.rules.update(min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=DAY_MS)
        await world.append((b"a", b"1"), (b"a", b"2"))
        await world.compact()
        assert await world.clean_offset() == 0, "a ratio of 1 is never exceeded"
        world.pass_hours(25)
        job = await world.compact()
        assert await world.clean_offset() == 2
        assert list(await world.seen()) == [1]
        await world.append((b"a", b"3"))
        await world.compact(job)
        assert await world.clean_offset() == 2
        world.pass_hours(25)
        await world.compact(job)
        assert list(await world.seen()) == [2]

    with_world(tmp_path, scenario)


def test_how_long_records_lag_is_told_by_the_first_of_a_merged_extent(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.rules.update(min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=DAY_MS)
        await world.append((b"a", b"1"))
        world.pass_hours(25)
        for number in range(6):
            await world.append((b"a", b"%d" % number))
        while len(await world.rows(world.log)) > 1:
            await world.merge()
        await world.compact()
        assert list(await world.seen()) == [6]

    with_world(tmp_path, scenario)


def test_only_topics_that_are_compacted_are(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.append((b"a", b"1"), (b"a", b"2"))
        world.rules.update(compacts=False, deletes=True)
        await world.compact()
        assert list(await world.seen()) == [0, 1]
        world.rules.update(compacts=True)
        job = await world.compact()
        assert list(await world.seen()) == [1]
        # Back to delete and again: what is clean stays clean, and what came meanwhile is dirty.
        world.rules.update(compacts=False)
        await world.append((None, b"x"), (b"b", b"1"), (b"a", b"3"))
        await world.compact(job)
        assert await world.clean_offset() == 2
        world.rules.update(compacts=True)
        await world.compact(job)
        assert list(await world.seen()) == [3, 4]
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


def test_nothing_is_done_by_a_clock_that_is_wrong(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.append((b"a", b"1"), (b"a", b"2"))
        await world.compact(world.compactor(is_clock_trusted=lambda: False))
        assert await world.clean_offset() == 0

    with_world(tmp_path, scenario)


def test_a_full_map_ends_a_pass_and_the_next_one_goes_on_there(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.limits = SMALL
        keys = [b"key %d" % number for number in range(200)]
        for number in range(3):
            for start in range(0, 200, 50):
                await world.append(*((key, b"%d" % number) for key in keys[start : start + 50]))
        cleaned = 0
        job = world.compactor()
        for _ in range(600 // 60 + 1):
            await world.compact(job)
            reached = await world.clean_offset()
            assert reached > cleaned
            cleaned = reached
            await world.check_log(is_clean=True)
            if cleaned == 600:
                break
        assert cleaned == 600
        assert list(await world.seen()) == list(range(400, 600))
        assert job.counters.full_maps > 1

    with_world(tmp_path, scenario)


def test_a_batch_with_more_keys_than_the_map_is_compacted_in_several_passes(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.limits = SMALL
        await world.append(*((b"key %d" % number, b"old") for number in range(100)), codec=4)
        await world.append(*((b"key %d" % number, b"new") for number in range(100)), codec=3)
        for _ in range(6):
            await world.compact()
        assert list(await world.seen()) == list(range(100, 200))

    with_world(tmp_path, scenario)


def test_idempotent_batches_keep_their_producer_and_are_known_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        options: dict[str, Any] = {"producer_id": 5, "producer_epoch": 0}
        await world.append((b"a", b"1"), (b"b", b"1"), **options, base_sequence=0)
        await world.append((b"a", b"2"), **options, base_sequence=2)
        await world.compact()
        [row] = await world.rows(world.log)
        data = await world.objects.get(row.key, row.position, row.size_bytes)
        assert [(span.producer_id, span.record_count) for span in scan_batches(data)] == [(5, 1), (5, 1)]
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


def test_logs_of_one_pass_share_a_segment(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        logs = world.topics[0].logs
        for log in logs:
            await world.append((b"a", b"1"), log=log)
            await world.append((b"a", b"2"), log=log)
        job = await world.compact()
        assert job.counters.segments_written == 1
        for log in logs:
            assert list(await world.seen(log=log)) == [1]
            await world.check_log(log, is_clean=True)
        await world.check_objects()

    with_world(tmp_path, scenario, partitions=4)


def test_what_compaction_leaves_is_small_in_the_index_too(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(60):
            await world.append((b"a", b"%d" % number), (b"only %d" % number, b"x"))
            if number % 20 == 19:
                await world.compact()
        rows = await world.rows(world.log)
        assert len(rows) <= 2
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


def test_retention_beside_moves_the_start_and_compaction_goes_on(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        for number in range(10):
            await world.append((b"a", b"%d" % number), (b"%d" % number, b"x"))
        lease = await world.job_lease(2)
        await world.store.advance_log_starts(lease, {world.log: 7})
        await world.store.trim_logs(lease, [world.log], 100)
        await world.compact()
        assert list(await world.seen(7)) == [7, 9, 11, 13, 15, 17, 18, 19]
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


@pytest.mark.parametrize("kind", [{"is_transactional": True}, {"is_transactional": True, "is_control": True}])
def test_batches_of_transactions_stay_and_hide_nothing(tmp_path: Path, kind: dict[str, bool]) -> None:
    async def scenario(world: World) -> None:
        await world.append((b"a", b"1"))
        data = build_batch([(b"a", b"2", (), world.clock.time_ms())], producer_id=1, producer_epoch=0, **kind)
        await world.commit({world.log: [data]})
        await world.append((b"b", b"1"))
        await world.compact()
        assert list(await world.seen()) == [0, 1, 2]

    with_world(tmp_path, scenario)


def test_many_logs_are_swapped_some_at_a_time(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.limits = CompactionLimits(rows_max=4)
        logs = world.topics[0].logs
        for log in logs:
            await world.append((b"a", b"1"), (b"a", b"2"), log=log)
        job = await world.compact()
        assert job.counters.segments_written == 5
        for log in logs:
            assert await world.clean_offset(log) == 2
            await world.check_log(log, is_clean=True)

    with_world(tmp_path, scenario, partitions=10)


def dirt(clean_bytes: int, dirty_bytes: int, memory: Memory | None) -> int:
    """What counts as dirty of a log of 100 offsets that the store calls clean up to 50."""
    return dirt_of(LogDirt(LogId(1), 0, 100, 50, clean_bytes, dirty_bytes, 0), memory).dirty_bytes


def test_what_is_dirty_is_reckoned_by_what_is_known_of_the_clean_part() -> None:
    def memory(clean_bytes: int, **changes: Any) -> Memory:
        return replace(Memory(50, 50, frozenset(), clean_bytes), **changes)

    assert dirt(0, 1000, None) == 1000
    assert dirt(0, 1000, memory(900)) == 100
    assert dirt(200, 1000, memory(900)) == 300
    assert dirt(0, 1000, memory(2000)) == 1, "there is something above the clean offset"
    assert dirt(0, 1000, memory(900, clean_offset=40)) == 1000, "another agent has compacted since"
    assert dirt(0, 1000, memory(900, reached=100)) == 0
    # Retention has removed most of what was clean: at most an extent of 4 MiB lies across the clean offset.
    assert dirt(0, 10 * MIB, memory(100 * MIB)) == 6 * MIB
    assert dirt(0, 10 * MIB, memory(100 * MIB, reached=60, unread=frozenset([55]))) == 1
