"""OffsetCommit, OffsetFetch and OffsetDelete: the places that groups have come to.

Behaviour: a commit is answered when it is durable. Whether a member may commit is its group's business; whether the
topic exists is found out in the transaction, per partition. Offsets are not compared with the log, and may go back.
OffsetFetch knows no errors of partitions: what nobody has committed is -1, also in groups and topics that nobody knows.
It asks the store, always, and for a few groups at a time.

OffsetCommit takes READ on the group and on the topics, OffsetFetch DESCRIBE on both, OffsetDelete DELETE on the group
and READ on the topics. Where all that a group has committed is asked for, what may not be described is left out.

Nothing is pending as long as there are no transactions, so every offset is stable (`require_stable`, KIP-447). Member
ids and epochs in OffsetFetch are those of the new group protocol (KIP-848), which is not served: they are not compared.

Version notes: OffsetCommit v2 to v4 may bring a retention time of its own. v6 (OffsetFetch v5) has leader epochs
(KIP-320), v7 static members (KIP-345). Below v9 a generation of an unknown group is ILLEGAL_GENERATION, from v9 on
GROUP_ID_NOT_FOUND. OffsetFetch v1 has an error in each partition only; v2 to v7 one for the whole answer, and null asks
for all partitions; from v8 on several groups are asked for, each with its error (KIP-709). v10 of both names topics by
id (KIP-516).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from warp.errors import ErrorCode, ProtocolError
from warp.groups.model import CheckCommit
from warp.handlers.access import allows_group, denied_topics, describable_topics
from warp.handlers.answer_memory import AnswerMemory
from warp.handlers.context import RequestContext
from warp.ids import NO_TOPIC_ID, TopicId
from warp.metadata.group_model import NO_LEADER_EPOCH, OffsetQuery, OffsetRow
from warp.protocol.messages.group_offsets import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
    OffsetDeleteRequest,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
    OffsetFetchRequest,
    OffsetFetchRequestGroupTopic,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponseGroupPartition,
    OffsetFetchResponseGroupTopic,
    OffsetFetchResponsePartition,
    OffsetFetchResponseTopic,
)
from warp.protocol.types import AclOperation

PARTITIONS_MAX = 200_000
"""Partitions that one request may name; as many as two groups can have offsets. More closes the connection."""
GROUPS_MAX = 100_000
"""Groups that one request may name. More closes the connection."""

_NO_OFFSET = -1
_TIME_MS_MAX = 2**62
_PARTITION_ERRORS_ONLY = 1
_SEVERAL_GROUPS_SINCE = 8
_GROUP_NOT_FOUND_SINCE = 9
_IDS_SINCE = 10
_GROUPS_PER_READ = 20
_PARTITIONS_PER_READ = 2_000
_PARTITION_BYTES = 400
"""What a partition costs in an answer beside its metadata."""
_GROUP_BYTES = 400
"""What a group costs in an answer beside its partitions."""


def _check_partitions(
    topics: Sequence[OffsetCommitRequestTopic] | Sequence[OffsetDeleteRequestTopic],
) -> None:
    """Raise ProtocolError for a request that names more partitions than an answer may have."""
    count = sum(len(topic.partitions) for topic in topics)
    if count > PARTITIONS_MAX:
        raise ProtocolError(f"{count} partitions in one request")


# OffsetCommit.


async def offset_commit(context: RequestContext, request: OffsetCommitRequest) -> OffsetCommitResponse:
    """Commit offsets of a group."""
    _check_partitions(request.topics)
    if not allows_group(context, AclOperation.READ, request.group_id):
        return offset_commit_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    names = await _names_of(context, AclOperation.READ, request.topics)
    rows = list(_rows(context, request, names))
    errors: Sequence[ErrorCode] = ()
    if rows:
        check = CheckCommit(
            request.member_id, request.group_instance_id, request.generation_id_or_member_epoch
        )
        errors = await context.services.groups.commit_offsets(request.group_id, check, rows)
    each = iter(errors)
    return _commit_response(
        context,
        request,
        (
            name if isinstance(name, ErrorCode) else next(each)
            for topic, name in zip(request.topics, names, strict=True)
            for _ in topic.partitions
        ),
    )


async def _names_of(
    context: RequestContext,
    operation: AclOperation,
    topics: Sequence[OffsetCommitRequestTopic] | Sequence[OffsetFetchRequestGroupTopic],
) -> Sequence[str | ErrorCode]:
    """The name of each topic, or why there is none: its id is nobody's, or the client may not do that to it."""
    if context.version < _IDS_SINCE:
        return _guarded(context, operation, [topic.name for topic in topics])
    ids = [TopicId(topic.topic_id) for topic in topics]
    by_id = (await context.services.catalogue.lookup(topic_ids=ids)).by_id
    found = [by_id.get(topic_id) for topic_id in ids]
    names = [ErrorCode.UNKNOWN_TOPIC_ID if info is None else info.name for info in found]
    return _guarded(context, operation, names)


