"""Makes connections to PostgreSQL that are ready for use: settings, codecs, and a server that takes writes.

Every wait has a bound, nested so that the innermost speaks first: a lock (half of the timeout), a statement (the
timeout), the answer on this side (a little more). A transaction that its agent has left idle, because it was frozen or
its machine is gone, ends by itself after half of the timeout, or sooner (IDLE_S_MAX), and with it the locks that others
wait for.
"""

from __future__ import annotations

import asyncpg

from warp.errors import MetadataUnavailable
from warp.metadata.postgres_errors import DRIVER_ERRORS, map_error
from warp.metadata.postgres_url import PostgresUrl

CONNECT_S_MAX = 10.0
ANSWER_MARGIN_S = 2.0
IDLE_S_MAX = 3.0
"""How long a transaction may stand between two statements: nothing but a few microseconds of work belongs there."""
STATEMENTS_CACHED_MAX = 256
STATEMENT_CHARS_MAX = 64 * 1024

# Asks for the one thing that can change between connections, and makes asyncpg look up the arrays' types here: looking
# them up takes several round trips, which belong into no transaction.
_READY = "select pg_is_in_recovery(), cast($1 as text[]) is null, cast($2 as bytea[]) is null"


class Connector:
    """Connects to what a URL names."""

    def __init__(self, url: PostgresUrl, *, timeout_s: float) -> None:
        self.url = url
        self._serving = 0
        """The place of the host that the last connection was made to."""
        self._timeout_s = timeout_s
        settings = {
            "statement_timeout": str(round(1000 * timeout_s)),
            "lock_timeout": str(round(500 * timeout_s)),
            "idle_in_transaction_session_timeout": str(round(1000 * min(timeout_s / 2, IDLE_S_MAX))),
            # Compiling takes longer than any of the statements does.
            "jit": "off",
            # Statements look rows up by their keys, in batches, whatever the statistics of a young table may say.
            "enable_seqscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
        }
        if url.schema is not None:
            settings["search_path"] = f'"{url.schema}"'
        self._settings = settings

    def begin(self, sql: str) -> str:
        """The statement that begins a transaction; behind a pooler it carries the settings, as no connection can."""
        if not self.url.is_transaction_pooled:
            return sql
        return f"{sql}; {self._set('set local')}"

    async def connect(self) -> asyncpg.Connection:
        """A connection that is ready to serve statements. Raises MetadataError."""
        try:
            connection = await self.connect_raw()
        except (*DRIVER_ERRORS, ValueError) as error:
            raise map_error(error) from error
        try:
            await self.prepare(connection)
            row = await connection.fetchrow(_READY, [], [])
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise map_error(error) from error
        except BaseException:
            connection.terminate()
            raise
        if row is not None and row[0]:
            connection.terminate()
            raise MetadataUnavailable("PostgreSQL takes no writes: this is a standby")
        return connection

    async def connect_raw(self) -> asyncpg.Connection:
        """A connection as the server gives it. Raises one of DRIVER_ERRORS, or ValueError for a bad URL.

        Of several hosts the first is taken that will do, that of the last connection before the others; each has its
        share of the time, since the one that was the primary may have gone silent.
        """
        hosts = len(self.url.dsns)
        failures: list[Exception] = []
        for place in range(self._serving, self._serving + hosts):
            try:
                connection = await self._connect_to(self.url.dsns[place % hosts], hosts)
            except DRIVER_ERRORS as error:
                failures.append(error)
            else:
                self._serving = place % hosts
                return connection
        raise max(failures, key=_telling)

    async def _connect_to(self, dsn: str, hosts: int) -> asyncpg.Connection:
        is_pooled = self.url.is_transaction_pooled
        return await asyncpg.connect(
            dsn,
            timeout=min(CONNECT_S_MAX, self._timeout_s) / hosts,
            command_timeout=self._timeout_s + ANSWER_MARGIN_S,
            statement_cache_size=0 if is_pooled else STATEMENTS_CACHED_MAX,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=STATEMENT_CHARS_MAX,
            target_session_attrs=self.url.target,
            server_settings={"application_name": self.url.application_name},
        )

    async def prepare(self, connection: asyncpg.Connection) -> None:
        """Make this package's settings the connection's own. Raises one of DRIVER_ERRORS."""
        if not self.url.is_transaction_pooled:
            await connection.execute(self._set("set"))

    def _set(self, command: str) -> str:
        return "; ".join(f"{command} {name} = {value}" for name, value in self._settings.items())


def _telling(error: Exception) -> int:
    """How much more an error says than that nobody was there."""
    if isinstance(error, asyncpg.PostgresError):
        return 2
    return int(not isinstance(error, OSError))
