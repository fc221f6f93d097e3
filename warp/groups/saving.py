"""Stores what groups have become: what waits while a transaction runs goes together into the next one.

A group has one change under way at most, so its changes land in their order. What becomes of a change is one of four
things, and the difference matters: a group may only go on from what is certainly in the store.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from warp.errors import (
    KafkaError,
    MetadataError,
    MetadataReadOnly,
    MetadataUnavailable,
    OutcomeUnknown,
)
from warp.groups.model import Change, Remove, Save
from warp.groups.slots import CoordinatorLimits, GroupStore, Tenure
from warp.groups.state import ClassicGroup
from warp.metadata.group_model import GroupTooLarge, Lease, LeaseLost, StoredGroup

_log = logging.getLogger(__name__)


class Outcome(enum.Enum):
    """What became of a change."""

    DONE = "done"
    """It is stored."""
    AWAY = "away"
    """The store could not take it. Nothing has changed."""
    REFUSED = "refused"
    """The store will never take it. Nothing has changed."""
    LEASE_LOST = "lease lost"
    """The slot is somebody else's. Nothing has changed."""
    UNKNOWN = "unknown"
    """It may be stored, or be about to be."""


class PendingChange(NamedTuple):
    """A change of a group, under a tenure of its slot."""

    tenure: Tenure
    group: ClassicGroup
    change: Change


class _Doubt:
    """Whether an attempt to store something may have been done, which no later one that failed can settle."""

    is_left = False


Ended = Callable[[PendingChange, Outcome], None]


class GroupSaver:
    """Stores the changes of all groups of one agent. `ended` hears of each one that was not forgotten before."""

    def __init__(self, store: GroupStore, limits: CoordinatorLimits, ended: Ended) -> None:
        self._store = store
        self._limits = limits
        self._ended = ended
        self._waiting: deque[PendingChange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_away = False
        self.transactions = 0
        """Transactions that were done."""

    def add(self, tenure: Tenure, group: ClassicGroup, change: Change) -> None:
        """Store a change of a group that has no other one under way. It is forgotten when its tenure ends first."""
        self._waiting.append(PendingChange(tenure, group, change))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is under way. False when that took longer than `timeout_s`."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
        return self._task is None

    async def close(self) -> None:
        """Stop at once. Nobody hears of what was under way."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        """Store until nothing waits. Each turn lets the loop bring in what has come meanwhile."""
        try:
            while batch := self._take():
                try:
                    await self._flush(batch)
                except Exception:  # noqa: BLE001 - a bug: logged, and nobody is left waiting
                    _log.exception("changes of groups were not followed up as they should")
                    self._end(batch, Outcome.UNKNOWN)
                await asyncio.sleep(0)
        finally:
            self._task = None

    def _take(self) -> list[PendingChange]:
        """The next changes that one transaction can take: of one kind, and with no more members than it may have."""
        taken: list[PendingChange] = []
        members = 0
        while self._waiting:
            pending = self._waiting[0]
            if not pending.tenure.is_over:
                members += _members(pending.change)
                is_other = taken and type(pending.change) is not type(taken[0].change)
                if is_other or (taken and members > self._limits.save_members_max):
                    break
                taken.append(pending)
            self._waiting.popleft()
        return taken

    async def _flush(self, batch: Sequence[PendingChange], doubt: _Doubt | None = None) -> None:
        """Store a batch, and tell what became of each. `doubt` is what is left of attempts with all of them."""
        doubt = doubt or _Doubt()
        while batch:
            try:
                await self._attempt(batch, doubt)
            except LeaseLost as lost:
                self._end([one for one in batch if one.tenure.lease in lost.leases], Outcome.LEASE_LOST)
                kept = [one for one in batch if one.tenure.lease not in lost.leases]
                assert len(kept) < len(batch), "the store names leases that the batch has"
                batch = kept
                continue
            except Exception as error:  # noqa: BLE001 - told by _tell, which tells bugs from stores that are away
                outcome = _outcome_of(error)
                if outcome is Outcome.REFUSED and len(batch) > 1:
                    for one in batch:
                        await self._flush([one], doubt)
                    return
                if doubt.is_left:
                    outcome = Outcome.UNKNOWN
                self._tell(error, batch, outcome)
                self._end(batch, outcome)
            else:
                self._is_away = False
                self.transactions += 1
                self._end(batch, Outcome.DONE)
            return

    async def _attempt(self, batch: Sequence[PendingChange], doubt: _Doubt) -> None:
        """One transaction, or several when the outcome is unknown: storing twice what is there changes nothing."""
        delay_s = self._limits.retry_min_s
        for attempts_left in reversed(range(self._limits.unknown_attempts_max)):
            try:
                await self._store_all(batch)
            except OutcomeUnknown as error:
                doubt.is_left = True
                if not attempts_left:
                    raise
                _log.warning("%d changes of groups are tried again: %s", len(batch), error)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s *= 2

    async def _store_all(self, batch: Sequence[PendingChange]) -> None:
        saves: dict[Lease, list[StoredGroup]] = {}
        removals: dict[Lease, list[str]] = {}
        for tenure, _, change in batch:
            match change:
                case Save():
                    saves.setdefault(tenure.lease, []).append(change.group)
                case Remove():
                    removals.setdefault(tenure.lease, []).append(change.group_id)
        if saves:
            await self._store.save_groups(saves)
        if removals:
            await self._store.delete_groups(removals)

    def _end(self, batch: Sequence[PendingChange], outcome: Outcome) -> None:
        for pending in batch:
            self._ended(pending, outcome)

    def _tell(self, error: Exception, batch: Sequence[PendingChange], outcome: Outcome) -> None:
        is_away = outcome is not Outcome.REFUSED
        if isinstance(error, MetadataError | KafkaError):
            # A store that stays away is told of once.
            level = logging.DEBUG if is_away and self._is_away else logging.WARNING
            kind = type(error).__name__
            _log.log(level, "%d changes of groups were not stored: %s: %s", len(batch), kind, error)
        else:
            _log.error("storing a change of group %s failed", batch[0].group.group_id, exc_info=error)
        self._is_away = is_away


def _members(change: Change) -> int:
    return len(change.group.members) if isinstance(change, Save) else 1


def _outcome_of(error: Exception) -> Outcome:
    """A transaction that raised was rolled back, unless the store itself is in doubt."""
    if isinstance(error, MetadataUnavailable | MetadataReadOnly):
        return Outcome.AWAY
    if isinstance(error, MetadataError) and not isinstance(error, GroupTooLarge):
        return Outcome.UNKNOWN
    return Outcome.REFUSED
