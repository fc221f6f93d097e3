"""kafka-python: every codec it has, with and without idempotence, fetch sessions on, admin."""

from __future__ import annotations

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from tests.clients.records import sample_records

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]


@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_as_sent(bootstrap: str, topic: str, codec: str | None, idempotent: bool) -> None:
    records = sample_records(200)
    producer = KafkaProducer(
        bootstrap_servers=bootstrap, compression_type=codec, enable_idempotence=idempotent, acks="all"
    )
    futures = [producer.send(topic, key=key, value=value, partition=0) for key, value in records]
    producer.flush(60)
    assert [future.get(30).offset for future in futures] == list(range(len(records)))
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=30_000, check_crcs=True)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    read = [next(consumer) for _ in records]
    consumer.close()
    assert [(message.key, message.value) for message in read] == records


def test_ends_and_times_of_a_partition(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(10):
        producer.send(topic, b"%d" % number, partition=0, timestamp_ms=1_700_000_000_000 + number)
    producer.flush(30)
    producer.close()
    partition = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: 10}
    found = consumer.offsets_for_times({partition: 1_700_000_000_004})[partition]
    assert (found.offset, found.timestamp) == (4, 1_700_000_000_004)
    consumer.close()


def test_admin_creates_lists_and_deletes_topics(bootstrap: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    assert topic in admin.list_topics()
    admin.delete_topics([topic])
    assert topic not in admin.list_topics()
    admin.close()
