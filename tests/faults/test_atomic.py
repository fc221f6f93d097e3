"""A Produce over 50 partitions of 10 topics, its agent killed at any moment: all of it is there, or nothing (P2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.client import Client, fetch_request, joined, produce_request
from tests.broker.support import batch
from tests.support.process import AgentProcess
from warp._records import iterate_records
from warp.protocol.messages.topics import CreatableTopic, CreateTopicsRequest

TOPICS = [f"atomic-{number}" for number in range(10)]
PARTITIONS = 5
ROUNDS = 8
DECOMPRESSED_BYTES_MAX = 2**20


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path / "data") as process:
        yield process


async def create_topics(client: Client) -> None:
    topics = [
        CreatableTopic(name=name, num_partitions=PARTITIONS, replication_factor=1, assignments=[], configs=[])
        for name in TOPICS
    ]
    answer = await client.ask(CreateTopicsRequest(topics=topics), 7)
    assert all(topic.error_code == 0 for topic in answer.topics)


async def produce_until_killed(port: int, first: int) -> tuple[int, list[int]]:
    """Sends numbered requests, several in flight, until the connection breaks.

    Returns the number after the last one sent, and those that were acknowledged in every partition.
    """
    client = await Client.connect(port)
    number, acknowledged = first, []
    waiting: list[tuple[int, int]] = []
    try:
        while True:
            value = b"%d" % number
            parts = {name: {index: batch(value) for index in range(PARTITIONS)} for name in TOPICS}
            waiting.append((number, client.send(produce_request(parts), 9)))  # type: ignore[arg-type]
            number += 1
            if len(waiting) == 3:
                oldest, correlation_id = waiting.pop(0)
                answer = await client.answer(produce_request({}).api, 9, correlation_id)
                codes = {part.error_code for topic in answer.responses for part in topic.partition_responses}
                assert codes == {0}
                acknowledged.append(oldest)
    except (ConnectionError, asyncio.IncompleteReadError):
        return number, acknowledged
    finally:
        client.writer.transport.abort()


async def stored_numbers(client: Client, topic: str, partition: int) -> list[int]:
    numbers: list[int] = []
    offset = 0
    while True:
        answer = await client.ask(fetch_request({topic: {partition: offset}}), 12)
        data = joined(answer.responses[0].partitions[0].records)
        if not data:
            return numbers
        position = 0
        while position < len(data):
            size = 12 + int.from_bytes(data[position + 8 : position + 12], "big")
            for record in iterate_records(data[position : position + size], DECOMPRESSED_BYTES_MAX):
                assert record.offset == offset
                assert record.value is not None
                numbers.append(int(record.value))
                offset += 1
            position += size


@pytest.mark.timeout(300)
def test_requests_over_many_partitions_are_stored_whole_or_not_at_all(agent: AgentProcess) -> None:
    source = random.Random(5)

    async def round_of_load(first: int) -> tuple[int, list[int]]:
        if first == 0:
            client = await Client.connect(agent.port)
            await create_topics(client)
            client.writer.transport.abort()
        loading = asyncio.create_task(produce_until_killed(agent.port, first))
        await asyncio.sleep(source.uniform(0.05, 0.4))
        agent.kill()
        return await loading

    async def read_back() -> list[list[int]]:
        client = await Client.connect(agent.port)
        partitions = [await stored_numbers(client, topic, p) for topic in TOPICS for p in range(PARTITIONS)]
        client.writer.transport.abort()
        return partitions

    number, acknowledged = 0, []
    for _ in range(ROUNDS):
        number, more = asyncio.run(round_of_load(number))
        acknowledged += more
        agent.start()
    partitions = asyncio.run(read_back())
    first_partition = partitions[0]
    assert acknowledged
    assert all(numbers == first_partition for numbers in partitions)
    assert first_partition == sorted(set(first_partition))
    assert set(acknowledged) <= set(first_partition)
