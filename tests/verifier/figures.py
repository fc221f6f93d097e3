"""What the verifier has found, and how much it has looked at: a check that has looked at nothing proves nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

CHECKS: Mapping[str, tuple[str, str]] = {
    "acknowledged records are there": ("P1", "acknowledged batches looked for where they were acknowledged"),
    "records keep their times": ("P1", "records read back whose timestamps are known"),
    "what was read stays": ("P1", "records that a reader saw, looked for in the end"),
    "acknowledgements name a place": ("P1", "acknowledgements"),
    "logs can be read": ("P1", "logs read back, each through each agent"),
    "requests are atomic": ("P2", "requests of several batches that are there all or not at all"),
    "answers are of one piece": ("P2", "answers to requests of several batches"),
    "requests keep one order": ("P2", "pairs of partitions with several requests in common, batch by batch"),
    "requests are seen as one": (
        "P2",
        "ends told, held against requests of which a part had been seen before",
    ),
    "batches are whole": ("P2", "batches whose records stand side by side"),
    "offsets are dense": ("P3", "records that follow on one another, in logs and in answers"),
    "later writes come later": (
        "P3",
        "acknowledged batches, held against what was acknowledged before they were sent",
    ),
    "one order for everybody": ("P3", "records seen at an offset, compared with what others saw there"),
    "agents agree": ("P3", "logs read back, compared with the same through another agent"),
    "watermarks never go back": ("P3", "starts and ends told, compared with those told before"),
    "nothing follows the end": ("P3", "answers whose records lie before their high watermark"),
    "once with idempotence": ("P4", "batches of idempotent producers looked for a second time"),
    "order of producers": ("P4", "batches of idempotent producers compared with those before them"),
    "duplicates have their offsets": ("P4", "acknowledgements of batches that had been sent before"),
    "nothing is out of order without reason": ("P4", "OUT_OF_ORDER_SEQUENCE_NUMBER"),
    "producer ids are given once": ("P4", "producer ids"),
    "copies have senders": ("P4", "batches without idempotence, counted against how often they were sent"),
    "read your writes": ("P5", "answers compared with what was acknowledged before their requests"),
    "topics are known": ("P5", "answers about topics that surely exist"),
    "committed offsets never go back": ("P6", "committed offsets told, compared with what was acknowledged"),
    "committed offsets were committed": (
        "P6",
        "committed offsets told, looked for among those that were sent",
    ),
    "groups skip nothing": ("P6", "committed offsets compared with what members have processed"),
    "groups process everything": ("P6", "logs that a group has come to the end of"),
    "generations only rise": ("P6", "generations told and stored"),
    "old generations are fenced": ("P6", "requests of members that were accepted"),
    "one leader per generation": ("P6", "members let in"),
    "members hold what they were sent": ("P6", "shares compared with what leaders sent"),
    "assignments never overlap": ("P6", "partitions that a member holds"),
    "nothing comes from nowhere": ("P7", "records read back, each looked for among those that were sent"),
    "deleted records stay away": ("P9", "log starts compared with what was deleted"),
    "deleted topics stay away": ("P9", "topics that were deleted"),
    "topics are made and deleted once": ("P9", "topics made or deleted, counted against each other"),
    "nothing goes without a reason": ("P9", "records that are gone, or starts that moved"),
    "the last of each key stays": ("P9", "keys of compacted logs"),
    "old values stay away": ("P9", "keys of compacted logs whose last record is gone"),
    "retention takes what is old": ("P9", "logs with retention whose oldest record was looked at"),
    "nothing referenced is missing": ("P9", "segments, extents and objects that fsck has looked at"),
    "nothing unreferenced is left": ("P9", "kinds of leftovers"),
}
"""The promise of each check, and what is counted."""


class Violation(NamedTuple):
    """A promise that was broken."""

    promise: str
    check: str
    text: str
    time_s: float | None = None
    """When it came to light, by the recorder's clock; None: in the end."""

    def __str__(self) -> str:
        when = "in the end" if self.time_s is None else f"at {self.time_s:.4f}"
        return f"{self.promise}: {self.check}, {when}: {self.text}"


@dataclass(slots=True)
class Figures:
    """How much was looked at: `checks` by check, `counts` of what there was to look at."""

    checks: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def idle(self) -> list[str]:
        """Checks that have looked at nothing."""
        return [check for check in CHECKS if not self.checks[check]]


@dataclass(slots=True)
class Verdict:
    """What the verifier has to say. `violations` are in the order in which they were found."""

    violations: list[Violation] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)

    def report(self, violations_max: int = 20) -> str:
        """For people: what was looked at, and what is wrong."""
        lines = [f"  {name}: {count:,}" for name, count in self.figures.counts.items()]
        lines += [
            f"  {CHECKS[c][0]} {c}: {self.figures.checks[c]:,}" for c in CHECKS if self.figures.checks[c]
        ]
        idle = self.figures.idle()
        if idle:
            lines.append(f"  not looked at: {'; '.join(idle)}")
        lines.append(f"{len(self.violations)} violations")
        return "\n".join([*lines, *(f"  {violation}" for violation in self.violations[:violations_max])])


class Findings:
    """What checks write to."""

    def __init__(self) -> None:
        self.verdict = Verdict()

    def looked(self, check: str, times: int = 1) -> None:
        """A check has looked at so many things."""
        self.verdict.figures.checks[check] += times

    def count(self, what: str, times: int) -> None:
        """There was so much of it."""
        self.verdict.figures.counts[what] += times

    def violate(self, check: str, text: str, time_s: float | None = None) -> None:
        """A check has found something. Raises KeyError for a check that nobody knows."""
        self.verdict.violations.append(Violation(CHECKS[check][0], check, text, time_s))
