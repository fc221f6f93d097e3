"""Metadata and DescribeTopicPartitions: which topics exist, and whom to ask for their partitions.

Behaviour: one agent is the leader of every partition and the controller, another one for other clients; if the client
wants its partitions spread, each has its leader (`warp.cluster.discovery`). Replicas are the leader and an agent of
each other zone, three at most. Addresses are those of the listener that the request came in on. The leader epoch is the
constant 0, so that leaders may change freely. Metadata creates the unknown topics that it is asked for by name, if the
agent and the client allow it, and returns them complete; nothing else creates topics. With a topic named twice, the
answer has it once. While the metadata store can't be reached, topics that are known by name are described as they were.

It takes DESCRIBE on the topics: where all are asked for, others are left out, and one that is asked for by name gets
the same error whether it exists or not. Creating takes CREATE on the cluster or on the topic.

Version notes: in v0 an empty list asks for all topics; from v1 on null does. v8 to v10 can ask for the operations that
the client may do on the cluster, v8 and up for those on topics (KIP-430). v10 has topic ids in the answer, and v12 in
the request: if any is given there, names are ignored (KIP-516). In v10 and v11 an id or a null name is INVALID_REQUEST.
v13 has an error for the whole answer, which is never needed here.
"""

from __future__ import annotations

import functools
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from warp.cluster.topic_request import INTERNAL_TOPICS, TopicRequest, check_topic_name
from warp.errors import ErrorCode, KafkaError, MetadataError
from warp.handlers.access import allows_topic, denied_topics, describable_topics, permits_cluster
from warp.handlers.context import RequestContext
from warp.handlers.leaders import agents_for, choice_for
from warp.handlers.mutations import NEVER_STRICT, create_within_quota
from warp.handlers.operations import cluster_operations, topic_operations
from warp.handlers.topics import topic_text
from warp.ids import LEADER_EPOCH, NO_TOPIC_ID, TopicId
from warp.protocol.messages.metadata import (
    DescribeTopicPartitionsCursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED, AclOperation

if TYPE_CHECKING:
    from warp.cluster.catalogue import Catalogue, CatalogueService, TopicInfo
    from warp.cluster.discovery import Choice

_IDS_IN_REQUEST_SINCE = 12


def metadata(
    context: RequestContext, request: MetadataRequest
) -> MetadataResponse | Coroutine[Any, Any, MetadataResponse]:
    """Describe the topics asked for, or all. No task is needed while the catalogue at hand knows them."""
    if _asks_for_all(context, request):
        return _describe_all(context, request)
    names, topic_ids = _asked_for(context, request)
    denied = denied_topics(context, AclOperation.DESCRIBE, names)
    hidden = [_Missing(ErrorCode.TOPIC_AUTHORIZATION_FAILED, name) for name in names if name in denied]
    names = [name for name in names if name not in denied]
    catalogue = context.services.catalogue.at_hand(names=names, topic_ids=topic_ids, fresh_ids=True)
    if catalogue is None:
        return _look_up(context, request, names, topic_ids, hidden)
    known: list[TopicInfo | _Missing] = [catalogue.by_name[name] for name in names]
    known += _by_id(context, catalogue, topic_ids)
    return _response(context, request, [*known, *hidden])


class _Missing:
    """A topic that is asked for and can't be described."""

    def __init__(self, error: ErrorCode, name: str | None = None, topic_id: bytes = NO_TOPIC_ID) -> None:
        self.error = error
        self.name = name
        self.topic_id = topic_id


def _asks_for_all(context: RequestContext, request: MetadataRequest) -> bool:
    return request.topics is None or (context.version == 0 and not request.topics)


def _asked_for(context: RequestContext, request: MetadataRequest) -> tuple[list[str], list[TopicId]]:
    """Names or ids, each once, in the order of the request. Raises KafkaError."""
    asked = request.topics or []
    if any(topic.topic_id != NO_TOPIC_ID for topic in asked):
        if context.version < _IDS_IN_REQUEST_SINCE:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "this version asks for topics by name")
        return [], list(dict.fromkeys(TopicId(topic.topic_id) for topic in asked))
    names = list(dict.fromkeys(topic.name for topic in asked if topic.name is not None))
    if any(topic.name is None for topic in asked):
        raise KafkaError(ErrorCode.INVALID_REQUEST, "a topic has neither name nor id")
    return names, []


