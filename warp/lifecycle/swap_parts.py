"""Cuts the swap of a merged segment into parts of few rows, each a transaction of its own.

SQLite runs on the event loop under one lock, and a commit of records waits for both: a swap of 1,500 rows held it for
10 to 20 ms. What has to change together is what belongs to one log, so a part holds whole logs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from warp.ids import LogId
from warp.metadata.life_model import IndexRow, NewExtent, Swap

ROWS_PER_SWAP = 100
"""Removed and added together, of several logs; those of a single log are never parted. Each takes SQLite
about 10 µs."""


def swap_parts(change: Swap, rows_max: int = ROWS_PER_SWAP) -> Iterator[Swap]:
    """The same swap in parts, by log id, none of them begun.

    What brings several segments stays in one part: a live segment without extents would die before its own part comes.
    """
    if len(change.segments) != 1 or len(change.removed) + len(change.added) <= rows_max:
        yield change
        return
    removed: dict[LogId, list[IndexRow]] = defaultdict(list)
    added: dict[LogId, list[NewExtent]] = defaultdict(list)
    for row in change.removed:
        removed[row.log_id].append(row)
    for extent in change.added:
        added[extent.log_id].append(extent)
    part: list[LogId] = []
    rows = 0
    for log_id in sorted({*removed, *added, *change.clean_offsets}):
        rows_of_log = len(removed[log_id]) + len(added[log_id])
        if part and rows + rows_of_log > rows_max:
            yield _part(change, part, removed, added)
            part, rows = [], 0
        part.append(log_id)
        rows += rows_of_log
    yield _part(change, part, removed, added)


def _part(
    change: Swap,
    logs: Sequence[LogId],
    removed: Mapping[LogId, list[IndexRow]],
    added: Mapping[LogId, list[NewExtent]],
) -> Swap:
    clean = change.clean_offsets
    return replace(
        change,
        removed=[row for log_id in logs for row in removed[log_id]],
        added=[extent for log_id in logs for extent in added[log_id]],
        clean_offsets={log_id: clean[log_id] for log_id in logs if log_id in clean},
    )
