"""A coordinator slot in the hands of this agent: its lease, its groups, and what is under way with them.

A `Tenure` lasts from the taking of a lease to its loss. Whoever waits for the store keeps hold of the tenure it began
under, and looks afterwards whether that is over: so nothing of an old tenure ever reaches a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from warp.errors import ErrorCode
from warp.groups.model import CLASSIC_GROUP_TYPE, GroupOverview
from warp.groups.offset_expiry import ExpiryStore
from warp.groups.offsets import OffsetStore
from warp.groups.state import ClassicGroup
from warp.groups.transitions import State
from warp.ids import BrokerId
from warp.metadata.group_model import (
    Lease,
    LeaseState,
    OffsetDeletion,
    OffsetLag,
    OffsetQuery,
    OffsetRow,
    StoredGroup,
)


class GroupStore(OffsetStore, ExpiryStore, Protocol):
    """The part of the metadata store that the coordination of groups needs. `MetadataStore` says what each does."""

    async def take_leases(self, names: Iterable[str], holder: BrokerId) -> list[Lease]: ...

    async def take_leases_as_seen(
        self, seen: Mapping[str, LeaseState | None], holder: BrokerId
    ) -> list[Lease]: ...

    async def renew_leases(self, held: Sequence[Lease]) -> list[Lease]: ...

    async def release_leases(self, held: Sequence[Lease]) -> list[Lease]: ...

    async def read_leases(self, names: Iterable[str]) -> dict[str, LeaseState]: ...

    async def load_groups(self, slots: Iterable[int]) -> list[StoredGroup]: ...

    async def save_groups(self, changed: Mapping[Lease, Sequence[StoredGroup]]) -> None: ...

    async def delete_groups(self, group_ids: Mapping[Lease, Sequence[str]]) -> set[str]: ...

    async def delete_groups_without_offsets(self, group_ids: Mapping[Lease, Sequence[str]]) -> set[str]: ...

    async def fetch_offsets(self, queries: Sequence[OffsetQuery]) -> list[list[OffsetRow]]: ...

    async def delete_offsets(self, deletions: Sequence[OffsetDeletion]) -> list[list[ErrorCode]]: ...

    async def offset_lags(self, group_ids: Sequence[str], rows_max: int) -> list[OffsetLag]: ...


class SlotPolicy(Protocol):
    """Which slots an agent is to hold, and whether it may act as their holder at this moment."""

    @property
    def is_shared(self) -> bool:
        """Are there other agents, which take the slots of one that has gone? Where not, only `may_take` is asked."""

    def session(self) -> int | None:
        """The number of this agent's session; None as soon as others may take it for gone, as of this very moment.

        A session that has lapsed never comes back: the next one has a higher number.
        """

    def known(self) -> Mapping[str, LeaseState]:
        """The leases as they were seen last, by name."""

    def may_take(self, slot: int, state: LeaseState | None) -> bool:
        """May this agent take a slot that it does not have, whose lease is in this state?"""

    def is_anothers(self, slot: int) -> bool:
        """Does a slot that this agent has rather belong to another one, which is ready to take it?"""

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` when there may be another answer than before."""