async def _describe_all(context: RequestContext, request: MetadataRequest) -> MetadataResponse:
    catalogue = await context.services.catalogue.everything()
    by_name = catalogue.by_name
    return _response(context, request, [by_name[name] for name in describable_topics(context, by_name)])


def _by_id(
    context: RequestContext, catalogue: Catalogue, topic_ids: Sequence[TopicId]
) -> list[TopicInfo | _Missing]:
    """Topics by id. An id is no secret, so one that stands for a topic that may not be described says so."""
    found: list[TopicInfo | _Missing] = []
    for topic_id in topic_ids:
        info = catalogue.by_id.get(topic_id)
        if info is None:
            found.append(_Missing(ErrorCode.UNKNOWN_TOPIC_ID, None, topic_id))
        elif allows_topic(context, AclOperation.DESCRIBE, info.name):
            found.append(info)
        else:
            found.append(_Missing(ErrorCode.TOPIC_AUTHORIZATION_FAILED, None, topic_id))
    return found


async def _look_up(
    context: RequestContext,
    request: MetadataRequest,
    names: Sequence[str],
    topic_ids: Sequence[TopicId],
    hidden: Sequence[_Missing],
) -> MetadataResponse:
    """Ask the store, and create what is missing where that is allowed."""
    if not topic_ids:
        found = await _by_name(context, names, may_create=request.allow_auto_topic_creation)
        return _response(context, request, [*found, *hidden])
    catalogue = await context.services.catalogue.lookup(topic_ids=topic_ids, fresh_ids=True)
    return _response(context, request, _by_id(context, catalogue, topic_ids))


async def _by_name(
    context: RequestContext, names: Sequence[str], *, may_create: bool
) -> Sequence[TopicInfo | _Missing]:
    """Topics by name; those that are missing are created where that is allowed."""
    service = context.services.catalogue
    catalogue = await _lookup_or_last_known(service, names)
    found: dict[str, TopicInfo | _Missing] = dict.fromkeys(names, _Missing(ErrorCode.NONE))
    unknown = []
    for name in names:
        info = catalogue.by_name.get(name)
        if info is None:
            unknown.append(name)
        else:
            found[name] = info
    if unknown and may_create and context.services.catalogue.defaults.auto_create_topics:
        created = await _create(context, unknown)
        catalogue = service.current
    else:
        created = [_unknown(name) for name in unknown]
    for name, result in zip(unknown, created, strict=True):
        if not isinstance(result, KafkaError):
            found[name] = result
        elif result.code is ErrorCode.TOPIC_ALREADY_EXISTS and name in catalogue.by_name:
            found[name] = catalogue.by_name[name]
        else:
            found[name] = _Missing(result.code, name)
    return list(found.values())


async def _create(context: RequestContext, names: Sequence[str]) -> list[TopicInfo | KafkaError]:
    """Create topics where the client may; in the order of their names."""
    denied: frozenset[str] = frozenset()
    if context.is_guarded and not permits_cluster(context, AclOperation.CREATE):
        denied = denied_topics(context, AclOperation.CREATE, names)
    wanted = [TopicRequest(name) for name in names if name not in denied]
    results = await create_within_quota(context, wanted, NEVER_STRICT)
    made = [result for result in results if not isinstance(result, KafkaError)]
    context.changed_each("created topics", map(topic_text, made))
    each = iter(results)
    refusal = KafkaError(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
    return [refusal if name in denied else next(each) for name in names]


async def _lookup_or_last_known(service: CatalogueService, names: Sequence[str]) -> Catalogue:
    """What the store says, or while it can't be reached what it said last, if that has all the names.

    An error there would make librdkafka forget the topics: it tells consumers that they don't exist, and takes their
    partitions from them.
    """
    try:
        return await service.lookup(names=names)
    except MetadataError:
        if all(name in service.current.by_name for name in names):
            return service.current
        raise


def _unknown(name: str) -> KafkaError:
    """Why there is no topic of that name: it can't exist, or it just does not."""
    try:
        check_topic_name(name)
    except KafkaError as error:
        return error
    return KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)


