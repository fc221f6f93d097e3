"""LeaveGroup: members go, by themselves or sent away by name.

Sources: Kafka protocol, LeaveGroup v0-5; KIP-345 (several members, static ones by their instance), KIP-800 (reasons).
"""

from __future__ import annotations

from warp.errors import ErrorCode
from warp.groups.model import NO_MEMBER_ID, Leave, LeaveAnswer, Leaver, Left, Now
from warp.groups.rebalance import GroupCore
from warp.groups.text import clean_reason


def leave(group: GroupCore, token: object, request: Leave, now: Now) -> None:
    """Remove the members; one rebalance follows for all of them."""
    removed: list[str] = []
    left = [
        Left(leaver.member_id, leaver.instance_id, _leave(group, leaver, removed, now))
        for leaver in request.leavers
    ]
    group.reply(token, LeaveAnswer(ErrorCode.NONE, tuple(left)))
    if removed:
        group.after_removal(now, f"{removed[0]} left, {len(removed)} members in all")
    else:
        group.maybe_end_join_phase(now)


def _leave(group: GroupCore, leaver: Leaver, removed: list[str], now: Now) -> ErrorCode:
    if leaver.member_id in group.roster.pending:
        group.forget_pending(leaver.member_id)
        return ErrorCode.NONE
    if leaver.member_id == NO_MEMBER_ID:
        static = group.roster.of_instance(leaver.instance_id)
        member = static if static is not None else ErrorCode.UNKNOWN_MEMBER_ID
    else:
        member = group.roster.identify(leaver.member_id, leaver.instance_id)
    if isinstance(member, ErrorCode):
        return member
    group.remove_member(member, f"it left: {clean_reason(leaver.reason)}")
    removed.append(member.member_id)
    return ErrorCode.NONE
