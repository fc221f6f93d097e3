"""What happens beside the writing: topics come and go, records are deleted, policies change, agents are killed."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from tests.soak.clients import Worker
from tests.soak.model import Stream
from tests.support.client_load import QUICK
from tests.support.process import AgentProcess
from tests.verifier import (
    CreateTopic,
    DeleteRecords,
    DeleteTopic,
    Done,
    Partition,
    Recorder,
    Trimmed,
    TrimmedPart,
)
from tests.verifier.recorder import State
from warp.errors import ErrorCode

ADMIN_S = 60.0
TRIMMED_KEEPS = 1000
FLEETING_PARTITIONS = 3
FLEETING_RECORDS = 500


def admin_of(bootstrap: str) -> AdminClient:
    """A client of the admin APIs."""
    return AdminClient({"bootstrap.servers": bootstrap, **QUICK})


class Trimmer(Worker):
    """Deletes the records of partitions but for the last ones, again and again."""

    def __init__(self, recorder: Recorder, bootstrap: str, streams: Sequence[Stream]) -> None:
        self._recorder = recorder
        self._admin = admin_of(bootstrap)
        self._streams = streams
        super().__init__("deleter of records", self._trim)

    def _trim(self) -> None:
        offsets = {stream.place: max(0, stream.acknowledged - TRIMMED_KEEPS) for stream in self._streams}
        ops = {
            place: self._recorder.begin("deleter of records", DeleteRecords({place: offset}))
            for place, offset in offsets.items()
        }
        places = [TopicPartition(place.topic, place.number, offset) for place, offset in offsets.items()]
        for at, answer in self._admin.delete_records(places, request_timeout=ADMIN_S).items():
            place = Partition(at.topic, at.partition)
            try:
                start = answer.result(ADMIN_S).low_watermark
            except KafkaException:
                ops[place].lost()  # The agent is being started again; it is asked once more.
            else:
                ops[place].answered(Trimmed({place: TrimmedPart(0, start)}))
        self.score.succeed()
        self.pause(2.0)


class Fleeting(Worker):
    """Creates topics, writes to them, and deletes them."""

    def __init__(self, recorder: Recorder, bootstrap: str) -> None:
        self.places: list[Partition] = []
        """Of all that there have been."""
        self._recorder = recorder
        self._admin = admin_of(bootstrap)
        self._bootstrap = bootstrap
        self._numbers = itertools.count()
        super().__init__("maker of topics", self._live_and_die)

    def _live_and_die(self) -> None:
        number = next(self._numbers)
        name, configs = f"fleeting-{number}", {"cleanup.policy": ("delete", "compact")[number % 2]}
        self.places += [Partition(name, partition) for partition in range(FLEETING_PARTITIONS)]
        op = self._recorder.begin("maker of topics", CreateTopic(name))
        try:
            topic = NewTopic(name, FLEETING_PARTITIONS, 1, config=configs)
            self._admin.create_topics([topic])[name].result(ADMIN_S)
            op.answered(Done())
            producer = Producer({"bootstrap.servers": self._bootstrap, "linger.ms": 5, **QUICK})
            for place in range(FLEETING_RECORDS):
                producer.produce(name, b"x" * 300, b"%d" % (place % 50))
            producer.flush(ADMIN_S)
            self.pause(1.0)
        except KafkaException:
            if op.state is State.PENDING:
                op.lost()
            self.pause(0.5)  # The agent is being started again.
        self._delete(name)
        self.score.succeed()

    def _delete(self, name: str) -> None:
        """Also when it is told to stop: no topic is left over."""
        for _ in range(100):
            op = self._recorder.begin("maker of topics", DeleteTopic(name))
            try:
                if name not in self._admin.list_topics(timeout=10).topics:
                    op.failed(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
                    return
                self._admin.delete_topics([name])[name].result(ADMIN_S)
                op.answered(Done())
            except KafkaException:
                op.lost()
                time.sleep(0.2)
        self.score.complain(f"{name} can't be deleted")


class PolicyChanger(Worker):
    """Lets a topic be compacted, and no longer, and so on. It ends compacted."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._admin = admin_of(bootstrap)
        self._topic = topic
        self._policies = itertools.cycle(("compact", "delete", "compact,delete"))
        super().__init__("changer of policies", lambda: self._set(next(self._policies), 3.0))

    def stop(self) -> None:
        super().stop()
        self._set("compact", 0.0)

    def _set(self, policy: str, pause_s: float) -> None:
        entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._topic, incremental_configs=[entry])
        for _ in range(100):
            try:
                self._admin.incremental_alter_configs([resource])[resource].result(ADMIN_S)
                self.score.succeed()
                break
            except KafkaException:
                self.pause(0.2)
        else:
            self.score.complain(f"the policy can't be set to {policy}")
        self.pause(pause_s)


class Killer(Worker):
    """kill -9 of one agent now and then; it is started again after a moment."""

    def __init__(self, agents: Sequence[AgentProcess], seed: int, every_s: float) -> None:
        self._agents = agents
        self._source = random.Random(seed)
        self._every_s = every_s
        self.kills = 0
        super().__init__("killer", self._kill)

    def _kill(self) -> None:
        if self.pause(self._source.uniform(0.5, 1.5) * self._every_s):
            return
        victim = self._source.choice(self._agents)
        victim.kill()
        time.sleep(self._source.choice((0.0, 1.0, 3.0)))
        victim.start()
        self.kills += 1
        self.score.succeed()


class Watch(Worker):
    """Samples numbers every second: for each name the largest so far. What can't be read just now is left out."""

    def __init__(self, samples: Callable[[], dict[str, float]]) -> None:
        self._samples = samples
        self._lock = threading.Lock()
        self._largest: dict[str, float] = {}
        super().__init__("watch", self._look)

    def largest(self) -> dict[str, float]:
        """By name."""
        with self._lock:
            return dict(self._largest)

    def _look(self) -> None:
        found = self._samples()
        with self._lock:
            for name, value in found.items():
                self._largest[name] = max(value, self._largest.get(name, value))
        self.score.succeed()
        self.pause(1.0)
