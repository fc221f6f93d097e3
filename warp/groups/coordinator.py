"""Serves the groups of this agent's coordinator slots: what handlers ask, and what has to be done from time to time.

Every request is answered once, whatever happens to the slot, the store or the agent. What it has no answer for itself
(an invalid name, a slot that is somebody else's or not loaded yet) comes in the answer's error too.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from warp.clock import Clock
from warp.errors import ErrorCode, MetadataError, OutcomeUnknown
from warp.groups.commits import GroupOffsets
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
from warp.groups.observer import GroupObserver
from warp.groups.offsets import OffsetCommitter, OffsetLimits
from warp.groups.runner import GroupRunner
from warp.groups.slots import CoordinatorLimits, GroupStore, SlotPolicy, SolePolicy, Tenure
from warp.groups.upkeep import GroupUpkeep, UpkeepSettings
from warp.ids import BrokerId, IdSource
from warp.metadata.group_model import LeaseLost, OffsetQuery, OffsetRow

_log = logging.getLogger("warp.groups")

A = TypeVar("A", CodeAnswer, OffsetDeleteAnswer)

ASKS_MAX = 10
"""How often a group is asked anew whose answer had to wait, before COORDINATOR_LOAD_IN_PROGRESS is the answer."""


class GroupCoordinator:
    """Coordinates groups, on one event loop."""

    def __init__(
        self,
        store: GroupStore,
        clock: Clock,
        ids: IdSource,
        *,
        holder: BrokerId,
        settings: GroupSettings | None = None,
        limits: CoordinatorLimits | None = None,
        offset_limits: OffsetLimits | None = None,
        upkeep: UpkeepSettings | None = None,
        policy: SlotPolicy | None = None,
        observer: GroupObserver | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        observer = observer or GroupObserver()
        self._observer = observer
        self._limits = limits or CoordinatorLimits()
        policy = policy or SolePolicy(holder)
        self._runner = GroupRunner(
            store,
            clock,
            holder=holder,
            settings=settings or GroupSettings(),
            limits=self._limits,
            policy=policy,
            observer=observer,
        )
        self._committer = OffsetCommitter(store, clock, offset_limits)
        self._offsets = GroupOffsets(store, self._committer, self._runner.commits_settled)
        self.upkeep = GroupUpkeep(
            store, clock, self._runner, upkeep or UpkeepSettings(), has_orphans=not policy.is_shared
        )
        """Removes what has had its time; begins with `open`."""
        self._store_is_away = False
        self._is_shared = policy.is_shared
        self._leaving: asyncio.Task[bool] | None = None

    async def open(self) -> None:
        """Take the leases of this agent's slots and begin to load their groups. Raises MetadataError."""
        self._runner.guard.open()
        await self._runner.keeper.open()
        self.upkeep.start()

    def stop_waiting(self) -> None:
        """Send everybody away with NOT_COORDINATOR, from now on too. Commits that are under way go on.

        In a cluster the leases are released as soon as these are done, or after `release_wait_s`: others serve the
        groups while this agent still finishes its other work.
        """
        self._runner.close()
        if self._is_shared and self._leaving is None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave(self._limits.release_wait_s))

    async def drain(self, timeout_s: float) -> bool:
        """Send everybody away, finish what is being stored, and release the leases.

        False when that was not done within `timeout_s`, or when the coordinator was closed meanwhile.
        """
        deadline_s = self._clock.monotonic() + timeout_s
        self.stop_waiting()
        await self.upkeep.close()
        await self._runner.guard.close()
        await self._runner.keeper.close()
        if self._leaving is not None:
            await asyncio.wait([self._leaving], timeout=timeout_s)
            if not self._leaving.done() or self._leaving.cancelled() or not self._leaving.result():
                return False
        is_done = await self._finish(deadline_s - self._clock.monotonic())
        return is_done and (self._leaving is not None or await self._release())

    async def _leave(self, timeout_s: float) -> bool:
        """Let others have the slots. Whatever is still being stored by then is answered NOT_COORDINATOR."""
        await self._finish(timeout_s)
        return await self._release()

    async def _finish(self, timeout_s: float) -> bool:
        """Wait for what is being stored; is it done?"""
        deadline_s = self._clock.monotonic() + timeout_s
        is_saved = await self._runner.saver.drain(max(0.0, timeout_s))
        return await self._committer.drain(max(0.0, deadline_s - self._clock.monotonic())) and is_saved

    async def _release(self) -> bool:
        """Give the leases up. Where only the answer got lost, the next attempt finds nothing left to do."""
        for attempts_left in reversed(range(self._limits.unknown_attempts_max)):
            try:
                await self._store.release_leases(self._runner.let_go)
            except OutcomeUnknown as error:
                if not attempts_left:
                    _log.warning(
                        "it is not known whether the leases of coordinator slots were released: %s", error
                    )
            except MetadataError as error:
                _log.warning("the leases of coordinator slots were not released: %s", error)
                return False
            else:
                return True
        return False

    async def close(self) -> None:
        """Stop at once. Whoever waits is answered."""
        self._runner.close()
        if self._leaving is not None:
            self._leaving.cancel()
            await asyncio.wait([self._leaving])
        await self.upkeep.close()
        await self._runner.guard.close()
        await self._runner.keeper.close()
        await self._runner.saver.close()
        await self._committer.close()

    @property
    def is_loading(self) -> bool:
        """Not all groups of this agent's slots are in memory yet: a list of groups is not complete."""
        return self._runner.keeper.is_loading

    def coordinates(self, group_id: str) -> bool:
        """Does this agent hold the slot of the group, or is it about to? While it loads it does."""
        return self._runner.holds(group_id)

    def fresh_id(self) -> str:
        """Random text for `Join.fresh_id`: a UUID as it is usually written, never the same twice."""
        return str(uuid.UUID(bytes=self._ids.uuid4()))

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

        Most are there when this returns: look at `done()` before you await. It never ends in an exception. To cancel it
        says that nobody wants the answer any more; what was asked happens all the same. What can't be asked now is
        answered as such: INVALID_GROUP_ID, NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE;
        but while its group is loaded a heartbeat is accepted, and a sync is answered REBALANCE_IN_PROGRESS.
        """
        return self._runner.ask(group_id, request)

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode | None:
        """The answer to a heartbeat, when there is one at once. None: hand a `Heartbeat` to `request`."""
        return self._runner.heartbeat(group_id, member_id, instance_id, generation)

    def list_groups(self) -> list[GroupOverview]:
        """All groups of this agent's slots, by id; see `is_loading`."""
        if not self._runner.guard.is_serving:
            return []
        return sorted(line for tenure in self._runner.held() for line in tenure.overviews())

    def census(self) -> tuple[Counter[str], int]:
        """How many groups are in each state, by Kafka's name of it, and how many members all have."""
        return self._runner.census()

    def some_groups(self, count: int) -> tuple[list[str], bool]:
        """The ids of that many groups, and whether these are all. Those with members come first, by id."""
        return self._runner.some_groups(count)

    async def delete_groups(self, group_ids: Sequence[str]) -> dict[str, ErrorCode]:
        """Delete groups with their offsets. Per group NONE, GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP or as `request`."""
        for group_id in group_ids:
            tenure = self._runner.slot(group_id, may_be_empty=True)
            if isinstance(tenure, Tenure):
                await self._offsets.wait_for_commits(tenure, group_id)
        answers = {group_id: self.request(group_id, Delete()) for group_id in dict.fromkeys(group_ids)}
        return {group_id: (await answer).error for group_id, answer in answers.items()}

    # Committed offsets.

    async def commit_offsets(
        self, group_id: str, check: CheckCommit, rows: Sequence[OffsetRow]
    ) -> list[ErrorCode]:
        """Commit offsets, if the group lets this member; an error per row, NONE once it is durable.

        All rows name this group. UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE and INVALID_COMMIT_OFFSET_SIZE
        are of one row, all others of the whole request. For an unknown group with a generation: GROUP_ID_NOT_FOUND.
        """
        began_s = self._clock.monotonic()
        error = (await self._ask_now(group_id, check, CodeAnswer)).error
        tenure = self._runner.slot(group_id, may_be_empty=True)
        if error or isinstance(tenure, ErrorCode):
            return [error or tenure] * len(rows)  # type: ignore[list-item]
        if not (tenure.knows(group_id) or self._runner.has_room):
            return [ErrorCode.INVALID_COMMIT_OFFSET_SIZE] * len(rows)
        errors = await self._offsets.commit(tenure, group_id, rows)
        if ErrorCode.NOT_COORDINATOR in errors:
            self._runner.end(tenure, ErrorCode.NOT_COORDINATOR)
        self._observer.committed(errors.count(ErrorCode.NONE), self._clock.monotonic() - began_s)
        return errors

    async def fetch_offsets(
        self, queries: Sequence[OffsetQuery], *, require_stable: bool = False
    ) -> list[list[OffsetRow] | ErrorCode]:
        """Per query its committed offsets, or the error of that group. Where nothing is committed there is no row.

        They are in the store, so any agent can tell, whoever holds the slot: nobody has to look for a coordinator, and
        librdkafka's admin client, which dies of NOT_COORDINATOR here, lives. This agent's commits that are under way
        are waited for. While the store is away they are being loaded: every client tries again after that, at the same
        agent.

        `require_stable`: nothing is pending as long as there are no transactions, so all are stable.
        """
        answers: list[list[OffsetRow] | ErrorCode] = []
        wanted: list[tuple[int, Tenure | None, OffsetQuery]] = []
        for place, query in enumerate(queries):
            found = self._runner.slot(query.group_id, may_be_empty=True)
            if found is ErrorCode.INVALID_GROUP_ID:
                answers.append(found)
                continue
            answers.append([])
            wanted.append((place, found if isinstance(found, Tenure) else None, query))
        if not wanted:
            return answers
        try:
            rows = await self._offsets.read([(tenure, query) for _, tenure, query in wanted])
        except MetadataError as error:
            self._tell("reading committed offsets", error)
            for place, _, _ in wanted:
                answers[place] = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
            return answers
        self._store_is_away = False
        for (place, _, _), of_query in zip(wanted, rows, strict=True):
            answers[place] = of_query
        return answers

    async def delete_offsets(
        self, group_id: str, partitions: Sequence[tuple[str, int]]
    ) -> list[ErrorCode] | ErrorCode:
        """Delete committed offsets. One ErrorCode when the whole request is refused (GROUP_ID_NOT_FOUND,
        NON_EMPTY_GROUP, or as `request`); else one per partition: NONE (also where nothing was committed),
        GROUP_SUBSCRIBED_TO_TOPIC, or UNKNOWN_TOPIC_OR_PARTITION."""
        found = self._runner.slot(group_id)
        if isinstance(found, Tenure):
            await self._offsets.wait_for_commits(found, group_id)
        answer = await self._ask_now(group_id, CheckOffsetDelete(), OffsetDeleteAnswer)
        tenure = self._runner.slot(group_id)
        if answer.error or isinstance(tenure, ErrorCode):
            return answer.error or tenure  # type: ignore[return-value]
        if not tenure.knows(group_id):
            return ErrorCode.GROUP_ID_NOT_FOUND
        refusals = {topic: answer.error_for(topic) for topic, _ in partitions}
        free = [partition for partition in partitions if not refusals[partition[0]]]
        try:
            deleted = await self._offsets.delete(tenure, group_id, free) if free else []
        except LeaseLost:
            self._runner.end(tenure, ErrorCode.NOT_COORDINATOR)
            return ErrorCode.NOT_COORDINATOR
        except MetadataError as error:
            self._tell("deleting committed offsets", error)
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        self._store_is_away = False
        errors = iter(deleted)
        return [refusals[topic] or next(errors) for topic, _ in partitions]

    async def _ask_now(self, group_id: str, request: CheckCommit | CheckOffsetDelete, kind: type[A]) -> A:
        """The group's word as of this very turn of the loop: what is done on it before the next await is in order."""
        for _ in range(ASKS_MAX):
            asked = self._runner.ask(group_id, request)
            is_fresh = asked.done()
            answer = await asked
            assert isinstance(answer, kind), "each request has its kind of answer"
            if is_fresh or answer.error:
                return answer
        return kind(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)

    def _tell(self, what: str, error: MetadataError) -> None:
        """Log that the store has failed; once, until it answers again."""
        level = logging.DEBUG if self._store_is_away else logging.WARNING
        _log.log(level, "%s failed: %s: %s", what, type(error).__name__, error)
        self._store_is_away = True
