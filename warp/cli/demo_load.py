"""The demo's producer and its consumer, a member of a group: two threads with a client each, and what they measure.

Every record carries its number and the time of its sending, so the consumer can tell latency, order and completeness.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from warp.cli.client import ClientError
from warp.units import approximate_size

HEADER: Final = struct.Struct(">Qd")
"""Number of the record, and the monotonic time of its sending."""
TICK_S: Final = 0.02
LATENCIES_MAX: Final = 100_000
CATCH_UP_S: Final = 10.0
JOIN_S: Final = 30.0
GROUP: Final = "warp-demo"
COMMIT_INTERVAL_MS: Final = 500
RECORD_BYTES_MAX: Final = 1_000_000


@dataclass(slots=True)
class Counts:
    """What happened so far."""

    produced: int = 0
    produced_bytes: int = 0
    consumed: int = 0
    consumed_bytes: int = 0
    committed: int = 0
    failed: int = 0
    misplaced: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in one interval."""

    seconds: float
    produced_per_s: float
    produced_bytes_per_s: float
    consumed_per_s: float
    consumed_bytes_per_s: float
    lag: int
    consumed_total: int
    committed_total: int
    latencies_s: list[float] = field(default_factory=list)

    def latency_ms(self, share: float) -> float:
        """The latency that this share of the interval's records stayed below; 0 when there were none."""
        return quantile(self.latencies_s, share) * 1000

    def text(self) -> str:
        """One line for pipes and files."""
        produced, consumed = map(approximate_size, (self.produced_bytes_per_s, self.consumed_bytes_per_s))
        return (
            f"{self.seconds:6.1f} s  produced {self.produced_per_s:,.0f}/s ({produced}/s)  "
            f"consumed {self.consumed_per_s:,.0f}/s ({consumed}/s)  latency p50 {self.latency_ms(0.5):.1f} ms, "
            f"p99 {self.latency_ms(0.99):.1f} ms  lag {self.lag}  committed {self.committed_total:,}"
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of it all."""

    seconds: float
    counts: Counts
    latencies_s: list[float]

    @property
    def is_incomplete(self) -> bool:
        """True when not every acknowledged record came back, once and in order, and was committed."""
        counts = self.counts
        return bool(
            counts.failed or counts.misplaced or not counts.produced == counts.consumed == counts.committed
        )

    def text(self) -> str:
        """A few words for the end."""
        counts = self.counts
        fate = f"each came back once, in order, and group {GROUP!r} has committed them"
        if self.is_incomplete:
            fate = f"{counts.consumed:,} came back, {counts.misplaced:,} of them out of place"
            fate += f", {counts.failed:,} were not stored; group {GROUP!r} has committed {counts.committed:,}"
        size = approximate_size(counts.produced_bytes)
        p50, p99 = (quantile(self.latencies_s, share) * 1000 for share in (0.5, 0.99))
        return (
            f"In {self.seconds:.1f} s {counts.produced:,} records ({size}) were stored durably; {fate}.\n"
            f"From send to receive: p50 {p50:.1f} ms, p99 {p99:.1f} ms."
        )


class Load:
    """Produces at a steady rate and consumes what comes. Threads: one per client; counts are read by a third."""

    def __init__(self, bootstrap: str, topic: str, *, rate: int, record_bytes: int) -> None:
        self._topic = topic
        self._rate = rate
        self._padding = bytes(max(0, min(record_bytes, RECORD_BYTES_MAX) - HEADER.size))
        self._counts = Counts()
        self._began = time.monotonic()
        self._last = (self._began, Counts())
        self._recent: deque[float] = deque(maxlen=LATENCIES_MAX)
        self._all: deque[float] = deque(maxlen=LATENCIES_MAX)
        self._has_joined = threading.Event()
        self._ended = threading.Event()
        self._failure: str | None = None
        common: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "client.id": "warp-demo",
            "log_level": 0,
        }
        self._admin = AdminClient(common)
        self._producer = Producer({**common, "linger.ms": 2, "enable.idempotence": True})
        self._consumer = Consumer(
            {
                **common,
                "group.id": GROUP,
                "auto.offset.reset": "earliest",
                "auto.commit.interval.ms": COMMIT_INTERVAL_MS,
                "enable.auto.offset.store": False,
                "on_commit": self._committed,
            }
        )
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"demo-{name}", daemon=True)
            for name, work in (("produce", self._produce), ("consume", self._consume))
        ]

    def start(self) -> None:
        """Make the topic, have the consumer join its group, then produce. Raises ClientError."""
        made = self._admin.create_topics([NewTopic(self._topic, 1, 1)], request_timeout=CATCH_UP_S)
        try:
            made[self._topic].result()
        except KafkaException as error:
            raise ClientError(f"can't make the topic {self._topic}: {error}") from error
        producing, consuming = self._threads
        consuming.start()
        self._wait_for_group()
        self._began = time.monotonic()
        self._last = (self._began, Counts())
        producing.start()

    def require_alive(self) -> None:
        """Raises ClientError when one of the clients has given up."""
        if self._failure is not None:
            raise ClientError(self._failure)

    def sample(self) -> Sample:
        """What happened since the last sample."""
        now, counts = time.monotonic(), self._copy()
        then, before = self._last
        self._last = (now, counts)
        seconds = max(now - then, 1e-6)
        latencies = sorted(self._recent.popleft() for _ in range(len(self._recent)))
        return Sample(
            seconds=now - self._began,
            produced_per_s=(counts.produced - before.produced) / seconds,
            produced_bytes_per_s=(counts.produced_bytes - before.produced_bytes) / seconds,
            consumed_per_s=(counts.consumed - before.consumed) / seconds,
            consumed_bytes_per_s=(counts.consumed_bytes - before.consumed_bytes) / seconds,
            lag=max(0, counts.produced - counts.consumed),
            consumed_total=counts.consumed,
            committed_total=counts.committed,
            latencies_s=latencies,
        )

    def stop(self) -> Summary:
        """End the producer, let the consumer catch up, commit and leave its group. Also when `start` has failed."""
        seconds = time.monotonic() - self._began
        self._ended.set()
        for thread, limit_s in zip(self._threads, (CATCH_UP_S, 2 * CATCH_UP_S), strict=True):
            if thread.ident is not None:
                thread.join(limit_s)
        return Summary(seconds, self._copy(), sorted(self._all))

    def _wait_for_group(self) -> None:
        deadline = time.monotonic() + JOIN_S
        while not self._has_joined.wait(TICK_S):
            self.require_alive()
            if time.monotonic() > deadline:
                raise ClientError(f"the consumer got no partition from group {GROUP} within {JOIN_S:g} s")

    def _copy(self) -> Counts:
        return replace(self._counts)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (KafkaException, ClientError) as error:
            self._failure = f"the demo's client failed: {error}"
            self._ended.set()

    def _produce(self) -> None:
        number = 0
        began = time.monotonic()
        while not self._ended.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while number < due and not self._ended.is_set():
                value = HEADER.pack(number, time.monotonic()) + self._padding
                try:
                    self._producer.produce(self._topic, value, partition=0, on_delivery=self._delivered)
                except BufferError:
                    self._producer.poll(TICK_S)
                    continue
                number += 1
                if number % 100 == 0:
                    self._producer.poll(0)
            self._producer.poll(TICK_S)
        self._producer.flush(CATCH_UP_S)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._counts.failed += 1
            return
        self._counts.produced += 1
        self._counts.produced_bytes += len(message.value() or b"")

    def _consume(self) -> None:
        self._consumer.subscribe([self._topic], on_assign=lambda *_: self._has_joined.set())
        deadline = None
        while True:
            # One by one: to ask for several is to wait until so many are there.
            message = self._consumer.poll(TICK_S)
            if message is not None:
                self._take(message)
            if self._ended.is_set():
                deadline = deadline or time.monotonic() + CATCH_UP_S
                is_done = not self._threads[0].is_alive() and self._counts.consumed >= self._counts.produced
                if is_done or time.monotonic() > deadline:
                    break
        self._leave()

    def _leave(self) -> None:
        """Commit the rest, so that the next one would go on from there, and leave the group."""
        if self._counts.consumed > self._counts.committed:
            self._committed(None, self._consumer.commit(asynchronous=False))
        self._consumer.close()

    def _committed(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """The client library has committed, of itself or because it was asked to."""
        for place in places:
            if error is None and place.error is None and place.offset >= 0:
                self._counts.committed = place.offset

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if not error.retriable():
                raise KafkaException(error)
            return
        value = message.value() or b""
        number, sent_at = HEADER.unpack_from(value)
        latency_s = time.monotonic() - sent_at
        self._recent.append(latency_s)
        self._all.append(latency_s)
        if number != self._counts.consumed:
            self._counts.misplaced += 1
        self._counts.consumed += 1
        self._counts.consumed_bytes += len(value)
        self._consumer.store_offsets(message)


def quantile(ordered: list[float], share: float) -> float:
    """The value that this share of an ordered list stays below; 0 for an empty one."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
