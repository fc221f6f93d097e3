"""ACLs by the admin clients of confluent-kafka and kafka-python, and by Kafka's own tool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from kafka import admin as kafka_python

from tests.clients.java_tools import ACLS, JavaTools
from tests.support.process import AgentProcess


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent where those who have not authenticated may do everything, ACLs included."""
    options = ("--authorization", "enforce", "--super-users", "User:ANONYMOUS")
    with AgentProcess(tmp_path_factory.mktemp("acls") / "data", *options) as process:
        yield process


def binding(name: str, principal: str, **changes: Any) -> AclBinding:
    fields: dict[str, Any] = {
        "restype": ResourceType.TOPIC,
        "name": name,
        "resource_pattern_type": ResourcePatternType.LITERAL,
        "principal": principal,
        "host": "*",
        "operation": AclOperation.READ,
        "permission_type": AclPermissionType.ALLOW,
    }
    return AclBinding(**{**fields, **changes})


def meaning(**changes: Any) -> AclBindingFilter:
    fields: dict[str, Any] = {
        "restype": ResourceType.ANY,
        "name": None,
        "resource_pattern_type": ResourcePatternType.ANY,
        "principal": None,
        "host": None,
        "operation": AclOperation.ANY,
        "permission_type": AclPermissionType.ANY,
    }
    return AclBindingFilter(**{**fields, **changes})


def test_confluents_client_creates_lists_and_deletes(guarded: AgentProcess) -> None:
    client = AdminClient({"bootstrap.servers": guarded.bootstrap})
    who = "User:confluent"
    wanted = [
        binding("orders", who),
        binding("ord", who, resource_pattern_type=ResourcePatternType.PREFIXED, host="10.0.0.0/8"),
        binding("billing", who, restype=ResourceType.GROUP, permission_type=AclPermissionType.DENY),
        binding("kafka-cluster", who, restype=ResourceType.BROKER, operation=AclOperation.IDEMPOTENT_WRITE),
        binding("tx", who, restype=ResourceType.TRANSACTIONAL_ID, operation=AclOperation.WRITE),
    ]
    for _ in range(2):
        for future in client.create_acls(wanted).values():
            assert future.result() is None
    assert sorted(client.describe_acls(meaning(principal=who)).result()) == sorted(wanted)
    matching = meaning(name="orders", resource_pattern_type=ResourcePatternType.MATCH, principal=who)
    assert sorted(client.describe_acls(matching).result()) == sorted(wanted[:2])
    [future] = client.delete_acls([meaning(restype=ResourceType.TOPIC, principal=who)]).values()
    assert sorted(future.result()) == sorted(wanted[:2])
    assert sorted(client.describe_acls(meaning(principal=who)).result()) == sorted(wanted[2:])


def test_confluents_client_is_told_what_is_wrong(guarded: AgentProcess) -> None:
    client = AdminClient({"bootstrap.servers": guarded.bootstrap})
    wrong = binding("t", "User:x", operation=AclOperation.CLUSTER_ACTION)
    right = binding("t", "User:right")
    futures = client.create_acls([wrong, right])
    with pytest.raises(KafkaException) as caught:
        futures[wrong].result()
    assert caught.value.args[0].code() == KafkaError.INVALID_REQUEST
    assert "TOPIC has no operation CLUSTER_ACTION" in caught.value.args[0].str()
    assert futures[right].result() is None


def test_kafka_pythons_client_creates_lists_and_deletes(guarded: AgentProcess) -> None:
    client = kafka_python.KafkaAdminClient(bootstrap_servers=guarded.bootstrap)
    who = "User:kafka-python"
    patterns = [
        kafka_python.ResourcePattern(kafka_python.ResourceType.TOPIC, "orders"),
        kafka_python.ResourcePattern(
            kafka_python.ResourceType.TOPIC, "ord", kafka_python.ACLResourcePatternType.PREFIXED
        ),
        kafka_python.ResourcePattern(kafka_python.ResourceType.GROUP, "orders"),
    ]
    acls = [
        kafka_python.ACL(
            who, "*", kafka_python.ACLOperation.READ, kafka_python.ACLPermissionType.ALLOW, pattern
        )
        for pattern in patterns
    ]
    tokens = kafka_python.ACL(
        who,
        "*",
        kafka_python.ACLOperation.CREATE_TOKENS,
        kafka_python.ACLPermissionType.ALLOW,
        kafka_python.ResourcePattern(kafka_python.ResourceType.USER, "bob"),
    )
    made = client.create_acls([*acls, tokens])
    assert (len(made["succeeded"]), made["failed"]) == (4, [])

    def of(kind: Any, name: str | None, pattern: Any) -> kafka_python.ACLFilter:
        return kafka_python.ACLFilter(
            who,
            None,
            kafka_python.ACLOperation.ANY,
            kafka_python.ACLPermissionType.ANY,
            kafka_python.ResourcePatternFilter(kind, name, pattern),
        )

    every, match = kafka_python.ACLResourcePatternType.ANY, kafka_python.ACLResourcePatternType.MATCH
    found, _ = client.describe_acls(of(kafka_python.ResourceType.ANY, "orders", match))
    assert sorted(
        (acl.resource_pattern.resource_type, acl.resource_pattern.resource_name) for acl in found
    ) == [
        (2, "ord"),
        (2, "orders"),
        (3, "orders"),
    ]
    everything = of(kafka_python.ResourceType.ANY, None, every)
    [(_, gone, _)] = client.delete_acls([everything])
    assert len(gone) == 4
    assert client.describe_acls(everything)[0] == []
    client.close()


@pytest.mark.toolchain
def test_kafkas_own_tool_adds_lists_and_removes(guarded: AgentProcess, java_tools: JavaTools) -> None:
    def kafka_acls(*options: str) -> str:
        return java_tools.succeed(ACLS, "--bootstrap-server", guarded.bootstrap, *options)

    who = ("--allow-principal", "User:java")
    kafka_acls(
        "--add", *who, "--consumer", "--topic", "java-", "--group", "*", "--resource-pattern-type", "prefixed"
    )
    kafka_acls("--add", *who, "--operation", "Alter", "--cluster", "--allow-host", "198.51.100.7")
    listed = kafka_acls("--list", "--principal", "User:java")
    assert "resourceType=TOPIC, name=java-, patternType=PREFIXED" in listed
    assert "resourceType=GROUP, name=*, patternType=PREFIXED" in listed
    assert "host=198.51.100.7, operation=ALTER, permissionType=ALLOW" in listed
    kafka_acls("--remove", "--force", "--topic", "java-", "--resource-pattern-type", "prefixed")
    listed = kafka_acls("--list", "--principal", "User:java")
    assert "java-" not in listed
    assert "operation=ALTER" in listed
