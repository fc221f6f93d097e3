"""Coordinators in virtual time, on a database in memory that fails and waits as it is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import run_sim
from tests.unit.groups.group_support import joining
from warp.errors import ErrorCode
from warp.groups.coordinator import GroupCoordinator
from warp.groups.model import (
    CheckCommit,
    CodeAnswer,
    GroupSettings,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    Leaver,
    Sync,
    SyncAnswer,
)
from warp.groups.observer import GroupObserver
from warp.groups.slots import CoordinatorLimits
from warp.groups.upkeep import UpkeepSettings
from warp.ids import BrokerId, IdSource
from warp.metadata.group_model import OffsetQuery, OffsetRow, StoredGroup, slot_of
from warp.metadata.model import NewTopic, Topic
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

NONE = ErrorCode.NONE
SHORT_DELAY = GroupSettings(initial_rebalance_delay_ms=10)
"""So that members who come together are in one generation."""
OPERATIONS = (
    "take_leases", "take_leases_as_seen", "renew_leases", "release_leases", "read_leases", "load_groups",
    "save_groups", "delete_groups", "delete_groups_without_offsets", "commit_offsets", "fetch_offsets",
    "delete_offsets", "expire_offsets", "remove_orphan_offsets", "offset_lags",
)  # fmt: skip


class TroubledStore(MetadataStore):
    """A metadata store of which each operation can be made to fail, or to wait."""

    def __init__(self, clock: SimClock, ids: IdSource) -> None:
        super().__init__(SqliteDatabase(":memory:", now_ms=clock.time_ms), clock, ids)
        self.calls: list[str] = []
        self.faults: dict[str, list[Exception | None]] = {}
        """Raised in place of the next calls, in order; None lets one through."""
        self.late_faults: dict[str, list[Exception]] = {}
        """Raised after the next calls have been done."""
        self.delay_s = 0.0
        self._gates: dict[str, asyncio.Event] = {}
        for name in OPERATIONS:
            setattr(self, name, self._troubled(name, getattr(self, name)))

    def hold(self, name: str) -> None:
        """Let no call of the operation begin until it is released."""
        self._gates[name] = asyncio.Event()

    def release(self, name: str) -> None:
        self._gates.pop(name).set()

    def count(self, name: str) -> int:
        return self.calls.count(name)

    def _troubled(self, name: str, operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def troubled(*arguments: Any) -> Any:
            self.calls.append(name)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if name in self._gates:
                await self._gates[name].wait()
            if self.faults.get(name) and (fault := self.faults[name].pop(0)) is not None:
                raise fault
            answer = await operation(*arguments)
            if self.late_faults.get(name):
                raise self.late_faults[name].pop(0)
            return answer

        return troubled


class Events(GroupObserver):
    """Keeps what the coordinator tells."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.commits: list[int] = []

    def noted(self, event: str) -> None:
        self.events.append(event)

    def committed(self, offsets: int, seconds: float) -> None:
        self.commits.append(offsets)


@dataclass
class Members:
    """The members of a stable group, the leader's id first."""

    group_id: str
    ids: list[str]
    generation: int
    assignments: dict[str, bytes] = field(default_factory=dict)


