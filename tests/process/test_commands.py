"""`warp topic`, `produce`, `consume` and `demo` against a real agent, as a user types them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Running, Spawn, environment, run_warp

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    spawn = Spawn(tmp_path_factory.mktemp("commands") / "data")
    running = spawn.agent()
    yield running
    assert running.stop() == 0
    running.close()


def warp(agent: Running, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    return run_warp(*words, "--bootstrap", agent.bootstrap, stdin=stdin)


def test_a_topic_is_created_listed_described_and_deleted(agent: Running) -> None:
    created = warp(agent, "topic", "create", "life", "--partitions", "3", "--config", "retention.ms=1000")
    assert created == (0, "created topic life\n", "")
    again = warp(agent, "topic", "create", "life")
    assert again[0] == 1
    assert "TOPIC_ALREADY_EXISTS" in again[2]
    assert warp(agent, "topic", "create", "life", "--if-not-exists") == (
        0,
        "topic life is there already\n",
        "",
    )
    assert re.search(r"^life +3 partitions$", warp(agent, "topic", "list")[1], re.MULTILINE)
    assert {"topic": "life", "partitions": 3} in json.loads(warp(agent, "topic", "list", "--json")[1])
    warp(agent, "produce", "life", "--partition", "1", stdin=b"a\nb\n")
    described = json.loads(warp(agent, "topic", "describe", "life", "--json")[1])
    assert described["configs"] == {"retention.ms": "1000"}
    assert described["partitions"][1] == {"partition": 1, "start_offset": 0, "end_offset": 2}
    assert "retention.ms=1000" in warp(agent, "topic", "describe", "life")[1]
    assert warp(agent, "topic", "delete", "life") == (0, "deleted topic life\n", "")
    gone = warp(agent, "topic", "delete", "life")
    assert gone[0] == 1
    assert "UNKNOWN_TOPIC_OR_PART" in gone[2]


def test_a_config_that_kafka_does_not_know_is_refused_with_the_nearest(agent: Running) -> None:
    code, _, error = warp(agent, "topic", "create", "x", "--config", "retntion.ms=1")
    assert (code, "retention.ms" in error) == (1, True)


@pytest.mark.parametrize("codec", CODECS)
def test_lines_come_back_as_they_went_in(agent: Running, codec: str) -> None:
    lines = "".join(f"line {number} äöü\n" for number in range(500))
    topic = f"lines-{codec}"
    assert warp(agent, "produce", topic, "--compression", codec, stdin=lines.encode()) == (0, "", "")
    assert warp(agent, "consume", topic, "--to", "end") == (0, lines, "")


def test_keys_and_json_round_trip(agent: Running) -> None:
    assert warp(agent, "produce", "keys", "-k", ":", stdin=b"a:1\nb:2:3\n")[0] == 0
    assert warp(agent, "consume", "keys", "--to", "end", "--keys")[1] == "a\t1\nb\t2:3\n"
    assert warp(agent, "consume", "keys", "--to", "end", "-k", "=")[1] == "a=1\nb=2:3\n"
    rows = [
        {
            "key": "k",
            "value": {"n": 1},
            "headers": [{"name": "h", "value": "v"}],
            "timestamp": 1_700_000_000_000,
        },
        {"key_base64": "/w==", "value": None},
    ]
    sent = "\n".join(map(json.dumps, rows)).encode()
    assert warp(agent, "produce", "json", "--json", stdin=sent)[0] == 0
    shown = warp(agent, "consume", "json", "--to", "end", "--json")[1]
    first, second = map(json.loads, shown.splitlines())
    assert (first["key"], first["value"], first["timestamp"]) == ("k", '{"n": 1}', 1_700_000_000_000)
    assert first["headers"] == [{"name": "h", "value": "v"}]
    assert (second["key_base64"], second["value"]) == ("/w==", None)
    assert warp(agent, "produce", "json-copy", "--json", stdin=shown.encode())[0] == 0
    copy = warp(agent, "consume", "json-copy", "--to", "end", "--json")[1]
    assert copy.replace("json-copy", "json") == shown


def test_places_counts_and_partitions_select_records(agent: Running) -> None:
    lines = b"".join(
        b'{"value": "%d", "timestamp": %d}\n' % (n, 1_700_000_000_000 + 1000 * n) for n in range(10)
    )
    assert warp(agent, "produce", "places", "--json", stdin=lines)[0] == 0

    def consume(*words: str) -> str:
        code, out, error = warp(agent, "consume", "places", *words)
        assert (code, error) == (0, "")
        return out.replace("\n", "")

    assert consume("--from", "7", "--to", "end") == "789"
    assert consume("--from", "-2", "--to", "end") == "89"
    assert consume("--from", "2", "--to", "5") == "234"
    assert consume("--from", "beginning", "--count", "3") == "012"
    assert consume("--from", "2023-11-14T22:13:26+00:00", "--to", "end") == "6789"
    assert consume("--to", "2023-11-14T22:13:22+00:00") == "01"
    assert consume("--from", "end", "--to", "end") == ""
    assert consume("--partition", "0", "--to", "end") == "0123456789"
    code, _, error = warp(agent, "consume", "places", "--partition", "3", "--to", "end")
    assert (code, error) == (1, "warp consume: topic places has no partition 3, only 0 to 0\n")


def test_a_topic_that_is_not_there_is_told_with_the_nearest(agent: Running) -> None:
    warp(agent, "topic", "create", "orders")
    code, out, error = warp(agent, "consume", "order", "--to", "end")
    assert (code, out, error) == (1, "", "warp consume: there is no topic order; did you mean orders?\n")
    code, _, error = warp(agent, "topic", "describe", "qqq")
    assert (code, error) == (1, "warp topic: there is no topic qqq; make it with `warp topic create qqq`\n")


def test_a_bad_line_is_named_and_those_before_it_are_stored(agent: Running) -> None:
    code, _, error = warp(agent, "produce", "bad", "-k", ":", stdin=b"a:1\nb\nc:3\n")
    assert (code, error) == (1, "warp produce: line 2 is refused: there is no key separator ':' in it\n")
    assert warp(agent, "consume", "bad", "--to", "end")[1] == "1\n"


def test_records_that_are_not_stored_are_counted(agent: Running) -> None:
    warp(agent, "topic", "create", "small", "--config", "max.message.bytes=100")
    code, _, error = warp(agent, "produce", "small", stdin=b"x" * 1000 + b"\n")
    assert (code, error.startswith("warp produce: 1 of 1 records were not stored: ")) == (1, True)
    assert "MSG_SIZE_TOO_LARGE" in error


def test_a_full_store_refuses_records_and_still_serves_those_that_it_has(spawn: Spawn) -> None:
    running = spawn.agent("--object-store", "mem://?size=100KiB")
    assert warp(running, "produce", "t", stdin=b"first\n")[0] == 0
    code, _, error = warp(running, "produce", "t", "--timeout", "3", stdin=(b"x" * 50_000 + b"\n") * 3)
    assert (code, "records were not stored" in error) == (1, True)
    assert warp(running, "consume", "t", "--count", "1")[1] == "first\n"
    assert 'warp_object_store_errors_total{error="StoreFull",operation="put"}' in running.get("/metrics")[1]
    assert running.stop() == 0


def test_a_file_is_produced(agent: Running, tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes(b"one\ntwo\nthree")
    assert warp(agent, "produce", "file", "--file", str(file), "--count", "2")[0] == 0
    assert warp(agent, "consume", "file", "--to", "end")[1] == "one\ntwo\n"


def test_no_broker_is_one_line(tmp_path: Path) -> None:
    for words in (["topic", "list"], ["consume", "t"], ["topic", "create", "t"]):
        code, _, error = run_warp(*words, "-b", "127.0.0.1:1", "--timeout", "1")
        assert (code, error.count("\n")) == (1, 1)
        assert "no broker answered at 127.0.0.1:1" in error
    code, _, error = run_warp("produce", "t", "-b", "127.0.0.1:1", "--timeout", "1", stdin=b"x\n")
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith("warp produce: 1 of 1 records were not stored: no broker answered")


def test_a_consumer_shows_records_as_they_come_and_ends_cleanly(agent: Running) -> None:
    warp(agent, "produce", "follow", stdin=b"before\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "consume", "follow", "-b", agent.bootstrap],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"before\n"
    warp(agent, "produce", "follow", stdin=b"after\n")
    assert process.stdout.readline() == b"after\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stderr.read() == b""
    process.stdout.close()
    process.stderr.close()


def test_an_interrupted_producer_stores_what_it_has_read_and_says_how_much(agent: Running) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "produce", "interrupted", "-b", agent.bootstrap],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"one\ntwo\n")
    process.stdin.flush()
    while "interrupted" not in warp(agent, "topic", "list")[1]:
        continue
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert error == b"warp produce: interrupted; 2 records were stored\n"
    assert warp(agent, "consume", "interrupted", "--to", "end")[1] == "one\ntwo\n"


def test_a_consumer_ends_also_when_its_broker_is_gone(spawn: Spawn) -> None:
    running = spawn.agent()
    warp(running, "produce", "t", stdin=b"x\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "consume", "t", "-b", running.bootstrap],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"x\n"
    running.send(signal.SIGKILL)
    running.wait()
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out, error) == (0, b"", b"")


def test_a_reader_that_has_had_enough_ends_the_consumer(agent: Running) -> None:
    warp(agent, "produce", "enough", stdin=b"x\n" * 2000)
    script = 'exec 3>&1; "$@" | head -n 1 >&3'
    consume = [sys.executable, "-m", "warp", "consume", "enough", "-b", agent.bootstrap, "--to", "end"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *consume],
        capture_output=True, env=environment(), timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"x\n", b"")


def demo_directories() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("warp-demo-*")}


def test_the_demo_shows_the_system_at_work_and_leaves_nothing_behind() -> None:
    before = demo_directories()
    code, out, error = run_warp("demo", "--seconds", "3", env={"WARP_ZONE": "not for the demo"})
    assert (code, error) == (0, "")
    assert "\x1b" not in out
    assert re.search(r"(kcat -b|warp consume demo --bootstrap) 127\.0\.0\.1:\d+", out)
    assert (
        len(
            re.findall(r"produced [\d,]+/s .* consumed [\d,]+/s .* latency .* lag \d+  committed [\d,]+", out)
        )
        >= 2
    )
    assert re.search(r"\n  warp group describe warp-demo --bootstrap 127\.0\.0\.1:\d+\n", out)
    assert re.search(r"[\d,]{4,} records \(.*\) were stored durably; each came back once, in order", out)
    assert "in order, and group 'warp-demo' has committed them." in out
    assert out.endswith("Nothing is left behind.\n")
    assert demo_directories() <= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_sums_up_and_cleans_up(number: int) -> None:
    before = demo_directories()
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "demo"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    assert process.stdout is not None
    broker = 0
    for line in process.stdout:
        broker = broker or int(next(iter(re.findall(r"process (\d+)", line)), 0))
        if "produced" in line:
            break
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert "each came back once, in order" in out
    assert demo_directories() <= before
    with pytest.raises(ProcessLookupError):
        os.kill(broker, 0)


def test_a_demo_that_keeps_its_data_says_where(tmp_path: Path) -> None:
    code, out, _ = run_warp("demo", "--seconds", "1", "--keep", env={"TMPDIR": str(tmp_path)})
    assert code == 0
    kept = next(tmp_path.glob("warp-demo-*"))
    assert f"warp agent --data-dir {kept}" in out
    assert (kept / "metadata.sqlite").is_file()
