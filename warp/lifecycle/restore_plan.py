"""Plans what a database lacks of its bucket, and what it has that the bucket lacks. Changes nothing.

The rule for offsets, per log. *Known* are those in the database, those that receipts tell, and those in footers of
level 1 and above; E is the end of all of them. Segments without any of that (their agent died before it wrote the
receipt) may have been committed at E or above, each at most once; so no offset from E plus the number of all their
records on was ever given out, and there they are appended anew. What lies between is a hole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from warp.errors import ObjectNotFound, ShortObject
from warp.ids import LogId, TopicId
from warp.lifecycle.rebuild_plan import (
    Batch,
    Hole,
    ProducerStates,
    Tiling,
    empty_batches,
    extents_of,
    is_known,
    read_batches,
    tile,
)
from warp.lifecycle.rebuild_read import (
    KNOWN_LEVEL,
    Bucket,
    Candidate,
    FoundSegment,
    LogKey,
    at_once,
    partitions_of,
)
from warp.log.segment import Receipt, ReceiptRun, SegmentExtent
from warp.metadata.commit import pack_batches, unpack_batches
from warp.metadata.life_model import SegmentState
from warp.metadata.restore_model import (
    Restoration,
    RestoredExtent,
    RestoredLog,
    RestoredSegment,
    StoredExtent,
    StoredLog,
    StoredProducer,
    StoredSegment,
    StoredTopic,
)
from warp.metadata.topics import collision_name
from warp.objectstore.base import ObjectStore

RECENT_MS = 15 * 60_000
"""Before the newest segment of bucket and database. No segment is committed later than that after its seal."""
HOLE_TIMESTAMP_MS = 0
TAIL_GONE_OFFSETS = 1_000_000
"""Added to the next offset of a log whose newest data the bucket has no more: deleted since, with what came after."""


@dataclass
class Known:
    """What the database holds. Empty for a rebuild."""

    topics: dict[TopicId, StoredTopic] = field(default_factory=dict)
    deleted_topics: set[TopicId] = field(default_factory=set)
    segments: dict[int, StoredSegment] = field(default_factory=dict)
    logs: dict[LogKey, StoredLog] = field(default_factory=dict)
    extents: dict[LogId, list[StoredExtent]] = field(default_factory=dict)
    producers: dict[LogId, list[StoredProducer]] = field(default_factory=dict)

    def keys(self) -> set[str]:
        """Of all segments, in any state."""
        return {segment.key for segment in self.segments.values()}


@dataclass
class Counts:
    """What a plan comes to, for people. Offsets where nothing else is said."""

    topics_new: list[str] = field(default_factory=list)
    topics_renamed: dict[str, str] = field(default_factory=dict)
    """Topics whose name another one has: as they were called, and as they are."""
    topics_grown: list[str] = field(default_factory=list)
    logs: int = 0
    kept: int = 0
    """At their own offsets, newly known to the database."""
    moved: int = 0
    """Records whose receipts were lost, at new offsets."""
    repeated: int = 0
    """Records without receipts that are there already: merged, or sent twice by their producers."""
    reserved: int = 0
    """Skipped, because they may have been given out."""
    lost: int = 0
    """Known once, of which no record is left."""
    started_later: int = 0
    """Before the new start of their log: their data had been deleted since."""
    segments: int = 0
    segments_left: int = 0
    """Without receipts, and too old to be appended: most likely never committed."""
    extents_gone: int = 0
    """Of the database, whose objects are gone."""
    logs_without_tail: int = 0
    batches_damaged: int = 0


@dataclass
class Plan:
    """What to change, and what it comes to."""

    restoration: Restoration
    counts: Counts
    bucket: Bucket
    receipts: list[Receipt] = field(default_factory=list)
    """Of segments that had none, at the offsets that they get now."""

    @property
    def is_empty(self) -> bool:
        """Does the database already say all that the bucket does?"""
        found = self.restoration
        return not (
            found.segments or found.gone_segments or found.logs or found.new_topics or found.grown_topics
        )


class Planner:
    """Makes a plan out of what the database knows and what the bucket holds. Reads headers where it has to.

    `copied` are segments of the database that others of the bucket may be copies of. `progress(done, total)` is called
    after each log.
    """

    def __init__(
        self,
        objects: ObjectStore,
        known: Known,
        bucket: Bucket,
        *,
        copied: Iterable[FoundSegment] = (),
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._objects = objects
        self._known = known
        self._bucket = bucket
        self._progress = progress
        self._counts = Counts()
        self._restoration = Restoration()
        self._known_ms = max((segment.created_ms for segment in known.segments.values()), default=-1)
        self._recent_ms = max(self._known_ms, bucket.newest_ms) - RECENT_MS
        self._moved: dict[str, list[ReceiptRun]] = {}
        self._unplaced: dict[LogKey, list[tuple[FoundSegment, SegmentExtent]]] = {}
        for segment in bucket.unplaced(copied):
            for extent in segment.extents:
                log = LogKey(extent.topic_id, extent.partition)
                self._unplaced.setdefault(log, []).append((segment, extent))

    async def plan(self) -> Plan:
        """Raises ObjectStoreError when bytes can't be read for another reason than that they are damaged."""
        self._plan_topics()
        placed = self._bucket.placed()
        wanted = dict.fromkeys([*self._known.logs, *placed, *self._unplaced])
        logs = [log for log in partitions_of(wanted) if log.topic_id not in self._known.deleted_topics]
        found: dict[LogKey, RestoredLog] = {}
        todo = iter(logs)

        async def work() -> None:
            for log in todo:
                planned = await self._plan_log(log, placed.get(log, ()))
                if planned is not None:
                    found[log] = planned
                self._progress(len(found), len(logs))

        await at_once(work)
        self._restoration.logs = [found[log] for log in logs if log in found]
        self._leave_empty_topics()
        self._plan_segments()
        self._bury_segments()
        self._counts.logs = len(self._restoration.logs)
        receipts = [Receipt(key, runs) for key, runs in sorted(self._moved.items())]
        return Plan(self._restoration, self._counts, self._bucket, receipts)

    def _plan_topics(self) -> None:
        """Topics that the database lacks, and those that have more partitions than it knows."""
        taken = {topic.collision_name for topic in self._known.topics.values()}
        grown: dict[TopicId, int] = {}
        found = self._bucket.topics()
        # Of several of one name the one that was written last gets it: the others were deleted, most likely.
        for topic_id, (name, partitions, _) in sorted(found.items(), key=lambda item: (-item[1][2], item[0])):
            topic = self._known.topics.get(topic_id)
            if topic_id in self._known.deleted_topics:
                continue
            if topic is not None:
                if partitions > topic.partitions:
                    grown[topic_id] = partitions
                    self._counts.topics_grown.append(topic.name)
                continue
            own = name
            if collision_name(own) in taken:
                own = f"{name[:200]}-restored-{topic_id.hex()[:12]}"
                self._counts.topics_renamed[name] = own
            taken.add(collision_name(own))
            self._restoration.new_topics.append(StoredTopic(topic_id, own, collision_name(own), partitions))
        self._restoration.grown_topics = grown

    def _leave_empty_topics(self) -> None:
        """Topics of which there is nothing but segments that were never committed are none."""
        restoration, counts = self._restoration, self._counts
        topics = {log.topic_id for log in restoration.logs if log.added} | self._known.topics.keys()
        restoration.logs = [log for log in restoration.logs if log.topic_id in topics]
        restoration.new_topics = [topic for topic in restoration.new_topics if topic.topic_id in topics]
        counts.topics_new = [topic.name for topic in restoration.new_topics]
        counts.topics_renamed = {
            name: own for name, own in counts.topics_renamed.items() if own in counts.topics_new
        }

    def _bury_segments(self) -> None:
        """Segments of the database whose objects are gone, and what deleted topics had in them."""
        buried = {
            segment_id
            for segment_id, segment in self._known.segments.items()
            if segment.state == SegmentState.LIVE and segment.key not in self._bucket.keys
        }
        alive = {log.log_id for log in self._known.logs.values()}
        self._restoration.gone_segments = sorted(buried)
        self._restoration.lost_extents = [
            (log_id, extent.end_offset)
            for log_id, extents in self._known.extents.items()
            if log_id not in alive
            for extent in extents
            if extent.segment_id in buried
        ]

    def _plan_segments(self) -> None:
        """Those of the unknown segments in which extents are to lie."""
        known = self._known.keys()
        needed = {extent.key for log in self._restoration.logs for extent in log.added if extent.key}
        self._restoration.segments = [
            RestoredSegment(segment.key, segment.size_bytes, segment.level, segment.created_ms)
            for segment in self._bucket.segments
            if segment.key in needed and segment.key not in known
        ]
        self._counts.segments = len(self._restoration.segments)
        left = {
            segment.key
            for pairs in self._unplaced.values()
            for segment, _ in pairs
            if segment.key not in needed and segment.created_ms < self._recent_ms
        }
        self._counts.segments_left = len(left)

    async def _plan_log(self, log: LogKey, placed: Sequence[Candidate]) -> RestoredLog | None:
        """How a log is to be; None when it is so already."""
        stored = self._known.logs.get(log)
        here, gone = self._stored_extents(stored)
        candidates = [*here, *placed]
        stored_end = 0 if stored is None else stored.next_offset
        end = max([stored_end, *(candidate.end_offset for candidate in candidates)])
        start = None if stored is None else stored.start_offset
        tiling = await tile(self._objects, candidates, start, end)
        if stored is None:
            start = tiling.extents[0].base_offset if tiling.extents else 0
        assert start is not None
        states = self._states(stored)
        next_offset = end
        if gone and tiling.holes and tiling.holes[-1].end_offset == end == stored_end:
            next_offset += TAIL_GONE_OFFSETS
            self._counts.logs_without_tail += 1
        start = self._move_start(tiling, start, next_offset)
        lost = list(tiling.holes)
        recent_ms = self._recent_in(log, candidates)
        seen = await self._learn(tiling, states, recent_ms)
        wanted = self._wanted(log, recent_ms, has_holes=bool(lost))
        if wanted:
            await self._leave_merged(seen, placed, recent_ms)
        added = [candidate for candidate in tiling.extents if not is_known(candidate)]
        moved, after = await self._append(wanted, next_offset, states, seen)
        if moved or next_offset > end:
            reserved_to = moved[0].base_offset if moved else next_offset
            if start < reserved_to and reserved_to > end:
                if start == end and not tiling.extents:
                    start = reserved_to
                else:
                    lost.append(Hole(end, reserved_to))
        self._count(tiling, gone, added, moved, end)
        next_offset = max(next_offset, after)
        if not (added or moved or lost or gone) and stored is not None:
            return None
        return RestoredLog(
            log.topic_id,
            log.partition,
            start,
            next_offset,
            stored_end,
            removed=[extent.end_offset for extent in gone],
            added=[*map(_restored, [*added, *moved]), *_covers(lost)],
            producers=_packed(states),
        )

    def _count(
        self,
        tiling: Tiling,
        gone: list[StoredExtent],
        added: list[Candidate],
        moved: list[Candidate],
        end: int,
    ) -> None:
        counts = self._counts
        counts.kept += sum(extent.end_offset - extent.base_offset for extent in added)
        counts.moved += sum(extent.end_offset - extent.base_offset for extent in moved)
        counts.lost += tiling.lost_offsets
        counts.extents_gone += len(gone)
        if moved:
            counts.reserved += moved[0].base_offset - end

    def _stored_extents(self, stored: StoredLog | None) -> tuple[list[Candidate], list[StoredExtent]]:
        """The extents of the database whose bytes are there, and those whose object is gone."""
        here: list[Candidate] = []
        gone: list[StoredExtent] = []
        for extent in () if stored is None else self._known.extents.get(stored.log_id, ()):
            segment = None if extent.segment_id is None else self._known.segments.get(extent.segment_id)
            if extent.segment_id is not None and (segment is None or segment.key not in self._bucket.keys):
                gone.append(extent)
                continue
            here.append(
                Candidate(
                    extent.base_offset,
                    extent.end_offset,
                    "" if segment is None else segment.key,
                    extent.position,
                    extent.size_bytes,
                    extent.max_timestamp_ms,
                    KNOWN_LEVEL,
                    0,
                )
            )
        return here, gone

    def _move_start(self, tiling: Tiling, start: int, next_offset: int) -> int:
        """What is missing at the beginning was deleted since: the log begins later then."""
        if not tiling.holes or tiling.holes[0].base_offset != start:
            return start
        front = tiling.holes.pop(0)
        self._counts.started_later += front.end_offset - front.base_offset
        return front.end_offset if tiling.extents else next_offset

    def _states(self, stored: StoredLog | None) -> ProducerStates:
        states = ProducerStates()
        for producer in () if stored is None else self._known.producers.get(stored.log_id, ()):
            states.epochs[producer.producer_id] = producer.epoch
            states.windows[producer.producer_id] = list(unpack_batches(producer.batches))
        return states

    def _recent_in(self, log: LogKey, candidates: Sequence[Candidate]) -> int:
        """From when on a segment without a receipt may hold the end of a log: not much before what is known to be last.

        That may be long ago, where a log was written last by an agent that died, and lies in no merged segment yet.
        """
        end = max((candidate.end_offset for candidate in candidates), default=-1)
        last_ms = min(
            (
                self._known_ms if is_known(candidate) else candidate.created_ms
                for candidate in candidates
                if candidate.end_offset == end
            ),
            default=self._recent_ms + RECENT_MS,
        )
        # What was compacted with others can't be told from its batches. What came after that can't be among them.
        compacted_ms = max(
            (candidate.created_ms for candidate in candidates if candidate.is_sparse), default=-1
        )
        recent_ms = min(self._recent_ms, max(last_ms - RECENT_MS, compacted_ms))
        # No more than is needed is read of the many logs that have no such segment.
        has_older = any(recent_ms <= s.created_ms < self._recent_ms for s, _ in self._unplaced.get(log, ()))
        return recent_ms if has_older else self._recent_ms

    def _wanted(
        self, log: LogKey, recent_ms: int, *, has_holes: bool
    ) -> list[tuple[FoundSegment, SegmentExtent]]:
        """What of segments without receipts is to be appended, if it is nowhere yet."""
        return [
            (segment, extent)
            for segment, extent in self._unplaced.get(log, ())
            if has_holes or segment.created_ms >= recent_ms
        ]

    async def _learn(
        self, tiling: Tiling, states: ProducerStates, recent_ms: int
    ) -> Counter[tuple[int, int]]:
        """Producers' states from the batches of recent segments, and which batches these are.

        Whoever is silent for longer begins anew.
        """
        seen: Counter[tuple[int, int]] = Counter()
        for candidate in tiling.extents:
            if not is_known(candidate) and candidate.created_ms >= recent_ms:
                for batch in await self._batches(candidate):
                    seen[batch.print] += 1
                    states.note(batch)
                    self._note_producer(batch.producer_id)
        return seen

    async def _leave_merged(
        self, seen: Counter[tuple[int, int]], placed: Iterable[Candidate], recent_ms: int
    ) -> None:
        """Leave of the batches seen those that no segment with a receipt has brought: they were merged already.

        A segment may be merged before its receipt is written; without this its records would be there twice.
        """
        for candidate in placed:
            if candidate.level == 0 and candidate.created_ms >= recent_ms:
                for batch in await self._batches(candidate):
                    seen[batch.print] -= 1

    async def _batches(self, candidate: Candidate) -> list[Batch]:
        try:
            return await read_batches(self._objects, candidate)
        except (ObjectNotFound, ShortObject):
            self._counts.batches_damaged += 1
            return []

    def _note_producer(self, producer_id: int) -> None:
        self._restoration.largest_producer_id = max(self._restoration.largest_producer_id, producer_id)

    async def _append(
        self,
        wanted: Sequence[tuple[FoundSegment, SegmentExtent]],
        end: int,
        states: ProducerStates,
        merged: Counter[tuple[int, int]],
    ) -> tuple[list[Candidate], int]:
        """Segments without receipts, behind everything that may have been given out; where the log ends then."""
        next_offset = end + sum(extent.record_count for _, extent in wanted)
        appended: list[Candidate] = []
        for segment, extent in wanted:
            source = Candidate(
                next_offset,
                next_offset + extent.record_count,
                segment.key,
                extent.position,
                extent.size_bytes,
                segment.created_ms if extent.max_timestamp_ms < 0 else extent.max_timestamp_ms,
                0,
                segment.created_ms,
            )
            fresh = []
            for batch in await self._batches(source):
                self._note_producer(batch.producer_id)
                if merged[batch.print] > 0 or states.is_repeated(batch):
                    merged[batch.print] -= 1
                    self._counts.repeated += batch.record_count
                    continue
                count = batch.end_offset - batch.base_offset
                fresh.append(batch._replace(base_offset=next_offset, end_offset=next_offset + count))
                states.note(fresh[-1])
                next_offset += count
            appended += extents_of(source, fresh)
        for piece in appended:
            count = piece.end_offset - piece.base_offset
            run = ReceiptRun(piece.position, piece.size_bytes, piece.base_offset, count)
            self._moved.setdefault(piece.key, []).append(run)
        return appended, next_offset if appended else end


def _covers(holes: Iterable[Hole]) -> Iterator[RestoredExtent]:
    """What readers pass over a hole by. As old as can be, so that it holds no retention up."""
    for hole in holes:
        for part, batch in empty_batches(hole, HOLE_TIMESTAMP_MS):
            yield RestoredExtent(
                part.base_offset, part.end_offset, "", 0, len(batch), HOLE_TIMESTAMP_MS, batch
            )


def _restored(candidate: Candidate) -> RestoredExtent:
    return RestoredExtent(
        candidate.base_offset,
        candidate.end_offset,
        candidate.key,
        candidate.position,
        candidate.size_bytes,
        candidate.max_timestamp_ms,
    )


def _packed(states: ProducerStates) -> list[tuple[int, int, bytes]]:
    windows: Mapping[int, object] = states.windows
    return [(who, states.epochs[who], pack_batches(states.windows[who])) for who in sorted(windows)]