class Rig:
    """A database with the topic `t` of eight partitions, and coordinators on it."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.clock = SimClock(loop)
        self.ids = IdSource(self.clock, random.Random(1).randbytes)
        self.store = TroubledStore(self.clock, self.ids)
        self.events = Events()
        self.topic: Topic | None = None
        self._coordinators: list[GroupCoordinator] = []

    async def open(self) -> None:
        await self.store.open()
        [topic] = await self.store.create_topics([NewTopic("t", self.ids.topic_id(), 8, {})])
        assert isinstance(topic, Topic)
        self.topic = topic

    async def coordinator(
        self,
        holder: int = 1,
        settings: GroupSettings = SHORT_DELAY,
        limits: CoordinatorLimits | None = None,
        upkeep: UpkeepSettings | None = None,
    ) -> GroupCoordinator:
        made = GroupCoordinator(
            self.store,
            self.clock,
            self.ids,
            holder=BrokerId(holder),
            settings=settings,
            limits=limits,
            upkeep=upkeep,
            observer=self.events,
        )
        await made.open()
        self._coordinators.append(made)
        return made

    async def close(self) -> None:
        for coordinator in self._coordinators:
            await coordinator.close()
        await self.store.close()

    async def stored(self, group_id: str) -> StoredGroup | None:
        groups = await MetadataStore.load_groups(self.store, [slot_of(group_id)])
        return next((group for group in groups if group.group_id == group_id), None)

    async def offset(self, group_id: str, partition: int = 0) -> int | None:
        query = OffsetQuery(group_id, [("t", partition)])
        [rows] = await MetadataStore.fetch_offsets(self.store, [query])
        return rows[0].offset if rows else None

    def row(self, group_id: str, offset: int, partition: int = 0, topic: str = "t") -> OffsetRow:
        return OffsetRow(group_id, topic, partition, offset, -1, "", self.clock.time_ms())


def run(test: Callable[[Rig], Coroutine[Any, Any, None]], seed: int = 0) -> None:
    """Run a test in virtual time, on a rig of its own."""

    async def main(loop: SimLoop) -> None:
        rig = Rig(loop)
        await rig.open()
        try:
            await test(rig)
        finally:
            await rig.close()

    run_sim(main, seed)


async def turns(count: int = 10) -> None:
    """Let everything happen that does not wait for time."""
    for _ in range(count):
        await asyncio.sleep(0)


# Members.


def join(
    coordinator: GroupCoordinator, group_id: str = "g", member_id: str = "", **fields: Any
) -> asyncio.Future[JoinAnswer]:
    request: Join = joining(member_id, fresh_id=coordinator.fresh_id(), **fields)
    return coordinator.request(group_id, request)


def sync(
    coordinator: GroupCoordinator,
    group_id: str,
    member_id: str,
    generation: int,
    assignments: Sequence[tuple[str, bytes]] = (),
) -> asyncio.Future[SyncAnswer]:
    return coordinator.request(group_id, Sync(member_id, None, generation, assignments=assignments))


def heartbeat(coordinator: GroupCoordinator, group_id: str, member_id: str, generation: int) -> ErrorCode:
    """What a heartbeat is answered at once."""
    answer: asyncio.Future[CodeAnswer] = coordinator.request(group_id, Heartbeat(member_id, None, generation))
    return answer.result().error


async def leave(coordinator: GroupCoordinator, group_id: str, *member_ids: str) -> list[ErrorCode]:
    answer = await coordinator.request(group_id, Leave(tuple(Leaver(one) for one in member_ids)))
    assert answer.error is NONE
    return [left.error for left in answer.members]


async def joined(
    coordinator: GroupCoordinator, group_id: str = "g", count: int = 1, **fields: Any
) -> Members:
    """New members that have joined an empty group together, but have not synced yet."""
    ids = [(await join(coordinator, group_id, **fields)).member_id for _ in range(count)]
    answers = await asyncio.gather(*(join(coordinator, group_id, one, **fields) for one in ids))
    assert {(answer.error, answer.generation) for answer in answers} == {(NONE, answers[0].generation)}
    leader = answers[0].leader
    ids.sort(key=lambda one: one != leader)
    return Members(group_id, ids, answers[0].generation)


async def stable(
    coordinator: GroupCoordinator, group_id: str = "g", count: int = 1, **fields: Any
) -> Members:
    """New members of an empty group, each with its own id as its assignment."""
    members = await joined(coordinator, group_id, count, **fields)
    plan = [(one, f"of {one}".encode()) for one in members.ids]
    answers = await asyncio.gather(
        *(
            sync(coordinator, group_id, one, members.generation, plan if one == members.ids[0] else ())
            for one in members.ids
        )
    )
    assert [answer.error for answer in answers] == [NONE] * count
    members.assignments = dict(zip(members.ids, [answer.assignment for answer in answers], strict=True))
    assert members.assignments == dict(plan)
    return members


async def commit(
    coordinator: GroupCoordinator, rig: Rig, group_id: str, offset: int, members: Members | None = None
) -> ErrorCode:
    """Commit an offset of partition 0, as a simple consumer or as the leader."""
    check = (
        CheckCommit("", None, -1)
        if members is None
        else CheckCommit(members.ids[0], None, members.generation)
    )
    [error] = await coordinator.commit_offsets(group_id, check, [rig.row(group_id, offset)])
    return error
