"""How many OffsetCommits of 10 partitions go through the committer to SQLite, and in how many statements?

`python -m benchmarks.macro.bench_offset_commits [--quick]` prints a Markdown table and stores
benchmarks/results/offset_commits.json. In one process, without the wire: each consumer is a coroutine that commits
its ten partitions as soon as its last commit was answered. Every commit is synced to disk before it is answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import uvloop

from benchmarks.macro import harness
from benchmarks.macro.harness import Table
from warp.clock import SystemClock
from warp.groups.offsets import OffsetCommitter
from warp.ids import BrokerId, IdSource
from warp.metadata.group_model import (
    SLOTS,
    Lease,
    OffsetCommit,
    OffsetRow,
    coordinator_lease,
    slot_of,
)
from warp.metadata.model import NewTopic
from warp.metadata.session import Argument, Call, Row, Rows, Session, Statement
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

CLOCK = SystemClock()
PARTITIONS = 10
CONSUMERS = (1, 10, 100, 1000)
"""How many commit at a time, each for a group of its own."""
GROUPS_OF_ONE_TOPIC = 10
METADATA = "a consumer's own words"


class CountingDatabase(SqliteDatabase):
    """Counts transactions and the statements in them, `begin` and `commit` not among them."""

    statements = 0
    transactions = 0

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[Session]:
        async with super().transaction() as session:
            self.transactions += 1
            yield CountingSession(session, self)

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        return self._counted()


class CountingSession:
    """A session whose statements its database counts."""

    def __init__(self, inner: Session, database: CountingDatabase) -> None:
        self._inner = inner
        self._database = database

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        self._database.statements += 1
        return await self._inner.one(statement, *arguments)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        self._database.statements += 1
        return await self._inner.all(statement, *arguments)

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        self._database.statements += 1
        return await self._inner.execute(statement, *arguments)

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        self._database.statements += 1
        await self._inner.execute_rows(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        self._database.statements += len(calls)
        return await self._inner.together(calls)


class Consumer:
    """Commits its partitions again and again."""

    def __init__(self, committer: OffsetCommitter, leases: dict[str, Lease], number: int) -> None:
        self._committer = committer
        self.group_id = f"group-{number:05}"
        self._lease = leases[coordinator_lease(slot_of(self.group_id))]
        self._topic = topic_of(number)
        self.latencies_ms: list[float] = []

    async def commit(self, offset: int) -> None:
        now_ms = CLOCK.time_ms()
        rows = tuple(
            OffsetRow(self.group_id, self._topic, partition, offset, 0, METADATA, now_ms)
            for partition in range(PARTITIONS)
        )
        errors = await self._committer.commit(OffsetCommit(self._lease, self.group_id, rows))
        assert not any(errors), errors

    async def run(self, until: float) -> None:
        offset = 0
        while (begun := time.perf_counter()) < until:
            await self.commit(offset)
            self.latencies_ms.append((time.perf_counter() - begun) * 1000)
            offset += 1


def topic_of(consumer: int) -> str:
    return f"topic-{consumer // GROUPS_OF_ONE_TOPIC:04}"


async def measure(folder: Path, consumers_count: int, seconds: float) -> list[float | int | str]:
    """One row of the table."""
    database = CountingDatabase(folder / f"{consumers_count}.sqlite", now_ms=CLOCK.time_ms)
    store = MetadataStore(database, CLOCK, ids := IdSource(CLOCK, os.urandom))
    await store.open()
    names = dict.fromkeys(topic_of(number) for number in range(consumers_count))
    await store.create_topics([NewTopic(name, ids.topic_id(), PARTITIONS) for name in names])
    taken = await store.take_leases([coordinator_lease(slot) for slot in range(SLOTS)], BrokerId(1))
    leases = {lease.name: lease for lease in taken}
    committer = OffsetCommitter(store, CLOCK)
    consumers = [Consumer(committer, leases, number) for number in range(consumers_count)]
    await asyncio.gather(*(consumer.commit(0) for consumer in consumers))
    database.statements = database.transactions = 0
    begun, cpu_begun = time.perf_counter(), time.process_time()
    await asyncio.gather(*(consumer.run(begun + seconds) for consumer in consumers))
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    await committer.close()
    await store.close()
    latencies = sorted(latency for consumer in consumers for latency in consumer.latencies_ms)
    return [
        consumers_count,
        len(latencies) / took,
        PARTITIONS * len(latencies) / took,
        percentile(latencies, 0.5),
        percentile(latencies, 0.99),
        database.statements / database.transactions,
        database.statements / len(latencies),
        1e6 * cpu / len(latencies),
    ]


def percentile(ordered: Sequence[float], part: float) -> float:
    """The value below which that part of the others lie."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def run(seconds: float) -> Table:
    """Measure with each number of consumers, on a new database."""
    rows = []
    with tempfile.TemporaryDirectory(
        prefix="warp-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")
    ) as folder:
        for count in CONSUMERS:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                rows.append(runner.run(measure(Path(folder), count, seconds)))
    columns = [
        "consumers",
        "commits/s",
        "offsets/s",
        "p50 ms",
        "p99 ms",
        "statements per transaction",
        "statements per commit",
        "CPU µs per commit",
    ]
    return Table("offset_commits", "OffsetCommits of 10 partitions to SQLite, synced", columns, rows)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one second each: a smoke test")
    arguments = parser.parse_args()
    table = run(1.0 if arguments.quick else 10.0)
    table.print()
    if not arguments.quick:
        print(f"\nstored in {harness.store('offset_commits', [table])}")


if __name__ == "__main__":
    main()
