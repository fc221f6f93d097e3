"""Clients that are held back by quotas: what their libraries make of it, and that others don't notice.

The agent is shared with other tests, so every quota here is of a client id that no other test uses.

Readers beyond their quota wait until what they have read is ten seconds old. Those of all libraries do so at the same
time, beside the other tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import aiokafka
import kafka
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, ThrottleEvent, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.admin import KafkaAdminClient, NewTopic as NewTopicOfKafkaPython
from kafka.errors import (  # type: ignore[attr-defined]  # classes made while it is imported
    NodeNotReadyError,
    ThrottlingQuotaExceededError,
)

from warp.cli.main import main

VALUE = bytes(1_000)
RECORDS = 112
"""About a second more than what a quota of 10 KiB/s lets through at once."""
PATIENCE_S = 90.0


def new_client_id() -> str:
    return f"client-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client_id() -> str:
    return new_client_id()


def limit(bootstrap: str, client_id: str, *quotas: str) -> None:
    assert main(["quota", "set", "--client-id", client_id, *quotas, "--bootstrap", bootstrap]) == 0


def fill(bootstrap: str, topic: str, count: int) -> None:
    """So many records of a kilobyte, by a client that nobody limits."""
    producer = Producer({"bootstrap.servers": bootstrap, "batch.size": 20_000})
    for _ in range(count):
        producer.produce(topic, VALUE, partition=0)
    assert producer.flush(PATIENCE_S) == 0


def read(consumer: Consumer, topic: str, count: int) -> int:
    """How many of the first `count` records of a partition come within a while."""
    consumer.assign([TopicPartition(topic, 0, 0)])
    found, end = 0, time.monotonic() + PATIENCE_S
    while found < count and time.monotonic() < end:
        for message in consumer.consume(count - found, 0.2):
            if message.error():
                raise KafkaException(message.error())
            found += 1
    return found


def read_by_librdkafka(bootstrap: str, topic: str, client_id: str) -> int:
    """How many records come of those that are written here; some only after a throttle that the client is told of."""
    fill(bootstrap, topic, RECORDS)
    events: list[ThrottleEvent] = []
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "group.id": "unused",
            "enable.auto.commit": False,
            "throttle_cb": events.append,
        }
    )
    try:
        found = read(consumer, topic, RECORDS)
    finally:
        consumer.close()
    assert max(event.throttle_time for event in events) > 0
    return found


def write_and_read_by_aiokafka(bootstrap: str, topic: str, client_id: str) -> int:
    async def work() -> int:
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, client_id=client_id)
        await producer.start()
        try:
            sent = [await producer.send(topic, VALUE, partition=0) for _ in range(RECORDS)]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()
        consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, client_id=client_id)
        await consumer.start()
        try:
            consumer.assign([aiokafka.TopicPartition(topic, 0)])
            await consumer.seek_to_beginning()
            return len([await consumer.getone() for _ in range(RECORDS)])
        finally:
            await consumer.stop()

    return asyncio.run(asyncio.wait_for(work(), PATIENCE_S))


def write_and_read_by_kafka_python(bootstrap: str, topic: str, client_id: str) -> int:
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, client_id=client_id)
    for sent in [producer.send(topic, VALUE, partition=0) for _ in range(RECORDS)]:
        sent.get(PATIENCE_S)
    producer.close()
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, client_id=client_id, group_id=None)
    partition = kafka.TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    found, end = 0, time.monotonic() + PATIENCE_S
    while found < RECORDS and time.monotonic() < end:
        found += sum(map(len, consumer.poll(200).values()))
    consumer.close()
    return found


READERS: dict[str, tuple[Callable[[str, str, str], int], tuple[str, ...]]] = {
    "librdkafka": (read_by_librdkafka, ("consumer_byte_rate=10KiB",)),
    "aiokafka": (
        write_and_read_by_aiokafka,
        ("producer_byte_rate=10KiB", "consumer_byte_rate=10KiB", "request_percentage=50"),
    ),
    "kafka-python": (
        write_and_read_by_kafka_python,
        ("producer_byte_rate=10KiB", "consumer_byte_rate=10KiB"),
    ),
}


@pytest.fixture(scope="module")
def readers(bootstrap: str) -> Iterator[dict[str, Future[int]]]:
    """Each library's, on its way to reading all its records."""
    with ThreadPoolExecutor() as threads:
        found = {}
        for library, (work, quotas) in READERS.items():
            client_id = new_client_id()
            limit(bootstrap, client_id, *quotas)
            found[library] = threads.submit(work, bootstrap, f"topic-of-{client_id}", client_id)
        yield found


