"""How an agent starts, and every reason for which it refuses to: one clear line, no stack, the right exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.process.conftest import Spawn, run_warp
from warp.metrics import Metrics


def refusal(spawn: Spawn, *options: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and last line of an agent that does not start."""
    running = spawn.agent(*options, serving=False, env=env)
    code = running.wait()
    assert not any("Traceback" in line for line in running.errors), "\n".join(running.errors)
    lines = [line for line in running.errors if not line.startswith("{")]
    assert len(lines) == 1, lines
    return code, lines[0]


def test_it_says_that_it_serves_and_logs_json_into_a_pipe(spawn: Spawn) -> None:
    running = spawn.agent(serving=False)
    line = running.serving_line()
    assert f"data in {spawn.data_dir}; records go when their topics' configs say so" in line
    assert running.stop() == 0
    entries = [json.loads(text) for text in running.errors]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
    assert any("connections" in entry["message"] for entry in entries)
    assert entries[-1]["message"] == "stopped"


def test_status_ready_and_metrics_are_served(spawn: Spawn) -> None:
    running = spawn.agent("--zone", "a")
    status = json.loads(running.get("/v1/status")[1])
    assert (status["status"], status["broker_id"]) == ("alive", 1)
    assert running.get("/v1/ready") == (200, '{"ready": true, "reasons": []}\n')
    code, metrics = running.get("/metrics")
    assert code == 200
    for name in ("warp_build_info", "warp_ready 1.0", "warp_connections", "process_resident_memory_bytes"):
        assert name in metrics


def test_every_documented_metric_is_shown_once_there_is_something_to_show(spawn: Spawn) -> None:
    running = spawn.agent()
    assert run_warp("produce", "t", "-b", running.bootstrap, stdin=b"x\n")[0] == 0
    assert run_warp("consume", "t", "--to", "end", "-b", running.bootstrap)[1] == "x\n"
    running.get("/v1/ready")
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", re.split(r"[ {]", line)[0])
        for line in running.get("/metrics")[1].splitlines()
        if not line.startswith("#")
    }
    all_names = {instrument.name for instrument in Metrics().instruments()}
    errors = {"warp_flush_failures_total", "warp_object_store_errors_total", "warp_metadata_errors_total"}
    of_groups = {"warp_group_lag"}
    of_clusters = {
        name for name in all_names if name.startswith(("warp_cluster_", "warp_peer_", "warp_fetch_looks_"))
    }
    of_paid_stores = {
        f"warp_{kind}_hedges{of}_total" for kind in ("put", "get") for of in ("", "_won", "_denied")
    }
    of_security = {
        "warp_authentications_total",
        "warp_denied_requests_total",
        "warp_http_refused_total",
        "warp_token_keys_age_seconds",
    }
    counted_now_and_then = {"warp_live_segments", "warp_live_segments_bytes"}
    expected = (
        all_names - errors - of_groups - of_clusters - of_paid_stores - of_security - counted_now_and_then
    )
    assert expected <= shown, sorted(expected - shown)
    numbers = {
        line.split()[0]: float(line.split()[1])
        for line in running.get("/metrics")[1].splitlines()
        if not line.startswith("#")
    }
    for name in ("received", "sent", "produced", "fetched"):
        assert numbers[f"warp_{name}_bytes_total"] > 0, name


def test_cluster_and_broker_id_stay_the_same_over_restarts(spawn: Spawn) -> None:
    first = spawn.agent()
    before = json.loads(first.get("/v1/status")[1])
    assert first.stop() == 0
    assert json.loads(spawn.agent().get("/v1/status")[1]) == before


def test_a_second_agent_on_the_directory_is_refused_and_told_who_holds_it(spawn: Spawn) -> None:
    first = spawn.agent()
    code, line = refusal(spawn)
    assert code == 1
    assert f"the data directory {spawn.data_dir} is in use by process {first.process.pid} on " in line
    first.send(signal.SIGKILL)
    first.wait()
    assert spawn.agent().stop() == 0


def test_a_second_agent_on_the_same_database_is_refused_whatever_its_data_directory(
    spawn: Spawn, tmp_path: Path
) -> None:
    first = spawn.agent()
    database = f"sqlite://{spawn.data_dir}/metadata.sqlite"
    code, line = refusal(spawn, "--data-dir", str(tmp_path / "other"), "--metadata", database)
    assert code == 1
    assert f"in use by process {first.process.pid}" in line


def test_what_a_crash_left_half_written_is_removed(spawn: Spawn) -> None:
    left = spawn.data_dir / "objects" / ".tmp" / "left-over"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert spawn.agent().stop() == 0
    assert not left.exists()


def test_addresses_in_use_are_named(spawn: Spawn) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = refusal(spawn, "--listen", address)
        assert (code, line.startswith(f"warp agent: can't listen on {address}: ")) == (1, True)
        assert "address already in use" in line.lower()
        code, line = refusal(spawn, "--http", address)
        assert (code, line) == (1, f"warp agent: can't serve HTTP on {address}: Address already in use")


