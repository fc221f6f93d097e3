"""What is known of consumer groups: plain values between the client library and what is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}"


class Log(NamedTuple):
    """The offset of the first record of a partition, and the one after its last."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Listing:
    """A group in the list of groups; `is_simple` when it has only ever been committed to, by no member."""

    name: str
    state: str
    kind: str
    is_simple: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group, and the partitions that it reads."""

    member_id: str
    client_id: str
    host: str
    instance_id: str | None
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """A group as its coordinator tells it. `coordinator` is `ID (HOST:PORT)`; `assignor` the protocol's name."""

    name: str
    state: str
    kind: str
    assignor: str
    coordinator: str
    members: tuple[Member, ...]

    @property
    def is_there(self) -> bool:
        """False when nobody has made the group yet, or it has been deleted: brokers call such a group Dead."""
        return self.state != "Dead"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a group is in a partition. `end` is None where the topic is gone, `committed` where nothing is."""

    place: Place
    committed: int | None
    end: int | None
    member: Member | None

    @property
    def lag(self) -> int | None:
        """Records that are not committed yet; None where that can't be told."""
        if self.committed is None or self.end is None:
            return None
        return max(0, self.end - self.committed)


def progress_of(
    group: Description, committed: dict[Place, int], ends: dict[Place, int]
) -> tuple[Progress, ...]:
    """A row for each partition that the group has committed or has given to a member, by topic and partition."""
    readers = {place: member for member in group.members for place in member.places}
    return tuple(
        Progress(place, committed.get(place), ends.get(place), readers.get(place))
        for place in sorted({*committed, *readers})
    )


def total_lag(rows: tuple[Progress, ...]) -> int:
    """The lags that can be told, together."""
    return sum(row.lag or 0 for row in rows)


def uncommitted_of(rows: tuple[Progress, ...]) -> int:
    """How many partitions the total leaves out, because they hold or held records and nothing is committed."""
    return sum(1 for row in rows if row.committed is None and row.end)
