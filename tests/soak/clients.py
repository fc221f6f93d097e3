"""The clients of a soak: idempotent writers, a group of readers, and one that reads from anywhere."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.soak.model import Stream
from tests.support.client_load import QUICK, GroupReader
from tests.support.raw_load import Score
from tests.verifier import Limit, Listed, ListedOffset, ListOffsets, Recorder
from tests.verifier.adapters.confluent import content_of
from tests.verifier.adapters.seals import headers_of

JOIN_S = 60.0
STEP_S = 0.02
READ_TIMEOUT_S = 60.0
ROAM_RECORDS = 2000
OVERDUE_MS_MAX = 45_000
"""How long records outlive their retention at most: whole extents go, of 10 s here, and agents are killed meanwhile."""


class Worker:
    """A thread that does something again and again until it is told to stop. What goes wrong stands in its score."""

    def __init__(self, name: str, step: Callable[[], None]) -> None:
        self.score = Score(name)
        self._step = step
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def pause(self, seconds: float) -> bool:
        """Wait; True when it is to stop."""
        return self._stopping.wait(seconds)

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Returns when it has ended."""
        self._stopping.set()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            self.score.complain("does not end")

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._step()
        except BaseException as error:
            self.score.complain(f"ended with {error!r}")
            raise


class Writer(Worker):
    """One idempotent producer that writes to several partitions, each at its own rate."""

    def __init__(self, bootstrap: str, streams: Sequence[Stream], speed: float) -> None:
        self._streams = streams
        self._speed = speed
        self._owed = [0.0] * len(streams)
        self._before_s = time.monotonic()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 10,
                "message.timeout.ms": 120_000, "queue.buffering.max.messages": 20_000, **QUICK,
            }
        )  # fmt: skip
        super().__init__(f"writer of {streams[0].kind.name}", self._write)

    def stop(self) -> None:
        """Send no more, and wait for all answers."""
        super().stop()
        left = self._producer.flush(2 * JOIN_S)
        unanswered = [s.name for s in self._streams if s.acknowledged != len(s.recorded)]
        if left or unanswered:
            self.score.complain(f"{left} records were never acknowledged, of {unanswered}")

    def _write(self) -> None:
        now_s = time.monotonic()
        passed_s, self._before_s = now_s - self._before_s, now_s
        for place, stream in enumerate(self._streams):
            # Whoever was held up makes up for a second at most.
            self._owed[place] += min(passed_s, 1.0) * stream.kind.rate * self._speed
            while self._owed[place] >= 1.0 and self._send(stream):
                self._owed[place] -= 1.0
        self._producer.poll(STEP_S)

    def _send(self, stream: Stream) -> bool:
        number, now_ms = len(stream.recorded), int(time.time() * 1000)
        record = stream.record(number)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.score.complain(f"record {number} of {stream.name}: {error}")
                stream.recorded.failed(number)
            else:
                offset = message.offset()
                stream.recorded.delivered(number, offset)
                if offset is not None and offset >= 0:
                    stream.stands(offset, now_ms)
            stream.acknowledged += 1
            self.score.succeed()

        try:
            self._producer.produce(
                stream.kind.name, record.value, record.key, stream.partition,
                on_delivery=delivered, timestamp=now_ms,
                headers=[*headers_of(record.key, record.value, now_ms)],
            )  # fmt: skip
        except BufferError:
            return False
        stream.recorded.sent(record.key, record.value, now_ms)
        return True


