"""Changes of topics within the quota of the client that asks for them (KIP-599).

A change costs the partitions that it creates or deletes. Those that come after the quota is used up are refused one by
one, where the version of the request knows the error; in older ones everything is done, and the client is held back.
What could not be done costs nothing, and neither does what was only to be checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from warp.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from warp.cluster.catalogue import TopicInfo
    from warp.cluster.topic_request import PartitionsRequest, TopicRequest
    from warp.handlers.context import RequestContext
    from warp.security.quotas.quotas import MutationQuota

NEVER_STRICT: Final = 1 << 15
"""For requests that no version of knows the error."""
_COST_MAX: Final = 10_000
"""More partitions at once are refused anyway."""


def mutation_quota(context: RequestContext, strict_since: int) -> MutationQuota | None:
    """What the client may change in a request whose versions know the error since `strict_since`; None for anything."""
    quotas = context.services.quotas
    if not quotas.limits_mutations:
        return None
    is_strict = context.version >= strict_since
    return quotas.mutations(context.client.principal.name, context.client_id, is_strict=is_strict)


def exceeded() -> KafkaError:
    """Why a change is not made."""
    return KafkaError(ErrorCode.THROTTLING_QUOTA_EXCEEDED, "The throttling quota has been exceeded.")


async def create_within_quota(
    context: RequestContext,
    wanted: Sequence[TopicRequest],
    strict_since: int,
    *,
    validate_only: bool = False,
) -> list[TopicInfo | KafkaError]:
    """See `CatalogueService.create`."""
    catalogue = context.services.catalogue
    quota = mutation_quota(context, strict_since)
    if quota is None:
        return await catalogue.create(wanted, validate_only=validate_only)
    # Of a name that stands there twice nothing is created, but only as long as both are asked for.
    times = Counter(topic.name for topic in wanted)
    costs = [_cost(topic, catalogue.defaults.partitions) if times[topic.name] == 1 else 0 for topic in wanted]
    passed = [
        topic for topic, cost in zip(wanted, costs, strict=True) if times[topic.name] > 1 or quota.takes(cost)
    ]
    allowed = set(map(id, passed))
    try:
        made = iter(await catalogue.create(passed, validate_only=validate_only))
    except BaseException:
        quota.give_back(sum(cost for topic, cost in zip(wanted, costs, strict=True) if id(topic) in allowed))
        raise
    results: list[TopicInfo | KafkaError] = []
    for topic, cost in zip(wanted, costs, strict=True):
        result = next(made) if id(topic) in allowed else exceeded()
        if id(topic) in allowed and (validate_only or isinstance(result, KafkaError)):
            quota.give_back(cost)
        results.append(result)
    context.throttle(quota.throttle_ms())
    return results


async def delete_within_quota(
    context: RequestContext, doomed: Sequence[TopicInfo], quota: MutationQuota | None
) -> list[ErrorCode]:
    """See `CatalogueService.delete`; the quota has let these topics pass."""
    codes: list[ErrorCode] = []
    try:
        codes = await context.services.catalogue.delete([info.topic_id for info in doomed])
    finally:
        if quota is not None:
            # Without an answer none is known to be gone.
            kept = (
                doomed
                if not codes
                else [info for info, code in zip(doomed, codes, strict=True) if code is not ErrorCode.NONE]
            )
            quota.give_back(sum(info.partitions for info in kept))
    return codes


def _cost(topic: TopicRequest, default: int) -> int:
    partitions = len(topic.assignments) or (default if topic.partitions == -1 else topic.partitions)
    return max(0, min(partitions, _COST_MAX))


async def grow_within_quota(
    context: RequestContext, wanted: PartitionsRequest, quota: MutationQuota | None, *, validate_only: bool
) -> TopicInfo:
    """See `CatalogueService.create_partitions`; THROTTLING_QUOTA_EXCEEDED too."""
    catalogue = context.services.catalogue
    if quota is None:
        return await catalogue.create_partitions(wanted, validate_only=validate_only)
    info = (await catalogue.lookup(names=[wanted.name])).by_name.get(wanted.name)
    cost = 0 if info is None else max(0, min(wanted.total - info.partitions, _COST_MAX))
    if not quota.takes(cost):
        raise exceeded()
    is_done = False
    try:
        grown = await catalogue.create_partitions(wanted, validate_only=validate_only)
        is_done = not validate_only
    finally:
        if not is_done:
            quota.give_back(cost)
    return grown
