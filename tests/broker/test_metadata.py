"""Metadata and DescribeTopicPartitions: which topics, in which versions, created or not, page by page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.handlers.operations import CLUSTER_OPERATIONS, TOPIC_OPERATIONS
from warp.ids import NO_TOPIC_ID
from warp.protocol.messages.metadata import (
    DescribeTopicPartitionsCursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsTopic,
    MetadataRequest,
    MetadataRequestTopic,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED

VERSIONS = range(14)


async def ask(client: Client, version: int, *names: str, create: bool = False, **options: Any) -> Any:
    topics = [MetadataRequestTopic(name=name) for name in names]
    request = MetadataRequest(topics=topics, allow_auto_topic_creation=create, **options)
    return await client.ask(request, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_agent_leads_every_partition(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=3)
        answer = await ask(client, version, name, create=version < 4)
        [node] = answer.brokers
        assert (node.host, node.port) == ("127.0.0.1", broker.port)
        assert node.node_id == broker.agent.broker_id
        if version >= 1:
            assert answer.controller_id == node.node_id
        if version >= 2:
            assert answer.cluster_id == broker.agent.cluster_id
        [topic] = answer.topics
        assert (topic.error_code, topic.name) == (ErrorCode.NONE, name)
        assert topic.topic_id == (broker.topic_id(name) if version >= 10 else NO_TOPIC_ID)
        assert [part.partition_index for part in topic.partitions] == [0, 1, 2]
        for part in topic.partitions:
            assert (part.error_code, part.leader_id) == (ErrorCode.NONE, node.node_id)
            assert part.replica_nodes == part.isr_nodes == [node.node_id]
            assert part.offline_replicas == []
            assert part.leader_epoch == (0 if version >= 7 else -1)

    with_memory_broker(test)


def test_an_empty_list_asks_for_all_in_version_0_and_for_none_later(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        names = sorted([await broker.topic() for _ in range(3)])
        empty = MetadataRequest(topics=[])
        assert [topic.name for topic in (await client.ask(empty, 0)).topics] == names
        for version in VERSIONS[1:]:
            assert (await client.ask(empty, version)).topics == []
            everything = await client.ask(MetadataRequest(topics=None), version)
            assert [topic.name for topic in everything.topics] == names

    with_memory_broker(test)


def test_a_topic_is_created_when_agent_and_client_allow_it(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        [refused] = (await ask(client, 12, "unwanted")).topics
        assert (refused.error_code, refused.partitions) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, [])
        [created] = (await ask(client, 12, "wanted", create=True)).topics
        assert created.error_code == ErrorCode.NONE
        assert len(created.partitions) == 2
        assert created.topic_id != NO_TOPIC_ID
        [again] = (await ask(client, 12, "wanted", create=True)).topics
        assert again.topic_id == created.topic_id
        [old] = (await ask(client, 1, "by-version-1", create=True)).topics
        assert old.error_code == ErrorCode.NONE
        everything = await client.ask(MetadataRequest(topics=None), 12)
        assert [topic.name for topic in everything.topics] == ["by-version-1", "wanted"]

    with_broker(test, num_partitions="2")


def test_no_topic_is_created_when_the_agent_forbids_it(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        [topic] = (await ask(client, 12, "wanted", create=True)).topics
        assert topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    with_memory_broker(test, auto_create_topics="false")


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ü", "a" * 250])
def test_an_illegal_name_is_an_invalid_topic(
    with_memory_broker: RunWithBroker, name: str, create: bool
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        [topic] = (await ask(client, 9, name, create=create)).topics
        assert (topic.error_code, topic.name) == (ErrorCode.INVALID_TOPIC_EXCEPTION, name)

    with_memory_broker(test)


def test_a_topic_whose_name_collides_is_not_created(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await broker.topic("a.b")
        [topic] = (await ask(client, 9, "a_b", create=True)).topics
        assert topic.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION

    with_memory_broker(test)


def test_each_topic_is_in_the_answer_once_in_the_order_of_the_request(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        one, two = await broker.topic(), await broker.topic()
        answer = await ask(client, 12, two, "missing", one, two, "new", "missing")
        assert [topic.name for topic in answer.topics] == [two, "missing", one, "new"]
        created = await ask(client, 12, two, "missing", one, two, "new", "missing", create=True)
        assert [topic.error_code for topic in created.topics] == [ErrorCode.NONE] * 4

    with_memory_broker(test)


@pytest.mark.parametrize("version", [12, 13])
def test_topics_may_be_asked_for_by_id(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        topics = [
            MetadataRequestTopic(name=None, topic_id=broker.topic_id(name)),
            MetadataRequestTopic(name=None, topic_id=b"\1" * 16),
            MetadataRequestTopic(name="ignored-beside-ids", topic_id=NO_TOPIC_ID),
        ]
        answer = await client.ask(MetadataRequest(topics=topics), version)
        assert [(topic.error_code, topic.name, topic.topic_id) for topic in answer.topics] == [
            (ErrorCode.NONE, name, broker.topic_id(name)),
            (ErrorCode.UNKNOWN_TOPIC_ID, None, b"\1" * 16),
            (ErrorCode.UNKNOWN_TOPIC_ID, None, NO_TOPIC_ID),
        ]

    with_memory_broker(test)


@pytest.mark.parametrize("version", [10, 11])
def test_ids_and_null_names_are_refused_before_version_12(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for topic in (
            MetadataRequestTopic(name=name, topic_id=broker.topic_id(name)),
            MetadataRequestTopic(name=None),
        ):
            answer = await client.ask(MetadataRequest(topics=[topic]), version)
            assert [topic.error_code for topic in answer.topics] == [ErrorCode.INVALID_REQUEST]

    with_memory_broker(test)


def test_authorized_operations_are_told_when_asked_for(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for version in range(8, 14):
            has_cluster = version <= 10
            answer = await ask(
                client,
                version,
                name,
                include_topic_authorized_operations=True,
                include_cluster_authorized_operations=has_cluster,
            )
            assert answer.topics[0].topic_authorized_operations == TOPIC_OPERATIONS
            expected = CLUSTER_OPERATIONS if has_cluster else AUTHORIZED_OPERATIONS_OMITTED
            assert answer.cluster_authorized_operations == expected
            plain = await ask(client, version, name)
            assert plain.topics[0].topic_authorized_operations == AUTHORIZED_OPERATIONS_OMITTED
            assert plain.cluster_authorized_operations == AUTHORIZED_OPERATIONS_OMITTED

    with_memory_broker(test)


def test_every_listener_is_advertised_to_its_own_clients(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        inner, outer = broker.agent.server.listeners
        for listener, told in ((inner, ("inner.test", inner.bound.port)), (outer, ("outer.test", 1234))):
            client = await Client.connect(listener.bound.port)
            broker.clients.append(client)
            [node] = (await ask(client, 9)).brokers
            assert (node.host, node.port) == told

    listen = ["127.0.0.1:0", "127.0.0.1:0"]
    with_memory_broker(test, listen=listen, advertise=["inner.test:0", "outer.test:1234"])


# ---- DescribeTopicPartitions ----


async def describe(client: Client, *names: str, **options: Any) -> Any:
    topics = [DescribeTopicPartitionsTopic(name=name) for name in names]
    return await client.ask(DescribeTopicPartitionsRequest(topics=topics, **options), 0)


def test_partitions_are_described_in_the_order_of_topic_names(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for name in ("b", "a", "c"):
            await broker.topic(name, partitions=2)
        answer = await describe(client, "c", "missing", "a", "bad name", "a")
        assert [(topic.name, topic.error_code) for topic in answer.topics] == [
            ("a", ErrorCode.NONE),
            ("bad name", ErrorCode.INVALID_TOPIC_EXCEPTION),
            ("c", ErrorCode.NONE),
            ("missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ]
        assert answer.next_cursor is None
        everything = await describe(client)
        assert [topic.name for topic in everything.topics] == ["a", "b", "c"]
        part = everything.topics[0].partitions[1]
        assert (part.partition_index, part.leader_id, part.leader_epoch) == (1, broker.agent.broker_id, 0)
        assert part.replica_nodes == part.isr_nodes == [broker.agent.broker_id]

    with_memory_broker(test)


def test_pages_join_without_gap_or_overlap_whatever_their_size(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        sizes = {"a": 3, "b": 1, "c": 5}
        for name, partitions in sizes.items():
            await broker.topic(name, partitions=partitions)
        expected = [(name, index) for name, count in sizes.items() for index in range(count)]
        for limit in range(1, 11):
            found: list[tuple[str, int]] = []
            cursor = None
            while True:
                answer = await describe(client, response_partition_limit=limit, cursor=cursor)
                page = [
                    (topic.name, part.partition_index) for topic in answer.topics for part in topic.partitions
                ]
                assert 1 <= len(page) <= limit
                found += page
                if answer.next_cursor is None:
                    break
                cursor = DescribeTopicPartitionsCursor(
                    topic_name=answer.next_cursor.topic_name,
                    partition_index=answer.next_cursor.partition_index,
                )
            assert found == expected, limit

    with_memory_broker(test)


def test_a_negative_partition_in_the_cursor_is_an_invalid_request(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        cursor = DescribeTopicPartitionsCursor(topic_name=name, partition_index=-1)
        answer = await describe(client, name, cursor=cursor)
        assert [topic.error_code for topic in answer.topics] == [ErrorCode.INVALID_REQUEST]

    with_memory_broker(test)
