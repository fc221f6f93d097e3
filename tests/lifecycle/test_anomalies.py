"""Fail the n-th call of a store while jobs work, for n = 1, 2, … until a run passes in which none fails.

Two crews of jobs work at the same time, and both believe that they hold the lease; beside them records are written, and
read from every offset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.broker.support import Broker, RunWithBroker
from tests.broker.test_anomalies import Saboteur
from tests.lifecycle.crew import DUE_SEGMENTS, Crew, idle_jobs, take_lease
from tests.lifecycle.topics import Topics
from warp.errors import MetadataUnavailable, ObjectStoreError, OutcomeUnknown
from warp.ids import SEGMENT_PREFIX
from warp.lifecycle.fsck import DEEP, check
from warp.metadata.fsck_model import SegmentFacts
from warp.metadata.fsck_store import FsckStore
from warp.metadata.life_model import SegmentState

RUNS_MAX = 300
CALLS_MAX = 10**9
ROUNDS = 3
HOUR = "1h"
SETTINGS = {
    # The agent's own jobs keep out of the way.
    "merge_interval_ms": HOUR, "compaction_interval_ms": HOUR, "retention_check_interval_ms": HOUR,
    "orphan_interval_ms": HOUR, "cache_bytes_max": "16MiB",
}  # fmt: skip

OBJECTS, METADATA = "_object_store", "_metadata"
LATE, EARLY = True, False


def refused() -> Exception:
    return ObjectStoreError("sabotage")


def unavailable() -> Exception:
    return MetadataUnavailable("sabotage")


def unknown() -> Exception:
    return OutcomeUnknown("sabotage")


KINDS: dict[str, tuple[str, tuple[str, ...], Callable[[], Exception], bool]] = {
    "put, before": (OBJECTS, ("put",), refused, EARLY),
    "put, after": (OBJECTS, ("put",), refused, LATE),
    "get": (OBJECTS, ("get",), refused, EARLY),
    "delete, before": (OBJECTS, ("delete",), refused, EARLY),
    "delete, after": (OBJECTS, ("delete",), refused, LATE),
    "commit, after": (METADATA, ("commit",), unknown, LATE),
    "swap, before": (METADATA, ("swap",), unavailable, EARLY),
    "swap, after": (METADATA, ("swap",), unknown, LATE),
    "death, before": (METADATA, ("mark_dead", "mark_dead_among", "mark_gone", "forget_segments"), unavailable, EARLY),
    "death, after": (METADATA, ("mark_dead", "mark_dead_among", "mark_gone", "forget_segments"), unknown, LATE),
    "retention, before": (METADATA, ("advance_log_starts", "trim_logs", "clear_deleted_logs"), unavailable, EARLY),
    "retention, after": (METADATA, ("advance_log_starts", "trim_logs", "clear_deleted_logs"), unknown, LATE),
    "orphans": (METADATA, ("known_keys", "claim_keys"), unavailable, LATE),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_whichever_call_fails_nothing_is_lost_and_the_jobs_get_there(
    with_memory_broker: RunWithBroker, kind: str
) -> None:
    attribute, names, error, is_late = KINDS[kind]
    for nth in range(1, RUNS_MAX):
        struck: list[bool] = []

        async def test(broker: Broker, nth: int = nth, struck: list[bool] = struck) -> None:
            store: Any = getattr(broker.agent, attribute)

            def sabotage() -> Saboteur:
                return Saboteur(store, names, nth, error(), is_late=is_late)

            struck.append(await live(broker, sabotage))

        with_memory_broker(test, **SETTINGS)
        if not struck[0]:
            assert nth > 1, "the calls were not counted"
            return
    pytest.fail(f"still failing after {RUNS_MAX} runs")


def test_a_listing_that_fails_on_its_way_deletes_nothing_that_is_needed(
    with_memory_broker: RunWithBroker,
) -> None:
    nth, struck = 1, [True]
    while struck[-1]:
        assert nth < CALLS_MAX, "it never ends"

        async def test(broker: Broker, nth: int = nth) -> None:
            struck.append(await live(broker, lambda: Listing(broker.agent._object_store, nth)))

        with_memory_broker(test, **SETTINGS)
        # One object is much like the next: every one of the first, then ever fewer.
        nth += 1 + nth // 2
    assert len(struck) > 3


class Listing:
    """Lets the n-th object that is listed be the failure of its listing."""

    def __init__(self, store: Any, nth: int) -> None:
        self.struck = False
        self.calls = 0
        original = store.list

        async def listed(prefix: str = "") -> Any:
            async for info in original(prefix):
                self.calls += 1
                if self.calls == nth:
                    self.struck = True
                    raise refused()
                yield info

        store.list = listed


async def live(broker: Broker, sabotage: Callable[[], Any]) -> bool:
    """Write, delete, and let two crews work under one lease with a call that fails. Was it called?"""
    topics = Topics(broker)
    await topics.create()
    await topics.write(DUE_SEGMENTS, are_old=True)
    await topics.delete_doomed()
    store = broker.agent._object_store
    await store.put(broker.agent._ids.segment_key(), [b"nobody knows this"])
    crews, lease = [Crew(broker), Crew(broker)], await take_lease(broker)
    saboteur = sabotage()
    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(topics.read_until(done))
        working = [tasks.create_task(crew.work(lease, ROUNDS)) for crew in crews]
        working.append(tasks.create_task(topics.write(DUE_SEGMENTS)))
        await asyncio.wait(working)
        done.set()
        await reading
    was_struck: bool = saboteur.struck
    saboteur.calls = CALLS_MAX  # Nothing fails any more.
    if was_struck:
        await topics.write(DUE_SEGMENTS)
        for crew in crews:
            await crew.work(lease, ROUNDS)
    await topics.verify()
    await all_is_in_order(broker, crews)
    assert was_struck or idle_jobs(crews) == []
    return was_struck


async def segments_of(broker: Broker) -> list[SegmentFacts]:
    """All rows."""
    store = FsckStore(broker.agent._metadata._database)
    return list((await store.segments(0, 2**31, with_extents=False)).segments)


async def all_is_in_order(broker: Broker, crews: list[Crew]) -> None:
    """fsck finds nothing, and what nobody needs is gone."""
    agent = broker.agent
    report = await check(FsckStore(agent._metadata._database), agent._object_store, agent.clock, scope=DEEP)
    assert report.is_clean, report.findings
    assert await agent._metadata.quarantined(10) == []
    rows = await segments_of(broker)
    failures = [failure for crew in crews for failure in crew.failures]
    needed = {row.key for row in rows if row.state != SegmentState.GONE}
    objects = {info.key async for info in agent._object_store.list(SEGMENT_PREFIX)}
    assert objects == needed, failures
    waiting = [row for row in rows if row.state == SegmentState.LIVE and row.level == 0]
    assert len(waiting) < 2 * DUE_SEGMENTS, failures


def test_a_crew_that_has_lost_its_lease_changes_nothing(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topics = Topics(broker)
        await topics.create()
        await topics.write(2 * DUE_SEGMENTS, are_old=True)
        await topics.delete_doomed()
        late, crew = Crew(broker), Crew(broker)
        lost, lease = await take_lease(broker), await take_lease(broker)
        before = await segments_of(broker)
        await late.work(lost, ROUNDS)
        assert late.failures
        assert all("LeaseLost" in failure for failure in late.failures), late.failures
        assert await segments_of(broker) == before
        await asyncio.gather(late.work(lost, ROUNDS), crew.work(lease, ROUNDS))
        assert crew.failures == []
        await crew.work(lease, ROUNDS)
        await topics.verify()

    with_memory_broker(test, **SETTINGS)