@pytest.mark.usefixtures("readers")  # which begin with the first test of all
def test_librdkafka_tells_its_producer_of_the_throttle_and_delivers_everything(
    bootstrap: str, topic: str, client_id: str
) -> None:
    limit(bootstrap, client_id, "producer_byte_rate=10KiB")
    events: list[ThrottleEvent] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "linger.ms": 5,
            "batch.size": 20_000,
            "throttle_cb": events.append,
        }
    )
    for _ in range(125):
        producer.produce(topic, VALUE)
    assert producer.flush(PATIENCE_S) == 0
    producer.poll(0)
    assert events
    assert all(0 <= event.throttle_time <= 20 for event in events)
    assert max(event.throttle_time for event in events) > 0


def test_a_batch_larger_than_the_quota_of_its_reader_is_read(
    bootstrap: str, topic: str, client_id: str
) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 100})
    producer.produce(topic, bytes(500_000), partition=0)
    assert producer.flush(PATIENCE_S) == 0
    limit(bootstrap, client_id, "consumer_byte_rate=1KiB")
    consumer = Consumer({"bootstrap.servers": bootstrap, "client.id": client_id, "group.id": "unused"})
    try:
        assert read(consumer, topic, 1) == 1
    finally:
        consumer.close()


def test_a_throttled_flood_does_not_disturb_another_client(
    bootstrap: str, topic: str, client_id: str
) -> None:
    limit(bootstrap, client_id, "producer_byte_rate=1KiB")
    floods = [
        Producer(
            {"bootstrap.servers": bootstrap, "client.id": client_id, "batch.size": 50_000, "linger.ms": 0}
        )
        for _ in range(4)
    ]
    for flood in floods:
        for _ in range(20_000):
            flood.produce(f"{topic}-flood", VALUE)
        flood.poll(0)
    fill(bootstrap, topic, 500)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    try:
        assert read(consumer, topic, 500) == 500
        # Eighty megabytes at a kilobyte per second: hardly any of them have been let in meanwhile.
        _, flooded = consumer.get_watermark_offsets(TopicPartition(f"{topic}-flood", 0), timeout=PATIENCE_S)
    finally:
        consumer.close()
    assert flooded < 2_000
    for flood in floods:
        assert len(flood) > 10_000
        flood.purge()


def test_an_admin_client_beyond_its_quota_of_changes_is_served_late(
    bootstrap: str, topic: str, client_id: str
) -> None:
    limit(bootstrap, client_id, "controller_mutation_rate=1")
    # librdkafka asks in a version that does not know the error.
    admin = AdminClient({"bootstrap.servers": bootstrap, "client.id": client_id})
    for name in (f"{topic}-a", f"{topic}-b"):
        admin.create_topics([NewTopic(name, 6, 1)])[name].result(PATIENCE_S)
    topics = admin.list_topics(timeout=PATIENCE_S).topics
    assert [len(topics[f"{topic}-{letter}"].partitions) for letter in "ab"] == [6, 6]


def test_an_admin_client_that_knows_the_error_is_refused_and_may_try_again(
    bootstrap: str, topic: str, client_id: str
) -> None:
    limit(bootstrap, client_id, "controller_mutation_rate=1")
    admin = KafkaAdminClient(bootstrap_servers=bootstrap, client_id=client_id)
    watcher = AdminClient({"bootstrap.servers": bootstrap})
    try:
        admin.create_topics([NewTopicOfKafkaPython(f"{topic}-a", 12, 1)])
        with pytest.raises(ThrottlingQuotaExceededError):
            admin.create_topics([NewTopicOfKafkaPython(f"{topic}-b", 1, 1)])
        assert f"{topic}-b" not in watcher.list_topics(timeout=PATIENCE_S).topics
        end = time.monotonic() + PATIENCE_S
        while f"{topic}-b" not in watcher.list_topics(timeout=PATIENCE_S).topics and time.monotonic() < end:
            # The library has no broker to ask for as long as it was told to wait.
            with contextlib.suppress(NodeNotReadyError):
                admin.create_topics([NewTopicOfKafkaPython(f"{topic}-b", 1, 1)])
            time.sleep(0.05)
    finally:
        admin.close()
    assert f"{topic}-b" in watcher.list_topics(timeout=PATIENCE_S).topics


@pytest.mark.parametrize("library", READERS)
def test_a_reader_beyond_its_quota_waits_and_reads_everything(
    readers: dict[str, Future[int]], library: str
) -> None:
    assert readers[library].result(PATIENCE_S) == RECORDS
