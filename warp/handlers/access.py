"""May the client? The question of `RequestContext.allows`, in the forms in which handlers ask it.

What a client may not see gets the same answer whether it exists or not, in the same time: so the question comes before
the look at what there is. It is asked once per topic of a request, however many partitions are named.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from warp.errors import ErrorCode
from warp.handlers.context import RequestContext
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.authorizer import CLUSTER_NAME

if TYPE_CHECKING:
    from warp.cluster.catalogue import TopicInfo

_NOBODY: frozenset[str] = frozenset()


def denied_topics(context: RequestContext, operation: AclOperation, names: Iterable[str]) -> frozenset[str]:
    """Those of the topics that the client may not do that to. They may be many: as `allows_topic`, in less time."""
    authorizer = context.services.authorizer
    if not authorizer.is_on:
        return _NOBODY
    denied = _not_permitted(context, operation, dict.fromkeys(names))
    for name in denied:
        context.refused(operation, AclResourceType.TOPIC, name)
    return _NOBODY if authorizer.only_logs else frozenset(denied)


def describable_topics(context: RequestContext, names: Iterable[str]) -> list[str]:
    """Those of all topics that the client may know of. That there are others is no refusal: it has not named them."""
    authorizer = context.services.authorizer
    every = list(names)
    if not authorizer.is_on or authorizer.only_logs:
        return every
    hidden = frozenset(_not_permitted(context, AclOperation.DESCRIBE, every))
    return [name for name in every if name not in hidden]


def _not_permitted(context: RequestContext, operation: AclOperation, names: Iterable[str]) -> list[str]:
    client, permits = context.client, context.services.authorizer.permits
    principal, host, topic = client.principal, client.host, AclResourceType.TOPIC
    return [name for name in names if not permits(principal, host, operation, topic, name)]


def allows_topic(
    context: RequestContext, operation: AclOperation, name: str, *, is_asked_for: bool = True
) -> bool:
    """May the client do that to a topic?"""
    if not context.is_guarded:
        return True
    return context.allows(operation, AclResourceType.TOPIC, name, is_asked_for=is_asked_for)


def allows_group(
    context: RequestContext, operation: AclOperation, group_id: str, *, is_asked_for: bool = True
) -> bool:
    """May the client do that to a consumer group?"""
    if not context.is_guarded:
        return True
    return context.allows(operation, AclResourceType.GROUP, group_id, is_asked_for=is_asked_for)


def allows_transactional_id(context: RequestContext, operation: AclOperation, transactional_id: str) -> bool:
    """May the client do that to a transactional id?"""
    return context.allows(operation, AclResourceType.TRANSACTIONAL_ID, transactional_id)


def allows_cluster(context: RequestContext, operation: AclOperation) -> bool:
    """May the client do that to the cluster?"""
    return context.allows(operation, AclResourceType.CLUSTER, CLUSTER_NAME)


def permits_cluster(context: RequestContext, operation: AclOperation) -> bool:
    """May it by the rules alone? Where that is one of two ways; if not, the other one is asked about, and noted."""
    client, authorizer = context.client, context.services.authorizer
    return authorizer.permits(client.principal, client.host, operation, AclResourceType.CLUSTER, CLUSTER_NAME)


def allows_idempotent_writes(context: RequestContext) -> bool:
    """May the client have a producer id: to write to the cluster idempotently, or to write to any topic (KIP-679)?"""
    if permits_cluster(context, AclOperation.IDEMPOTENT_WRITE):
        return True
    client, authorizer = context.client, context.services.authorizer
    if authorizer.permits_some(client.principal, client.host, AclOperation.WRITE, AclResourceType.TOPIC):
        return True
    return allows_cluster(context, AclOperation.IDEMPOTENT_WRITE)


class TopicAccess:
    """The verdicts of one request about topics that it may name by id: each is given, and noted, once."""

    __slots__ = ("_context", "_operation", "_verdicts")

    def __init__(self, context: RequestContext, operation: AclOperation) -> None:
        self._context = context
        self._operation = operation
        self._verdicts: dict[str, bool] = {}

    def allows(self, name: str) -> bool:
        """May the client do that to the topic?"""
        verdict = self._verdicts.get(name)
        if verdict is None:
            verdict = self._context.allows(self._operation, AclResourceType.TOPIC, name)
            self._verdicts[name] = verdict
        return verdict

    def guarded(self, found: TopicInfo | ErrorCode, name: str) -> TopicInfo | ErrorCode:
        """What was found for a topic of the request, or TOPIC_AUTHORIZATION_FAILED.

        `name` is what the request has: where that is nothing but an id, the name is that of the topic found. An id that
        is nobody's stays UNKNOWN_TOPIC_ID.
        """
        if not isinstance(found, ErrorCode):
            name = found.name
        elif found is ErrorCode.UNKNOWN_TOPIC_ID:
            return found
        return found if self.allows(name) else ErrorCode.TOPIC_AUTHORIZATION_FAILED


def access_to(context: RequestContext, operation: AclOperation) -> TopicAccess | None:
    """None where nobody is ever refused anything."""
    return TopicAccess(context, operation) if context.is_guarded else None
