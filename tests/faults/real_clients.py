"""librdkafka's clients in threads of their own: idempotent producers, and consumers that share a group."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.faults.caller import Score
from tests.faults.topics import GROUP, Topic
from tests.support.client_load import QUICK
from tests.verifier import Partition, Recorder
from tests.verifier.adapters.confluent import RecordedConsumer, RecordedProducer

CODECS = ("none", "lz4", "zstd", "gzip", "snappy")
BURST_MAX = 5
POLL_S = 0.02
COMMIT_EVERY_S = 0.3
QUEUE_MAX = 2_000
"""Records that wait while nothing goes on; then no more are made."""
JOIN_S = 20.0


class Worker:
    """A thread that goes round until it is told to stop."""

    def __init__(self, name: str) -> None:
        self.score = Score(name)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Go round no more; `join` waits for it."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            self.score.complain("does not end")

    def pause(self, seconds: float) -> None:
        """Or until told to stop."""
        self._stopping.wait(seconds)

    def _run(self) -> None:
        try:
            self.work()
        except BaseException as error:
            self.score.complain(f"has failed: {error!r}")
            raise

    def work(self) -> None:
        """Until `is_stopping`."""
        raise NotImplementedError


class RealProducer(Worker):
    """Idempotent, with up to five requests under way; its records go to all partitions of a topic."""

    def __init__(
        self,
        recorder: Recorder,
        number: int,
        bootstrap: str,
        topic: Topic,
        source: random.Random,
        rate: float,
    ) -> None:
        super().__init__(f"producer-{number}")
        self._places = topic.places
        self._source = source
        self._rate = rate
        self._made = 0
        settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5,
            "client.id": f"producer-{number},warp_az=zone-{number % 2}", "message.timeout.ms": 120_000,
            "compression.type": CODECS[number % len(CODECS)], **QUICK,
        }  # fmt: skip
        self._producer = RecordedProducer(recorder, settings, self.score.name)

    def work(self) -> None:
        while not self.is_stopping:
            for _ in range(self._source.randint(1, BURST_MAX)):
                if self._made - self._producer.acknowledged < QUEUE_MAX:
                    self._send()
            self._producer.poll(POLL_S)
            self.score.done = self._producer.acknowledged
            self.pause(self._source.uniform(0, (BURST_MAX + 1) / self._rate))

    @property
    def acknowledged(self) -> int:
        """Records."""
        return self._producer.acknowledged

    def finish(self, timeout_s: float) -> None:
        """Wait for all answers."""
        left = self._producer.flush(timeout_s)
        if left:
            self.score.complain(f"{left} records were not acknowledged within {timeout_s:g} s")
            self._producer.purge()
        for failure in self._producer.failures[:5]:
            self.score.complain(f"a record was refused: {failure}")

    def _send(self) -> None:
        place = self._source.choice(self._places)
        value = b"%s %d" % (self.score.name.encode(), self._made)
        self._made += 1
        self._producer.send(place, None, value, int(time.time() * 1000))


class RealConsumer(Worker):
    """A member of the group of readers. Some leave now and then, and come back."""

    def __init__(
        self,
        recorder: Recorder,
        number: int,
        bootstrap: str,
        topic: Topic,
        source: random.Random,
        seen: set[tuple[Partition, int]],
    ) -> None:
        super().__init__(f"consumer-{number}")
        self._recorder = recorder
        self._source = source
        self._topics = [topic.name]
        self._seen = seen
        self._settings: Mapping[str, Any] = {
            "bootstrap.servers": bootstrap, "group.id": GROUP, "auto.offset.reset": "earliest",
            "client.id": f"consumer-{number},warp_az=zone-{number % 2}", "fetch.wait.max.ms": 200,
            "check.crcs": True, "enable.auto.commit": False, "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 500, "enable.auto.offset.store": False, **QUICK,
        }  # fmt: skip

    def work(self) -> None:
        life = 0
        while not self.is_stopping:
            life += 1
            stays_s = self._source.uniform(8, 40)
            self._live(f"{self.score.name}.{life}", time.monotonic() + stays_s)

    def _live(self, name: str, until_s: float) -> None:
        consumer = RecordedConsumer(self._recorder, self._settings, name, self._topics, self._seen)
        committed_s = time.monotonic()
        while not self.is_stopping and time.monotonic() < until_s:
            self.score.done += consumer.take(0.1, self.score.complain)
            if time.monotonic() > committed_s + COMMIT_EVERY_S:
                consumer.commit()
                committed_s = time.monotonic()
        consumer.commit()
        consumer.close()


def until(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.05) -> bool:
    """Wait for it. False when it does not come about in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(poll_s)
    return True
