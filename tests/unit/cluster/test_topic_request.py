"""Kafka's rules for creating topics and partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from warp.cluster.topic_request import (
    CheckedTopic,
    PartitionsRequest,
    TopicRequest,
    check_partitions_request,
    check_topic_name,
    check_topic_requests,
)
from warp.errors import ErrorCode, KafkaError
from warp.ids import BrokerId

BROKERS = (BrokerId(1), BrokerId(2), BrokerId(3))


def checked(*requests: TopicRequest) -> list[CheckedTopic | ErrorCode]:
    answers = check_topic_requests(requests, 4, 2, BROKERS)
    return [answer.code if isinstance(answer, KafkaError) else answer for answer in answers]


def only(name: str = "t", **fields: Any) -> CheckedTopic | ErrorCode:
    [answer] = checked(TopicRequest(name, **fields))
    return answer


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "x" * 249, "...", "__consumer_offsets", "-"])
def test_names_that_kafka_takes(name: str) -> None:
    check_topic_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "a b", "ü", "a/b", "a\x00", "a\n", "a:b", "٣"])
def test_names_that_kafka_refuses(name: str) -> None:
    with pytest.raises(KafkaError) as refused:
        check_topic_name(name)
    assert refused.value.code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert only(name) == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_what_is_left_open_is_the_brokers_choice() -> None:
    assert only() == CheckedTopic("t", 4, 2, {})
    assert only(partitions=7, replication_factor=3, configs={"retention.ms": "5"}) == CheckedTopic(
        "t", 7, 3, {"retention.ms": "5"}
    )


@pytest.mark.parametrize("partitions", [0, -2, -(2**31)])
def test_numbers_of_partitions_are_checked(partitions: int) -> None:
    assert only(partitions=partitions) == ErrorCode.INVALID_PARTITIONS


@pytest.mark.parametrize("replication_factor", [0, -2, 2**15])
def test_replication_factors_are_checked(replication_factor: int) -> None:
    assert only(replication_factor=replication_factor) == ErrorCode.INVALID_REPLICATION_FACTOR


def test_more_replicas_than_brokers_are_taken() -> None:
    assert only(replication_factor=9) == CheckedTopic("t", 4, 9, {})


def test_a_name_twice_in_a_request_fails_every_time() -> None:
    assert checked(TopicRequest("a"), TopicRequest("b"), TopicRequest("a"), TopicRequest("")) == [
        ErrorCode.INVALID_REQUEST,
        CheckedTopic("b", 4, 2, {}),
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
    ]


def test_the_topic_of_the_cluster_itself_can_not_be_created() -> None:
    assert only("__cluster_metadata") == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("configs", [{"no.such": "1"}, {"retention.ms": "x"}, {"retention.ms": None}])
def test_configs_are_checked(configs: dict[str, str | None]) -> None:
    assert only(configs=configs) == ErrorCode.INVALID_CONFIG


def test_assignments_say_how_many_partitions_and_replicas() -> None:
    assert only(assignments=[(1, [2, 1]), (0, [1, 3])]) == CheckedTopic("t", 2, 2, {})


@pytest.mark.parametrize(
    "assignments",
    [
        [(0, [1]), (2, [1])],
        [(1, [1])],
        [(0, [1]), (0, [2])],
        [(-1, [1]), (0, [1])],
        [(0, [])],
        [(0, [1, 1])],
        [(0, [9])],
        [(0, [1, 2]), (1, [1])],
    ],
)
def test_assignments_that_make_no_sense_are_refused(assignments: Sequence[tuple[int, Sequence[int]]]) -> None:
    assert only(assignments=assignments) == ErrorCode.INVALID_REPLICA_ASSIGNMENT


def test_assignments_go_with_open_numbers_alone() -> None:
    given = [(0, [1])]
    assert only(assignments=given, partitions=1) == ErrorCode.INVALID_REQUEST
    assert only(assignments=given, replication_factor=1) == ErrorCode.INVALID_REQUEST


def test_too_many_partitions_in_one_request_are_against_policy() -> None:
    assert checked(TopicRequest("a", 9_999), TopicRequest("b", 1)) == [
        CheckedTopic("a", 9_999, 2, {}),
        CheckedTopic("b", 1, 2, {}),
    ]
    assert checked(TopicRequest("a", 9_999), TopicRequest("b", 2), TopicRequest("c", 0)) == [
        ErrorCode.POLICY_VIOLATION,
        ErrorCode.POLICY_VIOLATION,
        ErrorCode.INVALID_PARTITIONS,
    ]


def partitions_error(total: int, assignments: Sequence[Sequence[int]] | None = None) -> ErrorCode | None:
    try:
        check_partitions_request(PartitionsRequest("t", total, assignments), 3, BROKERS)
    except KafkaError as error:
        return error.code
    return None


@pytest.mark.parametrize("total", [3, 2, 0, -1])
def test_partitions_can_only_be_added(total: int) -> None:
    assert partitions_error(total) == ErrorCode.INVALID_PARTITIONS


def test_assignments_of_added_partitions_are_one_each() -> None:
    assert partitions_error(4) is None
    assert partitions_error(5, [[1], [2]]) is None
    assert partitions_error(5, [[1]]) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert partitions_error(4, []) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert partitions_error(5, [[1], [1, 2]]) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert partitions_error(4, [[9]]) == ErrorCode.INVALID_REPLICA_ASSIGNMENT


def test_too_many_added_partitions_are_refused() -> None:
    assert partitions_error(10_003) is None
    assert partitions_error(10_004) == ErrorCode.INVALID_PARTITIONS
