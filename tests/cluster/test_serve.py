"""Three agents in two zones are one Kafka cluster, whichever of them one talks to."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.broker.client import Client, fetch_request, joined
from tests.broker.support import batch
from tests.cluster.conftest import MakeCluster
from tests.support.cluster import Cluster, ClusterAgent, eventually
from warp.protocol import ApiKey
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from warp.protocol.messages.producers import InitProducerIdRequest

pytestmark = pytest.mark.postgres

LATEST = -1
ROUNDS = 15
WAIT_MS = 20_000


def create_topic(cluster: Cluster, name: str, partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic(name, partitions)])[name].result(30)


def run_with_clients(cluster: Cluster, test: Callable[[list[Client]], Awaitable[None]]) -> None:
    """Run a test with a raw connection to each agent."""

    async def with_clients() -> None:
        clients = [await Client.connect(agent.port) for agent in cluster.agents]
        try:
            await test(clients)
        finally:
            for client in clients:
                await client.close()

    asyncio.run(with_clients())


async def metadata(client: Client, client_id: str, *topics: str) -> Any:
    request = MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in topics])
    correlation_id = client.send(request, 9, client_id)
    return await client.answer(ApiKey.METADATA, 9, correlation_id)


async def end_offset(client: Client, topic: str) -> int:
    asked = ListOffsetsTopic(
        name=topic, partitions=[ListOffsetsPartition(partition_index=0, timestamp=LATEST)]
    )
    answer = await client.ask(ListOffsetsRequest(replica_id=-1, topics=[asked]), 5)
    return int(answer.topics[0].partitions[0].offset)


def of_zone(cluster: Cluster, zone: str) -> set[int]:
    return {agent.broker_id() for agent in cluster.agents if agent.zone == zone}


def test_every_agent_tells_of_the_same_cluster_and_sends_clients_to_their_zone(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t", 4)
    brokers = {(agent.broker_id(), "127.0.0.1", agent.port, agent.zone) for agent in cluster.agents}
    zones = {zone: of_zone(cluster, zone) for zone in ("zone-1", "zone-2")}

    async def test(clients: list[Client]) -> None:
        ids = set()
        for client in clients:
            answer = await metadata(client, "app", "t")
            ids.add(answer.cluster_id)
            assert {(b.node_id, b.host, b.port, b.rack) for b in answer.brokers} == brokers
            assert answer.topics[0].error_code == 0
            for zone, members in zones.items():
                told = await metadata(client, f"app,warp_az={zone}", "t")
                leaders = {partition.leader_id for partition in told.topics[0].partitions}
                assert len(leaders) == 1
                assert leaders <= members
        assert len(ids) == 1

    run_with_clients(cluster, test)


@pytest.mark.parametrize("s3", ["moto", pytest.param("rgw", marks=pytest.mark.rgw)], indirect=True)
def test_what_is_acknowledged_by_one_agent_is_seen_through_every_other(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t")

    async def test(clients: list[Client]) -> None:
        pairs = list(itertools.permutations(clients, 2))
        expected = 0
        for number in range(ROUNDS):
            for writer, reader in pairs:
                value = b"%d-%d" % (number, expected)
                produced = await writer.produce("t", batch(value))
                assert (produced.error_code, produced.base_offset) == (0, expected)
                if number % 2:
                    assert await end_offset(reader, "t") == expected + 1
                found = await reader.fetch("t", expected, max_wait_ms=0)
                assert found.high_watermark == expected + 1
                assert value in joined(found.records)
                expected += 1
        for client in clients:
            assert await end_offset(client, "t") == expected

    run_with_clients(cluster, test)


def test_a_consumer_that_waits_at_one_agent_is_woken_by_a_commit_of_another(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t")

    async def test(clients: list[Client]) -> None:
        for offset, (writer, reader) in enumerate(itertools.permutations(clients, 2)):
            waiting = reader.send(fetch_request({"t": {0: offset}}, max_wait_ms=WAIT_MS), 12)
            await asyncio.sleep(0.05)
            assert (await writer.produce("t", batch(b"%d" % offset))).error_code == 0
            answer = await reader.answer(ApiKey.FETCH, 12, waiting)
            assert b"%d" % offset in joined(answer.responses[0].partitions[0].records)

    run_with_clients(cluster, test)
    for agent in cluster.agents:
        assert agent.metric('warp_cluster_hints_total{direction="received",kind="log"}') > 0


def test_a_batch_that_comes_again_through_another_agent_is_stored_once(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t")

    async def test(clients: list[Client]) -> None:
        request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=0)
        producer = await clients[0].ask(request, 2)
        assert producer.error_code == 0
        fields = {"producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch}
        for sequence in range(6):
            data = batch(b"%d" % sequence, base_sequence=sequence, **fields)
            for place in range(3):
                client = clients[(sequence + place) % 3]
                answer = await client.produce("t", data)
                assert (answer.error_code, answer.base_offset) == (0, sequence)
        assert await end_offset(clients[0], "t") == 6

    run_with_clients(cluster, test)


def values_of(consumer: Consumer, count: int) -> list[bytes]:
    values: list[bytes] = []
    deadline = 60
    while len(values) < count and deadline:
        found = consumer.consume(500, 1.0)
        deadline -= 1
        for message in found:
            assert message.error() is None, message.error()
            values.append(message.value() or b"")
    return values


def test_clients_produce_and_consume_through_whichever_agent_they_are_sent_to(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t", 6)
    sent = set()
    for number, agent in enumerate(cluster.agents):
        settings = {
            "bootstrap.servers": agent.bootstrap,
            "enable.idempotence": True,
            "client.id": f"p{number}",
        }
        producer = Producer(settings)
        for record in range(300):
            value = b"%d-%d" % (number, record)
            producer.produce("t", value)
            sent.add(value)
        assert producer.flush(60) == 0
    for number, agent in enumerate(cluster.agents):
        group = {"group.id": f"reader-{number}", "auto.offset.reset": "earliest"}
        consumer = Consumer({"bootstrap.servers": agent.bootstrap, **group})
        consumer.subscribe(["t"])
        assert set(values_of(consumer, len(sent))) == sent
        consumer.close()


def test_members_of_a_group_at_different_agents_share_its_partitions(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t", 6)
    consumers = [
        Consumer(
            {
                "bootstrap.servers": agent.bootstrap,
                "group.id": "shared",
                "auto.offset.reset": "earliest",
                "client.id": f"member,warp_az={agent.zone}",
            }
        )
        for agent in cluster.agents
    ]
    for consumer in consumers:
        consumer.subscribe(["t"])

    def is_shared() -> bool:
        for consumer in consumers:
            consumer.poll(0.05)
        return [len(consumer.assignment()) for consumer in consumers] == [2, 2, 2]

    eventually(is_shared, "each member has two partitions", 60)
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    wanted = {b"%d" % number for number in range(120)}
    for number in range(120):
        producer.produce("t", b"%d" % number, partition=number % 6)
    assert producer.flush(60) == 0
    seen: list[bytes] = []

    def is_read() -> bool:
        for consumer in consumers:
            for message in consumer.consume(100, 0.1):
                assert message.error() is None, message.error()
                seen.append(message.value() or b"")
        return len(seen) >= len(wanted)

    eventually(is_read, "all records are read", 60)
    assert sorted(seen) == sorted(wanted)
    for consumer in consumers:
        consumer.commit(asynchronous=False)
        consumer.close()
    check = Consumer({"bootstrap.servers": cluster.agents[0].bootstrap, "group.id": "shared"})
    admin = AdminClient({"bootstrap.servers": cluster.agents[2].bootstrap})
    [offsets] = admin.list_consumer_group_offsets([_group("shared")]).values()
    assert sum(partition.offset for partition in offsets.result(30).topic_partitions) == 120
    check.close()


def _group(group_id: str) -> Any:
    from confluent_kafka import ConsumerGroupTopicPartitions

    return ConsumerGroupTopicPartitions(group_id)


def test_each_chunk_is_read_from_the_store_about_once_in_a_zone(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(zones=("zone-1", "zone-1", "zone-1"))
    create_topic(cluster, "t")
    values = [bytes([number]) * 200_000 for number in range(60)]

    async def write(clients: list[Client]) -> None:
        for value in values:
            assert (await clients[0].produce("t", batch(value))).error_code == 0

    run_with_clients(cluster, write)
    # Nobody remembers what it has written.
    for agent in cluster.agents:
        assert agent.stop() == 0
        agent.start()
    cluster.settle()

    async def read(clients: list[Client]) -> None:
        for client in clients:
            offset = 0
            while offset < len(values):
                found = await client.fetch("t", offset, partition_max_bytes=1 << 20, max_wait_ms=100)
                data = joined(found.records)
                assert data
                offset += data.count(b"key")

    run_with_clients(cluster, read)
    stored = sum(map(len, values))
    loaded = sum(agent.metric("warp_cache_loaded_bytes_total") for agent in cluster.agents)
    assert stored <= loaded <= 1.5 * stored


def test_an_agent_that_is_killed_gets_its_broker_id_again(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    agent: ClusterAgent = cluster.agents[1]
    broker_id = agent.broker_id()
    agent.kill()
    agent.start()
    cluster.settle()
    assert agent.broker_id() == broker_id
