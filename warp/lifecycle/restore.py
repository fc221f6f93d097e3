"""Puts a database right that is older than its bucket, or makes one out of the bucket alone.

Both are one thing: a rebuild restores an empty database. First the bucket is read and a plan is made; nothing is
changed by that. Then, in an order that bears an end anywhere in between:

1. An epoch is taken that no database knows. Nobody who uses the bucket deletes any more, and no agent starts.
2. One transaction changes the database. Receipts of what has new offsets are written.
3. An epoch is taken that this database knows: from here on agents start.

Whoever is interrupted runs it again: it finds what is done, and does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from warp.errors import ObjectStoreError
from warp.ids import SEGMENT_PREFIX, IdSource
from warp.lifecycle.epoch import EpochTaker, epoch_key, newest_epoch
from warp.lifecycle.rebuild_read import Bucket, BucketReader, FoundSegment, LogKey, found_segment
from warp.lifecycle.restore_plan import Known, Plan, Planner
from warp.log.segment import RECEIPTS_PREFIX, SegmentFormatError, build_segment, read_index
from warp.metadata.restore_model import StoredSegment
from warp.metadata.restore_store import RestoreStore
from warp.metadata.store import MetadataStore
from warp.objectstore.base import ObjectStore

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""

FENCES_MAX = 5


def no_progress(_what: str, _done: int, _total: int) -> None:
    """For whoever does not look."""


async def make_plan(
    objects: ObjectStore, rows: RestoreStore | None, progress: Progress = no_progress
) -> Plan:
    """What there is to do; without `rows`, for a database that has nothing yet.

    Raises ObjectStoreError and MetadataError; changes nothing.
    """
    known = Known() if rows is None else await _read_known(rows)
    keys = known.keys()
    reader = BucketReader(
        objects,
        is_known=keys.__contains__,
        progress=lambda done, total: progress("objects", done, total),
    )
    bucket = await reader.read()
    planner = Planner(
        objects,
        known,
        bucket,
        copied=await _possible_originals(objects, known, bucket),
        progress=lambda done, total: progress("logs", done, total),
    )
    return await planner.plan()


class Restore:
    """Carries out a plan, on a database that no agent uses, and its bucket. Both stores are open."""

    def __init__(
        self,
        objects: ObjectStore,
        metadata: MetadataStore,
        rows: RestoreStore,
        ids: IdSource,
        *,
        is_conditional: bool = True,
    ) -> None:
        self._objects = objects
        self._metadata = metadata
        self._rows = rows
        self._ids = ids
        self._is_conditional = is_conditional

    async def carry_out(self, plan: Plan, now_ms: int, settings: Mapping[str, str] | None = None) -> int:
        """Do it, and set these settings with it; the epoch that was taken.

        Raises ObjectStoreError and MetadataError, also when the database has changed since the plan was made.
        """
        await self._fence()
        plan.restoration.settings = dict(settings or {})
        await self._rows.apply(plan.restoration, now_ms)
        if plan.receipts:
            # So that a rebuild finds these records where they are now.
            key = RECEIPTS_PREFIX + self._ids.segment_key().removeprefix(SEGMENT_PREFIX)
            await self._objects.put(key, build_segment([], created_ms=now_ms, receipts=plan.receipts))
        newest = await newest_epoch(self._objects)
        taker = EpochTaker(self._objects, self._metadata, self._ids, is_conditional=self._is_conditional)
        return await taker.take(0 if newest is None else newest.number)

    async def _fence(self) -> None:
        """Take an epoch whose token is nobody's."""
        body = json.dumps({"token": self._ids.token()}).encode()
        for _ in range(FENCES_MAX):
            newest = await newest_epoch(self._objects)
            key = epoch_key(1 if newest is None else newest.number + 1)
            if not self._is_conditional:
                await self._objects.put(key, [body])
                return
            if await self._objects.create(key, body):
                return
        raise ObjectStoreError("others take epochs all the time: stop all agents that use this bucket")


async def _read_known(rows: RestoreStore) -> Known:
    known = Known(
        topics={topic.topic_id: topic for topic in await rows.topics()},
        deleted_topics=await rows.deleted_topics(),
        segments={segment.segment_id: segment async for segment in rows.segments()},
        logs={LogKey(log.topic_id, log.partition): log async for log in rows.logs()},
    )
    for log in known.logs.values():
        if producers := await rows.producers(log.log_id):
            known.producers[log.log_id] = producers
    async for extent in rows.extents():
        known.extents.setdefault(extent.log_id, []).append(extent)
    return known


async def _possible_originals(objects: ObjectStore, known: Known, bucket: Bucket) -> list[FoundSegment]:
    """Segments of the database that look from outside like one of the bucket that has no receipt."""
    looks = {(segment.created_ms, segment.size_bytes) for segment in bucket.unplaced()}
    return [
        found
        for segment in known.segments.values()
        if segment.level == 0
        and (segment.created_ms, segment.size_bytes) in looks
        and segment.key in bucket.keys
        and (found := await _read(objects, segment)) is not None
    ]


async def _read(objects: ObjectStore, segment: StoredSegment) -> FoundSegment | None:
    try:
        index = await read_index(objects, segment.key)
    except SegmentFormatError:
        return None
    return found_segment(segment.key, segment.size_bytes, index)
