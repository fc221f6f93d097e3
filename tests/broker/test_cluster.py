"""DescribeCluster."""

from __future__ import annotations

import pytest

from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.handlers.operations import CLUSTER_OPERATIONS
from warp.protocol.messages.cluster import DescribeClusterRequest
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_agent_is_the_cluster(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for asked in (True, False):
            request = DescribeClusterRequest(include_cluster_authorized_operations=asked)
            answer = await client.ask(request, version)
            assert answer.error_code == ErrorCode.NONE
            assert answer.cluster_id == broker.agent.cluster_id
            [node] = answer.brokers
            assert (node.broker_id, node.host, node.port) == (
                broker.agent.broker_id,
                "127.0.0.1",
                broker.port,
            )
            assert node.rack == "zone-a"
            assert answer.controller_id == node.broker_id
            expected = CLUSTER_OPERATIONS if asked else AUTHORIZED_OPERATIONS_OMITTED
            assert answer.cluster_authorized_operations == expected

    with_memory_broker(test, zone="zone-a")


@pytest.mark.parametrize(
    ("endpoint_type", "code"),
    [(2, ErrorCode.MISMATCHED_ENDPOINT_TYPE), (3, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE)],
)
def test_only_brokers_can_be_asked_for(
    with_memory_broker: RunWithBroker, endpoint_type: int, code: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        request = DescribeClusterRequest(
            include_cluster_authorized_operations=False, endpoint_type=endpoint_type
        )
        answer = await client.ask(request, 1)
        assert (answer.error_code, answer.brokers) == (code, [])

    with_memory_broker(test)
