"""`warp backup`, `restore` and `rebuild` as users run them, on what agents under load leave behind."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.process.conftest import run_warp
from tests.support.process import AgentProcess
from tests.support.restore_load import PARTITIONS, TOPIC, Load, consumed
from warp.metadata.migrate import load_migrations

WINDOW_S = 11.0
"""Receipts are written with the next segment, or alone after ten seconds without one."""
JOBS = (
    "--flush-interval", "20ms", "--merge-interval", "100ms", "--delete-grace", "1s", "--orphan-age", "2s",
    "--orphan-interval", "1s",
)  # fmt: skip


@pytest.fixture
def agent(tmp_path: Path) -> AgentProcess:
    """One with its jobs at work, not started yet."""
    return AgentProcess(tmp_path / "data", *JOBS)


def make_topic(agent: AgentProcess) -> None:
    code, _, error = run_warp(
        "topic", "create", TOPIC, "-b", agent.bootstrap, "--partitions", str(PARTITIONS)
    )
    assert code == 0, error


def remove_database(data_dir: Path) -> None:
    for path in data_dir.glob("metadata.sqlite*"):
        path.unlink()


def warp(*words: str) -> str:
    code, out, error = run_warp(*words)
    assert code == 0, error + out
    return out


def test_a_deleted_database_is_rebuilt_and_only_the_last_moments_move(agent: AgentProcess) -> None:
    data = str(agent.data_dir)
    with agent:
        make_topic(agent)
        with Load(agent.bootstrap) as load:
            load.wait_for(800)
            agent.kill()
            killed_at, acknowledged = time.monotonic(), dict(load.acknowledged)
            remove_database(agent.data_dir)
            looked_at = json.loads(warp("rebuild", "--from-bucket", "--data-dir", data, "--json"))
            assert not looked_at["is_done"]
            assert not (agent.data_dir / "metadata.sqlite").exists()
            done = json.loads(warp("rebuild", "--from-bucket", "--data-dir", data, "--yes", "--json"))
            assert {**done, "is_done": False, "epoch": None} == looked_at
            agent.start()
        found = consumed(agent.bootstrap)
        assert agent.stop() == 0
    values = sorted(found.values())
    assert values == sorted(set(values)), "nothing twice"
    assert set(acknowledged) <= set(load.acknowledged) <= set(values), "nothing lost"
    moved = [
        known_at
        for value, (partition, offset, known_at) in acknowledged.items()
        if found.get((partition, offset)) != value
    ]
    assert len(moved) < len(acknowledged) / 2
    assert all(known_at > killed_at - WINDOW_S for known_at in moved)
    assert warp("fsck", "--data-dir", data, "--deep").splitlines()[-1] == "clean"


def test_a_backup_of_an_agent_under_load_is_put_back_and_all_that_came_after_is_there(
    agent: AgentProcess, tmp_path: Path
) -> None:
    data, backup = str(agent.data_dir), tmp_path / "backup.sqlite"
    with agent:
        make_topic(agent)
        with Load(agent.bootstrap) as load:
            load.wait_for(300)
            assert "checked" in warp("backup", "--data-dir", data, "--to", str(backup))
            load.wait_for(len(load.acknowledged) + 300)
            # Stopped in order, it writes its last receipts.
            assert agent.stop() == 0
            acknowledged = dict(load.acknowledged)
            assert "Run it with --yes" in warp("restore", "--data-dir", data, "--from", str(backup))
            done = json.loads(warp("restore", "--data-dir", data, "--from", str(backup), "--yes", "--json"))
            assert Path(done["kept"]).is_file()
            assert done["moved"] == done["lost"] == 0
            agent.start()
        found = consumed(agent.bootstrap)
        assert agent.stop() == 0
    values = sorted(found.values())
    assert values == sorted(set(values)), "nothing twice"
    for value, (partition, offset, _) in (acknowledged | load.acknowledged).items():
        assert found[partition, offset] == value
    assert warp("fsck", "--data-dir", data, "--deep").splitlines()[-1] == "clean"


def test_nothing_is_restored_beside_an_agent_and_none_starts_on_what_was_not_restored(
    agent: AgentProcess, tmp_path: Path
) -> None:
    data, backup = str(agent.data_dir), tmp_path / "backup.sqlite"
    with agent:
        make_topic(agent)
        warp("backup", "--data-dir", data, "--to", str(backup))
        for words in (("restore", "--from", str(backup)), ("rebuild", "--from-bucket")):
            code, _, error = run_warp(*words, "--data-dir", data, "--yes")
            assert code == 1
            assert "is in use by process" in error
        assert agent.stop() == 0
    remove_database(agent.data_dir)
    backup.rename(agent.data_dir / "metadata.sqlite")
    code, _, error = run_warp(*agent.command()[3:])
    assert code == 1
    assert "run `warp restore`" in error
    warp("restore", "--data-dir", data, "--yes")
    with agent:
        assert agent.stop() == 0


def test_a_backup_of_an_older_release_is_restored_and_no_agent_is_to_start_on_it(agent: AgentProcess) -> None:
    data, backup = str(agent.data_dir), agent.data_dir.parent / "older.sqlite"
    with agent:
        assert agent.stop() == 0
    older = load_migrations("sqlite")[:-1]
    with (
        closing(sqlite3.connect(agent.data_dir / "metadata.sqlite")) as own,
        closing(sqlite3.connect(backup)) as connection,
    ):
        for migration in older:
            for sql in migration.statements:
                connection.execute(sql)
        connection.execute(
            "create table migrations (version integer primary key, name text, applied_ms integer)"
        )
        rows = [(migration.version, migration.name, 0) for migration in older]
        connection.executemany("insert into migrations values (?, ?, ?)", rows)
        connection.execute(f"pragma user_version = {max(migration.needed_version for migration in older)}")
        settings = own.execute("select name, value from settings").fetchall()
        connection.executemany("insert or replace into settings (name, value) values (?, ?)", settings)
        connection.execute(
            "insert into segments (key, size_bytes, level, state, created_ms) values ('k', 1, 0, 0, 0)"
        )
        connection.commit()
    code, _, error = run_warp("restore", "--data-dir", data, "--from", str(backup))
    assert code == 1
    assert "Start no agent" in error
    assert "start an agent" not in error
    warp("restore", "--data-dir", data, "--from", str(backup), "--yes")
    with agent:
        assert agent.stop() == 0
