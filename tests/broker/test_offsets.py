"""ListOffsets with every kind of timestamp, OffsetForLeaderEpoch, DeleteRecords."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.client import Client, produce_request
from tests.broker.support import NOW_MS, Broker, RunWithBroker, batch
from warp.errors import ErrorCode
from warp.protocol.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)

SPECIAL_SINCE = {-1: 1, -2: 1, -3: 7, -4: 8, -5: 9, -6: 11}


async def list_offset(
    client: Client, topic: str, timestamp: int, *, version: int = 11, partition: int = 0, isolation: int = 0
) -> tuple[str, int, int, int]:
    """Error, offset, timestamp, leader epoch."""
    asked = ListOffsetsPartition(partition_index=partition, timestamp=timestamp)
    request = ListOffsetsRequest(
        replica_id=-1, isolation_level=isolation, topics=[ListOffsetsTopic(name=topic, partitions=[asked])]
    )
    [found] = (await client.ask(request, version)).topics
    [part] = found.partitions
    assert (found.name, part.partition_index) == (topic, partition)
    return ErrorCode(part.error_code).name, part.offset, part.timestamp, part.leader_epoch


@pytest.mark.parametrize("version", range(1, 12))
def test_every_special_timestamp_from_its_version_on(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name, empty = await broker.topic(), await broker.topic()
        for timestamp_ms in (NOW_MS, NOW_MS + 500, NOW_MS + 100):
            assert (await client.produce(name, batch(b"a", b"b", timestamp_ms=timestamp_ms))).error_code == 0
        epoch = 0 if version >= 4 else -1
        expected = {
            -1: ("NONE", 6, -1, epoch),
            -2: ("NONE", 0, -1, epoch),
            -3: ("NONE", 3, NOW_MS + 501, epoch),
            -4: ("NONE", 0, -1, epoch),
            -5: ("NONE", -1, -1, -1),
            -6: ("NONE", -1, -1, -1),
            -7: ("UNSUPPORTED_VERSION", -1, -1, -1),
        }
        for timestamp, answer in expected.items():
            known = version >= SPECIAL_SINCE.get(timestamp, 99)
            wanted = answer if known else ("UNSUPPORTED_VERSION", -1, -1, -1)
            assert await list_offset(client, name, timestamp, version=version) == wanted, timestamp
        assert await list_offset(client, empty, -1, version=version) == ("NONE", 0, -1, epoch)
        if version >= 7:
            assert await list_offset(client, empty, -3, version=version) == ("NONE", -1, -1, -1)

    with_broker(test)


@pytest.mark.parametrize("codec", range(5))
def test_a_time_finds_the_first_record_as_late_exact_to_the_record(
    with_broker: RunWithBroker, codec: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for start in (0, 100, 50):
            values = [b"x"] * 10
            data = batch(*values, timestamp_ms=NOW_MS + start, codec=codec)
            assert (await client.produce(name, data)).error_code == 0
        for late_ms, offset in ((-1000, 0), (0, 0), (5, 5), (9, 9), (10, 10), (105, 15), (109, 19)):
            found = await list_offset(client, name, NOW_MS + late_ms, version=7)
            assert found[:2] == ("NONE", offset), late_ms
            assert found[2] >= NOW_MS + late_ms
        assert await list_offset(client, name, NOW_MS + 110, version=7) == ("NONE", -1, -1, -1)
        assert (await list_offset(client, name, 0))[:2] == ("NONE", 0)

    with_broker(test)


def test_partitions_that_are_unknown_or_named_twice_have_their_error(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=2)
        assert (await list_offset(client, "missing", -1))[0] == "UNKNOWN_TOPIC_OR_PARTITION"
        assert (await list_offset(client, name, -1, partition=2))[0] == "UNKNOWN_TOPIC_OR_PARTITION"
        assert (await list_offset(client, name, -1, partition=-1))[0] == "UNKNOWN_TOPIC_OR_PARTITION"
        partitions = [ListOffsetsPartition(partition_index=index, timestamp=-1) for index in (0, 1, 0)]
        request = ListOffsetsRequest(
            replica_id=-1, topics=[ListOffsetsTopic(name=name, partitions=partitions)]
        )
        [topic] = (await client.ask(request, 7)).topics
        assert [part.error_code for part in topic.partitions] == [
            ErrorCode.INVALID_REQUEST,
            ErrorCode.NONE,
            ErrorCode.INVALID_REQUEST,
        ]

    with_memory_broker(test)


def test_read_committed_sees_the_same_end_while_no_transaction_is_open(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        await client.produce(name, batch(b"v"))
        assert (await list_offset(client, name, -1, isolation=1))[1] == 1

    with_memory_broker(test)


# ---- leader epochs ----


@pytest.mark.parametrize("version", [2, 3, 4])
def test_the_one_epoch_ends_at_the_end_of_the_log(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        await client.produce(name, batch(b"a", b"b"))
        asked = [(name, 0, 0), (name, 0, 3), (name, 0, -1), (name, 7, 0), ("missing", 0, 0)]
        request = OffsetForLeaderEpochRequest(
            topics=[
                OffsetForLeaderTopic(
                    topic=topic, partitions=[OffsetForLeaderPartition(partition=index, leader_epoch=epoch)]
                )
                for topic, index, epoch in asked
            ]
        )
        answer = await client.ask(request, version)
        parts = [topic.partitions[0] for topic in answer.topics]
        assert [(part.error_code, part.leader_epoch, part.end_offset) for part in parts] == [
            (ErrorCode.NONE, 0, 2),
            (ErrorCode.NONE, -1, -1),
            (ErrorCode.NONE, -1, -1),
            (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1),
            (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1),
        ]

    with_broker(test)


# ---- deletion ----


async def delete_records(
    client: Client, asked: dict[str, dict[int, int]], version: int = 2
) -> list[tuple[str, int]]:
    request = DeleteRecordsRequest(
        topics=[
            DeleteRecordsTopic(
                name=name,
                partitions=[
                    DeleteRecordsPartition(partition_index=i, offset=offset) for i, offset in parts.items()
                ],
            )
            for name, parts in asked.items()
        ],
        timeout_ms=5000,
    )
    answer: Any = await client.ask(request, version)
    return [
        (ErrorCode(part.error_code).name, part.low_watermark)
        for topic in answer.topics
        for part in topic.partitions
    ]


@pytest.mark.parametrize("version", range(3))
def test_the_log_starts_where_records_were_deleted(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for _ in range(3):
            await client.produce(name, batch(b"a", b"b", b"c"))
        assert await delete_records(client, {name: {0: 4}}, version) == [("NONE", 4)]
        assert (await list_offset(client, name, -2))[1] == 4
        assert (await list_offset(client, name, NOW_MS))[1] == 4
        before = await client.fetch(name, 3)
        assert before.error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        at = await client.fetch(name, 4)
        assert (at.error_code, at.log_start_offset) == (0, 4)
        assert int.from_bytes(bytes(at.records)[:8], "big") == 3
        assert await delete_records(client, {name: {0: 2}}, version) == [("NONE", 4)]
        assert await delete_records(client, {name: {0: -1}}, version) == [("NONE", 9)]
        assert (await client.fetch(name, 9)).error_code == 0
        assert (await client.produce(name, batch(b"v"))).base_offset == 9

    with_broker(test)


def test_records_that_can_not_be_deleted(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(partitions=2)
        compacted = await broker.topic(cleanup_policy="compact")
        both = await broker.topic(cleanup_policy="compact,delete")
        internal = await broker.topic("__transaction_state")
        for topic in (name, compacted, both):
            await client.produce(topic, batch(b"v"))
        asked = {
            name: {0: 2, 1: -2, 7: 0},
            "missing": {0: 0},
            compacted: {0: 1},
            both: {0: 1},
            internal: {0: 0},
        }
        assert await delete_records(client, asked) == [
            ("OFFSET_OUT_OF_RANGE", -1),
            ("OFFSET_OUT_OF_RANGE", -1),
            ("UNKNOWN_TOPIC_OR_PARTITION", -1),
            ("UNKNOWN_TOPIC_OR_PARTITION", -1),
            ("POLICY_VIOLATION", -1),
            ("NONE", 1),
            ("INVALID_TOPIC_EXCEPTION", -1),
        ]

    with_memory_broker(test)


def test_a_partition_named_twice_is_not_cut_at_all(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        await client.ask(produce_request({name: {0: batch(b"a", b"b")}}), 9)
        part = DeleteRecordsPartition(partition_index=0, offset=1)
        topics = [DeleteRecordsTopic(name=name, partitions=[part]) for _ in range(2)]
        answer = await client.ask(DeleteRecordsRequest(topics=topics, timeout_ms=5000), 2)
        assert [topic.partitions[0].error_code for topic in answer.topics] == [ErrorCode.INVALID_REQUEST] * 2
        assert (await list_offset(client, name, -2))[1] == 0

    with_memory_broker(test)
