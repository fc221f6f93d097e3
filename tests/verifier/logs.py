"""Logs in the end: dense, the same through every agent, with all that anybody has read there (P1, P3)."""

from __future__ import annotations

from array import array
from itertools import pairwise

from tests.verifier.context import Context
from tests.verifier.freshness import Freshness
from tests.verifier.history import UNKNOWN
from tests.verifier.operations import Partition
from tests.verifier.readback import LogRead, Readback
from tests.verifier.topics import AMBIGUOUS

SHOWN_MAX = 5
"""So many of one kind are told of a log, then how many more there are."""
NOTHING = array("q", [UNKNOWN])


class FinalLog:
    """A partition as it was read back, by one agent after the other."""

    def __init__(self, partition: int, log: int, reads: list[tuple[Readback, LogRead]]) -> None:
        self.partition = partition
        self.log = log
        """AMBIGUOUS when nobody can tell which life of its topic it is of."""
        self.reads = reads
        self.start = min(read.start for _, read in reads)
        """The lowest that was told."""
        self.end = max(read.end for _, read in reads)
        self.there = array("q")
        """Contents by offset, as read back."""
        self.known = array("q")
        """The same, and what readers have seen where nothing is any more."""

    @property
    def last_start(self) -> int:
        """The highest that was told."""
        return max(read.start for _, read in self.reads)

    @property
    def is_whole(self) -> bool:
        """Is it known of each offset what stood there?"""
        return UNKNOWN not in self.known


