"""Merging when things fail, and beside others who change the same logs: nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.unit.lifecycle.merge_support import Cluster, run, tiny_limits
from tests.unit.metadata.support import WatchedDatabase
from warp.errors import ErrorCode, MetadataUnavailable, ObjectStoreError, OutcomeUnknown, StoreFull
from warp.ids import LogId
from warp.lifecycle import merge_work
from warp.lifecycle.levels import TOP_LEVEL
from warp.lifecycle.merge_read import GAP_BYTES_MAX
from warp.lifecycle.swap_parts import ROWS_PER_SWAP, swap_parts
from warp.metadata.group_model import Lease, LeaseLost
from warp.metadata.life_model import SegmentRow, Swap, SwapResult

FAILURES = {
    "get": ObjectStoreError("no answer"),
    "put": StoreFull("no room"),
    "commit": MetadataUnavailable("no answer"),
}


@pytest.fixture(autouse=True)
def swaps_in_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here each swap takes several transactions, and anything may happen between them."""
    monkeypatch.setattr(merge_work, "swap_parts", lambda change, _rows_max: swap_parts(change, 6))


def on_cluster(path: Path, scenario: Callable[[Cluster], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        cluster = Cluster(path / "db", **options)
        await cluster.open()
        try:
            await scenario(cluster)
        finally:
            await cluster.close()

    run(main())


class Fault:
    """Lets the nth operation of a kind fail."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.left = -1
        self.has_struck = False

    def arm(self, nth: int) -> None:
        self.left, self.has_struck = nth, False

    def disarm(self) -> None:
        self.left = -1

    def __call__(self, name: str, key: str = "") -> None:
        if name != self.kind or self.left < 0:
            return
        self.left -= 1
        if self.left == 0:
            self.has_struck = True
            self.left = -1
            raise FAILURES[self.kind]


@pytest.mark.parametrize("kind", ["get", "put", "commit"])
def test_whatever_fails_nothing_is_lost_and_the_next_pass_goes_on(tmp_path: Path, kind: str) -> None:
    fault = Fault(kind)

    async def scenario(cluster: Cluster) -> None:
        cluster.objects.before = fault
        nth = 0
        while True:
            nth += 1
            for _ in range(4):
                await cluster.commit_random(size_max=4000)
            lease = await cluster.lease()
            fault.arm(nth)
            try:
                await cluster.job(tiny_limits(memory_bytes=20_000)).run(lease)
            except type(FAILURES[kind]):
                assert fault.has_struck
            fault.disarm()
            await cluster.check()
            if not fault.has_struck:
                break
        assert nth > 3
        await cluster.merge()
        assert 0 not in await cluster.levels()
        await cluster.check()
        await cluster.check_objects()

    on_cluster(tmp_path, scenario, partitions=2, wrap=lambda database: WatchedDatabase(database, fault))


class Forgetful:
    """The store of a cluster that loses the answers of swaps: before they were made, or after."""

    def __init__(self, cluster: Cluster, lost: str, times: int) -> None:
        self._cluster = cluster
        self._lost = lost
        self._left = times
        self.swaps: list[Swap] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster.store, name)

    async def swap(self, lease: Any, change: Swap) -> SwapResult:
        self.swaps.append(change)
        is_lost = self._left > 0
        self._left -= 1
        if is_lost and self._lost == "before":
            raise OutcomeUnknown("lost")
        result = await self._cluster.store.swap(lease, change)
        if is_lost:
            raise OutcomeUnknown("lost")
        return result


@pytest.mark.parametrize("lost", ["before", "after"])
@pytest.mark.parametrize("times", [1, 4, 5])
def test_a_swap_whose_outcome_is_unknown_is_asked_for_again(tmp_path: Path, lost: str, times: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(5):
            await cluster.commit_random()
        store = Forgetful(cluster, lost, times)
        job = cluster.job(store=store)
        if times == 5:
            with pytest.raises(OutcomeUnknown):
                await job.run(await cluster.lease())
        else:
            await job.run(await cluster.lease())
            assert job.counters.logs_dropped == 0
            assert 0 not in await cluster.levels()
        assert len({segment.key for segment in store.swaps[0].segments}) == 1
        assert all(swap is store.swaps[0] for swap in store.swaps[: min(times + 1, 5)])
        await cluster.check()
        await cluster.merge()
        await cluster.check()
        await cluster.check_objects()

    on_cluster(tmp_path, scenario)


def test_of_two_mergers_at_once_each_log_is_swapped_by_one(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(12):
            await cluster.commit_random(size_max=20_000)
        lease = await cluster.lease()
        jobs = [cluster.job(tiny_limits(memory_bytes=100_000)) for _ in range(2)]
        await asyncio.gather(*(job.run(lease) for job in jobs))
        assert sum(job.counters.logs_dropped for job in jobs) > 0
        await jobs[0].run(lease)
        assert len((await cluster.levels()).get(0, [])) < 4
        await cluster.check(every_offset=True)
        await cluster.check_objects()

    on_cluster(tmp_path, scenario, partitions=4)


def test_who_has_lost_the_lease_changes_nothing(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(6):
            await cluster.commit_random()
        old = await cluster.lease(broker=1)
        new = await cluster.lease(broker=2)
        before = await cluster.levels()
        job = cluster.job()
        with pytest.raises(LeaseLost):
            await job.run(old)
        assert await cluster.levels() == before
        await cluster.job().run(new)
        assert 0 not in await cluster.levels()
        await cluster.check()

    on_cluster(tmp_path, scenario)


def test_merging_beside_commits_deleted_records_and_deleted_topics(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        doomed = await cluster.new_topic("doomed", 3)
        for _ in range(8):
            await cluster.commit_random(size_max=10_000)
        lease = await cluster.lease()
        kept = cluster.topics[0]

        async def commit() -> None:
            for _ in range(15):
                await cluster.commit_random(kept.logs, size_max=10_000)
                await asyncio.sleep(0)

        async def delete_records() -> None:
            for number in range(10):
                log_id = kept.logs[number % len(kept.logs)]
                [state] = (await cluster.store.log_states([log_id])).values()
                before = (state.start_offset + state.next_offset) // 2
                answers = await cluster.store.delete_records({log_id: before})
                assert not isinstance(answers[log_id], ErrorCode)
                await cluster.store.trim_logs(lease, [log_id], 1000)
                await asyncio.sleep(0)

        async def delete_topic() -> None:
            await asyncio.sleep(0)
            await cluster.store.delete_topics([doomed.topic_id])
            for _ in range(30):
                await cluster.store.clear_deleted_logs(lease, 2)
                await asyncio.sleep(0)

        job = cluster.job(tiny_limits(memory_bytes=60_000))
        await asyncio.gather(job.run(lease), commit(), delete_records(), delete_topic())
        cluster.topics.remove(doomed)
        await job.run(lease)
        await cluster.check()
        await cluster.check_objects()
        assert job.quarantine.extents == 0

    on_cluster(tmp_path, scenario)


@pytest.mark.parametrize("damage", ["changed", "missing", "cut", "foreign"])
def test_what_cant_be_read_is_put_aside_and_the_rest_goes_on(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(cluster: Cluster) -> None:
        log, other = cluster.topics[0].logs
        keys = [
            await cluster.commit({log: [cluster.batch(200)], other: [cluster.batch(200)]}) for _ in range(9)
        ]
        before = {log_id: await cluster.rows(log_id) for log_id in (log, other)}
        [bad, other_bad] = [row for rows in before.values() for row in rows if row.key == keys[4]]
        if damage == "changed":
            cluster.objects.change(bad.key, bad.position + 70)
        elif damage == "missing":
            await cluster.objects.delete([bad.key])
        elif damage == "cut":
            cluster.objects.cut(bad.key, bad.position + 30)
        else:
            await cluster.objects.put(bad.key, [bytes(10_000)])
        job = await cluster.merge()
        quarantined = await cluster.store.quarantined(10)
        lost = {row.log_id for row in quarantined}
        assert lost == ({log} if damage == "changed" else {log, other})
        assert job.quarantine.extents == len(lost)
        assert sum(bad.key in message for message in caplog.messages) == len(lost)
        if damage != "missing":
            await cluster.objects.head(bad.key)
        for log_id in (log, other):
            rows = await cluster.rows(log_id)
            assert [row.level for row in rows] == ([1, 0, 1] if log_id in lost else [1])
        # Others go on; what was put aside is never touched again.
        for _ in range(8):
            await cluster.commit({log: [cluster.batch(200)], other: [cluster.batch(200)]})
        again = await cluster.merge()
        assert again.quarantine.extents == 0
        assert bad in await cluster.rows(log)
        for row in (bad, other_bad):
            good = [record for record in cluster.truth[row.log_id] if record[0] >= row.end_offset]
            assert await cluster.read(row.log_id, row.end_offset) == good

    on_cluster(tmp_path, scenario, partitions=2)


def test_a_missing_object_with_many_extents_is_asked_for_a_few_times_only(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        logs = cluster.topics[0].logs
        keys = [await cluster.commit({log_id: [cluster.batch(50)] for log_id in logs}) for _ in range(4)]
        await cluster.objects.delete([keys[1]])
        gets: list[str] = []
        cluster.objects.before = lambda name, key: gets.append(key)
        job = await cluster.merge()
        assert job.quarantine.extents == len(logs)
        assert gets.count(keys[1]) == 3

    on_cluster(tmp_path, scenario, partitions=30)


def test_an_object_that_went_because_its_extents_moved_is_no_damage(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        logs = cluster.topics[0].logs
        for _ in range(6):
            await cluster.commit({log_id: [cluster.batch(50)] for log_id in logs})
        old = [segment.key for segment in (await cluster.levels())[0]]
        lease = await cluster.lease()
        store = _Overtaken(cluster, old, lease)
        slow = cluster.job(store=store)
        await slow.run(lease)
        assert store.has_overtaken
        assert slow.quarantine.extents == 0
        assert await cluster.store.quarantined(10) == []
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=4)


class _Overtaken:
    """A store whose extents are moved, and their objects deleted, just after they were read from the index."""

    def __init__(self, cluster: Cluster, keys: list[str], lease: Lease) -> None:
        self._cluster = cluster
        self._keys = keys
        self._lease = lease
        self.has_overtaken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster.store, name)

    async def extents_in_segments(self, segment_ids: Any) -> Any:
        found = await self._cluster.store.extents_in_segments(segment_ids)
        if not self.has_overtaken:
            self.has_overtaken = True
            await self._cluster.job().run(self._lease)
            await self._cluster.objects.delete(self._keys)
        return found


def test_a_swap_that_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(5):
            await cluster.commit_random()
        lease = await cluster.lease()
        claimed: list[str] = []

        class Swept:
            def __getattr__(self, name: str) -> Any:
                return getattr(cluster.store, name)

            async def swap(self, lease: Any, change: Swap) -> SwapResult:
                if not claimed:
                    claimed.extend(segment.key for segment in change.segments)
                    await cluster.store.claim_keys(lease, [(key, 1) for key in claimed])
                return await cluster.store.swap(lease, change)

        job = cluster.job(store=Swept())
        await job.run(lease)
        assert job.counters.swaps_refused == 1
        assert claimed[0] not in {row.key for rows in (await cluster.levels()).values() for row in rows}
        assert 0 not in await cluster.levels()
        await cluster.check()

    on_cluster(tmp_path, scenario)


@pytest.mark.parametrize("turns", [1, 5, 20, 60, 150])
def test_a_pass_that_is_cut_short_leaves_nothing_going_on(tmp_path: Path, turns: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(12):
            await cluster.commit_random(size_max=20_000)
        job, lease = cluster.job(tiny_limits(memory_bytes=60_000)), await cluster.lease()
        task = asyncio.ensure_future(job.run(lease))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [other for other in others if "wait_for" not in repr(other)]
        await cluster.check()
        await job.run(lease)
        assert len((await cluster.levels()).get(0, [])) < 4
        await cluster.check()

    on_cluster(tmp_path, scenario)


def test_the_memory_of_a_pass_that_failed_is_free_again(tmp_path: Path) -> None:
    fault = Fault("put")

    async def scenario(cluster: Cluster) -> None:
        cluster.objects.before = fault
        for _ in range(8):
            await cluster.commit_random(size_max=20_000)
        job, lease = cluster.job(tiny_limits(memory_bytes=60_000)), await cluster.lease()
        for nth in (1, 2, 1):
            fault.arm(nth)
            with pytest.raises(StoreFull):
                await job.run(lease)
            assert job.held_bytes == 0
        await job.run(lease)
        assert job.held_bytes == 0
        await cluster.check()

    on_cluster(tmp_path, scenario)


def test_extents_that_are_far_apart_are_not_read_together(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        first, middle, last = cluster.topics[0].logs
        for _ in range(4):
            await cluster.commit(
                {
                    first: [cluster.batch(100)],
                    middle: [cluster.batch(GAP_BYTES_MAX * 2)],
                    last: [cluster.batch(9)],
                }
            )
        cluster.topics[0] = cluster.topics[0].__class__(
            "first", cluster.topics[0].topic_id, (first, LogId(10**6), last)
        )
        job = await cluster.merge(tiny_limits(due_bytes=(10**9,) * 3))
        assert job.counters.extents_removed == 8
        assert cluster.objects.largest_get < 5000

    on_cluster(tmp_path, scenario)


def test_a_segment_that_dies_while_its_logs_come_takes_no_more_of_them(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(6):
            await cluster.commit_random()
        lease = await cluster.lease()
        parts: list[SwapResult] = []
        keys: list[str] = []
        logs = cluster.policies()[0].logs

        class Overtaken:
            def __getattr__(self, name: str) -> Any:
                return getattr(cluster.store, name)

            async def swap(self, lease: Any, change: Swap) -> SwapResult:
                result = await cluster.store.swap(lease, change)
                keys.append(change.segments[0].key)
                if keys[-1] != keys[0]:
                    return result
                assert change.is_begun == bool(parts)
                parts.append(result)
                if len(parts) == 1:
                    [found] = (await cluster.levels())[1]
                    assert found.key == keys[0]
                    states = await cluster.store.log_states(sorted(parts[0].swapped))
                    await cluster.store.delete_records(
                        {log_id: state.next_offset for log_id, state in states.items()}
                    )
                    await cluster.store.trim_logs(lease, logs, 1000)
                    assert await cluster.store.mark_dead_among(lease, [found.segment_id]) == 1
                return result

        job = cluster.job(store=Overtaken())
        await job.run(lease)
        assert len(parts) > 1
        assert all(not part.swapped for part in parts[1:])
        await cluster.check()
        await cluster.job().run(lease)
        assert 0 not in await cluster.levels()
        await cluster.check()

    on_cluster(tmp_path, scenario, partitions=4)


def test_no_swap_of_many_logs_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_work, "swap_parts", swap_parts)

    async def scenario(cluster: Cluster) -> None:
        sizes: list[int] = []

        class Watched:
            def __getattr__(self, name: str) -> Any:
                return getattr(cluster.store, name)

            async def swap(self, lease: Any, change: Swap) -> SwapResult:
                sizes.append(len(change.removed) + len(change.added))
                turns = asyncio.get_running_loop().create_future()
                asyncio.get_running_loop().call_soon(turns.set_result, None)
                result = await cluster.store.swap(lease, change)
                assert turns.done(), "others have had their turn before the next part"
                return result

        topic = await cluster.new_topic("many", 150)
        for _ in range(4):
            await cluster.commit({log_id: [cluster.batch(50)] for log_id in topic.logs})
        await cluster.job(store=Watched()).run(await cluster.lease())
        assert len(sizes) > 1
        assert max(sizes) <= ROWS_PER_SWAP
        await cluster.check()

    on_cluster(tmp_path, scenario)


class Hindered:
    """The store of a cluster in which others change every log before it can be swapped. Counts looks at segments.

    What there is above level 0 it shows on each of these levels.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.looks = 0
        self._cluster = cluster

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster.store, name)

    async def oldest_segments(self, level: int, limit: int, after_id: int = 0) -> list[SegmentRow]:
        self.looks += 1
        levels = range(1, TOP_LEVEL + 1) if level else range(1)
        return [
            row for each in levels for row in await self._cluster.store.oldest_segments(each, limit, after_id)
        ]

    async def swap(self, lease: Any, change: Swap) -> SwapResult:
        return SwapResult(frozenset(), frozenset(row.log_id for row in change.removed))


def test_sparse_segments_of_logs_that_others_change_are_left_to_another_pass(tmp_path: Path) -> None:
    """Simulator, seed 142: the scan found them again and again, until the time of the pass was up."""

    async def scenario(cluster: Cluster) -> None:
        short, long = cluster.topics[0].logs
        for _ in range(8):
            await cluster.commit({short: [cluster.batch(9000)], long: [cluster.batch(1000)]})
        await cluster.merge()
        lease = await cluster.lease()
        await cluster.store.advance_log_starts(lease, {short: cluster.truth[short][-1][0] + 1})
        await cluster.store.trim_logs(lease, [short], 1000)
        store = Hindered(cluster)
        job = cluster.job(tiny_limits(pass_s=2.0), store=store)
        await job.run(lease)
        assert job.counters.logs_dropped > 0
        assert store.looks < 100

    on_cluster(tmp_path, scenario, partitions=2)
