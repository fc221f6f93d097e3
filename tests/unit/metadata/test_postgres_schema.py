"""What an agent finds when it opens PostgreSQL: a clear line for each thing that is wrong, one migration for all."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.tls import Certificate
from tests.unit.metadata.support import TestClock, connection_of, postgres_stores, sqlite_store
from warp.errors import StartError
from warp.metadata import postgres_schema
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.migrate import load_migrations
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.postgres_url import parse_postgres_url

pytestmark = pytest.mark.postgres


@pytest.fixture
def ca_file(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Path]:
    """What has to be trusted to talk to the server, which speaks TLS during the test."""
    certificate = Certificate(tmp_path)
    owner = postgres_server.data.stat()
    for source, name in ((certificate.ca_file, "server.crt"), (certificate.key_file, "server.key")):
        target = postgres_server.data / name
        shutil.copyfile(source, target)
        target.chmod(0o600)
        os.chown(target, owner.st_uid, owner.st_gid)
    for setting in ("set ssl = on", "reset ssl"):
        postgres_server.execute(f"alter system {setting};\nselect pg_reload_conf()")
        wanted = ["on" if "on" in setting else "off"]
        while postgres_server.execute("show ssl") != wanted:
            time.sleep(0.01)
        if wanted == ["on"]:
            yield certificate.ca_file


@pytest.fixture
def empty_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a database without any tables."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def name_of(url: str) -> str:
    return url.rpartition("/")[2]


def database(url: str, *, timeout_s: float = 10.0) -> PostgresDatabase:
    return PostgresDatabase(parse_postgres_url(url), now_ms=TestClock().time_ms, timeout_s=timeout_s)


async def open_and_close(url: str, timeout_s: float = 10.0) -> None:
    opened = database(url, timeout_s=timeout_s)
    await opened.open()
    await opened.close()


def open_fails(url: str, timeout_s: float = 10.0) -> str:
    """The line that a start fails with."""
    with pytest.raises(StartError) as failed:
        asyncio.run(asyncio.wait_for(open_and_close(url, timeout_s), 60))
    text = str(failed.value)
    assert "\n" not in text
    assert "hunter2" not in text
    return text


def test_the_first_agent_migrates_and_the_next_finds_it_done(
    postgres_server: PostgresServer, empty_url: str
) -> None:
    for _ in range(2):
        asyncio.run(open_and_close(empty_url))
    versions = postgres_server.execute(
        "select version, name from warp_migrations order by 1", name_of(empty_url)
    )
    assert versions == [f"{migration.version}|{migration.name}" for migration in load_migrations("postgres")]


def test_agents_of_the_release_before_go_on_beside_those_of_this_one(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_migrations("postgres")[:1]
    stores = postgres_stores(empty_url)
    with monkeypatch.context() as patched:
        patched.setattr(postgres_schema, "load_migrations", lambda database: first)
        before = stores.open()
        old = before.new_topic("old", 2)
    after = stores.open(seed=2)
    assert list(after.catalogue(None).topics) == [old]
    now = after.change_entries(EntryKind.ACL, [EntryChange("a", "")], after.catalogue_version())
    new = before.new_topic("new")
    assert before.catalogue_version() == now + 1
    changes = after.catalogue_changes(now)
    assert (list(changes.topics), dict(changes.entries)) == ([new], {})
    before.close()
    with monkeypatch.context() as patched:
        patched.setattr(postgres_schema, "load_migrations", lambda database: first)
        stores.open().close()
    after.close()


def test_agents_that_start_together_migrate_once(
    postgres_server: PostgresServer, empty_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        await asyncio.gather(*(open_and_close(empty_url) for _ in range(4)))

    with caplog.at_level(logging.INFO, "warp.metadata"):
        asyncio.run(main())
    count = len(load_migrations("postgres"))
    assert postgres_server.execute("select count(*) from warp_migrations", name_of(empty_url)) == [str(count)]
    assert sum("bringing the metadata to schema" in record.message for record in caplog.records) == count


def test_an_agent_waits_for_the_one_that_migrates(
    postgres_server: PostgresServer, empty_url: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(postgres_schema, "MIGRATION_POLL_S", 0.05)

    async def main() -> None:
        other = database(empty_url)
        connection = await other.pool.acquire()
        await connection.execute("begin")
        await postgres_schema._lock(connection, "here")
        waiting = asyncio.ensure_future(open_and_close(empty_url))
        while "waiting for another agent" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not waiting.done()
        await connection.execute("commit")
        other.pool.release(connection)
        await waiting
        await other.close()

    with caplog.at_level(logging.INFO, "warp.metadata"):
        asyncio.run(asyncio.wait_for(main(), 60))


def test_who_has_waited_sees_what_was_migrated_whatever_transactions_see_by_default(
    postgres_server: PostgresServer, empty_url: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(postgres_schema, "MIGRATION_POLL_S", 0.05)
    name = name_of(empty_url)
    postgres_server.execute(
        f"alter database {name} set default_transaction_isolation to 'repeatable read'", name
    )

    async def main() -> None:
        other = database(empty_url)
        connection = await other.pool.acquire()
        await connection.execute("begin")
        await postgres_schema._lock(connection, "here")
        waiting = asyncio.ensure_future(open_and_close(empty_url))
        while "waiting for another agent" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for migration in load_migrations("postgres"):
            await postgres_schema._apply(connection, migration, "here", 1)
        await connection.execute("commit")
        other.pool.release(connection)
        await waiting
        await other.close()

    with caplog.at_level(logging.INFO, "warp.metadata"):
        asyncio.run(asyncio.wait_for(main(), 60))


def test_a_wait_for_a_migration_has_an_end(
    postgres_server: PostgresServer, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "MIGRATION_POLL_S", 0.05)
    monkeypatch.setattr(postgres_schema, "MIGRATION_WAIT_S_MAX", 0.1)

    async def main() -> None:
        other = database(empty_url)
        connection = await other.pool.acquire()
        await connection.execute("begin")
        await postgres_schema._lock(connection, "here")
        with pytest.raises(StartError, match="another agent has been migrating"):
            await open_and_close(empty_url)
        await connection.execute("rollback")
        other.pool.release(connection)
        await other.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_each_schema_is_a_cluster_of_its_own(postgres_server: PostgresServer, empty_url: str) -> None:
    for schema in ("one", "two"):
        asyncio.run(open_and_close(f"{empty_url}?schema={schema}"))
    tables = postgres_server.execute(
        "select schemaname from pg_tables where tablename = 'logs' order by 1", name_of(empty_url)
    )
    assert tables == ["one", "two"]


def test_a_migration_that_fails_leaves_nothing_behind(
    postgres_server: PostgresServer, empty_url: str
) -> None:
    postgres_server.execute("create table groups (mine text)", name_of(empty_url))
    assert "holds tables of something else" in open_fails(empty_url)
    tables = postgres_server.execute(
        "select tablename from pg_tables where schemaname = 'public'", name_of(empty_url)
    )
    assert tables == ["groups"]
    asyncio.run(open_and_close(f"{empty_url}?schema=apart"))


def test_a_newer_schema_is_refused_unless_it_says_that_this_release_may_go_on(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = name_of(postgres_url)
    postgres_server.execute("insert into warp_migrations values (1000, 'later', 0, 1)", name)
    asyncio.run(open_and_close(postgres_url))
    postgres_server.execute("insert into warp_migrations values (1001, 'later', 0, 1001)", name)
    text = open_fails(postgres_url)
    assert "belongs to a newer release (schema 1001" in text
    assert name in text


def test_a_wrong_password_or_user_is_told(postgres_server: PostgresServer, postgres_url: str) -> None:
    user = f"reader_{name_of(postgres_url)}"
    postgres_server.create_user(user, "s3cret")
    wrong = postgres_server.url(name_of(postgres_url), user, "hunter2")
    assert "refuses the user or the password" in open_fails(wrong)


def test_a_password_comes_from_the_environment_or_a_file(
    postgres_server: PostgresServer, empty_url: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    name = name_of(empty_url)
    user = f"owner_{name}"
    postgres_server.create_user(user, "s3cret")
    postgres_server.execute(f'create schema mine authorization "{user}"', name)
    url = postgres_server.url(name, user) + "?schema=mine"
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    asyncio.run(open_and_close(url))
    monkeypatch.delenv("PGPASSWORD")
    passfile = tmp_path_factory.mktemp("pass") / "pgpass"
    passfile.write_text(f"127.0.0.1:*:{name}:{user}:s3cret\n")
    passfile.chmod(0o600)
    asyncio.run(open_and_close(f"{url}&passfile={passfile}"))
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    asyncio.run(open_and_close(url))
    passfile.chmod(0o640)
    assert "chmod 600" in open_fails(f"{url}&passfile={passfile}")


def test_a_role_without_rights_is_told(postgres_server: PostgresServer, empty_url: str) -> None:
    name = name_of(empty_url)
    user = f"guest_{name}"
    postgres_server.create_user(user, "hunter2")
    postgres_server.execute("revoke create on schema public from public", name)
    url = postgres_server.url(name, user, "hunter2")
    assert "may not create tables" in open_fails(url)
    assert 'CREATE SCHEMA "new" AUTHORIZATION' in open_fails(f"{url}?schema=new")


def test_a_database_that_is_not_there_is_told(postgres_server: PostgresServer) -> None:
    text = open_fails(postgres_server.url("nowhere", password="hunter2"))
    assert "there is no such database" in text
    assert "create it" in text


def test_an_address_where_nobody_listens_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        text = open_fails(f"postgresql://u:hunter2@127.0.0.1:{port}/d")
    assert f"127.0.0.1:{port}/d" in text
    assert "check host and port" in text


def test_a_host_that_nobody_knows_is_told() -> None:
    assert "check host, port" in open_fails("postgresql://u:hunter2@nowhere.invalid/d")


def test_a_server_that_says_nothing_is_told() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        text = open_fails(f"postgresql://u:hunter2@127.0.0.1:{silent.getsockname()[1]}/d", timeout_s=0.2)
    assert "does not answer in time" in text


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("default_transaction_read_only = on", "set to read-only"),
        ("synchronous_commit = off", "synchronous_commit off"),
    ],
)
def test_a_database_that_would_lose_or_refuse_writes_is_refused(
    postgres_server: PostgresServer, postgres_url: str, setting: str, says: str
) -> None:
    postgres_server.execute(f'alter database "{name_of(postgres_url)}" set {setting}')
    assert says in open_fails(postgres_url)


def test_a_commit_that_no_standby_needs_to_confirm_is_fine_without_standbys(
    postgres_server: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    postgres_server.execute(f'alter database "{name_of(postgres_url)}" set synchronous_commit = local')
    asyncio.run(open_and_close(postgres_url))
    assert "synchronous_commit" not in caplog.text


def test_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    postgres_server.execute(
        "create database latin encoding 'LATIN1' template template0 lc_collate 'C' lc_ctype 'C'"
    )
    url = postgres_server.url("latin")
    text = open_fails(url)
    postgres_server.drop_database(url)
    assert "is encoded in LATIN1" in text
    assert "ENCODING 'UTF8'" in text


def test_an_old_server_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_schema, "OLDEST_SERVER", 990000)
    assert "Warp needs 13 or newer" in open_fails(postgres_url)


def test_a_role_whose_search_path_leads_nowhere_is_told(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    postgres_server.execute(f'alter database "{name_of(postgres_url)}" set search_path = nowhere')
    assert "has no schema of its search_path" in open_fails(postgres_url)


def test_a_server_without_tls_is_refused_where_the_url_asks_for_it(postgres_url: str) -> None:
    assert "can't use the metadata" in open_fails(f"{postgres_url}?sslmode=require")


def test_a_server_with_the_right_certificate_is_spoken_to_in_secret(postgres_url: str, ca_file: Path) -> None:
    async def main() -> None:
        opened = database(f"{postgres_url}?sslmode=verify-full&sslrootcert={ca_file}")
        await opened.open()
        connection = await opened.pool.acquire()
        assert await connection.fetchval("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        opened.pool.release(connection)
        await opened.close()

    asyncio.run(main())


def test_a_server_with_another_certificate_is_refused(
    postgres_url: str, ca_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Certificate(tmp_path_factory.mktemp("other")).ca_file
    text = open_fails(f"{postgres_url}?sslmode=verify-full&sslrootcert={other}")
    assert "no trusted connection" in text
    assert "sslrootcert" in text


def test_a_certificate_that_is_not_there_is_told(postgres_url: str) -> None:
    text = open_fails(f"{postgres_url}?sslmode=verify-full&sslrootcert=/nowhere/root.crt")
    assert "/nowhere/root.crt" in text


def test_both_databases_have_the_same_tables_and_columns(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    store = sqlite_store(tmp_path / "db")
    found = connection_of(store).execute(
        "select t.name || '.' || c.name from sqlite_master t join pragma_table_info(t.name) c"
        " where t.type = 'table' and t.name not like 'sqlite_%' and t.name <> 'migrations'"
    )
    on_sqlite = {row[0] for row in found}
    store.close()
    on_postgres = postgres_server.execute(
        "select table_name || '.' || column_name from information_schema.columns"
        " where table_schema = 'public' and table_name <> 'warp_migrations'",
        name_of(postgres_url),
    )
    assert set(on_postgres) == on_sqlite


def test_a_server_without_tls_is_told(postgres_url: str) -> None:
    text = open_fails(f"{postgres_url}?sslmode=require")
    assert "speaks no TLS" in text
    assert "sslmode" in text
