"""A running agent: how it stops, what it does when something hangs, and what it tells about itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition

from tests.process.conftest import Spawn, environment

HANGING_STOP = """
import asyncio, sys, time
from warp.agent import Agent
from warp.cli.main import main

async def hang(self, timeout_s):
    print("it hangs now", file=sys.stderr, flush=True)
    {how}

Agent.stop = hang
raise SystemExit(main(sys.argv[1:]))
"""


def read_all(bootstrap: str, topic: str, count: int) -> list[bytes]:
    """The first `count` values of partition 0."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values: list[bytes] = []
    while len(values) < count:
        for message in consumer.consume(1000, 1.0):
            error = message.error()
            assert error is None, error
            values.append(message.value() or b"")
    return values


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_finishes_what_is_in_progress_and_exits_0(spawn: Spawn, number: int) -> None:
    running = spawn.agent()
    stored: list[bytes] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            stored.append(message.value() or b"")

    producer = Producer(
        {"bootstrap.servers": running.bootstrap, "linger.ms": 1, "enable.idempotence": True, "log_level": 0}
    )
    sent = 0
    while len(stored) < 2000:
        producer.produce("load", b"%08d" % sent, partition=0, on_delivery=delivered)
        producer.poll(0 if sent % 50 else 0.005)
        sent += 1
    running.send(number)
    assert running.wait() == 0
    producer.poll(0.5)
    producer.purge()
    producer.poll(0)
    again = spawn.agent()
    values = read_all(again.bootstrap, "load", len(stored))
    assert values[: len(stored)] == stored
    assert again.stop() == 0


def test_an_idle_consumer_does_not_hold_up_the_stop(spawn: Spawn) -> None:
    running = spawn.agent()
    producer = Producer({"bootstrap.servers": running.bootstrap})
    producer.produce("t", b"x")
    assert producer.flush(30) == 0
    consumer = Consumer(
        {
            "bootstrap.servers": running.bootstrap,
            "group.id": "test",
            "fetch.wait.max.ms": 60_000,
            "log_level": 0,
        }
        | {"socket.timeout.ms": 70_000}
    )
    consumer.assign([TopicPartition("t", 0, OFFSET_BEGINNING)])
    message = consumer.poll(30)
    assert message is not None
    assert message.value() == b"x"
    assert running.stop() == 0
    assert not any("cut" in line for line in running.errors)


@pytest.mark.parametrize("how", ["await asyncio.Event().wait()", "time.sleep(3600)"], ids=["task", "loop"])
def test_the_stop_ends_in_its_bound_whatever_hangs(spawn: Spawn, how: str) -> None:
    script = HANGING_STOP.format(how=how)
    running = spawn.python("-c", script, "agent", *spawn.defaults("--shutdown-timeout", "1s"))
    running.serving_line()
    assert running.stop() == 0
    running.wait_for_error("not everything ended within 1 s; exiting all the same")


def test_a_second_interrupt_exits_at_once(spawn: Spawn) -> None:
    script = HANGING_STOP.format(how="time.sleep(3600)")
    running = spawn.python("-c", script, "agent", *spawn.defaults("--shutdown-timeout", "1h"))
    running.serving_line()
    running.send(signal.SIGINT)
    running.wait_for_error("stopping, because of SIGINT")
    running.send(signal.SIGINT)
    assert running.wait() == 1
    running.wait_for_error("exiting at once, at the second interrupt")


def test_sigusr1_tells_what_the_agent_is_doing_also_when_the_loop_is_stuck(spawn: Spawn) -> None:
    script = HANGING_STOP.format(how="time.sleep(3600)")
    running = spawn.python("-c", script, "agent", *spawn.defaults("--shutdown-timeout", "1h"))
    running.serving_line()
    running.send(signal.SIGUSR1)
    assert "as SIGUSR1 asks" in json.loads(running.wait_for_error("thread MainThread"))["message"]
    assert "as SIGUSR1 asks" in json.loads(running.wait_for_error("watch_loop_lag"))["message"]
    running.send(signal.SIGTERM)
    running.wait_for_error("it hangs now")
    running.send(signal.SIGUSR1)
    running.wait_for_error("in hang")


LOOP_ERRORS = """
import asyncio, sys
from warp.agent import Agent
from warp.cli.main import main

start = Agent.start

def fail():
    raise KeyError("the same again and again")

async def start_and_fail(self):
    await start(self)
    for _ in range(1000):
        asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)

Agent.start = start_and_fail
raise SystemExit(main(sys.argv[1:]))
"""


def test_an_error_that_reaches_the_loop_is_counted_and_logged_once(spawn: Spawn) -> None:
    running = spawn.python("-c", LOOP_ERRORS, "agent", *spawn.defaults())
    running.serving_line()
    assert "warp_loop_errors_total 1000.0" in running.get("/metrics")[1]
    assert running.stop() == 0
    lines = [json.loads(line) for line in running.errors if "reached the event loop" in line]
    assert len(lines) == 1
    assert "the same again and again" in lines[0]["exception"]


def test_a_stuck_log_pipe_stalls_nobody(spawn: Spawn) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    running = spawn.python("-m", "warp", "agent", *spawn.defaults("--log-level", "debug"), stderr=writer)
    running.serving_line()
    producer = Producer({"bootstrap.servers": running.bootstrap})
    producer.produce("t", b"x")
    assert producer.flush(30) == 0
    assert running.get("/v1/ready")[0] == 200
    assert running.stop() == 0
    os.close(reader)
    os.close(writer)


def test_a_closed_log_pipe_stalls_nobody_and_is_counted(spawn: Spawn) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    running = spawn.python("-m", "warp", "agent", *spawn.defaults(), stderr=writer)
    running.serving_line()
    metrics = running.get("/metrics")[1]
    dropped = next(line for line in metrics.splitlines() if line.startswith("warp_log_lines_dropped_total"))
    assert float(dropped.split()[1]) > 0
    assert running.stop() == 0
    os.close(writer)


def test_an_object_store_that_is_gone_makes_the_agent_not_ready_but_alive(spawn: Spawn) -> None:
    running = spawn.agent()
    shutil.rmtree(spawn.data_dir / "objects")
    (spawn.data_dir / "objects").write_text("")
    code, body = running.get("/v1/ready")
    assert code == 503
    reasons = json.loads(body)["reasons"]
    assert len(reasons) == 1
    assert reasons[0].startswith("object store: ")
    assert running.get("/v1/status")[0] == 200
    assert "warp_ready 0.0" in running.get("/metrics")[1]


def test_a_terminal_gets_lines_for_people(spawn: Spawn) -> None:
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "warp", "agent", *spawn.defaults()],
        stdout=subprocess.PIPE, stderr=terminal, env=environment(), cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(terminal)
    try:
        assert process.stdout is not None
        assert b"serves Kafka" in process.stdout.readline()
        shown = os.read(controller, 65536).decode()
        assert "INFO    agent: at most" in shown
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()
    finally:
        process.kill()
        process.wait(60)
        os.close(controller)
