"""Orphans: what no commit has named is claimed and dies, and nothing else is touched."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.lifecycle.sweep_support import HOUR_S, NOW_MS, Bench, FaultPlan, run
from warp.errors import ErrorCode, ObjectStoreError
from warp.lifecycle.dead import DeadSegments
from warp.lifecycle.orphans import Listing, OrphanLimits, OrphanSweep
from warp.log.segment import ExtentBatches, build_segment
from warp.metadata.group_model import Lease, LeaseLost
from warp.metadata.life_model import NewExtent, NewSegment, SegmentState, Swap, SwapRefused
from warp.metadata.model import SegmentCommit
from warp.objectstore.base import ObjectInfo
from warp.objectstore.memory import MemoryStore

DEAD = SegmentState.DEAD
DAY_S = 24 * HOUR_S


def sweep(bench: Bench, limits: OrphanLimits | None = None) -> OrphanSweep:
    return OrphanSweep(bench.store, bench.objects, bench.clock, bench.may_delete, limits)


async def hourly(bench: Bench, job: OrphanSweep, lease: Lease, hours: float) -> None:
    """The job runs now, and then once in an hour."""
    await job.run(lease)
    for _ in range(int(hours)):
        bench.clock.pass_time(HOUR_S)
        await job.run(lease)


async def upload(bench: Bench, key: str | None = None) -> str:
    """An object that nobody commits."""
    key = key or bench.ids.segment_key()
    topic_logs = bench.policies[0].logs if bench.policies else (await bench.new_topic("t")).logs
    await bench.upload(key, (topic_logs[0], NOW_MS))
    return key


def test_an_object_that_no_commit_named_is_claimed_and_goes_the_way_of_dead_segments() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        await bench.flush((topic.logs[0], NOW_MS))
        [live] = await bench.keys("segments/")
        orphan = await upload(bench)
        job, lease = sweep(bench), await bench.lease()
        await hourly(bench, job, lease, 1)
        assert await bench.state_of(orphan) is DEAD
        assert job.counters.orphans_claimed == 1
        assert job.counters.orphan_bytes_claimed == (await bench.objects.head(orphan)).size_bytes
        dead = DeadSegments(bench.store, bench.objects, bench.clock, bench.may_delete)
        await dead.run(lease)
        bench.clock.pass_time(HOUR_S)
        await dead.run(lease)
        assert await bench.keys("segments/") == [live]
        await hourly(bench, job, lease, 2)
        assert job.counters.orphans_claimed == 1

    run(scenario)


def test_a_young_object_is_left_alone_and_so_is_one_that_may_be_young() -> None:
    async def scenario(bench: Bench) -> None:
        early = await upload(bench)
        job, lease = sweep(bench), await bench.lease()
        bench.clock.pass_time(1_800)
        young = await upload(bench)
        # Both clocks: old by wall clock is not enough where nobody has seen it before.
        bench.clock.pass_time(1_800)
        await job.run(lease)
        assert await bench.state_of(early) is None
        bench.clock.pass_time(899)
        await job.run(lease)
        assert await bench.state_of(early) is None
        bench.clock.pass_time(1)
        await job.run(lease)
        assert [await bench.state_of(early), await bench.state_of(young)] == [DEAD, None]

    run(scenario)


@pytest.mark.parametrize("jump_h", [10, -10])
def test_a_clock_that_jumps_claims_nothing_early(jump_h: int) -> None:
    async def scenario(bench: Bench) -> None:
        job, lease = sweep(bench), await bench.lease()
        await upload(bench, "segments/00/000000000000-00000000000000000000")
        await hourly(bench, job, lease, 3)
        bench.clock.set_by(jump_h * HOUR_S)
        await job.run(lease)
        key = await upload(bench)
        bench.clock.pass_time(600)
        bench.clock.set_by(-jump_h * HOUR_S)
        for _ in range(5):
            await job.run(lease)
            assert await bench.state_of(key) is None
            bench.clock.pass_time(590)
        await hourly(bench, job, lease, 13)
        assert await bench.state_of(key) is DEAD

    run(scenario)


def test_objects_with_other_names_are_counted_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        names = ("segments/notes.txt", "segments/ab/0123", "segments/AB/012345678901-0123456789abcdef0123")
        for name in (*names, "receipts/x", "elsewhere/y"):
            await bench.objects.put(name, [b"mine"])
        job, lease = sweep(bench), await bench.lease()
        await hourly(bench, job, lease, 3)
        assert job.counters.foreign_objects == 4
        assert job.counters.orphans_claimed == 0
        assert len(await bench.keys()) == 5
        assert sum("left alone" in record.message for record in caplog.records) == 1
        await bench.objects.delete(["receipts/x"])
        await job.run(lease)
        assert job.counters.foreign_objects == 3

    run(scenario)


def test_where_the_bucket_lives_by_other_metadata_nothing_is_claimed() -> None:
    async def scenario(bench: Bench) -> None:
        orphan = await upload(bench)
        bench.permission = False
        job, lease = sweep(bench), await bench.lease()
        await hourly(bench, job, lease, 3)
        assert (await bench.state_of(orphan), bench.asked) == (None, 3)

    run(scenario)


def test_a_sweep_without_a_trusted_clock_or_without_its_lease_claims_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        orphan = await upload(bench)
        lost, lease = await bench.lease(), await bench.lease()
        trusted = [True]
        job = OrphanSweep(
            bench.store, bench.objects, bench.clock, bench.may_delete, is_clock_trusted=lambda: trusted[0]
        )
        await job.run(lost)
        bench.clock.pass_time(HOUR_S)
        with pytest.raises(LeaseLost):
            await job.run(lost)
        trusted[0] = False
        await job.run(lease)
        assert await bench.state_of(orphan) is None
        trusted[0] = True
        await job.run(lease)
        assert await bench.state_of(orphan) is DEAD

    run(scenario)


def test_keys_are_asked_for_in_pages_and_never_held_together() -> None:
    async def scenario(bench: Bench) -> None:
        orphans = {await upload(bench) for _ in range(23)}
        for _ in range(7):
            await bench.flush((bench.policies[0].logs[0], NOW_MS))
        plan = FaultPlan()
        job = OrphanSweep(
            plan.watch(bench.store), bench.objects, bench.clock, bench.may_delete, OrphanLimits(keys_max=10)
        )
        await hourly(bench, job, await bench.lease(), 1)
        assert plan.names.count("known_keys") == 3
        assert job.counters.orphans_claimed == 23
        assert {key for (key,) in await bench.rows("select key from segments where state = 1")} == orphans

    run(scenario)


# Commits and claims


def test_a_commit_that_comes_after_the_claim_is_refused_and_one_that_came_before_keeps_its_object() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        [log] = topic.logs
        job, lease = sweep(bench), await bench.lease()
        late, early = bench.ids.segment_key(), bench.ids.segment_key()
        sealed = {key: await bench.upload(key, (log, NOW_MS)) for key in (late, early)}

        def commit_of(key: str) -> SegmentCommit:
            size_bytes, entries = sealed[key]
            return SegmentCommit(key, size_bytes, NOW_MS, entries)

        await job.run(lease)
        bench.clock.pass_time(HOUR_S)
        known_keys = bench.store.known_keys

        async def slow_known_keys(keys: list[str]) -> set[str]:
            known = await known_keys(keys)
            await bench.store.commit([commit_of(early)], bench.clock.time_ms())
            return known

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench.store, "known_keys", slow_known_keys)
            await job.run(lease)
        assert job.counters.orphans_claimed == 1
        assert [await bench.state_of(key) for key in (early, late)] == [SegmentState.LIVE, DEAD]
        result = await bench.store.commit([commit_of(late)], bench.clock.time_ms())
        assert result.refused[0].error is ErrorCode.KAFKA_STORAGE_ERROR
        assert await bench.extents(log) == [(0, 1)]
        dead = DeadSegments(bench.store, bench.objects, bench.clock, bench.may_delete)
        for _ in range(4):
            await dead.run(lease)
            bench.clock.pass_time(HOUR_S)
        assert await bench.keys("segments/") == [early]

    run(scenario)


def test_the_output_of_a_swap_that_comes_too_late_is_refused() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        await bench.flush((topic.logs[0], NOW_MS))
        output = await upload(bench)
        job, lease = sweep(bench), await bench.lease()
        await hourly(bench, job, lease, 1)
        removed = await bench.store.extents_of_log(topic.logs[0], -1, 10)
        [old] = removed
        added = NewExtent(old.log_id, 0, 1, 0, old.position, old.size_bytes, old.max_timestamp_ms)
        change = Swap([NewSegment(output, 100, 1, NOW_MS)], removed, [added])
        with pytest.raises(SwapRefused):
            await bench.store.swap(lease, change)
        assert await bench.store.extents_of_log(topic.logs[0], -1, 10) == removed

    run(scenario)


# Listings


class Failing(MemoryStore):
    """A store whose listings end after some objects."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.clock, bytes_max=2**30)
        self._objects = bench.objects._objects
        self.objects_left: int | None = None
        bench.objects = self

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        async for found in super().list(prefix):
            if self.objects_left is not None:
                if not self.objects_left:
                    raise ObjectStoreError("the listing broke off")
                self.objects_left -= 1
            yield found


