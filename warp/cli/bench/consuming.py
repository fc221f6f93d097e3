"""A consumer worker: reads partitions that it was assigned by hand, without a group, and counts what comes.

Reading what is there ends where the log ended when the command began. End to end, it goes on until it has read all that
the producers of the run have had acknowledged; latencies count from the time at which a record was due to be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from warp.cli.bench.intervals import Tally
from warp.cli.bench.payloads import STAMP
from warp.cli.bench.schedule import NS_PER_S
from warp.cli.bench.tasks import ConsumerTask, Interval

BATCH_RECORDS: Final = 1_000
POLL_S_MAX: Final = 0.05
POSITIONS_EVERY_NS: Final = NS_PER_S // 20
FOR_EVER_NS: Final = 10**9 * NS_PER_S


class ConsumerLike(Protocol):
    """What is used of confluent_kafka.Consumer."""

    def assign(self, partitions: list[TopicPartition], /) -> None:
        """Read these from their offsets on."""

    def poll(self, timeout: float, /) -> Message | None:
        """The next message, waiting for it."""

    def consume(self, num_messages: int, timeout: float) -> Sequence[Message]:
        """Several messages; with a time-out of 0, those that are there."""

    def position(self, partitions: list[TopicPartition], /) -> list[TopicPartition]:
        """The offsets after the last messages that were handed over."""


class Consuming:
    """One run; see Producing."""

    def __init__(
        self,
        task: ConsumerTask,
        consumer: ConsumerLike,
        *,
        clock_ns: Callable[[], int],
        cpu_s: Callable[[], float],
        emit: Callable[[Interval], None],
    ) -> None:
        self._task = task
        self._consumer = consumer
        self._clock = clock_ns
        self._cpu = cpu_s
        self._emit = emit
        self._tally: Tally | None = None
        self._is_stopped = False
        self._reached = dict(task.begins)
        self._positions_due_ns = 0
        self._first_ns: int | None = None
        self._last_ns = 0
        self.stops = task.stops
        """Offsets to read up to; another thread may set them while `run` is at work."""
        self.received = 0

    def run(self, start_ns: int) -> dict[str, Any]:
        """Read and count from `start_ns` on; what there is to tell at the end.

        Raises KafkaException for an error that does not pass.
        """
        task = self._task
        begin_ns = start_ns + int(task.warmup_s * NS_PER_S)
        end_ns = begin_ns + (FOR_EVER_NS if task.duration_s is None else int(task.duration_s * NS_PER_S))
        tally = self._tally = Tally(begin_ns, end_ns, start_ns, self._cpu, self._emit)
        if self._is_stopped:
            self.stop()
        self._assign(start_ns)
        deadline_ns = None
        while not self._is_done():
            now_ns = self._clock()
            tally.advance(now_ns)
            if now_ns >= tally.end_ns:
                # Only records of a run are waited for: what is merely there may be endless.
                deadline_ns = deadline_ns or now_ns + int(task.drain_s * NS_PER_S * (task.run_id is not None))
                if now_ns >= deadline_ns:
                    break
            self._read(tally, min(POLL_S_MAX, max(0.0, (tally.due_ns() - now_ns) / NS_PER_S)))
        tally.finish(
            self._last_ns if self._is_done() and task.duration_s is None and self._last_ns else self._clock()
        )
        return self._ending(start_ns)

    def stop(self) -> None:
        """End the measured time now; may be called on any thread, and before `run`."""
        self._is_stopped = True
        if self._tally is not None:
            self._tally.end_ns = min(self._tally.end_ns, self._clock())

    def _assign(self, start_ns: int) -> None:
        """Begin to read. What comes later is waited for from now on; what is there is not touched before the start."""
        places = [
            TopicPartition(self._task.topic, p, offset) for p, offset in sorted(self._task.begins.items())
        ]
        if self.stops is None:
            self._consumer.assign(places)
        while (wait_ns := start_ns - self._clock()) > 0 and not self._is_stopped:
            # What comes before the start is let go.
            self._consumer.poll(min(POLL_S_MAX, wait_ns / NS_PER_S))
        if self.stops is not None:
            self._consumer.assign(places)

    def _read(self, tally: Tally, wait_s: float) -> None:
        """Wait for a record, then take it with all that are there as well."""
        first = self._consumer.poll(wait_s)
        if first is None:
            return
        messages = [first, *self._consumer.consume(num_messages=BATCH_RECORDS, timeout=0)]
        now_ns = self._clock()
        run_id = self._task.run_id
        records = size_bytes = 0
        for message in messages:
            if message.error() is not None:
                self._note(message, tally)
                continue
            if run_id is not None:
                value = message.value() or b""
                if len(value) < STAMP.size:
                    continue
                stamped, due_ns = STAMP.unpack_from(value)
                if stamped != run_id:
                    continue
                tally.seen(now_ns - due_ns, due_ns)
            key = message.key()
            records += 1
            size_bytes += len(message) + (len(key) if key else 0)
        if records:
            self._last_ns = now_ns
            self._first_ns = self._first_ns or now_ns
        self.received += records
        tally.records += records
        tally.bytes += size_bytes

    def _note(self, message: Message, tally: Tally) -> None:
        """Something else than a record: the end of a partition, or trouble."""
        error = message.error()
        assert error is not None
        partition, offset = message.partition(), message.offset()
        if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
            self._reached[partition] = offset
        elif error.retriable() and not error.fatal():
            tally.errors[error.name()] += 1
        else:
            raise KafkaException(error)

    def _is_done(self) -> bool:
        """True when every partition was read up to its stop."""
        stops = self.stops
        if stops is None:
            return False
        if self._clock() >= self._positions_due_ns:
            self._positions_due_ns = self._clock() + POSITIONS_EVERY_NS
            asked = [TopicPartition(self._task.topic, partition) for partition in self._reached]
            for found in self._consumer.position(asked):
                self._reached[found.partition] = max(self._reached[found.partition], found.offset)
        return all(reached >= stops.get(partition, 0) for partition, reached in self._reached.items())

    def _ending(self, start_ns: int) -> dict[str, Any]:
        return {
            "received_records": self.received,
            "first_record_ns": None if self._first_ns is None else self._first_ns - start_ns,
            "is_complete": self._is_done() if self.stops is not None else None,
        }
