"""What handlers tell the quotas of their clients, and what the quotas let them do.

Called only where a quota of the kind is defined (`Quotas.limits_produce` and the others), or while all producers are
held back (`HoldBack.is_on`).
"""

from __future__ import annotations

import sys

from warp.handlers.context import RequestContext


def charge_produced(context: RequestContext, size_bytes: int) -> None:
    """Records are about to be appended, which happens in any case; their client may have to wait after them.

    They count when they come and not when they are answered: until then many more could come.
    """
    client = context.client
    context.throttle(context.services.quotas.produced(client.principal.name, context.client_id, size_bytes))


def hold_back(context: RequestContext, size_bytes: int) -> None:
    """Records are about to be appended, while too much waits to be merged: their client has to wait after them."""
    context.throttle(context.services.hold_back.delay_ms(size_bytes))


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
