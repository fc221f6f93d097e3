"""Readers: consumers that follow the logs, and sceptics who look whether what was acknowledged is there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tests.sim import life_requests, requests
from tests.sim.client import Connection, Lost
from tests.sim.facts import Batch, Partition
from tests.verifier import Fetch, ListOffsets, Part
from warp.errors import ErrorCode
from warp.protocol.messages.fetch import FetchRequest

if TYPE_CHECKING:
    from tests.sim.world import World

PASSING = {ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.REQUEST_TIMED_OUT}
"""Errors that a consumer survives, while stores are down."""


class Consumer:
    """Fetches its partitions with changing limits, sometimes from another agent, sometimes from the start again."""

    def __init__(self, world: World, name: str, partitions: Sequence[Partition]) -> None:
        self.name = name
        self.is_stopping = False
        self._world = world
        self._positions = dict.fromkeys(partitions, 0)

    async def run(self) -> None:
        """Consume until told to stop."""
        while not self.is_stopping:
            try:
                connection = await Connection.open(self._world.network, self._world.any_address(), self.name)
                try:
                    for _ in range(self._world.chance.randint(1, 20)):
                        await self._fetch(connection)
                finally:
                    connection.close()
            except Lost as error:
                self._world.history.add(self.name, f"reconnects: {error}")
            await asyncio.sleep(self._world.chance.uniform(0.0, 0.3))

    async def _fetch(self, connection: Connection) -> None:
        chance = self._world.chance
        if chance.random() < 0.02:
            self._positions = dict.fromkeys(self._positions, 0)
        positions = list(self._positions.items())
        chance.shuffle(positions)
        request = requests.fetch(
            positions,
            max_wait_ms=chance.choice((0, 50, 500, 2000)),
            min_bytes=chance.choice((0, 1, 1, 1, 500)),
            max_bytes=chance.choice((1, 300, 1_000_000)),
            partition_bytes=chance.choice((1, 200, 400_000)),
        )
        for partition, part in (
            await fetch(self._world, self.name, connection, request, dict(positions))
        ).items():
            self._take(partition, part)

    def _take(self, partition: Partition, part: Part) -> None:
        world = self._world
        code = ErrorCode(part.error_code)
        if code is not ErrorCode.NONE:
            world.history.add(self.name, f"{partition} {code.name}")
            if code not in PASSING:
                world.history.violate(
                    "P5", f"{self.name}: {partition} at {self._positions[partition]} got {code.name}"
                )
        elif part.offsets:
            world.history.add(self.name, f"read {partition} {part.offsets[0]}..{part.offsets[-1]}")
            self._positions[partition] = part.next_offset


async def fetch(
    world: World, name: str, connection: Connection, request: FetchRequest, positions: dict[Partition, int]
) -> Mapping[Partition, Part]:
    """Fetch, and tell the verifier. Raises Lost."""
    op = world.verifying.recorder.begin(name, Fetch(positions), connection.life)
    try:
        response = await connection.ask(request, requests.FETCH_VERSION)
    except Lost:
        op.lost()
        raise
    if response.error_code != ErrorCode.NONE:
        world.history.violate("P6", f"{name}: Fetch got {response.error_code}")
    answer = life_requests.fetched(world.verifying.recorder, positions, response)
    op.answered(answer)
    world.facts.records_read += sum(len(part.offsets) for part in answer.parts.values())
    return answer.parts


async def doubt(world: World, batch: Batch) -> None:
    """Ask some agent, after a batch was acknowledged, whether it is there (P5). An error proves nothing."""
    assert batch.base_offset is not None
    name = "sceptic"
    try:
        connection = await Connection.open(world.network, world.any_address(), name)
        try:
            if world.chance.random() < 0.5:
                await _doubt_the_end(world, connection, batch, batch.base_offset)
            else:
                await _doubt_the_data(world, connection, batch, batch.base_offset)
        finally:
            connection.close()
    except Lost as error:
        world.history.add(name, f"could not ask: {error}")


async def _doubt_the_end(world: World, connection: Connection, batch: Batch, base_offset: int) -> None:
    op = world.verifying.recorder.begin("sceptic", ListOffsets([batch.partition]), connection.life)
    try:
        response = await connection.ask(requests.list_ends([batch.partition]), requests.LIST_OFFSETS_VERSION)
    except Lost:
        op.lost()
        raise
    answer = life_requests.listed(response)
    op.answered(answer)
    code, end = answer.parts[batch.partition]
    world.history.add("sceptic", f"end of {batch.partition} is {end} after {base_offset}, code {code}")


async def _doubt_the_data(world: World, connection: Connection, batch: Batch, base_offset: int) -> None:
    request = requests.fetch(
        [(batch.partition, base_offset)],
        max_wait_ms=world.chance.choice((0, 100)),
        min_bytes=world.chance.choice((0, 1)),
        max_bytes=1,
        partition_bytes=1,
    )
    parts = await fetch(world, "sceptic", connection, request, {batch.partition: base_offset})
    part = parts[batch.partition]
    world.history.add(
        "sceptic", f"{batch.partition} at {base_offset}: {len(part.offsets)} records, code {part.error_code}"
    )
    if part.error_code and part.error_code not in PASSING:
        world.history.violate("P5", f"{batch.partition} at {base_offset}: {ErrorCode(part.error_code).name}")
