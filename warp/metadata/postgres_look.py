"""Looks at a PostgreSQL database as an agent would find it, and changes nothing: no table is made, no row written.

What is timed goes through the agent's own way to connect. A commit is timed by a transaction whose one record goes into
the write-ahead log and nowhere else: the server has to sync it, and to wait for synchronous standbys, as for any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from warp.errors import StartError
from warp.metadata import agents
from warp.metadata.cluster_model import AgentRow
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.postgres_connect import Connector
from warp.metadata.postgres_errors import DRIVER_ERRORS, map_error
from warp.metadata.postgres_schema import Server, migrations_to_run, open_server
from warp.metadata.postgres_url import PostgresUrl
from warp.metadata.session import load_statements

T = TypeVar("T")

COMMIT_BYTES = 4096
CHANNEL = "warp_doctor"
READ_SETTING = load_statements("settings")["read_setting"]

_ROOM = """
select cast(current_setting('max_connections') as integer),
    cast(current_setting('superuser_reserved_connections') as integer),
    (select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()),
    (select r.rolconnlimit from pg_roles r where r.rolname = current_user),
    (select d.datconnlimit from pg_database d where d.datname = current_database()),
    (select s.version from pg_stat_ssl s where s.pid = pg_backend_pid() and s.ssl),
    coalesce(host(inet_client_addr()), '')
"""
_MAY_CREATE = """
select case when cast($1 as text) is null then has_database_privilege(current_database(), 'CREATE')
    else has_schema_privilege($1, 'CREATE') end
"""
_COMMIT = (
    "select pg_logical_emit_message(true, 'warp-doctor', cast(repeat('x', cast($1 as integer)) as text))"
)


@dataclass(frozen=True, slots=True)
class ServerLook:
    """A server that an agent can start on."""

    server: Server
    migrations: int
    """How many an agent would run at its start."""
    is_migrated: bool
    """Has any agent been there before?"""
    may_create: bool
    connections_max: int
    """That the server, the database and the role allow to the agents together."""
    connections_used: int
    """By everybody else, at this moment."""
    encryption: str
    """The version of TLS; '' without."""
    client: str
    """The address that the server sees; '' for a socket of its machine."""


class PostgresLook:
    """One visit. `close` it in the end, whatever came of it."""

    def __init__(self, url: PostgresUrl, *, now_ms: Callable[[], int], timeout_s: float) -> None:
        self._connector = Connector(url, timeout_s=timeout_s)
        self._database = PostgresDatabase(url, now_ms=now_ms, connections_max=1, timeout_s=timeout_s)
        self._connection: asyncpg.Connection | None = None

    async def open(self) -> ServerLook:
        """Connect, and see what there is. Raises StartError, as the start of an agent would."""
        self._connection, server = await open_server(self._connector)
        where = f"PostgreSQL at {self._connector.url.where}"
        schema = server.schema or self._connector.url.schema
        if schema is None:
            raise StartError(
                f"the role {server.role} has no schema of its search_path in {where}: create one, or add schema=NAME"
            )
        try:
            to_run = await migrations_to_run(self._connection, where)
            room = await self._connection.fetchrow(_ROOM)
            may_create = await self._connection.fetchval(_MAY_CREATE, server.schema)
        except DRIVER_ERRORS as error:
            raise StartError(f"can't use the metadata in {where}: {map_error(error)}") from error
        assert room is not None, "a select of settings has one row"
        limit, reserved, used, of_role, of_database, encryption, client = room
        limits = [
            limit - reserved,
            *(bound for bound in (of_role, of_database) if bound is not None and bound >= 0),
        ]
        return ServerLook(
            server=server,
            migrations=len(to_run),
            is_migrated=not to_run or to_run[0].version > 1,
            may_create=bool(may_create),
            connections_max=min(limits),
            connections_used=used,
            encryption=encryption or "",
            client=client,
        )

    async def round_trip(self) -> None:
        """The shortest question. Raises MetadataError, as all that follow."""
        await self._ask(lambda connection: connection.execute("select 1"))

    async def commit(self) -> None:
        """A transaction that writes as much as one of few partitions does."""
        await self._ask(lambda connection: connection.fetchval(_COMMIT, COMMIT_BYTES))

    async def clock_ms(self) -> int:
        """The database's clock."""
        return await self._database.time_ms()

    async def hears(self, timeout_s: float) -> bool:
        """Does a notice come back that is sent here?"""
        heard = asyncio.Event()

        def hear(*_: object) -> None:
            heard.set()

        async def listen(connection: asyncpg.Connection) -> bool:
            await connection.add_listener(CHANNEL, hear)
            try:
                await connection.execute("select pg_notify($1, '')", CHANNEL)
                async with asyncio.timeout(timeout_s):
                    await heard.wait()
            except TimeoutError:
                return False
            return True

        return await self._ask(listen)

    async def setting(self, name: str) -> str | None:
        """A setting of the cluster, None when there is none. Only where an agent has been before."""
        row = await self._database.one(READ_SETTING, name)
        return None if row is None else row[0]

    async def find_agent(self, name: str) -> AgentRow | None:
        """The registration of the agent of that name. Only where an agent has been before."""
        return await agents.find_agent(self._database, name)

    async def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.terminate()
        await self._database.close()

    async def _ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        assert self._connection is not None, "it was opened"
        try:
            return await question(self._connection)
        except DRIVER_ERRORS as error:
            raise map_error(error) from error
