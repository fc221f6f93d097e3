"""DescribeAcls, CreateAcls and DeleteAcls: who may do what (KIP-140, KIP-290).

Behaviour: listing takes DESCRIBE on the cluster, changing ALTER. Without authorization there are no ACLs:
SECURITY_DISABLED. Each ACL to create and each filter to delete by has its own result; those that are wrong are
INVALID_REQUEST, and the others take effect together. Creating what is there succeeds, and so does deleting by a filter
that matches nothing. Numbers that mean nothing, UNKNOWN among them, are INVALID_REQUEST where Kafka closes the
connection. What was changed is in force here before the answer, and with the other agents a moment later.

Version notes: v1 brings pattern types (KIP-290), v3 users as resources (KIP-373); they are understood in all versions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TypeVar

from warp.errors import ErrorCode, KafkaError
from warp.handlers.context import RequestContext
from warp.metadata.entries import EntryChange, EntryKind
from warp.protocol.messages.acls import (
    AclCreation,
    AclCreationResult,
    AclDescription,
    CreateAclsRequest,
    CreateAclsResponse,
    DeleteAclsFilter,
    DeleteAclsFilterResult,
    DeleteAclsMatchingAcl,
    DeleteAclsRequest,
    DeleteAclsResponse,
    DescribeAclsRequest,
    DescribeAclsResource,
    DescribeAclsResponse,
)
from warp.protocol.types import AclOperation, AclPatternType, AclPermissionType, AclResourceType
from warp.security.acl import Acl, AclFilter, acl_key, check_acl
from warp.security.authorizer import CLUSTER_NAME

ACLS_MAX = 20_000
"""That there may be; each agent holds all of them in memory, some 1.2 KiB each."""
CHANGES_MAX = 10_000
"""ACLs that one request may create, and filters that it may have; Kafka has the same limit."""
WIDE_FILTERS_MAX = 100
"""Filters of one request that leave something open, so that they have to be compared with every ACL."""

_ACLS_PER_TURN = 1_000
"""ACLs that are checked, or compared with a filter, before others have their turn on the loop."""

E = TypeVar("E", bound=IntEnum)


def _check_allowed(context: RequestContext, operation: AclOperation) -> None:
    """Raises KafkaError when the client may not, or when there is no authorization."""
    if not context.allows(operation, AclResourceType.CLUSTER, CLUSTER_NAME):
        problem = f"{operation.name} on the cluster is not allowed"
        raise KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, problem)
    if not context.services.authorizer.is_on:
        raise KafkaError(ErrorCode.SECURITY_DISABLED, "there are no ACLs: authorization is off")


def _check_count(count: int) -> None:
    if count > CHANGES_MAX:
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION, f"{count} changes in one request, more than {CHANGES_MAX}"
        )


def _member(kind: type[E], number: int) -> E:
    """The meaning of a number of the protocol. Raises KafkaError."""
    try:
        found = kind(number)
    except ValueError:
        found = kind(0)
    if not found:
        what = kind.__name__.removeprefix("Acl")
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"{what} {number} is not known")
    return found


# ---- DescribeAcls ----


async def describe_acls(context: RequestContext, request: DescribeAclsRequest) -> DescribeAclsResponse:
    """List the ACLs that a filter means, by resource."""
    try:
        _check_allowed(context, AclOperation.DESCRIBE)
        wanted = _filter(request)
    except KafkaError as error:
        return describe_acls_failed(context, request, error.code, error.message)
    # Whoever has changed ACLs through another agent wants to see that.
    await context.services.catalogue.refresh()
    (found,) = await _matching(context, [wanted])
    by_resource: dict[tuple[AclResourceType, AclPatternType, str], list[AclDescription]] = {}
    for acl in found:
        by_resource.setdefault((acl.resource, acl.pattern, acl.name), []).append(
            AclDescription(
                principal=acl.principal,
                host=acl.host,
                operation=acl.operation,
                permission_type=acl.permission,
            )
        )
    return DescribeAclsResponse(
        error_code=ErrorCode.NONE,
        error_message=None,
        resources=[
            DescribeAclsResource(resource_type=resource, resource_name=name, pattern_type=pattern, acls=acls)
            for (resource, pattern, name), acls in by_resource.items()
        ],
    )


def describe_acls_failed(
    context: RequestContext, request: DescribeAclsRequest, code: ErrorCode, message: str
) -> DescribeAclsResponse:
    """The request failed."""
    return DescribeAclsResponse(error_code=context.note(code), error_message=message, resources=[])


# ---- CreateAcls ----


async def create_acls(context: RequestContext, request: CreateAclsRequest) -> CreateAclsResponse:
    """Create ACLs; those that are there already stay as they are."""
    try:
        _check_allowed(context, AclOperation.ALTER)
        _check_count(len(request.creations))
    except KafkaError as error:
        return create_acls_failed(context, request, error.code, error.message)
    checked: list[Acl | KafkaError] = []
    for number, creation in enumerate(request.creations, 1):
        checked.append(_creation(creation))
        if number % _ACLS_PER_TURN == 0:
            await asyncio.sleep(0)
    wanted = [acl for acl in checked if not isinstance(acl, KafkaError)]
    if wanted:
        try:
            await _create(context, wanted)
        except KafkaError as error:
            return create_acls_failed(context, request, error.code, error.message)
    return CreateAclsResponse(
        results=[
            _not_created(context, acl.code, acl.message)
            if isinstance(acl, KafkaError)
            else AclCreationResult(error_code=ErrorCode.NONE, error_message=None)
            for acl in checked
        ]
    )


async def _create(context: RequestContext, wanted: Sequence[Acl]) -> None:
    """Make these ACLs be there. Raises KafkaError."""
    acls = {acl_key(acl): acl for acl in wanted}
    made: list[str] = []

    def decide(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        missing = [EntryChange(key, "") for key in acls if key not in entries]
        if missing and len(entries) + len(missing) > ACLS_MAX:
            problem = f"there are {len(entries)} ACLs, and no more than {ACLS_MAX} may be"
            raise KafkaError(ErrorCode.POLICY_VIOLATION, problem)
        made[:] = [str(acls[change.key]) for change in missing]
        return missing

    with context.telling_each("created ACLs", made):
        await context.services.catalogue.change_entries(EntryKind.ACL, decide)


def _creation(creation: AclCreation) -> Acl | KafkaError:
    try:
        acl = Acl(
            _member(AclResourceType, creation.resource_type),
            _member(AclPatternType, creation.resource_pattern_type),
            creation.resource_name,
            creation.principal,
            creation.host,
            _member(AclOperation, creation.operation),
            _member(AclPermissionType, creation.permission_type),
        )
        check_acl(acl)
    except KafkaError as error:
        return error
    return acl


def _not_created(context: RequestContext, code: ErrorCode, message: str) -> AclCreationResult:
    return AclCreationResult(error_code=context.note(code), error_message=message)


def create_acls_failed(
    context: RequestContext, request: CreateAclsRequest, code: ErrorCode, message: str
) -> CreateAclsResponse:
    """The whole request failed: each ACL has the error."""
    return CreateAclsResponse(results=[_not_created(context, code, message) for _ in request.creations])


# ---- DeleteAcls ----


async def delete_acls(context: RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse:
    """Delete what any of the filters means; one that several mean is told by each of them."""
    try:
        _check_allowed(context, AclOperation.ALTER)
        _check_count(len(request.filters))
    except KafkaError as error:
        return delete_acls_failed(context, request, error.code, error.message)
    checked = [_checked_filter(one) for one in request.filters]
    wanted = [one for one in checked if not isinstance(one, KafkaError)]
    try:
        found = iter(await _delete(context, wanted) if wanted else ())
    except KafkaError as error:
        return delete_acls_failed(context, request, error.code, error.message)
    return DeleteAclsResponse(
        filter_results=[
            _not_deleted(context, one.code, one.message)
            if isinstance(one, KafkaError)
            else DeleteAclsFilterResult(
                error_code=ErrorCode.NONE, error_message=None, matching_acls=list(map(_deleted, next(found)))
            )
            for one in checked
        ]
    )


async def _delete(context: RequestContext, wanted: Sequence[AclFilter]) -> list[list[Acl]]:
    """Delete what the filters mean now; per filter what was deleted. Raises KafkaError."""
    if sum(one.exact is None for one in wanted) > WIDE_FILTERS_MAX:
        problem = f"more than {WIDE_FILTERS_MAX} filters that leave something open in one request"
        raise KafkaError(ErrorCode.POLICY_VIOLATION, problem)
    catalogue = context.services.catalogue
    await catalogue.refresh()
    found = await _matching(context, wanted)
    acls = {acl_key(acl): acl for matching in found for acl in matching}
    gone: list[str] = []

    def decide(entries: Mapping[str, str]) -> Sequence[EntryChange]:
        changes = [EntryChange(key, None) for key in acls if key in entries]
        gone[:] = [str(acls[change.key]) for change in changes]
        return changes

    with context.telling_each("deleted ACLs", gone):
        changes = await catalogue.change_entries(EntryKind.ACL, decide)
    deleted = {acls[change.key] for change in changes}
    return [[acl for acl in matching if acl in deleted] for matching in found]


def _checked_filter(one: DeleteAclsFilter) -> AclFilter | KafkaError:
    try:
        return _filter(one)
    except KafkaError as error:
        return error


def _deleted(acl: Acl) -> DeleteAclsMatchingAcl:
    return DeleteAclsMatchingAcl(
        error_code=ErrorCode.NONE,
        error_message=None,
        resource_type=acl.resource,
        resource_name=acl.name,
        pattern_type=acl.pattern,
        principal=acl.principal,
        host=acl.host,
        operation=acl.operation,
        permission_type=acl.permission,
    )


def _not_deleted(context: RequestContext, code: ErrorCode, message: str) -> DeleteAclsFilterResult:
    return DeleteAclsFilterResult(error_code=context.note(code), error_message=message, matching_acls=[])


def delete_acls_failed(
    context: RequestContext, request: DeleteAclsRequest, code: ErrorCode, message: str
) -> DeleteAclsResponse:
    """The whole request failed: each filter has the error."""
    return DeleteAclsResponse(filter_results=[_not_deleted(context, code, message) for _ in request.filters])


# ---- filters ----


def _filter(asked: DescribeAclsRequest | DeleteAclsFilter) -> AclFilter:
    """The filter of a request. Raises KafkaError."""
    return AclFilter(
        _member(AclResourceType, asked.resource_type_filter),
        _member(AclPatternType, asked.pattern_type_filter),
        asked.resource_name_filter,
        asked.principal_filter,
        asked.host_filter,
        _member(AclOperation, asked.operation),
        _member(AclPermissionType, asked.permission_type),
    )


async def _matching(context: RequestContext, filters: Sequence[AclFilter]) -> list[list[Acl]]:
    """Per filter the ACLs that it means, in order, of those that this agent knows at the beginning."""
    known = dict(context.services.acls)
    acls = list(known.values())
    found = []
    for one in filters:
        if (exact := one.exact) is not None:
            found.append([exact] if acl_key(exact) in known else [])
            continue
        matching: list[Acl] = []
        for start in range(0, len(acls), _ACLS_PER_TURN):
            if start:
                await asyncio.sleep(0)
            matching += filter(one.matches, acls[start : start + _ACLS_PER_TURN])
        found.append(sorted(matching))
    return found
