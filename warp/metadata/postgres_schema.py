"""Opens PostgreSQL for an agent: is this a server to keep a cluster's metadata on, and is its schema this release's?

What is refused, each with a line that says what to do: a server before version 13, another encoding than UTF-8, a
standby or a read-only database, `synchronous_commit = off` (a crash of the server would lose what producers were told
is safe), a role without rights, another application's tables, a newer schema. What is only warned of:
`synchronous_commit = local` beside synchronous standbys (a failover would lose the same), and `fsync = off`.

One agent migrates, in one transaction, under an advisory lock; the others wait for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import asyncpg

from warp.errors import MetadataError, StartError
from warp.metadata.migrate import Migration, load_migrations, pending
from warp.metadata.postgres_connect import Connector
from warp.metadata.postgres_errors import (
    DRIVER_ERRORS,
    INSUFFICIENT_PRIVILEGE,
    NO_SUCH_PREPARED_STATEMENT,
    PREPARED_STATEMENT_EXISTS,
    code_of,
    describe,
    map_error,
)
from warp.metadata.postgres_url import PostgresUrl

log = logging.getLogger("warp.metadata")

OLDEST_SERVER = 130000
MIGRATION_WAIT_S_MAX = 300.0
MIGRATION_POLL_S = 0.5
LOG_EVERY_S = 10.0

_WRONG_PASSWORD = ("28P01", "28000")
_NO_SUCH_DATABASE = "3D000"
_NO_SUCH_SCHEMA = "3F000"
_TABLE_EXISTS = ("42P07", "42710")

_FACTS = """
select cast(current_setting('server_version_num') as integer), current_setting('server_version'),
    current_setting('server_encoding'), pg_is_in_recovery(), current_setting('default_transaction_read_only'),
    current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), current_setting('fsync'),
    current_schema(), current_user
"""
_MIGRATIONS_TABLE = """
create table if not exists warp_migrations (
    version bigint primary key, name text not null, applied_ms bigint not null, needed_version bigint not null
)
"""
# Reads the catalogue's table itself: a lookup by name may be answered as it was when the transaction began.
_IS_MIGRATED = """
select exists (
    select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relname = 'warp_migrations' and n.nspname = current_schema()
)
"""
_VERSIONS = "select coalesce(max(version), 0), coalesce(max(needed_version), 0) from warp_migrations"


class Server(NamedTuple):
    """What a server says of itself to a new connection."""

    version_number: int
    version: str
    encoding: str
    is_standby: bool
    read_only: str
    synchronous_commit: str
    standbys: str
    """`synchronous_standby_names`."""
    fsync: str
    schema: str | None
    """That the tables are in; None when there is none yet."""
    role: str


async def open_schema(connector: Connector, now_ms: Callable[[], int]) -> tuple[asyncpg.Connection, str]:
    """A connection that is ready for use, and the schema that the tables are in. Raises StartError."""
    connection, server = await open_server(connector)
    where = f"PostgreSQL at {connector.url.where}"
    _warn(server, where)
    try:
        schema = server.schema or await _create_schema(connection, connector.url.schema, server.role, where)
        await _migrate(connection, connector, now_ms)
    except DRIVER_ERRORS as error:
        connection.terminate()
        raise _refusal(connector, error) from error
    except BaseException:
        connection.terminate()
        raise
    return connection, schema


async def open_server(connector: Connector) -> tuple[asyncpg.Connection, Server]:
    """A connection to a server that a cluster's metadata can be kept on. Changes nothing there. Raises StartError."""
    _check_files(connector.url)
    try:
        connection = await connector.connect_raw()
    except (*DRIVER_ERRORS, ValueError) as error:
        raise _refusal(connector, error) from error
    try:
        await connector.prepare(connection)
        row = await connection.fetchrow(_FACTS)
        assert row is not None, "a select of settings has one row"
        server = Server(*row)
        _check(server, f"PostgreSQL at {connector.url.where}")
    except DRIVER_ERRORS as error:
        connection.terminate()
        raise _refusal(connector, error) from error
    except BaseException:
        connection.terminate()
        raise
    return connection, server


def _refusal(connector: Connector, error: BaseException) -> StartError:
    return StartError(f"can't use the metadata in PostgreSQL at {connector.url.where}: {_explain(error)}")


def _check_files(url: PostgresUrl) -> None:
    """asyncpg does not say which file it misses, and goes without a password file that others may read."""
    for name, path in url.files:
        if not os.access(path, os.R_OK):
            raise StartError(f"the {name} of PostgreSQL at {url.where} can't be read: {path}")
        if name == "passfile" and Path(path).stat().st_mode & 0o077:
            raise StartError(f"others may read the passfile of PostgreSQL at {url.where}: chmod 600 {path}")


def _check(server: Server, where: str) -> None:
    """Raises StartError for a server that no agent can work with."""
    if server.version_number < OLDEST_SERVER:
        raise StartError(f"{where} is version {server.version}; Warp needs 13 or newer")
    if server.encoding != "UTF8":
        raise StartError(
            f"the database in {where} is encoded in {server.encoding}: "
            "create one with ENCODING 'UTF8' TEMPLATE template0"
        )
    if server.is_standby:
        raise StartError(f"{where} is a standby, which takes no writes: give the address of the primary")
    if server.read_only == "on":
        raise StartError(f"{where} is set to read-only: set default_transaction_read_only to off")
    if server.synchronous_commit == "off":
        raise StartError(
            f"{where} has synchronous_commit off, so a crash would lose acknowledged records: set it to on"
        )


