"""Short ways to write what jobs ask of a metadata store, and to look at what has come of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from tests.unit.metadata.support import NOW_MS, Store
from warp.ids import BrokerId, LogId
from warp.metadata.group_model import Lease
from warp.metadata.life_model import IndexRow, NewExtent, NewSegment, SegmentState, Swap

HOLDER = BrokerId(1)


def taken(store: Store, name: str = "job") -> Lease:
    """A lease, taken."""
    [lease] = store.take_leases([name], HOLDER)
    assert isinstance(lease, Lease)
    return lease


def rows_of(store: Store, *logs: LogId) -> list[IndexRow]:
    """All extents of logs, as jobs read them."""
    return [row for log in logs for row in store.extents_of_log(log, -1, 1_000)]


def merged(
    key: str, rows: Iterable[IndexRow], *, level: int = 1, shrunk_bytes: int = 0, clean: dict[LogId, int] | None = None
) -> Swap:  # fmt: skip
    """A swap that makes one extent of every run of rows, so many bytes smaller than they were."""
    ordered = sorted(rows, key=lambda row: (row.log_id, row.end_offset))
    runs: list[list[IndexRow]] = []
    for row in ordered:
        last = runs[-1][-1] if runs else None
        if last is not None and (last.log_id, last.end_offset) == (row.log_id, row.base_offset):
            runs[-1].append(row)
        else:
            runs.append([row])
    added: list[NewExtent] = []
    position = 0
    for run in runs:
        size_bytes = sum(row.size_bytes for row in run) - shrunk_bytes
        largest_ms = max(row.max_timestamp_ms for row in run)
        first, last = run[0], run[-1]
        added.append(
            NewExtent(first.log_id, first.base_offset, last.end_offset, 0, position, size_bytes, largest_ms)
        )
        position += size_bytes
    return Swap([NewSegment(key, position, level, NOW_MS)], ordered, added, clean or {})


def index_of(store: Store, log: LogId) -> list[tuple[Any, ...]]:
    """A log's extents: base, end, key, position, size, largest timestamp, and the largest up to there.

    They tile up to the next offset, and the prefix maxima never fall and are no smaller than what they stand for.
    """
    rows = store.rows(
        "select e.base_offset, e.end_offset, s.key, e.position, e.size_bytes, e.max_timestamp_ms,"
        " e.prefix_max_timestamp_ms from extents e left join segments s on s.segment_id = e.segment_id"
        " where e.log_id = $1 order by e.end_offset",
        log,
    )
    largest_ms = -1
    for (_, end, *_), (base, *_) in pairwise(rows):
        assert base == end, rows
    for *_, timestamp_ms, prefix_ms in rows:
        assert prefix_ms >= max(largest_ms, timestamp_ms), rows
        largest_ms = prefix_ms
    found = store.rows("select start_offset, next_offset, size_bytes from logs where log_id = $1", log)
    if found:
        [(start, end, size_bytes)] = found
        assert size_bytes == sum(row[4] for row in rows), "the size adds up"
        assert (rows[-1][1] == end and rows[0][0] <= start) if rows else start == end, rows
    return rows


def spans(store: Store, log: LogId) -> list[tuple[int, int, str]]:
    """A log's extents: base, end, key."""
    return [row[:3] for row in index_of(store, log)]


def states(store: Store) -> dict[str, SegmentState]:
    """All segments' states, by key."""
    return {key: SegmentState(state) for key, state in store.rows("select key, state from segments")}


def keys_of(rows: Sequence[IndexRow]) -> list[str]:
    return [row.key for row in rows]
