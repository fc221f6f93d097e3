"""Told by clients what they ask and what they are answered, as it happens; may be called from several threads."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import Enum

from tests.verifier.history import UNKNOWN, Batch, Content, History, Kind
from tests.verifier.operations import Answer, Operation, Part, Partition
from tests.verifier.readback import Readback


class State(Enum):
    """How an operation has ended."""

    PENDING = "pending"
    ANSWERED = "answered"
    FAILED = "failed"
    LOST = "lost"


class Op:
    """One operation of a client. It ends once, by `answered`, `failed` or `lost`; ending it again is an error."""

    __slots__ = ("_recorder", "agent", "answer", "client", "error_code", "number", "operation", "state")

    def __init__(
        self, recorder: Recorder, number: int, client: str, operation: Operation, agent: str
    ) -> None:
        self._recorder = recorder
        self.number = number
        self.client = client
        self.operation = operation
        self.agent = agent
        self.state = State.PENDING
        self.answer: Answer | None = None
        self.error_code = 0
        """Of the request as a whole."""

    def answered(self, answer: Answer) -> None:
        """The answer has come; it may hold errors of parts."""
        self.answer = answer
        self._end(State.ANSWERED)

    def failed(self, error_code: int) -> None:
        """The request as a whole was answered with an error."""
        self.error_code = int(error_code)
        self._end(State.FAILED)

    def lost(self) -> None:
        """Nobody waits for an answer any more; the request may yet be carried out."""
        self._end(State.LOST)

    def _end(self, state: State) -> None:
        if self.state is not State.PENDING:
            raise ValueError(f"operation {self.number} of {self.client} has ended before: {self.state.value}")
        self.state = state
        self._recorder._note(Kind.ENDED, self.number)

    def __repr__(self) -> str:
        return f"{self.client} to {self.agent or 'anybody'}: {type(self.operation).__name__} ({self.state.value})"


class Stream:
    """One producer's records to one partition, handed over one by one to a client that hides its requests.

    Record n of an idempotent producer (`producer` not empty) has sequence n.
    """

    def __init__(self, recorder: Recorder, partition: Partition, producer: str) -> None:
        self._recorder = recorder
        history = recorder.history
        self._partition = history.partitions.number(partition)
        self._producer = history.producers.number(producer) if producer else UNKNOWN
        self._batches = array("q")

    def __len__(self) -> int:
        return len(self._batches)

    def sent(self, key: bytes | None, value: bytes | None, timestamp_ms: int = UNKNOWN) -> int:
        """A record is about to be handed over; its number in this stream."""
        history, lock = self._recorder.history, self._recorder.lock
        with lock:
            content = history.contents.number(key, value)
            number = len(self._batches)
            batch = history.batches.add(
                self._partition, (content,), self._producer, UNKNOWN, number, timestamp_ms
            )
            self._batches.append(batch)
            history.add(Kind.SENT, batch, self._recorder.clock())
        return number

    def delivered(self, number: int, offset: int | None) -> None:
        """A record was acknowledged, at an offset if the client tells."""
        self._told(number, 0, UNKNOWN if offset is None else offset)

    def failed(self, number: int, error_code: int = UNKNOWN) -> None:
        """The client has given a record up. An error code of UNKNOWN says nothing about whether it is stored."""
        self._told(number, int(error_code), UNKNOWN)

    def _told(self, number: int, error_code: int, offset: int) -> None:
        history, lock = self._recorder.history, self._recorder.lock
        with lock:
            result = history.results.add(self._batches[number], error_code, offset)
            history.add(Kind.RESULT, result, self._recorder.clock())


class Reader:
    """What a consumer hands out. Per partition it goes on where it was, unless it says that it has `moved`."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self._number = recorder.history.readers.number(name)

    def saw(self, partition: Partition, offset: int, key: bytes | None, value: bytes | None) -> None:
        """A record came."""
        history, lock = self._recorder.history, self._recorder.lock
        with lock:
            record = history.contents.number(key, value)
            self._add(partition, offset, record)

    def moved(self, partition: Partition) -> None:
        """Its position was set anew, as after a rebalance: what comes next may be anywhere."""
        with self._recorder.lock:
            self._add(partition, UNKNOWN, UNKNOWN)

    def _add(self, partition: Partition, offset: int, record: int) -> None:
        history = self._recorder.history
        number = history.sightings.add(self._number, history.partitions.number(partition), offset, record)
        history.add(Kind.SAW, number, self._recorder.clock())


