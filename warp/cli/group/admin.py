"""Groups by librdkafka's admin client: its futures, enumerations and errors become plain values and one-line errors.

The library offers no deletion of single offsets (OffsetDelete) to Python, so there is none here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from enum import Enum
from typing import Any, Final, cast

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
    AdminClient,
    ConsumerGroupDescription,
    MemberDescription,
    OffsetSpec,
)

from warp.cli.client import Client, ClientError
from warp.cli.group.facts import Description, Listing, Log, Member, Place
from warp.config import did_you_mean

STATES: Final = {
    "PreparingRebalance": ConsumerGroupState.PREPARING_REBALANCING,
    "CompletingRebalance": ConsumerGroupState.COMPLETING_REBALANCING,
    "Stable": ConsumerGroupState.STABLE,
    "Empty": ConsumerGroupState.EMPTY,
    "Dead": ConsumerGroupState.DEAD,
}
KINDS: Final = {"Classic": ConsumerGroupType.CLASSIC, "Consumer": ConsumerGroupType.CONSUMER}

# Made of a time, or of one of the protocol's special times: it is abstract, and makes one of its own subclasses.
_spec_at: Final = cast("Callable[[int], OffsetSpec]", OffsetSpec)
_STATE_NAMES: Final[dict[Enum, str]] = {state: name for name, state in STATES.items()}
_KIND_NAMES: Final[dict[Enum, str]] = {kind: name for name, kind in KINDS.items()}


class GroupAdmin:
    """What `warp group` asks of brokers. Every method raises ClientError, which says in one line why."""

    def __init__(self, client: Client, admin: AdminClient) -> None:
        self._client = client
        self._admin = admin
        self._timeout_s = client.timeout_s
        self._partitions: dict[str, list[int]] | None = None

    def listings(self, states: Iterable[str] = (), kinds: Iterable[str] = ()) -> list[Listing]:
        """Groups by name; only those in one of these states and of one of these kinds, where any are given."""
        filters: dict[str, Any] = {}
        if chosen := {STATES[name] for name in states}:
            filters["states"] = chosen
        if types := {KINDS[name] for name in kinds}:
            filters["types"] = types
        result = self._result(
            lambda: self._admin.list_consumer_groups(request_timeout=self._timeout_s, **filters)
        )
        if result.errors:
            raise self._failure(result.errors[0])
        rows = [
            Listing(
                group.group_id,
                _STATE_NAMES.get(group.state, "Unknown"),
                _KIND_NAMES.get(group.type, "Unknown"),
                bool(group.is_simple_consumer_group),
            )
            for group in result.valid
        ]
        return sorted(rows, key=lambda row: row.name)

    def describe(self, name: str) -> Description:
        """A group as its coordinator tells it; in state Dead when there is none."""
        found: ConsumerGroupDescription | None = self._result(
            lambda: self._admin.describe_consumer_groups([name], request_timeout=self._timeout_s)[name],
            absent=KafkaError.GROUP_ID_NOT_FOUND,
        )
        if found is None:
            return Description(name, "Dead", "Unknown", "", "", ())
        node: Node | None = found.coordinator
        return Description(
            name,
            _STATE_NAMES.get(found.state, "Unknown"),
            _KIND_NAMES.get(found.type, "Unknown"),
            found.partition_assignor or "",
            "" if node is None else f"{node.id} ({node.host}:{node.port})",
            tuple(
                sorted(map(_member, found.members), key=lambda member: (member.client_id, member.member_id))
            ),
        )

    def require(self, name: str) -> Description:
        """A group that is there. Raises ClientError that names the nearest when it is not."""
        found = self.describe(name)
        if not found.is_there:
            raise self.missing(name)
        return found

    def missing(self, name: str) -> ClientError:
        """There is no such group; perhaps one with a name like it."""
        return ClientError(
            f"there is no group {name}{did_you_mean(name, [row.name for row in self.listings()])}"
        )

    def committed(self, name: str) -> dict[Place, int]:
        """The group's committed offsets; none for a group that is not there."""
        asked = ConsumerGroupTopicPartitions(name)
        answer = self._result(
            lambda: self._admin.list_consumer_group_offsets([asked], request_timeout=self._timeout_s)[name],
            absent=KafkaError.GROUP_ID_NOT_FOUND,
        )
        if answer is None:
            return {}
        self._check(answer.topic_partitions)
        return {
            Place(row.topic, row.partition): row.offset for row in answer.topic_partitions if row.offset >= 0
        }

    def commit(self, name: str, offsets: Mapping[Place, int]) -> None:
        """Commit for the group, which must have no members."""
        rows = [TopicPartition(place.topic, place.partition, offset) for place, offset in offsets.items()]
        asked = ConsumerGroupTopicPartitions(name, rows)
        answer = self._result(
            lambda: self._admin.alter_consumer_group_offsets([asked], request_timeout=self._timeout_s)[name]
        )
        self._check(answer.topic_partitions)

    def delete(self, name: str) -> None:
        """Delete a group and its offsets."""
        futures = self._admin.delete_consumer_groups([name], request_timeout=self._timeout_s)
        try:
            futures[name].result()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                raise self.missing(name) from error
            raise self._failure(error) from error

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; none when there is no such topic."""
        if self._partitions is None:
            topics = self._client.cluster(self._admin).topics
            self._partitions = {name: sorted(found.partitions) for name, found in topics.items()}
        return self._partitions.get(topic, [])

    def require_partitions(self, topic: str, chosen: Sequence[int]) -> list[int]:
        """The chosen partitions of a topic, or all if none are. Raises ClientError for those that are not there."""
        there = self.partitions(topic)
        if not there:
            raise ClientError(f"there is no topic {topic}{did_you_mean(topic, self._partitions or {})}")
        if unknown := sorted(set(chosen) - set(there)):
            raise ClientError(f"topic {topic} has no partition {unknown[0]}, only 0 to {there[-1]}")
        return sorted(set(chosen)) or there

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The log end offset of those partitions that are there."""
        there = [place for place in places if place.partition in self.partitions(place.topic)]
        return self._offsets(dict.fromkeys(there, _spec_at(OFFSET_END)))

    def logs(self, places: Iterable[Place]) -> dict[Place, Log]:
        """Start and end of the log of each of these partitions."""
        asked = list(places)
        starts = self._offsets(dict.fromkeys(asked, _spec_at(OFFSET_BEGINNING)))
        ends = self._offsets(dict.fromkeys(asked, _spec_at(OFFSET_END)))
        return {place: Log(starts[place], ends[place]) for place in asked}

    def offsets_at(self, places: Iterable[Place], time_ms: int) -> dict[Place, int | None]:
        """Per partition the first offset whose record is of that time or later; None when there is no such record."""
        found = self._offsets(dict.fromkeys(places, _spec_at(time_ms)))
        return {place: offset if offset >= 0 else None for place, offset in found.items()}

    def _offsets(self, asked: Mapping[Place, OffsetSpec]) -> dict[Place, int]:
        if not asked:
            return {}
        by_partition = {TopicPartition(place.topic, place.partition): spec for place, spec in asked.items()}
        futures = self._admin.list_offsets(by_partition, request_timeout=self._timeout_s)
        found = {}
        for partition, future in futures.items():
            try:
                found[Place(partition.topic, partition.partition)] = int(future.result().offset)
            except KafkaException as error:
                raise self._failure(error) from error
        return found

    def _check(self, rows: Iterable[TopicPartition]) -> None:
        for row in rows:
            if row.error is not None:
                raise ClientError(f"{row.topic}:{row.partition}: {self._failure(row.error)}")

    def _result(self, ask: Callable[[], Future[Any]], absent: int | None = None) -> Any:
        """What the library's future brings; None for the error code that says that a thing is not there."""
        try:
            return ask().result()
        except KafkaException as error:
            if absent is not None and error.args[0].code() == absent:
                return None
            raise self._failure(error) from error

    def _failure(self, error: KafkaException | KafkaError) -> ClientError:
        reason = error.args[0] if isinstance(error, KafkaException) else error
        if isinstance(reason, KafkaError):
            if reason.code() == KafkaError.NON_EMPTY_GROUP:
                return ClientError("the group has members; stop them first (NON_EMPTY_GROUP)")
            if reason.code() in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS):
                return ClientError(f"the group has got members meanwhile; stop them first ({reason.name()})")
        # Has the callback for errors called, which knows why.
        self._admin.poll(0)
        return self._client.failure(error)


def _member(found: MemberDescription) -> Member:
    return Member(
        found.member_id,
        found.client_id,
        found.host,
        found.group_instance_id,
        tuple(sorted(Place(row.topic, row.partition) for row in found.assignment.topic_partitions)),
    )
