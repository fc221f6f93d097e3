"""What handlers tell the quotas of their clients, and what the quotas let them do.

Called only where a quota of the kind is defined (`Quotas.limits_produce` and the others).
"""

from __future__ import annotations

import sys

from warp.errors import ErrorCode, KafkaError
from warp.handlers.context import RequestContext
from warp.security.quotas.quotas import MutationQuota


def charge_produced(context: RequestContext, size_bytes: int) -> None:
    """Records are about to be appended, which happens in any case; their client may have to wait after them.

    They count when they come and not when they are answered: until then many more could come.
    """
    client = context.client
    context.throttle(context.services.quotas.produced(client.principal.name, context.client_id, size_bytes))


def fetch_room(context: RequestContext) -> int:
    """How many bytes one answer may hold; the client may be held back instead."""
    client = context.client
    throttle_ms, bytes_max = context.services.quotas.fetch_room(client.principal.name, context.client_id)
    context.throttle(throttle_ms)
    return sys.maxsize if bytes_max is None else bytes_max


def may_be_fetched(context: RequestContext, size_bytes: int) -> bool:
    """Whether the client may have these records now; if not it is held back, and they are not counted."""
    client = context.client
    throttle_ms = context.services.quotas.fetched(client.principal.name, context.client_id, size_bytes)
    context.throttle(throttle_ms)
    return throttle_ms == 0


def mutation_quota(context: RequestContext, strict_since: int) -> MutationQuota | None:
    """What the client may change of topics, in a request whose versions know THROTTLING_QUOTA_EXCEEDED since that one
    (KIP-599); None for anything."""
    quotas = context.services.quotas
    if not quotas.limits_mutations:
        return None
    is_strict = context.version >= strict_since
    return quotas.mutations(context.client.principal.name, context.client_id, is_strict=is_strict)


def quota_exceeded() -> KafkaError:
    """Why a change is not made."""
    return KafkaError(ErrorCode.THROTTLING_QUOTA_EXCEEDED, "The throttling quota has been exceeded.")
