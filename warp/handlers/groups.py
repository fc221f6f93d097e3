"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup: being a member of a group.

Behaviour: what a group does stands in docs/groups.md; here requests become words that its machine knows. A JoinGroup or
SyncGroup that has to wait for other members costs no task. Requests behind it on its connection wait too, as with
Kafka, so a client's next request meets the group that its JoinGroup has put it into. When the client hangs up, nobody
waits any more, but the group goes on as if somebody did: a member is lost by its session, not by its connection. As
members may wait for minutes, the memory of their requests is given back meanwhile: what a group keeps of them has its
own limits. All four take READ on the group, and an answer that was waited for takes it still when it comes.

Version notes: JoinGroup v0 has no rebalance timeout, so the session timeout counts. Below v4 a new member is let in at
once, from v4 on it has to come again with the id that it is given (KIP-394). v5 (and SyncGroup v3, Heartbeat v3) knows
static members (KIP-345). Below v7 there is no protocol type in the answer, and no null for the protocol's name
(KIP-559). v9 tells a leader that it may skip the assignment (KIP-814). From SyncGroup v5 on type and name of the
protocol are compared with the group's (KIP-559). LeaveGroup v3 names several members, with an error for each (KIP-345).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from warp.errors import ErrorCode, ProtocolError
from warp.groups.model import (
    CodeAnswer,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Leaver,
    Sync,
    SyncAnswer,
)
from warp.handlers.access import allows_group
from warp.handlers.answer_memory import charged
from warp.handlers.context import Later, RequestContext
from warp.protocol.messages.groups import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
    LeaveGroupMemberResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)
from warp.protocol.types import AclOperation

_ID_REQUIRED_SINCE = 4
_NULL_PROTOCOL_SINCE = 7
_SKIP_ASSIGNMENT_SINCE = 9
_SEVERAL_LEAVERS_SINCE = 3
LEAVERS_MAX = 100_000
"""Members that one LeaveGroup may name. More closes the connection."""
_MEMBER_BYTES = 300
"""What a member costs in an answer beside its metadata."""

AnswerT = TypeVar("AnswerT")


def _answered(future: asyncio.Future[AnswerT], build: Callable[[AnswerT], Any]) -> Any:
    """The response now if the answer is there, else later."""
    if future.done():
        return build(future.result())
    return Later(future, build, ends_with_client=True)


def _parked(future: asyncio.Future[AnswerT], build: Callable[[AnswerT], Any]) -> Any:
    """As `_answered`, for a request of which nothing large is left."""
    if future.done():
        return build(future.result())
    return Later(future, build, ends_with_client=True, needs_request=False)


def _may_still_read(context: RequestContext, group_id: str) -> bool:
    """Whether the client may read the group now that the answer has come; where that is only logged, told once."""
    return allows_group(context, AclOperation.READ, group_id, is_asked_for=not context.denied_count)


# JoinGroup.


def join_group(context: RequestContext, request: JoinGroupRequest) -> Any:
    """Let a member in, or in again, to the next generation."""
    if not allows_group(context, AclOperation.READ, request.group_id):
        return join_group_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    groups = context.services.groups
    join = Join(
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        client_id=context.client_id or "",
        client_host=client_host(context.client.address),
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=request.rebalance_timeout_ms,
        protocol_type=request.protocol_type,
        protocols=tuple((protocol.name, protocol.metadata) for protocol in request.protocols),
        fresh_id=groups.fresh_id(),
        id_required=context.version >= _ID_REQUIRED_SINCE,
        can_skip_assignment=context.version >= _SKIP_ASSIGNMENT_SINCE,
        reason=request.reason,
    )
    request.protocols, request.reason = [], None
    future = groups.request(request.group_id, join)
    return _parked(future, lambda answer: _joined(context, request, answer))


def client_host(address: str) -> str:
    """The host of a peer's HOST:PORT, in the form in which Kafka tells it to tools."""
    host, _, _ = address.rpartition(":")
    return f"/{host.strip('[]') or address}"


def _joined(context: RequestContext, request: JoinGroupRequest, answer: JoinAnswer) -> Any:
    if not _may_still_read(context, request.group_id):
        return join_group_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    response = JoinGroupResponse(
        error_code=context.note(answer.error),
        generation_id=answer.generation,
        protocol_type=answer.protocol_type,
        protocol_name=_protocol_name(context, answer.protocol),
        leader=answer.leader,
        skip_assignment=answer.skip_assignment,
        member_id=answer.member_id,
        members=[
            JoinGroupResponseMember(
                member_id=member.member_id, group_instance_id=member.instance_id, metadata=member.metadata
            )
            for member in answer.members
        ],
    )
    size_bytes = sum(_MEMBER_BYTES + len(member.metadata) for member in answer.members)
    return charged(context.services.answer_memory, response, size_bytes)


