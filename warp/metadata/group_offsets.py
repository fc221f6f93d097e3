"""Committed offsets: many groups' commits in one transaction of three statements.

Names are resolved in that transaction. An offset belongs to a log, and logs are never used again: so a commit that
races with the deletion of its topic is refused, or belongs to a log that nobody sees any more. That needs no lock on
the log, which commits of records hold. In the same way an offset belongs to a group's number, which a group that is
created anew does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TypeAlias

from warp.errors import ErrorCode
from warp.metadata.group_model import (
    OFFSETS_PER_GROUP_MAX,
    Lease,
    OffsetCommit,
    OffsetDeletion,
    OffsetExpiry,
    OffsetKey,
    OffsetLag,
    OffsetQuery,
    OffsetRow,
    OrphanCursor,
    OrphanSweep,
    group_id_error,
    slot_of,
)
from warp.metadata.groups import check_slot
from warp.metadata.leases import share_leases
from warp.metadata.session import Database, Row, Session, Statement, load_statements

_SQL = load_statements("group_offsets")
RESOLVE_OFFSETS = _SQL["resolve_offsets"]
INSERT_SIMPLE_GROUPS = _SQL["insert_simple_groups"]
COUNT_OFFSETS = _SQL["count_offsets"]
UPSERT_OFFSETS = _SQL["upsert_offsets"]
FETCH_OFFSETS = _SQL["fetch_offsets"]
FETCH_OFFSETS_OF_GROUPS = _SQL["fetch_offsets_of_groups"]
OFFSET_LAGS = _SQL["offset_lags"]
DELETE_OFFSETS = _SQL["delete_offsets"]
EXPIRED_OFFSETS = _SQL["expired_offsets"]
LOCK_OFFSETS = _SQL["lock_offsets"]
LOGS_WITH_OFFSETS = _SQL["logs_with_offsets"]
GROUPS_WITH_OFFSETS = _SQL["groups_with_offsets"]
DELETE_OFFSETS_OF_LOGS = _SQL["delete_offsets_of_logs"]
DELETE_OFFSETS_OF_GROUPS = _SQL["delete_offsets_of_groups"]

WALK_STEPS = 1000
"""How many logs and groups one step of the search for ownerless offsets looks at."""


Key: TypeAlias = tuple[str, str, int]
"""An OffsetKey, unnamed: thousands of them are made in every transaction."""

Resolved: TypeAlias = Row
"""The place of a key, the numbers of its group and log (None for what there is not), and the log's once more if it is
committed already."""


async def commit_offsets(database: Database, commits: Sequence[OffsetCommit]) -> list[list[ErrorCode]]:
    """Commit offsets in the order given: of several rows for one key the last one counts. Per commit an error per row.

    UNKNOWN_TOPIC_OR_PARTITION, INVALID_GROUP_ID, or INVALID_COMMIT_OFFSET_SIZE where the group has as many as it may.
    A group that is not stored yet becomes one without members. Raises LeaseLost, and then nothing has changed.
    """
    errors: dict[Key, ErrorCode] = {}
    last: dict[Key, OffsetRow] = {}
    for commit in commits:
        group_id = commit.group_id
        check_slot(commit.lease, group_id)
        invalid = group_id_error(group_id)
        for row in commit.rows:
            key = (group_id, row.topic, row.partition)
            if invalid:
                errors[key] = invalid
            elif "\0" in row.topic:
                errors[key] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                last[key] = row
    async with database.transaction() as session:
        await share_leases(session, {commit.lease for commit in commits})
        if last:
            await _write(session, last, errors)
    if not errors:
        return [[ErrorCode.NONE] * len(commit.rows) for commit in commits]
    return [
        [errors.get((commit.group_id, row.topic, row.partition), ErrorCode.NONE) for row in commit.rows]
        for commit in commits
    ]


async def fetch_offsets(database: Database, queries: Sequence[OffsetQuery]) -> list[list[OffsetRow]]:
    """What is committed, per query, all from one snapshot; by topic and partition where all were asked for.

    There is no row for what nobody has committed, nor for topics that are gone.
    """
    chosen: list[tuple[int, str, str, int]] = []
    whole: list[tuple[int, str]] = []
    for place, query in enumerate(queries):
        if "\0" in query.group_id:
            continue
        if query.partitions is None:
            whole.append((place, query.group_id))
        else:
            chosen += [
                (place, query.group_id, topic, p) for topic, p in query.partitions if "\0" not in topic
            ]
    found: list[list[OffsetRow]] = [[] for _ in queries]
    async with database.snapshot() as session:
        rows = await session.all(FETCH_OFFSETS, chosen) if chosen else []
        if whole:
            rows += sorted(await session.all(FETCH_OFFSETS_OF_GROUPS, whole), key=lambda row: tuple(row[:3]))
    for row in rows:
        found[row[0]].append(_offset_row(queries[row[0]].group_id, row))
    return found


async def offset_lags(database: Database, group_ids: Sequence[str], rows_max: int) -> list[OffsetLag]:
    """The committed offsets of groups beside the ends of their logs, in one statement; at most `rows_max` of them."""
    wanted = [(group_id,) for group_id in dict.fromkeys(group_ids) if "\0" not in group_id]
    if not wanted:
        return []
    return sorted(OffsetLag(*row) for row in await database.all(OFFSET_LAGS, wanted, rows_max))


async def delete_offsets(database: Database, deletions: Sequence[OffsetDeletion]) -> list[list[ErrorCode]]:
    """Delete committed offsets. Per deletion and partition NONE, also where none was committed, or
    UNKNOWN_TOPIC_OR_PARTITION. Raises LeaseLost."""
    wanted: list[Key] = []
    for deletion in deletions:
        check_slot(deletion.lease, deletion.group_id)
        wanted += [(deletion.group_id, *partition) for partition in deletion.partitions]
    wanted = [key for key in wanted if "\0" not in key[0] and "\0" not in key[1]]
    async with database.transaction() as session:
        await share_leases(session, {deletion.lease for deletion in deletions})
        resolved = await _resolve(session, wanted)
        committed = sorted((number, log_id) for _, number, log_id, found in resolved if found is not None)
        if committed:
            # In the order in which commits write them; what comes in between has come afterwards, and stays.
            locked = await session.all(LOCK_OFFSETS, committed)
            await session.execute_rows(DELETE_OFFSETS, [tuple(row[:2]) for row in locked])
    known = {wanted[place] for place, _, log_id, _ in resolved if log_id is not None}
    return [
        [
            ErrorCode.NONE
            if (deletion.group_id, *partition) in known
            else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            for partition in deletion.partitions
        ]
        for deletion in deletions
    ]


async def expire_offsets(
    database: Database, expiries: Sequence[OffsetExpiry], now_ms: int, rows_max: int
) -> list[OffsetKey]:
    """Remove at most `rows_max` offsets that have had their time; which these were. Fewer: there are no more of them.

    Raises LeaseLost.
    """
    if not expiries:
        return []
    for expiry in expiries:
        check_slot(expiry.lease, expiry.group_id)
    groups = [(expiry.group_id, expiry.committed_until_ms) for expiry in expiries]
    kept = [(expiry.group_id, topic) for expiry in expiries for topic in sorted(expiry.kept_topics)]
    async with database.transaction() as session:
        await share_leases(session, {expiry.lease for expiry in expiries})
        expired = await session.all(EXPIRED_OFFSETS, groups, kept, now_ms, rows_max)
        rows = await _unchanged(session, expired)
        await session.execute_rows(DELETE_OFFSETS, [(row[3], row[4]) for row in rows])
    return [OffsetKey(*row[:3]) for row in rows]


async def remove_orphan_offsets(
    database: Database,
    cursor: OrphanCursor,
    rows_max: int,
    lease: Lease | None = None,
    steps_max: int = WALK_STEPS,
) -> OrphanSweep:
    """One bounded step through the groups and logs that have offsets: removes those of which one is gone.

    At most `rows_max` rows of each kind. Needs no lease, for nobody sees these rows, and nothing brings a number back;
    under one, it keeps several agents from the same work, and raises LeaseLost.
    """
    async with database.snapshot() as session:
        groups = await session.all(GROUPS_WITH_OFFSETS, cursor.group_number, steps_max)
        logs = await session.all(LOGS_WITH_OFFSETS, cursor.log_id, steps_max)
    of_groups = await _remove(database, DELETE_OFFSETS_OF_GROUPS, groups, rows_max, lease)
    of_logs = await _remove(database, DELETE_OFFSETS_OF_LOGS, logs, rows_max, lease)
    group_number, groups_done = _next(cursor.group_number, groups, of_groups, rows_max, steps_max)
    log_id, logs_done = _next(cursor.log_id, logs, of_logs, rows_max, steps_max)
    is_done = groups_done and logs_done
    return OrphanSweep(of_groups + of_logs, None if is_done else OrphanCursor(group_number, log_id))


async def _write(session: Session, last: dict[Key, OffsetRow], errors: dict[Key, ErrorCode]) -> None:
    """Write the rows whose logs there are; enter the others into `errors`."""
    keys = list(last)
    resolved = await _resolve(session, keys)
    numbers = await _number_new_groups(session, keys, resolved, last)
    room = await _room_for_new(session, resolved, numbers)
    rows = []
    for place, group_number, log_id, committed in resolved:
        key = keys[place]
        if log_id is None:
            errors[key] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            continue
        if group_number is None:
            group_number = numbers[key[0]]
        if committed is None:
            if room[group_number] <= 0:
                errors[key] = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
                continue
            room[group_number] -= 1
        _, _, _, offset, leader_epoch, metadata, committed_ms, expires_ms = last[key]
        text = metadata.encode() if metadata else None
        rows.append((group_number, log_id, offset, leader_epoch, text, committed_ms, expires_ms))
    # In the order of their places in the table: one after the other is cheaper, and two agents' never cross.
    rows.sort(key=itemgetter(0, 1))
    await session.execute_rows(UPSERT_OFFSETS, rows)


async def _resolve(session: Session, keys: Sequence[Key]) -> Sequence[Resolved]:
    """Each key's numbers, in the order of their places."""
    if not keys:
        return []
    rows = await session.all(RESOLVE_OFFSETS, [(place, *key) for place, key in enumerate(keys)])
    return sorted(rows, key=itemgetter(0))


