"""The yardstick of set-based commits: the same rows, sent one by one with asyncpg's executemany."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

from benchmarks.macro.cluster_commits import (
    BATCH_BYTES,
    BATCH_RECORDS,
    CLOCK,
    IDS,
    TIMEOUT_S,
    Appender,
    Work,
    connected,
    create_topic,
    in_turns,
    opened_store,
    percentile,
    run_loop,
)
from benchmarks.macro.harness import Table
from tests.support.postgres import PostgresServer
from warp.errors import ErrorCode
from warp.ids import LogId, ProducerId
from warp.metadata.commit import WrittenBatch, pack_batches, pack_outcomes
from warp.metadata.model import BatchOutcome
from warp.metadata.postgres import PostgresDatabase
from warp.metadata.postgres_url import parse_postgres_url
from warp.metadata.session import ROWS_PATTERN, Argument, Call, Row, Rows, Session, Statement

LOGS = 100


class RowByRow(PostgresDatabase):
    """Sends each statement of a transaction by itself, and what writes a batch of rows row by row."""

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        return self._row_by_row()

    @asynccontextmanager
    async def _row_by_row(self) -> AsyncIterator[Session]:
        async with super().transaction() as session:
            yield RowByRowSession(session)


class RowByRowSession:
    """A session of `RowByRow`."""

    def __init__(self, inner: Session) -> None:
        self._inner = inner
        self._connection: Any = inner._connection  # type: ignore[attr-defined]

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        return await self._inner.one(statement, *arguments)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        return await self._inner.all(statement, *arguments)

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        return await self._inner.execute(statement, *arguments)

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        [row_set] = statement.row_sets
        values = ", ".join(f"${place}::{column.kind}" for place, column in enumerate(row_set.columns, 1))
        names = ", ".join(column.name for column in row_set.columns)
        one_row = f"(values ({values})) as {row_set.alias}({names})"
        await self._connection.executemany(ROWS_PATTERN.sub(one_row, statement.text), rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        answers: list[list[Row]] = []
        for call in calls:
            if call.statement.writes_rows:
                await self.execute_rows(call.statement, cast("Rows", call.arguments[0]))
                answers.append([])
            else:
                answers.append(await self.all(call.statement, *call.arguments))
        return answers


class WritesAlone:
    """The rows that a commit writes, row by row with executemany. It locks, reads and decides nothing."""

    def __init__(self, connection: Any, logs: Sequence[LogId]) -> None:
        self._connection = connection
        self._logs = list(logs)
        self._offset = 0

    def prepare(self) -> None:
        """Nothing: its rows are made as a commit makes them."""

    async def commit(self) -> None:
        run, begin = self._connection, self._offset
        end = self._offset = begin + BATCH_RECORDS
        now_ms, size = CLOCK.time_ms(), end // BATCH_RECORDS * BATCH_BYTES
        window = [
            WrittenBatch(first, first + BATCH_RECORDS - 1, first, now_ms)
            for first in range(max(0, end - 5 * BATCH_RECORDS), end, BATCH_RECORDS)
        ]
        outcomes = pack_outcomes([BatchOutcome(ErrorCode.NONE, begin)] * len(self._logs))
        async with run.transaction():
            segment_id = await run.fetchval(
                "insert into segments (key, size_bytes, level, state, created_ms) values ($1, $2, 0, 0, $3)"
                " returning segment_id",
                IDS.segment_key(), BATCH_BYTES * len(self._logs), now_ms,
            )  # fmt: skip
            await run.executemany(
                "update logs set next_offset = $2, size_bytes = $3, max_timestamp_ms = $4 where log_id = $1",
                [(log_id, end, size, now_ms) for log_id in self._logs],
            )
            await run.execute("update segments set outcome = $2 where segment_id = $1", segment_id, outcomes)
            await run.executemany(
                "insert into extents (log_id, end_offset, base_offset, segment_id, position, size_bytes,"
                " max_timestamp_ms, prefix_max_timestamp_ms) values ($1, $2, $3, $4, $5, $6, $7, $7)",
                [
                    (log_id, end, begin, segment_id, BATCH_BYTES * place, BATCH_BYTES, now_ms)
                    for place, log_id in enumerate(self._logs)
                ],
            )
            await run.executemany(
                "insert into producers (log_id, producer_id, epoch, batches, written_ms) values ($1, 1, 0, $2, $3)"
                " on conflict (log_id, producer_id) do update"
                " set epoch = excluded.epoch, batches = excluded.batches, written_ms = excluded.written_ms",
                [(log_id, pack_batches(window), now_ms) for log_id in self._logs],
            )


async def _one_by_one(url: str, count: int) -> list[list[Any]]:
    by_row = RowByRow(parse_postgres_url(url), now_ms=CLOCK.time_ms, timeout_s=TIMEOUT_S)
    async with opened_store(url) as store, opened_store(url, by_row) as other, connected(url) as connection:
        topics = [await create_topic(store, LOGS) for _ in range(3)]
        works: list[Work] = [
            Appender(store, topics[0].logs, ProducerId(1)),
            Appender(other, topics[1].logs, ProducerId(1)),
            WritesAlone(connection, topics[2].logs),
        ]
        taken, used = await in_turns(works, count)
    ours = percentile(taken[0], 0.5)
    names = (
        "a commit",
        "the same by executemany",
        "its writes alone by executemany, nothing read or decided",
    )
    return [
        [name, percentile(each, 0.5), percentile(each, 0.99), cpu, ours / percentile(each, 0.5)]
        for name, each, cpu in zip(names, taken, used, strict=True)
    ]


def one_by_one(server: PostgresServer, count: int) -> Table:
    """A commit beside the same rows sent one by one."""
    return Table(
        "one_by_one",
        f"A commit of {LOGS} logs on PostgreSQL (ms) beside the same rows sent one by one",
        ["", "p50", "p99", "own CPU, ms", "a commit ÷ it (≤ 0.6 × the same by executemany)"],
        run_loop(_one_by_one(server.create_database(), count)),
    )
