"""Admin clients change and describe configs: every call that they have for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
)
from kafka.admin import (
    AlterConfigOp,
    ConfigResource as PythonConfigResource,
    ConfigResourceType,
    KafkaAdminClient,
)

PATIENCE_S = 30


@pytest.fixture
def made(bootstrap: str, topic: str) -> str:
    """A topic with a config of its own."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic, 1, config={"segment.ms": "7"})
    admin.create_topics([new])[topic].result(PATIENCE_S)
    return topic


@pytest.fixture
def kafka_python(bootstrap: str) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    yield admin
    admin.close()


def own(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, str | None]:
    resource = ConfigResource(kind, name)
    entries = admin.describe_configs([resource])[resource].result(PATIENCE_S)
    assert all(entry.source for entry in entries.values())
    set_here = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    return {name: entry.value for name, entry in entries.items() if entry.source == set_here}


def test_librdkafka_changes_single_configs(bootstrap: str, made: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    changes = [
        ConfigEntry("retention.ms", "5", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("segment.ms", None, incremental_operation=AlterConfigOpType.DELETE),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
    ]
    resource = ConfigResource(ResourceType.TOPIC, made, incremental_configs=changes)
    for validate_only in (True, False):
        admin.incremental_alter_configs([resource], validate_only=validate_only)[resource].result(PATIENCE_S)
        changed = {"retention.ms": "5", "cleanup.policy": "delete,compact"}
        expected = {"segment.ms": "7"} if validate_only else changed
        assert own(admin, ResourceType.TOPIC, made) == expected
    taken = [ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SUBTRACT)]
    resource = ConfigResource(ResourceType.TOPIC, made, incremental_configs=taken)
    admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    assert own(admin, ResourceType.TOPIC, made)["cleanup.policy"] == "compact"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_librdkafka_replaces_all_configs(bootstrap: str, made: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    resource = ConfigResource(ResourceType.TOPIC, made, set_config={"retention.ms": "5"})
    admin.alter_configs([resource])[resource].result(PATIENCE_S)
    assert own(admin, ResourceType.TOPIC, made) == {"retention.ms": "5"}


def test_librdkafka_describes_a_broker_and_is_told_the_option_for_it(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    [number] = admin.list_topics(timeout=PATIENCE_S).brokers
    resource = ConfigResource(ResourceType.BROKER, str(number))
    entries = admin.describe_configs([resource])[resource].result(PATIENCE_S)
    assert entries["broker.id"].value == str(number)
    assert entries["broker.id"].is_read_only
    assert entries["ssl.key.password"].is_sensitive
    assert not entries["log.retention.ms"].is_read_only
    change = [ConfigEntry("listeners", "x", incremental_operation=AlterConfigOpType.SET)]
    resource = ConfigResource(ResourceType.BROKER, str(number), incremental_configs=change)
    with pytest.raises(KafkaException) as refused:
        admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    error = refused.value.args[0]
    assert error.code() == KafkaError.INVALID_CONFIG
    assert "--listen" in error.str()


def test_librdkafka_is_told_what_is_wrong(bootstrap: str, made: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for name, value, code in (
        (made, "soon", KafkaError.INVALID_CONFIG),
        ("no-such-topic", "5", KafkaError.UNKNOWN_TOPIC_OR_PART),
    ):
        change = [ConfigEntry("retention.ms", value, incremental_operation=AlterConfigOpType.SET)]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=change)
        with pytest.raises(KafkaException) as refused:
            admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
        assert refused.value.args[0].code() == code


def topic_configs(admin: KafkaAdminClient, topic: str, **options: Any) -> dict[str, Any]:
    resource = PythonConfigResource(ConfigResourceType.TOPIC, topic)
    found: dict[str, Any] = admin.describe_configs([resource], **options)["topic"][topic]
    return found


def test_kafka_python_changes_single_configs(kafka_python: KafkaAdminClient, made: str) -> None:
    changes = {
        "retention.ms": "5",
        "segment.ms": (AlterConfigOp.DELETE, None),
        "cleanup.policy": (AlterConfigOp.APPEND, "compact"),
    }
    resource = PythonConfigResource(ConfigResourceType.TOPIC, made, configs=changes)
    for validate_only in (True, False):
        answer = kafka_python.alter_configs([resource], validate_only=validate_only)
        assert answer == {"topic": {made: "OK"}}
    found = topic_configs(kafka_python, made, include_synonyms=True)
    assert {name: config["value"] for name, config in found.items()} == {
        "retention.ms": "5",
        "cleanup.policy": "delete,compact",
    }
    assert [synonym["source"] for synonym in found["retention.ms"]["synonyms"]] == [
        "DYNAMIC_TOPIC_CONFIG",
        "DEFAULT_CONFIG",
    ]


def test_kafka_python_replaces_all_configs(kafka_python: KafkaAdminClient, made: str) -> None:
    # It adds what is set to what it sends, so that nothing goes back to its default.
    resource = PythonConfigResource(ConfigResourceType.TOPIC, made, configs={"retention.ms": "5"})
    assert kafka_python.alter_configs([resource], incremental=False) == {"topic": {made: "OK"}}
    found = topic_configs(kafka_python, made)
    assert {name: config["value"] for name, config in found.items()} == {
        "retention.ms": "5",
        "segment.ms": "7",
    }


def test_kafka_python_lists_what_has_configs(kafka_python: KafkaAdminClient, made: str) -> None:
    found = kafka_python.list_config_resources()
    assert made in found["topic"]
    assert len(found["broker"]) == 1
