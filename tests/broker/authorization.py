"""An agent that asks ACLs, whose clients are nobody in particular, and ACLs that a test puts in force at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.broker.support import Broker
from warp.cluster.topic_request import TopicRequest
from warp.errors import ErrorCode
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.schema import Struct
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, acl_key

ENFORCED = {"authorization": "enforce", "group_rebalance_delay_ms": "0ms"}
"""The settings of an agent that refuses what no ACL allows."""

ME = "User:ANONYMOUS"
MY_HOST = "127.0.0.1"

AUTHORIZATION_ERRORS = frozenset(
    {
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        ErrorCode.GROUP_AUTHORIZATION_FAILED,
        ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
        ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


def allow(
    resource: AclResourceType,
    operation: AclOperation,
    name: str = "kafka-cluster",
    *,
    pattern: AclPatternType = AclPatternType.LITERAL,
    principal: str = ME,
    host: str = "*",
) -> Acl:
    """An ACL that allows."""
    return Acl(resource, pattern, name, principal, host, operation, AclPermissionType.ALLOW)


def deny(resource: AclResourceType, operation: AclOperation, name: str = "kafka-cluster") -> Acl:
    """An ACL that denies."""
    return Acl(resource, AclPatternType.LITERAL, name, ME, "*", operation, AclPermissionType.DENY)


async def put_in_force(broker: Broker, *acls: Acl) -> None:
    """Let these be the only ACLs that there are."""
    wanted = {acl_key(acl) for acl in acls}

    def decide(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        gone = [EntryChange(key, None) for key in entries if key not in wanted]
        return gone + [EntryChange(key, "") for key in sorted(wanted - set(entries))]

    await broker.agent.catalogue.change_entries(EntryKind.ACL, decide)


async def make_topic(broker: Broker, name: str, partitions: int = 1) -> None:
    """A topic, without asking anybody."""
    [made] = await broker.agent.catalogue.create([TopicRequest(name, partitions)])
    assert not isinstance(made, Exception), made


def error_codes(message: Any) -> set[int]:
    """The error codes anywhere in an answer, NONE left out."""
    found: set[int] = set()
    if isinstance(message, (list, tuple)):
        for each in message:
            found |= error_codes(each)
        return found
    if not isinstance(message, Struct):
        return found
    for base in type(message).__mro__:
        for name in getattr(base, "__slots__", ()):
            value = getattr(message, name)
            if name == "error_code":
                found |= {value} - {ErrorCode.NONE}
            else:
                found |= error_codes(value)
    return found
