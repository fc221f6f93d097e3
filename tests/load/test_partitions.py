"""10,000 partitions at one agent: made, described, written, read, there after a restart, deleted; free while unused."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.broker.client import Client, fetch_request, joined, produce_request
from tests.broker.support import batch
from tests.load.agent import MIB, LoadAgent
from tests.load.bounds import PROCESS_MIB
from tests.load.figures import Figures
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server, environment_of
from warp.protocol import Request
from warp.protocol.messages.metadata import MetadataRequest
from warp.protocol.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
)
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest, DeleteTopicsRequest

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]

KIB = 1024
PARTITIONS = 10_000
IDLE_S = 3.0
PATIENCE_S = 60.0
UNIT_STEPS = 1_000_000
HOLD_UNITS_MAX = 20.0
"""For so long at most one request over 10,000 partitions may keep the loop, see `python_unit_s`."""
CREATED_BYTES_MAX = 1 * KIB
"""What an agent holds of a partition that nobody has used."""
USED_BYTES_MAX = 4 * KIB
"""And of one that has been written and read."""
JOB_TASKS_MAX = 10
"""Background jobs may be at work at one moment and not at another."""
EXTRA_STATEMENTS_MAX = 5
"""Statements of one kind, of jobs that happen to run in one of two idle times and not in the other."""

Topics = Mapping[str, int]
"""How many partitions each topic has."""
WIDE: Topics = {f"wide-{number}": 1_000 for number in range(10)}
MANY: Topics = {f"many-{number}": 1 for number in range(PARTITIONS)}


@dataclass
class Desk:
    """One client that asks for large things, and what its requests have done to the agent's loop."""

    agent: LoadAgent
    figures: Figures
    client: Client
    unit_s: float

    async def ask(self, name: str, request: Request, version: int) -> Any:
        """The answer; for how long the loop had no turn while it was made is a figure."""
        self.agent.watch_holds()
        number = self.client.send(request, version)
        async with asyncio.timeout(PATIENCE_S):
            answer = await self.client.answer(request.api, version, number)
        hold = self.agent.longest_hold_s() / self.unit_s
        self.figures.at_most(f"hold of the loop, {name}", hold, HOLD_UNITS_MAX, "units")
        return answer


def python_unit_s() -> float:
    """CPU seconds that a fixed piece of Python takes here, as a measure that moves with the machine."""
    best = float("inf")
    for _ in range(3):
        began_s, total = time.process_time(), 0
        for step in range(UNIT_STEPS):
            total += step & 3
        best = min(best, time.process_time() - began_s)
    return best


@asynccontextmanager
async def desk(agent: LoadAgent, figures: Figures) -> AsyncIterator[Desk]:
    client = await Client.connect(agent.port)
    try:
        yield Desk(agent, figures, client, python_unit_s())
    finally:
        client.writer.close()
        await client.writer.wait_closed()


async def create(at: Desk, name: str, topics: Topics) -> None:
    wanted = [
        CreatableTopic(name=topic, num_partitions=count, replication_factor=1, assignments=[], configs=[])
        for topic, count in topics.items()
    ]
    # The answer of later versions has all configs of all topics, 8 MiB of them for 10,000.
    answer = await at.ask(f"create {name}", CreateTopicsRequest(topics=wanted, timeout_ms=60_000), 4)
    assert {topic.error_code for topic in answer.topics} == {0}


async def describe(at: Desk, name: str, topics: Topics) -> None:
    answer = await at.ask(f"describe {name}", MetadataRequest(topics=None), 9)
    assert {topic.name: len(topic.partitions) for topic in answer.topics} == topics
    assert all(part.leader_id >= 0 for topic in answer.topics for part in topic.partitions)


async def write(at: Desk, name: str, topics: Topics) -> None:
    """One record to each partition, in one request."""
    data = batch(b"a record of some bytes", timestamp_ms=round(time.time() * 1000))
    parts: dict[str, dict[int, bytes | None]] = {
        topic: dict.fromkeys(range(count), data) for topic, count in topics.items()
    }
    answer = await at.ask(f"write to {name}", produce_request(parts), 9)
    found = [
        (part.error_code, part.base_offset)
        for topic in answer.responses
        for part in topic.partition_responses
    ]
    assert found == [(0, 0)] * PARTITIONS


async def read(at: Desk, name: str, topics: Topics) -> None:
    """What each partition has, in one request."""
    asked = {topic: dict.fromkeys(range(count), 0) for topic, count in topics.items()}
    request = fetch_request(asked, max_wait_ms=0, partition_max_bytes=1000, max_bytes=2**30)
    answer = await at.ask(f"read {name}", request, 12)
    found = [joined(part.records) for topic in answer.responses for part in topic.partitions]
    assert sum(b"a record of some bytes" in data for data in found) == PARTITIONS


async def list_ends(at: Desk, name: str, topics: Topics) -> None:
    wanted = [
        ListOffsetsTopic(
            name=topic,
            partitions=[ListOffsetsPartition(partition_index=index, timestamp=-1) for index in range(count)],
        )
        for topic, count in topics.items()
    ]
    answer = await at.ask(f"ask for the ends of {name}", ListOffsetsRequest(replica_id=-1, topics=wanted), 6)
    assert {part.offset for topic in answer.topics for part in topic.partitions} == {1}


