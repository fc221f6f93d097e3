"""DescribeConfigs: topics and brokers, values with their sources, types and texts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker
from warp.errors import ErrorCode
from warp.protocol.messages.configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    ListConfigResourcesRequest,
)
from warp.protocol.types import ConfigResourceType, ConfigSource, ConfigType


async def describe(
    client: Client,
    kind: int,
    name: str,
    *keys: str,
    version: int = 4,
    synonyms: bool = False,
    documentation: bool = False,
) -> Any:
    resource = DescribeConfigsResource(
        resource_type=kind, resource_name=name, configuration_keys=list(keys) or None
    )
    request = DescribeConfigsRequest(
        resources=[resource], include_synonyms=synonyms, include_documentation=documentation
    )
    [result] = (await client.ask(request, version)).results
    assert (result.resource_type, result.resource_name) == (kind, name)
    return result


def by_name(result: Any) -> dict[str, Any]:
    assert result.error_code == ErrorCode.NONE
    return {config.name: config for config in result.configs}


def test_a_topic_shows_its_overrides_and_the_defaults(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(cleanup_policy="compact", max_message_bytes="1234")
        for version in range(1, 5):
            configs = by_name(await describe(client, ConfigResourceType.TOPIC, name, version=version))
            policy, size, retention = (
                configs[key] for key in ("cleanup.policy", "max.message.bytes", "retention.ms")
            )
            assert (policy.value, policy.config_source) == ("compact", ConfigSource.TOPIC_CONFIG)
            assert (size.value, size.config_source) == ("1234", ConfigSource.TOPIC_CONFIG)
            assert (retention.value, retention.config_source) == ("604800000", ConfigSource.DEFAULT_CONFIG)
            assert retention.synonyms == []
            assert not retention.is_sensitive
            assert size.config_type == (ConfigType.INT if version >= 3 else ConfigType.UNKNOWN)

    with_broker(test)


def test_synonyms_name_every_place_that_a_value_could_come_from(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(max_message_bytes="1234")
        configs = by_name(
            await describe(client, ConfigResourceType.TOPIC, name, "max.message.bytes", synonyms=True)
        )
        found = [(each.name, each.value, each.source) for each in configs["max.message.bytes"].synonyms]
        assert found == [
            ("max.message.bytes", "1234", ConfigSource.TOPIC_CONFIG),
            ("message.max.bytes", "2097152", ConfigSource.STATIC_BROKER_CONFIG),
            ("message.max.bytes", "1048588", ConfigSource.DEFAULT_CONFIG),
        ]

    with_memory_broker(test, message_bytes_max="2MiB")


def test_documentation_is_there_when_asked_for(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for documentation in (True, False):
            result = await describe(client, ConfigResourceType.TOPIC, name, documentation=documentation)
            assert all(bool(config.documentation) is documentation for config in result.configs)

    with_memory_broker(test)


def test_names_that_no_config_has_are_left_out(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        result = await describe(client, ConfigResourceType.TOPIC, name, "retention.ms", "no.such.config")
        assert list(by_name(result)) == ["retention.ms"]

    with_memory_broker(test)


def test_a_broker_shows_what_it_was_started_with(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        number = str(broker.agent.broker_id)
        configs = by_name(await describe(client, ConfigResourceType.BROKER, number))
        assert configs["num.partitions"].value == "7"
        assert configs["num.partitions"].config_source == ConfigSource.STATIC_BROKER_CONFIG
        assert not configs["num.partitions"].read_only
        assert configs["socket.request.max.bytes"].read_only
        assert configs["broker.id"].value == number
        assert by_name(await describe(client, ConfigResourceType.BROKER, "")) == {}

    with_memory_broker(test, num_partitions="7")


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (ConfigResourceType.TOPIC, "missing", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        (ConfigResourceType.TOPIC, "bad name", ErrorCode.INVALID_TOPIC_EXCEPTION),
        (ConfigResourceType.BROKER, "12345", ErrorCode.INVALID_REQUEST),
        (ConfigResourceType.BROKER, "one", ErrorCode.INVALID_REQUEST),
        (ConfigResourceType.BROKER_LOGGER, "1", ErrorCode.INVALID_REQUEST),
        (99, "x", ErrorCode.INVALID_REQUEST),
    ],
)
def test_what_is_not_there_has_its_error(
    with_memory_broker: RunWithBroker, kind: int, name: str, code: ErrorCode
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        result = await describe(client, kind, name)
        assert (result.error_code, result.configs) == (code, [])
        assert result.error_message

    with_memory_broker(test)


def test_a_broker_marks_secrets_and_tells_none(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        number = str(broker.agent.broker_id)
        for version in range(1, 5):
            configs = by_name(
                await describe(client, ConfigResourceType.BROKER, number, version=version, synonyms=True)
            )
            secrets = {name for name, config in configs.items() if config.is_sensitive}
            assert secrets == {"ssl.key.password"}
            for name in secrets:
                assert configs[name].value is None
                assert all(synonym.value is None for synonym in configs[name].synonyms)

    with_memory_broker(test)


def test_answers_take_their_memory_from_the_budget_for_answers(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        asked = DescribeConfigsResource(
            resource_type=ConfigResourceType.TOPIC, resource_name=name, configuration_keys=None
        )
        request = DescribeConfigsRequest(
            resources=[asked] * 3000, include_synonyms=True, include_documentation=True
        )
        results = (await client.ask(request, 4)).results
        codes = [result.error_code for result in results]
        room = codes.count(ErrorCode.NONE)
        assert 0 < room < len(codes)
        assert set(codes) == {ErrorCode.NONE, ErrorCode.REQUEST_TIMED_OUT}

    with_memory_broker(test, fetch_memory_bytes_max="16MiB")


def test_what_can_have_configs_is_listed_by_type(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topics = [(await broker.topic(), ConfigResourceType.TOPIC) for _ in range(2)]
        brokers = [(str(broker.agent.broker_id), ConfigResourceType.BROKER)]
        for types, expected in (
            ([], topics + brokers),
            ([ConfigResourceType.TOPIC], topics),
            ([ConfigResourceType.BROKER], brokers),
            ([ConfigResourceType.CLIENT_METRICS, ConfigResourceType.GROUP], []),
        ):
            answer = await client.ask(ListConfigResourcesRequest(resource_types=list(types)), 1)
            assert answer.error_code == ErrorCode.NONE
            found = [(each.resource_name, each.resource_type) for each in answer.config_resources]
            assert sorted(found) == sorted(expected)
        answer = await client.ask(ListConfigResourcesRequest(resource_types=[99]), 1)
        assert (answer.error_code, answer.config_resources) == (ErrorCode.UNSUPPORTED_VERSION, [])
        answer = await client.ask(ListConfigResourcesRequest(), 0)
        assert (answer.error_code, answer.config_resources) == (ErrorCode.NONE, []), "v0 is of client metrics"

    with_memory_broker(test)
