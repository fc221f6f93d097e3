"""Agents of one cluster that coordinate groups, in virtual time, on one database: they die, freeze, and are cut off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.sim.loop import OUTSIDE, Process, SimClock, SimLoop
from tests.support.log import run_sim
from tests.unit.groups.coordinator_support import SHORT_DELAY, Events
from warp.cluster.membership import Membership, MembershipLimits
from warp.cluster.slot_policy import ClusterSlotPolicy
from warp.errors import ErrorCode, MetadataUnavailable, OutcomeUnknown
from warp.groups.coordinator import GroupCoordinator
from warp.groups.model import GroupSettings
from warp.groups.slots import CoordinatorLimits
from warp.groups.upkeep import UpkeepSettings
from warp.ids import BrokerId, IdSource
from warp.metadata.cluster_model import AgentFacts
from warp.metadata.group_model import SLOTS, LeaseState, OffsetQuery, OffsetRow, coordinator_lease, slot_of
from warp.metadata.model import NewTopic, Topic
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

T = TypeVar("T")

TIMEOUT_S = 2.0
LEASES = [coordinator_lease(slot) for slot in range(SLOTS)]


class Wire:
    """What one agent sees of the store that all share: every call travels there and back, if it gets through."""

    def __init__(self, store: MetadataStore, loop: SimLoop) -> None:
        self._store = store
        self._loop = loop
        self.delay_s = 0.001
        """Each way."""
        self.is_cut = False
        self.calls: list[str] = []
        self.forgotten: list[str] = []
        """Operations of which the next call is done, but its answer gets lost."""
        self.late_s: dict[str, float] = {}
        """By how much later than usual the calls of an operation arrive."""
        self.late_answers_s: dict[str, float] = {}
        """By how much later the answers do."""
        self._serving: list[asyncio.Task[None]] = []

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        operation = getattr(self._store, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            answer = self._loop.create_future()

            def settle(result: Any, error: Exception | None) -> None:
                if name in self.forgotten:
                    self.forgotten.remove(name)
                    error = OutcomeUnknown("the connection was lost")
                if answer.done():
                    return
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(result)

            async def serve() -> None:
                result, error = None, None
                try:
                    result = await operation(*arguments, **named)
                except Exception as failure:  # noqa: BLE001 - it travels back to whoever asked
                    error = failure
                back_s = self.delay_s + self.late_answers_s.get(name, 0.0)
                self._loop.call_later(back_s, settle, result, error, context=OUTSIDE)

            def arrive() -> None:
                if self.is_cut:
                    settle(None, MetadataUnavailable("no way to the database"))
                else:
                    self._serving.append(self._loop.create_task(serve(), context=OUTSIDE))

            late_s = self.delay_s + self.late_s.get(name, 0.0)
            self._loop.call_later(late_s, arrive, context=OUTSIDE)
            return await answer

        return call


class ClusterAgent:
    """One process that coordinates groups."""

    def __init__(self, town: Town, name: str, limits: CoordinatorLimits, settings: GroupSettings) -> None:
        self.name = name
        self.town = town
        self.process = Process(name)
        self.wire = Wire(town.store, town.loop)
        self.stopped: list[str] = []
        self._limits = limits
        self._settings = settings

    async def open(self) -> None:
        """Join the cluster and serve."""
        clock, store = self.town.clock, self.wire
        self.membership = Membership(
            store,
            clock,
            name=f"{self.name}:9092",
            incarnation=str(self.town.ids.uuid4()),
            facts=lambda: AgentFacts(endpoints=(f"{self.name}:9092",)),
            limits=MembershipLimits.of_timeout(TIMEOUT_S),
            is_shared=True,
            stop=self.stopped.append,
        )
        self.broker_id = await self.membership.join()
        self.policy = ClusterSlotPolicy(self.membership, clock, timeout_s=TIMEOUT_S)
        self.coordinator = GroupCoordinator(
            store,
            clock,
            self.town.ids,
            holder=self.broker_id,
            settings=self._settings,
            limits=self._limits,
            policy=self.policy,
            upkeep=UpkeepSettings(),
            observer=Events(),
        )
        await self.coordinator.open()
        self.membership.start()

    async def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Let the process do something; while it is frozen it does not."""
        return await self.town.loop.start(self.process, coroutine)

    def freeze(self, seconds: float) -> None:
        self.town.loop.freeze(self.process, seconds)

    def kill(self) -> None:
        self.process.is_alive = False
        self.town.agents.remove(self)

    async def stop(self) -> bool:
        """End in good order; was that possible?"""

        async def stop() -> bool:
            await self.membership.leave()
            is_drained = await self.coordinator.drain(10.0)
            await self.close()
            return is_drained

        is_drained = await self.do(stop())
        self.town.agents.remove(self)
        return is_drained

    async def close(self) -> None:
        await self.coordinator.close()
        self.policy.close()
        await self.membership.close()

    def beat(self, group_id: str, member_id: str, generation: int) -> ErrorCode | None:
        """The short way of a heartbeat."""
        return self.coordinator.heartbeat(group_id, member_id, None, generation)


