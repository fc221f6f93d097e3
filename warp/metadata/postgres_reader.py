"""Reads a PostgreSQL database beside the agents of its cluster, and changes nothing: no table is made or migrated."""

from __future__ import annotations

from warp.errors import OlderSchema, StartError
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.postgres_errors import DRIVER_ERRORS, map_error
from warp.metadata.postgres_schema import migrations_to_run, open_server
from warp.metadata.postgres_url import PostgresUrl


class PostgresReader(PostgresDatabase):
    """A database that agents write. Snapshots are read only by themselves."""

    def __init__(self, url: PostgresUrl, *, timeout_s: float) -> None:
        super().__init__(url, now_ms=lambda: 0, connections_max=2, timeout_s=timeout_s)
        self._where = f"PostgreSQL at {url.where}"

    async def open(self) -> None:
        """Connect, and see that the schema is this release's. Raises StartError."""
        connection, server = await open_server(self._connector)
        try:
            to_run = await migrations_to_run(connection, self._where) if server.schema else []
        except DRIVER_ERRORS as error:
            connection.terminate()
            raise StartError(f"can't use the metadata in {self._where}: {map_error(error)}") from error
        except BaseException:
            connection.terminate()
            raise
        if server.schema is None or (to_run and to_run[0].version == 1):
            connection.terminate()
            raise StartError(f"there are no metadata in {self._where}: name the agents' --metadata")
        if to_run:
            connection.terminate()
            raise OlderSchema(
                f"the metadata in {self._where} have an older schema: start an agent of this release once"
            )
        self._pool.adopt(connection)