def _guarded(
    context: RequestContext, operation: AclOperation, names: Sequence[str | ErrorCode]
) -> Sequence[str | ErrorCode]:
    """The names, with errors in place of those to which the client may not do that."""
    if not context.is_guarded:
        return names
    denied = denied_topics(context, operation, (name for name in names if isinstance(name, str)))
    return [ErrorCode.TOPIC_AUTHORIZATION_FAILED if name in denied else name for name in names]


def _rows(
    context: RequestContext, request: OffsetCommitRequest, names: Sequence[str | ErrorCode]
) -> Iterator[OffsetRow]:
    """What is to be stored, in the order of the request."""
    now_ms = context.services.clock.time_ms()
    expires_ms = None
    if request.retention_time_ms >= 0:
        expires_ms = min(now_ms + request.retention_time_ms, _TIME_MS_MAX)
    for topic, name in zip(request.topics, names, strict=True):
        if isinstance(name, ErrorCode):
            continue
        for partition in topic.partitions:
            yield OffsetRow(
                request.group_id,
                name,
                partition.partition_index,
                partition.committed_offset,
                partition.committed_leader_epoch,
                partition.committed_metadata or "",
                now_ms,
                expires_ms,
            )


def _commit_response(
    context: RequestContext, request: OffsetCommitRequest, errors: Iterator[ErrorCode]
) -> OffsetCommitResponse:
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=[
                    OffsetCommitResponsePartition(
                        partition_index=partition.partition_index,
                        error_code=context.note(_commit_error(context, next(errors))),
                    )
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _commit_error(context: RequestContext, error: ErrorCode) -> ErrorCode:
    """The error, in a code that clients of this version expect."""
    if error is ErrorCode.GROUP_ID_NOT_FOUND and context.version < _GROUP_NOT_FOUND_SINCE:
        return ErrorCode.ILLEGAL_GENERATION
    return error


def offset_commit_failed(
    context: RequestContext, request: OffsetCommitRequest, code: ErrorCode, message: str
) -> OffsetCommitResponse:
    """The whole request failed: each partition has the error."""
    context.note(code)
    return _commit_response(context, request, (code for topic in request.topics for _ in topic.partitions))


# OffsetFetch.


class _Topic(NamedTuple):
    """A topic whose offsets are wanted."""

    name: str
    """Empty where only an id is known."""
    topic_id: bytes
    indexes: Sequence[int]
    error: ErrorCode = ErrorCode.NONE
    """Why they are not told."""


class _Asked(NamedTuple):
    """A group whose offsets are wanted, and which; None for all."""

    group_id: str
    topics: Sequence[_Topic] | None
    error: ErrorCode = ErrorCode.NONE
    """Why the client is told nothing of it."""

    def query(self) -> OffsetQuery:
        """What to ask the store."""
        if self.topics is None:
            return OffsetQuery(self.group_id, None)
        told = (topic for topic in self.topics if not topic.error)
        partitions = [(topic.name, index) for topic in told for index in topic.indexes]
        return OffsetQuery(self.group_id, partitions)

    def partitions(self) -> int:
        """How many partitions are asked for one by one: each of them will be in the answer."""
        return sum(len(topic.indexes) for topic in self.topics or ())


async def offset_fetch(context: RequestContext, request: OffsetFetchRequest) -> Any:
    """What groups have committed."""
    asked = await _asked_for(context, request)
    groups: list[OffsetFetchResponseGroup] = []
    with AnswerMemory(context.services.answer_memory) as memory:
        groups += [_failed_group(context, one, one.error) for one in asked if one.error]
        for batch in _batches([one for one in asked if not one.error]):
            results = await context.services.groups.fetch_offsets(
                [one.query() for one in batch], require_stable=request.require_stable
            )
            for one, result in zip(batch, results, strict=True):
                if not isinstance(result, ErrorCode) and not await memory.take(_size_bytes(one, result)):
                    result = ErrorCode.COORDINATOR_NOT_AVAILABLE
                groups.append(await _group(context, one, result))
            # Rows that are not in the answer must not stay while the next ones are read.
            del results
            # A read may end without ever having waited; others get their turn all the same.
            await asyncio.sleep(0)
        return memory.held(_fetch_response(context, groups))


async def _asked_for(context: RequestContext, request: OffsetFetchRequest) -> list[_Asked]:
    """What is asked for, in the words of all versions. Raises ProtocolError."""
    if context.version < _SEVERAL_GROUPS_SINCE:
        asked = [_asked_for_one(context, request)]
    else:
        asked = []
        for group in request.groups:
            if allows_group(context, AclOperation.DESCRIBE, group.group_id):
                asked.append(_Asked(group.group_id, await _topics_of(context, group.topics)))
            else:
                asked.append(_Asked(group.group_id, (), ErrorCode.GROUP_AUTHORIZATION_FAILED))
    partitions = sum(one.partitions() for one in asked)
    if len(asked) > GROUPS_MAX or partitions > PARTITIONS_MAX:
        raise ProtocolError(f"offsets of {len(asked)} groups and {partitions} partitions in one request")
    return asked


def _asked_for_one(context: RequestContext, request: OffsetFetchRequest) -> _Asked:
    """What is asked for in the versions that know one group."""
    may_see = allows_group(context, AclOperation.DESCRIBE, request.group_id)
    topics = None
    if request.topics is not None:
        topics = [_Topic(topic.name, NO_TOPIC_ID, topic.partition_indexes) for topic in request.topics]
    if not may_see:
        return _Asked(request.group_id, topics, ErrorCode.GROUP_AUTHORIZATION_FAILED)
    denied = denied_topics(context, AclOperation.DESCRIBE, (topic.name for topic in topics or ()))
    if topics is not None and denied:
        error = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        topics = [topic._replace(error=error) if topic.name in denied else topic for topic in topics]
    return _Asked(request.group_id, topics)


async def _topics_of(
    context: RequestContext, topics: Sequence[OffsetFetchRequestGroupTopic] | None
) -> list[_Topic] | None:
    if topics is None:
        return None
    names = await _names_of(context, AclOperation.DESCRIBE, topics)
    return [
        _Topic(topic.name, topic.topic_id, topic.partition_indexes, name)
        if isinstance(name, ErrorCode)
        else _Topic(name, topic.topic_id, topic.partition_indexes)
        for topic, name in zip(topics, names, strict=True)
    ]


def _batches(asked: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """A few groups at a time; those of which everything is wanted one by one."""
    batch: list[_Asked] = []
    partitions = 0
    for one in asked:
        wanted = _PARTITIONS_PER_READ if one.topics is None else one.partitions()
        if batch and (len(batch) >= _GROUPS_PER_READ or partitions + wanted > _PARTITIONS_PER_READ):
            yield batch
            batch, partitions = [], 0
        batch.append(one)
        partitions += wanted
    if batch:
        yield batch


def _size_bytes(asked: _Asked, rows: Sequence[OffsetRow]) -> int:
    """About what a group costs in an answer."""
    partitions = len(rows) if asked.topics is None else asked.partitions()
    return _GROUP_BYTES + partitions * _PARTITION_BYTES + sum(len(row.metadata) for row in rows)


async def _group(
    context: RequestContext, asked: _Asked, result: Sequence[OffsetRow] | ErrorCode
) -> OffsetFetchResponseGroup:
    """A group's part of the answer, in the layout of the versions that know several."""
    if isinstance(result, ErrorCode):
        return _failed_group(context, asked, result)
    if asked.topics is None:
        return OffsetFetchResponseGroup(
            group_id=asked.group_id, topics=await _everything(context, result), error_code=ErrorCode.NONE
        )
    committed = {(row.topic, row.partition): row for row in result}
    return OffsetFetchResponseGroup(
        group_id=asked.group_id,
        topics=[
            _topic(topic, [_partition(context, topic, index, committed) for index in topic.indexes])
            for topic in asked.topics
        ],
        error_code=ErrorCode.NONE,
    )


async def _everything(
    context: RequestContext, rows: Sequence[OffsetRow]
) -> list[OffsetFetchResponseGroupTopic]:
    """All that a group has committed, of topics that the client may know of.

    Where topics are named by id, those that are gone meanwhile are left out.
    """
    by_topic: dict[str, list[OffsetFetchResponseGroupPartition]] = {}
    for row in rows:
        by_topic.setdefault(row.topic, []).append(_committed(row))
    by_topic = {name: by_topic[name] for name in describable_topics(context, by_topic)}
    if context.version < _IDS_SINCE:
        return [_topic(_Topic(name, NO_TOPIC_ID, ()), found) for name, found in by_topic.items()]
    known = (await context.services.catalogue.lookup(names=list(by_topic))).by_name
    return [
        _topic(_Topic(name, known[name].topic_id, ()), found)
        for name, found in by_topic.items()
        if name in known
    ]


def _topic(
    topic: _Topic, partitions: list[OffsetFetchResponseGroupPartition]
) -> OffsetFetchResponseGroupTopic:
    return OffsetFetchResponseGroupTopic(name=topic.name, topic_id=topic.topic_id, partitions=partitions)


def _partition(
    context: RequestContext, topic: _Topic, index: int, committed: Mapping[tuple[str, int], OffsetRow]
) -> OffsetFetchResponseGroupPartition:
    if topic.error:
        return _no_offset(index, context.note(topic.error))
    row = committed.get((topic.name, index))
    return _no_offset(index) if row is None else _committed(row)


def _committed(row: OffsetRow) -> OffsetFetchResponseGroupPartition:
    return OffsetFetchResponseGroupPartition(
        partition_index=row.partition,
        committed_offset=row.offset,
        committed_leader_epoch=row.leader_epoch,
        metadata=row.metadata,
        error_code=ErrorCode.NONE,
    )


def _no_offset(index: int, error: ErrorCode = ErrorCode.NONE) -> OffsetFetchResponseGroupPartition:
    return OffsetFetchResponseGroupPartition(
        partition_index=index,
        committed_offset=_NO_OFFSET,
        committed_leader_epoch=NO_LEADER_EPOCH,
        metadata="",
        error_code=error,
    )


def _failed_group(context: RequestContext, asked: _Asked, error: ErrorCode) -> OffsetFetchResponseGroup:
    """A group that can't be told of. In v1 only partitions have a place for the error, later only the group has."""
    context.note(error)
    topics = []
    if context.version <= _PARTITION_ERRORS_ONLY:
        topics = [
            _topic(topic, [_no_offset(index, error) for index in topic.indexes])
            for topic in asked.topics or ()
        ]
    return OffsetFetchResponseGroup(group_id=asked.group_id, topics=topics, error_code=error)


def _fetch_response(context: RequestContext, groups: list[OffsetFetchResponseGroup]) -> OffsetFetchResponse:
    if context.version >= _SEVERAL_GROUPS_SINCE:
        return OffsetFetchResponse(groups=groups)
    (group,) = groups
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=partition.partition_index,
                        committed_offset=partition.committed_offset,
                        committed_leader_epoch=partition.committed_leader_epoch,
                        metadata=partition.metadata,
                        error_code=partition.error_code,
                    )
                    for partition in topic.partitions
                ],
            )
            for topic in group.topics
        ],
        error_code=group.error_code,
    )


