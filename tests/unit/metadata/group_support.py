"""Short ways to write what the store keeps of groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tests.unit.metadata.support import NOW_MS, Store
from warp.errors import ErrorCode
from warp.ids import BrokerId
from warp.metadata.group_model import (
    SLOTS,
    Lease,
    OffsetCommit,
    OffsetQuery,
    OffsetRow,
    StoredGroup,
    StoredMember,
    coordinator_lease,
    slot_of,
)

HOLDER = BrokerId(1)


class Coordinator:
    """Holds the leases of all slots under one broker id, and writes under them."""

    def __init__(self, store: Store, holder: BrokerId = HOLDER) -> None:
        self.store = store
        leases = store.take_leases([coordinator_lease(slot) for slot in range(SLOTS)], holder)
        self.leases: dict[str, Lease] = {lease.name: lease for lease in leases}

    def lease(self, group_id: str) -> Lease:
        return self.leases[coordinator_lease(slot_of(group_id))]

    def save(self, *groups: StoredGroup) -> None:
        by_lease: dict[Lease, list[StoredGroup]] = {}
        for group in groups:
            by_lease.setdefault(self.lease(group.group_id), []).append(group)
        self.store.save_groups(by_lease)

    def delete(self, *group_ids: str, without_offsets: bool = False) -> set[str]:
        by_lease: dict[Lease, list[str]] = {}
        for group_id in group_ids:
            by_lease.setdefault(self.lease(group_id), []).append(group_id)
        operation = self.store.delete_groups_without_offsets if without_offsets else self.store.delete_groups
        deleted: set[str] = operation(by_lease)
        return deleted

    def commit_of(self, group_id: str, *offsets: tuple[Any, ...], now_ms: int = NOW_MS) -> OffsetCommit:
        """A commit of (topic, partition, offset), and a leader epoch and metadata where there are more fields."""
        return OffsetCommit(
            self.lease(group_id),
            group_id,
            [offset_row(group_id, *offset, now_ms=now_ms) for offset in offsets],
        )

    def commit(self, group_id: str, *offsets: tuple[Any, ...], now_ms: int = NOW_MS) -> list[ErrorCode]:
        [errors] = self.store.commit_offsets([self.commit_of(group_id, *offsets, now_ms=now_ms)])
        found: list[ErrorCode] = errors
        return found

    def committed(self, group_id: str) -> dict[tuple[str, int], int]:
        """All that is committed, as offsets by topic and partition."""
        [rows] = self.store.fetch_offsets([OffsetQuery(group_id, None)])
        return {(row.topic, row.partition): row.offset for row in rows}


def offset_row(
    group_id: str,
    topic: str,
    partition: int,
    offset: int,
    leader_epoch: int = -1,
    metadata: str = "",
    expires_ms: int | None = None,
    *,
    now_ms: int = NOW_MS,
) -> OffsetRow:
    return OffsetRow(group_id, topic, partition, offset, leader_epoch, metadata, now_ms, expires_ms)


def member(member_id: str, *, instance_id: str | None = None, assignment: bytes = b"mine") -> StoredMember:
    return StoredMember(
        member_id,
        instance_id,
        "client",
        "/127.0.0.1",
        45_000,
        300_000,
        (("range", b"\x00\x01"), ("roundrobin", b"")),
        assignment,
    )


def group(group_id: str, members: Iterable[StoredMember] = (), *, generation: int = 1) -> StoredGroup:
    found = tuple(members)
    return StoredGroup(
        group_id,
        "consumer",
        generation,
        "range" if found else None,
        found[0].member_id if found else None,
        found,
        NOW_MS,
    )


def names_in_slot(slot: int, count: int) -> Sequence[str]:
    """Group ids that all belong to one slot."""
    names = (f"group-{number}" for number in range(100_000))
    found = [name for name in names if slot_of(name) == slot][:count]
    assert len(found) == count
    return found
