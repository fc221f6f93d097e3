"""Notices from agent to agent through PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.support.postgres import PostgresServer
from tests.unit.metadata.support import TestClock
from warp.errors import MetadataUnavailable
from warp.metadata import postgres_notices
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.postgres_notices import CHANNEL_BYTES_MAX, NOTICE_BYTES_MAX, channel_of
from warp.metadata.postgres_url import parse_postgres_url
from warp.metadata.session import Notices


class Agent:
    """A database that is open, and what it has heard."""

    def __init__(self, url: str) -> None:
        self.database = PostgresDatabase(parse_postgres_url(url), now_ms=TestClock().time_ms)
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.interruptions = 0
        self.notices.listen(self.heard.put_nowait, self._interrupted)

    @property
    def notices(self) -> Notices:
        assert self.database.notices is not None, "PostgreSQL has notices"
        return self.database.notices

    def _interrupted(self) -> None:
        self.interruptions += 1

    async def hears(self) -> str:
        return await asyncio.wait_for(self.heard.get(), 30)

    async def connected(self) -> None:
        while not self.notices.is_connected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def run(url: str, count: int, test: Callable[[list[Agent]], Awaitable[None]]) -> None:
    async def main() -> None:
        agents = [Agent(url) for _ in range(count)]
        for agent in agents:
            await agent.database.open()
            await agent.connected()
        try:
            await test(agents)
        finally:
            for agent in agents:
                await agent.database.close()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.postgres
def test_everybody_hears_a_notice_in_the_order_of_sending(postgres_url: str) -> None:
    async def test(agents: list[Agent]) -> None:
        for text in ("one", "zwölf", ""):
            await agents[0].notices.publish(text)
        for agent in agents:
            assert [await agent.hears() for _ in range(3)] == ["one", "zwölf", ""]

    run(postgres_url, 2, test)


@pytest.mark.postgres
def test_many_may_publish_at_once_and_as_much_as_there_is_room_for(postgres_url: str) -> None:
    async def test(agents: list[Agent]) -> None:
        [agent] = agents
        texts = [chr(ord("a") + number) * NOTICE_BYTES_MAX for number in range(5)]
        await asyncio.gather(*(agent.notices.publish(text) for text in texts))
        assert sorted([await agent.hears() for _ in texts]) == texts
        with pytest.raises(ValueError, match="at most"):
            await agent.notices.publish("ü" * (NOTICE_BYTES_MAX // 2 + 1))

    run(postgres_url, 1, test)


@pytest.mark.postgres
def test_agents_of_another_schema_hear_nothing(postgres_url: str) -> None:
    async def test(agents: list[Agent]) -> None:
        apart = Agent(f"{postgres_url}?schema=apart")
        await apart.database.open()
        await apart.connected()
        await agents[0].notices.publish("ours")
        assert await agents[0].hears() == "ours"
        await apart.notices.publish("theirs")
        assert await apart.hears() == "theirs"
        assert agents[0].heard.empty()
        await apart.database.close()

    run(postgres_url, 1, test)


@pytest.mark.postgres
def test_a_lost_connection_is_replaced_and_the_gap_is_told(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async def test(agents: list[Agent]) -> None:
        [agent] = agents
        before = agent.interruptions
        postgres_server.terminate_connections(postgres_url.rpartition("/")[2])
        while agent.interruptions == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert agent.notices.is_connected
        await agent.notices.publish("again")
        assert await agent.hears() == "again"

    run(postgres_url, 1, test)


@pytest.mark.postgres
def test_nothing_is_published_while_the_server_is_away(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_notices, "RETRY_S_MAX", 0.1)

    async def test(agents: list[Agent]) -> None:
        [agent] = agents
        before = agent.interruptions
        postgres_server.stop()
        try:
            for _ in range(3):
                with pytest.raises(MetadataUnavailable):
                    await agent.notices.publish("lost")
                await asyncio.sleep(0.05)
            assert not agent.notices.is_connected
        finally:
            postgres_server.start()
        await agent.connected()
        assert agent.interruptions == before + 1
        await agent.notices.publish("back")
        assert await agent.hears() == "back"

    run(postgres_url, 1, test)


@pytest.mark.postgres
def test_a_connection_that_has_died_in_silence_is_noticed(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_notices, "CHECK_EVERY_S", 0.1)
    monkeypatch.setattr(postgres_notices, "CHECK_S_MAX", 0.2)

    async def test(agents: list[Agent]) -> None:
        [agent] = agents
        before = agent.interruptions
        postgres_server.pause()
        try:
            while agent.notices.is_connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            postgres_server.resume()
        while agent.interruptions == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await agent.notices.publish("alive")
        assert await agent.hears() == "alive"

    run(postgres_url, 1, test)


def test_every_schema_has_a_channel_that_postgresql_takes() -> None:
    names = ["public", "a" * 63, "a" * 62 + "b"]
    channels = [channel_of(name) for name in names]
    assert channels[0] == "warp_public"
    assert len(set(channels)) == 3
    assert all(len(channel) <= CHANNEL_BYTES_MAX for channel in channels)


def test_who_keeps_metadata_in_sqlite_does_not_load_the_driver() -> None:
    program = (
        "import sys; from warp.clock import SystemClock; import warp.agent_build, warp.metadata.urls;"
        "warp.metadata.urls.open_database('mem://', SystemClock()); sys.exit('asyncpg' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
