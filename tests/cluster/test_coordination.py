"""Consumer groups whose coordinator dies or stands still: another agent goes on, and their members with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.broker.client import Client
from tests.broker.groups import Member, fetched
from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic
from tests.support.cluster import SETTLE_S, Cluster, ClusterAgent
from warp.errors import ErrorCode
from warp.protocol.messages.groups import FindCoordinatorRequest

pytestmark = pytest.mark.postgres

GROUPS = tuple(f"group-{n}" for n in range(24))
FROZEN_S = 6.0
"""Three sessions of an agent."""
SESSION_MS = 120_000
"""These members beat when they are asked to, on a machine that may be busy."""
MOVING_S = 4.0
"""Two agents that have seen each other for as long, and hold what is not theirs, have begun to hand it over."""
ELSEWHERE = (
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
)


async def coordinators(cluster: Cluster, asked: ClusterAgent) -> dict[str, ClusterAgent]:
    """Where one agent sends the members of each group; those that nobody coordinates are left out."""
    client = await Client.connect(asked.port)
    try:
        answer = await client.ask(FindCoordinatorRequest(coordinator_keys=list(GROUPS)), 4)
    finally:
        await client.close()
    agents = {agent.port: agent for agent in cluster.agents}
    return {found.key: agents[found.port] for found in answer.coordinators if not found.error_code}


async def stable_member(agent: ClusterAgent, group: str) -> Member:
    """The only member of a group, with an offset of its own."""
    member = Member(await Client.connect(agent.port), group)
    assert (await member.join(session_timeout_ms=SESSION_MS)).error_code == 0
    assert (await member.sync({member.id: b"share"})).error_code == 0
    assert await member.commit("t", 1) == 0
    return member


async def found_again(cluster: Cluster, asked: ClusterAgent, member: Member) -> ClusterAgent:
    """Look for the coordinator of a member as clients do, until one takes its heartbeat. Who that is."""
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        agent = (await coordinators(cluster, asked)).get(member.group)
        if agent is not None and agent.is_running and not agent.is_frozen:
            client = await Client.connect(agent.port)
            there = Member(client, member.group)
            there.id, there.generation = member.id, member.generation
            error = await there.heartbeat()
            if not error:
                await member.client.close()
                member.client = client
                return agent
            await client.close()
            assert error in ELSEWHERE, error
        assert time.monotonic() < deadline_s, f"nobody coordinates {member.group}"
        await asyncio.sleep(0.05)


async def shared_out(cluster: Cluster) -> dict[str, ClusterAgent]:
    """Who coordinates each group, once every agent has its part of them and nothing moves any more."""
    deadline_s = time.monotonic() + 2 * SETTLE_S
    before: dict[str, ClusterAgent] = {}
    while True:
        where = await coordinators(cluster, cluster.agents[0])
        ports = {agent.port for agent in where.values()}
        if where == before and len(where) == len(GROUPS) and len(ports) == len(cluster.agents):
            return where
        assert time.monotonic() < deadline_s, f"groups are coordinated by {sorted(ports)}"
        before = where
        await asyncio.sleep(MOVING_S)


def run(cluster: Cluster, test: Callable[[list[Member], ClusterAgent], Awaitable[None]]) -> None:
    """Run a test with a member in each group, and with the agent that coordinates the first."""

    async def with_members() -> None:
        where = await shared_out(cluster)
        members = [await stable_member(where[group], group) for group in GROUPS]
        try:
            await test(members, where[GROUPS[0]])
        finally:
            for member in members:
                await member.client.close()

    asyncio.run(with_members())


async def committed(cluster: Cluster, asked: ClusterAgent, member: Member, offset: int) -> None:
    """Commit an offset as clients do: whoever has just become coordinator may still be loading the group."""
    deadline_s = time.monotonic() + SETTLE_S
    while error := await member.commit("t", offset):
        assert error in ELSEWHERE, error
        assert time.monotonic() < deadline_s, f"{member.group} can't commit"
        await found_again(cluster, asked, member)


async def served(cluster: Cluster, asked: ClusterAgent, members: Sequence[Member]) -> dict[str, ClusterAgent]:
    agents = await asyncio.gather(*(found_again(cluster, asked, member) for member in members))
    return {member.group: agent for member, agent in zip(members, agents, strict=True)}


def test_members_go_on_in_their_generation_when_their_coordinator_is_killed(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t")

    async def test(members: list[Member], victim: ClusterAgent) -> None:
        survivor = next(agent for agent in cluster.agents if agent is not victim)
        before = await coordinators(cluster, survivor)
        assert {agent.port for agent in before.values()} == {agent.port for agent in cluster.agents}
        victim.kill()
        began_s = time.monotonic()
        orphans = [member for member in members if before[member.group] is victim]
        after = await served(cluster, survivor, orphans)
        print(f"{len(orphans)} groups were served again {time.monotonic() - began_s:.2f} s after the kill")
        # Those of one agent are spread over the others.
        assert {agent.port for agent in after.values()} == {agent.port for agent in cluster.running}
        for member in members:
            await committed(cluster, survivor, member, 2)
        # Who comes back gets its part again without anybody's joining anew.
        victim.start()
        cluster.settle()
        await served(cluster, survivor, members)
        for member in members:
            assert (await fetched(member.client, member.group))["t", 0][0] == 2

    run(cluster, test)


def test_a_coordinator_that_was_frozen_serves_nobody_whose_group_is_elsewhere(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    create_topic(cluster, "t")

    async def test(members: list[Member], sleeper: ClusterAgent) -> None:
        survivor = next(agent for agent in cluster.agents if agent is not sleeper)
        before = await coordinators(cluster, survivor)
        orphans = [member for member in members if before[member.group] is sleeper]
        stale = [Member(member.client, member.group) for member in orphans]
        for old, member in zip(stale, orphans, strict=True):
            old.id, old.generation = member.id, member.generation
            member.client = await Client.connect(survivor.port)
        sleeper.freeze()
        # What they have sent it is read when it wakes.
        beats = [asyncio.ensure_future(old.heartbeat()) for old in stale[::2]]
        commits = [asyncio.ensure_future(old.commit("t", 1)) for old in stale[1::2]]
        await asyncio.sleep(FROZEN_S)
        await served(cluster, survivor, orphans)
        for member in orphans:
            await committed(cluster, survivor, member, 5)
        sleeper.thaw()
        answers = await asyncio.gather(*beats, *commits)
        assert set(answers) == {ErrorCode.NOT_COORDINATOR}
        for old in stale:
            await old.client.close()
        for member in orphans:
            assert (await fetched(member.client, member.group))["t", 0][0] == 5
        cluster.settle()
        await served(cluster, survivor, members)

    run(cluster, test)
