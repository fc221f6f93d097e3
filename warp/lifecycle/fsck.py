"""Proves that metadata and object store agree: that what is referenced is there, and what is there is accounted for.

It runs beside agents at work, and changes nothing. The index is judged by what one snapshot shows, where every commit
and swap is whole or absent; objects are looked at later than the rows that tell of them, so whatever seems wrong with
one is looked at again, with the rows as they are by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from warp.clock import Clock
from warp.errors import ObjectStoreError
from warp.ids import LogId
from warp.lifecycle.epoch import EpochRefused, known_newest_epoch
from warp.lifecycle.fsck_logs import LogCheck
from warp.lifecycle.fsck_objects import ObjectCheck
from warp.lifecycle.fsck_report import Finding, Kind, Progress, Report, no_progress
from warp.lifecycle.fsck_rows import RowCheck
from warp.lifecycle.fsck_segments import SegmentCheck, unread
from warp.metadata.fsck_store import FsckStore
from warp.objectstore.base import ObjectStore

ORPHAN_AGE_MS: Final = 3_600_000
BEFORE_ALL_LOGS: Final = LogId(-(2**63))


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is looked at. `reads_footers`: of every segment; `is_deep`: and every byte that the index refers to."""

    reads_footers: bool = True
    is_deep: bool = False


QUICK: Final = Scope(reads_footers=False)
NORMAL: Final = Scope()
DEEP: Final = Scope(is_deep=True)


async def check(
    store: FsckStore,
    objects: ObjectStore,
    clock: Clock,
    *,
    scope: Scope = NORMAL,
    orphan_age_ms: int = ORPHAN_AGE_MS,
    progress: Progress = no_progress,
) -> Report:
    """Look at everything, and change nothing. `report.is_clean` tells whether all is well.

    Objects that no row names count as orphans from `orphan_age_ms` on; they are no finding, since a job deletes them.
    Raises MetadataError when the metadata can't be read. An object store that does not answer is a finding.
    """
    report = Report()
    totals = await store.totals()

    def looked_at() -> None:
        progress("logs", report.counts["logs"], totals.logs)

    logs = LogCheck(report, looked_at)
    after: LogId | None = BEFORE_ALL_LOGS
    while after is not None:
        looked_at()
        after = await store.walk_logs(after, logs)
    reads_footers = scope.reads_footers or scope.is_deep
    await RowCheck(report, store, progress, reads_footers=reads_footers, is_deep=scope.is_deep).run()
    await _check_epoch(report, store, objects)
    listing = ObjectCheck(report, store, objects, clock, progress, orphan_age_ms=orphan_age_ms)
    try:
        await listing.run(totals)
    except ObjectStoreError as error:
        report.add(unread("the object store", error))
        return report
    if reads_footers:
        await SegmentCheck(report, store, objects, progress, is_deep=scope.is_deep).run(totals)
    return report


async def _check_epoch(report: Report, store: FsckStore, objects: ObjectStore) -> None:
    try:
        try:
            await known_newest_epoch(objects, store)
        except EpochRefused:
            # The first one of all may have been taken between the two looks.
            await known_newest_epoch(objects, store)
    except EpochRefused as refused:
        remedy = "use the metadata that belong to this bucket; after an older database was put back, run `warp restore`"
        report.add(Finding(Kind.EPOCH, "epoch/", str(refused), remedy))
    except ObjectStoreError as error:
        report.add(unread("epoch/", error))
