"""Commits of segments to PostgreSQL: what they take beside SQLite, beside rows sent one by one, beside each other.

The least that a durable commit can be stands beside them: one row inserted into one table of the same server. Commits
to the one and to the other are made in turns, so that whatever else the machine does befalls them alike.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import uvloop

from benchmarks.macro.harness import Table
from tests.support.postgres import PostgresServer
from warp.clock import SystemClock
from warp.errors import MetadataError
from warp.ids import IdSource, LogId, ProducerId
from warp.metadata.model import BatchEntry, NewTopic, SegmentCommit, Topic
from warp.metadata.postgres_connect import Connector
from warp.metadata.postgres_url import parse_postgres_url
from warp.metadata.session import Database
from warp.metadata.store import MetadataStore
from warp.metadata.urls import open_database

T = TypeVar("T")

CLOCK = SystemClock()
IDS = IdSource(CLOCK, os.urandom)
LOGS_MAX = 1000
BATCH_RECORDS = 10
BATCH_BYTES = 1000
TARGETS_MS = {1: 2, 64: 5, 1000: 25}
WARM_UP = 10
"""Commits that are not counted: a producer's window is full after five, statements are prepared after one."""
TIMEOUT_S = 10.0


class Appender:
    """Commits segments with one batch of an idempotent producer for each of some logs."""

    def __init__(self, store: MetadataStore, logs: Sequence[LogId], producer_id: ProducerId) -> None:
        self._store = store
        self._logs = logs
        self._producer_id = producer_id
        self._sequence = 0
        self._segment: SegmentCommit | None = None

    def prepare(self) -> None:
        """Make the next segment; that is no part of its commit."""
        self._segment = self.next_segment()

    async def commit(self) -> None:
        """Commit the segment that was prepared."""
        assert self._segment is not None, "it was prepared"
        await self.commit_segment(self._segment)

    def next_segment(self) -> SegmentCommit:
        """One with the next batch of each log."""
        batches = [
            BatchEntry(
                log_id, BATCH_BYTES * place, BATCH_BYTES, BATCH_RECORDS, CLOCK.time_ms(), self._producer_id, 0,
                self._sequence,
            )
            for place, log_id in enumerate(self._logs)
        ]  # fmt: skip
        self._sequence += BATCH_RECORDS
        return SegmentCommit(IDS.segment_key(), BATCH_BYTES * len(batches), CLOCK.time_ms(), batches)

    async def commit_segment(self, segment: SegmentCommit) -> None:
        """Raises MetadataError when it is not known to be committed; it can be tried again."""
        result = await self._store.commit([segment], segment.created_ms)
        assert not any(outcome.error for outcome in result.outcomes[0]), result.outcomes


class RetriedAppender:
    """Tries commits again that failed, as agents do, and counts that."""

    def __init__(self, appender: Appender) -> None:
        self._appender = appender
        self.repeats = 0

    async def commit(self) -> None:
        segment = self._appender.next_segment()
        while True:
            try:
                return await self._appender.commit_segment(segment)
            except MetadataError:
                self.repeats += 1


class RoundTrips:
    """A relay in front of a server that counts how often a client spoke after the server had. An async context."""

    def __init__(self, target_port: int) -> None:
        self.count = 0
        self.port = 0
        self._target_port = target_port

    async def __aenter__(self) -> RoundTrips:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._target_port)
        is_asking = False

        async def forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter, asks: bool) -> None:
            nonlocal is_asking
            while data := await source.read(1 << 20):
                self.count += asks and not is_asking
                is_asking = asks
                sink.write(data)
            sink.close()

        await asyncio.gather(forward(reader, there, True), forward(there_reader, writer, False))


@asynccontextmanager
async def opened_store(url: str, database: Database | None = None) -> AsyncIterator[MetadataStore]:
    """The metadata store on the database that a URL names, or on another way to it."""
    store = MetadataStore(database or open_database(url, CLOCK, timeout_s=TIMEOUT_S), CLOCK, IDS)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def create_topic(store: MetadataStore, partitions: int) -> Topic:
    [topic] = await store.create_topics([NewTopic(f"t-{IDS.token()}", IDS.topic_id(), partitions)])
    assert isinstance(topic, Topic), topic
    return topic


