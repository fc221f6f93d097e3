"""Idle producers are forgotten after their time, active ones and those with an open transaction are not."""

from __future__ import annotations

import pytest

from tests.unit.lifecycle.sweep_support import DAY_MS, HOUR_S, NOW_MS, Bench, run
from warp.lifecycle.producer_expiry import ProducerExpiry
from warp.metadata.group_model import LeaseLost


def expiry(bench: Bench) -> ProducerExpiry:
    return ProducerExpiry(bench.store, bench.clock, expiry_ms=DAY_MS)


async def producers(bench: Bench) -> list[int]:
    return [row[0] for row in await bench.rows("select producer_id from producers order by producer_id")]


def test_producers_are_forgotten_a_day_after_their_last_write() -> None:
    async def scenario(bench: Bench) -> None:
        [log] = (await bench.new_topic("t")).logs
        job, lease = expiry(bench), await bench.lease()
        await bench.flush((log, NOW_MS), producer=1, sequence=0)
        await bench.flush((log, NOW_MS), producer=2, sequence=0)
        bench.clock.pass_time(12 * HOUR_S)
        await bench.flush((log, NOW_MS), producer=2, sequence=1)
        bench.clock.pass_time(12 * HOUR_S)
        await job.run(lease)
        assert await producers(bench) == [1, 2]
        bench.clock.pass_time(1)
        await job.run(lease)
        assert await producers(bench) == [2]
        assert job.counters.producers_expired == 1

    run(scenario)


def test_a_producer_with_an_open_transaction_is_kept() -> None:
    async def scenario(bench: Bench) -> None:
        [log] = (await bench.new_topic("t")).logs
        await bench.flush((log, NOW_MS), producer=1, sequence=0)
        await bench.rows("update producers set open_offset = 0 returning producer_id")
        job, lease = expiry(bench), await bench.lease()
        bench.clock.pass_time(100 * 24 * HOUR_S)
        await job.run(lease)
        assert await producers(bench) == [1]

    run(scenario)


def test_all_producers_are_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr("warp.lifecycle.producer_expiry.PRODUCERS_MAX", 3)
        logs = (await bench.new_topic("t", partitions=2)).logs
        for producer in range(10):
            await bench.flush((logs[producer % 2], NOW_MS), producer=producer, sequence=0)
        bench.clock.pass_time(12 * HOUR_S)
        for producer in (3, 4, 8):
            await bench.flush((logs[producer % 2], NOW_MS), producer=producer, sequence=1)
        job, lease = expiry(bench), await bench.lease()
        bench.clock.pass_time(13 * HOUR_S)
        await job.run(lease)
        assert await producers(bench) == [3, 4, 8]
        assert job.counters.producers_expired == 7

    run(scenario)


@pytest.mark.parametrize("jump_h", [30, -30])
def test_a_clock_that_jumps_and_is_set_right_again_forgets_nobody_early(jump_h: int) -> None:
    async def scenario(bench: Bench) -> None:
        [log] = (await bench.new_topic("t")).logs
        job, lease = expiry(bench), await bench.lease()
        await bench.flush((log, NOW_MS), producer=1, sequence=0)
        bench.clock.set_by(jump_h * HOUR_S)
        await job.run(lease)
        bench.clock.pass_time(600)
        # Its last write bears a wrong time.
        await bench.flush((log, NOW_MS), producer=2, sequence=0)
        await job.run(lease)
        bench.clock.set_by(-jump_h * HOUR_S)
        for _ in range(23):
            await job.run(lease)
            assert await producers(bench) == [1, 2]
            bench.clock.pass_time(HOUR_S)
        bench.clock.pass_time(40 * HOUR_S)
        await job.run(lease)
        assert await producers(bench) == []

    run(scenario)


def test_a_clock_that_is_not_trusted_and_a_lost_lease_forget_nobody() -> None:
    async def scenario(bench: Bench) -> None:
        [log] = (await bench.new_topic("t")).logs
        await bench.flush((log, NOW_MS), producer=1, sequence=0)
        lost, lease = await bench.lease(), await bench.lease()
        trusted = [False]
        job = ProducerExpiry(bench.store, bench.clock, expiry_ms=DAY_MS, is_clock_trusted=lambda: trusted[0])
        bench.clock.pass_time(25 * HOUR_S)
        await job.run(lease)
        trusted[0] = True
        with pytest.raises(LeaseLost):
            await job.run(lost)
        assert await producers(bench) == [1]
        await job.run(lease)
        assert await producers(bench) == []

    run(scenario)
