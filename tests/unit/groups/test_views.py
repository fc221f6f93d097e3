"""What others ask of a group: may offsets be committed or deleted, what does it look like."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, strategies as st

from tests.unit.groups.group_support import Driver
from warp.errors import ErrorCode
from warp.groups.machine import GroupMachine
from warp.groups.model import (
    CheckOffsetDelete,
    Describe,
    DescribeAnswer,
    DescribedMember,
    GroupOverview,
    OffsetDeleteAnswer,
    Request,
)
from warp.groups.subscription import subscribed
from warp.groups.transitions import State

NONE = ErrorCode.NONE
CLOSED = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC


def test_classic_group_is_what_a_coordinator_runs() -> None:
    machine: GroupMachine[Request] = Driver().group
    assert machine.is_idle
    assert machine.overview() == GroupOverview("g", "classic", "Empty", "", 0)


def subscription(*topics: str, version: int = 1, tail: bytes = b"\xff\xff\xff\xff\0\0\0\0") -> bytes:
    """A consumer's metadata, laid out as ConsumerProtocolSubscription."""
    names = b"".join(struct.pack(">h", len(topic.encode())) + topic.encode() for topic in topics)
    return struct.pack(">hi", version, len(topics)) + names + tail


def subscribing(*topics: str) -> tuple[tuple[str, bytes], ...]:
    return (("range", subscription(*topics)),)


def test_simple_consumer_commits_to_an_empty_group() -> None:
    assert Driver().commit() is NONE
    assert Driver().commit("anything", -1) is NONE


def test_simple_consumer_may_not_commit_to_a_group_with_members() -> None:
    driver = Driver()
    ids = driver.stable(2)
    assert driver.commit() is ErrorCode.UNKNOWN_MEMBER_ID
    driver.join(ids[0])
    assert driver.commit() is ErrorCode.UNKNOWN_MEMBER_ID


def test_members_commit_in_a_stable_group_and_before_they_join_again() -> None:
    driver = Driver()
    ids = driver.stable(2)
    assert driver.commit(ids[1], 2) is NONE
    driver.join(ids[0])
    assert driver.state() is State.PREPARING
    assert driver.commit(ids[1], 2) is NONE


def test_members_may_not_commit_while_the_leader_computes() -> None:
    driver = Driver()
    (member_id,) = driver.completing(1)
    assert driver.commit(member_id, 1) is ErrorCode.REBALANCE_IN_PROGRESS


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"member_id": "stranger", "generation": 1}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id": "", "generation": 1}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id": "stranger", "generation": -1}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id": "i-id1", "generation": 0}, ErrorCode.ILLEGAL_GENERATION),
        ({"member_id": "i-id1", "generation": 2}, ErrorCode.ILLEGAL_GENERATION),
        ({"member_id": "i-id1", "generation": -1}, ErrorCode.ILLEGAL_GENERATION),
        ({"member_id": "old", "generation": 1, "instance_id": "i"}, ErrorCode.FENCED_INSTANCE_ID),
        ({"member_id": "i-id1", "generation": 1, "instance_id": "j"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"member_id": "", "generation": -1, "instance_id": "i"}, ErrorCode.FENCED_INSTANCE_ID),
        ({"member_id": "i-id1", "generation": 1, "instance_id": "i"}, NONE),
    ],
)
@pytest.mark.parametrize("is_transactional", [False, True])
def test_commit_has_to_come_from_a_member_of_this_generation(
    fields: dict[str, object], error: ErrorCode, is_transactional: bool
) -> None:
    driver = Driver()
    member_id = driver.join_at_once(instance_id="i").member_id
    driver.sync(member_id, 1)
    assert driver.commit(**fields, is_transactional=is_transactional) is error  # type: ignore[arg-type]


def test_commit_with_a_generation_to_an_empty_group_is_from_an_unknown_member() -> None:
    assert Driver().commit("m", 1) is ErrorCode.UNKNOWN_MEMBER_ID


def test_transaction_commits_in_every_state_when_it_names_no_member_or_a_right_one() -> None:
    driver = Driver()
    (member_id,) = driver.completing(1)
    assert driver.commit(is_transactional=True) is NONE
    assert driver.commit(member_id, 1, is_transactional=True) is NONE


