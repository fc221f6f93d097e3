"""ListOffsets, OffsetForLeaderEpoch and DeleteRecords: where logs begin and end, and where a time falls in them.

Behaviour: all three ask the metadata store, so what they say includes everything that was acknowledged before. A
partition that can't be resolved has its own error. A partition that ListOffsets is asked for twice is INVALID_REQUEST,
as with Kafka. Nobody is fenced by the current leader epoch in the request: there is one constant epoch.

ListOffsets takes DESCRIBE on the topics, and so does OffsetForLeaderEpoch, or CLUSTER_ACTION on the cluster;
DeleteRecords takes DELETE on the topics.

Version notes: ListOffsets knows its special timestamps from different versions on; one that is not known yet, or no
special one at all, is UNSUPPORTED_VERSION for its partition. v2 brings isolation levels, v4 the leader epoch in the
answer, v6 is the first flexible one. KAFKA_STORAGE_ERROR is retried by clients of every version served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from typing import TYPE_CHECKING

from warp.cluster.config_definition import split_list
from warp.cluster.topic_config import effective
from warp.cluster.topic_request import INTERNAL_TOPICS
from warp.errors import ErrorCode
from warp.handlers.access import denied_topics, permits_cluster
from warp.handlers.context import RequestContext
from warp.handlers.resolve import target_of, topic_of
from warp.ids import LEADER_EPOCH, NO_TOPIC_ID, LogId
from warp.log.model import LogTarget
from warp.log.offsets import DeletedRecords, EpochAnswer, OffsetAnswer, OffsetQuery
from warp.protocol.messages.offsets import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartitionResult,
    OffsetForLeaderTopicResult,
)
from warp.protocol.types import AclOperation, IsolationLevel, ListOffsetsTimestamp

if TYPE_CHECKING:
    from warp.cluster.catalogue import Catalogue, TopicInfo

_SPECIAL_SINCE: dict[int, int] = {
    ListOffsetsTimestamp.LATEST: 1,
    ListOffsetsTimestamp.EARLIEST: 1,
    ListOffsetsTimestamp.MAX_TIMESTAMP: 7,  # KIP-734
    ListOffsetsTimestamp.EARLIEST_LOCAL: 8,  # KIP-405
    ListOffsetsTimestamp.LATEST_TIERED: 9,  # KIP-1005
    ListOffsetsTimestamp.EARLIEST_PENDING_UPLOAD: 11,  # KIP-1023
}
_EPOCH_SINCE = 4


async def list_offsets(context: RequestContext, request: ListOffsetsRequest) -> ListOffsetsResponse:
    """Find an offset in every partition asked for."""
    denied = denied_topics(context, AclOperation.DESCRIBE, (topic.name for topic in request.topics))
    catalogue = await context.services.catalogue.lookup_partitions(
        [
            (topic.name, [each.partition_index for each in topic.partitions])
            for topic in request.topics
            if topic.name not in denied
        ]
    )
    times = Counter(
        (topic.name, partition.partition_index) for topic in request.topics for partition in topic.partitions
    )
    read_committed = request.isolation_level == IsolationLevel.READ_COMMITTED
    plan: list[OffsetQuery | ErrorCode] = []
    for topic in request.topics:
        found = _topic_of(catalogue, topic.name, denied)
        for partition in topic.partitions:
            if found is ErrorCode.TOPIC_AUTHORIZATION_FAILED:
                plan.append(found)
            elif times[topic.name, partition.partition_index] > 1:
                plan.append(ErrorCode.INVALID_REQUEST)
            else:
                target = target_of(found, partition.partition_index)
                plan.append(_offset_query(context, target, partition, read_committed))
    queries = [query for query in plan if isinstance(query, OffsetQuery)]
    answers = iter(await context.services.offsets.list_offsets(queries) if queries else ())
    results = iter([OffsetAnswer(query) if isinstance(query, ErrorCode) else next(answers) for query in plan])
    return ListOffsetsResponse(
        topics=[
            ListOffsetsTopicResponse(
                name=topic.name,
                partitions=[
                    _offset_response(context, partition, next(results)) for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _topic_of(catalogue: Catalogue, name: str, denied: Set[str]) -> TopicInfo | ErrorCode:
    """A topic, if the client may ask for it; otherwise the same error whether it exists or not."""
    if name in denied:
        return ErrorCode.TOPIC_AUTHORIZATION_FAILED
    return topic_of(catalogue, name, NO_TOPIC_ID, by_id=False)


def _offset_query(
    context: RequestContext,
    target: LogTarget | ErrorCode,
    partition: ListOffsetsPartition,
    read_committed: bool,
) -> OffsetQuery | ErrorCode:
    if isinstance(target, ErrorCode):
        return target
    timestamp = partition.timestamp
    if timestamp < 0 and context.version < _SPECIAL_SINCE.get(timestamp, context.version + 1):
        return ErrorCode.UNSUPPORTED_VERSION
    return OffsetQuery(target.log_id, timestamp, read_committed)


def _offset_response(
    context: RequestContext, partition: ListOffsetsPartition, answer: OffsetAnswer
) -> ListOffsetsPartitionResponse:
    response = ListOffsetsPartitionResponse(
        partition_index=partition.partition_index,
        error_code=context.note(answer.error),
        timestamp=answer.timestamp_ms,
        offset=answer.offset,
    )
    if context.version >= _EPOCH_SINCE and answer.offset >= 0:
        response.leader_epoch = LEADER_EPOCH
    return response


def list_offsets_failed(
    context: RequestContext, request: ListOffsetsRequest, code: ErrorCode, message: str
) -> ListOffsetsResponse:
    """The whole request failed: each partition has the error."""
    failed = OffsetAnswer(code)
    return ListOffsetsResponse(
        topics=[
            ListOffsetsTopicResponse(
                name=topic.name,
                partitions=[_offset_response(context, each, failed) for each in topic.partitions],
            )
            for topic in request.topics
        ]
    )


async def offset_for_leader_epoch(
    context: RequestContext, request: OffsetForLeaderEpochRequest
) -> OffsetForLeaderEpochResponse:
    """Say where leader epochs end; with one constant epoch that is the end of the log (KIP-320)."""
    denied: Set[str] = frozenset()
    if context.is_guarded and not permits_cluster(context, AclOperation.CLUSTER_ACTION):
        denied = denied_topics(context, AclOperation.DESCRIBE, (topic.topic for topic in request.topics))
    catalogue = await context.services.catalogue.lookup_partitions(
        [
            (topic.topic, [each.partition for each in topic.partitions])
            for topic in request.topics
            if topic.topic not in denied
        ]
    )
    plan: list[tuple[LogId, int] | ErrorCode] = []
    for topic in request.topics:
        found = _topic_of(catalogue, topic.topic, denied)
        for partition in topic.partitions:
            target = target_of(found, partition.partition)
            plan.append(target if isinstance(target, ErrorCode) else (target.log_id, partition.leader_epoch))
    queries = [query for query in plan if not isinstance(query, ErrorCode)]
    answers = iter(await context.services.offsets.end_of_epochs(queries) if queries else ())
    results = [EpochAnswer(query) if isinstance(query, ErrorCode) else next(answers) for query in plan]
    return _epochs_response(context, request, results)


def _epochs_response(
    context: RequestContext, request: OffsetForLeaderEpochRequest, results: Sequence[EpochAnswer]
) -> OffsetForLeaderEpochResponse:
    each = iter(results)
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderTopicResult(
                topic=topic.topic,
                partitions=[
                    _epoch_response(context, partition.partition, next(each))
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _epoch_response(
    context: RequestContext, index: int, answer: EpochAnswer
) -> OffsetForLeaderPartitionResult:
    return OffsetForLeaderPartitionResult(
        error_code=context.note(answer.error),
        partition=index,
        leader_epoch=answer.leader_epoch,
        end_offset=answer.end_offset,
    )


def offset_for_leader_epoch_failed(
    context: RequestContext, request: OffsetForLeaderEpochRequest, code: ErrorCode, message: str
) -> OffsetForLeaderEpochResponse:
    """The whole request failed: each partition has the error."""
    failed = [EpochAnswer(code) for topic in request.topics for _ in topic.partitions]
    return _epochs_response(context, request, failed)


async def delete_records(context: RequestContext, request: DeleteRecordsRequest) -> DeleteRecordsResponse:
    """Move log start offsets forward (KIP-107)."""
    denied = denied_topics(context, AclOperation.DELETE, (topic.name for topic in request.topics))
    catalogue = await context.services.catalogue.lookup_partitions(
        [
            (topic.name, [each.partition_index for each in topic.partitions])
            for topic in request.topics
            if topic.name not in denied
        ]
    )
    times: Counter[LogId] = Counter()
    plan: list[LogId | ErrorCode] = []
    before_offsets: dict[LogId, int] = {}
    for topic in request.topics:
        found = _deletable(context, catalogue, topic.name, denied)
        for partition in topic.partitions:
            target = target_of(found, partition.partition_index)
            if isinstance(target, ErrorCode):
                plan.append(target)
                continue
            times[target.log_id] += 1
            plan.append(target.log_id)
            before_offsets[target.log_id] = partition.offset
    for log_id, count in times.items():
        if count > 1:
            del before_offsets[log_id]
    deleted = await context.services.offsets.delete_records(before_offsets) if before_offsets else {}
    twice = DeletedRecords(ErrorCode.INVALID_REQUEST)
    results = [
        DeletedRecords(entry) if isinstance(entry, ErrorCode) else deleted.get(entry, twice) for entry in plan
    ]
    context.changed_each("deleted records", _moved_starts(request, results))
    return _deleted_response(context, request, results)


def _deletable(
    context: RequestContext, catalogue: Catalogue, name: str, denied: Set[str]
) -> TopicInfo | ErrorCode:
    """The topic, or why its records can't be deleted."""
    topic = _topic_of(catalogue, name, denied)
    if isinstance(topic, ErrorCode):
        return topic
    if name in INTERNAL_TOPICS:
        return ErrorCode.INVALID_TOPIC_EXCEPTION
    defaults = context.services.catalogue.defaults.values
    policy = split_list(effective(topic.topic.configs, defaults, "cleanup.policy"))
    if "compact" in policy and "delete" not in policy:
        return ErrorCode.POLICY_VIOLATION
    return topic


