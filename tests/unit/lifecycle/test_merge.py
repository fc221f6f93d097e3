"""Merging on a real index: what is read back is the same, in fewer and larger pieces."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.batches import NOW_MS
from tests.unit.lifecycle.merge_support import MIB, Cluster, run, tiny_limits
from warp._records import build_batch, verify_batch
from warp.ids import LogId
from warp.lifecycle.levels import TOP_LEVEL, MergeLimits
from warp.lifecycle.output import EXTENT_BYTES_MAX
from warp.log.segment import read_index


def on_cluster(path: Path, scenario: Callable[[Cluster], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run a scenario on an open cluster."""

    async def main() -> None:
        cluster = Cluster(path / "db", **options)
        await cluster.open()
        try:
            await scenario(cluster)
        finally:
            await cluster.close()

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_every_offset_reads_the_same_after_merging(tmp_path: Path, seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(20):
            await cluster.commit_random()
        job = await cluster.merge()
        assert job.counters.merges >= 1
        assert sum(map(len, (await cluster.levels()).values())) < 12
        await cluster.check(every_offset=True)
        await cluster.check_objects()

    on_cluster(tmp_path, scenario, partitions=4, seed=seed)


def test_footers_of_merged_segments_say_what_the_index_says(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(12):
            await cluster.commit_random()
        await cluster.merge()
        [topic] = cluster.topics
        rows = [row for log_id in topic.logs for row in await cluster.rows(log_id) if row.level]
        assert rows
        for level, segments in (await cluster.levels()).items():
            for segment in segments:
                index = await read_index(cluster.objects, segment.key)
                assert index.level == level == segment.level
                mine = [row for row in rows if row.key == segment.key]
                if level:
                    assert [
                        (e.topic, topic.logs[e.partition], e.position, e.base_offset, e.end_offset)
                        for e in index.extents
                    ] == [
                        ("first", row.log_id, row.position, row.base_offset, row.end_offset) for row in mine
                    ]
                    assert [e.max_timestamp_ms for e in index.extents] == [
                        row.max_timestamp_ms for row in mine
                    ]
                    assert mine == sorted(mine)

    on_cluster(tmp_path, scenario, partitions=4)


def test_many_tiny_segments_stay_few(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        job, lease = cluster.job(), await cluster.lease()
        most = 0
        for number in range(400):
            await cluster.commit({cluster.topics[0].logs[number % 2]: [cluster.batch(20)]})
            if number % 4 == 3:
                await job.run(lease)
                most = max(most, sum(map(len, (await cluster.levels()).values())))
        assert most <= 4 * (TOP_LEVEL + 1)
        live = sum(row.segments for row in await cluster.store.segment_totals())
        assert live <= 4 * (TOP_LEVEL + 1)
        assert len(await cluster.rows(cluster.topics[0].logs[0])) <= 4 * (TOP_LEVEL + 1)
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=2)


def test_interleaved_logs_end_in_extents_of_four_mebibytes(tmp_path: Path) -> None:
    limits = MergeLimits(
        memory_bytes=96 * MIB,
        due_bytes=(8 * MIB, 48 * MIB, 200 * MIB),
        due_segments=(64, 2048, 2048),
        look_s=0.0,
    )

    async def scenario(cluster: Cluster) -> None:
        job, lease = cluster.job(limits), await cluster.lease()
        logs = cluster.topics[0].logs
        value = cluster.random.randbytes(120_000)
        for _ in range(110):
            await cluster.commit({log_id: [_batch_of(value)] for log_id in logs})
            await job.run(lease)
        for log_id in logs:
            rows = [row for row in await cluster.rows(log_id) if row.level == TOP_LEVEL]
            assert len(rows) >= 2
            full = EXTENT_BYTES_MAX - len(_batch_of(value))
            assert sum(row.size_bytes >= full for row in rows) >= len(rows) - 1
        assert job.counters.written_bytes < 2.6 * 110 * 6 * 120_000
        assert job.held_bytes_peak <= limits.memory_bytes
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=6)


def _batch_of(value: bytes) -> bytes:
    return build_batch([(None, value, (), NOW_MS)])


def test_one_busy_log_goes_to_the_top_at_once_and_its_tail_waits(tmp_path: Path) -> None:
    limits = tiny_limits(memory_bytes=64 * MIB, segment_bytes_max=16 * MIB, due_bytes=(9 * MIB,) * 3)

    async def scenario(cluster: Cluster) -> None:
        busy, idle = cluster.topics[0].logs
        value = bytes(900_000)
        for _ in range(11):
            await cluster.commit({busy: [_batch_of(value)], idle: [cluster.batch(100)]})
        await cluster.merge(limits)
        levels = [row.level for row in await cluster.rows(busy)]
        assert levels[-2:] == [0, 0]
        assert set(levels[:-2]) == {TOP_LEVEL}
        [merged] = await cluster.rows(idle)
        assert merged.level == 1
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=2)


