"""The segments: rows that make sense, footers that agree with the index, and on demand every byte that it refers to.

Objects are looked at after the snapshot that told of them. So what is wrong with one is looked at again, with the rows
as they are by then: in between its extents may have gone elsewhere, and the object after them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.lifecycle.fsck_batches import BadBytes, check_batches
from warp.lifecycle.fsck_report import REPAIR, RESTORE, Finding, Kind, Progress, Repair, RepairKind, Report
from warp.log.segment import SegmentExtent, SegmentFormatError, SegmentIndex, check_magic, parse_index
from warp.metadata.fsck_model import PlacedExtent, SegmentFacts
from warp.metadata.fsck_store import FsckStore, Totals
from warp.metadata.life_model import SegmentState
from warp.objectstore.base import Buffer, ObjectStore

READS_AT_A_TIME = 8
TAIL_BYTES = 64 * 1024
READ_BYTES_MAX = 8 * 2**20
"""Extents side by side are read together up to this size; a larger one alone."""
MAGIC_BYTES = 8
MISSING = "its object is not there: what the index says is in it can't be read"


class SegmentCheck:
    """Looks at all segments. `is_deep` reads what the index refers to, and not footers alone."""

    def __init__(
        self, report: Report, store: FsckStore, objects: ObjectStore, progress: Progress, *, is_deep: bool
    ) -> None:
        self._report = report
        self._store = store
        self._objects = objects
        self._progress = progress
        self._is_deep = is_deep
        self._turns = asyncio.Semaphore(READS_AT_A_TIME)

    async def run(self, totals: Totals) -> None:
        """Look at all segments that there were, by id. Raises MetadataError."""
        after_id = done = 0
        while True:
            page = await self._store.segments(after_id, totals.last_segment_id, with_extents=True)
            if not page.segments:
                return
            after_id = page.segments[-1].segment_id
            live = [segment for segment in page.segments if segment.state == SegmentState.LIVE]
            self._report.counts["live segments without extents"] += sum(
                not page.extents[s.segment_id] for s in live
            )
            found = await asyncio.gather(
                *(self._look(segment, page.extents[segment.segment_id]) for segment in live)
            )
            for findings in found:
                for finding in findings:
                    self._report.add(finding)
            done += len(live)
            self._progress("segments", done, totals.segments)

    async def _look(self, segment: SegmentFacts, extents: Sequence[PlacedExtent]) -> Sequence[Finding]:
        """What is wrong with a live segment and what the index says is in it; looked at twice if anything is."""
        async with self._turns:
            findings = await self._examine(segment, extents)
            if not findings:
                return findings
            again = await self._store.segments_of([segment.key], with_extents=True)
            if not again.segments or again.segments[0].state != SegmentState.LIVE:
                return []
            return await self._examine(again.segments[0], again.extents[again.segments[0].segment_id])

    async def _examine(self, segment: SegmentFacts, extents: Sequence[PlacedExtent]) -> Sequence[Finding]:
        findings = [*_overlaps(segment, extents)]
        try:
            index = await read_footer(self._objects, segment)
        except ObjectNotFound:
            missing = Finding(Kind.OBJECT_MISSING, segment.key, MISSING, RESTORE)
            return [*findings, missing, *_quarantined(segment, extents, "its object is not there")]
        except (ShortObject, SegmentFormatError) as error:
            text = f"{error}; the index has {len(extents)} extents in it"
            damaged = Finding(Kind.OBJECT_DAMAGED, segment.key, text, RESTORE)
            return [*findings, damaged, *_quarantined(segment, extents, str(error))]
        except ObjectStoreError as error:
            return [*findings, unread(segment.key, error)]
        if index.level != segment.level:
            text = f"its footer says level {index.level}, its row {segment.level}"
            findings.append(Finding(Kind.OBJECT_DAMAGED, segment.key, text, RESTORE))
        findings += _disagreements(segment, index, extents)
        # Reading is what tells whether the bytes are good again.
        wanted = (
            extents if self._is_deep else [extent for extent in extents if extent.quarantined is not None]
        )
        inside = [extent for extent in wanted if 0 <= extent.position < _end(extent) <= segment.size_bytes]
        return [*findings, *await self._read(segment, inside)]

    async def _read(self, segment: SegmentFacts, extents: Sequence[PlacedExtent]) -> list[Finding]:
        findings: list[Finding] = []
        for group in side_by_side(extents):
            start = group[0].position
            try:
                data = await self._objects.get(segment.key, start, _end(group[-1]) - start)
            except (ObjectNotFound, ShortObject) as error:
                findings.append(Finding(Kind.OBJECT_DAMAGED, segment.key, str(error), RESTORE))
                findings += _quarantined(segment, group, str(error))
                continue
            except ObjectStoreError as error:
                findings.append(unread(segment.key, error))
                continue
            for extent in group:
                piece = memoryview(data)[extent.position - start : _end(extent) - start]
                findings += _bytes_of(segment, extent, piece)
            # Large ones take their time, and others have the loop too.
            await asyncio.sleep(0)
        return findings


async def read_footer(objects: ObjectStore, segment: SegmentFacts) -> SegmentIndex:
    """A segment's footer, by the size that its row tells: mostly two requests.

    Raises SegmentFormatError, and ObjectStoreError as the store does.
    """
    size_bytes = segment.size_bytes
    tail_bytes = max(0, min(TAIL_BYTES, size_bytes))
    tail = await objects.get(segment.key, size_bytes - tail_bytes, tail_bytes)
    found = parse_index(tail, size_bytes)
    if isinstance(found, int):
        found = parse_index(await objects.get(segment.key, size_bytes - found, found), size_bytes)
    assert not isinstance(found, int), "the tail has as many bytes as were asked for"
    check_magic(tail if tail_bytes == size_bytes else await objects.get(segment.key, 0, MAGIC_BYTES))
    return found


def unread(where: str, error: Exception) -> Finding:
    """A store that does not answer says nothing about what is in it."""
    return Finding(
        Kind.UNREAD, where, f"could not be looked at: {error}", "see to the store, then run fsck again"
    )


def side_by_side(extents: Sequence[PlacedExtent]) -> list[list[PlacedExtent]]:
    """Extents in order of their positions, in groups that are read at once."""
    groups: list[list[PlacedExtent]] = []
    for extent in extents:
        group = groups[-1] if groups else []
        if (
            group
            and _end(group[-1]) == extent.position
            and _end(extent) - group[0].position <= READ_BYTES_MAX
        ):
            group.append(extent)
        else:
            groups.append([extent])
    return groups


def _end(extent: PlacedExtent) -> int:
    return extent.position + extent.size_bytes


def _name(extent: PlacedExtent) -> str:
    return f"log {extent.log_id}, offsets {extent.base_offset} to {extent.end_offset - 1}"


def _overlaps(segment: SegmentFacts, extents: Sequence[PlacedExtent]) -> list[Finding]:
    """Bytes that the index gives to two extents."""
    findings = []
    end = 0
    before: PlacedExtent | None = None
    for extent in extents:
        if before is not None and extent.position < end:
            text = f"has bytes of {segment.key} from {extent.position} on that {_name(before)} has too"
            findings.append(Finding(Kind.EXTENT_SHARED, _name(extent), text, RESTORE))
        if before is None or _end(extent) > end:
            before, end = extent, _end(extent)
    return findings


def _disagreements(
    segment: SegmentFacts, index: SegmentIndex, extents: Sequence[PlacedExtent]
) -> list[Finding]:
    """Where the index and the footer do not tell the same."""
    findings = []
    place = 0
    for extent in extents:
        if extent.topic_id is None:
            continue  # told of where the logs are looked at
        while place < len(index.extents) and _footer_end(index.extents[place]) <= extent.position:
            place += 1
        told = index.extents[place] if place < len(index.extents) else None
        text = _disagreement(extent, told, segment.level)
        if text:
            findings.append(Finding(Kind.EXTENT_FOREIGN, _name(extent), f"{text} in {segment.key}", RESTORE))
    return findings


def _disagreement(extent: PlacedExtent, told: SegmentExtent | None, level: int) -> str:
    if told is None or extent.position < told.position or _end(extent) > _footer_end(told):
        return f"its bytes {extent.position} to {_end(extent)} are not those of one extent of the footer"
    if (told.topic_id, told.partition) != (extent.topic_id, extent.partition):
        return f"its bytes belong to {told.topic}-{told.partition} by the footer"
    if level == 0:
        return ""
    if not told.base_offset <= extent.base_offset < extent.end_offset <= told.end_offset:
        return f"its bytes hold offsets {told.base_offset} to {told.end_offset - 1} by the footer"
    is_whole = (extent.position, extent.size_bytes) == (told.position, told.size_bytes)
    if is_whole and (extent.base_offset, extent.end_offset) != (told.base_offset, told.end_offset):
        return f"all of its bytes hold offsets {told.base_offset} to {told.end_offset - 1} by the footer"
    return ""


def _footer_end(told: SegmentExtent) -> int:
    return told.position + told.size_bytes


def _bytes_of(segment: SegmentFacts, extent: PlacedExtent, data: Buffer) -> list[Finding]:
    """Are these the batches that the index tells of?"""
    where = f"{_name(extent)} in {segment.key}"
    problem = bytes_problem(extent, data, is_stamped=segment.level > 0)
    if extent.quarantined is not None:
        if problem:
            return _quarantined(segment, [extent], problem)
        repair = Repair(RepairKind.RELEASE, extent.log_id, extent.end_offset, segment.segment_id)
        return [Finding(Kind.QUARANTINED, where, "is quarantined, and can be read", REPAIR, repair)]
    return [Finding(Kind.EXTENT_BYTES, where, problem, RESTORE)] if problem else []


def _quarantined(segment: SegmentFacts, extents: Sequence[PlacedExtent], problem: str) -> list[Finding]:
    """Those of the extents that are quarantined, and as bad as ever."""
    return [
        Finding(
            Kind.QUARANTINED,
            f"{_name(extent)} in {segment.key}",
            f"was quarantined by a job ({extent.quarantined}), and still: {problem}",
            f"put the object back as it was, then {REPAIR}",
        )
        for extent in extents
        if extent.quarantined is not None
    ]


def bytes_problem(extent: PlacedExtent, data: Buffer, *, is_stamped: bool) -> str:
    """What is wrong with the bytes of an extent; "" when they are what the index says."""
    try:
        walked = check_batches(data, extent.base_offset, is_stamped=is_stamped)
    except BadBytes as bad:
        return str(bad)
    if walked.next_offset != extent.end_offset:
        return f"its batches end at offset {walked.next_offset}"
    if walked.max_timestamp_ms > extent.max_timestamp_ms:
        return (
            f"it holds timestamp {walked.max_timestamp_ms}, above its largest one, {extent.max_timestamp_ms}"
        )
    return ""
