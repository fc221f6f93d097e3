"""The coordinator when things go wrong: takeovers, restarts, stores that fail, are slow or don't say what they did."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.groups.coordinator_support import (
    NONE,
    Rig,
    commit,
    heartbeat,
    join,
    joined,
    run,
    stable,
    sync,
    turns,
)
from tests.unit.groups.group_support import SESSION_MS
from warp.errors import (
    ErrorCode,
    MetadataCorrupt,
    MetadataError,
    MetadataReadOnly,
    MetadataUnavailable,
    OutcomeUnknown,
)
from warp.groups.coordinator import GroupCoordinator
from warp.groups.model import (
    Describe,
    GroupSettings,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaver,
    SyncAnswer,
)
from warp.groups.slots import CoordinatorLimits
from warp.ids import BrokerId
from warp.metadata.group_model import SLOTS, GroupTooLarge, OffsetQuery, coordinator_lease, slot_of

SESSION_S = SESSION_MS / 1000
LOADING = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
AWAY = ErrorCode.COORDINATOR_NOT_AVAILABLE
LOST = ErrorCode.NOT_COORDINATOR


# Restarts and takeovers


def test_after_a_restart_members_go_on_with_the_same_generation() -> None:
    async def test(rig: Rig) -> None:
        first = await rig.coordinator()
        members = await stable(first, count=3)
        assert await commit(first, rig, "g", 7, members) is NONE
        await first.close()
        await asyncio.sleep(3600)
        second = await rig.coordinator()
        for one in members.ids:
            assert heartbeat(second, "g", one, members.generation) is NONE
        assert await commit(second, rig, "g", 8, members) is NONE
        again = await sync(second, "g", members.ids[1], members.generation)
        assert again.assignment == members.assignments[members.ids[1]]
        # Their sessions began anew, and do end.
        await asyncio.sleep(SESSION_S + 1)
        assert second.list_groups()[0].members == 0

    run(test)


def test_members_that_do_not_come_back_after_a_restart_are_given_up() -> None:
    async def test(rig: Rig) -> None:
        first = await rig.coordinator()
        members = await stable(first, count=2)
        await first.close()
        second = await rig.coordinator()
        await asyncio.sleep(SESSION_S - 1)
        assert heartbeat(second, "g", members.ids[1], members.generation) is NONE
        await asyncio.sleep(2)
        # Now only the other one has to join again.
        assert second.list_groups()[0].members == 1
        assert heartbeat(second, "g", members.ids[0], members.generation) is ErrorCode.UNKNOWN_MEMBER_ID

    run(test)


def test_a_restart_between_join_and_assignment_calls_the_members_to_join_again() -> None:
    async def test(rig: Rig) -> None:
        first = await rig.coordinator()
        members = await joined(first, count=2)
        await first.close()
        second = await rig.coordinator()
        for one in members.ids:
            assert heartbeat(second, "g", one, members.generation) is ErrorCode.REBALANCE_IN_PROGRESS
        answers = await asyncio.gather(*(join(second, "g", one) for one in members.ids))
        assert [answer.generation for answer in answers] == [members.generation + 1] * 2

    run(test)


async def fetched(coordinator: GroupCoordinator) -> list[int]:
    """What is committed of the group."""
    [rows] = await coordinator.fetch_offsets([OffsetQuery("g", None)])
    assert not isinstance(rows, ErrorCode), rows
    return [row.offset for row in rows]


def test_who_has_lost_a_slot_writes_nothing_and_sends_everybody_away() -> None:
    async def test(rig: Rig) -> None:
        old = await rig.coordinator(1)
        members = await stable(old, count=2)
        assert await commit(old, rig, "g", 7, members) is NONE
        new = await rig.coordinator(2)
        assert heartbeat(new, "g", members.ids[0], members.generation) is NONE
        # The old one does not know yet. Its next write tells it.
        assert await commit(old, rig, "g", 5, members) is LOST
        assert await rig.offset("g") == 7
        assert heartbeat(old, "g", members.ids[0], members.generation) is LOST
        assert (await join(old, "g")).error is LOST
        assert await fetched(old) == [7], "they are in the store, and anybody may tell"
        assert await old.delete_offsets("g", [("t", 0)]) is LOST
        assert await old.delete_groups(["g"]) == {"g": LOST}
        assert not old.coordinates("g")
        assert await commit(new, rig, "g", 9, members) is NONE

    run(test)


def test_who_finds_a_lease_lost_when_it_stores_a_group_serves_the_slot_no_more() -> None:
    async def test(rig: Rig) -> None:
        old = await rig.coordinator(1)
        members = await stable(old, count=2)
        new = await rig.coordinator(2)
        answers = await asyncio.gather(*(join(old, "g", one) for one in members.ids))
        assert [answer.error for answer in answers] == [LOST, LOST]
        for one in members.ids:
            assert heartbeat(old, "g", one, members.generation) is LOST
            assert heartbeat(new, "g", one, members.generation) is NONE

    run(test)


def test_who_waits_at_a_coordinator_that_lost_its_slot_is_told() -> None:
    async def test(rig: Rig) -> None:
        old = await rig.coordinator(1, GroupSettings(initial_rebalance_delay_ms=5_000))
        member_id = (await join(old, "g")).member_id
        parked = join(old, "g", member_id)
        await rig.coordinator(2)
        await asyncio.sleep(6)
        # The end of the join phase could not be stored.
        assert (await parked) == JoinAnswer(LOST, member_id)
        assert await rig.stored("g") is None

    run(test)


def test_two_coordinators_do_not_take_a_slot_from_each_other_in_turns() -> None:
    async def test(rig: Rig) -> None:
        old = await rig.coordinator(1)
        new = await rig.coordinator(2)
        epochs = await rig.store.read_leases([coordinator_lease(slot_of("g"))])
        assert await commit(old, rig, "g", 1) is LOST
        await asyncio.sleep(120)
        assert await rig.store.read_leases(list(epochs)) == epochs
        assert await commit(old, rig, "g", 1) is LOST
        assert await commit(new, rig, "g", 2) is NONE
        # Once nobody has it any more, it is taken.
        assert await new.drain(1.0)
        await asyncio.sleep(CoordinatorLimits().retake_s + 1)
        assert await commit(old, rig, "g", 3) is NONE

    run(test)


def test_a_released_lease_is_taken_again() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        held = await rig.store.leases_held(BrokerId(1))
        await rig.store.release_leases(held)
        assert await commit(coordinator, rig, "g", 1, members) is LOST
        await asyncio.sleep(1)
        assert heartbeat(coordinator, "g", members.ids[0], members.generation) is NONE
        assert await commit(coordinator, rig, "g", 1, members) is NONE

    run(test)


# Loading


def test_while_groups_are_loaded_nobody_is_thrown_out() -> None:
    async def test(rig: Rig) -> None:
        first = await rig.coordinator()
        members = await stable(first, count=2)
        await commit(first, rig, "g", 7, members)
        await first.close()
        rig.store.hold("load_groups")
        second = await rig.coordinator()
        assert [second.is_loading] == [True]
        assert second.coordinates("g")
        leader = members.ids[0]
        assert heartbeat(second, "g", leader, members.generation) is NONE
        assert second.heartbeat("g", leader, None, members.generation) is None
        assert (await join(second, "g", leader)).error is LOADING
        assert (await sync(second, "g", leader, 1)) == SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)
        assert (await second.request("g", Leave((Leaver(leader),)))) == LeaveAnswer(LOADING)
        assert (await second.request("g", Describe())).error is LOADING
        assert await commit(second, rig, "g", 8, members) is LOADING
        assert await fetched(second) == [7], "for that no group has to be loaded"
        assert await second.delete_offsets("g", [("t", 0)]) is LOADING
        assert second.list_groups() == []
        rig.store.release("load_groups")
        await asyncio.sleep(1)
        assert not second.is_loading
        assert heartbeat(second, "g", leader, members.generation) is NONE
        assert await rig.offset("g") == 7

    run(test)


def test_a_start_waits_for_the_groups_only_so_long() -> None:
    async def test(rig: Rig) -> None:
        rig.store.hold("load_groups")
        began_s = rig.loop.time()
        await rig.coordinator(limits=CoordinatorLimits(open_wait_s=0.3))
        assert rig.loop.time() - began_s == pytest.approx(0.3)
        rig.store.release("load_groups")

    run(test)


def test_a_slot_that_can_not_be_read_keeps_no_other_from_being_served() -> None:
    async def test(rig: Rig) -> None:
        # The first slot that is read is damaged, for some time.
        rig.store.faults["load_groups"] = [MetadataCorrupt("a member can't be read")]
        coordinator = await rig.coordinator(limits=CoordinatorLimits(open_wait_s=0.0))
        await turns(1000)
        assert rig.store.count("load_groups") == SLOTS
        unread = next(f"g{n}" for n in range(1000) if slot_of(f"g{n}") == 0)
        other = next(f"g{n}" for n in range(1000) if slot_of(f"g{n}") == 1)
        assert (await join(coordinator, unread)).error is AWAY
        assert (await join(coordinator, other)).error is ErrorCode.MEMBER_ID_REQUIRED
        await asyncio.sleep(1)
        assert (await join(coordinator, unread)).error is ErrorCode.MEMBER_ID_REQUIRED

    run(test)


def test_a_store_that_is_away_at_the_start_is_asked_again() -> None:
    async def test(rig: Rig) -> None:
        rig.store.faults["load_groups"] = [MetadataUnavailable("away")] * 5
        coordinator = await rig.coordinator()
        await asyncio.sleep(10)
        assert not coordinator.is_loading
        assert rig.store.count("load_groups") == SLOTS + 5

    run(test)


# Stores that fail


@pytest.mark.parametrize("error", [MetadataUnavailable("away"), MetadataReadOnly("no rights")])
def test_a_change_that_was_not_stored_never_happened(error: MetadataError) -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=2)
        before = await rig.stored("g")
        rig.store.faults["save_groups"] = [error]
        newcomer = (await join(coordinator, "g")).member_id
        answers = await asyncio.gather(*(join(coordinator, "g", one) for one in [newcomer, *members.ids]))
        assert {answer.error for answer in answers} == {AWAY}
        assert await rig.stored("g") == before
        # The members go on as if nothing had been.
        for one in members.ids:
            assert heartbeat(coordinator, "g", one, members.generation) is NONE
        assert heartbeat(coordinator, "g", newcomer, -1) is ErrorCode.UNKNOWN_MEMBER_ID
        assert rig.store.count("take_leases") == 1

    run(test)


def test_a_change_that_the_store_never_takes_fails_alone() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.hold("save_groups")
        blocked = asyncio.ensure_future(joined(coordinator, "first"))
        await asyncio.sleep(0.1)
        ids = {name: (await join(coordinator, name)).member_id for name in ("a", "b", "c")}
        waiting = [join(coordinator, name, member_id) for name, member_id in ids.items()]
        await asyncio.sleep(0.1)
        # The first goes through; then the three together, and each alone, of which the second fails.
        too_large = GroupTooLarge("too large")
        rig.store.faults["save_groups"] = [None, too_large, None, too_large, None]
        rig.store.release("save_groups")
        await blocked
        answers = [(await answer).error for answer in waiting]
        assert answers == [NONE, ErrorCode.UNKNOWN_SERVER_ERROR, NONE]
        assert rig.store.count("save_groups") == 5

    run(test)


def test_a_bug_in_storing_one_group_is_answered_and_others_go_on() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        others = await stable(coordinator, "other")
        rig.store.faults["save_groups"] = [RuntimeError("a bug")]
        member_id = (await join(coordinator, "g")).member_id
        assert (await join(coordinator, "g", member_id)).error is ErrorCode.UNKNOWN_SERVER_ERROR
        assert heartbeat(coordinator, "other", others.ids[0], others.generation) is NONE
        assert (await stable(coordinator, "g")).generation == 1

    run(test)


@pytest.mark.parametrize("is_done", [True, False])
def test_an_unknown_outcome_is_settled_by_storing_again(is_done: bool) -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        faults = rig.store.late_faults if is_done else rig.store.faults
        faults["save_groups"] = [OutcomeUnknown("lost"), OutcomeUnknown("lost")]
        members = await stable(coordinator)
        stored = await rig.stored("g")
        assert stored is not None
        assert stored.generation == members.generation == 1

    run(test)


@pytest.mark.parametrize("is_done", [True, False])
def test_where_the_outcome_stays_unknown_the_slot_is_read_anew(is_done: bool) -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        [before] = (await rig.store.read_leases([coordinator_lease(slot_of("g"))])).values()
        faults = rig.store.late_faults if is_done else rig.store.faults
        faults["save_groups"] = [OutcomeUnknown("lost")] * 3
        answer = await coordinator.request("g", Leave((Leaver(members.ids[0]),)))
        assert answer.error is AWAY
        await asyncio.sleep(1)
        [after] = (await rig.store.read_leases([coordinator_lease(slot_of("g"))])).values()
        assert after.epoch == before.epoch + 1
        expected = ErrorCode.UNKNOWN_MEMBER_ID if is_done else NONE
        assert heartbeat(coordinator, "g", members.ids[0], members.generation) is expected

    run(test)


def test_a_store_that_is_away_after_an_unknown_outcome_has_not_settled_it() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        rig.store.late_faults["save_groups"] = [OutcomeUnknown("lost")]
        rig.store.faults["save_groups"] = [None, MetadataUnavailable("away")]
        answer = await coordinator.request("g", Leave((Leaver(members.ids[0]),)))
        assert answer.error is AWAY
        await asyncio.sleep(1)
        stored = await rig.stored("g")
        assert stored is not None
        assert not stored.members
        assert heartbeat(coordinator, "g", members.ids[0], members.generation) is ErrorCode.UNKNOWN_MEMBER_ID

    run(test)


def test_taking_a_slot_anew_may_have_happened_without_an_answer() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator)
        rig.store.faults["save_groups"] = [OutcomeUnknown("lost")] * 3
        rig.store.late_faults["take_leases_as_seen"] = [OutcomeUnknown("lost")] * 2
        await coordinator.request("g", Leave((Leaver(members.ids[0]),)))
        await asyncio.sleep(2)
        assert heartbeat(coordinator, "g", members.ids[0], members.generation) is NONE
        assert await commit(coordinator, rig, "g", 1, members) is NONE

    run(test)


def test_while_the_store_is_away_everybody_gets_an_answer_and_then_things_go_on() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=2)
        away = MetadataUnavailable("away")
        for name in ("save_groups", "commit_offsets", "fetch_offsets", "delete_groups", "delete_offsets"):
            rig.store.faults[name] = [away]
        assert await commit(coordinator, rig, "g", 1, members) is AWAY
        assert await coordinator.fetch_offsets([OffsetQuery("g", None)]) == [LOADING]
        assert await coordinator.delete_offsets("g", [("t", 0)]) == [ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC]
        assert heartbeat(coordinator, "g", members.ids[0], members.generation) is NONE
        assert await commit(coordinator, rig, "simple", 1) is NONE
        assert await coordinator.delete_offsets("simple", [("t", 0)]) is AWAY
        assert await coordinator.delete_groups(["simple"]) == {"simple": AWAY}
        assert await coordinator.delete_groups(["simple"]) == {"simple": NONE}
        assert await commit(coordinator, rig, "g", 1, members) is NONE

    run(test)


def test_a_commit_without_a_clear_answer_makes_a_group_that_is_found_later() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        rig.store.late_faults["commit_offsets"] = [OutcomeUnknown("lost")] * 3
        assert await commit(coordinator, rig, "g", 1) is AWAY
        assert coordinator.list_groups() == []
        await coordinator.upkeep.run_once()
        assert [group.group_id for group in coordinator.list_groups()] == ["g"]
        # And one that was not made is not.
        rig.store.faults["commit_offsets"] = [OutcomeUnknown("lost")] * 3
        assert await commit(coordinator, rig, "h", 1) is AWAY
        await coordinator.upkeep.run_once()
        assert [group.group_id for group in coordinator.list_groups()] == ["g"]

    run(test)


def test_a_slow_store_loses_no_member() -> None:
    async def test(rig: Rig) -> None:
        coordinator = await rig.coordinator()
        members = await stable(coordinator, count=2)
        rig.store.delay_s = 3 * SESSION_S
        newcomer = (await join(coordinator, "g")).member_id
        answers = await asyncio.gather(*(join(coordinator, "g", one) for one in [newcomer, *members.ids]))
        assert {answer.error for answer in answers} == {NONE}
        assert coordinator.list_groups()[0].members == 3

    run(test)
