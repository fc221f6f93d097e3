"""The verifier in a world: it is told all that clients ask and are answered, reads everything back, and judges.

What is read back is read through every agent when all is well again, and once more through the last one when the jobs
are through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim import life_requests, requests
from tests.sim.client import Connection, Lost
from tests.verifier import FsckResult, Limit, Partition, Readback, Recorder, Rules, Verdict, judge
from warp.errors import ErrorCode

if TYPE_CHECKING:
    from tests.sim.world import World

ATTEMPTS = 60
FETCH_BYTES = 1_000_000
FETCH_MEMORY = 2**20
"""With less, some batches that are written here take all of it."""


class Verifying:
    """The verifier of one world."""

    def __init__(self, world: World) -> None:
        self.recorder = Recorder(world.loop.time)
        self.fsck: FsckResult | None = None
        """What fsck said when the jobs were through."""
        self._world = world
        self._readbacks: list[Readback] = []

    async def read_back(self, name: str, address: str) -> None:
        """Everything as one agent tells it."""
        readback = self.recorder.readback(name)
        for place in self._world.all_places:
            await self._read_back(readback, place, address)
        readback.now_ms = self._world.clock.time_ms()
        self._readbacks.append(readback)

    async def _read_back(self, readback: Readback, place: Partition, address: str) -> None:
        why = ""
        for _ in range(ATTEMPTS):
            try:
                connection = await Connection.open(self._world.network, address, "auditor")
                try:
                    why = await self._read_log(readback, place, connection)
                finally:
                    connection.close()
            except Lost as error:
                why = str(error)
            if not why:
                return
            await asyncio.sleep(0.2)
        readback.cannot_read(place, why)

    async def _read_log(self, readback: Readback, place: Partition, connection: Connection) -> str:
        """One log; why it could not be read."""
        request = life_requests.list_offsets([place], Limit.EARLIEST)
        listed = life_requests.listed(await connection.ask(request, requests.LIST_OFFSETS_VERSION))
        code, start = listed.parts[place]
        if code:
            return f"its start: {ErrorCode(code).name}"
        position, found = start, list[tuple[int, int, int]]()
        while True:
            fetch = requests.fetch(
                [(place, position)],
                max_wait_ms=0,
                min_bytes=1,
                max_bytes=FETCH_BYTES,
                partition_bytes=FETCH_BYTES,
            )
            response = await connection.ask(fetch, requests.FETCH_VERSION)
            part = life_requests.fetched(self.recorder, {place: position}, response).parts[place]
            if part.error_code:
                return f"at {position}: {ErrorCode(part.error_code).name}"
            found += zip(part.offsets, part.records, part.times_ms, strict=True)
            # Only an empty answer is sure to be fresh: an agent may not know of another's last commits yet.
            if part.next_offset <= position:
                break
            position = part.next_offset
        log = readback.log(place, start, part.high_watermark)
        for offset, content, time_ms in found:
            log.offsets.append(offset)
            log.records.append(content)
            log.times_ms.append(time_ms)
        return ""

    def judge(self) -> Verdict:
        """Hold the history against all that was read."""
        world = self._world
        topics = [] if world.life is None else world.life.topics
        groups: Sequence[str] = [group.group_id for group in world.groups]
        rules = Rules(
            topics={topic.name: topic.rules(world.clock_spread_ms) for topic in topics},
            groups_that_finish={group.group_id: list(group.partitions) for group in world.groups},
            rising_groups=frozenset(groups),
            agents_lack_memory=world.config.fetch_memory_bytes_max < FETCH_MEMORY,
        )
        verdict = judge(self.recorder.history, self._readbacks, rules, self.fsck)
        for violation in verdict.violations:
            when = "in the end" if violation.time_s is None else f"at {violation.time_s:.4f}"
            world.history.violate(violation.promise, f"{violation.check}, {when}: {violation.text}")
        if self.recorder.history.ops:
            for line in verdict.report().splitlines():
                world.history.add("verifier", line)
        return verdict
