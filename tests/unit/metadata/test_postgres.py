"""PostgreSQL behind the Session surface: what becomes of connections that are lost, cancelled, frozen or in the way."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.support.postgres import PostgresServer
from tests.unit.metadata.support import TestClock, batch, segment
from warp.errors import MetadataContention, MetadataError, MetadataUnavailable
from warp.handlers.inline import Waits, begin
from warp.ids import BrokerId, IdSource
from warp.metadata import postgres_notices
from warp.metadata.leases import share_leases
from warp.metadata.model import NewTopic, Topic
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.postgres_sql import render
from warp.metadata.postgres_url import parse_postgres_url
from warp.metadata.session import Call, Session, load_statements, parse_statements
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

SQL = parse_statements(
    """
-- name: write
insert into settings (name, value) values ($1, $2) on conflict (name) do update set value = excluded.value
-- name: insert
insert into settings (name, value) values ($1, $2)
-- name: insert_rows
insert into settings (name, value) select w.name, w.value from rows($1 as w: name text, value text)
-- name: read
select value from settings where name = $1
-- name: lock
select s.value from settings s where s.name = $1
lock rows of s
-- name: sleep
select pg_sleep(60)
-- name: nap
select pg_sleep(0.9)
-- name: echo
select w.a, w.b, w.c, w.d from rows($1 as w: a bigint, b text, c bytea, d integer)
-- name: show
select current_setting($1)
"""
)
WRITE, INSERT, INSERT_ROWS, READ, LOCK = (
    SQL[name] for name in ("write", "insert", "insert_rows", "read", "lock")
)


def database(url: str, *, timeout_s: float = 10.0, connections_max: int = 10) -> PostgresDatabase:
    return PostgresDatabase(
        parse_postgres_url(url),
        now_ms=TestClock().time_ms,
        timeout_s=timeout_s,
        connections_max=connections_max,
    )


def run(
    url: str, test: Callable[[PostgresDatabase], Awaitable[None]], *, timeout_s: float = 10.0, size: int = 10
) -> None:
    async def main() -> None:
        opened = database(url, timeout_s=timeout_s, connections_max=size)
        await opened.open()
        try:
            await test(opened)
        finally:
            await opened.close()

    asyncio.run(asyncio.wait_for(main(), 60))


async def value(session: Session, name: str) -> str | None:
    row = await session.one(READ, name)
    return None if row is None else row[0]


def name_of(url: str) -> str:
    return urlsplit(url).path[1:]


def test_every_statement_can_be_prepared(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        folder = resources.files("warp.metadata").joinpath("sql")
        connection = await opened.pool.acquire()
        for path in folder.iterdir():
            if path.name.endswith(".sql"):
                for number, statement in enumerate(load_statements(path.name.removesuffix(".sql")).values()):
                    await connection.execute(f"prepare s{number} as {render(statement).text}")
                await connection.execute("deallocate all")
        opened.pool.release(connection)

    run(postgres_url, test)


def test_values_come_back_as_they_went(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        rows: list[tuple[int | str | bytes | None, ...]] = [
            (2**63 - 1, "ü'\"\\\n👩", b"\0\xff", -(2**31)),
            (None, None, None, None),
            (-(2**63), "", b"", 0),
        ]
        assert [tuple(row) for row in await opened.all(SQL["echo"], rows)] == rows
        assert await opened.all(SQL["echo"], []) == []

    run(postgres_url, test)


def test_a_value_that_can_t_be_stored_is_an_error_and_no_more(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        for bad in ("a\0b", "\ud800"):
            with pytest.raises(MetadataError):
                await opened.execute(WRITE, "x", bad)
        with pytest.raises(MetadataError):
            await opened.all(SQL["echo"], [(2**63, "", b"", 0)])
        await opened.execute(WRITE, "x", "fine")
        assert await value(opened, "x") == "fine"

    run(postgres_url, test)


def test_a_block_is_committed_or_rolled_back_whole(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        async with opened.transaction() as session:
            await session.execute(WRITE, "a", "1")
            await session.execute_rows(INSERT_ROWS, [("b", "1"), ("c", "1")])
        with pytest.raises(KeyError):  # noqa: PT012 - the block is the point
            async with opened.transaction() as session:
                await session.execute(WRITE, "a", "2")
                raise KeyError
        assert [await value(opened, name) for name in "abc"] == ["1", "1", "1"]
        assert opened.pool.size == opened.pool.idle == 1

    run(postgres_url, test)


def test_a_block_that_goes_on_after_a_failed_statement_is_not_taken_for_committed(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(INSERT, "a", "1")
        with pytest.raises(MetadataUnavailable, match="ROLLBACK"):  # noqa: PT012
            async with opened.transaction() as session:
                await session.execute(WRITE, "b", "1")
                with pytest.raises(MetadataError):
                    await session.execute(INSERT, "a", "2")
        assert await value(opened, "b") is None

    run(postgres_url, test)


def test_statements_together_are_one_and_answer_in_their_places(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(WRITE, "a", "1")
        calls = [
            Call(INSERT_ROWS, ([("b", "1")],)),
            Call(READ, ("a",)),
            Call(SQL["echo"], ([(1, "x", b"y", None), (2, "", b"", 3)],)),
            Call(READ, ("nobody",)),
        ]
        found = await opened.together(calls)
        assert [[tuple(row) for row in rows] for rows in found] == [
            [],
            [("1",)],
            [(1, "x", b"y", None), (2, "", b"", 3)],
            [],
        ]
        assert await value(opened, "b") == "1"
        assert await opened.together([]) == []

    run(postgres_url, test)


def test_a_snapshot_sees_one_state_and_writes_nothing(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(WRITE, "a", "1")
        async with opened.snapshot() as session:
            assert await value(session, "a") == "1"
            await opened.execute(WRITE, "a", "2")
            assert await value(session, "a") == "1"
            with pytest.raises(MetadataUnavailable, match="takes no writes"):
                await session.execute(WRITE, "a", "3")
        assert await value(opened, "a") == "2"

    run(postgres_url, test)


def test_a_commit_takes_five_round_trips(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        inner = getattr(asyncpg.Connection, name)

        async def counted(self: Any, sql: str, *args: Any, inner: Any = inner, **kwargs: Any) -> Any:
            sent.append(sql)
            return await inner(self, sql, *args, **kwargs)

        monkeypatch.setattr(asyncpg.Connection, name, counted)
    monkeypatch.setattr(postgres_notices, "CHECK_EVERY_S", 3600.0)

    async def test(opened: PostgresDatabase) -> None:
        # The connection for notices comes up on the side. Once it is there it says nothing more.
        while not (opened.notices and opened.notices.is_connected):  # noqa: ASYNC110 - there is no event for that
            await asyncio.sleep(0.01)
        clock = TestClock()
        ids = IdSource(clock, bytes)
        store = MetadataStore(opened, clock, ids)
        [topic] = await store.create_topics([NewTopic("t", ids.topic_id(), 100)])
        assert isinstance(topic, Topic)
        sent.clear()
        await store.commit([segment("k", *(batch(log_id) for log_id in topic.logs))], clock.time_ms())
        assert len(sent) == 5, sent

    run(postgres_url, test)


def test_a_deadlock_is_contention_for_one_of_the_two(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute_rows(INSERT_ROWS, [("a", "1"), ("b", "1")])
        both = asyncio.Barrier(2)

        async def lock(first: str, second: str) -> bool:
            try:
                async with opened.transaction() as session:
                    await session.one(LOCK, first)
                    await both.wait()
                    await session.one(LOCK, second)
            except MetadataContention:
                return False
            return True

        assert sorted(await asyncio.gather(lock("a", "b"), lock("b", "a"))) == [False, True]

    run(postgres_url, test)


def test_a_lock_that_is_held_for_long_is_contention(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(WRITE, "a", "1")
        async with opened.transaction() as holder:
            await holder.one(LOCK, "a")
            busy = asyncio.ensure_future(holder.all(SQL["nap"]))  # an idle one would be ended
            with pytest.raises(MetadataContention):
                await opened.execute(WRITE, "a", "2")
            await busy
        await opened.execute(WRITE, "a", "2")

    run(postgres_url, test, timeout_s=1.0)


def test_a_transaction_that_is_left_idle_lets_go_of_its_locks(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(WRITE, "a", "1")
        with pytest.raises(MetadataUnavailable, match="lost"):  # noqa: PT012
            async with opened.transaction() as holder:
                await holder.execute(WRITE, "a", "2")
                await asyncio.sleep(1.0)
        assert await value(opened, "a") == "1"

    run(postgres_url, test, timeout_s=1.0)


@pytest.mark.parametrize(("timeout_s", "idle"), [(4.0, "2s"), (10.0, "3s"), (300.0, "3s")])
def test_what_an_idle_transaction_locks_keeps_others_for_no_longer_than_3_s(
    postgres_url: str, timeout_s: float, idle: str
) -> None:
    async def test(opened: PostgresDatabase) -> None:
        [(shown,)] = await opened.all(SQL["show"], "idle_in_transaction_session_timeout")
        assert shown == idle

    run(postgres_url, test, timeout_s=timeout_s)


def test_a_statement_that_takes_too_long_is_stopped(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        with pytest.raises(MetadataUnavailable, match="57014"):
            await opened.all(SQL["sleep"])
        assert opened.pool.size == opened.pool.idle == 1

    run(postgres_url, test, timeout_s=0.5)


def test_a_cancelled_transaction_leaves_no_lock_and_no_spoilt_connection(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(WRITE, "a", "1")
        async with opened.transaction() as holder:
            await holder.one(LOCK, "a")

            async def wait_for_the_lock() -> None:
                async with opened.transaction() as session:
                    await session.execute(WRITE, "b", "1")
                    await session.one(LOCK, "a")

            waiting = asyncio.ensure_future(wait_for_the_lock())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            # Waits for the lock on b until the cancelled transaction is rolled back.
            await opened.execute(WRITE, "b", "2")
        for _ in range(opened.pool.size + 1):
            async with opened.transaction() as session:
                assert await value(session, "b") == "2"

    run(postgres_url, test)


def test_cancelling_at_any_moment_leaves_the_pool_whole(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        async def work() -> None:
            async with opened.transaction() as session:
                await session.execute(WRITE, "a", "1")
                await session.one(READ, "a")

        for steps in range(40):
            task = asyncio.ensure_future(work())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(opened.execute(WRITE, str(number), "x") for number in range(20)))
        while opened.pool.idle < opened.pool.size:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the last of the cancelled ones are being rolled back
        assert opened.pool.size <= 3

    run(postgres_url, test, size=3)


def test_connections_that_the_server_has_cut_are_replaced(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await asyncio.gather(*(opened.one(READ, "a") for _ in range(3)))
        # The event loop stands still meanwhile, so the pool can't know.
        postgres_server.terminate_connections(name_of(postgres_url))
        assert await opened.one(READ, "a") is None
        postgres_server.terminate_connections(name_of(postgres_url))
        async with opened.transaction() as session:
            await session.execute(WRITE, "a", "1")
        postgres_server.terminate_connections(name_of(postgres_url))
        async with opened.snapshot() as session:
            assert await value(session, "a") == "1"

    run(postgres_url, test)


def test_a_server_that_is_away_is_unavailable_until_it_is_back(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(WRITE, "a", "1")
        postgres_server.stop()
        try:
            with pytest.raises(MetadataUnavailable):
                await opened.one(READ, "a")
            with pytest.raises(MetadataUnavailable):
                async with opened.transaction():
                    raise AssertionError("nothing can begin")
        finally:
            postgres_server.start()
        assert await value(opened, "a") == "1"

    run(postgres_url, test)


def test_a_server_that_answers_nothing_is_unavailable(
    postgres_server: PostgresServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warp.metadata.postgres_connect.ANSWER_MARGIN_S", 0.2)

    async def test(opened: PostgresDatabase) -> None:
        await opened.one(READ, "a")
        postgres_server.pause()
        try:
            with pytest.raises(MetadataUnavailable, match="in time"):
                await opened.one(READ, "a")
            with pytest.raises(MetadataUnavailable):
                async with opened.transaction():
                    raise AssertionError("nothing can begin")
        finally:
            postgres_server.resume()
        assert await opened.one(READ, "a") is None

    run(postgres_url, test, timeout_s=1.0)


def test_topics_that_wait_for_another_agent_leave_connections_for_commits(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        clock = TestClock()
        ids = IdSource(clock, random.Random(1).randbytes)
        store = MetadataStore(opened, clock, ids)
        [topic] = await store.create_topics([NewTopic("t", ids.topic_id(), 1, {})])
        assert isinstance(topic, Topic)
        async with opened.transaction() as other:
            await other.one(load_statements("catalogue")["lock_catalogue"])
            waiting = [
                asyncio.ensure_future(store.create_topics([NewTopic(f"t{n}", ids.topic_id(), 1, {})]))
                for n in range(5)
            ]
            await asyncio.sleep(0.2)
            result = await store.commit([segment("a", batch(topic.logs[0]))], 1)
            assert result.outcomes[0][0].base_offset == 0
            assert not any(task.done() for task in waiting)
        assert [type(topic) for [topic] in await asyncio.gather(*waiting)] == [Topic] * 5

    run(postgres_url, test, size=3)


def test_it_works_outside_of_tasks_up_to_the_first_wait(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        async def work() -> str | None:
            assert asyncio.current_task() is None or opened.pool.idle == 0
            async with opened.transaction() as session:
                await session.execute(WRITE, "a", "1")
                return await value(session, "a")

        async def read() -> str | None:
            return await value(opened, "a")

        began: list[Any] = []
        loop = asyncio.get_running_loop()
        for coroutine in (work(), read()):
            loop.call_soon(lambda begun: began.append(begin(begun)), coroutine)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waits = began.pop()
            assert isinstance(waits, Waits)
            assert await asyncio.ensure_future(_finish(waits)) == "1"

    run(postgres_url, test)


async def _finish(waits: Waits[Any]) -> Any:
    return await waits


def test_behind_a_transaction_pooler_no_statement_is_kept_and_every_transaction_has_its_limits(
    postgres_url: str,
) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.execute(WRITE, "a", "1")
        assert await value(opened, "a") == "1"
        async with opened.transaction() as session:
            await session.execute(WRITE, "a", "2")
            assert await session.one(SQL["show"], "statement_timeout") == ("10s",)
        async with opened.snapshot() as session:
            assert await value(session, "a") == "2"
            assert await session.one(SQL["show"], "lock_timeout") == ("5s",)
        assert await opened.one(SQL["show"], "statement_timeout") == ("0",)
        assert opened.notices is not None
        assert not opened.notices.is_connected
        await opened.notices.publish("heard by nobody")
        kept = await opened.all(parse_statements("-- name: k\nselect name from pg_prepared_statements")["k"])
        assert kept == []

    run(f"{postgres_url}?pooler=transaction", test)


def test_the_database_has_a_clock_of_its_own(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        assert abs(await opened.time_ms() - time.time() * 1000) < 60_000

    run(postgres_url, test)


def test_a_closed_database_says_so(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        await opened.close()
        with pytest.raises(MetadataUnavailable, match="closed"):
            await opened.one(READ, "a")

    run(postgres_url, test)


def test_a_lease_that_is_being_written_under_holds_up_no_taking_of_others(postgres_url: str) -> None:
    async def test(opened: PostgresDatabase) -> None:
        clock = TestClock()
        store = MetadataStore(opened, clock, IdSource(clock, os.urandom))
        held = await store.take_leases(["x", "y", "z"], BrokerId(1))
        seen = await store.read_leases(["x", "y", "z", "never"])
        wanted = {name: seen.get(name) for name in ("x", "y", "z", "never")}
        async with opened.transaction() as frozen:
            await share_leases(frozen, held[1:2])
            taken = await store.take_leases_as_seen(wanted, BrokerId(2))
        assert [lease.name for lease in taken] == ["never", "x", "z"]
        [y] = await store.take_leases_as_seen({"y": seen["y"]}, BrokerId(2))
        assert y.epoch == held[1].epoch + 1

    run(postgres_url, test)
