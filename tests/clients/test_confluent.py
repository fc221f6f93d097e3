"""librdkafka through confluent-kafka: every codec, with and without idempotence, keys, headers, timestamps, admin."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from tests.clients.records import sample_records

Record = tuple[bytes | None, bytes | None]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def read_partition(
    bootstrap: str, topic: str, count: int, partition: int = 0, timeout_s: float = 60.0
) -> list[Message]:
    """The first `count` messages of a partition, read with assign() alone."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "check.crcs": True,
        }
    )
    try:
        # A topic that the library has not heard of takes it half a second or a whole one.
        consumer.list_topics(topic, timeout_s)
        consumer.assign([TopicPartition(topic, partition, 0)])
        messages: list[Message] = []
        end = time.monotonic() + timeout_s
        while len(messages) < count and time.monotonic() < end:
            for message in consumer.consume(min(count - len(messages), 10_000), 1.0):
                if message.error():
                    raise KafkaException(message.error())
                messages.append(message)
        return messages
    finally:
        consumer.close()


def produce_all(bootstrap: str, topic: str, records: list[Record], **options: object) -> list[int]:
    """Sends all records to partition 0; their offsets in order of delivery, -1 where acks are off."""
    offsets: list[int] = []
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            errors.append(error)
        else:
            offset = message.offset()
            offsets.append(-1 if offset is None else offset)

    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **options})
    for key, value in records:
        producer.produce(topic, key=key, value=value, partition=0, on_delivery=delivered)
    assert producer.flush(60) == 0
    assert not errors
    return offsets


@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize("codec", CODECS)
def test_records_come_back_as_sent(bootstrap: str, topic: str, codec: str, idempotent: bool) -> None:
    records = sample_records(500)
    offsets = produce_all(
        bootstrap, topic, records, **{"compression.type": codec, "enable.idempotence": idempotent}
    )
    assert offsets == list(range(len(records)))
    messages = read_partition(bootstrap, topic, len(records))
    assert [(m.key(), m.value()) for m in messages] == records
    assert [m.offset() for m in messages] == offsets


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_each_level_of_acknowledgement_stores_the_records(bootstrap: str, topic: str, acks: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    records = sample_records(50)
    produce_all(bootstrap, topic, records, acks=acks)
    assert [(m.key(), m.value()) for m in read_partition(bootstrap, topic, len(records))] == records


def test_headers_and_timestamps_come_back(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    headers: list[tuple[str, str | bytes | None]] = [("a", b"1"), ("b", None), ("a", b"")]
    stamp_ms = int(time.time() * 1000) - 86_400_000
    producer.produce(topic, b"value", b"key", partition=0, headers=headers, timestamp=stamp_ms)
    assert producer.flush(30) == 0
    (message,) = read_partition(bootstrap, topic, 1)
    assert message.headers() == headers
    assert message.timestamp()[1] == stamp_ms


def test_offsets_for_times_and_watermarks(bootstrap: str, topic: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    start_ms = int(time.time() * 1000) - 1_000_000
    for number in range(100):
        producer.produce(topic, b"%d" % number, partition=0, timestamp=start_ms + number * 10)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    try:
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30) == (0, 100)
        (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, start_ms + 415)], timeout=30)
        assert found.offset == 42
        (after,) = consumer.offsets_for_times([TopicPartition(topic, 0, start_ms + 10_000_000)], timeout=30)
        assert after.offset == -1
    finally:
        consumer.close()


def test_a_topic_lives_from_creation_to_deletion(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 3, 1, config={"retention.ms": "1000000"})])[topic].result(30)
    with pytest.raises(KafkaException) as again:
        admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(30)
    assert again.value.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(30)
    assert len(admin.list_topics(topic, timeout=30).topics[topic].partitions) == 5
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    configs = admin.describe_configs([resource])[resource].result(30)
    assert configs["retention.ms"].value == "1000000"
    assert configs["cleanup.policy"].value == "delete"
    produce_all(bootstrap, topic, [(None, b"old life")])
    admin.delete_topics([topic])[topic].result(30)
    assert topic not in admin.list_topics(timeout=30).topics
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    assert produce_all(bootstrap, topic, [(None, b"new life")]) == [0]


def test_records_before_a_deleted_offset_are_gone(bootstrap: str, topic: str) -> None:
    produce_all(bootstrap, topic, [(None, b"%d" % number) for number in range(20)])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    (future,) = admin.delete_records([TopicPartition(topic, 0, 12)]).values()
    assert future.result(30).low_watermark == 12
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    try:
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30) == (12, 20)
    finally:
        consumer.close()


def test_a_transactional_producer_fails_at_once_with_a_named_error(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "not-yet"})
    with pytest.raises(KafkaException) as failure:
        producer.init_transactions(30)
    assert not failure.value.args[0].retriable()
    assert failure.value.args[0].code() != KafkaError._TIMED_OUT


@pytest.mark.timeout(300)
def test_a_million_records_arrive_once_and_in_order(bootstrap: str, topic: str) -> None:
    count, partitions = 1_000_000, 4
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
            "linger.ms": 5,
        }
    )
    for number in range(count):
        while True:
            try:
                producer.produce(topic, b"%d" % number, partition=number % partitions)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(120) == 0
    for partition in range(partitions):
        messages = read_partition(bootstrap, topic, count // partitions, partition, timeout_s=120)
        assert [int(m.value() or b"") for m in messages] == list(range(partition, count, partitions))
