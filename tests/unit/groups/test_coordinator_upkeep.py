"""What the coordinator does from time to time, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.groups.coordinator_support import (
    NONE,
    SHORT_DELAY,
    Rig,
    commit,
    heartbeat,
    join,
    joined,
    leave,
    run,
    stable,
    turns,
)
from tests.unit.groups.group_support import SESSION_MS
from warp.errors import (
    ErrorCode,
    MetadataUnavailable,
    OutcomeUnknown,
)
from warp.groups.lag import AGE_MAX_S, READ_MAX_S, GroupLags
from warp.groups.model import (
    CheckCommit,
    CodeAnswer,
    GroupSettings,
    Heartbeat,
)
from warp.groups.offset_expiry import ExpiryLimits
from warp.groups.upkeep import UpkeepSettings
from warp.ids import BrokerId

SESSION_S = SESSION_MS / 1000
LOADING = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
AWAY = ErrorCode.COORDINATOR_NOT_AVAILABLE
LOST = ErrorCode.NOT_COORDINATOR


# Upkeep


def test_empty_groups_without_offsets_go_and_come_back_as_new_ones() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, "g")
        await leave(coordinator, "g", members.ids[0])
        busy = await stable(coordinator, "busy")
        assert await commit(coordinator, rig, "kept", 1) is NONE
        await coordinator.upkeep.run_once()
        assert [group.group_id for group in coordinator.list_groups()] == ["busy", "kept"]
        assert await rig.stored("g") is None
        assert heartbeat(coordinator, "busy", busy.ids[0], busy.generation) is NONE
        assert (await stable(coordinator, "g")).generation == 1

    run(test)


def test_a_group_that_is_being_removed_for_want_of_offsets_takes_nobody_in() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, "g")
        await leave(coordinator, "g", members.ids[0])
        rig.store.hold("delete_groups_without_offsets")
        upkeep = asyncio.ensure_future(coordinator.upkeep.run_once())
        await turns(100)
        assert (await join(coordinator, "g")).error is LOADING
        assert await commit(coordinator, rig, "g", 1) is LOADING
        rig.store.release("delete_groups_without_offsets")
        await upkeep
        assert await commit(coordinator, rig, "g", 1) is NONE
        assert await rig.offset("g") == 1

    run(test)


def test_offsets_go_when_their_time_has_come_and_their_group_with_them() -> None:
    async def test(rig: Rig) -> None:
        hour_ms = 3_600_000
        upkeep = UpkeepSettings(
            retention_ms=hour_ms, interval_s=600, steps=ExpiryLimits(groups_max=2, rows_max=2)
        )
        coordinator = await rig.coordinator(upkeep=upkeep)
        for n in range(5):
            assert await commit(coordinator, rig, f"g{n}", n) is NONE
        await asyncio.sleep(1800)
        assert await commit(coordinator, rig, "g0", 7) is NONE
        await asyncio.sleep(1800 + 601)
        assert [group.group_id for group in coordinator.list_groups()] == ["g0"]
        assert await rig.offset("g0") == 7
        await asyncio.sleep(1800)
        assert coordinator.list_groups() == []

    run(test)


def test_a_clock_that_is_far_off_expires_no_offsets() -> None:
    async def test(rig: Rig) -> None:
        is_trusted = False
        settings = UpkeepSettings(retention_ms=60_000, is_clock_trusted=lambda: is_trusted)
        coordinator = await rig.coordinator(upkeep=settings)
        assert await commit(coordinator, rig, "g", 1) is NONE
        await asyncio.sleep(61)
        await coordinator.upkeep.run_once()
        assert [group.group_id for group in coordinator.list_groups()] == ["g"]
        is_trusted = True
        await coordinator.upkeep.run_once()
        assert coordinator.list_groups() == []

    run(test)


@pytest.mark.parametrize(
    "operation", ["expire_offsets", "remove_orphan_offsets", "delete_groups_without_offsets", "load_groups"]
)
@pytest.mark.parametrize(
    "error", [MetadataUnavailable("away"), OutcomeUnknown("lost"), RuntimeError("a bug")]
)
def test_upkeep_that_fails_is_done_by_the_next_pass(operation: str, error: Exception) -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(upkeep=UpkeepSettings(interval_s=600))
        rig.store.late_faults["commit_offsets"] = [OutcomeUnknown("lost")] * 3
        assert await commit(coordinator, rig, "unsure", 1) is AWAY
        members = await stable(coordinator, "g")
        await leave(coordinator, "g", members.ids[0])
        rig.store.faults[operation] = [error]
        await asyncio.sleep(601)
        assert rig.store.faults[operation] == []
        await asyncio.sleep(601)
        assert [group.group_id for group in coordinator.list_groups()] == ["unsure"]
        assert await rig.stored("g") is None

    run(test)


def test_upkeep_of_who_has_lost_its_slots_removes_nothing() -> None:
    async def test(rig: Rig) -> None:
        old = await rig.coordinator(1, upkeep=UpkeepSettings(retention_ms=1, interval_s=600))
        assert await commit(old, rig, "g", 1) is NONE
        members = await stable(old, "h")
        await leave(old, "h", members.ids[0])
        await rig.coordinator(2, upkeep=UpkeepSettings(interval_s=1e6))
        await asyncio.sleep(601)
        assert await rig.offset("g") == 1
        assert await rig.stored("h") is not None
        assert old.list_groups() == []

    run(test)


# The end


def test_at_the_end_everybody_is_sent_away_and_commits_are_finished() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(settings=GroupSettings(initial_rebalance_delay_ms=5_000))
        member_id = (await join(coordinator, "g")).member_id
        parked = join(coordinator, "g", member_id)
        rig.store.hold("commit_offsets")
        committing = asyncio.ensure_future(commit(coordinator, rig, "simple", 7))
        await turns()
        coordinator.stop_waiting()
        assert (await parked).error is LOST
        assert (await join(coordinator, "g")).error is LOST
        assert await commit(coordinator, rig, "simple", 8) is LOST
        draining = asyncio.ensure_future(coordinator.drain(5.0))
        await turns()
        rig.store.release("commit_offsets")
        assert await draining
        assert await committing is NONE
        assert await rig.offset("simple") == 7
        assert await rig.store.leases_held(BrokerId(1)) == []

    run(test)


def test_a_drain_ends_in_time_though_the_store_hangs() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.hold("commit_offsets")
        rig.store.hold("save_groups")
        committing = asyncio.ensure_future(commit(coordinator, rig, "simple", 7))
        member_id = (await join(coordinator, "g")).member_id
        waiting = join(coordinator, "g", member_id)
        await asyncio.sleep(0.1)
        began_s = rig.loop.time()
        assert not await coordinator.drain(2.0)
        assert rig.loop.time() - began_s == pytest.approx(2.0, abs=0.2)
        assert (await waiting).error is LOST
        await coordinator.close()
        assert await committing is AWAY

    run(test)


def test_what_is_asked_after_the_end_is_answered() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator(settings=SHORT_DELAY)
        members = await stable(coordinator)
        await coordinator.close()
        await coordinator.close()
        answer = await coordinator.request("g", Heartbeat(members.ids[0], None, members.generation))
        assert answer == CodeAnswer(LOST)
        rows = [rig.row("g", 1)]
        assert await coordinator.commit_offsets("g", CheckCommit("", None, -1), rows) == [LOST]
        assert not coordinator.coordinates("g")

    run(test)


# What is shown


def test_groups_are_counted_by_state() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        await stable(coordinator, "a", 3)
        members = await stable(coordinator, "b", 2)
        await leave(coordinator, "b", *members.ids)
        assert await commit(coordinator, rig, "simple", 1) is NONE
        await join(coordinator, "new")
        await joined(coordinator, "half")
        states, count = coordinator.census()
        assert dict(+states) == {"Stable": 1, "Empty": 3, "CompletingRebalance": 1}
        assert count == 4
        assert coordinator.some_groups(3) == (["a", "half", "new"], False)
        assert sorted(coordinator.some_groups(5)[0]) == ["a", "b", "half", "new", "simple"]
        assert coordinator.some_groups(5)[1]
        assert not coordinator.some_groups(4)[1]
        assert {"rebalance", "generation", "assigned", "member added"} <= set(rig.events.events)

    run(test)


def test_lags_are_read_when_somebody_asks_and_no_more_of_them_than_allowed() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        for group_id in ("a", "b", "c"):
            assert await commit(coordinator, rig, group_id, 5) is NONE
        lags = GroupLags(rig.store, rig.clock, coordinator.some_groups, 2)
        await lags.refresh()
        assert len(lags.rows) == 2
        assert {(row.topic, row.partition, row.lag) for row in lags.rows} == {("t", 0, 0)}
        # Whoever asks soon after sees the same.
        await lags.refresh()
        assert rig.store.count("offset_lags") == 1
        await asyncio.sleep(AGE_MAX_S)
        rig.store.faults["offset_lags"] = [MetadataUnavailable("away")]
        await lags.refresh()
        assert not lags.rows
        await asyncio.sleep(AGE_MAX_S)
        rig.store.hold("offset_lags")
        began_s = rig.loop.time()
        await lags.refresh()
        assert rig.loop.time() - began_s == pytest.approx(READ_MAX_S)
        rig.store.release("offset_lags")

    run(test)


def test_lags_can_be_turned_off() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        assert await commit(coordinator, rig, "a", 5) is NONE
        await GroupLags(rig.store, rig.clock, coordinator.some_groups, 0).refresh()
        assert rig.store.count("offset_lags") == 0

    run(test)
