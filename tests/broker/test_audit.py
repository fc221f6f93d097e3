"""The audit log of an agent: a line per refused request and per change, in the mode that only logs too."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.broker.authorization import ENFORCED, allow, make_topic, put_in_force
from tests.broker.client import fetch_request, produce_request
from tests.broker.groups import commit_request, delete_request
from tests.broker.support import Broker, RunWithBroker, batch
from warp.errors import ErrorCode
from warp.handlers.operations import CLUSTER_OPERATIONS, TOPIC_OPERATIONS
from warp.logs import extra_fields
from warp.protocol.messages.cluster import DescribeClusterRequest
from warp.protocol.messages.groups import DeleteGroupsRequest
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.offsets import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from warp.protocol.messages.producers import InitProducerIdRequest
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeleteTopicsRequest,
)
from warp.protocol.types import AclOperation, AclResourceType

ONLY_LOGGED = {**ENFORCED, "authorization": "log"}


class Lines(logging.Handler):
    """What was logged: message and fields."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), dict(extra_fields(record))))

    def refusals(self) -> list[tuple[str, str, str, str, str]]:
        """Of each line about a refusal the message, the API, and what was refused."""
        return [
            (message, fields["api"], fields["operation"], fields["resource"], fields["resource_name"])
            for message, fields in self.lines
            if "api" in fields
        ]

    def changes(self) -> list[tuple[str, dict[str, Any]]]:
        """The lines about changes, without who has made them, which is the same for all."""
        found = []
        for message, fields in self.lines:
            if "api" not in fields:
                assert fields.pop("principal") == "User:ANONYMOUS"
                assert fields.pop("address").startswith("127.0.0.1:")
                found.append((message, fields))
        return found


@pytest.fixture
def audited() -> Iterator[Lines]:
    logger = logging.getLogger("warp.audit")
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def creation(*names: str, validate_only: bool = False) -> CreateTopicsRequest:
    topics = [
        CreatableTopic(name=name, num_partitions=2, replication_factor=1, assignments=[], configs=[])
        for name in names
    ]
    return CreateTopicsRequest(topics=topics, validate_only=validate_only)


