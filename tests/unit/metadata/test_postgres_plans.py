"""How PostgreSQL runs statements once the tables are large: each row is found by its key, whatever lies beside it."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.unit.metadata.test_postgres import database
from warp.metadata.entry_rows import CHANGED_ENTRIES, NEWER_ENTRY
from warp.metadata.group_offsets import FETCH_OFFSETS, RESOLVE_OFFSETS
from warp.metadata.postgres_sql import bind, render
from warp.metadata.session import Statement, Value

pytestmark = pytest.mark.postgres

WIDE_PARTITIONS = 500
ASKED = 100

ENTRIES = 10_000
FILL_ENTRIES = f"""
    insert into catalogue_entries select cast(cast(n as text) as bytea), 'acl', 'key-' || n, '', n
    from generate_series(1, {ENTRIES}) n
"""
FILL = (
    """
    insert into topics select cast(cast(n as text) as bytea), 'topic-' || n, 'topic-' || n, 10, 1, 1, 0
    from generate_series(1, 1000) n
    """,
    """
    insert into logs (topic_id, partition) select t.topic_id, p
    from topics t cross join generate_series(0, 9) p
    """,
    "insert into topics values ('wide', 'wide', 'wide', 500, 1, 1, 0)",
    "insert into logs (topic_id, partition) select 'wide', p from generate_series(0, 499) p",
    """
    insert into groups (group_id, slot, protocol_type, generation, changed_ms) select 'group-' || n, 0, '', 0, 0
    from generate_series(1, 1000) n
    """,
    """
    insert into group_offsets select g.group_number, l.log_id, 1, 0, null, 0, null
    from groups g cross join logs l where l.topic_id = 'wide' and l.partition < 50
    """,
    "analyze",
)


@pytest.mark.parametrize("statement", [RESOLVE_OFFSETS, FETCH_OFFSETS], ids=lambda statement: statement.name)
def test_offsets_of_a_topic_with_many_partitions_cost_a_look_each(
    postgres_url: str, statement: Statement
) -> None:
    rows: list[tuple[Value, ...]] = [(place, "group-7", "wide", place) for place in range(ASKED)]

    async def read() -> int:
        opened = database(postgres_url)
        await opened.open()
        connection = await opened.pool.acquire()
        try:
            for sql in FILL:
                await connection.execute(sql)
            rendered = render(statement)
            explained = f"explain (analyze, costs off, timing off) {rendered.text}"
            plan = [row[0] for row in await connection.fetch(explained, *bind(rendered.shapes, [rows]))]
        finally:
            opened.pool.release(connection)
            await opened.close()
        return rows_read(plan)

    # Per row one of each table at most: unnested, group, topic, log, offset, and what joins hand on.
    assert asyncio.run(asyncio.wait_for(read(), 60)) <= 10 * ASKED


@pytest.mark.parametrize("statement", [CHANGED_ENTRIES, NEWER_ENTRY], ids=lambda statement: statement.name)
def test_what_has_changed_lately_costs_no_look_at_all_entries(
    postgres_url: str, statement: Statement
) -> None:
    known = ENTRIES - 10
    arguments: list[Value] = [known] if statement is CHANGED_ENTRIES else ["quota", known]

    async def read() -> int:
        opened = database(postgres_url)
        await opened.open()
        connection = await opened.pool.acquire()
        try:
            await connection.execute(FILL_ENTRIES)
            await connection.execute("analyze catalogue_entries")
            rendered = render(statement)
            explained = f"explain (analyze, costs off, timing off) {rendered.text}"
            plan: list[str] = []
            for _ in range(10):  # by then the server has settled for a plan
                plan = [row[0] for row in await connection.fetch(explained, *arguments)]
        finally:
            opened.pool.release(connection)
            await opened.close()
        return rows_read(plan)

    assert asyncio.run(asyncio.wait_for(read(), 60)) <= 20


def rows_read(plan: list[str]) -> int:
    """All rows that any node has read or thrown away."""
    total = 0
    for line in plan:
        for rows, loops in re.findall(r"actual rows=(\d+) loops=(\d+)", line):
            total += int(rows) * int(loops)
        total += sum(map(int, re.findall(r"Rows Removed by .*: (\d+)", line)))
    return total
