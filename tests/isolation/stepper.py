"""Runs operations side by side on PostgreSQL, a statement at a time, in every order that the database allows.

Each operation has a session of its own, which stops before every statement, `begin` and `commit` until it is let go on.
One is let go at a time, up to its next stop, its end, or a lock that another holds, which PostgreSQL itself tells
(pg_locks). The choices are then walked depth first: every run takes the first one that no run before it has taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from warp.errors import MetadataError
from warp.metadata.session import Argument, Call, Database, Row, Rows, Session, Statement, parse_statements

RUNS_MAX = 2_000
SETTLE_S_MAX = 30.0


def sql(text: str) -> Statement:
    """A statement as it stands."""
    return parse_statements(f"-- name: of_a_test\n{text}")["of_a_test"]


_WAITING = sql("select distinct l.pid from rows($1 as w: pid integer) cross join pg_locks l"
               " where l.pid = w.pid and not l.granted")  # fmt: skip
_BACKEND = sql("select pg_backend_pid()")

Operation = Callable[[Database], Awaitable[Any]]


class Deadlock(AssertionError):
    """Every operation waits for a lock of another."""


class Actor:
    """One session, and how far what runs on it has come."""

    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self.pid = -1
        self.database: Database = _SteppedDatabase(database, self)
        self.place: str | None = None
        """What it stops before; None while it runs."""
        self.task: asyncio.Task[Any] | None = None
        self._inner = database
        self._go = asyncio.Event()
        self._passed_over: frozenset[str] = frozenset()

    async def open(self) -> None:
        """Connect. The database has to keep to one connection."""
        await self._inner.open()
        [[self.pid]] = await self._inner.all(_BACKEND)

    async def close(self) -> None:
        """Disconnect, and let go of what is left of a run that failed."""
        await self.abandon()
        await self._inner.close()

    def begin(self, operation: Operation, passed_over: frozenset[str]) -> None:
        """Run an operation up to its first stop."""
        self._passed_over = passed_over
        self.task = asyncio.create_task(self._run(operation))

    async def _run(self, operation: Operation) -> Any:
        try:
            return await operation(self.database)
        except MetadataError as error:
            return error

    async def stop(self, place: str) -> None:
        """Wait until it is let go."""
        if place in self._passed_over:
            return
        self.place = place
        self._go.clear()
        await self._go.wait()

    def go(self) -> None:
        """Let it run up to its next stop."""
        self.place = None
        self._go.set()

    @property
    def is_done(self) -> bool:
        return self.task is not None and self.task.done()

    async def abandon(self) -> None:
        """Cancel what runs, and wait for its end."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
            self.task = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run has come to."""

    answers: Mapping[str, Any]
    """What each operation has returned; a MetadataError that it has raised."""
    steps: Sequence[str]
    """All steps in their order, as `session statement`, and `session waits` where one came to a lock of the other."""

    def comes_before(self, step: str, other: str) -> bool:
        """Was one step taken before another one, both of which were?"""
        return self.steps.index(step) < self.steps.index(other)

    @property
    def has_waited(self) -> bool:
        return any(step.endswith(" waits") for step in self.steps)


@dataclass(slots=True)
class Run:
    """Operations by the names of their sessions, on fresh rows, and what must hold after them."""

    operations: Mapping[str, Operation]
    check: Callable[[Outcome], Awaitable[None]]
    passed_over: frozenset[str] = frozenset()
    """Statements that nobody stops before."""


@dataclass(slots=True)
class _Choice:
    among: Sequence[str]
    taken: int = 0


@dataclass(slots=True)
class Explorer:
    """The sessions, and a plain one to look at them with."""

    actors: Mapping[str, Actor]
    watcher: Database
    _path: list[_Choice] = field(default_factory=list)

    async def explore(self, prepare: Callable[[], Awaitable[Run]]) -> list[Outcome]:
        """Run what `prepare` makes in every order; the outcomes, all of which its check has passed.

        Raises AssertionError, with the steps, where a check fails, an operation fails with anything but a
        MetadataError, or all wait for each other.
        """
        outcomes: list[Outcome] = []
        self._path = []
        while True:
            steps: list[str] = []
            try:
                run = await prepare()
                outcome = await self._run(run, steps)
                await run.check(outcome)
            except Exception as error:
                found = Deadlock if isinstance(error, Deadlock) else AssertionError
                raise found(f"{error!r}\nafter these steps:\n  " + "\n  ".join(steps)) from error
            outcomes.append(outcome)
            assert len(outcomes) < RUNS_MAX, "too many orders"
            while self._path and self._path[-1].taken == len(self._path[-1].among) - 1:
                self._path.pop()
            if not self._path:
                return outcomes
            self._path[-1].taken += 1

    async def _run(self, run: Run, steps: list[str]) -> Outcome:
        actors = [self.actors[name] for name in run.operations]
        depth = 0
        try:
            for actor in actors:
                actor.begin(run.operations[actor.name], run.passed_over)
            waiting = await self._settle(actors)
            while not all(actor.is_done for actor in actors):
                ready = [actor.name for actor in actors if actor.place is not None]
                if not ready:
                    raise Deadlock("all wait for each other")
                actor = self.actors[self._choose(depth, ready)]
                depth += 1
                steps.append(f"{actor.name} {actor.place}")
                actor.go()
                before, waiting = waiting, await self._settle(actors)
                steps += [f"{name} waits" for name in waiting if name not in before]
            answers = {actor.name: actor.task.result() for actor in actors if actor.task is not None}
        finally:
            for actor in actors:
                await actor.abandon()
        return Outcome(answers, steps)

    def _choose(self, depth: int, among: Sequence[str]) -> str:
        if depth == len(self._path):
            self._path.append(_Choice(among))
        choice = self._path[depth]
        assert choice.among == among, f"another run had {choice.among} to choose from here, this one {among}"
        return choice.among[choice.taken]

    async def _settle(self, actors: Sequence[Actor]) -> list[str]:
        """Wait until every actor stops, has ended, or waits for a lock. Who waits."""
        async with asyncio.timeout(SETTLE_S_MAX):
            while True:
                moving = [actor for actor in actors if actor.place is None and not actor.is_done]
                if not moving:
                    return []
                rows = await self.watcher.all(_WAITING, [(actor.pid,) for actor in moving])
                blocked = {row[0] for row in rows}
                # None has moved on since the question was asked, and nobody else runs who could wake one.
                still = [actor for actor in moving if actor.place is None and not actor.is_done]
                if len(still) == len(moving) and all(actor.pid in blocked for actor in moving):
                    return [actor.name for actor in moving]


class _SteppedSession:
    def __init__(self, inner: Session, actor: Actor) -> None:
        self._inner = inner
        self._actor = actor

    async def one(self, statement: Statement, *arguments: Argument) -> Row | None:
        await self._actor.stop(statement.name)
        return await self._inner.one(statement, *arguments)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        await self._actor.stop(statement.name)
        return await self._inner.all(statement, *arguments)

    async def execute(self, statement: Statement, *arguments: Argument) -> int:
        await self._actor.stop(statement.name)
        return await self._inner.execute(statement, *arguments)

    async def execute_rows(self, statement: Statement, rows: Rows) -> None:
        if rows:
            await self._actor.stop(statement.name)
            await self._inner.execute_rows(statement, rows)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        await self._actor.stop("+".join(call.statement.name for call in calls))
        return await self._inner.together(calls)


class _SteppedDatabase(_SteppedSession):
    def __init__(self, inner: Database, actor: Actor) -> None:
        super().__init__(inner, actor)
        self.is_shared = inner.is_shared
        self.notices = inner.notices
        self._database = inner

    async def time_ms(self) -> int:
        return await self._database.time_ms()

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        return self._within(self._database.transaction())

    def snapshot(self) -> AbstractAsyncContextManager[Session]:
        return self._within(self._database.snapshot())

    @asynccontextmanager
    async def _within(self, inner: AbstractAsyncContextManager[Session]) -> AsyncIterator[Session]:
        await self._actor.stop("begin")
        async with inner as session:
            yield _SteppedSession(session, self._actor)
            await self._actor.stop("commit")
