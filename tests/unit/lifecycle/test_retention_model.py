"""Retention beside the plainest model of Kafka's rule: drop the first while it is too old, or too much."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from tests.unit.lifecycle.sweep_support import DAY_MS, NOW_MS, Bench, run
from warp.ids import LogId
from warp.lifecycle.model import TopicLife
from warp.lifecycle.retention import Retention
from warp.metadata.group_model import Lease

SEEDS = range(40)


class Held(NamedTuple):
    """An extent as the model knows it."""

    end_offset: int
    size_bytes: int
    max_timestamp_ms: int


def keep(extents: list[Held], start: int, life: TopicLife, now_ms: int) -> tuple[int, list[Held]]:
    """Where the log begins afterwards, and what it holds."""
    left = [held for held in extents if held.end_offset > start]
    if life.deletes and life.retention_ms is not None:
        while left and now_ms - left[0].max_timestamp_ms > life.retention_ms:
            start = left.pop(0).end_offset
    if life.deletes and life.retention_bytes is not None:
        while left and sum(held.size_bytes for held in left[1:]) >= life.retention_bytes:
            start = left.pop(0).end_offset
    return start, left


async def held(bench: Bench, log_id: LogId) -> list[Held]:
    rows = await bench.store.extents_of_log(log_id, -1, 1_000)
    return [Held(row.end_offset, row.size_bytes, row.max_timestamp_ms) for row in rows]


async def grow(bench: Bench, logs: list[LogId], chance: random.Random) -> None:
    """Extents of many sizes, some old, most of about now, a few from the future."""
    for _ in range(chance.randrange(6)):
        now_ms = bench.clock.time_ms()
        times_ms = [
            now_ms + chance.choice([-DAY_MS * 3, -DAY_MS // 2, 0, 0, DAY_MS // 3]) for _ in range(len(logs))
        ]
        written = chance.sample(list(zip(logs, times_ms, strict=True)), chance.randint(1, len(logs)))
        await bench.flush(*written, count=chance.randint(1, 5), value=bytes(chance.choice([0, 100, 500])))


async def step(bench: Bench, job: Retention, lease: Lease, chance: random.Random, logs: list[LogId]) -> None:
    """One pass, after anything may have happened."""
    await grow(bench, logs, chance)
    for log_id in logs:
        if chance.random() < 0.2:
            [head] = await bench.store.log_heads([log_id])
            await bench.store.delete_records({log_id: chance.randint(head.start_offset, head.next_offset)})
    bench.policies = [
        TopicLife(
            topic.topic_id,
            topic.name,
            topic.logs,
            deletes=chance.random() < 0.8,
            retention_ms=chance.choice([None, DAY_MS, DAY_MS // 4]),
            retention_bytes=chance.choice([None, 0, 200, 1_000]),
        )
        for topic in bench.policies
    ]
    expected = {}
    for life in bench.policies:
        for log_id in life.logs:
            [head] = await bench.store.log_heads([log_id])
            extents = await held(bench, log_id)
            expected[log_id] = keep(extents, head.start_offset, life, bench.clock.time_ms())
    await job.run(lease)
    found = {log_id: (await bench.start_of(log_id), await held(bench, log_id)) for log_id in expected}
    assert found == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_logs_lose_what_the_model_says_and_nothing_else(seed: int) -> None:
    async def scenario(bench: Bench) -> None:
        chance = random.Random(seed)
        first = await bench.new_topic("a", partitions=2)
        second = await bench.new_topic("b")
        logs = [*first.logs, *second.logs]
        job = Retention(bench.store, bench.clock, lambda: bench.policies, bench.log_starts_at)
        lease = await bench.lease()
        for _ in range(4):
            await step(bench, job, lease, chance, logs)
            bench.clock.pass_time(chance.choice([60, 6 * 3_600, 30 * 3_600]))
        assert bench.clock.time_ms() > NOW_MS

    run(scenario)
