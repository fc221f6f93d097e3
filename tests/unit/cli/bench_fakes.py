"""What the tests of `warp bench` share: time that only passes when somebody sleeps, and a client library in memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from warp.cli.bench.schedule import NS_PER_S


class FakeTime:
    """A clock in ns; `sleep` lets time pass, and `takes_ns` passes at every look at the clock."""

    def __init__(self, now_ns: int = 0, takes_ns: int = 0) -> None:
        self.now_ns = now_ns
        self.takes_ns = takes_ns

    def clock(self) -> int:
        self.now_ns += self.takes_ns
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += max(1, round(seconds * NS_PER_S))


class FakeProducer:
    """Acknowledges every record after `answer_ns`, or with the error that `fate` gives; none without an answer time."""

    def __init__(self, time: FakeTime, *, answer_ns: int | None, queue_records_max: int = 10**9) -> None:
        self.time = time
        self.answer_ns = answer_ns
        self.queue_records_max = queue_records_max
        self.fate: Callable[[int], KafkaError | None] = lambda number: None
        self.waiting = 0
        self.sent: list[tuple[bytes, bytes | None]] = []
        self._queue: list[tuple[int, int, Callable[..., None]]] = []

    def produce(
        self, topic: str, value: bytes, key: bytes | None, partition: int, on_delivery: Callable[..., None], /
    ) -> None:
        if len(self._queue) >= self.queue_records_max:
            raise BufferError
        self.sent.append((value, key))
        at_ns = 2**63 if self.answer_ns is None else self.time.now_ns + self.answer_ns
        heapq.heappush(self._queue, (at_ns, len(self.sent) - 1, on_delivery))

    def poll(self, timeout: float, /) -> int:
        until_ns = self.time.now_ns + round(timeout * NS_PER_S)
        called = 0
        while self._queue and self._queue[0][0] <= until_ns:
            at_ns, number, on_delivery = heapq.heappop(self._queue)
            self.time.now_ns = max(self.time.now_ns, at_ns)
            on_delivery(self.fate(number), None)
            called += 1
            until_ns = self.time.now_ns
        self.time.now_ns = max(self.time.now_ns, until_ns)
        return called

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        """The last `waiting` records are in the queue, the others on their way."""
        assert (in_queue, in_flight) == (True, False)
        self._queue.sort()
        given_up = self._queue[len(self._queue) - self.waiting :]
        del self._queue[len(self._queue) - self.waiting :]
        for _, number, on_delivery in given_up:
            heapq.heappush(self._queue, (self.time.now_ns, -number, self._given_up(on_delivery)))

    @staticmethod
    def _given_up(on_delivery: Callable[..., None]) -> Callable[..., None]:
        return lambda _error, message: on_delivery(KafkaError(KafkaError._PURGE_QUEUE), message)

    def __len__(self) -> int:
        return len(self._queue)


class FakeMessage:
    def __init__(
        self,
        value: bytes = b"",
        *,
        key: bytes | None = None,
        partition: int = 0,
        offset: int = 0,
        error: KafkaError | None = None,
    ) -> None:
        self._value, self._key, self._partition, self._offset, self._error = (
            value,
            key,
            partition,
            offset,
            error,
        )

    def value(self) -> bytes:
        return self._value

    def key(self) -> bytes | None:
        return self._key

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def error(self) -> KafkaError | None:
        return self._error

    def __len__(self) -> int:
        return len(self._value)


def end_of_partition(partition: int, offset: int) -> FakeMessage:
    return FakeMessage(partition=partition, offset=offset, error=KafkaError(KafkaError._PARTITION_EOF))


class FakeConsumer:
    """Hands over `messages`, each when its time has come: (ns, message)."""

    def __init__(self, time: FakeTime, messages: Sequence[tuple[int, FakeMessage]]) -> None:
        self.time = time
        self.assigned: list[TopicPartition] | None = None
        self.assigned_at_ns = -1
        self._messages = list(messages)
        self._positions: dict[int, int] = {}

    def assign(self, partitions: list[TopicPartition], /) -> None:
        self.assigned = partitions
        self.assigned_at_ns = self.time.now_ns

    def poll(self, timeout: float, /) -> Any:
        until_ns = self.time.now_ns + round(timeout * NS_PER_S)
        if self.assigned is not None and self._messages and self._messages[0][0] <= until_ns:
            self.time.now_ns = max(self.time.now_ns, self._messages[0][0])
            return self._take()
        self.time.now_ns = max(self.time.now_ns + 1, until_ns)
        return None

    def consume(self, num_messages: int, timeout: float) -> list[Any]:
        assert timeout == 0
        found: list[Any] = []
        while self._messages and self._messages[0][0] <= self.time.now_ns and len(found) < num_messages:
            found.append(self._take())
        return found

    def position(self, partitions: list[TopicPartition], /) -> list[TopicPartition]:
        return [
            TopicPartition(asked.topic, asked.partition, self._positions.get(asked.partition, -1001))
            for asked in partitions
        ]

    def _take(self) -> FakeMessage:
        message = self._messages.pop(0)[1]
        if message.error() is None:
            self._positions[message.partition()] = message.offset() + 1
        return message
