"""Raw clients that work on whichever agents answer them, and find out at once when one of these contradicts another.

A writer gives each of its batches again, to any agent, until one has acknowledged it; a committer does so with offsets.
Each is alone with its partition or group, so it knows what has to come out: what it does not is noted in `problems`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.broker.client import Client, produce_request
from tests.broker.groups import commit_request, fetch_request, offsets_in
from tests.broker.support import batch
from warp.errors import ErrorCode
from warp.protocol import Request
from warp.protocol.messages.groups import FindCoordinatorRequest
from warp.protocol.messages.producers import InitProducerIdRequest

ATTEMPT_S = 4.0
"""How long an agent may take for an answer until the next one is asked."""
AGAIN_S = 0.03
AVOID_S = 3.0
WANDER_SHARE = 0.1
"""How many of the batches go to another agent without need."""
BATCH_RECORDS_MAX = 4

TRY_AGAIN = {
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NETWORK_EXCEPTION,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.KAFKA_STORAGE_ERROR,
    ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_COORDINATOR,
}
"""Kafka's clients try again after these, and lose nothing."""


class Score:
    """What a client has done: how much, and when it was told so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self.times_s: list[float] = []
        """Monotonic."""

    def complain(self, text: str) -> None:
        """Note that something is not as it has to be, and when it was, as the agents' logs tell times."""
        now = datetime.now(UTC).strftime("%H:%M:%S.%f")
        self.problems.append(f"{now} {self.name}: {text}")

    def succeed(self) -> None:
        """Something was acknowledged, or arrived."""
        self.times_s.append(time.monotonic())

    def pause_s(self, since_s: float) -> float:
        """The longest time without success since a moment, or from the last success before it on."""
        before = max((moment for moment in self.times_s if moment <= since_s), default=since_s)
        after = [moment for moment in self.times_s if moment > since_s]
        moments = [before, *after, time.monotonic()]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


class Ports:
    """Those of the agents. One that has not answered is left in peace for a while, by all who share this."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._until_s = dict.fromkeys(ports, 0.0)

    def choose(self, source: random.Random) -> int:
        """Any that nothing is known against; any at all where there is none."""
        now_s = time.monotonic()
        good = [port for port, until_s in self._until_s.items() if until_s <= now_s]
        return source.choice(good or list(self._until_s))

    def avoid(self, port: int) -> None:
        """It has not answered."""
        self._until_s[port] = time.monotonic() + AVOID_S


class RawClient:
    """A connection to one agent at a time; `score` is what came of it."""

    def __init__(self, name: str, ports: Ports, source: random.Random) -> None:
        self.score = Score(name)
        self._ports = ports
        self._source = source
        self._port = ports.choose(source)
        self._client: Client | None = None
        self._client_port = -1

    async def ask(self, request: Request, version: int) -> Any:
        """The answer to a request; None when there was none."""
        try:
            async with asyncio.timeout(ATTEMPT_S):
                if self._client is None or self._client_port != self._port:
                    self._hang_up()
                    self._client, self._client_port = await Client.connect(self._port), self._port
                return await self._client.ask(request, version)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self._hang_up()
            self._ports.avoid(self._port)
            return None

    def move(self, port: int | None = None) -> None:
        """Ask another agent from now on; without a port any."""
        self._port = self._ports.choose(self._source) if port is None else port

    def judge(self, error: int, what: str) -> None:
        """Note an error that Kafka's clients would not take for passing."""
        if error not in TRY_AGAIN:
            self.score.complain(f"{what} was refused with {ErrorCode(error).name}")

    def close(self) -> None:
        """Hang up."""
        self._hang_up()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.writer.transport.abort()
            self._client = None


