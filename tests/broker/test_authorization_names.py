"""What a client may not see stays hidden, beside what it may: names, ids, lists, operations; and changes of ACLs."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

from tests.broker.authorization import ENFORCED, allow, deny, make_topic, put_in_force
from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.groups import Member, commit_request, fetched
from tests.broker.support import Broker, RunWithBroker, batch
from warp.errors import ErrorCode
from warp.handlers.operations import CLUSTER_OPERATIONS, GROUP_OPERATIONS, TOPIC_OPERATIONS
from warp.ids import NO_TOPIC_ID, TopicId
from warp.protocol.messages.cluster import DescribeClusterRequest
from warp.protocol.messages.groups import DescribeGroupsRequest, ListGroupsRequest
from warp.protocol.messages.metadata import (
    DescribeTopicPartitionsCursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsTopic,
    MetadataRequest,
    MetadataRequestTopic,
)
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)
from warp.protocol.types import AclOperation, AclPatternType, AclResourceType

TOPIC, GROUP, CLUSTER = AclResourceType.TOPIC, AclResourceType.GROUP, AclResourceType.CLUSTER
READ, WRITE, CREATE = AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE
DELETE, DESCRIBE, ALL = AclOperation.DELETE, AclOperation.DESCRIBE, AclOperation.ALL
NO_TOPIC = ErrorCode.TOPIC_AUTHORIZATION_FAILED
NOBODYS_ID = TopicId(b"\x11" * 16)

allow_topic = functools.partial(allow, TOPIC)
allow_group = functools.partial(allow, GROUP)


def bits(*operations: AclOperation) -> int:
    return sum(1 << operation for operation in operations)


async def describe(client: Client, version: int = 12, **request: Any) -> Any:
    request.setdefault("allow_auto_topic_creation", version < 4)
    return await client.ask(MetadataRequest(**request), version)


def by_names(*names: str) -> list[MetadataRequestTopic]:
    return [MetadataRequestTopic(name=name) for name in names]


# Lists and pages.


def test_a_list_of_all_topics_leaves_out_what_the_client_may_not_describe(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for name in ("a1", "a2", "b1"):
            await make_topic(broker, name)
        prefix = allow_topic(DESCRIBE, "a", pattern=AclPatternType.PREFIXED)
        for acls, visible in (
            ([], []),
            ([allow_topic(READ, "a2")], ["a2"]),
            ([prefix, deny(TOPIC, DESCRIBE, "a1")], ["a2"]),
            ([allow_topic(ALL, "*")], ["a1", "a2", "b1"]),
        ):
            await put_in_force(broker, *acls)
            for version in range(14):
                answer = await describe(client, version, topics=[] if version == 0 else None)
                assert [(topic.name, topic.error_code) for topic in answer.topics] == [
                    (n, 0) for n in visible
                ]
                assert len(answer.brokers) == 1
            pages = await client.ask(DescribeTopicPartitionsRequest(topics=[]), 0)
            assert [topic.name for topic in pages.topics] == visible
        assert broker.agent.metrics.denied_requests.value("Metadata") == 0

    with_memory_broker(test, **ENFORCED)


def test_pages_of_topics_have_the_refused_ones_in_their_places(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        names = ["a", "b", "c", "d"]
        for name in ("a", "b", "d"):
            await make_topic(broker, name, 2)
        await put_in_force(broker, allow_topic(DESCRIBE, "a"), allow_topic(DESCRIBE, "d"))
        asked = [DescribeTopicPartitionsTopic(name=name) for name in names]
        request = DescribeTopicPartitionsRequest(topics=asked, response_partition_limit=3)
        page = await client.ask(request, 0)
        assert [(topic.name, topic.error_code, len(topic.partitions)) for topic in page.topics] == [
            ("a", 0, 2),
            ("b", NO_TOPIC, 0),
            ("c", NO_TOPIC, 0),
            ("d", 0, 1),
        ]
        request.cursor = DescribeTopicPartitionsCursor(topic_name="d", partition_index=1)
        last = await client.ask(request, 0)
        assert [(topic.name, len(topic.partitions)) for topic in last.topics] == [("d", 1)]
        assert last.next_cursor is None

    with_memory_broker(test, **ENFORCED)


def test_a_list_of_groups_has_those_that_the_client_may_describe(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "t")
        await put_in_force(broker, allow_topic(ALL, "*"), allow_group(ALL, "*"))
        for group in ("g1", "g2"):
            await client.ask(commit_request(group, {"t": {0: 1}}), 8)

        async def listed() -> list[str]:
            answer = await client.ask(ListGroupsRequest(states_filter=[], types_filter=[]), 5)
            assert answer.error_code == 0
            return sorted(group.group_id for group in answer.groups)

        for acls, visible in (
            ([], []),
            ([allow_group(READ, "g2")], ["g2"]),
            ([allow(CLUSTER, DESCRIBE)], ["g1", "g2"]),
            ([allow(CLUSTER, DESCRIBE), deny(GROUP, DESCRIBE, "g1")], ["g1", "g2"]),
            ([allow_group(DESCRIBE, "*"), deny(GROUP, DESCRIBE, "g1")], ["g2"]),
        ):
            await put_in_force(broker, *acls)
            assert await listed() == visible
        assert broker.agent.metrics.denied_requests.value("ListGroups") == 0

    with_memory_broker(test, **ENFORCED)


def test_all_offsets_of_a_group_are_those_of_topics_that_the_client_may_describe(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "mine")
        await make_topic(broker, "theirs")
        group = allow_group(READ, "g")
        await put_in_force(broker, group, allow_topic(READ, "*"))
        await client.ask(commit_request("g", {"mine": {0: 5}, "theirs": {0: 6}}), 8)
        await put_in_force(broker, group, allow_topic(DESCRIBE, "mine"))
        assert await fetched(client, "g") == {("mine", 0): (5, -1, "", 0)}
        assert await fetched(client, "g", {"mine": [0], "theirs": [0], "absent": [0]}) == {
            ("mine", 0): (5, -1, "", 0),
            ("theirs", 0): (-1, -1, "", NO_TOPIC),
            ("absent", 0): (-1, -1, "", NO_TOPIC),
        }

    with_memory_broker(test, **ENFORCED)


# Names and ids.


def test_an_id_that_is_nobodys_differs_from_one_that_may_not_be_described(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "secret")
        topic_id = broker.topic_id("secret")
        asked = [MetadataRequestTopic(name=None, topic_id=each) for each in (topic_id, NOBODYS_ID)]
        refused, unknown = (await describe(client, topics=asked)).topics
        assert (refused.error_code, refused.name, refused.partitions) == (NO_TOPIC, None, [])
        assert refused.topic_id == topic_id
        assert (unknown.error_code, unknown.name) == (ErrorCode.UNKNOWN_TOPIC_ID, None)
        offsets: dict[str | bytes, dict[int, int]] = {topic_id: {0: 0}, NOBODYS_ID: {0: 0}}
        for request, version in (
            (fetch_request(offsets), 13),
            (produce_request({"a": {0: batch(b"v")}, "b": {0: batch(b"v")}}), 13),
        ):
            topics: Any = getattr(request, "topic_data", None) or getattr(request, "topics", None)
            for topic, each in zip(topics, (topic_id, NOBODYS_ID), strict=True):
                topic.topic_id = each
            answer = await client.ask(request, version)
            parts = [getattr(t, "partitions", None) or t.partition_responses for t in answer.responses]
            codes = {t.topic_id: part[0].error_code for t, part in zip(answer.responses, parts, strict=True)}
            assert codes == {topic_id: NO_TOPIC, NOBODYS_ID: ErrorCode.UNKNOWN_TOPIC_ID}

    with_memory_broker(test, **ENFORCED)


def test_a_refused_topic_has_neither_id_nor_partitions(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "secret", 3)
        await make_topic(broker, "open", 2)
        await put_in_force(broker, allow_topic(DESCRIBE, "open"))
        answer = await describe(client, topics=by_names("secret", "open", "absent"))
        topics = {topic.name: topic for topic in answer.topics}
        for name in ("secret", "absent"):
            topic = topics[name]
            assert (topic.error_code, topic.topic_id, topic.partitions) == (NO_TOPIC, NO_TOPIC_ID, [])
        assert (topics["open"].error_code, len(topics["open"].partitions)) == (0, 2)
        assert broker.agent.metrics.denied_requests.value("Metadata") == 1

    with_memory_broker(test, **ENFORCED)


def test_metadata_creates_nothing_for_who_may_not_even_where_others_may(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await put_in_force(broker, allow_topic(DESCRIBE, "*"), allow_topic(CREATE, "mine"))
        answer = await describe(client, topics=by_names("mine", "theirs"), allow_auto_topic_creation=True)
        assert {topic.name: topic.error_code for topic in answer.topics} == {"mine": 0, "theirs": NO_TOPIC}
        assert list(broker.agent.catalogue.current.by_name) == ["mine"]

    with_memory_broker(test, **ENFORCED)


def test_deleting_tells_the_name_to_an_id_only_to_who_may_know_it(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "kept")
        topic_id = broker.topic_id("kept")

        async def delete(name: str | None, of: TopicId = NO_TOPIC_ID) -> tuple[int, str | None, bytes]:
            request = DeleteTopicsRequest(
                topics=[DeleteTopicState(name=name, topic_id=of)], topic_names=[], timeout_ms=1000
            )
            [result] = (await client.ask(request, 6)).responses
            return result.error_code, result.name, result.topic_id

        assert await delete(None, topic_id) == (NO_TOPIC, None, topic_id)
        assert await delete(None, NOBODYS_ID) == (ErrorCode.UNKNOWN_TOPIC_ID, None, NOBODYS_ID)
        assert await delete("kept") == (NO_TOPIC, "kept", NO_TOPIC_ID)
        assert await delete("absent") == (NO_TOPIC, "absent", NO_TOPIC_ID)
        await put_in_force(broker, allow_topic(DESCRIBE, "*"))
        assert await delete(None, topic_id) == (NO_TOPIC, "kept", topic_id)
        assert (await delete("kept"))[:2] == (NO_TOPIC, "kept")
        assert await delete("absent") == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "absent", NO_TOPIC_ID)
        # Who may delete it and must not see it can't delete it by its name.
        await put_in_force(broker, allow_topic(DELETE, "kept"), deny(TOPIC, DESCRIBE, "kept"))
        assert await delete("kept") == (NO_TOPIC, "kept", NO_TOPIC_ID)
        assert "kept" in broker.agent.catalogue.current.by_name
        await put_in_force(broker, allow_topic(DELETE, "kept"))
        assert await delete("kept") == (0, "kept", topic_id)

    with_memory_broker(test, **ENFORCED)


def test_who_may_not_describe_configs_is_not_told_those_of_what_it_created(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()

        async def create(*names: str) -> list[Any]:
            topics = [
                CreatableTopic(name=name, num_partitions=2, replication_factor=1, assignments=[], configs=[])
                for name in names
            ]
            return list((await client.ask(CreateTopicsRequest(topics=topics), 7)).topics)

        await put_in_force(broker, allow(CLUSTER, CREATE))
        [blind] = await create("blind")
        assert (blind.error_code, blind.topic_config_error_code) == (0, NO_TOPIC)
        assert (blind.num_partitions, blind.replication_factor, blind.configs) == (-1, -1, [])
        assert blind.topic_id == broker.topic_id("blind")
        await put_in_force(broker, allow_topic(CREATE, "a"), allow_topic(AclOperation.ALTER_CONFIGS, "a"))
        seen, refused, *twice = await create("a", "b", "c", "c")
        assert (seen.error_code, seen.topic_config_error_code, seen.num_partitions) == (0, 0, 2)
        assert seen.configs
        assert (refused.error_code, refused.topic_id) == (NO_TOPIC, NO_TOPIC_ID)
        assert [topic.error_code for topic in twice] == [ErrorCode.INVALID_REQUEST] * 2
        assert sorted(broker.agent.catalogue.current.by_name) == ["a", "blind"]

    with_memory_broker(test, **ENFORCED)


# Some of a request.


def test_records_go_where_they_may_and_come_from_where_they_may(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for name in ("mine", "theirs"):
            await make_topic(broker, name, 2)
        await put_in_force(broker, allow_topic(WRITE, "mine"), allow_topic(READ, "mine"))
        parts: dict[int, bytes | None] = {0: batch(b"v"), 1: batch(b"w")}
        answer = await client.ask(produce_request({"mine": parts, "theirs": parts, "absent": parts}), 9)
        codes = {t.name: [part.error_code for part in t.partition_responses] for t in answer.responses}
        assert codes == {"mine": [0, 0], "theirs": [NO_TOPIC] * 2, "absent": [NO_TOPIC] * 2}
        everywhere = {"mine": {0: 0, 1: 0}, "theirs": {0: 0, 1: 0}, "absent": {0: 0}}
        answer = await client.ask(fetch_request(everywhere), 12)
        found = {
            t.topic: [(part.error_code, bool(part.records)) for part in t.partitions]
            for t in answer.responses
        }
        refused = (NO_TOPIC, False)
        assert found == {"mine": [(0, True)] * 2, "theirs": [refused] * 2, "absent": [refused]}
        await put_in_force(broker, allow_topic(READ, "theirs"))
        assert (await client.fetch("theirs")).high_watermark == 0
        # One question and one refusal per topic, however many partitions are named.
        metrics = broker.agent.metrics.denied_requests
        assert (metrics.value("Produce"), metrics.value("Fetch")) == (1, 1)

    with_memory_broker(test, **ENFORCED)


def test_a_refused_produce_that_wants_no_answer_closes_the_connection(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        await make_topic(broker, "theirs")
        client = await broker.connect()
        client.send(produce_request({"theirs": {0: batch(b"v")}}, acks=0), 9)
        assert await client.is_closed()

    with_memory_broker(test, **ENFORCED)


def test_offsets_are_committed_for_the_topics_that_the_client_may_read(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for name in ("mine", "theirs"):
            await make_topic(broker, name)
        await put_in_force(broker, allow_group(READ, "g"), allow_topic(READ, "mine"))
        answer = await client.ask(
            commit_request("g", {"theirs": {0: 1}, "mine": {0: 2}, "absent": {0: 3}}), 8
        )
        codes = {topic.name: topic.partitions[0].error_code for topic in answer.topics}
        assert codes == {"theirs": NO_TOPIC, "mine": 0, "absent": NO_TOPIC}
        await put_in_force(broker, allow_group(READ, "g"), allow_topic(READ, "*"))
        assert set(await fetched(client, "g")) == {("mine", 0)}

    with_memory_broker(test, **ENFORCED)


# Operations.


def test_the_operations_that_are_told_are_those_that_are_allowed(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "t")

        async def told() -> tuple[int, int, int, int, int]:
            topic = (
                await describe(client, topics=by_names("t"), include_topic_authorized_operations=True)
            ).topics[0]
            page = await client.ask(
                DescribeTopicPartitionsRequest(topics=[DescribeTopicPartitionsTopic(name="t")]), 0
            )
            group = await client.ask(
                DescribeGroupsRequest(groups=["g"], include_authorized_operations=True), 5
            )
            cluster = await client.ask(DescribeClusterRequest(include_cluster_authorized_operations=True), 0)
            old = await describe(client, 8, topics=by_names(), include_cluster_authorized_operations=True)
            assert cluster.error_code == 0
            assert old.cluster_authorized_operations == cluster.cluster_authorized_operations
            return (
                topic.error_code or topic.topic_authorized_operations,
                page.topics[0].error_code or page.topics[0].topic_authorized_operations,
                group.groups[0].error_code or group.groups[0].authorized_operations,
                cluster.cluster_authorized_operations,
                len(cluster.brokers),
            )

        none = -(2**31)
        await put_in_force(broker)
        assert await told() == (NO_TOPIC, NO_TOPIC, ErrorCode.GROUP_AUTHORIZATION_FAILED, 0, 1)
        await put_in_force(
            broker, allow_topic(READ, "t"), allow_group(DELETE, "g"), allow(CLUSTER, AclOperation.ALTER)
        )
        cluster = bits(AclOperation.ALTER, DESCRIBE)
        assert await told() == (
            bits(READ, DESCRIBE),
            bits(READ, DESCRIBE),
            bits(DELETE, DESCRIBE),
            cluster,
            1,
        )
        await put_in_force(broker, allow(CLUSTER, CREATE))
        assert (await told())[3] == 0
        await put_in_force(broker, allow_topic(ALL, "t"), allow_group(ALL, "g"), allow(CLUSTER, ALL))
        assert await told() == (TOPIC_OPERATIONS, TOPIC_OPERATIONS, GROUP_OPERATIONS, CLUSTER_OPERATIONS, 1)
        unasked = await describe(client, topics=by_names("t"))
        assert unasked.topics[0].topic_authorized_operations == none

    with_memory_broker(test, **ENFORCED)


# Changes.


def test_what_is_taken_away_is_gone_with_the_next_request(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "t")
        for _ in range(3):
            await put_in_force(broker, allow_topic(READ, "t"))
            assert (await client.fetch("t")).error_code == 0
            await put_in_force(broker)
            assert (await client.fetch("t")).error_code == NO_TOPIC

    with_memory_broker(test, **ENFORCED)


def test_a_fetch_that_waits_hands_nothing_over_to_who_may_not_read_any_more(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp.handlers.fetch._ACCESS_S", -1.0)

    async def test(broker: Broker) -> None:
        reader, writer = await broker.connect(), await broker.connect()
        await make_topic(broker, "t")
        await put_in_force(broker, allow_topic(READ, "t"))
        request = fetch_request({"t": {0: 0}}, max_wait_ms=20_000)
        number = reader.send(request, 12)
        while not broker.agent.log.fetch.waiting:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.001)
        await put_in_force(broker, allow_topic(WRITE, "t"))
        assert (await writer.produce("t", batch(b"secret"))).error_code == 0
        answer = await reader.answer(request.api, 12, number)
        part = answer.responses[0].partitions[0]
        assert (part.error_code, bytes(part.records or b"")) == (NO_TOPIC, b"")

    with_memory_broker(test, **ENFORCED)


def test_a_member_that_may_not_read_its_group_any_more_is_refused(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        member = Member(await broker.connect(), "g")
        await put_in_force(broker, allow_group(READ, "g"))
        assert (await member.join()).error_code == 0
        assert (await member.sync({member.id: b"share"})).error_code == 0
        assert await member.heartbeat() == 0
        await put_in_force(broker)
        assert await member.heartbeat() == ErrorCode.GROUP_AUTHORIZATION_FAILED

    with_memory_broker(test, **ENFORCED)
