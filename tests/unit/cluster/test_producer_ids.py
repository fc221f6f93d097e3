"""Producer ids come from blocks and are never the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.unit.metadata.support import Store, sqlite_store
from warp.cluster.producer_ids import ProducerIds
from warp.metadata.sqlite import IN_MEMORY


@pytest.fixture
def store() -> Iterator[Store]:
    opened = sqlite_store(IN_MEMORY)
    yield opened
    opened.close()


def test_ids_of_two_agents_never_meet(store: Store) -> None:
    async def take() -> list[int]:
        agents = [ProducerIds(store.metadata, 3) for _ in range(2)]
        return [await agent.next() for _ in range(5) for agent in agents]

    taken = store.run(take())
    assert taken == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10]


def test_those_who_ask_at_once_get_different_ids(store: Store) -> None:
    async def take() -> list[int]:
        agent = ProducerIds(store.metadata, 4)
        return list(await asyncio.gather(*(agent.next() for _ in range(10))))

    assert sorted(store.run(take())) == list(range(10))
    assert store.allocate_producer_ids(1) == 12