async def _number_new_groups(
    session: Session, keys: Sequence[Key], resolved: Sequence[Resolved], last: dict[Key, OffsetRow]
) -> dict[str, int]:
    """Store the groups that are not stored yet but have an offset to keep; their numbers."""
    new = {
        keys[place][0]: last[keys[place]].committed_ms
        for place, group_number, log_id, _ in resolved
        if group_number is None and log_id is not None
    }
    if not new:
        return {}
    rows = [(group_id, slot_of(group_id), now_ms) for group_id, now_ms in sorted(new.items())]
    return {row[0]: row[1] for row in await session.all(INSERT_SIMPLE_GROUPS, rows)}


async def _room_for_new(
    session: Session, resolved: Sequence[Resolved], numbers: dict[str, int]
) -> dict[int, int]:
    """How many more offsets the groups may have that are to get new ones."""
    room = dict.fromkeys(numbers.values(), OFFSETS_PER_GROUP_MAX)
    growing = {
        group_number
        for _, group_number, log_id, committed in resolved
        if committed is None and group_number is not None and log_id is not None
    }
    if growing:
        for group_number, count in await session.all(COUNT_OFFSETS, [(n,) for n in sorted(growing)]):
            room[group_number] = OFFSETS_PER_GROUP_MAX - count
    return room