def test_stable_group_is_described_with_metadata_and_assignments_as_they_are() -> None:
    driver = Driver()
    ids = driver.stable(2)
    answer = driver.ask(Describe(), DescribeAnswer)
    assert answer == DescribeAnswer(
        NONE,
        "Stable",
        "consumer",
        "range",
        tuple(
            DescribedMember(member_id, None, "c", "/127.0.0.1", b"subscribes t", member_id.encode())
            for member_id in ids
        ),
    )


def test_rebalancing_group_is_described_without_what_is_not_settled() -> None:
    driver = Driver()
    (member_id,) = driver.completing(1)
    answer = driver.ask(Describe(), DescribeAnswer)
    assert (answer.state, answer.protocol) == ("CompletingRebalance", "")
    assert answer.members == (DescribedMember(member_id, None, "c", "/127.0.0.1", b"", b""),)


def test_empty_group_is_described_without_members() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1)
    driver.leave(member_id)
    assert driver.ask(Describe(), DescribeAnswer) == DescribeAnswer(NONE, "Empty", "consumer", "", ())


def test_offsets_of_topics_that_nobody_subscribes_to_can_be_deleted() -> None:
    driver = Driver()
    _, token = driver.new_member(protocols=subscribing("a", "b"))
    driver.answers.pop(token)
    answer = driver.ask(CheckOffsetDelete(), OffsetDeleteAnswer)
    assert [answer.error_for(topic) for topic in "abc"] == [CLOSED, CLOSED, NONE]
    assert driver.group.subscribed_topics() == frozenset("ab")


def test_offsets_of_an_empty_group_can_all_be_deleted() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1, protocols=subscribing("a"))
    driver.leave(member_id)
    assert driver.ask(CheckOffsetDelete(), OffsetDeleteAnswer).error_for("a") is NONE


def test_offsets_of_a_group_of_another_type_cannot_be_deleted_while_it_has_members() -> None:
    driver = Driver()
    (member_id,) = driver.stable(1, protocol_type="connect")
    assert driver.ask(CheckOffsetDelete(), OffsetDeleteAnswer).error_for("a") is ErrorCode.NON_EMPTY_GROUP
    driver.leave(member_id)
    assert driver.ask(CheckOffsetDelete(), OffsetDeleteAnswer).error_for("a") is NONE


def test_member_with_unreadable_metadata_harms_nobody_and_all_topics_count_as_used() -> None:
    driver = Driver()
    (first,) = driver.stable(1, protocols=subscribing("a"))
    garbage = (("range", b"\x00\x01\x7f\xff\xff\xff\x00"),)
    second, token = driver.new_member(protocols=garbage)
    leader = driver.join(first, protocols=subscribing("a"))
    assert driver.joined(token).error is NONE
    assert [member.metadata for member in driver.joined(leader).members] == [subscription("a"), garbage[0][1]]
    driver.sync(first, 2, {second: b"share"})
    assert driver.synced(driver.sync(second, 2)).assignment == b"share"
    assert driver.group.subscribed_topics() is None
    assert driver.ask(CheckOffsetDelete(), OffsetDeleteAnswer).error_for("z") is CLOSED
    driver.leave(second)
    driver.join(first, protocols=subscribing("a"))
    assert driver.group.subscribed_topics() == frozenset("a")


@given(st.lists(st.text(max_size=20), max_size=5), st.integers(0, 2**15 - 1), st.binary(max_size=20))
def test_subscription_of_any_version_is_read(topics: list[str], version: int, tail: bytes) -> None:
    assert subscribed(subscription(*topics, version=version, tail=tail)) == topics


@given(st.lists(st.sampled_from(["a", "topic"]), min_size=1, max_size=3), st.data())
def test_cut_subscription_is_not_read(topics: list[str], data: st.DataObject) -> None:
    whole = subscription(*topics, tail=b"")
    assert subscribed(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None


@given(st.binary(max_size=60))
def test_garbage_is_never_an_exception(metadata: bytes) -> None:
    assert subscribed(metadata) is None or isinstance(subscribed(metadata), list)


@pytest.mark.parametrize(
    "metadata",
    [
        struct.pack(">hi", -1, 0),
        struct.pack(">hi", 0, -1),
        struct.pack(">hi", 0, 2**31 - 1),
        struct.pack(">hih", 0, 1, -1),
        struct.pack(">hih", 0, 1, 1) + b"\xff",
    ],
)
def test_impossible_sizes_are_no_subscription(metadata: bytes) -> None:
    assert subscribed(metadata) is None
