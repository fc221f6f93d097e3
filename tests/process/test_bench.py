"""`warp bench` against a real agent, as a user types it; also one that is frozen in the middle of the load."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.process.conftest import ROOT, TIMEOUT_S, Running, Spawn, environment, run_warp


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    spawn = Spawn(tmp_path_factory.mktemp("bench") / "data")
    running = spawn.agent()
    yield running
    assert running.stop() == 0
    running.close()


def bench(agent: Running, *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON and what stands on standard error."""
    code, out, error = run_warp("bench", *words, "--bootstrap", agent.bootstrap, "--json", "-")
    return code, json.loads(out) if out else {}, error


def topics(agent: Running) -> list[str]:
    listed = json.loads(run_warp("topic", "list", "--json", "--bootstrap", agent.bootstrap)[1])
    return [row["topic"] for row in listed]


class Bench:
    """A `warp bench` that runs on, with its lines of standard error as they come."""

    def __init__(self, bootstrap: str, *words: str) -> None:
        command = [sys.executable, "-m", "warp", "bench", *words, "--bootstrap", bootstrap]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def wait_for(self, pattern: str) -> None:
        with self._changed:
            found = self._changed.wait_for(
                lambda: any(re.search(pattern, line) for line in self.lines), TIMEOUT_S
            )
            assert found, self.lines

    def interrupt(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Ctrl-C, or another signal; exit code and standard output."""
        self.process.send_signal(number)
        return self.result()

    def result(self) -> tuple[int, str]:
        """Exit code and standard output, at the end."""
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        return self.process.wait(TIMEOUT_S), out

    def worker_pids(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def test_end_to_end_every_record_comes_back_and_the_topic_is_removed(agent: Running) -> None:
    words = ["--rate", "200/s", "--duration", "2s", "--warmup", "1s", "--producers", "2", "--consumers", "2"]
    code, told, error = bench(
        agent, *words, "--topic", "round", "--partitions", "3", "--delete-topic", "--keys", "5"
    )
    assert (code, told["failure"]) == (0, None), error
    produced, consumed = told["produced"], told["consumed"]
    assert produced["sent_records"] == produced["acknowledged_records"] == consumed["received_records"]
    # A machine that stands still at the very end leaves some unsent; they are told.
    assert produced["sent_records"] + produced["unsent_records"] == 600
    assert consumed["missing_records"] == 0
    assert (produced["workers"], consumed["workers"], told["settings"]["partitions"]) == (2, 2, 3)
    assert produced["latency"]["count"] == consumed["latency"]["count"] == 400 - produced["unsent_records"]
    assert consumed["latency"]["max_ms"] >= consumed["latency"]["p50_ms"] > 0
    assert {row["phase"] for row in told["series"]} >= {"warm-up", "measured"}
    assert "end-to-end at" in error
    assert "round" not in topics(agent)


def test_what_was_produced_at_full_speed_is_consumed_again(agent: Running, tmp_path: Path) -> None:
    words = [
        "--topic",
        "full",
        "--duration",
        "1s",
        "--record-size",
        "10KiB",
        "--compression",
        "lz4",
        "--linger",
        "2ms",
    ]
    code, told, error = bench(agent, "produce", *words, "--batch-size", "64KiB", "--partitions", "2")
    assert code == 0, error
    produced = told["produced"]
    assert produced["latency_counts_from"] == "produce call"
    assert produced["records"] > 0
    assert produced["cpu_s_per_gb"] > 0
    file = tmp_path / "result.json"
    code, out, error = run_warp(
        "bench", "consume", "--topic", "full", "--bootstrap", agent.bootstrap, "--json", str(file)
    )
    assert code == 0, error
    assert "consumed" in out
    consumed = json.loads(file.read_text())["consumed"]
    assert consumed["received_records"] == produced["acknowledged_records"]
    assert consumed["records"] == produced["acknowledged_records"]
    assert consumed["bytes"] == 10 * 1024 * produced["acknowledged_records"]
    assert "latency" not in consumed


def test_a_topic_that_was_there_is_never_removed(agent: Running) -> None:
    assert run_warp("produce", "mine", "--bootstrap", agent.bootstrap, stdin=b"one\n")[0] == 0
    code, _, error = bench(agent, "produce", "--topic", "mine", "--delete-topic", "--duration", "1s")
    assert (code, error) == (
        1,
        "warp bench: topic mine is there already; --delete-topic removes only a topic that the run has made\n",
    )
    code, _, error = bench(agent, "produce", "--topic", "mine", "--partitions", "3")
    assert (code, error) == (1, "warp bench: topic mine has 1 partitions, not 3\n")
    assert run_warp("consume", "mine", "--to", "end", "--bootstrap", agent.bootstrap)[1] == "one\n"


def test_a_topic_to_read_that_is_not_there_is_told_with_the_nearest(agent: Running) -> None:
    assert run_warp("produce", "here", "--bootstrap", agent.bootstrap, stdin=b"one\n")[0] == 0
    code, _, error = bench(agent, "consume", "--topic", "heer")
    assert (code, error) == (1, "warp bench: there is no topic heer; did you mean here?\n")


def test_records_that_the_broker_refuses_are_counted_by_kind(agent: Running) -> None:
    created = run_warp(
        "topic", "create", "small", "--config", "max.message.bytes=500", "--bootstrap", agent.bootstrap
    )
    assert created[0] == 0
    code, told, error = bench(agent, "produce", "--topic", "small", "--rate", "50/s", "--duration", "1s")
    produced = told["produced"]
    assert code == 1
    count = 50 - produced["unsent_records"]
    assert produced["errors"] == {"MSG_SIZE_TOO_LARGE": count}
    assert (produced["records"], produced["latency"]["count"]) == (0, 0)
    assert error.endswith(
        f"warp bench: {count} of {count} records were not stored: MSG_SIZE_TOO_LARGE {count}\n"
    )


def test_a_stall_of_the_broker_is_in_the_latencies_of_all_records_that_were_due_in_it(spawn: Spawn) -> None:
    """No coordinated omission: a frozen broker is seen by every record that was due meanwhile, also the unsent ones."""
    agent = spawn.agent()
    rate, stall_s = 200, 1.5
    running = Bench(
        agent.bootstrap, "--rate", f"{rate}/s", "--duration", "10m", "--timeout", "30", "--json", "-"
    )
    try:
        running.wait_for(r"^ +1 s ")
        agent.send(signal.SIGSTOP)
        state = Path(f"/proc/{agent.process.pid}/stat")
        while state.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        frozen_at = time.monotonic()
        time.sleep(stall_s)
        frozen_s = time.monotonic() - frozen_at
        agent.send(signal.SIGCONT)
        code, out = running.interrupt()
    finally:
        running.close()
        agent.send(signal.SIGCONT)
    assert code == 0, running.lines
    told = json.loads(out)
    assert (told["is_interrupted"], told["failure"]) == (True, None)
    for side in (told["produced"], told["consumed"]):
        # Those that were due in the first half of the stall waited for at least its second half.
        slow = sum(
            count for low_us, _, count in side["latency"]["histogram_us"] if low_us >= 0.49e6 * frozen_s
        )
        assert slow >= rate * frozen_s / 2 - 2
        assert side["latency"]["max_ms"] >= 1000 * frozen_s - 1000 / rate


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_load_and_shows_what_there_is(agent: Running, number: int) -> None:
    running = Bench(
        agent.bootstrap, "produce", "--topic", "long", "--rate", "100/s", "--duration", "1h", "--delete-topic"
    )
    try:
        running.wait_for(r"^ +1 s ")
        code, out = running.interrupt(number)
    finally:
        running.close()
    assert code == 0, running.lines
    assert "(ended early)" in out
    assert re.search(r"produced +\d+ records/s", out)
    assert "long" not in topics(agent)


def test_a_second_interrupt_waits_for_no_answer(spawn: Spawn) -> None:
    agent = spawn.agent()
    running = Bench(agent.bootstrap, "produce", "--rate", "100/s", "--duration", "1h", "--timeout", "100")
    try:
        running.wait_for(r"^ +1 s ")
        agent.send(signal.SIGSTOP)
        time.sleep(1)  # for some records that get no answer
        running.process.send_signal(signal.SIGINT)
        running.wait_for("waiting for the last answers")
        code, out = running.interrupt()
    finally:
        running.close()
        agent.send(signal.SIGCONT)
    assert code == 1
    assert re.search(r"produced +\d+ records/s", out)
    assert running.lines[-1] == "warp bench: interrupted again; the last answers were not waited for\n"


def test_a_worker_that_dies_is_told_with_what_was_found_before(agent: Running) -> None:
    running = Bench(agent.bootstrap, "produce", "--topic", "dying", "--rate", "100/s", "--duration", "1h")
    try:
        running.wait_for(r"^ +1 s ")
        os.kill(running.worker_pids()[0], signal.SIGKILL)
        code, out = running.result()
    finally:
        running.close()
    assert code == 1
    assert re.search(r"produced +\d+ records/s", out)
    assert running.lines[-1] == "warp bench: a worker process ended without a result (exit code -9)\n"


def test_workers_end_with_the_command_even_when_it_is_killed(agent: Running) -> None:
    running = Bench(agent.bootstrap, "produce", "--topic", "orphans", "--rate", "100/s", "--duration", "1h")
    try:
        running.wait_for(r"^ +1 s ")
        children = (
            Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        )
        assert len(children) == 1
    finally:
        running.close()
    deadline = time.monotonic() + TIMEOUT_S
    while Path(f"/proc/{children[0]}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{children[0]}").exists()


def test_another_broker_is_measured_by_the_same_command() -> None:
    """librdkafka's own mock cluster of three brokers."""
    host = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 3, "log_level": 0})
    brokers = host.list_topics("elsewhere", timeout=TIMEOUT_S).brokers.values()
    bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    words = [
        "--topic",
        "elsewhere",
        "--rate",
        "200/s",
        "--duration",
        "1s",
        "--producers",
        "2",
        "--consumers",
        "2",
    ]
    code, out, error = run_warp("bench", *words, "--bootstrap", bootstrap, "--json", "-")
    assert code == 0, error
    told = json.loads(out)
    assert told["broker"]["broker_count"] == 3
    count = 200 - told["produced"]["unsent_records"]
    assert told["produced"]["acknowledged_records"] == told["consumed"]["received_records"] == count
    code, out, error = run_warp(
        "bench", "consume", "--topic", "elsewhere", "--bootstrap", bootstrap, "--json", "-"
    )
    assert code == 0, error
    assert json.loads(out)["consumed"]["received_records"] == count
