"""Produce: acks, order, errors per partition, topic ids, and many partitions at once."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, joined, produce_request
from tests.broker.support import MIB, NOW_MS, Broker, RunWithBroker, batch
from tests.support.batches import patched, plain_records, raw_batch
from warp._records import build_batch, iterate_records
from warp.errors import ErrorCode
from warp.ids import NO_TOPIC_ID, TopicId
from warp.metadata.model import NewTopic
from warp.protocol import ApiKey
from warp.protocol.messages.offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic

VERSIONS = range(3, 14)


async def read(client: Client, topic: str, partition: int = 0) -> list[bytes | None]:
    """All values of a partition."""
    values: list[bytes | None] = []
    offset = 0
    while True:
        data = bytes((await client.fetch(topic, offset, partition=partition)).records or b"")
        if not data:
            return values
        while data:
            size = 12 + struct.unpack_from(">i", data, 8)[0]
            for record in iterate_records(data[:size], MIB):
                if record.offset >= offset:
                    values.append(record.value)
                    offset = record.offset + 1
            data = data[size:]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("acks", [1, -1])
def test_what_is_acknowledged_can_be_read(with_broker: RunWithBroker, version: int, acks: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for offset in (0, 3):
            request = produce_request({name: {0: batch(b"one", b"two", b"three")}}, acks=acks)
            if version >= 13:
                request.topic_data[0].topic_id = broker.topic_id(name)
            answer = await client.ask(request, version)
            [topic] = answer.responses
            assert topic.name == ("" if version >= 13 else name)
            assert topic.topic_id == (broker.topic_id(name) if version >= 13 else NO_TOPIC_ID)
            [part] = topic.partition_responses
            assert (part.index, part.error_code, part.base_offset) == (0, ErrorCode.NONE, offset)
            assert part.log_append_time_ms == -1
            assert part.log_start_offset == (0 if version >= 5 else -1)
        assert await read(client, name) == [b"one", b"two", b"three"] * 2

    with_broker(test)


def test_a_produce_without_acks_is_stored_and_not_answered(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client, reader = await broker.connect(), await broker.connect()
        name = await broker.topic()
        waiting = reader.send(fetch_request({name: {0: 0}}, max_wait_ms=20_000), 12)
        client.send(produce_request({name: {0: batch(b"v")}}, acks=0), 9)
        answer = await reader.answer(ApiKey.FETCH, 12, waiting)
        assert b"v" in bytes(answer.responses[0].partitions[0].records)
        assert (await client.produce(name, batch(b"next"))).base_offset == 1

    with_broker(test)


def test_records_without_acks_are_stored_though_their_client_hangs_up(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client, reader = await broker.connect(), await broker.connect()
        name = await broker.topic()
        for number in range(50):
            client.send(produce_request({name: {0: batch(b"%d" % number)}}, acks=0), 9)
        await client.close()
        values: list[bytes | None] = []
        while len(values) < 50:
            values = await read(reader, name)
        assert values == [b"%d" % number for number in range(50)]

    with_memory_broker(test)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda name: produce_request({name: {0: batch(b"v")[:-1]}}, acks=0),
        lambda name: produce_request({name: {9: batch(b"v")}}, acks=0),
        lambda name: produce_request({"missing": {0: batch(b"v")}}, acks=0),
    ],
    ids=["broken batch", "no such partition", "no such topic"],
)
def test_an_error_without_acks_closes_the_connection(
    with_memory_broker: RunWithBroker, request_of: Any
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        client.send(request_of(name), 9)
        assert await client.is_closed()

    with_memory_broker(test)


@pytest.mark.parametrize("acks", [2, -2, 32767])
def test_other_acks_are_refused_for_every_partition_that_exists(
    with_memory_broker: RunWithBroker, acks: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=2)
        request = produce_request({name: {0: batch(b"v"), 1: batch(b"v"), 2: batch(b"v")}}, acks=acks)
        [topic] = (await client.ask(request, 9)).responses
        assert [(part.error_code, part.base_offset) for part in topic.partition_responses] == [
            (ErrorCode.INVALID_REQUIRED_ACKS, -1),
            (ErrorCode.INVALID_REQUIRED_ACKS, -1),
            (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1),
        ]
        assert await read(client, name) == []

    with_memory_broker(test)


def test_a_partition_that_fails_does_not_keep_others_from_being_stored(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=4)
        good = batch(b"good")
        batches: dict[str, dict[int, bytes | None]] = {
            name: {0: good, 1: good[:-1] + b"\1", 2: None, 3: good, 4: good, -1: good},
            "missing": {0: good},
        }
        answer = await client.ask(produce_request(batches), 9)
        codes = [[part.error_code for part in topic.partition_responses] for topic in answer.responses]
        assert codes == [
            [
                ErrorCode.NONE,
                ErrorCode.CORRUPT_MESSAGE,
                ErrorCode.INVALID_RECORD,
                ErrorCode.NONE,
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            ],
            [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
        ]
        assert [await read(client, name, partition) for partition in range(4)] == [
            [b"good"],
            [],
            [],
            [b"good"],
        ]

    with_broker(test)


BAD_BATCHES = {
    "nothing": (b"", ErrorCode.INVALID_RECORD),
    "garbage": (b"\xff" * 100, ErrorCode.INVALID_RECORD),
    "magic 1": (patched(16, b"\1"), ErrorCode.INVALID_RECORD),
    "two batches": (batch(b"v") * 2, ErrorCode.INVALID_RECORD),
    "base offset not 0": (build_batch([(None, b"v", [], NOW_MS)], base_offset=5), ErrorCode.INVALID_RECORD),
    "wrong CRC": (batch(b"v")[:17] + bytes(4) + batch(b"v")[21:], ErrorCode.CORRUPT_MESSAGE),
    "too few records": (
        raw_batch(plain_records(2), record_count=3, last_offset_delta=2),
        ErrorCode.INVALID_RECORD,
    ),
    "count against deltas": (raw_batch(plain_records(2), record_count=1), ErrorCode.INVALID_RECORD),
    "control batch": (batch(b"v", is_control=True, is_transactional=False), ErrorCode.INVALID_RECORD),
    "codec 7": (patched(22, b"\7"), None),
    "far in the future": (batch(b"v", timestamp_ms=4_000_000_000_000), ErrorCode.INVALID_TIMESTAMP),
    "log append time": (batch(b"v", log_append=True), ErrorCode.INVALID_TIMESTAMP),
    "too large": (batch(bytes(MIB + 100)), ErrorCode.MESSAGE_TOO_LARGE),
    "producer without sequence": (batch(b"v", producer_id=5, producer_epoch=0), ErrorCode.INVALID_RECORD),
}


@pytest.mark.parametrize("what", BAD_BATCHES)
def test_a_bad_batch_has_its_error_and_is_not_stored(with_memory_broker: RunWithBroker, what: str) -> None:
    async def test(broker: Broker) -> None:
        data, code = BAD_BATCHES[what]
        client = await broker.connect()
        name = await broker.topic()
        part = await client.produce(name, data)
        assert part.error_code != ErrorCode.NONE
        assert code is None or ErrorCode(part.error_code) is code
        assert (part.base_offset, part.log_append_time_ms, part.log_start_offset) == (-1, -1, -1)
        assert part.error_message
        assert (await client.produce(name, batch(b"good"))).base_offset == 0

    with_memory_broker(test)


def test_the_records_at_fault_are_named_from_version_8_on(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(cleanup_policy="compact")
        data = build_batch([(b"k", b"v", [], NOW_MS), (None, b"v", [], NOW_MS), (None, b"w", [], NOW_MS)])
        for version in (7, 8, 9):
            part = await client.produce(name, data, version=version)
            assert part.error_code == ErrorCode.INVALID_RECORD
            expected = [1, 2] if version >= 8 else []
            assert [error.batch_index for error in part.record_errors] == expected
            assert bool(part.error_message) == (version >= 8)

    with_memory_broker(test)


def test_zstd_needs_version_7(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        data = batch(b"v", codec=4)
        refused = await client.produce(name, data, version=6)
        assert refused.error_code == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        assert (await client.produce(name, data, version=7)).error_code == ErrorCode.NONE

    with_memory_broker(test)


@pytest.mark.parametrize("codec", range(5))
def test_batches_of_every_codec_come_out_as_they_went_in(with_broker: RunWithBroker, codec: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        data = batch(*[b"value %d" % number for number in range(2000)], codec=codec)
        assert (await client.produce(name, data)).error_code == ErrorCode.NONE
        stored = bytes((await client.fetch(name)).records)
        # A broker may change base offset and leader epoch alone.
        assert stored[16:] == data[16:]
        assert stored[:8] == bytes(8)

    with_broker(test)


def test_log_append_time_is_stamped_and_told(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(message_timestamp_type="LogAppendTime")
        part = await client.produce(name, batch(b"v"))
        assert part.log_append_time_ms > NOW_MS
        [record] = iterate_records(bytes((await client.fetch(name)).records), MIB)
        assert record.timestamp == part.log_append_time_ms

    with_memory_broker(test)


def test_an_unknown_topic_id_is_told_apart_from_an_unknown_partition(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        request = produce_request({"one": {0: batch(b"v")}, "two": {5: batch(b"v"), 0: batch(b"v")}})
        request.topic_data[0].topic_id = b"\1" * 16
        request.topic_data[1].topic_id = broker.topic_id(name)
        answer = await client.ask(request, 13)
        codes = [[part.error_code for part in topic.partition_responses] for topic in answer.responses]
        assert codes == [
            [ErrorCode.UNKNOWN_TOPIC_ID],
            [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.NONE],
        ]

    with_memory_broker(test)


def test_transactional_batches_are_refused_as_a_whole_request(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=2)
        in_transaction = batch(b"v", producer_id=1, producer_epoch=0, base_sequence=0, is_transactional=True)
        mixed = produce_request({name: {0: batch(b"v"), 1: in_transaction}})
        by_id = produce_request({name: {0: batch(b"v"), 1: batch(b"v")}})
        by_id.transactional_id = "orders"
        for request in (mixed, by_id):
            [topic] = (await client.ask(request, 9)).responses
            codes = [part.error_code for part in topic.partition_responses]
            assert codes == [ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED] * 2
        assert await read(client, name) == []

    with_memory_broker(test)


def test_produce_to_internal_topics_is_refused(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic("__consumer_offsets")
        part = await client.produce(name, batch(b"v"))
        assert part.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION

    with_memory_broker(test)


def test_requests_that_are_sent_without_waiting_are_stored_in_their_order(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        # Large compressed batches are checked in threads; the small ones behind them must not overtake.
        requests = []
        for number in range(60):
            large = number % 3 == 0
            values = [b"%d" % number] + [b"x" * 100] * (5000 if large else 0)
            requests.append(client.send(produce_request({name: {0: batch(*values, codec=4)}}), 9))
        offset = 0
        for number, correlation_id in enumerate(requests):
            answer = await client.answer(ApiKey.PRODUCE, 9, correlation_id)
            [part] = answer.responses[0].partition_responses
            assert (part.error_code, part.base_offset) == (ErrorCode.NONE, offset)
            offset += 5001 if number % 3 == 0 else 1
        values_read = [value for value in await read(client, name) if value != b"x" * 100]
        assert values_read == [b"%d" % number for number in range(60)]

    with_broker(test)


def test_one_request_over_fifty_partitions_of_ten_topics(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        names = [await broker.topic(partitions=5) for _ in range(10)]
        request = produce_request(
            {name: {index: batch(b"%s/%d" % (name.encode(), index)) for index in range(5)} for name in names}
        )
        answer = await client.ask(request, 9)
        assert [topic.name for topic in answer.responses] == names
        for topic in answer.responses:
            assert [part.index for part in topic.partition_responses] == list(range(5))
            assert {(part.error_code, part.base_offset) for part in topic.partition_responses} == {(0, 0)}
        for name in names:
            for index in range(5):
                assert await read(client, name, index) == [b"%s/%d" % (name.encode(), index)]

    with_broker(test)


def test_a_partition_may_come_twice_in_one_request(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        request = produce_request({name: {0: batch(b"first")}})
        request.topic_data.append(produce_request({name: {0: batch(b"second")}}).topic_data[0])
        answer = await client.ask(request, 9)
        offsets = [topic.partition_responses[0].base_offset for topic in answer.responses]
        assert offsets == [0, 1]
        assert await read(client, name) == [b"first", b"second"]

    with_memory_broker(test)


def test_what_is_acknowledged_shows_in_list_offsets_at_once(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        producer, reader = await broker.connect(), await broker.connect()
        name = await broker.topic()
        latest = ListOffsetsPartition(partition_index=0, timestamp=-1)
        request = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=name, partitions=[latest])])
        for number in range(20):
            assert (await producer.produce(name, batch(b"v"))).base_offset == number
            [topic] = (await reader.ask(request, 7)).topics
            assert topic.partitions[0].offset == number + 1

    with_broker(test)


def test_many_connections_at_once_each_find_their_own_records_in_order(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        name = await broker.topic(partitions=3)

        async def write(writer: int) -> None:
            client = await broker.connect()
            for number in range(20):
                part = await client.produce(name, batch(b"%d/%d" % (writer, number)), partition=writer % 3)
                assert part.error_code == ErrorCode.NONE

        await asyncio.gather(*(write(writer) for writer in range(12)))
        reader = await broker.connect()
        for partition in range(3):
            values = await read(reader, name, partition)
            assert len(values) == 80
            for writer in range(partition, 12, 3):
                own = [value for value in values if value is not None and value.startswith(b"%d/" % writer)]
                assert own == [b"%d/%d" % (writer, number) for number in range(20)]

    with_memory_broker(test)


def test_a_topic_that_another_agent_made_anew_is_found_by_name(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        name = await broker.topic()
        store, old_id = broker.agent._metadata, broker.topic_id(name)
        await store.delete_topics([old_id])
        await store.create_topics([NewTopic(name, TopicId(bytes(range(16))), 1)])
        broker.agent.catalogue._checked_s = float("-inf")
        client = await broker.connect()
        answer = await client.produce(name, batch(b"new life"))
        assert (answer.error_code, answer.base_offset) == (0, 0)
        assert joined((await client.fetch(name)).records)

    with_memory_broker(test)
