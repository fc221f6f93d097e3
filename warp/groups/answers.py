"""Answers that a request gets without its group's doing: because there is no such group, or nobody can say."""

from __future__ import annotations

from dataclasses import replace

from warp.errors import ErrorCode
from warp.groups.join import join_error
from warp.groups.model import (
    NO_GENERATION,
    NO_MEMBER_ID,
    Answer,
    CheckCommit,
    CheckOffsetDelete,
    CodeAnswer,
    Delete,
    Describe,
    DescribeAnswer,
    GroupSettings,
    Heartbeat,
    Join,
    JoinAnswer,
    Leave,
    LeaveAnswer,
    Left,
    OffsetDeleteAnswer,
    Request,
    Sync,
    SyncAnswer,
)
from warp.groups.text import GROUP_ID_BYTES_MAX, is_storable


def group_id_error(group_id: str, *, may_be_empty: bool = False) -> ErrorCode | None:
    """INVALID_GROUP_ID for an id that no group can have; committed offsets may stand under the empty one."""
    if (group_id or may_be_empty) and is_storable(group_id, GROUP_ID_BYTES_MAX):
        return None
    return ErrorCode.INVALID_GROUP_ID


def answer_without_group(request: Request, settings: GroupSettings) -> Answer | None:
    """What a request to a group that does not exist is answered; None when it makes one.

    Offsets may be deleted that were committed without a group, so CheckOffsetDelete is not refused here: whoever asks
    knows whether there are any, and answers GROUP_ID_NOT_FOUND if not. The same holds for Delete and Describe.
    """
    match request:
        case Join():
            error = join_error(request, settings)
            if error is None and request.member_id != NO_MEMBER_ID:
                error = ErrorCode.UNKNOWN_MEMBER_ID
            return None if error is None else JoinAnswer(error, request.member_id)
        case Sync() | Heartbeat():
            return refusal(request, ErrorCode.UNKNOWN_MEMBER_ID)
        case Leave():
            gone = ErrorCode.UNKNOWN_MEMBER_ID
            left = tuple(Left(leaver.member_id, leaver.instance_id, gone) for leaver in request.leavers)
            return LeaveAnswer(ErrorCode.NONE, left)
        case CheckCommit():
            is_simple = request.generation <= NO_GENERATION
            return CodeAnswer(ErrorCode.NONE if is_simple else ErrorCode.GROUP_ID_NOT_FOUND)
        case CheckOffsetDelete():
            return OffsetDeleteAnswer(ErrorCode.NONE)
        case Describe() | Delete():
            return refusal(request, ErrorCode.GROUP_ID_NOT_FOUND)


def refusal(request: Request, error: ErrorCode) -> Answer:
    """The answer to a request that fails as a whole."""
    match request:
        case Join():
            return JoinAnswer(error, request.member_id)
        case Sync():
            return SyncAnswer(error)
        case Leave():
            return LeaveAnswer(error)
        case CheckOffsetDelete():
            return OffsetDeleteAnswer(error)
        case Describe():
            return DescribeAnswer(error)
        case Heartbeat() | CheckCommit() | Delete():
            return CodeAnswer(error)


def answer_while_loading(request: Request, error: ErrorCode) -> Answer:
    """What a request is answered as long as its group is not in memory. As in Kafka, older clients are spared errors
    that they don't expect: heartbeats are accepted unseen, and whoever syncs is called to join again."""
    match request:
        case Heartbeat():
            return CodeAnswer(ErrorCode.NONE)
        case Sync():
            return SyncAnswer(ErrorCode.REBALANCE_IN_PROGRESS)
    return refusal(request, error)


def refused(answer: Answer, error: ErrorCode) -> Answer:
    """The answer that takes the place of one that must not be given any more."""
    match answer:
        case JoinAnswer():
            return JoinAnswer(error, answer.member_id)
        case SyncAnswer():
            return SyncAnswer(error)
        case LeaveAnswer():
            return LeaveAnswer(error)
        case OffsetDeleteAnswer():
            return OffsetDeleteAnswer(error)
        case DescribeAnswer():
            return DescribeAnswer(error)
        case CodeAnswer():
            return replace(answer, error=error)
