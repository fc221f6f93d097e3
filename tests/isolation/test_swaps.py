"""Swaps beside each other and beside whatever else changes extents or segments: commits, deletions, sweeps.

None of them holds a lease: it is the locks that keep them right. Every scenario runs in all orders; those that lean on
a lock run once more without it, which has to be found.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.isolation.stepper import Outcome, Run
from tests.isolation.swapping import (
    CATALOGUE,
    CLEARING,
    QUIET,
    Explored,
    filled,
    is_found,
    leased,
    swapped,
    swapping,
    tiling,
    without_locks_of_logs,
)
from tests.isolation.world import World
from tests.unit.metadata.support import NOW_MS, batch, errors, offsets, segment
from warp.errors import ErrorCode
from warp.metadata.model import CommitResult
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

NONE = ErrorCode.NONE

# Swap beside swap


async def overlapping_swaps(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        x, y = (await world.topic(2)).logs
        rows = await filled(world, x, y)
        a_key, b_key = world.ids.segment_key(), world.ids.segment_key()

        async def check(outcome: Outcome) -> None:
            a, b = swapped(outcome, "a"), swapped(outcome, "b")
            assert (a, b) in (({x, y}, set()), (set(), {x, y})), "who comes first"
            for log in (x, y):
                spans = {(0, 20, a_key)} if a else {(10, 30, b_key)}
                assert spans <= set(await tiling(world, log))
            known = await world.store.known_keys([a_key, b_key])
            assert known == {a_key if a else b_key}

        parts = [rows[:2] + rows[3:5], rows[1:3] + rows[4:]]
        run = world.run(
            swapping(a_key, parts[0], shrunk_bytes=50), swapping(b_key, parts[1], shrunk_bytes=20), check
        )
        return replace(run, passed_over=QUIET)

    return await world.explore(prepare)


def test_of_two_swaps_of_the_same_rows_one_takes_effect(in_world: Explored) -> None:
    outcomes = in_world(overlapping_swaps)
    assert {bool(swapped(outcome, "a")) for outcome in outcomes} == {True, False}
    assert any(outcome.has_waited for outcome in outcomes)


def test_swaps_that_lock_no_logs_are_found(in_world: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks_of_logs(monkeypatch)
    is_found(in_world, overlapping_swaps)


async def the_same_swap(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        key = world.ids.segment_key()
        again = swapping(key, await filled(world, x), shrunk_bytes=100, clean={x: 30})

        async def check(outcome: Outcome) -> None:
            assert swapped(outcome, "a") == swapped(outcome, "b") == {x}
            assert await tiling(world, x) == [(0, 30, key)]

        return replace(world.run(again, again, check), passed_over=QUIET - {"segments_of_keys"})

    return await world.explore(prepare)


def test_a_swap_that_is_asked_for_twice_at_once_is_made_once(in_world: Explored) -> None:
    assert any(outcome.has_waited for outcome in in_world(the_same_swap))


def test_a_swap_that_looks_for_itself_before_the_lock_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks_of_logs(monkeypatch)
    is_found(in_world, the_same_swap)


# Swap beside commit


async def swap_and_commit(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        key, flushed = world.ids.segment_key(), world.ids.segment_key()
        rows = await filled(world, x, extents=2)
        grown = segment(flushed, batch(x, count=5, size=30, max_timestamp_ms=7))

        async def check(outcome: Outcome) -> None:
            committed = outcome.answers["b"]
            assert isinstance(committed, CommitResult), committed
            assert (errors(committed), offsets(committed)) == ([NONE], [20])
            assert swapped(outcome, "a") == {x}
            assert await tiling(world, x) == [(0, 20, key), (20, 25, flushed)]

        run = world.run(
            swapping(key, rows, shrunk_bytes=150), lambda store: store.commit([grown], NOW_MS), check
        )
        return replace(run, passed_over=QUIET)

    return await world.explore(prepare)


def test_a_log_grows_while_its_old_extents_are_swapped(in_world: Explored) -> None:
    outcomes = in_world(swap_and_commit)
    assert {outcome.comes_before("a commit", "b commit") for outcome in outcomes} == {True, False}


def test_sizes_that_are_read_before_a_wait_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks_of_logs(monkeypatch)
    is_found(in_world, swap_and_commit)


# Swap beside deletions


async def swap_and_trim(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        key = world.ids.segment_key()
        rows = await filled(world, x)
        lease = await leased(world)

        async def delete(store: MetadataStore) -> int:
            await store.delete_records({x: 15})
            return await store.trim_logs(lease, [x], 10)

        async def check(outcome: Outcome) -> None:
            trimmed = outcome.answers["b"]
            left = [(row.base_offset, row.end_offset, row.key) for row in rows]
            if swapped(outcome, "a"):
                assert (trimmed, await tiling(world, x)) == (0, [(0, 20, key), left[2]])
            else:
                assert (trimmed, await tiling(world, x)) == (1, left[1:])

        run = world.run(swapping(key, rows[:2], shrunk_bytes=20), delete, check)
        return replace(run, passed_over=QUIET)

    return await world.explore(prepare)


def test_what_is_trimmed_does_not_come_back_by_a_swap(in_world: Explored) -> None:
    outcomes = in_world(swap_and_trim)
    assert {outcome.answers["b"] for outcome in outcomes} == {0, 1}


def test_extents_that_come_back_are_found(in_world: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks_of_logs(monkeypatch)
    is_found(in_world, swap_and_trim)


async def trim_and_trim(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        rows = await filled(world, x)
        await world.store.delete_records({x: 25})
        lease = await leased(world)

        async def check(outcome: Outcome) -> None:
            assert sorted([outcome.answers["a"], outcome.answers["b"]]) == [0, 2]
            assert await tiling(world, x) == [(20, 30, rows[2].key)]

        async def trim(store: MetadataStore) -> int:
            return await store.trim_logs(lease, [x], 10)

        return replace(world.run(trim, trim, check), passed_over=QUIET)

    return await world.explore(prepare)


def test_two_who_trim_the_same_log_count_it_once(in_world: Explored) -> None:
    assert any(outcome.has_waited for outcome in in_world(trim_and_trim))


def test_sizes_that_shrink_twice_are_found(in_world: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks_of_logs(monkeypatch)
    is_found(in_world, trim_and_trim)


async def swap_and_delete_topic(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        gone, kept = await world.topic(), await world.topic()
        [x], [y] = gone.logs, kept.logs
        rows = await filled(world, x, y)
        key = world.ids.segment_key()
        lease = await leased(world)

        async def check(outcome: Outcome) -> None:
            is_first = outcome.comes_before("a commit", "b commit")
            assert swapped(outcome, "a") == ({x, y} if is_first else {y})
            while await world.store.clear_deleted_logs(lease, 10):
                pass
            assert await world.rows("select 1 from extents where log_id = $1", x) == []
            assert await tiling(world, y) == [(0, 30, key)]

        run = world.run(swapping(key, rows), lambda store: store.delete_topics([gone.topic_id]), check)
        return replace(run, passed_over=QUIET | CATALOGUE)

    return await world.explore(prepare)


def test_a_swap_leaves_nothing_behind_of_a_topic_that_is_deleted(in_world: Explored) -> None:
    outcomes = in_world(swap_and_delete_topic)
    assert {outcome.comes_before("a commit", "b commit") for outcome in outcomes} == {True, False}


async def swap_and_clear(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (topic := await world.topic()).logs
        rows = await filled(world, x)
        lease = await leased(world)

        async def delete(store: MetadataStore) -> int:
            await store.delete_topics([topic.topic_id])
            return await store.clear_deleted_logs(lease, 10)

        async def check(outcome: Outcome) -> None:
            assert outcome.answers["b"] == (1 if swapped(outcome, "a") else 3) + 1
            assert await world.rows("select 1 from extents where log_id = $1", x) == []

        run = world.run(swapping(world.ids.segment_key(), rows), delete, check)
        return replace(run, passed_over=QUIET | CATALOGUE | CLEARING)

    return await world.explore(prepare)


def test_no_swap_lands_after_a_deleted_log_was_cleared(in_world: Explored) -> None:
    assert len(in_world(swap_and_clear)) > 1


def test_a_swap_that_lands_after_the_clearing_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_locks_of_logs(monkeypatch)
    is_found(in_world, swap_and_clear)
