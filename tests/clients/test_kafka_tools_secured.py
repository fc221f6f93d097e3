"""Kafka's own tools where they have to say who they are: users, quotas and ACLs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tests.clients.java_tools import ACLS, CONFIGS, JavaTools
from tests.clients.secured import ADMIN, SCRAM_256, SCRAM_512, Secured, Way, topic_of

pytestmark = pytest.mark.toolchain
Tool = Callable[..., str]


@pytest.fixture
def as_admin(secured: Secured, java_tools: JavaTools) -> Tool:
    """Runs a tool as the administrator; it has to succeed."""
    where = ("--bootstrap-server", secured.addresses[ADMIN.protocol])
    who = ("--command-config", f"{secured.files(ADMIN)}.properties")
    return lambda tool, *arguments: java_tools.succeed(tool, *where, *who, *arguments)


def test_kafka_configs_makes_users_shows_them_and_deletes_them(secured: Secured, as_admin: Tool) -> None:
    carol = ("--entity-type", "users", "--entity-name", "carol")
    # The tool takes a comma for the end of a password.
    password = "carol's own"
    secrets = f"SCRAM-SHA-256=[iterations=4096,password={password}],SCRAM-SHA-512=[password={password}]"
    as_admin(CONFIGS, *carol, "--alter", "--add-config", secrets)
    described = as_admin(CONFIGS, *carol, "--describe")
    assert "SCRAM-SHA-256=iterations=4096" in described
    assert "SCRAM-SHA-512=iterations=4096" in described
    assert gets_in(secured, SCRAM_256, password)
    as_admin(CONFIGS, *carol, "--alter", "--delete-config", "SCRAM-SHA-256")
    assert "SCRAM-SHA-256" not in as_admin(CONFIGS, *carol, "--describe")
    assert not gets_in(secured, SCRAM_256, password)
    assert gets_in(secured, SCRAM_512, password)


def gets_in(secured: Secured, way: Way, password: str) -> bool:
    """Whether Carol gets in by a password."""
    refusals: list[KafkaError] = []
    settings = secured.librdkafka(
        way, "carol", {"sasl.password": password, "error_cb": refusals.append, "log_level": 0}
    )
    client = AdminClient(settings)
    for _ in range(100):
        try:
            client.list_topics(timeout=0.2)
        except KafkaException:
            client.poll(0)
            if KafkaError._AUTHENTICATION in [refusal.code() for refusal in refusals]:
                return False
        else:
            return True
    raise AssertionError(refusals)


def test_kafka_configs_limits_users_and_clients(as_admin: Tool) -> None:
    entities = {
        "user": ("--entity-type", "users", "--entity-name", "dave"),
        "client": ("--entity-type", "clients", "--entity-name", "reports"),
        "both": (
            "--entity-type",
            "users",
            "--entity-name",
            "dave",
            "--entity-type",
            "clients",
            "--entity-default",
        ),
    }
    for number, entity in enumerate(entities.values(), 1):
        quotas = f"producer_byte_rate={number}000,request_percentage={number}.5"
        as_admin(CONFIGS, *entity, "--alter", "--add-config", quotas)
    for number, entity in enumerate(entities.values(), 1):
        described = as_admin(CONFIGS, *entity, "--describe")
        assert f"producer_byte_rate={number}000.0" in described
        assert f"request_percentage={number}.5" in described
    as_admin(
        CONFIGS, *entities["both"], "--alter", "--delete-config", "producer_byte_rate,request_percentage"
    )
    assert "request_percentage" not in as_admin(CONFIGS, *entities["both"], "--describe")
    assert "request_percentage" in as_admin(CONFIGS, *entities["user"], "--describe")


def test_kafka_acls_by_the_administrator_and_by_another(
    secured: Secured, as_admin: Tool, java_tools: JavaTools
) -> None:
    topic = topic_of("orders")
    what = ("--allow-principal", "User:eve", "--producer", "--topic", topic)
    where = ("--bootstrap-server", secured.addresses[SCRAM_512.protocol])
    who = ("--command-config", f"{secured.files(SCRAM_512)}.properties")
    code, printed = java_tools.run(ACLS, *where, *who, "--add", *what)
    assert code != 0
    assert "ClusterAuthorizationException" in printed
    as_admin(ACLS, "--add", *what)
    assert "principal=User:eve, host=*, operation=WRITE" in as_admin(ACLS, "--list", "--topic", topic)
