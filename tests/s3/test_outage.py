"""The store goes away and comes back: real clients wait, nothing acknowledged is lost, and they go on by themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.faults.test_kill import PARTITIONS, Load, assert_all_is_there
from tests.s3.conftest import AnyServer
from tests.support.fault_plan import ACCESS_DENIED, NO_SUCH_BUCKET, SLOW_DOWN, Fault, Hang, Moment
from tests.support.fault_proxy import FaultProxy
from tests.support.process import AgentProcess
from tests.support.s3 import environment_of

PATIENCE_S = 60.0
FAULTS: tuple[Fault, ...] = (SLOW_DOWN, ACCESS_DENIED, NO_SUCH_BUCKET, Hang(), Hang(Moment.AFTER_SERVER))


@pytest.fixture
def agent(server: AnyServer, store_url: str, tmp_path: Path) -> Iterator[AgentProcess]:
    """A process on S3 that gives up soon on requests."""
    url = f"{store_url}&read_timeout=500ms&connect_timeout=500ms&attempts=2"
    options = ["--object-store", url, "--flush-interval", "20ms"]
    environment = environment_of(server.credentials)
    with AgentProcess(tmp_path / "data", *options, environment=environment) as process:
        yield process


@pytest.fixture
def load(agent: AgentProcess) -> Iterator[Load]:
    """A producer that is at work, and already has acknowledgements."""
    admin = AdminClient({"bootstrap.servers": agent.bootstrap})
    admin.create_topics([NewTopic("survivor", PARTITIONS, 1)])["survivor"].result(30)
    made = Load(agent.bootstrap, "survivor")
    try:
        wait_until(lambda: made.acknowledged > 100, "no record was acknowledged")
        yield made
    finally:
        made.finish()


def wait_until(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)


def failed_puts(agent: AgentProcess) -> int:
    """How many PUTs the agent has complained about."""
    return sum("PUT of" in line and "failed" in line for line in list(agent.output))


def wait_for_trouble(agent: AgentProcess) -> None:
    before = failed_puts(agent)
    wait_until(lambda: failed_puts(agent) > before + 2, "no PUT failed")


def wait_for_progress(load: Load) -> None:
    # What was under way may still be acknowledged; it takes more to show that new records are.
    before = load.acknowledged
    wait_until(lambda: load.acknowledged > before + 500, "producers did not go on")


class Follower:
    """A consumer of one partition in a thread of its own, at work all the time."""

    def __init__(self, bootstrap: str) -> None:
        self.values: list[bytes] = []
        self._stopping = threading.Event()
        self._consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
            "auto.offset.reset": "error", "reconnect.backoff.max.ms": 200,
        })  # fmt: skip
        self._consumer.assign([TopicPartition("survivor", 0, 0)])
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for message in self._consumer.consume(1000, 0.05):
                if message.error() is None:
                    self.values.append(message.value() or b"")

    def finish(self, count: int) -> list[bytes]:
        """The values so far, once there are `count`, or no more come."""
        try:
            wait_until(lambda: len(self.values) >= count, f"{len(self.values)} of {count} records came")
        finally:
            self._stopping.set()
            self._thread.join()
            self._consumer.close()
        return self.values


@pytest.mark.timeout(300)
def test_a_store_that_vanishes_and_comes_back_costs_nothing_but_time(
    agent: AgentProcess, proxy: FaultProxy, load: Load
) -> None:
    follower = Follower(agent.bootstrap)
    try:
        for _ in range(2):
            proxy.vanish()
            wait_for_trouble(agent)
            proxy.come_back()
            wait_for_progress(load)
    finally:
        load.finish()
        followed = follower.finish(len(range(0, load.sent, PARTITIONS)))
    assert followed == [b"%d" % number for number in range(0, load.sent, PARTITIONS)]
    assert_all_is_there(load, agent.bootstrap)


@pytest.mark.timeout(300)
def test_after_errors_of_every_request_clients_go_on(
    agent: AgentProcess, proxy: FaultProxy, load: Load
) -> None:
    for fault in FAULTS:
        with proxy.failing(fault) as rule:
            wait_for_trouble(agent)
            assert rule.happened > 0, fault
        wait_for_progress(load)
    load.finish()
    assert_all_is_there(load, agent.bootstrap)