def test_a_listing_that_breaks_off_says_nothing_of_what_was_there() -> None:
    async def scenario(bench: Bench) -> None:
        orphans = [await upload(bench) for _ in range(10)]
        objects = Failing(bench)
        job, lease = sweep(bench, OrphanLimits(keys_max=2)), await bench.lease()
        objects.objects_left = 5
        with pytest.raises(ObjectStoreError):
            await job.run(lease)
        bench.clock.pass_time(HOUR_S)
        objects.objects_left = None
        await job.run(lease)
        assert job.counters.orphans_claimed == 0
        bench.clock.pass_time(HOUR_S)
        objects.objects_left = 5
        with pytest.raises(ObjectStoreError):
            await job.run(lease)
        assert job.counters.orphans_claimed == 4
        objects.objects_left = None
        await job.run(lease)
        assert {await bench.state_of(key) for key in orphans} == {DEAD}

    run(scenario)


def test_an_object_from_the_future_makes_no_others_seem_to_have_been_there() -> None:
    async def scenario(bench: Bench) -> None:
        bench.clock.set_by(1_000 * HOUR_S)
        await upload(bench)
        bench.clock.set_by(-1_000 * HOUR_S)
        job, lease = sweep(bench), await bench.lease()
        await job.run(lease)
        bench.clock.pass_time(600)
        key = await upload(bench)
        bench.clock.pass_time(HOUR_S)
        await job.run(lease)
        assert await bench.state_of(key) is None

    run(scenario)


