"""A broker of a hundred lines that does everything right, unless it is told which fault to commit, once.

It is what the verifier is tested on: every history that it makes is right, and so every fault in one must be found.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from tests.verifier.history import Content
from tests.verifier.operations import Partition
from warp.errors import ErrorCode

RETENTION_MS = 3_000
TOMBSTONE_MS = 500


class Fault(Enum):
    """What the broker can do wrong."""

    LOSE_ACKNOWLEDGED = auto()
    ALTER = auto()
    ALTER_TIME = auto()
    SWAP = auto()
    STORE_TWICE = auto()
    COPY = auto()
    TEAR_REQUEST = auto()
    TEAR_BATCH = auto()
    LEAVE_HOLE = auto()
    SKIP_SEQUENCE = auto()
    NAME_OTHER_OFFSET = auto()
    STORE_REFUSED = auto()
    STRANGER = auto()
    DISAGREE = auto()
    FORGET_AT_ONE_AGENT = auto()
    LATE_END = auto()
    EMPTY_FETCH = auto()
    END_GOES_BACK = auto()
    SKIP_IN_FETCH = auto()
    OTHER_IN_FETCH = auto()
    OUT_OF_RANGE = auto()
    TAKE_EARLY = auto()
    TAKE_WITHOUT_REASON = auto()
    UNDO_DELETE_RECORDS = auto()
    TAKE_LAST_OF_KEY = auto()
    BRING_BACK_OLD_VALUE = auto()
    KEEP_DELETED_TOPIC = auto()
    KEEP_RECORDS_OF_DELETED_TOPIC = auto()
    LOSE_COMMIT = auto()
    TELL_OLD_COMMIT = auto()
    TELL_STRANGE_COMMIT = auto()
    SHARE_TWICE = auto()
    OLD_GENERATION = auto()
    GIVE_ID_TWICE = auto()
    REFUSE_IN_ORDER = auto()


@dataclass(slots=True)
class Sent:
    """A batch on its way."""

    partition: Partition
    records: list[Content]
    timestamp_ms: int
    producer: str = ""
    sequence: int = -1


@dataclass(slots=True)
class Log:
    """A partition."""

    records: list[Content | None] = field(default_factory=list)
    """None: taken by compaction, or never there."""
    times_ms: list[int] = field(default_factory=list)
    start: int = 0
    sequences: dict[str, int] = field(default_factory=dict)
    places: dict[tuple[str, int], int] = field(default_factory=dict)
    taken: dict[int, Content] = field(default_factory=dict)
    """By compaction."""

    @property
    def end(self) -> int:
        """The high watermark."""
        return len(self.records)


class Broker:
    """All logs, committed offsets and groups; its agents are names."""

    def __init__(self, chance: random.Random, fault: Fault | None) -> None:
        self.chance = chance
        self.fault = fault
        self.is_planted = False
        self.now_ms = 1_000_000
        self.logs: dict[Partition, Log] = {}
        self.committed: dict[tuple[str, Partition], int] = {}
        self.acknowledged: dict[Partition, int] = {}
        """Ends of what clients were told is there."""
        self.acknowledged_start = 0
        """What clients were told DeleteRecords has done."""
        self.known: list[Content | None] = []
        """What clients were told is there."""
        self.is_answering = False
        """The client will be told what becomes of its request."""
        self.is_ending = False
        self.producer_ids = 0
        self.told: dict[tuple[str, Partition], int] = {}
        """By producer and partition, the sequence after what it knows to be there."""
        self._former: dict[Partition, Log] = {}
        self._strangers = 0

    def strikes(self, fault: Fault, share: float = 0.3, at: Partition | None = None) -> bool:
        """Is it now that this fault is to be committed? Where traces vanish rightly none is."""
        if self.fault is not fault or self.is_planted or self.chance.random() > share:
            return False
        if at is not None and at.topic != "kept":
            return False
        self.is_planted = True
        return True

    # Topics.

    def create(self, topic: str, partitions: int) -> bool:
        """False when it is there."""
        if Partition(topic, 0) in self.logs:
            return False
        for number in range(partitions):
            place = Partition(topic, number)
            self.logs[place] = Log()
            former = self._former.get(place)
            if (
                former is not None
                and former.records
                and former.records[0] in self.known
                and self.is_ending
                and self.strikes(Fault.KEEP_RECORDS_OF_DELETED_TOPIC, 1.0)
            ):
                self.logs[place].records = former.records[:1]
                self.logs[place].times_ms = former.times_ms[:1]
        return True

    def delete(self, topic: str) -> bool:
        """False when it is not there."""
        places = [place for place in self.logs if place.topic == topic]
        for place in places:
            self._former[place] = self.logs.pop(place)
        return bool(places)

    # Producing.

    def produce(self, sent: Sequence[Sent]) -> dict[Partition, tuple[int, int]]:
        """Error code and base offset for each batch."""
        if len(sent) > 1 and not sent[0].producer and self.strikes(Fault.TEAR_REQUEST, at=sent[0].partition):
            return {each.partition: self._append(each) for each in sent[:1]}
        return {each.partition: self._append(each) for each in sent}

    def _append(self, sent: Sent) -> tuple[int, int]:
        log = self.logs.get(sent.partition)
        if log is None:
            return ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1
        if not sent.producer:
            offset = self._store(log, sent)
            if self.is_answering and self.strikes(Fault.COPY, at=sent.partition):
                self._store(log, sent)
            return 0, offset
        known = log.places.get((sent.producer, sent.sequence))
        if known is not None:
            if self.strikes(Fault.STORE_TWICE, 1.0, sent.partition):
                return 0, self._store(log, sent)
            errs = self.is_answering and self.strikes(Fault.NAME_OTHER_OFFSET, 1.0, sent.partition)
            return 0, known + 1 if errs else known
        expected = log.sequences.get(sent.producer, 0)
        skips = sent.sequence > expected and self.strikes(Fault.SKIP_SEQUENCE, 1.0, sent.partition)
        if sent.sequence != expected and not skips:
            return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        if self.is_answering:
            if self._is_told(sent) and self.strikes(Fault.REFUSE_IN_ORDER, 0.05):
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
            if self.strikes(Fault.LOSE_ACKNOWLEDGED, at=sent.partition):
                return 0, log.end
        log.sequences[sent.producer] = sent.sequence + len(sent.records)
        log.places[sent.producer, sent.sequence] = log.end
        return 0, self._store(log, sent)

    def _is_told(self, sent: Sent) -> bool:
        """Does its producer know that all before it is there?"""
        return self.told.get((sent.producer, sent.partition), 0) == sent.sequence

    def _store(self, log: Log, sent: Sent) -> int:
        place = sent.partition
        if self.strikes(Fault.LEAVE_HOLE, 0.1, place):
            log.records.append(None)
            log.times_ms.append(self.now_ms)
        if self.strikes(Fault.STRANGER, 0.1, place):
            self._strangers += 1
            log.records.append((None, b"stranger %d" % self._strangers))
            log.times_ms.append(self.now_ms)
        offset = log.end
        records: list[Content | None] = list(sent.records)
        if len(records) > 1 and self.strikes(Fault.TEAR_BATCH, at=place):
            records.pop()
        key, value = sent.records[0]
        if value is not None and self.strikes(Fault.ALTER, at=place):
            records[0] = (key, value + b"!")
        log.records += records
        time_ms = sent.timestamp_ms + self.strikes(Fault.ALTER_TIME, at=place)
        log.times_ms += [time_ms] * len(records)
        if (
            log.end >= 2
            and None not in log.records[-2:]
            and log.records[-1] != log.records[-2]
            and self.is_answering
            and self.strikes(Fault.SWAP, at=place)
        ):
            log.records[-2:] = log.records[:-3:-1]
        return offset

    # What takes records.

    def delete_records(self, place: Partition, offset: int) -> int:
        """The new start."""
        log = self.logs[place]
        log.start = max(log.start, min(log.end, offset))
        return log.start

    def retain(self, place: Partition) -> None:
        """Take what is older than retention allows."""
        log = self.logs[place]
        while log.start < log.end and log.times_ms[log.start] < self.now_ms - RETENTION_MS:
            log.start += 1

    def compact(self, place: Partition) -> None:
        """Leave the last record of each key, and no old tombstone."""
        log = self.logs[place]
        last = {record[0]: offset for offset, record in enumerate(log.records) if record is not None}
        for offset, record in enumerate(log.records[:-1]):
            if record is None:
                continue
            is_dead = record[1] is None and log.times_ms[offset] < self.now_ms - TOMBSTONE_MS
            if last[record[0]] != offset or is_dead:
                log.taken[offset] = record
                log.records[offset] = None

    def finish(self, trimmed: Partition, brief: Partition, latest: Partition) -> None:
        """The last moment at which records can be taken, or come back."""
        log = self.logs[trimmed]
        if self.acknowledged_start and self.strikes(Fault.UNDO_DELETE_RECORDS, 1.0):
            log.start = 0
        log = self.logs[brief]
        is_young = log.start < log.end and log.times_ms[-1] >= self.now_ms - RETENTION_MS
        if is_young and self.strikes(Fault.TAKE_EARLY, 1.0):
            log.start = log.end
        self._end_table(self.logs[latest])

    def _end_table(self, log: Log) -> None:
        every = [record or log.taken.get(offset) for offset, record in enumerate(log.records)]
        last = {record[0]: offset for offset, record in enumerate(every) if record is not None}
        for offset, record in enumerate(log.records):
            if record is None and every[offset] is None:
                continue
            key, value = every[offset] or (None, None)
            is_last = last[key] == offset
            if record is not None and value is not None and is_last and self.strikes(Fault.TAKE_LAST_OF_KEY):
                log.records[offset] = None
            is_dead = value is not None and every[last[key]] == (key, None) and log.records[last[key]] is None
            if record is None and is_dead and self.strikes(Fault.BRING_BACK_OLD_VALUE, 1.0):
                log.records[offset] = (key, value)
