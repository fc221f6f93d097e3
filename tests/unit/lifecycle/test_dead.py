"""Dead segments: found, deleted after the time of grace and no earlier, forgotten when no commit can come any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from tests.unit.lifecycle.sweep_support import HOUR_S, NOW_MS, Bench, run
from warp.errors import MetadataUnavailable, ObjectStoreError
from warp.ids import LogId
from warp.lifecycle.dead import DeadLimits, DeadSegments
from warp.lifecycle.retention import Retention
from warp.metadata.group_model import Lease, LeaseLost
from warp.metadata.life_model import SegmentState
from warp.objectstore.memory import MemoryStore

GRACE_S = 1_800.0
LIVE, DEAD, GONE = SegmentState


def segments_job(bench: Bench, **limits: float | int) -> DeadSegments:
    return DeadSegments(
        bench.store,
        bench.objects,
        bench.clock,
        bench.may_delete,
        DeadLimits(**limits),  # type: ignore[arg-type]  # the names say what they are
    )


async def some_dead(bench: Bench, count: int = 1, live: int = 1) -> tuple[LogId, list[str]]:
    """A log with some segments, of which the first `count` hold nothing any more: their keys."""
    topic = await bench.new_topic("t")
    [log] = topic.logs
    for _ in range(count + live):
        await bench.flush((log, NOW_MS))
    rows = await bench.store.extents_of_log(log, -1, 1_000)
    await bench.store.delete_records({log: count})
    await Retention(bench.store, bench.clock, list, bench.log_starts_at).run(await bench.lease("job/r"))
    return log, [row.key for row in rows[:count]]


async def pass_by(
    bench: Bench, job: DeadSegments, lease: Lease, seconds: float, step_s: float = 60.0
) -> None:
    """Time goes by, and the job makes its passes."""
    for _ in range(int(seconds / step_s)):
        bench.clock.pass_time(step_s)
        await job.run(lease)


def test_a_segment_without_extents_dies_and_its_object_goes_after_the_grace_and_its_row_later() -> None:
    async def scenario(bench: Bench) -> None:
        _, [key] = await some_dead(bench)
        job, lease = segments_job(bench), await bench.lease()
        await job.run(lease)
        assert await bench.state_of(key) is DEAD
        await pass_by(bench, job, lease, GRACE_S - 60)
        assert key in await bench.keys()
        await pass_by(bench, job, lease, 60)
        assert key not in await bench.keys()
        assert await bench.state_of(key) is GONE
        await pass_by(bench, job, lease, 1_200)
        assert await bench.state_of(key) is GONE
        await pass_by(bench, job, lease, 60)
        assert await bench.state_of(key) is None
        counters = job.counters
        assert (counters.segments_died, counters.segments_deleted, counters.rows_forgotten) == (1, 1, 1)
        assert counters.bytes_deleted > 0
        assert len(await bench.keys("segments/")) == 1

    run(scenario)


def test_a_process_that_takes_over_waits_for_the_whole_grace_by_its_own_clock() -> None:
    async def scenario(bench: Bench) -> None:
        _, [key] = await some_dead(bench)
        first, lease = segments_job(bench), await bench.lease()
        await pass_by(bench, first, lease, GRACE_S - 60)
        second = segments_job(bench)
        await pass_by(bench, second, lease, GRACE_S)
        assert key in await bench.keys()
        await pass_by(bench, second, lease, 60)
        assert key not in await bench.keys()

    run(scenario)


@pytest.mark.parametrize("jump_h", [10, -10, 10_000])
def test_a_clock_that_jumps_and_is_set_right_again_deletes_nothing_early(jump_h: float) -> None:
    async def scenario(bench: Bench) -> None:
        _, keys = await some_dead(bench, 2)
        job, lease = segments_job(bench), await bench.lease()
        await job.run(lease)
        bench.clock.set_by(jump_h * HOUR_S)
        await pass_by(bench, job, lease, GRACE_S / 2)
        # Dies by the wrong clock.
        _, others = await some_dead_of(bench, "u")
        await pass_by(bench, job, lease, GRACE_S / 2 - 60)
        assert set(keys + others) <= set(await bench.keys())
        bench.clock.set_by(-jump_h * HOUR_S)
        await pass_by(bench, job, lease, GRACE_S / 2)
        assert set(others) <= set(await bench.keys())
        assert not set(keys) & set(await bench.keys())
        # What seems to die in the future has to wait for longer, but not until then.
        await pass_by(bench, job, lease, 2 * GRACE_S)
        assert not set(others) & set(await bench.keys())

    run(scenario)


async def some_dead_of(bench: Bench, name: str) -> tuple[LogId, list[str]]:
    topic = await bench.new_topic(name)
    await bench.flush((topic.logs[0], NOW_MS))
    [row] = await bench.store.extents_of_log(topic.logs[0], -1, 1)
    await bench.store.delete_records({topic.logs[0]: 1})
    await bench.store.trim_logs(await bench.lease("job/r"), topic.logs, 10)
    return topic.logs[0], [row.key]


def test_a_death_noted_by_a_clock_behind_is_no_older_than_it_was_seen() -> None:
    async def scenario(bench: Bench) -> None:
        bench.clock.set_by(-100 * HOUR_S)
        _, [key] = await some_dead(bench)
        other = segments_job(bench)
        await other.run(await bench.lease())
        bench.clock.set_by(100 * HOUR_S)
        job, lease = segments_job(bench), await bench.lease()
        await job.run(lease)
        await pass_by(bench, job, lease, GRACE_S - 60)
        assert key in await bench.keys()
        await pass_by(bench, job, lease, 60)
        assert key not in await bench.keys()

    run(scenario)


def test_objects_stay_for_the_restore_window_but_need_no_process_that_lives_so_long() -> None:
    async def scenario(bench: Bench) -> None:
        _, [key] = await some_dead(bench)
        day_s = 24 * HOUR_S
        job, lease = segments_job(bench, restore_window_s=7 * day_s), await bench.lease()
        await job.run(lease)
        await pass_by(bench, job, lease, 7 * day_s - 1_200, step_s=1_200)
        assert key in await bench.keys()
        bench.clock.set_by(HOUR_S)
        await pass_by(bench, job, lease, 600)
        assert key in await bench.keys()
        bench.clock.set_by(-HOUR_S)
        job = segments_job(bench, restore_window_s=7 * day_s)
        await pass_by(bench, job, lease, GRACE_S)
        assert key in await bench.keys()
        await pass_by(bench, job, lease, 60)
        assert key not in await bench.keys()

    run(scenario)


def test_more_segments_than_can_be_watched_go_in_turn() -> None:
    async def scenario(bench: Bench) -> None:
        _, keys = await some_dead(bench, 25)
        job, lease = segments_job(bench, watched_max=10, rows_max=4), await bench.lease()
        await job.run(lease)
        left = []
        for _ in range(3):
            await pass_by(bench, job, lease, GRACE_S + 60)
            left.append(len(set(keys) & set(await bench.keys())))
        assert left == [15, 5, 0]

    run(scenario)


def test_where_the_bucket_lives_by_other_metadata_nothing_is_deleted() -> None:
    async def scenario(bench: Bench) -> None:
        _, keys = await some_dead(bench, 5)
        job, lease = segments_job(bench, rows_max=2), await bench.lease()
        await job.run(lease)
        assert bench.asked == 0
        bench.permission = False
        await pass_by(bench, job, lease, GRACE_S + 600, step_s=600)
        assert set(keys) <= set(await bench.keys())
        assert bench.asked == 2
        assert [await bench.state_of(key) for key in keys] == [DEAD] * 5
        bench.permission = True
        await pass_by(bench, job, lease, 600, step_s=600)
        assert not set(keys) & set(await bench.keys())
        assert bench.asked == 3

    run(scenario)


class Refusing(MemoryStore):
    """A store that refuses to delete some keys or all, or is away; it deletes what comes before what it refuses."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.clock, bytes_max=2**30)
        self._objects = bench.objects._objects
        self.refused: set[str] = set()
        self.refuses_all = False
        self.is_away = False
        self.calls: list[int] = []
        bench.objects = self

    async def check(self) -> None:
        if self.is_away:
            raise ObjectStoreError("away")

    async def delete(self, keys: Sequence[str]) -> None:
        self.calls.append(len(keys))
        if self.is_away or self.refuses_all:
            raise ObjectStoreError("no")
        for key in keys:
            if key in self.refused:
                raise ObjectStoreError(f"{key}: no")
            await super().delete([key])


