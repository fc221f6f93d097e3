"""Raw producers: idempotent ones whose requests span partitions, plain ones that never repeat anything."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.faults.caller import ATTEMPT_S, Caller, Where
from tests.faults.topics import Topic
from tests.verifier import (
    Answer,
    Batch,
    InitProducerId,
    Partition,
    Produce,
    Produced,
    ProducerIdGiven,
    Recorder,
)
from tests.verifier.adapters import raw
from tests.verifier.adapters.raw import Content
from warp.protocol.messages.producers import InitProducerIdRequest

RECORDS_MAX = 5
PARTITIONS_MAX = 4
WANDER_SHARE = 0.1
"""How many requests go to another agent without need."""
TOMBSTONE_SHARE = 0.1
LARGE_SHARE = 0.02
LARGE_BYTES = 40_000
TIMEOUT_MS = 4_000
HASTY_SHARE = 0.2
HASTY_TIMEOUT_MS = (30, 400)
"""Some give the agent so little time that it has to tell them REQUEST_TIMED_OUT, whatever comes of it: then a segment
whose commit is tried again holds requests that wait and others that do not any more."""
IMPATIENT_SHARE = 0.05
IMPATIENT_S = 0.15
"""Some hang up before the answer comes, and ask somebody else: it may be stored by then."""
PATIENCE_S = 60.0
REQUESTS_PER_ID = 400
"""After so many a writer begins anew with another producer id, as a client that was restarted."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch and its bytes."""

    batch: Batch
    data: bytes


class RawWriter(Caller):
    """Idempotent. Gives a request again, to one agent after the other, until all of it is acknowledged."""

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        agents: Sequence[Where],
        source: random.Random,
        topics: Sequence[Topic],
        pause_s: float,
    ) -> None:
        super().__init__(recorder, name, agents, source)
        self._keys = {topic.name: topic.keys for topic in topics}
        self._places = [place for topic in topics for place in topic.places]
        self._pause_s = pause_s
        self._sequences: Counter[Partition] = Counter()
        self._numbers: Counter[Partition] = Counter()
        self._id = ProducerIdGiven(-1, -1)
        self._ids = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Write until told to stop; what was begun is finished."""
        while not stopping.is_set():
            await self._begin_anew()
            for _ in range(REQUESTS_PER_ID):
                count = self.source.randint(1, min(PARTITIONS_MAX, len(self._places)))
                places = self.source.sample(self._places, count)
                if not await self._store({place: self._made(place) for place in places}):
                    return
                self.score.done += 1
                if self.source.random() < WANDER_SHARE:
                    self.move()
                await self.rest(self._pause_s)
                if stopping.is_set():
                    break
        self.hang_up()

    @property
    def _producer(self) -> str:
        return f"{self.name}/{self._ids}"

    async def _begin_anew(self) -> None:
        self._ids += 1
        self._sequences.clear()
        while True:
            request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=0)
            answer = await self.ask(InitProducerId(), request, 2, _producer_id)
            if isinstance(answer, ProducerIdGiven):
                self._id = answer
                return
            self.judge(answer or 0, "a producer id")  # type: ignore[arg-type]  # what else it may be is an error
            self.move()
            await self.rest()

    def _made(self, place: Partition) -> Sent:
        """The next batch of a partition."""
        now_ms = int(time.time() * 1000)
        records = [self._record(place) for _ in range(self.source.randint(1, RECORDS_MAX))]
        sequence = self._sequences[place]
        self._sequences[place] += len(records)
        data = raw.encode_batch(
            records, now_ms,
            producer_id=self._id.producer_id, producer_epoch=self._id.epoch, base_sequence=sequence,
        )  # fmt: skip
        batch = self.recorder.batch(
            place, records,
            producer=self._producer, epoch=self._id.epoch, base_sequence=sequence, timestamp_ms=now_ms,
        )  # fmt: skip
        return Sent(batch, data)

    def _record(self, place: Partition) -> Content:
        number = self._numbers[place]
        self._numbers[place] += 1
        value = b"%s %d %s" % (self.name.encode(), number, str(place).encode())
        if self.source.random() < LARGE_SHARE:
            value += self.source.randbytes(16) * (LARGE_BYTES // 16)
        keys = self._keys[place.topic]
        if not keys:
            return None, value
        is_tombstone = self.source.random() < TOMBSTONE_SHARE
        return b"key-%d" % self.source.randrange(keys), None if is_tombstone else value

    async def _store(self, parts: Mapping[Partition, Sent]) -> bool:
        """True when all of it is acknowledged; False when patience is at its end."""
        operation = Produce([sent.batch for sent in parts.values()])
        data = {place: sent.data for place, sent in parts.items()}
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            answer = await self.ask(
                operation, raw.produce(data, self._timeout_ms()), raw.VERSIONS["produce"],
                lambda response: raw.produced(operation.batches, response), self._patience_s(),
            )  # fmt: skip
            if isinstance(answer, Produced):
                errors = {placed.error_code for placed in answer.parts.values()} - {0}
                for error in sorted(errors):
                    self.judge(error, "a batch")
                if not errors:
                    return True
            self.move()
            await self.rest()
        self.score.complain(f"{sorted(parts)} were not acknowledged within {PATIENCE_S:g} s")
        return False

    def _timeout_ms(self) -> int:
        return self.source.randint(*HASTY_TIMEOUT_MS) if self.source.random() < HASTY_SHARE else TIMEOUT_MS

    def _patience_s(self) -> float:
        return self.source.uniform(0, IMPATIENT_S) if self.source.random() < IMPATIENT_SHARE else ATTEMPT_S


class PlainWriter(Caller):
    """Not idempotent: sends everything once, and does not care what comes of it."""

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        agents: Sequence[Where],
        source: random.Random,
        topic: Topic,
        pause_s: float,
    ) -> None:
        super().__init__(recorder, name, agents, source)
        self._topic = topic
        self._pause_s = pause_s
        self._number = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop."""
        while not stopping.is_set():
            await self._send()
            self.move()
            await self.rest(self._pause_s)
        self.hang_up()

    async def _send(self) -> None:
        now_ms = int(time.time() * 1000)
        batches: list[Batch] = []
        sent = {}
        for place in self._topic.places:
            records: list[Content] = [(None, b"%s %d" % (self.name.encode(), self._number))]
            self._number += 1
            batches.append(self.recorder.batch(place, records, timestamp_ms=now_ms))
            sent[place] = raw.encode_batch(records, now_ms)
        answer = await self.ask(
            Produce(batches), raw.produce(sent, TIMEOUT_MS), raw.VERSIONS["produce"],
            lambda response: raw.produced(batches, response),
        )  # fmt: skip
        if isinstance(answer, Produced):
            errors = {placed.error_code for placed in answer.parts.values()}
            for error in sorted(errors - {0}):
                self.judge(error, "a batch")
            self.score.done += errors == {0}


def _producer_id(response: object) -> Answer | int:
    error = int(getattr(response, "error_code"))  # noqa: B009  a message's fields are made of its table
    if error:
        return error
    return ProducerIdGiven(response.producer_id, response.producer_epoch)  # type: ignore[attr-defined]
