"""The catalogue: the topics and entries that there are, as one versioned snapshot per agent, and how they change.

A snapshot never changes; a newer one takes its place. The logs that it has for a topic id are that topic's for as long
as it lives, because ids are never used twice. What it does not know, partitions of a topic among it, and what it says
of a name, may be out of date: then the version in the metadata store is looked at first, which is one small read, and
only what has changed since is read again. So a topic that any agent has created is known to all of them when they are
asked for it.

Other agents' hints that the catalogue has changed only make that look happen sooner. Entries (ACLs, credentials,
quotas, configs of the whole cluster) are asked for without a look; in a cluster one every half second keeps them fresh.

Entries and topic configs are changed by compare-and-set: decided by the snapshot's, written only if the store's are the
same, decided anew if not.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from warp.clock import Clock
from warp.cluster.catalogue_entries import apply_changes, are_in_place, checked_changes
from warp.cluster.catalogue_snapshot import EMPTY_CATALOGUE, Catalogue, TopicInfo, newer_catalogue
from warp.cluster.catalogue_watch import CatalogueWatch
from warp.cluster.cluster_config import BrokerDefaults
from warp.cluster.topic_config import topic_rules
from warp.cluster.topic_request import (
    CheckedTopic,
    NameCollision,
    PartitionsRequest,
    TopicRequest,
    check_partitions_request,
    check_topic_requests,
)
from warp.errors import ErrorCode, KafkaError, MetadataContention, MetadataError, OutcomeUnknown
from warp.ids import BrokerId, IdSource, LogId, TopicId
from warp.metadata.entries import Decide, EntryChange, EntryKind
from warp.metadata.model import CatalogueChanges, NewTopic, Topic
from warp.metadata.store import MetadataStore

__all__ = ["EMPTY_CATALOGUE", "Catalogue", "CatalogueObserver", "CatalogueService", "TopicInfo"]

logger = logging.getLogger(__name__)

NAME_FRESHNESS_S = 1.0
"""How old a snapshot may be that an answer by name comes from, by monotonic seconds."""
DECISIONS_MAX = 20
"""How often a change is decided anew because another agent was faster."""

T = TypeVar("T")
DecideConfigs = Callable[[Mapping[str, str]], Mapping[str, str]]
"""All overrides that a topic is to have, by those that it has. Pure; raises KafkaError to refuse."""


class CatalogueObserver:
    """Does nothing; override what is of interest. Called on the loop's thread: keep it short, and don't raise."""

    def catalogue_changed(self, version: int) -> None:
        """This agent has changed the catalogue, which has come to this version or a later one."""

    def entries_changed(
        self, kind: EntryKind, entries: Mapping[str, str], changes: Sequence[EntryChange]
    ) -> None:
        """Entries were changed, by whichever agent: all of the kind as they are now, and what has become of which."""

    def logs_gone(self, log_ids: Sequence[LogId]) -> None:
        """Topics with these logs were deleted, by whichever agent."""


class CatalogueService:
    """The agent's snapshot, its freshness, and the changes that clients ask for.

    `broker` holds the agent's own settings by Kafka's names (`message.max.bytes`, `num.partitions`, …), as texts: they
    are the defaults of topic configs. `broker_ids` names the agents that live. Methods that look at the store raise
    MetadataError.
    """

    def __init__(
        self,
        store: MetadataStore,
        clock: Clock,
        ids: IdSource,
        *,
        broker: Mapping[str, str] | None = None,
        broker_ids: Callable[[], Collection[BrokerId]] = tuple,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._defaults = BrokerDefaults(broker or {})
        self._broker_ids = broker_ids
        self._current = EMPTY_CATALOGUE
        self._checked_s = float("-inf")
        self._lock = asyncio.Lock()
        self._refreshes_begun = 0
        self._last_error: MetadataError | None = None
        self._observers: list[CatalogueObserver] = []
        self._hinted_version = -math.inf
        self._looking: asyncio.Task[None] | None = None
        self._deciding = asyncio.Lock()
        self._watch = CatalogueWatch(self.look)

    def observe(self, observer: CatalogueObserver) -> None:
        """Tell an observer from now on."""
        self._observers.append(observer)

    @property
    def current(self) -> Catalogue:
        """The snapshot as it is, however old."""
        return self._current

    @property
    def defaults(self) -> BrokerDefaults:
        """The broker configs that hold: those of the whole cluster over the agent's own."""
        return self._defaults

    def entries(self, kind: EntryKind) -> Mapping[str, str]:
        """All entries of a kind, by key, in no particular order, as of the snapshot at hand."""
        return self._current.entries[kind]

    @property
    def is_fresh(self) -> bool:
        """Whether the snapshot may answer by name without a look at the store."""
        return self._clock.monotonic() - self._checked_s < NAME_FRESHNESS_S

    def at_hand(
        self, *, names: Collection[str] = (), topic_ids: Collection[TopicId] = (), fresh_ids: bool = False
    ) -> Catalogue | None:
        """The snapshot, if it can answer for these topics without a look at the store: see `lookup`."""
        catalogue = self._current
        if not all(topic_id in catalogue.by_id for topic_id in topic_ids):
            return None
        if topic_ids and fresh_ids and not self.is_fresh:
            return None
        if names and not (self.is_fresh and all(name in catalogue.by_name for name in names)):
            return None
        return catalogue

    async def lookup(
        self, *, names: Collection[str] = (), topic_ids: Collection[TopicId] = (), fresh_ids: bool = False
    ) -> Catalogue:
        """A snapshot that can answer for these topics: what it does not know did not exist when this was called.

        What it knows by name is at most a second out of date, and with `fresh_ids` what it knows by id: topics are
        deleted, and grow, under their ids. Does not wait when the snapshot at hand will do.
        """
        found = self.at_hand(names=names, topic_ids=topic_ids, fresh_ids=fresh_ids)
        return found or await self.refresh()

    async def lookup_partitions(self, wanted: Collection[tuple[str, Iterable[int]]]) -> Catalogue:
        """As `lookup` by names; where it lacks a partition with one of these numbers, that did not exist either."""
        catalogue = await self.lookup(names=[name for name, _ in wanted])
        for name, partitions in wanted:
            info = catalogue.by_name.get(name)
            if info is not None and max(partitions, default=-1) >= info.partitions:
                return await self.refresh()
        return catalogue

    def hinted(self, version: int | None) -> None:
        """Another agent says that there is this version (None: perhaps a new one): look soon, if that is news.

        Hints that come while the store is asked share one look after it. One that fails is forgotten: nothing depends
        on it.
        """
        self._hinted_version = max(self._hinted_version, math.inf if version is None else version)
        if self._hinted_version > self._current.version and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    def keep_fresh(self) -> None:
        """From now on look at the catalogue all the time, if there are other agents who may change it."""
        if self._store.is_shared:
            self._watch.start()

    async def close(self) -> None:
        """Stop looking by itself."""
        await self._watch.close()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _look(self) -> None:
        try:
            while self._hinted_version > self._current.version:
                self._hinted_version = -math.inf
                await self.refresh()
        except MetadataError as error:
            logger.info("the catalogue can't be looked at after a hint: %s", error)
        finally:
            self._looking = None

    async def look(self) -> None:
        """Refresh the snapshot if there is a newer one; that there is none costs one statement."""
        asked_s = self._clock.monotonic()
        if await self._store.catalogue_version() == self._current.version:
            self._checked_s = max(self._checked_s, asked_s)
        else:
            await self.refresh()

    async def everything(self) -> Catalogue:
        """A snapshot to list all topics from, at most a second out of date."""
        return self._current if self.is_fresh else await self.refresh()

    async def refresh(self) -> Catalogue:
        """The snapshot of a moment after this was called. Those who ask meanwhile share one look at the store."""
        begun_before = self._refreshes_begun
        async with self._lock:
            if self._refreshes_begun > begun_before:
                # One that began after this call has ended while it waited.
                if self._last_error is not None:
                    raise self._last_error
                return self._current
            self._refreshes_begun += 1
            self._last_error = None
            asked_s = self._clock.monotonic()
            try:
                changes = await self._store.catalogue_changes(self._current.version)
            except MetadataError as error:
                self._last_error = error
                raise
            except BaseException:
                # Given up with its caller: those who wait for it have to look themselves.
                self._refreshes_begun -= 1
                raise
            if changes is not None:
                self._follow(changes)
            self._checked_s = max(self._checked_s, asked_s)
            return self._current

    async def create(
        self, requests: Sequence[TopicRequest], *, validate_only: bool = False
    ) -> list[TopicInfo | KafkaError]:
        """Create topics, each on its own, as Kafka's CreateTopics does; in the order of the requests.

        With `validate_only` nothing is changed, and the topics that would have come into being have made-up ids.
        """
        checked = check_topic_requests(
            requests,
            self._defaults.partitions,
            self._defaults.replication_factor,
            self._broker_ids(),
            self._defaults.values,
        )
        wanted = [
            NewTopic(
                topic.name, self._ids.topic_id(), topic.partitions, topic.configs, topic.replication_factor
            )
            for topic in checked
            if isinstance(topic, CheckedTopic)
        ]
        made = iter(await self._create(wanted, validate_only))
        return [topic if isinstance(topic, KafkaError) else next(made) for topic in checked]

    async def delete(self, topic_ids: Sequence[TopicId]) -> list[ErrorCode]:
        """Delete topics: per topic NONE or UNKNOWN_TOPIC_ID, in order."""
        before = self._current.version
        answers = await self._store.delete_topics(topic_ids)
        await self.refresh()
        self._tell_changed(before)
        return answers

    async def create_partitions(
        self, request: PartitionsRequest, *, validate_only: bool = False
    ) -> TopicInfo:
        """Raise a topic's number of partitions, as Kafka's CreatePartitions does. Raises KafkaError."""
        catalogue = await self.lookup(names=[request.name])
        info = catalogue.by_name.get(request.name)
        if info is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {request.name} does not exist")
        check_partitions_request(request, info.partitions, self._broker_ids())
        if validate_only:
            return info
        before = self._current.version
        grown = await self._store.create_partitions(info.topic_id, request.total)
        await self.refresh()
        self._tell_changed(before)
        if isinstance(grown, Topic):
            return self._info(grown)
        # Somebody else was first: what the snapshot said no longer holds.
        if grown == ErrorCode.UNKNOWN_TOPIC_ID:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {request.name} does not exist")
        raise KafkaError(grown, f"Topic already has {request.total} partitions or more")

    async def set_topic_configs(self, name: str, decide: DecideConfigs) -> TopicInfo:
        """Give a topic the overrides that `decide` makes of those that it has: the topic as it is afterwards.

        Raises what `decide` raises, and KafkaError (UNKNOWN_TOPIC_OR_PARTITION).
        """
        unsure: Mapping[str, str] | None = None

        async def attempt(catalogue: Catalogue) -> TopicInfo | None:
            nonlocal unsure
            info = catalogue.by_name.get(name)
            if info is None:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Topic {name} does not exist")
            before = info.topic.configs
            if before == unsure:
                self._tell_version(catalogue.version)
                return info
            configs = dict(decide(before))
            if configs == before:
                return info
            try:
                answer = await self._store.set_topic_configs(info.topic_id, configs, catalogue.version)
            except OutcomeUnknown:
                if unsure is not None:
                    raise
                unsure = configs
                return None
            if not isinstance(answer, Topic):
                return None  # it has changed, or is gone: the next look shows which
            await self.refresh()
            self._tell_changed(catalogue.version)
            return self._info(answer)

        return await self._decided(attempt)

    async def change_entries(self, kind: EntryKind, decide: Decide) -> Sequence[EntryChange]:
        """Change entries as `decide` says of the newest ones: see `Entries`.

        Also raises KafkaError (INVALID_REQUEST) for a key or a value that can't be stored.
        """
        unsure: Sequence[EntryChange] | None = None

        async def attempt(catalogue: Catalogue) -> Sequence[EntryChange] | None:
            nonlocal unsure
            entries = catalogue.entries[kind]
            if unsure is not None and are_in_place(entries, unsure):
                self._tell_version(catalogue.version)
                return unsure
            wanted = decide(entries)
            changes = checked_changes(entries, wanted)
            if not changes:
                return wanted
            try:
                version = await self._store.change_entries(kind, changes, catalogue.version)
            except OutcomeUnknown:
                if unsure is not None:
                    raise
                unsure = wanted
                return None
            if version is None:
                return None
            self._tell_version(version)
            await self.refresh()
            return wanted

        return await self._decided(attempt)

    async def _decided(self, attempt: Callable[[Catalogue], Awaitable[T | None]]) -> T:
        """What comes of an attempt on the newest catalogue in which nobody was faster (None: somebody was).

        An attempt whose outcome is unknown counts as one in which somebody was: the next look shows what has become of
        it. Those of this agent come one after the other. Raises MetadataContention after DECISIONS_MAX attempts.
        """
        async with self._deciding:
            for _ in range(DECISIONS_MAX):
                done = await attempt(await self.refresh())
                if done is not None:
                    return done
        raise MetadataContention("other agents kept changing the same: try again")

    async def _create(self, wanted: Sequence[NewTopic], validate_only: bool) -> list[TopicInfo | KafkaError]:
        if not wanted:
            return []
        if validate_only:
            catalogue = await self.refresh()
            return [self._would_create(topic, catalogue) for topic in wanted]
        before = self._current.version
        answers = await self._store.create_topics(wanted)
        catalogue = await self.refresh()
        self._tell_changed(before)
        return [
            self._info(answer) if isinstance(answer, Topic) else _refusal(answer, topic.name, catalogue)
            for topic, answer in zip(wanted, answers, strict=True)
        ]

    def _follow(self, changes: CatalogueChanges) -> None:
        """Put a newer snapshot in the place of the one at hand, and tell observers."""
        before = self._current
        changes = changes.since(before.by_id)
        entries, made = apply_changes(before.entries, changes.entries, are_all=changes.are_all)
        if EntryKind.CONFIG in made:
            self._defaults = BrokerDefaults(self._defaults.static, entries[EntryKind.CONFIG])
        self._current = newer_catalogue(
            before, changes, entries, self._defaults.values, all_rules=EntryKind.CONFIG in made
        )
        self._tell_gone(before, changes)
        self._tell_entries(made)

    def _tell_changed(self, version_before: int) -> None:
        """After a change of this agent's own: tell observers, unless it came to nothing."""
        if self._current.version > version_before:
            self._tell_version(self._current.version)

    def _tell_version(self, version: int) -> None:
        for observer in self._observers:
            observer.catalogue_changed(version)

    def _tell_entries(self, made: Mapping[EntryKind, Sequence[EntryChange]]) -> None:
        for kind, changes in made.items():
            for observer in self._observers:
                observer.entries_changed(kind, self._current.entries[kind], changes)

    def _tell_gone(self, before: Catalogue, changes: CatalogueChanges) -> None:
        gone = [before.by_id[topic_id] for topic_id in changes.removed if topic_id in before.by_id]
        if gone:
            log_ids = [log_id for info in gone for log_id in info.topic.logs]
            for observer in self._observers:
                observer.logs_gone(log_ids)

    def _would_create(self, topic: NewTopic, catalogue: Catalogue) -> TopicInfo | KafkaError:
        if topic.name in catalogue.by_name:
            return _refusal(ErrorCode.TOPIC_ALREADY_EXISTS, topic.name, catalogue)
        if catalogue.colliding(topic.name) is not None:
            return _refusal(ErrorCode.INVALID_TOPIC_EXCEPTION, topic.name, catalogue)
        made_up = (LogId(-1),) * topic.partitions
        return self._info(Topic(topic.name, topic.topic_id, made_up, topic.configs, topic.replication_factor))

    def _info(self, topic: Topic) -> TopicInfo:
        return TopicInfo(topic, topic_rules(topic.configs, self._defaults.values))


def _refusal(error: ErrorCode, name: str, catalogue: Catalogue) -> KafkaError:
    if error == ErrorCode.TOPIC_ALREADY_EXISTS:
        return KafkaError(error, f"Topic {name} already exists")
    return NameCollision(name, catalogue.colliding(name))
