"""All clients of a run: raw ones on an event loop of their own, librdkafka's in threads. Everything is recorded."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from tests.faults.caller import Score, Where
from tests.faults.raw_admins import TopicMaker, Trimmer
from tests.faults.raw_members import RawMember
from tests.faults.raw_readers import Committer, RawReader
from tests.faults.raw_writers import PlainWriter, RawWriter
from tests.faults.real_clients import RealConsumer, RealProducer, until
from tests.faults.topics import (
    AUDIT,
    BRIEF,
    COPIES,
    EVENTS,
    LATEST,
    MEMBERS_GROUP,
    ORDERS,
    TOPICS,
    TRIMMED,
    Topic,
)
from tests.verifier import Partition, Recorder

COMMITTERS = 4
"""They hardly ever rest: whoever is frozen or cut off is so in the middle of a commit."""
START_S = 30.0
END_S = 45.0
"""How long what was begun may take when nothing disturbs any more."""


class _Client(Protocol):
    score: Score

    async def run(self, stopping: asyncio.Event) -> None: ...


class Load:
    """At work from `start` to `finish`. `scores` are those of all clients."""

    def __init__(self, recorder: Recorder, agents: Sequence[Where], bootstrap: str, seed: int) -> None:
        self.recorder = recorder
        self._agents = agents
        self._seed = seed
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="raw clients", daemon=True)
        self._failure: BaseException | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._seen: set[tuple[Partition, int]] = set()
        self._clients: list[_Client] = self._raw_clients()
        self.producers = [
            RealProducer(recorder, number, bootstrap, EVENTS, self._source(f"producer {number}"), 60.0)
            for number in range(2)
        ]
        self.consumers = [
            RealConsumer(recorder, number, bootstrap, EVENTS, self._source(f"consumer {number}"), self._seen)
            for number in range(3)
        ]

    @property
    def committer_groups(self) -> list[str]:
        """Groups of committers."""
        return [client.group for client in self._clients if isinstance(client, Committer)]

    @property
    def deleted_topics(self) -> list[Topic]:
        """Those that came and went."""
        return [
            topic for client in self._clients if isinstance(client, TopicMaker) for topic in client.deleted
        ]

    @property
    def scores(self) -> list[Score]:
        return [
            *(client.score for client in self._clients),
            *(worker.score for worker in (*self.producers, *self.consumers)),
        ]

    @property
    def problems(self) -> list[str]:
        """What clients were told that they should not have been, and failures of their own."""
        found = [problem for score in self.scores for problem in score.problems]
        return found if self._failure is None else [f"raw clients: {self._failure!r}", *found]

    def start(self) -> None:
        """Make the topics, and begin."""
        maker = TopicMaker(self.recorder, "administrator", self._agents, self._source("administrator"))

        async def make() -> None:
            async with asyncio.timeout(START_S):
                for topic in TOPICS:
                    await maker.create(topic)
            maker.hang_up()

        asyncio.run(make())
        self._thread.start()
        for worker in (*self.producers, *self.consumers):
            worker.start()

    def go_on(self, timeout_s: float) -> list[str]:
        """Wait until everybody has come to his goal once more; the names of those who have not in time.

        Consumers of one group are as good as one, since some may have nothing to read.
        """
        readers = {consumer.score.name for consumer in self.consumers}
        before = {score.name: score.done for score in self.scores}

        def waiting() -> list[str]:
            names = [score.name for score in self.scores if score.done <= before[score.name]]
            if not readers.issubset(names):
                names = [name for name in names if name not in readers]
            return names

        until(lambda: not waiting(), timeout_s)
        return waiting()

    def finish(self) -> None:
        """End all, and what was begun with them."""
        for producer in self.producers:
            producer.stop()
            producer.join()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        for producer in self.producers:
            producer.finish(END_S)
        self._thread.join(2 * END_S)
        if self._thread.is_alive():
            names = [client.score.name for client in self._clients]
            self._failure = TimeoutError(f"some of {names} do not end")

    def read_by_consumers(self) -> int:
        """How many of the group's records came to some consumer at least once."""
        return len(self._seen)

    def end_consumers(self) -> None:
        """When they have read what there was."""
        for consumer in self.consumers:
            consumer.stop()
        for consumer in self.consumers:
            consumer.join()

    def abandon(self) -> None:
        """End it without waiting for anything."""
        for worker in (*self.producers, *self.consumers):
            worker.stop()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._abandon_raw)
            self._thread.join(END_S)

    def _raw_clients(self) -> list[_Client]:
        recorder, agents, places = self.recorder, self._agents, _places(TOPICS)
        made: list[Callable[[str], _Client]] = [
            *(lambda name: self._writer(name, (ORDERS, AUDIT), 0.03) for _ in range(2)),
            lambda name: self._writer(name, (ORDERS, TRIMMED, LATEST, BRIEF), 0.03),
            lambda name: PlainWriter(recorder, name, agents, self._source(name), COPIES, 0.06),
            *(
                lambda name: RawReader(recorder, name, agents, self._source(name), places, 0.05)
                for _ in range(3)
            ),
            *(
                lambda name: Committer(recorder, name, agents, self._source(name), AUDIT.places, 0.02)
                for _ in range(COMMITTERS)
            ),
            *(
                lambda name: RawMember(
                    recorder, name, agents, self._source(name), MEMBERS_GROUP, ORDERS.places
                )
                for _ in range(3)
            ),
            lambda name: TopicMaker(recorder, name, agents, self._source(name)),
            lambda name: Trimmer(recorder, name, agents, self._source(name), TRIMMED),
        ]
        return [make(f"raw-{number}") for number, make in enumerate(made)]

    def _writer(self, name: str, topics: Sequence[Topic], pause_s: float) -> RawWriter:
        return RawWriter(self.recorder, name, self._agents, self._source(name), topics, pause_s)

    def _source(self, name: str) -> random.Random:
        return random.Random(f"{self._seed}/{name}")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._work())
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._loop.close()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = [tasks.create_task(client.run(self._stopping)) for client in self._clients]

    def _abandon_raw(self) -> None:
        for task in self._tasks:
            task.cancel()


def _places(topics: Sequence[Topic]) -> list[Partition]:
    return [place for topic in topics for place in topic.places]
