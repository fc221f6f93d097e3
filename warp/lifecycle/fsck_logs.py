"""The logs, as the index tells them: extents that tile each log, sizes that add up, timestamps that are bounded.

All of a log is seen in one snapshot, in which every commit, swap and trim is whole or absent: so what is found here is
wrong however busy the agents are.
"""

from __future__ import annotations

from collections.abc import Callable

from warp.lifecycle.fsck_report import REBUILD, REPAIR, RESTORE, Finding, Kind, Repair, RepairKind, Report
from warp.log.segment import MAGIC, TRAILER_BYTES
from warp.metadata.fsck_model import DeletedLog, ExtentFacts, LogFacts
from warp.metadata.life_model import SegmentState

EXTENTS_PER_CALL = 1000


class LogCheck:
    """Is shown logs and extents in order, and takes down what is wrong with them.

    `looked_at` is called now and then.
    """

    def __init__(self, report: Report, looked_at: Callable[[], None]) -> None:
        self._report = report
        self._looked_at = looked_at
        self._log: LogFacts | None = None
        self._last: ExtentFacts | None = None
        self._size_bytes = 0
        self._prefix_ms = -1
        self._largest_ms = -1
        self._has_bad_prefix = False

    def begin(self, log: LogFacts) -> None:
        """A log, whose extents follow."""
        self._log = log
        self._last = None
        self._size_bytes = 0
        self._prefix_ms = self._largest_ms = -1
        self._has_bad_prefix = False
        self._report.counts["logs"] += 1
        if log.topic is None:
            self._add(Kind.LOG_WITHOUT_TOPIC, "belongs to a topic that is not there", REBUILD)
        elif log.partitions is not None and not 0 <= log.partition < log.partitions:
            self._add(Kind.LOG_WITHOUT_TOPIC, f"its topic has {log.partitions} partitions", REBUILD)
        if not 0 <= log.start_offset <= log.next_offset:
            text = f"starts at offset {log.start_offset} and ends at {log.next_offset}"
            self._add(Kind.LOG_OFFSETS, text, REBUILD)
        if not 0 <= log.clean_offset <= log.next_offset:
            self._add(
                Kind.CLEAN_OFFSET,
                f"counts as compacted up to offset {log.clean_offset}, past its end at {log.next_offset}",
                REPAIR,
                Repair(RepairKind.CLEAN_OFFSET, log.log_id),
            )

    def extent(self, extent: ExtentFacts) -> None:
        """The next extent of the log."""
        self._report.counts["extents"] += 1
        if self._report.counts["extents"] % EXTENTS_PER_CALL == 0:
            self._looked_at()
        self._size_bytes += extent.size_bytes
        where = extent_name(extent)
        check_extent(self._report, extent)
        self._tiles(extent, where)
        self._largest_ms = max(self._largest_ms, extent.max_timestamp_ms)
        if (
            extent.prefix_max_timestamp_ms < max(self._prefix_ms, self._largest_ms)
            and not self._has_bad_prefix
        ):
            self._has_bad_prefix = True
            text = (
                f"the largest timestamp up to it is {max(self._prefix_ms, self._largest_ms)}, and the index says "
                f"{extent.prefix_max_timestamp_ms}: times are not found"
            )
            repair = Repair(RepairKind.PREFIX, extent.log_id)
            self._report.add(Finding(Kind.EXTENT_PREFIX, where, text, REPAIR, repair))
        self._prefix_ms = max(self._prefix_ms, extent.prefix_max_timestamp_ms)
        self._last = extent

    def end(self) -> None:
        """The log has no more extents."""
        log, last = self._log, self._last
        assert log is not None, "a log ends after it began"
        if last is None:
            if log.start_offset < log.next_offset:
                text = f"has no extent for its offsets {log.start_offset} to {log.next_offset - 1}"
                self._add(Kind.EXTENT_GAP, text, RESTORE)
        elif last.end_offset < log.next_offset:
            text = f"has no extent for its offsets {last.end_offset} to {log.next_offset - 1}, its last ones"
            self._add(Kind.EXTENT_GAP, text, RESTORE)
        elif last.end_offset > log.next_offset:
            text = f"ends at offset {log.next_offset}, but an extent of it goes on to {last.end_offset}"
            self._add(Kind.LOG_OFFSETS, text, REBUILD)
        if log.size_bytes != self._size_bytes:
            text = f"counts {log.size_bytes} bytes, but its extents have {self._size_bytes}"
            self._add(Kind.LOG_SIZE, text, REPAIR, Repair(RepairKind.LOG_SIZE, log.log_id))
        self._is_bounded(log)
        self._log = None

    def stray(self, extent: ExtentFacts, deleted: DeletedLog | None) -> None:
        """An extent of no log. Those of deleted topics are to be removed, and have nothing to tile."""
        if deleted is not None:
            self._report.counts["extents of deleted topics"] += 1
            check_extent(self._report, extent)
            return
        text = "its log is neither among the logs nor among the deleted ones; its segment stays for good"
        self._report.add(Finding(Kind.EXTENT_WITHOUT_LOG, extent_name(extent), text, REBUILD))

    def _tiles(self, extent: ExtentFacts, where: str) -> None:
        log = self._log
        assert log is not None, "extents come after their log"
        if self._last is None:
            # What ends at or below the start is to be trimmed.
            if extent.base_offset > log.start_offset:
                text = f"has no extent for its offsets {log.start_offset} to {extent.base_offset - 1}, its first ones"
                self._add(Kind.EXTENT_GAP, text, RESTORE)
            return
        end = self._last.end_offset
        if extent.base_offset > end:
            text = f"has no extent for its offsets {end} to {extent.base_offset - 1}"
            self._add(Kind.EXTENT_GAP, text, RESTORE)
        elif extent.base_offset < end:
            text = f"holds offsets that the extent before it holds too, which ends at {end}"
            self._report.add(Finding(Kind.EXTENT_OVERLAP, where, text, RESTORE))

    def _is_bounded(self, log: LogFacts) -> None:
        """The log's largest timestamp bounds all: the next commit goes on from it."""
        if log.max_timestamp_ms < self._largest_ms:
            text = f"says that its largest timestamp is {log.max_timestamp_ms}, but an extent has {self._largest_ms}"
            self._add(Kind.LOG_MAXIMUM, text, REPAIR, Repair(RepairKind.LOG_MAXIMUM, log.log_id))
        elif log.max_timestamp_ms < self._prefix_ms and not self._has_bad_prefix:
            text = f"its largest timestamp is {log.max_timestamp_ms}, but its extents say up to {self._prefix_ms}"
            self._add(Kind.EXTENT_PREFIX, text, REPAIR, Repair(RepairKind.PREFIX, log.log_id))

    def _add(self, kind: Kind, text: str, remedy: str, repair: Repair | None = None) -> None:
        assert self._log is not None, "called while a log is shown"
        self._report.add(Finding(kind, log_name(self._log), text, remedy, repair))


