"""What fsck has found: findings with what to do about each, and counts of all that it looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from warp.ids import LogId

FINDINGS_MAX = 1000
"""So many are told one by one. All are counted."""

RESTORE = "it can't be repaired: restore the metadata or the object store from a backup (docs/backup.md)"
REBUILD = "restore the metadata, or rebuild it from the bucket (docs/backup.md)"
REPAIR = "warp fsck --repair"


class Kind(StrEnum):
    """What can be wrong. The values are part of what --json prints."""

    LOG_WITHOUT_TOPIC = "log-without-topic"
    LOG_MISSING = "log-missing"
    LOG_OFFSETS = "log-offsets"
    LOG_UNDEAD = "log-undead"
    LOG_SIZE = "log-size"
    LOG_MAXIMUM = "log-maximum"
    CLEAN_OFFSET = "clean-offset"
    EXTENT_RANGE = "extent-range"
    EXTENT_GAP = "extent-gap"
    EXTENT_OVERLAP = "extent-overlap"
    EXTENT_PREFIX = "extent-prefix"
    EXTENT_WITHOUT_LOG = "extent-without-log"
    EXTENT_WITHOUT_SEGMENT = "extent-without-segment"
    EXTENT_IN_DEAD_SEGMENT = "extent-in-dead-segment"
    EXTENT_OUTSIDE = "extent-outside"
    EXTENT_SHARED = "extent-shared"
    EXTENT_FOREIGN = "extent-foreign"
    EXTENT_BYTES = "extent-bytes"
    SEGMENT_STATE = "segment-state"
    OBJECT_MISSING = "object-missing"
    OBJECT_SIZE = "object-size"
    OBJECT_DAMAGED = "object-damaged"
    QUARANTINED = "quarantined"
    QUARANTINE_STALE = "quarantine-stale"
    PRODUCER_WITHOUT_LOG = "producer-without-log"
    PRODUCER_STATE = "producer-state"
    MEMBER_WITHOUT_GROUP = "member-without-group"
    DATABASE = "database"
    MARKER = "marker"
    EPOCH = "epoch"
    UNREAD = "unread"
    """The store did not answer, so this was not looked at."""


class RepairKind(StrEnum):
    """What --repair knows to do."""

    LOG_SIZE = "log-size"
    PREFIX = "prefix"
    LOG_MAXIMUM = "log-maximum"
    CLEAN_OFFSET = "clean-offset"
    RELEASE = "release"
    PRODUCER = "producer"


class Repair(NamedTuple):
    """One thing to do. `number` is the producer id, or the extent's end offset; `segment_id` goes with the latter."""

    kind: RepairKind
    log_id: LogId
    number: int = 0
    segment_id: int = 0

    def describe(self) -> str:
        """In words, after `would` or on its own."""
        log = f"log {self.log_id}"
        return {
            RepairKind.LOG_SIZE: f"add up the size of {log} anew",
            RepairKind.PREFIX: f"work out the largest timestamps along {log} anew",
            RepairKind.LOG_MAXIMUM: f"raise the largest timestamp of {log}",
            RepairKind.CLEAN_OFFSET: f"have {log} compacted from its start again",
            RepairKind.RELEASE: f"release the extent of {log} up to offset {self.number} from quarantine",
            RepairKind.PRODUCER: f"remove producer {self.number} of {log}, which is nowhere",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where, what, and what to do about it."""

    kind: Kind
    where: str
    text: str
    remedy: str
    repair: Repair | None = None

    @property
    def line(self) -> str:
        """The finding in one line."""
        return f"{self.kind}: {self.where}: {self.text} -> {self.remedy}"


@dataclass(slots=True)
class Report:
    """What a run has found.

    `findings` are the first FINDINGS_MAX, `found` counts all by kind. `counts` is of what was looked at and what is
    under way: it holds orphans, dead segments and foreign objects, none of which is wrong. `unread` counts what the
    stores would not tell.
    """

    findings: list[Finding] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    repaired: list[Repair] = field(default_factory=list)
    not_needed: list[Repair] = field(default_factory=list)
    """Of the repairs: what was right by the time that it was to be repaired, by itself or by another repair."""
    _told: set[tuple[Kind, str, str]] = field(default_factory=set)

    @property
    def is_clean(self) -> bool:
        """Nothing is wrong, and everything was looked at."""
        return not self.found

    @property
    def is_whole(self) -> bool:
        """Everything could be looked at."""
        return not self.found[Kind.UNREAD]

    @property
    def is_repaired(self) -> bool:
        """All that was found was put right, or is."""
        done = {*self.repaired, *self.not_needed}
        left = [finding for finding in self.findings if finding.repair not in done]
        return not left and self.found.total() == len(self.findings)

    def add(self, finding: Finding) -> None:
        """Take down what is wrong, once."""
        told = (finding.kind, finding.where, finding.text)
        if told in self._told:
            return
        self.found[finding.kind] += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)
            self._told.add(told)
        if (
            finding.repair is not None
            and finding.repair not in self.repairs
            and len(self.repairs) < FINDINGS_MAX
        ):
            self.repairs.append(finding.repair)

    def note(self, text: str) -> None:
        """Take down what is worth a line and not wrong; the first of them."""
        if len(self.notes) < FINDINGS_MAX:
            self.notes.append(text)

    def as_json(self) -> dict[str, Any]:
        """For --json; docs/fsck.md names the fields."""
        return {
            "clean": self.is_clean,
            "found": dict(sorted(self.found.items())),
            "findings": [
                {
                    "kind": str(finding.kind),
                    "where": finding.where,
                    "text": finding.text,
                    "remedy": finding.remedy,
                    "repairable": finding.repair is not None,
                    "repaired": finding.repair is not None and finding.repair in self.repaired,
                }
                for finding in self.findings
            ],
            "counts": dict(sorted(self.counts.items())),
            "notes": self.notes,
            "repairs": [repair.describe() for repair in self.repairs],
            "repaired": [repair.describe() for repair in self.repaired],
        }


def note_damage(report: Report, where: str, lines: Iterable[str]) -> None:
    """Take down what a database says of its own files."""
    for line in lines:
        report.add(
            Finding(Kind.DATABASE, where, line, "stop the agent and restore the metadata (docs/backup.md)")
        )


Progress = Callable[[str, int, int | None], None]
"""Told what is being looked at, how far it is, and how far it goes (None: nobody knows)."""


def no_progress(what: str, done: int, total: int | None) -> None:
    """For those who do not watch."""
