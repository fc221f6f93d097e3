"""Records keep the timestamps with which they were sent, through merging and compaction too (P1)."""

from __future__ import annotations

from collections import defaultdict

from tests.verifier.context import Context
from tests.verifier.history import UNKNOWN
from tests.verifier.logs import SHOWN_MAX, FinalLog, Logs
from tests.verifier.placing import Placing
from tests.verifier.readback import LogRead, Readback

CHECK = "records keep their times"


def judge_times(context: Context, logs: Logs, placing: Placing) -> None:
    """Hold what was read back against the times of batches, as far as both are known."""
    for log in logs.by_partition.values():
        for readback, read in log.reads:
            if read.times_ms:
                _judge(context, placing, log, readback, read)


def _judge(context: Context, placing: Placing, log: FinalLog, readback: Readback, read: LogRead) -> None:
    """A batch's time is that of its youngest record: none is younger, and the youngest is there if all are."""
    batches, owners = context.history.batches, placing.owners[log.partition]
    found: dict[int, tuple[int, int]] = defaultdict(lambda: (0, UNKNOWN))
    for offset, time_ms in zip(read.offsets, read.times_ms, strict=True):
        placement = owners[offset] if 0 <= offset < log.end else UNKNOWN
        if placement != UNKNOWN:
            count, youngest_ms = found[placement]
            found[placement] = (count + 1, max(youngest_ms, time_ms))
    problems = []
    for placement, (count, youngest_ms) in found.items():
        batch = placing.placed_batch[placement]
        sent_ms = batches.timestamp_ms[batch]
        if sent_ms == UNKNOWN:
            continue
        context.looked(CHECK, count)
        if youngest_ms > sent_ms or (count == batches.count[batch] and youngest_ms != sent_ms):
            name = context.history.name_of(batch)
            problems.append(f"{name} was sent with {sent_ms}, and {readback.agent} says {youngest_ms}")
    for problem in problems[:SHOWN_MAX]:
        context.violate(CHECK, problem)
