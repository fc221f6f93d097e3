"""PgBouncer in front of a test server, on a free loopback port. Debian: pgbouncer.

Its pool is smaller than an agent's, and its server connections are handed out in turn: whoever relies on getting the
same one twice is found out. As PostgreSQL it does not run as root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from tests.support.postgres import ADMINISTRATOR, OS_USER, PostgresServer, as_server
from tests.support.process import free_port

START_TIMEOUT_S = 30.0
PoolMode = Literal["session", "transaction"]
SERVER_CONNECTIONS = {"session": 20, "transaction": 3}
"""To each database. In session mode every client has one for as long as it is connected."""


def missing() -> str | None:
    """Why there can be none here, None when there can."""
    if _program() is None:
        return "PgBouncer is not installed (Debian: apt-get install pgbouncer)"
    return None


class PgBouncer:
    """One pooler for all databases of a server. Use as a context manager."""

    def __init__(self, server: PostgresServer, mode: PoolMode) -> None:
        self.port = free_port()
        self.mode = mode
        self._server = server
        self._directory = Path(os.sep)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, url: str) -> str:
        """Of one of the server's databases, by way of this pooler, as an agent wants it."""
        parts = urlsplit(url)
        parts = parts._replace(netloc=f"{ADMINISTRATOR}@127.0.0.1:{self.port}")
        return parts._replace(query="pooler=transaction" if self.mode == "transaction" else "").geturl()

    def log(self) -> str:
        """All that it has written to its log."""
        return (self._directory / "log").read_text(errors="replace")

    def __enter__(self) -> Self:
        program = _program()
        assert program is not None, missing()
        self._directory = Path(tempfile.mkdtemp(prefix="warp-pgbouncer-"))
        try:
            settings = self._directory / "pgbouncer.ini"
            settings.write_text(self._settings())
            if os.geteuid() == 0:
                user = pwd.getpwnam(OS_USER)
                for path in (self._directory, settings):
                    os.chown(path, user.pw_uid, user.pw_gid)
            with (self._directory / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [*as_server(), program, str(settings)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=os.sep,
                )  # fmt: skip
            self._wait_until_it_listens()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory)

    def _settings(self) -> str:
        return f"""\
[databases]
* = host=127.0.0.1 port={self._server.port} user={ADMINISTRATOR}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = {self.mode}
default_pool_size = {SERVER_CONNECTIONS[self.mode]}
max_client_conn = 500
server_round_robin = 1
"""

    def _wait_until_it_listens(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), START_TIMEOUT_S).close()
                return
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError("PgBouncer did not start:\n" + self.log()) from None
                time.sleep(0.01)


def _program() -> str | None:
    # Debian has it where only root's PATH leads.
    return shutil.which("pgbouncer", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
