"""Background jobs in a world: at work all the time, with bounds that small worlds reach, and judged in the end.

A world's logs are merged, and what nobody needs any more is deleted, while its agents crash and its stores fail. When
all is well again one agent that knows nothing of before is started alone, with as long as it needs to do what is left.
After that every record has to be where it was, everything that the index refers to has to be there and intact, and
nothing else may be left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.verifier import FsckResult
from warp.agent import Agent
from warp.agent_lifecycle import LifecycleLimits
from warp.cluster.jobs import JobLimits
from warp.config import AgentConfig
from warp.ids import SEGMENT_PREFIX
from warp.lifecycle import fsck
from warp.lifecycle.compact_plan import CompactionLimits
from warp.lifecycle.fsck_report import Report
from warp.lifecycle.levels import MergeLimits
from warp.metadata.fsck_store import FsckStore
from warp.metadata.sqlite_reader import SqliteReader

if TYPE_CHECKING:
    from tests.sim.world import World

FINISH_S = 200.0
"""How long the last agent may take for what is left to do: what has died by a clock that was ahead takes longer."""
QUIET_S = 3.0
"""For so long nothing has to have happened."""


class Jobs:
    """The jobs of one world. They have chances of their own."""

    def __init__(self, world: World) -> None:
        self._world = world
        chance = self._chance = random.Random(f"{world.seed} jobs")
        segments = chance.choice((2, 4, 8))
        size_bytes = chance.choice((1_000, 5_000, 50_000))
        self.limits = LifecycleLimits(
            merge=MergeLimits(
                memory_bytes=chance.choice((4_000, 40_000, 4_000_000)),
                due_bytes=(size_bytes, 4 * size_bytes, 16 * size_bytes),
                due_segments=(segments, 3, 3),
                due_small_segments=2,
                small_segment_bytes=chance.choice((1, 500)),
                segment_bytes_max=chance.choice((2_000, 20_000, 2**25)),
                swap_rows_max=chance.choice((3, 20, 4_000)),
                swap_part_rows_max=chance.choice((2, 6, 100)),
                backlog_bytes_max=size_bytes * chance.choice((4, 40, 4_000)),
                pass_s=chance.choice((0.5, 30.0)),
            ),
            compaction=CompactionLimits(
                memory_bytes=chance.choice((4_000, 60_000, 4_000_000)),
                segment_bytes_max=chance.choice((2_000, 2**25)),
                rows_max=chance.choice((3, 1_000)),
            ),
            runner=JobLimits(first_pass_s=0.5, failure_pause_s=chance.choice((0.3, 1.0))),
        )
        self._died_s: dict[str, float] = {}
        """When dead segments were seen to be dead for the first time, by their keys."""
        self.merges = self.records_compacted = self.starts_moved = 0
        self.objects_deleted = 0
        self.grace_s = chance.choice((1.0, 3.0))

    def configured(self, config: AgentConfig) -> AgentConfig:
        """With intervals and times of grace below what users may set."""
        chance = self._chance
        return dataclasses.replace(
            config,
            merge_interval_ms=chance.choice((20, 200, 1_000)),
            compaction_interval_ms=chance.choice((100, 1_000)),
            retention_check_interval_ms=chance.choice((200, 1_000)),
            delete_grace_ms=int(1_000 * self.grace_s),
            orphan_age_ms=int(1_000 * self.grace_s),
            orphan_interval_ms=chance.choice((500, 1_500)),
            jobs_bandwidth_bytes_per_s=chance.choice((None, None, 10_000, 100_000)),
        )

    def check_commit(self, connection: sqlite3.Connection) -> None:
        """After each commit: see who has died."""
        dead = {key for (key,) in connection.execute("select key from segments where state = 1")}
        for key in dead - self._died_s.keys():
            self._died_s[key] = self._world.loop.time()

    def check_deletion(self, keys: Sequence[str]) -> None:
        """Before objects are deleted: nothing may refer to one, nor have done so for a time of grace."""
        world = self._world
        connection = world.connect()
        try:
            for key in keys:
                referring = "select 1 from extents join segments using (segment_id) where key = ?"
                died_s = self._died_s.get(key)
                if not key.startswith(SEGMENT_PREFIX):
                    continue
                if connection.execute(referring, (key,)).fetchone() is not None:
                    world.history.violate("P9", f"{key} is deleted, and an extent lies in it")
                elif died_s is None:
                    world.history.violate("P9", f"{key} is deleted, and was never dead")
                elif world.loop.time() - died_s < self.grace_s:
                    age_s = world.loop.time() - died_s
                    world.history.violate("P9", f"{key} is deleted {age_s:.3f} s after it has died")
        finally:
            connection.close()

    def count(self, agent: Agent) -> None:
        """At the end of an agent: what its jobs have done."""
        done = {job["name"]: job["done"] for job in agent.lifecycle.describe()["jobs"]}
        self.merges += done["merge"]["merges"]
        self.records_compacted += done["compact"]["records_dropped"]
        self.starts_moved += done["retention"]["log_starts_moved"]
        self.objects_deleted += done["segments"]["segments_deleted"]

    async def finish(self) -> None:
        """Let one agent do all that is left, and read everything back once more: nothing may be another than before."""
        world = self._world
        [host, *_] = world.hosts
        host.boot()
        assert host.booting is not None
        await host.booting
        agent = host.agent
        assert agent is not None, "the last agent does not serve"
        if not await self._within(FINISH_S, self._is_done):
            world.history.violate("P9", f"after {FINISH_S} s jobs have left: {self._rows()}")
        # What retention takes from here on is left to nobody: time does not stand still.
        left = self._rows()
        if world.life is not None:
            with contextlib.closing(world.connect()) as connection:
                world.life.spans.see_end(connection, world.clock.time_ms())
        await world.verifying.read_back("the last agent", host.address)
        left_over = {f"objects or rows that are {what}": count for what, count in left.items()}
        world.verifying.fsck = FsckResult.of(await self._report(), left_over)
        if not await agent.stop(30.0):
            world.history.violate("P6", "the last agent did not drain")
        host.crash()

    async def _within(self, timeout_s: float, is_so: Callable[[], object]) -> bool:
        """Has it been so for QUIET_S, before the time is over?"""
        loop = self._world.loop
        ends_s, since_s = loop.time() + timeout_s, loop.time()
        while loop.time() < ends_s:
            await asyncio.sleep(0.25)
            if not is_so():
                since_s = loop.time()
            elif loop.time() - since_s >= QUIET_S:
                return True
        return False

    def _is_done(self) -> bool:
        left = self._rows()
        is_through = not left["empty"] and not left["dead"] and not left["unknown"]
        return is_through and not self._world.objects.on_their_way

    def _rows(self) -> dict[str, int]:
        """What there is to do: live segments without extents, dead ones, objects that nothing names."""
        connection = self._world.connect()
        try:
            states = dict(connection.execute("select key, state from segments").fetchall())
            [empty] = connection.execute(
                "select count(*) from segments s where state = 0"
                " and not exists (select 1 from extents e where e.segment_id = s.segment_id)"
            ).fetchone()
        finally:
            connection.close()
        found = [key for key in self._world.objects.present() if key.startswith(SEGMENT_PREFIX)]
        return {
            "empty": empty,
            "dead": sum(state == 1 for state in states.values()),
            "unknown": sum(states.get(key) != 0 for key in found),
        }

    async def _report(self) -> Report:
        world = self._world
        reader = SqliteReader(world.database_path)
        await reader.open()
        try:
            return await fsck.check(FsckStore(reader), world.objects, world.clock, scope=fsck.DEEP)
        finally:
            await reader.close()