def _response(
    context: RequestContext, request: MetadataRequest, topics: Sequence[TopicInfo | _Missing]
) -> MetadataResponse:
    services = context.services
    choice = choice_for(context)
    operations = AUTHORIZED_OPERATIONS_OMITTED
    if request.include_cluster_authorized_operations:
        operations = cluster_operations(context)
    return MetadataResponse(
        brokers=[
            MetadataResponseBroker(node_id=agent.broker_id, host=agent.host, port=agent.port, rack=agent.rack)
            for agent in agents_for(context)
        ],
        cluster_id=services.cluster_id,
        controller_id=choice.leader,
        topics=[
            _topic(context, choice, topic, request.include_topic_authorized_operations) for topic in topics
        ],
        cluster_authorized_operations=operations,
    )


def _topic(
    context: RequestContext, choice: Choice, described: TopicInfo | _Missing, include_operations: bool
) -> MetadataResponseTopic:
    if isinstance(described, _Missing):
        name = described.name
        if name is None and context.version < _IDS_IN_REQUEST_SINCE:
            name = ""
        return MetadataResponseTopic(
            error_code=context.note(described.error), name=name, topic_id=described.topic_id, partitions=[]
        )
    operations = AUTHORIZED_OPERATIONS_OMITTED
    if include_operations:
        operations = topic_operations(context, described.name)
    return MetadataResponseTopic(
        error_code=ErrorCode.NONE,
        name=described.name,
        topic_id=described.topic_id,
        is_internal=described.name in INTERNAL_TOPICS,
        partitions=_partitions_of(choice, described),
        topic_authorized_operations=operations,
    )


def _partitions_of(choice: Choice, topic: TopicInfo) -> list[MetadataResponsePartition]:
    if not choice.is_spread:
        return _partitions(choice.replicas(choice.leader), topic.partitions)
    leaders = choice.leaders(topic.topic_id, topic.partitions)
    return [_partition(choice.replicas(leader), index) for index, leader in enumerate(leaders)]


@functools.lru_cache(maxsize=256)
def _partitions(agents: tuple[int, ...], count: int) -> list[MetadataResponsePartition]:
    """The first `count` partitions of any topic that have these replicas, the leader first.

    They are alike, so all topics share them, and nobody changes them.
    """
    return [_partition(agents, index) for index in range(count)]


def _partition(agents: tuple[int, ...], index: int) -> MetadataResponsePartition:
    replicas = list(agents)
    return MetadataResponsePartition(
        error_code=ErrorCode.NONE,
        partition_index=index,
        leader_id=agents[0],
        leader_epoch=LEADER_EPOCH,
        replica_nodes=replicas,
        isr_nodes=replicas,
    )


def metadata_failed(
    context: RequestContext, request: MetadataRequest, code: ErrorCode, message: str
) -> MetadataResponse | None:
    """The whole request failed: each topic asked for has the error.

    Where all were asked for there is no place for it. An answer without topics would tell the client that they are
    gone, so there is none.
    """
    if _asks_for_all(context, request):
        return None
    asked = request.topics or ()
    return _response(context, request, [_Missing(code, topic.name, topic.topic_id) for topic in asked])


