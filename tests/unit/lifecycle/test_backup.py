"""Copies of SQLite databases in use, what takes their place, and the mistakes that the commands tell of."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from warp.cli.main import main
from warp.errors import MetadataError, StartError
from warp.metadata.sqlite_copy import SqliteSettings, copy_database, put_in_place


def database(path: Path, *values: str) -> sqlite3.Connection:
    """A database in the mode that agents use, with a table of values."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("create table if not exists v (value text)")
    connection.execute("begin")
    connection.executemany("insert into v values (?)", [(value,) for value in values])
    connection.execute("commit")
    return connection


def values(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("select value from v order by rowid")]


def test_a_copy_is_of_one_moment_though_somebody_writes(tmp_path: Path) -> None:
    with closing(database(tmp_path / "a", *("x" * 3000 for _ in range(2000)))) as writer:
        steps = 0

        def write(_done: int, _total: int) -> None:
            nonlocal steps
            steps += 1
            writer.execute("insert into v values ('late')")

        copy_database(tmp_path / "a", tmp_path / "b", write)
        assert steps > 2
        assert len(values(tmp_path / "b")) == 2000
        assert len(values(tmp_path / "a")) == 2000 + steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"], "one file each, nothing beside it"


def test_a_database_that_takes_the_place_of_another_is_not_ruined_by_its_log(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    with closing(database(path, "old")):
        # As a crash leaves it: the log stands beside the file.
        log = (tmp_path / "metadata.sqlite-wal").read_bytes()
    (tmp_path / "metadata.sqlite-wal").write_bytes(log)
    database(tmp_path / "new", "new").close()
    kept = put_in_place(tmp_path / "new", path, 17)
    assert kept == tmp_path / "metadata.sqlite.before-17"
    assert values(path) == ["new"]
    assert (tmp_path / "metadata.sqlite.before-17-wal").read_bytes() == log
    assert put_in_place(kept, tmp_path / "elsewhere", 18) is None


def test_settings_are_set_beside_an_agent_at_work(tmp_path: Path) -> None:
    async def use() -> None:
        settings = SqliteSettings(tmp_path / "a")
        with closing(database(tmp_path / "a")) as agent:
            agent.execute("create table settings (name text primary key, value text)")
            await settings.set_setting("epoch.1.a", "1")
            await settings.set_setting("epoch.1.a", "2")
            await settings.set_setting("epoch.10.a", "3")
            assert await settings.setting("epoch.1.a") == "2"
            await settings.forget_settings("epoch.1.")
            assert agent.execute("select name, value from settings").fetchall() == [("epoch.10.a", "3")]
            assert await settings.setting("epoch.1.a") is None
        with pytest.raises(MetadataError):
            await SqliteSettings(tmp_path / "gone").setting("x")

    asyncio.run(use())


def test_what_can_not_be_written_is_told(tmp_path: Path) -> None:
    database(tmp_path / "a", "x").close()
    with pytest.raises(StartError, match="can't"):
        copy_database(tmp_path / "a", tmp_path / "none" / "b")
    with pytest.raises(StartError, match="can't put"):
        put_in_place(tmp_path / "none", tmp_path / "a", 1)
    assert values(tmp_path / "a") == ["x"]


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("backup",), 2, "say where to"),
        (
            ("backup", "--to", "x", "--metadata", "postgresql:///warp", "--object-store", "file:///x"),
            2,
            "pg_dump",
        ),
        (("backup", "--to", "x", "--metadata", "mem://"), 2, "in memory"),
        (("backup", "--to", "{tmp}/there"), 2, "is there already"),
        (("backup", "--to", "{tmp}/new"), 1, "there is no database"),
        (("rebuild",), 2, "--from-bucket"),
        (("rebuild", "--from-bucket", "--metadata", "mem://"), 2, "in memory"),
        (("rebuild", "--from-bucket"), 1, "there is no object store"),
        (("restore",), 1, "there is no database"),
        (("restore", "--from", "{tmp}/there", "--yes"), 1, "can't copy the database"),
        (("restore", "--from", "{tmp}/gone", "--yes"), 1, "there is no database"),
        (
            ("restore", "--from", "x", "--metadata", "postgresql:///warp", "--object-store", "file:///x"),
            2,
            "its own tools",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, error: str
) -> None:
    (tmp_path / "there").write_text("no database")
    command = [word.replace("{tmp}", str(tmp_path)) for word in words]
    assert main([*command, "--data-dir", str(tmp_path / "data")]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert error in told.err
    assert told.err.count("\n") == 1


def test_a_damaged_database_makes_no_backup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data" / "metadata.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (x text)")
        connection.execute("create index i on t (x)")
        connection.executemany("insert into t values (?)", [(f"{i:0100}",) for i in range(1000)])
        connection.commit()
    data = bytearray(path.read_bytes())
    data[-3000:-2000] = bytes(1000)
    path.write_bytes(data)
    target = tmp_path / "backup.sqlite"
    assert main(["backup", "--data-dir", str(path.parent), "--to", str(target)]) == 1
    assert "can't copy the database" in capsys.readouterr().err
    assert not target.exists()