class Recorder:
    """Takes the history of one run. `clock` tells seconds, the same to all clients."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.history = History()
        self.lock = threading.Lock()
        self._known: dict[tuple[str, int, Partition, int], Batch] = {}

    def batch(
        self,
        partition: Partition,
        records: Sequence[Content],
        *,
        producer: str = "",
        epoch: int = 0,
        base_sequence: int = UNKNOWN,
        timestamp_ms: int = UNKNOWN,
    ) -> Batch:
        """A batch that is to be sent, with the keys and values of its records.

        The same batch of an idempotent producer is the same however often it is made. Raises ValueError for another
        one in its place.
        """
        with self.lock:
            history = self.history
            contents = [history.contents.number(key, value) for key, value in records]
            identity = (producer, epoch, partition, base_sequence)
            known = self._known.get(identity) if producer else None
            if known is not None:
                if list(history.batches.records(known.number)) != contents:
                    raise ValueError(f"{producer} made another batch of {partition} at {base_sequence}")
                return known
            number = history.batches.add(
                history.partitions.number(partition),
                contents,
                history.producers.number(producer) if producer else UNKNOWN,
                epoch,
                base_sequence,
                timestamp_ms,
            )
            batch = Batch(number, partition, len(contents))
            if producer:
                self._known[identity] = batch
            return batch

    def part(
        self,
        error_code: int,
        high_watermark: int = UNKNOWN,
        log_start_offset: int = UNKNOWN,
        records: Iterable[tuple[int, bytes | None, bytes | None]] = (),
        next_offset: int = UNKNOWN,
        times_ms: Iterable[int] = (),
    ) -> Part:
        """What a Fetch has of a partition: (offset, key, value) of the records from the position asked for on.

        `times_ms` are the timestamps of all of them, or nothing.
        """
        part = Part(
            int(error_code), high_watermark, log_start_offset, next_offset, times_ms=array("q", times_ms)
        )
        with self.lock:
            for offset, key, value in records:
                part.offsets.append(offset)
                part.records.append(self.history.contents.number(key, value))
        if part.offsets and next_offset <= part.offsets[-1]:
            return replace(part, next_offset=part.offsets[-1] + 1)
        return part

    def begin(self, client: str, operation: Operation, agent: str = "") -> Op:
        """An operation is about to be sent. `agent` may be set later, before it ends."""
        with self.lock:
            op = Op(self, len(self.history.ops), client, operation, agent)
            self.history.ops.append(op)
            self.history.add(Kind.BEGAN, op.number, self.clock())
        return op

    def observe(self, client: str, operation: Operation, answer: Answer, agent: str = "") -> None:
        """Something was seen in an instant."""
        self.begin(client, operation, agent).answered(answer)

    def stream(self, partition: Partition, producer: str = "") -> Stream:
        """For a producer that hides its requests; `producer` if it is idempotent."""
        return Stream(self, partition, producer)

    def reader(self, name: str) -> Reader:
        """For a consumer that hides its requests."""
        return Reader(self, name)

    def processed(self, group: str, partition: Partition, offset: int) -> None:
        """A member of a group is done with a record."""
        with self.lock:
            history = self.history
            number = history.processed.add(
                history.groups.number(group), history.partitions.number(partition), offset, UNKNOWN
            )
            history.add(Kind.PROCESSED, number, self.clock())

    def readback(self, agent: str, now_ms: int = UNKNOWN) -> Readback:
        """What is read in the end through an agent; `now_ms` is the wall clock's time when that is over."""
        return Readback(self.history.contents, agent, now_ms)

    def _note(self, kind: Kind, number: int) -> None:
        with self.lock:
            self.history.add(kind, number, self.clock())
