"""Members of a cluster on a real PostgreSQL that is frozen, restarted, cut off and set back under them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.postgres import PostgresServer
from warp.agent import Agent as WholeAgent
from warp.agent_build import build_agent
from warp.clock import SystemClock
from warp.cluster.membership import Membership, MembershipLimits
from warp.config import resolve
from warp.errors import StartError
from warp.ids import IdSource
from warp.metadata.cluster_model import AgentFacts
from warp.metadata.store import MetadataStore
from warp.metadata.urls import open_database
from warp.metrics import Metrics

pytestmark = pytest.mark.postgres

LIMITS = MembershipLimits.of_timeout(2.0)
A, B = "a.example:9092", "b.example:9092"
PATIENCE_S = 60


class Agent:
    """A member with connections of its own."""

    def __init__(self, url: str, name: str) -> None:
        clock = SystemClock()
        ids = IdSource(clock, os.urandom)
        self.stops: list[str] = []
        self.store = MetadataStore(open_database(url, clock, timeout_s=5.0), clock, ids)
        self.membership = Membership(
            self.store,
            clock,
            name=name,
            incarnation=ids.token(),
            facts=lambda: AgentFacts(endpoints=(name,)),
            limits=LIMITS,
            is_shared=True,
            stop=self.stops.append,
        )

    @property
    def living(self) -> int:
        """How many agents live, as this one sees it."""
        return len(self.membership.view.agents)

    async def serve(self) -> Agent:
        await self.store.open()
        await self.membership.join()
        self.membership.start()
        return self

    async def die(self) -> None:
        """End as if killed: without a word."""
        task = self.membership._loop_task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await self.store.close()

    async def close(self) -> None:
        await self.membership.close()
        await self.store.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


def with_two(main: Callable[[Agent, Agent], Awaitable[None]], url: str) -> None:
    async def whole() -> None:
        a, b = Agent(url, A), Agent(url, B)
        try:
            await a.serve()
            await b.serve()
            await until(lambda: a.living == b.living == 2)
            await main(a, b)
        finally:
            await a.close()
            await b.close()

    asyncio.run(whole())


def test_agents_come_go_and_follow_each_other(postgres_url: str) -> None:
    async def main(a: Agent, b: Agent) -> None:
        own = b.membership.view.own
        await b.store.take_leases(["x"], own)
        await until(lambda: a.membership.view.holder("x") is not None)
        await b.close()
        await until(lambda: a.living == 1)
        again = await Agent(postgres_url, B).serve()
        assert again.membership.view.own == own
        await until(lambda: a.living == 2)
        second = Agent(postgres_url, B)
        with pytest.raises(StartError, match="another agent that lives"):
            await second.serve()
        await second.store.close()
        await again.die()
        await until(lambda: a.living == 1)
        third = await Agent(postgres_url, B).serve()
        assert third.membership.view.own == own
        assert await third.store.leases_held(own) == []
        await until(lambda: a.living == 2)
        await third.close()
        assert a.stops == again.stops == third.stops == []

    with_two(main, postgres_url)


def test_a_database_that_stood_still_has_cost_nobody_their_life(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    async def main(a: Agent, b: Agent) -> None:
        views: list[int] = []
        a.membership.subscribe(lambda view: views.append(len(view.agents)))
        b.membership.subscribe(lambda view: views.append(len(view.agents)))
        for trouble in (
            lambda: postgres_server.terminate_connections(urlsplit(postgres_url).path[1:]),
            lambda: postgres_server.restart("immediate"),
        ):
            await asyncio.to_thread(trouble)
            await until(lambda: a.membership.is_live and b.membership.is_live)
        await asyncio.to_thread(postgres_server.pause)
        try:
            await until(lambda: not a.membership.is_live and not b.membership.is_live)
            await asyncio.sleep(2 * LIMITS.timeout_s)
        finally:
            await asyncio.to_thread(postgres_server.resume)
        await until(lambda: a.membership.is_live and b.membership.is_live)
        await asyncio.sleep(LIMITS.timeout_s)
        assert (a.living, b.living) == (2, 2)
        assert set(views) <= {2}
        assert a.stops == b.stops == []

    with_two(main, postgres_url)


def test_a_database_that_was_set_back_stops_all_agents(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    async def main(a: Agent, b: Agent) -> None:
        name = urlsplit(postgres_url).path[1:]
        await asyncio.to_thread(
            postgres_server.execute, "update agents set counter = counter - 3", database=name
        )
        await until(lambda: bool(a.stops and b.stops))
        assert "restored from a backup" in a.stops[0]
        assert not a.membership.is_live
        assert not b.membership.is_live

    with_two(main, postgres_url)


def agent_on(url: str, objects: Path) -> WholeAgent:
    """An agent as the command makes it, with as few connections as it can have."""
    clock = SystemClock()
    options = {
        "metadata": [url],
        "object-store": [objects.as_uri()],
        "metadata-connections-max": ["2"],
        "agent-timeout": ["1s"],
        "listen": ["127.0.0.1:9092"],
        "http": ["off"],
    }
    config = resolve(options, {}).config
    return build_agent(config, clock=clock, ids=IdSource(clock, os.urandom), metrics=Metrics())


def test_an_agent_whose_connections_are_all_taken_still_shows_that_it_lives(
    postgres_url: str, tmp_path: Path
) -> None:
    async def main() -> None:
        agent = agent_on(postgres_url, tmp_path)
        await agent.start(listen=False)
        try:
            async with AsyncExitStack() as taken:
                for _ in range(agent.config.metadata_connections_max):
                    await taken.enter_async_context(agent._metadata._database.snapshot())
                await asyncio.sleep(2.0)
                assert agent.cluster.membership.is_live
                assert agent.cluster.membership.lapses == 0
        finally:
            await agent.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def test_an_agent_whose_session_has_lapsed_is_not_ready_until_it_lives_again(
    postgres_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    async def main() -> None:
        name = urlsplit(postgres_url).path[1:]
        agent = agent_on(postgres_url, tmp_path)
        await agent.start(listen=False)
        try:
            assert await agent.readiness.reasons() == []
            # Nobody can move the row, while all else answers.
            lock = "begin; lock table agents in share mode; select pg_sleep(2.5)"
            locked = asyncio.create_task(asyncio.to_thread(postgres_server.execute, lock, database=name))
            await until(lambda: not agent.readiness.is_ready)
            [reason] = await agent.readiness.reasons()
            assert "session" in reason
            await locked
            await until(lambda: agent.readiness.is_ready)
            assert await agent.readiness.reasons() == []
        finally:
            await agent.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
