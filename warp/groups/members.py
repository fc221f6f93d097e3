"""Who is in a group, and what can be told from that alone: who is parked, who may lead, which protocol all support.

Counters are kept as members come and go, so that no request costs more the larger the group is; only what happens once
per generation goes through all members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from warp.errors import ErrorCode
from warp.groups.model import Join

Protocols = tuple[tuple[str, bytes], ...]


def metadata_bytes(protocols: Protocols) -> int:
    """What a member's metadata weighs, over all protocols."""
    return sum(len(metadata) for _, metadata in protocols)


MEMBER_BYTES = 2_000
"""About what a member takes in memory beside its protocols and its assignment, or an id that was given out."""
PROTOCOL_BYTES = 100
"""What a protocol takes beside its name and metadata."""


def protocols_weight(protocols: Protocols) -> int:
    """About what a member's protocols take in memory."""
    return sum(PROTOCOL_BYTES + len(name) + len(metadata) for name, metadata in protocols)


class Member:
    """A member of a group. `joining` and `syncing` are the tokens of its parked requests, or None."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "instance_id",
        "is_new",
        "joining",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "syncing",
    )

    def __init__(self, member_id: str, join: Join) -> None:
        self.member_id = member_id
        self.instance_id = join.instance_id
        self.client_id = join.client_id
        self.client_host = join.client_host
        self.assignment = b""
        self.joining: object | None = None
        self.syncing: object | None = None
        self.is_new = True
        """It has not been in a generation yet."""
        self.protocols: Protocols = ()
        self.session_timeout_ms = 0
        self.rebalance_timeout_ms = 0
        self._take(join)

    def _take(self, join: Join) -> None:
        self.protocols = join.protocols
        self.session_timeout_ms = join.session_timeout_ms
        self.rebalance_timeout_ms = (
            join.session_timeout_ms if join.rebalance_timeout_ms < 0 else join.rebalance_timeout_ms
        )

    def metadata(self, protocol: str | None) -> bytes:
        """Its metadata for a protocol; nothing when it does not support that."""
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")


class Roster:
    """The members of a group, in the order of joining, and the ids that were given out and not used yet."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._by_instance: dict[str, Member] = {}
        self._supported: dict[str, int] = {}
        self.pending: dict[str, None] = {}
        self.parked = 0
        """How many members wait for the join phase to end."""
        self.metadata_bytes = 0
        self.protocols_weight = 0
        self.assignment_bytes = 0
        """Of all members. Who changes their assignments sets it."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __contains__(self, member_id: str) -> bool:
        return member_id in self._members

    def get(self, member_id: str) -> Member | None:
        """The member with that id."""
        return self._members.get(member_id)

    def of_instance(self, instance_id: str | None) -> Member | None:
        """The static member with that instance id."""
        return None if instance_id is None else self._by_instance.get(instance_id)

    def identify(self, member_id: str, instance_id: str | None) -> Member | ErrorCode:
        """The member that a request comes from; or UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID when the instance has
        another member id by now (KIP-345)."""
        if instance_id is not None:
            static = self._by_instance.get(instance_id)
            if static is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            return static if static.member_id == member_id else ErrorCode.FENCED_INSTANCE_ID
        return self._members.get(member_id) or ErrorCode.UNKNOWN_MEMBER_ID

    # Who comes and goes.

    def add(self, member: Member) -> None:
        """A member that is not in the group yet, and whose id is not pending any more."""
        if member.member_id in self._members:
            raise ValueError(f"member {member.member_id} is in the group already")
        self._members[member.member_id] = member
        if member.instance_id is not None:
            self._by_instance[member.instance_id] = member
        self.assignment_bytes += len(member.assignment)
        self._count(member, 1)

    def remove(self, member: Member) -> None:
        """A member that is in the group, and not parked any more."""
        if member.joining is not None:
            raise ValueError(f"member {member.member_id} still waits for an answer")
        del self._members[member.member_id]
        if member.instance_id is not None:
            del self._by_instance[member.instance_id]
        self.assignment_bytes -= len(member.assignment)
        self._count(member, -1)

    def update(self, member: Member, join: Join) -> None:
        """Take over what a member that joins again says of itself."""
        self._count(member, -1)
        member._take(join)
        self._count(member, 1)

    def rename(self, member: Member, member_id: str) -> None:
        """Give a member another id; it keeps its place in everything but the order."""
        del self._members[member.member_id]
        member.member_id = member_id
        self._members[member_id] = member

    def park(self, member: Member, token: object) -> None:
        """The member waits for the join phase to end; it has no other request that waits for that."""
        if member.joining is not None:
            raise ValueError(f"member {member.member_id} is parked already")
        member.joining = token
        self.parked += 1

    def unpark(self, member: Member) -> object | None:
        """The token of the member's parked join, which it has no more."""
        token, member.joining = member.joining, None
        if token is not None:
            self.parked -= 1
        return token

    def _count(self, member: Member, by: int) -> None:
        self.metadata_bytes += by * metadata_bytes(member.protocols)
        self.protocols_weight += by * protocols_weight(member.protocols)
        for name, _ in member.protocols:
            count = self._supported.get(name, 0) + by
            if count:
                self._supported[name] = count
            else:
                del self._supported[name]

    # What can be told of them.

    @property
    def weight_bytes(self) -> int:
        """About what the members take in memory."""
        members = len(self._members) + len(self.pending)
        return members * MEMBER_BYTES + self.protocols_weight + self.assignment_bytes

    @property
    def all_joined(self) -> bool:
        """Every member is parked, and no id that was given out is still to be used."""
        return self.parked == len(self._members) and not self.pending

    def supports_any(self, protocols: Protocols) -> bool:
        """Is one of the protocols supported by all members?"""
        return any(self._supported.get(name) == len(self._members) for name, _ in protocols)

    def choose_protocol(self) -> str | None:
        """The protocol of the next generation. None in an empty group.

        Of those that all support each member votes for the one that it prefers; most votes win. Among equals the one
        that was voted for first wins, in the order of joining: Kafka leaves that open.
        """
        votes: dict[str, int] = {}
        for member in self:
            vote = next((name for name, _ in member.protocols if self._supported[name] == len(self)), None)
            if vote is not None:
                votes[vote] = votes.get(vote, 0) + 1
        return max(votes, key=lambda name: votes[name], default=None)

    def choose_leader(self, leader: str | None) -> str | None:
        """The leader of the next generation: the last one if it has joined, else the first member that has; or None."""
        last = self._members.get(leader) if leader is not None else None
        if last is not None and last.joining is not None:
            return last.member_id
        return next((member.member_id for member in self if member.joining is not None), None)

    def rebalance_timeout_ms(self) -> int:
        """How long the slowest member may take to join; 0 in an empty group."""
        return max((member.rebalance_timeout_ms for member in self), default=0)

    def absent(self) -> Iterable[Member]:
        """The members that have not joined in this phase."""
        return [member for member in self if member.joining is None]