def test_objects_that_cant_be_deleted_hold_up_no_others_and_are_tried_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(bench: Bench) -> None:
        _, keys = await some_dead(bench, 100)
        objects = Refusing(bench)
        objects.refused = {keys[10], keys[70]}
        job, lease = segments_job(bench), await bench.lease()
        await job.run(lease)
        await pass_by(bench, job, lease, GRACE_S)
        assert set(keys) & set(await bench.keys()) == objects.refused
        states = [await bench.state_of(key) for key in keys]
        assert [key for key, state in zip(keys, states, strict=True) if state is DEAD] == [keys[10], keys[70]]
        assert job.counters.segments_deleted == 98
        assert 2 <= job.counters.delete_failures <= 2 * 8
        assert sum("can't be deleted" in record.message for record in caplog.records) == 2
        calls = len(objects.calls)
        await pass_by(bench, job, lease, 540)
        assert len(objects.calls) == calls
        objects.refused.clear()
        await pass_by(bench, job, lease, 60)
        assert not set(keys) & set(await bench.keys())
        assert job.counters.segments_deleted == 100

    with caplog.at_level(logging.WARNING):
        run(scenario)


def test_a_store_that_is_away_is_asked_once_per_pass_and_loses_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        _, keys = await some_dead(bench, 20)
        objects = Refusing(bench)
        job, lease = segments_job(bench), await bench.lease()
        await job.run(lease)
        bench.clock.pass_time(GRACE_S)
        objects.is_away = True
        for _ in range(3):
            with pytest.raises(ObjectStoreError):
                await job.run(lease)
        assert objects.calls == [20, 20, 20]
        assert [await bench.state_of(key) for key in keys] == [DEAD] * 20
        objects.is_away = False
        await job.run(lease)
        assert not set(keys) & set(await bench.keys())

    run(scenario)


