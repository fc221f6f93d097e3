"""Random histories of compacted logs against a dictionary: whatever happens, consumers get the newest of each key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.lifecycle.compact_support import DAY_MS, Pair, World
from tests.unit.lifecycle.test_compact import with_world
from warp.errors import ObjectStoreError
from warp.ids import BrokerId, LogId
from warp.lifecycle.compact_plan import CompactionLimits

STEPS = 30
HISTORIES = 12


class History:
    """One run of random events on some logs, the same for the same seed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.keys = [b"key %d" % number for number in range(self.chance.choice([3, 20, 80]))]
        self.sequences: dict[tuple[LogId, int], int] = {}
        memory_bytes = self.chance.choice([300, 3_000, 100_000])
        world.limits = replace(
            CompactionLimits(memory_bytes=memory_bytes), rows_max=self.chance.choice([2, 1000])
        )
        world.rules["delete_retention_ms"] = self.chance.choice([0, DAY_MS])
        if seed % 2:
            # Nothing goes by its age here, but extents end as if it did: with spans of an hour.
            world.rules |= {"deletes": True, "retention_ms": DAY_MS // 6}
        self.job = world.compactor()

    async def live(self) -> None:
        """Go through a random history; every promise is looked at after each pass."""
        world, chance = self.world, self.chance
        events: list[Callable[[], Awaitable[object]]] = [
            self.produce,
            self.compact,
            self.compact_twice_at_once,
            world.merge,
            self.trim,
            self.change_policy,
            self.lose_agent,
            self.wait,
            self.damage,
            self.repair,
        ]
        for _ in range(STEPS):
            [event] = chance.choices(events, [12, 5, 2, 3, 1, 1, 1, 4, 2, 1])
            await event()
        world.rules["compacts"] = True
        await self.repair()
        await self.settle()

    async def settle(self) -> None:
        """After enough passes everything is clean, and what consumers make of it is what the dictionary says."""
        for _ in range(40):
            await self.world.compact(self.job)
            heads = await self.world.store.log_dirt(self.world.topics[0].logs)
            if all(head.clean_offset >= head.next_offset for head in heads):
                break
        else:
            raise AssertionError("passes get no further")
        for log in self.world.topics[0].logs:
            await self.world.check_log(log, is_clean=True)
            await self.check_table(log)

    async def check_table(self, log: LogId) -> None:
        """A table made of the log is the dictionary that was written."""
        state = (await self.world.store.log_states([log]))[log]
        expected: dict[bytes | None, bytes | None] = {}
        for written in self.world.history.get(log, []):
            if written.offset >= state.start_offset:
                expected[written.key] = written.value
        table = {record.key: record.value for record in await self.world.consume(state.start_offset, log)}
        assert alive(table) == alive(expected)

    async def produce(self) -> None:
        chance = self.chance
        log = chance.choice(self.world.topics[0].logs)
        batches: list[tuple[list[Pair], dict[str, Any]]] = []
        for _ in range(chance.randrange(1, 4)):
            pairs = [self.pair() for _ in range(chance.randrange(1, 12))]
            options: dict[str, Any] = {"codec": chance.randrange(5)}
            if chance.random() < 0.3:
                producer = chance.randrange(3)
                first = self.sequences.get((log, producer), 0)
                self.sequences[log, producer] = first + len(pairs)
                options |= {"producer_id": producer, "producer_epoch": 0, "base_sequence": first}
            batches.append((pairs, options))
        await self.world.append_batches(batches, log=log)

    def pair(self) -> Pair:
        chance = self.chance
        key = None if chance.random() < 0.1 else chance.choice(self.keys)
        value = None if chance.random() < 0.25 else b"%d" % chance.randrange(10**9) * chance.randrange(1, 9)
        return key, value

    async def compact(self) -> None:
        await self.world.compact(self.job)
        await self.check()

    async def compact_twice_at_once(self) -> None:
        lease = await self.world.job_lease()
        await asyncio.gather(self.job.run(lease), self.world.compactor().run(lease))
        await self.check()

    async def trim(self) -> None:
        log = self.chance.choice(self.world.topics[0].logs)
        [state] = (await self.world.store.log_states([log])).values()
        start = self.chance.randrange(state.start_offset, state.next_offset + 1)
        # Not to the very end: of an empty log there is nothing to look at.
        start = min(start, max(state.next_offset - 1, state.start_offset))
        [lease] = await self.world.store.take_leases(["job/retention"], BrokerId(2))
        await self.world.store.advance_log_starts(lease, {log: start})
        await self.world.store.trim_logs(lease, [log], 1000)

    async def change_policy(self) -> None:
        self.world.rules["compacts"] = not self.world.rules["compacts"]

    async def lose_agent(self) -> None:
        """A pass is cut short somewhere, and another agent, which remembers nothing, takes the job over."""
        left = self.chance.randrange(1, 12)

        def count(name: str, key: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise ObjectStoreError("cut")

        self.world.objects.before = count
        try:
            await self.world.compact(self.job)
        except ObjectStoreError:
            self.job = self.world.compactor()
        finally:
            self.world.objects.before = lambda name, key: None
        await self.check()

    async def damage(self) -> None:
        """A pass finds an extent damaged. Its bytes are what they were afterwards, but jobs don't know that."""
        log = self.chance.choice(self.world.topics[0].logs)
        rows = await self.world.rows(log)
        if not rows:
            return
        row = self.chance.choice(rows)
        # In the CRC of a batch's header, wherever that batch begins.
        self.world.objects.change(row.key, row.position + 18)
        await self.world.compact(self.job)
        if any(found.segment_id == row.segment_id for found in await self.world.rows(log)):
            self.world.objects.change(row.key, row.position + 18)
        await self.check()

    async def repair(self) -> None:
        """Jobs may have all extents again."""
        await self.world.store.release_quarantined(await self.world.store.quarantined(1000))

    async def wait(self) -> None:
        self.world.pass_hours(self.chance.choice([1, 10, 30]))

    async def check(self) -> None:
        for log in self.world.topics[0].logs:
            await self.world.check_log(log)


def alive(table: dict[bytes | None, bytes | None]) -> dict[bytes | None, bytes | None]:
    return {key: value for key, value in table.items() if key is not None and value is not None}


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_consumers_get_the_newest_of_each_key_whatever_happens(tmp_path: Path, seed: int) -> None:
    async def scenario(world: World) -> None:
        await History(world, seed).live()
        await world.check_objects()

    with_world(tmp_path, scenario, partitions=1 + seed % 3, seed=seed)
