"""What clients are told while a store can't be reached: an error that they retry, and success once it is back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.support import Broker, RunWithBroker, batch
from tests.broker.test_every_version import SAMPLES
from warp.cluster.discovery import Discovery
from warp.errors import ErrorCode, MetadataUnavailable, ObjectStoreError, StoreFull
from warp.handlers.table import TABLE, ApiEntry
from warp.ids import NO_TOPIC_ID, TopicId
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol import ApiKey
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.topics import DeleteTopicsRequest

RETRIED = {
    ErrorCode.LEADER_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NETWORK_EXCEPTION,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.KAFKA_STORAGE_ERROR,
}
"""Codes that the Java client and librdkafka take as passing."""

OF_GROUPS_IN_MEMORY = {
    ApiKey.FIND_COORDINATOR,
    ApiKey.JOIN_GROUP,
    ApiKey.HEARTBEAT,
    ApiKey.LEAVE_GROUP,
    ApiKey.SYNC_GROUP,
    ApiKey.DESCRIBE_GROUPS,
    ApiKey.LIST_GROUPS,
    ApiKey.DELETE_GROUPS,
    ApiKey.OFFSET_DELETE,
}
"""A coordinator knows its groups by heart; only changes and offsets need the store."""

INDEPENDENT = {
    ApiKey.API_VERSIONS,
    ApiKey.DESCRIBE_CLUSTER,
    ApiKey.SASL_HANDSHAKE,
    ApiKey.SASL_AUTHENTICATE,
    ApiKey.INIT_PRODUCER_ID,
    *OF_GROUPS_IN_MEMORY,
}
"""APIs that need no look at the store; InitProducerId has ids in stock here, see below."""


class Outage:
    """Makes every operation of the metadata store fail while it is on."""

    def __init__(self, broker: Broker) -> None:
        self._store: Any = broker.agent._metadata
        self._names = [
            name
            for name in dir(self._store)
            if not name.startswith("_") and name not in ("open", "close", "check", "is_shared", "notices")
        ]

    def __enter__(self) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise MetadataUnavailable("the database is away")

        for name in self._names:
            setattr(self._store, name, fail)

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            delattr(self._store, name)


def codes_in(value: Any) -> set[ErrorCode]:
    """All error codes in a response, at any depth."""
    found: set[ErrorCode] = set()
    for field in type(value).__layout__.fields:
        inner = getattr(value, field.name)
        if field.name == "error_code":
            found.add(ErrorCode(inner))
        elif isinstance(inner, list):
            for each in inner:
                if hasattr(each, "__layout__"):
                    found |= codes_in(each)
    return found


def make_stale(broker: Broker) -> None:
    """Let the catalogue be older than answers by name may be."""
    broker.agent.catalogue._checked_s = float("-inf")


@pytest.mark.parametrize(
    "entry", [e for e in TABLE if e.key not in INDEPENDENT], ids=lambda entry: entry.name
)
def test_without_metadata_every_api_answers_with_an_error_that_is_retried(
    with_memory_broker: RunWithBroker, entry: ApiEntry
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        version = min(entry.served[1], 5)
        request = SAMPLES[entry.key](version, "nobody-knows", NO_TOPIC_ID)
        if entry.key is ApiKey.CREATE_TOPICS:
            request.validate_only = False
        make_stale(broker)
        with Outage(broker):
            codes = codes_in(await client.ask(request, version)) - {ErrorCode.NONE}
        assert codes
        assert codes <= RETRIED
        assert broker.agent.server.handler_bugs == 0
        codes = codes_in(await client.ask(request, version))
        assert codes.isdisjoint(RETRIED)

    # With authorization, so that there are ACLs to be asked about.
    with_memory_broker(test, authorization="enforce", super_users="User:ANONYMOUS")


def test_without_metadata_all_topics_can_not_be_listed_and_the_connection_is_closed(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        make_stale(broker)
        with Outage(broker):
            client.send(MetadataRequest(topics=None), 9)
            assert await client.is_closed()

    with_memory_broker(test)


def test_without_metadata_known_topics_are_described_as_they_were(with_memory_broker: RunWithBroker) -> None:
    # librdkafka would take an error for their end, and tell consumers so.
    async def test(broker: Broker) -> None:
        name = await broker.topic(partitions=3)
        client = await broker.connect()
        make_stale(broker)
        with Outage(broker):
            answers = [
                await client.ask(MetadataRequest(topics=[MetadataRequestTopic(name=n) for n in names]), 9)
                for names in ([name], [name, "nobody-knows"])
            ]
        [topic] = answers[0].topics
        assert (topic.error_code, len(topic.partitions)) == (0, 3)
        # It may have come into being meanwhile.
        assert {topic.error_code for topic in answers[1].topics} == {ErrorCode.LEADER_NOT_AVAILABLE}

    with_memory_broker(test)


@pytest.mark.parametrize("version", [12, 13])
def test_an_agent_that_is_cut_off_from_metadata_sends_producers_elsewhere(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(Discovery, "is_cut_off", property(lambda _: True))

    async def test(broker: Broker) -> None:
        name = await broker.topic()
        client = await broker.connect()
        request = produce_request({name: {0: batch(b"v")}})
        if version >= 13:
            request.topic_data[0].name, request.topic_data[0].topic_id = "", broker.topic_id(name)
        make_stale(broker)
        with Outage(broker):
            [refused] = (await client.ask(request, version)).responses[0].partition_responses
        [stored] = (await client.ask(request, version)).responses[0].partition_responses
        assert refused.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
        assert (stored.error_code, stored.base_offset) == (0, 0)

    with_memory_broker(test)


def test_without_metadata_producer_ids_last_as_long_as_the_stock(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        request = SAMPLES[ApiKey.INIT_PRODUCER_ID](4, "", NO_TOPIC_ID)
        with Outage(broker):
            answer = await client.ask(request, 4)
            assert answer.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert (await client.ask(request, 4)).error_code == ErrorCode.NONE
        with Outage(broker):
            assert (await client.ask(request, 4)).error_code == ErrorCode.NONE

    with_memory_broker(test)


def test_topics_that_are_known_are_still_read_and_written_by_id(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        await client.produce(name, batch(b"v"))
        keys: dict[str | bytes, dict[int, int]] = {TopicId(broker.topic_id(name)): {0: 0}}
        with Outage(broker):
            answer = await client.ask(fetch_request(keys), 13)
        assert answer.responses[0].partitions[0].error_code == ErrorCode.NONE
        assert b"v" in bytes(answer.responses[0].partitions[0].records)

    with_memory_broker(test)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreFull("no space"), ErrorCode.KAFKA_STORAGE_ERROR),
        (ObjectStoreError("broken"), ErrorCode.KAFKA_STORAGE_ERROR),
    ],
)
def test_a_produce_that_can_not_be_stored_has_its_error_and_the_next_one_succeeds(
    with_memory_broker: RunWithBroker, error: Exception, code: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        store: Any = broker.agent._object_store

        async def fail(*_: object) -> None:
            raise error

        store.put = fail
        part = await client.produce(name, batch(b"v"))
        assert (part.error_code, part.base_offset) == (code, -1)
        del store.put
        assert (await client.produce(name, batch(b"v"))).base_offset == 0

    with_memory_broker(test)


@pytest.mark.parametrize(
    ("version", "code"), [(2, ErrorCode.INVALID_REQUEST), (3, ErrorCode.TOPIC_DELETION_DISABLED)]
)
def test_topics_are_kept_where_deletion_is_switched_off(
    with_memory_broker: RunWithBroker, version: int, code: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        off = [EntryChange("delete.topic.enable", "false")]
        await broker.agent.catalogue.change_entries(EntryKind.CONFIG, lambda _: off)
        answer = await client.ask(DeleteTopicsRequest(topic_names=[name], timeout_ms=1000), version)
        assert [topic.error_code for topic in answer.responses] == [code]
        assert await still_there(client, name)

    with_memory_broker(test)


async def still_there(client: Client, name: str) -> bool:
    return int((await client.produce(name, batch(b"v"))).error_code) == ErrorCode.NONE
