"""Reads, as they happen: they see what was acknowledged before (P5), and nothing that was told is taken back (P3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from tests.verifier.context import Context
from tests.verifier.history import UNKNOWN
from tests.verifier.notes import Floor, Gap, Heights, Look, Refusal
from tests.verifier.operations import (
    DeleteRecords,
    Fetch,
    Fetched,
    Limit,
    Listed,
    ListOffsets,
    Part,
    Partition,
    Produced,
    Trimmed,
)
from tests.verifier.recorder import Op, State
from tests.verifier.sightings import Sights
from tests.verifier.timeline import NEVER, NO_PLACE, is_complete
from tests.verifier.topics import AMBIGUOUS
from warp.errors import ErrorCode

UNKNOWN_TOPIC = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID)
SPARE_OFFSETS = 1000
"""A log may be longer than all that was sent to it by so much until the verifier stops to look there."""


class Freshness:
    """All reads of a history in order. Afterwards it knows what was seen in each log, and how far each had come."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._history = context.history
        self.sights: dict[int, Sights] = {}
        self.acknowledged: dict[int, int] = defaultdict(int)
        """By log, the end of what was acknowledged."""
        self.ends: dict[int, int] = defaultdict(int)
        """By log, the highest that was told."""
        self.starts: dict[int, int] = defaultdict(int)
        self.trimmed: dict[int, int] = defaultdict(int)
        """By log, what DeleteRecords has said to be gone."""
        self.trim_asked: dict[int, int] = defaultdict(int)
        self._granted: dict[int, int] = defaultdict(int)
        """By log, the highest offset before which records were to be deleted, and have been."""
        self._open_trims: dict[tuple[int, Partition], tuple[list[int], int]] = {}
        """By operation: logs and the offset asked for, as long as nobody has said what became of it."""
        self.gaps: list[Gap] = []
        """Where that may be: in logs that are compacted."""
        self._agent_ends: dict[tuple[str, int], int] = defaultdict(int)
        self._agent_starts: dict[tuple[str, int], int] = defaultdict(int)
        self._floors: dict[int, dict[Partition, Floor]] = {}
        self._positions: dict[tuple[int, int], int] = {}
        """Of readers, by reader and log."""
        self._claims: dict[int, Heights] = defaultdict(Heights)
        """By log, the ends of what was acknowledged."""
        self.seen: dict[int, Heights] = defaultdict(Heights)
        """By log, the ends that anybody was told."""
        self.looks: list[Look] = []
        self.refusals: list[Refusal] = []
        counts: dict[int, int] = defaultdict(int)
        timeline = context.timeline
        for batch in range(len(self._history.batches)):
            counts[self._history.batches.partition[batch]] += (
                self._history.batches.count[batch] * timeline.sends[batch]
            )
        self._sent = counts

    # Of each log.

    def sights_of(self, log: int) -> Sights:
        """What was seen in a log so far."""
        sights = self.sights.get(log)
        if sights is None:
            limit = self.limit_of(self._context.topics.partition_of[log])
            sights = self.sights[log] = Sights(limit)
        return sights

    def limit_of(self, partition: int) -> int:
        """No offset of a partition is as high."""
        return 2 * self._sent[partition] + SPARE_OFFSETS

    def claimed(self, claim: int, moment: int) -> None:
        """A batch was acknowledged."""
        timeline = self._context.timeline
        batch, offset = timeline.claim_batch[claim], timeline.claim_offset[claim]
        partition = self._history.batches.partition[batch]
        if not self._context.topics.may_have_been(partition, timeline.claim_sent[claim], moment):
            text = f"{self._history.name_of(batch)} was acknowledged, and its topic had been deleted before"
            self._context.violate("deleted topics stay away", text, moment)
        log = self._context.topics.log(partition, timeline.claim_sent[claim], moment)
        if log != AMBIGUOUS and offset != NO_PLACE:
            self._judge_place(log, batch, offset, timeline.claim_sent[claim], moment)
            end = offset + self._history.batches.count[batch]
            self.acknowledged[log] = max(self.acknowledged[log], end)
            self._claims[log].reach(end, moment)

    def _judge_place(self, log: int, batch: int, offset: int, sent: int, moment: int) -> None:
        """What is sent after an acknowledgement stands behind what was acknowledged."""
        check, floor = "later writes come later", self._claims[log].before(sent)
        self._context.looked(check)
        if offset < floor:
            name = self._history.name_of(batch)
            text = f"{name} came to stand at {offset}, and was sent when {floor} had been acknowledged"
            self._context.violate(check, text, moment)

    def start_max(self, log: int) -> int:
        """Where a log may begin for DeleteRecords' sake: as was told, or as was asked by those who were not told."""
        doubts = [asked for logs, asked in self._open_trims.values() if log in logs]
        return max([self._granted[log], *doubts])

    def _see(self, log: int, offset: int, content: int, who: str, moment: int) -> None:
        try:
            before = self.sights_of(log).see(offset, content)
        except IndexError:
            self._strange(log, offset, who, moment)
            return
        if before is not None:
            self._conflict(log, offset, content, before, who, moment)

    def _strange(self, log: int, offset: int, who: str, moment: int) -> None:
        name = self._context.name(self._context.topics.partition_of[log])
        text = f"{who} read {name} offset {offset}, far from all that was sent"
        self._context.violate("nothing comes from nowhere", text, moment)

    def _conflict(self, log: int, offset: int, content: int, before: int, who: str, moment: int) -> None:
        describe = self._history.contents.describe
        name = self._context.name(self._context.topics.partition_of[log])
        self._context.violate(
            "one order for everybody",
            f"{who} read {describe(content)} at {name} offset {offset}, not {describe(before)} as before",
            moment,
        )

    # Requests and answers.

    def began(self, op: Op, moment: int) -> None:
        """Note what the answer has to show."""
        operation = op.operation
        if isinstance(operation, DeleteRecords):
            for partition, offset in operation.offsets.items():
                log = self._log(partition, moment, moment)
                asked = 2**62 if offset < 0 else offset
                logs = [log] if log != AMBIGUOUS else self._context.topics.logs_of(self._number(partition))
                self._open_trims[op.number, partition] = (logs, asked)
                for each in logs:
                    self.trim_asked[each] = max(self.trim_asked[each], asked)
        elif isinstance(operation, Fetch | ListOffsets):
            asked_for: Iterable[Partition] = (
                operation.positions if isinstance(operation, Fetch) else operation.partitions
            )
            self._floors[op.number] = {
                partition: self._floor(op.agent, log)
                for partition in asked_for
                if (log := self._log(partition, moment, moment)) != AMBIGUOUS
            }

    def ended(self, op: Op, moment: int) -> None:
        """Judge an answer."""
        floors = self._floors.pop(op.number, {})
        if op.state is not State.ANSWERED:
            return
        answer = op.answer
        if isinstance(answer, Fetched):
            assert isinstance(op.operation, Fetch)
            self._fetched(op, op.operation, answer, floors, moment)
        elif isinstance(answer, Listed):
            self._listed(op, answer, floors, moment)
        elif isinstance(answer, Produced):
            self._produced(op, answer, moment)
        elif isinstance(answer, Trimmed):
            self._trimmed(op, answer, moment)

    def _number(self, partition: Partition) -> int:
        return self._history.partitions.number(partition)

    def _log(self, partition: Partition, began: int, ended: int) -> int:
        return self._context.topics.log(self._number(partition), began, ended)

    def _floor(self, agent: str, log: int) -> Floor:
        return Floor(
            log,
            self.acknowledged[log],
            self._agent_ends[agent, log] if agent else 0,
            self._agent_starts[agent, log] if agent else 0,
            self.ends[log],
            max(self.starts[log], self.trimmed[log]),
            self.trim_asked[log],
        )

    def _judged(
        self, op: Op, floors: dict[Partition, Floor], partitions: Iterable[Partition], moment: int
    ) -> Iterator[tuple[Partition, Floor]]:
        """Those that can have met one log only."""
        began = self._context.timeline.began[op.number]
        for partition in partitions:
            floor = floors.get(partition)
            if floor is not None and self._log(partition, began, moment) == floor.log:
                yield partition, floor

    def _listed(self, op: Op, answer: Listed, floors: dict[Partition, Floor], moment: int) -> None:
        assert isinstance(op.operation, ListOffsets)
        for partition, floor in self._judged(op, floors, answer.parts, moment):
            code, offset = answer.parts[partition]
            if code:
                self._refused(op, partition, floor, code, moment)
            elif op.operation.limit == Limit.LATEST:
                self._context.looked("read your writes")
                if offset < floor.acknowledged:
                    text = f"{op.client}: {partition} ends at {offset}, {floor.acknowledged} had been acknowledged"
                    self._context.violate("read your writes", text, moment)
                elif offset < floor.end:
                    self._went_back(op, partition, "end", floor.end, offset, moment)
                self._look(op, partition, floor.log, offset, f"ends at {offset}")
                self._tell_end(op.agent, floor.log, offset, moment)
            else:
                if offset < floor.start:
                    self._went_back(op, partition, "start", floor.start, offset, moment)
                self._tell_start(op.agent, floor.log, offset)

    def _went_back(self, op: Op, partition: Partition, what: str, before: int, now: int, moment: int) -> None:
        text = f"{op.agent or 'somebody'} to {op.client}: {what} of {partition} went from {before} to {now}"
        self._context.violate("watermarks never go back", text, moment)

    def _look(self, op: Op, partition: Partition, log: int, end: int, what: str) -> None:
        """Note how much somebody sees of a log, for when it is known what has to be seen together."""
        began = self._context.timeline.began[op.number]
        self.looks.append(Look(log, began, end, f"{op.client}: {partition} {what}"))

    def _tell_end(self, agent: str, log: int, end: int, moment: int) -> None:
        self._context.looked("watermarks never go back")
        self._reach(log, end, moment)
        if agent:
            self._agent_ends[agent, log] = max(self._agent_ends[agent, log], end)

    def _reach(self, log: int, end: int, moment: int) -> None:
        """Somebody has seen that a log goes so far."""
        self.ends[log] = max(self.ends[log], end)
        self.seen[log].reach(end, moment)

    def _tell_start(self, agent: str, log: int, start: int) -> None:
        self._context.looked("watermarks never go back")
        self.starts[log] = max(self.starts[log], start)
        if agent:
            self._agent_starts[agent, log] = max(self._agent_starts[agent, log], start)

    def _trimmed(self, op: Op, answer: Trimmed, moment: int) -> None:
        began = self._context.timeline.began[op.number]
        assert isinstance(op.operation, DeleteRecords)
        for partition, (code, low_watermark) in answer.parts.items():
            log = self._log(partition, began, moment)
            if code not in (ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE):
                continue
            self._open_trims.pop((op.number, partition), None)
            if code or log == AMBIGUOUS:
                continue
            asked = op.operation.offsets[partition]
            self._context.looked("deleted records stay away")
            if low_watermark < asked:
                text = f"{op.client}: {partition} begins at {low_watermark} after it was trimmed to {asked}"
                self._context.violate("deleted records stay away", text, moment)
            self.trimmed[log] = max(self.trimmed[log], low_watermark)
            self._granted[log] = max(self._granted[log], low_watermark if asked < 0 else asked)
            self._tell_start(op.agent, log, low_watermark)

    def _produced(self, op: Op, answer: Produced, moment: int) -> None:
        """Producers are told where logs start: as of some time, perhaps of another agent's commit."""
        began = self._context.timeline.began[op.number]
        for partition, placed in answer.parts.items():
            log = self._log(partition, began, moment)
            if not placed.error_code and placed.log_start_offset >= 0 and log != AMBIGUOUS:
                self._tell_start("", log, placed.log_start_offset)

    def _refused(self, op: Op, partition: Partition, floor: Floor, code: int, moment: int) -> None:
        """An error for a partition of a Fetch or ListOffsets: it may not deny what was acknowledged."""
        began = self._context.timeline.began[op.number]
        context = self._context
        if code in UNKNOWN_TOPIC:
            has_data = floor.acknowledged > 0 and context.topics.has_one_life(partition.topic)
            context.looked("topics are known")
            if has_data or context.topics.is_surely_there(partition.topic, began, moment):
                context.violate(
                    "topics are known", f"{op.client}: {partition} is unknown to {op.agent}", moment
                )
        elif code == ErrorCode.OFFSET_OUT_OF_RANGE and isinstance(op.operation, Fetch):
            rules = context.rules_of(self._number(partition))
            position = op.operation.positions[partition]
            may_be_taken = rules.retention_ms is not None or rules.retention_bytes is not None
            asked = max(floor.trim_asked, self.trim_asked[floor.log])
            context.looked("read your writes")
            if position > max(floor.acknowledged, floor.agent_end):
                return
            known = f"{floor.acknowledged} had been acknowledged"
            text = f"{op.client}: {partition} at {position} is out of range, {known}"
            if not may_be_taken and asked <= position:
                context.violate("read your writes", text, moment)
            else:
                self.refusals.append(Refusal(floor.log, position, text, moment))

    # Fetch.

    def _fetched(
        self, op: Op, fetch: Fetch, answer: Fetched, floors: dict[Partition, Floor], moment: int
    ) -> None:
        self._context.looked("answers are of one piece")
        if not is_complete(op):
            text = f"{op.client}: Fetch of {len(fetch.positions)} partitions answered {sorted(map(str, answer.parts))}"
            self._context.violate("answers are of one piece", text, moment)
        is_empty = not any(part.next_offset > fetch.positions.get(p, 0) for p, part in answer.parts.items())
        is_alone = len(fetch.positions) == 1
        has_failed = any(
            part.error_code not in (ErrorCode.NONE, ErrorCode.OFFSET_OUT_OF_RANGE)
            for part in answer.parts.values()
        )
        for partition, floor in self._judged(op, floors, answer.parts, moment):
            part = answer.parts[partition]
            if part.error_code:
                self._refused(op, partition, floor, part.error_code, moment)
                continue
            position = fetch.positions[partition]
            self._judge_watermarks(op, partition, floor, part, moment)
            if (is_empty and not has_failed) or is_alone:
                self._judge_emptiness(op, partition, floor, part, moment)
            self._judge_beginning(op, partition, floor, part, moment)
            self._judge_records(op, partition, floor.log, position, part, moment)

    def _judge_emptiness(self, op: Op, partition: Partition, floor: Floor, part: Part, moment: int) -> None:
        """Where nothing came.

        An agent that has no memory for records gives none, without an error. But it knows the ends of logs.
        """
        assert isinstance(op.operation, Fetch)
        position = op.operation.positions[partition]
        self._context.looked("read your writes")
        lacks_memory = self._context.rules.agents_lack_memory
        is_seen = part.next_offset > position or (lacks_memory and part.high_watermark >= floor.acknowledged)
        if not is_seen and not lacks_memory:
            self._look(op, partition, floor.log, position, f"has nothing at {position}")
        if not is_seen and position < floor.acknowledged:
            known = f"{floor.acknowledged} had been acknowledged"
            text = f"{op.client}: nothing at {partition} offset {position}, {known}"
            self._context.violate("read your writes", text, moment)

    def _judge_watermarks(self, op: Op, partition: Partition, floor: Floor, part: Part, moment: int) -> None:
        if part.high_watermark != UNKNOWN:
            if part.high_watermark < floor.agent_end:
                self._went_back(op, partition, "end", floor.agent_end, part.high_watermark, moment)
            self._tell_end(op.agent, floor.log, part.high_watermark, moment)
            self._context.looked("nothing follows the end")
            if part.next_offset > part.high_watermark:
                text = f"{op.client}: {partition} gave {part.next_offset} past its end {part.high_watermark}"
                self._context.violate("nothing follows the end", text, moment)
        if part.log_start_offset != UNKNOWN:
            if part.log_start_offset < floor.agent_start:
                self._went_back(op, partition, "start", floor.agent_start, part.log_start_offset, moment)
            self._tell_start(op.agent, floor.log, part.log_start_offset)

    def _judge_beginning(self, op: Op, partition: Partition, floor: Floor, part: Part, moment: int) -> None:
        """What lies before the start that an agent has told is not given by it any more."""
        if part.offsets and floor.agent_start:
            self._context.looked("deleted records stay away")
            if part.offsets[0] < floor.agent_start:
                told = f"after it had said that the log starts at {floor.agent_start}"
                text = f"{op.client}: {op.agent} gave {partition} offset {part.offsets[0]} {told}"
                self._context.violate("deleted records stay away", text, moment)

    def _judge_records(
        self, op: Op, partition: Partition, log: int, position: int, part: Part, moment: int
    ) -> None:
        offsets = part.offsets
        if not offsets:
            return
        context = self._context
        context.looked("one order for everybody", len(offsets))
        is_run = offsets[-1] - offsets[0] + 1 == len(offsets)
        if is_run and offsets[0] == position and self._is_sorted(part):
            context.looked("offsets are dense", len(offsets))
            try:
                conflicts = self.sights_of(log).see_run(position, part.records)
            except IndexError:
                self._strange(log, position, op.client, moment)
                return
            for offset, before in conflicts:
                self._conflict(log, offset, part.records[offset - position], before, op.client, moment)
            return
        for offset, content in zip(offsets, part.records, strict=True):
            self._step(log, position, offset, f"{op.client}: {partition}", moment)
            self._see(log, offset, content, op.client, moment)
            position = offset + 1
        if part.next_offset > position:
            self._step(log, position, part.next_offset, f"{op.client}: {partition}", moment)

    def _is_sorted(self, part: Part) -> bool:
        return all(later == earlier + 1 for earlier, later in pairwise(part.offsets))

    def _step(self, log: int, expected: int, offset: int, who: str, moment: int) -> None:
        """A reader goes from one record to the next."""
        self._context.checks["offsets are dense"] += 1
        if offset == expected:
            return
        if offset > expected and self._context.rules_of(self._context.topics.partition_of[log]).is_compacted:
            self.gaps.append(Gap(log, expected, offset, who))
        else:
            self._context.violate("offsets are dense", f"{who} went from {expected} to {offset}", moment)

    # Readers.

    def saw(self, number: int, moment: int) -> None:
        """A record was handed out by a consumer."""
        sightings = self._history.sightings
        who, partition = sightings.who[number], sightings.partition[number]
        offset, content = sightings.offset[number], sightings.record[number]
        # What is handed out may have been fetched long before: it can be told of topics with one life alone.
        log = self._context.topics.log(partition, -1, NEVER)
        if log == AMBIGUOUS:
            return
        if content == UNKNOWN:
            self._positions.pop((who, log), None)
            return
        name = self._history.readers.all[who]
        self._context.checks["one order for everybody"] += 1
        expected = self._positions.get((who, log))
        if expected is not None:
            if expected == offset:
                self._context.checks["offsets are dense"] += 1
            else:
                self._step(log, expected, offset, f"{name}: {self._context.name(partition)}", moment)
        self._see(log, offset, content, name, moment)
        self._reach(log, offset + 1, moment)
        self._positions[who, log] = offset + 1
