"""The question that every handler asks: may this principal do that to this resource?

An agent without authorization answers it with `OPEN`; `warp.security.acl_authorizer` answers it by ACLs.
"""

from __future__ import annotations

from typing import Protocol

from warp.protocol.types import AclOperation, AclResourceType
from warp.security.principal import Principal

CLUSTER_NAME = "kafka-cluster"
"""The name of the one resource of type CLUSTER."""

ALL_OPERATIONS = sum(1 << operation for operation in AclOperation if operation >= AclOperation.ALL)
"""Every operation, as a bit field."""


class Authorizer(Protocol):
    """Decides by what this agent knows at the moment; never waits.

    `host` is the client's address without the port. What it permits is what the rules say; what it allows is the same,
    unless it only logs: then it allows everything.
    """

    is_on: bool
    """False: nobody is ever refused, and there are no ACLs to speak of (SECURITY_DISABLED)."""

    only_logs: bool
    """True: what is not permitted is told, and allowed nevertheless."""

    def allows(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        """May it?"""

    def permits(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        """As `allows`, by the rules alone: for telling what an authorizer that only logs would have refused."""

    def allows_some(
        self, principal: Principal, host: str, operation: AclOperation, resource: AclResourceType
    ) -> bool:
        """May it do that to at least one resource of the type, whether that exists or not (KIP-679)?"""

    def permits_some(
        self, principal: Principal, host: str, operation: AclOperation, resource: AclResourceType
    ) -> bool:
        """As `allows_some`, by the rules alone."""

    def operations(self, principal: Principal, host: str, resource: AclResourceType, name: str) -> int:
        """Every operation that it allows on a resource: bit n stands for operation n (KIP-430).

        Operations that the type of resource does not know may be among them.
        """


class OpenAccess:
    """Everybody may do everything."""

    is_on = False
    only_logs = False

    def allows(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        """See Authorizer."""
        return True

    permits = allows

    def allows_some(
        self, principal: Principal, host: str, operation: AclOperation, resource: AclResourceType
    ) -> bool:
        """See Authorizer."""
        return True

    permits_some = allows_some

    def operations(self, principal: Principal, host: str, resource: AclResourceType, name: str) -> int:
        """See Authorizer."""
        return ALL_OPERATIONS


OPEN: Authorizer = OpenAccess()
