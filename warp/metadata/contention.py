"""Operations that were in each other's way are tried again here, so that nobody above has to know that it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from warp.errors import MetadataContention

P = ParamSpec("P")
T = TypeVar("T")

RETRY_DELAYS_S = (0.01, 0.05, 0.25)
"""Waits before the tries after the first. Of two who deadlock one goes on, so the first retry mostly does."""


def retried(operation: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The operation, tried again a few times while it raises MetadataContention, which means that nothing was changed.

    Its arguments must bear being read more than once.
    """

    @wraps(operation)
    async def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for delay_s in RETRY_DELAYS_S:
            try:
                return await operation(*args, **kwargs)
            except MetadataContention:
                await asyncio.sleep(delay_s)
        return await operation(*args, **kwargs)

    return tried
