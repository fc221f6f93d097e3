"""Compaction cut short at every step, disturbed by others, and met by damage: nothing is lost, nothing comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.reference.records import Header, RawRecord, encode_batch, encode_record
from tests.unit.lifecycle.compact_support import MIB, NOW_MS, World
from tests.unit.lifecycle.test_compact import SMALL, with_world
from warp._records import build_batch
from warp.errors import ObjectStoreError, OutcomeUnknown
from warp.ids import BrokerId
from warp.lifecycle.compact_plan import CompactionLimits
from warp.metadata.group_model import LeaseLost
from warp.metadata.life_model import Swap, SwapRefused, SwapResult

STEPS_MAX = 500


class Crash(Exception):
    """The agent is gone."""


class Steps:
    """Counts what a job asks of its stores, and crashes before or after the step of a number."""

    def __init__(self, world: World, crash_at: int, *, after: bool) -> None:
        self._store = world.store
        self._left = crash_at
        self._after = after
        world.objects.before = self._before

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        operation = getattr(self._store, name)

        async def step(*arguments: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Crash
            result = await operation(*arguments)
            if self._left == 0:
                raise Crash
            return result

        return step

    def _before(self, name: str, key: str) -> None:
        self._left -= 1
        if self._left == 0:
            raise Crash

    @property
    def is_over(self) -> bool:
        """Whether everything was done before the step came."""
        return self._left > 0


async def fill(world: World) -> None:
    """A log with everything in it, of which the first part is compacted."""
    for number in range(6):
        await world.append((b"a", b"%d" % number), (b"k%d" % number, b"x" * 300), codec=number % 5)
    await world.append((b"k0", None), (b"k1", None))
    await world.append((b"end", b""))
    await world.compact()
    world.pass_hours(30)
    for number in range(6, 12):
        await world.append((b"a", b"%d" % number), (b"k%d" % (number - 5), b"y" * 300))
    await world.append((b"k7", None), (b"k2", b"z"))


@pytest.mark.parametrize("after", [False, True])
def test_a_pass_that_crashes_at_any_step_leaves_a_log_that_the_next_one_finishes(
    tmp_path: Path, after: bool
) -> None:
    for step in range(1, STEPS_MAX, 2 if after else 1):
        is_over = False
        directory = tmp_path / str(step)
        directory.mkdir()

        async def scenario(world: World, step: int = step) -> None:
            nonlocal is_over
            world.limits = SMALL
            await fill(world)
            steps = Steps(world, step, after=after)
            with suppress(Crash):
                await world.compact(world.compactor(store=steps))
            is_over = steps.is_over
            world.objects.before = lambda name, key: None
            await world.check_log()
            await world.compact()
            await world.check_log(is_clean=True)
            assert await world.clean_offset() == world.history[world.log][-1].offset + 1
            await world.check_objects()

        with_world(directory, scenario)
        if is_over:
            assert step > 10
            return
    raise AssertionError("it never came to an end")


class Meddling:
    """A store in front of whose n-th swap somebody else does something."""

    def __init__(self, world: World, *meddle: Callable[[], Awaitable[Any]]) -> None:
        self._store = world.store
        self._meddle = list(meddle)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def swap(self, lease: Any, change: Swap) -> SwapResult:
        if self._meddle:
            await self._meddle.pop(0)()
        return await self._store.swap(lease, change)


@pytest.mark.parametrize("limits", [SMALL, CompactionLimits()])
def test_merges_and_trims_in_between_cost_a_retry_and_nothing_else(
    tmp_path: Path, limits: CompactionLimits
) -> None:
    async def scenario(world: World) -> None:
        world.limits = limits
        await fill(world)
        [other] = await world.store.take_leases(["job/retention"], BrokerId(3))

        async def trim() -> None:
            await world.store.advance_log_starts(other, {world.log: 3})
            await world.store.trim_logs(other, [world.log], 100)

        job = world.compactor(store=Meddling(world, world.merge, trim, world.merge))
        await world.compact(job)
        await world.check_log(is_clean=True)
        assert job.counters.swaps_dropped > 0
        assert await world.clean_offset() == world.history[world.log][-1].offset + 1

    with_world(tmp_path, scenario)


def test_a_merge_across_the_end_of_what_waits_is_noticed(tmp_path: Path) -> None:
    """It comes between two looks at the index, so what waits in the output is gone, in part, before it is swapped."""

    async def scenario(world: World) -> None:
        world.limits = replace(CompactionLimits(), rows_max=4)
        # Too large to be written anew for nothing, so that the output is not full after the first four extents.
        await world.append((b"large", bytes(MIB)), (b"k", b"x"))
        await world.append((b"larger", bytes(MIB)), (b"l", b"x"))
        for number in range(10):
            await world.append((b"a", b"%d" % number), (b"k%d" % number, b"x"))
        looks = 0

        class Merging(Meddling):
            async def extents_of_log(self, *arguments: Any) -> Any:
                nonlocal looks
                looks += 1
                if looks == 8:
                    await world.merge()
                return await self._store.extents_of_log(*arguments)

        job = world.compactor(store=Merging(world))
        await world.compact(job)
        assert looks > 8
        assert len(await world.rows(world.log)) < 12
        await world.check_log(is_clean=True)
        assert await world.clean_offset() == 24

    with_world(tmp_path, scenario)


def test_a_log_that_others_keep_changing_is_left_for_later(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await fill(world)
        before = await world.clean_offset()
        lease = await world.job_lease()

        async def rewrite() -> None:
            await world.append((b"a", b"again"))
            await world.compactor().run(lease)

        limits = replace(SMALL, tries_max=2)
        job = world.compactor(store=Meddling(world, *[rewrite] * 20), limits=limits)
        await job.run(lease)
        await world.check_log()
        assert job.counters.swaps_dropped >= 2
        assert job.counters.passes_over_logs == 0
        await world.compact(world.compactor())
        assert await world.clean_offset() > before

    with_world(tmp_path, scenario)


def test_two_compactors_at_once_do_no_harm(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.limits = SMALL
        await fill(world)
        lease = await world.job_lease(1)
        one, other = world.compactor(), world.compactor()
        await asyncio.gather(one.run(lease), other.run(lease))
        await world.check_log(is_clean=True)
        await world.compact()
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


def test_who_has_lost_the_lease_changes_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await fill(world)
        old = await world.job_lease(1)
        await world.job_lease(2)
        before = await world.rows(world.log)
        with pytest.raises(LeaseLost):
            await world.compactor().run(old)
        assert await world.rows(world.log) == before

    with_world(tmp_path, scenario)


@pytest.mark.parametrize("is_done", [False, True])
def test_an_unknown_outcome_is_asked_for_again(tmp_path: Path, is_done: bool) -> None:
    async def scenario(world: World) -> None:
        await fill(world)

        async def lose() -> None:
            raise OutcomeUnknown("cut")

        class Losing(Meddling):
            async def swap(self, lease: Any, change: Swap) -> SwapResult:
                if is_done and self._meddle:
                    await self._store.swap(lease, change)
                return await super().swap(lease, change)

        job = world.compactor(store=Losing(world, lose))
        await world.compact(job)
        assert job.counters.swaps_dropped == 0
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


def test_an_output_that_the_sweep_took_for_an_orphan_is_made_anew(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await fill(world)

        async def refuse() -> None:
            raise SwapRefused("claimed")

        job = world.compactor(store=Meddling(world, refuse))
        await world.compact(job)
        await world.check_log(is_clean=True)

    with_world(tmp_path, scenario)


def test_a_store_that_is_away_puts_nothing_in_quarantine(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await fill(world)

        def away(name: str, key: str) -> None:
            raise ObjectStoreError("away")

        world.objects.before = away
        with pytest.raises(ObjectStoreError):
            await world.compact()
        world.objects.before = lambda name, key: None
        assert await world.store.quarantined(10) == []
        await world.check_log()

    with_world(tmp_path, scenario)


# ---- damage ----


async def commit_raw(world: World, batch: bytes) -> None:
    await world.commit({world.log: [batch]})


def broken_records() -> bytes:
    """A batch under a right CRC whose second record makes no sense, after a first that does."""
    record = encode_record(RawRecord(0, 0, b"a", b"from the broken batch"))
    header = Header(last_offset_delta=1, record_count=2, base_timestamp=NOW_MS, max_timestamp=NOW_MS)
    return encode_batch(header, record + b"\x0e" + bytes(6) + b"\x02")


def bomb() -> bytes:
    return build_batch([(b"a", bytes(300_000), (), NOW_MS)], codec=4)


async def quarantined(world: World) -> list[int]:
    return [each.end_offset for each in await world.store.quarantined(100)]


@pytest.mark.parametrize("kind", ["flipped", "missing", "cut"])
def test_an_extent_that_cannot_be_read_is_passed_over_and_stays(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        await world.append((b"a", b"1"), (b"b", b"1"))
        await world.append((b"a", b"2"), (b"b", None))
        await world.append((b"a", b"3"))
        await world.append((b"b", None), (b"c", b"1"))
        await world.append((b"d", b"1"))
        row = (await world.rows(world.log))[1]
        if kind == "flipped":
            world.objects.change(row.key, row.position + 62)
        elif kind == "missing":
            await world.objects.delete([row.key])
        else:
            world.objects.cut(row.key, row.position + 10)
        with caplog.at_level(logging.ERROR, "warp.jobs"):
            job = await world.compact()
        assert row.key in caplog.text
        assert job.quarantine.extents == 1
        assert await quarantined(world) == [4]
        assert row in await world.rows(world.log)
        # It superseded nothing, and the tombstone behind it was given no horizon.
        assert list(await world.seen(4)) == [4, 5, 6, 7]
        world.pass_hours(30)
        await world.append((b"e", b"1"))
        await world.compact(job)
        assert list(await world.seen(4)) == [4, 5, 6, 7, 8]
        # Nothing was left of the first extent: what came after the damaged one is newer.
        rows = await world.rows(world.log)
        assert rows[0].end_offset == 2
        assert rows[0].size_bytes == 61
        assert await world.clean_offset() == 2

    with_world(tmp_path, scenario)


@pytest.mark.parametrize("make", [broken_records, bomb])
def test_records_that_cannot_be_read_hide_nothing(tmp_path: Path, make: Callable[[], bytes]) -> None:
    async def scenario(world: World) -> None:
        world.limits = replace(CompactionLimits(), decompressed_bytes_max=200_000)
        await world.append((b"a", b"1"), (b"b", b"1"))
        await commit_raw_beside(world, make())
        await world.append((b"b", b"2"), (b"c", b"1"))
        await world.compact()
        rows = await world.rows(world.log)
        assert await quarantined(world) == [rows[1].end_offset]
        first = await world.objects.get(rows[0].key, rows[0].position, rows[0].size_bytes)
        assert b"a" in bytes(first[61:])
        assert (await world.seen(rows[1].end_offset))[rows[1].end_offset] == (b"b", b"2")

    with_world(tmp_path, scenario)


async def commit_raw_beside(world: World, data: bytes) -> None:
    """Commit a batch that the world's own bookkeeping can't read."""
    from warp._records import verify_batch
    from warp.log.segment import MAGIC, ExtentBatches, build_segment
    from warp.metadata.model import BatchEntry, SegmentCommit

    topic = world.topics[0]
    header = verify_batch(data)
    key = world.ids.segment_key()
    extent = ExtentBatches(topic.topic_id, topic.name, 0, [data], header.record_count, NOW_MS, NOW_MS)
    parts = build_segment([extent], created_ms=NOW_MS)
    await world.objects.put(key, parts)
    entry = BatchEntry(world.log, len(MAGIC), len(data), header.record_count, NOW_MS)
    await world.store.commit([SegmentCommit(key, sum(map(len, parts)), NOW_MS, [entry])], NOW_MS)


def test_what_becomes_readable_again_is_compacted_and_does_not_come_back(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.append((b"a", b"1"))
        await world.append((b"b", b"1"))
        await world.append((b"a", None), (b"b", b"2"))
        await world.append((b"c", b"1"))
        row = (await world.rows(world.log))[0]
        world.objects.change(row.key, row.position + 62)
        job = await world.compact()
        world.pass_hours(30)
        await world.append((b"d", b"1"))
        await world.compact(job)
        assert job.counters.passes_over_logs == 2
        await world.compact(job)
        assert job.counters.passes_over_logs == 2, "the same damage is no reason to compact again"
        world.objects.change(row.key, row.position + 62)
        assert await world.store.release_quarantined(await world.store.quarantined(10)) == 1
        for _ in range(3):
            await world.compact(job)
            await world.check_log(is_clean=True)
            world.pass_hours(30)
            await world.append((b"e", b"1"))
        assert b"a" not in {key for key, _ in (await world.seen()).values()}

    with_world(tmp_path, scenario)
