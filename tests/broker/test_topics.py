"""CreateTopics, DeleteTopics, CreatePartitions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request
from tests.broker.support import Broker, RunWithBroker, batch
from warp.cluster.config_definition import ConfigEntry
from warp.cluster.topic_config import describe_topic
from warp.errors import ErrorCode
from warp.ids import NO_TOPIC_ID
from warp.protocol import ApiKey
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.produce import ProducePartition, ProduceRequest, ProduceTopic
from warp.protocol.messages.topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)


def wanted(name: str, partitions: int = 1, replicas: int = 1, **configs: str | None) -> CreatableTopic:
    return CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replicas,
        assignments=[],
        configs=[
            CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()
        ],
    )


async def create(
    client: Client, *topics: CreatableTopic, version: int = 7, validate_only: bool = False
) -> Any:
    request = CreateTopicsRequest(topics=list(topics), timeout_ms=5000, validate_only=validate_only)
    return (await client.ask(request, version)).topics


async def partitions_of(client: Client, name: str) -> int | None:
    topics = [MetadataRequestTopic(name=name)]
    [topic] = (await client.ask(MetadataRequest(topics=topics, allow_auto_topic_creation=False), 9)).topics
    return None if topic.error_code else len(topic.partitions)


@pytest.mark.parametrize("version", range(2, 8))
def test_a_topic_is_there_when_its_creation_is_answered(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client, other = await broker.connect(), await broker.connect()
        [topic] = await create(client, wanted("new", 3, 2, retention_ms="1000"), version=version)
        assert (topic.error_code, topic.error_message) == (ErrorCode.NONE, None)
        assert await partitions_of(other, "new") == 3
        if version >= 5:
            assert (topic.num_partitions, topic.replication_factor) == (3, 2)
            assert {config.name: config.value for config in topic.configs}["retention.ms"] == "1000"
        if version >= 7:
            assert topic.topic_id == broker.topic_id("new")
        assert (await other.produce("new", batch(b"v"), partition=2)).error_code == ErrorCode.NONE

    with_broker(test)


def test_each_topic_has_its_own_result(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await broker.topic("there")
        topics = await create(
            client,
            wanted("good", -1, -1),
            wanted("there"),
            wanted("twice"),
            wanted("twice", 2),
            wanted("bad/name"),
            wanted("th.ere.x"),
            wanted("th_ere_x"),
            wanted("none", 0),
            wanted("fewer", -2),
            wanted("no-replicas", 1, 0),
            wanted("odd-config", retention_mz="1"),
            wanted("bad-value", retention_ms="soon"),
            wanted("null-value", retention_ms=None),
            wanted("__cluster_metadata"),
        )
        assert [(topic.name, ErrorCode(topic.error_code).name) for topic in topics] == [
            ("good", "NONE"),
            ("there", "TOPIC_ALREADY_EXISTS"),
            ("twice", "INVALID_REQUEST"),
            ("twice", "INVALID_REQUEST"),
            ("bad/name", "INVALID_TOPIC_EXCEPTION"),
            ("th.ere.x", "NONE"),
            ("th_ere_x", "INVALID_TOPIC_EXCEPTION"),
            ("none", "INVALID_PARTITIONS"),
            ("fewer", "INVALID_PARTITIONS"),
            ("no-replicas", "INVALID_REPLICATION_FACTOR"),
            ("odd-config", "INVALID_CONFIG"),
            ("bad-value", "INVALID_CONFIG"),
            ("null-value", "INVALID_CONFIG"),
            ("__cluster_metadata", "INVALID_REQUEST"),
        ]
        assert "retention.ms" in topics[10].error_message
        assert await partitions_of(client, "good") == 3
        assert await partitions_of(client, "twice") is None

    with_memory_broker(test, num_partitions="3")


def test_more_partitions_than_one_request_may_ask_for(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topics = await create(client, wanted("one", 6000), wanted("two", 6000))
        assert [topic.error_code for topic in topics] == [ErrorCode.POLICY_VIOLATION] * 2

    with_memory_broker(test)


def test_assignments_give_the_number_of_partitions(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        me = broker.agent.broker_id
        good = wanted("good", -1, -1)
        good.assignments = [CreatableReplicaAssignment(partition_index=i, broker_ids=[me]) for i in (0, 1)]
        gap = wanted("gap", -1, -1)
        gap.assignments = [CreatableReplicaAssignment(partition_index=1, broker_ids=[me])]
        both = wanted("both", 1, 1)
        both.assignments = [CreatableReplicaAssignment(partition_index=0, broker_ids=[me])]
        nobody = wanted("nobody", -1, -1)
        nobody.assignments = [CreatableReplicaAssignment(partition_index=0, broker_ids=[me + 1])]
        codes = [topic.error_code for topic in await create(client, good, gap, both, nobody)]
        assert codes == [
            ErrorCode.NONE,
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            ErrorCode.INVALID_REQUEST,
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        ]
        assert await partitions_of(client, "good") == 2

    with_memory_broker(test)


def test_validate_only_checks_everything_and_changes_nothing(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await broker.topic("there", partitions=2)
        topics = await create(
            client, wanted("new", 4), wanted("there"), wanted("bad name"), validate_only=True
        )
        assert [topic.error_code for topic in topics] == [
            ErrorCode.NONE,
            ErrorCode.TOPIC_ALREADY_EXISTS,
            ErrorCode.INVALID_TOPIC_EXCEPTION,
        ]
        assert topics[0].num_partitions == 4
        assert await partitions_of(client, "new") is None
        assert await grow(client, ("there", 3), validate_only=True) == [ErrorCode.NONE]
        assert await partitions_of(client, "there") == 2

    with_memory_broker(test)


# ---- deletion ----


async def delete_by_name(client: Client, *names: str, version: int = 5) -> list[int]:
    request = DeleteTopicsRequest(topic_names=list(names), timeout_ms=5000)
    answer = await client.ask(request, version)
    assert [topic.name for topic in answer.responses] == list(names)
    return [topic.error_code for topic in answer.responses]


async def delete(client: Client, *topics: tuple[str | None, bytes]) -> Any:
    states = [DeleteTopicState(name=name, topic_id=topic_id) for name, topic_id in topics]
    request = DeleteTopicsRequest(topics=states, topic_names=[], timeout_ms=5000)
    return (await client.ask(request, 6)).responses


@pytest.mark.parametrize("version", range(1, 6))
def test_a_deleted_topic_is_gone_and_may_come_again(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        old_id = broker.topic_id(name)
        assert (await client.produce(name, batch(b"old"))).base_offset == 0
        assert await delete_by_name(client, name, "missing", version=version) == [
            ErrorCode.NONE,
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ]
        assert (await client.produce(name, batch(b"v"))).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert (await client.fetch(name)).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        await broker.topic(name)
        assert broker.topic_id(name) != old_id
        assert (await client.produce(name, batch(b"new"))).base_offset == 0
        assert b"old" not in bytes((await client.fetch(name)).records)

    with_broker(test)


def test_topics_are_deleted_by_name_or_id_but_not_both(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        names = [await broker.topic() for _ in range(5)]
        ids = [broker.topic_id(name) for name in names]
        answers = await delete(
            client,
            (None, ids[0]),
            (names[1], NO_TOPIC_ID),
            (names[2], ids[2]),
            (None, NO_TOPIC_ID),
            (None, b"\1" * 16),
            (names[3], NO_TOPIC_ID),
            (None, ids[3]),
        )
        assert [(each.name, each.topic_id, ErrorCode(each.error_code).name) for each in answers] == [
            (names[0], ids[0], "NONE"),
            (names[1], ids[1], "NONE"),
            (names[2], ids[2], "INVALID_REQUEST"),
            (None, NO_TOPIC_ID, "INVALID_REQUEST"),
            (None, b"\1" * 16, "UNKNOWN_TOPIC_ID"),
            (names[3], NO_TOPIC_ID, "INVALID_REQUEST"),
            (None, ids[3], "INVALID_REQUEST"),
        ]
        left = [name for name in names if await partitions_of(client, name)]
        assert left == [names[2], names[3], names[4]]

    with_memory_broker(test)


@pytest.mark.parametrize(
    ("version", "error"),
    [(12, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), (13, ErrorCode.UNKNOWN_TOPIC_ID)],
)
def test_a_fetch_that_waits_learns_that_its_topic_was_deleted(
    with_memory_broker: RunWithBroker, version: int, error: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        reader, admin = await broker.connect(), await broker.connect()
        name = await broker.topic()
        await reader.produce(name, batch(b"v"))
        asked_for: str | bytes = name if version < 13 else broker.topic_id(name)
        number = reader.send(fetch_request({asked_for: {0: 1}}, max_wait_ms=50_000), version)
        while not broker.agent.log.fetch.waiting:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        assert await delete_by_name(admin, name) == [ErrorCode.NONE]
        answer = await reader.answer(ApiKey.FETCH, version, number)
        assert answer.responses[0].partitions[0].error_code == error

    with_memory_broker(test)


@pytest.mark.parametrize(
    ("version", "error"),
    [(12, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), (13, ErrorCode.UNKNOWN_TOPIC_ID)],
)
def test_a_produce_whose_topic_goes_before_its_commit_learns_that(
    with_memory_broker: RunWithBroker, version: int, error: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        topic_id = broker.topic_id(name)
        # Behind the catalogue's back, as another agent would.
        await broker.agent._metadata.delete_topics([topic_id])
        part = ProducePartition(index=0, records=batch(b"v"))
        topic = ProduceTopic(name=name, topic_id=topic_id, partition_data=[part])
        request = ProduceRequest(acks=-1, timeout_ms=30_000, topic_data=[topic])
        answer = await client.ask(request, version)
        assert answer.responses[0].partition_responses[0].error_code == error

    with_memory_broker(test)


# ---- partitions ----


async def grow(
    client: Client, *topics: tuple[str, int], validate_only: bool = False, version: int = 3
) -> list[int]:
    request = CreatePartitionsRequest(
        topics=[CreatePartitionsTopic(name=name, count=count, assignments=None) for name, count in topics],
        timeout_ms=5000,
        validate_only=validate_only,
    )
    return [result.error_code for result in (await client.ask(request, version)).results]


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added_and_keep_what_was_there(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=2)
        await client.produce(name, batch(b"kept"), partition=1)
        codes = await grow(client, (name, 5), ("missing", 3), version=version)
        assert codes == [ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
        assert await partitions_of(client, name) == 5
        assert (await client.produce(name, batch(b"v"), partition=4)).base_offset == 0
        assert b"kept" in bytes((await client.fetch(name, partition=1)).records)

    with_broker(test)


def test_partitions_can_not_be_taken_away(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name, other = await broker.topic(partitions=3), await broker.topic()
        codes = await grow(client, (name, 3), (other, 2), (other, 3))
        assert codes == [ErrorCode.INVALID_PARTITIONS, ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_REQUEST]
        assert await grow(client, (name, 2), (other, 0)) == [ErrorCode.INVALID_PARTITIONS] * 2
        assert await partitions_of(client, name) == 3

    with_memory_broker(test)


def test_assignments_are_one_for_each_partition_that_is_added(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        me = CreatePartitionsAssignment(broker_ids=[broker.agent.broker_id])
        for assignments, code in (
            ([me], ErrorCode.INVALID_REPLICA_ASSIGNMENT),
            ([me, me], ErrorCode.NONE),
        ):
            topic = CreatePartitionsTopic(name=name, count=3, assignments=assignments)
            request = CreatePartitionsRequest(topics=[topic], timeout_ms=5000, validate_only=False)
            assert [each.error_code for each in (await client.ask(request, 3)).results] == [code]

    with_memory_broker(test)


def test_topics_of_one_request_are_told_their_own_configs_which_are_worked_out_once_for_equal_ones(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[dict[str, str]] = []

    def noting(overrides: Mapping[str, str], *others: Mapping[str, str]) -> Sequence[ConfigEntry]:
        described.append(dict(overrides))
        return describe_topic(overrides, *others)

    monkeypatch.setattr("warp.handlers.topics.describe_topic", noting)

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        plain = [wanted(f"plain-{number}") for number in range(50)]
        brief = [wanted(f"brief-{number}", retention_ms="1000") for number in range(50)]
        topics = await create(client, *plain, *brief)
        told = [{config.name: config.value for config in topic.configs}["retention.ms"] for topic in topics]
        assert told == ["604800000"] * 50 + ["1000"] * 50
        assert described == [{}, {"retention.ms": "1000"}]
        # Versions that can't carry them cost none of that.
        await create(client, wanted("older"), version=4)
        assert len(described) == 2

    with_memory_broker(test)