class Town:
    """The database, and all agents on it."""

    def __init__(self, loop: SimLoop) -> None:
        self.loop = loop
        self.clock = SimClock(loop)
        self.ids = IdSource(self.clock, random.Random(1).randbytes)
        self.database = SqliteDatabase(":memory:", now_ms=self.clock.time_ms, is_shared=True)
        self.store = MetadataStore(self.database, self.clock, self.ids)
        self.agents: list[ClusterAgent] = []

    async def open(self) -> None:
        await self.store.open()
        [topic] = await self.store.create_topics([NewTopic("t", self.ids.topic_id(), 8, {})])
        assert isinstance(topic, Topic)

    async def agent(
        self,
        name: str,
        limits: CoordinatorLimits | None = None,
        settings: GroupSettings = SHORT_DELAY,
    ) -> ClusterAgent:
        """An agent that serves."""
        agent = ClusterAgent(self, name, limits or CoordinatorLimits(), settings)
        await self.loop.start(agent.process, agent.open())
        self.agents.append(agent)
        return agent

    async def close(self) -> None:
        for agent in self.agents:
            agent.process.is_frozen = False
            agent.wire.is_cut = False
            await self.loop.start(agent.process, agent.close())
        await self.store.close()

    async def leases(self) -> dict[int, LeaseState]:
        states = await self.store.read_leases(LEASES)
        return {slot: states[name] for slot, name in enumerate(LEASES) if name in states}

    async def holders(self) -> dict[int, BrokerId | None]:
        return {slot: state.holder for slot, state in (await self.leases()).items()}

    async def offset(self, group_id: str) -> int | None:
        [rows] = await self.store.fetch_offsets([OffsetQuery(group_id, [("t", 0)])])
        return rows[0].offset if rows else None

    def row(self, group_id: str, offset: int, partition: int = 0, topic: str = "t") -> OffsetRow:
        return OffsetRow(group_id, topic, partition, offset, -1, "", self.clock.time_ms())

    def serving(self, group_id: str) -> list[ClusterAgent]:
        """The agents that say they coordinate a group."""
        return [
            agent
            for agent in self.agents
            if not agent.process.is_frozen and agent.coordinator.coordinates(group_id)
        ]

    async def settle(self, seconds: float = 30.0) -> None:
        """Let the agents share the slots."""
        await asyncio.sleep(seconds)


def group_of(slot: int, prefix: str = "g") -> str:
    """A group of that slot."""
    return next(f"{prefix}{n}" for n in range(10_000) if slot_of(f"{prefix}{n}") == slot)


def run(test: Callable[[Town], Coroutine[Any, Any, None]], seed: int = 0) -> None:
    """Run a test in virtual time, in a town of its own."""

    async def main(loop: SimLoop) -> None:
        town = Town(loop)
        await town.open()
        try:
            await test(town)
        finally:
            await town.close()

    run_sim(main, seed)
