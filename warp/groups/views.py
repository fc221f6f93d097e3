"""What others ask of a group without changing it: tools that describe it, and the keepers of committed offsets."""

from __future__ import annotations

from warp.errors import ErrorCode
from warp.groups.model import (
    CONSUMER_PROTOCOL_TYPE,
    NO_MEMBER_ID,
    CheckCommit,
    DescribeAnswer,
    DescribedMember,
    Now,
    OffsetDeleteAnswer,
)
from warp.groups.rebalance import GroupCore
from warp.groups.subscription import subscribed
from warp.groups.transitions import REACTIONS, Ask, State


def commit_error(group: GroupCore, request: CheckCommit, now: Now) -> ErrorCode:
    """NONE when the offsets may be committed; this renews the member's session.

    Sources: Kafka protocol, OffsetCommit v0-9 and TxnOffsetCommit v0-5; KIP-345, KIP-447.
    """
    is_anonymous = request.member_id == NO_MEMBER_ID and request.instance_id is None
    if request.generation < 0 and (group.state is State.EMPTY or is_anonymous):
        if request.is_transactional:
            return ErrorCode.NONE  # A producer that does not say for whom it commits is not checked.
        reaction = REACTIONS[Ask.COMMIT_SIMPLE, group.state]
        return reaction if isinstance(reaction, ErrorCode) else ErrorCode.NONE
    member = group.roster.identify(request.member_id, request.instance_id)
    if isinstance(member, ErrorCode):
        return member
    if request.generation != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    group.renew(member, now)
    reaction = REACTIONS[Ask.COMMIT, group.state]
    if isinstance(reaction, ErrorCode) and not request.is_transactional:
        return reaction
    return ErrorCode.NONE


def describe(group: GroupCore) -> DescribeAnswer:
    """The group for DescribeGroups. Metadata and assignments are passed on as they are: tools know how to read them."""
    is_stable = group.state is State.STABLE
    members = tuple(
        DescribedMember(
            member.member_id,
            member.instance_id,
            member.client_id,
            member.client_host,
            member.metadata(group.protocol) if is_stable else b"",
            member.assignment if is_stable else b"",
        )
        for member in group.roster
    )
    protocol = (group.protocol or "") if is_stable else ""
    return DescribeAnswer(ErrorCode.NONE, group.state.value, group.protocol_type, protocol, members)


def offset_delete_answer(group: GroupCore) -> OffsetDeleteAnswer:
    """Which committed offsets of the group may be deleted (OffsetDelete v0, KIP-496)."""
    if len(group.roster) and group.protocol_type != CONSUMER_PROTOCOL_TYPE:
        return OffsetDeleteAnswer(ErrorCode.NON_EMPTY_GROUP)
    return OffsetDeleteAnswer(ErrorCode.NONE, subscribed_topics(group))


def subscribed_topics(group: GroupCore) -> frozenset[str] | None:
    """The topics that members subscribe to; empty in a group of another type than `consumer`.

    None when the metadata of any member can't be read: then nobody can say which topics are not in use.
    """
    if group.protocol_type != CONSUMER_PROTOCOL_TYPE:
        return frozenset()
    topics: list[str] = []
    for member in group.roster:
        # Until a protocol has been chosen, any metadata will do: a consumer subscribes the same under each.
        metadata = member.metadata(group.protocol) if group.protocol is not None else member.protocols[0][1]
        subscription = subscribed(metadata)
        if subscription is None:
            return None
        topics += subscription
    return frozenset(topics)
