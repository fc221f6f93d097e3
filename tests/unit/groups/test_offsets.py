"""The committer of offsets: what goes together, in which order, and who is told what when something fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from tests.sim.loop import SimLoop
from tests.support.log import run_sim
from tests.unit.metadata.support import TestClock
from warp.errors import (
    ErrorCode,
    MetadataCorrupt,
    MetadataError,
    MetadataFull,
    MetadataUnavailable,
    OutcomeUnknown,
)
from warp.groups import offsets
from warp.groups.offsets import OffsetCommitter, OffsetLimits
from warp.ids import BrokerId
from warp.metadata.group_model import Lease, LeaseLost, OffsetCommit, OffsetRow

NONE = ErrorCode.NONE
AWAY = ErrorCode.COORDINATOR_NOT_AVAILABLE
LEASE = Lease("coordinator/1", BrokerId(1), 1)
OTHER_LEASE = Lease("coordinator/2", BrokerId(1), 1)


class FakeStore:
    """Keeps what is committed. `fail` is asked before each transaction; `hold` lets none end until `release`."""

    def __init__(
        self, fail: Callable[[Sequence[OffsetCommit]], Exception | None] = lambda commits: None
    ) -> None:
        self.fail = fail
        self.transactions: list[list[OffsetCommit]] = []
        self.committed: dict[tuple[str, str, int], int] = {}
        self._gate = asyncio.Event()
        self._gate.set()
        self.began = asyncio.Event()

    def hold(self) -> None:
        self._gate.clear()
        self.began.clear()

    def release(self) -> None:
        self._gate.set()

    async def commit_offsets(self, offset_commits: Sequence[OffsetCommit]) -> list[list[ErrorCode]]:
        self.transactions.append(list(offset_commits))
        self.began.set()
        await self._gate.wait()
        error = self.fail(offset_commits)
        if error is not None:
            raise error
        for commit in offset_commits:
            for row in commit.rows:
                self.committed[row[:3]] = row.offset
        return [
            [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if row.topic == "nope" else NONE for row in commit.rows]
            for commit in offset_commits
        ]

    @property
    def groups(self) -> list[list[str]]:
        """Whose commits each transaction had."""
        return [[commit.group_id for commit in commits] for commits in self.transactions]


def commit_of(
    group_id: str, *topics: str, offset: int = 1, lease: Lease = LEASE, metadata: str = ""
) -> OffsetCommit:
    rows = [OffsetRow(group_id, topic, 0, offset, -1, metadata, 0) for topic in topics or ("t",)]
    return OffsetCommit(lease, group_id, rows)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test on virtual time."""

    async def main(loop: SimLoop) -> None:
        await test()

    run_sim(main)


def committer(store: FakeStore, **limits: Any) -> OffsetCommitter:
    return OffsetCommitter(store, TestClock(), OffsetLimits(retry_delay_s=0.001, **limits))


def start(work: Coroutine[Any, Any, list[ErrorCode]]) -> asyncio.Task[list[ErrorCode]]:
    return asyncio.get_running_loop().create_task(work)


async def together(*work: Awaitable[list[ErrorCode]]) -> list[list[ErrorCode]]:
    return list(await asyncio.gather(*work))


async def turns(count: int = 5) -> None:
    """Let everything happen that does not wait for anything."""
    for _ in range(count):
        await asyncio.sleep(0)


# What goes together


def test_a_commit_is_answered_with_an_error_per_row() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store)
        errors = await service.commit(commit_of("g", "t", "nope", "u"))
        assert errors == [NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, NONE]
        assert await service.commit(OffsetCommit(LEASE, "g", [])) == []
        assert (service.transactions, service.failed_transactions) == (1, 0)

    run(test)


def test_what_comes_while_a_transaction_runs_goes_together_into_the_next() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store)
        store.hold()
        first = start(service.commit(commit_of("a")))
        await store.began.wait()
        others = [start(service.commit(commit_of(name))) for name in "bcd"]
        await turns()
        assert not first.done()
        store.release()
        assert await together(first, *others) == [[NONE]] * 4
        assert store.groups == [["a"], ["b", "c", "d"]]
        assert service.waiting_bytes == 0

    run(test)


def test_what_comes_in_one_turn_of_the_loop_goes_together() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store)
        await together(*(service.commit(commit_of(name)) for name in "abc"))
        assert store.groups == [["a", "b", "c"]]

    run(test)


