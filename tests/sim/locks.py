"""Locks on rows, as PostgreSQL has them: shared or not, held until a transaction ends, at times waited for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from warp.errors import MetadataContention

LOCK_S_MAX = 5.0
"""How long a statement waits for a lock: lock_timeout, as the driver sets it."""


class Lock(NamedTuple):
    """On the row of a table whose columns of one unique index have these values."""

    table: str
    unique: int
    """Which index; that of the primary key is 0."""
    values: tuple[Any, ...]


class Wanted(NamedTuple):
    """A lock that somebody wants."""

    lock: Lock
    is_shared: bool


class Owner:
    """A transaction, as far as it holds locks and waits for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.held: dict[Lock, bool] = {}
        """With whether it is held only to share."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self.waits_for: Owner | None = None


class Locks:
    """All that are held."""

    def __init__(self) -> None:
        self.waits = 0
        self.deadlocks = 0
        self.timeouts = 0
        self._owners: dict[Lock, dict[Owner, bool]] = {}

    def blocker(self, owner: Owner, wanted: Wanted) -> Owner | None:
        """Who holds it against this one."""
        for other, is_shared in self._owners.get(wanted.lock, {}).items():
            if other is not owner and not (is_shared and wanted.is_shared):
                return other
        return None

    def take(self, owner: Owner, wanted: Iterable[Wanted]) -> Owner | None:
        """Take these one by one, up to the first that somebody holds: who does."""
        for each in wanted:
            blocker = self.blocker(owner, each)
            if blocker is not None:
                return blocker
            is_shared = each.is_shared and owner.held.get(each.lock, True)
            owner.held[each.lock] = is_shared
            self._owners.setdefault(each.lock, {})[owner] = is_shared
        return None

    async def wait(self, owner: Owner, blocker: Owner) -> None:
        """Until another one has ended. Raises MetadataContention: it waits for this one, or for too long."""
        self.waits += 1
        other: Owner | None = blocker
        while other is not None:
            if other is owner:
                self.deadlocks += 1
                raise MetadataContention("a deadlock")
            other = other.waits_for
        owner.waits_for = blocker
        try:
            await asyncio.wait([blocker.ended], timeout=LOCK_S_MAX)
        finally:
            owner.waits_for = None
        if not blocker.ended.done():
            self.timeouts += 1
            raise MetadataContention("another transaction holds a lock for too long")

    def let_go(self, owner: Owner) -> None:
        """It has ended."""
        for lock in owner.held:
            owners = self._owners[lock]
            del owners[owner]
            if not owners:
                del self._owners[lock]
        owner.held.clear()
        if not owner.ended.done():
            owner.ended.set_result(None)
