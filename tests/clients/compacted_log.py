"""A table that lives in a compacted topic, as Kafka's own programs keep theirs.

Confluent's schema registry (`KafkaStore`) and the three stores of Kafka Connect (`KafkaBasedLog`) do exactly this: read
the topic to its end at start, follow it from then on in a thread, and count a write as done only when that thread has
read it back. No group takes part and no offset is committed: what is in the topic is all that they remember.
"""

from __future__ import annotations

import threading
import time
from typing import Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

TIMEOUT_S = 60.0
QUICK = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 300, "log_level": 2}


def ensure_topic(bootstrap: str, topic: str, partitions: int, **configs: str) -> None:
    """Create a compacted topic, or see that the one that is there is compacted and has as many partitions.

    Underscores in the names of `configs` stand for dots. Raises AssertionError when the topic is another kind: a
    schema registry refuses to start then.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})
    config = {"cleanup.policy": "compact", **{name.replace("_", "."): text for name, text in configs.items()}}
    try:
        admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
    described = admin.list_topics(topic, TIMEOUT_S).topics[topic]
    assert len(described.partitions or ()) == partitions, described.partitions
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    found = admin.describe_configs([resource])[resource].result(TIMEOUT_S)
    assert found["cleanup.policy"].value == "compact", found["cleanup.policy"].value


class CompactedLog:
    """The table of one topic, read to the end on entry. Use as a context manager.

    `records_read` counts what came over the wire, at start and since, and `tombstones_read` those of it without value.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int = 1) -> None:
        self.topic = topic
        self.records_read = 0
        self.tombstones_read = 0
        self._partitions = partitions
        self._rows: dict[bytes, bytes] = {}
        self._positions = dict.fromkeys(range(partitions), 0)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        common: dict[str, str | int | float | bool] = {"bootstrap.servers": bootstrap, **QUICK}
        # What both programs set: every write waits for its answer, and none is repeated out of order.
        self._admin = AdminClient(common)
        self._producer = Producer({**common, "acks": "all", "max.in.flight": 1, "linger.ms": 0})
        self._consumer = Consumer(
            {
                **common, "group.id": f"{topic}-reader", "enable.auto.commit": False, "check.crcs": True,
                "auto.offset.reset": "error", "isolation.level": "read_committed", "fetch.wait.max.ms": 100,
                "enable.partition.eof": True,
            }
        )  # fmt: skip
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        beginning = [
            TopicPartition(self.topic, number, OFFSET_BEGINNING) for number in range(self._partitions)
        ]
        # A reader that knows the leaders at once asks them at once; librdkafka looks again after half a second.
        self._consumer.list_topics(self.topic, TIMEOUT_S)
        self._consumer.assign(beginning)
        self._thread.start()
        self.read_to_end()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(TIMEOUT_S)
        self._consumer.close()
        assert not self._thread.is_alive(), "the reader does not end"

    def rows(self) -> dict[bytes, bytes]:
        """What the table holds now."""
        with self._changed:
            return dict(self._rows)

    def get(self, key: bytes) -> bytes | None:
        """One row."""
        with self._changed:
            return self._rows.get(key)

    def put(self, key: bytes, value: bytes | None) -> int:
        """Write a row, or with None its tombstone, and wait until it has been read back. Returns its offset."""
        [offset] = self.put_many({key: value})
        return offset

    def put_many(self, rows: dict[bytes, bytes | None]) -> list[int]:
        """Write rows at once and wait until all have been read back. Returns their offsets."""
        answers: list[tuple[KafkaError | None, Message]] = []
        for key, value in rows.items():
            self._producer.produce(self.topic, value, key, on_delivery=lambda *answer: answers.append(answer))
        assert self._producer.flush(TIMEOUT_S) == 0, "not acknowledged"
        places = [
            (message.partition() or 0, message.offset() or 0) for error, message in answers if error is None
        ]
        failed = [str(error) for error, _ in answers if error is not None]
        assert not failed, failed
        self._wait_for({partition: offset + 1 for partition, offset in sorted(places)})
        return [offset for _, offset in places]

    def read_to_end(self) -> None:
        """Wait until all has been read that was in the topic when this was called."""
        self._wait_for({number: self.end_offset(number) for number in range(self._partitions)})

    def end_offset(self, partition: int = 0) -> int:
        """The high watermark as the broker tells it."""
        place = TopicPartition(self.topic, partition)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        found = self._admin.list_offsets({place: latest}, request_timeout=TIMEOUT_S)
        return int(found[place].result(TIMEOUT_S).offset)

    def _wait_for(self, positions: dict[int, int]) -> None:
        def is_reached() -> bool:
            reached = all(self._positions[partition] >= offset for partition, offset in positions.items())
            return reached or self._failure is not None

        with self._changed:
            found = self._changed.wait_for(is_reached, TIMEOUT_S)
            assert self._failure is None, self._failure
            assert found, f"{self.topic}: read up to {self._positions}, not {positions}"

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                if (message := self._consumer.poll(0.05)) is not None:
                    self._take(message)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            raise

    def _take(self, message: Message) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        assert partition is not None, error
        assert offset is not None, error
        with self._changed:
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                # The end is reached though compaction may have taken the records before it.
                self._positions[partition] = max(self._positions[partition], offset)
            elif error is not None:
                raise KafkaException(error)
            else:
                self._apply(message, partition, offset)
            self._changed.notify_all()

    def _apply(self, message: Message, partition: int, offset: int) -> None:
        key, value = message.key(), message.value()
        assert isinstance(key, bytes), f"a record without a key at {partition}:{offset}"
        assert offset >= self._positions[partition], f"offset {offset} after {self._positions[partition]}"
        self.records_read += 1
        self._positions[partition] = offset + 1
        if value is None:
            self.tombstones_read += 1
            self._rows.pop(key, None)
        else:
            self._rows[key] = bytes(value)


def count_records(bootstrap: str, topic: str, partitions: int = 1) -> int:
    """How many records a reader from the beginning meets."""
    with CompactedLog(bootstrap, topic, partitions) as log:
        return log.records_read


def wait_until_compacted(bootstrap: str, topic: str, records_max: int, partitions: int = 1) -> None:
    """Wait until a reader from the beginning meets at most so many records; fail when it never does."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while (found := count_records(bootstrap, topic, partitions)) > records_max:
        assert time.monotonic() < deadline_s, f"{found} records in {topic}, more than {records_max}"
        time.sleep(0.2)