class RawWriter(RawClient):
    """Numbers its records from 0, and is the only one to write to its partition."""

    def __init__(self, topic: str, partition: int, ports: Ports, seed: int) -> None:
        super().__init__(f"raw writer of partition {partition}", ports, random.Random(seed))
        self.partition = partition
        self.count = 0
        """Records acknowledged."""
        self._topic = topic

    async def run(self, stopping: asyncio.Event, pause_s: float) -> None:
        """Write until told to stop; what was begun is finished."""
        producer = await self._producer()
        while not stopping.is_set():
            records = [
                b"%d" % (self.count + place) for place in range(self._source.randint(1, BATCH_RECORDS_MAX))
            ]
            fields = {"producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch}
            await self._store(batch(*records, base_sequence=self.count, **fields))
            self.count += len(records)
            self.score.succeed()
            if self._source.random() < WANDER_SHARE:
                self.move()
            await asyncio.sleep(self._source.uniform(0, 2 * pause_s))
        self.close()

    async def _producer(self) -> Any:
        while True:
            answer = await self.ask(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=0), 2)
            if answer is not None and not answer.error_code:
                return answer
            self.move()
            await asyncio.sleep(AGAIN_S)

    async def _store(self, data: bytes) -> None:
        """Give a batch to one agent after the other, until it is acknowledged."""
        request = produce_request({self._topic: {self.partition: data}})
        while True:
            answer = await self.ask(request, 9)
            if answer is not None:
                [stored] = answer.responses[0].partition_responses
                if not stored.error_code:
                    if stored.base_offset != self.count:
                        self.score.complain(
                            f"record {self.count} was acknowledged at offset {stored.base_offset}"
                        )
                    return
                self.judge(stored.error_code, f"record {self.count}")
            self.move()
            await asyncio.sleep(AGAIN_S)


class Committer(RawClient):
    """Commits ever higher offsets for a group that has no members, and looks at them through any agent."""

    def __init__(self, topic: str, group: str, ports: Ports, seed: int) -> None:
        super().__init__(f"committer of {group}", ports, random.Random(seed))
        self.group = group
        self.acknowledged = 0
        self._sent = 0
        self._topic = topic
        self._watch = RawClient(f"watch of {group}", ports, random.Random(seed + 1))

    async def run(self, stopping: asyncio.Event, pause_s: float) -> None:
        """Commit until told to stop, and look after each commit."""
        await self._find()
        while not stopping.is_set():
            self._sent += 1
            await self._commit(self._sent)
            self.acknowledged = self._sent
            self.score.succeed()
            await self.look()
            await asyncio.sleep(self._source.uniform(0, 2 * pause_s))
        self.close()
        self._watch.close()

    async def look(self) -> None:
        """Is what any agent tells neither older than what was acknowledged nor newer than what was sent?"""
        while True:
            self._watch.move()
            answer = await self._watch.ask(fetch_request(8, self.group, {self._topic: [0]}), 8)
            if answer is not None:
                [group] = answer.groups
                if not group.error_code:
                    found = offsets_in(group)[self._topic, 0][0]
                    if found != self.acknowledged:
                        self.score.complain(
                            f"told is {found} where {self.acknowledged} was acknowledged last"
                        )
                    return
                self.judge(group.error_code, "a look at the offsets")
            await asyncio.sleep(AGAIN_S)

    async def _commit(self, offset: int) -> None:
        request = commit_request(self.group, {self._topic: {0: offset}})
        while True:
            answer = await self.ask(request, 8)
            if answer is not None:
                error = answer.topics[0].partitions[0].error_code
                if not error:
                    return
                self.judge(error, f"the commit of {offset}")
            await asyncio.sleep(AGAIN_S)
            await self._find()

    async def _find(self) -> None:
        """Look for the coordinator."""
        while True:
            self._watch.move()
            answer = await self._watch.ask(FindCoordinatorRequest(coordinator_keys=[self.group]), 4)
            if answer is not None:
                [found] = answer.coordinators
                if not found.error_code:
                    self.move(found.port)
                    return
                self.judge(found.error_code, "the search for the coordinator")
            await asyncio.sleep(AGAIN_S)
