"""What every check needs to know."""

from __future__ import annotations

from collections.abc import Sequence

from tests.verifier.figures import Findings
from tests.verifier.history import History
from tests.verifier.readback import Readback
from tests.verifier.rules import Rules, TopicRules
from tests.verifier.timeline import Timeline
from tests.verifier.topics import Topics


class Context:
    """One history, what was read back, and the rules; checks write to `findings`."""

    def __init__(self, history: History, readbacks: Sequence[Readback], rules: Rules) -> None:
        self.history = history
        self.readbacks = readbacks
        self.rules = rules
        self.findings = Findings()
        self.checks = self.findings.verdict.figures.checks
        """How often each has looked at something; checks of single records add to it here."""
        self.timeline = Timeline(history)
        self.topics = Topics(self.timeline, self.findings)

    def rules_of(self, partition: int) -> TopicRules:
        """Of the topic of a partition."""
        return self.rules.of(self.history.partitions.all[partition].topic)

    def name(self, partition: int) -> str:
        """For people."""
        return str(self.history.partitions.all[partition])

    def looked(self, check: str, times: int = 1) -> None:
        """A check has looked at so many things."""
        self.findings.looked(check, times)

    def violate(self, check: str, text: str, moment: int | None = None) -> None:
        """A check has found something, at a moment or in the end."""
        self.findings.violate(check, text, None if moment is None else self.timeline.time_s(moment))
