"""Retention: logs lose their oldest records by time and by size, as their topics are configured to.

The start of a log moves first, readers are told, and the rows of its index go after. That serves DeleteRecords as well,
which does no more than move a start, and the logs of deleted topics, which have no reader any more. Objects are
another job's: see `warp.lifecycle.dead`.

What Kafka does by log segment is done by extent here (4 MiB and less): one goes when its largest timestamp has had its
time, or when the log without it is still as large as it may be. As in Kafka, the oldest one that has to stay holds back
all after it; so a record with a time in the future keeps what follows, until it is gone itself.

Sources: Kafka's topic configs `retention.ms` and `retention.bytes`, and KIP-107 (DeleteRecords).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from warp.clock import Clock
from warp.ids import LogId, TopicId
from warp.lifecycle.ages import SteadyTime
from warp.lifecycle.model import TopicLife
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, LogHead

_log = logging.getLogger("warp.jobs")

LOGS_MAX = 200
"""Logs that are looked at together."""
LOGS_TRIMMED_MAX = 100
ROWS_TRIMMED_MAX = 250
"""Logs and rows of one transaction that deletes: short, for where the database is in this process producers wait."""
REST_S_MAX = 0.1
"""After such a step the job rests for as long as the step took, but no longer than this."""
ROWS_FIRST = 16
ROWS_MAX = 1_000
"""Extents per step: mostly a few are enough."""
WALKED_ROWS_MAX = 20_000
"""Extents that one log loses before it is looked at again."""


class RetentionStore(Protocol):
    """The part of the metadata store that is needed here; `warp.metadata.life_store` says what each does."""

    async def log_heads(self, log_ids: Sequence[LogId]) -> list[LogHead]: ...

    async def offset_reaching_time(self, log_id: LogId, timestamp_ms: int) -> int | None: ...

    async def extents_of_log(self, log_id: LogId, from_offset: int, limit: int) -> list[IndexRow]: ...

    async def advance_log_starts(self, lease: Lease, starts: Mapping[LogId, int]) -> dict[LogId, int]: ...

    async def logs_to_trim(self, after_log: LogId, limit: int) -> tuple[list[LogId], LogId | None]: ...

    async def trim_logs(self, lease: Lease, log_ids: Sequence[LogId], extents_max: int) -> int: ...

    async def clear_deleted_logs(self, lease: Lease, rows_max: int) -> int: ...


@dataclass(slots=True)
class RetentionCounters:
    """What has been done so far, for metrics."""

    log_starts_moved: int = 0
    extents_trimmed: int = 0
    deleted_log_rows: int = 0
    """Rows of the logs of deleted topics."""


class _Bound(NamedTuple):
    """A log that may have to lose records, and the rules for it. `before_ms`: what is older goes."""

    log_id: LogId
    before_ms: int | None
    size_bytes_max: int | None


class Retention:
    """The job. `log_starts_at(log_id, offset)` is told where a log begins from now on.

    `is_clock_trusted`: can this machine's clock tell what has had its time? Where it can't, records stay.
    """

    def __init__(
        self,
        store: RetentionStore,
        clock: Clock,
        policies: Callable[[], Sequence[TopicLife]],
        log_starts_at: Callable[[LogId, int], None],
        *,
        time: SteadyTime | None = None,
        is_clock_trusted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.counters = RetentionCounters()
        self._store = store
        self._clock = clock
        self._time = time or SteadyTime(clock)
        self._policies = policies
        self._log_starts_at = log_starts_at
        self._is_clock_trusted = is_clock_trusted

    async def run(self, lease: Lease) -> None:
        """One pass. Raises LeaseLost or another MetadataError: some is done by then, the rest by the next pass."""
        await self._trim_all(lease)
        await self._clear_deleted(lease)
        bounds = self._bounds()
        while some := list(islice(bounds, LOGS_MAX)):
            await self._keep_within(lease, some)
            await asyncio.sleep(0)

    async def _trim_all(self, lease: Lease) -> None:
        """Drop what lies before the starts of logs, whoever has moved them."""
        after: LogId | None = LogId(0)
        while after is not None:
            log_ids, after = await self._store.logs_to_trim(after, LOGS_MAX)
            await self._trim(lease, log_ids)
            await asyncio.sleep(0)

    async def _trim(self, lease: Lease, log_ids: Sequence[LogId]) -> None:
        for begin in range(0, len(log_ids), LOGS_TRIMMED_MAX):
            some = log_ids[begin : begin + LOGS_TRIMMED_MAX]
            trimmed = ROWS_TRIMMED_MAX
            while trimmed == ROWS_TRIMMED_MAX:
                began_s = self._clock.monotonic()
                trimmed = await self._store.trim_logs(lease, some, ROWS_TRIMMED_MAX)
                self.counters.extents_trimmed += trimmed
                await self._rest(began_s)

    async def _clear_deleted(self, lease: Lease) -> None:
        cleared = 1
        while cleared:
            began_s = self._clock.monotonic()
            cleared = await self._store.clear_deleted_logs(lease, ROWS_TRIMMED_MAX)
            self.counters.deleted_log_rows += cleared
            await self._rest(began_s)

    async def _rest(self, began_s: float) -> None:
        """Leave as much time to others as a step has taken."""
        await asyncio.sleep(min(self._clock.monotonic() - began_s, REST_S_MAX))

    def _bounds(self) -> Iterator[_Bound]:
        """All logs that have a bound, each as its topic has it when it is its turn: passes may take long."""
        now_ms = self._time.time_ms() if self._is_clock_trusted() else None
        lives: Sequence[TopicLife] | None = None
        by_id: dict[TopicId, TopicLife] = {}
        for topic_id in [topic.topic_id for topic in self._policies()]:
            if lives is not (newest := self._policies()):
                lives, by_id = newest, {topic.topic_id: topic for topic in newest}
            topic = by_id.get(topic_id)
            if topic is None:
                continue
            has_time = now_ms is not None and topic.retention_ms is not None
            if not topic.deletes or (not has_time and topic.retention_bytes is None):
                continue
            before_ms = None
            if now_ms is not None and topic.retention_ms is not None:
                before_ms = now_ms - topic.retention_ms
            for log_id in topic.logs:
                yield _Bound(log_id, before_ms, topic.retention_bytes)

    async def _keep_within(self, lease: Lease, bounds: Sequence[_Bound]) -> None:
        """Move the starts of those of the logs that hold too much, and drop what lies before."""
        left = {bound.log_id: bound for bound in bounds}
        while left:
            heads = await self._store.log_heads(sorted(left))
            starts: dict[LogId, int] = {}
            unfinished = {}
            for head in heads:
                bound = left[head.log_id]
                start, is_whole = await self._start(head, bound)
                if start > head.start_offset:
                    starts[head.log_id] = start
                    if not is_whole:
                        unfinished[head.log_id] = bound
                # Where the database is in this process, nothing else lets the loop go.
                await asyncio.sleep(0)
            await self._move(lease, starts)
            left = unfinished

    async def _move(self, lease: Lease, starts: Mapping[LogId, int]) -> None:
        if not starts:
            return
        moved = await self._store.advance_log_starts(lease, starts)
        for log_id, offset in moved.items():
            self._log_starts_at(log_id, offset)
        self.counters.log_starts_moved += len(moved)
        _log.debug("retention has moved the starts of %d logs", len(moved))
        await self._trim(lease, sorted(moved))

    async def _start(self, head: LogHead, bound: _Bound) -> tuple[int, bool]:
        """Where a log should begin, and whether that is all that it has to lose."""
        start = head.start_offset
        is_whole = True
        if bound.before_ms is not None and 0 <= head.first_max_timestamp_ms < bound.before_ms:
            start = max(start, await self._first_after(head, bound.before_ms))
        if bound.size_bytes_max is not None and head.size_bytes > bound.size_bytes_max:
            by_size, is_whole = await self._first_within(head, bound.size_bytes_max)
            start = max(start, by_size)
        return start, is_whole

    async def _first_after(self, head: LogHead, before_ms: int) -> int:
        """The end of the last extent that is older, as are all before it."""
        # The index finds the first extent that has anything as late before or in it. Where what made it so late is
        # gone meanwhile, extents of their own have to tell.
        found = await self._store.offset_reaching_time(head.log_id, before_ms)
        if found is None:
            return head.start_offset
        start, limit = found, ROWS_FIRST
        while rows := await self._store.extents_of_log(head.log_id, start, limit):
            for row in rows:
                if row.max_timestamp_ms >= before_ms:
                    return start
                start = row.end_offset
            limit = ROWS_MAX
            await asyncio.sleep(0)
        return start

    async def _first_within(self, head: LogHead, size_bytes_max: int) -> tuple[int, bool]:
        """The end of the last extent without which the log is still as large as it may be; False: not looked further.

        The size is read after the extents: what else makes the log smaller meanwhile is then counted twice rather than
        not at all, and too little goes rather than too much. So it is where the extents are less than the size says.
        """
        ends: list[tuple[int, int]] = []
        offset = walked_bytes = 0
        limit, is_all = ROWS_FIRST, False
        while walked_bytes <= head.size_bytes - size_bytes_max and len(ends) < WALKED_ROWS_MAX:
            rows = await self._store.extents_of_log(head.log_id, offset, limit)
            for row in rows:
                walked_bytes += row.size_bytes
                ends.append((row.end_offset, walked_bytes))
            if is_all := len(rows) < limit:
                break
            offset, limit = rows[-1].end_offset, ROWS_MAX
            await asyncio.sleep(0)
        start = head.start_offset
        for now in await self._store.log_heads([head.log_id]):
            size_bytes = min(now.size_bytes, walked_bytes) if is_all else now.size_bytes
            excess_bytes = size_bytes - size_bytes_max
            start = max((end for end, gone_bytes in ends if gone_bytes <= excess_bytes), default=start)
        return start, len(ends) < WALKED_ROWS_MAX
