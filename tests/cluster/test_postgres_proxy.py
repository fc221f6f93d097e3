"""The proxy before PostgreSQL finds each COMMIT, and cuts its connection where it is told to."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator

import asyncpg
import pytest

from tests.support.postgres import PostgresServer
from tests.support.postgres_proxy import CutAt, Messages, PostgresProxy

pytestmark = pytest.mark.postgres


def query(text: bytes) -> bytes:
    return b"Q" + struct.pack("!i", len(text) + 5) + text + b"\0"


STARTUP = struct.pack("!ii", 16, 196608) + b"user\0x\0\0"
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_commits_are_found_however_the_stream_is_cut(step: int) -> None:
    # What merely speaks of it is no COMMIT.
    asked = [
        SSL_REQUEST,
        STARTUP,
        query(b"BEGIN;"),
        query(b"select 'commit'"),
        query(b"COMMIT;"),
        query(b"commit"),
    ]
    stream = b"".join(asked)
    messages = Messages()
    found = [each for at in range(0, len(stream), step) for each in messages.feed(stream[at : at + step])]
    assert found == list(zip(asked, [False, False, False, False, True, True], strict=True))


def test_what_is_not_the_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="a message of 0 bytes"):
        Messages().feed(bytes(8))


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[PostgresProxy]:
    with PostgresProxy(postgres_server.port) as made:
        yield made


@pytest.fixture
def url(postgres_server: PostgresServer, proxy: PostgresProxy) -> Iterator[str]:
    """Of a database with an empty table, by way of the proxy."""
    database = postgres_server.create_database()
    postgres_server.execute("create table t (n int)", database.rpartition("/")[2])
    yield database.replace(f":{postgres_server.port}/", f":{proxy.port}/") + "?sslmode=disable"
    postgres_server.drop_database(database)


async def insert(url: str) -> bool:
    """In a transaction. Was it acknowledged?"""
    connection = await asyncpg.connect(url, timeout=20)
    try:
        async with asyncio.timeout(20):
            for statement in ("begin", "insert into t values (1)", "commit"):
                await connection.execute(statement)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError):
        return False
    else:
        return True
    finally:
        connection.terminate()


async def count(url: str) -> int:
    connection = await asyncpg.connect(url, timeout=20)
    try:
        return int(await connection.fetchval("select count(*) from t"))
    finally:
        connection.terminate()


@pytest.mark.parametrize(
    ("way", "is_acknowledged", "counts"),
    [
        (CutAt.BEFORE, False, {0}),
        (CutAt.SENT, False, {0, 1}),
        (CutAt.ANSWERED, False, {1}),
        (CutAt.LATE, True, {1}),
    ],
)
def test_a_commit_is_cut_where_it_is_to_be(
    proxy: PostgresProxy, url: str, way: CutAt, is_acknowledged: bool, counts: set[int]
) -> None:
    async def work() -> None:
        with proxy.cutting_commits([way], late_s=0.01) as rule:
            assert await insert(url) is is_acknowledged
        assert (rule.happened, proxy.happened[way]) == (1, 1)
        assert await count(url) in counts
        assert await insert(url)
        assert proxy.commits == 2

    asyncio.run(work())


def test_what_is_held_goes_on_afterwards_and_what_is_cut_does_not(proxy: PostgresProxy, url: str) -> None:
    async def work() -> None:
        with proxy.holding():
            inserted = asyncio.ensure_future(insert(url))
            await asyncio.sleep(0.05)
            assert not inserted.done()
        assert await inserted
        connection = await asyncpg.connect(url, timeout=20)
        assert await asyncio.to_thread(proxy.cut_all) == 1
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
            await connection.fetchval("select 1")
        connection.terminate()

    asyncio.run(work())