def test_nothing_is_done_where_nothing_is_due(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        job = await cluster.merge()
        for _ in range(3):
            await cluster.commit_random()
        before = await cluster.levels()
        await job.run(await cluster.lease())
        assert await cluster.levels() == before
        assert cluster.pace.spent_bytes == 0
        assert job.counters.merges == 0

    on_cluster(tmp_path, scenario)


def test_logs_of_unknown_topics_are_left_alone(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        gone = await cluster.new_topic("gone", 2)
        for _ in range(8):
            await cluster.commit_random()
        for _ in range(8):
            await cluster.commit_random(gone.logs)
        before = {log_id: await cluster.rows(log_id) for log_id in gone.logs}
        cluster.topics.remove(gone)
        await cluster.merge()
        assert {log_id: await cluster.rows(log_id) for log_id in gone.logs} == before
        assert {row.level for log in cluster.topics[0].logs for row in await cluster.rows(log)} != {0}
        await cluster.check()
        # Its segments alone are not merged again and again.
        spent = cluster.pace.spent_bytes
        await cluster.merge()
        assert cluster.pace.spent_bytes == spent

    on_cluster(tmp_path, scenario)


def test_a_huge_batch_and_a_huge_extent_are_merged_within_little_memory(tmp_path: Path) -> None:
    limits = tiny_limits(memory_bytes=4 * MIB, due_bytes=(10**8,) * 3, settled_bytes=10**9)

    async def scenario(cluster: Cluster) -> None:
        log, other = cluster.topics[0].logs
        huge = _batch_of(cluster.random.randbytes(5 * MIB))
        many = [cluster.batch(100_000) for _ in range(60)]
        await cluster.commit({log: [huge], other: [cluster.batch(100)]})
        await cluster.commit({log: many})
        await cluster.commit({log: [cluster.batch(9), huge, cluster.batch(9)]})
        await cluster.commit({log: [cluster.batch(100)], other: [cluster.batch(100)]})
        job = await cluster.merge(limits)
        levels = [row.level for row in await cluster.rows(log)]
        assert set(levels) == {1}
        assert job.held_bytes_peak < 2 * len(huge) + 9 * MIB
        await cluster.check()
        await cluster.check_objects()

    on_cluster(tmp_path, scenario, partitions=2)


def test_memory_stays_bounded_whatever_lies_there(tmp_path: Path) -> None:
    limits = tiny_limits(memory_bytes=400_000, segment_bytes_max=10**9, due_bytes=(4 * MIB,) * 3)

    async def scenario(cluster: Cluster) -> None:
        for _ in range(60):
            await cluster.commit_random(size_max=30_000)
        written = sum(row.size_bytes for row in await cluster.store.segment_totals())
        assert written > 8 * limits.memory_bytes
        cluster.objects.read_bytes_peak = 0
        job = await cluster.merge(limits)
        assert job.counters.read_bytes >= written - 4 * MIB
        assert job.held_bytes_peak <= limits.memory_bytes
        # What is read lives as long as it is counted: one portion, and what lies between its extents.
        assert cluster.objects.read_bytes_peak <= limits.memory_bytes // 2
        assert cluster.objects.read_bytes_held == 0
        sizes = [row.size_bytes for rows in (await cluster.levels()).values() for row in rows]
        assert max(sizes) <= limits.memory_bytes // 2
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=6)


def test_what_lies_between_extents_is_read_along_within_bounds_alone(tmp_path: Path) -> None:
    limits = tiny_limits(segment_bytes_max=10**9, due_bytes=(5 * MIB,) * 3, due_segments=(64, 2048, 2048))

    async def scenario(cluster: Cluster) -> None:
        first, large, last = cluster.topics[0].logs
        value = cluster.random.randbytes(60_000)
        for _ in range(100):
            await cluster.commit(
                {first: [cluster.batch(300)], large: [_batch_of(value)], last: [cluster.batch(300)]}
            )
        # The extents of the large log settle on top; those of the others climb, and it lies between them.
        job = await cluster.merge(limits)
        assert {row.level for row in await cluster.rows(last)} == {1}
        assert job.held_bytes_peak <= limits.memory_bytes
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=3)


def test_swaps_replace_a_bounded_number_of_rows(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(6):
            await cluster.commit({log_id: [cluster.batch(10)] for log_id in cluster.topics[0].logs})
        job = await cluster.merge(tiny_limits(swap_rows_max=25))
        assert job.counters.segments_written == 10
        assert job.counters.extents_removed == 240
        assert job.counters.extents_added == 40
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=40)


