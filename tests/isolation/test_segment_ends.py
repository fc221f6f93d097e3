"""The ends of segments, claims of keys, quarantines, takeovers and expiry of producers, beside swaps and commits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
from tests.unit.metadata.life_support import HOLDER, merged
from tests.unit.metadata.support import NOW_MS, batch, errors, segment, sequenced
from warp.errors import ErrorCode
from warp.metadata import life_segments, swaps
from warp.metadata.group_model import LeaseLost
from warp.metadata.life_model import SwapRefused
from warp.metadata.model import CommitResult
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

NONE = ErrorCode.NONE

# Swap beside those who end segments


async def swap_and_death(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        x, y = (await world.topic(2)).logs
        rows = await filled(world, x, y, extents=1)
        key = world.ids.segment_key()
        old = rows[0].segment_id
        assert old is not None
        await world.store.swap(None, merged(world.ids.segment_key(), rows[1:]))
        lease = await leased(world)

        async def check(outcome: Outcome) -> None:
            assert swapped(outcome, "a") == {x}
            assert await tiling(world, x) == [(0, 10, key)]
            died = outcome.answers["b"]
            assert died == (1 if outcome.comes_before("a commit", "b mark_empty_dead") else 0)
            assert died + await world.store.mark_dead_among(lease, [old]) == 1
            [new] = await world.rows("select segment_id from segments where key = $1", key)
            assert await world.store.mark_dead_among(lease, new) == 0

        run = world.run(swapping(key, rows[:1]), lambda store: store.mark_dead_among(lease, [old]), check)
        return replace(run, passed_over=QUIET | {"extents_as_they_are", "insert_segments", "change_logs"})

    return await world.explore(prepare)


def test_a_segment_dies_once_its_last_extent_is_gone_and_not_before(in_world: Explored) -> None:
    outcomes = in_world(swap_and_death)
    assert {outcome.answers["b"] for outcome in outcomes} == {0, 1}
    assert not any(outcome.has_waited for outcome in outcomes), "they lock different rows"


async def swap_and_walk_of_the_dead(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        rows = await filled(world, x, extents=2)
        [(newest,)] = await world.rows("select max(segment_id) from segments")
        key = world.ids.segment_key()
        lease = await leased(world)

        async def check(outcome: Outcome) -> None:
            assert await tiling(world, x) == [(0, 20, key)]
            died, cursor = outcome.answers["b"]
            assert cursor is None
            assert died + (await world.store.mark_dead(lease, newest - 2, 10))[0] == 2

        run = world.run(swapping(key, rows), lambda store: store.mark_dead(lease, newest - 2, 10), check)
        return replace(run, passed_over=QUIET | {"live_levels", "extents_as_they_are", "change_logs"})

    return await world.explore(prepare)


def test_a_new_segment_is_never_taken_for_an_empty_one(in_world: Explored) -> None:
    outcomes = in_world(swap_and_walk_of_the_dead)
    assert {outcome.answers["b"][0] for outcome in outcomes} == {0, 2}


def test_a_segment_that_comes_before_its_extents_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = swaps._insert_segments

    async def early(session: Any, change: Any) -> list[int]:
        ids = await insert(session, change)
        # As if the segment had come in a transaction of its own.
        await session._inner.execute(life_segments.MARK_EMPTY_DEAD, [(one,) for one in ids], NOW_MS)
        return ids

    monkeypatch.setattr(swaps, "_insert_segments", early)
    is_found(in_world, swap_and_walk_of_the_dead)


async def later_part_and_death(world: World) -> list[Outcome]:
    """What the first part has brought into a segment is gone already when the second comes."""

    async def prepare() -> Run:
        x, y = (await world.topic(2)).logs
        rows = await filled(world, x, y, extents=1)
        key = world.ids.segment_key()
        later = merged(key, rows)
        later = replace(later, removed=rows[1:], added=later.added[1:], is_begun=True)
        await world.store.swap(None, merged(key, rows[:1]))
        [(new,)] = await world.rows("select segment_id from segments where key = $1", key)
        await world.store.swap(
            None, merged(world.ids.segment_key(), await world.store.extents_in_segments([new]), level=2)
        )
        lease = await leased(world)

        async def check(outcome: Outcome) -> None:
            died = outcome.answers["b"]
            assert swapped(outcome, "a") == (set() if died else {y})
            assert ((await tiling(world, y))[0][2] == key) == (not died)

        run = world.run(
            lambda store: store.swap(None, later), lambda store: store.mark_dead_among(lease, [new]), check
        )
        return replace(run, passed_over=QUIET | {"change_logs"})

    return await world.explore(prepare)


def test_a_later_part_of_a_swap_comes_before_the_death_of_its_segment_or_not_at_all(
    in_world: Explored,
) -> None:
    outcomes = in_world(later_part_and_death)
    assert {outcome.answers["b"] for outcome in outcomes} == {0, 1}
    assert any(outcome.has_waited for outcome in outcomes)


def test_later_parts_that_do_not_keep_their_segments_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = swaps.KEEP_LIVE_SEGMENTS
    unlocked = replace(kept, text=kept.text.replace("share rows of s", ""))
    monkeypatch.setattr(swaps, "KEEP_LIVE_SEGMENTS", unlocked)
    is_found(in_world, later_part_and_death)


async def swap_and_claim(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        rows = await filled(world, x, extents=2)
        key, other = world.ids.segment_key(), world.ids.segment_key()
        lease = await leased(world)

        async def check(outcome: Outcome) -> None:
            claimed = outcome.answers["b"]
            if key in claimed:
                assert isinstance(outcome.answers["a"], SwapRefused), outcome.answers["a"]
                assert [span[:2] for span in await tiling(world, x)] == [(0, 10), (10, 20)]
            else:
                assert swapped(outcome, "a") == {x}
                assert await tiling(world, x) == [(0, 20, key)]
            assert other in claimed

        run = world.run(
            swapping(key, rows), lambda store: store.claim_keys(lease, [(other, 1), (key, 1)]), check
        )
        return replace(run, passed_over=QUIET - {"segments_of_keys"})

    return await world.explore(prepare)


def test_the_key_of_a_swap_is_its_own_or_the_sweeps(in_world: Explored) -> None:
    outcomes = in_world(swap_and_claim)
    assert {len(outcome.answers["b"]) for outcome in outcomes} == {1, 2}
    assert any(outcome.has_waited for outcome in outcomes)


async def commit_and_claims(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        first, second = sorted([world.ids.segment_key(), world.ids.segment_key()])
        lease = await leased(world)
        flushed = [segment(first, batch(x)), segment(second, batch(x))]

        async def check(outcome: Outcome) -> None:
            committed, claimed = outcome.answers["a"], outcome.answers["b"]
            assert isinstance(committed, CommitResult), committed
            assert [flushed[place].key for place in committed.refused] == claimed
            assert len(await tiling(world, x)) == 2 - len(claimed)

        run = world.run(
            lambda store: store.commit(flushed, NOW_MS),
            lambda store: store.claim_keys(lease, [(second, 1), (first, 1)]),
            check,
        )
        return replace(run, passed_over=QUIET)

    return await world.explore(prepare)


def test_keys_are_committed_or_claimed_and_never_both(in_world: Explored) -> None:
    outcomes = in_world(commit_and_claims)
    assert {len(outcome.answers["b"]) for outcome in outcomes} == {0, 2}


async def swap_and_quarantine(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        rows = await filled(world, x, extents=2)
        lease = await leased(world)

        async def check(outcome: Outcome) -> None:
            found = [(row.log_id, row.end_offset) for row in await world.store.quarantined_of_log(x)]
            assert found == ([] if swapped(outcome, "a") else [(x, 20)])
            await tiling(world, x)

        run = world.run(
            swapping(world.ids.segment_key(), rows),
            lambda store: store.quarantine(lease, rows[1:], "damaged"),
            check,
        )
        return replace(run, passed_over=QUIET)

    return await world.explore(prepare)


def test_an_extent_is_swapped_or_quarantined_and_never_both(in_world: Explored) -> None:
    outcomes = in_world(swap_and_quarantine)
    assert {bool(swapped(outcome, "a")) for outcome in outcomes} == {True, False}


def test_quarantines_without_locks_are_found(in_world: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks_of_logs(monkeypatch)
    is_found(in_world, swap_and_quarantine)


# Quarantine beside the end of what is left of a deleted topic


async def quarantine_and_clear(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (topic := await world.topic()).logs
        rows = await filled(world, x, extents=1)
        lease = await leased(world)

        async def delete(store: MetadataStore) -> int:
            await store.delete_topics([topic.topic_id])
            return await store.clear_deleted_logs(lease, 10)

        async def check(_: Outcome) -> None:
            assert await world.store.quarantined(9) == []
            [segment_id] = {row.segment_id for row in rows}
            assert segment_id is not None
            assert await world.store.mark_dead_among(lease, [segment_id]) == 1

        run = world.run(lambda store: store.quarantine(lease, rows, "missing"), delete, check)
        return replace(run, passed_over=QUIET | CATALOGUE | CLEARING)

    return await world.explore(prepare)


def test_no_quarantine_outlives_a_deleted_log(in_world: Explored) -> None:
    assert len(in_world(quarantine_and_clear)) > 1


# Swap beside the takeover of its lease


async def swap_and_takeover(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        lease = await leased(world)
        change = merged(world.ids.segment_key(), await filled(world, x, extents=2))

        async def check(outcome: Outcome) -> None:
            [taken] = outcome.answers["b"]
            assert taken.epoch == lease.epoch + 1
            is_lost = isinstance(outcome.answers["a"], LeaseLost)
            assert is_lost == outcome.comes_before("b commit", "a share_leases") or outcome.has_waited
            assert len(await tiling(world, x)) == (2 if is_lost else 1)

        return world.run(
            lambda store: store.swap(lease, change),
            lambda store: store.take_leases([lease.name], HOLDER),
            check,
        )

    return await world.explore(prepare)


def test_a_swap_comes_before_the_takeover_of_its_lease_or_not_at_all(in_world: Explored) -> None:
    outcomes = in_world(swap_and_takeover)
    assert {isinstance(outcome.answers["a"], LeaseLost) for outcome in outcomes} == {True, False}


# The expiry of producers beside their commits


async def commit_and_expiry(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        await world.commit(segment(world.ids.segment_key(), sequenced(x, 0, producer=5)))
        [(last, producer)] = await world.rows(
            "select log_id, producer_id from producers order by log_id desc, producer_id desc limit 1"
        )
        lease = await leased(world)
        world.clock.seconds += 60
        again = segment(world.ids.segment_key(), sequenced(x, 1, producer=5))
        now_ms = world.clock.time_ms()

        async def check(outcome: Outcome) -> None:
            committed = outcome.answers["a"]
            assert isinstance(committed, CommitResult), committed
            state = await world.rows("select written_ms from producers where log_id = $1", x)
            if errors(committed) == [NONE]:
                assert state == [(now_ms,)], "who writes is not forgotten"
            else:
                # Forgotten before it wrote: the sequence begins too high, and the client is told to wait.
                assert (errors(committed), state) == ([ErrorCode.NOT_ENOUGH_REPLICAS], [])

        run = world.run(
            lambda store: store.commit([again], now_ms),
            lambda store: store.expire_producers(lease, (last, producer - 1), 10, now_ms),
            check,
        )
        return replace(run, passed_over=QUIET | {"lock_logs"})

    return await world.explore(prepare)


def test_a_producer_that_writes_is_not_forgotten(in_world: Explored) -> None:
    outcomes = in_world(commit_and_expiry)
    assert {tuple(errors(outcome.answers["a"])) for outcome in outcomes} == {
        (NONE,),
        (ErrorCode.NOT_ENOUGH_REPLICAS,),
    }
