"""Every API and every resource that it names: without an ACL, with one that allows, with one that denies, and others.

The table is in `authorization_table`; here it is walked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.broker.authorization import (
    AUTHORIZATION_ERRORS,
    ENFORCED,
    MY_HOST,
    allow,
    deny,
    error_codes,
    make_topic,
    put_in_force,
)
from tests.broker.authorization_table import NOBODY_IS_REFUSED, ROWS, Row
from tests.broker.client import Client
from tests.broker.support import Broker, RunWithBroker
from warp.handlers.table import TABLE
from warp.ids import NO_TOPIC_ID
from warp.protocol import APIS
from warp.protocol.types import AclOperation, AclPatternType, AclResourceType
from warp.security.acl import LEGAL_OPERATIONS, Acl
from warp.security.authorizer import CLUSTER_NAME

DESCRIBING = {AclOperation.READ, AclOperation.WRITE, AclOperation.DELETE, AclOperation.ALTER}
"""Operations that imply DESCRIBE. ALTER_CONFIGS implies DESCRIBE_CONFIGS."""


class Case(NamedTuple):
    """Some ACLs about the resource of a row, and whether they let the client do what it asks for."""

    what: str
    acls: list[Acl]
    is_allowed: bool


def implies(given: AclOperation, wanted: AclOperation) -> bool:
    if given in DESCRIBING and wanted is AclOperation.DESCRIBE:
        return True
    return given is AclOperation.ALTER_CONFIGS and wanted is AclOperation.DESCRIBE_CONFIGS


def cases(row: Row, name: str) -> Iterator[Case]:
    resource, operation = row.resource, row.operation
    legal = LEGAL_OPERATIONS[resource]
    if operation not in legal:
        # DELETE on the cluster: only ALL gives it.
        operation = AclOperation.ALL
    allowed = allow(resource, operation, name)
    yield Case("no ACL", [], False)
    yield Case("allowed", [allowed], True)
    yield Case("allowed all", [allow(resource, AclOperation.ALL, name)], True)
    yield Case("denied", [deny(resource, operation, name)], False)
    yield Case("denied beside allowed", [allowed, deny(resource, operation, name)], False)
    yield Case("denied all beside allowed", [allowed, deny(resource, AclOperation.ALL, name)], False)
    yield Case("allowed here", [allow(resource, operation, name, host=MY_HOST)], True)
    yield Case("allowed elsewhere", [allow(resource, operation, name, host="192.0.2.1")], False)
    yield Case("allowed to somebody", [allow(resource, operation, name, principal="User:somebody")], False)
    yield Case("allowed to everybody", [allow(resource, operation, name, principal="User:*")], True)
    for other in sorted(legal - {operation}):
        is_implied = implies(other, operation)
        yield Case(f"allowed {other.name}", [allow(resource, other, name)], is_implied)
        if is_implied:
            both = [allow(resource, other, name), deny(resource, operation, name)]
            yield Case(f"denied beside allowed {other.name}", both, False)
    if resource is not AclResourceType.CLUSTER:
        prefix = allow(resource, operation, name[:-1], pattern=AclPatternType.PREFIXED)
        yield Case("allowed by prefix", [prefix], True)
        yield Case("allowed for all names", [allow(resource, operation, "*")], True)
        yield Case("another is allowed", [allow(resource, operation, f"{name}x")], row.about_any)


def guarded_name(row: Row, name: str) -> str:
    """The name of the resource that the row is about, where topic and group of the request have this name."""
    return CLUSTER_NAME if row.resource is AclResourceType.CLUSTER else name


async def ask(broker: Broker, client: Client, row: Row, version: int, name: str, acls: list[Acl]) -> set[int]:
    """The error codes of the answer, when these and what the request takes beside are all the ACLs."""
    if row.exists and name not in broker.agent.catalogue.current.by_name:
        await make_topic(broker, name)
    beside = [allow(resource, operation, name) for resource, operation in row.beside]
    await put_in_force(broker, *acls, *beside)
    topic_id = broker.topic_id(name) if row.exists else NO_TOPIC_ID
    return error_codes(await client.ask(row.request(version, name, topic_id), version))


def check(row: Row, case: str, codes: set[int], is_allowed: bool) -> None:
    if not is_allowed:
        assert codes == {row.code}, case
    elif not row.never_succeeds:
        assert not codes & AUTHORIZATION_ERRORS, case


def test_every_api_is_in_the_table() -> None:
    in_table = {row.api for row in ROWS}
    assert in_table | NOBODY_IS_REFUSED.keys() == {entry.key for entry in TABLE}
    assert not in_table & NOBODY_IS_REFUSED.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text)
def test_what_a_client_may_do_is_what_acls_say(with_memory_broker: RunWithBroker, row: Row) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        _, newest = row.versions or APIS[row.api].versions
        for number in range(len(list(cases(row, CLUSTER_NAME)))):
            # A name of its own for each: what was allowed may have changed what there is.
            name = f"case-{number}-"
            case = list(cases(row, guarded_name(row, name)))[number]
            codes = await ask(broker, client, row, newest, name, case.acls)
            check(row, case.what, codes, case.is_allowed)

    with_memory_broker(test, **ENFORCED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.text)
def test_every_version_is_guarded(with_memory_broker: RunWithBroker, row: Row) -> None:
    async def test(broker: Broker) -> None:
        client = await broker.connect()
        low, high = row.versions or APIS[row.api].versions
        for version in range(low, high + 1):
            name = f"version-{version}-"
            allowed = allow(row.resource, AclOperation.ALL, guarded_name(row, name))
            for acls in ([], [allowed]):
                codes = await ask(broker, client, row, version, name, acls)
                check(row, f"version {version}, {acls}", codes, bool(acls))

    with_memory_broker(test, **ENFORCED)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.resource is AclResourceType.TOPIC and row.exists],
    ids=lambda row: row.text,
)
def test_an_answer_does_not_tell_whether_a_topic_exists(with_memory_broker: RunWithBroker, row: Row) -> None:
    """Where topics are named by their ids, there is nothing to be told: who has an id has seen the topic."""

    async def test(broker: Broker) -> None:
        client = await broker.connect()
        await make_topic(broker, "exists")
        low, high = row.versions or APIS[row.api].versions
        for version in range(low, high + 1):
            answers = []
            for name in ("exists", "absent"):
                beside = [allow(resource, operation, name) for resource, operation in row.beside]
                await put_in_force(broker, *beside)
                answer = await client.ask(row.request(version, name, NO_TOPIC_ID), version)
                answers.append(repr(answer).replace(name, "NAME"))
            assert answers[0] == answers[1], version

    with_memory_broker(test, **ENFORCED)