class Member(GroupReader):
    """A member of a group that tells the verifier what it reads. Its group never reads what retention takes."""

    def __init__(
        self, recorder: Recorder, bootstrap: str, streams: Sequence[Stream], group: str, number: int
    ) -> None:
        self._streams = {stream.partition: stream for stream in streams}
        self._recorder = recorder
        self._reader = recorder.reader(f"member {number} of {group}")
        self._group = group
        super().__init__(bootstrap, "", streams[0].kind.name, group, number)

    def _assigned(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        super()._assigned(consumer, partitions)
        for stream in self._streams.values():
            self._reader.moved(stream.place)

    def _take(self, message: Message) -> None:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None or partition is None or offset is None:
            self.score.complain(f"{error}")
            return
        place = self._streams[partition].place
        self._reader.saw(place, offset, *content_of(message))
        self._recorder.processed(self._group, place, offset)
        self.seen.setdefault(partition, set()).add(offset)
        self.score.succeed()


class Roamer(Worker):
    """Reads a while from any offset of any partition, and starts again elsewhere."""

    def __init__(self, recorder: Recorder, bootstrap: str, streams: Sequence[Stream], seed: int) -> None:
        self._streams = streams
        self._source = random.Random(seed)
        self._recorder = recorder
        self._reader = recorder.reader("roaming reader")
        self._consumer = reader(bootstrap)
        super().__init__("roaming reader", self._roam)

    def stop(self) -> None:
        super().stop()
        self._consumer.close()

    def _roam(self) -> None:
        stream = self._source.choice(self._streams)
        place = TopicPartition(stream.kind.name, stream.partition)
        ends = self._ends(stream, place)
        if ends is None:
            return  # The agent is being started again.
        low, high = ends
        if low == high:
            self.pause(0.1)
            return
        self._judge_age(stream, low)
        place.offset = self._source.randrange(low, high)
        self._consumer.assign([place])
        self._reader.moved(stream.place)
        self._read(stream, place.offset, high)

    def _ends(self, stream: Stream, place: TopicPartition) -> tuple[int, int] | None:
        """Where it starts and where it ends, which the verifier is told; None where nobody says so."""
        ops = [
            self._recorder.begin("roaming reader", ListOffsets([stream.place], limit))
            for limit in (Limit.EARLIEST, Limit.LATEST)
        ]
        try:
            ends = self._consumer.get_watermark_offsets(place, 10.0)
        except KafkaException:
            ends = None
        if ends is None:
            for op in ops:
                op.lost()
            return None
        for op, end in zip(ops, ends, strict=True):
            op.answered(Listed({stream.place: ListedOffset(0, end)}))
        return ends

    def _judge_age(self, stream: Stream, start: int) -> None:
        """Retention goes on while the partition is written to."""
        overdue_ms = stream.overdue_ms(start, int(time.time() * 1000))
        if overdue_ms > OVERDUE_MS_MAX:
            text = f"begins with a record that is overdue by {overdue_ms} ms while it is written to"
            self.score.complain(f"{stream.name} {text}")

    def _read(self, stream: Stream, offset: int, high: int) -> None:
        """Read from an offset on, up to what was the end."""
        begin, deadline_s = offset, time.monotonic() + READ_TIMEOUT_S
        while offset < min(high, begin + ROAM_RECORDS) and not self.is_stopping:
            for message in self._consumer.consume(500, 0.2):
                if (error := message.error()) is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        offset = max(offset, message.offset() or 0)
                        continue
                    if _was_taken(error) and stream.kind.name != "kept":
                        return
                    self.score.complain(f"{stream.name} at {offset}: {error}")
                    return
                if not self._check(stream, message, offset):
                    return
                offset = (message.offset() or 0) + 1
            if time.monotonic() > deadline_s:
                self.score.complain(f"nothing came from {stream.name} at {offset}, which goes to {high}")
                return
        self.score.succeed()

    def _check(self, stream: Stream, message: Message, expected: int) -> bool:
        found = message.offset() or 0
        self._reader.saw(stream.place, found, *content_of(message))
        if found == expected or (found > expected and not stream.kind.is_dense):
            return True
        self.score.complain(f"{stream.name}: {message.value()!r:.60} at {found}, expected was {expected}")
        return False


def _was_taken(error: KafkaError) -> bool:
    """Retention was faster than the reader."""
    return error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


def reader(bootstrap: str) -> Consumer:
    """A consumer without a group that tells of the end of a partition."""
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True,
        "auto.offset.reset": "error", "enable.partition.eof": True, "fetch.wait.max.ms": 100, **QUICK,
    }  # fmt: skip
    return Consumer(settings)
