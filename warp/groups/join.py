"""JoinGroup: who may become a member, under which id, and whether that needs a new generation.

Sources: Kafka protocol, JoinGroup v0-9; KIP-345 (static members), KIP-394 (ids that have to be used before they count),
KIP-559 (protocol type), KIP-800 (reasons), KIP-814 (a static leader that returns).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from warp.errors import ErrorCode
from warp.groups.members import Member, metadata_bytes
from warp.groups.model import NO_MEMBER_ID, GroupSettings, Join, JoinAnswer, Now
from warp.groups.rebalance import MEMBER_ADDED, MEMBER_REPLACED, GroupCore
from warp.groups.text import clean_reason, clean_text, is_storable
from warp.groups.transitions import REACTIONS, Ask, Reaction, State

INSTANCE_ID_BYTES_MAX: Final = 249
CLIENT_ID_BYTES_MAX: Final = 255
"""Of a client's id, as much goes into its member ids and is stored."""


def join_error(join: Join, settings: GroupSettings) -> ErrorCode | None:
    """What is wrong with a join whatever the group looks like; None when nothing is. No group is made for these."""
    if not settings.session_timeout_min_ms <= join.session_timeout_ms <= settings.session_timeout_max_ms:
        return ErrorCode.INVALID_SESSION_TIMEOUT
    names = [name for name, _ in join.protocols]
    if (
        not join.protocol_type
        or not 0 < len(names) <= settings.protocols_max
        or len(set(names)) != len(names)
    ):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if not all(map(is_storable, (join.protocol_type, *names))):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if metadata_bytes(join.protocols) > settings.member_metadata_bytes_max:
        return ErrorCode.MESSAGE_TOO_LARGE
    instance_id = join.instance_id
    if instance_id is not None and not is_storable(instance_id, INSTANCE_ID_BYTES_MAX):
        return ErrorCode.INVALID_REQUEST
    return None


def join(group: GroupCore, token: object, request: Join, now: Now) -> None:
    """Decide about a join; it is answered now or parked."""
    request = replace(request, client_id=clean_text(request.client_id, CLIENT_ID_BYTES_MAX))
    replaced = group.roster.of_instance(request.instance_id) if request.member_id == NO_MEMBER_ID else None
    error = join_error(request, group.settings)
    if error is None and replaced is None and not _has_room(group, request.member_id):
        error = ErrorCode.GROUP_MAX_SIZE_REACHED
        _turn_away(group, request.member_id, now)
    elif error is None:
        error = _mismatch(group, request, replaced)
    if error is not None:
        group.reply(token, JoinAnswer(error, request.member_id))
    elif replaced is not None:
        _replace_static(group, token, replaced, request, now)
    elif request.member_id == NO_MEMBER_ID:
        _join_new(group, token, request, now)
    elif request.member_id in group.roster.pending and request.instance_id is None:
        _add(group, token, request.member_id, request, now)
    else:
        _join_again(group, token, request, now)


def _has_room(group: GroupCore, member_id: str) -> bool:
    known = group.roster.get(member_id)
    members_max = group.settings.members_max
    if group.state is State.PREPARING:
        return (known is not None and known.joining is not None) or group.roster.parked < members_max
    return known is not None or len(group.roster) < members_max


def _turn_away(group: GroupCore, member_id: str, now: Now) -> None:
    """Nobody shall wait for one that has found the group full.

    A member that has been in it finds it so only where the limit was lowered: those who come late are out.
    """
    reason = "the group is full"
    member = group.roster.get(member_id)
    if member is not None:
        group.remove_member(member, reason)
        group.after_removal(now, reason)
    elif member_id in group.roster.pending:
        group.forget_pending(member_id)
        group.maybe_end_join_phase(now)


def _mismatch(group: GroupCore, request: Join, replaced: Member | None) -> ErrorCode | None:
    """Why this join does not go together with the members that are there."""
    roster = group.roster
    if len(roster) and (
        request.protocol_type != group.protocol_type or not roster.supports_any(request.protocols)
    ):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    member = replaced or roster.get(request.member_id)
    before = metadata_bytes(member.protocols) if member is not None else 0
    after = roster.metadata_bytes - before + metadata_bytes(request.protocols)
    if after > max(group.settings.group_metadata_bytes_max, roster.metadata_bytes):
        return ErrorCode.GROUP_MAX_SIZE_REACHED
    return None


