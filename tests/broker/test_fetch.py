"""Fetch: limits, waits, sessions, ids, errors, isolation, and objects that are not there."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.support import MIB, Broker, RunWithBroker, batch
from warp._records import scan_batches
from warp.errors import ErrorCode
from warp.ids import NO_TOPIC_ID
from warp.protocol import ApiKey
from warp.protocol.messages.fetch import FetchRequest

VERSIONS = range(4, 19)


def offsets_of(records: Any) -> list[int]:
    """Base offsets of the batches of an answer."""
    return [span.base_offset for span in scan_batches(bytes(records))]


async def filled(broker: Broker, batches: int, size: int = 100, partitions: int = 1) -> str:
    """A topic whose partitions hold so many batches of one record."""
    name = await broker.topic(partitions=partitions)
    client = await broker.connect()
    for _ in range(batches):
        request = produce_request({name: {index: batch(bytes(size)) for index in range(partitions)}})
        answer = await client.ask(request, 9)
        assert all(part.error_code == 0 for part in answer.responses[0].partition_responses)
    return name


async def one_fetch_waits(broker: Broker) -> None:
    """Wait until a fetch waits."""
    while not broker.agent.log.fetch.waiting:  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_returns_the_records_and_the_ends(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 3)
        key: Any = broker.topic_id(name) if version >= 13 else name
        answer = await client.ask(fetch_request({key: {0: 1}}), version)
        assert (answer.error_code, answer.session_id) == (0, 0)
        [topic] = answer.responses
        assert topic.topic == ("" if version >= 13 else name)
        assert topic.topic_id == (key if version >= 13 else NO_TOPIC_ID)
        [part] = topic.partitions
        assert (part.error_code, part.high_watermark, part.last_stable_offset) == (0, 3, 3)
        assert part.log_start_offset == (0 if version >= 5 else -1)
        assert part.aborted_transactions is None
        assert part.preferred_read_replica == -1
        assert offsets_of(part.records) == [1, 2]
        assert struct.unpack_from(">i", bytes(part.records), 12) == (0,)

    with_broker(test)


def test_at_the_end_a_fetch_is_empty_and_beyond_it_out_of_range(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 2)
        end = await client.fetch(name, 2)
        assert (end.error_code, end.high_watermark, bytes(end.records or b"")) == (0, 2, b"")
        for offset in (3, 10**12, -1):
            beyond = await client.fetch(name, offset)
            assert beyond.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
            assert (beyond.high_watermark, beyond.last_stable_offset, beyond.log_start_offset) == (-1, -1, -1)
            assert not bytes(beyond.records or b"")

    with_broker(test)


def test_what_can_not_be_found_has_its_error_and_nothing_is_waited_for(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 1)
        request = fetch_request({name: {0: 1, 5: 0, -1: 0}, "missing": {0: 0}}, max_wait_ms=60_000)
        answer = await client.ask(request, 12)
        assert [[part.error_code for part in topic.partitions] for topic in answer.responses] == [
            [ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
            [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
        ]
        by_id: dict[Any, Any] = {broker.topic_id(name): {0: 0}, b"\1" * 16: {0: 0}, NO_TOPIC_ID: {0: 0}}
        answer = await client.ask(fetch_request(by_id, max_wait_ms=60_000), 13)
        assert [topic.partitions[0].error_code for topic in answer.responses] == [
            ErrorCode.NONE,
            ErrorCode.UNKNOWN_TOPIC_ID,
            ErrorCode.UNKNOWN_TOPIC_ID,
        ]
        assert await broker.agent.catalogue.everything() == broker.agent.catalogue.current
        assert "missing" not in broker.agent.catalogue.current.by_name

    with_memory_broker(test)


def test_a_partition_that_is_asked_for_twice_is_read_for_neither(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 1, partitions=2)
        request = fetch_request({name: {0: 0, 1: 0}}, max_wait_ms=60_000)
        request.topics += fetch_request({name: {0: 1}}).topics
        answer = await client.ask(request, 12)
        assert [[part.error_code for part in topic.partitions] for topic in answer.responses] == [
            [ErrorCode.INVALID_REQUEST, ErrorCode.NONE],
            [ErrorCode.INVALID_REQUEST],
        ]
        assert offsets_of(answer.responses[0].partitions[1].records) == [0]

    with_memory_broker(test)


# ---- limits ----


def test_limits_cut_between_batches_and_the_first_one_always_goes_out(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 4, size=1000)
        whole = (await client.fetch(name, 0)).records
        size = len(bytes(whole)) // 4
        for limit, count in (
            (1, 1),
            (size - 1, 1),
            (size, 1),
            (2 * size - 1, 1),
            (2 * size, 2),
            (10 * size, 4),
        ):
            assert len(offsets_of((await client.fetch(name, 0, partition_max_bytes=limit)).records)) == count
            assert len(offsets_of((await client.fetch(name, 0, max_bytes=limit)).records)) == count

    with_broker(test)


def test_partitions_are_filled_in_the_order_of_the_request(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 2, size=1000, partitions=3)
        size = len(bytes((await client.fetch(name, 0)).records)) // 2
        for order in ((0, 1, 2), (2, 0, 1)):
            request = fetch_request({name: dict.fromkeys(order, 0)}, max_bytes=3 * size)
            [topic] = (await client.ask(request, 12)).responses
            assert [part.partition_index for part in topic.partitions] == list(order)
            assert [len(offsets_of(part.records or b"")) for part in topic.partitions] == [2, 1, 0]
            assert [part.high_watermark for part in topic.partitions] == [2, 2, 2]

    with_memory_broker(test)


# ---- waiting ----


def test_a_waiting_fetch_is_woken_by_the_first_record(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        reader, writer = await broker.connect(), await broker.connect()
        name = await broker.topic(partitions=2)
        number = reader.send(fetch_request({name: {0: 0, 1: 0}}, max_wait_ms=50_000), 12)
        await one_fetch_waits(broker)
        assert (await writer.produce(name, batch(b"v"), partition=1)).error_code == 0
        [topic] = (await reader.answer(ApiKey.FETCH, 12, number)).responses
        assert [offsets_of(part.records or b"") for part in topic.partitions] == [[], [0]]

    with_broker(test)


def test_a_fetch_waits_until_its_minimum_is_there(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        reader, writer = await broker.connect(), await broker.connect()
        name = await broker.topic()
        size = len(batch(bytes(100)))
        number = reader.send(fetch_request({name: {0: 0}}, max_wait_ms=50_000, min_bytes=3 * size), 12)
        for _ in range(3):
            await one_fetch_waits(broker)
            await writer.produce(name, batch(bytes(100)))
        [topic] = (await reader.answer(ApiKey.FETCH, 12, number)).responses
        assert offsets_of(topic.partitions[0].records) == [0, 1, 2]

    with_memory_broker(test)


def test_a_fetch_whose_time_is_up_returns_what_there_is(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 1)
        for options in ({"min_bytes": 10**6}, {"min_bytes": 0}):
            part = await client.fetch(name, 0, max_wait_ms=20, **options)
            assert (part.error_code, offsets_of(part.records)) == (0, [0])
        part = await client.fetch(name, 1, max_wait_ms=20)
        assert (part.error_code, bytes(part.records or b"")) == (0, b"")

    with_memory_broker(test)


def test_a_fetch_of_nothing_is_answered_at_once(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        answer = await client.ask(FetchRequest(max_wait_ms=60_000, min_bytes=1, topics=[]), 12)
        assert (answer.error_code, answer.responses) == (0, [])

    with_memory_broker(test)


def test_a_fetch_that_waits_holds_back_neither_produces_nor_what_runs_beside_it(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client, reader = await broker.connect(), await broker.connect()
        name = await broker.topic(partitions=2)
        waiting = client.send(fetch_request({name: {0: 0}}, max_wait_ms=50_000), 12)
        await one_fetch_waits(broker)
        produced = client.send(produce_request({name: {1: batch(b"other")}}), 9)
        while (await reader.fetch(name, partition=1)).high_watermark != 1:
            pass
        # The answers come in the order of the requests, so the Produce is answered behind the Fetch.
        last = client.send(produce_request({name: {0: batch(b"wakes")}}), 9)
        assert (await client.answer(ApiKey.FETCH, 12, waiting)).responses[0].partitions[0].high_watermark == 1
        for number in (produced, last):
            answer = await client.answer(ApiKey.PRODUCE, 9, number)
            assert answer.responses[0].partition_responses[0].error_code == 0

    with_memory_broker(test)


def test_the_fetch_of_a_client_that_left_is_given_up(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        name = await broker.topic()
        for leave in ("close", "abort"):
            client = await broker.connect()
            client.send(fetch_request({name: {0: 0}}, max_wait_ms=3_000_000), 12)
            await one_fetch_waits(broker)
            if leave == "close":
                await client.close()
            else:
                client.writer.transport.abort()
            while broker.agent.log.fetch.waiting:  # noqa: ASYNC110  no event tells of it
                await asyncio.sleep(0.001)

    with_memory_broker(test)


# ---- sessions ----


@pytest.mark.parametrize(("session_id", "epoch"), [(0, -1), (0, 0), (-1, -1), (77, 0), (77, -1), (-1, 3)])
def test_full_fetches_are_served_without_a_session(
    with_memory_broker: RunWithBroker, session_id: int, epoch: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 1)
        request = fetch_request({name: {0: 0}}, session_id=session_id, session_epoch=epoch)
        for version in (7, 12):
            answer = await client.ask(request, version)
            assert (answer.error_code, answer.session_id) == (0, 0)
            assert offsets_of(answer.responses[0].partitions[0].records) == [0]

    with_memory_broker(test)


@pytest.mark.parametrize(("session_id", "epoch"), [(77, 1), (77, 2**31 - 1), (0, 1)])
def test_an_incremental_fetch_has_no_session_to_go_on_with(
    with_memory_broker: RunWithBroker, session_id: int, epoch: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        request = FetchRequest(
            max_wait_ms=60_000, min_bytes=1, topics=[], session_id=session_id, session_epoch=epoch
        )
        for version in (7, 12, 18):
            answer = await client.ask(request, version)
            assert answer.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
            assert (answer.session_id, answer.responses) == (0, [])

    with_memory_broker(test)


# ---- isolation, epochs, codecs ----


def test_read_committed_tells_of_no_aborted_transactions(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 1)
        part = await client.fetch(name, 0, isolation_level=1)
        assert (part.aborted_transactions, offsets_of(part.records)) == ([], [0])

    with_memory_broker(test)


@pytest.mark.parametrize("epoch", [-1, 0, 5])
def test_nobody_is_fenced_by_a_leader_epoch(with_memory_broker: RunWithBroker, epoch: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await filled(broker, 1)
        request = fetch_request({name: {0: 0}})
        request.topics[0].partitions[0].current_leader_epoch = epoch
        request.topics[0].partitions[0].last_fetched_epoch = epoch
        [topic] = (await client.ask(request, 12)).responses
        assert (topic.partitions[0].error_code, topic.partitions[0].diverging_epoch) == (0, None)

    with_memory_broker(test)


def test_zstd_is_not_sent_to_those_who_do_not_know_it(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        await client.produce(name, batch(b"v", codec=4))
        for version in (9, 10):
            part = await client.fetch(name, 0, version=version)
            code = ErrorCode.UNSUPPORTED_COMPRESSION_TYPE if version == 9 else ErrorCode.NONE
            assert part.error_code == code
            assert bool(bytes(part.records or b"")) == (version == 10)

    with_memory_broker(test)


# ---- storage ----


def spoil(broker: Broker, how: str) -> None:
    """Make all objects of a memory store disappear, or shorter than the index says."""
    store: Any = broker.agent._object_store
    store = getattr(store, "_store", store)
    for key, (data, modified_ms) in list(store._objects.items()):
        broker.agent.log.cache.forget(key)
        if how == "gone":
            del store._objects[key]
        else:
            store._objects[key] = (data[:20], modified_ms)


@pytest.mark.parametrize("version", [5, 6, 12])
@pytest.mark.parametrize("how", ["gone", "short"])
def test_an_object_that_is_not_as_it_should_be_fails_its_partition_alone(
    with_memory_broker: RunWithBroker, how: str, version: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        spoiled = await filled(broker, 1)
        spoil(broker, how)
        sound = await filled(broker, 1)
        request = fetch_request({spoiled: {0: 0}, sound: {0: 0}})
        answer = await client.ask(request, version)
        expected = ErrorCode.NOT_LEADER_OR_FOLLOWER if version == 5 else ErrorCode.KAFKA_STORAGE_ERROR
        assert [topic.partitions[0].error_code for topic in answer.responses] == [expected, 0]
        assert offsets_of(answer.responses[1].partitions[0].records) == [0]
        assert broker.agent.log.fetch.counters.missing_objects == 1

    with_memory_broker(test)


def test_large_answers_arrive_whole_at_a_client_that_reads_slowly(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        writer, reader = await broker.connect(), await broker.connect()
        name = await broker.topic(max_message_bytes=str(2 * MIB))
        values = [bytes([number]) * MIB for number in range(20)]
        for value in values:
            assert (await writer.produce(name, batch(value))).error_code == 0
        number = reader.send(fetch_request({name: {0: 0}}, partition_max_bytes=64 * MIB), 12)
        answer = await slowly(reader, number)
        data = bytes(answer.responses[0].partitions[0].records)
        assert offsets_of(data) == list(range(20))
        assert all(value in data for value in values)

    with_broker(test)


async def slowly(reader: Client, number: int) -> Any:
    await asyncio.sleep(0.2)
    return await reader.answer(ApiKey.FETCH, 12, number)
