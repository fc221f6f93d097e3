"""CreateAcls, DescribeAcls and DeleteAcls: filters, errors for each part, and what is in force when they answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker
from warp.agent_security import EntryFeed
from warp.errors import ErrorCode
from warp.handlers import acls
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.messages.acls import (
    AclCreation,
    CreateAclsRequest,
    DeleteAclsFilter,
    DeleteAclsRequest,
    DescribeAclsRequest,
)
from warp.protocol.types import (
    AclOperation as Operation,
    AclPatternType as Pattern,
    AclPermissionType as Permission,
    AclResourceType as Resource,
)
from warp.security.acl import Acl, AclFilter, acl_key
from warp.security.acl_authorizer import AclAuthorizer
from warp.security.principal import ANONYMOUS, Principal

ORDERS = Acl(Resource.TOPIC, Pattern.LITERAL, "orders", "User:alice", "*", Operation.READ, Permission.ALLOW)
ORDERS_PREFIX = ORDERS._replace(pattern=Pattern.PREFIXED, name="ord", principal="User:bob")
EVERY_TOPIC = ORDERS._replace(name="*", principal="User:*", permission=Permission.DENY)
GROUP = ORDERS._replace(resource=Resource.GROUP, host="10.0.0.0/8")
CLUSTER = ORDERS._replace(resource=Resource.CLUSTER, name="kafka-cluster", operation=Operation.ALTER)
ALL = [EVERY_TOPIC, ORDERS, ORDERS_PREFIX, GROUP, CLUSTER]
"""In the order in which they are listed."""

ENFORCED = {"authorization": "enforce", "super_users": "User:ANONYMOUS"}
VERSIONS = (1, 2, 3)
OK = (ErrorCode.NONE, None)


def creation(acl: Acl, **changes: Any) -> AclCreation:
    fields = {
        "resource_type": acl.resource,
        "resource_name": acl.name,
        "resource_pattern_type": acl.pattern,
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation,
        "permission_type": acl.permission,
    }
    return AclCreation(**{**fields, **changes})


def filter_fields(wanted: AclFilter) -> dict[str, Any]:
    return {
        "resource_type_filter": wanted.resource,
        "resource_name_filter": wanted.name,
        "pattern_type_filter": wanted.pattern,
        "principal_filter": wanted.principal,
        "host_filter": wanted.host,
        "operation": wanted.operation,
        "permission_type": wanted.permission,
    }


async def create(client: Client, *wanted: Acl | AclCreation, version: int = 3) -> list[tuple[int, Any]]:
    creations = [creation(one) if isinstance(one, Acl) else one for one in wanted]
    answer = await client.ask(CreateAclsRequest(creations=creations), version)
    return [(result.error_code, result.error_message) for result in answer.results]


async def listed(client: Client, version: int = 3, **wanted: Any) -> list[Acl]:
    answer = await client.ask(DescribeAclsRequest(**filter_fields(AclFilter(**wanted))), version)
    assert (answer.error_code, answer.error_message) == OK
    return [
        Acl(
            Resource(resource.resource_type),
            Pattern(resource.pattern_type),
            resource.resource_name,
            acl.principal,
            acl.host,
            Operation(acl.operation),
            Permission(acl.permission_type),
        )
        for resource in answer.resources
        for acl in resource.acls
    ]


async def delete(client: Client, *filters: AclFilter, version: int = 3) -> list[Any]:
    asked = [DeleteAclsFilter(**filter_fields(one)) for one in filters]
    answer = await client.ask(DeleteAclsRequest(filters=asked), version)
    return list(answer.filter_results)


def deleted(result: Any) -> list[Acl]:
    assert (result.error_code, result.error_message) == OK
    assert all((acl.error_code, acl.error_message) == OK for acl in result.matching_acls)
    return [
        Acl(
            Resource(acl.resource_type),
            Pattern(acl.pattern_type),
            acl.resource_name,
            acl.principal,
            acl.host,
            Operation(acl.operation),
            Permission(acl.permission_type),
        )
        for acl in result.matching_acls
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_acls_are_created_listed_and_deleted(with_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await listed(client, version) == []
        assert await create(client, *ALL, version=version) == [OK] * len(ALL)
        assert await listed(client, version) == ALL
        assert await listed(client, version, resource=Resource.GROUP) == [GROUP]
        assert await listed(client, version, name="orders", pattern=Pattern.MATCH) == [
            EVERY_TOPIC, ORDERS, ORDERS_PREFIX, GROUP
        ]  # fmt: skip
        assert await listed(client, version, principal="User:nobody") == []
        of_topics = AclFilter(Resource.TOPIC, permission=Permission.ALLOW)
        exactly, nothing = AclFilter(*ORDERS), AclFilter(principal="User:nobody")
        results = await delete(client, of_topics, exactly, nothing, version=version)
        assert [deleted(result) for result in results] == [[ORDERS, ORDERS_PREFIX], [ORDERS], []]
        assert await listed(client, version) == [EVERY_TOPIC, GROUP, CLUSTER]
        [result] = await delete(client, AclFilter(), version=version)
        assert sorted(deleted(result)) == [EVERY_TOPIC, GROUP, CLUSTER]
        assert await listed(client, version) == []

    with_broker(test, **ENFORCED)


def test_acls_of_one_resource_are_listed_together(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        writes = ORDERS._replace(operation=Operation.WRITE)
        await create(client, GROUP, writes, ORDERS)
        answer = await client.ask(DescribeAclsRequest(**filter_fields(AclFilter())), 3)
        found = [(resource.resource_type, len(resource.acls)) for resource in answer.resources]
        assert found == [(Resource.TOPIC, 2), (Resource.GROUP, 1)]

    with_memory_broker(test, **ENFORCED)


def test_creating_what_is_there_succeeds_and_changes_nothing(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await create(client, ORDERS, ORDERS) == [OK, OK]
        version = broker.agent.catalogue.current.version
        assert await create(client, ORDERS) == [OK]
        assert broker.agent.catalogue.current.version == version
        assert await listed(client) == [ORDERS]

    with_memory_broker(test, **ENFORCED)


def test_wrong_acls_have_errors_of_their_own_and_the_others_are_created(
    with_memory_broker: RunWithBroker,
) -> None:
    wrong = [
        creation(ORDERS, resource_type=0),
        creation(ORDERS, resource_type=1),
        creation(ORDERS, resource_type=99),
        creation(ORDERS, resource_type=-1),
        creation(ORDERS, resource_pattern_type=0),
        creation(ORDERS, resource_pattern_type=1),
        creation(ORDERS, resource_pattern_type=2),
        creation(ORDERS, resource_pattern_type=5),
        creation(ORDERS, operation=0),
        creation(ORDERS, operation=1),
        creation(ORDERS, operation=16),
        creation(ORDERS, operation=Operation.IDEMPOTENT_WRITE),
        creation(GROUP, operation=Operation.WRITE),
        creation(CLUSTER, operation=Operation.READ),
        creation(CLUSTER, resource_name="other"),
        creation(ORDERS, permission_type=0),
        creation(ORDERS, permission_type=1),
        creation(ORDERS, permission_type=4),
        creation(ORDERS, principal="alice"),
        creation(ORDERS, principal=""),
        creation(ORDERS, host=""),
        creation(ORDERS, host="example.org"),
        creation(ORDERS, resource_name=""),
        creation(ORDERS, resource_name="n" * 30_000),
        creation(ORDERS, principal="User:" + "a" * 30_000),
    ]

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        results = await create(client, ORDERS, *wrong, GROUP)
        assert results[0] == results[-1] == OK
        assert {code for code, _ in results[1:-1]} == {ErrorCode.INVALID_REQUEST}
        assert all(isinstance(message, str) and 0 < len(message) < 500 for _, message in results[1:-1])
        assert await listed(client) == [ORDERS, GROUP]
        assert [code for code, _ in await create(client, *wrong[:2])] == [ErrorCode.INVALID_REQUEST] * 2

    with_memory_broker(test, **ENFORCED)


@pytest.mark.parametrize(
    "name", ["User:CN=a\\,b, O=c", "User:a:b:c", "User:\x00\n\x1b[2J", "User:\U0001f600", "X:y"]
)
def test_principals_with_strange_characters_are_kept_as_they_are(
    with_broker: RunWithBroker, name: str
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        strange = ORDERS._replace(principal=name, name=name)
        assert await create(client, strange) == [OK]
        assert await listed(client, principal=name) == [strange]
        [result] = await delete(client, AclFilter(name=name))
        assert deleted(result) == [strange]

    with_broker(test, **ENFORCED)


@pytest.mark.parametrize(
    "field", ["resource_type_filter", "pattern_type_filter", "operation", "permission_type"]
)
@pytest.mark.parametrize("number", [0, 77, -5])
def test_a_filter_of_unknown_numbers_is_an_invalid_request(
    with_memory_broker: RunWithBroker, field: str, number: int
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await create(client, ORDERS)
        fields = {**filter_fields(AclFilter()), field: number}
        for version in VERSIONS:
            answer = await client.ask(DescribeAclsRequest(**fields), version)
            assert (answer.error_code, answer.resources) == (ErrorCode.INVALID_REQUEST, [])
            assert str(number) in answer.error_message
        filters = [DeleteAclsFilter(**fields), DeleteAclsFilter(**filter_fields(AclFilter(Resource.GROUP)))]
        wrong, right = (await client.ask(DeleteAclsRequest(filters=filters), 3)).filter_results
        assert (wrong.error_code, wrong.matching_acls) == (ErrorCode.INVALID_REQUEST, [])
        assert deleted(right) == []
        assert await listed(client) == [ORDERS]

    with_memory_broker(test, **ENFORCED)


def test_empty_requests_change_nothing(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await create(client) == []
        assert await delete(client) == []

    with_memory_broker(test, **ENFORCED)


# ---- who may ----


async def codes(client: Client, version: int = 3) -> tuple[list[int], list[int], list[int]]:
    """What listing, creating and deleting come to."""
    answer = await client.ask(DescribeAclsRequest(**filter_fields(AclFilter())), version)
    assert (answer.error_message is None) is (answer.error_code == 0)
    created = [code for code, _ in await create(client, ORDERS, GROUP, version=version)]
    removed = [result.error_code for result in await delete(client, AclFilter(*ORDERS), version=version)]
    return [answer.error_code], created, removed


@pytest.mark.parametrize("version", VERSIONS)
def test_without_authorization_there_are_no_acls(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        disabled = ErrorCode.SECURITY_DISABLED
        assert await codes(await broker.connect(), version) == ([disabled], [disabled] * 2, [disabled])

    with_memory_broker(test)


@pytest.mark.parametrize("version", VERSIONS)
def test_nobody_may_who_is_not_allowed_to(with_memory_broker: RunWithBroker, version: int) -> None:
    async def test(broker: Broker) -> None:
        failed = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        assert await codes(await broker.connect(), version) == ([failed], [failed] * 2, [failed])
        assert not broker.agent.catalogue.entries(EntryKind.ACL)

    with_memory_broker(test, authorization="enforce")


def test_describe_lists_and_alter_changes(with_memory_broker: RunWithBroker) -> None:
    failed = ErrorCode.CLUSTER_AUTHORIZATION_FAILED

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        describes = CLUSTER._replace(principal=str(ANONYMOUS), operation=Operation.DESCRIBE)
        await _change(broker, describes, "")
        assert await codes(client) == ([0], [failed] * 2, [failed])
        await _change(broker, describes, None)
        await _change(broker, describes._replace(operation=Operation.ALTER), "")
        assert await codes(client) == ([0], [0] * 2, [0])

    with_memory_broker(test, authorization="enforce")


def test_the_mode_that_only_logs_allows_it_and_tells(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        with caplog.at_level(logging.INFO, "warp.audit"):
            assert await codes(await broker.connect()) == ([0], [0] * 2, [0])

    with_memory_broker(test, authorization="log")
    assert "would deny" in caplog.messages


async def _change(broker: Broker, acl: Acl, value: str | None) -> None:
    """As another agent would."""
    await broker.agent.catalogue.change_entries(EntryKind.ACL, lambda _: [EntryChange(acl_key(acl), value)])


# ---- what follows ----


def test_a_change_is_in_force_before_it_is_answered(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        authorizer = broker.agent.security.authorizer

        def may() -> bool:
            return authorizer.allows(
                Principal("User", "alice"), "192.0.2.1", Operation.READ, Resource.TOPIC, "orders"
            )

        for _ in range(3):
            assert not may()
            await create(client, ORDERS)
            assert may()
            await create(client, EVERY_TOPIC)
            assert not may()
            await delete(client, AclFilter(*EVERY_TOPIC))
            assert may()
            await delete(client, AclFilter(principal="User:alice"))

    with_broker(test, **ENFORCED)


def test_an_authorizer_begins_with_the_acls_that_there_are(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        await create(await broker.connect(), *ALL)
        later = AclAuthorizer()
        EntryFeed(broker.agent.catalogue).feed(EntryKind.ACL, later.entries_changed)
        assert dict(later.acls) == dict(broker.agent.security.acls) == {acl_key(acl): acl for acl in ALL}

    with_broker(test, **ENFORCED)


def test_each_change_is_in_the_audit_log(
    with_memory_broker: RunWithBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await create(client, ORDERS, creation(ORDERS, operation=1), GROUP)
        await create(client, ORDERS)
        await delete(client, AclFilter(Resource.TOPIC), AclFilter(*ORDERS))
        await delete(client, AclFilter(Resource.TOPIC))

    with caplog.at_level(logging.INFO, "warp.audit"):
        with_memory_broker(test, **ENFORCED)
    found = [record for record in caplog.records if record.name == "warp.audit"]
    assert [record.getMessage() for record in found] == ["created ACLs", "deleted ACLs"]
    shown = [vars(record) for record in found]
    assert [fields["principal"] for fields in shown] == ["User:ANONYMOUS"] * 2
    orders = "ALLOW User:alice READ on LITERAL TOPIC orders from *"
    group = "ALLOW User:alice READ on LITERAL GROUP orders from 10.0.0.0/8"
    assert [fields["items"] for fields in shown] == [f'"{orders}", "{group}"', f'"{orders}"']


def test_there_is_a_limit_of_acls(with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acls, "ACLS_MAX", 3)

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await create(client, *ALL[:2]) == [OK, OK]
        too_many = await create(client, *ALL, creation(ORDERS, operation=1))
        assert {code for code, _ in too_many} == {ErrorCode.POLICY_VIOLATION}
        assert await create(client, ALL[2], ALL[0]) == [OK, OK]
        assert await create(client, *ALL[:3]) == [OK] * 3
        assert [code for code, _ in await create(client, ALL[3])] == [ErrorCode.POLICY_VIOLATION]
        assert await listed(client) == ALL[:3]

    with_memory_broker(test, **ENFORCED)


def test_there_is_a_limit_of_changes_and_of_wide_filters_in_one_request(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acls, "CHANGES_MAX", 3)
    monkeypatch.setattr(acls, "WIDE_FILTERS_MAX", 1)

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        refused = await create(client, *ALL)
        assert [code for code, _ in refused] == [ErrorCode.POLICY_VIOLATION] * len(ALL)
        assert await create(client, *ALL[:3]) == [OK] * 3
        exact = [AclFilter(*acl) for acl in ALL]
        for filters in (exact, [AclFilter(), AclFilter(Resource.TOPIC), exact[0]]):
            results = await delete(client, *filters)
            assert {result.error_code for result in results} == {ErrorCode.POLICY_VIOLATION}
        assert await listed(client) == ALL[:3]
        results = await delete(client, exact[0], exact[1], AclFilter(name="nothing"))
        assert [deleted(result) for result in results] == [[ALL[0]], [ALL[1]], []]

    with_memory_broker(test, **ENFORCED)


def test_many_acls_are_compared_in_turns(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acls, "_ACLS_PER_TURN", 7)
    many = [ORDERS._replace(name=f"topic-{number:03}") for number in range(100)]

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        assert await create(client, *many) == [OK] * 100
        assert await listed(client) == many
        results = await delete(client, AclFilter(Resource.GROUP), AclFilter(Resource.TOPIC))
        assert [sorted(deleted(result)) for result in results] == [[], many]

    with_memory_broker(test, **ENFORCED)


def test_two_clients_that_create_and_delete_the_same_agree_in_the_end(with_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        clients = [await broker.connect() for _ in range(4)]
        done = await asyncio.gather(*(create(client, *ALL) for client in clients))
        assert done == [[OK] * len(ALL)] * len(clients)
        assert await listed(clients[0]) == ALL
        results = await asyncio.gather(*(delete(client, AclFilter()) for client in clients))
        told = [acl for [result] in results for acl in deleted(result)]
        assert sorted(told) == sorted(ALL)
        assert await listed(clients[0]) == []

    with_broker(test, **ENFORCED)


def test_what_somebody_else_has_deleted_meanwhile_is_not_told_as_deleted(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    matching = acls._matching

    async def test(broker: Broker) -> None:
        async def matching_before_another(*asked: Any) -> Any:
            found = await matching(*asked)
            await _change(broker, ORDERS, None)
            return found

        client = await broker.connect()
        await create(client, *ALL)
        monkeypatch.setattr(acls, "_matching", matching_before_another)
        [result] = await delete(client, AclFilter(Resource.TOPIC))
        assert deleted(result) == [EVERY_TOPIC, ORDERS_PREFIX]

    with_memory_broker(test, **ENFORCED)
