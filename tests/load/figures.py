"""What the tests measured, each figure beside its bound, and the table that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Row = tuple[str, str, str, str]
"""Test, what was measured, how much it was, and the bound, empty for a figure that has none."""


class Figures:
    """The figures of one test. `problems` has a line for every bound that does not hold."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self.problems: list[str] = []
        self._record = record

    def note(self, what: str, found: float, unit: str = "") -> None:
        """A figure without a bound."""
        self._record("figure", (what, _shown(found, unit), ""))

    def at_most(self, what: str, found: float, bound: float, unit: str = "") -> None:
        """A figure that must not be larger than its bound."""
        self._judge(what, found, f"≤ {_shown(bound, unit)}", unit, is_kept=found <= bound)

    def exactly(self, what: str, found: float, wanted: float, unit: str = "") -> None:
        """A figure that has to be this one."""
        self._judge(what, found, f"= {_shown(wanted, unit)}", unit, is_kept=found == wanted)

    def complain(self, problems: Sequence[str]) -> None:
        """Things that are wrong and no figures."""
        self.problems += problems

    def _judge(self, what: str, found: float, bound: str, unit: str, *, is_kept: bool) -> None:
        self._record("figure", (what, _shown(found, unit), bound if is_kept else f"{bound}  BROKEN"))
        if not is_kept:
            self.problems.append(f"{what}: {_shown(found, unit)}, which should be {bound}")


def table(rows: Sequence[Row]) -> str:
    """A table for people, in Markdown."""
    named = [(name.removeprefix("test_").replace("_", " "), *rest) for name, *rest in rows]
    shown = [("test", "figure", "found", "bound"), *named]
    widths = [max(len(row[column]) for row in shown) for column in range(4)]
    lines = [
        f"| {row[0]:<{widths[0]}} | {row[1]:<{widths[1]}} | {row[2]:>{widths[2]}} | {row[3]:<{widths[3]}} |"
        for row in shown
    ]
    rule = (
        f"|{'-' * (widths[0] + 2)}|{'-' * (widths[1] + 2)}|{'-' * (widths[2] + 1)}:|{'-' * (widths[3] + 2)}|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def _shown(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.2f}"
    return f"{number} {unit}".rstrip()
