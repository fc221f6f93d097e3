"""A database is put back to an older state, under agents that run or while none does, and restored from the bucket.

Until it is restored nobody deletes an object, and no agent starts. After it everything that was ever acknowledged is
where it was, though jobs have merged it and deleted what it lay in since the copy was made.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import pytest

from tests.sim.cluster import CLUSTER_SEED, SEEDS_PER_CLUSTER, has_cluster
from tests.sim.guard import is_guarded
from tests.sim.outcome import Outcome
from tests.sim.producers import IdempotentProducer, PairProducer
from tests.sim.world import PAIR, SHARED, World, play
from warp.ids import SEGMENT_PREFIX
from warp.lifecycle import restore
from warp.lifecycle.epoch import EpochCheck
from warp.metadata.restore_store import RestoreStore
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

ALONE = [seed for seed in range(40) if not has_cluster(seed) and not is_guarded(seed)][:3]
CLUSTERS = range(CLUSTER_SEED, CLUSTER_SEED + 4 * SEEDS_PER_CLUSTER, SEEDS_PER_CLUSTER)
DELETES_LATE_S = 1.0
"""What somebody was about to delete when the database was put back, he deletes."""
RECEIPTS_S = 12.0
"""So long after the last records the bucket tells the offsets of all of them."""
EXPECTED = "had to end, and nobody took its place"
"""An agent that the older database does not know has to."""


def as_it_is(world: World) -> sqlite3.Connection:
    """A copy of the database."""
    copy = sqlite3.connect(":memory:")
    with closing(world.connect()) as source:
        source.backup(copy)
    return copy


async def take_epoch(world: World) -> None:
    """As `warp backup` does, so that the copy can be told from what goes on."""
    database = SqliteDatabase(world.database_path, now_ms=world.clock.time_ms, sync=None)
    metadata = MetadataStore(database, world.clock, world.ids)
    await metadata.open()
    assert await EpochCheck(world.objects, metadata, world.ids).may_delete()
    await metadata.close()


def put_back(world: World, copy: sqlite3.Connection) -> None:
    """All transactions come to nothing, and from now on the database is what it was."""
    for host in world.hosts:
        if host.current is not None and host.current.database is not None:
            host.current.database.break_off()
    for transaction in list(world.rows._open):
        transaction.break_off()
    world.rows._ids.clear()
    with closing(world.connect()) as target:
        copy.backup(target)
    world.history.add("world", "puts the database back")


async def write_for(world: World, first_s: float, then_s: float) -> sqlite3.Connection:
    """Let producers write, jobs merge and delete; a copy of the database from the midst of it."""
    producers: list[IdempotentProducer | PairProducer] = [
        IdempotentProducer(world, "producer-0", SHARED),
        PairProducer(world, "pairs-0", *PAIR),
    ]
    tasks = [world.spawn(producer.run()) for producer in producers]
    await asyncio.sleep(first_s)
    copy = as_it_is(world)
    await take_epoch(world)
    await asyncio.sleep(then_s)
    for producer in producers:
        producer.is_stopping = True
    await asyncio.wait(tasks)
    await asyncio.sleep(RECEIPTS_S)
    return copy


async def restored(world: World) -> None:
    """Do what `warp restore` does."""
    database = SqliteDatabase(world.database_path, now_ms=world.clock.time_ms, sync=None)
    metadata = MetadataStore(database, world.clock, world.ids)
    await metadata.open()
    rows = RestoreStore(database)
    plan = await restore.make_plan(world.objects, rows)
    world.history.add("operator", f"restores: {plan.counts}")
    assert not plan.counts.lost
    await restore.Restore(world.objects, metadata, rows, world.ids).carry_out(plan, world.clock.time_ms())
    await metadata.close()


def watch_deletions(world: World) -> list[str]:
    """Keys of segments that agents begin to delete from now on."""
    deleted: list[str] = []
    world.objects.deleting = lambda keys: deleted.extend(
        key for key in keys if key.startswith(SEGMENT_PREFIX)
    )
    return deleted


async def a_database_is_put_back(world: World) -> None:
    """Under all agents of a cluster; the one of a database of its own has to be started on it."""
    world.groups = []
    for host in world.hosts:
        await host.serves()
    await world.create_topics()
    copy = await write_for(world, world.chance.uniform(1.0, 4.0), 6.0)
    if world.cluster is None:
        for host in world.hosts:
            host.crash()
    put_back(world, copy)
    await asyncio.sleep(DELETES_LATE_S)
    deleted = watch_deletions(world)
    for host in world.hosts:
        if not host.is_alive or world.chance.random() < 0.5:
            host.crash()
            host.boot()
    await asyncio.sleep(8.0)
    if deleted:
        world.history.violate("P9", f"{deleted} were deleted by the word of a database that was put back")
    for host in world.hosts:
        if host.lives > 1 and host.agent is not None:
            world.history.violate("P9", f"{host.name} serves from a database that was put back")
        host.crash()
    world.objects.deleting = world.jobs.check_deletion
    await restored(world)
    for host in world.hosts:
        await host.serves()
    await asyncio.sleep(3.0)
    for host in world.hosts:
        await world.verifying.read_back(host.name, host.address)
    for host in world.hosts:
        host.crash()
    await world.jobs.finish()


def complaints(outcome: Outcome) -> Sequence[str]:
    """Violations, but for what has to be."""
    return [violation for violation in outcome.violations if EXPECTED not in violation]


@pytest.mark.parametrize("seed", [*ALONE, *CLUSTERS])
def test_nothing_is_deleted_until_it_is_restored_and_then_all_is_back(seed: int) -> None:
    outcome = play(seed, a_database_is_put_back)
    assert not complaints(outcome), "\n".join([*outcome.history.lines[-60:], *complaints(outcome)])
    assert outcome.acknowledged


def test_agents_that_delete_by_an_older_database_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def anybody_may(_: EpochCheck) -> bool:
        return True

    monkeypatch.setattr(EpochCheck, "may_delete", anybody_may)
    outcomes = (play(seed, a_database_is_put_back) for seed in CLUSTERS)
    assert any("put back" in violation for outcome in outcomes for violation in outcome.violations)
