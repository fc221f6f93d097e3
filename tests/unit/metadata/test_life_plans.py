"""What the statements of jobs cost where the tables are large: as much as they answer, and no look at all the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.unit.metadata.support import Store, connection_of, sqlite_store
from tests.unit.metadata.test_postgres import database
from tests.unit.metadata.test_postgres_plans import rows_read
from warp.metadata.life_logs import LOGS_PER_STATEMENT
from warp.metadata.postgres_sql import bind, render
from warp.metadata.session import Argument, Statement, load_statements
from warp.metadata.sqlite import IN_MEMORY, encode_rows, render as render_sqlite

LOGS, EXTENTS_PER_LOG, SEGMENTS = 1_000, 100, 20_000
ASKED = 100
FILL = f"""
insert into topics values ('t', 't', 't', 1000, 1, 1, 0);
insert into logs (topic_id, partition, next_offset, size_bytes)
    select 't', n, 1000, 10000 from generate_series(1, {LOGS}) n;
insert into segments (key, size_bytes, level, state, created_ms, died_ms)
    select 'key-' || n, 100, n % 3, case when n % 10 = 9 then 1 when n % 10 = 8 then 2 else 0 end, 0, n
    from generate_series(1, {SEGMENTS}) n;
insert into extents
    select l.log_id, n * 10, n * 10 - 10, (l.log_id * 100 + n) % {SEGMENTS} + 1, 0, 100, n, n, null
    from logs l cross join generate_series(1, {EXTENTS_PER_LOG}) n;
insert into producers select l.log_id, n, 0, '', null, n from logs l cross join generate_series(1, 20) n;
insert into quarantined_extents select l.log_id, 10, l.log_id, '', 0 from logs l where l.log_id % 100 = 0;
insert into deleted_logs select n, 't', n, 0 from generate_series(2001, 2020) n;
analyze
"""
SQL = {
    name: statement
    for file_name in ("swaps", "life_logs", "life_segments", "quarantine")
    for name, statement in load_statements(file_name).items()
}
ids = [(number,) for number in range(1, ASKED + 1)]
places = [(number, 500) for number in range(1, ASKED + 1)]
READS: list[tuple[str, Sequence[Argument], int]] = [
    ("extents_as_they_are", [places], 5 * ASKED),
    ("segments_of_keys", [[(f"key-{number}",) for number in range(ASKED)]], 3 * ASKED),
    ("logs_in_segments", [ids], 30 * ASKED),
    ("live_levels", [], 50),
    ("live_segments_of_level", [1, 500, ASKED], 10 * ASKED),
    ("lock_live_segments", [ids], 6 * ASKED),
    ("dead_segments", [5_000, 0, ASKED], 4 * ASKED),
    ("gone_segments", [5_000, 0, ASKED], 4 * ASKED),
    ("known_keys", [[(f"key-{number}",) for number in range(ASKED)]], 3 * ASKED),
    ("extents_in_segments", [ids], 50 * ASKED),
    ("extents_of_log", [77, 100, ASKED], 8 * ASKED),
    ("log_heads", [ids], 10 * ASKED),
    ("walk_logs", [100, ASKED], 4 * ASKED),
    ("extents_before_starts", [places[:LOGS_PER_STATEMENT], 10], 60 * LOGS_PER_STATEMENT),
    ("producers_of_deleted_logs", [[(2001,), (2002,)], ASKED], 20),
    ("walk_producers", [500, 5, ASKED, 10], 2 * ASKED),
    ("lock_producers", [[(number, 5) for number in range(1, ASKED + 1)]], 6 * ASKED),
    ("quarantined_of_log", [100], 5),
]

KEYS = [(number, 5) for number in range(1, ASKED + 1)]
WRITES: list[tuple[str, Sequence[Argument], int]] = [
    ("delete_extents", [places], 6 * ASKED),
    ("change_logs", [[(number, 1, 1) for number in range(1, ASKED + 1)]], 6 * ASKED),
    ("delete_producers", [KEYS], 6 * ASKED),
    ("delete_idle_producers", [KEYS, 10], 6 * ASKED),
    ("mark_empty_dead", [ids, 1], 12 * ASKED),
    ("mark_gone", [ids], 6 * ASKED),
    ("forget_segments", [ids], 6 * ASKED),
    ("forget_quarantined", [places], 6 * ASKED),
]


@pytest.mark.postgres
def test_postgres_reads_no_more_than_the_answer(postgres_url: str) -> None:
    async def read() -> dict[str, int]:
        opened = database(postgres_url)
        await opened.open()
        connection = await opened.pool.acquire()
        counted = {}
        try:
            await connection.execute(FILL)
            for name, arguments, _ in (*READS, *WRITES):
                rendered = render(SQL[name])
                explained = f"explain (analyze, costs off, timing off) {rendered.text}"
                plan: list[str] = []
                for _ in range(7):  # by then the server has settled for a plan
                    await connection.execute("begin")
                    rows = await connection.fetch(explained, *bind(rendered.shapes, arguments))
                    await connection.execute("rollback")
                    plan = [row[0] for row in rows]
                counted[name] = rows_read(plan)
        finally:
            opened.pool.release(connection)
            await opened.close()
        return counted

    counted = asyncio.run(asyncio.wait_for(read(), 60))
    assert {name: counted[name] for name, _, most in (*READS, *WRITES) if counted[name] > most} == {}


WHOLE = {
    "segment_totals": "SCAN s USING COVERING INDEX segments_live",
    "lock_deleted_logs": "SCAN d",
    "quarantined": "SCAN q",
}
"""What goes through a table from its beginning, in order, and stops at its limit; or counts all live segments."""


def test_sqlite_finds_every_row_by_an_index() -> None:
    store = sqlite_store(IN_MEMORY)
    for name, statement in SQL.items():
        scans = {
            scan
            for scan in _scans(store, statement)
            if not scan.startswith(("SCAN j ", "SCAN k", "SCAN CONSTANT"))
        }
        assert scans == ({WHOLE[name]} if name in WHOLE else set()), name
    store.close()


def test_a_step_of_trimming_looks_at_no_more_than_it_deletes() -> None:
    store = sqlite_store(IN_MEMORY)
    connection = connection_of(store)
    connection.execute(
        "insert into logs (log_id, topic_id, partition, start_offset) values (1, x'00', 0, 1000000)"
    )
    connection.executemany(
        "insert into extents values (1, ?, ?, 1, 0, 1, 0, 0, null)",
        ((number + 1, number) for number in range(20_000)),
    )
    steps = [0]
    connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 100)
    statement, arguments = SQL["extents_before_starts"], [encode_rows(COLUMNS, [(1, 1_000_000)]), 10]
    found = connection.execute(render_sqlite(statement), arguments).fetchall()
    assert [row[1] for row in found] == list(range(1, 11))
    assert steps[0] < 20, "hundreds of SQLite's instructions"
    connection.set_progress_handler(None, 0)
    store.close()


COLUMNS = SQL["extents_before_starts"].row_sets[0].columns


def _scans(store: Store, statement: Statement) -> set[str]:
    text = render_sqlite(statement)
    count = max((number for number in range(1, 10) if f"?{number}" in text), default=0)
    plan = connection_of(store).execute(f"explain query plan {text}", [None] * count).fetchall()
    return {row[3] for row in plan if row[3].startswith("SCAN")}
