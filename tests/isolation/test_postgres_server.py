"""The server that the tests start: what it keeps, and that faults are what they are called."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.support import postgres
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that no other test needs: it is stopped and frozen here."""
    if (reason := postgres.missing()) is not None:
        pytest.skip(reason)
    with PostgresServer() as started:
        yield started


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_keeps_what_was_committed_and_the_port(server: PostgresServer, mode: str) -> None:
    url = server.create_database()
    name = url.rpartition("/")[2]
    server.execute("create table t (x integer); insert into t values (1), (2)", name)
    pid, port = server.pid, server.port
    server.restart("fast" if mode == "fast" else "immediate")
    assert (server.pid != pid, server.port) == (True, port)
    assert server.execute("select x, x + 1 from t order by x", name) == ["1|2", "2|3"]
    was_repaired = "automatic recovery in progress" in server.log().rpartition("starting PostgreSQL")[2]
    assert was_repaired == (mode == "immediate")
    server.drop_database(url)


def status_of(pid: int) -> str:
    """Of a process, as in proc(5): T for a stopped one."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_paused_server_answers_nobody_until_it_goes_on(server: PostgresServer) -> None:
    async def ask() -> None:
        connection = await asyncpg.connect(server.url())
        server.pause()
        try:
            answer = asyncio.ensure_future(connection.fetchval("select 42"))
            late = asyncio.ensure_future(asyncpg.connect(server.url()))
            assert [status_of(pid) for pid in server.pids()] == ["T"] * len(server.pids())
            assert not answer.done()
        finally:
            server.resume()
        assert await answer == 42
        await (await late).close()
        await connection.close()

    asyncio.run(ask())


def test_connections_of_one_database_are_cut(server: PostgresServer) -> None:
    url = server.create_database()

    async def cut() -> None:
        lost, kept = await asyncpg.connect(url), await asyncpg.connect(server.url())
        assert server.terminate_connections(url.rpartition("/")[2]) == 1
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await lost.fetchval("select 1")
        assert await kept.fetchval("select 1") == 1
        await kept.close()
        lost.terminate()

    asyncio.run(cut())
    server.drop_database(url)


def test_others_than_the_administrator_need_their_password(server: PostgresServer) -> None:
    server.create_user("other", "its secret")

    async def log_in(password: str) -> object:
        connection = await asyncpg.connect(server.url(user="other"), password=password)
        try:
            return await connection.fetchval("select current_user")
        finally:
            await connection.close()

    assert asyncio.run(log_in("its secret")) == "other"
    with pytest.raises(asyncpg.PostgresError, match="password authentication failed"):
        asyncio.run(log_in("another"))


def test_a_failing_statement_is_told(server: PostgresServer) -> None:
    with pytest.raises(AssertionError, match='relation "nowhere" does not exist'):
        server.execute("select 1 from nowhere")


def test_programs_are_found_off_the_path_and_missed_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in ("9", "15", "13"):
        for program in postgres.PROGRAMS:
            path = tmp_path / version / "bin" / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "15" / "bin" / "initdb").unlink()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(postgres, "DEBIAN_DIRECTORY", tmp_path)
    assert postgres.find_binaries() == tmp_path / "13" / "bin", "the newest that is complete"
    monkeypatch.setattr(postgres, "DEBIAN_DIRECTORY", tmp_path / "none")
    assert postgres.find_binaries() is None
    assert "apt-get install postgresql" in (postgres.missing() or "")
