"""Clients that authenticate: each library by each mechanism that it has, and admin clients that make users."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition as AioTopicPartition
from aiokafka.abc import AbstractTokenProvider
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Producer,
    TopicPartition as ConfluentPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism as ConfluentMechanism,
    UserScramCredentialDeletion as ConfluentDeletion,
    UserScramCredentialUpsertion as ConfluentUpsertion,
)
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import (
    KafkaAdminClient,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka.errors import KafkaError

from tests.support.process import AgentProcess, free_port
from tests.unit.security.sasl_support import SigningKeys

NAME, PASSWORD = "alice, the =1", "right, =password"
PLAIN_NAME = "jürgen"
"""For kafka-python, which does not escape commas and equals signs in names."""
PASSWORDS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
ALL = (*PASSWORDS, "OAUTHBEARER")
VALUES = [b"%d" % number for number in range(50)]


class Place:
    """An agent with an open listener and one where clients authenticate, and the keys of an issuer."""

    def __init__(self, agent: AgentProcess, sasl: str, keys: SigningKeys) -> None:
        self.open = agent.bootstrap
        self.sasl = sasl
        self.keys = keys
        self.output = agent.output

    def token(self, **claims: Any) -> str:
        now_s = int(time.time())
        return self.keys.token(**{"sub": "bearer, of =tokens", "iat": now_s, "exp": now_s + 600, **claims})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("sasl")
    keys = SigningKeys()
    (directory / "keys.json").write_bytes(keys.key_set())
    sasl = f"127.0.0.1:{free_port()}"
    with AgentProcess(
        directory / "data",
        "--listen", f"SASL_PLAINTEXT://{sasl}",
        "--sasl-mechanisms", ",".join(ALL),
        "--oauth-jwks", str(directory / "keys.json"),
        "--oauth-issuer", "https://issuer",
        "--oauth-audience", "warp",
    ) as agent:  # fmt: skip
        found = Place(agent, sasl, keys)
        admin = AdminClient({"bootstrap.servers": found.open})
        upsertions = [
            ConfluentUpsertion(name, ScramCredentialInfo(mechanism, 8192), PASSWORD.encode())
            for name in (NAME, PLAIN_NAME)
            for mechanism in (ConfluentMechanism.SCRAM_SHA_256, ConfluentMechanism.SCRAM_SHA_512)
        ]
        for future in admin.alter_user_scram_credentials(list(upsertions)).values():
            future.result(30)
        yield found


def confluent(place: Place, mechanism: str, password: str = PASSWORD, **settings: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "bootstrap.servers": place.sasl,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        **settings,
    }
    if mechanism == "OAUTHBEARER":
        token = place.token() if password == PASSWORD else "a.b.c"
        return {**made, "oauth_cb": lambda _: (token, time.time() + 600, "bearer", {})}
    return {**made, "sasl.username": NAME, "sasl.password": password}


@pytest.mark.parametrize("mechanism", ALL)
def test_confluent_kafka_gets_in(place: Place, topic: str, mechanism: str) -> None:
    producer = Producer(confluent(place, mechanism))
    for value in VALUES:
        producer.produce(topic, value, partition=0)
    assert producer.flush(60) == 0
    consumer = Consumer(confluent(place, mechanism, **{"group.id": uuid.uuid4().hex}))
    consumer.assign([ConfluentPartition(topic, 0, OFFSET_BEGINNING)])
    read: list[bytes | None] = []
    while len(read) < len(VALUES):
        message = consumer.poll(30)
        assert message is not None
        assert message.error() is None
        read.append(message.value())
    consumer.close()
    assert read == VALUES


@pytest.mark.parametrize("mechanism", ALL)
def test_confluent_kafka_is_told_that_it_is_refused(place: Place, mechanism: str) -> None:
    errors: list[str] = []
    settings = confluent(
        place, mechanism, "wrong", error_cb=lambda error: errors.append(error.str()), log_level=0
    )
    client = AdminClient(settings)
    for _ in range(100):
        with pytest.raises(KafkaException):
            client.list_topics(timeout=0.5)
        client.poll(0)
        if any("Authentication failed" in error for error in errors):
            return
    raise AssertionError(errors)


class Provider(AbstractTokenProvider):
    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token


def aio(place: Place, mechanism: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "bootstrap_servers": place.sasl,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
    }
    if mechanism == "OAUTHBEARER":
        return {**made, "sasl_oauth_token_provider": Provider(place.token())}
    return {**made, "sasl_plain_username": NAME, "sasl_plain_password": PASSWORD}


@pytest.mark.parametrize("mechanism", ALL)
def test_aiokafka_gets_in(place: Place, topic: str, mechanism: str) -> None:
    async def test() -> list[bytes | None]:
        producer = AIOKafkaProducer(**aio(place, mechanism))
        await producer.start()
        sent = [await producer.send(topic, value, partition=0) for value in VALUES]
        await producer.flush()
        assert [(await each).offset for each in sent] == list(range(len(VALUES)))
        await producer.stop()
        consumer = AIOKafkaConsumer(**aio(place, mechanism))
        await consumer.start()
        try:
            partition = AioTopicPartition(topic, 0)
            consumer.assign([partition])
            await consumer.seek_to_beginning(partition)
            return [(await consumer.getone()).value for _ in VALUES]
        finally:
            await consumer.stop()

    assert asyncio.run(asyncio.wait_for(test(), 60)) == VALUES


def python(place: Place, mechanism: str, password: str = PASSWORD) -> dict[str, Any]:
    return {
        "bootstrap_servers": place.sasl,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": PLAIN_NAME,
        "sasl_plain_password": password,
    }


@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_kafka_python_gets_in(place: Place, topic: str, mechanism: str) -> None:
    producer = KafkaProducer(**python(place, mechanism))
    for value in VALUES:
        producer.send(topic, value, partition=0)
    producer.flush(60)
    producer.close()
    consumer = KafkaConsumer(consumer_timeout_ms=30_000, **python(place, mechanism))
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    assert [next(consumer).value for _ in VALUES] == VALUES
    consumer.close()


@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_kafka_python_is_told_that_it_is_refused(place: Place, mechanism: str) -> None:
    with pytest.raises(KafkaError):
        KafkaAdminClient(bootstrap_timeout_ms=2_000, **python(place, mechanism, "wrong"))


def test_kafka_pythons_admin_makes_describes_and_deletes_users(place: Place) -> None:
    admin = KafkaAdminClient(bootstrap_servers=place.open)
    mechanism = ScramMechanism.SCRAM_SHA_512
    made = [UserScramCredentialUpsertion("bob", mechanism, "pässword", iterations=4096)]
    assert admin.alter_user_scram_credentials(made) == {"bob": None}
    described = admin.describe_user_scram_credentials(["bob"])["bob"]
    assert [(info["mechanism"], info["iterations"]) for info in described["credential_infos"]] == [
        (mechanism, 4096)
    ]
    settings = {"sasl_plain_username": "bob", "sasl_plain_password": "pässword"}
    KafkaAdminClient(**{**python(place, "SCRAM-SHA-512"), **settings}).close()
    assert admin.alter_user_scram_credentials([UserScramCredentialDeletion("bob", mechanism)]) == {
        "bob": None
    }
    assert refusal_of(
        lambda: admin.alter_user_scram_credentials([UserScramCredentialDeletion("bob", mechanism)])
    )
    admin.close()


def refusal_of(ask: Callable[[], dict[str, str | None]]) -> object:
    """What an admin client says, by its result or by an error."""
    try:
        return ask()["bob"]
    except KafkaError as error:
        return error


def test_confluent_kafkas_admin_is_told_what_is_wrong_with_each_user(place: Place) -> None:
    admin = AdminClient({"bootstrap.servers": place.open})
    mechanism = ConfluentMechanism.SCRAM_SHA_256
    futures = admin.alter_user_scram_credentials(
        [
            ConfluentUpsertion("few", ScramCredentialInfo(mechanism, 4095), b"password"),
            ConfluentDeletion("nobody", mechanism),
            ConfluentUpsertion("good", ScramCredentialInfo(mechanism, 4096), b"password"),
        ]
    )
    assert futures["good"].result(30) is None
    for name, code in (("few", "UNACCEPTABLE_CREDENTIAL"), ("nobody", "RESOURCE_NOT_FOUND")):
        with pytest.raises(KafkaException, match=code):
            futures[name].result(30)
    described: Any = admin.describe_user_scram_credentials(["good", "nobody"])
    (info,) = described["good"].result(30).scram_credential_infos
    assert (info.mechanism, info.iterations) == (mechanism, 4096)
    with pytest.raises(KafkaException, match="RESOURCE_NOT_FOUND"):
        described["nobody"].result(30)
    admin.alter_user_scram_credentials([ConfluentDeletion("good", mechanism)])["good"].result(30)


def test_no_password_and_no_token_has_been_logged(place: Place) -> None:
    shown = "\n".join(place.output)
    assert "authentication of" in shown
    for secret in (PASSWORD, "pässword", place.token().split(".")[0]):
        assert secret not in shown
