"""The rows beside the index: what is quarantined, producers, committed offsets, topics, and what each refers to."""

from __future__ import annotations

import struct

from warp.ids import LogId, ProducerId, TopicId
from warp.lifecycle.fsck_batches import BadBytes, check_batches
from warp.lifecycle.fsck_report import (
    REBUILD,
    REPAIR,
    RESTORE,
    Finding,
    Kind,
    Progress,
    Repair,
    RepairKind,
    Report,
)
from warp.metadata.commit import unpack_batches
from warp.metadata.fsck_model import ProducerFacts, QuarantinedFacts
from warp.metadata.fsck_store import FsckStore

_BEFORE_ALL = -(2**63)


class RowCheck:
    """Looks at all of these tables. Raises MetadataError."""

    def __init__(
        self, report: Report, store: FsckStore, progress: Progress, *, reads_footers: bool, is_deep: bool
    ) -> None:
        self._report = report
        self._store = store
        self._progress = progress
        self._reads_footers = reads_footers
        self._is_deep = is_deep

    async def run(self) -> None:
        """Table by table."""
        await self._topics()
        await self._quarantined()
        await self._producers()
        await self._group_offsets()
        for group_number, members in await self._store.members_without_group():
            text = f"has {members} members, but there is no such group"
            remedy = "harmless: nobody reads them"
            self._report.add(Finding(Kind.MEMBER_WITHOUT_GROUP, f"group number {group_number}", text, remedy))
        for log_id in await self._store.undead_logs():
            text = "is there, and counts as deleted: jobs will delete its data"
            remedy = f"stop all agents; {RESTORE}"
            self._report.add(Finding(Kind.LOG_UNDEAD, f"log {log_id}", text, remedy))
        if self._is_deep:
            await self._payloads()

    async def _topics(self) -> None:
        after = TopicId(b"")
        while page := await self._store.topics(after):
            after = page[-1].topic_id
            for topic in page:
                self._report.counts["topics"] += 1
                if topic.logs < topic.partitions:
                    text = f"has {topic.partitions} partitions, and {topic.logs} logs"
                    self._report.add(Finding(Kind.LOG_MISSING, f"topic {topic.name}", text, REBUILD))

    async def _quarantined(self) -> None:
        after = (LogId(_BEFORE_ALL), _BEFORE_ALL)
        while page := await self._store.quarantined(after):
            after = (page[-1].log_id, page[-1].end_offset)
            for row in page:
                self._of_quarantined(row)

    def _of_quarantined(self, row: QuarantinedFacts) -> None:
        if row.base_offset is None or row.extent_segment_id != row.segment_id:
            where = f"log {row.log_id}, offsets up to {row.end_offset - 1}"
            text = "is quarantined, but is not in the index any more"
            repair = Repair(RepairKind.RELEASE, row.log_id, row.end_offset, row.segment_id)
            self._report.add(Finding(Kind.QUARANTINE_STALE, where, text, REPAIR, repair))
            return
        self._report.counts["quarantined extents"] += 1
        if self._reads_footers:
            return  # told of where its bytes are looked at
        where = f"log {row.log_id}, offsets {row.base_offset} to {row.end_offset - 1} in {row.key}"
        text = f"was quarantined by a job: {row.reason}"
        remedy = f"run fsck without --quick, which tells whether it can be read; {RESTORE}"
        self._report.add(Finding(Kind.QUARANTINED, where, text, remedy))

    async def _producers(self) -> None:
        after = (LogId(_BEFORE_ALL), ProducerId(_BEFORE_ALL))
        while page := await self._store.producers(after):
            after = (page[-1].log_id, page[-1].producer_id)
            for row in page:
                self._report.counts["producers"] += 1
                self._of_producer(row)
            self._progress("producers", self._report.counts["producers"], None)

    def _of_producer(self, row: ProducerFacts) -> None:
        where = f"producer {row.producer_id} of log {row.log_id}"
        if row.next_offset is None and not row.is_log_deleted:
            repair = Repair(RepairKind.PRODUCER, row.log_id, row.producer_id)
            text = "is of a log that is nowhere"
            self._report.add(Finding(Kind.PRODUCER_WITHOUT_LOG, where, text, REPAIR, repair))
            return
        try:
            batches = unpack_batches(row.batches)
        except struct.error:
            text, remedy = "its last batches can't be read: commits into its log fail", RESTORE
            self._report.add(Finding(Kind.PRODUCER_STATE, where, text, remedy))
            return
        if row.next_offset is not None and any(batch.base_offset >= row.next_offset for batch in batches):
            text = f"has written offset {batches[-1].base_offset}, but its log ends at {row.next_offset}"
            self._report.add(Finding(Kind.PRODUCER_STATE, where, text, REBUILD))

    async def _group_offsets(self) -> None:
        after = (_BEFORE_ALL, LogId(_BEFORE_ALL))
        while page := await self._store.group_offsets(after):
            after = (page[-1].group_number, page[-1].log_id)
            for row in page:
                self._report.counts["committed offsets"] += 1
                if row.group_id is None or row.found_log_id is None:
                    # Of a group or a topic that was deleted: nobody's, and a job removes them.
                    self._report.counts["committed offsets to be removed"] += 1
            self._progress("committed offsets", self._report.counts["committed offsets"], None)

    async def _payloads(self) -> None:
        after = (LogId(_BEFORE_ALL), _BEFORE_ALL)
        while page := await self._store.payloads(after):
            after = (page[-1].log_id, page[-1].end_offset)
            for row in page:
                self._report.counts["extents in the index"] += 1
                where = f"log {row.log_id}, offsets {row.base_offset} to {row.end_offset - 1}"
                try:
                    walked = check_batches(row.data, row.base_offset, is_stamped=False)
                except BadBytes as bad:
                    self._report.add(Finding(Kind.EXTENT_BYTES, where, str(bad), RESTORE))
                    continue
                if walked.next_offset != row.end_offset:
                    text = f"its batches end at offset {walked.next_offset}"
                    self._report.add(Finding(Kind.EXTENT_BYTES, where, text, RESTORE))
