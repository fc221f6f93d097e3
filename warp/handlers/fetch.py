"""Fetch: record batches out.

Behaviour: limits, waiting and isolation are the fetch service's business; here names and ids become logs. A partition
that can't be resolved has its error, and then nothing is waited for. Every partition of the request is in the answer;
one that is asked for twice is INVALID_REQUEST, as in ListOffsets: a request that named one a hundred thousand times
would cost out of all proportion to its size.

It takes READ on the topics. Where that is taken away while a fetch waits, the records that it has waited for are not
handed over.

There are no fetch sessions (KIP-227): every answer has session id 0, and an incremental request, which only makes sense
in a session, gets FETCH_SESSION_ID_NOT_FOUND, whereupon clients send full ones. kafka-go's session id -1 means none.

A consumer that names the zone of other agents as its rack is sent to one of them, by a preferred read replica in place
of records (KIP-392); the ends of the log are unknown then, as in an error. What comes back from there is read here.

Nobody is fenced by the leader epoch, neither by the current one in the request nor by the last fetched one: there is
one constant epoch, and clients that hold another have it from another cluster.

A client that has read more than its quota gets an answer without any partition, and its next fetch the records.

Version notes: v5 and below don't know KAFKA_STORAGE_ERROR and get NOT_LEADER_OR_FOLLOWER. Below v10 zstd records are
refused (KIP-110). v13 names topics by id (KIP-516).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from warp.errors import ErrorCode
from warp.handlers.access import TopicAccess, access_to
from warp.handlers.context import Held, RequestContext
from warp.handlers.leaders import caller_of
from warp.handlers.resolve import may_be_new, target_of, topic_of
from warp.handlers.throttle import fetch_room, may_be_fetched
from warp.ids import BrokerId, TopicId
from warp.log.answer import FetchPartitionQuery, FetchPartitionResult
from warp.log.model import LogTarget
from warp.protocol.messages.fetch import (
    AbortedTransaction,
    FetchPartitionResponse,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    FetchTopicResponse,
)
from warp.protocol.types import AclOperation, IsolationLevel

if TYPE_CHECKING:
    from warp.cluster.catalogue import Catalogue, TopicInfo

_NO_SESSION = (0, -1)
_FULL_FETCH_EPOCHS = (0, -1)
_STORAGE_ERROR_SINCE = 6
_ZSTD_SINCE = 10
_IDS_SINCE = 13
_ACCESS_S = 0.5
"""How long a fetch may wait before it is asked again whether the client may read."""
_NEARER = ErrorCode.NONE
"""In place of a partition that exists: it is to be read at another agent, and nothing is wrong with it."""


async def fetch(context: RequestContext, request: FetchRequest) -> Any:
    """Read from every partition asked for."""
    if request.session_epoch not in _FULL_FETCH_EPOCHS and request.session_id != -1:
        code = context.note(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        return FetchResponse(error_code=code, responses=[])
    quotas = context.services.quotas
    bytes_max = min(request.max_bytes, context.services.catalogue.defaults.fetch_bytes_max)
    if quotas.limits_fetch:
        bytes_max = min(bytes_max, fetch_room(context))
        if context.throttle_ms:
            return FetchResponse(error_code=ErrorCode.NONE, responses=[])
    access = access_to(context, AclOperation.READ)
    targets = await _targets(context, request, access)
    queries = _queries(request, targets)
    if len(queries) < len(targets):
        targets = await _targets_anew(context, request, access)
        queries = _queries(request, targets)
    nearer = _steer(context, request.rack_id, targets) if request.rack_id else None
    if nearer is None:
        context.client.used_s = context.services.clock.monotonic()
    else:
        queries = _queries(request, targets)
    is_complete = len(queries) == len(targets)
    began_s = context.services.clock.monotonic() if access is not None else 0.0
    answer = await context.services.fetch.fetch(
        queries,
        bytes_max=bytes_max,
        bytes_min=request.min_bytes,
        wait_ms=request.max_wait_ms if is_complete else 0,
        read_committed=request.isolation_level == IsolationLevel.READ_COMMITTED,
        allow_zstd=context.version >= _ZSTD_SINCE,
    )
    if quotas.limits_fetch and not may_be_fetched(context, answer.records_bytes):
        answer.release()
        return FetchResponse(error_code=ErrorCode.NONE, responses=[])
    if context.version >= _IDS_SINCE:
        for result in answer.partitions:
            if result.error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
                # The log is gone, and with it the topic that was asked for by its id.
                result.error = ErrorCode.UNKNOWN_TOPIC_ID
    found = iter(answer.partitions)
    results = [
        next(found) if isinstance(target, LogTarget) else FetchPartitionResult(target) for target in targets
    ]
    if access is not None and context.services.clock.monotonic() - began_s > _ACCESS_S:
        _withhold(TopicAccess(context, AclOperation.READ), targets, results)
    response = _response(context, request, results)
    if nearer is not None:
        parts = (part for topic in response.responses for part in topic.partitions)
        for part, target in zip(parts, targets, strict=True):
            if target is _NEARER:
                part.preferred_read_replica = nearer
    return Held(response, answer.release)


def _withhold(
    access: TopicAccess, targets: list[LogTarget | ErrorCode], results: list[FetchPartitionResult]
) -> None:
    """Put an error in place of what the client may not read any more."""
    for index, target in enumerate(targets):
        if isinstance(target, LogTarget) and not access.allows(target.topic):
            results[index] = FetchPartitionResult(ErrorCode.TOPIC_AUTHORIZATION_FAILED)


def _steer(context: RequestContext, rack: str, targets: list[LogTarget | ErrorCode]) -> BrokerId | None:
    """The agent that a consumer is sent to, if any is nearer; the partitions to be read there become `_NEARER`."""
    discovery = context.services.discovery
    if discovery.is_near(rack):
        context.client.rack = rack
        return None
    caller = caller_of(context)
    nearer = discovery.nearer(caller, rack)
    if nearer is None:
        return None
    is_steered = False
    for index, target in enumerate(targets):
        if isinstance(target, LogTarget) and discovery.may_steer(caller, target.log_id):
            targets[index] = _NEARER
            is_steered = True
    return nearer if is_steered else None


async def _targets(
    context: RequestContext, request: FetchRequest, access: TopicAccess | None
) -> list[LogTarget | ErrorCode]:
    """Each partition of the request, in its order."""
    by_id = context.version >= _IDS_SINCE
    if by_id:
        catalogue = await context.services.catalogue.lookup(
            topic_ids=[TopicId(topic.topic_id) for topic in request.topics]
        )
    else:
        names = [each.topic for each in request.topics if access is None or access.allows(each.topic)]
        catalogue = await context.services.catalogue.lookup(names=names)
    return _resolved(catalogue, request, access, by_id=by_id)


async def _targets_anew(
    context: RequestContext, request: FetchRequest, access: TopicAccess | None
) -> list[LogTarget | ErrorCode]:
    """The same when some are missing: by a newer snapshot, if another agent may have added them since."""
    by_id = context.version >= _IDS_SINCE
    catalogue = context.services.catalogue.current
    for topic in request.topics:
        found = _found(catalogue, topic, access, by_id=by_id)
        if any(may_be_new(found, target_of(found, each.partition)) for each in topic.partitions):
            catalogue = await context.services.catalogue.refresh()
            break
    return _resolved(catalogue, request, access, by_id=by_id)


def _found(
    catalogue: Catalogue, topic: FetchTopic, access: TopicAccess | None, *, by_id: bool
) -> TopicInfo | ErrorCode:
    """A topic of the request, if the client may read it."""
    found = topic_of(catalogue, topic.topic, topic.topic_id, by_id=by_id)
    return found if access is None else access.guarded(found, topic.topic)


def _resolved(
    catalogue: Catalogue, request: FetchRequest, access: TopicAccess | None, *, by_id: bool
) -> list[LogTarget | ErrorCode]:
    targets: list[LogTarget | ErrorCode] = []
    for topic in request.topics:
        found = _found(catalogue, topic, access, by_id=by_id)
        targets += [target_of(found, partition.partition) for partition in topic.partitions]
    return _refuse_twice(targets)


def _refuse_twice(targets: list[LogTarget | ErrorCode]) -> list[LogTarget | ErrorCode]:
    """Each partition once, or not at all."""
    log_ids = [target.log_id for target in targets if isinstance(target, LogTarget)]
    if len(set(log_ids)) == len(log_ids):
        return targets
    times = Counter(log_ids)
    return [
        ErrorCode.INVALID_REQUEST if isinstance(target, LogTarget) and times[target.log_id] > 1 else target
        for target in targets
    ]


def _queries(request: FetchRequest, targets: list[LogTarget | ErrorCode]) -> list[FetchPartitionQuery]:
    """What is asked of the partitions that exist."""
    queries: list[FetchPartitionQuery] = []
    each = iter(targets)
    for topic in request.topics:
        for partition in topic.partitions:
            target = next(each)
            if isinstance(target, LogTarget):
                size_bytes = partition.partition_max_bytes
                queries.append(FetchPartitionQuery(target.log_id, partition.fetch_offset, size_bytes))
    return queries


def _response(
    context: RequestContext, request: FetchRequest, results: list[FetchPartitionResult]
) -> FetchResponse:
    each = iter(results)
    return FetchResponse(
        error_code=ErrorCode.NONE,
        responses=[
            FetchTopicResponse(
                topic=topic.topic,
                topic_id=topic.topic_id,
                partitions=[
                    _partition_response(context, partition.partition, next(each))
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ],
    )


def _partition_response(
    context: RequestContext, index: int, result: FetchPartitionResult
) -> FetchPartitionResponse:
    error = context.note(result.error)
    if error is ErrorCode.KAFKA_STORAGE_ERROR and context.version < _STORAGE_ERROR_SINCE:
        error = ErrorCode.NOT_LEADER_OR_FOLLOWER
    aborted = result.aborted_transactions
    return FetchPartitionResponse(
        partition_index=index,
        error_code=error,
        high_watermark=result.high_watermark,
        last_stable_offset=result.last_stable_offset,
        log_start_offset=result.log_start_offset,
        aborted_transactions=None
        if aborted is None
        else [
            AbortedTransaction(producer_id=each.producer_id, first_offset=each.first_offset)
            for each in aborted
        ],
        records=result.records,
    )


def fetch_failed(
    context: RequestContext, request: FetchRequest, code: ErrorCode, message: str
) -> FetchResponse:
    """The whole request failed: every partition has the error, which all versions have a place for."""
    context.note(code)
    failed = [FetchPartitionResult(code) for topic in request.topics for _ in topic.partitions]
    return _response(context, request, failed)