def test_a_data_directory_that_cannot_be_made_is_named(spawn: Spawn, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    code, line = refusal(spawn, "--data-dir", str(file))
    assert (code, line.startswith(f"warp agent: the data directory {file} is not a directory")) == (1, True)
    code, line = refusal(spawn, "--data-dir", "/proc/warp-data")
    assert (code, line.startswith("warp agent: can't write the data directory /proc/warp-data: ")) == (
        1,
        True,
    )


@pytest.mark.may_skip
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_directory_without_write_access_is_named(spawn: Spawn) -> None:
    spawn.data_dir.mkdir(mode=0o500)
    code, line = refusal(spawn)
    assert (code, "give this user write access" in line) == (1, True)


def test_an_object_directory_that_is_a_file_is_named(spawn: Spawn) -> None:
    spawn.data_dir.mkdir()
    (spawn.data_dir / "objects").write_text("")
    code, line = refusal(spawn)
    assert code == 1
    assert line.startswith(f"warp agent: {spawn.data_dir}/objects")
    assert "is not a directory" in line


def test_a_full_disk_is_refused_with_the_reserve(spawn: Spawn, tmp_path: Path) -> None:
    code, line = refusal(spawn, "--object-store", f"file://{tmp_path}/objects?reserve=100000TiB")
    assert (code, "are kept in reserve" in line) == (1, True)


def test_metadata_of_a_newer_release_are_refused(spawn: Spawn) -> None:
    assert spawn.agent().stop() == 0
    with sqlite3.connect(spawn.data_dir / "metadata.sqlite") as connection:
        connection.execute("pragma user_version = 999")
    connection.close()
    code, line = refusal(spawn)
    assert (code, "belongs to a newer release" in line) == (1, True)


def test_a_file_that_is_no_database_is_refused(spawn: Spawn) -> None:
    spawn.data_dir.mkdir()
    (spawn.data_dir / "metadata.sqlite").write_bytes(b"not a database" * 100)
    code, line = refusal(spawn)
    assert (code, "can't use the metadata in" in line) == (1, True)


def test_another_cluster_id_is_refused(spawn: Spawn) -> None:
    assert spawn.agent("--cluster-id", "one").stop() == 0
    code, line = refusal(spawn, "--cluster-id", "two")
    assert (code, line) == (1, "warp agent: this metadata belongs to cluster one, not two")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--object-store", "s3:///prefix"], "bucket"),
        (["--object-store", "s3://bucket/prefix?regon=eu-west-1"], "did you mean 'region'"),
        (["--object-store", "ftp://host/dir"], "unknown kind 'ftp'"),
        (["--object-store", "file://relative/dir"], "absolute path"),
        (["--metadata", "mysql://warp:hunter2@db/warp"], "unknown kind 'mysql'"),
        (["--metadata", "sqlite://relative.sqlite"], "absolute path"),
        (["--object-store", "mem://", "--metadata", "sqlite:///x"], "both in memory or both lasting"),
        (["--listen", "0.0.0.0:0"], "add --advertise"),
        (["--config", "/nowhere.toml"], "can't read /nowhere.toml"),
    ],
)
def test_bad_settings_are_a_usage_error(spawn: Spawn, options: list[str], reason: str) -> None:
    code, line = refusal(spawn, *options)
    assert code == 2
    assert reason in line
    assert "hunter2" not in line


def test_an_unknown_variable_is_a_usage_error(spawn: Spawn) -> None:
    code, line = refusal(spawn, env={"WARP_FLUSH_BYTE": "1MiB"})
    assert (code, line) == (
        2,
        "warp agent: unknown environment variable WARP_FLUSH_BYTE; did you mean WARP_FLUSH_BYTES?",
    )


def test_an_agent_in_memory_writes_no_file(spawn: Spawn) -> None:
    running = spawn.agent("--object-store", "mem://")
    assert running.get("/v1/ready")[0] == 200
    assert running.stop() == 0
    assert not spawn.data_dir.exists()


def test_every_listener_serves_and_tells_its_own_address(spawn: Spawn) -> None:
    options = [
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "0.0.0.0:0",
        "--advertise",
        "127.0.0.1",
        "--advertise",
        "localhost",
    ]
    running = spawn.agent(*options, serving=False)
    line = running.serving_line()
    first, second = (part.split()[0] for part in line.partition("Kafka on ")[2].partition(";")[0].split(", "))
    port = second.rpartition(":")[2]
    told = {}
    for bootstrap in (first, f"127.0.0.1:{port}"):
        brokers = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=30).brokers
        told[bootstrap] = [f"{broker.host}:{broker.port}" for broker in brokers.values()]
    assert told == {first: [first], f"127.0.0.1:{port}": [f"localhost:{port}"]}


def test_connections_are_limited_by_the_descriptors_that_there_are(spawn: Spawn) -> None:
    limited = ["sh", "-c", 'ulimit -Sn 300 && ulimit -Hn 320 && exec "$@"', "sh"]
    running = spawn.python("-m", "warp", "agent", *spawn.defaults(), prefix=limited)
    running.serving_line()
    assert "at most 64 connections (10000 wanted, 320 file descriptors)" in running.wait_for_error("at most")
    assert "warp_connections_max 64.0" in running.get("/metrics")[1]


def test_settings_come_from_the_file_that_the_environment_names(spawn: Spawn, tmp_path: Path) -> None:
    file = tmp_path / "warp.toml"
    file.write_text(f'data-dir = "{spawn.data_dir}"\nlisten = ["127.0.0.1:0"]\nhttp = "off"\n')
    running = spawn.python("-m", "warp", "agent", env={"WARP_CONFIG": str(file)})
    assert "HTTP" not in running.serving_line()
    assert running.stop() == 0
    code, out, _ = run_warp("config", "show", env={"WARP_CONFIG": str(file), "WARP_ZONE": "z"})
    assert code == 0
    rows = {words[0]: words[1:] for words in map(str.split, out.splitlines())}
    assert rows["http"] == ["off", str(file)]
    assert rows["zone"] == ["z", "WARP_ZONE"]