def test_the_commits_of_a_group_land_in_their_order() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store, transaction_rows_max=3)
        names = [f"t{number}" for number in range(8)]
        work = [
            service.commit(commit_of("g", *names, offset=1)),
            service.commit(commit_of("h", offset=5)),
            service.commit(commit_of("g", *names[2:7], offset=2)),
            service.commit(commit_of("g", "t4", offset=3)),
        ]
        answers = await together(*work)
        assert [len(errors) for errors in answers] == [8, 1, 5, 1]
        assert [store.committed["g", name, 0] for name in names] == [1, 1, 2, 2, 3, 2, 2, 1]
        assert all(sum(len(commit.rows) for commit in one) <= 3 for one in store.transactions)
        assert len(store.transactions) == 5

    run(test)


def test_an_observer_hears_of_every_transaction() -> None:
    async def test() -> None:
        seen: list[tuple[int, float]] = []
        store = FakeStore()
        service = OffsetCommitter(
            store, TestClock(), on_flush=lambda rows, seconds: seen.append((rows, seconds))
        )
        await together(service.commit(commit_of("g", "t", "u")), service.commit(commit_of("h")))
        assert seen == [(3, 0.0)]

    run(test)


# Limits


def test_metadata_that_is_too_large_is_refused_for_its_row_alone() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store)
        rows = [
            OffsetRow("g", f"t{n}", 0, n, -1, "ü" * length, 0) for n, length in enumerate((4096, 4097, 0))
        ]
        errors = await service.commit(OffsetCommit(LEASE, "g", rows))
        assert errors == [NONE, ErrorCode.OFFSET_METADATA_TOO_LARGE, NONE]
        assert set(store.committed) == {("g", "t0", 0), ("g", "t2", 0)}
        assert await service.commit(OffsetCommit(LEASE, "g", rows[1:2])) == [
            ErrorCode.OFFSET_METADATA_TOO_LARGE
        ]

    run(test)


def test_more_offsets_than_a_group_may_have_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offsets, "OFFSETS_PER_GROUP_MAX", 2)

    async def test() -> None:
        store = FakeStore()
        errors = await committer(store).commit(commit_of("g", "a", "b", "c"))
        assert errors == [ErrorCode.INVALID_COMMIT_OFFSET_SIZE] * 3
        assert store.transactions == []

    run(test)


def test_what_waits_is_bounded_and_the_bound_passes() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store, waiting_bytes_max=1000)
        store.hold()
        first = start(service.commit(commit_of("a")))
        await store.began.wait()
        waiting = start(service.commit(commit_of("b", metadata="x" * 600)))
        await turns()
        assert service.waiting_bytes > 900
        assert await service.commit(commit_of("c", "t", "u")) == [AWAY, AWAY]
        store.release()
        assert await together(first, waiting) == [[NONE], [NONE]]
        assert await service.commit(commit_of("c", "t", "u")) == [NONE, NONE]
        assert store.groups == [["a"], ["b"], ["c"]]

    run(test)


def test_a_commit_larger_than_the_bound_goes_when_nothing_waits() -> None:
    async def test() -> None:
        service = committer(FakeStore(), waiting_bytes_max=10)
        assert await service.commit(commit_of("a", *(f"t{n}" for n in range(50)))) == [NONE] * 50

    run(test)


def test_a_commit_that_waits_too_long_is_answered_and_not_begun_any_more() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store, timeout_s=2.0)
        store.hold()
        answers = asyncio.gather(service.commit(commit_of("a")), service.commit(commit_of("b")))
        await store.began.wait()
        late = await service.commit(commit_of("c"))
        assert [*await answers, late] == [[AWAY]] * 3
        store.release()
        await turns()
        assert store.groups == [["a", "b"]]
        assert service.waiting_bytes == 0
        assert await service.commit(commit_of("d")) == [NONE]

    run(test)


# Failures


