"""Random histories of commits over a database that fails, with takeovers: what was acknowledged is never lost.

Each consumer commits rising offsets, often before the last commit was answered, and goes on whatever the answer was.
Another coordinator of its slot may come at any time, and writes too. Seeds decide everything; time is virtual.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from tests.sim.loop import SimLoop
from tests.support.log import run_sim
from tests.unit.metadata.support import TestClock
from warp.errors import ErrorCode, MetadataError, MetadataUnavailable, OutcomeUnknown
from warp.groups.offsets import OffsetCommitter, OffsetLimits
from warp.ids import BrokerId, IdSource
from warp.metadata.group_model import (
    Lease,
    OffsetCommit,
    OffsetQuery,
    OffsetRow,
    coordinator_lease,
    slot_of,
)
from warp.metadata.model import NewTopic
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase
from warp.metadata.store import MetadataStore

GROUPS = [f"group-{number}" for number in range(6)]
PARTITIONS = 4
COMMITS = 25
ANSWERS = {
    ErrorCode.NONE,
    ErrorCode.NOT_COORDINATOR,
    ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.UNKNOWN_SERVER_ERROR,
}


class FaultyStore:
    """Commits that take their time, and fail before or after they are done."""

    def __init__(self, store: MetadataStore, chance: random.Random) -> None:
        self._store = store
        self._chance = chance
        self.running = 0

    async def commit_offsets(self, offset_commits: Sequence[OffsetCommit]) -> list[list[ErrorCode]]:
        self.running += 1
        assert self.running == 1, "one transaction at a time"
        try:
            await asyncio.sleep(self._chance.random() * 0.1)
            luck = self._chance.random()
            if luck < 0.05:
                raise MetadataUnavailable("away")
            if luck < 0.10:
                raise OutcomeUnknown("lost before it was done")
            if luck < 0.13 and len(offset_commits) > 1:
                raise MetadataError("odd, for so many")
            answers = await self._store.commit_offsets(offset_commits)
            await asyncio.sleep(self._chance.random() * 0.1)
            if luck < 0.20:
                raise OutcomeUnknown("lost after it was done")
            return answers
        finally:
            self.running -= 1


class History:
    """One agent's coordinators, consumers and faults."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        clock = TestClock()
        self.ids = IdSource(clock, self.chance.randbytes)
        self.store = MetadataStore(SqliteDatabase(IN_MEMORY, now_ms=clock.time_ms), clock, self.ids)
        self.committer = OffsetCommitter(
            FaultyStore(self.store, self.chance), clock, OffsetLimits(transaction_rows_max=6, timeout_s=1.0)
        )
        self.leases: dict[str, Lease] = {}
        self.acknowledged: dict[tuple[str, int], int] = {}
        self.sent: dict[tuple[str, int], set[int]] = {}
        self.answers: set[ErrorCode] = set()

    async def run(self) -> None:
        await self.store.open()
        await self.store.create_topics([NewTopic("t", self.ids.topic_id(), PARTITIONS)])
        for group_id in GROUPS:
            await self.take(group_id)
        await asyncio.gather(*(self.consume(group_id) for group_id in GROUPS), self.take_over())
        assert await self.committer.drain(60)
        await self.check()
        await self.committer.close()
        await self.store.close()

    async def take(self, group_id: str) -> None:
        [lease] = await self.store.take_leases([coordinator_lease(slot_of(group_id))], BrokerId(1))
        self.leases[lease.name] = lease

    async def take_over(self) -> None:
        """Now and then somebody takes a lease and writes; until this agent has taken it back its commits must fail."""
        for number in range(8):
            await asyncio.sleep(self.chance.random())
            group_id = self.chance.choice(GROUPS)
            [lease] = await self.store.take_leases([coordinator_lease(slot_of(group_id))], BrokerId(2))
            row = OffsetRow(group_id, "t", 0, COMMITS + number, -1, "", 0)
            self.sent.setdefault((group_id, 0), set()).add(row.offset)
            await self.store.commit_offsets([OffsetCommit(lease, group_id, [row])])
            await asyncio.sleep(self.chance.random() / 2)
            [[found]] = await self.store.fetch_offsets([OffsetQuery(group_id, [("t", 0)])])
            assert found.offset == row.offset
            await self.check()
            await self.take(group_id)

    async def consume(self, group_id: str) -> None:
        commits = []
        for offset in range(1, COMMITS):
            await asyncio.sleep(self.chance.random() * 0.2)
            commits.append(asyncio.get_running_loop().create_task(self.commit(group_id, offset)))
            if self.chance.random() < 0.5:
                await commits[-1]
        await asyncio.gather(*commits)

    async def commit(self, group_id: str, offset: int) -> None:
        partitions = self.chance.sample(range(PARTITIONS), self.chance.randint(1, PARTITIONS))
        rows = [OffsetRow(group_id, "t", partition, offset, -1, "", 0) for partition in partitions]
        for partition in partitions:
            self.sent.setdefault((group_id, partition), set()).add(offset)
        lease = self.leases[coordinator_lease(slot_of(group_id))]
        errors = await self.committer.commit(OffsetCommit(lease, group_id, rows))
        self.answers.update(errors)
        for partition, error in zip(partitions, errors, strict=True):
            if not error:
                key = (group_id, partition)
                self.acknowledged[key] = max(offset, self.acknowledged.get(key, 0))

    async def check(self) -> None:
        """Nothing that was acknowledged is missing or older; nothing is there that was not sent."""
        held = dict(self.acknowledged)
        found = await self.store.fetch_offsets([OffsetQuery(group_id, None) for group_id in GROUPS])
        stored = {(row.group_id, row.partition): row.offset for rows in found for row in rows}
        for key, offset in stored.items():
            assert offset in self.sent[key]
        for key, offset in held.items():
            assert stored[key] >= offset


@pytest.mark.parametrize("seed", range(30))
def test_what_was_acknowledged_is_there_whatever_fails(seed: int) -> None:
    async def main(loop: SimLoop) -> None:
        history = History(seed)
        await history.run()
        assert history.answers <= ANSWERS
        assert ErrorCode.NONE in history.answers

    run_sim(main, seed)


def test_the_histories_meet_every_answer() -> None:
    async def main(loop: SimLoop) -> set[ErrorCode]:
        history = History(1)
        await history.run()
        return history.answers

    met = run_sim(main, 1)
    assert met >= {ErrorCode.NONE, ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE}
