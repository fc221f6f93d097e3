"""Short texts from agent to agent by LISTEN and NOTIFY, over one connection that does nothing else.

PostgreSQL delivers a notice to whoever listens at that moment, so what is sent while this agent is not connected is
lost to it, and it says so afterwards. A NOTIFY takes a lock that all transactions with one share until they have
committed; that is why each goes in a transaction of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable

import asyncpg

from warp.errors import MetadataError, MetadataUnavailable
from warp.metadata.postgres_connect import Connector
from warp.metadata.postgres_errors import DRIVER_ERRORS, map_error
from warp.metadata.postgres_pool import close_connection

log = logging.getLogger("warp.metadata")

NOTICE_BYTES_MAX = 7999
"""PostgreSQL takes texts of less than 8000 bytes."""

CHANNEL_BYTES_MAX = 63
CHECK_EVERY_S = 5.0
CHECK_S_MAX = 5.0
RETRY_S_MIN = 0.1
RETRY_S_MAX = 5.0

PUBLISH = "select pg_notify($1, $2)"


class PostgresNotices:
    """Notices of the agents that share a schema. `Notices` in session.py says what the methods mean."""

    bytes_max = NOTICE_BYTES_MAX

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._channel = ""
        self._listeners: list[tuple[Callable[[str], None], Callable[[], None]]] = []
        self._connection: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()
        """An asyncpg connection takes one statement at a time."""
        self._task: asyncio.Task[None] | None = None

    def start(self, schema: str) -> None:
        """Connect, and stay connected, until `close`."""
        self._channel = channel_of(schema)
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    async def close(self) -> None:
        """Hear nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def listen(self, heard: Callable[[str], None], interrupted: Callable[[], None]) -> None:
        """See Notices."""
        self._listeners.append((heard, interrupted))

    @property
    def is_connected(self) -> bool:
        """See Notices."""
        return self._connection is not None and not self._connection.is_closed()

    async def publish(self, text: str) -> None:
        """See Notices."""
        if len(text.encode()) > NOTICE_BYTES_MAX:
            raise ValueError(f"a notice has at most {NOTICE_BYTES_MAX} bytes")
        async with self._lock:
            connection = self._connection
            if connection is None:
                raise MetadataUnavailable("there is no connection for notices at present")
            try:
                await connection.execute(PUBLISH, self._channel, text)
            except DRIVER_ERRORS as error:
                raise map_error(error) from error

    async def _stay_connected(self) -> None:
        retry_s = RETRY_S_MIN
        while True:
            lost = asyncio.Event()
            try:
                connection = await self._connect(lost)
            except MetadataError as error:
                if retry_s == RETRY_S_MIN:
                    log.warning("no notices from other agents: %s", error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                continue
            retry_s = RETRY_S_MIN
            self._connection = connection
            try:
                for _, interrupted in self._listeners:
                    interrupted()
                await self._watch(connection, lost)
            finally:
                self._connection = None
                await close_connection(connection)

    async def _connect(self, lost: asyncio.Event) -> asyncpg.Connection:
        connection = await self._connector.connect()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(self._channel, self._heard)
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise map_error(error) from error
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _watch(self, connection: asyncpg.Connection, lost: asyncio.Event) -> None:
        """Returns when the connection is gone, also if nobody has told this side so."""
        while not lost.is_set():
            try:
                await asyncio.wait_for(lost.wait(), CHECK_EVERY_S)
            except TimeoutError:
                try:
                    # Bounds all of it: behind a notice that was given up the driver may wait for its end.
                    async with asyncio.timeout(CHECK_S_MAX), self._lock:
                        await connection.execute("select 1", timeout=CHECK_S_MAX)
                except DRIVER_ERRORS as error:
                    log.info("the connection for notices is gone: %s", map_error(error))
                    return

    def _heard(self, connection: asyncpg.Connection, pid: int, channel: str, text: str) -> None:
        for heard, _ in self._listeners:
            heard(text)


class NoNotices:
    """Behind a pooler that shares server connections nobody can listen. Hints are lost, and readers poll instead."""

    bytes_max = NOTICE_BYTES_MAX
    is_connected = False

    def listen(self, heard: Callable[[str], None], interrupted: Callable[[], None]) -> None:
        """See Notices. Neither is ever called."""

    async def publish(self, text: str) -> None:
        """See Notices. Nobody hears it."""


def channel_of(schema: str) -> str:
    """The channel of the agents whose tables are in a schema; a database has its own channels anyway."""
    name = f"warp_{schema}"
    if len(name.encode()) <= CHANNEL_BYTES_MAX:
        return name
    return f"warp_{hashlib.sha256(schema.encode()).hexdigest()[:32]}"
