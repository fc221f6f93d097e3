"""A change of configs through one agent is in force at the others, and none of several at once is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.broker.client import Client
from tests.broker.support import batch
from tests.broker.test_alter_configs import BROKER, SET, TOPIC, change, own
from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic, run_with_clients
from warp.errors import ErrorCode

pytestmark = pytest.mark.postgres

LOOK_S = 0.02
SETTLE_S = 20.0
ROUNDS = 10
NAMES = ("retention.ms", "segment.ms", "flush.ms")


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SETTLE_S):
        while not await condition():  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(LOOK_S)


async def refuses(client: Client, topic: str, size_bytes: int) -> bool:
    code = (await client.produce(topic, batch(b"v" * size_bytes))).error_code
    assert code in (ErrorCode.NONE, ErrorCode.MESSAGE_TOO_LARGE)
    return bool(code)


def test_what_is_changed_through_one_agent_is_in_force_at_the_others(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    create_topic(cluster, "follows")

    async def test(clients: list[Client]) -> None:
        first, *others = clients
        assert not any([await refuses(client, "follows", 3000) for client in clients])
        assert await change(first, BROKER, "", ("message.max.bytes", SET, "2000")) == (0, "")
        assert await refuses(first, "follows", 3000), "in force at once where it was made"
        for client in others:
            await eventually(lambda client=client: refuses(client, "follows", 3000))  # type: ignore[misc]
            assert await own(client, BROKER, "") == {"message.max.bytes": "2000"}
        assert await change(first, TOPIC, "follows", ("max.message.bytes", SET, "4000")) == (0, "")
        for client in others:

            async def takes(client: Client = client) -> bool:
                return not await refuses(client, "follows", 3000)

            await eventually(takes)
            assert await own(client, TOPIC, "follows") == {"max.message.bytes": "4000"}

    run_with_clients(cluster, test)


def test_changes_through_all_agents_at_once_are_all_kept(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    create_topic(cluster, "raced")

    async def test(clients: list[Client]) -> None:
        assert len(clients) == len(NAMES)
        for value in map(str, range(1, ROUNDS + 1)):
            answers = await asyncio.gather(
                *(
                    change(client, TOPIC, "raced", (name, SET, value))
                    for client, name in zip(clients, NAMES, strict=True)
                )
            )
            assert set(answers) == {(0, "")}
            wanted = dict.fromkeys(NAMES, value)
            for client in clients:

                async def sees(client: Client = client, wanted: dict[str, str] = wanted) -> bool:
                    return await own(client, TOPIC, "raced") == wanted

                await eventually(sees)

    run_with_clients(cluster, test)
