"""Authorization by ACLs as the rules are written down: one loop over all of them, for tests to compare with."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from warp.protocol.types import (
    AclOperation as Operation,
    AclPatternType as Pattern,
    AclPermissionType as Permission,
    AclResourceType as Resource,
)
from warp.security.acl import Acl
from warp.security.principal import Principal

DESCRIBES = (Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER)
FRESH = "\0a name that nobody has thought of"


class Oracle:
    """What the ACLs permit."""

    def __init__(
        self, acls: Collection[Acl], super_users: Collection[Principal] = (), allow_if_no_acl: bool = False
    ) -> None:
        self.acls = acls
        self.super_users = super_users
        self.allow_if_no_acl = allow_if_no_acl

    def permits(
        self, principal: Principal, host: str, operation: Operation, resource: Resource, name: str
    ) -> bool:
        if principal in self.super_users:
            return True
        about = [acl for acl in self.acls if is_about(acl, resource, name)]
        if not about and self.allow_if_no_acl:
            return True
        who = [acl for acl in about if acl.principal in (str(principal), "User:*") and is_from(acl, host)]
        for acl in who:
            if acl.permission == Permission.DENY and acl.operation in (operation, Operation.ALL):
                return False
        return any(acl.permission == Permission.ALLOW and brings(acl.operation, operation) for acl in who)

    def permits_some(self, principal: Principal, host: str, operation: Operation, resource: Resource) -> bool:
        """By trying: what the ACLs name, what begins like that, and a name that none of them names."""
        if resource == Resource.CLUSTER:
            return self.permits(principal, host, operation, resource, "kafka-cluster")
        names = {acl.name for acl in self.acls} | {acl.name + FRESH for acl in self.acls} | {FRESH}
        return any(self.permits(principal, host, operation, resource, name) for name in sorted(names))


def is_about(acl: Acl, resource: Resource, name: str) -> bool:
    if acl.resource != resource:
        return False
    if acl.pattern == Pattern.PREFIXED:
        return name.startswith(acl.name)
    return acl.name in (name, "*")


def is_from(acl: Acl, host: str) -> bool:
    if acl.host == "*":
        return True
    if not host:
        return False
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in ipaddress.ip_network(acl.host)


def brings(allowed: Operation, operation: Operation) -> bool:
    return (
        allowed in (operation, Operation.ALL)
        or (operation == Operation.DESCRIBE and allowed in DESCRIBES)
        or (operation == Operation.DESCRIBE_CONFIGS and allowed == Operation.ALTER_CONFIGS)
    )
