"""Topics, and what has changed in the catalogue.

Whoever changes a topic first locks the catalogue (`catalogue_version.py`), so changes come one after the other. The row
of a deleted topic stays for so many versions of the catalogue, so that agents find the deletion out; one that has
missed more of them reads all topics anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from warp.errors import ErrorCode
from warp.ids import LogId, TopicId
from warp.metadata import entry_rows
from warp.metadata.catalogue_version import lock_catalogue, read_version, set_version
from warp.metadata.entry_rows import changed_entries
from warp.metadata.model import CatalogueChanges, CatalogueRows, NewTopic, Topic
from warp.metadata.session import Database, Row, Session, load_statements

_SQL = load_statements("topics")
ALL_TOPICS = _SQL["all_topics"]
ALL_CONFIGS = _SQL["all_configs"]
ALL_LOGS = _SQL["all_logs"]
CHANGED_TOPICS = _SQL["changed_topics"]
CHANGED_CONFIGS = _SQL["changed_configs"]
CHANGED_LOGS = _SQL["changed_logs"]
REMOVED_TOPICS = _SQL["removed_topics"]
COLLIDING_TOPICS = _SQL["colliding_topics"]
INSERT_TOPICS = _SQL["insert_topics"]
INSERT_CONFIGS = _SQL["insert_configs"]
INSERT_LOGS = _SQL["insert_logs"]
FIND_TOPICS = _SQL["find_topics"]
REMEMBER_DELETED_TOPICS = _SQL["remember_deleted_topics"]
FORGET_DELETED_TOPICS = _SQL["forget_deleted_topics"]
LOGS_OF_TOPICS = _SQL["logs_of_topics"]
LOCK_LOGS_OF_TOPICS = _SQL["lock_logs_of_topics"]
REMEMBER_DELETED_LOGS = _SQL["remember_deleted_logs"]
DELETE_LOGS = _SQL["delete_logs"]
DELETE_CONFIGS = _SQL["delete_configs"]
DELETE_TOPICS = _SQL["delete_topics"]
TOUCH_TOPIC = _SQL["touch_topic"]
CONFIGS_OF_TOPICS = _SQL["configs_of_topics"]

DELETED_TOPICS_KEPT_MS = 30 * 24 * 3600 * 1000
"""How long a deletion is remembered at least: a restored database must not bring the topic back."""


async def read_catalogue(database: Database, known_version: int | None) -> CatalogueRows | None:
    """All topics, ordered by name; None when the version is still the known one."""
    async with database.snapshot() as session:
        version = await read_version(session)
        if version == known_version:
            return None
        topics = _topics(
            await session.all(ALL_TOPICS), await session.all(ALL_CONFIGS), await session.all(ALL_LOGS)
        )
    return CatalogueRows(version, topics)


async def read_changes(database: Database, known_version: int) -> CatalogueChanges | None:
    """What has changed since a version; None when nothing has. Costs as much as the changes."""
    async with database.snapshot() as session:
        version = await read_version(session)
        if version == known_version:
            return None
        entries, are_all = await changed_entries(session, known_version, version)
        since = 0 if are_all else known_version
        topics = _topics(
            await session.all(CHANGED_TOPICS, since),
            await session.all(CHANGED_CONFIGS, since),
            await session.all(CHANGED_LOGS, since),
        )
        removed = [] if are_all else [row[0] for row in await session.all(REMOVED_TOPICS, known_version)]
    return CatalogueChanges(version, topics, removed, entries, are_all)


async def create_topics(
    database: Database, new_topics: Sequence[NewTopic], now_ms: int
) -> list[Topic | ErrorCode]:
    """Create topics, each on its own: the topic, TOPIC_ALREADY_EXISTS, or INVALID_TOPIC_EXCEPTION.

    The last is for a name that differs from another topic's in '.' and '_' alone, as in Kafka.
    """
    async with database.transaction() as session:
        version = await lock_catalogue(session)
        taken = await _taken_names(session, new_topics)
        answers: list[ErrorCode | None] = []
        accepted: list[NewTopic] = []
        for topic in new_topics:
            owner = taken.get(collision_name(topic.name))
            if owner is not None:
                exists = owner == topic.name
                answers.append(
                    ErrorCode.TOPIC_ALREADY_EXISTS if exists else ErrorCode.INVALID_TOPIC_EXCEPTION
                )
                continue
            taken[collision_name(topic.name)] = topic.name
            answers.append(None)
            accepted.append(topic)
        if accepted:
            await _insert_topics(session, accepted, version + 1, now_ms)
            await set_version(session, version + 1)
        logs = await _logs_of(session, [topic.topic_id for topic in accepted])
    created = (
        Topic(topic.name, topic.topic_id, logs[topic.topic_id], dict(topic.configs), topic.replication_factor)
        for topic in accepted
    )
    return [next(created) if answer is None else answer for answer in answers]


async def delete_topics(database: Database, topic_ids: Sequence[TopicId], now_ms: int) -> list[ErrorCode]:
    """Delete topics: NONE or UNKNOWN_TOPIC_ID, in order. Their logs are gone at once, their data goes by a job."""
    async with database.transaction() as session:
        version = await lock_catalogue(session)
        wanted = [(topic_id,) for topic_id in dict.fromkeys(topic_ids)]
        found = await session.all(FIND_TOPICS, wanted)
        if found:
            ids = [(row[0],) for row in found]
            logs = await session.all(LOCK_LOGS_OF_TOPICS, ids)
            await session.execute_rows(REMEMBER_DELETED_LOGS, [(*log, now_ms) for log in logs])
            await session.execute(DELETE_LOGS, [(log[0],) for log in logs])
            await session.execute(DELETE_CONFIGS, ids)
            await session.execute_rows(
                REMEMBER_DELETED_TOPICS, [(row[0], row[1], version + 1, now_ms) for row in found]
            )
            await session.execute(DELETE_TOPICS, ids)
            await session.execute(
                FORGET_DELETED_TOPICS,
                version + 1 - entry_rows.DELETED_VERSIONS,
                now_ms - DELETED_TOPICS_KEPT_MS,
            )
            await set_version(session, version + 1)
    deleted = {row[0] for row in found}
    answers = []
    for topic_id in topic_ids:
        answers.append(ErrorCode.NONE if topic_id in deleted else ErrorCode.UNKNOWN_TOPIC_ID)
        deleted.discard(topic_id)
    return answers


async def create_partitions(database: Database, topic_id: TopicId, total: int) -> Topic | ErrorCode:
    """Raise a topic's partitions to `total`: the topic, UNKNOWN_TOPIC_ID, or INVALID_PARTITIONS when it has as many."""
    async with database.transaction() as session:
        version = await lock_catalogue(session)
        found = await session.one(FIND_TOPICS, [(topic_id,)])
        if found is None:
            return ErrorCode.UNKNOWN_TOPIC_ID
        partitions = found[2]
        if total <= partitions:
            return ErrorCode.INVALID_PARTITIONS
        await session.execute_rows(
            INSERT_LOGS, [(topic_id, partition) for partition in range(partitions, total)]
        )
        await _touch(session, topic_id, version + 1, total)
        return await _read_topic(session, found)


