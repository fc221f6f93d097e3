"""When committed offsets go, as Kafka counts it since 2.1 (KIP-211), and their removal in bounded steps.

The retention counts from when the last member has left; for simple consumers, which are never members, from the commit.
While a group of consumers is Stable, offsets of topics that it has no subscription to go by their commit, those of its
own topics never. Nothing goes while a group rebalances, or while nobody can tell what its members read.

One thing differs: an offset that a tool commits to a group that has long been Empty is kept for the whole retention
from then on. Kafka would remove it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from warp.clock import Clock
from warp.groups.model import CONSUMER_PROTOCOL_TYPE
from warp.metadata.group_model import Lease, OffsetExpiry, OffsetKey, OrphanCursor, OrphanSweep

SIMPLE_PROTOCOL_TYPE = ""
BY_COMMIT_NEVER_MS = -1
"""As a time: nothing was committed until then. What is left is what the clients themselves have set a time for."""


class OffsetHolder(NamedTuple):
    """A group, as far as the expiry of its offsets is concerned; held under a lease.

    `changed_ms` counts for an Empty group: since when it is so. `subscribed` are its members' topics, None when that
    can't be told.
    """

    lease: Lease
    group_id: str
    protocol_type: str
    is_empty: bool
    is_stable: bool
    changed_ms: int
    subscribed: frozenset[str] | None


class ExpiryStore(Protocol):
    """The part of the metadata store that expiry needs."""

    async def expire_offsets(
        self, expiries: Sequence[OffsetExpiry], now_ms: int, rows_max: int
    ) -> list[OffsetKey]:
        """Remove offsets that have had their time; which these were. Raises LeaseLost."""

    async def remove_orphan_offsets(
        self, cursor: OrphanCursor, rows_max: int, lease: Lease | None = None
    ) -> OrphanSweep:
        """One step of removing the rows of offsets whose group or topic is gone. Raises LeaseLost."""


@dataclass(frozen=True, slots=True)
class ExpiryLimits:
    """The bounds of one step of expiry; between two of them others have their turn."""

    groups_max: int = 100
    """Groups that one statement looks at."""
    rows_max: int = 500
    """Offsets that one transaction removes."""


def expiry_of(group: OffsetHolder, now_ms: int, retention_ms: int) -> OffsetExpiry | None:
    """Which of the group's offsets have had their time; None when none can have."""
    until_ms = now_ms - retention_ms
    if group.is_empty:
        has_rested = group.protocol_type == SIMPLE_PROTOCOL_TYPE or group.changed_ms <= until_ms
        return OffsetExpiry(group.lease, group.group_id, until_ms if has_rested else BY_COMMIT_NEVER_MS)
    is_consumer = group.protocol_type == CONSUMER_PROTOCOL_TYPE
    if group.is_stable and is_consumer and group.subscribed is not None:
        return OffsetExpiry(group.lease, group.group_id, until_ms, group.subscribed)
    return None


class OffsetExpirer:
    """Removes what nobody needs any more. Whoever calls it decides when, and for which groups."""

    def __init__(self, store: ExpiryStore, clock: Clock, limits: ExpiryLimits | None = None) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits or ExpiryLimits()

    async def expire(self, groups: Iterable[OffsetHolder], retention_ms: int) -> list[OffsetKey]:
        """Remove the offsets that have had their time; which these were.

        `groups` is read step by step, shortly before their offsets are looked at: an iterator may tell the state of
        each as it is then. Raises LeaseLost or another MetadataError: some may be gone by then.
        """
        now_ms = self._clock.time_ms()
        due = filter(None, (expiry_of(group, now_ms, retention_ms) for group in groups))
        expired: list[OffsetKey] = []
        while some := list(islice(due, self._limits.groups_max)):
            is_done = False
            while not is_done:
                found = await self._store.expire_offsets(some, now_ms, self._limits.rows_max)
                is_done = len(found) < self._limits.rows_max
                expired += found
                await asyncio.sleep(0)
        return expired

    async def remove_orphans(self, lease: Lease | None = None) -> int:
        """Remove the rows of offsets whose group or topic is gone; how many there were.

        With a lease, only as long as that is held. Raises LeaseLost or another MetadataError: some are gone by then.
        """
        removed = 0
        cursor: OrphanCursor | None = OrphanCursor()
        while cursor is not None:
            step = await self._store.remove_orphan_offsets(cursor, self._limits.rows_max, lease)
            removed += step.removed
            cursor = step.cursor
            await asyncio.sleep(0)
        return removed