def test_frequent_listings_leave_few_marks() -> None:
    async def scenario(bench: Bench) -> None:
        listing = Listing(bench.objects, "segments/", bench.clock, 900.0)

        async def nothing(_: object) -> None:
            raise AssertionError("there are no objects")

        for _ in range(1_000):
            await listing.each_old(bench.clock.time_ms(), bench.clock.time_ms(), 10, nothing)
            bench.clock.pass_time(10)
        assert len(listing._marks) <= 10

    run(scenario)


# Receipts


def test_receipts_go_once_none_of_their_segments_is_known_and_not_within_a_week() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        [log] = topic.logs
        await bench.flush((log, NOW_MS))
        [live] = await bench.keys("segments/")
        over = await bench.put_receipts("segments/00/000000000000-00000000000000000000")
        needed = await bench.put_receipts("segments/00/000000000000-00000000000000000000", live)
        empty = await bench.put_receipts()
        job, lease = sweep(bench), await bench.lease()
        await job.run(lease)
        bench.clock.pass_time(7 * DAY_S - 1)
        await job.run(lease)
        assert {over, needed, empty} <= set(await bench.keys())
        bench.clock.pass_time(1)
        await job.run(lease)
        assert await bench.keys("receipts/") == [needed]
        assert job.counters.receipts_deleted == 2
        await bench.store.delete_records({log: 1})
        await bench.store.trim_logs(lease, [log], 10)
        dead = DeadSegments(bench.store, bench.objects, bench.clock, bench.may_delete)
        for _ in range(4):
            await dead.run(lease)
            bench.clock.pass_time(HOUR_S)
        assert await bench.state_of(live) is None
        await job.run(lease)
        assert await bench.keys("receipts/") == [needed]
        bench.clock.pass_time(DAY_S)
        await job.run(lease)
        assert await bench.keys() == []

    run(scenario)


def test_what_stands_in_the_place_of_receipts_and_is_something_else_stays() -> None:
    async def scenario(bench: Bench) -> None:
        name = "receipts/ab/0123456789ab-0123456789abcdef012%d"
        records = ExtentBatches(bench.ids.topic_id(), "t", 0, [b"no batch" * 10], 1, 1, 1)
        await bench.objects.put(name % 1, [b"damaged" * 100])
        await bench.objects.put(name % 2, build_segment([records], created_ms=1))
        job, lease = sweep(bench), await bench.lease()
        await job.run(lease)
        for _ in range(3):
            bench.clock.pass_time(8 * HOUR_S + 7 * DAY_S)
            await job.run(lease)
            assert job.counters.foreign_objects == 2
            await job.run(lease)
            assert job.counters.foreign_objects == 2
        assert len(await bench.keys()) == 2

    run(scenario)


def test_a_pass_reads_no_more_receipts_than_it_may_and_the_next_ones_go_on() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        await bench.flush((topic.logs[0], NOW_MS))
        [live] = await bench.keys("segments/")
        for _ in range(5):
            await bench.put_receipts(live)
        for _ in range(5):
            await bench.put_receipts("segments/00/000000000000-00000000000000000000")
        job, lease = sweep(bench, OrphanLimits(receipts_read_max=4)), await bench.lease()
        await job.run(lease)
        bench.clock.pass_time(7 * DAY_S)
        for _ in range(3):
            await job.run(lease)
        assert len(await bench.keys("receipts/")) == 5
        assert job.counters.receipts_deleted == 5

    run(scenario)


def test_receipts_stay_where_the_bucket_lives_by_other_metadata() -> None:
    async def scenario(bench: Bench) -> None:
        key = await bench.put_receipts("segments/00/000000000000-00000000000000000000")
        bench.permission = False
        job, lease = sweep(bench), await bench.lease()
        await job.run(lease)
        bench.clock.pass_time(8 * DAY_S)
        await job.run(lease)
        assert await bench.keys() == [key]
        bench.permission = True
        bench.clock.pass_time(HOUR_S)
        await job.run(lease)
        assert await bench.keys() == []

    run(scenario)
