"""The pool of connections, with connections that are none."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from warp.errors import MetadataUnavailable
from warp.handlers.inline import Waits, begin
from warp.metadata import postgres_pool
from warp.metadata.postgres_pool import ConnectionPool


class FakeConnection:
    """What the pool uses of a connection."""

    def __init__(self) -> None:
        self.closed = False
        self.in_transaction = False
        self.executed: list[str] = []
        self.failure: BaseException | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def is_closed(self) -> bool:
        return self.closed

    def is_in_transaction(self) -> bool:
        return self.in_transaction

    def terminate(self) -> None:
        self.closed = True

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109
        self.closed = True

    async def execute(self, sql: str, timeout: float) -> str:  # noqa: ASYNC109
        self.executed.append(sql)
        await asyncio.sleep(0)
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        self.in_transaction = False
        return "ROLLBACK"


class Server:
    """Makes connections, as long as it has no failure."""

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.failure: BaseException | None = None
        self.may_connect = asyncio.Event()
        self.may_connect.set()

    async def connect(self) -> Any:
        failure = self.failure
        await self.may_connect.wait()
        if failure is not None:
            raise failure
        self.made.append(FakeConnection())
        return self.made[-1]


def run(
    test: Callable[[Server, ConnectionPool], Awaitable[None]],
    *,
    size: int = 2,
    wait_s: float = 60.0,
    idle_s: float = 60.0,
) -> None:
    async def main() -> None:
        server = Server()
        pool = ConnectionPool(server.connect, connections_max=size, wait_s_max=wait_s, idle_s_max=idle_s)
        try:
            await test(server, pool)
        finally:
            await pool.close()

    asyncio.run(asyncio.wait_for(main(), 30))


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def fake(connection: Any) -> FakeConnection:
    return cast("FakeConnection", connection)


def test_a_connection_is_used_again() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        for _ in range(3):
            pool.release(await pool.acquire())
        assert (len(server.made), pool.size, pool.idle) == (1, 1, 1)

    run(test)


def test_there_are_never_more_than_the_limit_and_callers_wait_in_order() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        first, second = await pool.acquire(), await pool.acquire()
        waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(3)]
        await settled()
        assert (len(server.made), [task.done() for task in waiting]) == (2, [False] * 3)
        pool.release(second)
        pool.release(first)
        await settled()
        assert [task.done() for task in waiting] == [True, True, False]
        assert (waiting[0].result(), waiting[1].result()) == (second, first)
        pool.release(first)
        assert await waiting[2] is first
        pool.release(first)
        pool.release(second)

    run(test)


def test_waiting_has_an_end() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        first, second = await pool.acquire(), await pool.acquire()
        with pytest.raises(MetadataUnavailable, match="of at most 2 are in use"):
            await pool.acquire()
        pool.release(first)
        pool.release(second)
        assert pool.idle == 2

    run(test, wait_s=0.01)


def test_too_many_waiting_callers_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_pool, "WAITERS_MAX", 1)

    async def test(server: Server, pool: ConnectionPool) -> None:
        held = [await pool.acquire(), await pool.acquire()]
        waiting = asyncio.ensure_future(pool.acquire())
        await settled()
        with pytest.raises(MetadataUnavailable, match="wait for a connection"):
            await pool.acquire()
        pool.release(held[0])
        pool.release(await waiting)
        pool.release(held[1])

    run(test)


def test_a_cancelled_caller_loses_no_connection() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        held = [await pool.acquire(), await pool.acquire()]
        waiting = asyncio.ensure_future(pool.acquire())
        await settled()
        # It gets one and is cancelled before it has run again.
        pool.release(held[0])
        waiting.cancel()
        await settled()
        assert waiting.cancelled()
        assert pool.idle == 1
        pool.release(held[1])
        assert pool.idle == 2

    run(test)


def test_a_connection_that_comes_too_late_is_kept_for_the_next() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        server.may_connect.clear()
        waiting = asyncio.ensure_future(pool.acquire())
        await settled()
        waiting.cancel()
        server.may_connect.set()
        await settled()
        assert (pool.size, pool.idle) == (1, 1)

    run(test)


def test_a_failure_to_connect_is_told_to_all_who_wait() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        server.failure = MetadataUnavailable("nobody there")
        waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(5)]
        for task in waiting:
            with pytest.raises(MetadataUnavailable, match="nobody there"):
                await task
        assert pool.size == 0
        server.failure = None
        pool.release(await pool.acquire())

    run(test)


def test_a_failure_to_connect_more_leaves_callers_waiting_for_the_others() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        first = await pool.acquire()
        server.failure = MetadataUnavailable("too many connections")
        waiting = asyncio.ensure_future(pool.acquire())
        await settled()
        assert not waiting.done()
        pool.release(first)
        assert await waiting is first
        pool.release(first)

    run(test)


def test_a_caller_is_not_told_of_an_attempt_that_began_before_it_came() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        server.failure = MetadataUnavailable("nobody there")
        server.may_connect.clear()
        early = asyncio.ensure_future(pool.acquire())
        await settled()
        late = asyncio.ensure_future(pool.acquire())
        await settled()
        server.failure = None
        server.may_connect.set()
        with pytest.raises(MetadataUnavailable, match="nobody there"):
            await early
        pool.release(await late)

    run(test, size=1)


@pytest.mark.parametrize("flaw", ["closed", "in_transaction"])
def test_no_unfit_connection_comes_back(flaw: str) -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        connection = await pool.acquire()
        setattr(connection, flaw, True)
        pool.release(connection)
        assert (pool.size, pool.idle, fake(connection).closed) == (0, 0, True)

    run(test)


def test_one_that_was_closed_while_idle_is_replaced() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        connection = await pool.acquire()
        pool.release(connection)
        fake(connection).closed = True
        assert await pool.acquire() is not connection
        assert pool.size == 1

    run(test)


def test_a_connection_that_was_idle_for_long_is_not_used_again() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        connection = await pool.acquire()
        pool.release(connection)
        await asyncio.sleep(0.02)
        other = await pool.acquire()
        assert other is not connection
        assert fake(connection).closed
        pool.release(other)

    run(test, idle_s=0.001)


def test_discarding_lets_the_next_caller_connect() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        held = [await pool.acquire(), await pool.acquire()]
        waiting = asyncio.ensure_future(pool.acquire())
        await settled()
        pool.discard(held[0])
        assert await waiting not in held
        assert len(server.made) == 3

    run(test)


def test_a_connection_is_settled_before_it_is_used_again() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        connection = await pool.acquire()
        fake(connection).in_transaction = True
        pool.settle(connection)
        assert pool.idle == 0
        await settled()
        assert (pool.idle, fake(connection).executed) == (1, ["rollback"])

    run(test)


def test_one_that_can_t_be_settled_is_dropped() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        connection = await pool.acquire()
        fake(connection).failure = TimeoutError()
        pool.settle(connection)
        await settled()
        assert (pool.size, fake(connection).closed) == (0, True)

    run(test)


def test_one_that_never_settles_is_dropped_whatever_the_driver_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_pool, "SETTLE_S_MAX", 0.01)

    async def test(server: Server, pool: ConnectionPool) -> None:
        connection = await pool.acquire()
        fake(connection).may_answer.clear()
        pool.settle(connection)
        while pool.size:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert fake(connection).closed

    run(test)


def test_closing_ends_all_and_refuses_more() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        held = [await pool.acquire(), await pool.acquire()]
        waiting = asyncio.ensure_future(pool.acquire())
        await settled()
        await pool.close()
        with pytest.raises(MetadataUnavailable, match="closed"):
            await waiting
        with pytest.raises(MetadataUnavailable, match="closed"):
            await pool.acquire()
        pool.release(held[0])
        pool.settle(held[1])
        assert pool.size == 0
        assert all(made.closed for made in server.made)

    run(test)


def test_a_free_connection_is_had_without_a_task_and_without_waiting() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        pool.release(await pool.acquire())
        got: list[Any] = []
        asyncio.get_running_loop().call_soon(lambda: got.append(begin(pool.acquire())))
        await settled()
        assert not isinstance(got[0], Waits)
        asyncio.get_running_loop().call_soon(lambda: got.append(begin(pool.acquire())))
        await settled()
        assert isinstance(got[1], Waits)
        assert await got[1] in server.made
        for connection in server.made:
            pool.release(cast("Any", connection))

    run(test)


def test_thousands_who_wait_cost_each_other_nothing() -> None:
    async def test(server: Server, pool: ConnectionPool) -> None:
        looked_at = 0
        held = [await pool.acquire() for _ in range(2)]
        waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(5_000)]

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal looked_at
            looked_at += event == "call" and frame.f_code.co_filename == postgres_pool.__file__

        sys.setprofile(count)
        try:
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            sys.setprofile(None)
        assert all(isinstance(answer, MetadataUnavailable) for answer in answers)
        assert looked_at < 20 * len(waiting)
        for connection in held:
            pool.release(connection)
        assert (pool.size, pool.idle) == (2, 2)

    run(test, wait_s=0.2)
