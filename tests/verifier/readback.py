"""What is there in the end: every log as one agent after the other tells it, committed offsets, and fsck's report."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tests.verifier.history import Contents
from tests.verifier.operations import Partition


class LogRead:
    """A log from its start to its end: offsets and contents of its records, in the order in which they came."""

    def __init__(self, contents: Contents, start: int, end: int) -> None:
        self.start = start
        """The log start offset, asked for before the log is read."""
        self.end = end
        """The high watermark, once an empty answer has shown that it is the end."""
        self.offsets = array("q")
        self.records = array("q")
        self.times_ms = array("q")
        """Timestamps of all of them, or nothing where the reader does not tell."""
        self._contents = contents

    def add(
        self, offset: int, key: bytes | None, value: bytes | None, timestamp_ms: int | None = None
    ) -> None:
        """The next record, with its timestamp if that is known of each."""
        self.offsets.append(offset)
        self.records.append(self._contents.number(key, value))
        if timestamp_ms is not None:
            self.times_ms.append(timestamp_ms)


class Readback:
    """Everything as one agent tells it, read when clients have ended. Later ones were read later."""

    def __init__(self, contents: Contents, agent: str, now_ms: int) -> None:
        self.agent = agent
        self.now_ms = now_ms
        """Milliseconds of the wall clock when it was all read; needed where retention may have taken something."""
        self.logs: dict[Partition, LogRead] = {}
        self.unreadable: dict[Partition, str] = {}
        self.unknown: set[Partition] = set()
        self.committed: dict[str, dict[Partition, int]] = {}
        """By group; -1 where nothing is committed."""
        self._contents = contents

    def log(self, partition: Partition, start: int, end: int) -> LogRead:
        """A log that is there."""
        found = self.logs[partition] = LogRead(self._contents, start, end)
        return found

    def cannot_read(self, partition: Partition, why: str) -> None:
        """A log that this agent would not let be read to its end, though all is well."""
        self.unreadable[partition] = why

    def does_not_know(self, partition: Partition) -> None:
        """There is no such topic."""
        self.unknown.add(partition)

    def group(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """What a group has committed."""
        self.committed[group] = dict(offsets)


class _Finding(Protocol):
    @property
    def line(self) -> str: ...


class _Report(Protocol):
    @property
    def findings(self) -> Iterable[_Finding]: ...

    @property
    def counts(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class FsckResult:
    """What fsck says when the jobs have run.

    `findings` are what is referenced and missing, or wrong otherwise. `left_over` is what should be gone by then, by
    name: live segments without extents, dead segments, objects that nobody knows. `checked` counts what was looked at.
    """

    findings: list[str] = field(default_factory=list)
    left_over: Mapping[str, int] = field(default_factory=dict)
    checked: int = 0

    @classmethod
    def of(cls, report: _Report, left_over: Mapping[str, int] | None = None) -> FsckResult:
        """Of a `warp.lifecycle.fsck_report.Report`, which counts logs, extents, objects, and segments by state."""
        checked = sum(count for name, count in report.counts.items() if not name.endswith("bytes"))
        return cls([finding.line for finding in report.findings], dict(left_over or {}), checked)