def _moved_starts(request: DeleteRecordsRequest, results: Sequence[DeletedRecords]) -> Iterator[str]:
    """Partitions and where they begin now, for the audit log."""
    each = iter(results)
    for topic in request.topics:
        for partition in topic.partitions:
            result = next(each)
            if result.error is ErrorCode.NONE:
                yield f"{topic.name}-{partition.partition_index} below {result.low_watermark}"


def _deleted_response(
    context: RequestContext, request: DeleteRecordsRequest, results: Sequence[DeletedRecords]
) -> DeleteRecordsResponse:
    each = iter(results)
    return DeleteRecordsResponse(
        topics=[
            DeleteRecordsTopicResult(
                name=topic.name,
                partitions=[
                    _deleted_partition(context, partition.partition_index, next(each))
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _deleted_partition(
    context: RequestContext, index: int, result: DeletedRecords
) -> DeleteRecordsPartitionResult:
    return DeleteRecordsPartitionResult(
        partition_index=index, low_watermark=result.low_watermark, error_code=context.note(result.error)
    )


def delete_records_failed(
    context: RequestContext, request: DeleteRecordsRequest, code: ErrorCode, message: str
) -> DeleteRecordsResponse:
    """The whole request failed: each partition has the error."""
    failed = [DeletedRecords(code) for topic in request.topics for _ in topic.partitions]
    return _deleted_response(context, request, failed)
