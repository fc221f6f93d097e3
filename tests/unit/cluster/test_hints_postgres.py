"""Hints through PostgreSQL: two agents in one process that hear of each other's commits and topics."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cluster.hints_support import found
from warp._records import build_batch
from warp.agent import Agent
from warp.agent_build import build_agent
from warp.clock import SystemClock
from warp.cluster.catalogue import TopicInfo
from warp.cluster.topic_request import TopicRequest
from warp.config import config_of
from warp.errors import ErrorCode
from warp.ids import IdSource
from warp.log.answer import FetchAnswer, FetchLimits, FetchPartitionQuery
from warp.log.model import Append
from warp.metrics import Metrics

pytestmark = pytest.mark.postgres

CLOCK = SystemClock()
LONG_S = 1_000.0
Scenario = Callable[[Agent, Agent], Awaitable[None]]


def run(folder: Path, url: str, scenario: Scenario) -> None:
    """With two agents whose waiting fetches look into the store after hints alone."""

    async def main() -> None:
        agents = []
        try:
            for number in range(2):
                config = config_of(
                    listen="127.0.0.1:0",
                    http="off",
                    data_dir=str(folder / f"agent-{number}"),
                    object_store=(folder / "objects").as_uri(),
                    metadata=url,
                )
                agent = build_agent(config, clock=CLOCK, ids=IdSource(CLOCK, os.urandom), metrics=Metrics())
                await agent.start()
                agents.append(agent)
                agent.log.fetch._limits = FetchLimits(look_interval_s=LONG_S, look_interval_hearing_s=LONG_S)
            await asyncio.wait_for(scenario(*agents), 50)
        finally:
            for agent in agents:
                await agent.close()

    asyncio.run(main())


async def create(agent: Agent, name: str) -> TopicInfo:
    [info] = await agent.catalogue.create([TopicRequest(name, 1)])
    assert isinstance(info, TopicInfo), info
    return info


async def produce(agent: Agent, info: TopicInfo, value: bytes) -> None:
    target = info.target(0)
    assert target is not None
    data = build_batch([(None, value, (), CLOCK.time_ms())])
    staged = await agent.log.produce.stage([Append(target, data)], 30_000)
    [outcome] = await staged.outcomes
    assert outcome.error is ErrorCode.NONE


async def waiting(agent: Agent, info: TopicInfo, offset: int) -> asyncio.Task[FetchAnswer]:
    """A fetch that has begun to wait, for longer than the test."""
    query = FetchPartitionQuery(info.topic.logs[0], offset, 2**20)
    fetch = agent.log.fetch
    task = asyncio.create_task(fetch.fetch([query], bytes_max=2**20, bytes_min=1, wait_ms=600_000))
    await until(lambda: fetch.waiting == 1)
    return task


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.005)


def test_commits_and_topics_of_one_agent_are_heard_of_at_the_other(tmp_path: Path, postgres_url: str) -> None:
    async def scenario(a: Agent, b: Agent) -> None:
        info = await create(a, "t")
        await until(lambda: "t" in b.catalogue.current.by_name)
        for number in range(3):
            task = await waiting(b, info, number)
            await produce(a, info, b"%d" % number)
            assert found(await task) == [(number, b"%d" % number)]
        task = await waiting(b, info, 3)
        await a.catalogue.delete([info.topic_id])
        assert (await task).partitions[0].error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert "t" not in b.catalogue.current.by_name
        shown = (await b.render_metrics()).decode()
        assert 'warp_cluster_hints_total{direction="received",kind="log"} 3.0' in shown
        assert 'warp_cluster_hints_total{direction="received",kind="catalogue"} 2.0' in shown
        assert "warp_cluster_notices_failed_total 0.0" in (await a.render_metrics()).decode()

    run(tmp_path, postgres_url, scenario)


def test_what_was_not_heard_while_the_connection_was_cut_is_found_after_it(
    tmp_path: Path, postgres_url: str
) -> None:
    async def scenario(a: Agent, b: Agent) -> None:
        info = await create(a, "t")
        await until(lambda: "t" in b.catalogue.current.by_name)
        task = await waiting(b, info, 0)
        for agent in (a, b):
            notices: Any = agent._metadata.notices
            notices._connection.terminate()
        await produce(a, info, b"x")
        assert found(await task) == [(0, b"x")]
        # And what comes later is heard again.
        task = await waiting(b, info, 1)
        await produce(a, info, b"y")
        assert found(await task) == [(1, b"y")]

    run(tmp_path, postgres_url, scenario)
