"""What the words of `warp acl` mean: ACLs to create, and filters of ACLs to list or to delete."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import product
from typing import Final, TypeVar

from warp.config import did_you_mean
from warp.errors import UsageError
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import ANYTHING, LEGAL_OPERATIONS, Acl, AclFilter
from warp.security.authorizer import CLUSTER_NAME
from warp.security.principal import USER, parse_principal

NAMED: Final = {
    "topic": AclResourceType.TOPIC,
    "group": AclResourceType.GROUP,
    "transactional_id": AclResourceType.TRANSACTIONAL_ID,
}
"""Options that name resources, as argparse stores them."""

_PRODUCER: Final = {
    AclResourceType.TOPIC: (AclOperation.WRITE, AclOperation.DESCRIBE, AclOperation.CREATE),
    AclResourceType.TRANSACTIONAL_ID: (AclOperation.WRITE, AclOperation.DESCRIBE),
}
_CONSUMER: Final = {
    AclResourceType.TOPIC: (AclOperation.READ, AclOperation.DESCRIBE),
    AclResourceType.GROUP: (AclOperation.READ,),
}

E = TypeVar("E", bound=IntEnum)


def shown(member: IntEnum) -> str:
    """A name of the protocol in the manner of the command line: `describe-configs`."""
    return member.name.lower().replace("_", "-")


def operation_of(text: str) -> AclOperation:
    """Type of arguments that are an operation, in either manner, in any case."""
    known = {shown(one): one for one in AclOperation if one >= AclOperation.ALL}
    found = known.get(text.lower().replace("_", "-"))
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no operation {text}{did_you_mean(text.lower(), known)}")
    return found


def principal_of(text: str) -> str:
    """Type of arguments that are a principal."""
    try:
        return str(parse_principal(text))
    except ValueError as error:
        hint = "" if ":" in text else f"; perhaps User:{text}"
        raise argparse.ArgumentTypeError(f"{error}{hint}") from None


def rules_of(found: argparse.Namespace) -> list[Acl]:
    """The ACLs that the words of `create` mean, in a fixed order, each once. Raises UsageError."""
    who = [(one, AclPermissionType.ALLOW) for one in found.allow]
    who += [(one, AclPermissionType.DENY) for one in found.deny]
    if not who:
        raise UsageError("nobody is named: use --allow or --deny with a principal like User:alice")
    for principal, _ in who:
        kind, name = parse_principal(principal)
        if kind != USER:
            raise UsageError(
                f"{principal}: no client is ever a {kind}, so this would do nothing; use {USER}:{name}"
            )
    wanted = list(_wanted(found, _resources(found)))
    hosts = found.host or [ANYTHING]
    return list(
        dict.fromkeys(
            Acl(resource, pattern, name, principal, host, operation, permission)
            for (resource, pattern, name, operation), (principal, permission), host in product(
                wanted, who, hosts
            )
        )
    )


Resource = tuple[AclResourceType, AclPatternType, str]


def _resources(found: argparse.Namespace) -> list[Resource]:
    pattern = AclPatternType.PREFIXED if found.prefixed else AclPatternType.LITERAL
    resources = [
        (resource, pattern, name) for option, resource in NAMED.items() for name in getattr(found, option)
    ]
    if found.cluster:
        resources.append((AclResourceType.CLUSTER, AclPatternType.LITERAL, CLUSTER_NAME))
    return resources


def _wanted(
    found: argparse.Namespace, resources: Sequence[Resource]
) -> Iterator[tuple[AclResourceType, AclPatternType, str, AclOperation]]:
    """Every resource with every operation on it. Raises UsageError."""
    if not resources:
        raise UsageError("no resource is named: use --topic, --group, --transactional-id or --cluster")
    if found.producer or found.consumer:
        yield from _of_roles(found, resources)
        return
    if not found.operation:
        raise UsageError("no operation is named: use --operation, --producer or --consumer")
    for resource, operation in product(resources, found.operation):
        legal = LEGAL_OPERATIONS[resource[0]]
        if operation not in (*legal, AclOperation.ALL):
            known = ", ".join(map(shown, [AclOperation.ALL, *sorted(legal)]))
            raise UsageError(f"a {shown(resource[0])} has no operation {shown(operation)}, only {known}")
        yield (*resource, operation)


def _of_roles(
    found: argparse.Namespace, resources: Sequence[Resource]
) -> Iterator[tuple[AclResourceType, AclPatternType, str, AclOperation]]:
    if found.operation:
        raise UsageError("--producer and --consumer stand for operations: --operation does not go with them")
    _require(found, "producer", found.producer, ["topic"])
    _require(found, "consumer", found.consumer, ["topic", "group"])
    roles: list[Mapping[AclResourceType, Iterable[AclOperation]]] = []
    roles += [_PRODUCER] if found.producer else []
    roles += [_CONSUMER] if found.consumer else []
    for resource in resources:
        operations = [operation for role in roles for operation in role.get(resource[0], ())]
        if not operations:
            used = " and ".join(f"--{role}" for role in ("producer", "consumer") if getattr(found, role))
            raise UsageError(f"{used} has no use for a {shown(resource[0])}")
        yield from ((*resource, operation) for operation in operations)


def _require(found: argparse.Namespace, role: str, is_given: bool, options: Sequence[str]) -> None:
    if missing := [option for option in options if is_given and not getattr(found, option)]:
        raise UsageError(f"--{role} needs a --{missing[0]}")


# ---- filters ----

PATTERNS: Final = {
    "literal": AclPatternType.LITERAL,
    "prefixed": AclPatternType.PREFIXED,
    "any": AclPatternType.ANY,
    "match": AclPatternType.MATCH,
}


def filters_of(found: argparse.Namespace, pattern_of_names: AclPatternType) -> list[AclFilter]:
    """The filters that the words of `list` and `delete` mean; what any of them means is meant."""
    pattern = PATTERNS[found.pattern] if found.pattern else pattern_of_names
    resources: list[tuple[AclResourceType, AclPatternType, str | None]] = [
        (resource, pattern, name) for option, resource in NAMED.items() for name in getattr(found, option)
    ]
    if found.cluster:
        resources.append((AclResourceType.CLUSTER, AclPatternType.ANY, CLUSTER_NAME))
    if not resources:
        given = PATTERNS[found.pattern] if found.pattern else AclPatternType.ANY
        resources.append((AclResourceType.ANY, given, None))
    permission = AclPermissionType[found.permission.upper()] if found.permission else AclPermissionType.ANY
    choices = product(
        resources, found.principal or [None], found.host or [None], found.operation or [AclOperation.ANY]
    )
    return list(
        dict.fromkeys(
            AclFilter(*resource, principal, host, operation, permission)
            for resource, principal, host, operation in choices
        )
    )
