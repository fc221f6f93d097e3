"""Runs the macro benchmarks: `python -m benchmarks.macro [--quick] [--only NAME ...]`.

Prints Markdown tables, and after a full run stores benchmarks/results/macro.json. About ten minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.macro import harness
from benchmarks.macro.bench_agent import latency, start_and_memory, throughput
from benchmarks.macro.bench_yardsticks import beside_stub, flood, partitions
from benchmarks.macro.harness import Table


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the data and one round: a smoke test"
    )
    parser.add_argument("--only", action="append", metavar="NAME")
    arguments = parser.parse_args()
    quick = arguments.quick
    count, rounds, seconds = (30_000, 1, 2) if quick else (300_000, 3, 10)
    suites: dict[str, Callable[[], Table]] = {
        "start": lambda: start_and_memory(2 * rounds - 1, count),
        "latency": lambda: latency(seconds, rounds),
        "partitions": lambda: partitions(seconds // 2, rounds),
        "flood": lambda: flood(rounds, seconds / 5),
        "stub": lambda: beside_stub(count, rounds),
        "throughput": lambda: throughput(count, rounds),
    }
    unknown = [name for name in arguments.only or [] if name not in suites]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are {', '.join(suites)}")
    tables: list[Table] = []
    for name in arguments.only or suites:
        tables.append(suites[name]())
        tables[-1].print()
    if not quick and not arguments.only:
        print(f"\nstored in {harness.store('macro', tables)}")


if __name__ == "__main__":
    main()
