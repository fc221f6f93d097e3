"""The connections to PostgreSQL: at most so many, each used by one caller at a time.

asyncpg's own pool asks for the current task, and runs every release in a task of its own. This one does neither: a free
connection is handed out without waiting, so a coroutine that runs outside of any task up to its first wait (as requests
to produce do) gets as far as its first statement. What has to be settled before a connection can be used again (the
rollback of a cancelled transaction, the end of a snapshot) goes on in the background, while its caller is gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import asyncpg

from warp.errors import MetadataError, MetadataUnavailable
from warp.metadata.postgres_errors import DRIVER_ERRORS

WAITERS_MAX = 10_000
"""How many callers may wait for a connection; more are refused at once."""

IDLE_S_MAX = 60.0
"""A connection that was idle for longer is not used again: something on the way may have forgotten it."""

SETTLE_S_MAX = 5.0
CLOSE_S_MAX = 2.0


class _Waiter(NamedTuple):
    """A caller who waits for a connection. How many attempts to connect had begun before it came."""

    future: asyncio.Future[asyncpg.Connection]
    attempts_before: int

    def fail(self, error: Exception) -> None:
        """Unless it has got one, or has gone."""
        if not self.future.done():
            self.future.set_exception(error)


class ConnectionPool:
    """Connections made by `connect`, which raises MetadataError. Belongs to the event loop that runs its methods."""

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, asyncpg.Connection]],
        *,
        connections_max: int,
        wait_s_max: float,
        idle_s_max: float = IDLE_S_MAX,
    ) -> None:
        self._connect = connect
        self._connections_max = connections_max
        self._wait_s_max = wait_s_max
        self._idle_s_max = idle_s_max
        self._idle: deque[tuple[float, asyncpg.Connection]] = deque()
        self._waiters: deque[_Waiter] = deque()
        self._attempts = 0
        self._size = 0
        self._connecting: dict[asyncio.Task[asyncpg.Connection], None] = {}
        self._settling: dict[asyncio.Task[None], None] = {}
        self._is_closed = False

    @property
    def size(self) -> int:
        """How many connections there are, those in the making included."""
        return self._size

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return len(self._idle)

    async def acquire(self) -> asyncpg.Connection:
        """A connection for this caller alone, until it is handed back. Raises MetadataError."""
        if self._is_closed:
            raise MetadataUnavailable("the metadata store is closed")
        loop = asyncio.get_running_loop()
        connection = self._newest_idle(loop.time())
        if connection is not None:
            return connection
        if len(self._waiters) >= WAITERS_MAX:
            raise MetadataUnavailable(f"{WAITERS_MAX} requests wait for a connection to PostgreSQL already")
        waiter: asyncio.Future[asyncpg.Connection] = loop.create_future()
        self._waiters.append(_Waiter(waiter, self._attempts))
        self._connect_more()
        timer = loop.call_later(self._wait_s_max, self._give_up, waiter)
        try:
            return await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())  # it came in the very moment in which nobody wanted it any more
            waiter.cancel()
            raise
        finally:
            timer.cancel()

    def adopt(self, connection: asyncpg.Connection) -> None:
        """Take in a connection that somebody else has made."""
        self._size += 1
        self.release(connection)

    def release(self, connection: asyncpg.Connection) -> None:
        """Hand back a connection that is outside of any transaction."""
        if self._is_closed or connection.is_closed() or connection.is_in_transaction():
            self.discard(connection)
            return
        while self._waiters:
            waiter = self._waiters.popleft().future
            if not waiter.done():
                waiter.set_result(connection)
                return
        now = asyncio.get_running_loop().time()
        self._idle.append((now, connection))
        self._drop_old(now)

    def discard(self, connection: asyncpg.Connection) -> None:
        """Hand back a connection that is not to be used again."""
        connection.terminate()
        self._size -= 1
        self._connect_more()

    def hand_back(self, connection: asyncpg.Connection, is_stale: bool) -> None:
        """`discard` a stale connection, `release` any other."""
        if is_stale:
            self.discard(connection)
        else:
            self.release(connection)

    def settle(self, connection: asyncpg.Connection) -> None:
        """Hand back a connection with a transaction to be rolled back, if there is one. The caller does not wait."""
        if self._is_closed or connection.is_closed():
            self.discard(connection)
            return
        task = asyncio.get_running_loop().create_task(self._settle(connection))
        self._settling[task] = None
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        del self._settling[task]

    def drop_idle(self) -> None:
        """Use none of the idle connections again: one of them has turned out to be dead."""
        while self._idle:
            self.discard(self._idle.popleft()[1])

    async def close(self) -> None:
        """Close all connections; those in use when they are handed back."""
        self._is_closed = True
        for waiter in self._waiters:
            waiter.fail(MetadataUnavailable("the metadata store is closed"))
        self._waiters.clear()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, *self._settling, return_exceptions=True)
        idle = [connection for _, connection in self._idle]
        self._idle.clear()
        self._size -= len(idle)
        await asyncio.gather(*(close_connection(connection) for connection in idle))

    def _newest_idle(self, now: float) -> asyncpg.Connection | None:
        self._drop_old(now)
        while self._idle:
            _, connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self.discard(connection)
        return None

    def _drop_old(self, now: float) -> None:
        while self._idle and now - self._idle[0][0] > self._idle_s_max:
            self.discard(self._idle.popleft()[1])

    def _connect_more(self) -> None:
        """Begin as many connections as there are callers waiting for one, and room."""
        if self._is_closed or self._size >= self._connections_max:
            return
        waiting = (waiter for waiter in self._waiters if not waiter.future.done())
        wanted = sum(1 for _ in islice(waiting, self._connections_max))
        while len(self._connecting) < wanted and self._size < self._connections_max:
            self._size += 1
            self._attempts += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting[task] = None
            task.add_done_callback(partial(self._connected, self._attempts))

    def _connected(self, attempt: int, task: asyncio.Task[asyncpg.Connection]) -> None:
        self._connecting.pop(task, None)
        if task.cancelled():
            self._size -= 1
            return
        error = task.exception()
        if error is None:
            self.release(task.result())
            return
        self._size -= 1
        if self._size > 0:
            return  # one of the others will be handed on
        for waiter in self._waiters:
            if waiter.attempts_before < attempt:
                waiter.fail(_own_copy(error))
        self._waiters = deque(waiter for waiter in self._waiters if not waiter.future.done())
        self._connect_more()  # for those who came after the attempt had begun: things may have changed since

    def _give_up(self, waiter: asyncio.Future[asyncpg.Connection]) -> None:
        if not waiter.done():
            waiter.set_exception(
                MetadataUnavailable(
                    f"no connection to PostgreSQL in {self._wait_s_max:g} s ({self._size} of at most "
                    f"{self._connections_max} are in use or being made)"
                )
            )
        # They came in this order, so their time is over in this order.
        while self._waiters and self._waiters[0].future.done():
            self._waiters.popleft()

    async def _settle(self, connection: asyncpg.Connection) -> None:
        try:
            # One that has sent COMMIT, and was cancelled then, has no transaction any more: the server only warns.
            # The driver's own timeout need not count the wait for the end of what was cancelled.
            async with asyncio.timeout(SETTLE_S_MAX):
                await connection.execute("rollback", timeout=SETTLE_S_MAX)
        except DRIVER_ERRORS as error:
            self.discard(connection)  # the server ends its transaction with it
            if isinstance(error, TimeoutError):
                self.drop_idle()  # whatever is silent here is so for the others as well
        except BaseException:
            self.discard(connection)
            raise
        else:
            self.release(connection)


async def close_connection(connection: asyncpg.Connection) -> None:
    """Say goodbye to the server, and hang up in any case."""
    try:
        async with asyncio.timeout(CLOSE_S_MAX):
            await connection.close(timeout=CLOSE_S_MAX)
    except DRIVER_ERRORS:
        connection.terminate()


def _own_copy(error: BaseException) -> Exception:
    """An error for one of several who get it, so that none sees another's traceback grow in it."""
    if isinstance(error, MetadataError):
        copy = type(error)(*error.args)
        copy.__cause__ = error
        return copy
    return MetadataError(f"PostgreSQL: {error!r}")
