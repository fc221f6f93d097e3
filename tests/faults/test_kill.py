"""kill -9 in a loop under load: every acknowledged record is there once and in order afterwards (P1, P3, P4, P6)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.test_confluent import read_partition
from tests.support.process import AgentProcess

KILLS = 6
PARTITIONS = 3


def place_of(message: Message) -> tuple[int, int]:
    """Partition and offset."""
    partition, offset = message.partition(), message.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


class Load:
    """An idempotent producer in a thread of its own that numbers its records and remembers what was acknowledged."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._stopping = threading.Event()
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.moved: list[str] = []
        self.failures: list[KafkaError] = []
        self.sent = 0
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2,
            "message.timeout.ms": 120_000, "reconnect.backoff.max.ms": 200, "topic.metadata.refresh.interval.ms": 500,
        })  # fmt: skip
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(error)
            return
        place, value = place_of(message), message.value() or b""
        if self.acknowledged.setdefault(place, value) != value:
            self.moved.append(f"two records were acknowledged at {place}")

    def _run(self) -> None:
        while not self._stopping.is_set():
            for _ in range(50):
                value = b"%d" % self.sent
                self._producer.produce(
                    self._topic, value, partition=self.sent % PARTITIONS, on_delivery=self._delivered
                )
                self.sent += 1
            self._producer.poll(0.01)

    def finish(self) -> None:
        """Stops producing and waits until everything that was sent has its answer. May be called again."""
        self._stopping.set()
        self._thread.join()
        assert self._producer.flush(120) == 0


def assert_all_is_there(load: Load, bootstrap: str, topic: str) -> None:
    """Everything that was sent was acknowledged, and can be read once, in order, where the acknowledgement said."""
    assert not load.failures
    assert not load.moved
    assert len(load.acknowledged) == load.sent
    for partition in range(PARTITIONS):
        expected = [b"%d" % number for number in range(partition, load.sent, PARTITIONS)]
        messages = read_partition(bootstrap, topic, len(expected), partition, timeout_s=120)
        assert [m.value() for m in messages] == expected
        assert [m.offset() for m in messages] == list(range(len(expected)))
        for message in messages:
            assert load.acknowledged[place_of(message)] == message.value()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path / "data") as process:
        yield process


@pytest.mark.timeout(300)
def test_acknowledged_records_survive_kills_once_and_in_order(agent: AgentProcess) -> None:
    admin = AdminClient({"bootstrap.servers": agent.bootstrap})
    admin.create_topics([NewTopic("killed", PARTITIONS, 1)])["killed"].result(30)
    source = random.Random(1)
    load = Load(agent.bootstrap, "killed")
    try:
        for _ in range(KILLS):
            before = len(load.acknowledged)
            deadline = time.monotonic() + 60
            while len(load.acknowledged) < before + 500 and time.monotonic() < deadline:
                time.sleep(source.uniform(0.01, 0.1))
            agent.kill()
            agent.start()
    finally:
        load.finish()
    assert_all_is_there(load, agent.bootstrap, "killed")
