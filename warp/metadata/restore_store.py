"""Operations of restoring: they put a database right while no agent uses it.

Reads go through the whole of a table, in pages. The one write is one transaction, so that whoever is interrupted finds
the database as it was, or done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from warp.errors import MetadataError
from warp.ids import LogId, TopicId
from warp.metadata.catalogue_version import lock_catalogue, set_version
from warp.metadata.restore_model import (
    Raises,
    Restoration,
    RestoredLog,
    StoredExtent,
    StoredLog,
    StoredProducer,
    StoredSegment,
    StoredTopic,
)
from warp.metadata.session import Database, Session, Statement, load_statements, parse_statements
from warp.metadata.sqlite import SqliteDatabase

_SQL = load_statements("restore")
READ_SETTING = load_statements("settings")["read_setting"]
WRITE_SETTING = load_statements("settings")["write_setting"]
LOCK_LOGS = load_statements("commits")["lock_logs"]
INSERT_CONFIGS = load_statements("topics")["insert_configs"]
INSERT_LOGS = load_statements("topics")["insert_logs"]
LOGS_OF_TOPICS = load_statements("topics")["logs_of_topics"]

PAGE_ROWS = 1_000
CONFIGS_OF_NEW_TOPICS = (("retention.bytes", "-1"), ("retention.ms", "-1"))
"""Until somebody says what their configs were: by the defaults, old records would be deleted at once."""

# The counters behind ids are the one thing here that the databases have each in their own way.
_COUNTERS_SQLITE = parse_statements(
    """
-- name: make_counter
insert into sqlite_sequence (name, seq) select $1, 0 where not exists (select 1 from sqlite_sequence where name = $1)
-- name: raise_counter
update sqlite_sequence set seq = seq + $2 where name = $1
"""
)
_COUNTERS_POSTGRES = parse_statements(
    """
-- name: raise_counter
select setval(
    pg_get_serial_sequence(cast($1 as text), cast($2 as text)),
    nextval(pg_get_serial_sequence(cast($1 as text), cast($2 as text))) + cast($3 as bigint)
)
"""
)


async def forget_settings(database: Database, prefix: str) -> None:
    """Delete settings whose names begin so. Raises ValueError for a prefix that is a pattern."""
    if not prefix or "%" in prefix or "_" in prefix:
        raise ValueError(f"not a plain prefix: {prefix!r}")
    await database.execute(_SQL["forget_settings"], prefix + "%")


class RestoreStore:
    """What restoring reads and writes, over a database that is open and that no agent uses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_empty(self) -> bool:
        """Has there never been a topic or a segment?"""
        row = await self._database.one(_SQL["is_anything_there"])
        assert row is not None, "it counts, so it has a row"
        return not any(row)

    async def setting(self, name: str) -> str | None:
        """A cluster setting, None when nobody has set it."""
        row = await self._database.one(READ_SETTING, name)
        return None if row is None else row[0]

    async def agents(self) -> dict[int, tuple[str, int]]:
        """Per broker id the agent's name, and the counter that moves while it lives."""
        rows = await self._database.all(_SQL["beats_of_agents"])
        return {broker_id: (name, counter) for broker_id, name, counter in rows}

    async def topics(self) -> list[StoredTopic]:
        """All topics."""
        return [StoredTopic(*row) for row in await self._database.all(_SQL["all_topic_names"])]

    async def deleted_topics(self) -> set[TopicId]:
        """Topics that are known to have been deleted."""
        return {row[0] for row in await self._database.all(_SQL["all_deleted_topics"])}

    async def segments(self) -> AsyncIterator[StoredSegment]:
        """All segments, in any state."""
        after = 0
        while rows := await self._database.all(_SQL["all_segments_by_id"], after, PAGE_ROWS):
            for row in rows:
                yield StoredSegment(*row)
            after = rows[-1][0]

    async def logs(self) -> AsyncIterator[StoredLog]:
        """All logs of topics that there are."""
        after = 0
        while rows := await self._database.all(_SQL["all_logs_by_id"], after, PAGE_ROWS):
            for row in rows:
                yield StoredLog(*row)
            after = rows[-1][0]

    async def extents(self) -> AsyncIterator[StoredExtent]:
        """All extents, by log and offset; also those of deleted topics."""
        after = (0, -1)
        while rows := await self._database.all(_SQL["all_extents_by_offset"], *after, PAGE_ROWS):
            for row in rows:
                yield StoredExtent(*row)
            after = (rows[-1][0], rows[-1][2])

    async def producers(self, log_id: LogId) -> list[StoredProducer]:
        """The states of a log's producers."""
        rows = await self._database.all(_SQL["producers_of_logs"], [(log_id,)])
        return [StoredProducer(*row) for row in rows]

    async def apply(self, restoration: Restoration, now_ms: int) -> None:
        """Change everything, or nothing. Raises MetadataError; after OutcomeUnknown look again what there is."""
        async with self._database.transaction() as session:
            version = await lock_catalogue(session) + restoration.raises.catalogue_version
            await set_version(session, version)
            await self._raise_counters(session, restoration.raises)
            await _raise_rows(session, restoration)
            await _write_topics(session, restoration, version, now_ms)
            segment_ids = await _write_segments(session, restoration)
            log_ids = await _log_ids(session, restoration.logs)
            for page in _pages(restoration.logs):
                await _write_logs(session, page, log_ids, segment_ids, now_ms)
            await _delete_extents(session, restoration.lost_extents)
            buried = [(segment_id, now_ms) for segment_id in restoration.gone_segments]
            await _in_pages(session, _SQL["bury_segments"], buried)
            for name, value in sorted(restoration.settings.items()):
                await session.execute(WRITE_SETTING, name, value)

    async def _raise_counters(self, session: Session, raises: Raises) -> None:
        for table, column, by in (
            ("logs", "log_id", raises.log_ids),
            ("groups", "group_number", raises.group_numbers),
            ("agents", "broker_id", raises.broker_ids),
            ("segments", "segment_id", raises.segment_ids),
        ):
            if isinstance(self._database, SqliteDatabase):
                await session.execute(_COUNTERS_SQLITE["make_counter"], table)
                await session.execute(_COUNTERS_SQLITE["raise_counter"], table, by)
            else:
                await session.one(_COUNTERS_POSTGRES["raise_counter"], table, column, by)


