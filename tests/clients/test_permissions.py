"""Clients that may not what they try: each is told so in words, and goes on once the administrator allows it."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import kafka
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (  # type: ignore[attr-defined]  # made while it is imported
    TopicAuthorizationFailedError as AioRefused,
)
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from kafka.errors import TopicAuthorizationFailedError  # type: ignore[attr-defined]  # made while imported

from tests.clients.members import KINDS, Member, Seen, kafkajs, kinds_named
from tests.clients.secured import ADMIN, PASSWORD, SCRAM_256, Secured, topic_of

WAIT_S = 60.0
COUNT = 10
USER = "bob"
"""May write to topics of his own, as most who ask for a producer's id; everything else is for a test to allow."""


@pytest.fixture(scope="module")
def bob(secured: Secured) -> Secured:
    secured.make_user(USER)
    secured.allow(USER, "--producer", "--prefixed", "--topic", f"{USER}-")
    return secured


@pytest.fixture
def topic(bob: Secured) -> str:
    """A topic that is there, and nothing to Bob."""
    name = topic_of("orders")
    admin = AdminClient(bob.librdkafka(ADMIN))
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(WAIT_S)
    return name


def test_librdkafkas_producer(bob: Secured, topic: str) -> None:
    # It remembers that it may not, until it refreshes what it knows of topics.
    settings = {"enable.idempotence": True, "topic.metadata.refresh.interval.ms": 100}
    producer = Producer(bob.librdkafka(SCRAM_256, USER, settings))
    errors: list[KafkaError | None] = []

    def send() -> KafkaError | None:
        try:
            producer.produce(topic, b"value", on_delivery=lambda error, _: errors.append(error))
        except KafkaException as error:
            refusal: KafkaError = error.args[0]
            return refusal
        assert producer.flush(WAIT_S) == 0
        return errors[-1]

    refused = send()
    assert refused is not None
    assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    bob.allow(USER, "--producer", "--topic", topic)
    assert until(lambda: send() is None)


def until(is_so: Callable[[], bool]) -> bool:
    """Whether something comes about, which a library may take a moment to notice."""
    end = time.monotonic() + WAIT_S
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def passwords() -> dict[str, Any]:
    return {
        "security_protocol": SCRAM_256.protocol,
        "sasl_mechanism": SCRAM_256.mechanism,
        "sasl_plain_username": USER,
        "sasl_plain_password": PASSWORD,
    }


def test_kafka_pythons_producer(bob: Secured, topic: str) -> None:
    producer = kafka.KafkaProducer(bootstrap_servers=bob.addresses[SCRAM_256.protocol], **passwords())

    def is_sent() -> bool:
        try:
            producer.send(topic, b"value").get(WAIT_S)
        except TopicAuthorizationFailedError:
            return False
        return True

    assert not is_sent()
    bob.allow(USER, "--producer", "--topic", topic)
    assert until(is_sent)
    producer.close()


def test_aiokafkas_producer(bob: Secured, topic: str) -> None:
    async def test() -> None:
        settings = {"bootstrap_servers": bob.addresses[SCRAM_256.protocol], **passwords()}
        async with AIOKafkaProducer(**settings) as producer:
            with pytest.raises(AioRefused):
                await producer.send_and_wait(topic, b"value")
            bob.allow(USER, "--producer", "--topic", topic)
            for _ in range(100):
                try:
                    await producer.send_and_wait(topic, b"value")
                except AioRefused:
                    await asyncio.sleep(0.05)
                else:
                    return
        raise AssertionError("it was never sent")

    asyncio.run(asyncio.wait_for(test(), WAIT_S))


class Patient:
    """A program that produces one record after the other; use as a context manager."""

    def __init__(self, name: str, *command: str) -> None:
        self.name = name
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[str] = []

    def read(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            yield line

    def wait_for_refusal(self) -> str:
        for line in self.read():
            if '"problem"' in line:
                return line
        raise AssertionError(f"{self.name} has ended: {self.lines}")

    def __enter__(self) -> Patient:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.toolchain
def test_producers_in_other_languages(bob: Secured, topic: str) -> None:
    # kafka-go looks for a topic among all that it is shown, so that one it may not see does not exist for it.
    bob.allow(USER, "--operation", "describe", "--topic", topic)
    address = bob.addresses[SCRAM_256.protocol]
    settings = (f"security={bob.files(SCRAM_256, USER)}", "pause_ms=20")
    commands = {
        kind.name: [*kind.command(), "produce", address, topic, str(COUNT), *settings]
        for kind in kinds_named("franz-go", "kafka-go", "java")
    }
    commands["kafkajs"] = [*kafkajs("produce"), address, topic, "none", "plain", str(COUNT), *settings]
    with ExitStack() as stack:
        programs = [stack.enter_context(Patient(name, *command)) for name, command in commands.items()]
        for program in programs:
            assert is_refusal_of("topic", program.wait_for_refusal()), program.lines
        bob.allow(USER, "--producer", "--topic", topic)
        for program in programs:
            produced = [line for line in program.read() if '"produced"' in line]
            assert len(produced) == COUNT, (program.name, program.lines)


def is_refusal_of(resource: str, message: str) -> bool:
    """Whether a library's words say that authorization for a kind of resource is missing."""
    words = message.lower().replace("_", " ")
    return resource in words and ("authoriz" in words or "access denied" in words)


def is_refused_its_group(seen: Seen) -> bool:
    return any(is_refusal_of("group", words) for words in seen.problems)


def has_committed_everything(seen: Seen) -> bool:
    return (0, COUNT) in seen.commits


@pytest.mark.toolchain
def test_consumers_need_their_group_and_then_their_topic(bob: Secured, topic: str) -> None:
    producer = Producer(bob.librdkafka(ADMIN))
    for number in range(COUNT):
        producer.produce(topic, str(number))
    assert producer.flush(WAIT_S) == 0
    address, files = bob.addresses[SCRAM_256.protocol], bob.files(SCRAM_256, USER)
    # To begin with the topic is theirs, the groups are not.
    bob.allow(USER, "--operation", "read", "--topic", topic)
    with ExitStack() as stack:
        members = [
            stack.enter_context(Member(kind, address, topic, f"{topic}-{kind.name}", security=files))
            for kind in KINDS
        ]
        for member in members:
            member.wait_for(
                partial(is_refused_its_group, member.seen),
                "it is refused its group",
            )
        assert not [member.kind.name for member in members if member.seen.records]
        bob.allow(USER, "--consumer", "--topic", topic, "--prefixed", "--group", topic)
        for member in members:
            member.wait_for(
                partial(has_committed_everything, member.seen), "it has read and committed everything"
            )
            assert [int(value) for _, _, value in member.seen.records] == list(range(COUNT))
        for member in members:
            member.stop()
