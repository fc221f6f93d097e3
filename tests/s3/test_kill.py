"""kill -9 in loops, with objects on an S3 that fails now and then: what was acknowledged is there, once and whole."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.broker.client import Client
from tests.faults.test_atomic import PARTITIONS, TOPICS, create_topics, produce_until_killed, stored_numbers
from tests.faults.test_kill import Load, assert_all_is_there
from tests.s3.conftest import AnyServer
from tests.support.fault_plan import INTERNAL_ERROR, SLOW_DOWN, CutAnswer, CutRequest, Fault
from tests.support.fault_proxy import FaultProxy
from tests.support.process import AgentProcess
from tests.support.s3 import environment_of

KILLS = 2
ROUNDS = 4
RECORDS_BETWEEN_KILLS = 200


@pytest.fixture
def agent(server: AnyServer, store_url: str, tmp_path: Path) -> Iterator[AgentProcess]:
    """A process on S3; records reach it by way of the proxy."""
    options = ["--object-store", store_url, "--flush-interval", "20ms"]
    environment = environment_of(server.credentials)
    with AgentProcess(tmp_path / "data", *options, environment=environment) as process:
        yield process


def make_unreliable(proxy: FaultProxy) -> None:
    """Some of what is stored and read fails, in each way; starting is spared."""
    faults: list[tuple[Fault, float]] = [
        (INTERNAL_ERROR, 0.03),
        (CutAnswer(), 0.03),
        (CutRequest(50), 0.03),
        (SLOW_DOWN, 0.01),
    ]
    for fault, share in faults:
        proxy.fail(fault, share=share, path_has="/segments/")
    proxy.delay("PUT", jitter_s=0.02)


@pytest.mark.timeout(300)
def test_acknowledged_records_survive_kills_and_errors(agent: AgentProcess, proxy: FaultProxy) -> None:
    admin = AdminClient({"bootstrap.servers": agent.bootstrap})
    admin.create_topics([NewTopic("killed", 3, 1)])["killed"].result(30)
    make_unreliable(proxy)
    source = random.Random(1)
    load = Load(agent.bootstrap, "killed")
    try:
        for _ in range(KILLS):
            before = load.acknowledged
            deadline = time.monotonic() + 60
            while load.acknowledged < before + RECORDS_BETWEEN_KILLS and time.monotonic() < deadline:
                time.sleep(source.uniform(0.01, 0.1))
            agent.kill()
            agent.start()
    finally:
        load.finish()
    assert any(request.fault for request in proxy.requests())
    assert_all_is_there(load, agent.bootstrap)


@pytest.mark.timeout(300)
@pytest.mark.rgw
@pytest.mark.parametrize("server", ["rgw"], indirect=True)
def test_requests_over_many_partitions_are_stored_whole_or_not_at_all(
    agent: AgentProcess, proxy: FaultProxy
) -> None:
    source = random.Random(5)

    async def prepare() -> None:
        client = await Client.connect(agent.port)
        await create_topics(client)
        client.writer.transport.abort()

    async def round_of_load(first: int) -> tuple[int, list[int]]:
        loading = asyncio.create_task(produce_until_killed(agent.port, first))
        await asyncio.sleep(source.uniform(0.1, 0.5))
        agent.kill()
        return await loading

    async def read_back() -> list[list[int]]:
        client = await Client.connect(agent.port)
        partitions = [await stored_numbers(client, topic, p) for topic in TOPICS for p in range(PARTITIONS)]
        client.writer.transport.abort()
        return partitions

    asyncio.run(prepare())
    proxy.delay("PUT", jitter_s=0.02)
    proxy.fail(CutAnswer(), "PUT", share=0.1, path_has="/segments/")
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
