"""Where the data of a partition are, as the metadata tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from warp.cli.inspect.segment import time_text
from warp.cli.tables import table
from warp.errors import StartError
from warp.ids import uuid_text
from warp.metadata.fsck_model import ExtentFacts, LogFacts
from warp.metadata.fsck_store import FsckStore

PAGE_EXTENTS = 1000


class LogView(NamedTuple):
    """A log, and some of its extents. `has_more`: others follow."""

    log: LogFacts
    extents: Sequence[ExtentFacts]
    has_more: bool


async def read_log(store: FsckStore, topic: str, partition: int, start: int | None, limit: int) -> LogView:
    """The log of a partition, with its extents from an offset on. Raises StartError where there is none."""
    log = await store.find_log(topic, partition)
    if log is None:
        raise StartError(f"topic {topic} has no partition {partition}, or there is no such topic")
    extents: list[ExtentFacts] = []
    # Extents that end at `after` hold only what lies before it.
    after = -1 if start is None else start
    while len(extents) <= limit:
        page = await store.extents_of_log(log.log_id, after, PAGE_EXTENTS)
        extents += page
        if len(page) < PAGE_EXTENTS:
            break
        after = page[-1].end_offset
    return LogView(log, extents[:limit], len(extents) > limit)


def human(view: LogView) -> str:
    """Lines for people."""
    log = view.log
    lines = [
        f"{log.topic}-{log.partition}: log {log.log_id}, topic id {uuid_text(log.topic_id)}, offsets "
        f"{log.start_offset}..{log.next_offset - 1}, {log.size_bytes:,} bytes, up to {time_text(log.max_timestamp_ms)}"
        + (f", compacted up to offset {log.clean_offset}" if log.clean_offset else "")
    ]
    if view.extents:
        header = ("OFFSETS", "BYTES", "MAX TIME", "LEVEL", "POSITION", "SEALED", "SEGMENT")
        lines += ["", table(header, [_cells(extent) for extent in view.extents])]
    if view.has_more:
        lines.append(f"... and more, from offset {view.extents[-1].end_offset}")
    return "\n".join(lines)


def _cells(extent: ExtentFacts) -> Sequence[str]:
    return (
        f"{extent.base_offset}..{extent.end_offset - 1}",
        str(extent.size_bytes),
        time_text(extent.max_timestamp_ms),
        "-" if extent.level is None else str(extent.level),
        str(extent.position),
        time_text(extent.created_ms),
        extent.key or ("in the index" if extent.segment_id is None else f"no segment {extent.segment_id}"),
    )


def as_json(view: LogView) -> dict[str, Any]:
    """One object; docs/fsck.md names its fields."""
    return view.log._asdict() | {
        "topic_id": uuid_text(view.log.topic_id),
        "extents": [extent._asdict() for extent in view.extents],
        "has_more": view.has_more,
    }
