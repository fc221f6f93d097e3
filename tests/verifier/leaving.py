"""What may be gone: starts that have moved, records that compaction took, and what must not come back (P9)."""

from __future__ import annotations

from tests.verifier.context import Context
from tests.verifier.freshness import Freshness
from tests.verifier.history import UNKNOWN
from tests.verifier.logs import SHOWN_MAX, FinalLog, Logs
from tests.verifier.placing import Placing
from tests.verifier.readback import LogRead, Readback
from tests.verifier.topics import AMBIGUOUS

SIZE_SLACK = 1.5
"""What is kept is counted with its headers, and here without."""


class Leaving:
    """Judges what is not there any more."""

    def __init__(self, context: Context, logs: Logs, freshness: Freshness, placing: Placing) -> None:
        self._context = context
        self._history = context.history
        self._freshness = freshness
        self._placing = placing
        for log in logs.by_partition.values():
            if log.log == AMBIGUOUS:
                continue
            for readback, read in log.reads:
                self._judge_start(log, readback, read)
                self._judge_linger(log, readback, read)
            if context.rules_of(log.partition).is_compacted:
                self._judge_table(log)

    # Starts.

    def _judge_start(self, log: FinalLog, readback: Readback, read: LogRead) -> None:
        context, name = self._context, self._context.name(log.partition)
        trimmed = self._freshness.trimmed[log.log]
        if trimmed:
            context.looked("deleted records stay away")
        if read.start < trimmed:
            text = (
                f"{name} starts at {read.start} through {readback.agent}, though it was trimmed to {trimmed}"
            )
            context.violate("deleted records stay away", text)
        asked = self._freshness.start_max(log.log)
        context.looked("nothing goes without a reason")
        if read.start > asked:
            problem = self._problem_of(log, readback, read, asked)
            if problem:
                text = f"{name} starts at {read.start} through {readback.agent}: {problem}"
                context.violate("nothing goes without a reason", text)

    def _problem_of(self, log: FinalLog, readback: Readback, read: LogRead, asked: int) -> str:
        """Why what lies between what was asked for and the start must not be gone; empty when it may."""
        rules = self._context.rules_of(log.partition)
        problems = []
        if rules.retention_bytes is not None:
            sizes = self._history.contents.sizes
            kept = sum(sizes[content] for content in read.records)
            if kept * SIZE_SLACK >= rules.retention_bytes:
                return ""
            problems.append(f"only {kept} bytes are kept")
        if rules.retention_ms is not None:
            youngest_ms = readback.now_ms - rules.retention_ms + rules.clock_skew_ms
            early = [o for o in range(asked, min(read.start, log.end)) if self._time_ms(log, o) > youngest_ms]
            if early and rules.is_compacted:
                # What lies together goes when the youngest that compaction has left of it is old.
                lasting = self._lasting(log)
                early = [offset for offset in early if offset in lasting]
            if not early:
                return ""
            problems.append(f"{len(early)} records were taken early, as {early[0]}")
        return " and ".join(problems) or "nothing says why"

    def _time_ms(self, log: FinalLog, offset: int) -> int:
        place = self._placing.place_of(log, offset)
        return UNKNOWN if place is None else self._history.batches.timestamp_ms[place[0]]

    def _judge_linger(self, log: FinalLog, readback: Readback, read: LogRead) -> None:
        """What is old goes before long."""
        rules = self._context.rules_of(log.partition)
        if rules.retention_ms is None or rules.linger_ms is None or not read.offsets:
            return
        self._context.looked("retention takes what is old")
        time_ms = self._time_ms(log, read.offsets[0]) if read.offsets[0] < log.end else UNKNOWN
        age_ms = readback.now_ms - time_ms
        if time_ms != UNKNOWN and age_ms > rules.retention_ms + rules.linger_ms + rules.clock_skew_ms:
            name = self._context.name(log.partition)
            text = f"{name} begins with a record of {age_ms} ms ago through {readback.agent}"
            self._context.violate("retention takes what is old", text)

    # Compaction.

    def _judge_table(self, log: FinalLog) -> None:
        last = self._last_of_keys(log)
        doubtful = self._doubtful_tombstones(log)
        for readback, read in log.reads:
            found = self._found(read)
            problems: list[tuple[str, str]] = []
            for key, (offset, content) in last.items():
                problem = self._problem_of_key(log, readback, read, (key, offset, content), found.get(key))
                if problem is not None and not (key in doubtful and found.get(key) is None):
                    problems.append(problem)
            for check, text in problems[:SHOWN_MAX]:
                self._context.violate(check, text)
            self._judge_lag(log, readback, read)

    def _last_of_keys(self, log: FinalLog) -> dict[bytes, tuple[int, int]]:
        """Per key the offset and the content of its last record, whether it is still there or not."""
        contents, owners = self._history.contents, self._placing.owners[log.partition]
        last: dict[bytes, tuple[int, int]] = {}
        for offset, content in enumerate(log.known):
            if content == UNKNOWN and owners[offset] != UNKNOWN:
                place = self._placing.place_of(log, offset)
                assert place is not None
                content = place[1]
            if content != UNKNOWN:
                key = contents.key(content)
                if key is not None:
                    last[key] = (offset, content)
        return last

    def _lasting(self, log: FinalLog) -> set[int]:
        """The offsets of the records that compaction keeps for ever."""
        contents = self._history.contents
        last = self._last_of_keys(log).values()
        return {offset for offset, content in last if not contents.is_tombstone(content)}

    def _found(self, read: LogRead) -> dict[bytes, int]:
        contents = self._history.contents
        found: dict[bytes, int] = {}
        for offset, content in zip(read.offsets, read.records, strict=True):
            key = contents.key(content)
            if key is not None:
                found[key] = offset
        return found

    def _doubtful_tombstones(self, log: FinalLog) -> set[bytes]:
        """Keys that may have been deleted by somebody who never learned whether he did, without leaving a trace."""
        contents, batches, keys = self._history.contents, self._history.batches, set()
        for batch, doubts in enumerate(self._context.timeline.doubts):
            if doubts and batches.partition[batch] == log.partition and not self._placing.copies[batch]:
                for content in batches.records(batch):
                    key = contents.key(content)
                    if key is not None and contents.is_tombstone(content):
                        keys.add(key)
        return keys

    def _problem_of_key(
        self,
        log: FinalLog,
        readback: Readback,
        read: LogRead,
        last: tuple[bytes, int, int],
        found: int | None,
    ) -> tuple[str, str] | None:
        key, offset, content = last
        where = f"{key!r} of {self._context.name(log.partition)} through {readback.agent}"
        self._context.looked("the last of each key stays")
        if found == offset or offset >= read.end:
            return None
        self._context.looked("old values stay away")
        if found is not None:
            return (
                "old values stay away",
                f"{where} ends with offset {found}, not with {offset}, which is gone",
            )
        if offset < read.start:
            return None
        if not self._history.contents.is_tombstone(content):
            return "the last of each key stays", f"{where} is gone; its last record stood at {offset}"
        age_ms = readback.now_ms - self._time_ms(log, offset)
        rules = self._context.rules_of(log.partition)
        if rules.tombstone_ms and age_ms + rules.clock_skew_ms < rules.tombstone_ms:
            return "the last of each key stays", f"{where}: its tombstone at {offset} went after {age_ms} ms"
        return None

    def _judge_lag(self, log: FinalLog, readback: Readback, read: LogRead) -> None:
        """What compaction takes is old enough."""
        rules = self._context.rules_of(log.partition)
        if not rules.compaction_lag_ms:
            return
        there = set(read.offsets)
        oldest_ms = readback.now_ms - rules.compaction_lag_ms + rules.clock_skew_ms
        early = [
            offset
            for offset in range(read.start, min(read.end, log.end))
            if offset not in there and self._time_ms(log, offset) > oldest_ms
        ]
        self._context.looked("nothing goes without a reason")
        if early:
            name = self._context.name(log.partition)
            text = f"{len(early)} records of {name} were compacted early, as {early[0]}"
            self._context.violate("nothing goes without a reason", text)
