"""Twenty consumers of all kinds come and go while records flow: nothing is skipped, and no place in the log is lost."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from tests.clients.members import KINDS, Kind, Member, Seen
from tests.clients.test_groups import make_topic

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(300)]

CONSUMERS = 20
PARTITIONS = 24
CHURN_S = 60.0
RECORDS_PER_S = 200
CHANGE_S = 2.0
KILLED_OF = 4
"""One in so many that go is killed, and its group finds out when its session has ended."""
SETTLE_S = 120.0
SEED = 20


class Stream:
    """Records that flow until it is told to end, in a thread of its own; and which of them were acknowledged.

    Idempotent: what an agent has stored and could not acknowledge any more is in the log once, though it is sent again.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 20, "enable.idempotence": True}
        )
        self._topic = topic
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: dict[str, int] = {}
        """The partition of each value."""
        self.errors: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Send nothing more, and wait until everything is acknowledged."""
        self._is_ending.set()
        self._thread.join(60)
        assert self._producer.flush(60) == 0
        assert self.errors == []

    def _run(self) -> None:
        number = 0
        while not self._is_ending.wait(0.1):
            for _ in range(RECORDS_PER_S // 10):
                self._producer.produce(
                    self._topic, str(number), partition=number % PARTITIONS, on_delivery=self._delivered
                )
                number += 1
            self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        value, partition = message.value(), message.partition()
        if error is not None or value is None or partition is None:
            self.errors.append(str(error))
        else:
            self.acknowledged[value.decode()] = partition


class Watch:
    """Looks at the committed offsets of a group again and again, as a tool does; notes each that went back.

    With `may_fail` a look that gets no answer is no error: whoever was asked is gone. The next one is by a new client,
    because librdkafka 2.16 can go on waiting for a coordinator that Metadata has ceased to name, and for no other.
    """

    def __init__(self, bootstrap: str, group: str, *, may_fail: bool = False) -> None:
        self._may_fail = may_fail
        self._bootstrap = bootstrap
        self._client = AdminClient({"bootstrap.servers": bootstrap})
        self._group = group
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.offsets: dict[int, int] = {}
        self.went_back: list[tuple[int, int, int]] = []
        """Partition, the offset seen before, and the lower one seen after it."""
        self.looks = 0
        self.error: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._is_ending.set()
        self._thread.join(60)
        assert self.error is None

    def look(self) -> None:
        """One OffsetFetch of everything that the group has committed."""
        futures = self._client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self._group)])
        for found in futures[self._group].result(10).topic_partitions or ():
            before = self.offsets.get(found.partition, -1)
            if found.offset < before:
                self.went_back.append((found.partition, before, found.offset))
            self.offsets[found.partition] = found.offset
        self.looks += 1

    def _run(self) -> None:
        try:
            while not self._is_ending.wait(0.2):
                try:
                    self.look()
                except (KafkaException, TimeoutError):
                    if not self._may_fail:
                        raise
                    self._client = AdminClient({"bootstrap.servers": self._bootstrap})
        except Exception as error:
            self.error = error
            raise


class Crowd:
    """The members of one group: some are there, some are away, all write down in one place what they have done."""

    def __init__(self, bootstrap: str, topic: str, group: str) -> None:
        self.seen = Seen()
        self._arguments = (bootstrap, topic, group)
        self._chance = random.Random(SEED)
        self._away: list[Kind] = [KINDS[number % len(KINDS)] for number in range(CONSUMERS)]
        self._here: list[Member] = []
        self.came = self.left = self.died = 0

    def come(self) -> None:
        """One that is away comes."""
        kind = self._away.pop(0)
        self._here.append(Member(kind, *self._arguments, self.seen, session_ms=6_000))
        self.came += 1

    def go(self) -> None:
        """One that is there goes; one in a few does so without a word."""
        member = self._here.pop(self._chance.randrange(len(self._here)))
        if self._chance.randrange(KILLED_OF):
            member.stop()
            self.left += 1
        else:
            member.kill()
            self.died += 1
        self._away.append(member.kind)

    def assert_all_live(self) -> None:
        gone = [member for member in self._here if member.process.poll() is not None]
        assert gone == [], [
            (member.kind.name, member.process.returncode, member._errors[-20:]) for member in gone
        ]

    def stop(self) -> None:
        for member in self._here:
            member.stop()

    def kill(self) -> None:
        for member in self._here:
            if member.process.poll() is None:
                member.kill()


@contextmanager
def crowd_of(bootstrap: str, topic: str, group: str) -> Iterator[Crowd]:
    crowd = Crowd(bootstrap, topic, group)
    try:
        yield crowd
    finally:
        crowd.kill()


def test_consumers_that_come_and_go_process_every_record_and_lose_no_offset(
    bootstrap: str, topic: str
) -> None:
    make_topic(bootstrap, topic, PARTITIONS)
    group = f"g-{topic}"
    stream, watch = Stream(bootstrap, topic), Watch(bootstrap, group)
    with crowd_of(bootstrap, topic, group) as crowd:
        stream.start()
        watch.start()
        until = time.monotonic() + CHURN_S
        for _ in range(CONSUMERS):
            crowd.come()
            time.sleep(0.2)
        while time.monotonic() < until:
            crowd.assert_all_live()
            crowd.go()
            crowd.come()
            time.sleep(CHANGE_S)
        stream.end()
        sent = stream.acknowledged
        deadline = time.monotonic() + SETTLE_S
        while sum(watch.offsets.values()) < len(sent) and time.monotonic() < deadline:
            crowd.assert_all_live()
            time.sleep(0.2)
        watch.end()
        crowd.stop()
    missed = sent.keys() - crowd.seen.values()
    assert sorted(missed, key=int)[:20] == [], (
        f"{len(missed)} of {len(sent)} records, {crowd.seen.problems[-10:]}"
    )
    assert watch.went_back == []
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for partition in sent.values():
        ends[partition] += 1
    assert watch.offsets == ends
    # The test has tested something: members of both kinds have gone, and somebody has looked on all the time.
    assert min(crowd.left, crowd.died) > 0
    assert watch.looks > CHURN_S
