"""FindCoordinator, ListGroups, DescribeGroups and DeleteGroups: groups as seen from outside.

Behaviour: the coordinator of every group is an agent that holds the lease of its slot, known by the address of the
listener that the request came in on; when nobody who lives holds it, COORDINATOR_NOT_AVAILABLE. A name or key that a
request has twice is in the answer once.

FindCoordinator for a transactional id names an agent too: InitProducerId is where clients learn that transactions are
not served, in a way that all of them take as final. Share groups are not known: INVALID_REQUEST.

FindCoordinator takes DESCRIBE on the group or the transactional id, DescribeGroups DESCRIBE and DeleteGroups DELETE on
each group. ListGroups lists all to who may describe the cluster, to others those groups that they may describe.

Version notes: FindCoordinator v1 brings the kind of key, v4 several keys, each with its error (KIP-699). ListGroups
filters by state from v4 on (KIP-518), by type from v5 on (KIP-848), in any case of letters; words that stand for no
state or type match no group. Below v6 DescribeGroups describes an unknown group as Dead, without an error; from v6 on
that is GROUP_ID_NOT_FOUND with a message (KIP-1043). v3 can ask what the client may do with the group (KIP-430).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from warp.cluster.discovery import AgentAddress
from warp.errors import ErrorCode, ProtocolError
from warp.groups.model import Describe, DescribeAnswer, GroupOverview
from warp.handlers.access import allows_group, allows_transactional_id, permits_cluster
from warp.handlers.answer_memory import AnswerMemory
from warp.handlers.context import RequestContext
from warp.handlers.operations import group_operations
from warp.protocol.messages.groups import (
    Coordinator,
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)
from warp.protocol.types import AUTHORIZED_OPERATIONS_OMITTED, AclOperation

NAMES_MAX = 100_000
"""Groups or keys that one request may name; as many as an agent has. More closes the connection."""

_NAMES_PER_TURN = 500
"""Groups that are described or deleted before others have their turn on the loop."""
_GROUP_KEY = 0
_TRANSACTION_KEY = 1
_SEVERAL_KEYS_SINCE = 4
_NOT_FOUND_SINCE = 6
_GROUP_BYTES = 400
"""What a group costs in an answer beside its members."""
_MEMBER_BYTES = 500
"""What a member costs in an answer beside its metadata and assignment."""


def _each_once(names: Iterable[str]) -> list[str]:
    """The names, each once, in their order. Raises ProtocolError when they are too many."""
    once = list(dict.fromkeys(names))
    if len(once) > NAMES_MAX:
        raise ProtocolError(f"{len(once)} names in one request")
    return once


# FindCoordinator.


def find_coordinator(context: RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse:
    """Say which agent to ask about groups."""
    return _found(
        context, request, [_coordinator(context, request.key_type, key) for key in _keys(context, request)]
    )


def _keys(context: RequestContext, request: FindCoordinatorRequest) -> list[str]:
    if context.version < _SEVERAL_KEYS_SINCE:
        return [request.key]
    return _each_once(request.coordinator_keys)


def _coordinator(context: RequestContext, key_type: int, key: str) -> Coordinator:
    services = context.services
    if key_type not in (_GROUP_KEY, _TRANSACTION_KEY):
        return _no_coordinator(context, key, ErrorCode.INVALID_REQUEST, f"no coordinators of kind {key_type}")
    if key_type == _GROUP_KEY and not allows_group(context, AclOperation.DESCRIBE, key):
        return _no_coordinator(context, key, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    if key_type == _TRANSACTION_KEY and not allows_transactional_id(context, AclOperation.DESCRIBE, key):
        return _no_coordinator(context, key, ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "")
    own = context.client.advertised
    if services.groups.coordinates(key):
        holder = AgentAddress(services.broker_id, own.host, own.port, None)
    elif (other := services.discovery.coordinator(key, context.client.listener)) is not None:
        holder = other
    else:
        return _no_coordinator(
            context, key, ErrorCode.COORDINATOR_NOT_AVAILABLE, "nobody coordinates this now"
        )
    return Coordinator(
        key=key,
        node_id=holder.broker_id,
        host=holder.host,
        port=holder.port,
        error_code=ErrorCode.NONE,
        error_message=None,
    )


def _no_coordinator(context: RequestContext, key: str, error: ErrorCode, message: str) -> Coordinator:
    return Coordinator(
        key=key, node_id=-1, host="", port=-1, error_code=context.note(error), error_message=message
    )


def _found(
    context: RequestContext, request: FindCoordinatorRequest, found: list[Coordinator]
) -> FindCoordinatorResponse:
    if context.version >= _SEVERAL_KEYS_SINCE:
        return FindCoordinatorResponse(coordinators=found)
    (one,) = found
    return FindCoordinatorResponse(
        error_code=one.error_code,
        error_message=one.error_message,
        node_id=one.node_id,
        host=one.host,
        port=one.port,
    )


def find_coordinator_failed(
    context: RequestContext, request: FindCoordinatorRequest, code: ErrorCode, message: str
) -> FindCoordinatorResponse:
    """The whole request failed: each key has the error."""
    keys = _keys(context, request)
    return _found(context, request, [_no_coordinator(context, key, code, message) for key in keys])


# ListGroups.


async def list_groups(context: RequestContext, request: ListGroupsRequest) -> Any:
    """List the groups of this agent, those in some states or of some types where that is asked for (KIP-518, 848)."""
    groups = context.services.groups
    if groups.is_loading:
        return list_groups_failed(context, request, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "")
    states = {state.lower() for state in request.states_filter}
    types = {group_type.lower() for group_type in request.types_filter}
    may_see_all = not context.is_guarded or permits_cluster(context, AclOperation.DESCRIBE)
    chosen = [
        group
        for group in groups.list_groups()
        if (not states or group.state.lower() in states)
        and (not types or group.group_type.lower() in types)
        and (may_see_all or allows_group(context, AclOperation.DESCRIBE, group.group_id, is_asked_for=False))
    ]
    with AnswerMemory(context.services.answer_memory) as memory:
        if not await memory.take(sum(_GROUP_BYTES + len(group.group_id) for group in chosen)):
            return list_groups_failed(context, request, ErrorCode.COORDINATOR_NOT_AVAILABLE, "")
        response = ListGroupsResponse(error_code=ErrorCode.NONE, groups=[_listed(group) for group in chosen])
        return memory.held(response)


def _listed(group: GroupOverview) -> ListedGroup:
    return ListedGroup(
        group_id=group.group_id,
        protocol_type=group.protocol_type,
        group_state=group.state,
        group_type=group.group_type,
    )


def list_groups_failed(
    context: RequestContext, request: ListGroupsRequest, code: ErrorCode, message: str
) -> ListGroupsResponse:
    """The whole request failed."""
    return ListGroupsResponse(error_code=context.note(code), groups=[])


# DescribeGroups.


async def describe_groups(context: RequestContext, request: DescribeGroupsRequest) -> Any:
    """Describe groups with their members."""
    groups: list[DescribedGroup] = []
    with AnswerMemory(context.services.answer_memory) as memory:
        for place, group_id in enumerate(_each_once(request.groups)):
            if place % _NAMES_PER_TURN == 0:
                await asyncio.sleep(0)
            if not allows_group(context, AclOperation.DESCRIBE, group_id):
                groups.append(_undescribed(context, group_id, ErrorCode.GROUP_AUTHORIZATION_FAILED, None))
                continue
            answer = await context.services.groups.request(group_id, Describe())
            if not await memory.take(_size_bytes(answer)):
                answer = DescribeAnswer(ErrorCode.COORDINATOR_NOT_AVAILABLE)
            groups.append(_described(context, request, group_id, answer))
        return memory.held(DescribeGroupsResponse(groups=groups))


def _size_bytes(answer: DescribeAnswer) -> int:
    """About what a group costs in an answer."""
    members = sum(_MEMBER_BYTES + len(each.metadata) + len(each.assignment) for each in answer.members)
    return _GROUP_BYTES + members


def _described(
    context: RequestContext, request: DescribeGroupsRequest, group_id: str, answer: DescribeAnswer
) -> DescribedGroup:
    error = answer.error
    if error is ErrorCode.GROUP_ID_NOT_FOUND and context.version < _NOT_FOUND_SINCE:
        error = ErrorCode.NONE
    if error:
        return _undescribed(context, group_id, error, None)
    asked = request.include_authorized_operations
    return DescribedGroup(
        error_code=ErrorCode.NONE,
        group_id=group_id,
        group_state=answer.state,
        protocol_type=answer.protocol_type,
        protocol_data=answer.protocol,
        members=[
            DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata,
                member_assignment=member.assignment,
            )
            for member in answer.members
        ],
        authorized_operations=group_operations(context, group_id) if asked else AUTHORIZED_OPERATIONS_OMITTED,
    )


def _undescribed(
    context: RequestContext, group_id: str, error: ErrorCode, message: str | None
) -> DescribedGroup:
    is_unknown = error is ErrorCode.GROUP_ID_NOT_FOUND
    if is_unknown:
        message = f"Group {group_id} not found."
    return DescribedGroup(
        error_code=context.note(error),
        error_message=message if context.version >= _NOT_FOUND_SINCE else None,
        group_id=group_id,
        group_state="Dead" if is_unknown else "",
        protocol_type="",
        protocol_data="",
        members=[],
    )


def describe_groups_failed(
    context: RequestContext, request: DescribeGroupsRequest, code: ErrorCode, message: str
) -> DescribeGroupsResponse:
    """The whole request failed: each group has the error."""
    once = dict.fromkeys(request.groups)
    return DescribeGroupsResponse(groups=[_undescribed(context, each, code, message) for each in once])


# DeleteGroups.


async def delete_groups(context: RequestContext, request: DeleteGroupsRequest) -> DeleteGroupsResponse:
    """Delete groups that nobody is in, with what they have committed (KIP-229)."""
    names = _each_once(request.groups_names)
    results: dict[str, ErrorCode] = {}
    for start in range(0, len(names), _NAMES_PER_TURN):
        await asyncio.sleep(0)
        part = names[start : start + _NAMES_PER_TURN]
        allowed = [name for name in part if allows_group(context, AclOperation.DELETE, name)]
        results |= dict.fromkeys(part, ErrorCode.GROUP_AUTHORIZATION_FAILED)
        results |= await context.services.groups.delete_groups(allowed)
    context.changed_each(
        "deleted groups", (name for name, error in results.items() if error is ErrorCode.NONE)
    )
    return _deleted(context, results.items())


def _deleted(context: RequestContext, results: Iterable[tuple[str, ErrorCode]]) -> DeleteGroupsResponse:
    return DeleteGroupsResponse(
        results=[
            DeletableGroupResult(group_id=group_id, error_code=context.note(error))
            for group_id, error in results
        ]
    )


def delete_groups_failed(
    context: RequestContext, request: DeleteGroupsRequest, code: ErrorCode, message: str
) -> DeleteGroupsResponse:
    """The whole request failed: each group has the error."""
    return _deleted(context, [(group_id, code) for group_id in dict.fromkeys(request.groups_names)])
