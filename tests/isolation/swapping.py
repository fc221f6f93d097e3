"""What the tests of swaps and of the ends of segments share: extents to swap, a look at a log, a fault to plant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from tests.isolation.conftest import InWorld
from tests.isolation.stepper import Outcome
from tests.isolation.world import World, without_lock
from tests.unit.metadata.life_support import HOLDER, merged
from tests.unit.metadata.support import batch, segment
from warp.ids import LogId
from warp.metadata import commits, life_logs, quarantine, records, swaps
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, SegmentState, SwapResult
from warp.metadata.store import MetadataStore

Explored = InWorld[list[Outcome]]
Scenario = Callable[[World], Awaitable[list[Outcome]]]

QUIET = frozenset({"begin", "share_leases", "segments_of_keys", "insert_extents", "forget_quarantined"})
"""What nobody needs to stop before: it locks nothing that others want, or directly follows what does."""

CATALOGUE = frozenset({"lock_catalogue", "find_topics", "remember_deleted_logs", "delete_configs", "delete_topics",
    "remember_deleted_topics", "set_catalogue_version", "forget_deleted_topics"})  # fmt: skip
"""Of DeleteTopics, all but what it does to logs."""
CLEARING = frozenset({"lock_deleted_logs", "producers_of_deleted_logs", "forget_deleted_logs"})
"""Of the clearing of deleted logs, all but what it does to extents."""


def without_locks_of_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a fault: nobody locks a log."""
    unlocked = without_lock(commits.LOCK_LOGS)
    for module in (commits, swaps, life_logs, records, quarantine):
        monkeypatch.setattr(module, "LOCK_LOGS", unlocked)


def is_found(in_world: Explored, scenario: Scenario) -> None:
    with pytest.raises(AssertionError, match="after these steps"):
        in_world(scenario)


async def filled(world: World, *logs: LogId, extents: int = 3) -> list[IndexRow]:
    """Append extents of 10 offsets and 100 bytes to logs, in one segment each time; all of them."""
    for number in range(extents):
        batches = [
            batch(log, place * 100, count=10, max_timestamp_ms=number) for place, log in enumerate(logs)
        ]
        await world.commit(segment(world.ids.segment_key(), *batches))
    return [row for log in logs for row in await world.store.extents_of_log(log, 0, 100)]


async def leased(world: World) -> Lease:
    [lease] = await world.store.take_leases([world.ids.segment_key()], HOLDER)
    return lease


async def tiling(world: World, log: LogId) -> list[tuple[int, int, str]]:
    """A log's extents as (base, end, key), which tile it; its size adds up, and no extent lies in a dead segment."""
    rows = await world.rows(
        "select e.base_offset, e.end_offset, s.key, e.size_bytes, s.state, e.prefix_max_timestamp_ms"
        " from extents e join segments s on s.segment_id = e.segment_id where e.log_id = $1 order by e.end_offset",
        log,
    )
    [(start, end, size_bytes)] = await world.rows(
        "select start_offset, next_offset, size_bytes from logs where log_id = $1", log
    )
    bases = [row[0] for row in rows]
    assert bases[1:] == [row[1] for row in rows[:-1]], rows
    assert (rows[-1][1] if rows else start) == end, (rows, end)
    assert bases[:1] <= [start], (rows, start)
    assert size_bytes == sum(row[3] for row in rows), (rows, size_bytes)
    assert {row[4] for row in rows} <= {SegmentState.LIVE}, rows
    prefixes = [row[5] for row in rows]
    assert prefixes == sorted(prefixes)
    return [(row[0], row[1], row[2]) for row in rows]


def swapping(
    key: str, rows: Iterable[IndexRow], **options: Any
) -> Callable[[MetadataStore], Awaitable[SwapResult]]:
    change = merged(key, rows, **options)
    return lambda store: store.swap(None, change)


def swapped(outcome: Outcome, name: str) -> set[LogId]:
    answer = outcome.answers[name]
    assert isinstance(answer, SwapResult), answer
    return set(answer.swapped)