def test_a_lost_lease_fails_the_commits_under_it_and_no_others() -> None:
    async def test() -> None:
        def fail(commits: Sequence[OffsetCommit]) -> Exception | None:
            under = {commit.lease for commit in commits}
            return LeaseLost([OTHER_LEASE]) if OTHER_LEASE in under else None

        store = FakeStore(fail)
        service = committer(store)
        answers = await together(
            service.commit(commit_of("a", "t", "nope")),
            service.commit(commit_of("b", "t", "u", lease=OTHER_LEASE)),
            service.commit(commit_of("c")),
            service.commit(commit_of("d", lease=OTHER_LEASE)),
        )
        lost = ErrorCode.NOT_COORDINATOR
        assert answers == [[NONE, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION], [lost, lost], [NONE], [lost]]
        assert store.groups == [["a", "b", "c", "d"], ["a", "c"]]
        assert await service.commit(commit_of("b", lease=OTHER_LEASE)) == [lost]
        assert {key[0] for key in store.committed} == {"a", "c"}

    run(test)


def test_a_commit_under_an_older_epoch_of_a_lease_that_came_back_fails_alone() -> None:
    async def test() -> None:
        newer = Lease(LEASE.name, LEASE.holder, 2)
        store = FakeStore(
            lambda commits: LeaseLost([LEASE]) if any(c.lease == LEASE for c in commits) else None
        )
        service = committer(store)
        answers = await together(
            service.commit(commit_of("g", offset=1)), service.commit(commit_of("g", offset=2, lease=newer))
        )
        assert answers == [[ErrorCode.NOT_COORDINATOR], [NONE]]
        assert store.committed == {("g", "t", 0): 2}

    run(test)


@pytest.mark.parametrize("error", [MetadataUnavailable("away"), MetadataFull("full")])
def test_a_store_that_is_away_is_told_to_everybody_and_asked_again_for_the_next(error: MetadataError) -> None:
    async def test() -> None:
        failures: list[MetadataError] = [error]
        store = FakeStore(lambda commits: failures.pop() if failures else None)
        service = committer(store)
        answers = await together(service.commit(commit_of("a", "t", "u")), service.commit(commit_of("b")))
        assert answers == [[AWAY, AWAY], [AWAY]]
        assert store.groups == [["a", "b"]]
        assert store.committed == {}
        assert await service.commit(commit_of("a")) == [NONE]
        assert (service.transactions, service.failed_transactions) == (1, 1)

    run(test)


def test_a_store_that_stays_away_is_logged_once_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        is_away = True
        store = FakeStore(lambda commits: MetadataUnavailable("gone") if is_away else None)
        service = committer(store)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await service.commit(commit_of("a")) == [AWAY]
            assert len(caplog.records) == 1
            is_away = False
            assert await service.commit(commit_of("a")) == [NONE]
            is_away = True
            assert await service.commit(commit_of("a")) == [AWAY]
        assert len(caplog.records) == 2

    run(test)


@pytest.mark.parametrize("was_applied", [True, False])
def test_an_unknown_outcome_is_resolved_before_anything_that_came_later(was_applied: bool) -> None:
    async def test() -> None:
        store = FakeStore()

        def fail(commits: Sequence[OffsetCommit]) -> Exception | None:
            if len(store.transactions) > 1:
                return None
            if was_applied:
                store.committed["g", "t", 0] = 1
            return OutcomeUnknown("the connection was lost")

        store.fail = fail
        service = committer(store)
        store.hold()
        first = start(service.commit(commit_of("g", offset=1)))
        await store.began.wait()
        second = start(service.commit(commit_of("g", offset=2)))
        await turns()
        store.release()
        assert await together(first, second) == [[NONE], [NONE]]
        assert [commits[0].rows[0].offset for commits in store.transactions] == [1, 1, 2]
        assert store.committed == {("g", "t", 0): 2}

    run(test)


