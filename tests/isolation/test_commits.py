"""Commits of segments beside each other, beside DeleteTopics, takeovers of leases and claims of keys.

Every scenario runs in all orders, and then once more with a fault planted in it, which it has to find.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.isolation.conftest import InWorld
from tests.isolation.stepper import Operation, Outcome, Run, sql
from tests.isolation.world import World, without_lock
from tests.unit.metadata.support import NOW_MS, batch, errors, offsets, segment, sequenced
from warp.errors import ErrorCode
from warp.ids import BrokerId, LogId
from warp.metadata import commits
from warp.metadata.model import CommitResult, SegmentCommit
from warp.metadata.session import Argument, Call, Database, Row, Session, Statement
from warp.metadata.store import MetadataStore

pytestmark = pytest.mark.postgres

Explored = InWorld[list[Outcome]]
NONE, UNKNOWN = ErrorCode.NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
GONE = LogId(2**40)
PRODUCER = 7


def committing(*segments: SegmentCommit) -> Callable[[MetadataStore], Awaitable[CommitResult]]:
    return lambda store: store.commit(segments, NOW_MS)


def results(outcome: Outcome) -> tuple[CommitResult, CommitResult]:
    """What both commits have answered."""
    a, b = outcome.answers["a"], outcome.answers["b"]
    assert isinstance(a, CommitResult), a
    assert isinstance(b, CommitResult), b
    return a, b


def came_first(outcome: Outcome) -> tuple[CommitResult, CommitResult]:
    """Both answers, in the order of their commits."""
    a, b = results(outcome)
    return (a, b) if outcome.comes_before("a commit", "b commit") else (b, a)


# Commit beside commit


async def commits_to_the_same_logs(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        x, y = (await world.topic(2)).logs
        keys = world.ids.segment_key(), world.ids.segment_key()
        a = segment(keys[0], batch(x, 0, count=2), batch(y, 100, count=3))
        b = segment(keys[1], batch(y, 0, count=1), batch(x, 100, count=4))

        async def check(outcome: Outcome) -> None:
            result_a, result_b = results(outcome)
            first, second = came_first(outcome)
            assert errors(first) == errors(second) == [NONE, NONE]
            is_a_first = first is result_a
            assert offsets(result_a) == ([0, 0] if is_a_first else [4, 1])
            assert offsets(result_b) == ([3, 2] if is_a_first else [0, 0])
            in_order = list(keys) if is_a_first else list(reversed(keys))
            assert [key for *_, key in await world.log(x)] == in_order
            assert [key for *_, key in await world.log(y)] == in_order
            assert {state.log_id: state.next_offset for state in second.logs} == {x: 6, y: 4}

        return world.run(committing(a), committing(b), check)

    return await world.explore(prepare)


def test_commits_to_the_same_logs_come_one_after_the_other(in_world: Explored) -> None:
    outcomes = in_world(commits_to_the_same_logs)
    assert {outcome.comes_before("a commit", "b commit") for outcome in outcomes} == {True, False}
    assert any(outcome.has_waited for outcome in outcomes)


def test_logs_that_are_not_locked_are_found(in_world: Explored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "LOCK_LOGS", without_lock(commits.LOCK_LOGS))
    with pytest.raises(AssertionError, match="after these steps"):
        in_world(commits_to_the_same_logs)


def test_commits_to_other_logs_wait_for_nothing(in_world: Explored) -> None:
    async def explore(world: World) -> list[Outcome]:
        async def prepare() -> Run:
            x, y = (await world.topic(2)).logs

            async def check(outcome: Outcome) -> None:
                assert [offsets(result) for result in results(outcome)] == [[0], [0]]

            return world.run(
                committing(segment(world.ids.segment_key(), batch(x))),
                committing(segment(world.ids.segment_key(), batch(y))),
                check,
            )

        return await world.explore(prepare)

    outcomes = in_world(explore)
    assert not any(outcome.has_waited for outcome in outcomes)
    steps = len(outcomes[0].steps)
    assert len(outcomes) == math.comb(steps, steps // 2), "every order there is"


# An idempotent producer's batch, sent to two agents


async def duplicates(
    world: World, wrap: Callable[[Database, LogId], Database] = lambda d, _: d
) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        await world.commit(segment(world.ids.segment_key(), sequenced(x, 0, producer=PRODUCER)))
        a, b = (
            segment(world.ids.segment_key(), sequenced(x, 1, count=3, producer=PRODUCER)) for _ in range(2)
        )

        async def check(outcome: Outcome) -> None:
            first, second = came_first(outcome)
            assert errors(first) == errors(second) == [NONE]
            assert offsets(first) == offsets(second) == [1]
            [[earlier], [later]] = first.outcomes[0], second.outcomes[0]
            assert (earlier.is_duplicate, later.is_duplicate) == (False, True)
            assert [(base, end) for base, end, _ in await world.log(x)] == [(0, 1), (1, 4)]

        run = world.run(committing(a), committing(b), check)
        return replace(
            run,
            operations={
                name: wrapped(operation, lambda database: wrap(database, x))
                for name, operation in run.operations.items()
            },
        )

    return await world.explore(prepare)


def wrapped(operation: Operation, wrap: Callable[[Database], Database]) -> Operation:
    return lambda database: operation(wrap(database))


def test_a_batch_that_comes_by_two_agents_is_appended_once(in_world: Explored) -> None:
    assert len(in_world(duplicates)) > 1


def test_producers_that_are_read_before_the_lock_are_found(in_world: Explored) -> None:
    with pytest.raises(AssertionError, match="after these steps"):
        in_world(lambda world: duplicates(world, EarlyProducers))


class EarlyProducers:
    """A database on which a commit reads its producer before it locks the logs."""

    def __init__(self, inner: Database, log_id: LogId) -> None:
        self._inner = inner
        self._log_id = log_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        return self._within()

    @asynccontextmanager
    async def _within(self) -> Any:
        async with self._inner.transaction() as session:
            yield _EarlySession(session, self._log_id)


class _EarlySession:
    def __init__(self, inner: Session, log_id: LogId) -> None:
        self._inner = inner
        self._log_id = log_id
        self._early: list[Row] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def all(self, statement: Statement, *arguments: Argument) -> list[Row]:
        if statement is commits.LOCK_LOGS:
            self._early = await self._inner.all(commits.READ_PRODUCERS, [(self._log_id, PRODUCER)])
        if statement is commits.READ_PRODUCERS:
            return self._early
        return await self._inner.all(statement, *arguments)

    async def together(self, calls: Sequence[Call]) -> list[list[Row]]:
        answers = await self._inner.together(calls)
        return [
            self._early if call.statement is commits.READ_PRODUCERS else answer
            for call, answer in zip(calls, answers, strict=True)
        ]


# The same segment, committed twice


async def the_same_segment(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        again = segment(world.ids.segment_key(), batch(x, count=2))

        async def check(outcome: Outcome) -> None:
            a, b = results(outcome)
            assert (
                (errors(a), offsets(a), a.refused) == (errors(b), offsets(b), b.refused) == ([NONE], [0], {})
            )
            assert await world.log(x) == [(0, 2, again.key)]
            assert {state.next_offset for result in (a, b) for state in result.logs} == {2}

        return world.run(committing(again), committing(again), check)

    return await world.explore(prepare)


def test_a_segment_that_is_committed_twice_at_once_is_there_once(in_world: Explored) -> None:
    assert len(in_world(the_same_segment)) > 1


def test_ends_of_logs_that_were_read_before_a_wait_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "LOCK_LOGS", without_lock(commits.LOCK_LOGS))
    with pytest.raises(AssertionError, match="after these steps"):
        in_world(the_same_segment)


async def the_same_segment_without_logs(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        again = segment(world.ids.segment_key(), batch(GONE))

        async def check(outcome: Outcome) -> None:
            assert [errors(result) for result in results(outcome)] == [[UNKNOWN], [UNKNOWN]]
            assert await world.rows("select count(*) from segments where key = $1", again.key) == [(1,)]

        return world.run(committing(again), committing(again), check)

    return await world.explore(prepare)


def test_a_segment_whose_logs_are_gone_is_committed_once_too(in_world: Explored) -> None:
    assert any(outcome.has_waited for outcome in in_world(the_same_segment_without_logs))


def test_keys_that_are_looked_up_and_not_waited_for_are_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = commits.INSERT_SEGMENTS
    text = insert.text.replace(
        "where true", "where not exists (select 1 from segments s where s.key = w.key)"
    )
    text = text.replace("on conflict (key) do nothing", "")
    assert "not exists" in text
    assert "conflict" not in text
    monkeypatch.setattr(commits, "INSERT_SEGMENTS", replace(insert, text=text))
    with pytest.raises(AssertionError, match="after these steps"):
        in_world(the_same_segment_without_logs)


# Commit beside the claim of its key


async def commit_and_claim(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        key = world.ids.segment_key()

        async def check(outcome: Outcome) -> None:
            committed, is_claimed = outcome.answers["a"], outcome.answers["b"]
            assert isinstance(committed, CommitResult), committed
            if is_claimed:
                assert (errors(committed), list(committed.refused)) == ([ErrorCode.KAFKA_STORAGE_ERROR], [0])
                assert await world.log(x) == []
            else:
                assert (errors(committed), committed.refused) == ([NONE], {})
                assert await world.log(x) == [(0, 2, key)]
            states = await world.rows("select state from segments where key = $1", key)
            assert states == [(1 if is_claimed else 0,)]

        return world.run(
            committing(segment(key, batch(x, count=2))), lambda store: store.claim_key(key, 100), check
        )

    return await world.explore(prepare)


def test_a_key_is_committed_or_claimed_and_never_both(in_world: Explored) -> None:
    outcomes = in_world(commit_and_claim)
    assert {outcome.answers["b"] for outcome in outcomes} == {True, False}
    assert any(outcome.has_waited for outcome in outcomes)


def test_a_claim_that_looks_before_it_writes_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = sql(
        "insert into segments (key, size_bytes, level, state, created_ms, died_ms) values ($1, $2, 0, 1, $3, $3)"
        " on conflict (key) do update set state = 1"
    )

    async def claim_key(session: Session, key: str, size_bytes: int, now_ms: int) -> bool:
        if await session.all(commits.KNOWN_SEGMENTS, [(key,)]):
            return False
        return await session.execute(write, key, size_bytes, now_ms) == 1

    monkeypatch.setattr(commits, "claim_key", claim_key)
    with pytest.raises(AssertionError, match="after these steps"):
        in_world(commit_and_claim)


# Commit beside DeleteTopics


async def commit_and_delete(world: World) -> list[Outcome]:
    async def prepare() -> Run:
        gone, kept = await world.topic(2), await world.topic()
        [x, y], [z] = gone.logs, kept.logs
        key = world.ids.segment_key()
        wanted = segment(key, batch(x, count=2), batch(y, 100), batch(z, 200))

        async def check(outcome: Outcome) -> None:
            committed = outcome.answers["a"]
            assert isinstance(committed, CommitResult), committed
            assert outcome.answers["b"] == [NONE]
            # Who was acknowledged came before the deletion: what lands later, no job would ever remove.
            is_first = outcome.comes_before("a commit", "b commit")
            assert errors(committed) == ([NONE] * 3 if is_first else [UNKNOWN, UNKNOWN, NONE])
            landed = await world.rows("select count(*) from extents where log_id in ($1, $2)", x, y)
            assert landed == [(2 if is_first else 0,)]
            assert await world.log(z) == [(0, 1, key)]
            deleted = "select count(*) from deleted_logs where log_id in ($1, $2)"
            assert await world.rows(deleted, x, y) == [(2,)]

        return world.run(committing(wanted), lambda store: store.delete_topics([gone.topic_id]), check)

    return await world.explore(prepare)


def test_a_commit_comes_before_the_deletion_of_its_topic_or_is_refused(in_world: Explored) -> None:
    outcomes = in_world(commit_and_delete)
    assert {outcome.comes_before("a commit", "b commit") for outcome in outcomes} == {True, False}
    assert any(outcome.has_waited for outcome in outcomes)


def test_a_commit_that_lands_after_the_deletion_is_found(
    in_world: Explored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "LOCK_LOGS", without_lock(commits.LOCK_LOGS))
    with pytest.raises(AssertionError, match="after these steps"):
        in_world(commit_and_delete)


# Commit beside the takeover of a lease


@dataclass(slots=True)
class _Lock:
    """A statement that a faulty takeover would run too."""

    statement: Statement = commits.LOCK_LOGS


async def commit_and_takeover(world: World, fault: _Lock | None = None) -> list[Outcome]:
    async def prepare() -> Run:
        [x] = (await world.topic()).logs
        name = f"lease-{x}"
        [held] = await world.store.take_leases([name], BrokerId(1))

        async def take(store: MetadataStore) -> Any:
            taken = await store.take_leases([name], BrokerId(2))
            if fault is not None:
                async with store._database.transaction() as session:
                    await session.all(fault.statement, [(x,)])
            return taken

        async def check(outcome: Outcome) -> None:
            committed, [taken] = outcome.answers["a"], outcome.answers["b"]
            assert (errors(committed), offsets(committed)) == ([NONE], [0])
            assert (taken.holder, taken.epoch) == (2, held.epoch + 1)
            assert len(await world.log(x)) == 1
            assert not outcome.has_waited, "acknowledging records waits for no takeover"

        return world.run(committing(segment(world.ids.segment_key(), batch(x))), take, check)

    return await world.explore(prepare)


def test_a_commit_needs_no_lease_and_waits_for_no_takeover(in_world: Explored) -> None:
    assert len(in_world(commit_and_takeover)) > 1


def test_a_takeover_that_commits_wait_for_is_found(in_world: Explored) -> None:
    with pytest.raises(AssertionError, match="waits for no takeover"):
        in_world(lambda world: commit_and_takeover(world, _Lock()))
