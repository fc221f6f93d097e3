"""How findings are shown: grouped lines for people, one JSON object for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final, TextIO

from warp import __version__
from warp.cli.doctor.finding import CHECKS, Finding, Severity, count

_COLOURS: Final = {
    Severity.OK: "\x1b[32m",
    Severity.NOTE: "\x1b[36m",
    Severity.WARNING: "\x1b[33m",
    Severity.PROBLEM: "\x1b[31m",
}
_PLAIN: Final = "\x1b[0m"
_BOLD: Final = "\x1b[1m"
_CLEAR_LINE: Final = "\r\x1b[K"
_SEVERITY_WIDTH: Final = max(map(len, Severity))
_ORDER: Final = {check: place for place, check in enumerate(CHECKS)}


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """In the order of CHECKS; findings of one check stay as they are."""
    return sorted(findings, key=lambda finding: _ORDER[finding.check])


def human(title: str, findings: Sequence[Finding], *, colour: bool) -> str:
    """Lines for people, the last one without an end."""
    width = max((len(finding.title) for finding in findings), default=0)
    lines = [title]
    for group, members in groupby(in_order(findings), key=lambda finding: finding.group):
        lines += ["", _painted(group, _BOLD, colour)]
        for finding in members:
            severity = _painted(f"{finding.severity:<{_SEVERITY_WIDTH}}", _COLOURS[finding.severity], colour)
            lines.append(f"  {severity}  {finding.title:<{width}}  {finding.text}")
            if finding.remedy:
                lines.append(f"  {'':<{_SEVERITY_WIDTH}}  {'':<{width}}  -> {finding.remedy}")
    return "\n".join([*lines, "", summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    """`1 problem, 2 warnings, 3 notes`."""
    parts = []
    for severity in (Severity.PROBLEM, Severity.WARNING, Severity.NOTE):
        number = count(findings, severity)
        if severity is Severity.NOTE and not number:
            continue
        parts.append(f"{number or 'no'} {severity}{'' if number == 1 else 's'}")
    return ", ".join(parts)


def as_json(looked_at: Mapping[str, str], findings: Sequence[Finding]) -> str:
    """One object; docs/doctor.md names its fields."""
    return json.dumps(
        {
            "version": __version__,
            "looked_at": dict(looked_at),
            "healthy": not count(findings, Severity.PROBLEM),
            "counts": {str(severity): count(findings, severity) for severity in Severity},
            "findings": [
                {
                    "check": finding.check,
                    "subject": finding.subject,
                    "severity": str(finding.severity),
                    "text": finding.text,
                    "remedy": finding.remedy or None,
                    "measured": dict(finding.measured),
                }
                for finding in in_order(findings)
            ],
        },
        indent=2,
    )


class Progress:
    """One line on a terminal that says what is being measured; nothing anywhere else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._is_shown = False

    def __call__(self, what: str) -> None:
        """Show what is being done now."""
        if self._is_terminal:
            self._stream.write(f"{_CLEAR_LINE}{what[:70]} ...")
            self._stream.flush()
            self._is_shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()
            self._is_shown = False


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """On terminals that can show it, unless NO_COLOR (no-color.org) is set."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _painted(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_PLAIN}" if colour else text