def test_a_refused_request_is_one_line_that_says_who_and_what(
    with_memory_broker: RunWithBroker, audited: Lines
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        parts: dict[int, bytes | None] = {0: batch(b"v"), 1: batch(b"w")}
        await client.ask(produce_request({"a": parts, "b": parts}), 9)
        [(message, fields)] = audited.lines
        assert message == "denied"
        assert fields.pop("address").startswith("127.0.0.1:")
        assert fields == {
            "principal": "User:ANONYMOUS",
            "listener": f"PLAINTEXT://127.0.0.1:{broker.port}",
            "client_id": "raw",
            "api": "Produce",
            "api_version": 9,
            "operation": "WRITE",
            "resource": "TOPIC",
            "resource_name": "a",
            "also": 'WRITE TOPIC "b"',
            "refusals": 2,
        }
        assert broker.agent.metrics.denied_requests.value("Produce") == 1

    with_memory_broker(test, **ENFORCED)


def test_where_one_of_two_rights_would_do_one_refusal_is_told(
    with_memory_broker: RunWithBroker, audited: Lines
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        answer = await client.ask(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1), 4)
        assert answer.error_code == ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        await client.ask(creation("t"), 7)
        assert audited.refusals() == [
            ("denied", "InitProducerId", "IDEMPOTENT_WRITE", "CLUSTER", "kafka-cluster"),
            ("denied", "CreateTopics", "CREATE", "TOPIC", "t"),
        ]

    with_memory_broker(test, **ENFORCED)


def test_what_only_logs_lets_everything_through_and_tells_it(
    with_memory_broker: RunWithBroker, audited: Lines
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert (await client.ask(creation("t"), 7)).topics[0].num_partitions == 2
        answer = await client.ask(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1), 4)
        assert answer.error_code == 0
        assert (await client.produce("t", batch(b"v"))).error_code == 0
        assert (await client.fetch("t")).records
        topics = [MetadataRequestTopic(name="t")]
        described = await client.ask(
            MetadataRequest(topics=topics, include_topic_authorized_operations=True), 12
        )
        assert described.topics[0].topic_authorized_operations == TOPIC_OPERATIONS
        everything = await client.ask(MetadataRequest(topics=None), 12)
        assert [topic.name for topic in everything.topics] == ["t"]
        assert (await client.ask(commit_request("g", {"t": {0: 1}}), 8)).topics[0].partitions[
            0
        ].error_code == 0
        assert audited.refusals() == [
            ("would deny", "CreateTopics", "CREATE", "TOPIC", "t"),
            ("would deny", "InitProducerId", "IDEMPOTENT_WRITE", "CLUSTER", "kafka-cluster"),
            ("would deny", "Produce", "WRITE", "TOPIC", "t"),
            ("would deny", "Fetch", "READ", "TOPIC", "t"),
            ("would deny", "Metadata", "DESCRIBE", "TOPIC", "t"),
        ]
        assert broker.agent.metrics.denied_requests.value("OffsetCommit") == 1
        operations = await client.ask(DescribeClusterRequest(include_cluster_authorized_operations=True), 0)
        assert operations.cluster_authorized_operations == CLUSTER_OPERATIONS

    with_memory_broker(test, **ONLY_LOGGED)


def test_what_only_logs_tells_nothing_of_what_acls_allow(
    with_memory_broker: RunWithBroker, audited: Lines
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "t")
        await put_in_force(broker, allow(AclResourceType.TOPIC, AclOperation.READ, "t"))
        await client.ask(fetch_request({"t": {0: 0}}), 12)
        assert audited.refusals() == []

    with_memory_broker(test, **ONLY_LOGGED)


@pytest.mark.parametrize(
    "settings",
    [
        {"authorization": "off"},
        {**ENFORCED, "super_users": "User:ANONYMOUS"},
        {**ENFORCED, "allow_if_no_acl": "true"},
    ],
    ids=["open", "super user", "no ACLs"],
)
def test_nobody_is_refused_where_nobody_is_to_be(
    with_memory_broker: RunWithBroker, audited: Lines, settings: dict[str, str]
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert (await client.ask(creation("t"), 7)).topics[0].num_partitions == 2
        assert (await client.produce("t", batch(b"v"))).error_code == 0
        assert (await client.fetch("t")).records
        assert audited.refusals() == []

    with_memory_broker(test, **settings)


def test_each_change_is_told(with_memory_broker: RunWithBroker, audited: Lines) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await client.ask(creation("unmade", validate_only=True), 7)
        await client.ask(creation("a", "b", "a.", "a_"), 7)
        await client.ask(MetadataRequest(topics=[MetadataRequestTopic(name="auto")]), 12)
        for count, validate_only in ((3, True), (3, False), (1, False)):
            topic = CreatePartitionsTopic(name="a", count=count, assignments=None)
            request = CreatePartitionsRequest(topics=[topic], timeout_ms=1000, validate_only=validate_only)
            await client.ask(request, 3)
        await client.produce("a", batch(b"v", b"w"))
        partitions = [DeleteRecordsPartition(partition_index=index, offset=1) for index in (0, 9)]
        await client.ask(
            DeleteRecordsRequest(
                topics=[DeleteRecordsTopic(name="a", partitions=partitions)], timeout_ms=1000
            ),
            2,
        )
        await client.ask(commit_request("g", {"a": {0: 1, 1: 2}}), 8)
        await client.ask(delete_request("g", {"a": [0]}), 0)
        await client.ask(DeleteGroupsRequest(groups_names=["g", "none"]), 2)
        await client.ask(DeleteTopicsRequest(topic_names=["b", "none"], timeout_ms=1000), 5)
        assert audited.changes() == [
            ("created topics", {"items": '"a (2 partitions)", "b (2 partitions)", "a. (2 partitions)"'}),
            ("created topics", {"items": '"auto (1 partitions)"'}),
            ("added partitions", {"topic": "a", "partitions_before": 2, "partitions": 3}),
            ("deleted records", {"items": '"a-0 below 1"'}),
            ("deleted offsets", {"items": '"a-0"', "group": "g"}),
            ("deleted groups", {"items": '"g"'}),
            ("deleted topics", {"items": '"b"'}),
        ]
        assert audited.refusals() == []

    with_memory_broker(test)


def test_a_flood_of_refused_requests_has_few_lines(with_memory_broker: RunWithBroker, audited: Lines) -> None:
    async def test(broker: Broker) -> None:
        async def flood() -> None:
            client = await broker.connect()
            numbers = [client.send(fetch_request({"t": {0: 0}}), 12) for _ in range(200)]
            for number in numbers:
                await client.answer(fetch_request({}).api, 12, number)

        began_s = broker.agent.clock.monotonic()
        await asyncio.gather(*(flood() for _ in range(5)))
        seconds = int(broker.agent.clock.monotonic() - began_s) + 2
        assert 1 <= len(audited.refusals()) <= 5 * seconds
        assert broker.agent.metrics.denied_requests.value("Fetch") == 1_000

    with_memory_broker(test, **ENFORCED)
