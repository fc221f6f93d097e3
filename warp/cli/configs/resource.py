"""The configs of a topic and of the whole cluster, as the commands about them read and change them.

Topics go through the client library, so every way of authenticating works for them. It can't name the broker that
stands for the whole cluster; `warp.cli.wire_client` does.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from warp.cli.client import Client, ClientError
from warp.cli.wire_client import WireClient, check
from warp.protocol.messages.configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from warp.protocol.messages.metadata import MetadataRequest
from warp.protocol.types import AlterConfigOperation, ConfigResourceType, ConfigSource

WHOLE_CLUSTER = ""
_INVALID_REQUEST = 42


class Source(enum.StrEnum):
    """Where a value comes from, in words."""

    TOPIC = "topic"
    CLUSTER = "cluster"
    AGENT = "agent"
    DEFAULT = "default"
    OTHER = "other"


_SOURCES = {
    ConfigSource.TOPIC_CONFIG: Source.TOPIC,
    ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG: Source.CLUSTER,
    ConfigSource.STATIC_BROKER_CONFIG: Source.AGENT,
    ConfigSource.DEFAULT_CONFIG: Source.DEFAULT,
}


class Config(NamedTuple):
    """One config that holds."""

    name: str
    value: str | None
    """None for a secret."""
    source: Source
    is_read_only: bool


class Change(NamedTuple):
    """One change; `value` is None for DELETE alone."""

    name: str
    operation: AlterConfigOperation
    value: str | None


class Resource(Protocol):
    """What has configs. Methods raise ClientError."""

    title: str
    """As in "altered TITLE"."""
    own: Source
    """Where its own configs come from."""

    def describe(self) -> list[Config]:
        """All that hold, by name."""

    def describe_own(self) -> list[Config]:
        """Those that were set for it, by name."""

    def alter(self, changes: Sequence[Change], *, validate_only: bool) -> None:
        """Make all of the changes, or none."""


class TopicConfigs:
    """The configs of one topic."""

    own = Source.TOPIC

    def __init__(self, client: Client, topic: str) -> None:
        self.title = f"topic {topic}"
        self._client = client
        self._topic = topic
        self._admin = client.admin()
        # Otherwise the library waits and retries for a topic that is not there.
        client.topic_partitions(self._admin, topic)

    def describe(self) -> list[Config]:
        """See Resource."""
        resource = ConfigResource(ResourceType.TOPIC, self._topic)
        answer = self._admin.describe_configs([resource], request_timeout=self._client.timeout_s)
        try:
            entries = answer[resource].result()
        except KafkaException as error:
            raise self._client.failure(error) from error
        return [
            Config(
                name,
                None if entry.is_sensitive else entry.value,
                _source(entry.source),
                bool(entry.is_read_only),
            )
            for name, entry in sorted(entries.items())
        ]

    def describe_own(self) -> list[Config]:
        """See Resource."""
        return [config for config in self.describe() if config.source is self.own]

    def alter(self, changes: Sequence[Change], *, validate_only: bool) -> None:
        """See Resource."""
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType[operation.name])
            for name, operation, value in changes
        ]
        resource = ConfigResource(ResourceType.TOPIC, self._topic, incremental_configs=entries)
        answer = self._admin.incremental_alter_configs(
            [resource], validate_only=validate_only, request_timeout=self._client.timeout_s
        )
        try:
            answer[resource].result()
        except KafkaException as error:
            raise self._client.failure(error) from error


class ClusterConfigs:
    """The configs of the whole cluster."""

    own = Source.CLUSTER
    title = "the cluster"

    def __init__(self, client: WireClient) -> None:
        self._client = client

    def describe(self) -> list[Config]:
        """See Resource; those of the agent that was asked."""
        metadata = self._client.ask(MetadataRequest(topics=[], allow_auto_topic_creation=False))
        # An agent answers for itself alone, and behind a name of several of them nobody knows which one answers.
        return self._describe([str(broker.node_id) for broker in metadata.brokers])

    def describe_own(self) -> list[Config]:
        """See Resource."""
        return self._describe([WHOLE_CLUSTER])

    def alter(self, changes: Sequence[Change], *, validate_only: bool) -> None:
        """See Resource."""
        configs = [
            IncrementalAlterableConfig(name=name, config_operation=operation, value=value)
            for name, operation, value in changes
        ]
        resource = IncrementalAlterConfigsResource(
            resource_type=ConfigResourceType.BROKER, resource_name=WHOLE_CLUSTER, configs=configs
        )
        answer = self._client.ask(
            IncrementalAlterConfigsRequest(resources=[resource], validate_only=validate_only)
        )
        check(answer.responses[0].error_code, answer.responses[0].error_message)

    def _describe(self, brokers: Sequence[str]) -> list[Config]:
        resources = [
            DescribeConfigsResource(
                resource_type=ConfigResourceType.BROKER, resource_name=name, configuration_keys=None
            )
            for name in brokers
        ]
        answer = self._client.ask(DescribeConfigsRequest(resources=resources))
        for result in answer.results:
            if result.error_code != _INVALID_REQUEST:
                check(result.error_code, result.error_message)
                return [
                    Config(config.name, config.value, _source(config.config_source), config.read_only)
                    for config in result.configs
                ]
        raise ClientError("the broker does not say what its configs are")


def _source(number: int) -> Source:
    return _SOURCES.get(ConfigSource(number), Source.OTHER) if number in tuple(ConfigSource) else Source.OTHER
