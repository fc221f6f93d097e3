"""AlterConfigs and IncrementalAlterConfigs over the wire: every version, what they change, and what they refuse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, joined
from tests.broker.support import Broker, RunWithBroker, batch
from tests.broker.test_configs import by_name, describe
from warp.errors import ErrorCode
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.configs import (
    AlterableConfig,
    AlterConfigsRequest,
    AlterConfigsResource,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    IncrementalAlterableConfig,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource,
)
from warp.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest, DeleteTopicsRequest
from warp.protocol.types import AlterConfigOperation, ConfigResourceType, ConfigSource

TOPIC, BROKER = ConfigResourceType.TOPIC, ConfigResourceType.BROKER
SET, DELETE, APPEND, SUBTRACT = AlterConfigOperation
INCREMENTAL_VERSIONS, VERSIONS = (0, 1), (0, 1, 2)
Change = tuple[str, int, str | None]


def incremental(kind: int, name: str, *changes: Change) -> IncrementalAlterConfigsResource:
    configs = [
        IncrementalAlterableConfig(name=key, config_operation=operation, value=value)
        for key, operation, value in changes
    ]
    return IncrementalAlterConfigsResource(resource_type=kind, resource_name=name, configs=configs)


async def ask_changes(
    client: Client, *resources: IncrementalAlterConfigsResource, version: int = 1, validate_only: bool = False
) -> list[Any]:
    request = IncrementalAlterConfigsRequest(resources=list(resources), validate_only=validate_only)
    answer = await client.ask(request, version)
    asked = [(resource.resource_type, resource.resource_name) for resource in resources]
    assert [(response.resource_type, response.resource_name) for response in answer.responses] == asked
    assert all(bool(response.error_code) is bool(response.error_message) for response in answer.responses)
    return list(answer.responses)


async def change(client: Client, kind: int, name: str, *changes: Change, **options: Any) -> tuple[int, str]:
    [response] = await ask_changes(client, incremental(kind, name, *changes), **options)
    return response.error_code, response.error_message or ""


async def replace(
    client: Client,
    kind: int,
    name: str,
    configs: dict[str, str | None] | list[tuple[str, str | None]],
    *,
    version: int = 2,
    validate_only: bool = False,
) -> tuple[int, str]:
    pairs = configs.items() if isinstance(configs, dict) else configs
    resource = AlterConfigsResource(
        resource_type=kind,
        resource_name=name,
        configs=[AlterableConfig(name=key, value=value) for key, value in pairs],
    )
    answer = await client.ask(AlterConfigsRequest(resources=[resource], validate_only=validate_only), version)
    [response] = answer.responses
    assert (response.resource_type, response.resource_name) == (kind, name)
    return response.error_code, response.error_message or ""


async def own(client: Client, kind: int, name: str) -> dict[str, str]:
    """What is set for a resource."""
    source = ConfigSource.TOPIC_CONFIG if kind == TOPIC else ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG
    configs = by_name(await describe(client, kind, name)).values()
    return {config.name: config.value for config in configs if config.config_source == source}


def test_every_version_changes_single_configs_of_a_topic(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for version in INCREMENTAL_VERSIONS:
            name = await broker.topic(retention_ms="1", segment_ms="2")
            changes = (
                ("retention.ms", SET, "5"),
                ("segment.ms", DELETE, None),
                ("cleanup.policy", APPEND, "compact"),
            )
            assert await change(client, TOPIC, name, *changes, version=version) == (0, "")
            assert await own(client, TOPIC, name) == {
                "retention.ms": "5",
                "cleanup.policy": "delete,compact",
            }
            taken = ("cleanup.policy", SUBTRACT, "delete")
            assert await change(client, TOPIC, name, taken, version=version) == (0, "")
            assert (await own(client, TOPIC, name))["cleanup.policy"] == "compact"

    with_broker(test)


def test_every_version_replaces_all_configs_of_a_topic(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for version in VERSIONS:
            name = await broker.topic(retention_ms="1", segment_ms="2")
            assert await replace(client, TOPIC, name, {"retention.ms": "5"}, version=version) == (0, "")
            assert await own(client, TOPIC, name) == {"retention.ms": "5"}
            assert await replace(client, TOPIC, name, {}, version=version) == (0, "")
            assert await own(client, TOPIC, name) == {}

    with_broker(test)


def test_both_set_the_configs_of_the_whole_cluster(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        for version in INCREMENTAL_VERSIONS:
            changes = (("log.retention.ms", SET, "5"), ("log.cleanup.policy", APPEND, "compact"))
            assert await change(client, BROKER, "", *changes, version=version) == (0, "")
            found = await own(client, BROKER, "")
            assert found == {"log.retention.ms": "5", "log.cleanup.policy": "delete,compact"}
            gone = ("log.cleanup.policy", DELETE, None)
            assert await change(client, BROKER, "", gone, version=version) == (0, "")
            assert await own(client, BROKER, "") == {"log.retention.ms": "5"}
        for version in VERSIONS:
            assert await replace(client, BROKER, "", {"num.partitions": "3"}, version=version) == (0, "")
            assert await own(client, BROKER, "") == {"num.partitions": "3"}
        assert await replace(client, BROKER, "", {}) == (0, "")
        assert await own(client, BROKER, "") == {}

    with_broker(test)


def test_validation_alone_runs_every_check_and_changes_nothing(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        topic = await broker.topic(retention_ms="1")
        for kind, name, config in ((TOPIC, topic, "segment.ms"), (BROKER, "", "log.roll.ms")):
            before = await own(client, kind, name)
            assert await change(client, kind, name, (config, SET, "5"), validate_only=True) == (0, "")
            assert await replace(client, kind, name, {config: "5"}, validate_only=True) == (0, "")
            code, _ = await change(client, kind, name, (config, SET, "x"), validate_only=True)
            assert code == ErrorCode.INVALID_CONFIG
            code, _ = await replace(client, kind, name, {config: "x"}, validate_only=True)
            assert code == ErrorCode.INVALID_CONFIG
            assert await own(client, kind, name) == before
        code, _ = await change(client, TOPIC, "missing", ("retention.ms", SET, "5"), validate_only=True)
        assert code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    with_memory_broker(test)


BAD_CHANGES = [
    ([("retention.ms", SET, "soon")], ErrorCode.INVALID_CONFIG, "be a whole number"),
    ([("retention.ms", SET, "-2")], ErrorCode.INVALID_CONFIG, "be at least -1"),
    ([("retention.ms", SET, "")], ErrorCode.INVALID_CONFIG, "be a whole number"),
    ([("retention.ms", SET, None)], ErrorCode.INVALID_REQUEST, "Null value"),
    ([("cleanup.policy", APPEND, None)], ErrorCode.INVALID_REQUEST, "Null value"),
    ([("cleanup.policy", APPEND, "shred")], ErrorCode.INVALID_CONFIG, "be a list of"),
    ([("retention.ms", APPEND, "5")], ErrorCode.INVALID_CONFIG, "type is LONG"),
    ([("retention.msec", SET, "5")], ErrorCode.INVALID_CONFIG, "did you mean retention.ms"),
    ([("message.format.version", SET, "2.8")], ErrorCode.INVALID_CONFIG, "Kafka 4 removed it"),
    ([("", SET, "5")], ErrorCode.INVALID_CONFIG, "Unknown topic config"),
    ([("x" * 30_000, SET, "5")], ErrorCode.INVALID_CONFIG, "Unknown topic config"),
    ([("retention.ms", 7, "5")], ErrorCode.INVALID_REQUEST, "Unknown operation 7"),
    ([("retention.ms", SET, "5"), ("retention.ms", SET, "5")], ErrorCode.INVALID_REQUEST, "named 2 times"),
    ([("retention.ms", SET, "5"), ("segment.ms", SET, "x")], ErrorCode.INVALID_CONFIG, "segment.ms"),
    (
        [("min.compaction.lag.ms", SET, "5"), ("max.compaction.lag.ms", SET, "4")],
        ErrorCode.INVALID_CONFIG,
        "must not be above",
    ),
]


@pytest.mark.parametrize(("changes", "code", "words"), BAD_CHANGES)
def test_a_bad_change_of_a_topic_is_refused_and_changes_nothing(
    with_memory_broker: RunWithBroker, changes: list[Change], code: ErrorCode, words: str
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(retention_ms="1")
        refused, message = await change(client, TOPIC, name, *changes)
        assert refused == code
        assert words in message
        assert len(message) < 300
        assert await own(client, TOPIC, name) == {"retention.ms": "1"}

    with_memory_broker(test)


@pytest.mark.parametrize(
    ("kind", "name", "config", "code", "words"),
    [
        (TOPIC, "missing", "retention.ms", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "missing"),
        (TOPIC, "", "retention.ms", ErrorCode.INVALID_TOPIC_EXCEPTION, "empty"),
        (TOPIC, "bad name", "retention.ms", ErrorCode.INVALID_TOPIC_EXCEPTION, "invalid"),
        (BROKER, "", "listeners", ErrorCode.INVALID_CONFIG, "--listen"),
        (BROKER, "", "log.retention.hours", ErrorCode.INVALID_CONFIG, "log.retention.ms"),
        (BROKER, "", "retention.ms", ErrorCode.INVALID_CONFIG, "Unknown broker config"),
        (BROKER, "12345", "num.partitions", ErrorCode.INVALID_REQUEST, "No broker 12345"),
        (BROKER, "own", "num.partitions", ErrorCode.INVALID_CONFIG, "--num-partitions"),
        (BROKER, "own", "listeners", ErrorCode.INVALID_CONFIG, "--listen"),
        (ConfigResourceType.BROKER_LOGGER, "own", "root", ErrorCode.INVALID_REQUEST, "no configs"),
        (ConfigResourceType.CLIENT_METRICS, "x", "metrics", ErrorCode.INVALID_REQUEST, "no configs"),
        (ConfigResourceType.GROUP, "x", "y", ErrorCode.INVALID_REQUEST, "no configs"),
        (99, "x", "y", ErrorCode.INVALID_REQUEST, "no configs"),
    ],
)
def test_what_can_not_be_altered_says_why(
    with_memory_broker: RunWithBroker, kind: int, name: str, config: str, code: ErrorCode, words: str
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        resource = str(broker.agent.broker_id) if name == "own" else name
        for refused, message in (
            await change(client, kind, resource, (config, SET, "5")),
            await replace(client, kind, resource, {config: "5"}),
        ):
            assert refused == code
            assert words in message

    with_memory_broker(test)


def test_a_single_broker_has_nothing_to_delete_or_replace(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        number = str(broker.agent.broker_id)
        assert await change(client, BROKER, number, ("num.partitions", DELETE, None)) == (0, "")
        assert await replace(client, BROKER, number, {}) == (0, "")

    with_memory_broker(test)


def test_a_bad_replacement_is_refused(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(retention_ms="1")
        bad: list[tuple[list[tuple[str, str | None]], ErrorCode]] = [
            ([("retention.ms", None)], ErrorCode.INVALID_REQUEST),
            ([("segment.ms", "5"), ("segment.ms", "6")], ErrorCode.INVALID_REQUEST),
            ([("segment.ms", "5"), ("nonsense", "6")], ErrorCode.INVALID_CONFIG),
        ]
        for configs, code in bad:
            assert (await replace(client, TOPIC, name, configs))[0] == code
        assert await own(client, TOPIC, name) == {"retention.ms": "1"}

    with_memory_broker(test)


def test_each_resource_succeeds_or_fails_by_itself(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        good, bad, twice = [await broker.topic() for _ in range(3)]
        responses = await ask_changes(
            client,
            incremental(TOPIC, twice, ("retention.ms", SET, "1")),
            incremental(TOPIC, bad, ("retention.ms", SET, "x")),
            incremental(TOPIC, good, ("retention.ms", SET, "1")),
            incremental(TOPIC, twice, ("segment.ms", SET, "1")),
            incremental(BROKER, "", ("num.partitions", SET, "2")),
        )
        assert [response.error_code for response in responses] == [
            ErrorCode.INVALID_REQUEST,
            ErrorCode.INVALID_CONFIG,
            ErrorCode.NONE,
            ErrorCode.INVALID_REQUEST,
            ErrorCode.NONE,
        ]
        assert await own(client, TOPIC, good) == {"retention.ms": "1"}
        assert await own(client, TOPIC, bad) == await own(client, TOPIC, twice) == {}
        assert await own(client, BROKER, "") == {"num.partitions": "2"}

    with_memory_broker(test)


def test_changes_of_many_clients_at_once_are_all_kept(with_broker: RunWithBroker) -> None:
    names = ("retention.ms", "segment.ms", "flush.ms", "flush.messages", "segment.jitter.ms")

    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        clients = [await broker.connect() for _ in names]
        others = [await broker.connect() for _ in range(2)]
        for value in range(1, 6):
            answers = await asyncio.gather(
                *(
                    change(client, TOPIC, topic, (name, SET, str(value)))
                    for client, name in zip(clients, names, strict=True)
                ),
                *(
                    change(client, BROKER, "", (name, SET, str(value)))
                    for client, name in zip(others, ("log.roll.ms", "log.retention.ms"), strict=True)
                ),
            )
            assert set(answers) == {(0, "")}
            assert await own(clients[0], TOPIC, topic) == dict.fromkeys(names, str(value))
            assert set((await own(clients[0], BROKER, "")).values()) == {str(value)}

    with_broker(test)


def test_topics_follow_the_cluster_at_once(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        plain, other = await broker.topic(), await broker.topic(max_message_bytes="5000")
        record = batch(b"v" * 2_000)
        assert await change(client, BROKER, "", ("message.max.bytes", SET, "1000")) == (0, "")
        assert (await client.produce(plain, record)).error_code == ErrorCode.MESSAGE_TOO_LARGE
        assert (await client.produce(other, record)).error_code == ErrorCode.NONE, "its own config goes first"
        assert await change(client, BROKER, "", ("message.max.bytes", DELETE, None)) == (0, "")
        assert (await client.produce(plain, record)).error_code == ErrorCode.NONE

    with_memory_broker(test)


def test_synonyms_tell_that_the_cluster_goes_before_the_agent(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(max_message_bytes="1234")
        assert await change(client, BROKER, "", ("message.max.bytes", SET, "5000")) == (0, "")
        for kind, resource, config, first in (
            (TOPIC, name, "max.message.bytes", [("max.message.bytes", "1234", ConfigSource.TOPIC_CONFIG)]),
            (BROKER, str(broker.agent.broker_id), "message.max.bytes", []),
        ):
            found = by_name(await describe(client, kind, resource, config, synonyms=True))[config]
            assert [(each.name, each.value, each.source) for each in found.synonyms] == [
                *first,
                ("message.max.bytes", "5000", ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG),
                ("message.max.bytes", "2097152", ConfigSource.STATIC_BROKER_CONFIG),
                ("message.max.bytes", "1048588", ConfigSource.DEFAULT_CONFIG),
            ]

    with_memory_broker(test, message_bytes_max="2MiB")


def test_new_topics_follow_the_cluster(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        changes = (("num.partitions", SET, "3"), ("default.replication.factor", SET, "2"))
        assert await change(client, BROKER, "", *changes) == (0, "")
        topic = CreatableTopic(
            name="new", num_partitions=-1, replication_factor=-1, assignments=[], configs=[]
        )
        [made] = (await client.ask(CreateTopicsRequest(topics=[topic]), 7)).topics
        assert (made.num_partitions, made.replication_factor) == (3, 2)
        asked = MetadataRequest(
            topics=[MetadataRequestTopic(name="asked-for")], allow_auto_topic_creation=True
        )
        assert len((await client.ask(asked, 8)).topics[0].partitions) == 3
        off = (("auto.create.topics.enable", SET, "false"), ("delete.topic.enable", SET, "false"))
        assert await change(client, BROKER, "", *off) == (0, "")
        asked = MetadataRequest(topics=[MetadataRequestTopic(name="other")], allow_auto_topic_creation=True)
        answer = await client.ask(asked, 8)
        assert answer.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        deleted = await client.ask(DeleteTopicsRequest(topic_names=["new"], timeout_ms=1000), 3)
        assert deleted.responses[0].error_code == ErrorCode.TOPIC_DELETION_DISABLED

    with_memory_broker(test)


def test_fetches_follow_the_cluster(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic()
        for _ in range(4):
            await client.produce(name, batch(b"v" * 600))
        whole = await client.fetch(name)
        assert await change(client, BROKER, "", ("fetch.max.bytes", SET, "1024")) == (0, "")
        answer = await client.ask(fetch_request({name: {0: 0}}), 12)
        part = answer.responses[0].partitions[0]
        assert 0 < len(joined(part.records)) < len(joined(whole.records))

    with_memory_broker(test)


def test_levels_of_compression_are_heeded(with_memory_broker: RunWithBroker) -> None:
    text = b"".join(b"%d," % (number * number) for number in range(20_000))

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        sizes = {}
        for codec, low, high in (("gzip", "1", "9"), ("zstd", "1", "22"), ("lz4", "9", "17")):
            for level in (low, high):
                configs = {"compression_type": codec, f"compression_{codec}_level": level}
                name = await broker.topic(None, 1, **configs)
                assert (await client.produce(name, batch(text))).error_code == ErrorCode.NONE
                fetched = await client.fetch(name)
                sizes[codec, level] = len(joined(fetched.records))
            assert sizes[codec, high] < sizes[codec, low]

    with_memory_broker(test)


def test_changes_outlive_the_connection_and_are_in_the_audit_log(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        name = await broker.topic(retention_ms="1")
        caplog.clear()
        assert await change(client, TOPIC, name, ("retention.ms", SET, "5"), ("segment.ms", SET, "6")) == (
            0,
            "",
        )
        assert await change(client, TOPIC, name, ("retention.ms", SET, "5")) == (0, "")
        assert await change(client, BROKER, "", ("num.partitions", SET, "3")) == (0, "")
        lines = [record for record in caplog.records if record.name == "warp.audit"]
        assert [line.getMessage() for line in lines] == [
            "altered configs of a topic",
            "altered configs of the cluster",
        ], "what changed nothing is not told"
        assert "retention.ms: 1 -> 5" in lines[0].items  # type: ignore[attr-defined]
        assert lines[0].topic == name  # type: ignore[attr-defined]
        assert "num.partitions: (default) -> 3" in lines[1].items  # type: ignore[attr-defined]

    with caplog.at_level(logging.INFO, "warp.audit"):
        with_memory_broker(test)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda resources: DescribeConfigsRequest(
            resources=[
                DescribeConfigsResource(
                    resource_type=each.resource_type,
                    resource_name=each.resource_name,
                    configuration_keys=None,
                )
                for each in resources
            ]
        ),
        lambda resources: IncrementalAlterConfigsRequest(resources=resources, validate_only=False),
    ],
    ids=["describe", "alter"],
)
def test_others_are_served_between_the_resources_of_a_request(
    with_memory_broker: RunWithBroker, request_of: Callable[[list[IncrementalAlterConfigsResource]], Any]
) -> None:
    async def test(broker: Broker) -> None:
        client, other = await broker.connect(), await broker.connect()
        topics = [await broker.topic() for _ in range(50)]
        resources = [incremental(TOPIC, topic, ("retention.ms", SET, "5")) for topic in topics]
        long = asyncio.ensure_future(client.ask(request_of(resources), 1))
        answered = 0
        while not long.done():
            await other.ask(ApiVersionsRequest(), 0)
            answered += 1
        assert answered > 3

    with_memory_broker(test)