def test_a_lower_level_that_falls_due_goes_before_the_rest_of_an_upper_one(tmp_path: Path) -> None:
    limits = tiny_limits(memory_bytes=40_000, due_bytes=(10**9, 100_000, 10**9), due_segments=(4, 99, 99))

    async def scenario(cluster: Cluster) -> None:
        log, *others = cluster.topics[0].logs
        for _ in range(40):
            await cluster.commit({log_id: [cluster.batch(1000)] for log_id in others})
        lazy = tiny_limits(due_bytes=(200_000, 10**9, 10**9), due_small_segments=99)
        await cluster.merge(lazy)
        keys: list[str] = []

        def watch(name: str, key: str) -> None:
            if name == "put":
                keys.append(key)

        cluster.objects.before = watch
        store = _Arriving(cluster, log)
        job = cluster.job(limits, store)
        await job.run(await cluster.lease())
        rows = await cluster.rows(log)
        assert [row.level for row in rows][:1] == [1]
        place = keys.index(rows[0].key)
        assert 0 < place < len(keys) - 1
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=4)


class _Arriving:
    """The store of a cluster in which a lower level falls due after the first swaps of an upper one."""

    def __init__(self, cluster: Cluster, log_id: LogId) -> None:
        self._cluster = cluster
        self._log_id = log_id
        self._swaps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster.store, name)

    async def swap(self, *arguments: Any) -> Any:
        self._swaps += 1
        if self._swaps == 2:
            for _ in range(4):
                await self._cluster.commit({self._log_id: [self._cluster.batch(10)]})
        return await self._cluster.store.swap(*arguments)


def test_segments_of_which_little_is_alive_are_written_anew(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        short, long = cluster.topics[0].logs
        for _ in range(8):
            await cluster.commit({short: [cluster.batch(9000)], long: [cluster.batch(1000)]})
        await cluster.merge()
        end = cluster.truth[short][-1][0] + 1
        lease = await cluster.lease()
        await cluster.store.advance_log_starts(lease, {short: end})
        await cluster.store.trim_logs(lease, [short], 1000)
        before = await cluster.bytes_of_segments()
        job = cluster.job()
        for _ in range(4):
            await job.run(lease)
        after = await cluster.bytes_of_segments()
        live = sum(row.size_bytes for row in await cluster.rows(long))
        assert before > 4 * live
        assert after < 1.3 * live
        written = job.counters.segments_written
        for _ in range(4):
            await job.run(lease)
        assert job.counters.segments_written == written
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=2)


def test_segments_that_are_mostly_footer_are_not_written_again_and_again(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        topic = await cluster.new_topic("a-topic-whose-name-is-long-" * 6, 12)
        job, lease = cluster.job(), await cluster.lease()
        for _ in range(4):
            await cluster.commit({log_id: [cluster.batch(1, 1)] for log_id in topic.logs})
        for _ in range(8):
            await job.run(lease)
        assert job.counters.segments_written == 1

    on_cluster(tmp_path, scenario)


def test_small_segments_on_top_are_joined_when_there_are_many(tmp_path: Path) -> None:
    limits = tiny_limits(due_segments=(1, 1, 1), due_small_segments=4)

    async def scenario(cluster: Cluster) -> None:
        job, lease = cluster.job(limits), await cluster.lease()
        for _ in range(12):
            await cluster.commit({cluster.topics[0].logs[0]: [cluster.batch(20)]})
            for _ in range(3):
                await job.run(lease)
        levels = await cluster.levels()
        assert set(levels) == {TOP_LEVEL}
        assert len(levels[TOP_LEVEL]) <= 5
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=1)


def test_debt_counts_what_can_be_merged_alone(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        limits = tiny_limits(backlog_bytes_max=200_000, due_bytes=(200_000,) * 3)
        job, lease = cluster.job(limits), await cluster.lease()
        for _ in range(3):
            await cluster.commit_random()
        await job.run(lease)
        assert job.debt.segments == 3
        assert job.debt.ratio == pytest.approx(3 / 4)
        # Segments with extents that nobody can read will not be merged: they are no reason to hold producers back.
        for _ in range(5):
            key = await cluster.commit_random()
            cluster.objects.change(key, 100)
        await job.run(lease)
        assert job.quarantine.extents == 5
        for _ in range(2):
            await job.run(lease)
        assert job.debt.ratio < 1

    on_cluster(tmp_path, scenario)


def test_timestamps_of_extents_survive(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(8):
            await cluster.commit_random()
        [topic] = cluster.topics
        before = {
            log_id: max(r.max_timestamp_ms for r in await cluster.rows(log_id)) for log_id in topic.logs
        }
        await cluster.merge()
        for log_id in topic.logs:
            rows = await cluster.rows(log_id)
            assert max(row.max_timestamp_ms for row in rows) == before[log_id]
            for row in rows:
                data = await cluster.objects.get(row.key, row.position, row.size_bytes)
                times, at = [], 0
                while at < len(data):
                    header = verify_batch(data, at)
                    times.append(header.max_timestamp)
                    at += header.size_bytes
                assert row.max_timestamp_ms == max(times)

    on_cluster(tmp_path, scenario)
