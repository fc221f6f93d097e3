"""A quota that is set at one agent holds at all of them, for what each serves."""

from __future__ import annotations

import asyncio

import pytest

from tests.broker.client import Client, produce_request
from tests.broker.support import batch
from tests.broker.test_client_quotas import alter, alteration
from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic, run_with_clients

pytestmark = pytest.mark.postgres

PATIENCE_S = 20.0


def test_a_quota_set_at_one_agent_holds_at_the_others(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    create_topic(cluster, "limited")
    request = produce_request({"limited": {0: batch(bytes(100_000))}})

    async def until(client: Client, *, is_throttled: bool) -> None:
        """Produce until the agent throttles, or does not any more."""
        async with asyncio.timeout(PATIENCE_S):
            while ((await client.ask(request, 9)).throttle_time_ms > 0) is not is_throttled:
                pass

    async def test(clients: list[Client]) -> None:
        first, second, _ = clients
        await until(second, is_throttled=False)
        # Twenty of them are free, and then each is half a second too much.
        assert await alter(first, alteration({"client-id": "raw"}, {"producer_byte_rate": 200_000.0})) == [
            (0, None)
        ]
        await until(second, is_throttled=True)
        assert await alter(first, alteration({"client-id": "raw"}, {"producer_byte_rate": None})) == [
            (0, None)
        ]
        await until(second, is_throttled=False)

    run_with_clients(cluster, test)
