"""The life of data in a world: topics that lose records by retention, deletion and compaction, and are deleted.

Clients write, read and delete while agents crash and stores fail, and jobs do their work, at times at two agents that
both believe they hold a lease. All that clients ask and are answered goes to the verifier (tests/verifier), which
knows what topics may lose.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from typing import TYPE_CHECKING

from tests.sim import life_requests, requests
from tests.sim.bugs import failure_of
from tests.sim.client import Connection, Lost
from tests.sim.life_clients import LifeClient, PolicyChanger, Reader, Trimmer, Writer
from tests.sim.life_renewal import Renewer, Scribbler
from tests.sim.life_spans import Spans
from tests.sim.life_starts import Starts
from tests.sim.life_topics import some_topics
from tests.sim.twins import Twins
from tests.verifier import CreateTopic, Done, Partition
from warp.errors import ErrorCode

if TYPE_CHECKING:
    from tests.sim.world import World

LIVES = 0.6
"""The share of worlds that have topics of this kind."""
ATTEMPTS = 60


def has_life(seed: int) -> bool:
    """Does data die in the world of this seed?"""
    return random.Random(f"{seed} has life").random() < LIVES


class DataLife:
    """All of it in one world. It has chances of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = random.Random(f"{world.seed} life")
        self.recorder = world.verifying.recorder
        self.topics = some_topics(self.chance)
        self.twins = Twins(world, random.Random(self.chance.random()))
        self.starts = Starts(self.topics, world.history)
        self.spans = Spans(self.topics, world.history)
        self.began_ms = 0
        """When its clients began to write."""
        self.address = ""
        """Where clients are to connect to; empty: anywhere."""
        self._clients: list[LifeClient] = []
        self._tasks: list[asyncio.Task[None]] = []

    def is_renewed(self, place: Partition) -> bool:
        """Is it of a topic that is deleted and created anew?"""
        return any(topic.is_renewed and topic.name == place.topic for topic in self.topics)

    @property
    def places(self) -> list[Partition]:
        """All partitions."""
        return [place for topic in self.topics for place in topic.places]

    async def start(self) -> None:
        """Create the topics, and let clients at them."""
        await self._create()
        self.began_ms = self.world.clock.time_ms()
        kept = [topic for topic in self.topics if not topic.is_renewed]
        for number in range(self.chance.randint(1, 2)):
            if kept:
                self._clients.append(Writer(self, f"writer-{number}", kept))
            self._clients.append(Reader(self, f"reader-{number}", self.places))
        for topic in self.topics:
            if topic.is_trimmed:
                self._clients.append(Trimmer(self, "trimmer", topic.places))
            if topic.is_changing:
                self._clients.append(PolicyChanger(self, "changer", topic))
            if topic.is_renewed:
                self._clients.append(Renewer(self, "renewer", topic))
                self._clients += [Scribbler(self, f"scribbler-{number}", topic) for number in range(2)]
        self._tasks = [self.world.spawn(client.run()) for client in self._clients]
        self._tasks.append(self.world.spawn(self.twins.run()))

    async def _create(self) -> None:
        ops = [self.recorder.begin("admin", CreateTopic(topic.name)) for topic in self.topics]
        for _ in range(ATTEMPTS):
            try:
                connection = await Connection.open(self.world.network, self.world.any_address(), "admin")
                response = await connection.ask(
                    life_requests.create(self.topics), requests.CREATE_TOPICS_VERSION
                )
                connection.close()
            except Lost:
                await asyncio.sleep(0.1)
                continue
            codes = {ErrorCode(topic.error_code) for topic in response.topics}
            if codes <= {ErrorCode.NONE, ErrorCode.TOPIC_ALREADY_EXISTS}:
                break
        else:
            self.world.history.violate("P6", "topics could not be created")
        for op in ops:
            op.answered(Done())

    def placed(self, place: Partition, offset: int, count: int, timestamp_ms: int) -> None:
        """A batch was acknowledged."""
        self.starts.placed(place, offset, count, timestamp_ms)
        self.spans.placed(place, offset, count, timestamp_ms)

    def see(self, connection: sqlite3.Connection) -> None:
        """After each commit."""
        self.starts.see(connection, self.world.clock.time_ms())
        self.spans.see(connection)

    def judge(self) -> None:
        """When everything is acknowledged that was ever sent."""
        self.starts.judge(self.world.clock_spread_ms)
        self.spans.judge()

    def calm(self) -> None:
        """Nothing happens any more."""
        self.twins.calm()
        for client in self._clients:
            client.is_stopping = True

    async def settle(self, timeout_s: float) -> None:
        """See the clients come to their end."""
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
        if late:
            for place in self.world.loop.waiting_places():
                self.world.history.add("waits", place)
            self.world.history.violate("P6", f"{len(late)} clients of topics whose records go do not end")
        for task in self._tasks:
            if task.done() and (failure := failure_of(task)) is not None:
                self.world.history.violate("P7", f"a client failed: {failure!r}")
