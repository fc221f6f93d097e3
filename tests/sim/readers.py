"""Readers: consumers that follow the logs, and sceptics who look whether what was acknowledged is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tests.sim import requests
from tests.sim.client import Connection, Lost
from tests.sim.facts import Batch, Partition
from warp.errors import ErrorCode

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
        response = await connection.ask(request, requests.FETCH_VERSION)
        if response.error_code != ErrorCode.NONE:
            self._world.history.violate("P6", f"{self.name}: Fetch got {response.error_code}")
        parts = requests.fetched(response)
        if parts.keys() != self._positions.keys():
            self._world.history.violate("P6", f"{self.name}: Fetch answered {sorted(map(str, parts))}")
        for partition, part in parts.items():
            self._take(connection.life, partition, part)

    def _take(self, life: str, partition: Partition, part: Any) -> None:
        world = self._world
        code = ErrorCode(part.error_code)
        if code is not ErrorCode.NONE:
            world.history.add(self.name, f"{partition} {code.name}")
            if code not in PASSING:
                world.history.violate(
                    "P5", f"{self.name}: {partition} at {self._positions[partition]} got {code.name}"
                )
            return
        world.facts.saw_end(f"{life} to {self.name}", partition, part.high_watermark)
        position = self._positions[partition]
        records = [item for item in requests.records_of(part) if item[0] >= position]
        for offset, value in records:
            if offset != position:
                world.history.violate("P3", f"{self.name}: {partition} went from {position} to {offset}")
            world.facts.saw(self.name, partition, offset, value)
            position = offset + 1
        if position > part.high_watermark:
            world.history.violate(
                "P3", f"{self.name}: {partition} gave {position} past its end {part.high_watermark}"
            )
        if records:
            world.history.add(self.name, f"read {partition} {records[0][0]}..{position - 1}")
        self._positions[partition] = position


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
    response = await connection.ask(requests.list_ends([batch.partition]), requests.LIST_OFFSETS_VERSION)
    code, end = requests.listed(response)[batch.partition]
    world.history.add("sceptic", f"end of {batch.partition} is {end}, code {code}")
    if code == ErrorCode.NONE and end < base_offset + len(batch.values):
        world.history.violate("P5", f"{batch.partition} ends at {end}, {base_offset} had been acknowledged")


async def _doubt_the_data(world: World, connection: Connection, batch: Batch, base_offset: int) -> None:
    request = requests.fetch(
        [(batch.partition, base_offset)],
        max_wait_ms=world.chance.choice((0, 100)),
        min_bytes=world.chance.choice((0, 1)),
        max_bytes=1,
        partition_bytes=1,
    )
    response = await connection.ask(request, requests.FETCH_VERSION)
    part = requests.fetched(response)[batch.partition]
    found = dict(requests.records_of(part))
    world.history.add(
        "sceptic", f"{batch.partition} at {base_offset}: {len(found)} records, code {part.error_code}"
    )
    if part.error_code == ErrorCode.NONE:
        if any(found.get(base_offset + at) != value for at, value in enumerate(batch.values)):
            world.history.violate("P5", f"{batch.partition} at {base_offset} is not there: {found}")
    elif part.error_code not in PASSING:
        world.history.violate("P5", f"{batch.partition} at {base_offset}: {ErrorCode(part.error_code).name}")


async def read_log(world: World, partition: Partition, address: str | None = None) -> list[bytes]:
    """All of a log, by a client that has never read before, from one agent or any; the stores work by now."""
    values: list[bytes] = []
    failures = 0
    while failures < 50:
        try:
            connection = await Connection.open(world.network, address or world.any_address(), "auditor")
            try:
                while True:
                    request = requests.fetch(
                        [(partition, len(values))],
                        max_wait_ms=0,
                        min_bytes=1,
                        max_bytes=1_000_000,
                        partition_bytes=1_000_000,
                    )
                    response = await connection.ask(request, requests.FETCH_VERSION)
                    part = requests.fetched(response)[partition]
                    if part.error_code != ErrorCode.NONE:
                        raise Lost(ErrorCode(part.error_code).name)
                    records = requests.records_of(part)
                    for offset, value in records:
                        if offset == len(values):
                            values.append(value)
                        elif offset > len(values):
                            world.history.violate(
                                "P3", f"{partition} has no offset {len(values)}, next is {offset}"
                            )
                            return values
                    # Only an empty answer is sure to be fresh: an agent may not know of another's last commits yet.
                    if not records:
                        return values
            finally:
                connection.close()
        except Lost as error:
            failures += 1
            world.history.add("auditor", f"{partition}: {error}")
            await asyncio.sleep(0.2)
    world.history.violate("P1", f"{partition} can't be read after offset {len(values)}")
    return values
