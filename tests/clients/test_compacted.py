"""Clients read a compacted topic: sparse batches, empty ones, stretched ones, and batches with a delete horizon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition as AioPartition
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from kafka import KafkaConsumer, TopicPartition as PythonPartition

from tests.clients.compacted_log import ensure_topic
from tests.support.process import AgentProcess

TOPIC = "compacted"
ROUNDS, KEYS = 12, 40
SMALL_FETCH_BYTES = 80
"""Less than most batches: an answer then holds a single one, often one without records."""
READ_S = 30


class Seen(NamedTuple):
    """What a client says of a record."""

    offset: int
    key: bytes | None
    value: bytes | None


@pytest.fixture(scope="module")
def compacted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent with a compacted topic of which most records have gone."""
    directory = tmp_path_factory.mktemp("compacted") / "data"
    # Agents look extents up again after half of the grace period.
    options = ("--flush-interval", "5ms", "--compaction-interval", "100ms", "--delete-grace", "1s")
    with AgentProcess(directory, *options) as agent:
        ensure_topic(agent.bootstrap, TOPIC, 1, min_cleanable_dirty_ratio="0", delete_retention_ms="3600000")
        fill(agent.bootstrap)
        deadline = time.monotonic() + READ_S
        while len(by_confluent(agent.bootstrap, 0, SMALL_FETCH_BYTES)) > len(left_over()):
            assert time.monotonic() < deadline, "it is not compacted"
        yield agent


def written() -> list[tuple[bytes, bytes | None]]:
    """Some keys once, some in every round, some deleted in the end."""
    records: list[tuple[bytes, bytes | None]] = []
    for round_number in range(ROUNDS):
        records += [(b"hot %d" % key, b"%d" % round_number) for key in range(KEYS)]
        records.append((b"once %d" % round_number, b"x" * 500))
    records += [(b"hot %d" % key, None) for key in range(0, KEYS, 4)]
    return [*records, (b"last", b"record")]


def left_over() -> list[Seen]:
    newest = {key: (offset, value) for offset, (key, value) in enumerate(written())}
    return sorted(Seen(offset, key, value) for key, (offset, value) in newest.items())


def fill(bootstrap: str) -> None:
    """A codec after the other, in batches of any size, idempotent and not."""
    records = written()
    for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "compression.type": codec,
                "enable.idempotence": number % 2 == 0,
                "batch.num.messages": 7 + 10 * number,
                "max.in.flight": 1,
            }
        )
        start, end = len(records) * number // 5, len(records) * (number + 1) // 5
        for key, value in records[start:end]:
            producer.produce(TOPIC, value, key, partition=0)
        assert producer.flush(READ_S) == 0


def by_confluent(bootstrap: str, offset: int, fetch_bytes: int) -> list[Seen]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": True,
            "fetch.message.max.bytes": fetch_bytes,
            "fetch.wait.max.ms": 20,
        }
    )
    found: list[Seen] = []
    try:
        # A reader that knows the leader at once asks it at once; librdkafka looks again after half a second.
        consumer.list_topics(TOPIC, READ_S)
        consumer.assign([TopicPartition(TOPIC, 0, offset)])
        deadline = time.monotonic() + READ_S
        while time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                assert error.name() == "_PARTITION_EOF", error
                assert message.offset() in (len(written()), OFFSET_END)
                return found
            place = message.offset()
            assert place is not None
            found.append(Seen(place, _bytes(message.key()), _bytes(message.value())))
    finally:
        consumer.close()
    raise AssertionError(f"the end was not reached: {found[-1:]}")


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def by_kafka_python(bootstrap: str, offset: int, fetch_bytes: int) -> list[Seen]:
    partition = PythonPartition(TOPIC, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        check_crcs=True,
        max_partition_fetch_bytes=fetch_bytes,
        group_id=None,
    )
    found: list[Seen] = []
    try:
        consumer.assign([partition])
        consumer.seek(partition, offset)
        deadline = time.monotonic() + READ_S
        while consumer.position(partition) < len(written()):
            assert time.monotonic() < deadline, "the end was not reached"
            for messages in consumer.poll(timeout_ms=500).values():
                found += [Seen(m.offset, m.key, m.value) for m in messages]
    finally:
        consumer.close()
    return found


def by_aiokafka(bootstrap: str, offset: int, fetch_bytes: int) -> list[Seen]:
    async def read() -> list[Seen]:
        partition = AioPartition(TOPIC, 0)
        found: list[Seen] = []
        async with AIOKafkaConsumer(
            bootstrap_servers=bootstrap, check_crcs=True, max_partition_fetch_bytes=fetch_bytes
        ) as consumer:
            consumer.assign([partition])
            consumer.seek(partition, offset)
            while not found or found[-1].offset + 1 < len(written()):
                for messages in (await consumer.getmany(timeout_ms=500)).values():
                    found += [Seen(m.offset, m.key, m.value) for m in messages]
        return found

    return asyncio.run(asyncio.wait_for(read(), READ_S))


Read = Callable[[str, int, int], list[Seen]]


@pytest.mark.parametrize(
    "read", [by_confluent, by_kafka_python, by_aiokafka], ids=lambda read: read.__name__[3:]
)
@pytest.mark.parametrize("fetch_bytes", [SMALL_FETCH_BYTES, 1_000_000])
def test_a_compacted_topic_is_read_from_every_place(
    compacted: AgentProcess, read: Read, fetch_bytes: int
) -> None:
    expected = left_over()
    places = {0, 1, 30, KEYS, KEYS + 1, 200, expected[5].offset, expected[5].offset + 1, len(written()) - 1}
    for place in sorted(places):
        seen = read(compacted.bootstrap, place, fetch_bytes)
        assert seen == [record for record in expected if record.offset >= place], place
