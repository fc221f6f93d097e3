"""A broker's groups in memory, behind the methods of librdkafka's admin client that `warp group` calls."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    Node,
    TopicPartition,
)
from confluent_kafka.admin import (
    ConsumerGroupDescription,
    ConsumerGroupListing,
    ListConsumerGroupsResult,
    ListOffsetsResultInfo,
    MemberAssignment,
    MemberDescription,
)

from warp.cli.group.facts import Log, Place


class FakeTopic:
    def __init__(self, partitions: Sequence[int]) -> None:
        self.partitions = dict.fromkeys(partitions)


class FakeCluster:
    def __init__(self, topics: dict[str, FakeTopic]) -> None:
        self.topics = topics


class FakeGroup:
    def __init__(
        self,
        state: ConsumerGroupState = ConsumerGroupState.EMPTY,
        offsets: dict[Place, int] | None = None,
        members: Sequence[MemberDescription] = (),
        *,
        is_simple: bool = False,
    ) -> None:
        self.state = state
        self.offsets = dict(offsets or {})
        self.members = list(members)
        self.is_simple = is_simple


def member(
    member_id: str, *places: Place, client_id: str = "app", instance_id: str | None = None
) -> MemberDescription:
    rows = [TopicPartition(place.topic, place.partition) for place in places]
    return MemberDescription(member_id, client_id, "/10.0.0.7", MemberAssignment(rows), instance_id)


class FakeAdmin:
    """`logs` are the partitions that there are. `fails` has, by method, the error code that it fails with."""

    def __init__(self, logs: dict[Place, Log], **groups: FakeGroup) -> None:
        self.logs = logs
        self.groups = groups
        self.at_time: dict[Place, int] = {}
        self.times_ms: list[int] = []
        self.fails: dict[str, int] = {}
        self.row_error: int | None = None
        self.filters: dict[str, Any] = {}
        self.has_found_dead = True

    def poll(self, timeout: float) -> int:
        assert timeout == 0
        return 0

    def list_topics(self, timeout: float) -> FakeCluster:
        assert timeout > 0
        numbers: dict[str, list[int]] = {}
        for topic, partition in self.logs:
            numbers.setdefault(topic, []).append(partition)
        return FakeCluster({topic: FakeTopic(found) for topic, found in numbers.items()})

    def list_consumer_groups(self, **arguments: Any) -> Future[Any]:
        arguments.pop("request_timeout")
        self.filters = arguments
        rows = [
            ConsumerGroupListing(name, group.is_simple, group.state, ConsumerGroupType.CLASSIC)
            for name, group in self.groups.items()
        ]
        errors: list[Exception] = []
        if "list_brokers" in self.fails:
            errors.append(KafkaException(KafkaError(self.fails["list_brokers"])))
        return self._done("list", ListConsumerGroupsResult(rows, errors))

    def describe_consumer_groups(self, names: list[str], request_timeout: float) -> dict[str, Future[Any]]:
        assert request_timeout > 0
        (name,) = names
        group = self.groups.get(name)
        if group is None and not self.has_found_dead:
            return {name: failed(KafkaError.GROUP_ID_NOT_FOUND)}
        group = group or FakeGroup(ConsumerGroupState.DEAD)
        found = ConsumerGroupDescription(
            name,
            group.is_simple,
            group.members,
            "range" if group.members else "",
            group.state,
            Node(3, "broker-3", 9092),
            type=ConsumerGroupType.CLASSIC,
        )
        return {name: self._done("describe", found)}

    def list_consumer_group_offsets(
        self, asked: list[ConsumerGroupTopicPartitions], request_timeout: float
    ) -> dict[str, Future[Any]]:
        assert request_timeout > 0
        name = asked[0].group_id
        group = self.groups.get(name, FakeGroup())
        rows = [
            TopicPartition(place.topic, place.partition, offset) for place, offset in group.offsets.items()
        ]
        return {name: self._done("offsets", ConsumerGroupTopicPartitions(name, rows))}

    def alter_consumer_group_offsets(
        self, asked: list[ConsumerGroupTopicPartitions], request_timeout: float
    ) -> dict[str, Future[Any]]:
        assert request_timeout > 0
        name, rows = asked[0].group_id, asked[0].topic_partitions or []
        if self.row_error is not None:
            rows[0] = row_failed(rows[0], self.row_error)
        else:
            group = self.groups.setdefault(name, FakeGroup())
            group.offsets.update({Place(row.topic, row.partition): row.offset for row in rows})
        return {name: self._done("alter", Answer(rows))}

    def delete_consumer_groups(self, names: list[str], request_timeout: float) -> dict[str, Future[Any]]:
        assert request_timeout > 0
        (name,) = names
        group = self.groups.get(name)
        if group is None:
            return {name: failed(KafkaError.GROUP_ID_NOT_FOUND)}
        if group.members:
            return {name: failed(KafkaError.NON_EMPTY_GROUP)}
        del self.groups[name]
        return {name: self._done("delete", None)}

    def list_offsets(
        self, asked: dict[TopicPartition, Any], request_timeout: float
    ) -> dict[TopicPartition, Future[Any]]:
        assert request_timeout > 0
        return {
            row: self._done("list_offsets", self._offset(row, spec._value)) for row, spec in asked.items()
        }

    def _offset(self, row: TopicPartition, spec: int) -> ListOffsetsResultInfo:
        place = Place(row.topic, row.partition)
        log = self.logs[place]
        if spec not in (OFFSET_BEGINNING, OFFSET_END):
            self.times_ms.append(spec)
        offsets = {OFFSET_BEGINNING: log.start, OFFSET_END: log.end}
        return ListOffsetsResultInfo(offsets.get(spec, self.at_time.get(place, -1)), -1, 0)

    def _done(self, method: str, result: object) -> Future[Any]:
        if method in self.fails:
            return failed(self.fails[method])
        future: Future[Any] = Future()
        future.set_result(result)
        return future


class Answer:
    def __init__(self, rows: list[TopicPartition]) -> None:
        self.topic_partitions = rows


class RowFailed(TopicPartition):
    """A partition with an error, which only the library itself can put into its own."""

    error: KafkaError | None = None


def row_failed(row: TopicPartition, code: int) -> RowFailed:
    made = RowFailed(row.topic, row.partition, row.offset)
    made.error = KafkaError(code)
    return made


def failed(code: int) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(KafkaException(KafkaError(code)))
    return future
