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
from tests.verifier import Partition, Recorder, Stream, judge

KILLS = 6
PARTITIONS = 3


class Load:
    """An idempotent producer in a thread of its own that numbers its records, and tells the verifier of each."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._stopping = threading.Event()
        self.recorder = Recorder(time.monotonic)
        self.places = [Partition(topic, number) for number in range(PARTITIONS)]
        self.acknowledged = 0
        self.failures: list[KafkaError] = []
        self.sent = 0
        self._producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2,
            "message.timeout.ms": 120_000, "reconnect.backoff.max.ms": 200, "topic.metadata.refresh.interval.ms": 500,
        })  # fmt: skip
        self._streams = [self.recorder.stream(place, "load") for place in self.places]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for _ in range(50):
                self._send(self._streams[self.sent % PARTITIONS], self.sent % PARTITIONS)
                self.sent += 1
            self._producer.poll(0.01)

    def _send(self, stream: Stream, partition: int) -> None:
        value = b"%d" % self.sent
        number = stream.sent(None, value)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.acknowledged += 1
                stream.delivered(number, message.offset())
            else:
                self.failures.append(error)
                stream.failed(number)

        self._producer.produce(self._topic, value, partition=partition, on_delivery=delivered)

    def finish(self) -> None:
        """Stops producing and waits until everything that was sent has its answer. May be called again."""
        self._stopping.set()
        self._thread.join()
        assert self._producer.flush(120) == 0


def assert_all_is_there(load: Load, bootstrap: str) -> None:
    """Everything that was sent was acknowledged, and can be read once, in order, where the acknowledgement said."""
    assert not load.failures
    assert load.acknowledged == load.sent
    back = load.recorder.readback("agent")
    for place in load.places:
        count = len(range(place.number, load.sent, PARTITIONS))
        log = back.log(place, 0, count)
        for message in read_partition(bootstrap, place.topic, count, place.number, timeout_s=120):
            offset, key, value = message.offset(), message.key(), message.value()
            assert offset is not None
            assert not isinstance(key, str)
            assert not isinstance(value, str)
            log.add(offset, key, value)
    verdict = judge(load.recorder.history, [back])
    assert not verdict.violations, verdict.report()
    for check in (
        "acknowledged records are there",
        "once with idempotence",
        "order of producers",
        "offsets are dense",
    ):
        assert verdict.figures.checks[check] >= load.sent, verdict.report()


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
            before = load.acknowledged
            deadline = time.monotonic() + 60
            while load.acknowledged < before + 500 and time.monotonic() < deadline:
                time.sleep(source.uniform(0.01, 0.1))
            agent.kill()
            agent.start()
    finally:
        load.finish()
    assert_all_is_there(load, agent.bootstrap)
