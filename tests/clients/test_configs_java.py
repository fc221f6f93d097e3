"""Kafka's own tool shows and changes configs, those of the whole cluster too, which other clients can't name."""

from __future__ import annotations

import subprocess

import pytest

from tests.clients.members import java

pytestmark = pytest.mark.toolchain


def kafka_configs(bootstrap: str, *options: str) -> tuple[int, str]:
    command = [*java(), "kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap, *options]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    return done.returncode, done.stdout + done.stderr


def test_kafkas_own_tool_changes_a_topic(bootstrap: str, topic: str) -> None:
    command = [*java(), "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", bootstrap]
    made = subprocess.run(
        [*command, "--create", "--topic", topic], capture_output=True, timeout=60, check=False
    )
    assert made.returncode == 0, made.stderr
    where = ("--entity-type", "topics", "--entity-name", topic)
    changes = "retention.ms=5,cleanup.policy=[compact,delete]"
    code, output = kafka_configs(bootstrap, *where, "--alter", "--add-config", changes)
    assert code == 0, output
    code, output = kafka_configs(bootstrap, *where, "--describe")
    assert code == 0, output
    assert "retention.ms=5 " in output
    assert "cleanup.policy=compact,delete " in output
    assert "DYNAMIC_TOPIC_CONFIG:retention.ms=5" in output
    code, output = kafka_configs(bootstrap, *where, "--alter", "--delete-config", "retention.ms")
    assert code == 0, output
    assert "retention.ms" not in kafka_configs(bootstrap, *where, "--describe")[1]
    code, output = kafka_configs(bootstrap, *where, "--alter", "--add-config", "retention.ms=soon")
    assert code != 0
    assert "it must be a whole number" in output


def test_kafkas_own_tool_changes_the_whole_cluster(bootstrap: str) -> None:
    where = ("--entity-type", "brokers", "--entity-default")
    try:
        code, output = kafka_configs(
            bootstrap, *where, "--alter", "--add-config", "log.retention.ms=86400000"
        )
        assert code == 0, output
        code, output = kafka_configs(bootstrap, *where, "--describe")
        assert code == 0, output
        assert "log.retention.ms=86400000 sensitive=false" in output
        assert "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=86400000" in output
    finally:
        code, output = kafka_configs(bootstrap, *where, "--alter", "--delete-config", "log.retention.ms")
    assert code == 0, output
    assert "log.retention.ms" not in kafka_configs(bootstrap, *where, "--describe")[1]
    code, output = kafka_configs(bootstrap, *where, "--alter", "--add-config", "log.retention.hours=1")
    assert code != 0
    assert "log.retention.ms" in output


def test_kafkas_own_tool_shows_a_broker(bootstrap: str) -> None:
    code, output = kafka_configs(
        bootstrap, "--entity-type", "brokers", "--entity-name", "1", "--describe", "--all"
    )
    assert code == 0, output
    assert "broker.id=1 " in output
    assert "ssl.key.password=null sensitive=true" in output
