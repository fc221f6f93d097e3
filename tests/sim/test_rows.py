"""The database that behaves as PostgreSQL: what it is to make visible, and when, and who waits for whom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.sim.capture import Capture
from tests.sim.loop import Process, SimLoop
from tests.sim.rows import RowServer, RowTransaction
from warp.errors import MetadataContention, MetadataUnavailable
from warp.metadata.session import LOCK_PATTERN, Statement, load_statements, parse_statements
from warp.metadata.sqlite import SqliteDatabase

STATEMENTS = parse_statements(
    """
-- name: lock
select l.name, l.epoch from rows($1 as w: name text) cross join leases l
where l.name = w.name
order by l.name
lock rows of l

-- name: lock_all
select l.name, l.epoch from leases l
order by l.name
lock rows of l

-- name: share
select l.name, l.epoch from rows($1 as w: name text) cross join leases l
where l.name = w.name
order by l.name
share rows of l

-- name: lock_free
select l.name from leases l
order by l.name
lock free rows of l

-- name: look
select l.name, l.epoch from leases l order by l.name

-- name: raise
update leases set epoch = epoch + 1 where name = $1

-- name: add
insert into leases (name, holder, epoch, counter) values ($1, 1, 1, 0)
on conflict (name) do nothing

-- name: remove
delete from leases where name = $1

