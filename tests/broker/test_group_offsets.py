"""OffsetCommit, OffsetFetch and OffsetDelete over the wire: in every version, with every error, one by one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.groups import (
    AT_ONCE,
    NO_OFFSET,
    Member,
    commit_request,
    delete_request,
    fetch_group,
    fetch_request,
    fetched,
    member_of,
    offsets_in,
    protocols,
    stable_group,
    state_of,
    until_state,
)
from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode, MetadataUnavailable
from warp.handlers.group_offsets import PARTITIONS_MAX
from warp.ids import NO_TOPIC_ID
from warp.protocol.messages.group_offsets import OffsetFetchRequest
from warp.protocol.messages.topics import DeleteTopicsRequest, DeleteTopicState

NOBODYS_ID = b"\x11" * 16


async def commit(client: Client, version: int, *arguments: Any, **fields: Any) -> list[int]:
    """The errors of an OffsetCommit, in the order of its partitions."""
    answer = await client.ask(commit_request(*arguments, **fields), version)
    return [partition.error_code for topic in answer.topics for partition in topic.partitions]


@pytest.mark.parametrize("version", range(2, 10))
def test_what_was_committed_in_any_version_is_fetched_in_every_version(
    with_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic(partitions=3)
        epoch = 7 if version >= 6 else -1
        offsets = {topic: {0: 5, 2: 2**62}}
        assert await commit(client, version, "g", offsets, metadata="état", leader_epoch=epoch) == [0, 0]
        for asked in range(1, 10):
            answer = await client.ask(fetch_request(asked, "g", {topic: [2, 1]}), asked)
            told_epoch = epoch if asked >= 5 else -1
            assert offsets_in(answer.groups[0] if asked >= 8 else answer) == {
                (topic, 2): (2**62, told_epoch, "état", 0),
                (topic, 1): NO_OFFSET,
            }
            if asked >= 2:
                answer = await client.ask(fetch_request(asked, "g", None), asked)
                found = offsets_in(answer.groups[0] if asked >= 8 else answer)
                assert found.keys() == {(topic, 0), (topic, 2)}

    with_broker(test)


def test_topics_are_named_by_id_in_version_10(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic_id = broker.topic_id(await broker.topic(partitions=2))
        offsets = {NOBODYS_ID: {0: 1}, topic_id: {1: 5, 9: 5}}
        assert await commit(client, 10, "g", offsets) == [
            ErrorCode.UNKNOWN_TOPIC_ID,
            ErrorCode.NONE,
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ]
        answer = await client.ask(fetch_request(10, "g", {NOBODYS_ID: [0], topic_id: [0, 1]}), 10)
        assert offsets_in(answer.groups[0]) == {
            (NOBODYS_ID, 0): (-1, -1, "", ErrorCode.UNKNOWN_TOPIC_ID),
            (topic_id, 0): NO_OFFSET,
            (topic_id, 1): (5, -1, "", 0),
        }
        answer = await client.ask(fetch_request(10, "g", None), 10)
        assert offsets_in(answer.groups[0]) == {(topic_id, 1): (5, -1, "", 0)}

    with_broker(test)


def test_each_partition_has_its_own_error(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic(partitions=2)
        offsets = {topic: {0: 1, 2: 1, -1: 1}, "unknown": {0: 1}, "no\0topic": {0: 1}}
        unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert await commit(client, 9, "g", offsets) == [ErrorCode.NONE, unknown, unknown, unknown, unknown]
        assert await fetched(client, "g") == {(topic, 0): (1, -1, "", 0)}

    with_broker(test)


def test_metadata_may_be_null_and_has_a_limit(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic()
        assert await commit(client, 9, "g", {topic: {0: 1}}, metadata=None) == [ErrorCode.NONE]
        assert await fetched(client, "g") == {(topic, 0): (1, -1, "", 0)}
        assert await commit(client, 9, "g", {topic: {0: 2}}, metadata="m" * 4096) == [ErrorCode.NONE]
        too_large = [ErrorCode.OFFSET_METADATA_TOO_LARGE]
        assert await commit(client, 9, "g", {topic: {0: 3}}, metadata="m" * 4097) == too_large
        assert await fetched(client, "g") == {(topic, 0): (2, -1, "m" * 4096, 0)}

    with_broker(test)


def test_an_offset_may_go_back_and_need_not_be_in_the_log(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic()
        for offset in (100, 3, 0, -1):
            assert await commit(client, 9, "g", {topic: {0: offset}}) == [ErrorCode.NONE]
            assert await fetched(client, "g", {topic: [0]}) == {(topic, 0): (offset, -1, "", 0)}

    with_memory_broker(test)


@pytest.mark.parametrize("group", ["", "g" * 1024, "größe"])
def test_simple_consumers_commit_under_any_name(with_memory_broker: RunWithBroker, group: str) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic()
        assert await commit(client, 9, group, {topic: {0: 1}}) == [ErrorCode.NONE]
        assert await fetched(client, group) == {(topic, 0): (1, -1, "", 0)}

    with_memory_broker(test)


@pytest.mark.parametrize("group", ["g" * 1025, "g\0"])
def test_a_group_id_that_can_not_be_kept_is_refused(with_memory_broker: RunWithBroker, group: str) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic()
        assert await commit(client, 9, group, {topic: {0: 1}}) == [ErrorCode.INVALID_GROUP_ID]
        answer = await client.ask(fetch_request(9, group, None), 9)
        assert answer.groups[0].error_code == ErrorCode.INVALID_GROUP_ID
        answer = await client.ask(fetch_request(7, group, {topic: [0]}), 7)
        assert (answer.error_code, answer.topics) == (ErrorCode.INVALID_GROUP_ID, [])
        answer = await client.ask(fetch_request(1, group, {topic: [0]}), 1)
        assert offsets_in(answer) == {(topic, 0): (-1, -1, "", ErrorCode.INVALID_GROUP_ID)}

    with_memory_broker(test)


@pytest.mark.parametrize("retention_ms", [0, 2**63 - 1])
def test_a_client_may_say_how_long_its_offsets_are_kept(
    with_broker: RunWithBroker, retention_ms: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic()
        for version in (2, 4):
            offsets = {topic: {0: 1}}
            assert await commit(client, version, "g", offsets, retention_time_ms=retention_ms) == [0]
            assert await fetched(client, "g") == {(topic, 0): (1, -1, "", 0)}

    with_broker(test)


# Who may commit.


@pytest.mark.parametrize(
    ("version", "error"),
    [(8, ErrorCode.ILLEGAL_GENERATION), (9, ErrorCode.GROUP_ID_NOT_FOUND)],
)
def test_a_generation_of_an_unknown_group_is_refused(
    with_memory_broker: RunWithBroker, version: int, error: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        member = await member_of(broker, "g")
        member.generation = 3
        assert await member.commit(await broker.topic(), version=version) == error

    with_memory_broker(test)


@pytest.mark.parametrize("version", [2, 7, 9])
def test_members_commit_and_others_do_not(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        (member,) = await stable_group(broker, "g")
        assert await member.commit(topic, version=version) == ErrorCode.NONE
        refused: dict[ErrorCode, dict[str, Any]] = {
            ErrorCode.UNKNOWN_MEMBER_ID: {"member_id": "stranger"},
            ErrorCode.ILLEGAL_GENERATION: {"generation_id_or_member_epoch": 7},
        }
        for error, changes in refused.items():
            assert await member.commit(topic, 9, version=version, **changes) == error
        simple: dict[str, Any] = {"member_id": "", "generation_id_or_member_epoch": -1}
        assert await member.commit(topic, 9, version=version, **simple) == ErrorCode.UNKNOWN_MEMBER_ID
        assert await fetched(member.client, "g") == {(topic, 0): (1, -1, "", 0)}

    with_memory_broker(test, **AT_ONCE)


def test_a_fenced_instance_does_not_commit(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        (member,) = await stable_group(broker, "g", "i")
        assert await member.commit(topic) == ErrorCode.NONE
        assert await member.commit(topic, member_id="another") == ErrorCode.FENCED_INSTANCE_ID
        assert await member.commit(topic, group_instance_id="j") == ErrorCode.UNKNOWN_MEMBER_ID

    with_memory_broker(test, **AT_ONCE)


def test_members_commit_while_others_join_but_not_before_they_have_their_share(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        (one,) = await stable_group(broker, "g", "a")
        two = await member_of(broker, "g", "b")
        number = two.send_join()
        await until_state(one.client, "g", "PreparingRebalance")
        assert await one.commit(topic, 1) == ErrorCode.NONE
        await one.join()
        await two.joined(number)
        assert await one.commit(topic, 2) == ErrorCode.REBALANCE_IN_PROGRESS
        assert await fetched(one.client, "g") == {(topic, 0): (1, -1, "", 0)}

    with_memory_broker(test, **AT_ONCE)


# Fetching.


def test_nothing_is_known_of_groups_and_topics_that_do_not_exist(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await fetched(client, "unknown", {"unknown": [0, 2**31 - 1, -1], "a\0b": [0]}) == {
            ("unknown", 0): NO_OFFSET,
            ("unknown", 2**31 - 1): NO_OFFSET,
            ("unknown", -1): NO_OFFSET,
            ("a\0b", 0): NO_OFFSET,
        }
        assert await fetched(client, "unknown") == {}
        assert await fetched(client, "unknown", {}) == {}

    with_memory_broker(test)


def test_many_groups_are_read_a_few_at_a_time_and_answered_in_order(
    with_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic()
        for number in range(0, 50, 2):
            assert await commit(client, 9, f"g-{number}", {topic: {0: number}}) == [0]
        coordinator = broker.agent.groups.coordinator
        reads: list[int] = []
        fetch_offsets = coordinator.fetch_offsets

        async def counted(queries: Sequence[Any], **options: Any) -> Any:
            reads.append(len(queries))
            return await fetch_offsets(queries, **options)

        monkeypatch.setattr(coordinator, "fetch_offsets", counted)
        groups = [fetch_group(f"g-{number}", {topic: [0]}) for number in range(50)]
        groups += [fetch_group("g-0", None), fetch_group("g\0", None), fetch_group("g-0", None)]
        answer = await client.ask(OffsetFetchRequest(groups=groups, require_stable=True), 8)
        assert [group.group_id for group in answer.groups] == [group.group_id for group in groups]
        offsets = [group.topics[0].partitions[0].committed_offset for group in answer.groups[:50]]
        assert offsets == [number if number % 2 == 0 else -1 for number in range(50)]
        assert [group.error_code for group in answer.groups[50:]] == [0, ErrorCode.INVALID_GROUP_ID, 0]
        assert sum(reads) == len(groups)
        assert len(reads) > 2
        assert max(reads) < len(groups) / 2

    with_broker(test)


def test_a_group_for_whose_offsets_there_is_no_memory_is_told_to_ask_again(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        partitions = 2_200
        topic = await broker.topic(partitions=partitions)
        for group in ("a", "b"):
            offsets = {topic: dict.fromkeys(range(partitions), 1)}
            assert await commit(client, 9, group, offsets, metadata="m" * 4096) == [0] * partitions
        both = OffsetFetchRequest(groups=[fetch_group("a", None), fetch_group("b", None)])
        answer = await client.ask(both, 9)
        first, second = answer.groups
        assert (first.error_code, len(first.topics[0].partitions)) == (ErrorCode.NONE, partitions)
        assert (second.error_code, second.topics) == (ErrorCode.COORDINATOR_NOT_AVAILABLE, [])
        assert len(await fetched(client, "b")) == partitions

    with_memory_broker(test, fetch_memory_bytes_max="16MiB")


def test_offsets_go_with_their_topic(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic, other = await broker.topic(), await broker.topic()
        await commit(client, 9, "g", {topic: {0: 1}, other: {0: 2}})
        states = [DeleteTopicState(name=topic, topic_id=NO_TOPIC_ID)]
        await client.ask(DeleteTopicsRequest(topics=states, topic_names=[], timeout_ms=1000), 6)
        await broker.topic(topic)
        assert await fetched(client, "g") == {(other, 0): (2, -1, "", 0)}
        assert await fetched(client, "g", {topic: [0]}) == {(topic, 0): NO_OFFSET}

    with_broker(test)


def test_without_the_store_nothing_is_said_about_offsets(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic()
        await commit(client, 9, "g", {topic: {0: 1}})
        store: Any = broker.agent._metadata

        async def fail(*_: object, **__: object) -> None:
            raise MetadataUnavailable("the database is away")

        store.fetch_offsets = store.commit_offsets = store.delete_offsets = fail
        away = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert await commit(client, 9, "g", {topic: {0: 2}}) == [away]
        again = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert (await client.ask(fetch_request(9, "g", None), 9)).groups[0].error_code == again
        assert (await client.ask(fetch_request(5, "g", {topic: [0]}), 5)).error_code == again
        assert offsets_in(await client.ask(fetch_request(1, "g", {topic: [0]}), 1)) == {
            (topic, 0): (-1, -1, "", again)
        }
        assert (await client.ask(delete_request("g", {topic: [0]}), 0)).error_code == away
        del store.fetch_offsets, store.commit_offsets, store.delete_offsets
        assert await fetched(client, "g") == {(topic, 0): (1, -1, "", 0)}

    with_memory_broker(test)


# Deleting.


async def delete(client: Client, group: str, topics: dict[str, list[int]]) -> tuple[int, list[int]]:
    """The error of the whole answer, and those of its partitions."""
    answer = await client.ask(delete_request(group, topics), 0)
    return answer.error_code, [part.error_code for topic in answer.topics for part in topic.partitions]


def test_offsets_are_deleted_one_by_one(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic(partitions=3)
        await commit(client, 9, "g", {topic: {0: 1, 1: 1}})
        unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        answer = await delete(client, "g", {topic: [0, 2, 3], "unknown": [0]})
        assert answer == (ErrorCode.NONE, [ErrorCode.NONE, ErrorCode.NONE, unknown, unknown])
        assert await fetched(client, "g") == {(topic, 1): (1, -1, "", 0)}
        assert await delete(client, "unknown", {topic: [0]}) == (ErrorCode.GROUP_ID_NOT_FOUND, [])
        assert await delete(client, "g\0", {topic: [0]}) == (ErrorCode.INVALID_GROUP_ID, [])

    with_broker(test)


def subscription(*topics: str) -> bytes:
    """A consumer's metadata, as Kafka's consumers write it."""
    names = b"".join(len(topic).to_bytes(2, "big") + topic.encode() for topic in topics)
    return b"\0\1" + len(topics).to_bytes(4, "big") + names + b"\xff\xff\xff\xff" + bytes(4)


def test_offsets_of_topics_in_use_are_not_deleted(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        used, unused = await broker.topic(), await broker.topic()
        (member,) = await stable_group(broker, "g", protocols=protocols(("range", subscription(used))))
        for topic in (used, unused):
            assert await member.commit(topic) == ErrorCode.NONE
        answer = await delete(member.client, "g", {used: [0], unused: [0]})
        assert answer == (ErrorCode.NONE, [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode.NONE])
        assert (await fetched(member.client, "g")).keys() == {(used, 0)}

    with_memory_broker(test, **AT_ONCE)


def test_metadata_that_nobody_can_read_harms_no_other_member(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        garbage = protocols(("range", b"\0\1\x7f\xff\xff\xff garbage"))
        members = await stable_group(broker, "g", "a", "b", protocols=garbage)
        for member in members:
            assert await member.heartbeat() == ErrorCode.NONE
            assert await member.commit(topic) == ErrorCode.NONE
        # All topics count as in use, for nobody can tell.
        answer = await delete(members[0].client, "g", {topic: [0]})
        assert answer == (ErrorCode.NONE, [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC])

    with_memory_broker(test, **AT_ONCE)


def test_offsets_of_members_that_are_no_consumers_are_not_deleted(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        (member,) = await stable_connectors(broker)
        assert await member.commit(topic) == ErrorCode.NONE
        assert await delete(member.client, "g", {topic: [0]}) == (ErrorCode.NON_EMPTY_GROUP, [])
        assert await member.leave() == ErrorCode.NONE
        await until_state(member.client, "g", "Empty")
        assert await delete(member.client, "g", {topic: [0]}) == (ErrorCode.NONE, [ErrorCode.NONE])

    with_memory_broker(test, **AT_ONCE)


async def stable_connectors(broker: Broker) -> list[Member]:
    member = await member_of(broker, "g", "i")
    answer = await member.join(protocol_type="connect", protocols=protocols(("sessioned", b"url")))
    assert answer.error_code == ErrorCode.NONE
    synced = await member.sync({member.id: b""}, protocol_type="connect", protocol_name="sessioned")
    assert synced.error_code == ErrorCode.NONE
    return [member]


# Requests that name too much.


@pytest.mark.parametrize("what", ["commit", "fetch", "delete"])
def test_more_partitions_than_an_answer_may_have_close_the_connection(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        indexes = list(range(PARTITIONS_MAX + 1))
        if what == "commit":
            client.send(commit_request("g", {"t": dict.fromkeys(indexes, 0)}), 9)
        elif what == "fetch":
            client.send(fetch_request(9, "g", {"t": indexes}), 9)
        else:
            client.send(delete_request("g", {"t": indexes}), 0)
        assert await client.is_closed()
        assert await state_of(await broker.connect(), "g") == "Dead"
        (told,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert f"{PARTITIONS_MAX + 1} partitions in one request" in told.getMessage()
        assert told.exc_info is None

    with caplog.at_level(logging.INFO, logger="warp"):
        with_memory_broker(test)