def test_a_store_that_refuses_every_deletion_ends_the_pass() -> None:
    async def scenario(bench: Bench) -> None:
        _, keys = await some_dead(bench, 100)
        objects = Refusing(bench)
        objects.refuses_all = True
        job, lease = segments_job(bench, failures_max=5), await bench.lease()
        await job.run(lease)
        bench.clock.pass_time(GRACE_S)
        with pytest.raises(ObjectStoreError):
            await job.run(lease)
        assert objects.calls == [100, 50, 25, 12, 6]
        assert set(keys) <= set(await bench.keys())

    run(scenario)


def test_two_jobs_that_both_believe_to_hold_the_lease_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        log, keys = await some_dead(bench, 4, live=2)
        lost, jobs = await bench.lease(), [segments_job(bench), segments_job(bench)]
        lease = await bench.lease()
        with pytest.raises(LeaseLost):
            await jobs[0].run(lost)
        assert [await bench.state_of(key) for key in keys] == [LIVE] * 4
        for job in jobs:
            await job.run(lease)
        bench.clock.pass_time(GRACE_S)
        # The one that has lost it deletes objects, which are dead for everybody, and can't say so.
        mark_dead = bench.store.mark_dead
        with monkeypatch.context() as patch:
            patch.setattr(bench.store, "mark_dead", lambda *_: mark_dead(lease, 0, 10))
            with pytest.raises(LeaseLost):
                await jobs[0].run(lost)
        assert [await bench.state_of(key) for key in keys] == [DEAD] * 4
        assert not set(keys) & set(await bench.keys())
        await jobs[1].run(lease)
        assert [await bench.state_of(key) for key in keys] == [GONE] * 4
        assert len(await bench.keys("segments/")) == 2
        assert await bench.extents(log) == [(4, 5), (5, 6)]

    run(scenario)


def test_metadata_that_are_away_after_the_deletion_hear_of_it_in_a_later_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(bench: Bench) -> None:
        _, [key] = await some_dead(bench)
        job, lease = segments_job(bench), await bench.lease()
        await job.run(lease)
        bench.clock.pass_time(GRACE_S)

        async def away(*_: object) -> None:
            raise MetadataUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(bench.store, "mark_gone", away)
            with pytest.raises(MetadataUnavailable):
                await job.run(lease)
        assert (await bench.state_of(key), job.counters.segments_deleted) == (DEAD, 0)
        await job.run(lease)
        assert (await bench.state_of(key), job.counters.segments_deleted) == (GONE, 1)

    run(scenario)


def test_live_segments_are_looked_through_in_as_many_passes_as_it_takes() -> None:
    async def scenario(bench: Bench) -> None:
        _, keys = await some_dead(bench, 9, live=0)
        job, lease = segments_job(bench, rows_max=2, looks_max=2), await bench.lease()
        counts = []
        for _ in range(4):
            await job.run(lease)
            counts.append([await bench.state_of(key) for key in keys].count(DEAD))
        assert counts == [4, 8, 9, 9]

    run(scenario)