def _warn(server: Server, where: str) -> None:
    if server.synchronous_commit == "local" and server.standbys:
        log.warning(
            "%s has synchronous_commit local: a failover may lose acknowledged records; set it to on", where
        )
    if server.fsync == "off":
        log.warning("%s has fsync off: a crash of its machine may lose everything; set it to on", where)


async def _create_schema(connection: asyncpg.Connection, name: str | None, role: str, where: str) -> str:
    if name is None:
        raise StartError(
            f"the role {role} has no schema of its search_path in {where}: create one, or add schema=NAME"
        )
    try:
        await connection.execute(f'create schema if not exists "{name}"')
    except asyncpg.PostgresError as error:
        if code_of(error) == INSUFFICIENT_PRIVILEGE:
            raise StartError(
                f'there is no schema {name} in {where}: CREATE SCHEMA "{name}" AUTHORIZATION "{role}"'
            ) from error
        raise
    return name


async def migrations_to_run(connection: asyncpg.Connection, where: str) -> list[Migration]:
    """What this release would add to the schema. Raises StartError when a newer one has been at work."""
    return pending(load_migrations("postgres"), *await _versions(connection), where)


async def _migrate(connection: asyncpg.Connection, connector: Connector, now_ms: Callable[[], int]) -> None:
    where = f"PostgreSQL at {connector.url.where}"
    if not await migrations_to_run(connection, where):
        return
    # Not in a snapshot, whatever the role's default is: what others have done is read again under the lock.
    await connection.execute(connector.begin("begin isolation level read committed"))
    try:
        await connection.execute(
            "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0"
        )
        await _lock(connection, where)
        # Read again under the lock: another agent may have come first.
        for migration in await migrations_to_run(connection, where):
            log.info("bringing the metadata to schema %d (%s)", migration.version, migration.name)
            await _apply(connection, migration, where, now_ms())
    except BaseException:
        if not connection.is_closed():
            await connection.execute("rollback")
        raise
    await connection.execute("commit")


async def _apply(connection: asyncpg.Connection, migration: Migration, where: str, now_ms: int) -> None:
    try:
        for sql in (_MIGRATIONS_TABLE, *migration.statements):
            await connection.execute(sql)
        await connection.execute(
            "insert into warp_migrations (version, name, applied_ms, needed_version) values ($1, $2, $3, $4)",
            migration.version,
            migration.name,
            now_ms,
            migration.needed_version,
        )
    except asyncpg.PostgresError as error:
        if code_of(error) in _TABLE_EXISTS:
            raise StartError(
                f"{where} holds tables of something else ({describe(error)}): "
                "give Warp a database of its own, or add schema=NAME"
            ) from error
        if code_of(error) in (INSUFFICIENT_PRIVILEGE, _NO_SUCH_SCHEMA):
            raise StartError(
                f"the role may not create tables in {where} ({describe(error)}): GRANT CREATE ON SCHEMA"
            ) from error
        raise


async def _lock(connection: asyncpg.Connection, where: str) -> None:
    """Be the one who migrates this schema, until the transaction ends."""
    schema = await connection.fetchval("select current_schema()")
    key = int.from_bytes(hashlib.sha256(f"warp {schema}".encode()).digest()[:8], "big", signed=True)
    waited_s = 0.0
    while not await connection.fetchval("select pg_try_advisory_xact_lock($1)", key):
        if waited_s >= MIGRATION_WAIT_S_MAX:
            raise StartError(f"another agent has been migrating {where} for {waited_s:.0f} s: see its log")
        if waited_s % LOG_EVERY_S == 0:
            log.info("waiting for another agent, which brings %s to a newer schema", where)
        await asyncio.sleep(MIGRATION_POLL_S)
        waited_s += MIGRATION_POLL_S


async def _versions(connection: asyncpg.Connection) -> tuple[int, int]:
    """The newest migration that has run, and the schema version that a release must know."""
    if not await connection.fetchval(_IS_MIGRATED):
        return 0, 0
    row = await connection.fetchrow(_VERSIONS)
    assert row is not None, "aggregates have a row"
    return row[0], row[1]


def _explain(error: BaseException) -> str:
    """What is wrong, and what to do, in one line without any password."""
    code = code_of(error)
    text = describe(error)
    if code in _WRONG_PASSWORD:
        return (
            f"it refuses the user or the password ({text}): "
            "check the URL, PGPASSWORD or passfile=, and the server's pg_hba.conf"
        )
    if code == _NO_SUCH_DATABASE:
        return f"there is no such database ({text}): create it with ENCODING 'UTF8', or correct the URL"
    if code in (NO_SUCH_PREPARED_STATEMENT, PREPARED_STATEMENT_EXISTS):
        return "a pooler that shares server connections stands before it: add pooler=transaction to the URL"
    if isinstance(error, ssl.SSLError):
        return f"no trusted connection ({text}): check sslmode, sslrootcert, sslcert and sslkey"
    if isinstance(error, ConnectionError) and "SSL" in text:
        return f"it speaks no TLS, which the URL asks for ({text}): set ssl = on there, or another sslmode"
    if isinstance(error, TimeoutError):
        return "it does not answer in time: check the address, and what stands between"
    if isinstance(error, ConnectionError):
        return f"nobody answers there ({text}): check host and port, and that the server runs"
    if isinstance(error, OSError):
        return f"it can't be reached ({text}): check host, port and files that the URL names"
    if isinstance(error, ValueError):
        return f"the URL is wrong ({text})"
    assert isinstance(error, Exception), "others are not caught"
    mapped: MetadataError = map_error(error)
    return str(mapped)
