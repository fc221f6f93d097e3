"""Kafka's own tool shows and changes configs, those of the whole cluster too, which other clients can't name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.java_tools import CONFIGS, TOPICS, JavaTools

pytestmark = pytest.mark.toolchain


KafkaConfigs = Callable[..., tuple[int, str]]


@pytest.fixture
def kafka_configs(bootstrap: str, java_tools: JavaTools) -> KafkaConfigs:
    """Runs the tool; returns its exit code and what it has printed."""
    return lambda *options: java_tools.run(CONFIGS, "--bootstrap-server", bootstrap, *options)


def test_kafkas_own_tool_changes_a_topic(
    bootstrap: str, topic: str, java_tools: JavaTools, kafka_configs: KafkaConfigs
) -> None:
    java_tools.succeed(TOPICS, "--bootstrap-server", bootstrap, "--create", "--topic", topic)
    where = ("--entity-type", "topics", "--entity-name", topic)
    changes = "retention.ms=5,cleanup.policy=[compact,delete]"
    code, output = kafka_configs(*where, "--alter", "--add-config", changes)
    assert code == 0, output
    code, output = kafka_configs(*where, "--describe")
    assert code == 0, output
    assert "retention.ms=5 " in output
    assert "cleanup.policy=compact,delete " in output
    assert "DYNAMIC_TOPIC_CONFIG:retention.ms=5" in output
    code, output = kafka_configs(*where, "--alter", "--delete-config", "retention.ms")
    assert code == 0, output
    assert "retention.ms" not in kafka_configs(*where, "--describe")[1]
    code, output = kafka_configs(*where, "--alter", "--add-config", "retention.ms=soon")
    assert code != 0
    assert "it must be a whole number" in output


def test_kafkas_own_tool_changes_the_whole_cluster(kafka_configs: KafkaConfigs) -> None:
    where = ("--entity-type", "brokers", "--entity-default")
    try:
        code, output = kafka_configs(*where, "--alter", "--add-config", "log.retention.ms=86400000")
        assert code == 0, output
        code, output = kafka_configs(*where, "--describe")
        assert code == 0, output
        assert "log.retention.ms=86400000 sensitive=false" in output
        assert "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=86400000" in output
    finally:
        code, output = kafka_configs(*where, "--alter", "--delete-config", "log.retention.ms")
    assert code == 0, output
    assert "log.retention.ms" not in kafka_configs(*where, "--describe")[1]
    code, output = kafka_configs(*where, "--alter", "--add-config", "log.retention.hours=1")
    assert code != 0
    assert "log.retention.ms" in output


def test_kafkas_own_tool_shows_a_broker(kafka_configs: KafkaConfigs) -> None:
    code, output = kafka_configs("--entity-type", "brokers", "--entity-name", "1", "--describe", "--all")
    assert code == 0, output
    assert "broker.id=1 " in output
    assert "ssl.key.password=null sensitive=true" in output
