"""Connections to PostgreSQL that are cut in the middle of something: what is certain then, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.postgres import PostgresServer
from tests.support.relay import Relay
from tests.unit.metadata.life_support import merged
from tests.unit.metadata.support import TestClock, batch, segment
from tests.unit.metadata.test_postgres import WRITE, database, value
from warp.errors import MetadataUnavailable, OutcomeUnknown
from warp.ids import IdSource
from warp.metadata.model import NewTopic, Topic
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

COMMIT = b"commit\0"
"""As it is on the wire; `read committed` is none."""


def run_relayed(
    server: PostgresServer, url: str, test: Callable[[PostgresDatabase, Relay], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with Relay(server.port) as relay:
            opened = database(url.replace(f":{server.port}/", f":{relay.port}/"))
            await opened.open()
            try:
                await test(opened, relay)
            finally:
                await opened.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_connection_cut_before_commit_has_changed_nothing(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async def test(opened: PostgresDatabase, relay: Relay) -> None:
        relay.cut_before(b"marked")
        with pytest.raises(MetadataUnavailable):  # noqa: PT012
            async with opened.transaction() as session:
                await session.execute(WRITE, "a", "1")
                await session.execute(WRITE, "marked", "1")
        assert relay.cuts == 1
        assert await value(opened, "a") is None

    run_relayed(postgres_server, postgres_url, test)


@pytest.mark.parametrize("arrives", [False, True])
def test_the_outcome_of_a_commit_that_was_cut_is_unknown(
    postgres_server: PostgresServer, postgres_url: str, arrives: bool
) -> None:
    async def test(opened: PostgresDatabase, relay: Relay) -> None:
        (relay.cut_after if arrives else relay.cut_before)(COMMIT)
        with pytest.raises(OutcomeUnknown):
            async with opened.transaction() as session:
                await session.execute(WRITE, "a", "1")
        assert relay.cuts == 1
        assert await value(opened, "a") == ("1" if arrives else None)

    run_relayed(postgres_server, postgres_url, test)


@pytest.mark.parametrize("arrives", [False, True])
def test_the_outcome_of_a_write_on_its_own_that_was_cut_is_unknown(
    postgres_server: PostgresServer, postgres_url: str, arrives: bool
) -> None:
    async def test(opened: PostgresDatabase, relay: Relay) -> None:
        await opened.execute(WRITE, "a", "1")
        (relay.cut_after if arrives else relay.cut_before)(b"marked")
        with pytest.raises(OutcomeUnknown):
            await opened.execute(WRITE, "marked", "2")
        assert relay.cuts == 1
        assert await value(opened, "marked") == ("2" if arrives else None)

    run_relayed(postgres_server, postgres_url, test)


@pytest.mark.parametrize("arrives", [False, True])
def test_a_read_that_was_cut_is_sent_again(
    postgres_server: PostgresServer, postgres_url: str, arrives: bool
) -> None:
    async def test(opened: PostgresDatabase, relay: Relay) -> None:
        await opened.execute(WRITE, "marked", "1")
        (relay.cut_after if arrives else relay.cut_before)(b"marked")
        assert await value(opened, "marked") == "1"
        assert relay.cuts == 1

    run_relayed(postgres_server, postgres_url, test)


def test_a_segment_whose_commit_was_cut_is_committed_once(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async def test(opened: PostgresDatabase, relay: Relay) -> None:
        clock = TestClock()
        ids = IdSource(clock, bytes)
        store = MetadataStore(opened, clock, ids)
        [topic] = await store.create_topics([NewTopic("t", ids.topic_id(), 1)])
        assert isinstance(topic, Topic)
        sealed = segment("k", batch(topic.logs[0], count=5))
        relay.cut_after(COMMIT)
        with pytest.raises(OutcomeUnknown):
            await store.commit([sealed], clock.time_ms())
        again = await store.commit([sealed], clock.time_ms())
        assert [outcome.base_offset for outcome in again.outcomes[0]] == [0]
        assert (await store.log_states(topic.logs))[topic.logs[0]].next_offset == 5

    run_relayed(postgres_server, postgres_url, test)


@pytest.mark.parametrize("arrives", [False, True])
def test_a_swap_that_was_cut_is_made_once(
    postgres_server: PostgresServer, postgres_url: str, arrives: bool
) -> None:
    async def test(opened: PostgresDatabase, relay: Relay) -> None:
        clock = TestClock()
        ids = IdSource(clock, bytes)
        store = MetadataStore(opened, clock, ids)
        [topic] = await store.create_topics([NewTopic("t", ids.topic_id(), 1)])
        assert isinstance(topic, Topic)
        [log] = topic.logs
        for key in "abc":
            await store.commit([segment(key, batch(log, count=5))], clock.time_ms())
        change = merged("m", (await store.extents_of_log(log, 0, 9))[:2], shrunk_bytes=50, clean={log: 10})
        (relay.cut_after if arrives else relay.cut_before)(COMMIT)
        with pytest.raises(OutcomeUnknown):
            await store.swap(None, change)
        assert relay.cuts == 1
        for _ in range(2):
            assert (await store.swap(None, change)).swapped == {log}
        rows = await store.extents_of_log(log, 0, 9)
        assert [(row.base_offset, row.end_offset, row.key) for row in rows] == [(0, 10, "m"), (10, 15, "c")]
        assert (await store.log_states([log]))[log].size_bytes == 250
        assert await store.mark_dead_among(None, [1, 2, 3, 4]) == 2

    run_relayed(postgres_server, postgres_url, test)
