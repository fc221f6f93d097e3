"""The operations that a client may do, as bit fields: bit n stands for operation n (KIP-430).

Each kind of resource knows some operations only; an agent without authorization tells every client all of these.
"""

from __future__ import annotations

from warp.handlers.access import allows_cluster
from warp.handlers.context import RequestContext
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.authorizer import CLUSTER_NAME


def _bits(*operations: AclOperation) -> int:
    return sum(1 << operation for operation in operations)


TOPIC_OPERATIONS = _bits(
    AclOperation.READ,
    AclOperation.WRITE,
    AclOperation.CREATE,
    AclOperation.DELETE,
    AclOperation.ALTER,
    AclOperation.DESCRIBE,
    AclOperation.DESCRIBE_CONFIGS,
    AclOperation.ALTER_CONFIGS,
)
GROUP_OPERATIONS = _bits(
    AclOperation.READ,
    AclOperation.DELETE,
    AclOperation.DESCRIBE,
    AclOperation.DESCRIBE_CONFIGS,
    AclOperation.ALTER_CONFIGS,
)
CLUSTER_OPERATIONS = _bits(
    AclOperation.CREATE,
    AclOperation.ALTER,
    AclOperation.DESCRIBE,
    AclOperation.CLUSTER_ACTION,
    AclOperation.DESCRIBE_CONFIGS,
    AclOperation.ALTER_CONFIGS,
    AclOperation.IDEMPOTENT_WRITE,
)


def topic_operations(context: RequestContext, name: str) -> int:
    """What the client may do to a topic."""
    return TOPIC_OPERATIONS & _allowed(context, AclResourceType.TOPIC, name)


def group_operations(context: RequestContext, group_id: str) -> int:
    """What the client may do to a group."""
    return GROUP_OPERATIONS & _allowed(context, AclResourceType.GROUP, group_id)


def cluster_operations(context: RequestContext) -> int:
    """What the client may do to the cluster; to one that may not describe it that is nothing, as with Kafka."""
    if not allows_cluster(context, AclOperation.DESCRIBE):
        return 0
    return CLUSTER_OPERATIONS & _allowed(context, AclResourceType.CLUSTER, CLUSTER_NAME)


def _allowed(context: RequestContext, resource: AclResourceType, name: str) -> int:
    client = context.client
    return context.services.authorizer.operations(client.principal, client.host, resource, name)
