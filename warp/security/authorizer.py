"""The question that every handler asks: may this principal do that to this resource?

An agent without authorization answers it with `OPEN`; `warp.security.acl_authorizer` answers it by ACLs.
"""

from __future__ import annotations

from typing import Protocol

from warp.protocol.types import AclOperation, AclResourceType
from warp.security.principal import Principal

CLUSTER_NAME = "kafka-cluster"
"""The name of the one resource of type CLUSTER."""


class Authorizer(Protocol):
    """Decides by what this agent knows at the moment; never waits."""

    is_on: bool
    """False: nobody is ever refused, and there are no ACLs to speak of (SECURITY_DISABLED)."""

    def allows(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        """May it? `host` is the client's address without the port."""

    def allows_some(
        self, principal: Principal, host: str, operation: AclOperation, resource: AclResourceType
    ) -> bool:
        """May it do that to at least one resource of the type, whether that exists or not (KIP-679)?"""


class OpenAccess:
    """Everybody may do everything."""

    is_on = False

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

    def allows_some(
        self, principal: Principal, host: str, operation: AclOperation, resource: AclResourceType
    ) -> bool:
        """See Authorizer."""
        return True


OPEN: Authorizer = OpenAccess()
