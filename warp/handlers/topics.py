"""CreateTopics, DeleteTopics and CreatePartitions.

Behaviour: each topic of a request has its own result, and one that fails does not keep the others from succeeding.
Kafka's rules for names, numbers and configs stand in the catalogue service. The answer comes when the change is made,
so the requests' timeouts have nothing to bound. `validate_only` runs every check and changes nothing.

Version notes: CreateTopics v5 answers with the topic's numbers and configs (KIP-525), v7 with its id (KIP-516).
DeleteTopics v6 takes names or ids, one of them per topic; below v3 a deletion that is switched off is INVALID_REQUEST,
because TOPIC_DELETION_DISABLED was not known.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from warp.cluster.topic_config import describe_topic
from warp.cluster.topic_request import PartitionsRequest, TopicRequest
from warp.errors import ErrorCode, KafkaError
from warp.handlers.context import RequestContext
from warp.handlers.resolve import is_given
from warp.ids import NO_TOPIC_ID, TopicId
from warp.protocol.messages.topics import (
    CreatableTopic,
    CreatableTopicResult,
    CreatableTopicResultConfig,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)

if TYPE_CHECKING:
    from warp.cluster.catalogue import Catalogue, TopicInfo

_DELETION_DISABLED_SINCE = 3
_IDS_SINCE = 6


async def create_topics(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse:
    """Create topics, or see whether they could be created."""
    wanted = [
        TopicRequest(
            topic.name,
            topic.num_partitions,
            topic.replication_factor,
            [(assignment.partition_index, assignment.broker_ids) for assignment in topic.assignments],
            {config.name: config.value for config in topic.configs},
        )
        for topic in request.topics
    ]
    results = await context.services.catalogue.create(wanted, validate_only=request.validate_only)
    return CreateTopicsResponse(
        topics=[
            _not_created(context, topic, result.code, result.message)
            if isinstance(result, KafkaError)
            else _created(context, topic, result)
            for topic, result in zip(request.topics, results, strict=True)
        ]
    )


def _created(context: RequestContext, topic: CreatableTopic, info: TopicInfo) -> CreatableTopicResult:
    return CreatableTopicResult(
        name=topic.name,
        topic_id=info.topic_id,
        error_code=ErrorCode.NONE,
        error_message=None,
        num_partitions=info.partitions,
        replication_factor=info.topic.replication_factor,
        configs=[
            CreatableTopicResultConfig(
                name=entry.name,
                value=entry.value,
                read_only=entry.is_read_only,
                config_source=entry.source,
                is_sensitive=False,
            )
            for entry in describe_topic(info.topic.configs, context.services.catalogue.broker)
        ],
    )


def _not_created(
    context: RequestContext, topic: CreatableTopic, code: ErrorCode, message: str
) -> CreatableTopicResult:
    return CreatableTopicResult(
        name=topic.name, topic_id=NO_TOPIC_ID, error_code=context.note(code), error_message=message
    )


def create_topics_failed(
    context: RequestContext, request: CreateTopicsRequest, code: ErrorCode, message: str
) -> CreateTopicsResponse:
    """The whole request failed: each topic has the error."""
    return CreateTopicsResponse(
        topics=[_not_created(context, topic, code, message) for topic in request.topics]
    )


async def delete_topics(context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse:
    """Delete topics; from the answer on nobody can read or write them."""
    asked = _asked_for(context, request)
    if not context.services.settings.delete_topics:
        known = context.version >= _DELETION_DISABLED_SINCE
        code = ErrorCode.TOPIC_DELETION_DISABLED if known else ErrorCode.INVALID_REQUEST
        return delete_topics_failed(context, request, code, "topic deletion is switched off")
    catalogue = await context.services.catalogue.lookup(
        names=[name for name, _ in asked if name is not None],
        topic_ids=[TopicId(topic_id) for name, topic_id in asked if name is None],
    )
    found = _found(asked, catalogue)
    doomed = [info for info in found if not isinstance(info, KafkaError)]
    deleted = iter(await context.services.catalogue.delete([info.topic_id for info in doomed]))
    for info in doomed:
        context.services.fetch.logs_gone(info.topic.logs)
    responses = []
    for (name, topic_id), topic in zip(asked, found, strict=True):
        if isinstance(topic, KafkaError):
            responses.append(_deleted(context, name, topic_id, topic.code, topic.message))
            continue
        code = next(deleted)
        if code is ErrorCode.UNKNOWN_TOPIC_ID and name is not None:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        responses.append(_deleted(context, topic.name, topic.topic_id, code, None))
    return DeleteTopicsResponse(responses=responses)


def _asked_for(context: RequestContext, request: DeleteTopicsRequest) -> list[tuple[str | None, bytes]]:
    """Name and id of each topic in the request."""
    if context.version >= _IDS_SINCE:
        return [(topic.name, topic.topic_id) for topic in request.topics]
    return [(name, NO_TOPIC_ID) for name in request.topic_names]


def _found(asked: list[tuple[str | None, bytes]], catalogue: Catalogue) -> list[TopicInfo | KafkaError]:
    """The topics to delete, and why others are not."""
    found: list[TopicInfo | KafkaError] = []
    for name, topic_id in asked:
        info: TopicInfo | KafkaError | None
        if (name is None) != is_given(topic_id):
            info = KafkaError(ErrorCode.INVALID_REQUEST, "a topic needs either a name or an id")
        elif name is not None:
            info = catalogue.by_name.get(name) or KafkaError(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic"
            )
        else:
            info = catalogue.by_id.get(TopicId(topic_id)) or KafkaError(
                ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic id"
            )
        found.append(info)
    times = Counter(info.topic_id for info in found if not isinstance(info, KafkaError))
    twice = KafkaError(ErrorCode.INVALID_REQUEST, "The topic is named twice")
    return [info if isinstance(info, KafkaError) or times[info.topic_id] == 1 else twice for info in found]


def _deleted(
    context: RequestContext, name: str | None, topic_id: bytes, code: ErrorCode, message: str | None
) -> DeletableTopicResult:
    return DeletableTopicResult(
        name=name, topic_id=topic_id, error_code=context.note(code), error_message=message
    )


def delete_topics_failed(
    context: RequestContext, request: DeleteTopicsRequest, code: ErrorCode, message: str
) -> DeleteTopicsResponse:
    """The whole request failed: each topic has the error."""
    asked = _asked_for(context, request)
    return DeleteTopicsResponse(responses=[_deleted(context, *topic, code, message) for topic in asked])


async def create_partitions(
    context: RequestContext, request: CreatePartitionsRequest
) -> CreatePartitionsResponse:
    """Raise the numbers of partitions of topics."""
    times = Counter(topic.name for topic in request.topics)
    results = []
    for topic in request.topics:
        try:
            if times[topic.name] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name")
            await _grow(context, topic, validate_only=request.validate_only)
        except KafkaError as error:
            results.append(_not_grown(context, topic, error.code, error.message))
        else:
            results.append(CreatePartitionsTopicResult(name=topic.name, error_code=ErrorCode.NONE))
    return CreatePartitionsResponse(results=results)


async def _grow(context: RequestContext, topic: CreatePartitionsTopic, *, validate_only: bool) -> None:
    assignments = None
    if topic.assignments is not None:
        assignments = [assignment.broker_ids for assignment in topic.assignments]
    wanted = PartitionsRequest(topic.name, topic.count, assignments)
    await context.services.catalogue.create_partitions(wanted, validate_only=validate_only)


def _not_grown(
    context: RequestContext, topic: CreatePartitionsTopic, code: ErrorCode, message: str
) -> CreatePartitionsTopicResult:
    return CreatePartitionsTopicResult(name=topic.name, error_code=context.note(code), error_message=message)


def create_partitions_failed(
    context: RequestContext, request: CreatePartitionsRequest, code: ErrorCode, message: str
) -> CreatePartitionsResponse:
    """The whole request failed: each topic has the error."""
    return CreatePartitionsResponse(
        results=[_not_grown(context, topic, code, message) for topic in request.topics]
    )
