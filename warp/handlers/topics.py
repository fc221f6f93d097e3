"""CreateTopics, DeleteTopics and CreatePartitions.

Behaviour: each topic of a request has its own result, and one that fails does not keep the others from succeeding.
Kafka's rules for names, numbers and configs stand in the catalogue service. The answer comes when the change is made,
so the requests' timeouts have nothing to bound. `validate_only` runs every check and changes nothing.

Creating takes CREATE and deleting takes DELETE, on the cluster or on the topic; more partitions take ALTER on it.
Who may not describe a topic learns neither that it exists nor, by its id, its name; who may not describe its configs is
not told the numbers and configs of what it has created.

Version notes: CreateTopics v5 answers with the topic's numbers and configs (KIP-525), v7 with its id (KIP-516).
DeleteTopics v6 takes names or ids, one of them per topic; below v3 a deletion that is switched off is INVALID_REQUEST,
because TOPIC_DELETION_DISABLED was not known. From CreateTopics v6, DeleteTopics v5 and CreatePartitions v3 on, what is
beyond the client's quota of changes is refused; before, it is done and the client held back (KIP-599).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, NamedTuple

from warp.cluster.catalogue import TopicInfo
from warp.cluster.topic_config import describe_topic
from warp.cluster.topic_request import NameCollision, PartitionsRequest, TopicRequest
from warp.errors import ErrorCode, KafkaError
from warp.handlers.access import allows_topic, denied_topics, permits_cluster
from warp.handlers.context import RequestContext
from warp.handlers.mutations import (
    create_within_quota,
    delete_within_quota,
    exceeded,
    grow_within_quota,
    mutation_quota,
)
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
from warp.protocol.types import AclOperation

if TYPE_CHECKING:
    from warp.cluster.catalogue import Catalogue
    from warp.security.quotas.quotas import MutationQuota

_CONFIGS_SINCE = 5
_DELETION_DISABLED_SINCE = 3
# The versions from which on quotas refuse changes (KIP-599).
_CREATE_STRICT_SINCE = 6
_DELETE_STRICT_SINCE = 5
_GROW_STRICT_SINCE = 3
_IDS_SINCE = 6


async def create_topics(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse:
    """Create topics, or see whether they could be created."""
    denied = _not_creatable(context, request)
    wanted = [
        TopicRequest(
            topic.name,
            topic.num_partitions,
            topic.replication_factor,
            [(assignment.partition_index, assignment.broker_ids) for assignment in topic.assignments],
            {config.name: config.value for config in topic.configs},
        )
        for topic in request.topics
        if topic.name not in denied
    ]
    results = await create_within_quota(
        context, wanted, _CREATE_STRICT_SINCE, validate_only=request.validate_only
    )
    if not request.validate_only:
        made = [result for result in results if not isinstance(result, KafkaError)]
        context.changed_each("created topics", map(topic_text, made))
    each = iter(results)
    refusal = KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Authorization failed.")
    configs = _ToldConfigs(context)
    topics = []
    for topic in request.topics:
        result = refusal if topic.name in denied else next(each)
        if isinstance(result, KafkaError):
            topics.append(_not_created(context, topic, result.code, _told(context, result)))
        else:
            topics.append(_created(context, topic, result, configs))
    return CreateTopicsResponse(topics=topics)


def _told(context: RequestContext, problem: KafkaError) -> str:
    """The message; another topic that it names is named to those who may know of it."""
    if isinstance(problem, NameCollision) and problem.other is not None:
        may_know = allows_topic(context, AclOperation.DESCRIBE, problem.other, is_asked_for=False)
        return problem.message if may_know else problem.discreet
    return problem.message


def _not_creatable(context: RequestContext, request: CreateTopicsRequest) -> frozenset[str]:
    """The topics that the client may not create. Those named twice are not created in any case."""
    if not context.is_guarded or permits_cluster(context, AclOperation.CREATE):
        return frozenset()
    times = Counter(topic.name for topic in request.topics)
    return denied_topics(context, AclOperation.CREATE, (name for name, count in times.items() if count == 1))


def topic_text(info: TopicInfo) -> str:
    """A new topic, for the audit log."""
    configs = "".join(f", {name}={value}" for name, value in info.topic.configs.items())
    return f"{info.name} ({info.partitions} partitions{configs})"


class _ToldConfigs:
    """The configs of new topics as their creator is told them: one list for all topics that set the same ones.

    Nearly all topics of a large request do, and working out some thirty configs for each would take most of its time.
    """

    def __init__(self, context: RequestContext) -> None:
        self._defaults = context.services.catalogue.defaults
        self._is_told = context.version >= _CONFIGS_SINCE
        self._known: dict[frozenset[tuple[str, str]], list[CreatableTopicResultConfig]] = {}

    def of(self, overrides: Mapping[str, str]) -> list[CreatableTopicResultConfig]:
        """Those of a topic that sets some; none in versions that can't carry them."""
        if not self._is_told:
            return []
        key = frozenset(overrides.items())
        if key not in self._known:
            self._known[key] = [
                CreatableTopicResultConfig(
                    name=entry.name,
                    value=entry.value,
                    read_only=entry.is_read_only,
                    config_source=entry.source,
                    is_sensitive=False,
                )
                for entry in describe_topic(overrides, self._defaults.static, self._defaults.dynamic)
            ]
        return self._known[key]