async def _raise_rows(session: Session, restoration: Restoration) -> None:
    raises = restoration.raises
    largest = restoration.largest_producer_id + 1
    await session.execute(_SQL["raise_producer_ids"], raises.producer_ids, largest)
    await session.execute(_SQL["raise_leases"], raises.lease_epochs)
    await session.execute(_SQL["raise_generations"], raises.group_generations)


async def _write_topics(session: Session, restoration: Restoration, version: int, now_ms: int) -> None:
    new = [(*topic, version, now_ms) for topic in restoration.new_topics]
    await _in_pages(session, _SQL["insert_restored_topics"], new)
    await _in_pages(
        session,
        INSERT_CONFIGS,
        [(t.topic_id, name, value) for t in restoration.new_topics for name, value in CONFIGS_OF_NEW_TOPICS],
    )
    logs: list[tuple[Any, ...]] = [
        (topic.topic_id, partition)
        for topic in restoration.new_topics
        for partition in range(topic.partitions)
    ]
    grown = sorted(restoration.grown_topics.items())
    before = {
        topic_id: len(rows) for topic_id, rows in (await _partitions(session, [t for t, _ in grown])).items()
    }
    logs += [
        (topic_id, partition) for topic_id, total in grown for partition in range(before[topic_id], total)
    ]
    await _in_pages(session, _SQL["grow_topics"], [(*topic, version) for topic in grown])
    await _in_pages(session, INSERT_LOGS, logs)


async def _write_segments(session: Session, restoration: Restoration) -> dict[str, int]:
    """Make segments known; the ids of all that extents are to lie in."""
    await _in_pages(session, _SQL["insert_restored_segments"], restoration.segments)
    keys = sorted({extent.key for log in restoration.logs for extent in log.added if extent.key})
    found: dict[str, int] = {}
    for page in _pages(keys):
        found.update(
            (row[0], row[1]) for row in await session.all(_SQL["ids_of_segments"], [(k,) for k in page])
        )
    return found


async def _log_ids(session: Session, logs: Sequence[RestoredLog]) -> dict[tuple[TopicId, int], LogId]:
    topic_ids = list(dict.fromkeys(log.topic_id for log in logs))
    return {
        (topic_id, partition): log_id
        for topic_id, rows in (await _partitions(session, topic_ids)).items()
        for partition, log_id in rows
    }


async def _partitions(
    session: Session, topic_ids: Sequence[TopicId]
) -> dict[TopicId, list[tuple[int, LogId]]]:
    found: dict[TopicId, list[tuple[int, LogId]]] = {topic_id: [] for topic_id in topic_ids}
    for page in _pages(topic_ids):
        for log_id, topic_id, partition in await session.all(LOGS_OF_TOPICS, [(t,) for t in page]):
            found[topic_id].append((partition, log_id))
    return found


async def _write_logs(
    session: Session,
    logs: Sequence[RestoredLog],
    log_ids: dict[tuple[TopicId, int], LogId],
    segment_ids: dict[str, int],
    now_ms: int,
) -> None:
    ids = [log_ids[log.topic_id, log.partition] for log in logs]
    pairs = list(zip(ids, logs, strict=True))
    stored = {row[0]: row[2] for row in await session.all(LOCK_LOGS, [(log_id,) for log_id in sorted(ids)])}
    if any(stored[log_id] != log.stored_next_offset for log_id, log in pairs):
        raise MetadataError("the database has changed while it was read: stop all agents, and run this again")
    removed = [(log_id, end_offset) for log_id, log in pairs for end_offset in log.removed]
    await _delete_extents(session, removed)
    added = [
        (
            log_id,
            extent.end_offset,
            extent.base_offset,
            segment_ids[extent.key] if extent.key else None,
            extent.position,
            extent.size_bytes,
            extent.max_timestamp_ms,
            extent.payload,
        )
        for log_id, log in pairs
        for extent in log.added
    ]
    await _in_pages(session, _SQL["insert_restored_extents"], added)
    ends = [(log_id, log.start_offset, log.next_offset) for log_id, log in pairs]
    await session.execute_rows(_SQL["set_ends_of_logs"], ends)
    changed = [(log_id,) for log_id, log in pairs if log.added or log.removed]
    if changed:
        await session.execute(_SQL["count_sizes_of_logs"], changed)
        await session.execute(_SQL["count_prefix_maxima"], changed)
    producers = [(log_id, *producer, now_ms) for log_id, log in pairs for producer in log.producers]
    await _in_pages(session, _SQL["upsert_restored_producers"], producers)


async def _delete_extents(session: Session, extents: Sequence[tuple[LogId, int]]) -> None:
    for page in _pages(extents):
        await session.execute(_SQL["delete_lost_extents"], page)
        await session.execute(_SQL["forget_lost_quarantine"], page)


async def _in_pages(session: Session, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> None:
    for page in _pages(rows):
        await session.execute_rows(statement, page)


def _pages(rows: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(rows)
    while page := list(islice(left, PAGE_ROWS)):
        yield page