def _join_new(group: GroupCore, token: object, request: Join, now: Now) -> None:
    """A member without an id. A static one is in at once; so is a dynamic one of a client that knows no other way."""
    member_id = f"{request.instance_id or request.client_id}-{request.fresh_id}"
    if request.instance_id is not None or not request.id_required:
        _add(group, token, member_id, request, now)
    elif len(group.roster.pending) >= group.settings.pending_members_max:
        group.reply(token, JoinAnswer(ErrorCode.GROUP_MAX_SIZE_REACHED, NO_MEMBER_ID))
    else:
        group.roster.pending[member_id] = None
        group.sessions.set(member_id, now.ticks_ms + request.session_timeout_ms)
        group.reply(token, JoinAnswer(ErrorCode.MEMBER_ID_REQUIRED, member_id))


def _add(group: GroupCore, token: object, member_id: str, request: Join, now: Now) -> None:
    if not len(group.roster):
        group.protocol_type = request.protocol_type
    member = Member(member_id, request)
    group.forget_pending(member_id)
    group.roster.add(member)
    group.note_newcomer()
    group.note(MEMBER_ADDED, member_id, clean_reason(request.reason))
    group.park_join(member, token, now)
    _react(group, Ask.JOIN_NEW, member, now, f"{member_id} joins: {clean_reason(request.reason)}")


def _join_again(group: GroupCore, token: object, request: Join, now: Now) -> None:
    """A member that has an id already."""
    member = group.roster.identify(request.member_id, request.instance_id)
    if isinstance(member, ErrorCode):
        group.reply(token, JoinAnswer(member, request.member_id))
        return
    ask = Ask.REJOIN_CHANGED
    if member.protocols == request.protocols:
        is_leader = member.member_id == group.leader
        ask = Ask.REJOIN_LEADER_SAME if is_leader else Ask.REJOIN_FOLLOWER_SAME
    if REACTIONS[ask, group.state] is Reaction.ANSWER:
        group.renew(member, now)
        group.reply(token, group.generation_answer(member))
        return
    group.roster.update(member, request)
    group.park_join(member, token, now)
    _react(group, ask, member, now, f"{member.member_id} joins again: {clean_reason(request.reason)}")


def _replace_static(group: GroupCore, token: object, member: Member, request: Join, now: Now) -> None:
    """A static member returns without its id: it gets a new one, and whoever has the old one is fenced (KIP-345)."""
    old_id, was_leader = member.member_id, member.member_id == group.leader
    new_id = f"{request.instance_id}-{request.fresh_id}"
    group.fence(member)
    group.rename_member(member, new_id)
    member.client_id, member.client_host = request.client_id, request.client_host
    group.roster.update(member, request)
    group.note(MEMBER_REPLACED, new_id, f"in place of {old_id}: {clean_reason(request.reason)}")
    is_same = group.roster.choose_protocol() == group.protocol
    ask = Ask.JOIN_REPLACING_SAME if is_same else Ask.JOIN_REPLACING_OTHER
    if REACTIONS[ask, group.state] is not Reaction.STORE:
        group.park_join(member, token, now)
        _react(group, ask, member, now, f"{new_id} takes the place of {old_id}")
        return
    group.renew(member, now)
    answer = group.generation_answer(member)
    if not request.can_skip_assignment:
        # Told the old id as the leader's, it takes itself for a follower: nobody waits for an assignment from it.
        answer = replace(answer, leader=old_id if was_leader else answer.leader, members=())
    elif was_leader:
        answer = replace(answer, skip_assignment=True)
    group.reply(token, answer)
    group.store(now, State.STABLE)


def _react(group: GroupCore, ask: Ask, member: Member, now: Now, reason: str) -> None:
    """The member is parked; go on as the table says."""
    if REACTIONS[ask, group.state] is Reaction.REBALANCE:
        group.start_rebalance(now, reason)
    else:
        group.maybe_end_join_phase(now)