class SolePolicy:
    """The policy of an agent that is alone: all slots are its own, but for those that somebody takes from it."""

    is_shared = False

    def __init__(self, own: BrokerId) -> None:
        self._own = own

    def session(self) -> int | None:
        """There is nobody to be taken for gone by."""
        return 0

    def known(self) -> Mapping[str, LeaseState]:
        """Nobody tells."""
        return {}

    def may_take(self, slot: int, state: LeaseState | None) -> bool:
        """Nobody's, or this agent's own."""
        return state is None or state.holder is None or state.holder == self._own

    def is_anothers(self, slot: int) -> bool:
        """Never."""
        return False

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Nothing changes."""


@dataclass(frozen=True, slots=True)
class CoordinatorLimits:
    """The bounds and times of coordination; those of a single group are in `GroupSettings`."""

    groups_max: int = 100_000
    """Groups of one agent, empty ones included."""
    members_bytes_max: int = 512 * 1024 * 1024
    """What the members of all groups make one agent keep; what is found in the store is taken in any case."""
    save_members_max: int = 1_000
    """Members that one transaction stores, unless a single group has more: on SQLite the loop stands still for it."""
    unknown_attempts_max: int = 3
    """How often a change is stored whose outcome is unknown, before its slot is taken anew."""
    retry_min_s: float = 0.05
    """Between two attempts at a store that fails; doubled with each, up to `retry_max_s`."""
    retry_max_s: float = 5.0
    retake_s: float = 10.0
    """How often a slot that somebody else has taken is looked at again."""
    refused_s: float = 0.5
    """Until a slot is looked at again that could not be taken though it seemed free."""
    hand_over_s: float = 3.0
    """In a cluster, between two slots with members that are handed over to agents which they rather belong to."""
    release_wait_s: float = 1.0
    """How long an agent that leaves a cluster finishes what is being stored before others may take its slots."""
    watch_s: float = 0.25
    """In a cluster, how often an agent looks whether its session still lives, beside every request."""
    open_wait_s: float = 0.5
    """How long a start waits for the groups to be loaded; what is left by then is loaded beside the first requests."""
    stall_ms: int = 500
    """Lateness of the timer from which on it was this agent that stood still: all sessions start anew."""
    ticks_max: int = 200
    """Groups whose time has come that are seen to in one turn of the loop."""


class Tenure:
    """One slot, from the taking of its lease to its loss."""

    __slots__ = (
        "_unstored", "committing", "is_loaded", "is_over", "lease", "live", "reaping", "removals", "slot", "stored",
        "unsure",
    )  # fmt: skip

    def __init__(self, slot: int, lease: Lease) -> None:
        self.slot = slot
        self.lease = lease
        self.is_loaded = False
        self.is_over = False
        self.stored: dict[str, StoredGroup] = {}
        """What the store holds, of every group. `keep` and `forget` change it."""
        self.live: dict[str, ClassicGroup] = {}
        """The groups that have members, or are about to. The others rest: all that there is of them is stored.
        `enliven` and `drop` change it."""
        self.committing: dict[str, dict[asyncio.Future[None], None]] = {}
        """Per group one future for each commit of offsets that is under way."""
        self.removals: dict[str, ClassicGroup] = {}
        """Groups that are to be removed once their commits under way have been answered."""
        self.reaping: set[str] = set()
        """Groups that are being removed if they have no offsets."""
        self.unsure: set[str] = set()
        """Ids under which a commit may have made a group, without an answer that says so."""
        self._unstored: set[str] = set()
        """Live groups that are not stored: counted here, so that to count groups takes no time."""

    def __len__(self) -> int:
        return len(self.stored) + len(self._unstored)

    def keep(self, stored: StoredGroup) -> None:
        """The store holds this of a group."""
        self.stored[stored.group_id] = stored
        self._unstored.discard(stored.group_id)

    def forget(self, group_id: str) -> None:
        """The store holds nothing of the group."""
        self.stored.pop(group_id, None)
        if group_id in self.live:
            self._unstored.add(group_id)

    def enliven(self, group: ClassicGroup) -> None:
        """The group has members, or is about to."""
        self.live[group.group_id] = group
        if group.group_id not in self.stored:
            self._unstored.add(group.group_id)

    def drop(self, group_id: str) -> None:
        """Nobody is in the group."""
        self.live.pop(group_id, None)
        self._unstored.discard(group_id)

    def knows(self, group_id: str) -> bool:
        """Is there such a group?"""
        return group_id in self.stored or group_id in self.live

    def overviews(self) -> list[GroupOverview]:
        """A line for each group, in no particular order."""
        lines = [group.overview() for group in self.live.values()]
        lines += [
            GroupOverview(group_id, CLASSIC_GROUP_TYPE, State.EMPTY.value, stored.protocol_type, 0)
            for group_id, stored in self.stored.items()
            if group_id not in self.live
        ]
        return lines

    @property
    def is_resting(self) -> bool:
        """Nobody is in its groups, and nothing is under way."""
        return self.is_loaded and not (self.live or self.committing or self.removals or self.reaping)

    @property
    def is_calm(self) -> bool:
        """Nobody who is in its groups would notice a move to another coordinator: nobody waits for anything."""
        return (
            self.is_loaded
            and not (self.committing or self.removals or self.reaping)
            and all(group.is_calm for group in self.live.values())
        )

    def commits_under_way(self, group_id: str) -> list[asyncio.Future[None]]:
        """What to wait for in order to see all commits of a group that have begun by now."""
        return list(self.committing.get(group_id, ()))
