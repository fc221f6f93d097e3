"""A producer worker: sends by a schedule, or as fast as it can, and counts what becomes of every record.

With a schedule two threads share the work: one sends when records are due, the other has the library's callbacks called
the moment that answers are there. At high rates and at full speed one thread does both: two would fight for the
interpreter, which takes longer than the half millisecond by which an answer may then be noticed late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, Message

from warp.cli.bench.intervals import Tally
from warp.cli.bench.pacing import BURST, SLEEP_S_MAX, TICK_S, PacedSender
from warp.cli.bench.payloads import KEY_BYTES, STAMP, make_keys, make_payloads
from warp.cli.bench.schedule import NS_PER_S, ClientLag, Schedule
from warp.cli.bench.tasks import Interval, ProducerTask

FAST_RECORDS_PER_S: Final = 1 / TICK_S
"""Above it one thread sends and polls."""
POLL_S_MAX: Final = 0.1
ANY_PARTITION: Final = -1


class ProducerLike(Protocol):
    """What is used of confluent_kafka.Producer."""

    def produce(
        self, topic: str, value: bytes, key: bytes | None, partition: int, on_delivery: Callable[..., None], /
    ) -> None:
        """Queue a record. Raises BufferError when the queue is full."""

    def poll(self, timeout: float, /) -> int:
        """Have callbacks called."""

    def purge(self, in_queue: bool = True, in_flight: bool = True) -> None:
        """Give up records; their callbacks get the error _PURGE_QUEUE."""

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
        stamp_bytes = STAMP.size if task.run_id is not None else 0
        self._task = task
        self._producer = producer
        self._clock = clock_ns
        self._sleep = sleep_s
        self._cpu = cpu_s
        self._emit = emit
        self._payloads = make_payloads(task.record_bytes - stamp_bytes, task.compressible, task.seed)
        self._keys: list[bytes | None] = [*make_keys(task.keys)] or [None]
        self._record_bytes = task.record_bytes + (KEY_BYTES if task.keys else 0)
        self._tally: Tally | None = None
        self._is_stopped = False
        self._sent = 0
        self._acknowledged = 0
        self._failed = 0

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
        sender = None
        if task.records_per_s is None:
            self._send_freely(tally)
            # What still waits in the queue was not sent by the end, and need not be.
            self._producer.purge(in_flight=False)
        else:
            schedule = Schedule(start_ns, task.records_per_s, task.phase)
            is_fast = task.records_per_s > FAST_RECORDS_PER_S
            sender = self._paced(schedule, tally, polls=is_fast)
            if is_fast:
                sender.run()
            else:
                self._send_beside(sender, tally)
        self._drain(tally)
        tally.finish(self._clock())
        return self._ending(sender)

    def stop(self) -> None:
        """Send nothing more from now on; may be called on any thread, and before `run`."""
        self._is_stopped = True
        if self._tally is not None:
            self._tally.end_ns = min(self._tally.end_ns, self._clock())

    def _paced(self, schedule: Schedule, tally: Tally, *, polls: bool) -> PacedSender:
        return PacedSender(
            schedule,
            begin_ns=tally.begin_ns,
            end_ns=lambda: tally.end_ns,
            hand_over=lambda due_ns: self._hand_over(due_ns, partial(self._delivered, due_ns)),
            clock_ns=self._clock,
            sleep_s=self._sleep,
            between=(lambda: self._glance(tally)) if polls else lambda: None,
        )

    def _glance(self, tally: Tally) -> None:
        """Have those callbacks called whose answers are there."""
        tally.advance(self._clock())
        self._producer.poll(0)

    def _send_beside(self, sender: PacedSender, tally: Tally) -> None:
        """Have a thread of its own send while this one polls."""
        failures: list[BaseException] = []

        def send() -> None:
            try:
                sender.run()
            except BaseException as error:  # noqa: BLE001 - raised again on the thread that waits
                failures.append(error)

        thread = threading.Thread(target=send, name="bench-send", daemon=True)
        thread.start()
        while thread.is_alive():
            self._poll(tally)
        if failures:
            raise failures[0]

    def _send_freely(self, tally: Tally) -> None:
        """Send as fast as the library takes records; a latency counts from the call that hands the record over."""
        while True:
            now_ns = self._clock()
            tally.advance(now_ns)
            if now_ns >= tally.end_ns:
                return
            delivered = partial(self._delivered, now_ns)
            for _ in range(BURST):
                if not self._hand_over(now_ns, delivered):
                    # The next record is handed over later than this burst began.
                    self._poll(tally)
                    break
            self._producer.poll(0)

    def _hand_over(self, due_ns: int, delivered: Callable[..., None]) -> bool:
        """Give a record to the library; False when its queue is full."""
        number = self._sent
        value = self._payloads[number % len(self._payloads)]
        if self._task.run_id is not None:
            value = STAMP.pack(self._task.run_id, due_ns) + value
        key = self._keys[number % len(self._keys)]
        try:
            self._producer.produce(self._task.topic, value, key, ANY_PARTITION, delivered)
        except BufferError:
            return False
        self._sent = number + 1
        return True

    def _delivered(self, due_ns: int, error: KafkaError | None, _message: Message) -> None:
        tally = self._tally
        assert tally is not None
        if error is None:
            self._acknowledged += 1
            tally.records += 1
            tally.bytes += self._record_bytes
            tally.seen(self._clock() - due_ns, due_ns)
        elif error.code() == KafkaError._PURGE_QUEUE:
            self._sent -= 1
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

    def _ending(self, sender: PacedSender | None) -> dict[str, Any]:
        unsent, unsent_for_ns = sender.unsent() if sender is not None else (0, 0)
        lag = sender.lag if sender is not None else ClientLag()
        return {
            "sent_records": self._sent,
            "acknowledged_records": self._acknowledged,
            "failed_records": self._failed,
            "unanswered_records": self._sent - self._acknowledged - self._failed,
            "unsent_records": unsent,
            "unsent_for_ns": unsent_for_ns,
            "queue_full_ns": lag.queue_full_ns,
            "own_lag": lag.own.to_json(),
        }
