"""Clocks: segments are stamped with them, and object stores refuse signed requests of clocks that are far off."""

from __future__ import annotations

from typing import Final

from warp.cli.doctor.facts import ClockFacts
from warp.cli.doctor.finding import Finding, note, ok, problem, warning
from warp.cli.doctor.latency import time_words

WARNING_S: Final = 1.0
PROBLEM_S: Final = 60.0
_REMEDY: Final = (
    "let a time service (chrony, systemd-timesyncd, the host of the virtual machine) set this clock"
)


def judge_clock(
    facts: ClockFacts | None, check: str = "clock.object-store", other: str = "the object store"
) -> list[Finding]:
    """This machine's clock beside that of another. Only what is surely off counts."""
    if facts is None:
        return [note(check, f"not compared: {other} told no time")]
    off_s = abs(facts.ahead_s)
    sure_s = max(0.0, off_s - facts.uncertainty_s)
    measured = {
        "ahead_s": round(facts.ahead_s, 3),
        "uncertainty_s": round(facts.uncertainty_s, 3),
    }
    side = "ahead of" if facts.ahead_s > 0 else "behind"
    if sure_s > WARNING_S:
        text = f"this machine's clock is {time_words(off_s)} {side} {other}'s"
        tell = problem if sure_s > PROBLEM_S else warning
        return [tell(check, text, _REMEDY, measured=measured)]
    within = time_words(off_s + facts.uncertainty_s)
    return [ok(check, f"within {within} of {other}'s", measured=measured)]
