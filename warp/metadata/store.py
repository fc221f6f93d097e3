"""The metadata store: every fact that must outlive an agent, behind one class.

Each operation is one transaction or one snapshot, written once for SQLite and PostgreSQL; the modules named after their
nouns hold them. All raise MetadataUnavailable (nothing was changed), OutcomeUnknown (it may have been) or another
MetadataError; those that write and find another transaction in the way have tried again before they say so.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping, Sequence

from warp.clock import Clock
from warp.errors import ErrorCode, StartError
from warp.ids import SECRET_BYTES, BrokerId, IdSource, LogId, ProducerId, TopicId
from warp.metadata import (
    agents,
    commits,
    entry_rows,
    extents,
    group_offsets,
    groups,
    leases,
    records,
    restore_store,
    topics,
)
from warp.metadata.catalogue_version import read_version
from warp.metadata.cluster_model import AgentFacts, AgentRow, AgentState, ClusterRows
from warp.metadata.commit import GapMemory
from warp.metadata.contention import retried
from warp.metadata.entries import EntryChange, EntryKind
from warp.metadata.group_model import (
    Lease,
    LeaseState,
    OffsetCommit,
    OffsetDeletion,
    OffsetExpiry,
    OffsetKey,
    OffsetLag,
    OffsetQuery,
    OffsetRow,
    OrphanCursor,
    OrphanSweep,
    StoredGroup,
)
from warp.metadata.life_store import LifecycleStore
from warp.metadata.model import (
    CatalogueChanges,
    CatalogueRows,
    CommitResult,
    Extent,
    ExtentQuery,
    LogRead,
    LogState,
    NewTopic,
    SegmentCommit,
    Topic,
)
from warp.metadata.session import Database, Notices, load_statements

_SQL = load_statements("settings")
READ_SETTING = _SQL["read_setting"]
WRITE_SETTING = _SQL["write_setting"]
WRITE_SETTING_ONCE = _SQL["write_setting_once"]
REGISTER_AGENT = _SQL["register_agent"]
ALLOCATE_PRODUCER_IDS = _SQL["allocate_producer_ids"]

CLUSTER_ID = "cluster.id"
PEER_SECRET = "cluster.peer_secret"
FORMAT_LEVEL = "format.level"
FIRST_FORMAT_LEVEL = 1
"""The level of what agents may write. Raised by the cluster once every live agent knows the next one."""


class MetadataStore(LifecycleStore):
    """Operations on the metadata of one cluster, over a database that is SQLite or PostgreSQL.

    `beats`, which need not be opened, leads to the same database past everybody who waits for `database`: for signs of
    life, which the agent is taken for gone without. It is the store's to close.
    """

    def __init__(
        self, database: Database, clock: Clock, ids: IdSource, *, beats: Database | None = None
    ) -> None:
        self._database = database
        self._beats = beats or database
        self._clock = clock
        self._ids = ids
        self._gaps = GapMemory()
        # All of them wait for one row. Those of this agent wait here, where it takes no connection away from commits.
        self._catalogue_changes = asyncio.Lock()

    @property
    def is_shared(self) -> bool:
        """Do several agents use the database side by side?"""
        return self._database.is_shared

    @property
    def notices(self) -> Notices | None:
        """The way to tell other agents of changes; None where there are none."""
        return self._database.notices

    async def open(self) -> None:
        """Connect, migrate, and check that this release may write here. Raises StartError."""
        await self._database.open()
        try:
            await self._database.execute(WRITE_SETTING_ONCE, FORMAT_LEVEL, str(FIRST_FORMAT_LEVEL))
            level = int(await self.setting(FORMAT_LEVEL) or FIRST_FORMAT_LEVEL)
            if level > FIRST_FORMAT_LEVEL:
                raise StartError(
                    f"the cluster writes format level {level}, this release knows {FIRST_FORMAT_LEVEL}: "
                    "install a newer release"
                )
        except BaseException:
            await self._database.close()
            raise

    async def close(self) -> None:
        """Let go of the database."""
        if self._beats is not self._database:
            await self._beats.close()
        await self._database.close()

    async def check(self) -> None:
        """Prove that the database answers. Raises MetadataError."""
        await self.setting(FORMAT_LEVEL)

    # Settings, agents, producers

    async def setting(self, name: str) -> str | None:
        """A cluster setting, None when nobody has set it."""
        row = await self._database.one(READ_SETTING, name)
        return None if row is None else row[0]

    @retried
    async def set_setting(self, name: str, value: str) -> None:
        """Set a cluster setting."""
        await self._database.execute(WRITE_SETTING, name, value)

    @retried
    async def forget_settings(self, prefix: str) -> None:
        """Delete the settings whose names begin so; the prefix holds neither % nor _."""
        await restore_store.forget_settings(self._database, prefix)

    @retried
    async def cluster_id(self, wanted: str | None) -> str:
        """The cluster's id: the stored one; where there is none yet, the wanted or a new one.

        Raises StartError when another one is wanted than is stored.
        """
        await self._database.execute(WRITE_SETTING_ONCE, CLUSTER_ID, wanted or self._ids.cluster_id())
        stored = await self.setting(CLUSTER_ID)
        assert stored is not None, "it was there or has just been written"
        if wanted is not None and wanted != stored:
            raise StartError(f"this metadata belongs to cluster {stored}, not {wanted}")
        return stored

    async def peer_secret(self) -> bytes:
        """What the agents of the cluster know each other by: 32 random bytes, made once. Never logged, never shown.

        Raises StartError when something else is stored.
        """
        fresh = base64.b64encode(self._ids.secret()).decode("ascii")
        await self._database.execute(WRITE_SETTING_ONCE, PEER_SECRET, fresh)
        stored = await self.setting(PEER_SECRET)
        assert stored is not None, "it was there or has just been written"
        try:
            secret = base64.b64decode(stored, validate=True)
        except ValueError:
            secret = b""
        if len(secret) != SECRET_BYTES:
            raise StartError(
                f"the metadata's setting {PEER_SECRET} is damaged: delete it and start all agents anew"
            )
        return secret

    @retried
    async def register_agent(self, name: str) -> BrokerId:
        """The agent's broker id: the one that it had before under this name, or one never given out."""
        row = await self._database.one(REGISTER_AGENT, name, self._clock.time_ms())
        assert row is not None, "an upsert returns its row"
        return BrokerId(row[0])

    @retried
    async def allocate_producer_ids(self, count: int) -> ProducerId:
        """The first of `count` producer ids that were never given out."""
        if count < 1:
            raise ValueError(f"{count} producer ids make no block")
        row = await self._database.one(ALLOCATE_PRODUCER_IDS, count)
        assert row is not None, "the first migration inserts the row"
        return ProducerId(row[0] - count)

    # The agents of a cluster

    async def find_agent(self, name: str) -> AgentRow | None:
        """The registration under a name, None where there is none."""
        return await agents.find_agent(self._database, name)

    @retried
    async def join_agent(
        self, name: str, incarnation: str, facts: AgentFacts, seen: AgentRow | None
    ) -> BrokerId | None:
        """Register a process, in the place of the registration that was seen, if any: its broker id.

        None, and nothing is changed, when the registration is no longer as seen. What was held under the broker id is
        released. The process counts as leaving until it says otherwise.
        """
        now_ms = self._clock.time_ms()
        return await agents.join_agent(self._database, name, incarnation, facts, seen, now_ms)

    @retried
    async def beat(
        self, broker_id: BrokerId, incarnation: str, state: AgentState, facts: AgentFacts, now_ms: int
    ) -> ClusterRows:
        """Show the others that an agent lives, if its registration is still this incarnation's; and see them all."""
        return await agents.beat(self._beats, broker_id, incarnation, state, facts, now_ms)

    @retried
    async def forget_agents(self, seen: Sequence[AgentRow]) -> list[BrokerId]:
        """Delete registrations that are still as seen, and release their leases. Which these were."""
        return await agents.forget_agents(self._database, seen)

    async def is_committed(self, key: str) -> bool:
        """Is a segment known? It is from its commit on, until some time after its death."""
        return await agents.is_committed(self._beats, key)

    # The catalogue

    async def catalogue(self, known_version: int | None) -> CatalogueRows | None:
        """All topics; None when the catalogue is still at the known version."""
        return await topics.read_catalogue(self._database, known_version)

    async def catalogue_changes(self, known_version: int) -> CatalogueChanges | None:
        """What has changed since the known version; None when nothing has."""
        return await topics.read_changes(self._database, known_version)

    async def catalogue_version(self) -> int:
        """The catalogue's version, for one statement."""
        return await read_version(self._database)

    @retried
    async def change_entries(
        self, kind: EntryKind, changes: Sequence[EntryChange], if_version: int
    ) -> int | None:
        """Set and delete entries of a kind, which no limits are checked of; one change per key.

        The catalogue's version afterwards: the next one, or the same when what was to be deleted is not there. None,
        and nothing is changed, when entries of that kind have changed since the catalogue was at `if_version`.
        """
        async with self._catalogue_changes:
            return await entry_rows.change_entries(self._database, kind, changes, if_version)

    @retried
    async def create_topics(self, new_topics: Sequence[NewTopic]) -> list[Topic | ErrorCode]:
        """Per topic: it, TOPIC_ALREADY_EXISTS, or INVALID_TOPIC_EXCEPTION when its name collides with another's."""
        async with self._catalogue_changes:
            return await topics.create_topics(self._database, new_topics, self._clock.time_ms())

    @retried
    async def delete_topics(self, topic_ids: Sequence[TopicId]) -> list[ErrorCode]:
        """Per topic NONE or UNKNOWN_TOPIC_ID."""
        async with self._catalogue_changes:
            return await topics.delete_topics(self._database, topic_ids, self._clock.time_ms())

    @retried
    async def create_partitions(self, topic_id: TopicId, total: int) -> Topic | ErrorCode:
        """Grow a topic to `total` partitions: it, UNKNOWN_TOPIC_ID, or INVALID_PARTITIONS unless that is more."""
        async with self._catalogue_changes:
            return await topics.create_partitions(self._database, topic_id, total)

    @retried
    async def set_topic_configs(
        self, topic_id: TopicId, configs: Mapping[str, str], if_version: int | None = None
    ) -> Topic | ErrorCode | None:
        """Replace all overrides of a topic: it, or UNKNOWN_TOPIC_ID.

        None, and nothing is changed, when the topic has changed since the catalogue was at `if_version`.
        """
        async with self._catalogue_changes:
            return await topics.set_topic_configs(self._database, topic_id, configs, if_version)

    # Logs

    @retried
    async def commit(self, segments: Sequence[SegmentCommit], now_ms: int) -> CommitResult:
        """Give the batches of segments their offsets, in order, in one transaction, and once however often it is asked.

        A key that was committed before is answered as it was then. Raises MetadataUnavailable (nothing was changed) or
        OutcomeUnknown: commit the same segments again, under the same keys.
        """
        return await commits.commit(self._database, segments, self._gaps, self._clock.monotonic(), now_ms)

    async def read_extents(self, queries: Sequence[ExtentQuery]) -> list[LogRead]:
        """Extents from offsets on, all from one snapshot. Early stop: the cost grows with the answer."""
        return await extents.read_extents(self._database, queries)

    async def log_states(self, log_ids: Sequence[LogId]) -> dict[LogId, LogState]:
        """The ends of those of the logs that exist."""
        return await extents.log_states(self._database, log_ids)

    async def extents_for_time(
        self, log_id: LogId, timestamp_ms: int, limit: int, from_offset: int = 0
    ) -> Sequence[Extent]:
        """The first `limit` extents from an offset on, in their order, that can hold a record of that time or later."""
        return await extents.extents_for_time(self._database, log_id, timestamp_ms, limit, from_offset)

    async def extent_of_max_timestamp(self, log_id: LogId) -> Extent | None:
        """The first extent that holds the log's largest timestamp; None when the log is empty or gone."""
        return await extents.extent_of_max_timestamp(self._database, log_id)

    @retried
    async def delete_records(self, before_offsets: Mapping[LogId, int]) -> dict[LogId, int | ErrorCode]:
        """Move log starts up to an offset (-1: the end).

        Per log the new start, UNKNOWN_TOPIC_OR_PARTITION or OFFSET_OUT_OF_RANGE.
        """
        return await records.delete_records(self._database, before_offsets)

    @retried
    async def claim_key(self, key: str, size_bytes: int) -> bool:
        """Make an unknown object's key unusable for commits (it counts as dead); False when the key is known."""
        async with self._database.transaction() as session:
            return await commits.claim_key(session, key, size_bytes, self._clock.time_ms())

    # Leases

    async def take_leases(self, names: Iterable[str], holder: BrokerId) -> list[Lease]:
        """Take leases, whoever holds them, each under an epoch that it never had; by name.

        Writes under the epochs before come to an end first, or fail with LeaseLost.
        """
        return await retried(leases.take_leases)(self._database, tuple(names), holder)

    async def take_leases_as_seen(
        self, seen: Mapping[str, LeaseState | None], holder: BrokerId
    ) -> list[Lease]:
        """Take those of the leases to which nothing has happened since they were seen so (None: not there); by name.

        Of several agents that want the same one gets it.
        """
        return await leases.take_leases_as_seen(self._database, seen, holder)

    @retried
    async def renew_leases(self, held: Sequence[Lease]) -> list[Lease]:
        """Move the counters of leases, for observers to see. Those that are still held."""
        return await leases.renew_leases(self._database, held)

    @retried
    async def release_leases(self, held: Sequence[Lease]) -> list[Lease]:
        """Give leases up; their epochs stay. Those that were still held."""
        return await leases.release_leases(self._database, held)

    async def read_leases(self, names: Iterable[str]) -> dict[str, LeaseState]:
        """Those of the leases that anybody has ever taken."""
        return await leases.read_leases(self._database, names)

    async def leases_held(self, holder: BrokerId) -> list[Lease]:
        """All leases of a holder, by name."""
        return await leases.leases_held(self._database, holder)

    # Groups: every write raises LeaseLost, having changed nothing, once one of its leases is another's

    async def load_groups(self, slots: Iterable[int]) -> list[StoredGroup]:
        """All groups of some coordinator slots, by id."""
        return await groups.load_groups(self._database, slots)

    @retried
    async def save_groups(self, changed: Mapping[Lease, Sequence[StoredGroup]]) -> None:
        """Store groups, all or none: with these members and no others. Committed offsets stay.

        Raises GroupTooLarge, or KafkaError for a name that can't be stored (`group_id_error`).
        """
        await groups.save_groups(self._database, changed)

    @retried
    async def delete_groups(self, group_ids: Mapping[Lease, Sequence[str]]) -> set[str]:
        """Delete groups with their members and offsets. Those that there were."""
        return await groups.delete_groups(self._database, group_ids)

    @retried
    async def delete_groups_without_offsets(self, group_ids: Mapping[Lease, Sequence[str]]) -> set[str]:
        """Delete those of the groups that have neither stored members nor offsets. Which these were."""
        return await groups.delete_groups_without_offsets(self._database, group_ids)

    # Committed offsets: the same holds of their writes

    @retried
    async def commit_offsets(self, offset_commits: Sequence[OffsetCommit]) -> list[list[ErrorCode]]:
        """Commit offsets of many groups in one transaction; the last of several for one key counts.

        Per commit an error per row: NONE, UNKNOWN_TOPIC_OR_PARTITION, INVALID_GROUP_ID, or INVALID_COMMIT_OFFSET_SIZE
        where the group has as many offsets as it may. A group that is not stored yet becomes an empty one.
        """
        return await group_offsets.commit_offsets(self._database, offset_commits)

    async def fetch_offsets(self, queries: Sequence[OffsetQuery]) -> list[list[OffsetRow]]:
        """What is committed, per query, from one snapshot. No row where nothing is, or where the topic is gone."""
        return await group_offsets.fetch_offsets(self._database, queries)

    async def offset_lags(self, group_ids: Sequence[str], rows_max: int) -> list[OffsetLag]:
        """Committed offsets of groups beside the ends of their logs, by name; at most `rows_max` of them."""
        return await group_offsets.offset_lags(self._database, group_ids, rows_max)

    @retried
    async def delete_offsets(self, deletions: Sequence[OffsetDeletion]) -> list[list[ErrorCode]]:
        """Per deletion and partition NONE (also where nothing was committed) or UNKNOWN_TOPIC_OR_PARTITION."""
        return await group_offsets.delete_offsets(self._database, deletions)

    @retried
    async def expire_offsets(
        self, expiries: Sequence[OffsetExpiry], now_ms: int, rows_max: int
    ) -> list[OffsetKey]:
        """Remove at most `rows_max` offsets that have had their time. Which these were; fewer: there are no more."""
        return await group_offsets.expire_offsets(self._database, expiries, now_ms, rows_max)

    @retried
    async def remove_orphan_offsets(
        self, cursor: OrphanCursor, rows_max: int, lease: Lease | None = None
    ) -> OrphanSweep:
        """One bounded step of removing the rows of offsets whose group or topic is gone. Needs no lease to be right;
        under one it raises LeaseLost."""
        return await group_offsets.remove_orphan_offsets(self._database, cursor, rows_max, lease)