async def set_topic_configs(
    database: Database, topic_id: TopicId, configs: Mapping[str, str], if_version: int | None
) -> Topic | ErrorCode | None:
    """Replace a topic's overrides, all of them: the topic, or UNKNOWN_TOPIC_ID.

    None, and nothing is changed, when the topic has changed since the catalogue was at `if_version`.
    """
    async with database.transaction() as session:
        version = await lock_catalogue(session)
        found = await session.one(FIND_TOPICS, [(topic_id,)])
        if found is None:
            return ErrorCode.UNKNOWN_TOPIC_ID
        if if_version is not None and found[4] > if_version:
            return None
        await session.execute(DELETE_CONFIGS, [(topic_id,)])
        await session.execute_rows(
            INSERT_CONFIGS, [(topic_id, name, value) for name, value in sorted(configs.items())]
        )
        await _touch(session, topic_id, version + 1, found[2])
        return await _read_topic(session, found)


def collision_name(name: str) -> str:
    """What two topics may not share: metric names can't tell '.' and '_' apart."""
    return name.replace(".", "_")


async def _touch(session: Session, topic_id: TopicId, version: int, partitions: int) -> None:
    await session.execute(TOUCH_TOPIC, topic_id, version, partitions)
    await set_version(session, version)


async def _taken_names(session: Session, new_topics: Sequence[NewTopic]) -> dict[str, str]:
    """Names of existing topics by their collision names, as far as the new ones' are concerned."""
    wanted = dict.fromkeys(collision_name(topic.name) for topic in new_topics)
    rows = await session.all(COLLIDING_TOPICS, [(name,) for name in wanted])
    return {row[0]: row[1] for row in rows}


async def _insert_topics(session: Session, topics: Sequence[NewTopic], version: int, now_ms: int) -> None:
    await session.execute_rows(
        INSERT_TOPICS,
        [
            (t.topic_id, t.name, collision_name(t.name), t.partitions, t.replication_factor, version, now_ms)
            for t in topics
        ],
    )
    await session.execute_rows(
        INSERT_CONFIGS,
        [(topic.topic_id, name, value) for topic in topics for name, value in sorted(topic.configs.items())],
    )
    await session.execute_rows(
        INSERT_LOGS,
        [(topic.topic_id, partition) for topic in topics for partition in range(topic.partitions)],
    )


async def _logs_of(session: Session, topic_ids: Sequence[TopicId]) -> dict[TopicId, tuple[LogId, ...]]:
    """The logs of topics, by partition."""
    rows = await session.all(LOGS_OF_TOPICS, [(topic_id,) for topic_id in topic_ids])
    by_topic: dict[TopicId, list[tuple[int, LogId]]] = {topic_id: [] for topic_id in topic_ids}
    for log_id, topic_id, partition in rows:
        by_topic[topic_id].append((partition, log_id))
    return {topic_id: tuple(log_id for _, log_id in sorted(logs)) for topic_id, logs in by_topic.items()}


async def _read_topic(session: Session, found: Row) -> Topic:
    topic_id, name, _, replication_factor, _ = found
    configs = await session.all(CONFIGS_OF_TOPICS, [(topic_id,)])
    logs = await _logs_of(session, [topic_id])
    overrides = {key: value for _, key, value in configs}
    return Topic(name, topic_id, logs[topic_id], overrides, replication_factor)


def _topics(topics: Sequence[Row], configs: Sequence[Row], logs: Sequence[Row]) -> list[Topic]:
    """Topics, by name, from rows of three tables; logs come by partition."""
    logs_by_topic: dict[TopicId, list[LogId]] = {row[0]: [] for row in topics}
    for topic_id, log_id in logs:
        logs_by_topic[topic_id].append(log_id)
    configs_by_topic: dict[TopicId, dict[str, str]] = {}
    for topic_id, name, value in configs:
        configs_by_topic.setdefault(topic_id, {})[name] = value
    return [
        Topic(
            name,
            topic_id,
            tuple(logs_by_topic[topic_id]),
            configs_by_topic.get(topic_id, {}),
            replication_factor,
        )
        for topic_id, name, replication_factor in sorted(topics, key=lambda row: row[1])
    ]
