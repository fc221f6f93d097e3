"""Serves the groups of this agent's coordinator slots: runs their machines, stores what they change, keeps their time.

Handlers ask it, and it answers every request once, whatever happens to the slot, the store or the agent. What it has no
answer for itself (an invalid name, a slot that is somebody else's or not loaded yet) comes in the answer's error too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, overload

from warp.clock import Clock
from warp.errors import ErrorCode
from warp.groups.model import (
    CheckCommit,
    CheckOffsetDelete,
    CodeAnswer,
    Delete,
    Describe,
    DescribeAnswer,
    GroupOverview,
    GroupSettings,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    OffsetDeleteAnswer,
    Request,
    Sync,
    SyncAnswer,
)
from warp.ids import BrokerId, IdSource
from warp.metadata.group_model import OffsetQuery, OffsetRow
from warp.metadata.store import MetadataStore


class GroupCoordinator:
    """Coordinates groups, on one event loop."""

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        ids: IdSource,
        *,
        holder: BrokerId,
        settings: GroupSettings | None = None,
    ) -> None:
        raise NotImplementedError

    async def open(self) -> None:
        """Take the leases of all slots and begin to load their groups. Raises MetadataError."""
        raise NotImplementedError

    async def drain(self, timeout_s: float) -> bool:
        """Send everybody away, and finish what is being stored. False when that was not done within `timeout_s`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop at once. Whoever waits is answered."""
        raise NotImplementedError

    @property
    def is_loading(self) -> bool:
        """Not all groups of this agent's slots are in memory yet: a list of groups is not complete."""
        raise NotImplementedError

    def coordinates(self, group_id: str) -> bool:
        """Does this agent hold the slot of the group? While it loads it does."""
        raise NotImplementedError

    def fresh_id(self) -> str:
        """Random text for `Join.fresh_id`: a UUID as it is usually written, never the same twice."""
        raise NotImplementedError

    # Groups.

    @overload
    def request(self, group_id: str, request: Join) -> asyncio.Future[JoinAnswer]: ...
    @overload
    def request(self, group_id: str, request: Sync) -> asyncio.Future[SyncAnswer]: ...
    @overload
    def request(self, group_id: str, request: Heartbeat) -> asyncio.Future[CodeAnswer]: ...
    @overload
    def request(self, group_id: str, request: CheckCommit) -> asyncio.Future[CodeAnswer]: ...
    @overload
    def request(self, group_id: str, request: Delete) -> asyncio.Future[CodeAnswer]: ...
    @overload
    def request(self, group_id: str, request: Leave) -> asyncio.Future[LeaveAnswer]: ...
    @overload
    def request(self, group_id: str, request: CheckOffsetDelete) -> asyncio.Future[OffsetDeleteAnswer]: ...
    @overload
    def request(self, group_id: str, request: Describe) -> asyncio.Future[DescribeAnswer]: ...
    def request(self, group_id: str, request: Request) -> asyncio.Future[Any]:
        """The answer to a request to one group, of the kind that `warp.groups.model` has for it.

        Most are there when this returns: look at `done()` before you await. It never ends in an exception. Cancelling it
        says that nobody wants the answer any more; what was asked happens all the same. Whatever can't be asked now is
        answered as such: INVALID_GROUP_ID, NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE.
        """
        raise NotImplementedError

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode | None:
        """The answer to a heartbeat, when there is one at once. None: hand a `Heartbeat` to `request`."""
        raise NotImplementedError

    def list_groups(self) -> list[GroupOverview]:
        """All groups of this agent's slots, by id; see `is_loading`."""
        raise NotImplementedError

    async def delete_groups(self, group_ids: Sequence[str]) -> dict[str, ErrorCode]:
        """Delete groups with their offsets. Per group NONE, GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP or as `request`."""
        raise NotImplementedError

    # Committed offsets.

    async def commit_offsets(
        self, group_id: str, check: CheckCommit, rows: Sequence[OffsetRow]
    ) -> list[ErrorCode]:
        """Commit offsets, if the group lets this member; an error per row, NONE once it is durable.

        All rows name this group. UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE and INVALID_COMMIT_OFFSET_SIZE
        are of one row, all others of the whole request. For an unknown group with a generation: GROUP_ID_NOT_FOUND.
        """
        raise NotImplementedError

    async def fetch_offsets(
        self, queries: Sequence[OffsetQuery], *, require_stable: bool = False
    ) -> list[list[OffsetRow] | ErrorCode]:
        """Per query its committed offsets, or the error of that group. Where nothing is committed there is no row.

        `require_stable`: nothing is pending as long as there are no transactions, so all are stable.
        """
        raise NotImplementedError

    async def delete_offsets(
        self, group_id: str, partitions: Sequence[tuple[str, int]]
    ) -> list[ErrorCode] | ErrorCode:
        """Delete committed offsets. One ErrorCode when the whole request is refused (GROUP_ID_NOT_FOUND,
        NON_EMPTY_GROUP, or as `request`); else one per partition: NONE (also where nothing was committed),
        GROUP_SUBSCRIBED_TO_TOPIC, or UNKNOWN_TOPIC_OR_PARTITION."""
        raise NotImplementedError