async def delete_records(at: Desk, name: str, topics: Topics) -> None:
    wanted = [
        DeleteRecordsTopic(
            name=topic,
            partitions=[DeleteRecordsPartition(partition_index=index, offset=-1) for index in range(count)],
        )
        for topic, count in topics.items()
    ]
    request = DeleteRecordsRequest(topics=wanted, timeout_ms=60_000)
    answer = await at.ask(f"delete the records of {name}", request, 2)
    assert {part.low_watermark for topic in answer.topics for part in topic.partitions} == {1}


async def delete(at: Desk, name: str, topics: Topics) -> None:
    request = DeleteTopicsRequest(topic_names=list(topics), timeout_ms=60_000)
    answer = await at.ask(f"delete {name}", request, 5)
    assert {topic.error_code for topic in answer.responses} == {0}


async def statements_while_idle(agent: LoadAgent) -> dict[str, float]:
    """How many of each kind the metadata store and the object store are asked while nobody does anything."""
    before = await asyncio.to_thread(agent.metrics)
    await asyncio.sleep(IDLE_S)
    after = await asyncio.to_thread(agent.metrics)
    pattern = re.compile(r'warp_(?:metadata|object_store)_seconds_count{operation="(\w+)"}')
    found = {
        match[1]: after[name] - before.get(name, 0.0) for name in after if (match := pattern.match(name))
    }
    return {operation: count for operation, count in found.items() if count}


async def write_once(client: Client) -> None:
    """A record, to a topic that is gone then: an agent that has written asks for its last commit with every beat."""
    answer = await client.ask(
        CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name="first", num_partitions=1, replication_factor=1, assignments=[], configs=[]
                )
            ]
        ),
        4,
    )
    assert answer.topics[0].error_code == 0, answer
    assert (await client.produce("first", batch(b"a record"))).error_code == 0
    answer = await client.ask(DeleteTopicsRequest(topic_names=["first"], timeout_ms=60_000), 5)
    assert answer.responses[0].error_code == 0, answer


async def use(agent: LoadAgent, figures: Figures) -> None:
    """Make 10 topics of 1,000 partitions, and do everything with all of them."""
    async with desk(agent, figures) as at:
        await write_once(at.client)
        idle_before = await statements_while_idle(agent)
        before = agent.facts()
        await create(at, "10 topics of 1,000", WIDE)
        created = agent.facts()
        await describe(at, "10,000 partitions", WIDE)
        await write(at, "10,000 partitions", WIDE)
        await read(at, "10,000 partitions", WIDE)
        await list_ends(at, "10,000 partitions", WIDE)
        used = agent.facts()
        for name, facts, bound in (("created", created, CREATED_BYTES_MAX), ("used", used, USED_BYTES_MAX)):
            cost = (facts.resident_bytes - before.resident_bytes) / PARTITIONS
            figures.at_most(f"memory of a partition that is {name}", cost, bound, "B")
        figures.at_most("memory of the process", used.resident_bytes / MIB, PROCESS_MIB, "MiB")
        tasks = sum(used.tasks.values()) - sum(before.tasks.values())
        figures.at_most("tasks of them all", tasks, JOB_TASKS_MAX)
        idle_after = await statements_while_idle(agent)
        more = max(count - 1.5 * idle_before.get(name, 0.0) for name, count in idle_after.items())
        figures.note(f"statements in {IDLE_S:g} idle seconds without partitions", sum(idle_before.values()))
        figures.at_most("statements of one kind more with 10,000", max(more, 0), EXTRA_STATEMENTS_MAX)
    figures.complain(agent.bugs()[:3])


async def use_again_and_delete(agent: LoadAgent, figures: Figures) -> None:
    """After a restart."""
    async with desk(agent, figures) as at:
        figures.at_most("memory after a restart", agent.facts().resident_bytes / MIB, PROCESS_MIB, "MiB")
        await read(at, "10,000 after a restart", WIDE)
        await delete_records(at, "10,000 partitions", WIDE)
        await delete(at, "10 topics of 1,000", WIDE)
    figures.complain(agent.bugs()[:3])


async def use_many_topics(agent: LoadAgent, figures: Figures) -> None:
    """The same of 10,000 topics, which is more work for the catalogue."""
    async with desk(agent, figures) as at:
        await create(at, "10,000 topics", MANY)
        await describe(at, "10,000 topics", MANY)
        await write(at, "10,000 topics", MANY)
        await read(at, "10,000 topics", MANY)
        await delete(at, "10,000 topics", MANY)
        figures.at_most("memory at the end", agent.facts().resident_bytes / MIB, PROCESS_MIB, "MiB")
    figures.complain(agent.bugs()[:3])


def test_ten_thousand_partitions_cost_little_and_nothing_while_idle(tmp_path: Path, figures: Figures) -> None:
    with LoadAgent(tmp_path / "data") as agent:
        asyncio.run(use(agent, figures))
        assert agent.stop() == 0
        agent.start()
        asyncio.run(use_again_and_delete(agent, figures))
        asyncio.run(use_many_topics(agent, figures))


@pytest.mark.postgres
def test_ten_thousand_partitions_in_a_cluster(tmp_path: Path, figures: Figures) -> None:
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        s3 = stack.enter_context(S3Server(tmp_path))
        stores = ("--metadata", postgres.create_database(), "--object-store", s3.url("warp"))
        environment = environment_of(s3.credentials)
        agent = stack.enter_context(LoadAgent(tmp_path / "data", *stores, environment=environment))
        asyncio.run(use(agent, figures))
        assert agent.stop() == 0
        agent.start()
        asyncio.run(use_again_and_delete(agent, figures))
