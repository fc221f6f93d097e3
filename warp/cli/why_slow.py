"""`warp why-slow`: the slowest recent requests of an agent, where their time went, and what could be done about it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from warp.cli.agent_http import add_http_option, agent_address, get_json
from warp.cli.arguments import Parser, positive_count
from warp.cli.diagnosis import FETCH_PHASES, PRODUCE_PHASES, diagnose_fetch, diagnose_produce
from warp.units import format_size

PATH = "/v1/trace/last"
ROWS = 5

EXAMPLES = """\
  warp why-slow
  warp why-slow --http broker.example:8080 --count 20
  warp why-slow --last
  warp why-slow --json | jq .produce.slowest[0]

Times are milliseconds. Of a segment, which carries many requests, only the slowest one is told of; "reqs" says how many
shared its fate. Fetches appear when they had to load something, without the time that they waited for new records.
"""

_Row = Mapping[str, Any]


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    parser = Parser(
        "warp why-slow",
        "Show the slowest requests of the last minutes of a running agent: where their time went, in a table, and\n"
        "a sentence on each.",
        EXAMPLES,
    )
    add_http_option(parser)
    parser.add_argument(
        "--count",
        type=positive_count,
        default=ROWS,
        metavar="N",
        help=f"Requests of each kind to show. Default: {ROWS}.",
    )
    parser.add_argument("--last", action="store_true", help="The last requests instead of the slowest.")
    parser.add_argument("--json", action="store_true", help="Print what the agent says, as one JSON object.")
    found = parser.parse_all(words)
    trace = get_json(agent_address(found), PATH)
    if found.json:
        json.dump(trace, sys.stdout)
        print()
    else:
        print(report(trace, "last" if found.last else "slowest", found.count), end="")
    return 0


def report(trace: Mapping[str, Any], which: str, count: int) -> str:
    """The answer of /v1/trace/last for people: `which` is `slowest` or `last`."""
    window = f"of the last {trace['window_s'] / 60:g} minutes, slowest first"
    span = window if which == "slowest" else "that ended last, latest first"
    return "".join(
        (
            _section(
                f"Produce requests {span}:",
                ("outcome", "bytes", "reqs", "total", *PRODUCE_PHASES),
                trace["produce"][which][:count],
                _produce_cells,
                lambda row: diagnose_produce(row, trace),
            ),
            "\n",
            _section(
                f"Fetch requests that had to load, {span}:",
                ("outcome", "bytes", "GETs", "total", *FETCH_PHASES),
                trace["fetch"][which][:count],
                _fetch_cells,
                diagnose_fetch,
            ),
            "\n",
            *(_hedges(operation, trace[operation.lower()]) for operation in ("PUT", "GET")),
        )
    )


def _section(
    title: str,
    names: Sequence[str],
    rows: Sequence[_Row],
    cells: Callable[[_Row], Sequence[str]],
    diagnose: Callable[[_Row], str],
) -> str:
    if not rows:
        return f"{title} none\n"
    table = [("arrived", *names), *((_time(row["arrived_ms"]), *cells(row)) for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
    told = [f"{line}\n    {diagnose(row)}" for line, row in zip(lines[1:], rows, strict=True)]
    return "\n".join((title, lines[0], *told)) + "\n"


def _produce_cells(row: _Row) -> Sequence[str]:
    times = [_milliseconds(row[f"{name}_ms"]) for name in ("total", *PRODUCE_PHASES)]
    return row["outcome"], str(row["request_bytes"]), str(row["requests"]), *times


def _fetch_cells(row: _Row) -> Sequence[str]:
    times = [_milliseconds(row[f"{name}_ms"]) for name in ("total", *FETCH_PHASES)]
    return row["outcome"], str(row["answer_bytes"]), str(row["gets"]), *times


def _hedges(operation: str, known: Mapping[str, Any] | None) -> str:
    """What the agent has learnt of one kind of request; nothing about stores whose requests it never repeats."""
    if known is None:
        return ""
    latencies = [
        f"{_milliseconds(each['p95_ms'])} ms up to {format_size(each['size_bytes_max'])}"
        if each["size_bytes_max"] is not None
        else f"{_milliseconds(each['p95_ms'])} ms for larger ones"
        for each in known["latencies"]
    ]
    learnt = f"95 % within {', '.join(latencies)}" if latencies else "too few to judge"
    return (
        f"{operation}s: {learnt}; {known['hedges']} hedged since start, {known['hedges_won']} won by the second one, "
        f"{known['hedges_denied']} slow ones not hedged for want of budget\n"
    )


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
