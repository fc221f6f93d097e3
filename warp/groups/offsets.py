"""Commits offsets for many groups at once: whatever comes while a transaction runs goes together into the next one.

One transaction is in flight at a time and commits are taken in the order in which they came, so those of one group land
in that order, whatever fails in between. A caller has its answer when its offsets are durable.

What happens on failure:
* A lost lease: the commits under it are answered NOT_COORDINATOR; the others are tried again at once, without them.
* The store can't be reached: nothing was changed, and all commits of the batch are answered COORDINATOR_NOT_AVAILABLE,
  which clients retry.
* An unknown outcome: the same batch is tried again before anything that came later. A commit says what the offsets
  are, not how they change, so doing it twice is doing it once; and a database in which the first attempt still runs
  makes the second one wait for its rows. When no attempt gets an answer, callers get COORDINATOR_NOT_AVAILABLE and
  commit again.
* Anything else: each group is tried alone, so that only the one with the bad commit fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from warp.clock import Clock
from warp.errors import ErrorCode, MetadataError, MetadataUnavailable, OutcomeUnknown
from warp.metadata.group_model import OFFSETS_PER_GROUP_MAX, LeaseLost, OffsetCommit

_log = logging.getLogger(__name__)

ROW_OVERHEAD_BYTES = 300
"""What a waiting row takes beside its strings."""


class OffsetStore(Protocol):
    """The part of the metadata store that commits need."""

    async def commit_offsets(self, offset_commits: Sequence[OffsetCommit]) -> list[list[ErrorCode]]:
        """Commit offsets in one transaction; per commit an error per row."""


@dataclass(frozen=True, slots=True)
class OffsetLimits:
    """The bounds of committing offsets."""

    metadata_chars_max: int = 4096
    """Kafka's offset.metadata.max.bytes, which counts characters too: more is OFFSET_METADATA_TOO_LARGE."""
    transaction_rows_max: int = 1000
    """Offsets in one transaction: on SQLite the event loop stands still meanwhile. Larger commits are split."""
    waiting_bytes_max: int = 32 * 1024 * 1024
    """What waits for its transaction; beyond that commits are answered COORDINATOR_NOT_AVAILABLE."""
    timeout_s: float = 5.0
    """Kafka's offsets.commit.timeout.ms: how long a commit waits before COORDINATOR_NOT_AVAILABLE is its answer."""
    unknown_attempts_max: int = 3
    """How often a transaction is tried whose outcome is unknown."""
    retry_delay_s: float = 0.05
    """After the first of these attempts; doubled with each."""


class _Waiting:
    """A commit, or a part of one, that waits for its transaction."""

    __slots__ = ("answer", "commit", "size_bytes")

    def __init__(self, commit: OffsetCommit, answer: asyncio.Future[list[ErrorCode]]) -> None:
        self.commit = commit
        self.answer = answer
        self.size_bytes = sum(ROW_OVERHEAD_BYTES + len(row.topic) + len(row.metadata) for row in commit.rows)

    def answer_with(self, errors: list[ErrorCode]) -> None:
        """Tell whoever waits, should somebody still."""
        if not self.answer.done():
            self.answer.set_result(errors)

    def fail(self, error: ErrorCode) -> None:
        """The same error for each row."""
        self.answer_with([error] * len(self.commit.rows))


