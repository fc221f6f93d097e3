"""Idempotent producers over the wire: duplicates, gaps, epochs, and connections that break in between."""

from __future__ import annotations

from typing import Any

from tests.broker.client import Client, produce_request
from tests.broker.support import Broker, RunWithBroker, batch
from warp.errors import ErrorCode
from warp.protocol import ApiKey
from warp.protocol.messages.producers import InitProducerIdRequest


async def new_producer(client: Client) -> int:
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000)
    producer_id: int = (await client.ask(request, 4)).producer_id
    return producer_id


def numbered(producer_id: int, sequence: int, count: int = 1, epoch: int = 0) -> bytes:
    values = [b"%d" % number for number in range(sequence, sequence + count)]
    return batch(*values, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


async def outcome(client: Client, topic: str, data: bytes) -> tuple[str, int]:
    part: Any = await client.produce(topic, data)
    return ErrorCode(part.error_code).name, part.base_offset


def test_a_batch_sent_again_over_another_connection_is_answered_as_the_first_time(
    with_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        producer_id = await new_producer(client)
        for sequence in range(0, 15, 3):
            data = numbered(producer_id, sequence, 3)
            assert await outcome(client, name, data) == ("NONE", sequence)
            await client.close()
            client = await broker.connect()
            assert await outcome(client, name, data) == ("NONE", sequence)
        assert (await client.fetch(name)).high_watermark == 15

    with_broker(test)


def test_a_client_that_vanishes_before_the_answer_finds_its_batch_stored_once(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        producer_id = await new_producer(client)
        for sequence in range(10):
            data = numbered(producer_id, sequence)
            lost = await broker.connect()
            lost.send(produce_request({name: {0: data}}), 9)
            await lost.writer.drain()
            lost.writer.transport.abort()
            assert await outcome(client, name, data) == ("NONE", sequence)
        assert (await client.fetch(name)).high_watermark == 10

    with_memory_broker(test)


def test_the_last_five_batches_are_known_again(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        producer_id = await new_producer(client)
        for sequence in range(7):
            assert await outcome(client, name, numbered(producer_id, sequence)) == ("NONE", sequence)
        for sequence in range(2, 7):
            assert await outcome(client, name, numbered(producer_id, sequence)) == ("NONE", sequence)
        assert await outcome(client, name, numbered(producer_id, 1)) == ("OUT_OF_ORDER_SEQUENCE_NUMBER", -1)
        assert (await client.fetch(name)).high_watermark == 7

    with_memory_broker(test)


def test_pipelined_batches_of_one_producer_are_stored_in_sequence(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        producer_id = await new_producer(client)
        numbers = [
            client.send(produce_request({name: {0: numbered(producer_id, sequence)}}), 9)
            for sequence in range(100)
        ]
        for sequence, number in enumerate(numbers):
            [topic] = (await client.answer(ApiKey.PRODUCE, 9, number)).responses
            assert topic.partition_responses[0].base_offset == sequence

    with_broker(test)


def test_epochs_are_fenced_and_raised_by_the_producer_itself(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        producer_id = await new_producer(client)
        assert await outcome(client, name, numbered(producer_id, 0)) == ("NONE", 0)
        # For now: the batch that begins the new epoch may still be on its way.
        early = numbered(producer_id, 1, epoch=1)
        assert await outcome(client, name, early) == ("NOT_ENOUGH_REPLICAS", -1)
        assert await outcome(client, name, numbered(producer_id, 0, epoch=1)) == ("NONE", 1)
        assert await outcome(client, name, numbered(producer_id, 1)) == ("INVALID_PRODUCER_EPOCH", -1)

    with_memory_broker(test)


def test_a_gap_is_first_answered_with_an_error_that_is_retried(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        producer_id = await new_producer(client)
        assert await outcome(client, name, numbered(producer_id, 0)) == ("NONE", 0)
        assert await outcome(client, name, numbered(producer_id, 2)) == ("NOT_ENOUGH_REPLICAS", -1)
        assert await outcome(client, name, numbered(producer_id, 1)) == ("NONE", 1)
        assert await outcome(client, name, numbered(producer_id, 2)) == ("NONE", 2)

    with_memory_broker(test)


def test_one_request_may_hold_duplicates_and_new_batches(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=2)
        producer_id = await new_producer(client)
        assert await outcome(client, name, numbered(producer_id, 0, 5)) == ("NONE", 0)
        request = produce_request({name: {0: numbered(producer_id, 0, 5), 1: numbered(producer_id, 0, 5)}})
        [topic] = (await client.ask(request, 9)).responses
        assert [(part.error_code, part.base_offset) for part in topic.partition_responses] == [(0, 0), (0, 0)]
        assert [(await client.fetch(name, partition=each)).high_watermark for each in (0, 1)] == [5, 5]

    with_memory_broker(test)