def _created(
    context: RequestContext, topic: CreatableTopic, info: TopicInfo, configs: _ToldConfigs
) -> CreatableTopicResult:
    may_see = context.version < _CONFIGS_SINCE or allows_topic(
        context, AclOperation.DESCRIBE_CONFIGS, topic.name, is_asked_for=False
    )
    if not may_see:
        return CreatableTopicResult(
            name=topic.name,
            topic_id=info.topic_id,
            error_code=ErrorCode.NONE,
            error_message=None,
            topic_config_error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED,
            num_partitions=-1,
            replication_factor=-1,
            configs=[],
        )
    return CreatableTopicResult(
        name=topic.name,
        topic_id=info.topic_id,
        error_code=ErrorCode.NONE,
        error_message=None,
        num_partitions=info.partitions,
        replication_factor=info.topic.replication_factor,
        configs=configs.of(info.topic.configs),
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
    if not context.services.catalogue.defaults.delete_topics:
        known = context.version >= _DELETION_DISABLED_SINCE
        code = ErrorCode.TOPIC_DELETION_DISABLED if known else ErrorCode.INVALID_REQUEST
        return delete_topics_failed(context, request, code, "topic deletion is switched off")
    may_all = not context.is_guarded or permits_cluster(context, AclOperation.DELETE)
    names = [name for name, _ in asked if name is not None]
    hidden: Set[str] = set() if may_all else denied_topics(context, AclOperation.DESCRIBE, names)
    catalogue = await context.services.catalogue.lookup(
        names=[name for name in names if name not in hidden],
        topic_ids=[TopicId(topic_id) for name, topic_id in asked if name is None],
    )
    found = _found(asked, catalogue, hidden)
    if not may_all:
        found = [_guarded(context, info) for info in found]
    quota = mutation_quota(context, _DELETE_STRICT_SINCE)
    if quota is not None:
        found = [_within(quota, info) for info in found]
        context.throttle(quota.throttle_ms())
    doomed = [info for info in found if isinstance(info, TopicInfo)]
    deleted = iter(await delete_within_quota(context, doomed, quota))
    for info in doomed:
        context.services.fetch.logs_gone(info.topic.logs)
    responses = []
    gone = []
    for (name, topic_id), topic in zip(asked, found, strict=True):
        if isinstance(topic, _Kept):
            responses.append(_deleted(context, topic.name or name, topic_id, topic.code, topic.message))
            continue
        code = next(deleted)
        if code is ErrorCode.NONE:
            gone.append(topic.name)
        elif code is ErrorCode.UNKNOWN_TOPIC_ID and name is not None:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        responses.append(_deleted(context, topic.name, topic.topic_id, code, None))
    context.changed_each("deleted topics", gone)
    return DeleteTopicsResponse(responses=responses)


class _Kept(NamedTuple):
    """Why a topic is not deleted."""

    code: ErrorCode
    message: str
    name: str | None = None
    """Of a topic that was asked for by its id, if the client may know it."""


_NOT_ALLOWED = _Kept(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.")


def _guarded(context: RequestContext, info: TopicInfo | _Kept) -> TopicInfo | _Kept:
    """The topic, if the client may delete it; otherwise what it may know of it."""
    if isinstance(info, _Kept) or allows_topic(context, AclOperation.DELETE, info.name):
        return info
    may_see = allows_topic(context, AclOperation.DESCRIBE, info.name, is_asked_for=False)
    return _NOT_ALLOWED._replace(name=info.name if may_see else None)


def _within(quota: MutationQuota, info: TopicInfo | _Kept) -> TopicInfo | _Kept:
    """The topic, if the quota lets it be deleted."""
    if isinstance(info, _Kept) or quota.takes(info.partitions):
        return info
    error = exceeded()
    return _Kept(error.code, error.message, info.name)


def _asked_for(context: RequestContext, request: DeleteTopicsRequest) -> list[tuple[str | None, bytes]]:
    """Name and id of each topic in the request."""
    if context.version >= _IDS_SINCE:
        return [(topic.name, topic.topic_id) for topic in request.topics]
    return [(name, NO_TOPIC_ID) for name in request.topic_names]


def _found(
    asked: list[tuple[str | None, bytes]], catalogue: Catalogue, hidden: Set[str]
) -> list[TopicInfo | _Kept]:
    """The topics to delete, and why others are not. Of those that are hidden nothing is told."""
    found: list[TopicInfo | _Kept] = []
    for name, topic_id in asked:
        info: TopicInfo | _Kept | None
        if (name is None) != is_given(topic_id):
            info = _Kept(ErrorCode.INVALID_REQUEST, "a topic needs either a name or an id")
        elif name is None:
            info = catalogue.by_id.get(TopicId(topic_id)) or _Kept(
                ErrorCode.UNKNOWN_TOPIC_ID, "This server does not host this topic id"
            )
        elif name in hidden:
            info = _NOT_ALLOWED
        else:
            info = catalogue.by_name.get(name) or _Kept(
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "This server does not host this topic"
            )
        found.append(info)
    times = Counter(info.topic_id for info in found if isinstance(info, TopicInfo))
    twice = _Kept(ErrorCode.INVALID_REQUEST, "The topic is named twice")
    return [info if isinstance(info, _Kept) or times[info.topic_id] == 1 else twice for info in found]


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
    quota = mutation_quota(context, _GROW_STRICT_SINCE)
    results = []
    for topic in request.topics:
        try:
            if times[topic.name] > 1:
                raise KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name")
            if not allows_topic(context, AclOperation.ALTER, topic.name):
                raise KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED, "Topic authorization failed.")
            await _grow(context, topic, quota, validate_only=request.validate_only)
        except KafkaError as error:
            results.append(_not_grown(context, topic, error.code, error.message))
        else:
            results.append(CreatePartitionsTopicResult(name=topic.name, error_code=ErrorCode.NONE))
    if quota is not None:
        context.throttle(quota.throttle_ms())
    return CreatePartitionsResponse(results=results)


async def _grow(
    context: RequestContext,
    topic: CreatePartitionsTopic,
    quota: MutationQuota | None,
    *,
    validate_only: bool,
) -> None:
    assignments = None
    if topic.assignments is not None:
        assignments = [assignment.broker_ids for assignment in topic.assignments]
    wanted = PartitionsRequest(topic.name, topic.count, assignments)
    before = context.services.catalogue.current.by_name.get(topic.name)
    grown = await grow_within_quota(context, wanted, quota, validate_only=validate_only)
    if not validate_only:
        context.changed(
            "added partitions",
            topic=topic.name,
            partitions_before=None if before is None else before.partitions,
            partitions=grown.partitions,
        )


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
