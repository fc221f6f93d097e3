"""Producers in Go and Java, with each codec; a consumer of librdkafka reads what they have written."""

from __future__ import annotations

import pytest

from tests.clients.java_tools import TOPICS, JavaTools
from tests.clients.members import Kind, kinds_named, produce
from tests.clients.test_confluent import read_partition

pytestmark = pytest.mark.toolchain
PRODUCERS = kinds_named("franz-go", "kafka-go", "java")
COUNT = 200


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("kind", PRODUCERS, ids=lambda kind: kind.name)
def test_records_are_acknowledged_with_the_offsets_that_others_read_them_at(
    bootstrap: str, topic: str, kind: Kind, codec: str
) -> None:
    acknowledged = produce(kind, bootstrap, topic, COUNT, codec=codec)
    assert sorted(int(value) for _, _, value in acknowledged) == list(range(COUNT))
    read = read_partition(bootstrap, topic, COUNT)
    assert sorted(acknowledged) == sorted(
        (0, offset, (message.value() or b"").decode()) for offset, message in enumerate(read)
    )


def test_kafkas_own_tools_make_and_describe_a_topic(
    bootstrap: str, topic: str, java_tools: JavaTools
) -> None:
    def kafka_topics(*options: str) -> str:
        return java_tools.succeed(TOPICS, "--bootstrap-server", bootstrap, *options)

    kafka_topics("--create", "--topic", topic, "--partitions", "3", "--config", "retention.ms=1000")
    described = kafka_topics("--describe", "--topic", topic)
    assert "PartitionCount: 3" in described
    assert "retention.ms=1000" in described
    assert topic in kafka_topics("--list").split()
    kafka_topics("--delete", "--topic", topic)
    assert topic not in kafka_topics("--list").split()
