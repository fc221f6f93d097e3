"""aiokafka: every codec it has, with and without idempotence, several partitions at once."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.clients.records import sample_records

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]


async def round_trip(bootstrap: str, topic: str, codec: str | None, idempotent: bool) -> None:
    records = sample_records(200)
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type=codec, enable_idempotence=idempotent, acks="all"
    ) as producer:
        futures = [await producer.send(topic, value, key, partition=0) for key, value in records]
        acknowledged = [(await future).offset for future in futures]
    assert acknowledged == list(range(len(records)))
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, check_crcs=True) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        read = [await asyncio.wait_for(consumer.getone(), 30) for _ in records]
        assert (await consumer.end_offsets([partition]))[partition] == len(records)
    assert [(message.key, message.value) for message in read] == records


@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_as_sent(bootstrap: str, topic: str, codec: str | None, idempotent: bool) -> None:
    asyncio.run(round_trip(bootstrap, topic, codec, idempotent))
