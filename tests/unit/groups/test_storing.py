"""Nothing is told before it is stored; a change that can't be stored undoes itself; takeovers go on where it stood."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.groups.group_support import NO_DELAY, RANGE, REBALANCE_MS, SESSION_MS, WALL_MS, Driver
from warp.errors import ErrorCode
from warp.groups.model import (
    CheckCommit,
    CheckOffsetDelete,
    CodeAnswer,
    Delete,
    Describe,
    DescribeAnswer,
    Heartbeat,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaver,
    OffsetDeleteAnswer,
    Remove,
    Request,
    Save,
    Sync,
    SyncAnswer,
)
from warp.groups.transitions import State
from warp.metadata.group_model import StoredGroup, StoredMember

LOST = [ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE]


def held(driver: Driver) -> Driver:
    driver.holds_saves = True
    return driver


def test_generation_is_stored_before_anybody_hears_of_it() -> None:
    driver = held(Driver())
    member_id, token = driver.new_member()
    assert not driver.answers
    assert isinstance(driver.saving, Save)
    assert driver.saving.group == StoredGroup(
        group_id="g",
        protocol_type="consumer",
        generation=1,
        protocol=None,
        leader=None,
        members=(StoredMember(member_id, None, "c", "/127.0.0.1", SESSION_MS, REBALANCE_MS, RANGE, b""),),
        changed_ms=WALL_MS,
    )
    driver.save()
    assert driver.joined(token).generation == 1


def test_assignment_is_stored_before_anybody_gets_it() -> None:
    driver = Driver()
    ids = driver.completing(2)
    held(driver).advance(700)
    tokens = [driver.sync(ids[1], 2), driver.sync(ids[0], 2, {ids[0]: b"0", ids[1]: b"1"})]
    assert not driver.answers
    assert isinstance(driver.saving, Save)
    stored = driver.saving.group
    assert (stored.leader, stored.protocol, stored.changed_ms) == (ids[0], "range", WALL_MS + 700)
    assert [member.assignment for member in stored.members] == [b"0", b"1"]
    driver.save()
    assert [driver.synced(token).assignment for token in tokens] == [b"1", b"0"]


def test_generation_is_stored_without_a_leader_and_with_what_has_not_changed_as_it_was() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.join(ids[1], protocols=(("range", b"new"),))
    driver.join(ids[0])
    assert driver.stored is not None
    assert driver.stored.generation == 3
    assert (driver.stored.leader, driver.stored.protocol) == (None, None)
    assert [
        (member.member_id, member.protocols[0][1], member.assignment) for member in driver.stored.members
    ] == [
        (ids[0], b"subscribes t", ids[0].encode()),
        (ids[1], b"new", ids[1].encode()),
    ]


def test_new_id_of_a_static_member_is_stored_before_it_hears_of_it() -> None:
    driver = Driver()
    first = driver.join_at_once(instance_id="i").member_id
    driver.sync(first, 1, {first: b"all"})
    token = held(driver).join(instance_id="i")
    assert token not in driver.answers
    driver.save()
    joined = driver.joined(token)
    assert driver.stored is not None
    (member,) = driver.stored.members
    assert (member.member_id, driver.stored.leader, member.assignment) == (joined.member_id,) * 2 + (b"all",)


def test_empty_group_is_stored_with_its_generation_and_since_when_it_is_empty() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.advance(5_000)
    driver.leave(member_id)
    assert driver.stored == StoredGroup("g", "consumer", 2, None, None, (), WALL_MS + 5_000)


def test_requests_that_come_while_a_change_is_stored_wait_in_order() -> None:
    driver = Driver()
    ids = driver.completing(2)
    sync = held(driver).sync(ids[0], 2, {ids[1]: b"1"})
    waiting = [
        driver.send(Heartbeat(ids[1], None, 2)),
        driver.sync(ids[1], 2),
        driver.send(Leave((Leaver(ids[1]),))),
        driver.send(Heartbeat(ids[0], None, 2)),
    ]
    assert not driver.answers
    assert driver.group.heartbeat(ids[0], None, 2, driver.ticks_ms) is None
    driver.save()
    assert driver.synced(sync).error is ErrorCode.NONE
    assert driver.answer(waiting[0], CodeAnswer).error is ErrorCode.NONE
    assert driver.synced(waiting[1]).assignment == b"1"
    assert driver.answer(waiting[2], LeaveAnswer).members[0].error is ErrorCode.NONE
    assert driver.answer(waiting[3], CodeAnswer).error is ErrorCode.REBALANCE_IN_PROGRESS


def test_a_waiting_request_may_lead_to_the_next_change() -> None:
    driver = Driver()
    (member_id,) = driver.completing(1)
    held(driver).sync(member_id, 1, {member_id: b"all"})
    leave = driver.send(Leave((Leaver(member_id),)))
    late = driver.send(Heartbeat(member_id, None, 1))
    driver.save()
    assert isinstance(driver.saving, Save)
    assert driver.saving.group.members == ()
    assert leave not in driver.answers
    driver.save()
    assert driver.answer(leave, LeaveAnswer).members[0].error is ErrorCode.NONE
    assert driver.answer(late, CodeAnswer).error is ErrorCode.UNKNOWN_MEMBER_ID


def test_waiting_requests_are_limited() -> None:
    driver = Driver(replace(NO_DELAY, deferred_requests_max=2))
    (member_id,) = driver.completing(1)
    held(driver).sync(member_id, 1)
    tokens = [driver.send(Heartbeat(member_id, None, 1)) for _ in range(3)]
    assert driver.answer(tokens[2], CodeAnswer).error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    driver.save()
    assert driver.answer(tokens[0], CodeAnswer).error is ErrorCode.NONE


def test_nothing_is_due_while_a_change_is_stored_and_a_slow_store_costs_no_session() -> None:
    driver = Driver()
    ids = driver.stable(2)
    tokens = [driver.join(ids[1], protocols=(("range", b"new"),))]
    held(driver)
    tokens.append(driver.join(ids[0]))
    assert driver.group.wake_ms is None
    driver.advance(10 * REBALANCE_MS)
    driver.take(driver.group.tick(driver.now))
    driver.save()
    assert [driver.joined(token).generation for token in tokens] == [3, 3]
    driver.advance(SESSION_MS - 1)
    assert len(driver.group.roster) == 2
    assert driver.group.phase_due_ms == 11 * REBALANCE_MS


@pytest.mark.parametrize("error", LOST)
def test_failed_save_sends_everybody_to_find_the_coordinator(error: ErrorCode) -> None:
    driver = Driver()
    ids = driver.completing(3)
    tokens = [driver.sync(ids[1], 3)]
    tokens.append(held(driver).sync(ids[0], 3, {ids[1]: b"1"}))
    requests: list[Request] = [
        Heartbeat(ids[1], None, 3),
        Sync(ids[2], None, 3),
        CheckCommit(ids[0], None, 3),
        Leave((Leaver(ids[2]),)),
        CheckOffsetDelete(),
        Describe(),
        Delete(),
    ]
    tokens += [driver.send(request) for request in requests]
    tokens.append(driver.join(ids[2]))
    driver.fail_save(error)
    assert [driver.answers[token] for token in tokens] == [
        SyncAnswer(error),
        SyncAnswer(error),
        CodeAnswer(error),
        SyncAnswer(error),
        CodeAnswer(error),
        LeaveAnswer(error),
        OffsetDeleteAnswer(error),
        DescribeAnswer(error),
        CodeAnswer(error),
        JoinAnswer(error, ids[2]),
    ]
    assert (driver.group.is_dead, driver.group.wake_ms, len(driver.group.sessions)) == (True, None, 0)
    assert driver.heartbeat(ids[0], 3) is ErrorCode.COORDINATOR_NOT_AVAILABLE


def test_failed_save_of_a_generation_answers_all_joins_and_the_old_one_goes_on() -> None:
    driver = Driver()
    ids = driver.stable(2)
    first = driver.join(ids[0])
    second = held(driver).join(ids[1])
    driver.fail_save()
    assert driver.joined(first) == JoinAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE, ids[0])
    assert driver.joined(second) == JoinAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE, ids[1])
    driver.take_over()
    assert [driver.heartbeat(member_id, 2) for member_id in ids] == [0, 0]


def test_old_id_of_a_static_member_goes_on_when_the_new_one_cannot_be_stored() -> None:
    driver = Driver()
    first = driver.join_at_once(instance_id="i").member_id
    driver.sync(first, 1, {first: b"all"})
    driver.answers.clear()
    token = held(driver).join(instance_id="i")
    old = driver.send(Heartbeat(first, "i", 1))
    driver.fail_save(ErrorCode.NOT_COORDINATOR)
    assert driver.joined(token).error is ErrorCode.NOT_COORDINATOR
    # Nobody was told that it is fenced before that was stored.
    assert driver.answer(old, CodeAnswer).error is ErrorCode.NOT_COORDINATOR
    driver.take_over()
    assert driver.heartbeat(first, 1, "i") is ErrorCode.NONE


def test_failed_save_of_an_empty_group_brings_the_last_member_back_for_a_session() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    token = held(driver).send(Leave((Leaver(member_id),)))
    driver.fail_save()
    assert driver.answer(token, LeaveAnswer).error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    driver.holds_saves = False
    driver.take_over()
    assert driver.state() is State.STABLE
    driver.advance(SESSION_MS)
    assert driver.state() is State.EMPTY


@pytest.mark.parametrize("error", LOST)
def test_group_that_moves_away_answers_everybody_who_waits(error: ErrorCode) -> None:
    driver = Driver()
    ids = driver.stable(2)
    token = driver.join(ids[0])
    driver.take(driver.group.abandon(error))
    assert driver.joined(token) == JoinAnswer(error, ids[0])
    assert driver.group.is_dead
    assert [note.event for note in driver.notes][-1] == "lost"


def test_members_of_a_stable_group_go_on_after_a_takeover() -> None:
    driver = Driver()
    ids = driver.stable(3)
    driver.advance(SESSION_MS - 1)
    driver.take_over()
    assert (driver.state(), driver.group.generation, driver.group.leader) == (State.STABLE, 3, ids[0])
    driver.advance(SESSION_MS - 1)  # All sessions have started anew.
    assert [driver.heartbeat(member_id, 3) for member_id in ids] == [0, 0, 0]
    assert driver.synced(driver.sync(ids[1], 3)).assignment == ids[1].encode()
    assert driver.commit(ids[2], 3) is ErrorCode.NONE
    assert driver.saves[-1].generation == 3
    driver.advance(SESSION_MS - 1)
    assert driver.heartbeat(ids[0], 3) is ErrorCode.NONE
    driver.advance(1)
    assert driver.state() is State.PREPARING


def test_static_members_are_known_after_a_takeover() -> None:
    driver = Driver()
    first = driver.join_at_once(instance_id="i").member_id
    driver.sync(first, 1, {first: b"all"})
    driver.take_over()
    assert driver.heartbeat("other", 1, "i") is ErrorCode.FENCED_INSTANCE_ID
    joined = driver.join_at_once(instance_id="i")
    assert (joined.generation, joined.skip_assignment) == (1, True)


def test_members_join_again_after_a_takeover_between_join_and_assignment() -> None:
    driver = Driver()
    ids = driver.completing(2)
    driver.sync(ids[1], 2)
    driver.take_over()
    assert driver.state() is State.PREPARING
    assert driver.heartbeat(ids[0], 2) is ErrorCode.REBALANCE_IN_PROGRESS
    assert driver.ask(Describe(), DescribeAnswer).members[0].assignment == b""
    again = driver.sync(ids[1], 2, protocol="range", protocol_type="consumer")
    assert driver.synced(again).error is ErrorCode.REBALANCE_IN_PROGRESS
    tokens = [driver.join(member_id) for member_id in ids]
    answers = [driver.joined(token) for token in tokens]
    # The number that was given out is not used again.
    assert {answer.generation for answer in answers} == {3}
    assert [len(answer.members) for answer in answers] == [2, 0]


def test_takeover_between_join_and_assignment_does_not_wait_for_the_lost() -> None:
    driver = Driver()
    ids = driver.completing(2)
    driver.take_over()
    token = driver.join(ids[1])
    driver.advance(SESSION_MS)
    assert (driver.joined(token).generation, len(driver.group.roster)) == (3, 1)
    driver.take_over()
    driver.advance(SESSION_MS)
    assert (driver.state(), driver.group.generation) == (State.EMPTY, 4)


def test_join_that_was_parked_is_lost_with_its_coordinator_and_can_be_repeated() -> None:
    driver = Driver()
    (first,) = driver.stable(1)
    second, _ = driver.new_member()
    driver.take_over()
    assert driver.heartbeat(first, 1) is ErrorCode.NONE
    assert driver.join_at_once(second).error is ErrorCode.UNKNOWN_MEMBER_ID
    _, token = driver.new_member()
    driver.join(first)
    assert driver.joined(token).generation == 2


def test_empty_group_goes_on_counting_after_a_takeover() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.leave(member_id)
    driver.take_over()
    assert (driver.state(), driver.group.generation, driver.group.is_idle) == (State.EMPTY, 2, True)
    driver.stable(1)
    assert driver.group.generation == 3


def test_stored_group_whose_leader_is_missing_rebalances() -> None:
    driver = Driver()
    driver.stable(1)
    assert driver.stored is not None
    driver.stored = replace(driver.stored, leader="nobody")
    driver.take_over()
    assert driver.state() is State.PREPARING


def test_delete_of_an_empty_group_is_answered_when_it_is_done() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.leave(member_id)
    token = held(driver).send(Delete())
    late = driver.join(member_id)
    assert driver.saving == Remove("g")
    assert not driver.answers
    driver.save()
    assert driver.answer(token, CodeAnswer).error is ErrorCode.NONE
    assert driver.joined(late).error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert driver.group.is_dead


def test_delete_that_fails_says_so() -> None:
    driver = held(Driver())
    token = driver.send(Delete())
    driver.fail_save()
    assert driver.answer(token, CodeAnswer).error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert driver.group.is_dead


@pytest.mark.parametrize("state", [State.PREPARING, State.COMPLETING, State.STABLE])
def test_group_with_members_is_not_deleted(state: State) -> None:
    driver = Driver()
    ids = driver.completing(2) if state is State.COMPLETING else driver.stable(2)
    if state is State.PREPARING:
        driver.join(ids[0])
    assert driver.state() is state
    assert driver.ask(Delete(), CodeAnswer).error is ErrorCode.NON_EMPTY_GROUP


def test_list_shows_no_state_that_is_not_stored() -> None:
    driver = Driver()
    (member_id,) = driver.completing(1)
    held(driver).sync(member_id, 1)
    assert driver.group.overview().state == "CompletingRebalance"
    driver.save()
    assert driver.group.overview().state == "Stable"


def test_end_of_a_save_that_nobody_has_begun_is_a_bug() -> None:
    driver = Driver()
    with pytest.raises(RuntimeError, match="no change under way"):
        driver.group.saved(driver.now)
    with pytest.raises(RuntimeError, match="no change under way"):
        driver.group.save_failed(ErrorCode.NOT_COORDINATOR)
