"""A group as it outlives its coordinator, and back again.

It is stored at two moments of a rebalance: when a generation begins, without leader and protocol, and when its
assignment is there. The first makes sure that no generation is given out twice: a successor that finds it knows that
the number is used up, and that its members have to join again. Their assignments are still those of the generation
before: nobody is told them, and what has not changed need not be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warp.groups.members import Member
from warp.groups.model import Join, Now
from warp.groups.transitions import RESTORED, Restored, State
from warp.metadata.group_model import StoredGroup, StoredMember

if TYPE_CHECKING:
    from warp.groups.rebalance import GroupCore


def snapshot(group: GroupCore, now: Now) -> StoredGroup:
    """What is to be stored of the group."""
    is_assigned = group.state is State.STABLE
    return StoredGroup(
        group_id=group.group_id,
        protocol_type=group.protocol_type,
        generation=group.generation,
        protocol=group.protocol if is_assigned else None,
        leader=group.leader if is_assigned else None,
        members=tuple(_stored_member(member) for member in group.roster),
        changed_ms=now.time_ms,
    )


def _stored_member(member: Member) -> StoredMember:
    return StoredMember(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        session_timeout_ms=member.session_timeout_ms,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        protocols=member.protocols,
        assignment=member.assignment,
    )


def fill(group: GroupCore, stored: StoredGroup, now: Now) -> None:
    """Make a new group what the stored one was. All sessions start anew: its members could not reach anybody."""
    group.protocol_type = stored.protocol_type
    group.generation = stored.generation
    for stored_member in stored.members:
        member = _member(stored_member, stored.protocol_type)
        group.roster.add(member)
        group.renew(member, now)
    found = _found(group, stored)
    group.state = RESTORED[found]
    if found is Restored.ASSIGNED:
        group.protocol = stored.protocol
        group.leader = stored.leader
    elif found is Restored.UNASSIGNED:
        group.resume_rebalance(now, "the coordinator changed before the assignment was there")


def _member(stored: StoredMember, protocol_type: str) -> Member:
    join = Join(
        member_id=stored.member_id,
        instance_id=stored.instance_id,
        client_id=stored.client_id,
        client_host=stored.client_host,
        session_timeout_ms=stored.session_timeout_ms,
        rebalance_timeout_ms=stored.rebalance_timeout_ms,
        protocol_type=protocol_type,
        protocols=stored.protocols,
        fresh_id="",
    )
    member = Member(stored.member_id, join)
    member.assignment = stored.assignment
    member.is_new = False
    return member


def _found(group: GroupCore, stored: StoredGroup) -> Restored:
    if not stored.members:
        return Restored.EMPTY
    is_assigned = stored.leader is not None and stored.leader in group.roster
    return Restored.ASSIGNED if is_assigned else Restored.UNASSIGNED