async def describe_topic_partitions(
    context: RequestContext, request: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse:
    """Partitions of topics in the order of their names, page by page; an empty list asks for all topics (KIP-966)."""
    start_name, start_index = "", 0
    if request.cursor is not None:
        start_name, start_index = request.cursor.topic_name, request.cursor.partition_index
        if start_index < 0:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "the cursor's partition is negative")
    catalogue = context.services.catalogue
    if request.topics:
        names = sorted({topic.name for topic in request.topics})
        denied = denied_topics(context, AclOperation.DESCRIBE, (name for name in names if name >= start_name))
        by_name = (await catalogue.lookup(names=[name for name in names if name not in denied])).by_name
    else:
        everything = await catalogue.everything()
        by_name, denied = everything.by_name, frozenset()
        names = describable_topics(context, by_name)
    most = context.services.settings.described_partitions_max
    page = _Page(context, max(1, min(request.response_partition_limit, most)))
    for name in names:
        if name < start_name:
            continue
        if not page.has_room:
            page.next_cursor = DescribeTopicPartitionsCursor(topic_name=name, partition_index=0)
            break
        if name in denied:
            page.deny(name)
        else:
            page.add(name, by_name.get(name), start_index if name == start_name else 0)
        if page.next_cursor is not None:
            break
    return DescribeTopicPartitionsResponse(topics=page.topics, next_cursor=page.next_cursor)


class _Page:
    """One answer to DescribeTopicPartitions, filled up to its limit of partitions."""

    def __init__(self, context: RequestContext, partitions_max: int) -> None:
        self.topics: list[DescribeTopicPartitionsResponseTopic] = []
        self.next_cursor: DescribeTopicPartitionsCursor | None = None
        self._context = context
        self._choice = choice_for(context)
        self._room = partitions_max

    @property
    def has_room(self) -> bool:
        """Whether a partition more may be added."""
        return self._room > 0

    def deny(self, name: str) -> None:
        """Add a topic of which nothing may be told."""
        code = self._context.note(ErrorCode.TOPIC_AUTHORIZATION_FAILED)
        self.topics.append(_undescribed(name, code))

    def add(self, name: str, info: TopicInfo | None, start_index: int) -> None:
        """Add a topic from a partition on; what does not fit is left to the next page."""
        if info is None:
            code = self._context.note(_unknown(name).code)
            self.topics.append(_undescribed(name, code))
            return
        end = min(info.partitions, start_index + self._room)
        choice = self._choice
        leaders = choice.leaders(info.topic_id, end) if choice.is_spread else [choice.leader] * end
        partitions = [
            _described_partition(choice.replicas(leaders[index]), index) for index in range(start_index, end)
        ]
        self._room -= len(partitions)
        self.topics.append(
            DescribeTopicPartitionsResponseTopic(
                error_code=ErrorCode.NONE,
                name=name,
                topic_id=info.topic_id,
                is_internal=name in INTERNAL_TOPICS,
                partitions=partitions,
                topic_authorized_operations=topic_operations(self._context, name),
            )
        )
        if end < info.partitions:
            self.next_cursor = DescribeTopicPartitionsCursor(topic_name=name, partition_index=end)


def _undescribed(name: str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic(
        error_code=code, name=name, topic_id=NO_TOPIC_ID, partitions=[]
    )


def _described_partition(agents: tuple[int, ...], index: int) -> DescribeTopicPartitionsResponsePartition:
    return DescribeTopicPartitionsResponsePartition(
        error_code=ErrorCode.NONE,
        partition_index=index,
        leader_id=agents[0],
        leader_epoch=LEADER_EPOCH,
        replica_nodes=list(agents),
        isr_nodes=list(agents),
        eligible_leader_replicas=[],
        last_known_elr=[],
        offline_replicas=[],
    )


def describe_topic_partitions_failed(
    context: RequestContext, request: DescribeTopicPartitionsRequest, code: ErrorCode, message: str
) -> DescribeTopicPartitionsResponse:
    """The whole request failed: each topic asked for has the error."""
    context.note(code)
    return DescribeTopicPartitionsResponse(
        topics=[_undescribed(topic.name, code) for topic in request.topics]
    )
