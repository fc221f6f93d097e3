"""librdkafka's clients at work on a cluster: idempotent producers, and consumers that share a group."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.support.raw_load import Score

QUICK: Mapping[str, Any] = {
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 300,
    "socket.timeout.ms": 6_000,
    "log_level": 2,
}
"""They notice an agent's end sooner than by default, and say nothing of it."""
PRODUCE_EVERY_S = 0.02
JOIN_S = 60.0
COMMIT_EVERY_S = 0.2


class ClientWriter:
    """Numbers its records from 0, and is the only one to write to its partition."""

    def __init__(self, bootstrap: str, zone: str, topic: str, partition: int) -> None:
        self.score = Score(f"producer of partition {partition}")
        self.partition = partition
        self.count = 0
        """Records sent."""
        self._topic = topic
        self._acknowledged = 0
        self._stopping = threading.Event()
        settings = {
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 2,
            "client.id": f"writer-{partition},warp_az={zone}", "message.timeout.ms": 120_000, **QUICK,
        }  # fmt: skip
        self._producer = Producer(settings)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait for all answers."""
        self.abandon()
        left = self._producer.flush(JOIN_S)
        if left or self._acknowledged != self.count:
            self.score.complain(f"{self._acknowledged} of {self.count} were acknowledged")

    def abandon(self) -> None:
        """Send no more."""
        self._stopping.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for _ in range(3):
                value = b"%d" % self.count
                self._producer.produce(
                    self._topic, value, partition=self.partition, on_delivery=self._delivered
                )
                self.count += 1
            self._producer.poll(PRODUCE_EVERY_S)
            self._stopping.wait(PRODUCE_EVERY_S)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.score.complain(f"record {self._acknowledged}: {error}")
            return
        if message.offset() != int(message.value() or b"-1"):
            place = f"offset {message.offset()}"
            self.score.complain(f"{message.value()!r} is at {place}")
        self._acknowledged += 1
        self.score.succeed()


class GroupReader:
    """A member of a group. `seen` are the offsets of each partition that came to it.

    It waits for each of its commits: one that librdkafka repeats by itself can come after a later one, and what is
    committed then goes back, rightly.
    """

    def __init__(self, bootstrap: str, zone: str, topic: str, group: str, number: int) -> None:
        self.score = Score(f"consumer {number} of {group}")
        self.seen: dict[int, set[int]] = {}
        self._next: dict[int, int] = {}
        self._stopping = threading.Event()
        settings = {
            "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
            "client.id": f"reader-{number},warp_az={zone}", "fetch.wait.max.ms": 200, "check.crcs": True,
            "enable.auto.commit": False, "session.timeout.ms": 10_000, "heartbeat.interval.ms": 500, **QUICK,
        }  # fmt: skip
        self._consumer = Consumer(settings)
        self._consumer.subscribe([topic], on_assign=self._assigned)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Commit, and leave the group."""
        self._stopping.set()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            self.score.complain("does not end")

    def _assigned(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._next.clear()

    def _run(self) -> None:
        committed_s = time.monotonic()
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, 0.1):
                self._take(message)
            if time.monotonic() > committed_s + COMMIT_EVERY_S:
                self._commit()  # what fails is in the next one
                committed_s = time.monotonic()
        if (error := self._commit()) is not None:
            self.score.complain(f"the last commit: {error}")
        self._consumer.close()

    def _commit(self) -> KafkaException | None:
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            return None if error.args[0].code() == KafkaError._NO_OFFSET else error
        return None

    def _take(self, message: Message) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None or partition is None or offset is None:
            self.score.complain(f"{error}")
            return
        if message.value() != b"%d" % offset or offset != self._next.get(partition, offset):
            self.score.complain(
                f"{message.value()!r} came at offset {offset} of partition {partition}, "
                f"expected was offset {self._next.get(partition)}"
            )
        self._next[partition] = offset + 1
        self.seen.setdefault(partition, set()).add(offset)
        self.score.succeed()


def wait_until_seen(readers: Sequence[GroupReader], counts: Mapping[int, int], timeout_s: float) -> None:
    """Wait until a group has seen every record; who is missing is noted by the first of them."""
    deadline_s = time.monotonic() + timeout_s
    while missing := _missing(readers, counts):
        if time.monotonic() > deadline_s:
            readers[0].score.complain(f"the group has not seen, by partition: {missing}")
            return
        time.sleep(0.05)


def _missing(readers: Sequence[GroupReader], counts: Mapping[int, int]) -> dict[int, list[int]]:
    """The first offsets of each partition that nobody has seen."""
    found = {}
    for partition, count in counts.items():
        seen: set[int] = set()
        for reader in readers:
            seen |= reader.seen.get(partition, set()).copy()
        if missing := sorted(set(range(count)) - seen)[:5]:
            found[partition] = missing
    return found
