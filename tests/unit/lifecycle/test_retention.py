"""Retention: what has had its time goes, what is too much goes, and nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.lifecycle.sweep_support import DAY_MS, HOUR_S, NOW_MS, Bench, run
from warp.ids import LogId
from warp.lifecycle.retention import Retention
from warp.metadata.group_model import Lease, LeaseLost
from warp.metadata.life_model import LogHead

HOUR_MS = 3_600_000


def retention(bench: Bench, store: Any = None, **options: Any) -> Retention:
    return Retention(
        store or bench.store, bench.clock, lambda: bench.policies, bench.log_starts_at, **options
    )


async def size_of(bench: Bench, log_id: LogId) -> int:
    return (await bench.store.log_heads([log_id]))[0].size_bytes


# By time


def test_extents_whose_largest_timestamp_has_had_its_time_go_and_readers_are_told() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        [log] = topic.logs
        for age_h in (50, 40, 25, 23, 1):
            await bench.flush((log, NOW_MS - age_h * HOUR_MS), count=10)
        job = retention(bench)
        await job.run(await bench.lease())
        assert await bench.start_of(log) == 30
        assert await bench.extents(log) == [(30, 40), (40, 50)]
        assert bench.told == [(log, 30)]
        assert (job.counters.log_starts_moved, job.counters.extents_trimmed) == (1, 3)

    run(scenario)


def test_a_record_lives_for_its_whole_time_to_the_millisecond() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        [log] = topic.logs
        await bench.flush((log, NOW_MS - DAY_MS))
        job, lease = retention(bench), await bench.lease()
        await job.run(lease)
        assert await bench.start_of(log) == 0
        bench.clock.pass_time(0.001)
        await job.run(lease)
        assert await bench.start_of(log) == 1

    run(scenario)


def test_a_log_of_which_all_has_had_its_time_becomes_empty_and_goes_on_at_its_next_offset() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        [log] = topic.logs
        for _ in range(3):
            await bench.flush((log, NOW_MS - 2 * DAY_MS))
        await retention(bench).run(await bench.lease())
        assert (await bench.start_of(log), await bench.extents(log)) == (3, [])
        assert await size_of(bench, log) == 0
        await bench.flush((log, NOW_MS))
        assert await bench.extents(log) == [(3, 4)]

    run(scenario)


def test_a_record_from_the_future_holds_back_what_follows_until_it_is_gone_itself_and_no_longer() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        [log] = topic.logs
        old_ms = NOW_MS - 2 * DAY_MS
        for time_ms in (old_ms, NOW_MS + 1_000 * DAY_MS, old_ms, old_ms, NOW_MS, old_ms):
            await bench.flush((log, time_ms))
        job, lease = retention(bench), await bench.lease()
        await job.run(lease)
        assert await bench.start_of(log) == 1
        # The index goes on to say that something after it may be as late; the extents themselves say what is.
        await bench.store.delete_records({log: 2})
        await job.run(lease)
        assert await bench.start_of(log) == 4
        assert await bench.extents(log) == [(4, 5), (5, 6)]

    run(scenario)


def test_records_without_timestamps_live_from_their_commit_on() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        [log] = topic.logs
        await bench.flush((log, -1))
        job, lease = retention(bench), await bench.lease()
        bench.clock.pass_time(24 * HOUR_S)
        await job.run(lease)
        assert await bench.start_of(log) == 0
        bench.clock.pass_time(1)
        await job.run(lease)
        assert await bench.start_of(log) == 1

    run(scenario)


def test_more_extents_than_a_step_reads_go_in_one_pass() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        [log] = topic.logs
        await bench.flush((log, NOW_MS + 1_000 * DAY_MS))
        await bench.store.delete_records({log: 1})
        for _ in range(40):
            await bench.flush(*[(log, NOW_MS - 2 * DAY_MS), (log, NOW_MS - 3 * DAY_MS)])
        await retention(bench).run(await bench.lease())
        assert (await bench.start_of(log), await bench.extents(log)) == (81, [])

    run(scenario)


def test_a_clock_that_is_not_trusted_and_one_that_jumps_delete_nothing_early() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        [log] = topic.logs
        await bench.flush((log, NOW_MS - 20 * HOUR_MS))
        trust = [True]
        job, lease = retention(bench, is_clock_trusted=lambda: trust[0]), await bench.lease()
        bench.clock.set_by(10 * HOUR_S)
        await job.run(lease)
        assert await bench.start_of(log) == 0
        for _ in range(3):
            bench.clock.pass_time(HOUR_S)
            await job.run(lease)
        assert await bench.start_of(log) == 0
        bench.clock.set_by(-10 * HOUR_S)
        await job.run(lease)
        assert await bench.start_of(log) == 0
        bench.clock.pass_time(HOUR_S + 1)
        trust[0] = False
        await job.run(lease)
        assert await bench.start_of(log) == 0
        trust[0] = True
        await job.run(lease)
        assert await bench.start_of(log) == 1

    run(scenario)


# By size


@pytest.mark.parametrize(
    ("limit_in_extents", "kept"), [(0.0, 0), (0.5, 1), (1.0, 1), (1.5, 2), (3.9, 4), (4.0, 4), (9, 5)]
)
def test_a_log_keeps_at_least_its_size_and_less_than_one_extent_more(
    limit_in_extents: float, kept: int
) -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        [log] = topic.logs
        for _ in range(5):
            await bench.flush((log, NOW_MS), value=bytes(1_000))
        extent_bytes = await size_of(bench, log) // 5
        bench.policies[0] = _with(bench, retention_bytes=int(limit_in_extents * extent_bytes))
        await retention(bench).run(await bench.lease())
        assert len(await bench.extents(log)) == kept
        assert await size_of(bench, log) == kept * extent_bytes

    run(scenario)


def test_what_was_deleted_before_does_not_count() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        [log] = topic.logs
        for _ in range(5):
            await bench.flush((log, NOW_MS), value=bytes(1_000))
        extent_bytes = await size_of(bench, log) // 5
        bench.policies[0] = _with(bench, retention_bytes=3 * extent_bytes)
        await bench.store.delete_records({log: 2})
        job = retention(bench)
        await job.run(await bench.lease())
        assert await bench.start_of(log) == 2
        assert job.counters.log_starts_moved == 0
        assert await bench.extents(log) == [(2, 3), (3, 4), (4, 5)]

    run(scenario)


class Shrinking:
    """A store under which other hands shrink a log, right after its size was read."""

    def __init__(self, bench: Bench, log_id: LogId, lease: Lease) -> None:
        self._bench = bench
        self._log_id = log_id
        self._lease = lease
        self._is_first = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bench.store, name)

    async def log_heads(self, log_ids: list[LogId]) -> list[LogHead]:
        heads = await self._bench.store.log_heads(log_ids)
        if self._is_first:
            self._is_first = False
            await self._bench.store.advance_log_starts(self._lease, {self._log_id: 3})
            await self._bench.store.trim_logs(self._lease, [self._log_id], 100)
        return heads


def test_a_log_that_shrinks_while_it_is_looked_at_loses_nothing_that_may_stay() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        [log] = topic.logs
        for _ in range(8):
            await bench.flush((log, NOW_MS), value=bytes(1_000))
        extent_bytes = await size_of(bench, log) // 8
        bench.policies[0] = _with(bench, retention_bytes=4 * extent_bytes)
        lease = await bench.lease()
        await retention(bench, Shrinking(bench, log, lease)).run(lease)
        assert await bench.extents(log) == [(4, 5), (5, 6), (6, 7), (7, 8)]

    run(scenario)


def test_a_log_with_very_many_extents_too_much_is_cut_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr("warp.lifecycle.retention.WALKED_ROWS_MAX", 20)
        monkeypatch.setattr("warp.lifecycle.retention.ROWS_MAX", 16)
        topic = await bench.new_topic("t", retention_bytes=1)
        [log] = topic.logs
        for _ in range(60):
            await bench.flush((log, NOW_MS))
        job = retention(bench)
        await job.run(await bench.lease())
        assert len(await bench.extents(log)) == 1
        assert job.counters.log_starts_moved == 2
        assert job.counters.extents_trimmed == 59

    run(scenario)


def test_a_size_that_is_wrong_costs_no_records() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        [log] = topic.logs
        for _ in range(4):
            await bench.flush((log, NOW_MS))
        extent_bytes = await size_of(bench, log) // 4
        await bench.rows("update logs set size_bytes = size_bytes * 100 returning log_id")
        bench.policies[0] = _with(bench, retention_bytes=3 * extent_bytes)
        await retention(bench).run(await bench.lease())
        assert await bench.extents(log) == [(1, 2), (2, 3), (3, 4)]

    run(scenario)


def test_time_and_size_hold_together() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", partitions=2)
        first, second = topic.logs
        for age_h in (30, 20, 10, 5):
            await bench.flush((first, NOW_MS - age_h * HOUR_MS), (second, NOW_MS - age_h * HOUR_MS))
        await bench.store.delete_records({second: 3})
        extent_bytes = await size_of(bench, first) // 4
        bench.policies[0] = _with(bench, retention_ms=DAY_MS, retention_bytes=2 * extent_bytes)
        await retention(bench).run(await bench.lease())
        assert await bench.extents(first) == [(2, 3), (3, 4)]
        assert await bench.extents(second) == [(3, 4)]

    run(scenario)


# What stays, and what else goes


def test_a_policy_without_delete_keeps_everything_but_what_delete_records_has_deleted() -> None:
    async def scenario(bench: Bench) -> None:
        life = {"deletes": False, "retention_ms": 1, "retention_bytes": 1}
        compacted = await bench.new_topic("compacted", compacts=True, **life)
        kept = await bench.new_topic("kept", **life)
        forever = await bench.new_topic("forever")
        logs = [*compacted.logs, *kept.logs, *forever.logs]
        for _ in range(3):
            await bench.flush(*((log, NOW_MS - 100 * DAY_MS) for log in logs))
        await bench.store.delete_records({kept.logs[0]: 1})
        job = retention(bench)
        await job.run(await bench.lease())
        assert [await bench.start_of(log) for log in logs] == [0, 1, 0]
        assert await bench.extents(kept.logs[0]) == [(1, 2), (2, 3)]
        assert (job.counters.log_starts_moved, job.counters.extents_trimmed) == (0, 1)

    run(scenario)


def test_a_policy_that_changes_during_a_pass_counts_for_what_is_yet_to_be_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(bench: Bench) -> None:
        monkeypatch.setattr("warp.lifecycle.retention.LOGS_MAX", 1)
        logs = [(await bench.new_topic(name, retention_ms=DAY_MS)).logs[0] for name in "abc"]
        await bench.flush(*((log, NOW_MS - 2 * DAY_MS) for log in logs))

        def log_starts_at(log_id: LogId, offset: int) -> None:
            bench.told.append((log_id, offset))
            known = bench.policies
            bench.policies = [known[0], replace(known[1], retention_ms=None)]

        job = Retention(bench.store, bench.clock, lambda: bench.policies, log_starts_at)
        await job.run(await bench.lease())
        assert bench.told == [(logs[0], 1)]

    run(scenario)


def test_an_extent_of_which_delete_records_has_deleted_a_part_stays() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t")
        [log] = topic.logs
        await bench.flush((log, NOW_MS), count=10)
        await bench.store.delete_records({log: 4})
        await retention(bench).run(await bench.lease())
        assert await bench.extents(log) == [(0, 10)]

    run(scenario)


def test_nothing_is_left_of_a_deleted_topic_but_its_segments() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", partitions=3)
        other = await bench.new_topic("other")
        for _ in range(4):
            await bench.flush(*((log, NOW_MS) for log in (*topic.logs, *other.logs)))
        await bench.flush((topic.logs[0], NOW_MS), producer=9, sequence=0)
        await bench.store.delete_topics([topic.topic_id])
        job = retention(bench)
        await job.run(await bench.lease())
        assert await bench.rows("select distinct log_id from extents") == [(other.logs[0],)]
        for table in ("deleted_logs", "producers"):
            assert await bench.rows(f"select count(*) from {table}") == [(0,)]
        assert job.counters.deleted_log_rows == 13 + 1 + 3
        assert len(await bench.keys("segments/")) == 5

    run(scenario)


def test_a_job_that_has_lost_its_lease_moves_no_start() -> None:
    async def scenario(bench: Bench) -> None:
        topic = await bench.new_topic("t", retention_ms=DAY_MS)
        await bench.flush((topic.logs[0], NOW_MS - 2 * DAY_MS))
        lost = await bench.lease()
        await bench.lease()
        job = retention(bench)
        with pytest.raises(LeaseLost):
            await job.run(lost)
        assert await bench.start_of(topic.logs[0]) == 0
        assert (bench.told, job.counters.log_starts_moved) == ([], 0)

    run(scenario)


def _with(bench: Bench, **life: Any) -> Any:
    """The only topic's life, with other rules."""
    known = bench.policies[0]
    rules: Mapping[str, Any] = {"topic_id": known.topic_id, "name": known.name, "logs": known.logs, **life}
    return type(known)(**rules)
