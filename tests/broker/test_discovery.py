"""Which agents clients are told of when there are several: the others are made up, this one answers for all.

The agent under test has the first broker id of the cluster below, in zone a.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request
from tests.broker.support import Broker, RunWithBroker, batch
from warp.cluster.discovery import Discovery
from warp.errors import ErrorCode
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, ClusterView, LiveAgent
from warp.metadata.group_model import LeaseState, coordinator_lease, slot_of
from warp.protocol import Request
from warp.protocol.messages.cluster import DescribeClusterRequest
from warp.protocol.messages.fetch import FetchRequest
from warp.protocol.messages.groups import FindCoordinatorRequest
from warp.protocol.messages.metadata import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsTopic,
    MetadataRequest,
    MetadataRequestTopic,
)

B, C, ELSEWHERE = BrokerId(1002), BrokerId(1003), BrokerId(1004)
"""In zones b and c; and one of another group."""


def discovery_of(broker: Broker) -> Discovery:
    """What the agent's handlers ask."""
    return broker.agent.server._dispatcher._services.discovery


def pretend(broker: Broker, connections: int = 0, /, **leases: LeaseState) -> None:
    """Let the agent see a cluster around it, and itself with so many connections while others have none."""
    own = broker.agent.broker_id
    agents = [
        LiveAgent(own, "", AgentFacts(zone="a", connections=connections)),
        LiveAgent(B, "", AgentFacts(endpoints=("b.test:9092",), zone="b")),
        LiveAgent(C, "", AgentFacts(endpoints=("c.test:9092",), zone="c")),
        LiveAgent(ELSEWHERE, "", AgentFacts(endpoints=("d.test:9092",), zone="b", group="other")),
    ]
    view = ClusterView(1_000_000, own, {agent.broker_id: agent for agent in agents}, leases)
    discovery_of(broker)._view = lambda: view


async def ask(client: Client, request: Request, version: int, client_id: str) -> Any:
    """Ask as a client with that client.id."""
    return await client.answer(request.api, version, client.send(request, version, client_id))


async def metadata(client: Client, client_id: str, *names: str, version: int = 12) -> Any:
    topics = [MetadataRequestTopic(name=name) for name in names]
    return await ask(client, MetadataRequest(topics=topics), version, client_id)


def racked(name: str, rack: str, partitions: int = 1, **options: Any) -> FetchRequest:
    """A Fetch of the first partitions of a topic from their start."""
    request = fetch_request({name: dict.fromkeys(range(partitions), 0)}, **options)
    request.rack_id = rack
    return request


