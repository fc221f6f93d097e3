"""Databases behind PgBouncer: what agents can and can't do there, and the line for one that they were not told of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from tests.support.pgbouncer import SERVER_CONNECTIONS, PgBouncer
from tests.support.postgres import PostgresServer
from tests.unit.metadata.support import NOW_MS, TestClock, batch, errors, offsets, segment
from warp.errors import MetadataUnavailable
from warp.ids import IdSource
from warp.metadata.model import NewTopic, Topic
from warp.metadata.session import parse_statements
from warp.metadata.store import MetadataStore
from warp.metadata.urls import open_database

pytestmark = pytest.mark.postgres

SQL = parse_statements(
    "-- name: pid\nselect pg_backend_pid()\n"
    "-- name: show\nselect current_setting($1)\n"
    "-- name: prepared\nselect count(*)::int from pg_prepared_statements"
)
COMMITS = 20


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database that nobody has migrated."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def store_on(url: str, seed: int) -> MetadataStore:
    clock = TestClock()
    return MetadataStore(open_database(url, clock), clock, IdSource(clock, random.Random(seed).randbytes))


def test_transactions_run_on_whichever_connection_is_free_and_bring_their_limits(
    postgres_url: str, transaction_pooler: PgBouncer
) -> None:
    async def test() -> None:
        database = open_database(transaction_pooler.url(postgres_url), TestClock(), timeout_s=8.0)
        await database.open()
        try:
            pids = set()
            async with database.transaction(), database.transaction(), database.transaction():
                pass  # as many as there can be: from now on they take turns
            for _ in range(20):
                async with database.transaction() as session:
                    pids.add((await session.all(SQL["pid"]))[0][0])
                    assert [tuple(row) for row in await session.all(SQL["show"], "lock_timeout")] == [("4s",)]
            assert len(pids) == SERVER_CONNECTIONS["transaction"] == 3
            # What a transaction has set is no setting of those who get its connection next.
            for _ in range(20):
                assert [tuple(row) for row in await database.all(SQL["show"], "lock_timeout")] == [("0",)]
            assert database.notices is not None
            assert not database.notices.is_connected
        finally:
            await database.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_agents_that_start_and_commit_at_once_share_few_connections(
    empty: str, transaction_pooler: PgBouncer
) -> None:
    async def test() -> None:
        stores = [store_on(transaction_pooler.url(empty), seed) for seed in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        try:
            ids = IdSource(TestClock(), random.Random(9).randbytes)
            [topic] = await stores[0].create_topics([NewTopic("t", ids.topic_id(), 2, {})])
            assert isinstance(topic, Topic)
            logs = topic.logs

            async def commit(store: MetadataStore) -> list[list[int]]:
                found = []
                for _ in range(COMMITS):
                    batches = [batch(log) for log in logs]
                    result = await store.commit([segment(ids.segment_key(), *batches)], NOW_MS)
                    assert not any(errors(result))
                    found.append(offsets(result))
                return found

            committed = await asyncio.gather(*(commit(store) for store in stores))
            for place in range(len(logs)):
                given = sorted(found[place] for each in committed for found in each)
                assert given == list(range(len(stores) * COMMITS))
        finally:
            for store in stores:
                await store.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_notices_pass_a_pooler_in_session_mode(postgres_url: str, session_pooler: PgBouncer) -> None:
    async def test() -> None:
        database = open_database(session_pooler.url(postgres_url), TestClock())
        await database.open()
        try:
            notices = database.notices
            assert notices is not None
            heard: asyncio.Queue[str] = asyncio.Queue()
            connected = asyncio.Event()
            notices.listen(heard.put_nowait, connected.set)
            await connected.wait()
            await notices.publish("hello")
            assert await heard.get() == "hello"
        finally:
            await database.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_transaction_pooler_that_nobody_spoke_of_is_told_by_name(
    postgres_url: str, transaction_pooler: PgBouncer
) -> None:
    async def test() -> None:
        told = transaction_pooler.url(postgres_url)
        store, other = store_on(told.partition("?")[0], 1), open_database(told, TestClock())
        await store.open()
        await other.open()
        try:
            # All connections are somebody else's now, but for one that does not know this agent's statements.
            async with AsyncExitStack() as held:
                strange = []
                for _ in range(SERVER_CONNECTIONS["transaction"]):
                    stack = AsyncExitStack()
                    session = await stack.enter_async_context(other.transaction())
                    if [tuple(row) for row in await session.all(SQL["prepared"])] == [(0,)]:
                        strange.append(stack)
                    held.push_async_callback(stack.aclose)
                await strange[0].aclose()
                with pytest.raises(MetadataUnavailable, match="add pooler=transaction to the URL"):
                    await store.check()
        finally:
            await store.close()
            await other.close()

    asyncio.run(asyncio.wait_for(test(), 60))
