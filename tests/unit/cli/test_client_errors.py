"""What a command says of the errors of the library that it uses."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from tests.unit.cli.test_client_config import found
from warp.cli.client import Client

PLACE = "ssl://broker.example:9093/bootstrap: "


@pytest.mark.parametrize("code", [KafkaError._SSL, KafkaError._TRANSPORT])
def test_a_handshake_that_fails_is_told_as_such_whatever_code_it_comes_with(code: int) -> None:
    client = Client(found("--bootstrap", "broker.example:9093"))
    client.note_error(KafkaError(code, f"{PLACE}error:0A000086:SSL routines::certificate verify failed"))
    client.note_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    told = str(client.failure(KafkaError(KafkaError._TRANSPORT, "Failed to get metadata")))
    assert told.startswith("no TLS with broker.example:9093: ")
    assert "certificate verify failed" in told


def test_a_connection_that_is_refused_is_no_matter_of_tls() -> None:
    client = Client(found("--bootstrap", "broker.example:9093"))
    client.note_error(
        KafkaError(KafkaError._TRANSPORT, f"{PLACE}Connect to ipv4#10.0.0.1:9093 failed: refused")
    )
    told = str(client.failure(KafkaError(KafkaError._TRANSPORT, "Failed to get metadata")))
    assert told.startswith("no broker answered at broker.example:9093 within ")
    assert "(refused)" in told
