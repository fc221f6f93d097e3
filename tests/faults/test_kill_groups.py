"""kill -9 under groups at work: no committed offset is lost or goes back, and members go on as if nothing was (P6)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.broker.client import Client
from tests.broker.groups import Member, commit_request, fetched, share_out
from tests.support.process import AgentProcess

KILLS = 6
MEMBERS = 3
TOPIC = "killed"


class Committer:
    """Commits one partition of a group again and again, ever higher, until its agent is gone."""

    def __init__(self, group: str, partition: int, member: Member | None) -> None:
        self.group = group
        self.partition = partition
        self.member = member
        self.sent = 0
        self.acknowledged = -1

    async def run(self, port: int) -> None:
        client = await Client.connect(port)
        fields: dict[str, Any] = {}
        if self.member is not None:
            fields = {
                "member_id": self.member.id,
                "generation_id_or_member_epoch": self.member.generation,
            }
        try:
            while True:
                self.sent += 1
                request = commit_request(self.group, {TOPIC: {self.partition: self.sent}}, **fields)
                answer = await client.ask(request, 8)
                assert answer.topics[0].partitions[0].error_code == 0, answer
                self.acknowledged = self.sent
        except (asyncio.IncompleteReadError, ConnectionError):
            await client.close()

    async def check(self, client: Client) -> None:
        """What was acknowledged is there; of what came after it, perhaps one more."""
        offset = (await fetched(client, self.group))[TOPIC, self.partition][0]
        assert self.acknowledged <= offset <= self.sent
        self.sent = self.acknowledged = offset


async def stable_members(port: int) -> list[Member]:
    """A Stable group, its leader first."""
    members = [Member(await Client.connect(port), "members") for _ in range(MEMBERS)]
    answers = await asyncio.gather(*(member.join() for member in members))
    assert [answer.error_code for answer in answers] == [0] * MEMBERS
    members.sort(key=lambda member: member.id != answers[0].leader)
    await share_out(members)
    return members


async def commit_until_killed(agent: AgentProcess, committers: list[Committer], seconds: float) -> None:
    running = [asyncio.create_task(each.run(agent.port)) for each in committers]
    await asyncio.sleep(seconds)
    await asyncio.to_thread(agent.kill)
    await asyncio.gather(*running)


async def assert_members_go_on(members: list[Member], port: int, generation: int) -> None:
    for number, member in enumerate(members):
        await member.client.close()
        member.client = await Client.connect(port)
        assert await member.heartbeat() == 0
        answer = await member.sync()
        assert (answer.error_code, answer.assignment) == (0, b"share %d" % number)
        assert member.generation == generation


async def kill_again_and_again(agent: AgentProcess) -> None:
    source = random.Random(1)
    members = await stable_members(agent.port)
    generation = members[0].generation
    committers = [Committer("members", number, member) for number, member in enumerate(members)]
    committers += [Committer(f"simple {number}", 0, None) for number in range(3)]
    for _ in range(KILLS):
        await commit_until_killed(agent, committers, source.uniform(0.05, 0.4))
        await asyncio.to_thread(agent.start)
        client = await Client.connect(agent.port)
        for committer in committers:
            await committer.check(client)
        await client.close()
        await assert_members_go_on(members, agent.port, generation)
    for member in members:
        await member.client.close()
    assert min(committer.acknowledged for committer in committers) > KILLS


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path / "data", "--group-rebalance-delay", "300ms") as process:
        yield process


@pytest.mark.timeout(180)
def test_committed_offsets_and_generations_survive_kills(agent: AgentProcess) -> None:
    admin = AdminClient({"bootstrap.servers": agent.bootstrap})
    admin.create_topics([NewTopic(TOPIC, MEMBERS, 1)])[TOPIC].result(30)
    asyncio.run(kill_again_and_again(agent))
