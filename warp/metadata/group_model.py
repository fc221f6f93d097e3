"""What the metadata store keeps of consumer groups, and the words for it: leases, members, groups, committed offsets.

Groups are spread over a fixed number of coordinator slots by their names. Whoever holds a slot's lease coordinates its
groups; every write says under which lease it comes, and fails once the lease has another holder or epoch.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from warp.errors import ErrorCode, MetadataError
from warp.ids import BrokerId

SLOTS = 64
"""How many coordinator slots there are. Stored groups depend on it: it never changes."""

COORDINATOR_LEASE_PREFIX = "coordinator/"

NO_LEADER_EPOCH = -1
"""Of a committed offset whose client named none."""

GROUP_ID_BYTES_MAX = 1024
"""Kafka has no limit of its own; an index of a database has."""

GROUP_BYTES_MAX = 128 * 1024 * 1024
"""What a group's members may hold together, by `stored_bytes`."""

OFFSETS_PER_GROUP_MAX = 100_000
"""Committed offsets of one group. Those that exist can be committed again at the limit; new ones are refused."""

MEMBER_OVERHEAD_BYTES = 100
"""What a stored member takes beside its strings and bytes."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do what a lease's name says, for one holder, until somebody takes it.

    `epoch` rises with every taking, by whomever, and never falls: it tells one tenure from the next.
    """

    name: str
    holder: BrokerId
    epoch: int


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What the store holds of a lease: its holder (None once released), its epoch, how often it was renewed.

    It is the observers who say when a lease has run out: its `counter` has not moved for its length, on their own
    clock.
    """

    name: str
    holder: BrokerId | None
    epoch: int
    counter: int


class LeaseLost(MetadataError):
    """A write came under leases that have another holder or epoch by now, or nobody's. Nothing was changed."""

    def __init__(self, leases: Iterable[Lease]) -> None:
        self.leases = frozenset(leases)
        """The leases that are lost, of those that the write named."""
        super().__init__(f"lost the lease of {', '.join(sorted(lease.name for lease in self.leases))}")


class GroupTooLarge(MetadataError):
    """A group's members hold more bytes than the store keeps of one group. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class StoredMember:
    """A member of a generation, as it outlives its coordinator. `protocols` is in the member's order of preference."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: tuple[tuple[str, bytes], ...]
    assignment: bytes


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A group, as it outlives its coordinator: its last generation. An Empty one has no members. One with members but
    without a leader was stored before its assignment was there: the assignments are of the generation before.

    `protocol_type` is "" for a group that nobody has ever joined (a simple consumer's). `changed_ms` is when the group
    was last stored; of an Empty group, since when it is so: the retention of its offsets counts from there. `members`
    is in the order of joining.
    """

    group_id: str
    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    members: tuple[StoredMember, ...]
    changed_ms: int


class OffsetKey(NamedTuple):
    """What an offset is committed for."""

    group_id: str
    topic: str
    partition: int


class OffsetRow(NamedTuple):
    """A committed offset. `leader_epoch` is -1 when the client named none; `metadata` is the client's own.

    `expires_ms` is when it goes, by the client's own retention time (OffsetCommit v2 to v4); None leaves that to the
    cluster's setting.
    """

    group_id: str
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int
    expires_ms: int | None = None


class OffsetCommit(NamedTuple):
    """Offsets of one group, to be committed under the lease of its slot; all rows name that group."""

    lease: Lease
    group_id: str
    rows: Sequence[OffsetRow]


class OffsetQuery(NamedTuple):
    """Whose committed offsets are wanted, and for which topics and partitions; None: for all."""

    group_id: str
    partitions: Sequence[tuple[str, int]] | None


class OffsetLag(NamedTuple):
    """A committed offset beside the ends of its log."""

    group_id: str
    topic: str
    partition: int
    offset: int
    start_offset: int
    next_offset: int

    @property
    def lag(self) -> int:
        """Records from the committed offset to the end; what retention has taken away meanwhile does not count."""
        return max(0, self.next_offset - max(self.offset, self.start_offset))


class OffsetDeletion(NamedTuple):
    """Committed offsets of one group that are to go, under the lease of its slot."""

    lease: Lease
    group_id: str
    partitions: Sequence[tuple[str, int]]


class OffsetExpiry(NamedTuple):
    """Which offsets of a group have had their time, under the lease of its slot.

    Those committed at `committed_until_ms` or earlier (and those whose own time has come), but none of `kept_topics`.
    """

    lease: Lease
    group_id: str
    committed_until_ms: int
    kept_topics: frozenset[str] = frozenset()


class OrphanCursor(NamedTuple):
    """How far a search for offsets of groups and logs that are gone has come: up to these, inclusive."""

    group_number: int = 0
    log_id: int = 0


class OrphanSweep(NamedTuple):
    """What one step of that search has done. `cursor` is None when it came to the end."""

    removed: int
    cursor: OrphanCursor | None


def slot_of(name: str) -> int:
    """The coordinator slot of a group or transactional id: the CRC-32 of its UTF-8 bytes, modulo SLOTS."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % SLOTS


def coordinator_lease(slot: int) -> str:
    """The name of the lease of a coordinator slot."""
    return f"{COORDINATOR_LEASE_PREFIX}{slot}"


def group_id_error(group_id: str) -> ErrorCode:
    """INVALID_GROUP_ID for a name that can't be stored: too long (GROUP_ID_BYTES_MAX), no Unicode, or with a NUL in it.

    The empty name is a name: simple consumers may commit under it.
    """
    try:
        size_bytes = len(group_id.encode())
    except UnicodeEncodeError:
        return ErrorCode.INVALID_GROUP_ID
    if size_bytes > GROUP_ID_BYTES_MAX or "\0" in group_id:
        return ErrorCode.INVALID_GROUP_ID
    return ErrorCode.NONE


def stored_bytes(group: StoredGroup) -> int:
    """About how many bytes a group's members take; GROUP_BYTES_MAX at most."""
    return sum(map(stored_member_bytes, group.members))


def stored_member_bytes(member: StoredMember) -> int:
    """About how many bytes a stored member takes."""
    strings = (
        len(member.member_id)
        + len(member.client_id)
        + len(member.client_host)
        + len(member.instance_id or "")
    )
    protocols = sum(len(name) + len(metadata) for name, metadata in member.protocols)
    return MEMBER_OVERHEAD_BYTES + strings + protocols + len(member.assignment)