@pytest.mark.parametrize("version", [0, 1, 5, 9, 12, 13])
def test_metadata_names_the_agents_and_a_leader_in_the_zone_of_the_client(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        own = broker.agent.broker_id
        name = await broker.topic(partitions=3)
        client = await broker.connect()
        for zone, leader in (("a", own), ("b", B), ("c", C)):
            answer = await metadata(client, f"ws_az={zone},x", name, version=version)
            racks = ["a", "b", "c", "b"] if version >= 1 else [None] * 4
            assert [(node.node_id, node.host, node.port, node.rack) for node in answer.brokers] == [
                (own, "127.0.0.1", broker.port, racks[0]),
                (B, "b.test", 9092, racks[1]),
                (C, "c.test", 9092, racks[2]),
                # Of another group, so it leads nothing; but it may be a coordinator.
                (ELSEWHERE, "d.test", 9092, racks[3]),
            ]
            assert answer.controller_id == (leader if version >= 1 else -1)
            [topic] = answer.topics
            for part in topic.partitions:
                assert part.leader_id == leader
                assert part.replica_nodes[0] == leader
                assert sorted(part.replica_nodes) == sorted(part.isr_nodes) == [own, B, C]

    with_memory_broker(test)


def test_clients_of_another_listener_are_told_other_addresses(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        own = broker.agent.broker_id
        both = AgentFacts(endpoints=("b.test:9092", "b.inner:9093"))
        outer_only = AgentFacts(endpoints=("c.test:9092",))
        agents = [LiveAgent(own, "", AgentFacts()), LiveAgent(B, "", both), LiveAgent(C, "", outer_only)]
        group = coordinator_lease(slot_of("group"))
        leases = {group: LeaseState(group, C, 1, 1)}
        view = ClusterView(1_000_000, own, {agent.broker_id: agent for agent in agents}, leases)
        discovery_of(broker)._view = lambda: view
        broker.agent.groups.coordinator.stop_waiting()
        outer, inner = (listener.bound.port for listener in broker.agent.server.listeners)
        told = {}
        for port in (outer, inner):
            client = await Client.connect(port)
            broker.clients.append(client)
            named = (await metadata(client, "x")).brokers
            found = await client.ask(FindCoordinatorRequest(key="group"), 3)
            told[port] = [f"{node.host}:{node.port}" for node in named], found.error_code, found.host
        assert told[outer] == ([f"127.0.0.1:{outer}", "b.test:9092", "c.test:9092"], ErrorCode.NONE, "c.test")
        nobody = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert told[inner] == ([f"127.0.0.1:{inner}", "b.inner:9093"], nobody, "")

    with_memory_broker(test, listen="127.0.0.1:0,127.0.0.1:0")


def test_other_apis_name_the_same_agents_as_metadata(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic(partitions=20)
        client = await broker.connect()
        pages = DescribeTopicPartitionsRequest(
            topics=[DescribeTopicPartitionsTopic(name=name)], response_partition_limit=2000
        )
        for client_id in ("anybody", "ws_az=b", "ws_pas=consistent", "ws_pas=consistent,ws_az=c"):
            told = await metadata(client, client_id, name)
            cluster = await ask(
                client, DescribeClusterRequest(include_cluster_authorized_operations=False), 1, client_id
            )
            assert cluster.controller_id == told.controller_id
            assert [(node.broker_id, node.host, node.port, node.rack) for node in cluster.brokers] == [
                (node.node_id, node.host, node.port, node.rack) for node in told.brokers
            ]
            described = await ask(client, pages, 0, client_id)
            assert [
                (part.leader_id, part.replica_nodes, part.isr_nodes)
                for part in described.topics[0].partitions
            ] == [(part.leader_id, part.replica_nodes, part.isr_nodes) for part in told.topics[0].partitions]

    with_memory_broker(test)


def test_partitions_are_spread_for_a_client_that_wants_it(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic(partitions=60)
        client = await broker.connect()
        [topic] = (await metadata(client, "warp_pas=consistent,one", name)).topics
        leaders = [part.leader_id for part in topic.partitions]
        assert set(leaders) == {broker.agent.broker_id, B, C}
        assert [part.partition_index for part in topic.partitions] == list(range(60))
        assert all(part.replica_nodes[0] == part.leader_id for part in topic.partitions)
        [again] = (await metadata(await broker.connect(), "warp_pas=consistent,two", name)).topics
        assert [part.leader_id for part in again.partitions] == leaders

    with_memory_broker(test)


def test_a_connection_that_has_produced_leads_where_it_is(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic()
        names = [f"client-{number}" for number in range(20)]
        client = await broker.connect()
        elsewhere = [
            client_id
            for client_id in names
            if (await metadata(client, client_id, name)).controller_id != broker.agent.broker_id
        ]
        assert elsewhere
        await client.produce(name, batch(b"x"))
        assert (await metadata(client, elsewhere[0], name)).controller_id == broker.agent.broker_id

    with_memory_broker(test)


def test_clients_that_work_at_an_agent_with_far_more_connections_go_home_few_at_a_time(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker, 100)
        own = broker.agent.broker_id
        name = await broker.topic()
        client = await broker.connect()
        homes = {
            client_id: (await metadata(client, client_id, name)).controller_id
            for client_id in (f"client-{number}" for number in range(40))
        }
        await client.produce(name, batch(b"x"))
        told = {client_id: (await metadata(client, client_id, name)).controller_id for client_id in homes}
        moved = [client_id for client_id in homes if told[client_id] != own]
        assert len(moved) == 5, "a twentieth"
        assert all(told[client_id] == homes[client_id] for client_id in moved)

    with_memory_broker(test)


def test_what_is_known_of_a_connection_ends_with_it(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        discovery = discovery_of(broker)
        client = await broker.connect()
        for client_id in ("one", "two", "two"):
            await metadata(client, client_id)
        other = await broker.connect()
        await metadata(other, "two")
        assert list(discovery._alike.values()) == [2]
        await client.close()
        await other.close()
        while broker.agent.server.connection_count:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        assert discovery._alike == {}

    with_memory_broker(test)


@pytest.mark.parametrize("version", [0, 1, 3, 4])
def test_the_coordinator_is_the_agent_that_holds_the_slot(
    with_memory_broker: RunWithBroker, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(broker: Broker) -> None:
        monkeypatch.setattr(broker.agent.groups.coordinator, "coordinates", lambda name: name == "mine")
        names = [coordinator_lease(slot_of(name)) for name in ("theirs", "lost")]
        holders = {
            name: LeaseState(name, holder, 1, 1)
            for name, holder in zip(names, (B, BrokerId(999)), strict=True)
        }
        pretend(broker, **holders)
        client = await broker.connect()
        own = (ErrorCode.NONE, broker.agent.broker_id, "127.0.0.1", broker.port)
        nobody = (ErrorCode.COORDINATOR_NOT_AVAILABLE, -1, "", -1)
        for name, expected in (("mine", own), ("theirs", (0, B, "b.test", 9092)), ("lost", nobody)):
            request = (
                FindCoordinatorRequest(key=name)
                if version < 4
                else FindCoordinatorRequest(coordinator_keys=[name])
            )
            answer = await client.ask(request, version)
            found = answer if version < 4 else answer.coordinators[0]
            assert (found.error_code, found.node_id, found.host, found.port) == expected

    with_memory_broker(test)


@pytest.mark.parametrize("version", [11, 12, 13, 18])
def test_a_reader_is_sent_to_its_rack_at_once_and_without_records(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic(partitions=2)
        client = await broker.connect()
        await client.produce(name, batch(b"x"))
        key: Any = broker.topic_id(name) if version >= 13 else name
        # The second partition is empty: without a replica to go to, the fetch would wait for longer than the test.
        answer = await client.ask(racked(key, "b", 2, min_bytes=10**6, max_wait_ms=600_000), version)
        assert answer.error_code == 0
        for part in answer.responses[0].partitions:
            assert (part.error_code, part.preferred_read_replica) == (ErrorCode.NONE, B)
            assert (part.high_watermark, bytes(part.records or b"")) == (-1, b"")

    with_memory_broker(test)


def test_the_replica_that_a_reader_is_sent_to_is_in_metadata(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic()
        client = await broker.connect()
        [topic] = (await metadata(client, "raw", name)).topics
        [part] = (await client.ask(racked(name, "c"), 12)).responses[0].partitions
        assert part.preferred_read_replica == C
        assert C in topic.partitions[0].replica_nodes
        assert (await metadata(client, "raw", name)).controller_id == C, "its zone is known from now on"

    with_memory_broker(test)


def test_a_reader_that_comes_back_is_served(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic(partitions=2)
        client = await broker.connect()
        for index in range(2):
            await client.produce(name, batch(b"x"), partition=index)
        await client.ask(racked(name, "b", 1), 12)
        first, second = (await client.ask(racked(name, "b", 2), 12)).responses[0].partitions
        assert (first.preferred_read_replica, second.preferred_read_replica) == (-1, B)
        assert bytes(first.records)
        assert not bytes(second.records or b"")
        served = (await client.ask(racked(name, "b", 2), 12)).responses[0].partitions
        assert [part.preferred_read_replica for part in served] == [-1, -1]
        assert all(bytes(part.records) for part in served)

    with_memory_broker(test)


@pytest.mark.parametrize("rack", ["", "a", "nowhere"])
def test_a_reader_without_a_nearer_agent_is_served(with_memory_broker: RunWithBroker, rack: str) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic()
        client = await broker.connect()
        await client.produce(name, batch(b"x"))
        [part] = (await client.ask(racked(name, rack), 12)).responses[0].partitions
        assert part.preferred_read_replica == -1
        assert bytes(part.records)

    with_memory_broker(test)


def test_a_reader_whose_rack_is_here_is_told_of_agents_of_its_rack(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic()
        client = await broker.connect()
        names = [f"client-{number}" for number in range(20)]
        own = broker.agent.broker_id
        told = {client_id: (await metadata(client, client_id, name)).controller_id for client_id in names}
        assert set(told.values()) == {own, B, C}
        await client.ask(racked(name, "a", max_wait_ms=0), 12)
        assert {(await metadata(client, client_id, name)).controller_id for client_id in names} == {own}

    with_memory_broker(test)


def test_what_does_not_exist_has_its_error_beside_what_is_elsewhere(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        pretend(broker)
        name = await broker.topic(partitions=1)
        client = await broker.connect()
        here, missing = (await client.ask(racked(name, "b", 2), 12)).responses[0].partitions
        assert (here.error_code, here.preferred_read_replica) == (ErrorCode.NONE, B)
        assert (missing.error_code, missing.preferred_read_replica) == (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            -1,
        )

    with_memory_broker(test)


def test_an_agent_alone_serves_readers_of_any_rack(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        name = await broker.topic()
        client = await broker.connect()
        await client.produce(name, batch(b"x"))
        [part] = (await client.ask(racked(name, "b"), 12)).responses[0].partitions
        assert part.preferred_read_replica == -1
        assert bytes(part.records)

    with_memory_broker(test)
