"""Groups and their members, as they outlive their coordinator.

A group is stored whole, in a handful of statements however many members it has, and members that have not changed are
not written again. Every write comes under the lease of the group's slot.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from warp.errors import KafkaError, MetadataCorrupt
from warp.metadata.group_model import (
    GROUP_BYTES_MAX,
    GroupTooLarge,
    Lease,
    StoredGroup,
    StoredMember,
    coordinator_lease,
    group_id_error,
    slot_of,
    stored_bytes,
)
from warp.metadata.leases import lock_leases, share_leases
from warp.metadata.session import Database, Row, Session, Statement, load_statements

_SQL = load_statements("groups")
LOAD_GROUPS = _SQL["load_groups"]
LOAD_MEMBERS = _SQL["load_members"]
UPSERT_GROUPS = _SQL["upsert_groups"]
DELETE_OTHER_MEMBERS = _SQL["delete_other_members"]
UPSERT_MEMBERS = _SQL["upsert_members"]
DELETE_GROUPS = _SQL["delete_groups"]
DELETE_GROUPS_WITHOUT_OFFSETS = _SQL["delete_groups_without_offsets"]
DELETE_MEMBERS = _SQL["delete_members"]

FIELDS_FORMAT = 1
"""The first byte of a member's packed fields."""


async def load_groups(database: Database, slots: Iterable[int]) -> list[StoredGroup]:
    """All groups of some coordinator slots, by id, from one snapshot."""
    wanted = [(slot,) for slot in sorted(set(slots))]
    if not wanted:
        return []
    async with database.snapshot() as session:
        groups = await session.all(LOAD_GROUPS, wanted)
        members: dict[int, list[StoredMember]] = {row[0]: [] for row in groups}
        for group_number, member_id, fields in await session.all(LOAD_MEMBERS, wanted):
            members[group_number].append(unpack_member(member_id, fields))
    loaded = [_group(row, members[row[0]]) for row in groups]
    return sorted(loaded, key=lambda group: group.group_id)


async def save_groups(database: Database, groups: Mapping[Lease, Sequence[StoredGroup]]) -> None:
    """Store groups as they are now, all or none: with these members and no others. Committed offsets stay.

    Raises LeaseLost, GroupTooLarge (more than GROUP_BYTES_MAX), or KafkaError (INVALID_GROUP_ID).
    """
    wanted = {group.group_id: group for each in groups.values() for group in each}
    for lease, each in groups.items():
        for group in each:
            check_group(lease, group.group_id)
            if stored_bytes(group) > GROUP_BYTES_MAX:
                raise GroupTooLarge(
                    f"the members of group {group.group_id} take more than {GROUP_BYTES_MAX} bytes"
                )
    if not wanted:
        return
    async with database.transaction() as session:
        await share_leases(session, groups)
        rows = await session.all(UPSERT_GROUPS, [_group_row(wanted[group_id]) for group_id in sorted(wanted)])
        numbers: dict[str, int] = {row[0]: row[1] for row in rows}
        members = [
            (numbers[group_id], member.member_id.encode(), place, pack_fields(member))
            for group_id, group in sorted(wanted.items())
            for place, member in enumerate(group.members)
        ]
        await session.execute(
            DELETE_OTHER_MEMBERS,
            [(number,) for number in sorted(numbers.values())],
            [row[:2] for row in members],
        )
        await session.execute_rows(UPSERT_MEMBERS, members)


async def delete_groups(database: Database, groups: Mapping[Lease, Sequence[str]]) -> set[str]:
    """Delete groups with their members and offsets; those that there were. Raises LeaseLost.

    Nobody sees the offsets any more; a job removes their rows.
    """
    return await _delete(database, groups, DELETE_GROUPS)


async def delete_groups_without_offsets(
    database: Database, groups: Mapping[Lease, Sequence[str]]
) -> set[str]:
    """Delete those of the groups that have neither stored members nor offsets; which these were. Raises LeaseLost."""
    return await _delete(database, groups, DELETE_GROUPS_WITHOUT_OFFSETS)


