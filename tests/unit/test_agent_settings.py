"""What an agent tells others of itself, by its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from warp.agent_settings import broker_settings, listener_configs, open_passwords, peer_address
from warp.cluster.broker_config import BY_NAME as BROKER_CONFIGS, describe_broker
from warp.config import config_of
from warp.config_values import Address
from warp.handlers.context import Endpoint
from warp.ids import BrokerId

KAFKA = Endpoint("broker.example", 9092)


@pytest.mark.parametrize(
    ("told", "kafka", "http", "expected"),
    [
        (None, KAFKA, Address("0.0.0.0", 8080), "broker.example:8080"),
        (None, KAFKA, Address("10.0.0.1", 8080), "broker.example:8080"),
        (None, Endpoint("::1", 9092), Address("::1", 8080), "[::1]:8080"),
        (None, Endpoint("127.0.0.1", 9092), Address("127.0.0.1", 41234), "127.0.0.1:41234"),
        (None, KAFKA, Address("127.0.0.1", 8080), None),
        (None, KAFKA, None, None),
        ("10.0.0.9", KAFKA, Address("0.0.0.0", 8080), "10.0.0.9:8080"),
        ("10.0.0.9:80", KAFKA, Address("127.0.0.1", 8080), "10.0.0.9:80"),
    ],
)
def test_other_agents_are_told_where_they_reach_the_http_face_or_that_they_dont(
    told: str | None, kafka: Endpoint, http: Address | None, expected: str | None
) -> None:
    config = config_of(**({} if told is None else {"advertise_http": told}))
    assert peer_address(config, kafka, http) == expected


def test_an_advertised_address_without_a_port_takes_that_of_its_listener() -> None:
    config = config_of(listen=["0.0.0.0:1", "127.0.0.1:0"], advertise=["a", "b:7"])
    assert [listener.advertise for listener in listener_configs(config)] == [
        Endpoint("a", 1),
        Endpoint("b", 7),
    ]


def test_settings_have_names_that_kafka_knows_and_no_secrets(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hunter2")
    config = config_of(
        listen=["PLAINTEXT://127.0.0.1:1", "SASL_SSL://127.0.0.1:2"],
        tls_certificate="certificate.pem",
        tls_key_password_file=str(password),
        tls_client_ca="ca.pem",
        tls_client_auth="requested",
        sasl_mechanisms="PLAIN,SCRAM-SHA-256",
        sasl_session_max_ms="1h",
        authorization="enforce",
        super_users="User:admin;User:CN=operator",
        connection_rate_max="50",
        connections_per_address_max="10",
        zone="zone-1",
    )
    settings = broker_settings(config, BrokerId(7))
    assert set(settings) <= set(BROKER_CONFIGS)
    described = {entry.name: entry for entry in describe_broker(settings)}
    assert {name: entry.value for name, entry in described.items() if "ssl." in name or "sasl." in name} == {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
        "ssl.client.auth": "requested",
        "ssl.key.password": None,
        "ssl.keystore.location": "certificate.pem",
        "ssl.principal.mapping.rules": "DEFAULT",
        "ssl.truststore.location": "ca.pem",
    }
    assert described["super.users"].value == "User:admin;User:CN=operator"
    assert described["authorizer.class.name"].value
    assert described["connections.max.reauth.ms"].value == "3600000"
    assert described["max.connection.creation.rate"].value == "50"
    assert described["max.connections.per.ip"].value == "10"
    assert described["listeners"].value == "PLAINTEXT://127.0.0.1:1,SASL_SSL://127.0.0.1:2"
    assert "hunter2" not in repr(described)


def test_an_open_agent_names_no_mechanisms_and_no_authorizer() -> None:
    described = {entry.name: entry for entry in describe_broker(broker_settings(config_of(), BrokerId(7)))}
    for name in ("sasl.enabled.mechanisms", "authorizer.class.name", "super.users", "ssl.keystore.location"):
        assert described[name].value == ""


def test_listeners_are_told_with_their_protocols() -> None:
    config = config_of(
        listen=["0.0.0.0:1", "SASL_SSL://127.0.0.1:2"], advertise=["a", "b:7"], tls_certificate="server.pem"
    )
    told = broker_settings(config, BrokerId(3))
    assert told["listeners"] == "PLAINTEXT://0.0.0.0:1,SASL_SSL://127.0.0.1:2"
    assert told["advertised.listeners"] == "PLAINTEXT://a:0,SASL_SSL://b:7"
    assert [listener.protocol for listener in listener_configs(config)] == ["PLAINTEXT", "SASL_SSL"]


@pytest.mark.parametrize(
    ("listen", "mechanisms", "expected"),
    [
        ("SASL_PLAINTEXT://10.0.0.1:1", "PLAIN", ["10.0.0.1:1"]),
        ("SASL_PLAINTEXT://10.0.0.1:1", "SCRAM-SHA-256", []),
        ("SASL_PLAINTEXT://127.0.0.1:1", "PLAIN", []),
        ("10.0.0.1:1", "PLAIN", []),
    ],
)
def test_passwords_in_the_clear_are_noticed(listen: str, mechanisms: str, expected: list[str]) -> None:
    assert open_passwords(config_of(listen=listen, sasl_mechanisms=mechanisms)) == expected
