"""Clients of topics whose records go: they write, read, delete records and topics, and tell the verifier all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.sim import life_requests, requests
from tests.sim.client import Connection, Lost
from tests.sim.life_topics import LifeTopic
from tests.verifier import (
    Batch,
    DeleteRecords,
    Fetch,
    Limit,
    ListOffsets,
    Op,
    Operation,
    Part,
    Partition,
    Produce,
)
from warp._records import build_batch
from warp.errors import ErrorCode
from warp.protocol.schema import Request

if TYPE_CHECKING:
    from tests.sim.life import DataLife

TOMBSTONES = 0.15
PASSING = {
    ErrorCode.KAFKA_STORAGE_ERROR,
    ErrorCode.NOT_LEADER_OR_FOLLOWER,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.UNKNOWN_SERVER_ERROR,
}
ANSWER_S = 6.0


class LifeClient:
    """What all of them do: ask some agent, over a connection that they keep until it fails."""

    def __init__(self, life: DataLife, name: str) -> None:
        self.name = name
        self.is_stopping = False
        self.life = life
        self.world = life.world
        self.chance = life.chance
        self.recorder = life.recorder
        self._connection: Connection | None = None

    def tell(self, text: str) -> None:
        """To whoever reads the history."""
        self.world.history.add(self.name, text)

    def violate(self, text: str) -> None:
        """A client has come to its end that should not have."""
        self.world.history.violate("P6", f"{self.name}: {text}")

    async def run(self) -> None:
        """Live until told to stop."""
        while not self.is_stopping or self.has_work():
            try:
                await self.turn()
            except Lost as error:
                self.tell(f"starts over: {error}")
                self.hang_up()
                await asyncio.sleep(self.chance.uniform(0.02, 0.3))
        self.hang_up()

    def has_work(self) -> bool:
        """Is something left to do though it is told to stop?"""
        return False

    async def turn(self) -> None:
        """Do something. Raises Lost."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """Give the connection up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def connect(self) -> Connection:
        """To some agent. Raises Lost."""
        if self._connection is None or self._connection.is_lost or self.chance.random() < 0.1:
            self.hang_up()
            self._connection = await Connection.open(
                self.world.network, self.life.address or self.world.any_address(), self.name
            )
        return self._connection

    async def ask(self, request: Request, version: int, operation: Operation) -> tuple[Op, Any]:
        """Ask, and tell the verifier that it was asked; its answer is to be told by the caller. Raises Lost."""
        connection = await self.connect()
        op = self.recorder.begin(self.name, operation, connection.life)
        try:
            return op, await connection.ask(request, version, ANSWER_S)
        except Lost:
            op.lost()
            raise


class Writer(LifeClient):
    """An idempotent producer that has one request on its way, and sends it until all of it is acknowledged."""

    def __init__(self, life: DataLife, name: str, topics: Sequence[LifeTopic]) -> None:
        super().__init__(life, name)
        self._topics = topics
        self._producer_id = -1
        self._sequences = {place: 0 for topic in topics for place in topic.places}
        self._waiting: dict[Partition, tuple[Batch, bytes, int]] = {}
        """What is not acknowledged yet, with its time."""
        self._count = 0

    def has_work(self) -> bool:
        """Is something not acknowledged?"""
        return bool(self._waiting)

    async def turn(self) -> None:
        """Send what is left, or something new."""
        if self._producer_id < 0:
            await self._get_producer_id()
        if not self._waiting:
            await asyncio.sleep(self.chance.expovariate(1 / 0.12))
            for topic in self.chance.sample(self._topics, self.chance.randint(1, len(self._topics))):
                self._add(topic, self.chance.choice(topic.places))
        sent = {place: data for place, (_, data, _) in self._waiting.items()}
        request = life_requests.produce(sent, self.chance.choice((300, 1_500, 4_000)))
        operation = Produce([batch for batch, _, _ in self._waiting.values()])
        op, response = await self.ask(request, requests.PRODUCE_VERSION, operation)
        answer = life_requests.produced(response)
        op.answered(answer)
        failures = []
        for place, (code, offset, _) in answer.parts.items():
            if not code:
                batch, _, time_ms = self._waiting.pop(place)
                self.life.placed(place, offset or 0, batch.records, time_ms)
                self.tell(f"acked {place} at {offset}")
            else:
                failures.append(f"{place} {ErrorCode(code).name}")
                if code not in PASSING:
                    self.violate(f"{place} got {ErrorCode(code).name}, which ends a client")
        if failures:
            raise Lost(", ".join(failures))

    async def _get_producer_id(self) -> None:
        connection = await self.connect()
        response = await connection.ask(requests.init_producer_id(), requests.INIT_PRODUCER_ID_VERSION)
        if response.error_code:
            raise Lost(f"no producer id: {ErrorCode(response.error_code).name}")
        self._producer_id = response.producer_id

    def _add(self, topic: LifeTopic, place: Partition) -> None:
        now_ms = topic.time_ms(self.life.began_ms, self.world.clock.time_ms(), self.chance)
        records = [self._record(topic) for _ in range(self.chance.choice((1, 1, 2, 4)))]
        data = build_batch(
            [(key, value, (), now_ms) for key, value in records],
            codec=self.chance.choice((0, 0, 4)) if topic.keys else 0,
            producer_id=self._producer_id,
            producer_epoch=0,
            base_sequence=self._sequences[place],
        )
        batch = self.recorder.batch(
            place,
            records,
            producer=self.name,
            base_sequence=self._sequences[place],
            timestamp_ms=now_ms,
        )
        self._sequences[place] += len(records)
        self._waiting[place] = (batch, data, now_ms)

    def _record(self, topic: LifeTopic) -> tuple[bytes | None, bytes | None]:
        self._count += 1
        value = f"{self.name}/{self._count}".encode().ljust(topic.value_bytes, b".")
        if not topic.keys:
            return None, value
        key = b"key-%d" % self.chance.randrange(topic.keys)
        return key, None if self.chance.random() < TOMBSTONES else value