class Work(Protocol):
    """Something to be timed again and again."""

    def prepare(self) -> None:
        """What comes before, and is not timed."""

    async def commit(self) -> None:
        """What is timed."""


async def in_turns(works: Sequence[Work], count: int) -> tuple[list[list[float]], list[float]]:
    """Do each of some works so many times, one after the other. Milliseconds of each, sorted, and CPU ms of one."""
    gc.freeze()  # as agents do when they have started
    taken: list[list[float]] = [[] for _ in works]
    used = [0.0] * len(works)
    for number in range(WARM_UP + count):
        for place, work in enumerate(works):
            work.prepare()
            begun, cpu = time.perf_counter(), time.process_time()
            await work.commit()
            if number >= WARM_UP:
                taken[place].append(1000 * (time.perf_counter() - begun))
                used[place] += 1000 * (time.process_time() - cpu) / count
    return [sorted(each) for each in taken], used


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop as agents have it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which that part of the others lie."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


async def round_trips_of(url: str, logs: int) -> float:
    """Round trips of one commit of so many logs, once its statements are prepared."""
    port = urlsplit(url).port
    assert port is not None, url
    async with (
        RoundTrips(port) as relay,
        opened_store(url.replace(f":{port}/", f":{relay.port}/")) as store,
    ):
        topic = await create_topic(store, logs)
        appender = Appender(store, topic.logs, ProducerId(1))
        await in_turns([appender], 0)
        before = relay.count
        await in_turns([appender], WARM_UP)
        return (relay.count - before) / (2 * WARM_UP)


class BareInsert:
    """Inserts one row into one table: what a synced commit over one round trip can't go below."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def create(self) -> None:
        await self._connection.execute(
            "create table bare (a bigint generated always as identity primary key, b bigint)"
        )

    def prepare(self) -> None:
        """Nothing."""

    async def commit(self) -> None:
        await self._connection.execute("insert into bare (b) values ($1)", 1)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    """A connection of asyncpg's with the settings of an agent's."""
    connection = await Connector(parse_postgres_url(url), timeout_s=TIMEOUT_S).connect()
    try:
        yield connection
    finally:
        await connection.close()


async def _commits(url: str, folder: Path, count: int) -> list[list[Any]]:
    rows: list[list[Any]] = []
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(opened_store(url))
        sqlite = await stack.enter_async_context(opened_store(f"sqlite://{folder / 'metadata.sqlite'}"))
        bare = BareInsert(await stack.enter_async_context(connected(url)))
        await bare.create()
        for logs, target_ms in TARGETS_MS.items():
            works: list[Work] = [bare]
            for store in (postgres, sqlite):
                topic = await create_topic(store, logs)
                works.append(Appender(store, topic.logs, ProducerId(1)))
            [floor, ours, beside], [_, cpu, _] = await in_turns(
                works, count if logs < LOGS_MAX else count // 2
            )
            p50, p50_beside = percentile(ours, 0.5), percentile(beside, 0.5)
            rows.append([
                logs, len(ours), p50, target_ms, percentile(ours, 0.99), cpu, await round_trips_of(url, logs),
                percentile(floor, 0.5), p50 / percentile(floor, 0.5), p50_beside, percentile(beside, 0.99),
                p50 / p50_beside,
            ])  # fmt: skip
    return rows


def commits(server: PostgresServer, count: int) -> Table:
    """One segment per commit, one batch of an idempotent producer per log, on PostgreSQL and on SQLite."""
    with tempfile.TemporaryDirectory(
        prefix="warp-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")
    ) as folder:
        rows = run_loop(_commits(server.create_database(), Path(folder), count))
    return Table(
        "commits",
        "Commits of one segment on PostgreSQL, synced (ms), beside one row inserted there and the same on SQLite",
        ["logs", "commits", "p50", "p50 (≤)", "p99", "own CPU, ms", "round trips (≤ 5)", "one row, p50", "÷ one row",
         "SQLite, p50", "SQLite, p99", "÷ SQLite"],
        rows,
    )  # fmt: skip
