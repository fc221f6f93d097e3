"""Producers: one kind that is idempotent, pipelines and retries in order, and one that sends once and forgets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.sim import requests
from tests.sim.client import Connection, Lost
from tests.sim.facts import Batch, Partition
from tests.verifier import InitProducerId, Op, ProducerIdGiven
from warp._records import build_batch
from warp.errors import ErrorCode

if TYPE_CHECKING:
    from tests.sim.world import World

IN_FLIGHT_MAX = 5
"""Requests, and so batches per partition, as Kafka's window of duplicates has it."""
ANSWER_TIMEOUT_S = 6.0
LARGE_BATCHES = 0.02
"""The share of batches that agents send to consumers without a copy."""

RETRIABLE = {
    ErrorCode.CORRUPT_MESSAGE,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.KAFKA_STORAGE_ERROR,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
}
"""What librdkafka and the Java client retry."""

Acknowledged = Callable[[Batch], None]


async def new_producer_id(world: World, name: str) -> int:
    """Ask until an agent gives one."""
    while True:
        op = world.verifying.recorder.begin(name, InitProducerId())
        try:
            connection = await Connection.open(world.network, world.any_address(), name)
            response = await connection.ask(requests.init_producer_id(), requests.INIT_PRODUCER_ID_VERSION)
            connection.close()
            if response.error_code == ErrorCode.NONE:
                op.answered(ProducerIdGiven(response.producer_id, response.producer_epoch))
                return int(response.producer_id)
            op.failed(response.error_code)
            world.history.add(name, f"no producer id: {ErrorCode(response.error_code).name}")
        except Lost as error:
            op.lost()
            world.history.add(name, f"no producer id: {error}")
        await asyncio.sleep(world.chance.uniform(0.05, 0.3))


