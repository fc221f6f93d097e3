"""Every client by every way in: TLS, certificates of clients, each mechanism of SASL with and without TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition as AioPartition
from aiokafka.abc import AbstractTokenProvider
from confluent_kafka import Consumer, Producer, TopicPartition as ConfluentPartition
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.net.sasl.oauth import (  # type: ignore[import-untyped]
    AbstractTokenProvider as KafkaPythonTokenProvider,
)

from tests.clients.java_tools import JavaTools
from tests.clients.members import kafkajs, kinds_named, produce, produced_records
from tests.clients.secured import (
    ADMIN,
    MUTUAL_TLS,
    OAUTHBEARER,
    PASSWORD,
    SCRAM_512,
    SSL,
    WAYS,
    Secured,
    Way,
    topic_of,
)

WAIT_S = 60.0
VALUES = [b"%d" % number for number in range(20)]
PRODUCED = [(0, number, str(number)) for number in range(20)]


def by(*ways: Way) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("way", ways, ids=lambda way: way.name)


Reader = Callable[[str], list[bytes | None]]


@pytest.fixture(scope="module")
def read_as_admin(secured: Secured) -> Iterator[Reader]:
    """Reads the first records of a topic's one partition."""
    # A request for what the test before has read may be out when the next one asks.
    consumer = Consumer(secured.librdkafka(ADMIN, more={"group.id": "unused", "fetch.wait.max.ms": 20}))
    yield lambda topic: read(consumer, topic)
    consumer.close()


def read(consumer: Consumer, topic: str) -> list[bytes | None]:
    # A topic that the library has not heard of takes it half a second or a whole one.
    consumer.list_topics(topic, WAIT_S)
    consumer.assign([ConfluentPartition(topic, 0, 0)])
    return [message.value() for message in consumer.consume(len(VALUES), WAIT_S)]


@by(OAUTHBEARER, MUTUAL_TLS)
def test_librdkafka(secured: Secured, way: Way) -> None:
    topic = topic_of(way.principal)
    producer = Producer(secured.librdkafka(way))
    for value in VALUES:
        producer.produce(topic, value, partition=0)
    assert producer.flush(WAIT_S) == 0
    consumer = Consumer(secured.librdkafka(way, more={"group.id": topic}))
    assert read(consumer, topic) == VALUES
    consumer.close()


class AioProvider(AbstractTokenProvider):
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


def aio(secured: Secured, way: Way) -> dict[str, Any]:
    context = ssl.create_default_context(cafile=str(secured.authority.ca))
    if (shown := secured.certificate(way)) is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    settings = {
        "bootstrap_servers": secured.addresses[way.protocol],
        "security_protocol": way.protocol,
        "ssl_context": context,
    }
    if way.mechanism == "OAUTHBEARER":
        settings["sasl_oauth_token_provider"] = AioProvider(secured.token())
    return {**settings, "sasl_mechanism": way.mechanism} if way.mechanism else settings


@by(OAUTHBEARER, MUTUAL_TLS)
def test_aiokafka(secured: Secured, way: Way) -> None:
    topic = topic_of(way.principal)

    async def test() -> list[bytes | None]:
        async with AIOKafkaProducer(**aio(secured, way)) as producer:
            for value in VALUES:
                await producer.send_and_wait(topic, value, partition=0)
        async with AIOKafkaConsumer(**aio(secured, way)) as consumer:
            consumer.assign([AioPartition(topic, 0)])
            await consumer.seek_to_beginning()
            return [(await consumer.getone()).value for _ in VALUES]

    assert asyncio.run(asyncio.wait_for(test(), WAIT_S)) == VALUES


class KafkaPythonProvider(KafkaPythonTokenProvider):  # type: ignore[misc]
    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        return self._token


def kafka_python(secured: Secured, way: Way) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "bootstrap_servers": secured.addresses[way.protocol],
        "security_protocol": way.protocol,
        "ssl_cafile": str(secured.authority.ca),
    }
    if (shown := secured.certificate(way)) is not None:
        settings |= {"ssl_certfile": str(shown.certificate), "ssl_keyfile": str(shown.key)}
    if way.mechanism is None:
        return settings
    settings["sasl_mechanism"] = way.mechanism
    if way.mechanism == "OAUTHBEARER":
        return {**settings, "sasl_oauth_token_provider": KafkaPythonProvider(secured.token())}
    return {**settings, "sasl_plain_username": way.principal, "sasl_plain_password": PASSWORD}


@by(SSL, MUTUAL_TLS, SCRAM_512, OAUTHBEARER)
def test_kafka_python(secured: Secured, way: Way) -> None:
    topic = topic_of(way.principal)
    producer = KafkaProducer(**kafka_python(secured, way))
    sent = [producer.send(topic, value, partition=0) for value in VALUES]
    assert [each.get(WAIT_S).offset for each in sent] == list(range(len(VALUES)))
    producer.close()
    consumer = KafkaConsumer(consumer_timeout_ms=30_000, **kafka_python(secured, way))
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    assert [next(consumer).value for _ in VALUES] == VALUES
    consumer.close()


@pytest.mark.toolchain
@by(*WAYS)
def test_kafkajs(secured: Secured, read_as_admin: Reader, way: Way) -> None:
    topic = topic_of(way.principal)
    job = (secured.addresses[way.protocol], topic, "none", "plain", "20", f"security={secured.files(way)}")
    done = subprocess.run([*kafkajs("produce"), *job], capture_output=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout.splitlines()[-1])["baseOffsets"] == ["0", "10"]
    assert [(value or b"").split()[1] for value in read_as_admin(topic)] == VALUES


# kafka-go brings no mechanism for OAUTHBEARER.
@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name in ("franz-go", "kafka-go")
        for way in WAYS
        if (name, way) != ("kafka-go", OAUTHBEARER)
    ],
    ids=lambda value: value.name if isinstance(value, Way) else value,
)
def test_go(secured: Secured, read_as_admin: Reader, name: str, way: Way) -> None:
    topic = topic_of(way.principal)
    (kind,) = kinds_named(name)
    produced = produce(kind, secured.addresses[way.protocol], topic, 20, security=secured.files(way))
    assert sorted(produced) == PRODUCED
    assert read_as_admin(topic) == VALUES


@pytest.mark.toolchain
@by(*WAYS)
def test_java(secured: Secured, java_tools: JavaTools, read_as_admin: Reader, way: Way) -> None:
    topic = topic_of(way.principal)
    job = (secured.addresses[way.protocol], topic, "20", f"security={secured.files(way)}")
    assert produced_records(java_tools.succeed("member.Member", "produce", *job)) == PRODUCED
    assert read_as_admin(topic) == VALUES