def offset_fetch_failed(
    context: RequestContext, request: OffsetFetchRequest, code: ErrorCode, message: str
) -> OffsetFetchResponse:
    """The whole request failed: each group has the error, or in v1 each partition."""
    if context.version >= _SEVERAL_GROUPS_SINCE:
        asked = [_Asked(group.group_id, None) for group in request.groups]
    else:
        topics = [_Topic(topic.name, NO_TOPIC_ID, topic.partition_indexes) for topic in request.topics or ()]
        asked = [_Asked(request.group_id, topics)]
    return _fetch_response(context, [_failed_group(context, one, code) for one in asked])


# OffsetDelete.


async def offset_delete(context: RequestContext, request: OffsetDeleteRequest) -> OffsetDeleteResponse:
    """Forget offsets of topics that the group does not read any more (KIP-496)."""
    _check_partitions(request.topics)
    if not allows_group(context, AclOperation.DELETE, request.group_id):
        return offset_delete_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    denied = denied_topics(context, AclOperation.READ, (topic.name for topic in request.topics))
    named = [
        (topic.name, partition.partition_index) for topic in request.topics for partition in topic.partitions
    ]
    partitions = [(name, index) for name, index in named if name not in denied]
    result: list[ErrorCode] | ErrorCode = []
    if partitions or not denied:
        result = await context.services.groups.delete_offsets(request.group_id, partitions)
    if isinstance(result, ErrorCode):
        return offset_delete_failed(context, request, result, "")
    deleted = zip(partitions, result, strict=True)
    context.changed_each(
        "deleted offsets",
        (f"{name}-{index}" for (name, index), error in deleted if error is ErrorCode.NONE),
        group=request.group_id,
    )
    each = iter(result)
    errors = (ErrorCode.TOPIC_AUTHORIZATION_FAILED if name in denied else next(each) for name, _ in named)
    return OffsetDeleteResponse(
        error_code=ErrorCode.NONE,
        topics=[
            OffsetDeleteResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetDeleteResponsePartition(
                        partition_index=partition.partition_index, error_code=context.note(next(errors))
                    )
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ],
    )


def offset_delete_failed(
    context: RequestContext, request: OffsetDeleteRequest, code: ErrorCode, message: str
) -> OffsetDeleteResponse:
    """The whole request failed."""
    return OffsetDeleteResponse(error_code=context.note(code), topics=[])
