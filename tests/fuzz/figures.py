"""The log of fuzzing: a line of JSON per slice of a target, and what they come to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.process import Slice


def note(log: Path, made: Slice, now_s: float) -> None:
    """Append what became of a slice to the log of its target."""
    log.mkdir(parents=True, exist_ok=True)
    row = {
        "at_s": round(now_s),
        "seconds": round(made.seconds, 1),
        "executions": made.executions,
        "edges": made.edges,
        "features": made.features,
        "inputs": made.inputs,
        "finds": [path.name for path in made.finds],
        "failure": made.failure,
    }
    with (log / f"{made.target}.jsonl").open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(row) + "\n")


def table(log: Path, targets: Iterable[str]) -> str:
    """A Markdown table with a row per target and one for all."""
    lines = [
        "| target | hours | executions | per second | edges | features | inputs | finds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    total = dict.fromkeys(("seconds", "executions", "finds"), 0.0)
    for target in targets:
        rows = _rows(log / f"{target}.jsonl")
        if not rows:
            continue
        seconds = sum(row["seconds"] for row in rows)
        executions = sum(row["executions"] for row in rows)
        finds = sum(len(row["finds"]) for row in rows)
        total = {
            "seconds": total["seconds"] + seconds,
            "executions": total["executions"] + executions,
            "finds": total["finds"] + finds,
        }
        best = {name: max(row[name] for row in rows) for name in ("edges", "features", "inputs")}
        lines.append(
            f"| {target} | {seconds / 3600:.2f} | {executions:,} | {executions / max(seconds, 1):,.0f} "
            f"| {best['edges']:,} | {best['features']:,} | {best['inputs']:,} | {finds} |"
        )
    lines.append(
        f"| all | {total['seconds'] / 3600:.2f} | {total['executions']:,.0f} "
        f"| {total['executions'] / max(total['seconds'], 1):,.0f} | | | | {total['finds']:.0f} |"
    )
    return "\n".join(lines)


def _rows(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
