"""Requests to create topics and partitions, and Kafka's rules for them. Pure: no store is asked here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from warp.cluster.topic_config import check_topic_configs
from warp.errors import ErrorCode, KafkaError
from warp.ids import BrokerId

TOPIC_NAME_CHARACTERS_MAX = 249
PARTITIONS_PER_REQUEST_MAX = 10_000
REPLICATION_FACTOR_MAX = 2**15 - 1
CLUSTER_METADATA_TOPIC = "__cluster_metadata"
INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state", "__share_group_state")
BROKER_CHOOSES = -1
"""As a number of partitions or replicas: whatever the broker's default is."""

_NAME = re.compile(r"[a-zA-Z0-9._-]+")


class NameCollision(KafkaError):
    """A topic can't be created: its name differs from that of `other` (None: it is gone) in '.' and '_' alone.

    The message names the other one; `discreet` is for clients that may not know of it.
    """

    def __init__(self, name: str, other: str | None) -> None:
        self.other = other
        self.discreet = _collision(name, "another topic")
        message = self.discreet if other is None else _collision(name, other)
        super().__init__(ErrorCode.INVALID_TOPIC_EXCEPTION, message)


def _collision(name: str, other: str) -> str:
    return f"Topic {name} collides with {other}: '.' and '_' count as the same"


@dataclass(frozen=True, slots=True)
class TopicRequest:
    """A topic to create. `assignments` name brokers per partition by hand; nobody has to live by them."""

    name: str
    partitions: int = BROKER_CHOOSES
    replication_factor: int = BROKER_CHOOSES
    assignments: Sequence[tuple[int, Sequence[int]]] = ()
    configs: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionsRequest:
    """Partitions to add: `total` is the new number. `assignments` has brokers for each that is added, or is None."""

    name: str
    total: int
    assignments: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True, slots=True)
class CheckedTopic:
    """A request to create a topic that holds to the rules, with the broker's choices filled in."""

    name: str
    partitions: int
    replication_factor: int
    configs: Mapping[str, str]


def check_topic_name(name: str) -> None:
    """Raises KafkaError (INVALID_TOPIC_EXCEPTION) unless Kafka would take the name."""
    problem = None
    if not name:
        problem = "the empty string is not allowed"
    elif name in (".", ".."):
        problem = "'.' and '..' are not allowed"
    elif len(name) > TOPIC_NAME_CHARACTERS_MAX:
        problem = f"it is longer than {TOPIC_NAME_CHARACTERS_MAX} characters"
    elif not _NAME.fullmatch(name):
        problem = "only ASCII letters, digits, '.', '_' and '-' are allowed"
    if problem is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {problem}")


def check_topic_requests(
    requests: Sequence[TopicRequest],
    default_partitions: int,
    default_replication_factor: int,
    broker_ids: Collection[BrokerId],
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> list[CheckedTopic | KafkaError]:
    """Kafka's rules for CreateTopics, per topic in order, as far as they need no look at other topics.

    `defaults` is what configs fall back to, by the broker's names.
    """
    twice = {name for name, count in Counter(request.name for request in requests).items() if count > 1}
    answers: list[CheckedTopic | KafkaError] = []
    for request in requests:
        try:
            if request.name in twice:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name")
            checked = _check(request, default_partitions, default_replication_factor, broker_ids, defaults)
            answers.append(checked)
        except KafkaError as error:
            answers.append(error)
    total = sum(answer.partitions for answer in answers if isinstance(answer, CheckedTopic))
    if total > PARTITIONS_PER_REQUEST_MAX:
        problem = f"More than {PARTITIONS_PER_REQUEST_MAX} partitions in one request"
        return [
            KafkaError(ErrorCode.POLICY_VIOLATION, problem) if isinstance(answer, CheckedTopic) else answer
            for answer in answers
        ]
    return answers


def check_partitions_request(
    request: PartitionsRequest, current: int, broker_ids: Collection[BrokerId]
) -> None:
    """Kafka's rules for CreatePartitions on a topic with `current` partitions. Raises KafkaError."""
    if request.total <= current:
        how = "already has" if request.total == current else "has more:"
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic {how} {current} partitions")
    added = request.total - current
    if added > PARTITIONS_PER_REQUEST_MAX:
        problem = f"More than {PARTITIONS_PER_REQUEST_MAX} partitions in one request"
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, problem)
    if request.assignments is None:
        return
    if len(request.assignments) != added:
        problem = f"{added} partitions are added, but {len(request.assignments)} assignments are given"
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, problem)
    for brokers in request.assignments:
        _check_brokers(brokers, broker_ids, len(request.assignments[0]))


def _check(
    request: TopicRequest,
    default_partitions: int,
    default_replication_factor: int,
    broker_ids: Collection[BrokerId],
    defaults: Mapping[str, str],
) -> CheckedTopic:
    if request.name == CLUSTER_METADATA_TOPIC:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Creation of internal topic {request.name} is prohibited"
        )
    check_topic_name(request.name)
    configs = check_topic_configs(request.configs, defaults)
    if request.assignments:
        partitions, replication_factor = _check_assignments(request, broker_ids)
        return CheckedTopic(request.name, partitions, replication_factor, configs)
    if request.partitions == 0 or request.partitions < BROKER_CHOOSES:
        problem = "Number of partitions must be larger than 0, or -1 for the broker's default"
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, problem)
    if (
        request.replication_factor == 0
        or not BROKER_CHOOSES <= request.replication_factor <= REPLICATION_FACTOR_MAX
    ):
        problem = "Replication factor must be larger than 0, or -1 for the broker's default"
        raise KafkaError(ErrorCode.INVALID_REPLICATION_FACTOR, problem)
    # More replicas than there are brokers is an error in Kafka. Here the object store keeps the data safe, whatever
    # the number, and tools ask for three by habit.
    chosen = request.replication_factor == BROKER_CHOOSES
    return CheckedTopic(
        request.name,
        default_partitions if request.partitions == BROKER_CHOOSES else request.partitions,
        default_replication_factor if chosen else request.replication_factor,
        configs,
    )


def _check_assignments(request: TopicRequest, broker_ids: Collection[BrokerId]) -> tuple[int, int]:
    """The numbers of partitions and replicas that the assignments make."""
    if request.partitions != BROKER_CHOOSES or request.replication_factor != BROKER_CHOOSES:
        problem = "With assignments given, the numbers of partitions and replicas must both be -1"
        raise KafkaError(ErrorCode.INVALID_REQUEST, problem)
    indexes = sorted(index for index, _ in request.assignments)
    if indexes != list(range(len(indexes))):
        problem = "Assignments must be for partitions 0, 1, … without gaps, each once"
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, problem)
    replicas = len(request.assignments[0][1])
    for _, brokers in request.assignments:
        _check_brokers(brokers, broker_ids, replicas)
    return len(indexes), replicas


def _check_brokers(brokers: Sequence[int], broker_ids: Collection[BrokerId], replicas: int) -> None:
    problem = None
    if not brokers:
        problem = "An assignment names no broker"
    elif len(set(brokers)) != len(brokers):
        problem = "An assignment names a broker twice"
    elif any(broker not in broker_ids for broker in brokers):
        problem = "An assignment names a broker that is not there"
    elif len(brokers) != replicas:
        problem = f"An assignment names {len(brokers)} brokers where the others name {replicas}"
    if problem is not None:
        raise KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, problem)
