"""SyncGroup: the leader brings the assignment, everybody gets its share of it.

Sources: Kafka protocol, SyncGroup v0-5; KIP-345 (static members), KIP-559 (protocol type and name).
"""

from __future__ import annotations

from warp.errors import ErrorCode
from warp.groups.members import Member
from warp.groups.model import NO_MEMBER_ID, Now, Sync, SyncAnswer
from warp.groups.rebalance import ASSIGNMENT_STORED, GroupCore
from warp.groups.transitions import REACTIONS, Ask, Event, Reaction, State


def sync(group: GroupCore, token: object, request: Sync, now: Now) -> None:
    """Decide about a sync; it is answered now or parked."""
    member = group.roster.identify(request.member_id, request.instance_id)
    if isinstance(member, ErrorCode):
        group.reply(token, SyncAnswer(member))
        return
    error = _mismatch(group, request)
    if error is not None:
        group.reply(token, SyncAnswer(error))
        return
    ask = Ask.SYNC_LEADER if member.member_id == group.leader else Ask.SYNC_FOLLOWER
    reaction = REACTIONS[ask, group.state]
    if isinstance(reaction, ErrorCode):
        group.renew(member, now)
        group.reply(token, SyncAnswer(reaction))
    elif reaction is Reaction.ANSWER:
        group.has_synced(member)
        group.renew(member, now)
        group.reply(token, assignment_answer(group, member))
    elif reaction is Reaction.PARK:
        group.has_synced(member)
        group.park_sync(member, token)
    else:
        _assign(group, token, member, request, now)


def _mismatch(group: GroupCore, request: Sync) -> ErrorCode | None:
    if request.generation != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    if group.state is State.PREPARING:
        return None  # A group that was taken over in this state does not know the name.
    other_type = request.protocol_type is not None and request.protocol_type != group.protocol_type
    other_name = request.protocol is not None and request.protocol != group.protocol
    return ErrorCode.INCONSISTENT_GROUP_PROTOCOL if other_type or other_name else None


def _assign(group: GroupCore, token: object, leader: Member, request: Sync, now: Now) -> None:
    """Members that the leader left out get nothing; ids that it made up are ignored."""
    settings = group.settings
    assignments = dict(request.assignments)
    sizes = [len(assignments.get(member.member_id, b"")) for member in group.roster]
    if max(sizes) > settings.member_assignment_bytes_max or sum(sizes) > settings.group_assignment_bytes_max:
        # The others go on waiting: until the leader does better, leaves, or is given up.
        group.renew(leader, now)
        group.reply(token, SyncAnswer(ErrorCode.MESSAGE_TOO_LARGE))
        return
    group.has_synced(leader)
    group.park_sync(leader, token)
    group.move(Event.ASSIGNED)
    for member in group.roster:
        member.assignment = assignments.get(member.member_id, b"")
        group.answer_sync(member, assignment_answer(group, member))
        group.renew(member, now)
    group.roster.assignment_bytes = sum(sizes)
    group.note(ASSIGNMENT_STORED, NO_MEMBER_ID, f"by {leader.member_id}")
    group.store(now, State.COMPLETING)


def assignment_answer(group: GroupCore, member: Member) -> SyncAnswer:
    """The member's share."""
    return SyncAnswer(ErrorCode.NONE, group.protocol_type, group.protocol, member.assignment)
