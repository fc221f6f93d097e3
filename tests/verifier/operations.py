"""What clients ask, and what they are answered: only what the verifier needs of it, in types of its own.

Offsets, generations and error codes are Kafka's; an error code of 0 is none.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.verifier.history import Batch


class Partition(NamedTuple):
    """A topic's name and a partition of it."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.number}"


# Records.


@dataclass(frozen=True, slots=True)
class Produce:
    """One Produce request: at most one batch for each partition. A retry holds the same batches."""

    batches: Sequence[Batch]


class Placed(NamedTuple):
    """What became of one batch. `base_offset` None: acknowledged, and the client does not tell where."""

    error_code: int
    base_offset: int | None = None
    log_start_offset: int = -1


@dataclass(frozen=True, slots=True)
class Produced:
    """Answer to Produce."""

    parts: Mapping[Partition, Placed]


@dataclass(frozen=True, slots=True)
class Fetch:
    """One Fetch request: the offset from which each partition is read."""

    positions: Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class Part:
    """What a Fetch has of one partition; made by `Recorder.part`.

    `records` are the contents, as the recorder numbers them, `offsets` where they stand; both only from the position
    that was asked for on. `next_offset` is where the last batch ends that came: a batch may go on past its last record
    where the log has been compacted. -1 where an error came, or where the client was not told.
    """

    error_code: int
    high_watermark: int = -1
    log_start_offset: int = -1
    next_offset: int = -1
    offsets: array[int] = field(default_factory=lambda: array("q"))
    records: array[int] = field(default_factory=lambda: array("q"))
    times_ms: array[int] = field(default_factory=lambda: array("q"))
    """Timestamps of all of them, or nothing where the client does not tell."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answer to Fetch."""

    parts: Mapping[Partition, Part]


class Limit(IntEnum):
    """Which end of a log ListOffsets asks for: the timestamps that stand for them."""

    LATEST = -1
    EARLIEST = -2


@dataclass(frozen=True, slots=True)
class ListOffsets:
    """One ListOffsets request for the starts or the ends of logs."""

    partitions: Sequence[Partition]
    limit: Limit = Limit.LATEST


class ListedOffset(NamedTuple):
    """An end of one log."""

    error_code: int
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Listed:
    """Answer to ListOffsets."""

    parts: Mapping[Partition, ListedOffset]


@dataclass(frozen=True, slots=True)
class DeleteRecords:
    """Everything before these offsets is to go; -1 is all that there is."""

    offsets: Mapping[Partition, int]


class TrimmedPart(NamedTuple):
    """Where one log begins now."""

    error_code: int
    low_watermark: int = -1


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Answer to DeleteRecords."""

    parts: Mapping[Partition, TrimmedPart]


# Topics and producer ids. Their errors are told by `failed`.


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """One topic; a request for several is one operation for each."""

    topic: str


@dataclass(frozen=True, slots=True)
class DeleteTopic:
    """One topic."""

    topic: str


@dataclass(frozen=True, slots=True)
class Done:
    """Answer that says no more than that it is done."""


@dataclass(frozen=True, slots=True)
class InitProducerId:
    """A producer id is asked for, without a transactional id; or another epoch of the one that the client has."""

    producer_id: int = -1


class ProducerIdGiven(NamedTuple):
    """Answer to InitProducerId."""

    producer_id: int
    epoch: int


# Groups. Members are known by a key that outlives their member ids: the instance id, or else the member id.


@dataclass(frozen=True, slots=True)
class OffsetCommit:
    """Offsets of a group; `generation` -1 without membership."""

    group: str
    offsets: Mapping[Partition, int]
    generation: int = -1
    member: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """Answer to OffsetCommit: error codes."""

    parts: Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class OffsetFetch:
    """What has a group committed?"""

    group: str
    partitions: Sequence[Partition]


@dataclass(frozen=True, slots=True)
class CommittedOffsets:
    """Answer to OffsetFetch: -1 where nothing is committed."""

    offsets: Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class JoinGroup:
    """A member asks to be let into the next generation."""

    group: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Answer to JoinGroup without an error: in which generation the member is, and whether it leads."""

    generation: int
    member: str
    is_leader: bool


@dataclass(frozen=True, slots=True)
class SyncGroup:
    """A member asks for its share; a leader sends everybody's, by the members' keys."""

    group: str
    generation: int
    member: str
    shares: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Synced:
    """Answer to SyncGroup: the share, and the partitions in it as the client reads them."""

    share: bytes
    partitions: Sequence[Partition] = ()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life that only the agent which has the group may accept."""

    group: str
    generation: int
    member: str


@dataclass(frozen=True, slots=True)
class Assigned:
    """Not a request: a member holds these partitions, as it was told or as DescribeGroups says (`share` if known)."""

    group: str
    generation: int
    member: str
    partitions: Sequence[Partition]
    share: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    """One group; its offsets go, and its generations begin anew."""

    group: str


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """Not a request: what the metadata store holds of a group at this instant, seen from beside the agents.

    Seen once, it has to be seen after each transaction of the agents: what is acknowledged then has to be there.
    """

    group: str
    generation: int
    offsets: Mapping[Partition, int]


Operation = (
    Produce
    | Fetch
    | ListOffsets
    | DeleteRecords
    | CreateTopic
    | DeleteTopic
    | InitProducerId
    | OffsetCommit
    | OffsetFetch
    | JoinGroup
    | SyncGroup
    | Heartbeat
    | DeleteGroup
    | Assigned
    | StoredGroup
)
Answer = (
    Produced
    | Fetched
    | Listed
    | Trimmed
    | Done
    | ProducerIdGiven
    | Committed
    | CommittedOffsets
    | Joined
    | Synced
)
