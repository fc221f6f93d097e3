"""ACLs asked of a broker with frames of our own, because the client library would lie about them.

When a broker refuses to list ACLs, librdkafka's binding for Python gives an empty list instead of the error: whoever is
not allowed to look would be told that nothing is set. It does not know all resources and operations either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from warp.cli.client import ClientError
from warp.errors import ErrorCode
from warp.protocol import Request
from warp.protocol.messages.acls import (
    AclCreation,
    CreateAclsRequest,
    DeleteAclsFilter,
    DeleteAclsRequest,
    DescribeAclsRequest,
)
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, AclFilter

E = TypeVar("E", bound=IntEnum)


class Asks(Protocol):
    """A connection to a broker, as WireClient is one."""

    def ask(self, request: Request) -> Any:
        """The answer to a request. Raises ClientError."""


class AclAdmin:
    """What `warp acl` asks of brokers. Every method raises ClientError, which says in one line why."""

    def __init__(self, broker: Asks) -> None:
        self._broker = broker

    def create(self, acls: Sequence[Acl]) -> list[ClientError | None]:
        """Create ACLs; per ACL why not, or None. Those that are there already count as created."""
        creations = [
            AclCreation(
                resource_type=acl.resource,
                resource_name=acl.name,
                resource_pattern_type=acl.pattern,
                principal=acl.principal,
                host=acl.host,
                operation=acl.operation,
                permission_type=acl.permission,
            )
            for acl in acls
        ]
        answer = self._broker.ask(CreateAclsRequest(creations=creations))
        return [_problem(result) for result in answer.results]

    def listed(self, filters: Iterable[AclFilter]) -> list[Acl]:
        """The ACLs that any of the filters means, in order."""
        found: dict[Acl, None] = {}
        for one in filters:
            answer = self._broker.ask(
                DescribeAclsRequest(
                    resource_type_filter=one.resource,
                    resource_name_filter=one.name,
                    pattern_type_filter=one.pattern,
                    principal_filter=one.principal,
                    host_filter=one.host,
                    operation=one.operation,
                    permission_type=one.permission,
                )
            )
            _check(answer)
            found.update(
                dict.fromkeys(_acl(resource, each) for resource in answer.resources for each in resource.acls)
            )
        return sorted(found)

    def delete(self, filters: Sequence[AclFilter]) -> list[Acl]:
        """Delete the ACLs that any of the filters means; which these were, in order."""
        asked = [
            DeleteAclsFilter(
                resource_type_filter=one.resource,
                resource_name_filter=one.name,
                pattern_type_filter=one.pattern,
                principal_filter=one.principal,
                host_filter=one.host,
                operation=one.operation,
                permission_type=one.permission,
            )
            for one in filters
        ]
        answer = self._broker.ask(DeleteAclsRequest(filters=asked))
        found: dict[Acl, None] = {}
        for result in answer.filter_results:
            _check(result)
            for each in result.matching_acls:
                _check(each)
                found[_acl(each, each)] = None
        return sorted(found)


def _check(result: Any) -> None:
    if (problem := _problem(result)) is not None:
        raise problem


def _problem(result: Any) -> ClientError | None:
    """Why it failed, if it did."""
    if not result.error_code:
        return None
    if result.error_code == ErrorCode.SECURITY_DISABLED:
        return ClientError("the broker has no ACLs: its authorization is off (SECURITY_DISABLED)")
    try:
        name = ErrorCode(result.error_code).name
    except ValueError:
        name = f"error {result.error_code}"
    return ClientError(f"{result.error_message} ({name})" if result.error_message else name)


def _acl(resource: Any, each: Any) -> Acl:
    return Acl(
        _member(AclResourceType, resource.resource_type),
        _member(AclPatternType, resource.pattern_type),
        resource.resource_name,
        each.principal,
        each.host,
        _member(AclOperation, each.operation),
        _member(AclPermissionType, each.permission_type),
    )


def _member(kind: type[E], number: int) -> E:
    """Of a newer broker there may be one without a name here."""
    try:
        return kind(number)
    except ValueError:
        return kind(0)
