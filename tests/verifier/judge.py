"""Holds a history against what is there in the end."""

from __future__ import annotations

from collections.abc import Sequence

from tests.verifier.figures import Findings, Verdict
from tests.verifier.history import History
from tests.verifier.readback import FsckResult, Readback
from tests.verifier.rules import Rules


def judge(
    history: History,
    readbacks: Sequence[Readback],
    rules: Rules | None = None,
    fsck: FsckResult | None = None,
) -> Verdict:
    """All that is wrong, and how much was looked at. `readbacks` are in the order in which they were read."""
    findings = Findings()
    findings.count("operations", len(history.ops))
    findings.count("batches", len(history.batches))
    return findings.verdict
