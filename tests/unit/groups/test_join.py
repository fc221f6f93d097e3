"""JoinGroup: ids, the join phase and its times, leader and protocol, and whom it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.groups.group_support import NO_DELAY, REBALANCE_MS, SESSION_MS, Driver, joining
from warp.errors import ErrorCode
from warp.groups.model import GroupSettings, JoinAnswer, JoinedMember
from warp.groups.transitions import State

OTHER = (("range", b"subscribes u"),)


def test_new_member_is_given_an_id_that_it_has_to_use() -> None:
    driver = Driver()
    answer = driver.join_at_once(client_id="app")
    assert answer == JoinAnswer(ErrorCode.MEMBER_ID_REQUIRED, "app-id1")
    assert driver.state() is State.EMPTY
    joined = driver.join_at_once("app-id1", client_id="app")
    assert joined == JoinAnswer(
        ErrorCode.NONE,
        "app-id1",
        generation=1,
        protocol_type="consumer",
        protocol="range",
        leader="app-id1",
        members=(JoinedMember("app-id1", None, b"subscribes t"),),
    )
    assert driver.state() is State.COMPLETING


def test_client_that_knows_no_required_ids_is_in_at_once() -> None:
    driver = Driver()
    joined = driver.join_at_once(id_required=False)
    assert (joined.error, joined.member_id, joined.generation) == (ErrorCode.NONE, "c-id1", 1)


def test_static_member_is_in_at_once_under_its_instance_id() -> None:
    joined = Driver().join_at_once(instance_id="i1")
    assert (joined.error, joined.member_id) == (ErrorCode.NONE, "i1-id1")
    assert joined.members == (JoinedMember("i1-id1", "i1", b"subscribes t"),)


def test_id_that_is_not_used_within_the_session_is_forgotten() -> None:
    driver = Driver()
    member_id = driver.join_at_once().member_id
    driver.advance(SESSION_MS - 1)
    assert member_id in driver.group.sessions
    driver.advance(1)
    assert driver.group.wake_ms is None
    assert driver.group.is_idle
    assert driver.join_at_once(member_id) == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, member_id)


def test_pending_id_holds_up_the_end_of_the_join_phase() -> None:
    driver = Driver()
    first, *_ = driver.stable(1)
    pending = driver.join_at_once().member_id
    token = driver.join(first)
    assert driver.state() is State.PREPARING
    second = driver.join(pending)
    assert driver.joined(token).generation == 2
    assert driver.joined(second).generation == 2


def test_join_phase_goes_on_once_a_pending_id_has_expired() -> None:
    driver = Driver()
    first, *_ = driver.stable(1)
    driver.join_at_once(session_timeout_ms=SESSION_MS)
    token = driver.join(first)
    driver.advance(SESSION_MS)
    assert driver.joined(token).generation == 2


def test_pending_id_with_an_instance_id_is_unknown() -> None:
    driver = Driver()
    member_id = driver.join_at_once().member_id
    assert driver.join_at_once(member_id, instance_id="i1").error is ErrorCode.UNKNOWN_MEMBER_ID


def test_first_member_waits_for_company_and_longer_while_some_comes() -> None:
    driver = Driver(GroupSettings(initial_rebalance_delay_ms=3_000))
    _, first = driver.new_member()
    driver.advance(2_000)
    _, second = driver.new_member()
    driver.advance(1_000)  # Somebody has come in the first three seconds: three more.
    assert driver.state() is State.PREPARING
    driver.advance(2_999)
    assert not driver.answers
    driver.advance(1)
    assert driver.joined(first).generation == driver.joined(second).generation == 1
    assert driver.state() is State.COMPLETING


def test_wait_for_company_ends_with_the_rebalance_timeout() -> None:
    driver = Driver(GroupSettings(initial_rebalance_delay_ms=3_000))
    _, first = driver.new_member(rebalance_timeout_ms=10_000)
    for _ in range(9):
        driver.advance(1_000)
        driver.new_member()
    driver.advance(999)
    assert first not in driver.answers
    driver.advance(1)
    assert driver.joined(first).generation == 1
    assert driver.ticks_ms == 10_000


def test_group_whose_only_member_leaves_while_it_waits_for_company_becomes_empty() -> None:
    driver = Driver(GroupSettings(initial_rebalance_delay_ms=3_000))
    member_id, token = driver.new_member()
    driver.leave(member_id)
    assert driver.joined(token).error is ErrorCode.UNKNOWN_MEMBER_ID
    driver.advance(3_000)
    assert (driver.state(), driver.group.generation) == (State.EMPTY, 1)
    assert driver.group.wake_ms is None


def test_rebalance_ends_when_all_members_have_joined_again() -> None:
    driver = Driver()
    ids = driver.stable(3)
    _, newcomer = driver.new_member()
    tokens = [driver.join(member_id) for member_id in ids]
    answers = [driver.joined(token) for token in (*tokens, newcomer)]
    assert {answer.generation for answer in answers} == {driver.group.generation}
    assert {answer.leader for answer in answers} == {ids[0]}
    assert [len(answer.members) for answer in answers] == [4, 0, 0, 0]


def test_members_that_do_not_join_again_in_time_are_out() -> None:
    driver = Driver()
    ids = driver.stable(3, session_timeout_ms=5 * REBALANCE_MS)
    token = driver.join(ids[1], session_timeout_ms=5 * REBALANCE_MS, protocols=OTHER)
    driver.advance(REBALANCE_MS - 1)
    assert not driver.answers
    driver.advance(1)
    joined = driver.joined(token)
    assert (joined.leader, len(joined.members)) == (ids[1], 1)
    assert driver.heartbeat(ids[0], joined.generation) is ErrorCode.UNKNOWN_MEMBER_ID


def test_rebalance_timeout_is_the_largest_of_all_members() -> None:
    driver = Driver()
    slow, _ = driver.new_member(rebalance_timeout_ms=90_000, session_timeout_ms=200_000)
    driver.answers.clear()
    _, second = driver.new_member(rebalance_timeout_ms=20_000)
    driver.advance(89_999)
    assert second not in driver.answers
    driver.advance(1)
    assert driver.joined(second).generation == 2
    assert slow not in driver.group.roster


def test_rebalance_timeout_that_is_not_given_is_the_session_timeout() -> None:
    driver = Driver()
    driver.stable(1, rebalance_timeout_ms=-1)
    _, token = driver.new_member(rebalance_timeout_ms=-1, session_timeout_ms=SESSION_MS)
    driver.advance(SESSION_MS)
    assert driver.joined(token).generation == 2


def test_parked_members_do_not_time_out() -> None:
    driver = Driver()
    ids = driver.stable(2, session_timeout_ms=6_000)
    token = driver.join(ids[0], session_timeout_ms=6_000)
    while driver.ticks_ms < REBALANCE_MS - 1_000:
        driver.advance(1_000)
        assert driver.heartbeat(ids[1], 2) is ErrorCode.REBALANCE_IN_PROGRESS
    driver.join(ids[1], session_timeout_ms=6_000)
    assert driver.joined(token).error is ErrorCode.NONE
    assert len(driver.group.roster) == 2


def test_new_member_that_waits_for_too_long_is_dropped() -> None:
    driver = Driver(replace(NO_DELAY, new_member_wait_max_ms=20_000))
    (first,) = driver.stable(1)
    _, token = driver.new_member()
    for _ in range(4):
        driver.advance(5_000)
        driver.heartbeat(first, 1)
    assert driver.joined(token).error is ErrorCode.UNKNOWN_MEMBER_ID
    assert len(driver.group.roster) == 1


def test_leader_keeps_its_office_while_it_is_there() -> None:
    driver = Driver()
    ids = driver.stable(3)
    tokens = [driver.join(member_id, protocols=OTHER) for member_id in reversed(ids)]
    assert {driver.joined(token).leader for token in tokens} == {ids[0]}


def test_first_of_those_that_have_joined_succeeds_a_leader_that_left() -> None:
    driver = Driver()
    ids = driver.stable(3)
    driver.leave(ids[0])
    tokens = [driver.join(member_id) for member_id in ids[1:]]
    answers = [driver.joined(token) for token in tokens]
    leader = answers[0].leader
    assert leader in ids[1:]
    assert sum(bool(answer.members) for answer in answers) == 1
    assert {answer.leader for answer in answers} == {leader}


def test_protocol_with_most_votes_of_those_that_all_support_is_chosen() -> None:
    driver = Driver(GroupSettings(initial_rebalance_delay_ms=1_000))
    lists = [("a", "b", "c"), ("b", "c", "a"), ("x", "b", "a"), ("y", "a", "b")]
    tokens = [
        driver.new_member(protocols=tuple((name, name.encode()) for name in names))[1] for names in lists
    ]
    driver.advance(2_000)
    answers = [driver.joined(token) for token in tokens]
    # `a` and `b` have two votes each; `a` was voted for first.
    assert {answer.protocol for answer in answers} == {"a"}
    assert [member.metadata for member in answers[0].members] == [b"a"] * 4


def test_join_of_a_member_with_nothing_in_common_is_refused() -> None:
    driver = Driver()
    driver.stable(1)
    inconsistent = JoinAnswer(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, "")
    assert driver.join_at_once(protocols=(("sticky", b""),)) == inconsistent
    assert driver.join_at_once(protocol_type="connect") == inconsistent
    assert driver.state() is State.STABLE


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol_type": ""},
        {"protocols": ()},
        {"protocols": (("a", b""), ("a", b""))},
        {"protocols": (("a\0", b""),)},
        {"protocol_type": "x" * 250},
        {"protocols": tuple((f"p{number}", b"") for number in range(101))},
    ],
)
def test_bad_protocol_is_refused_in_an_empty_group_too(fields: dict[str, Any]) -> None:
    driver = Driver()
    assert driver.join_at_once(**fields).error is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    assert driver.group.is_idle


def test_empty_group_takes_another_protocol_type() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.leave(member_id)
    assert driver.state() is State.EMPTY
    driver.stable(1, protocol_type="sr", protocols=(("v0", b"{}"),))
    assert driver.group.overview().protocol_type == "sr"


@pytest.mark.parametrize("session_timeout_ms", [0, -1, 5_999, 1_800_001, 2**31 - 1])
def test_session_timeout_out_of_bounds_is_refused(session_timeout_ms: int) -> None:
    driver = Driver()
    answer = driver.join_at_once(session_timeout_ms=session_timeout_ms)
    assert answer == JoinAnswer(ErrorCode.INVALID_SESSION_TIMEOUT, "")


@pytest.mark.parametrize("session_timeout_ms", [6_000, 1_800_000])
def test_session_timeout_at_the_bounds_is_taken(session_timeout_ms: int) -> None:
    assert Driver().join_at_once(session_timeout_ms=session_timeout_ms).error is ErrorCode.MEMBER_ID_REQUIRED


def test_unknown_member_is_told_so() -> None:
    driver = Driver()
    assert driver.join_at_once("stranger") == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, "stranger")
    driver.stable(1)
    assert driver.join_at_once("stranger") == JoinAnswer(ErrorCode.UNKNOWN_MEMBER_ID, "stranger")


def test_unchanged_follower_of_a_stable_group_is_answered_from_the_group() -> None:
    driver = Driver()
    ids = driver.stable(2)
    answer = driver.join_at_once(ids[1])
    assert (answer.error, answer.generation, answer.leader, answer.members) == (0, 2, ids[0], ())
    assert driver.state() is State.STABLE


def test_leader_that_joins_again_starts_a_rebalance() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.join(ids[0])
    assert driver.state() is State.PREPARING
    assert driver.heartbeat(ids[1], 2) is ErrorCode.REBALANCE_IN_PROGRESS


def test_follower_whose_metadata_has_changed_starts_a_rebalance() -> None:
    driver = Driver()
    ids = driver.stable(2)
    driver.join(ids[1], protocols=OTHER)
    assert driver.state() is State.PREPARING


def test_lost_answer_is_repeated_while_the_leader_computes() -> None:
    driver = Driver()
    ids = driver.completing(2)
    again = driver.join_at_once(ids[0])
    assert (again.generation, len(again.members)) == (2, 2)
    assert driver.join_at_once(ids[1]).members == ()
    assert driver.state() is State.COMPLETING


def test_changed_metadata_while_the_leader_computes_starts_a_rebalance() -> None:
    driver = Driver()
    ids = driver.completing(2)
    waiting = driver.sync(ids[1], 2)
    driver.join(ids[0], protocols=OTHER)
    assert driver.state() is State.PREPARING
    assert driver.synced(waiting).error is ErrorCode.REBALANCE_IN_PROGRESS


def test_second_join_of_a_parked_member_takes_the_place_of_the_first() -> None:
    driver = Driver()
    ids = driver.stable(2)
    first = driver.join(ids[0])
    second = driver.join(ids[0])
    assert driver.joined(first).error is ErrorCode.REBALANCE_IN_PROGRESS
    driver.join(ids[1])
    assert driver.joined(second).error is ErrorCode.NONE


def test_full_group_takes_no_more_members() -> None:
    driver = Driver(replace(NO_DELAY, members_max=2))
    ids = driver.stable(2)
    full = JoinAnswer(ErrorCode.GROUP_MAX_SIZE_REACHED, "")
    assert driver.join_at_once() == full
    assert driver.join_at_once(instance_id="i") == full
    assert driver.state() is State.STABLE
    driver.join(ids[0])
    driver.join(ids[1])
    assert len(driver.group.roster) == 2


def test_nobody_waits_for_an_id_whose_owner_found_the_group_full() -> None:
    driver = Driver(replace(NO_DELAY, members_max=2))
    (first,) = driver.stable(1)
    pending = [driver.join_at_once().member_id for _ in range(2)]
    second = driver.join(pending[0])
    again = driver.join(first)
    assert not driver.answers
    assert driver.join_at_once(pending[1]).error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert driver.joined(second).generation == driver.joined(again).generation == 2


def test_group_that_is_larger_than_a_lowered_limit_shrinks_at_the_next_rebalance() -> None:
    driver = Driver()
    ids = driver.stable(3)
    driver.settings = replace(NO_DELAY, members_max=2)
    driver.take_over()
    kept = [driver.join(member_id) for member_id in ids[:2]]
    assert driver.join_at_once(ids[2]).error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert {driver.joined(token).error for token in kept} == {ErrorCode.NONE}
    assert len(driver.group.roster) == 2


def test_ids_that_are_given_out_are_limited() -> None:
    driver = Driver(replace(NO_DELAY, pending_members_max=3))
    errors = [driver.join_at_once().error for _ in range(4)]
    assert errors == [ErrorCode.MEMBER_ID_REQUIRED] * 3 + [ErrorCode.GROUP_MAX_SIZE_REACHED]
    driver.advance(SESSION_MS)
    assert driver.join_at_once().error is ErrorCode.MEMBER_ID_REQUIRED


def test_metadata_of_a_member_is_limited() -> None:
    driver = Driver(replace(NO_DELAY, member_metadata_bytes_max=10))
    assert (
        driver.join_at_once(protocols=(("a", bytes(6)), ("b", bytes(5)))).error is ErrorCode.MESSAGE_TOO_LARGE
    )
    driver.stable(1, protocols=(("a", bytes(5)), ("b", bytes(5))))


def test_metadata_of_a_group_is_limited() -> None:
    driver = Driver(replace(NO_DELAY, group_metadata_bytes_max=20))
    ids = driver.stable(2, protocols=(("a", bytes(9)),))
    third = driver.join_at_once(protocols=(("a", bytes(3)),))
    assert third.error is ErrorCode.GROUP_MAX_SIZE_REACHED
    grown = driver.join_at_once(ids[1], protocols=(("a", bytes(12)),))
    assert grown.error is ErrorCode.GROUP_MAX_SIZE_REACHED
    assert driver.state() is State.STABLE
    assert driver.group.roster.metadata_bytes == 18


@pytest.mark.parametrize("instance_id", ["i" * 250, "i\0"])
def test_instance_id_that_cannot_be_stored_is_refused(instance_id: str) -> None:
    assert Driver().join_at_once(instance_id=instance_id).error is ErrorCode.INVALID_REQUEST


def test_client_id_goes_into_the_member_id_as_far_as_it_can_be_stored() -> None:
    answer = Driver().join_at_once(client_id="né\0" + "x" * 40_000)
    assert answer.member_id.startswith("néxx")
    assert len(answer.member_id.encode()) == 255 + len("-id1")


def test_reason_of_a_client_is_noted_without_what_breaks_a_log() -> None:
    driver = Driver()
    driver.new_member(reason="rebalance\n\x1b[2J" + "y" * 1_000)
    (added,) = [note for note in driver.notes if note.event == "member added"]
    assert added.reason.startswith("rebalance??[2Jyyy")
    assert len(added.reason) == 255


def test_generation_starts_again_at_one_after_the_largest() -> None:
    driver = Driver()
    driver.stable(1)
    assert driver.stored is not None
    driver.stored = replace(driver.stored, generation=2**31 - 1)
    driver.take_over()
    (member,) = driver.group.roster
    assert driver.join_at_once(member.member_id).generation == 1


def test_join_request_is_not_changed_by_the_group() -> None:
    request = joining(client_id="a\0b")
    Driver().send(request)
    assert request.client_id == "a\0b"
