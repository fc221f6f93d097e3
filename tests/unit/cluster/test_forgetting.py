"""Registrations of agents that are gone for good go; those of agents that live, or may come back today, stay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.metadata.support import Store, sqlite_store
from warp.cluster.forgetting import FORGET_AFTER_MS, Forgetting
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, AgentState, ClusterRows, ClusterView, LiveAgent
from warp.metadata.group_model import Lease
from warp.metadata.sqlite import IN_MEMORY

LEASE = Lease("job/agents", BrokerId(1), 1)


@pytest.fixture
def store() -> Iterator[Store]:
    opened = sqlite_store(IN_MEMORY)
    yield opened
    opened.close()


async def rows_of(store: Store, *beat_ms: int) -> ClusterRows:
    """Agents `a0`, `a1`, ... whose last beats were at those times; what the first of them reads then."""
    found = None
    for place, at_ms in enumerate(beat_ms):
        name = f"a{place}"
        broker_id = await store.metadata.join_agent(name, name, AgentFacts(), None)
        assert broker_id is not None
        found = await store.metadata.beat(broker_id, name, AgentState.SERVING, AgentFacts(), at_ms)
    assert found is not None
    return found


def view_of(rows: ClusterRows, *live: str) -> ClusterView:
    agents = {
        row.broker_id: LiveAgent(row.broker_id, row.incarnation, row.facts)
        for row in rows.agents
        if row.name in live
    }
    return ClusterView(1, rows.agents[0].broker_id, agents)


async def names(store: Store, *asked: str) -> list[str]:
    return [name for name in asked if await store.metadata.find_agent(name) is not None]


def test_who_is_gone_for_a_day_is_forgotten(store: Store) -> None:
    async def test() -> list[str]:
        now_ms = await store.metadata._database.time_ms()
        old_ms = now_ms - FORGET_AFTER_MS
        rows = await rows_of(store, now_ms, old_ms, old_ms + 60_000, old_ms - 5)
        job = Forgetting(store.metadata, lambda: rows, lambda: view_of(rows, "a0", "a3"))
        await job.run(LEASE)
        return await names(store, "a0", "a1", "a2", "a3")

    # a3 lives: its clock is wrong.
    assert store.run(test()) == ["a0", "a2", "a3"]


def test_one_who_has_come_back_meanwhile_is_not(store: Store) -> None:
    async def test() -> list[str]:
        now_ms = await store.metadata._database.time_ms()
        rows = await rows_of(store, now_ms, now_ms - FORGET_AFTER_MS)
        back = rows.agents[1]
        await store.metadata.beat(back.broker_id, "a1", AgentState.SERVING, AgentFacts(), now_ms)
        await Forgetting(store.metadata, lambda: rows, lambda: view_of(rows, "a0")).run(LEASE)
        return await names(store, "a0", "a1")

    assert store.run(test()) == ["a0", "a1"]


def test_without_a_look_at_the_others_nothing_is_done(store: Store) -> None:
    async def test() -> list[str]:
        rows = await rows_of(store, 0)
        await Forgetting(store.metadata, lambda: None, lambda: view_of(rows)).run(LEASE)
        return await names(store, "a0")

    assert store.run(test()) == ["a0"]
