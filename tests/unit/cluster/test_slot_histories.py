"""Agents come, go, freeze and are cut off in many orders: no slot has two coordinators, and in the end each has one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.unit.cluster.slot_support import TIMEOUT_S, ClusterAgent, Town, group_of, run
from tests.unit.groups.coordinator_support import Members, stable
from warp.errors import ErrorCode
from warp.groups.model import CheckCommit, Heartbeat
from warp.metadata.group_model import SLOTS, OffsetRow

AGENTS = "abcd"
STEPS = 40
WATCHED = tuple(group_of(slot) for slot in range(0, SLOTS, 4))
ELSEWHERE = (
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
)


class Clients:
    """A group with two members that beat, and commit offsets that only rise; whoever says so is their coordinator."""

    def __init__(self, town: Town, members: Members) -> None:
        self.town = town
        self.members = members
        self.acknowledged = 0
        self.beats = 0
        self._last = 0

    async def live(self) -> None:
        while True:
            await asyncio.sleep(0.3)
            for agent in self.town.serving(self.members.group_id)[:1]:
                await self._beat(agent)
                await self._commit(agent)

    async def _beat(self, agent: ClusterAgent) -> None:
        for one in self.members.ids:
            error = await self._ask(agent, self._heartbeat(agent, one))
            assert error in (None, ErrorCode.NONE, *ELSEWHERE), error
            self.beats += error is ErrorCode.NONE

    async def _heartbeat(self, agent: ClusterAgent, member_id: str) -> ErrorCode:
        request = Heartbeat(member_id, None, self.members.generation)
        return (await agent.coordinator.request(self.members.group_id, request)).error

    async def _commit(self, agent: ClusterAgent) -> None:
        self._last += 1
        offset = self._last
        check = CheckCommit(self.members.ids[0], None, self.members.generation)
        rows = [self.town.row(self.members.group_id, offset)]
        error = await self._ask(agent, self._commit_one(agent, check, rows))
        assert error in (None, ErrorCode.NONE, *ELSEWHERE), error
        if error is ErrorCode.NONE:
            self.acknowledged = offset
            assert await self.town.offset(self.members.group_id) == offset

    async def _commit_one(self, agent: ClusterAgent, check: CheckCommit, rows: list[OffsetRow]) -> ErrorCode:
        [error] = await agent.coordinator.commit_offsets(self.members.group_id, check, rows)
        return error

    async def _ask(self, agent: ClusterAgent, asking: Coroutine[Any, Any, ErrorCode]) -> ErrorCode | None:
        """The answer, None from an agent that has stopped or does not answer for a while."""
        answer = self.town.loop.start(agent.process, asking)
        await asyncio.wait([answer], timeout=1.0)
        return answer.result() if answer.done() else None


async def watch(town: Town) -> None:
    """At no moment two agents serve one group."""
    while True:
        for group_id in WATCHED:
            serving = town.serving(group_id)
            assert len(serving) <= 1, [agent.name for agent in serving]
        await asyncio.sleep(0.01)


class Fate:
    """Does things to agents."""

    def __init__(self, town: Town, chance: random.Random) -> None:
        self._town = town
        self._chance = chance

    async def strike(self) -> None:
        town, chance = self._town, self._chance
        kind = chance.choice(("come", "come", "kill", "stop", "freeze", "freeze", "cut", "slow", "forget"))
        absent = [name for name in AGENTS if all(agent.name != name for agent in town.agents)]
        awake = [agent for agent in town.agents if not (agent.process.is_frozen or agent.wire.is_cut)]
        if kind == "come" and absent:
            await town.agent(chance.choice(absent))
        elif kind == "kill" and len(town.agents) > 1:
            chance.choice(town.agents).kill()
        elif kind == "stop" and len(town.agents) > 1 and awake:
            await chance.choice(awake).stop()
        elif awake:
            self._trouble(kind, chance.choice(awake))
        await asyncio.sleep(chance.choice((0.1, 0.5, 1.0, 3.0, 6.0)))

    def _trouble(self, kind: str, agent: ClusterAgent) -> None:
        chance = self._chance
        seconds = chance.uniform(0.2, 3 * TIMEOUT_S)
        if kind == "freeze":
            agent.freeze(seconds)
        elif kind == "cut":
            agent.wire.is_cut = True
            self._town.loop.call_later(seconds, setattr, agent.wire, "is_cut", False)
        elif kind == "slow":
            operation = chance.choice(
                ("take_leases_as_seen", "renew_leases", "load_groups", "beat", "commit_offsets")
            )
            agent.wire.late_s[operation] = seconds
            self._town.loop.call_later(2 * seconds, agent.wire.late_s.pop, operation, None)
        elif kind == "forget":
            agent.wire.forgotten += ["take_leases_as_seen", "release_leases", "renew_leases"]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_becomes_of_agents_each_slot_has_one_coordinator_at_most_and_in_the_end_one(
    seed: int,
) -> None:
    async def test(town: Town) -> None:
        chance = random.Random(seed)
        first = await town.agent("a")
        await town.settle(2)
        clients = [
            Clients(town, await first.do(stable(first.coordinator, group_id, 2))) for group_id in WATCHED[:4]
        ]
        tasks = [asyncio.ensure_future(watch(town)), *(asyncio.ensure_future(one.live()) for one in clients)]
        fate = Fate(town, chance)
        for _ in range(STEPS):
            await fate.strike()
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
        await asyncio.sleep(30 + 6 * TIMEOUT_S)
        live = {agent.broker_id for agent in town.agents}
        holders = await town.holders()
        assert len(holders) == SLOTS
        assert set(holders.values()) <= live
        assert all(len(town.serving(group_of(slot))) == 1 for slot in range(SLOTS))
        assert not any(agent.stopped for agent in town.agents)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results
        for one in clients:
            assert one.beats > 0
            assert one.acknowledged > 0
            assert (await town.offset(one.members.group_id) or 0) >= one.acknowledged

    run(test, seed)
