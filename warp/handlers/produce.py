"""Produce: record batches in, base offsets out.

Behaviour: the checks come in Kafka's order: transactional batches without a transactional id; per partition whether it
may be written to (WRITE), whether it exists; the acks; internal topics; then the batch itself, which is the produce
service's business. A partition that fails has its own error, and the others are appended, all in one commit. Produce
never creates topics.

acks 1 is answered as -1: when the records are durable. acks 0 is never answered; if any partition fails, the
connection is closed, the only sign that such a client can get. The request's timeout holds for acks -1 alone, as in
Kafka.

Transactions are not served yet: a transactional batch, or a transactional id, gets
TRANSACTIONAL_ID_AUTHORIZATION_FAILED in every partition, as InitProducerId answers.

A topic named by id is taken from the catalogue at hand, because the commit finds out that a log is gone; one that is
named by name may have been created anew elsewhere, so the snapshot must not be older than a second. A partition that
the snapshot lacks is looked for in the store. An agent whose session in the cluster has lapsed looks at the store
whatever it knows, and if that fails answers NOT_LEADER_OR_FOLLOWER: others may well reach the store.

Version notes: below v7 zstd is refused (KIP-110). v8 reports the records at fault (KIP-467). v13 names topics by id
(KIP-516).
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from warp.cluster.topic_request import INTERNAL_TOPICS
from warp.errors import ErrorCode, KafkaError, MetadataError
from warp.handlers import inline
from warp.handlers.access import TopicAccess, access_to, allows_transactional_id
from warp.handlers.context import Later, NoAnswer, RequestContext
from warp.handlers.resolve import may_be_new, target_of, topic_of
from warp.handlers.throttle import charge_produced, hold_back
from warp.ids import TopicId
from warp.log.model import Append, AppendOutcome
from warp.protocol.messages.produce import (
    ProducePartition,
    ProducePartitionResponse,
    ProduceRequest,
    ProduceResponse,
    ProduceTopic,
    ProduceTopicResponse,
    RecordError,
)
from warp.protocol.types import AclOperation

if TYPE_CHECKING:
    from warp.cluster.catalogue import Catalogue, TopicInfo
    from warp.log.produce import Staged

ACKS_NONE = 0
ACKS_ALL = -1
_ACKS = (ACKS_ALL, ACKS_NONE, 1)
_TIMEOUT_WITHOUT_ACKS_ALL_MS = 30_000
_MAGIC_BYTE = 16
_MAGIC = 2
_ATTRIBUTES_LOW_BYTE = 22
_TRANSACTIONAL = 0x10
_ZSTD_SINCE = 7
_IDS_SINCE = 13


def batches_of(request: ProduceRequest) -> int:
    """How many batches wait for their commit together."""
    return sum(len(topic.partition_data) for topic in request.topic_data)


def produce(context: RequestContext, request: ProduceRequest) -> Any:
    """Stage the batches; what is left is waiting for the commit."""
    context.client.used_s = context.services.clock.monotonic()
    topics = context.services.catalogue
    access = access_to(context, AclOperation.WRITE)
    plan = _Plan(context, request, topics.current, access)
    if plan.is_transactional:
        if request.transactional_id is not None:
            allows_transactional_id(context, AclOperation.WRITE, request.transactional_id)
        code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        return produce_failed(context, request, code, "transactions are not served")
    is_stale = not topics.is_fresh and (context.version < _IDS_SINCE or context.services.discovery.is_cut_off)
    if plan.has_unknown_topics or plan.has_unknown_partitions or is_stale:
        return _after_lookup(context, request, access)
    return _stage(plan)


async def _after_lookup(context: RequestContext, request: ProduceRequest, access: TopicAccess | None) -> Any:
    """Ask the store for the topics that the catalogue does not know.

    An agent that is cut off from the store sends its clients to others: their next Metadata names one.
    """
    try:
        plan = await _looked_up(context, request, access)
    except MetadataError as error:
        if context.services.discovery.is_cut_off:
            code = ErrorCode.NOT_LEADER_OR_FOLLOWER
            raise KafkaError(code, "this agent is cut off from the metadata store") from error
        raise
    result = _stage(plan)
    return await result if isinstance(result, CoroutineType) else result


async def _looked_up(context: RequestContext, request: ProduceRequest, access: TopicAccess | None) -> _Plan:
    catalogue = context.services.catalogue
    if context.version < _IDS_SINCE:
        named = (topic.name for topic in request.topic_data)
        found = await catalogue.lookup(names=[n for n in named if access is None or access.allows(n)])
    elif context.services.discovery.is_cut_off:
        found = await catalogue.refresh()
    else:
        found = await catalogue.lookup(topic_ids=[TopicId(topic.topic_id) for topic in request.topic_data])
    plan = _Plan(context, request, found, access)
    if plan.has_unknown_partitions:
        plan = _Plan(context, request, await catalogue.refresh(), access)
    return plan


def _stage(plan: _Plan) -> Any:
    """Stage what can be appended; without a task unless that has to wait."""
    if not plan.appends:
        return plan.answer(())
    staged = inline.begin(plan.stage())
    if isinstance(staged, inline.Waits):
        return _after_staging(plan, staged)
    return plan.later(staged)


async def _after_staging(plan: _Plan, staging: inline.Waits[Staged]) -> Later:
    return plan.later(await staging)


class _Plan:
    """What becomes of each partition of one request: an error at once, or the outcome of an append."""

    __slots__ = (
        "_context",
        "_errors",
        "_request",
        "appends",
        "has_unknown_partitions",
        "has_unknown_topics",
        "is_transactional",
    )

    def __init__(
        self,
        context: RequestContext,
        request: ProduceRequest,
        catalogue: Catalogue,
        access: TopicAccess | None,
    ) -> None:
        self.appends: list[Append] = []
        self.is_transactional = request.transactional_id is not None
        self.has_unknown_topics = False
        self.has_unknown_partitions = False
        """Of topics that are there: another agent may have added them since."""
        self._context = context
        self._request = request
        self._errors: list[AppendOutcome | None] = []
        """Per partition, in the order of the request; None for those that are appended."""
        by_id = context.version >= _IDS_SINCE
        for topic in request.topic_data:
            found = topic_of(catalogue, topic.name, topic.topic_id, by_id=by_id)
            if access is not None:
                found = access.guarded(found, topic.name)
            if isinstance(found, ErrorCode) and found is not ErrorCode.TOPIC_AUTHORIZATION_FAILED:
                self.has_unknown_topics = True
            for partition in topic.partition_data:
                self._errors.append(self._plan(found, partition))

    def _plan(self, topic: TopicInfo | ErrorCode, partition: ProducePartition) -> AppendOutcome | None:
        records = partition.records
        # What is no batch of magic 2 has no such bit; the produce service says what is wrong with it.
        if records is not None and len(records) > _ATTRIBUTES_LOW_BYTE and records[_MAGIC_BYTE] == _MAGIC:
            self.is_transactional |= bool(records[_ATTRIBUTES_LOW_BYTE] & _TRANSACTIONAL)
        target = target_of(topic, partition.index)
        if isinstance(target, ErrorCode):
            self.has_unknown_partitions |= may_be_new(topic, target)
            return AppendOutcome(target)
        if self._request.acks not in _ACKS:
            return AppendOutcome(ErrorCode.INVALID_REQUIRED_ACKS)
        if target.topic in INTERNAL_TOPICS:
            return AppendOutcome(
                ErrorCode.INVALID_TOPIC_EXCEPTION, message="clients can't write to this topic"
            )
        if not records:
            return AppendOutcome(ErrorCode.INVALID_RECORD, message="no record batch")
        self.appends.append(Append(target, records, self._context.version >= _ZSTD_SINCE))
        return None

    def stage(self) -> Coroutine[Any, Any, Staged]:
        """Put the batches in line."""
        context, request = self._context, self._request
        if context.services.quotas.limits_produce:
            charge_produced(context, sum(len(append.records) for append in self.appends))
        if context.services.hold_back.is_on:
            hold_back(context, sum(len(append.records) for append in self.appends))
        timeout_ms = request.timeout_ms if request.acks == ACKS_ALL else _TIMEOUT_WITHOUT_ACKS_ALL_MS
        return context.services.produce.stage(self.appends, timeout_ms)

    def later(self, staged: Staged) -> Later:
        """The answer, once the batches are committed."""
        return Later(staged.outcomes, self.answer, is_answered=self._request.acks != ACKS_NONE)

    def answer(self, outcomes: Sequence[AppendOutcome]) -> ProduceResponse | NoAnswer:
        """The answer, given what became of the appends."""
        appended = iter(outcomes)
        merged = [self._known_as(next(appended)) if error is None else error for error in self._errors]
        for outcome in merged:
            self._context.note(outcome.error)
        if self._request.acks == ACKS_NONE:
            return _close_on_error(self._context)
        each = iter(merged)
        return ProduceResponse(
            responses=[
                _topic_response(topic, [_response(part.index, next(each)) for part in topic.partition_data])
                for topic in self._request.topic_data
            ]
        )

    def _known_as(self, outcome: AppendOutcome) -> AppendOutcome:
        """The outcome; where a topic that was asked for by its id is gone since, in the code for that."""
        is_gone = outcome.error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if is_gone and self._context.version >= _IDS_SINCE:
            return outcome._replace(error=ErrorCode.UNKNOWN_TOPIC_ID)
        return outcome


def _topic_response(topic: ProduceTopic, partitions: list[ProducePartitionResponse]) -> ProduceTopicResponse:
    return ProduceTopicResponse(name=topic.name, topic_id=topic.topic_id, partition_responses=partitions)


def _response(index: int, outcome: AppendOutcome) -> ProducePartitionResponse:
    if outcome.error is ErrorCode.NONE:
        return ProducePartitionResponse(
            index=index,
            error_code=ErrorCode.NONE,
            base_offset=outcome.base_offset,
            log_append_time_ms=outcome.log_append_time_ms,
            log_start_offset=outcome.log_start_offset,
        )
    return ProducePartitionResponse(
        index=index,
        error_code=outcome.error,
        base_offset=-1,
        record_errors=[
            RecordError(batch_index=batch_index, batch_index_error_message=message)
            for batch_index, message in outcome.record_errors
        ],
        error_message=outcome.message,
    )


def _close_on_error(context: RequestContext) -> NoAnswer:
    if context.error is ErrorCode.NONE:
        return NoAnswer()
    return NoAnswer(close=f"a Produce that wants no answer failed with {context.error.name}")


def produce_failed(
    context: RequestContext, request: ProduceRequest, code: ErrorCode, message: str
) -> ProduceResponse | NoAnswer:
    """The whole request failed: every partition has the error."""
    context.note(code)
    if request.acks == ACKS_NONE:
        return _close_on_error(context)
    failed = AppendOutcome(code, message=message)
    return ProduceResponse(
        responses=[
            _topic_response(topic, [_response(part.index, failed) for part in topic.partition_data])
            for topic in request.topic_data
        ]
    )
