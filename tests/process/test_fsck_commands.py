"""`warp fsck` and `warp inspect` as users run them: beside an agent at work, and on what it has left."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka import Producer

from tests.process.conftest import Spawn, run_warp
from tests.support.postgres import PostgresServer
from warp.cli.main import main

RUNS = 4
BUSY = (
    "--flush-interval", "20ms", "--merge-interval", "100ms", "--compaction-interval", "200ms", "--delete-grace", "1s",
    "--orphan-age", "1s", "--orphan-interval", "1s", "--retention-check-interval", "300ms",
)  # fmt: skip


class Load:
    """Produces to some topics until it is told to stop."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5}
        )
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._is_over.wait(0.01):
            for topic in ("kept", "short", "compacted"):
                number += 1
                self._producer.produce(topic, b"v" * 300, b"key-%d" % (number % 17), callback=self._told)
            self._producer.poll(0)
        self._producer.flush(30)

    def _told(self, error: object, _message: object) -> None:
        self.acknowledged += error is None


def test_a_busy_agent_is_clean_whenever_one_looks(spawn: Spawn) -> None:
    agent = spawn.agent(*BUSY)
    for topic, *configs in (
        ("kept",),
        ("short", "retention.bytes=20000"),
        ("compacted", "cleanup.policy=compact", "min.cleanable.dirty.ratio=0.01"),
    ):
        words = [word for config in configs for word in ("--config", config)]
        assert run_warp("topic", "create", topic, "-b", agent.bootstrap, "--partitions", "3", *words)[0] == 0
    data_dir = str(spawn.data_dir)
    with Load(agent.bootstrap) as load:
        for number in range(RUNS):
            code, out, error = run_warp("fsck", "--data-dir", data_dir, *(("--deep",) if number % 2 else ()))
            assert (code, error, out.splitlines()[-1]) == (0, "", "clean"), out
    assert load.acknowledged > 100
    # What it has committed last is in SQLite's write-ahead log alone.
    agent.process.kill()
    agent.wait()
    code, out, _ = run_warp("fsck", "--data-dir", data_dir, "--deep")
    assert (code, out.splitlines()[-1]) == (0, "clean"), out


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an agent that has done its work, which tests copy."""
    spawn = Spawn(tmp_path_factory.mktemp("fsck") / "data")
    running = spawn.agent()
    for number in range(3):
        words = ("produce", "greetings", "-b", running.bootstrap)
        assert run_warp(*words, stdin=b"".join(b"line %d\n" % line for line in range(10 + number)))[0] == 0
    assert running.stop() == 0
    running.close()
    return spawn.data_dir


@pytest.fixture
def left(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy = tmp_path / "left"
    for path in sorted(template.rglob("*")):
        target = copy / path.relative_to(template)
        if path.is_dir():
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return copy


def execute(left: Path, sql: str) -> None:
    connection = sqlite3.connect(left / "metadata.sqlite", isolation_level=None)
    assert connection.execute(sql).rowcount != 0
    connection.close()


def segments(left: Path) -> list[Path]:
    return sorted(path for path in (left / "objects" / "segments").rglob("*") if path.is_file())


class Here:
    """Runs commands in this process, which is quicker than one of their own for each."""

    def __init__(self, left: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.left = left
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        code = main(words)
        out, error = self._capsys.readouterr()
        return code, out, error

    def fsck(self, *words: str) -> tuple[int, str, str]:
        return self.run("fsck", "--data-dir", str(self.left), *words)


@pytest.fixture
def here(left: Path, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(left, capsys)


def test_what_an_agent_has_left_is_clean_and_stays_as_it_is(left: Path, here: Here) -> None:
    before = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
    code, out, error = here.fsck()
    assert (code, error, out.splitlines()[-1]) == (0, "", "clean")
    assert "1 topics, 1 logs, 3 extents" in out
    after = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
    assert {path: data for path, data in after.items() if path.name not in LEFT_BY_SQLITE} == {
        path: data for path, data in before.items() if path.name not in LEFT_BY_SQLITE
    }


LEFT_BY_SQLITE = ("metadata.sqlite-shm", "metadata.sqlite-wal")


def test_damage_is_told_in_lines_and_as_json(left: Path, here: Here) -> None:
    lost, damaged, _ = segments(left)
    lost.unlink()
    content = bytearray(damaged.read_bytes())
    content[90] ^= 1
    damaged.write_bytes(content)
    key = lost.relative_to(left / "objects")
    code, out, error = here.fsck("--deep")
    assert (code, error) == (1, "")
    assert f"object-missing: {key}: its object is not there" in out
    assert "batch has a wrong CRC -> it can't be repaired: restore" in out
    assert out.splitlines()[-1] == "2 findings: 1 extent-bytes, 1 object-missing"
    code, out, _ = here.fsck("--json")
    report = json.loads(out)
    assert (code, report["clean"], report["found"]) == (1, False, {"object-missing": 1})
    assert report["findings"][0]["where"] == str(key)
    code, out, _ = here.fsck("--quick", "--json")
    assert (code, json.loads(out)["found"]) == (1, {"object-missing": 1})


def test_a_damaged_index_of_the_database_is_found_by_a_deep_check(left: Path, here: Here) -> None:
    execute(left, "create index odd on logs (size_bytes)")
    connection = sqlite3.connect(left / "metadata.sqlite", isolation_level=None)
    connection.execute("pragma writable_schema = on")
    connection.execute(
        "update sqlite_master set sql = 'create index odd on logs (partition)' where name = 'odd'"
    )
    connection.close()
    assert here.fsck()[0] == 0
    code, out, _ = here.fsck("--deep")
    assert (code, "database: sqlite://" in out, "missing from index odd" in out) == (1, True, True)


def test_a_repair_is_told_first_and_done_when_asked_for(left: Path, here: Here) -> None:
    execute(left, "update logs set size_bytes = 1")
    for _ in range(2):
        code, out, _ = here.fsck()
        assert code == 1
        assert "--repair would add up the size of log 1 anew" in out
    code, out, _ = here.fsck("--repair")
    assert code == 0
    assert "repaired: add up the size of log 1 anew" in out
    assert out.endswith("1 finding: 1 log-size; all repaired\n")
    assert here.fsck()[0] == 0


def test_a_repair_waits_for_the_agent_to_stop(left: Path, here: Here) -> None:
    spawn = Spawn(left)
    running = spawn.agent()
    try:
        code, out, error = here.fsck("--repair")
        assert (code, out) == (2, "")
        assert "is in use by process" in error
        assert here.fsck()[0] == 0
    finally:
        assert running.stop() == 0
        running.close()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--deep", "--quick"), "--deep and --quick exclude each other"),
        (("--data-dir", "/nowhere/at/all"), "there is no object store in /nowhere/at/all/objects"),
        (("--metadata", "sqlite:///nowhere/x.sqlite"), "there are no metadata in /nowhere/x.sqlite"),
        (("--metadata", "mem://", "--object-store", "mem://"), "can't be read from outside of its agent"),
        (("--deeep",), "unknown option --deeep; did you mean --deep?"),
    ],
)
def test_what_cant_run_says_why_with_exit_code_2(
    left: Path, here: Here, words: tuple[str, ...], text: str
) -> None:
    code, out, error = here.fsck(*words) if "--data-dir" not in words else here.run("fsck", *words)
    assert (code, out) == (2, "")
    assert text in error


def test_stores_of_two_clusters_are_not_compared(left: Path, here: Here) -> None:
    (left / "objects" / "warp-cluster.json").write_text('{"cluster_id": "another"}')
    code, _, error = here.fsck()
    assert code == 2
    assert "belongs to cluster another" in error


def test_metadata_of_an_older_and_of_a_newer_release_are_refused(left: Path, here: Here) -> None:
    execute(left, "delete from migrations where version = (select max(version) from migrations)")
    code, _, error = here.fsck()
    assert (code, "start an agent of this release once" in error) == (2, True)
    connection = sqlite3.connect(left / "metadata.sqlite")
    connection.execute("pragma user_version = 999")
    connection.close()
    code, _, error = here.fsck()
    assert (code, "belongs to a newer release" in error) == (2, True)


def test_a_file_that_is_no_database_is_refused(left: Path, here: Here) -> None:
    (left / "metadata.sqlite").write_bytes(b"no database" * 500)
    code, _, error = here.fsck()
    assert code == 2
    assert "can't use the metadata in" in error


def test_a_segment_is_shown_by_its_key_and_as_a_file(left: Path, here: Here) -> None:
    path = segments(left)[0]
    key = str(path.relative_to(left / "objects"))
    code, out, error = here.run("inspect", "segment", key, "--data-dir", str(left))
    assert (code, error) == (0, "")
    assert out.startswith(f"{key}: {path.stat().st_size:,} bytes, level 0, sealed 20")
    assert "greetings-0" in out
    code, out, _ = here.run("inspect", "segment", str(path), "--records", "--limit", "2")
    assert code == 0
    assert "= 'line 1'" in out
    assert "= 'line 2'" not in out
    code, out, _ = here.run("inspect", "segment", str(path), "--records", "--json")
    shown = json.loads(out)
    assert (code, shown["intact"], shown["extents"][0]["topic"]) == (0, True, "greetings")
    assert shown["extents"][0]["batches"][0]["records"][0]["value_base64"] == "bGluZSAw"


def test_a_segment_that_is_nowhere_is_told(left: Path, here: Here) -> None:
    for name in ("segments/00/nothing", "../x"):
        code, _, error = here.run("inspect", "segment", name, "--data-dir", str(left))
        assert (code, "there is neither a file nor an object of the name" in error) == (1, True)


def test_a_log_is_shown_with_its_extents(left: Path, here: Here) -> None:
    words = ("inspect", "log", "greetings", "0", "--data-dir", str(left))
    code, out, error = here.run(*words)
    assert (code, error) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("greetings-0: log 1, topic id ")
    assert "offsets 0..32" in lines[0]
    assert [line.split()[0] for line in lines[2:]] == ["OFFSETS", "0..9", "10..20", "21..32"]
    shown = json.loads(here.run(*words, "--json", "--from", "10", "--limit", "1")[1])
    assert [(extent["base_offset"], extent["end_offset"]) for extent in shown["extents"]] == [(10, 21)]
    assert shown["has_more"]
    code, _, error = here.run("inspect", "log", "greetings", "7", "--data-dir", str(left))
    assert (code, "topic greetings has no partition 7" in error) == (1, True)
    assert here.run("inspect", "log", "greetings", "-1", "--data-dir", str(left))[0] == 2


@pytest.mark.postgres
def test_on_postgres_it_looks_and_repairs_beside_agents_at_work(
    spawn: Spawn, postgres_url: str, tmp_path: Path
) -> None:
    empty = run_warp(
        "fsck", "--metadata", "postgresql:///nowhere?host=/nowhere", "--object-store", tmp_path.as_uri()
    )
    assert (empty[0], "can't use the metadata in PostgreSQL" in empty[2]) == (2, True)
    stores = ("--metadata", postgres_url, "--object-store", (tmp_path / "objects").as_uri())
    agent = spawn.agent(*BUSY, *stores)
    with Load(agent.bootstrap):
        for scope in ((), ("--deep",)):
            code, out, error = run_warp("fsck", *stores, *scope)
            assert (code, error, out.splitlines()[-1]) == (0, "", "clean"), out
        code, out, _ = run_warp("inspect", "log", "kept", "0", *stores)
        assert (code, out.startswith("kept-0: log ")) == (0, True)

        async def damage() -> None:
            connection = await asyncpg.connect(postgres_url)
            await connection.execute("update logs set size_bytes = size_bytes + 7")
            await connection.close()

        asyncio.run(damage())
        code, out, error = run_warp("fsck", *stores, "--repair")
        assert (code, error, "; all repaired" in out) == (0, "", True)
        code, out, _ = run_warp("fsck", *stores)
        assert (code, out.splitlines()[-1]) == (0, "clean"), out
    assert agent.stop() == 0


@pytest.mark.postgres
def test_a_database_without_metadata_is_told_and_stays_empty(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    url = postgres_server.create_database("warp_empty")
    (tmp_path / "objects").mkdir()
    for _ in range(2):
        code, _, error = run_warp(
            "fsck", "--metadata", url, "--object-store", (tmp_path / "objects").as_uri()
        )
        assert (code, "there are no metadata in PostgreSQL" in error) == (2, True), error


def test_inspect_explains_itself(here: Here) -> None:
    assert here.run("inspect")[0] == 2
    code, out, _ = here.run("inspect", "--help")
    assert (code, "Actions: segment, log." in out) == (0, True)
    assert here.run("inspect", "segmnt")[2] == "warp inspect: unknown action segmnt; did you mean segment?\n"
