"""The jobs that delete, with a failure at every single call: some passes later all is as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from tests.unit.lifecycle.sweep_support import DAY_MS, NOW_MS, Bench, Boom, FaultPlan, run
from warp.ids import LogId
from warp.lifecycle.dead import DeadSegments
from warp.lifecycle.orphans import OrphanLimits, OrphanSweep
from warp.lifecycle.producer_expiry import ProducerExpiry
from warp.lifecycle.retention import Retention
from warp.metadata.group_model import Lease

OLD_MS = NOW_MS - 3 * DAY_MS
ROUND_S = 2_400.0
ROUNDS = 6
"""In so many, everything comes to its end."""

Pass = Callable[[Lease], Coroutine[Any, Any, None]]


async def fill(bench: Bench) -> None:
    """Something of everything that is to be deleted, beside as much that is to stay."""
    timed = await bench.new_topic("timed", partitions=2, retention_ms=DAY_MS)
    sized = await bench.new_topic("sized", retention_bytes=200)
    kept = await bench.new_topic("kept", deletes=False, compacts=True, retention_ms=1)
    gone = await bench.new_topic("gone")
    logs = [*timed.logs, *sized.logs, *kept.logs, *gone.logs]
    for time_ms in (OLD_MS, OLD_MS, NOW_MS):
        await bench.flush(*((log, time_ms) for log in logs))
        await bench.flush((timed.logs[0], time_ms), (sized.logs[0], time_ms), value=bytes(100))
    await bench.flush((gone.logs[0], NOW_MS), producer=1, sequence=0)
    await bench.flush((timed.logs[0], NOW_MS), producer=2, sequence=0)
    await bench.store.delete_topics([gone.topic_id])
    await bench.store.delete_records({kept.logs[0]: 1})
    for _ in range(3):
        await bench.upload(bench.ids.segment_key(), (timed.logs[0], NOW_MS))
    await bench.put_receipts("segments/00/000000000000-00000000000000000000")
    await bench.put_receipts((await bench.keys("segments/"))[0])
    await bench.objects.put("segments/readme", [b"not ours"])
    bench.clock.pass_time(26 * 3_600)
    key = bench.ids.segment_key()
    await bench.put_receipts("segments/00/000000000000-00000000000000000000", key)
    await bench.flush((timed.logs[0], bench.clock.time_ms()), key=key)
    await bench.flush((timed.logs[1], bench.clock.time_ms()), producer=3, sequence=0)


def jobs(bench: Bench, plan: FaultPlan) -> list[Pass]:
    """The jobs of one process."""
    store, objects, may_delete = plan.watch(bench.store), plan.watch(bench.objects), bench.may_delete
    limits = OrphanLimits(receipts_age_s=3_600.0, receipts_pause_s=3_600.0)
    return [
        Retention(store, bench.clock, lambda: bench.policies, bench.log_starts_at).run,
        OrphanSweep(store, objects, bench.clock, may_delete, limits).run,
        DeadSegments(store, objects, bench.clock, may_delete).run,
        ProducerExpiry(store, bench.clock, expiry_ms=DAY_MS).run,
    ]


async def work(
    bench: Bench, plan: FaultPlan, rounds: int, *, crashes: bool = False
) -> AsyncIterator[dict[str, object]]:
    """Rounds of all jobs; what there is after each. A job that fails goes on later, or all of them start again."""
    passes, lease = jobs(bench, plan), await bench.lease()
    for _ in range(rounds):
        for number in range(len(passes)):
            try:
                await passes[number](lease)
            except Boom:
                if crashes:
                    passes = jobs(bench, plan)
        yield await state_of(bench)
        bench.clock.pass_time(ROUND_S)


async def state_of(bench: Bench) -> dict[str, object]:
    return {
        "objects": await bench.keys(),
        "logs": await bench.rows("select log_id, start_offset, next_offset, size_bytes from logs order by 1"),
        "extents": await bench.rows("select log_id, base_offset, end_offset from extents order by 1, 2"),
        "segments": await bench.rows("select key, state from segments order by 1"),
        "producers": await bench.rows("select log_id, producer_id from producers order by 1, 2"),
        "deleted": await bench.rows("select log_id from deleted_logs"),
    }


async def undisturbed(bench: Bench) -> tuple[dict[str, object], int]:
    """The state in which it ends, and after how many calls."""
    plan = FaultPlan()
    await fill(bench)
    states = [(state, plan.calls) async for state in work(bench, plan, ROUNDS + 2)]
    end = states[-1][0]
    calls = [calls for state, calls in states if state == end]
    assert len(calls) > 2
    return end, calls[0]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where the metadata are."""
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def test_what_is_to_be_deleted_is_deleted_and_the_rest_stays(url: str | None) -> None:
    async def scenario(bench: Bench) -> None:
        state, _ = await undisturbed(bench)
        assert await bench.extents(LogId(1)) == [(7, 8)]
        assert await bench.extents(LogId(2)) == [(3, 4)]
        assert await bench.extents(LogId(3)) == [(4, 5), (5, 6)]
        assert await bench.extents(LogId(4)) == [(1, 2), (2, 3)]
        named = {key for (key,) in await bench.rows("select key from segments where state = 0")}
        objects = set(await bench.keys())
        assert named < objects
        rest = sorted(objects - named)
        assert rest[0].startswith("receipts/")
        assert rest[1:] == ["segments/readme"]
        assert state["deleted"] == []
        assert state["producers"] == [(2, 3)]

    run(scenario, url)


def test_after_a_failure_of_any_call_later_passes_end_in_the_same_state() -> None:
    expected, calls = run(undisturbed)
    chance = random.Random(1)
    for fail_at in range(1, calls + 1):
        plan, crashes = FaultPlan(fail_at, after=chance.random() < 0.5), chance.random() < 0.5

        async def scenario(bench: Bench, plan: FaultPlan = plan, crashes: bool = crashes) -> None:
            await fill(bench)
            async for state in work(bench, plan, 2 * ROUNDS, crashes=crashes):
                if state == expected:
                    return
            assert state == expected

        run(scenario)
        assert plan.calls >= fail_at
