"""A database that is older than its bucket is put right: nothing that the bucket holds is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.lifecycle.restore_support import Part, World, everything, merge
from warp.errors import MetadataError, ObjectStoreError, StartError
from warp.lifecycle.epoch import EpochCheck, begin_epoch, newest_epoch
from warp.lifecycle.restore import Restore, make_plan
from warp.lifecycle.restore_plan import TAIL_GONE_OFFSETS
from warp.metadata.group_model import LeaseLost
from warp.metadata.restore_model import Restoration
from warp.metadata.restore_store import RestoreStore
from warp.metadata.sqlite import SqliteDatabase
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore


def in_world(folder: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """Run a story in a world of its own."""

    async def whole() -> None:
        world = World(folder)
        await world.open()
        await story(world)

    asyncio.run(whole())


def test_what_was_written_since_the_backup_is_back_at_its_offsets(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders", 2)
        await world.write(Part(orders, ["a"]), Part(orders, ["b"], 1))
        backup = await world.copy()
        for i in range(3):
            await world.write(Part(orders, [f"c{i}", f"d{i}"]), Part(orders, [f"e{i}"], 1))
        await world.idle()
        plan = await world.restore(backup)
        assert await everything(world, backup) == await everything(world, world.live)
        assert (plan.counts.kept, plan.counts.lost, plan.counts.moved) == (9, 0, 0)
        [topic] = (await backup.topics()).values()
        assert topic.configs == {"retention.ms": "1000"}

    in_world(tmp_path, story)


def test_run_again_it_finds_nothing_left_to_do(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        backup = await world.copy()
        await world.write(Part(orders, ["a"]))
        await world.write(Part(orders, ["b"]))
        await world.restore(backup)
        before = await everything(world, backup)
        plan = await world.restore(backup)
        assert plan.is_empty
        assert await everything(world, backup) == before

    in_world(tmp_path, story)


def test_topics_and_partitions_made_since_are_made_again_and_deleted_ones_stay_away(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        old, grown = await world.topic("old"), await world.topic("grown")
        await world.write(Part(old, ["a"]), Part(grown, ["b"]))
        await world.live.store.delete_topics([old.topic_id])
        backup = await world.copy()
        more = await world.live.store.create_partitions(grown.topic_id, 3)
        fresh = await world.topic("fresh", 2)
        await world.write(Part(more, ["c"], 2), Part(fresh, ["d"], 1))  # type: ignore[arg-type]
        await world.idle()
        plan = await world.restore(backup)
        topics = await backup.topics()
        assert {name: len(topic.logs) for name, topic in topics.items()} == {"fresh": 2, "grown": 3}
        assert topics["fresh"].topic_id == fresh.topic_id
        assert await everything(world, backup) == await everything(world, world.live)
        assert (plan.counts.topics_new, plan.counts.topics_grown) == (["fresh"], ["grown"])

    in_world(tmp_path, story)


def test_a_topic_made_since_whose_name_is_taken_gets_another(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        old = await world.topic("orders")
        await world.write(Part(old, ["old"]))
        backup = await world.copy()
        await world.live.store.delete_topics([old.topic_id])
        new = await world.topic("orders")
        await world.write(Part(new, ["new"]))
        await world.idle()
        plan = await world.restore(backup)
        assert await world.read(backup, "orders") == [(0, "old")]
        assert await world.read(backup, plan.counts.topics_renamed["orders"]) == [(0, "new")]

    in_world(tmp_path, story)


def test_offsets_that_may_have_been_given_out_are_not_given_out_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a"]))
        await world.idle()
        backup = await world.copy()
        # Two agents died with their receipts; which of them came first nobody can tell any more.
        await world.write(Part(orders, ["b", "c"]), tells=False)
        await world.write(Part(orders, ["d"]), tells=False)
        plan = await world.restore(backup)
        assert await world.read(backup, "orders") == [(0, "a"), (4, "b"), (5, "c"), (6, "d")]
        assert (plan.counts.moved, plan.counts.reserved) == (3, 3)
        world.live = backup
        [orders] = (await backup.topics()).values()
        assert await world.write(Part(orders, ["e"])) == [7]

    in_world(tmp_path, story)


def test_a_segment_that_was_never_committed_before_the_backup_stays_out(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["never"]), commits=False)
        world.clock.seconds += 3600
        await world.write(Part(orders, ["a"]))
        backup = await world.copy()
        plan = await world.restore(backup)
        assert await world.read(backup, "orders") == [(0, "a")]
        assert (plan.counts.moved, plan.counts.segments_left) == (0, 1)

    in_world(tmp_path, story)


def test_a_rebuild_after_a_restore_finds_moved_records_where_they_are(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders", 2)
        backup = await world.copy()
        await world.write(Part(orders, ["a"]), tells=False)
        await world.write(Part(orders, ["b"]), Part(orders, ["c", "d"], 1), tells=False)
        await world.restore(backup)
        world.live = backup
        await world.write(Part(orders, ["e"]))
        world.clock.seconds += 3600
        await world.write(Part(orders, ["f"]))
        await world.idle()
        fresh = await world.empty()
        plan = await world.restore(fresh)
        assert await everything(world, fresh) == await everything(world, backup)
        assert (plan.counts.moved, plan.counts.kept) == (0, 6)

    in_world(tmp_path, story)


def test_extents_whose_objects_were_merged_since_are_replaced(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        for i in range(3):
            await world.write(Part(orders, [f"a{i}"]))
        backup = await world.copy()
        await world.write(Part(orders, ["b"]))
        await merge(world, "orders")
        await world.write(Part(orders, ["c"]))
        await world.idle()
        plan = await world.restore(backup)
        assert await world.read(backup, "orders") == await world.read(world.live, "orders")
        assert (plan.counts.extents_gone, plan.counts.lost) == (3, 0)

    in_world(tmp_path, story)


def test_what_was_deleted_since_at_the_beginning_moves_the_log_start(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        before = set(world.objects._objects)
        await world.write(Part(orders, ["a", "b"]))
        deleted = set(world.objects._objects) - before
        await world.write(Part(orders, ["c"]))
        backup = await world.copy()
        await world.objects.delete(sorted(deleted))
        plan = await world.restore(backup)
        assert await world.read(backup, "orders") == [(2, "c")]
        states = await backup.store.log_states([orders.logs[0]])
        assert states[orders.logs[0]].start_offset == 2
        assert (plan.counts.started_later, plan.counts.lost) == (2, 0)

    in_world(tmp_path, story)


def test_a_log_whose_newest_data_were_deleted_since_goes_on_far_behind_them(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a", "b"]))
        backup = await world.copy()
        await world.objects.delete([key for key in world.objects._objects if key.startswith("segments/")])
        await world.restore(backup)
        assert await world.read(backup, "orders") == []
        world.live = backup
        assert await world.write(Part(orders, ["c"])) == [2 + TAIL_GONE_OFFSETS]
        assert await world.read(backup, "orders") == [(2 + TAIL_GONE_OFFSETS, "c")]

    in_world(tmp_path, story)


def test_a_missing_object_in_the_middle_leaves_a_hole(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        keys = []
        for value in "abc":
            before = set(world.objects._objects)
            await world.write(Part(orders, [value]))
            keys += sorted(set(world.objects._objects) - before)
        backup = await world.copy()
        await world.objects.delete([keys[1]])
        plan = await world.restore(backup)
        assert await world.read(backup, "orders") == [(0, "a"), (2, "c")]
        assert (plan.counts.lost, plan.counts.extents_gone) == (1, 1)

    in_world(tmp_path, story)


def test_a_copy_of_a_segment_that_the_database_knows_is_no_new_one(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a"]), copies=2)
        backup = await world.copy()
        plan = await world.restore(backup)
        assert plan.is_empty
        assert await world.read(backup, "orders") == [(0, "a")]

    in_world(tmp_path, story)


def test_producers_go_on_and_their_resends_are_known(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a"], producer=7, sequence=0))
        backup = await world.copy()
        await world.write(Part(orders, ["b"], producer=7, sequence=1))
        await world.write(Part(orders, ["c"], producer=7, sequence=2))
        await world.idle()
        await world.restore(backup)
        world.live = backup
        assert await world.write(Part(orders, ["b"], producer=7, sequence=1)) == [1]
        assert await world.write(Part(orders, ["d"], producer=7, sequence=3)) == [3]

    in_world(tmp_path, story)


def test_ids_and_leases_of_the_lost_time_are_not_given_out_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.topic("orders")
        agent = await world.live.store.register_agent("one")
        [lease] = await world.live.store.take_leases(["job"], agent)
        backup = await world.copy()
        lost_topic = await world.topic("lost")
        lost_agent = await world.live.store.register_agent("two")
        lost_producer = await world.live.store.allocate_producer_ids(1000)
        [lost_lease] = await world.live.store.take_leases(["job"], lost_agent)
        await world.restore(backup)
        assert await backup.store.register_agent("three") > lost_agent
        assert await backup.store.allocate_producer_ids(1) >= lost_producer + 1000
        for held in (lease, lost_lease):
            with pytest.raises(LeaseLost):
                await backup.store.mark_dead(held, 0, 10)
        [taken] = await backup.store.take_leases(["job"], agent)
        assert taken.epoch > lost_lease.epoch
        world.live = backup
        assert (await world.topic("new")).logs[0] > lost_topic.logs[0]

    in_world(tmp_path, story)


def test_agents_refuse_the_older_database_before_and_start_after(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.topic("orders")
        backup = await world.copy()
        assert await EpochCheck(world.objects, world.live.store, world.live.ids).may_delete()
        with pytest.raises(StartError, match="warp restore"):
            await begin_epoch(world.objects, backup.store, backup.ids, "mem://")
        await world.restore(backup)
        await begin_epoch(world.objects, backup.store, backup.ids, "mem://")
        with pytest.raises(StartError):
            await begin_epoch(world.objects, world.live.store, world.live.ids, "mem://")

    in_world(tmp_path, story)


class Failing(RestoreStore):
    """Its write is cut, before or after it is done."""

    def __init__(self, database: SqliteDatabase, *, is_applied: bool) -> None:
        super().__init__(database)
        self._is_applied = is_applied

    async def apply(self, restoration: Restoration, now_ms: int) -> None:
        if self._is_applied:
            await super().apply(restoration, now_ms)
        raise MetadataError("cut")


@pytest.mark.parametrize("is_applied", [False, True])
def test_when_it_is_interrupted_no_agent_starts_until_it_was_run_again(
    tmp_path: Path, is_applied: bool
) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        backup = await world.copy()
        await world.write(Part(orders, ["a"]))
        await world.idle()
        plan = await make_plan(world.objects, backup.rows)
        cut = Failing(backup.database, is_applied=is_applied)
        with pytest.raises(MetadataError, match="cut"):
            await Restore(world.objects, backup.store, cut, backup.ids).carry_out(plan, 1)
        for metadata in (backup, world.live):
            with pytest.raises(StartError):
                await begin_epoch(world.objects, metadata.store, metadata.ids, "mem://")
            check = EpochCheck(world.objects, metadata.store, metadata.ids, refused=lambda _: None)
            assert not await check.may_delete()
        await world.restore(backup)
        await begin_epoch(world.objects, backup.store, backup.ids, "mem://")
        assert await world.read(backup, "orders") == [(0, "a")]

    in_world(tmp_path, story)


class Cut(MemoryStore):
    """The n-th of its writes fails from when it is told to, done or not."""

    fails_at = 0
    is_done = False

    async def create(self, key: str, data: Buffer) -> bool:
        self._fail_before()
        answer = await super().create(key, data)
        self._fail_after()
        return answer

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        self._fail_before()
        await super().put(key, parts)
        self._fail_after()

    def _fail_before(self) -> None:
        self.fails_at -= 1
        if self.fails_at == 0 and not self.is_done:
            raise ObjectStoreError("cut")

    def _fail_after(self) -> None:
        if self.fails_at == 0:
            raise ObjectStoreError("cut")


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
def test_whichever_write_to_the_bucket_fails_the_next_run_ends_it(
    tmp_path: Path, fails_at: int, is_done: bool
) -> None:
    async def story(world: World) -> None:
        objects = Cut(world.clock, bytes_max=2**20)
        objects._objects.update(world.objects._objects)
        world.objects = objects
        orders = await world.topic("orders")
        backup = await world.copy()
        await world.write(Part(orders, ["a", "b"]))
        await world.write(Part(orders, ["c"]))
        objects.fails_at, objects.is_done = fails_at, is_done
        if fails_at < 4:
            with pytest.raises(ObjectStoreError, match="cut"):
                await world.restore(backup)
            # Before the first nothing was done, and after the last nothing is left to do.
            if (fails_at, is_done) not in ((1, False), (3, True)):
                with pytest.raises(StartError):
                    await begin_epoch(objects, backup.store, backup.ids, "mem://")
        objects.fails_at = 0
        await world.restore(backup)
        await begin_epoch(objects, backup.store, backup.ids, "mem://")
        assert await world.read(backup, "orders") == [(0, "a"), (1, "b"), (3, "c")]

    in_world(tmp_path, story)


def test_a_database_that_changes_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        backup = await world.copy()
        await world.write(Part(orders, ["a"]))
        await world.idle()
        plan = await make_plan(world.objects, backup.rows)
        world.live = backup
        await world.write(Part(orders, ["b", "c"]))
        with pytest.raises(MetadataError, match="has changed while it was read"):
            await Restore(world.objects, backup.store, backup.rows, backup.ids).carry_out(plan, 1)
        assert await world.read(backup, "orders") == [(0, "b"), (1, "c")]

    in_world(tmp_path, story)


def test_a_bucket_that_can_not_be_read_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        backup = await world.copy()
        await world.write(Part(orders, ["a"]))
        before = await newest_epoch(world.objects)

        async def fail(key: str, start: int, length: int) -> Buffer:
            raise ObjectStoreError("down")

        monkeypatch.setattr("warp.lifecycle.rebuild_read.RETRY_S", 0.0)
        monkeypatch.setattr(world.objects, "get", fail)
        with pytest.raises(ObjectStoreError, match="down"):
            await world.restore(backup)
        monkeypatch.undo()
        assert await newest_epoch(world.objects) == before

    in_world(tmp_path, story)