def check_extent(report: Report, extent: ExtentFacts) -> None:
    """What an extent has to fulfil by itself and with its segment."""
    where = extent_name(extent)

    def add(kind: Kind, text: str, remedy: str = RESTORE) -> None:
        report.add(Finding(kind, where, text, remedy))

    if not 0 <= extent.base_offset < extent.end_offset:
        add(Kind.EXTENT_RANGE, f"holds offsets {extent.base_offset} to {extent.end_offset - 1}")
    if extent.segment_id is None:
        if extent.payload_bytes < 0 or extent.payload_bytes != extent.size_bytes:
            add(
                Kind.EXTENT_OUTSIDE,
                f"is in no segment, and has {max(extent.payload_bytes, 0)} bytes of its own",
            )
        return
    if extent.key is None or extent.segment_bytes is None:
        add(Kind.EXTENT_WITHOUT_SEGMENT, f"lies in segment {extent.segment_id}, of which there is no row")
        return
    if extent.state != SegmentState.LIVE:
        text = f"lies in segment {extent.key}, which counts as dead: its object will be, or is, deleted"
        add(Kind.EXTENT_IN_DEAD_SEGMENT, text, f"stop all agents, so that nothing more is deleted; {RESTORE}")
    end = extent.position + extent.size_bytes
    if extent.size_bytes <= 0 or extent.position < len(MAGIC) or end > extent.segment_bytes - TRAILER_BYTES:
        text = f"lies at bytes {extent.position} to {end} of {extent.key}, which has {extent.segment_bytes}"
        add(Kind.EXTENT_OUTSIDE, text)


def log_name(log: LogFacts) -> str:
    """For people: `orders-3 (log 17)`."""
    topic = log.topic if log.topic is not None else f"topic {log.topic_id.hex()}"
    return f"{topic}-{log.partition} (log {log.log_id})"


def extent_name(extent: ExtentFacts) -> str:
    """For people: `log 17, offsets 5 to 9`."""
    return f"log {extent.log_id}, offsets {extent.base_offset} to {extent.end_offset - 1}"
