"""ACLs by librdkafka's admin client: its futures, enumerations and errors become plain values and one-line errors.

The library knows topics, groups, transactional ids and the cluster, and the operations on those; no ACLs about users
and delegation tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, IntEnum
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation as LibraryOperation,
    AclPermissionType as LibraryPermission,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from warp.cli.client import Client, ClientError
from warp.errors import UsageError
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, AclFilter

L = TypeVar("L", bound=Enum)


class AclAdmin:
    """What `warp acl` asks of brokers. Every method raises ClientError, which says in one line why."""

    def __init__(self, client: Client, admin: AdminClient) -> None:
        self._client = client
        self._admin = admin

    def create(self, acls: Sequence[Acl]) -> list[ClientError | None]:
        """Create ACLs; per ACL why not, or None. Those that are there already count as created."""
        bindings = [_binding(AclBinding, acl) for acl in acls]
        futures = self._ask(lambda: self._admin.create_acls(bindings, request_timeout=self._client.timeout_s))
        return [self._problem(futures[binding].result) for binding in bindings]

    def listed(self, filters: Iterable[AclFilter]) -> list[Acl]:
        """The ACLs that any of the filters means, in order."""
        found: dict[Acl, None] = {}
        for one in filters:
            asked = _binding(AclBindingFilter, one)
            future = self._ask(
                lambda asked=asked: self._admin.describe_acls(  # type: ignore[misc]
                    asked, request_timeout=self._client.timeout_s
                )
            )
            found.update(dict.fromkeys(map(_acl, self._ask(future.result))))
        return sorted(found)

    def delete(self, filters: Sequence[AclFilter]) -> list[Acl]:
        """Delete the ACLs that any of the filters means; which these were, in order."""
        asked = [_binding(AclBindingFilter, one) for one in filters]
        futures = self._ask(lambda: self._admin.delete_acls(asked, request_timeout=self._client.timeout_s))
        found: dict[Acl, None] = {}
        for one in asked:
            found.update(dict.fromkeys(map(_acl, self._ask(futures[one].result))))
        return sorted(found)

    def _problem(self, ask: Callable[[], Any]) -> ClientError | None:
        try:
            self._ask(ask)
        except ClientError as error:
            return error
        return None

    def _ask(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except KafkaException as error:
            reason = error.args[0]
            if isinstance(reason, KafkaError) and reason.code() == KafkaError.SECURITY_DISABLED:
                raise ClientError(
                    "the broker has no ACLs: its authorization is off (SECURITY_DISABLED)"
                ) from error
            # Has the callback for errors called, which knows why.
            self._admin.poll(0)
            raise self._client.failure(error) from error


def _binding(kind: Callable[..., Any], acl: Acl | AclFilter) -> Any:
    return kind(
        _of_library(ResourceType, acl.resource),
        acl.name,
        _of_library(ResourcePatternType, acl.pattern),
        acl.principal,
        acl.host,
        _of_library(LibraryOperation, acl.operation),
        _of_library(LibraryPermission, acl.permission),
    )


def _of_library(kind: type[L], member: IntEnum) -> L:
    """Its numbers are those of the protocol."""
    try:
        return kind(int(member))
    except ValueError:
        raise UsageError(f"the client library does not know {member.name}") from None


def _acl(binding: AclBinding) -> Acl:
    found: Any = binding
    return Acl(
        AclResourceType(found.restype.value),
        AclPatternType(found.resource_pattern_type.value),
        found.name,
        found.principal,
        found.host,
        AclOperation(found.operation.value),
        AclPermissionType(found.permission_type.value),
    )