-- name: add_segment
insert into segments (key, size_bytes, level, state, created_ms) values ($1, 1, 0, 0, 0)
on conflict (key) do nothing
returning segment_id
"""
)
LOCK, SHARE, LOOK, RAISE, ADD = (STATEMENTS[name] for name in ("lock", "share", "look", "raise", "add"))
A: Any = [("a",)]
B: Any = [("b",)]


class Bench:
    """A server with two leases, `a` and `b`, and who has said what in which order."""

    def __init__(self, loop: SimLoop, path: Path) -> None:
        self.loop = loop
        self.path = path
        self.server = RowServer(path, loop, lambda: 0)
        self.process = Process("agent")
        self.said: list[str] = []

    async def begin(self) -> RowTransaction:
        return await self.server.begin(self.process)

    def after(self, what: str, awaited: Awaitable[Any]) -> asyncio.Task[Any]:
        async def wait() -> Any:
            found = await awaited
            self.said.append(what)
            return found

        return self.loop.create_task(wait())

    async def look(self) -> dict[str, int]:
        transaction = await self.begin()
        rows = await transaction.all(LOOK)
        await transaction.roll_back()
        return {str(row[0]): int(str(row[1])) for row in rows}


def on_bench(tmp_path: Path, story: Callable[[Bench], Awaitable[None]]) -> None:
    loop = SimLoop(random.Random(1))
    asyncio.set_event_loop(loop)

    async def run() -> None:
        bench = Bench(loop, tmp_path / "rows.sqlite")
        database = SqliteDatabase(bench.path, now_ms=lambda: 0, sync=None)
        await database.open()
        transaction = await bench.begin()
        for name in ("a", "b"):
            await transaction.execute(ADD, name)
        await transaction.commit()
        try:
            await story(bench)
        finally:
            bench.server.close()
            await database.close()

    try:
        loop.run_until_complete(run())
    finally:
        loop.bury()
        asyncio.set_event_loop(None)


def test_nobody_sees_what_is_not_committed_but_whoever_wrote_it(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        writer = await bench.begin()
        assert await writer.execute(RAISE, "a") == 1
        assert await writer.all(LOOK) == [("a", 2), ("b", 1)]
        assert await bench.look() == {"a": 1, "b": 1}
        await writer.commit()
        assert await bench.look() == {"a": 2, "b": 1}

    on_bench(tmp_path, story)


def test_what_is_rolled_back_never_was(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        writer = await bench.begin()
        await writer.execute(RAISE, "a")
        await writer.execute(STATEMENTS["remove"], "b")
        await writer.execute(ADD, "c")
        await writer.roll_back()
        assert await bench.look() == {"a": 1, "b": 1}

    on_bench(tmp_path, story)


def test_each_statement_sees_what_others_have_committed_meanwhile(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        reader, writer = await bench.begin(), await bench.begin()
        await reader.execute(RAISE, "b")
        await writer.execute(RAISE, "a")
        await writer.commit()
        assert await reader.all(LOOK) == [("a", 2), ("b", 2)]

    on_bench(tmp_path, story)


def test_writers_of_one_row_wait_for_each_other_and_both_count(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        one, other = await bench.begin(), await bench.begin()
        await one.execute(RAISE, "a")
        waiting = bench.after("other has it", other.execute(RAISE, "a"))
        await other_rows_are_free(bench)
        assert bench.said == []
        await one.commit()
        assert await waiting == 1
        await other.commit()
        assert await bench.look() == {"a": 3, "b": 1}
        assert bench.server.locks.waits == 1

    async def other_rows_are_free(bench: Bench) -> None:
        third = await bench.begin()
        await third.all(LOCK, B)
        await third.roll_back()
        await asyncio.sleep(1.0)

    on_bench(tmp_path, story)


def test_those_who_share_a_row_do_not_wait_for_each_other_and_writers_wait_for_all(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        one, other, writer = await bench.begin(), await bench.begin(), await bench.begin()
        assert await one.all(SHARE, A) == await other.all(SHARE, A) == [("a", 1)]
        waiting = bench.after("writes", writer.execute(RAISE, "a"))
        await one.commit()
        await asyncio.sleep(1.0)
        assert bench.said == []
        await other.commit()
        await waiting

    on_bench(tmp_path, story)


def test_whoever_waited_for_a_row_sees_it_as_it_is_now_and_none_that_came_meanwhile(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        one, other = await bench.begin(), await bench.begin()
        await one.execute(RAISE, "a")
        await one.execute(ADD, "aa")
        waiting = bench.after("locked", other.all(STATEMENTS["lock_all"]))
        await asyncio.sleep(1.0)
        await one.commit()
        assert await waiting == [("a", 2), ("b", 1)]
        assert await other.all(STATEMENTS["lock_all"]) == [("a", 2), ("aa", 1), ("b", 1)]

    on_bench(tmp_path, story)


def test_locked_rows_are_passed_over_by_those_who_want_free_ones(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        one, other = await bench.begin(), await bench.begin()
        await one.all(LOCK, A)
        assert await other.all(STATEMENTS["lock_free"]) == [("b",)]

    on_bench(tmp_path, story)


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_insert_waits_for_another_of_the_same_key(tmp_path: Path, is_committed: bool) -> None:
    add = STATEMENTS["add_segment"]

    async def story(bench: Bench) -> None:
        one, other, third = await bench.begin(), await bench.begin(), await bench.begin()
        assert await one.all(add, "key") == [(1,)]
        assert await third.all(add, "another key") == [(2,)], "ids are not given twice, committed or not"
        waiting = bench.after("added", other.all(add, "key"))
        await asyncio.sleep(1.0)
        assert bench.said == []
        await (one.commit() if is_committed else one.roll_back())
        found = await waiting
        assert found == [] if is_committed else found[0][0] > 2

    on_bench(tmp_path, story)


def test_of_two_who_wait_for_each_other_one_is_told_of_contention(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        one, other = await bench.begin(), await bench.begin()
        await one.execute(RAISE, "a")
        await other.execute(RAISE, "b")
        waiting = bench.after("one has both", one.execute(RAISE, "b"))
        await asyncio.sleep(0.1)
        with pytest.raises(MetadataContention):
            await other.execute(RAISE, "a")
        await waiting
        await one.commit()
        with pytest.raises(MetadataUnavailable):
            await other.commit()
        assert await bench.look() == {"a": 2, "b": 2}

    on_bench(tmp_path, story)


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        one, other = await bench.begin(), await bench.begin()
        await one.execute(RAISE, "a")
        with pytest.raises(MetadataContention):
            await other.execute(RAISE, "a")
        assert 4.0 < bench.loop.time() < 6.0

    on_bench(tmp_path, story)


def test_a_process_that_dies_lets_go_of_its_rows(tmp_path: Path) -> None:
    async def story(bench: Bench) -> None:
        dead = Process("dead")
        one, other = await bench.server.begin(dead), await bench.begin()
        await one.execute(RAISE, "a")
        waiting = bench.after("other has it", other.execute(RAISE, "a"))
        await asyncio.sleep(0.1)
        bench.server.process_died(dead)
        await waiting
        await other.commit()
        with suppress(MetadataUnavailable):
            await one.commit()
        assert await bench.look() == {"a": 2, "b": 1}

    on_bench(tmp_path, story)


def test_what_the_product_locks_can_be_locked_here() -> None:
    """Every locking statement of the product names a table and its key in a way that the server reads."""
    files = [found.name.removesuffix(".sql") for found in resources.files("warp.metadata.sql").iterdir()]
    locking: list[Statement] = [
        statement
        for name in sorted(files)
        if not name.startswith("_")
        for statement in load_statements(name).values()
        if LOCK_PATTERN.search(statement.text)
    ]
    assert len(locking) >= 10
    loop = SimLoop(random.Random(1))
    asyncio.set_event_loop(loop)

    async def read(path: str) -> None:
        database = SqliteDatabase(path, now_ms=lambda: 0, sync=None)
        await database.open()
        server = RowServer(Path(path), loop, lambda: 0)
        assert database._connection is not None
        server._capture = Capture(database._connection)
        for statement in locking:
            mode, table, keyed = server._keyed(statement)
            assert mode in {"lock", "share", "lock free"}
            assert table in server._capture.tables
            assert keyed.text.startswith("select ")
        await database.close()

    try:
        loop.run_until_complete(read(":memory:"))
    finally:
        loop.bury()
        asyncio.set_event_loop(None)