async def _unchanged(session: Session, expired: Sequence[Row]) -> list[Row]:
    """Those that nobody has committed anew since they were found; nobody can from now on."""
    if not expired:
        return []
    locked = await session.all(LOCK_OFFSETS, sorted((row[3], row[4]) for row in expired))
    current = {tuple(row) for row in locked}
    return [row for row in expired if tuple(row[3:]) in current]


async def _remove(
    database: Database, statement: Statement, walked: Sequence[Row], rows_max: int, lease: Lease | None
) -> int:
    gone = [(number,) for number, found in walked if found is None]
    if not gone:
        return 0
    if lease is None:
        return await database.execute(statement, gone, rows_max)
    async with database.transaction() as session:
        await share_leases(session, [lease])
        return await session.execute(statement, gone, rows_max)


def _next(start: int, walked: Sequence[Row], removed: int, rows_max: int, steps_max: int) -> tuple[int, bool]:
    """Where the walk goes on, and whether it has come to its end."""
    if removed >= rows_max:
        return start, False
    return max((row[0] for row in walked), default=start), len(walked) < steps_max


def _offset_row(group_id: str, row: Row) -> OffsetRow:
    _, topic, partition, offset, leader_epoch, metadata, committed_ms, expires_ms = row
    text = "" if metadata is None else metadata.decode()
    return OffsetRow(group_id, topic, partition, offset, leader_epoch, text, committed_ms, expires_ms)
