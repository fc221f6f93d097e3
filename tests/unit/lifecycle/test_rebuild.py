"""The metadata made anew out of the bucket alone: what was acknowledged is there at its offset, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.unit.lifecycle.restore_support import Metadata, Part, World, everything, merge
from warp.errors import StartError
from warp.lifecycle.epoch import EpochCheck, begin_epoch
from warp.lifecycle.restore import make_plan
from warp.lifecycle.restore_plan import Plan
from warp.log.segment import ExtentBatches, Receipt, ReceiptRun, build_segment
from warp.metadata.life_model import IndexRow


def in_world(folder: Path, story: Callable[[World], Awaitable[None]]) -> None:
    """Run a story in a world of its own."""

    async def whole() -> None:
        world = World(folder)
        await world.open()
        await story(world)

    asyncio.run(whole())


async def rebuilt(world: World) -> tuple[Metadata, Plan]:
    """A database made of the bucket."""
    fresh = await world.empty()
    return fresh, await world.restore(fresh)


def test_what_receipts_tell_of_is_back_at_its_offsets(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders, users = await world.topic("orders", 2), await world.topic("users")
        for i in range(5):
            await world.write(
                Part(orders, [f"a{i}", f"b{i}"]), Part(orders, [f"c{i}"], 1), Part(users, [f"u{i}"])
            )
        await world.idle()
        fresh, plan = await rebuilt(world)
        assert await everything(world, fresh) == await everything(world, world.live)
        assert (plan.counts.kept, plan.counts.moved, plan.counts.lost) == (20, 0, 0)
        topics = await fresh.topics()
        for_ever = {"retention.bytes": "-1", "retention.ms": "-1"}
        assert [(t.name, t.topic_id, len(t.logs), t.configs) for t in topics.values()] == [
            ("orders", orders.topic_id, 2, for_ever),
            ("users", users.topic_id, 1, for_ever),
        ]

    in_world(tmp_path, story)


def test_the_last_records_come_behind_all_that_may_have_been_given_out(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        for i in range(3):
            await world.write(Part(orders, [f"a{i}", f"b{i}"]))
        # The last receipt was still in memory.
        fresh, plan = await rebuilt(world)
        found = await world.read(fresh, "orders")
        assert found == [(0, "a0"), (1, "b0"), (2, "a1"), (3, "b1"), (6, "a2"), (7, "b2")]
        assert (plan.counts.kept, plan.counts.moved, plan.counts.reserved) == (4, 2, 2)

    in_world(tmp_path, story)


def test_copies_of_a_segment_are_taken_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a"]), copies=2)
        await world.write(Part(orders, ["b"]), copies=2)
        fresh, _ = await rebuilt(world)
        assert [value for _, value in await world.read(fresh, "orders")] == ["a", "b"]

    in_world(tmp_path, story)


def test_a_batch_that_its_producer_sent_again_is_taken_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a", "b"], producer=7, sequence=0), commits=False)
        await world.write(Part(orders, ["a", "b"], producer=7, sequence=0))
        await world.write(Part(orders, ["c"], producer=7, sequence=2))
        await world.idle()
        fresh, plan = await rebuilt(world)
        assert await world.read(fresh, "orders") == [(0, "a"), (1, "b"), (2, "c")]
        assert plan.counts.repeated == 2

    in_world(tmp_path, story)


def test_a_producer_goes_on_where_it_was_and_its_resends_are_known(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a", "b"], producer=7, sequence=0))
        await world.write(Part(orders, ["c"], producer=7, sequence=2))
        await world.idle()
        fresh, _ = await rebuilt(world)
        world.live = fresh
        [orders] = (await fresh.topics()).values()
        assert await world.write(Part(orders, ["c"], producer=7, sequence=2)) == [2]
        assert await world.write(Part(orders, ["d"], producer=7, sequence=3)) == [3]
        assert await world.read(fresh, "orders") == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]

    in_world(tmp_path, story)


def test_ids_that_were_given_out_are_not_given_out_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a"], producer=5_000, sequence=0))
        await world.idle()
        fresh, _ = await rebuilt(world)
        assert await fresh.store.allocate_producer_ids(1) > 2**32 + 5_000
        assert await fresh.store.register_agent("new") > 1_000
        [topic] = (await fresh.topics()).values()
        assert topic.logs[0] > 1_000_000

    in_world(tmp_path, story)


def test_merged_segments_tell_their_offsets_when_what_they_hold_is_gone_elsewhere(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        for i in range(4):
            await world.write(Part(orders, [f"a{i}", f"b{i}"]))
        await merge(world, "orders")
        await world.write(Part(orders, ["last"]))
        await world.idle()
        fresh, plan = await rebuilt(world)
        assert await world.read(fresh, "orders") == await world.read(world.live, "orders")
        assert (plan.counts.segments, plan.counts.kept) == (2, 9)

    in_world(tmp_path, story)


def test_records_that_were_merged_before_their_receipt_was_written_are_there_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a", "b"]))
        await world.write(Part(orders, ["c"]), tells=False)
        kept = dict(world.objects._objects)
        await merge(world, "orders")
        world.objects._objects.update(kept)
        await world.write(Part(orders, ["d"]))
        await world.idle()
        fresh, plan = await rebuilt(world)
        assert await world.read(fresh, "orders") == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
        assert (plan.counts.repeated, plan.counts.moved) == (1, 0)

    in_world(tmp_path, story)


@pytest.mark.parametrize("is_merged", [False, True])
def test_batches_of_the_same_bytes_are_all_there_whether_merged_or_not(
    tmp_path: Path, is_merged: bool
) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        for tells in (True, False):
            await world.write(Part(orders, ["same"]), tells=tells)
            world.clock.seconds -= 1
        await world.idle()
        if is_merged:
            kept = dict(world.objects._objects)
            await merge(world, "orders")
            world.objects._objects.update(kept)
        fresh, _ = await rebuilt(world)
        assert [value for _, value in await world.read(fresh, "orders")] == ["same", "same"]

    in_world(tmp_path, story)


def test_the_highest_level_wins_where_segments_hold_the_same_offsets(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        for i in range(4):
            await world.write(Part(orders, [f"a{i}", f"b{i}"]))
        await world.idle()
        kept = dict(world.objects._objects)
        await merge(world, "orders")
        await merge(world, "orders", level=2)
        world.objects._objects.update(kept)
        fresh, plan = await rebuilt(world)
        assert await world.read(fresh, "orders") == await world.read(world.live, "orders")
        assert plan.counts.segments == 1
        [row] = await fresh.store.extents_of_log((await fresh.topics())["orders"].logs[0], 0, 10)
        assert isinstance(row, IndexRow)
        assert row.level == 2

    in_world(tmp_path, story)


def test_a_damaged_or_missing_segment_leaves_a_hole_that_readers_pass_over(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        for i in range(4):
            await world.write(Part(orders, [f"a{i}", f"b{i}"]))
        await world.idle()
        keys = sorted(key for key in world.objects._objects if key.startswith("segments/"))
        by_time = sorted(keys, key=lambda key: key.rsplit("/", 1)[1])
        data = bytearray(world.objects._objects[by_time[1]][0])
        data[-30] ^= 1
        await world.objects.put(by_time[1], [bytes(data)])
        fresh, plan = await rebuilt(world)
        # With the second segment's footer, the receipt of the first is lost.
        assert [value for _, value in await world.read(fresh, "orders")] == [
            "a2",
            "b2",
            "a3",
            "b3",
            "a0",
            "b0",
        ]
        assert list(plan.bucket.damaged) == [by_time[1]]

    in_world(tmp_path, story)


@pytest.mark.parametrize("forged", ["partition", "extent", "receipt"])
def test_a_footer_that_would_fill_the_database_counts_as_damaged(tmp_path: Path, forged: str) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a", "b"]))
        await world.idle()
        partition, end, run_end = 0, 10, 10
        if forged == "partition":
            partition = 2**32 - 1
        elif forged == "extent":
            end = 2**62
        else:
            run_end = 2**62
        extent = ExtentBatches(orders.topic_id, "orders", partition, [b"?"], 1, -1, -1, end - 1, end)
        receipt = Receipt("segments/aa/018bcfe56800-" + 20 * "0", [ReceiptRun(8, 1, run_end - 1, 1)])
        parts = build_segment([extent], created_ms=5, level=1, receipts=[receipt])
        key = "segments/ff/018bcfe56800-" + 20 * "f"
        await world.objects.put(key, parts)
        fresh, plan = await rebuilt(world)
        assert list(plan.bucket.damaged) == [key]
        assert await world.read(fresh, "orders") == [(0, "a"), (1, "b")]

    in_world(tmp_path, story)


def test_a_hole_in_the_middle_is_covered_and_counted(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        keys: list[str] = []
        for i in range(3):
            before = set(world.objects._objects)
            await world.write(Part(orders, [f"a{i}", f"b{i}"]), brings=False)
            keys += set(world.objects._objects) - before
        await world.idle()
        await world.objects.delete([keys[1]])
        fresh, plan = await rebuilt(world)
        assert await world.read(fresh, "orders") == [(0, "a0"), (1, "b0"), (4, "a2"), (5, "b2")]
        assert plan.counts.lost == 2

    in_world(tmp_path, story)


def test_a_segment_that_was_never_committed_long_ago_stays_out(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders, ghost = await world.topic("orders"), await world.topic("ghost")
        await world.write(Part(orders, ["never"]), Part(ghost, ["never"]), commits=False)
        world.clock.seconds += 3600
        await world.write(Part(orders, ["a"]))
        await world.idle()
        fresh, plan = await rebuilt(world)
        assert await world.read(fresh, "orders") == [(0, "a")]
        assert plan.counts.segments_left == 1
        assert list(await fresh.topics()) == plan.counts.topics_new == ["orders"]

    in_world(tmp_path, story)


def test_the_last_records_of_a_quiet_log_are_taken_however_long_ago_their_agent_died(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders, other = await world.topic("orders"), await world.topic("other")
        await world.write(Part(orders, ["first"]))
        await world.write(Part(orders, ["last"]), tells=False)
        world.clock.seconds += 3600
        await world.write(Part(other, ["a"]))
        await world.idle()
        fresh, plan = await rebuilt(world)
        assert [value for _, value in await world.read(fresh, "orders")] == ["first", "last"]
        assert (plan.counts.moved, plan.counts.segments_left) == (1, 0)

    in_world(tmp_path, story)


def test_what_was_compacted_away_does_not_come_back_as_the_last_records_of_a_quiet_log(
    tmp_path: Path,
) -> None:
    async def story(world: World) -> None:
        orders, other = await world.topic("orders"), await world.topic("other")
        await world.write(Part(orders, ["old"]), tells=False)
        await world.write(Part(orders, ["new"]))
        await world.idle()
        kept = dict(world.objects._objects)
        await merge(world, "orders", compacts=True)
        world.objects._objects.update(kept)
        world.clock.seconds += 3600
        await world.write(Part(other, ["a"]))
        await world.idle()
        assert await world.read(world.live, "orders") == [(1, "new")]
        fresh, _ = await rebuilt(world)
        assert await world.read(fresh, "orders") == [(1, "new")]

    in_world(tmp_path, story)


def test_of_two_topics_of_one_name_the_newer_has_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        old = await world.topic("orders")
        await world.write(Part(old, ["old"]))
        await world.live.store.delete_topics([old.topic_id])
        new = await world.topic("orders")
        await world.write(Part(new, ["new"]))
        await world.idle()
        fresh, plan = await rebuilt(world)
        assert await world.read(fresh, "orders") == [(0, "new")]
        assert await world.read(fresh, plan.counts.topics_renamed["orders"]) == [(0, "old")]

    in_world(tmp_path, story)


def test_agents_start_on_it_and_the_old_database_deletes_nothing_more(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a"]))
        fresh, _ = await rebuilt(world)
        await begin_epoch(world.objects, fresh.store, fresh.ids, "mem://")
        assert await EpochCheck(world.objects, fresh.store, fresh.ids).may_delete()
        old = EpochCheck(world.objects, world.live.store, world.live.ids, refused=lambda _: None)
        assert not await old.may_delete()
        with pytest.raises(StartError):
            await begin_epoch(world.objects, world.live.store, world.live.ids, "mem://")

    in_world(tmp_path, story)


def test_a_plan_alone_changes_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        orders = await world.topic("orders")
        await world.write(Part(orders, ["a"]))
        before = dict(world.objects._objects)
        fresh = await world.empty()
        await make_plan(world.objects, None)
        await make_plan(world.objects, fresh.rows)
        assert await fresh.rows.is_empty()
        assert world.objects._objects == before

    in_world(tmp_path, story)
