"""The words that a group's machine is spoken to in: requests, answers, changes, settings. Plain data, no wire types.

A machine decides, and somebody else acts. It is given requests, each with a token of the caller's; its `Step` says
which replies may be sent now and what has to be stored. Replies that tell of a change stay inside the machine until it
hears that the change is stored, so nobody can send one too early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from warp.errors import ErrorCode
from warp.metadata.group_model import StoredGroup

NO_GENERATION = -1
NO_MEMBER_ID = ""
CLASSIC_GROUP_TYPE = "classic"
CONSUMER_PROTOCOL_TYPE = "consumer"
"""The protocol type whose members' metadata is a consumer's subscription."""


class Now(NamedTuple):
    """The time of a step, by two clocks."""

    ticks_ms: int
    """Of a clock that never goes back: deadlines are in it."""
    time_ms: int
    """Wall clock, since 1970: goes into what is stored."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Times and limits of groups. Where Kafka has the setting, the default is Kafka's.

    docs/groups.md says which error a client gets at each limit.
    """

    session_timeout_min_ms: int = 6_000
    """group.min.session.timeout.ms"""
    session_timeout_max_ms: int = 1_800_000
    """group.max.session.timeout.ms"""
    initial_rebalance_delay_ms: int = 3_000
    """group.initial.rebalance.delay.ms: how long the first member of an Empty group waits for company."""
    new_member_wait_max_ms: int = 300_000
    """How long a member that never was in a generation may wait in the join phase: nothing shows that it lives."""
    members_max: int = 10_000
    """group.max.size: members of one group."""
    pending_members_max: int = 10_000
    """Member ids of one group that were given out and not yet used."""
    protocols_max: int = 100
    """Protocols that one member lists."""
    member_metadata_bytes_max: int = 1024 * 1024
    """Metadata of one member, over all its protocols."""
    group_metadata_bytes_max: int = 32 * 1024 * 1024
    """Metadata of all members of a group: the leader gets it in one answer."""
    member_assignment_bytes_max: int = 1024 * 1024
    """Assignment of one member."""
    group_assignment_bytes_max: int = 32 * 1024 * 1024
    """Assignments of all members of a group."""
    deferred_requests_max: int = 50_000
    """Requests to one group that wait for a change to be stored."""


# Requests. Ids that are not given are "" (member) and None (instance), as in the protocol.


@dataclass(frozen=True, slots=True)
class Join:
    """A member comes, or comes again. `protocols` holds name and metadata, the preferred one first."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    """Negative in versions that have none: the session timeout counts."""
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    fresh_id: str
    """Random text for a new member id, should one be needed; never the same twice."""
    id_required: bool = True
    """A dynamic member has to come again with the id that it is given (JoinGroup v4, KIP-394)."""
    can_skip_assignment: bool = True
    """A leader that returns can be told to leave the assignment as it is (JoinGroup v9, KIP-814)."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Sync:
    """A member asks for its assignment; the leader brings everybody's. None as type or name: not checked."""

    member_id: str
    instance_id: str | None
    generation: int
    protocol_type: str | None = None
    protocol: str | None = None
    assignments: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A member lives."""

    member_id: str
    instance_id: str | None
    generation: int


class Leaver(NamedTuple):
    """One member that leaves or is sent away; a static one may be named by its instance alone."""

    member_id: str
    instance_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """Members leave."""

    leavers: tuple[Leaver, ...]


@dataclass(frozen=True, slots=True)
class CheckCommit:
    """May this member commit offsets now? Simple consumers and tools send generation -1 and no member id."""

    member_id: str
    instance_id: str | None
    generation: int
    is_transactional: bool = False


@dataclass(frozen=True, slots=True)
class CheckOffsetDelete:
    """Of which topics may committed offsets not be deleted now?"""


@dataclass(frozen=True, slots=True)
class Describe:
    """What does the group look like?"""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the group."""


Request: TypeAlias = Join | Sync | Heartbeat | Leave | CheckCommit | CheckOffsetDelete | Describe | Delete


# Answers.


class JoinedMember(NamedTuple):
    """What the leader is told of a member: its metadata for the protocol that was chosen."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    """To Join. On an error everything but `error` and `member_id` is at its default."""

    error: ErrorCode
    member_id: str
    generation: int = NO_GENERATION
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = NO_MEMBER_ID
    skip_assignment: bool = False
    members: tuple[JoinedMember, ...] = ()
    """All members, for the leader; nothing for the others."""


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    """To Sync."""

    error: ErrorCode
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True)
class CodeAnswer:
    """To Heartbeat, CheckCommit and Delete: nothing but an error, or none."""

    error: ErrorCode


class Left(NamedTuple):
    """What became of one leaver: the ids as they were sent."""

    member_id: str
    instance_id: str | None
    error: ErrorCode


@dataclass(frozen=True, slots=True)
class LeaveAnswer:
    """To Leave: one entry for each leaver, in order; an error of the whole request leaves it empty."""

    error: ErrorCode
    members: tuple[Left, ...] = ()


@dataclass(frozen=True, slots=True)
class OffsetDeleteAnswer:
    """To CheckOffsetDelete. `subscribed` are the topics in use; None when nobody can tell: all count as used."""

    error: ErrorCode
    subscribed: frozenset[str] | None = frozenset()

    def error_for(self, topic: str) -> ErrorCode:
        """The error for a partition of `topic`; NONE when its offset may be deleted."""
        if self.error:
            return self.error
        in_use = self.subscribed is None or topic in self.subscribed
        return ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC if in_use else ErrorCode.NONE


class DescribedMember(NamedTuple):
    """A member, as tools see it. Metadata and assignment are empty unless the group is Stable."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class DescribeAnswer:
    """To Describe. `state` is Kafka's name of it; `protocol` is "" unless the group is Stable."""

    error: ErrorCode
    state: str = "Dead"
    protocol_type: str = ""
    protocol: str = ""
    members: tuple[DescribedMember, ...] = ()


Answer: TypeAlias = JoinAnswer | SyncAnswer | CodeAnswer | LeaveAnswer | OffsetDeleteAnswer | DescribeAnswer


class GroupOverview(NamedTuple):
    """A line of a list of groups. The state is never one that is not stored yet."""

    group_id: str
    group_type: str
    state: str
    protocol_type: str
    members: int


# What a step leads to.


class Reply(NamedTuple):
    """The answer to the request that came with this token."""

    token: object
    answer: Answer


@dataclass(frozen=True, slots=True)
class Save:
    """Store this in place of what is stored of the group."""

    group: StoredGroup


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the group and its offsets from the store."""

    group_id: str


Change: TypeAlias = Save | Remove


class Note(NamedTuple):
    """Something that happened to the group, for log and metrics. `reason` may hold a client's words, cleaned."""

    event: str
    """A short fixed word: the list is in rebalance.py."""
    member_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """What a step leads to: replies that may be sent at once, and at most one change to store.

    After a change the machine has to be told `saved()` or `save_failed()`. Until then it takes requests, but decides
    nothing: it has no more changes, no deadline, and keeps every reply that could tell of the change.
    """

    replies: Sequence[Reply] = ()
    change: Change | None = None
    notes: Sequence[Note] = field(default=())


NOTHING = Step()