def _protocol_name(context: RequestContext, protocol: str | None) -> str | None:
    if protocol is None and context.version < _NULL_PROTOCOL_SINCE:
        return ""
    return protocol


def join_group_failed(
    context: RequestContext, request: JoinGroupRequest, code: ErrorCode, message: str
) -> JoinGroupResponse:
    """The whole request failed."""
    return JoinGroupResponse(
        error_code=context.note(code),
        protocol_name=_protocol_name(context, None),
        leader="",
        member_id=request.member_id,
        members=[],
    )


# SyncGroup.


def sync_group(context: RequestContext, request: SyncGroupRequest) -> Any:
    """Hand a member its assignment; the leader brings those of all."""
    if not allows_group(context, AclOperation.READ, request.group_id):
        return sync_group_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    sync = Sync(
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        generation=request.generation_id,
        protocol_type=request.protocol_type,
        protocol=request.protocol_name,
        assignments=[(entry.member_id, entry.assignment) for entry in request.assignments],
    )
    future = context.services.groups.request(request.group_id, sync)
    request.assignments = []
    return _parked(future, lambda answer: _synced(context, request, answer))


def _synced(context: RequestContext, request: SyncGroupRequest, answer: SyncAnswer) -> Any:
    if not _may_still_read(context, request.group_id):
        return sync_group_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    response = SyncGroupResponse(
        error_code=context.note(answer.error),
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol,
        assignment=answer.assignment,
    )
    return charged(context.services.answer_memory, response, len(answer.assignment))


def sync_group_failed(
    context: RequestContext, request: SyncGroupRequest, code: ErrorCode, message: str
) -> SyncGroupResponse:
    """The whole request failed."""
    return SyncGroupResponse(error_code=context.note(code), assignment=b"")


# Heartbeat.


def heartbeat(context: RequestContext, request: HeartbeatRequest) -> Any:
    """Keep a member's session alive, and tell it when it has to join again."""
    if not allows_group(context, AclOperation.READ, request.group_id):
        return heartbeat_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    groups = context.services.groups
    error = groups.heartbeat(
        request.group_id, request.member_id, request.group_instance_id, request.generation_id
    )
    if error is not None:
        return HeartbeatResponse(error_code=context.note(error))
    waits = Heartbeat(request.member_id, request.group_instance_id, request.generation_id)
    return _answered(groups.request(request.group_id, waits), lambda answer: _alive(context, answer))


def _alive(context: RequestContext, answer: CodeAnswer) -> HeartbeatResponse:
    return HeartbeatResponse(error_code=context.note(answer.error))


def heartbeat_failed(
    context: RequestContext, request: HeartbeatRequest, code: ErrorCode, message: str
) -> HeartbeatResponse:
    """The whole request failed."""
    return HeartbeatResponse(error_code=context.note(code))


# LeaveGroup.


def leave_group(context: RequestContext, request: LeaveGroupRequest) -> Any:
    """Let members go: the one that asks, or those that an administrator names. Raises ProtocolError."""
    if len(request.members) > LEAVERS_MAX:
        raise ProtocolError(f"{len(request.members)} names in one request")
    if not allows_group(context, AclOperation.READ, request.group_id):
        return leave_group_failed(context, request, ErrorCode.GROUP_AUTHORIZATION_FAILED, "")
    leavers: tuple[Leaver, ...]
    if context.version < _SEVERAL_LEAVERS_SINCE:
        leavers = (Leaver(request.member_id),)
    else:
        leavers = tuple(
            Leaver(member.member_id, member.group_instance_id, member.reason) for member in request.members
        )
    future = context.services.groups.request(request.group_id, Leave(leavers))
    return _answered(future, lambda answer: _left(context, answer))


def _left(context: RequestContext, answer: LeaveAnswer) -> LeaveGroupResponse:
    error = answer.error
    for left in answer.members:
        context.note(left.error)
    if context.version < _SEVERAL_LEAVERS_SINCE:
        error = error or answer.members[0].error
        return LeaveGroupResponse(error_code=context.note(error))
    return LeaveGroupResponse(
        error_code=context.note(error),
        members=[
            LeaveGroupMemberResponse(
                member_id=left.member_id, group_instance_id=left.instance_id, error_code=left.error
            )
            for left in answer.members
        ],
    )


def leave_group_failed(
    context: RequestContext, request: LeaveGroupRequest, code: ErrorCode, message: str
) -> LeaveGroupResponse:
    """The whole request failed."""
    return LeaveGroupResponse(error_code=context.note(code))
