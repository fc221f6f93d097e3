"""Migrations: numbered, recorded, all or nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.unit.metadata.support import NOW_MS, connection_of, sqlite_store
from warp.errors import StartError
from warp.ids import BrokerId
from warp.metadata import sqlite
from warp.metadata.group_model import Lease
from warp.metadata.migrate import Migration, load_migrations, pending, split_statements


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.sqlite"


def test_migrations_are_numbered_from_one_and_recorded(path: Path) -> None:
    store = sqlite_store(path)
    migrations = load_migrations("sqlite")
    recorded = connection_of(store).execute("select version, name, applied_ms from migrations").fetchall()
    assert recorded == [(migration.version, migration.name, NOW_MS) for migration in migrations]
    store.close()


def test_a_later_migration_keeps_what_is_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = sqlite_store(path)
    topic = store.new_topic("t")
    store.close()
    newest = len(load_migrations("sqlite"))
    newer = [
        *load_migrations("sqlite"),
        Migration(newest + 1, "more", ("create table more (x integer)",)),
    ]
    monkeypatch.setattr(sqlite, "load_migrations", lambda database: newer)
    store = sqlite_store(path)
    assert list(store.catalogue(None).topics) == [topic]
    assert connection_of(store).execute("select count(*) from more").fetchone() == (0,)
    store.close()


def test_a_migration_that_fails_leaves_the_old_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_store(path).close()
    newest = len(load_migrations("sqlite"))
    broken = Migration(newest + 1, "broken", ("create table more (x integer)", "create nonsense"))
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "load_migrations", lambda database: [*load_migrations("sqlite"), broken])
        with pytest.raises(StartError, match="nonsense"):
            sqlite_store(path)
    store = sqlite_store(path)
    tables = connection_of(store).execute("select name from sqlite_master where name = 'more'").fetchall()
    assert tables == []
    store.close()


def test_scripts_are_split_at_semicolons_that_end_a_line() -> None:
    script = (
        "-- a comment; with one\ncreate table a (x text default ';');\n\ncreate table b (\n  y text\n);\n"
    )
    assert split_statements(script) == (
        "create table a (x text default ';')",
        "create table b (\n  y text\n)",
    )


def test_only_what_is_missing_is_pending() -> None:
    migrations = [Migration(n, "m", ()) for n in (1, 2, 3)]
    assert [m.version for m in pending(migrations, 1, 1, "here")] == [2, 3]
    assert pending(migrations, 3, 3, "here") == []


def test_a_release_goes_on_with_what_a_newer_one_has_added(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sqlite_store(path)
    topic = store.new_topic("t")
    store.close()
    known = load_migrations("sqlite")
    newest = len(known)
    added = Migration(newest + 1, "added", ("create table added (x integer)",), works_from=newest)
    needed = Migration(newest + 2, "needed", ("create table needed (x integer)",))
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "load_migrations", lambda database: [*known, added])
        sqlite_store(path).close()
    store = sqlite_store(path)
    assert list(store.catalogue(None).topics) == [topic]
    store.close()
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "load_migrations", lambda database: [*known, added, needed])
        sqlite_store(path).close()
    with pytest.raises(StartError, match=f"newer release \\(schema {newest + 2}, this one knows {newest}\\)"):
        sqlite_store(path)


def test_a_database_of_the_first_release_is_brought_up_and_still_serves_that_release(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_migrations("sqlite")[:1]
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "load_migrations", lambda database: first)
        store = sqlite_store(path)
        old = store.new_topic("old", 2)
        store.append(old.logs[0], 1)
        held = store.log_states(old.logs)
        store.close()
    store = sqlite_store(path)
    assert (list(store.catalogue(None).topics), store.log_states(old.logs)) == ([old], held)
    assert store.take_leases(["a"], 1) == [Lease("a", BrokerId(1), 1)]
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        # What the first release compares with the one version that it knows.
        assert connection.execute("pragma user_version").fetchone() == (1,)
    with monkeypatch.context() as patched:
        patched.setattr(sqlite, "load_migrations", lambda database: first)
        store = sqlite_store(path)
        store.append(old.logs[0], 2)
        new = store.new_topic("new")
        store.delete_topics([old.topic_id])
        store.close()
    store = sqlite_store(path)
    assert list(store.catalogue(None).topics) == [new]
    store.close()


def test_migrations_with_a_gap_in_their_numbers_are_a_bug(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations" / "sqlite"
    folder.mkdir(parents=True)
    for name in ("0001_a.sql", "0003_b.sql"):
        (folder / name).write_text("select 1;")
    monkeypatch.setattr("warp.metadata.migrate.resources.files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="not numbered 1 to 2"):
        load_migrations("sqlite")


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    sqlite_store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma user_version = 1000")
    with pytest.raises(StartError, match=r"belongs to a newer release \(schema 1000, this one knows \d+\)"):
        sqlite_store(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma user_version").fetchone() == (1000,)
