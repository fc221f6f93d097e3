"""A producer worker: sends by a schedule, or as fast as it can, and counts what becomes of every record.

With a schedule two threads share the work: one sends when records are due, the other has the library's callbacks called
the moment that answers are there. At full speed one thread does both: two would fight for the interpreter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, Message

from warp.cli.bench.intervals import Tally
from warp.cli.bench.payloads import KEY_BYTES, STAMP, make_keys, make_payloads
from warp.cli.bench.schedule import NS_PER_S, ClientLag, Schedule
from warp.cli.bench.tasks import Interval, ProducerTask

BURST: Final = 64
"""Records sent between two looks at the clock at full speed."""
TICK_S: Final = 0.0005
"""The shortest sleep: with more than 2,000 records/s a few are sent at a time."""
SLEEP_S_MAX: Final = 0.05
LAST_MOMENTS_NS: Final = NS_PER_S // 10
"""After the end so long is left for sending what was due before it."""
POLL_S_MAX: Final = 0.1
QUEUE_FULL_WAIT_S: Final = 0.001
ANY_PARTITION: Final = -1


class ProducerLike(Protocol):
    """What is used of confluent_kafka.Producer."""

    def produce(
        self, topic: str, value: bytes, key: bytes | None, partition: int, on_delivery: Callable[..., None], /
    ) -> None:
        """Queue a record. Raises BufferError when the queue is full."""

    def poll(self, timeout: float, /) -> int:
        """Have callbacks called."""

    def purge(self) -> None:
        """Give up what is queued."""

    def __len__(self) -> int:
        """Records without an answer."""


class Producing:
    """One run. `clock_ns` and `sleep_s` belong together; `emit` gets the intervals."""

    def __init__(
        self,
        task: ProducerTask,
        producer: ProducerLike,
        *,
        clock_ns: Callable[[], int],
        sleep_s: Callable[[float], None],
        cpu_s: Callable[[], float],
        emit: Callable[[Interval], None],
    ) -> None:
        self._task = task
        self._producer = producer
        self._clock = clock_ns
        self._sleep = sleep_s
        self._cpu = cpu_s
        self._emit = emit
        self._payloads = make_payloads(
            task.record_bytes - (STAMP.size if task.run_id is not None else 0), task.compressible, task.seed
        )
        self._keys: list[bytes] | None = make_keys(task.keys) if task.keys else None
        self._record_bytes = task.record_bytes + (KEY_BYTES if task.keys else 0)
        self._tally: Tally | None = None
        self._is_stopped = False
        self._acknowledged = 0
        self._failed = 0
        self.sent = 0
        self.lag = ClientLag()

    def run(self, start_ns: int) -> dict[str, Any]:
        """Send from `start_ns` on and wait for the answers; what there is to tell at the end.

        Raises KafkaException when the library refuses a record.
        """
        task = self._task
        begin_ns = start_ns + int(task.warmup_s * NS_PER_S)
        end_ns = begin_ns + int(task.duration_s * NS_PER_S)
        while (wait_ns := start_ns - self._clock()) > 0 and not self._is_stopped:
            self._sleep(min(SLEEP_S_MAX, wait_ns / NS_PER_S))
        tally = Tally(begin_ns, end_ns, start_ns, self._cpu, self._emit)
        tally.backlog = lambda: len(self._producer)
        self._tally = tally
        if self._is_stopped:
            self.stop()
        schedule = None
        if task.records_per_s is None:
            self._send_freely(tally)
        else:
            schedule = Schedule(start_ns, task.records_per_s, task.phase)
            self._send_by(schedule, tally)
        self._drain(tally)
        tally.finish(self._clock())
        return self._ending(schedule, tally)

    def stop(self) -> None:
        """Send nothing more from now on; may be called on any thread, and before `run`."""
        self._is_stopped = True
        if self._tally is not None:
            self._tally.end_ns = min(self._tally.end_ns, self._clock())

    def _send_by(self, schedule: Schedule, tally: Tally) -> None:
        """Send on a thread of its own while this one polls."""
        failures: list[BaseException] = []

        def send() -> None:
            try:
                self._keep_to(schedule, tally)
            except BaseException as error:  # noqa: BLE001 - raised again on the thread that waits
                failures.append(error)

        sender = threading.Thread(target=send, name="bench-send", daemon=True)
        sender.start()
        while sender.is_alive():
            self._poll(tally)
        sender.join()
        if failures:
            raise failures[0]

    def _keep_to(self, schedule: Schedule, tally: Tally) -> None:
        """Send each record when it is due, or as soon after as possible, until the end."""
        while True:
            now_ns, end_ns = self._clock(), tally.end_ns
            is_over = now_ns >= end_ns
            if self.sent >= schedule.due_count(end_ns - 1 if is_over else now_ns):
                if is_over:
                    return
                wait_ns = min(schedule.due_ns(self.sent), end_ns) - now_ns
                self._sleep(min(SLEEP_S_MAX, max(TICK_S, wait_ns / NS_PER_S)))
                continue
            if now_ns >= end_ns + LAST_MOMENTS_NS:
                return
            due_ns = schedule.due_ns(self.sent)
            if self._hand_over(due_ns, partial(self._delivered, due_ns), self._wait_for_room):
                self.lag.sent(self._clock() - due_ns, counts=due_ns >= tally.begin_ns)

    def _send_freely(self, tally: Tally) -> None:
        """Send as fast as the library takes records; a latency counts from the call that hands the record over."""
        while True:
            now_ns = self._clock()
            tally.advance(now_ns)
            if now_ns >= tally.end_ns:
                return
            delivered = partial(self._delivered, now_ns)
            for _ in range(BURST):
                if not self._hand_over(now_ns, delivered, lambda: self._poll(tally)):
                    # The wait was for the queue: the next record is handed over later than this burst began.
                    break
            self._producer.poll(0)

    def _hand_over(self, due_ns: int, delivered: Callable[..., None], wait: Callable[[], None]) -> bool:
        """Give a record to the library; False when its queue is full, after waiting a moment."""
        number = self.sent
        value = self._payloads[number % len(self._payloads)]
        if self._task.run_id is not None:
            value = STAMP.pack(self._task.run_id, due_ns) + value
        key = self._keys[number % len(self._keys)] if self._keys else None
        try:
            self._producer.produce(self._task.topic, value, key, ANY_PARTITION, delivered)
        except BufferError:
            wait()
            return False
        self.sent = number + 1
        return True

    def _wait_for_room(self) -> None:
        began_ns = self._clock()
        self._sleep(QUEUE_FULL_WAIT_S)
        self.lag.waited(self._clock() - began_ns)

    def _delivered(self, due_ns: int, error: KafkaError | None, _message: Message) -> None:
        tally = self._tally
        assert tally is not None
        if error is None:
            self._acknowledged += 1
            tally.records += 1
            tally.bytes += self._record_bytes
            tally.seen(self._clock() - due_ns, due_ns)
        else:
            self._failed += 1
            tally.errors[error.name()] += 1

    def _poll(self, tally: Tally) -> None:
        now_ns = self._clock()
        tally.advance(now_ns)
        self._producer.poll(min(POLL_S_MAX, max(0.0, (tally.due_ns() - now_ns) / NS_PER_S)))

    def _drain(self, tally: Tally) -> None:
        """Wait for answers, but not for ever."""
        deadline_ns = self._clock() + int(self._task.drain_s * NS_PER_S)
        while len(self._producer) and self._clock() < deadline_ns:
            self._poll(tally)
        self._producer.poll(0)

    def _ending(self, schedule: Schedule | None, tally: Tally) -> dict[str, Any]:
        ending = {
            "sent_records": self.sent,
            "acknowledged_records": self._acknowledged,
            "failed_records": self._failed,
            "unanswered_records": self.sent - self._acknowledged - self._failed,
            "unsent_records": 0,
            "unsent_for_ns": 0,
            "queue_full_ns": self.lag.queue_full_ns,
            "own_lag": self.lag.own.to_json(),
        }
        if schedule is not None and (due := schedule.due_count(tally.end_ns - 1)) > self.sent:
            ending["unsent_records"] = due - self.sent
            ending["unsent_for_ns"] = tally.end_ns - schedule.due_ns(self.sent)
        return ending
