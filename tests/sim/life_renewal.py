"""A topic that is deleted and created anew, again and again, and those who write to it meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.sim import life_requests, requests
from tests.sim.client import Connection, Lost
from tests.sim.life_clients import ANSWER_S, PASSING, LifeClient
from tests.sim.life_topics import LifeTopic
from tests.verifier import CreateTopic, DeleteTopic, Done, Op, Produce
from warp._records import build_batch
from warp.errors import ErrorCode

if TYPE_CHECKING:
    from tests.sim.life import DataLife

LATE_S = 20.0
"""Longer than anything stands still."""
GONE = {ErrorCode.UNKNOWN_TOPIC_OR_PARTITION}


class Renewer(LifeClient):
    """Deletes a topic until it is gone, then creates it until it is there."""

    def __init__(self, life: DataLife, name: str, topic: LifeTopic) -> None:
        super().__init__(life, name)
        self._topic = topic
        self._is_deleted = False
        self._is_deleting = False
        """It was asked for, and may have happened."""
        self._is_through = False

    def has_work(self) -> bool:
        """It has to be there in the end."""
        return not self._is_through

    async def turn(self) -> None:
        """Delete it, or create it."""
        if self._is_deleting:
            await self._delete()
        elif self._is_deleted:
            await asyncio.sleep(self.chance.choice((0.0, 0.2, 1.5)))
            await self._create()
        elif self.is_stopping:
            # A deletion that nobody waited for any more may come once its agent goes on.
            await asyncio.sleep(LATE_S)
            await self._create()
            self._is_through = True
        else:
            await asyncio.sleep(self.chance.expovariate(1 / 2.5))
            if not self.is_stopping:
                await self._delete()

    async def _delete(self) -> None:
        self._is_deleting = True
        request = life_requests.delete_topic(self._topic.name)
        operation = DeleteTopic(self._topic.name)
        op, response = await self.ask(request, life_requests.DELETE_TOPICS_VERSION, operation)
        code = ErrorCode(response.responses[0].error_code)
        self.tell(f"deletes {self._topic.name}: {code.name}")
        if code is ErrorCode.NONE:
            await self._until_all_know(op, is_there=False)
        elif code in GONE:
            op.failed(code)
        else:
            op.failed(code)
            self._judge(code)
        self._is_deleting, self._is_deleted = False, True

    async def _create(self) -> None:
        request = life_requests.create([self._topic])
        operation = CreateTopic(self._topic.name)
        op, response = await self.ask(request, requests.CREATE_TOPICS_VERSION, operation)
        code = ErrorCode(response.topics[0].error_code)
        self.tell(f"creates {self._topic.name}: {code.name}")
        if code is ErrorCode.NONE:
            await self._until_all_know(op, is_there=True)
        else:
            op.failed(code)
            if code is not ErrorCode.TOPIC_ALREADY_EXISTS:
                self._judge(code)
        self._is_deleted = False

    def _judge(self, code: ErrorCode) -> None:
        """Raises Lost: it is to be done again."""
        if code not in PASSING:
            self.violate(f"{self._topic.name} got {code.name}")
        raise Lost(code.name)

    async def _until_all_know(self, op: Op, *, is_there: bool) -> None:
        """Agents may answer by what they knew for a while: so the change counts as done once none of them does."""
        for host in self.world.hosts:
            while not await self._is_known(host.address, is_there=is_there):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        op.answered(Done())

    async def _is_known(self, address: str, *, is_there: bool) -> bool:
        request = life_requests.look_for(self._topic.name)
        try:
            connection = await Connection.open(self.world.network, address, self.name)
            try:
                response = await connection.ask(request, life_requests.METADATA_VERSION, ANSWER_S)
            finally:
                connection.close()
        except Lost:
            return False
        return bool((response.topics[0].error_code == ErrorCode.NONE) == is_there)


class Scribbler(LifeClient):
    """Writes to whatever topic is there under a name, each record once, and does not mind what becomes of it."""

    def __init__(self, life: DataLife, name: str, topic: LifeTopic) -> None:
        super().__init__(life, name)
        self._topic = topic
        self._count = 0

    async def turn(self) -> None:
        """Write once."""
        await asyncio.sleep(self.chance.expovariate(1 / 0.2))
        place = self.chance.choice(self._topic.places)
        self._count += 1
        value, now_ms = f"{self.name}/{self._count}".encode(), self.world.clock.time_ms()
        batch = self.recorder.batch(place, [(None, value)], timestamp_ms=now_ms)
        request = life_requests.produce({place: build_batch([(None, value, (), now_ms)])}, 1_500)
        op, response = await self.ask(request, requests.PRODUCE_VERSION, Produce([batch]))
        answer = life_requests.produced(response)
        op.answered(answer)
        [(code, offset, _)] = answer.parts.values()
        self.tell(f"{place} record {self._count}: {ErrorCode(code).name} at {offset}")
        if code and code not in PASSING and code not in GONE:
            self.violate(f"{place} got {ErrorCode(code).name}")
