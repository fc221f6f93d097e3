"""Two sessions that are stepped, and a plain store that prepares runs and looks at what has come of them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from tests.isolation.stepper import Actor, Explorer, Operation, Outcome, Run, sql
from tests.unit.metadata.support import NOW_MS, TestClock
from warp.ids import IdSource, LogId
from warp.metadata.model import CommitResult, NewTopic, SegmentCommit, Topic
from warp.metadata.session import LOCK_PATTERN, Argument, Database, Statement
from warp.metadata.store import MetadataStore
from warp.metadata.urls import open_database

SESSIONS = ("a", "b")
StoreOperation = Callable[[MetadataStore], Awaitable[Any]]


@dataclass(slots=True)
class World:
    """A database, and who works on it."""

    explorer: Explorer
    plain: Database
    store: MetadataStore
    """Over the plain database."""
    clock: TestClock
    ids: IdSource

    async def explore(self, prepare: Callable[[], Awaitable[Run]]) -> list[Outcome]:
        """See Explorer."""
        return await self.explorer.explore(prepare)

    def run(self, a: StoreOperation, b: StoreOperation, check: Callable[[Outcome], Awaitable[None]]) -> Run:
        """A run of two operations of stores, each over a session of its own."""
        return Run({"a": self._on_store(a), "b": self._on_store(b)}, check)

    def _on_store(self, operation: StoreOperation) -> Operation:
        return lambda database: operation(MetadataStore(database, self.clock, self.ids))

    async def rows(self, text: str, *arguments: Argument) -> list[tuple[Any, ...]]:
        """The answer to a statement of the test."""
        return [tuple(row) for row in await self.plain.all(sql(text), *arguments)]

    async def topic(self, partitions: int = 1) -> Topic:
        """A new topic."""
        [topic] = await self.store.create_topics([self.new_topic(partitions)])
        assert isinstance(topic, Topic)
        return topic

    def new_topic(self, partitions: int = 1, name: str | None = None) -> NewTopic:
        """A topic to create."""
        topic_id = self.ids.topic_id()
        return NewTopic(name or f"topic-{topic_id.hex()}", topic_id, partitions, {})

    async def commit(self, *segments: SegmentCommit) -> CommitResult:
        """Commit segments on the plain store."""
        return await self.store.commit(segments, NOW_MS)

    async def log(self, log_id: LogId) -> list[tuple[int, int, str]]:
        """The extents of a log, as (base offset, end offset, key), which tile it from its start to its end."""
        extents: Sequence[tuple[int, int, str]] = await self.rows(
            "select e.base_offset, e.end_offset, s.key from extents e join segments s on s.segment_id = e.segment_id"
            " where e.log_id = $1 order by e.end_offset",
            log_id,
        )
        [(start, end)] = await self.rows(
            "select start_offset, next_offset from logs where log_id = $1", log_id
        )
        bounds = [(base, following) for base, following, _ in extents]
        assert [base for base, _ in bounds] == [start, *(end for _, end in bounds)][: len(bounds)], extents
        assert (bounds[-1][1] if bounds else start) == end, (extents, end)
        return list(extents)


def without_lock(statement: Statement) -> Statement:
    """The statement, but that it locks nothing: a fault to plant."""
    unlocked = replace(statement, text=LOCK_PATTERN.sub("", statement.text))
    assert unlocked.text != statement.text, "it has a lock"
    return unlocked


@asynccontextmanager
async def open_world(url: str) -> AsyncIterator[World]:
    """The sessions, connected."""
    clock = TestClock()
    ids = IdSource(clock, random.Random(1).randbytes)
    async with AsyncExitStack() as stack:
        plain = open_database(url, clock, connections_max=1)
        await plain.open()
        stack.push_async_callback(plain.close)
        actors = {}
        for name in SESSIONS:
            actor = actors[name] = Actor(name, open_database(url, clock, connections_max=1))
            await actor.open()
            stack.push_async_callback(actor.close)
        yield World(Explorer(actors, plain), plain, MetadataStore(plain, clock, ids), clock, ids)