def test_an_outcome_that_stays_unknown_is_an_error_and_later_commits_go_on() -> None:
    async def test() -> None:
        store = FakeStore(lambda commits: OutcomeUnknown("lost") if len(store.transactions) <= 3 else None)
        service = committer(store, unknown_attempts_max=3)
        assert await service.commit(commit_of("a", "t", "u")) == [AWAY, AWAY]
        assert len(store.transactions) == 3
        assert await service.commit(commit_of("a", "t", "u", offset=2)) == [NONE, NONE]
        assert service.failed_transactions == 3

    run(test)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (MetadataCorrupt("damaged"), AWAY),
        (MetadataError("odd"), AWAY),
        (ZeroDivisionError(), ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
def test_a_commit_that_breaks_the_transaction_hurts_only_its_group(
    error: Exception, answer: ErrorCode, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        store = FakeStore(lambda commits: error if any(c.group_id == "bad" for c in commits) else None)
        service = committer(store)
        with caplog.at_level(logging.WARNING):
            answers = await together(
                service.commit(commit_of("a", offset=1)),
                service.commit(commit_of("bad")),
                service.commit(commit_of("c")),
                service.commit(commit_of("a", offset=2)),
                service.commit(commit_of("bad")),
            )
        assert answers == [[NONE], [answer], [NONE], [NONE], [answer]]
        assert store.groups == [["a", "bad", "c", "a", "bad"], ["a", "a"], ["bad", "bad"], ["c"]]
        assert store.committed["a", "t", 0] == 2
        assert len(caplog.records) == 2

    run(test)


def test_a_lease_lost_while_each_group_is_tried_alone_fails_its_commits_alone() -> None:
    async def test() -> None:
        def fail(commits: Sequence[OffsetCommit]) -> Exception | None:
            if len(store.transactions) == 1:
                return MetadataError("odd")
            return LeaseLost([LEASE]) if any(commit.lease == LEASE for commit in commits) else None

        newer = Lease(LEASE.name, LEASE.holder, 2)
        store = FakeStore(fail)
        service = committer(store)
        answers = await together(
            service.commit(commit_of("g")),
            service.commit(commit_of("g", lease=newer)),
            service.commit(commit_of("h", lease=OTHER_LEASE)),
        )
        assert answers == [[ErrorCode.NOT_COORDINATOR], [NONE], [NONE]]

    run(test)


def test_a_store_that_answers_nonsense_is_a_bug_that_is_told_and_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        store = FakeStore(lambda commits: LeaseLost([OTHER_LEASE]) if len(store.transactions) == 1 else None)
        service = committer(store)
        with caplog.at_level(logging.ERROR):
            assert await service.commit(commit_of("a")) == [ErrorCode.UNKNOWN_SERVER_ERROR]
        assert "not followed up" in caplog.text
        assert await service.commit(commit_of("a")) == [NONE]

    run(test)


# Cancelling and closing


def test_a_commit_cancelled_before_its_transaction_begins_is_forgotten() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store, transaction_rows_max=2)
        store.hold()
        first = start(service.commit(commit_of("a")))
        await store.began.wait()
        cancelled = start(service.commit(commit_of("b", "t", "u", "v")))
        kept = start(service.commit(commit_of("c")))
        await turns()
        cancelled.cancel()
        await turns()
        store.release()
        assert await together(first, kept) == [[NONE], [NONE]]
        assert cancelled.cancelled()
        assert store.groups == [["a"], ["c"]]
        assert service.waiting_bytes == 0

    run(test)


def test_a_commit_cancelled_in_flight_hurts_no_other() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store)
        store.hold()
        cancelled, kept = start(service.commit(commit_of("a"))), start(service.commit(commit_of("b")))
        await store.began.wait()
        cancelled.cancel()
        await turns()
        store.release()
        assert await kept == [NONE]
        assert cancelled.cancelled()
        assert set(store.committed) == {("a", "t", 0), ("b", "t", 0)}

    run(test)


def test_draining_finishes_what_is_there_and_takes_nothing_more_in() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store)
        store.hold()
        first = start(service.commit(commit_of("a")))
        await store.began.wait()
        second = start(service.commit(commit_of("b")))
        await turns()
        assert not await service.drain(1)
        assert await service.commit(commit_of("c")) == [AWAY]
        store.release()
        assert await service.drain(5)
        assert await together(first, second) == [[NONE], [NONE]]
        assert store.groups == [["a"], ["b"]]
        assert await service.drain(5)
        await service.close()

    run(test)


def test_closing_answers_whoever_waits() -> None:
    async def test() -> None:
        store = FakeStore()
        service = committer(store)
        store.hold()
        first = start(service.commit(commit_of("a", "t", "u")))
        await store.began.wait()
        second = start(service.commit(commit_of("b")))
        await turns()
        await service.close()
        assert await together(first, second) == [[AWAY, AWAY], [AWAY]]
        assert await service.commit(commit_of("c")) == [AWAY]
        assert (store.groups, service.waiting_bytes) == ([["a"]], 0)
        await service.close()

    run(test)
