"""Leave to delete objects, asked for before something is deleted and again when a pass takes long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from warp.clock import Clock

LASTS_S = 60.0
"""A process that stood still in the midst of a pass asks again."""


class Permit:
    """Says whether this cluster's metadata are still those that the object store lives by.

    `may_delete` finds out (`warp.lifecycle.epoch.EpochCheck`). What it raises goes through.
    """

    def __init__(self, may_delete: Callable[[], Awaitable[bool]], clock: Clock) -> None:
        self._may_delete = may_delete
        self._clock = clock
        self._answer = False
        self._asked_at_s: float | None = None

    def expire(self) -> None:
        """A new pass begins: ask anew."""
        self._asked_at_s = None

    async def is_given(self) -> bool:
        """May objects be deleted now?"""
        now_s = self._clock.boottime()
        if self._asked_at_s is None or now_s - self._asked_at_s >= LASTS_S:
            self._answer = await self._may_delete()
            self._asked_at_s = now_s
        return self._answer
