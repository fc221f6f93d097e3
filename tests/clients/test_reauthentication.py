"""Sessions that end after two seconds while clients write and read all the time: nothing is lost or comes twice.

Clients authenticate again on the connection that they have (KIP-368), between requests that are under way.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from kafka import KafkaProducer

from tests.clients.members import kinds_named, produce
from tests.clients.secured import OAUTHBEARER, PLAIN, SCRAM_256, SCRAM_512, Secured, Way, topic_of
from tests.clients.test_ways_in import kafka_python

pytestmark = pytest.mark.toolchain
SESSION_S = 2
PAUSE_MS = 30
COUNT = 120
"""Records of each client: with the pauses between them twice as long as a session."""
WAIT_S = 60.0


@pytest.fixture
def short_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("short-sessions")
    with Secured(directory, "--sasl-session-max", f"{SESSION_S}s") as secured:
        yield secured


def written_by_librdkafka(secured: Secured, way: Way, topic: str) -> list[tuple[int, int, str]]:
    """The same that the programs do that `produce` runs."""
    written: list[tuple[int, int, str]] = []

    def note(error: KafkaError | None, message: Message) -> None:
        assert error is None
        written.append((0, message.offset() or 0, (message.value() or b"").decode()))

    producer = Producer(secured.librdkafka(way, more={"enable.idempotence": True}))
    for number in range(COUNT):
        producer.produce(topic, str(number), partition=0, on_delivery=note)
        producer.poll(0)
        time.sleep(PAUSE_MS / 1000)
    assert producer.flush(WAIT_S) == 0
    return written


def written_by_kafka_python(secured: Secured, topic: str) -> list[tuple[int, int, str]]:
    producer = KafkaProducer(**kafka_python(secured, SCRAM_512))
    written = []
    for number in range(COUNT):
        sent = producer.send(topic, str(number).encode(), partition=0).get(WAIT_S)
        written.append((sent.partition, sent.offset, str(number)))
        time.sleep(PAUSE_MS / 1000)
    producer.close()
    return written


def read_by_librdkafka(secured: Secured, way: Way, topic: str) -> list[str]:
    """All records of a topic, by a client that asks for more from before the first of them has been written."""
    consumer = Consumer(secured.librdkafka(way, more={"group.id": topic}))
    try:
        consumer.list_topics(topic, WAIT_S)
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [(message.value() or b"").decode() for message in consumer.consume(COUNT, WAIT_S)]
    finally:
        consumer.close()


def metric(secured: Secured, pattern: str) -> float:
    with urllib.request.urlopen(f"{secured.process.http}/metrics", timeout=WAIT_S) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))


def test_clients_authenticate_again_while_they_write_and_read(short_sessions: Secured) -> None:
    secured = short_sessions
    # For metrics.
    secured.allow("ANONYMOUS", "--operation", "describe", "--cluster")
    opened_before = metric(secured, "warp_connections_opened_total")
    by_librdkafka = {way: topic_of(way.principal) for way in (SCRAM_512, OAUTHBEARER)}
    programs = {"java": SCRAM_256, "franz-go": PLAIN}
    with ThreadPoolExecutor(max_workers=8) as threads:
        writers = [
            threads.submit(written_by_librdkafka, secured, way, topic) for way, topic in by_librdkafka.items()
        ]
        readers = [
            threads.submit(read_by_librdkafka, secured, way, topic) for way, topic in by_librdkafka.items()
        ]
        writers.append(threads.submit(written_by_kafka_python, secured, topic_of(SCRAM_512.principal)))
        for name, way in programs.items():
            (kind,) = kinds_named(name)
            where = (secured.addresses[way.protocol], topic_of(way.principal))
            settings: dict[str, Any] = {"security": secured.files(way), "pause_ms": PAUSE_MS}
            writers.append(threads.submit(produce, kind, *where, COUNT, **settings))
    for writer in writers:
        assert writer.result() == [(0, number, str(number)) for number in range(COUNT)]
    for reader in readers:
        assert reader.result() == [str(number) for number in range(COUNT)]
    authentications = metric(secured, r'warp_authentications_total{mechanism="[A-Z0-9-]+",outcome="ok"}')
    opened = metric(secured, "warp_connections_opened_total") - opened_before
    # A connection whose client did not authenticate again would have been closed, and one more opened.
    assert authentications - opened >= len(writers) + len(readers), (authentications, opened)
