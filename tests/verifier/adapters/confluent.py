"""librdkafka's clients for the verifier: it is told of each record that is sent, delivered, handed out or processed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from tests.verifier import Committed, OffsetCommit, Partition, Recorder, Stream
from tests.verifier.adapters.seals import headers_of, note_of, opened


class RecordedProducer:
    """A producer of one partition's records, and of others' the same way; idempotent when it has a name for that."""

    def __init__(self, recorder: Recorder, settings: Mapping[str, Any], name: str) -> None:
        self.acknowledged = 0
        self.failures: list[KafkaError] = []
        is_idempotent = bool(settings.get("enable.idempotence"))
        self._recorder = recorder
        self._name = name if is_idempotent else ""
        self._producer = Producer(dict(settings))
        self._streams: dict[Partition, Stream] = {}

    def send(self, place: Partition, key: bytes | None, value: bytes, timestamp_ms: int) -> None:
        """Hand a record over. Raises BufferError while too many wait."""
        stream = self._streams.get(place)
        if stream is None:
            stream = self._streams[place] = self._recorder.stream(place, self._name)
        number = stream.sent(key, value, timestamp_ms)

        def told(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.failures.append(error)
                # The client's own errors, which are negative, say nothing about whether it is stored.
                stream.failed(number, *([error.code()] if error.code() > 0 else []))
                return
            self.acknowledged += 1
            stream.delivered(number, message.offset())

        self._producer.produce(
            place.topic, value, key, place.number,
            on_delivery=told, timestamp=timestamp_ms, headers=[*headers_of(key, value, timestamp_ms)],
        )  # fmt: skip

    def poll(self, timeout_s: float) -> None:
        """Take what has come."""
        self._producer.poll(timeout_s)

    def flush(self, timeout_s: float) -> int:
        """Wait for all answers: how many have not come."""
        return self._producer.flush(timeout_s)

    def purge(self) -> None:
        """Give up what waits."""
        self._producer.purge()
        self._producer.flush(1.0)


class RecordedConsumer:
    """A member of a group that commits by itself what it has processed, and waits for the answer.

    What comes to it is added to `seen`, which the members of a group may share.
    """

    def __init__(
        self,
        recorder: Recorder,
        settings: Mapping[str, Any],
        name: str,
        topics: Sequence[str],
        seen: set[tuple[Partition, int]],
    ) -> None:
        self._seen = seen
        self._recorder = recorder
        self._name = name
        self._group = str(settings["group.id"])
        self._reader = recorder.reader(name)
        self._done: dict[Partition, int] = {}
        self._consumer = Consumer(dict(settings))
        self._consumer.subscribe(
            list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def take(self, timeout_s: float, complain: Callable[[str], None]) -> int:
        """Read what is there, and count as processed all of it: how many records."""
        taken = 0
        for message in self._consumer.consume(500, timeout_s):
            error, offset, number, topic = (
                message.error(), message.offset(), message.partition(), message.topic()
            )  # fmt: skip
            if error is not None or offset is None or number is None or topic is None:
                if error is None or not error.retriable():
                    complain(f"{error}")
                continue
            place = Partition(topic, number)
            self._reader.saw(place, offset, *content_of(message))
            self._recorder.processed(self._group, place, offset)
            self._done[place] = offset + 1
            self._seen.add((place, offset))
            taken += 1
        return taken

    def commit(self) -> KafkaError | None:
        """Commit what is processed. Where that fails, the next one has it too."""
        wanted = dict(self._done)
        if not wanted:
            return None
        op = self._recorder.begin(self._name, OffsetCommit(self._group, wanted))
        offsets = [
            TopicPartition(place.topic, place.number, offset, note_of(offset))
            for place, offset in wanted.items()
        ]
        try:
            answer = self._consumer.commit(offsets=offsets, asynchronous=False) or []
        except KafkaException as error:
            op.lost()
            return error.args[0]  # type: ignore[no-any-return]
        op.answered(
            Committed(
                {
                    Partition(at.topic, at.partition): 0 if at.error is None else at.error.code()
                    for at in answer
                }
            )
        )
        for at in answer:
            if at.error is None and self._done.get(place := Partition(at.topic, at.partition)) == wanted.get(
                place
            ):
                self._done.pop(place, None)
        return None

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _assigned(self, _: Consumer, places: Sequence[TopicPartition]) -> None:
        for at in places:
            self._reader.moved(Partition(at.topic, at.partition))

    def _revoked(self, _: Consumer, places: Sequence[TopicPartition]) -> None:
        self.commit()
        self._done.clear()

    def _lost(self, _: Consumer, places: Sequence[TopicPartition]) -> None:
        self._done.clear()


def content_of(message: Message) -> tuple[bytes | None, bytes | None]:
    """Key and value of a sealed record: another value where it has not come as it was sent."""
    key, value, (_, timestamp_ms) = _bytes(message.key()), _bytes(message.value()), message.timestamp()
    headers = message.headers() or []
    assert isinstance(headers, list), "a message that was read has all of its headers, in their order"
    return key, opened(key, value, timestamp_ms, headers)


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
