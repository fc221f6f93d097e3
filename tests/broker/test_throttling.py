"""What quotas do to clients: throttle times in answers, connections that are not read, changes that are refused.

Quotas here are so small that their times are seconds, and tests look at what is answered while others wait.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, joined, produce_request
from tests.broker.support import Broker, RunWithBroker, batch
from tests.broker.test_client_quotas import alter, alteration
from warp.cluster.catalogue import CatalogueService
from warp.errors import ErrorCode, MetadataUnavailable
from warp.ids import NO_TOPIC_ID
from warp.protocol import ApiKey
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.configs import DescribeConfigsRequest
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    DeleteTopicState,
)
from warp.security.quotas.quotas import THROTTLE_MS_MAX

BATCH = batch(b"x" * 10_000)
EXCEEDED = ErrorCode.THROTTLING_QUOTA_EXCEEDED


def define(broker: Broker, entity: dict[str, str | None], **values: float) -> None:
    """From now on this is the only quota, as if the catalogue had told of it."""
    broker.agent.security.quotas.load({json.dumps(entity): json.dumps(values)})


def is_muted(client: Client) -> bool:
    """Whether no answer comes to a request that is answered at once."""
    return not client.reader._buffer  # type: ignore[attr-defined]


async def another_is_served(broker: Broker) -> None:
    """A client on another connection gets an answer, however others are held back."""
    other = await broker.connect()
    for _ in range(5):
        assert (await other.ask(ApiVersionsRequest(), 0)).error_code == 0


@pytest.mark.parametrize("version", [3, 5, 6, 9, 12])
def test_a_producer_beyond_its_quota_is_told_and_its_records_are_there(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        define(broker, {"client-id": "raw"}, producer_byte_rate=1_100)
        within, beyond = [await client.ask(produce_request({topic: {0: BATCH}}), version) for _ in range(2)]
        for answer in (within, beyond):
            assert answer.responses[0].partition_responses[0].error_code == 0
        assert within.throttle_time_ms == 0
        assert 0 < beyond.throttle_time_ms <= THROTTLE_MS_MAX
        client.send(ApiVersionsRequest(), 0)
        await another_is_served(broker)
        assert is_muted(client)
        reader = await broker.connect()
        assert len(joined((await reader.fetch(topic)).records)) == 2 * len(BATCH)

    with_memory_broker(test)


def test_requests_that_were_sent_together_are_held_back_too(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        define(broker, {"user": "ANONYMOUS"}, producer_byte_rate=100)
        first = client.send(produce_request({topic: {0: BATCH}}), 9)
        for _ in range(50):
            client.send(produce_request({topic: {0: BATCH}}), 9)
        answer = await client.answer(ApiKey.PRODUCE, 9, first)
        assert answer.throttle_time_ms == THROTTLE_MS_MAX
        await another_is_served(broker)
        assert is_muted(client)
        reader = await broker.connect()
        assert (await reader.fetch(topic)).high_watermark == 1

    with_memory_broker(test)


def test_without_acks_a_producer_is_held_back_without_being_told(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        define(broker, {"user": None}, producer_byte_rate=100)
        client.send(produce_request({topic: {0: BATCH}}, acks=0), 9)
        client.send(ApiVersionsRequest(), 0)
        reader = await broker.connect()
        while (await reader.fetch(topic)).high_watermark == 0:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(0.01)
        assert is_muted(client)

    with_memory_broker(test)


def test_a_held_back_client_goes_on_after_its_time(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        define(broker, {"user": None}, producer_byte_rate=1_000)
        answer = await client.ask(produce_request({topic: {0: BATCH}}), 9)
        # A batch is a few bytes more than a window's worth.
        assert 0 < answer.throttle_time_ms < 1_000
        assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0

    with_broker(test)


@pytest.mark.parametrize("version", [4, 6, 7, 11, 12])
def test_a_throttled_fetch_is_empty_and_not_counted(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        for _ in range(3):
            await client.produce(topic, BATCH)
        define(broker, {"user": None}, consumer_byte_rate=1_500)
        request = fetch_request({topic: {0: 0}})
        # 15 kB pass in a window: one batch each time, and for the second one there is no room.
        request.max_bytes = 10_500
        first = await client.ask(request, version)
        assert first.throttle_time_ms == 0
        assert len(joined(first.responses[0].partitions[0].records)) == len(BATCH)
        second = await client.ask(request, version)
        assert 0 < second.throttle_time_ms <= 6_000
        assert (second.error_code, second.responses) == (0, [])
        client.send(ApiVersionsRequest(), 0)
        await another_is_served(broker)
        assert is_muted(client)
        # What it was refused does not count: another connection of it is told the same.
        again = await broker.connect()
        third = await again.ask(request, version)
        assert 0 < third.throttle_time_ms <= second.throttle_time_ms
        assert broker.answer_bytes == 0

    with_memory_broker(test)


def test_a_fetch_is_cut_to_what_a_window_lets_through(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        for _ in range(3):
            await client.produce(topic, BATCH)
        define(broker, {"user": None}, consumer_byte_rate=2_100)
        answer = await client.ask(fetch_request({topic: {0: 0}}), 12)
        assert answer.throttle_time_ms == 0
        assert len(joined(answer.responses[0].partitions[0].records)) == 2 * len(BATCH)

    with_memory_broker(test)


def test_a_batch_beyond_any_window_is_served_and_the_next_fetch_waits(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        await client.produce(topic, BATCH)
        define(broker, {"user": None}, consumer_byte_rate=10)
        answer = await client.ask(fetch_request({topic: {0: 0}}), 12)
        assert (answer.throttle_time_ms, len(joined(answer.responses[0].partitions[0].records))) == (
            0,
            len(BATCH),
        )
        next_one = await client.ask(fetch_request({topic: {0: 0}}), 12)
        assert (next_one.throttle_time_ms, next_one.responses) == (THROTTLE_MS_MAX, [])

    with_memory_broker(test)


def test_every_answer_with_the_field_tells_of_request_time(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        # Any time at all is more than this.
        define(broker, {"user": None}, request_percentage=1e-9)
        told: dict[str, Any] = {}
        for name, request, version in (
            ("api versions", ApiVersionsRequest(client_software_name="a", client_software_version="b"), 3),
            ("metadata", MetadataRequest(topics=None), 12),
            ("produce", produce_request({topic: {0: BATCH}}), 9),
            ("fetch", fetch_request({topic: {0: 0}}), 12),
            ("configs", DescribeConfigsRequest(resources=[]), 4),
        ):
            client = await broker.connect()
            answer = await client.ask(request, version)
            told[name] = answer.throttle_time_ms
            client.send(ApiVersionsRequest(), 0)
            await asyncio.sleep(0)
            assert is_muted(client)
        # A second at most, as in Kafka.
        assert told == dict.fromkeys(told, 1_000)
        old = await broker.connect()
        assert (await old.ask(MetadataRequest(topics=[]), 0)).throttle_time_ms == 0

    with_memory_broker(test)


def creation(name: str, partitions: int) -> CreatableTopic:
    return CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=1, assignments=[], configs=[]
    )


@pytest.mark.parametrize("version", range(2, 8))
def test_topics_beyond_the_quota_are_refused_or_made_and_waited_for(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        define(broker, {"user": None}, controller_mutation_rate=1)
        topics = [creation("a", 5), creation("", 3), creation("b", 10), creation("c", 1), creation("d", 1)]
        answer = await client.ask(CreateTopicsRequest(topics=topics), version)
        codes = {topic.name: topic.error_code for topic in answer.topics}
        late = EXCEEDED if version >= 6 else ErrorCode.NONE
        # Eleven permits: the second topic takes more than there are, what comes after it is too late.
        assert codes == {"a": 0, "": ErrorCode.INVALID_TOPIC_EXCEPTION, "b": 0, "c": late, "d": late}
        assert 0 < answer.throttle_time_ms <= 6_000
        assert ("c" in broker.agent.catalogue.current.by_name) == (version < 6)
        client.send(ApiVersionsRequest(), 0)
        await another_is_served(broker)
        assert is_muted(client)

    with_memory_broker(test)


def test_checking_topics_costs_nothing_but_is_refused_as_creating_them_would_be(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        define(broker, {"user": None}, controller_mutation_rate=0.1)
        check = CreateTopicsRequest(topics=[creation("a", 5)], validate_only=True)
        for _ in range(3):
            answer = await client.ask(check, 7)
            assert (answer.topics[0].error_code, answer.throttle_time_ms) == (0, 0)
        assert (await client.ask(CreateTopicsRequest(topics=[creation("a", 5)]), 7)).topics[0].error_code == 0
        other = await broker.connect()
        refused = await other.ask(CreateTopicsRequest(topics=[creation("b", 5)], validate_only=True), 7)
        assert refused.topics[0].error_code == EXCEEDED

    with_memory_broker(test)


def test_of_a_topic_that_is_named_twice_nothing_is_made_whatever_the_quota(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        define(broker, {"user": None}, controller_mutation_rate=0.1)
        topics = [creation("a", 5), creation("b", 5), creation("a", 5)]
        answer = await client.ask(CreateTopicsRequest(topics=topics), 7)
        assert {topic.name: topic.error_code for topic in answer.topics} == {
            "a": ErrorCode.INVALID_REQUEST, "b": 0,
        }  # fmt: skip
        assert "a" not in broker.agent.catalogue.current.by_name

    with_memory_broker(test)


@pytest.mark.parametrize("version", range(1, 7))
def test_deletions_beyond_the_quota_are_refused_or_made_and_waited_for(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        names = [await broker.topic(partitions=10) for _ in range(3)]
        define(broker, {"user": None}, controller_mutation_rate=1)
        client = await broker.connect()
        request = DeleteTopicsRequest(topic_names=names, timeout_ms=1_000)
        if version >= 6:
            request = DeleteTopicsRequest(
                topics=[DeleteTopicState(name=name, topic_id=NO_TOPIC_ID) for name in names], timeout_ms=1_000
            )
        answer = await client.ask(request, version)
        codes = [topic.error_code for topic in answer.responses]
        assert codes == ([0, 0, EXCEEDED] if version >= 5 else [0, 0, 0])
        assert answer.throttle_time_ms > 0
        assert (names[2] in broker.agent.catalogue.current.by_name) == (version >= 5)

    with_memory_broker(test)


def test_changes_that_the_store_does_not_make_cost_nothing(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_arguments: Any, **_options: Any) -> None:
        raise MetadataUnavailable("as told")

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=30)
        define(broker, {"user": None}, controller_mutation_rate=1)
        with monkeypatch.context() as patch:
            for method in ("create", "delete"):
                patch.setattr(CatalogueService, method, away)
            for _ in range(3):
                create = CreateTopicsRequest(topics=[creation("a", 30), creation("b", 1)])
                codes = [topic.error_code for topic in (await client.ask(create, 7)).topics]
                delete = DeleteTopicsRequest(topic_names=[name], timeout_ms=1_000)
                codes.append((await client.ask(delete, 5)).responses[0].error_code)
                assert EXCEEDED not in codes
                assert 0 not in codes
        answer = await client.ask(CreateTopicsRequest(topics=[creation("a", 5)]), 7)
        assert (answer.topics[0].error_code, answer.throttle_time_ms) == (0, 0)

    with_memory_broker(test)


@pytest.mark.parametrize("version", range(4))
def test_partitions_beyond_the_quota_are_refused_or_made_and_waited_for(
    with_memory_broker: RunWithBroker, version: int
) -> None:
    async def test(broker: Broker) -> None:
        names = [await broker.topic() for _ in range(3)]
        define(broker, {"user": None}, controller_mutation_rate=1)
        client = await broker.connect()
        wanted = [
            CreatePartitionsTopic(name=name, count=count, assignments=None)
            for name, count in zip(names, (11, 1, 3), strict=True)
        ]
        answer = await client.ask(
            CreatePartitionsRequest(topics=wanted, timeout_ms=1_000, validate_only=False), version
        )
        codes = [topic.error_code for topic in answer.results]
        assert codes == [0, ErrorCode.INVALID_PARTITIONS, 0]
        assert (answer.throttle_time_ms > 0) == (version < 3)
        other = await broker.connect()
        more = [CreatePartitionsTopic(name=names[1], count=20, assignments=None)]
        answer = await other.ask(
            CreatePartitionsRequest(topics=more, timeout_ms=1_000, validate_only=False), version
        )
        assert answer.results[0].error_code == (EXCEEDED if version >= 3 else 0)
        assert answer.throttle_time_ms > 0

    with_memory_broker(test)


def test_topics_that_metadata_makes_count_and_are_never_refused(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        define(broker, {"user": None}, controller_mutation_rate=0.01)
        names = [MetadataRequestTopic(name=name) for name in ("a", "b")]
        answer = await client.ask(MetadataRequest(topics=names, allow_auto_topic_creation=True), 12)
        assert [topic.error_code for topic in answer.topics] == [0, 0]
        assert answer.throttle_time_ms > 0

    with_memory_broker(test)


def test_an_address_that_opens_connections_too_fast_is_refused_some(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        define(broker, {"ip": "127.0.0.1"}, connection_creation_rate=1)
        clients = [await broker.connect() for _ in range(12)]
        closed = 0
        for client in clients:
            client.send(ApiVersionsRequest(), 0)
            try:
                await client.frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                closed += 1
        assert 1 <= closed <= 2
        define(broker, {"ip": "10.0.0.1"}, connection_creation_rate=1)
        await another_is_served(broker)

    with_memory_broker(test)


def test_a_held_back_client_that_leaves_is_forgotten(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        define(broker, {"client-id": "raw"}, producer_byte_rate=1)
        answer = await client.ask(produce_request({topic: {0: BATCH}}), 9)
        assert answer.throttle_time_ms == THROTTLE_MS_MAX
        client.send(ApiVersionsRequest(), 0)
        before = broker.agent.server.connection_count
        await client.close()
        async with asyncio.timeout(THROTTLE_MS_MAX / 2_000):
            while broker.agent.server.connection_count == before:  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(0.01)

    with_broker(test)


def test_quotas_set_over_the_wire_hold_at_once(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        assert await alter(client, alteration({"user": None}, {"producer_byte_rate": 100.0})) == [(0, None)]
        answer = await client.ask(produce_request({topic: {0: BATCH}}), 9)
        assert answer.throttle_time_ms == THROTTLE_MS_MAX
        other = await broker.connect()
        assert await alter(other, alteration({"user": None}, {"producer_byte_rate": None})) == [(0, None)]
        answer = await other.ask(produce_request({topic: {0: BATCH}}), 9)
        assert answer.throttle_time_ms == 0

    with_broker(test)


def test_metrics_tell_how_often_and_how_long(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        define(broker, {"user": None}, producer_byte_rate=1)
        await client.produce(topic, BATCH)
        shown = (await broker.agent.render_metrics()).decode().splitlines()
        assert 'warp_throttled_total{kind="produce"} 1.0' in shown
        assert f'warp_throttled_seconds_total{{kind="produce"}} {THROTTLE_MS_MAX / 1000}' in shown
        assert 'warp_throttled_total{kind="fetch"} 0.0' in shown
        assert "warp_quota_clients 1.0" in shown

    with_memory_broker(test)