class OffsetCommitter:
    """Commits offsets, all groups' of one agent.

    `on_flush(offsets, seconds)` hears of each transaction that was done.
    """

    def __init__(
        self,
        store: OffsetStore,
        clock: Clock,
        limits: OffsetLimits | None = None,
        on_flush: Callable[[int, float], None] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits or OffsetLimits()
        self._on_flush = on_flush
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._in_flight: Sequence[_Waiting] = ()
        self._turn: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._is_away = False
        self.transactions = 0
        """Transactions that were done."""
        self.failed_transactions = 0
        """Transactions that were not, or whose outcome is unknown, also those that were made good."""

    @property
    def waiting_bytes(self) -> int:
        """About how many bytes wait for a transaction to begin."""
        return self._waiting_bytes

    @property
    def turn(self) -> asyncio.Future[None] | None:
        """Done when the transaction that runs now has ended, whoever has given up waiting for it; None: none runs."""
        return self._turn

    async def commit(self, commit: OffsetCommit) -> list[ErrorCode]:
        """Commit offsets of one group; an error per row once it is known.

        NONE: durable. UNKNOWN_TOPIC_OR_PARTITION, OFFSET_METADATA_TOO_LARGE, INVALID_GROUP_ID, or
        INVALID_COMMIT_OFFSET_SIZE for more offsets than a group may have: of this row alone. NOT_COORDINATOR when the
        lease is lost, COORDINATOR_NOT_AVAILABLE when the store is: of all rows. After the latter some may have been
        stored. Cancelled while it waits, the commit is forgotten; once its transaction has begun, it may be done.
        """
        fitting = [row for row in commit.rows if len(row.metadata) <= self._limits.metadata_chars_max]
        if len(fitting) == len(commit.rows):
            return await self._commit(commit)
        answers = iter(await self._commit(commit._replace(rows=fitting)))
        return [
            next(answers)
            if len(row.metadata) <= self._limits.metadata_chars_max
            else ErrorCode.OFFSET_METADATA_TOO_LARGE
            for row in commit.rows
        ]

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing more in, and finish what is there. False when that was not done within `timeout_s`."""
        self._is_closing = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=timeout_s)
        return self._task is None

    async def close(self) -> None:
        """Stop at once. Whoever waits is answered with COORDINATOR_NOT_AVAILABLE."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for waiting in (*self._in_flight, *self._waiting):
            waiting.fail(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        self._in_flight = ()
        self._waiting.clear()
        self._waiting_bytes = 0

    async def _commit(self, commit: OffsetCommit) -> list[ErrorCode]:
        if not commit.rows:
            return []
        if len(commit.rows) > OFFSETS_PER_GROUP_MAX:
            return [ErrorCode.INVALID_COMMIT_OFFSET_SIZE] * len(commit.rows)
        parts = self._parts(commit)
        size_bytes = sum(part.size_bytes for part in parts)
        # A commit alone may be as large as it is: the frame that it came in was let in.
        has_room = not self._waiting or self._waiting_bytes + size_bytes <= self._limits.waiting_bytes_max
        if self._is_closing or not has_room:
            return [ErrorCode.COORDINATOR_NOT_AVAILABLE] * len(commit.rows)
        # All parts at once: nothing of the same group may come between them.
        self._waiting.extend(parts)
        self._waiting_bytes += size_bytes
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return [error for part in parts for error in await part.answer]
        except TimeoutError:
            return [ErrorCode.COORDINATOR_NOT_AVAILABLE] * len(commit.rows)
        finally:
            for part in parts:
                part.answer.cancel()

    def _parts(self, commit: OffsetCommit) -> list[_Waiting]:
        rows, rows_max = commit.rows, self._limits.transaction_rows_max
        loop = asyncio.get_running_loop()
        if len(rows) <= rows_max:
            return [_Waiting(commit, loop.create_future())]
        return [
            _Waiting(commit._replace(rows=rows[start : start + rows_max]), loop.create_future())
            for start in range(0, len(rows), rows_max)
        ]

    async def _run(self) -> None:
        """Flush until nothing waits. Each turn lets the loop bring in what has come meanwhile."""
        try:
            while self._waiting:
                self._in_flight = self._take()
                self._turn = asyncio.get_running_loop().create_future()
                try:
                    await self._flush(self._in_flight)
                except Exception:  # noqa: BLE001 - a bug: logged and answered
                    _log.exception("a commit of offsets was not followed up as it should")
                    _fail(self._in_flight, ErrorCode.UNKNOWN_SERVER_ERROR)
                self._end_turn()
                self._in_flight = ()
                await asyncio.sleep(0)
        finally:
            self._end_turn()
            self._task = None

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    def _take(self) -> list[_Waiting]:
        """The next commits that somebody still waits for, as many as fit into one transaction, one at least."""
        taken: list[_Waiting] = []
        rows = 0
        while self._waiting:
            waiting = self._waiting[0]
            rows += len(waiting.commit.rows)
            if taken and rows > self._limits.transaction_rows_max:
                break
            self._waiting.popleft()
            self._waiting_bytes -= waiting.size_bytes
            if waiting.answer.cancelled():
                rows -= len(waiting.commit.rows)
            else:
                taken.append(waiting)
        return taken

    async def _flush(self, batch: Sequence[_Waiting]) -> None:
        """Commit a batch, and answer everybody in it."""
        while batch:
            try:
                await self._attempt(batch)
            except LeaseLost as lost:
                batch = _without(batch, lost)
            except (MetadataUnavailable, OutcomeUnknown):
                _fail(batch, ErrorCode.COORDINATOR_NOT_AVAILABLE)
                return
            except Exception:  # noqa: BLE001 - told by _attempt; found again where only one group fails
                for of_group in _by_group(batch):
                    await self._flush_alone(of_group)
                return
            else:
                return

    async def _flush_alone(self, batch: Sequence[_Waiting]) -> None:
        """Commit what one group waits for, in a transaction of its own."""
        try:
            await self._attempt(batch)
        except LeaseLost as lost:
            # Under two epochs of one lease, should it have come back while the older commits waited.
            await self._flush(_without(batch, lost))
        except MetadataError:
            _fail(batch, ErrorCode.COORDINATOR_NOT_AVAILABLE)
        except Exception:  # noqa: BLE001 - a bug, ours or the store's: told by _attempt, and answered
            _fail(batch, ErrorCode.UNKNOWN_SERVER_ERROR)

    async def _attempt(self, batch: Sequence[_Waiting]) -> None:
        """One transaction, or several when the outcome is unknown. What it raises has been logged and counted."""
        begun_s = self._clock.monotonic()
        answers = await self._commit_once_known([waiting.commit for waiting in batch])
        self.transactions += 1
        for waiting, errors in zip(batch, answers, strict=True):
            waiting.answer_with(errors)
        if self._on_flush is not None:
            offsets = sum(len(waiting.commit.rows) for waiting in batch)
            self._on_flush(offsets, self._clock.monotonic() - begun_s)

    async def _commit_once_known(self, commits: Sequence[OffsetCommit]) -> list[list[ErrorCode]]:
        delay_s = self._limits.retry_delay_s
        for attempts_left in reversed(range(self._limits.unknown_attempts_max)):
            try:
                answers = await self._store.commit_offsets(commits)
            except OutcomeUnknown as error:
                self._tell(error, commits)
                if not attempts_left:
                    raise
            except Exception as error:
                self._tell(error, commits)
                raise
            else:
                self._is_away = False
                return answers
            await asyncio.sleep(delay_s)
            delay_s *= 2
        raise ValueError("a transaction has to be tried once at least")

    def _tell(self, error: Exception, commits: Sequence[OffsetCommit]) -> None:
        self.failed_transactions += 1
        if not isinstance(error, MetadataError):
            _log.error("commit of offsets failed unexpectedly", exc_info=error)
            return
        # A store that stays away is told of once.
        is_away = isinstance(error, MetadataUnavailable | OutcomeUnknown)
        level = logging.DEBUG if is_away and self._is_away else logging.WARNING
        _log.log(level, "%d commits of offsets failed: %s: %s", len(commits), type(error).__name__, error)
        self._is_away = is_away


def _without(batch: Sequence[_Waiting], lost: LeaseLost) -> list[_Waiting]:
    """Answer the commits under lost leases; the others. Fewer each time, for a lost lease is one of the batch's."""
    kept = []
    for waiting in batch:
        if waiting.commit.lease in lost.leases:
            waiting.fail(ErrorCode.NOT_COORDINATOR)
        else:
            kept.append(waiting)
    assert len(kept) < len(batch), "the store names leases that the batch has"
    return kept


def _by_group(batch: Sequence[_Waiting]) -> list[list[_Waiting]]:
    groups: dict[str, list[_Waiting]] = {}
    for waiting in batch:
        groups.setdefault(waiting.commit.group_id, []).append(waiting)
    return list(groups.values())


def _fail(batch: Sequence[_Waiting], error: ErrorCode) -> None:
    for waiting in batch:
        waiting.fail(error)
