"""Holds a history against what is there in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.verifier.committing import Committing
from tests.verifier.context import Context
from tests.verifier.figures import Verdict
from tests.verifier.freshness import Freshness
from tests.verifier.grouping import Grouping
from tests.verifier.history import KINDS, History, Kind
from tests.verifier.leaving import Leaving
from tests.verifier.logs import Logs
from tests.verifier.operations import Partition
from tests.verifier.ordering import Ordering
from tests.verifier.placing import Placing
from tests.verifier.producing import Producing
from tests.verifier.readback import FsckResult, Readback
from tests.verifier.recorder import State
from tests.verifier.rules import Rules
from tests.verifier.timeline import Timeline
from tests.verifier.times import judge_times
from tests.verifier.together import judge_together


def judge(
    history: History,
    readbacks: Sequence[Readback],
    rules: Rules | None = None,
    fsck: FsckResult | None = None,
) -> Verdict:
    """All that is wrong, and how much was looked at. `readbacks` are in the order in which they were read.

    First come the answers, in the order of time, then what is there in the end.
    """
    context = Context(history, readbacks, rules or Rules())
    freshness, producing, committing = _walk(context)
    logs = Logs(context, freshness)
    placing = Placing(context, logs)
    ordering = Ordering(context, logs, placing, producing.in_sequence)
    judge_together(context, freshness, placing, ordering.requests)
    judge_times(context, logs, placing)
    _ = Leaving(context, logs, freshness, placing)
    committing.settle(_ends(context, logs))
    _judge_fsck(context, fsck)
    _count(context)
    return context.findings.verdict


def _walk(context: Context) -> tuple[Freshness, Producing, Committing]:
    """Go through all that happened, in order."""
    history = context.history
    freshness, committing = Freshness(context), Committing(context)
    producing, grouping = Producing(context), Grouping(context)
    claims = _Claims(context)
    for moment, event in enumerate(history.events):
        kind, number = event % KINDS, event // KINDS
        if kind == Kind.SAW:
            freshness.saw(number, moment)
        elif kind == Kind.PROCESSED:
            committing.processed(number)
        elif kind == Kind.BEGAN:
            op = history.ops[number]
            freshness.began(op, moment)
            producing.began(op, moment)
            committing.began(op, moment)
            grouping.began(op)
        elif kind == Kind.ENDED:
            op = history.ops[number]
            producing.ended(op, moment)
            for claim in claims.of(moment):
                freshness.claimed(claim, moment)
            freshness.ended(op, moment)
            committing.ended(op, moment)
            grouping.ended(op, moment)
        elif kind == Kind.RESULT:
            producing.streamed(number, moment)
            for claim in claims.of(moment):
                freshness.claimed(claim, moment)
    return freshness, producing, committing


class _Claims:
    """Acknowledgements in order, which is that of their moments."""

    def __init__(self, context: Context) -> None:
        self._moments = context.timeline.claim_moment
        self._next = 0

    def of(self, moment: int) -> range:
        """Those of a moment, which is not before one that was asked for earlier."""
        begin = self._next
        while self._next < len(self._moments) and self._moments[self._next] <= moment:
            self._next += 1
        return range(begin, self._next)


def _ends(context: Context, logs: Logs) -> dict[Partition, int]:
    return {context.history.partitions.all[number]: log.end for number, log in logs.by_partition.items()}


def _judge_fsck(context: Context, fsck: FsckResult | None) -> None:
    if fsck is None:
        return
    context.looked("nothing referenced is missing", fsck.checked)
    for finding in fsck.findings:
        context.violate("nothing referenced is missing", finding)
    for what, count in sorted(fsck.left_over.items()):
        context.looked("nothing unreferenced is left")
        if count:
            context.violate("nothing unreferenced is left", f"{count} {what}")


def _unique(history: History) -> int:
    """Of others nobody can tell which of them it is that stands somewhere."""
    batches = history.batches
    partitions = (
        partition
        for partition, count in zip(batches.partition, batches.count, strict=True)
        for _ in range(count)
    )
    found = Counter(zip(partitions, batches.contents, strict=True))
    return sum(count == 1 for count in found.values())


def _doubtful(timeline: Timeline) -> int:
    return sum(
        doubts > 0 and not is_known
        for doubts, is_known in zip(timeline.doubts, timeline.is_acknowledged, strict=True)
    )


def _count(context: Context) -> None:
    """How much there was to look at."""
    history, timeline, findings = context.history, context.timeline, context.findings
    findings.count("operations", len(history.ops))
    findings.count(
        "operations without a known outcome", sum(o.state in (State.LOST, State.PENDING) for o in history.ops)
    )
    findings.count("batches sent", len(history.batches))
    findings.count("batches acknowledged", sum(timeline.is_acknowledged))
    findings.count("batches sent again", sum(sends > 1 for sends in timeline.sends))
    findings.count("batches in doubt", _doubtful(timeline))
    findings.count("records sent", len(history.batches.contents))
    findings.count("records whose content no other of their log has", _unique(history))
    findings.count(
        "records read back", sum(len(r.offsets) for back in context.readbacks for r in back.logs.values())
    )
    findings.count("agents read back from", len({readback.agent for readback in context.readbacks}))