class Unit:
    """What one request carried first: its batches that are not acknowledged yet."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = list(batches)


class Sent:
    """A Produce request on its way."""

    def __init__(
        self, world: World, name: str, connection: Connection, batches: Sequence[Batch], timeout_ms: int
    ) -> None:
        self.batches = list(batches)
        self._world = world
        self._op: Op = world.facts.sends(name, self.batches, connection.life)
        self._answer = connection.send(requests.produce(self.batches, timeout_ms), requests.PRODUCE_VERSION)

    async def answers(self) -> dict[Partition, tuple[int, int]]:
        """Error code and base offset of each batch. Raises Lost."""
        try:
            response = await asyncio.wait_for(self._answer, ANSWER_TIMEOUT_S)
        except (TimeoutError, Lost) as error:
            self._op.lost()
            raise Lost(str(error) or "no answer in time") from None
        answers = requests.produced(response)
        self._world.facts.answered(self._op, self.batches, answers)
        return answers


class IdempotentProducer:
    """Sends requests one behind the other; after any failure resends, in order, what was not acknowledged."""

    def __init__(self, world: World, name: str, partitions: Sequence[Partition]) -> None:
        self.name = name
        self.is_stopping = False
        self._world = world
        self._partitions = partitions
        self._producer_id = -1
        self._sequences = dict.fromkeys(partitions, 0)
        self._numbers = dict.fromkeys(partitions, 0)
        self._units: deque[Unit] = deque()
        """In the order in which they were made; the first ones may be on their way."""

    async def run(self) -> None:
        """Produce until told to stop, then until all is acknowledged."""
        self._producer_id = await new_producer_id(self._world, self.name)
        while not self.is_stopping or self._units:
            try:
                connection = await Connection.open(self._world.network, self._world.any_address(), self.name)
                try:
                    await self._send_over(connection)
                finally:
                    connection.close()
            except Lost as error:
                self._world.history.add(self.name, f"starts over: {error}")
            await asyncio.sleep(self._world.chance.uniform(0.02, 0.3))

    async def _send_over(self, connection: Connection) -> None:
        """Resend what is left, then send new requests, until one fails; then wait for those that are on the way."""
        flying: deque[tuple[Unit, Sent]] = deque()
        waiting = deque(self._units)
        # New batches wait for all old ones, as in real clients: else an old one could leave the broker's window.
        leftovers = len(waiting)
        failed: Lost | None = None
        while failed is None and (waiting or flying or not self.is_stopping):
            while len(flying) < IN_FLIGHT_MAX and (waiting or (not leftovers and not self.is_stopping)):
                unit = waiting.popleft() if waiting else self._new_unit()
                flying.append((unit, self._send(connection, unit)))
                if self._world.chance.random() < 0.3:
                    break
            try:
                unit, sent = flying.popleft()
                await self._take(unit, sent)
                leftovers -= 1 if leftovers else 0
            except Lost as error:
                failed = error
            if self._world.chance.random() < 0.4:
                await asyncio.sleep(self._world.chance.expovariate(1 / 0.15))
        for unit, sent in flying:
            try:
                await self._take(unit, sent)
            except Lost as error:
                self._world.history.add(self.name, f"behind the failure: {error}")
        if failed is not None:
            raise failed

    def _new_unit(self) -> Unit:
        count = self._world.chance.randint(1, len(self._partitions))
        unit = Unit([self._new_batch(p) for p in self._world.chance.sample(list(self._partitions), count)])
        self._units.append(unit)
        return unit

    def _new_batch(self, partition: Partition) -> Batch:
        number = self._numbers[partition]
        count = self._world.chance.choice((1, 1, 2, 5))
        values = [f"{self.name}/{partition}/{number}/{index}".encode() for index in range(count)]
        if self._world.chance.random() < LARGE_BATCHES:
            values[0] += b"." * self._world.chance.choice((70_000, 150_000))
        now_ms = self._world.clock.time_ms()
        data = build_batch(
            [(None, value, (), now_ms) for value in values],
            codec=self._world.chance.choice((0, 0, 0, 3, 4)),
            producer_id=self._producer_id,
            producer_epoch=0,
            base_sequence=self._sequences[partition],
        )
        self._numbers[partition] += 1
        self._sequences[partition] += count
        sequence = self._sequences[partition] - count
        return Batch(
            self.name, partition, number, values, data,
            is_idempotent=True, base_sequence=sequence, timestamp_ms=now_ms,
        )  # fmt: skip

    def _send(self, connection: Connection, unit: Unit) -> Sent:
        timeout_ms = self._world.chance.choice((300, 1500, 4000))
        names = " ".join(f"{batch.partition}:{batch.number}" for batch in unit.batches)
        self._world.history.add(self.name, f"produce {names}")
        return Sent(self._world, self.name, connection, unit.batches, timeout_ms)

    async def _take(self, unit: Unit, sent: Sent) -> None:
        """Deal with one answer. Raises Lost when something has to be sent again."""
        answers = await sent.answers()
        failures = []
        for batch in list(unit.batches):
            code, base_offset = answers[batch.partition]
            if code == ErrorCode.NONE:
                unit.batches.remove(batch)
                self._world.history.add(self.name, f"acked {batch.partition}:{batch.number} at {base_offset}")
                self._world.acknowledged(batch)
            else:
                failures.append(f"{batch.partition}:{batch.number} {ErrorCode(code).name}")
                # Whether one is out of order with reason, the verifier knows.
                if code not in RETRIABLE and code != ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER:
                    self._complain(batch, ErrorCode(code))
        if not unit.batches:
            self._units.remove(unit)
        if failures:
            raise Lost(", ".join(failures))

    def _complain(self, batch: Batch, code: ErrorCode) -> None:
        self._world.history.violate(
            "P6", f"{self.name}: {batch.partition}:{batch.number} got {code.name}, which ends a client"
        )


class PairProducer:
    """Sends one record to each of two partitions in one request, once; several requests may be on their way."""

    def __init__(self, world: World, name: str, one: Partition, other: Partition) -> None:
        self.name = name
        self.is_stopping = False
        self._world = world
        self._halves = (one, other)
        self._count = 0

    async def run(self) -> None:
        """Produce until told to stop."""
        while not self.is_stopping:
            try:
                connection = await Connection.open(self._world.network, self._world.any_address(), self.name)
                try:
                    await self._send_over(connection)
                finally:
                    connection.close()
            except Lost as error:
                self._world.history.add(self.name, f"starts over: {error}")
            await asyncio.sleep(self._world.chance.uniform(0.02, 0.3))

    async def _send_over(self, connection: Connection) -> None:
        while not self.is_stopping:
            burst = [self._send(connection) for _ in range(self._world.chance.randint(1, 4))]
            for sent in burst:
                self._take(sent.batches, await sent.answers())
            await asyncio.sleep(self._world.chance.expovariate(1 / 0.2))

    def _send(self, connection: Connection) -> Sent:
        value = f"{self.name}/{self._count}".encode()
        now_ms = self._world.clock.time_ms()
        data = build_batch([(None, value, (), now_ms)])
        halves = [
            Batch(self.name, partition, self._count, [value], data, is_idempotent=False, timestamp_ms=now_ms)
            for partition in self._halves
        ]
        self._count += 1
        self._world.history.add(self.name, f"produce pair {halves[0].number}")
        return Sent(self._world, self.name, connection, halves, self._world.chance.choice((300, 4000)))

    def _take(self, halves: Sequence[Batch], answers: dict[Partition, tuple[int, int]]) -> None:
        codes = [answers[batch.partition][0] for batch in halves]
        self._world.history.add(self.name, f"pair {halves[0].number} answered {codes}")
        for batch, code in zip(halves, codes, strict=True):
            if code == ErrorCode.NONE:
                self._world.acknowledged(batch)
            elif code not in RETRIABLE:
                self._world.history.violate("P6", f"{self.name}: a new batch got {ErrorCode(code).name}")
