"""What the metadata store keeps of consumer groups, and the words for it: leases, members, groups, committed offsets.

Groups are spread over a fixed number of coordinator slots by their names. Whoever holds a slot's lease coordinates its
groups; every write says under which lease it comes, and fails once the lease has another holder or epoch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

from warp.errors import ErrorCode, MetadataError
from warp.ids import BrokerId

SLOTS = 64
"""How many coordinator slots there are. Stored groups depend on it: it never changes."""

COORDINATOR_LEASE_PREFIX = "coordinator/"

NO_LEADER_EPOCH = -1
"""Of a committed offset whose client named none."""


class LeaseLost(MetadataError):
    """A write came under a lease that has another holder or epoch by now, or nobody's. Nothing was changed."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(f"lost the lease of {', '.join(names)}")
        self.names = names
        """The leases that are lost, of those that the write named."""


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

    It is the observers who say when a lease has run out: its `counter` has not moved for its length, on their own clock.
    """

    name: str
    holder: BrokerId | None
    epoch: int
    counter: int


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
    """A group, as it outlives its coordinator: its last complete generation. An Empty one has no members.

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
    """A committed offset. `leader_epoch` is -1 when the client named none; `metadata` is the client's own."""

    group_id: str
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str
    committed_ms: int


class OffsetCommit(NamedTuple):
    """Offsets of one group, to be committed under the lease of its slot; all rows name that group."""

    lease: Lease
    group_id: str
    rows: tuple[OffsetRow, ...]


class OffsetResult(NamedTuple):
    """What became of one row of a commit."""

    topic: str
    partition: int
    error: ErrorCode


def slot_of(name: str) -> int:
    """The coordinator slot of a group or transactional id: the CRC-32 of its UTF-8 bytes, modulo SLOTS."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) % SLOTS


def coordinator_lease(slot: int) -> str:
    """The name of the lease of a coordinator slot."""
    return f"{COORDINATOR_LEASE_PREFIX}{slot}"
