"""Clients of the model broker: everything that a verifier may be told, in any order that can happen."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence

from tests.verifier.history import Batch
from tests.verifier.model_broker import RETENTION_MS, TOMBSTONE_MS, Broker, Fault, Log, Sent
from tests.verifier.model_groups import COMMITTERS, GROUP, KEPT, GroupClients, Task
from tests.verifier.operations import (
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    Done,
    Fetch,
    Fetched,
    InitProducerId,
    Limit,
    Listed,
    ListedOffset,
    ListOffsets,
    Part,
    Partition,
    Placed,
    Produce,
    Produced,
    ProducerIdGiven,
    Trimmed,
    TrimmedPart,
)
from tests.verifier.readback import FsckResult, Readback
from tests.verifier.recorder import Op
from tests.verifier.rules import Rules, TopicRules
from warp.errors import ErrorCode

TRIMMED = Partition("trimmed", 0)
BRIEF = Partition("brief", 0)
LATEST = Partition("latest", 0)
FLEETING = [Partition("fleeting", number) for number in range(2)]
AGENTS = ("one", "other")
ATTEMPTS_MAX = 100
ENDING_STEPS_MAX = 100_000
RULES = Rules(
    {
        "brief": TopicRules(retention_ms=RETENTION_MS),
        "latest": TopicRules(is_compacted=True, tombstone_ms=TOMBSTONE_MS),
    },
    rising_groups=frozenset({GROUP}),
)

Unit = list[tuple[Batch, Sent]]
"""What one request holds."""


class Model(GroupClients):
    """A broker, and clients at work for so many steps; what is left is done then, and everything read back."""

    def __init__(self, seed: int, steps: int, fault: Fault | None = None) -> None:
        chance = random.Random(seed)
        super().__init__(chance, Broker(chance, fault))
        self._late: list[Sequence[Sent]] = []
        """Requests that were lost, and may come yet."""
        self._ends: dict[tuple[str, Partition], int] = {}
        """By agent, the highest end that it knows."""
        self._told: dict[tuple[str, Partition], int] = {}
        """By agent, the highest end that clients were told."""
        for topic, partitions in (("kept", 3), ("trimmed", 1), ("brief", 1), ("latest", 1)):
            self.broker.create(topic, partitions)
        self._run(steps)
        self.broker.finish(TRIMMED, BRIEF, LATEST)
        self.readbacks = [self._read_back(agent) for agent in AGENTS]
        self.fsck = FsckResult([], {"empty": 0}, checked=1)

    def _run(self, steps: int) -> None:
        tasks: list[Task] = [
            *(self._producer(f"producer-{n}", [*KEPT, TRIMMED], 0) for n in range(2)),
            self._producer("table", [LATEST], 7),
            self._pairs(), self._pairs(), self._stream(), self._late_ones(), self._jobs(), self._fleeting(),
            *(self._consumer(f"consumer-{n}", [*KEPT, LATEST]) for n in range(2)), self._sceptic(), self._sceptic(),
            self._reader(), self._group(), self._committer(),
        ]  # fmt: skip
        for step in range(steps + ENDING_STEPS_MAX):
            self.is_over = step >= steps
            self.broker.is_ending = self.is_over
            if not tasks:
                break
            self.broker.now_ms += self.chance.randint(0, 10)
            task = self.chance.choice(tasks)
            if next(task, self) is self:
                tasks.remove(task)
        assert not tasks, "all clients come to an end"

    def _agent(self) -> str:
        return self.chance.choice(list(AGENTS))

    def _pause(self) -> Task:
        for _ in range(self.chance.randint(1, 5)):
            yield

    # Producers.

    def _content(self, name: str, number: int, keys: int) -> tuple[bytes | None, bytes | None]:
        if not keys:
            return None, f"{name}/{number}".encode()
        key = b"key-%d" % self.chance.randrange(keys)
        return key, None if self.chance.random() < 0.3 else f"{name}/{number}".encode()

    def _producer(self, name: str, places: Sequence[Partition], keys: int) -> Task:
        """Idempotent: sends each request until it is acknowledged, most often."""
        op = self.recorder.begin(name, InitProducerId())
        yield
        if not (self.broker.producer_ids and self.broker.strikes(Fault.GIVE_ID_TWICE, 1.0)):
            self.broker.producer_ids += 1
        op.answered(ProducerIdGiven(self.broker.producer_ids, 0))
        sequences = dict.fromkeys(places, 0)
        while not self.is_over:
            units = [self._unit(name, places, keys, sequences) for _ in range(self.chance.randint(1, 2))]
            for _ in range(ATTEMPTS_MAX):
                if units:
                    units = yield from self._attempt(name, units)
                    yield from self._pause()
            if units:
                return  # The broker has committed a fault.

    def _unit(
        self, name: str, places: Sequence[Partition], keys: int, sequences: dict[Partition, int]
    ) -> Unit:
        """What one request is to hold."""
        unit = []
        for place in self.chance.sample(list(places), self.chance.randint(1, len(places))):
            first, count = sequences[place], self.chance.randint(1, 3)
            records = [self._content(f"{name}/{place}", first + index, keys) for index in range(count)]
            sequences[place] += count
            sent = Sent(place, records, self.broker.now_ms, name, first)
            unit.append((self._batch(sent), sent))
        return unit

    def _batch(self, sent: Sent) -> Batch:
        return self.recorder.batch(
            sent.partition, sent.records, producer=sent.producer, base_sequence=sent.sequence,
            timestamp_ms=sent.timestamp_ms,
        )  # fmt: skip

    def _attempt(self, name: str, units: list[Unit]) -> Generator[None, None, list[Unit]]:
        """Sends requests one behind the other; returns what is not acknowledged."""
        agent = self._agent()
        ops = [self.recorder.begin(name, Produce([batch for batch, _ in unit]), agent) for unit in units]
        left = []
        for op, unit in zip(ops, units, strict=True):
            yield
            rest = yield from self._outcome(op, unit)
            if rest:
                left.append(rest)
        return left

    def _outcome(self, op: Op, unit: Unit) -> Generator[None, None, Unit]:
        """Of one request; returns what is not acknowledged."""
        broker, sent = self.broker, [each for _, each in unit]
        fate = self.chance.choice(("well", "well", "well", "answer lost", "lost", "late", "failed"))
        broker.is_answering = fate == "well"
        if fate == "late":
            self._late.append(sent)
        elif fate in ("well", "answer lost"):
            answers = broker.produce(sent)
            yield
            if fate == "well" and len(answers) == len(unit):
                op.answered(Produced({place: Placed(*answer) for place, answer in answers.items()}))
                for batch, each in unit:
                    code, offset = answers[batch.partition]
                    if not code:
                        self._acknowledged(each, offset)
                return [part for part in unit if answers[part[0].partition][0]]
        elif fate == "failed":
            if (
                not sent[0].producer
                and sent[0].partition.topic == "kept"
                and broker.strikes(Fault.STORE_REFUSED)
            ):
                broker.produce(sent)
            op.answered(Produced({b.partition: Placed(ErrorCode.KAFKA_STORAGE_ERROR) for b, _ in unit}))
            return unit
        op.lost()
        return unit

    def _acknowledged(self, sent: Sent, offset: int) -> None:
        broker, end = self.broker, offset + len(sent.records)
        broker.acknowledged[sent.partition] = max(end, broker.acknowledged.get(sent.partition, 0))
        broker.known += sent.records
        if sent.producer:
            broker.told[sent.producer, sent.partition] = sent.sequence + len(sent.records)

    def _pairs(self) -> Task:
        """Without idempotence: sends each request once, or once more."""
        name = f"pairs-{self.chance.random()}"
        number = 0
        while not self.is_over:
            records = [(None, f"{name}/{number}".encode())]
            parts = []
            for place in KEPT[:2]:
                sent = Sent(place, list(records), self.broker.now_ms)
                parts.append((self._batch(sent), sent))
            number += 1
            if (yield from self._attempt(name, [parts])) and self.broker.fault is not Fault.STORE_REFUSED:
                # Once more, so that there may be two.
                yield from self._attempt(name, [parts])
            yield from self._pause()

    def _late_ones(self) -> Task:
        """What was lost on its way arrives, or does not."""
        while self._late or not self.is_over:
            yield
            if self._late and self.chance.random() < 0.3:
                sent = self._late.pop(self.chance.randrange(len(self._late)))
                self.broker.is_answering = False
                if self.chance.random() < 0.5 and not self.broker.is_planted:
                    self.broker.produce(sent)

    def _stream(self) -> Task:
        """A client that hides its requests."""
        stream = self.recorder.stream(BRIEF, producer="stream")
        while not self.is_over:
            sent = Sent(
                BRIEF, [(None, b"stream/%d" % len(stream))], self.broker.now_ms, "stream", len(stream)
            )
            number = stream.sent(*sent.records[0], self.broker.now_ms)
            yield
            self.broker.is_answering = False
            code, offset = self.broker.produce([sent])[BRIEF]
            if code:
                return  # The broker has committed a fault.
            yield
            stream.delivered(number, offset)
            yield from self._pause()

    # What takes records.

    def _jobs(self) -> Task:
        while not self.is_over:
            yield
            match self.chance.choice(("retain", "compact", "trim", "nothing", "nothing")):
                case "retain":
                    self.broker.retain(BRIEF)
                case "compact":
                    self.broker.compact(LATEST)
                case "trim":
                    log = self.broker.logs[TRIMMED]
                    asked = self.chance.randint(0, log.end)
                    op = self.recorder.begin("trimmer", DeleteRecords({TRIMMED: asked}))
                    yield
                    is_answered = self.chance.random() < 0.7
                    if not is_answered and self.chance.random() < 0.5:
                        op.lost()
                        continue
                    low_watermark = self.broker.delete_records(TRIMMED, asked)
                    yield
                    if is_answered:
                        op.answered(Trimmed({TRIMMED: TrimmedPart(0, low_watermark)}))
                        self.broker.acknowledged_start = max(self.broker.acknowledged_start, low_watermark)
                    else:
                        op.lost()
                case _:
                    log = self.broker.logs[KEPT[0]]
                    if log.end > 4 and self.broker.strikes(Fault.TAKE_WITHOUT_REASON):
                        log.start += 2

    def _fleeting(self) -> Task:
        """A topic that comes and goes, with a producer to it."""
        while not self.is_over:
            yield from self._make_fleeting()
            yield from self._delete_fleeting()
        if self.chance.random() < 0.5:
            yield from self._make_fleeting()

    def _make_fleeting(self) -> Task:
        op = self.recorder.begin("maker", CreateTopic("fleeting"))
        yield
        is_new = self.broker.create("fleeting", 2)
        yield
        if is_new:
            op.answered(Done())
        else:
            op.failed(ErrorCode.TOPIC_ALREADY_EXISTS)
        for _ in range(self.chance.randint(1, 4)):
            parts = []
            for place in FLEETING:
                content = (None, b"fleeting/%d" % len(self.recorder.history.batches))
                sent = Sent(place, [content], self.broker.now_ms)
                parts.append((self._batch(sent), sent))
            yield from self._attempt("maker", [parts])

    def _delete_fleeting(self) -> Task:
        while True:
            op = self.recorder.begin("maker", DeleteTopic("fleeting"))
            yield
            keeps = FLEETING[0] in self.broker.logs and self.broker.strikes(Fault.KEEP_DELETED_TOPIC)
            is_done = keeps or self.broker.delete("fleeting")
            yield
            if is_done and not keeps and self.chance.random() < 0.4:
                op.lost()
                continue
            if is_done:
                op.answered(Done())
            else:
                op.failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            return

    # Readers.

    def _consumer(self, name: str, places: Sequence[Partition]) -> Task:
        positions = dict.fromkeys(places, 0)
        while not self.is_over:
            if self.chance.random() < 0.05:
                positions = dict.fromkeys(places, 0)
            agent = self._agent()
            op = self.recorder.begin(name, Fetch(dict(positions)), agent)
            told = dict(self._told)
            yield
            parts = {
                place: self._part(agent, place, at, told.get((agent, place), 0))
                for place, at in positions.items()
            }
            yield
            self._answer(op, parts)
            for place, part in parts.items():
                positions[place] = max(positions[place], part.next_offset)
            yield from self._pause()

    def _answer(self, op: Op, parts: dict[Partition, Part]) -> None:
        op.answered(Fetched(parts))
        for place, part in parts.items():
            self._told[op.agent, place] = max(part.high_watermark, self._told.get((op.agent, place), 0))

    def _part(self, agent: str, place: Partition, position: int, told: int, limit: int = 3) -> Part:
        """Some of a log, with an end that may be that of a while ago, but not of before the agent told another one."""
        log, broker = self.broker.logs[place], self.broker
        if log.start > position:
            return Part(ErrorCode.OFFSET_OUT_OF_RANGE)
        end = min(log.end, position + self.chance.randint(1, limit))
        known = self._ends.get((agent, place), 0)
        high = self.chance.randint(max(known, end), log.end)
        if told > end and broker.strikes(Fault.END_GOES_BACK, 0.1):
            high = end
        self._ends[agent, place] = max(known, high)
        found = [(o, *r) for o, r in enumerate(log.records[position:end], position) if r is not None]
        if place is not LATEST and len(found) >= 3 and broker.strikes(Fault.SKIP_IN_FETCH):
            del found[1]
        if found and found[0][2] is not None and broker.strikes(Fault.OTHER_IN_FETCH):
            found[0] = (found[0][0], None, found[0][2] + b"?")
        return self.recorder.part(0, high, log.start, found, end)

    def _sceptic(self) -> Task:
        """Asks for ends, and for what lies there."""
        while not self.is_over:
            place, agent = self.chance.choice([*KEPT, TRIMMED, LATEST, BRIEF]), self._agent()
            log = self.broker.logs[place]
            if self.chance.random() < 0.5:
                limit = self.chance.choice((Limit.LATEST, Limit.EARLIEST))
                op = self.recorder.begin("sceptic", ListOffsets([place], limit), agent)
                end = self.broker.acknowledged.get(place, 0)
                yield
                offset = log.end if limit == Limit.LATEST else log.start
                if limit == Limit.LATEST and end and self.broker.strikes(Fault.LATE_END, 0.1):
                    offset = 0
                elif limit == Limit.LATEST:
                    self._ends[agent, place] = offset
                yield
                op.answered(Listed({place: ListedOffset(0, offset)}))
                if limit == Limit.LATEST:
                    self._told[agent, place] = max(offset, self._told.get((agent, place), 0))
            else:
                position = self.chance.randint(0, log.end)
                op = self.recorder.begin("sceptic", Fetch({place: position}), agent)
                told, end = self._told.get((agent, place), 0), self.broker.acknowledged.get(place, 0)
                yield
                part = self._part(agent, place, position, told, limit=4)
                if place.topic == "kept" and part.next_offset > position and end > position:
                    if self.broker.strikes(Fault.EMPTY_FETCH):
                        part = self.recorder.part(0, max(told, position), next_offset=position)
                    elif self.broker.strikes(Fault.OUT_OF_RANGE):
                        part = Part(ErrorCode.OFFSET_OUT_OF_RANGE)
                yield
                self._answer(op, {place: part})
            yield from self._pause()

    def _reader(self) -> Task:
        """A client that hides its requests."""
        reader = self.recorder.reader("reader")
        position = 0
        while not self.is_over:
            yield
            log = self.broker.logs[KEPT[2]]
            if position < log.end:
                record = log.records[position]
                if record is not None:
                    reader.saw(KEPT[2], position, *record)
                position += 1
            elif self.chance.random() < 0.2:
                reader.moved(KEPT[2])
                position = 0

    # In the end.

    def _read_back(self, agent: str) -> Readback:
        back = self.recorder.readback(agent, self.broker.now_ms)
        for place in [*KEPT, TRIMMED, BRIEF, LATEST, *FLEETING]:
            log = self.broker.logs.get(place)
            if log is None:
                back.does_not_know(place)
            else:
                self._read_log(back, place, log, is_last=agent == AGENTS[-1])
        for group in (GROUP, COMMITTERS):
            back.group(group, {p: self.broker.committed.get((group, p), -1) for p in KEPT})
        return back

    def _read_log(self, back: Readback, place: Partition, log: Log, *, is_last: bool) -> None:
        end = log.end
        if is_last and log.end > log.start and self.broker.strikes(Fault.FORGET_AT_ONE_AGENT, 0.5):
            end -= 1
        read = back.log(place, log.start, end)
        for offset, record in enumerate(log.records[log.start : end], log.start):
            if record is None:
                continue
            key, value = record
            if is_last and value is not None and self.broker.strikes(Fault.DISAGREE, 0.2):
                value += b"!"
            read.add(offset, key, value, log.times_ms[offset])
