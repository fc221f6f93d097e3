"""Each test hands in the figures that it has measured, and they are shown as one table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from tests.load.figures import Figures, table


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--load-minutes`: of the soak on one agent, and half as much of that on a cluster."""
    parser.addoption(
        "--load-minutes", type=float, default=0.0, help="minutes of the soaks; a short one without"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of all figures, also of tests that ran in other processes."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    rows = [
        (report.nodeid.rpartition("::")[2], *cast(tuple[str, str, str], value))
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if rows:
        terminalreporter.write_line("")
        terminalreporter.write_line(table(rows))


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Iterator[Figures]:
    """Where a test notes what it measured. When it has ended, no bound may have been broken."""
    noted = Figures(record_property)
    yield noted
    assert noted.problems == []


@pytest.fixture
def minutes(request: pytest.FixtureRequest) -> float:
    """--load-minutes; 0 for a short run."""
    return float(request.config.getoption("--load-minutes", 0.0))
