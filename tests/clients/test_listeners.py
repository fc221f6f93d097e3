"""librdkafka and aiokafka on listeners with TLS, with SASL and with both, beside one with neither."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.support.certificates import Authority, Issued
from tests.support.process import AgentProcess, free_port

PROTOCOLS = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
USER, PASSWORD = "alice", "alice's secret, with a comma"


@dataclass
class Guarded:
    """An agent with a listener of each protocol, and what its clients need."""

    plain: str
    addresses: dict[str, str]
    authority: Authority
    shown: Issued
    process: AgentProcess

    def options(self, protocol: str, mechanism: str = "SCRAM-SHA-256", **more: Any) -> dict[str, Any]:
        """Settings of a librdkafka client."""
        found: dict[str, Any] = {"bootstrap.servers": self.addresses[protocol], "security.protocol": protocol}
        if protocol.endswith("SSL"):
            found["ssl.ca.location"] = str(self.authority.ca)
            found["ssl.certificate.location"] = str(self.shown.certificate)
            found["ssl.key.location"] = str(self.shown.key)
        if protocol.startswith("SASL"):
            found |= {"sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": PASSWORD}
        return {**found, **more}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("listeners")
    authority = Authority(directory)
    server = authority.issue("server")
    addresses = {protocol: f"127.0.0.1:{free_port()}" for protocol in PROTOCOLS}
    options = [
        word for protocol, address in addresses.items() for word in ("--listen", f"{protocol}://{address}")
    ]
    options += ["--tls-certificate", str(server.certificate), "--tls-key", str(server.key)]
    options += ["--tls-client-ca", str(authority.ca), "--tls-client-auth", "required"]
    options += ["--sasl-mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"]
    with AgentProcess(directory / "data", *options) as process:
        admin = AdminClient({"bootstrap.servers": process.bootstrap})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            upsertion = UserScramCredentialUpsertion(
                USER, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode()
            )
            for future in admin.alter_user_scram_credentials([upsertion]).values():
                future.result(30)
        yield Guarded(process.bootstrap, addresses, authority, authority.issue("client"), process)


def round_trip(options: dict[str, Any]) -> None:
    """Write and read a few records."""
    topic = f"t-{uuid.uuid4().hex[:12]}"
    values = [bytes([number]) * size for number, size in enumerate((1, 5_000, 200_000, 900_000))]
    errors: list[KafkaError] = []
    producer = Producer(options)
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error) if error else None)
    assert producer.flush(60) == 0
    assert not errors
    consumer = Consumer({**options, "group.id": topic, "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        read: list[bytes | None] = []
        while len(read) < len(values):
            message = consumer.poll(60)
            assert message is not None
            if message.error():
                raise KafkaException(message.error())
            read.append(message.value())
    finally:
        consumer.close()
    assert sorted(map(len, filter(None, read))) == sorted(map(len, values))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_librdkafka_authenticates(guarded: Guarded, protocol: str, mechanism: str) -> None:
    round_trip(guarded.options(protocol, mechanism))


def test_librdkafka_shows_its_certificate(guarded: Guarded) -> None:
    round_trip(guarded.options("SSL"))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_librdkafka_with_a_wrong_password_is_told_so(guarded: Guarded, mechanism: str) -> None:
    errors: list[KafkaError] = []
    options = guarded.options("SASL_SSL", mechanism)
    more: dict[str, Any] = {"sasl.password": "a mistaken secret", "error_cb": errors.append}
    admin = AdminClient({**options, **more})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=3)
    admin.poll(1)
    assert KafkaError._AUTHENTICATION in [error.code() for error in errors]
    output = "\n".join(guarded.process.output)
    assert "by " + mechanism + " failed" in output
    assert "mistaken" not in output
    assert PASSWORD not in output


def test_librdkafka_without_a_certificate_is_not_let_in(guarded: Guarded) -> None:
    options = guarded.options("SSL")
    del options["ssl.certificate.location"], options["ssl.key.location"]
    with pytest.raises(KafkaException):
        AdminClient(options).list_topics(timeout=3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_aiokafka_writes_and_reads(guarded: Guarded, protocol: str) -> None:
    context: ssl.SSLContext | None = None
    if protocol.endswith("SSL"):
        context = guarded.authority.client_context(guarded.shown)
    options: dict[str, Any] = {
        "bootstrap_servers": guarded.addresses[protocol],
        "security_protocol": protocol,
        "ssl_context": context,
    }
    if protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": USER,
            "sasl_plain_password": PASSWORD,
        }

    async def write_and_read() -> bytes | None:
        topic = f"t-{uuid.uuid4().hex[:12]}"
        producer = AIOKafkaProducer(**options)
        await producer.start()
        try:
            await producer.send_and_wait(topic, b"value")
        finally:
            await producer.stop()
        consumer = AIOKafkaConsumer(topic, auto_offset_reset="earliest", **options)
        await consumer.start()
        try:
            return (await asyncio.wait_for(consumer.getone(), 60)).value
        finally:
            await consumer.stop()

    assert asyncio.run(write_and_read()) == b"value"