class Reader(LifeClient):
    """Follows the logs; where what it wants has gone, it goes on at the start."""

    def __init__(self, life: DataLife, name: str, places: Sequence[Partition]) -> None:
        super().__init__(life, name)
        self._positions = dict.fromkeys(places, 0)

    async def turn(self) -> None:
        """Fetch once."""
        chance = self.chance
        if chance.random() < 0.03:
            self._positions = dict.fromkeys(self._positions, 0)
        request = requests.fetch(
            self._positions.items(),
            max_wait_ms=chance.choice((0, 100, 500)),
            min_bytes=1,
            max_bytes=chance.choice((1, 300, 1_000_000)),
            partition_bytes=chance.choice((1, 200, 400_000)),
        )
        op, response = await self.ask(request, requests.FETCH_VERSION, Fetch(dict(self._positions)))
        answer = life_requests.fetched(self.recorder, self._positions, response)
        op.answered(answer)
        for place, part in answer.parts.items():
            await self._take(place, part)
        await asyncio.sleep(chance.choice((0.02, 0.1, 0.5)))

    async def _take(self, place: Partition, part: Part) -> None:
        code = ErrorCode(part.error_code)
        if code is ErrorCode.OFFSET_OUT_OF_RANGE:
            self._positions[place] = await self._start_of(place)
            self.tell(f"{place} goes on at {self._positions[place]}, where it begins")
        elif code is ErrorCode.NONE:
            if part.next_offset > self._positions[place]:
                self.tell(
                    f"read {place} {self._positions[place]}..{part.next_offset - 1}: {len(part.offsets)}"
                )
                self._positions[place] = part.next_offset
        elif code not in PASSING and not self.life.is_renewed(place):
            self.violate(f"{place} at {self._positions[place]} got {code.name}")

    async def _start_of(self, place: Partition) -> int:
        """Raises Lost when nobody says."""
        operation = ListOffsets([place], Limit.EARLIEST)
        request = life_requests.list_offsets([place], Limit.EARLIEST)
        op, response = await self.ask(request, requests.LIST_OFFSETS_VERSION, operation)
        answer = life_requests.listed(response)
        op.answered(answer)
        code, start = answer.parts[place]
        if code:
            raise Lost(f"no start of {place}: {ErrorCode(code).name}")
        return start


class Trimmer(LifeClient):
    """Deletes records, up to somewhere or all of them."""

    def __init__(self, life: DataLife, name: str, places: Sequence[Partition]) -> None:
        super().__init__(life, name)
        self._places = places

    async def turn(self) -> None:
        """Delete once."""
        await asyncio.sleep(self.chance.expovariate(1 / 1.0))
        place = self.chance.choice(self._places)
        operation = ListOffsets([place], Limit.LATEST)
        request = life_requests.list_offsets([place], Limit.LATEST)
        op, response = await self.ask(request, requests.LIST_OFFSETS_VERSION, operation)
        listed = life_requests.listed(response)
        op.answered(listed)
        code, end = listed.parts[place]
        if code:
            raise Lost(ErrorCode(code).name)
        offset = self.chance.choice((-1, end, self.chance.randint(0, end), self.chance.randint(0, end)))
        await self._delete({place: offset})

    async def _delete(self, offsets: Mapping[Partition, int]) -> None:
        op, response = await self.ask(
            life_requests.delete_records(offsets),
            life_requests.DELETE_RECORDS_VERSION,
            DeleteRecords(offsets),
        )
        answer = life_requests.trimmed(response)
        op.answered(answer)
        for place, (code, low_watermark) in answer.parts.items():
            self.tell(
                f"deletes {place} to {offsets[place]}: {ErrorCode(code).name}, begins at {low_watermark}"
            )
            if code and code not in PASSING:
                self.violate(f"deleting {place} to {offsets[place]} got {ErrorCode(code).name}")


class PolicyChanger(LifeClient):
    """Has a topic compacted, and not compacted, in turn."""

    def __init__(self, life: DataLife, name: str, topic: LifeTopic) -> None:
        super().__init__(life, name)
        self._topic = topic

    async def turn(self) -> None:
        """Change it once."""
        await asyncio.sleep(self.chance.expovariate(1 / 2.0))
        policy = self.chance.choice(("compact", "delete", "compact,delete"))
        connection = await self.connect()
        request = life_requests.set_config(self._topic.name, "cleanup.policy", policy)
        response = await connection.ask(request, life_requests.ALTER_CONFIGS_VERSION, ANSWER_S)
        code = ErrorCode(response.responses[0].error_code)
        self.tell(f"{self._topic.name} is to {policy}: {code.name}")
        if code is not ErrorCode.NONE and code not in PASSING:
            self.violate(f"changing a policy got {code.name}: {response.responses[0].error_message}")