class Logs:
    """All of them, by the numbers of their partitions."""

    def __init__(self, context: Context, freshness: Freshness) -> None:
        self._context = context
        self._freshness = freshness
        self.by_partition: dict[int, FinalLog] = {}
        named = [p for readback in context.readbacks for p in (*readback.logs, *sorted(readback.unknown))]
        for partition in dict.fromkeys([*context.history.partitions.all, *named]):
            self._read(context.history.partitions.number(partition), partition)
        self._judge_gaps()
        self._judge_refusals()

    def _read(self, number: int, partition: Partition) -> None:
        context = self._context
        reads = []
        for readback in context.readbacks:
            read = readback.logs.get(partition)
            if read is not None:
                context.looked("logs can be read")
                reads.append((readback, read))
            elif partition in readback.unreadable:
                why = readback.unreadable[partition]
                context.looked("logs can be read")
                context.violate(
                    "logs can be read", f"{partition} can't be read through {readback.agent}: {why}"
                )
            elif partition in readback.unknown:
                self._judge_absence(readback, partition, number)
        is_over = context.topics.is_over(partition.topic)
        context.looked("deleted topics stay away", int(is_over))
        if not reads:
            self._judge_silence(partition, number)
            return
        if is_over:
            agents = ", ".join(readback.agent for readback, _ in reads)
            context.violate("deleted topics stay away", f"{partition} was deleted, and is there for {agents}")
            return
        found = FinalLog(number, context.topics.last_log(number), reads)
        if self._take_all(found, partition):
            self.by_partition[number] = found
            self._judge_told(found, partition)
            self._see(found, partition)

    def _judge_absence(self, readback: Readback, partition: Partition, number: int) -> None:
        topics = self._context.topics
        if not topics.is_over(partition.topic) and not topics.may_be_gone(partition.topic):
            log = topics.last_log(number)
            if log == AMBIGUOUS or self._freshness.acknowledged[log] or self._freshness.ends[log]:
                self._context.violate("logs can be read", f"{readback.agent} does not know {partition}")

    def _judge_silence(self, partition: Partition, number: int) -> None:
        """What was acknowledged has to be looked for: a verdict on logs that nobody has read is worth nothing."""
        topics, backs = self._context.topics, self._context.readbacks
        is_told = any(partition in back.unreadable or partition in back.unknown for back in backs)
        if not backs or is_told or topics.is_over(partition.topic) or topics.may_be_gone(partition.topic):
            return
        log = topics.last_log(number)
        if log != AMBIGUOUS and self._freshness.acknowledged[log]:
            self._context.violate("logs can be read", f"{partition} was read back through nobody")

    # One after the other.

    def _take_all(self, log: FinalLog, partition: Partition) -> bool:
        """False when what was read can't be true at all."""
        if log.start < 0 or log.end > self._freshness.limit_of(log.partition):
            text = f"{partition} goes from {log.start} to {log.end}, far from all that was sent"
            self._context.violate("nothing comes from nowhere", text)
            return False
        log.there = NOTHING * log.end
        before: tuple[Readback, LogRead] | None = None
        for readback, read in log.reads:
            self._judge_density(readback, read, partition)
            self._take(log, readback, read, partition)
            if before is not None:
                self._compare(before, (readback, read), partition)
            before = (readback, read)
        return True

    def _judge_density(self, readback: Readback, read: LogRead, partition: Partition) -> None:
        """Offsets follow on one another, and go from the start to the end where nothing may be missing."""
        context, offsets = self._context, read.offsets
        context.looked("offsets are dense", len(offsets))
        is_dense = self._context.rules.of(partition.topic).is_dense
        if offsets == array("q", range(read.start, read.end)):
            return
        where = f"{partition} through {readback.agent}"
        problems = [
            f"{where}: {later} comes after {earlier}"
            for earlier, later in pairwise([read.start - 1, *offsets, read.end])
            if later <= earlier or (is_dense and later != earlier + 1)
        ]
        self._violate_some("offsets are dense", problems)

    def _violate_some(self, check: str, problems: list[str]) -> None:
        for problem in problems[:SHOWN_MAX]:
            self._context.violate(check, problem)
        if len(problems) > SHOWN_MAX:
            self._context.violate(check, f"and {len(problems) - SHOWN_MAX} more such of the same log")

    def _take(self, log: FinalLog, readback: Readback, read: LogRead, partition: Partition) -> None:
        """Write down what is there; what an agent read before has said has to be the same."""
        describe, there = self._context.history.contents.describe, log.there
        if len(read.offsets) == read.end - read.start and there[read.start : read.end] == read.records:
            self._context.looked("agents agree", len(read.offsets))
            return
        problems = []
        for offset, content in zip(read.offsets, read.records, strict=True):
            if not 0 <= offset < log.end:
                continue  # Told as an offset that does not follow on the one before.
            before = there[offset]
            if before == UNKNOWN:
                there[offset] = content
            elif before != content:
                problems.append(
                    f"{readback.agent} has {describe(content)} at {partition} offset {offset}, "
                    f"not {describe(before)} as another"
                )
        self._violate_some("agents agree", problems)

    def _compare(
        self, before: tuple[Readback, LogRead], now: tuple[Readback, LogRead], partition: Partition
    ) -> None:
        """Starts and ends never go back; what was not there does not come back."""
        context = self._context
        (earlier, old), (later, new) = before, now
        agents = f"{partition}: {earlier.agent}, then {later.agent}"
        context.looked("agents agree")
        if new.end < old.end or (context.rules.is_quiet and new.end != old.end):
            context.violate("agents agree", f"{agents}: the end was {old.end}, then {new.end}")
        if new.start < old.start:
            context.violate("agents agree", f"{agents}: the start was {old.start}, then {new.start}")
        if not context.rules.of(partition.topic).is_dense and old.offsets != new.offsets:
            came = sorted(set(new.offsets).difference(old.offsets))
            problems = [f"{agents}: only the latter has offset {o}" for o in came if old.start <= o < old.end]
            self._violate_some("agents agree", problems)

    def _judge_told(self, log: FinalLog, partition: Partition) -> None:
        """Hold starts and ends against all that was told while clients ran."""
        freshness, context = self._freshness, self._context
        if log.log == AMBIGUOUS:
            return
        for readback, read in log.reads:
            context.looked("watermarks never go back", 2)
            end = max(freshness.ends[log.log], freshness.acknowledged[log.log])
            if read.end < end:
                text = f"{partition} ends at {read.end} through {readback.agent}, and had ended at {end}"
                context.violate("watermarks never go back", text)
            start = freshness.starts[log.log]
            if read.start < start:
                text = (
                    f"{partition} starts at {read.start} through {readback.agent}, and had started at {start}"
                )
                context.violate("watermarks never go back", text)

    def _see(self, log: FinalLog, partition: Partition) -> None:
        """What readers saw is there, unless something may have taken it."""
        log.known = log.there[:]
        if log.log == AMBIGUOUS or log.log not in self._freshness.sights:
            return
        seen, there = self._freshness.sights[log.log].contents, log.there
        start, is_dense = log.last_start, self._context.rules_of(log.partition).is_dense
        self._context.looked("what was read stays", len(seen))
        describe = self._context.history.contents.describe
        problems = []
        for offset, content in enumerate(seen):
            now = there[offset] if offset < len(there) else UNKNOWN
            if content in (UNKNOWN, now):
                continue
            if now == UNKNOWN and offset < log.end and (offset < start or not is_dense):
                log.known[offset] = content
                continue
            found = "is gone" if now == UNKNOWN else f"is {describe(now)} now"
            problems.append(f"{describe(content)} was read at {partition} offset {offset}, and {found}")
        self._violate_some("what was read stays", problems)

    def _judge_gaps(self) -> None:
        """What a reader of a compacted log has passed by is not there."""
        by_log = {log.log: log for log in self.by_partition.values() if log.log != AMBIGUOUS}
        counts: dict[int, array[int]] = {}
        for gap in self._freshness.gaps:
            log = by_log.get(gap.log)
            if log is None:
                continue
            if gap.log not in counts:
                total = array("q", [0])
                for content in log.there:
                    total.append(total[-1] + (content != UNKNOWN))
                counts[gap.log] = total
            count = counts[gap.log]
            end = min(gap.end, log.end)
            self._context.looked("offsets are dense")
            if gap.begin < end and count[end] > count[gap.begin]:
                text = f"{gap.who} went from {gap.begin} to {gap.end}, and something is there between"
                self._context.violate("offsets are dense", text)

    def _judge_refusals(self) -> None:
        """Starts never go back: what lies at or past the last one was in range all the time."""
        starts = {log.log: log.start for log in self.by_partition.values()}
        for refusal in self._freshness.refusals:
            start = starts.get(refusal.log)
            if start is not None and start <= refusal.position:
                text = f"{refusal.text}, and the log starts at {start} in the end"
                self._context.violate("read your writes", text, refusal.moment)