async def _delete(
    database: Database, groups: Mapping[Lease, Sequence[str]], statement: Statement
) -> set[str]:
    wanted = sorted({group_id for each in groups.values() for group_id in each if "\0" not in group_id})
    for lease, each in groups.items():
        for group_id in each:
            check_slot(lease, group_id)
    if not wanted:
        return set()
    async with database.transaction() as session:
        # A commit of offsets that ran beside this would find the group there, and its offsets would go with it.
        await lock_leases(session, groups)
        deleted = await session.all(statement, [(group_id,) for group_id in wanted])
        await _delete_members(session, [row[1] for row in deleted])
    return {row[0] for row in deleted}


async def _delete_members(session: Session, group_numbers: Sequence[int]) -> None:
    if group_numbers:
        await session.execute(DELETE_MEMBERS, [(number,) for number in group_numbers])


def check_group(lease: Lease, group_id: str) -> None:
    """Raise KafkaError when the name can't be stored, ValueError when the lease is not that of the group's slot."""
    check_slot(lease, group_id)
    error = group_id_error(group_id)
    if error:
        raise KafkaError(error, "the group's id is too long, or has a NUL in it")


def check_slot(lease: Lease, group_id: str) -> None:
    """Raise ValueError when the lease is not that of the group's slot: it would fence nobody."""
    if lease.name != coordinator_lease(slot_of(group_id)):
        raise ValueError(f"the lease of {lease.name} is not that of group {group_id}")


def _group_row(group: StoredGroup) -> tuple[str | int | None, ...]:
    return (
        group.group_id,
        slot_of(group.group_id),
        group.protocol_type,
        group.generation,
        group.protocol,
        group.leader,
        group.changed_ms,
    )


def _group(row: Row, members: Sequence[StoredMember]) -> StoredGroup:
    _, group_id, protocol_type, generation, protocol, leader, changed_ms = row
    return StoredGroup(group_id, protocol_type, generation, protocol, leader, tuple(members), changed_ms)


def pack_fields(member: StoredMember) -> bytes:
    """All of a member but its id, as bytes: equal members give equal bytes.

    A byte for the format, two int32 timeouts, then values with an int32 length each (-1: none): instance id, client id,
    client host, assignment, and the protocols' names and metadata.
    """
    pieces = [struct.pack(">bii", FIELDS_FORMAT, member.session_timeout_ms, member.rebalance_timeout_ms)]
    values = [
        None if member.instance_id is None else member.instance_id.encode(),
        member.client_id.encode(),
        member.client_host.encode(),
        member.assignment,
    ]
    for name, metadata in member.protocols:
        values += (name.encode(), metadata)
    for value in values:
        pieces.append(struct.pack(">i", -1 if value is None else len(value)))
        pieces.append(value or b"")
    return b"".join(pieces)


def unpack_member(member_id: bytes, fields: bytes) -> StoredMember:
    """The member of a row. Raises MetadataCorrupt when it is not what pack_fields makes."""
    try:
        version, session_timeout_ms, rebalance_timeout_ms = struct.unpack_from(">bii", fields)
        if version != FIELDS_FORMAT:
            raise ValueError(f"format {version}")
        instance_id, client_id, client_host, assignment, *protocols = _values(fields, struct.calcsize(">bii"))
        if client_id is None or client_host is None or assignment is None or None in protocols:
            raise ValueError("a value is missing")
        pairs = zip(protocols[::2], protocols[1::2], strict=True)
        return StoredMember(
            member_id.decode(),
            None if instance_id is None else instance_id.decode(),
            client_id.decode(),
            client_host.decode(),
            session_timeout_ms,
            rebalance_timeout_ms,
            tuple(
                (name.decode(), metadata)
                for name, metadata in pairs
                if name is not None and metadata is not None
            ),
            assignment,
        )
    except (struct.error, ValueError) as error:
        raise MetadataCorrupt(f"a stored member of a group can't be read ({error})") from error


def _values(fields: bytes, position: int) -> list[bytes | None]:
    values: list[bytes | None] = []
    while position < len(fields):
        (length,) = struct.unpack_from(">i", fields, position)
        position += 4
        if length < -1 or length > len(fields) - position:
            raise ValueError("a length is wrong")
        values.append(None if length == -1 else fields[position : position + length])
        position += max(length, 0)
    return values
