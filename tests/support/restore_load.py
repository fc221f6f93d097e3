"""A load whose every record is another one, and what is left of it: for tests that lose metadata under it."""

from __future__ import annotations

import threading
import time

from confluent_kafka import Consumer, Message, Producer, TopicPartition

TOPIC = "orders"
PARTITIONS = 3
WAITING_MAX = 100


class Load:
    """Produces records that are all different until it is told to stop, and knows when and where each was taken."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5,
                "message.timeout.ms": 60_000, "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )  # fmt: skip
        self._flush_s = 60.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: dict[str, tuple[int, int, float]] = {}
        """Per value its partition, its offset, and when that was known."""

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._flush_s = 0.0
        self._is_over.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.acknowledged) < count:
            assert time.monotonic() < deadline, f"{len(self.acknowledged)} of {count}"
            time.sleep(0.01)

    def _run(self) -> None:
        number = 0
        while not self._is_over.wait(0.005):
            # While nobody takes any, no more are waiting than those.
            for _ in range(5 if len(self._producer) < WAITING_MAX else 0):
                number += 1
                self._producer.produce(
                    TOPIC, f"v{number}".encode(), f"k{number}".encode(), callback=self._told
                )
            self._producer.poll(0)
        self._producer.flush(self._flush_s)

    def _told(self, error: object, message: Message) -> None:
        if error is None:
            value, partition, offset = message.value(), message.partition(), message.offset()
            assert isinstance(value, bytes)
            assert partition is not None
            assert offset is not None
            self.acknowledged[value.decode()] = (partition, offset, time.monotonic())


def consumed(bootstrap: str) -> dict[tuple[int, int], str]:
    """All records of the topic that are there when it begins, by partition and offset, and perhaps some later ones."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.partition.eof": True,
         "auto.offset.reset": "error", "enable.auto.commit": False}
    )  # fmt: skip
    deadline = time.monotonic() + 30
    # An agent that has just started may not be told of to clients yet.
    while len(consumer.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions) < PARTITIONS:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ends = [consumer.get_watermark_offsets(TopicPartition(TOPIC, p), 30) for p in range(PARTITIONS)]
    consumer.assign([TopicPartition(TOPIC, p, start) for p, (start, _) in enumerate(ends)])
    found: dict[tuple[int, int], str] = {}
    # While others write, a consumer may never be told that it is at the end; and where nobody does, the last offsets of
    # a partition may be without records.
    reading = {p for p, (start, end) in enumerate(ends) if start < end}
    while reading:
        message = consumer.poll(30)
        assert message is not None, f"nothing for 30 s after {len(found)} records"
        partition, offset, value = message.partition(), message.offset(), message.value()
        assert partition is not None
        if message.error():
            assert str(message.error()).find("_PARTITION_EOF") >= 0, message.error()
            reading.discard(partition)
            continue
        assert offset is not None
        assert isinstance(value, bytes)
        found[partition, offset] = value.decode()
        if offset + 1 >= ends[partition][1]:
            reading.discard(partition)
    consumer.close()
    return found
