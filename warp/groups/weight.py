"""What the members of all groups of an agent hold in memory, and its bound.

Each group has limits of its own, but anybody may make as many groups as an agent takes. So what clients make it keep
is counted over all of them too: metadata, assignments, requests that wait for a change to be stored, and members as
such. What would make that more than it may be is refused; what makes it less, or leaves it, never is.
"""

from __future__ import annotations

from warp.errors import ErrorCode
from warp.groups.members import MEMBER_BYTES, protocols_weight
from warp.groups.model import NO_MEMBER_ID, Answer, Join, JoinAnswer, Leave, Request, Sync, SyncAnswer
from warp.groups.rebalance import GroupCore

ENTRY_BYTES = 100
"""What an entry of a list in a request takes beside its bytes."""


def request_weight(request: Request) -> int:
    """About what a request takes in memory while it waits."""
    match request:
        case Join():
            return MEMBER_BYTES + protocols_weight(request.protocols)
        case Sync():
            return MEMBER_BYTES + sum(ENTRY_BYTES + len(share) for _, share in request.assignments)
        case Leave():
            return MEMBER_BYTES + ENTRY_BYTES * len(request.leavers)
    return MEMBER_BYTES


class MembersWeight:
    """What groups hold, by their ids."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._by_group: dict[str, int] = {}
        self.total_bytes = 0
        """About what all groups hold."""

    def set(self, group_id: str, size_bytes: int) -> None:
        """A group holds as much now; 0 forgets it."""
        self.total_bytes += size_bytes - self._by_group.pop(group_id, 0)
        if size_bytes:
            self._by_group[group_id] = size_bytes

    def refusal(self, group: GroupCore | None, request: Request) -> Answer | None:
        """The answer to a request for which there is no room; `group` is None while nobody is in it."""
        match request:
            case Join():
                growth = request_weight(request) - _known_weight(group, request)
            case Sync() if request.assignments and group is not None:
                growth = sum(len(share) for _, share in request.assignments) - group.roster.assignment_bytes
            case _:
                return None
        if growth <= 0 or self.total_bytes + growth <= self._bytes_max:
            return None
        if isinstance(request, Join):
            return JoinAnswer(ErrorCode.GROUP_MAX_SIZE_REACHED, request.member_id)
        return SyncAnswer(ErrorCode.MESSAGE_TOO_LARGE)


def _known_weight(group: GroupCore | None, request: Join) -> int:
    """What the member that joins weighs already."""
    if group is None:
        return 0
    if request.member_id in group.roster.pending:
        return MEMBER_BYTES
    if request.member_id == NO_MEMBER_ID:
        member = group.roster.of_instance(request.instance_id)
    else:
        member = group.roster.get(request.member_id)
    return 0 if member is None else MEMBER_BYTES + protocols_weight(member.protocols)
