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
        "cpu_seconds": round(made.cpu_seconds, 1),
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
        "| target | hours | of a processor | executions | per second of it | edges | features | inputs | finds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    total = dict.fromkeys(("seconds", "cpu_seconds", "executions", "finds"), 0.0)
    for target in targets:
        rows = _rows(log / f"{target}.jsonl")
        if not rows:
            continue
        sums = {name: sum(row[name] for row in rows) for name in ("seconds", "cpu_seconds", "executions")}
        sums["finds"] = sum(len(row["finds"]) for row in rows)
        total = {name: total[name] + sums[name] for name in total}
        best = {name: max(row[name] for row in rows) for name in ("edges", "features", "inputs")}
        lines.append(
            f"| {target} | {_amounts(sums)} | {best['edges']:,} | {best['features']:,} | {best['inputs']:,} "
            f"| {sums['finds']} |"
        )
    lines.append(f"| all | {_amounts(total)} | | | | {total['finds']:.0f} |")
    return "\n".join(lines)


def _rows(path: Path) -> list[Mapping[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _amounts(sums: Mapping[str, float]) -> str:
    rate = sums["executions"] / max(sums["cpu_seconds"], 1)
    return f"{sums['seconds'] / 3600:.2f} | {sums['cpu_seconds'] / 3600:.2f} | {sums['executions']:,.0f} | {rate:,.0f}"
