"""DescribeClientQuotas and AlterClientQuotas: what clients may use in a time (KIP-546).

Behaviour: a filter names entity types, each with an exact name, the default or any; entities with further types match
too unless the filter is strict. Each entity of an alteration has its own result: all that is asked for it is done, or
nothing. What is removed need not have been there. With `validate_only` everything is checked and nothing changed. Any
agent does it, and all of them heed it within a second, each for what it serves itself.

Describing takes DESCRIBE_CONFIGS on the cluster, altering ALTER_CONFIGS.

Version notes: v1 differs in its encoding alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from warp.errors import ErrorCode, KafkaError
from warp.handlers.answer_memory import AnswerMemory
from warp.handlers.context import Held, RequestContext
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.messages.quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    AlterQuotaEntityResponse,
    AlterQuotaEntry,
    AlterQuotaEntryResponse,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
    QuotaEntity,
    QuotaEntry,
    QuotaValue,
)
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.authorizer import CLUSTER_NAME
from warp.security.quotas.changes import (
    Alteration,
    changes_of,
    checked_alteration,
    checked_filter,
    described,
    refuse_twice,
    told_changes,
)
from warp.security.quotas.entity import Entity

ALTERATIONS_MAX = 10_000
"""Entities in one request."""
_ENTITIES_AT_ONCE = 1_000
"""Described before others get their turn."""
_ENTITY_BYTES = 1_000
"""What one with a few quotas takes in an answer, beside its names."""
_REFUSED = "Cluster authorization failed."


async def describe_client_quotas(
    context: RequestContext, request: DescribeClientQuotasRequest
) -> DescribeClientQuotasResponse | Held:
    """Describe the quotas of the entities that a filter lets through."""
    if not context.allows(AclOperation.DESCRIBE_CONFIGS, AclResourceType.CLUSTER, CLUSTER_NAME):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return describe_client_quotas_failed(context, request, code, _REFUSED)
    components = checked_filter(
        (each.entity_type, each.match_type, each.match) for each in request.components
    )
    await context.services.catalogue.everything()
    entries = context.services.catalogue.entries(EntryKind.QUOTA)
    keys = sorted(entries)
    found: list[QuotaEntry] = []
    with AnswerMemory(context.services.answer_memory) as memory:
        for start in range(0, len(keys), _ENTITIES_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            part = {key: entries[key] for key in keys[start : start + _ENTITIES_AT_ONCE]}
            matching = described(part, components, is_strict=request.strict)
            if not await memory.take(sum(_size_bytes(entity) for entity, _ in matching)):
                raise KafkaError(
                    ErrorCode.REQUEST_TIMED_OUT, "No memory for so large an answer: ask for less"
                )
            found += [_entry(entity, values) for entity, values in matching]
    return memory.held(
        DescribeClientQuotasResponse(error_code=ErrorCode.NONE, error_message=None, entries=found)
    )


def _entry(entity: Entity, values: Mapping[str, float]) -> QuotaEntry:
    return QuotaEntry(
        entity=[QuotaEntity(entity_type=kind, entity_name=name) for kind, name in entity],
        values=[QuotaValue(key=key, value=value) for key, value in sorted(values.items())],
    )


def _size_bytes(entity: Entity) -> int:
    """About how much memory an entity takes in an answer and while that is built."""
    return _ENTITY_BYTES + sum(len(name or "") for _, name in entity)


def describe_client_quotas_failed(
    context: RequestContext, request: DescribeClientQuotasRequest, code: ErrorCode, message: str
) -> DescribeClientQuotasResponse:
    """The request failed."""
    return DescribeClientQuotasResponse(error_code=context.note(code), error_message=message, entries=None)


async def alter_client_quotas(
    context: RequestContext, request: AlterClientQuotasRequest
) -> AlterClientQuotasResponse:
    """Set and remove quotas."""
    if not context.allows(AclOperation.ALTER_CONFIGS, AclResourceType.CLUSTER, CLUSTER_NAME):
        code = ErrorCode.CLUSTER_AUTHORIZATION_FAILED
        return alter_client_quotas_failed(context, request, code, _REFUSED)
    if len(request.entries) > ALTERATIONS_MAX:
        message = f"more than {ALTERATIONS_MAX} entities in one request"
        return alter_client_quotas_failed(context, request, ErrorCode.INVALID_REQUEST, message)
    checked = refuse_twice([_checked(entry) for entry in request.entries])
    wanted = [each for each in checked if isinstance(each, Alteration)]
    if wanted and not request.validate_only:
        try:
            await _alter(context, wanted)
        except KafkaError as error:
            checked = [error if isinstance(each, Alteration) else each for each in checked]
    return AlterClientQuotasResponse(
        entries=[
            _result(context, entry, each.code, each.message)
            if isinstance(each, KafkaError)
            else _result(context, entry, ErrorCode.NONE, None)
            for entry, each in zip(request.entries, checked, strict=True)
        ]
    )


async def _alter(context: RequestContext, wanted: Sequence[Alteration]) -> None:
    told: list[str] = []

    def decide(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        changes = changes_of(wanted, entries)
        told[:] = told_changes(changes, entries)
        return changes

    with context.telling_each("altered client quotas", told):
        await context.services.catalogue.change_entries(EntryKind.QUOTA, decide)


def _checked(entry: AlterQuotaEntry) -> Alteration | KafkaError:
    parts = ((each.entity_type, each.entity_name) for each in entry.entity)
    try:
        return checked_alteration(parts, ((each.key, each.value, each.remove) for each in entry.ops))
    except KafkaError as error:
        return error


def _result(
    context: RequestContext, entry: AlterQuotaEntry, code: ErrorCode, message: str | None
) -> AlterQuotaEntryResponse:
    return AlterQuotaEntryResponse(
        error_code=context.note(code),
        error_message=message,
        entity=[
            AlterQuotaEntityResponse(entity_type=each.entity_type, entity_name=each.entity_name)
            for each in entry.entity
        ],
    )


def alter_client_quotas_failed(
    context: RequestContext, request: AlterClientQuotasRequest, code: ErrorCode, message: str
) -> AlterClientQuotasResponse:
    """The whole request failed: each entity has the error."""
    return AlterClientQuotasResponse(
        entries=[_result(context, entry, code, message) for entry in request.entries]
    )
