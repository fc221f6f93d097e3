"""Runs the benchmarks of clusters: `python -m benchmarks.macro.bench_cluster [--quick] [--only NAME ...]`.

Prints Markdown tables, and after a full run stores benchmarks/results/cluster.json. About twenty minutes. All are over
a PostgreSQL server of their own (Debian: postgresql) that syncs to disk, with its data in the temporary directory.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks.macro import harness
from benchmarks.macro.bench_hints import visibility
from benchmarks.macro.cluster_agents import idle, several
from benchmarks.macro.cluster_commits import commits
from benchmarks.macro.cluster_contention import contention
from benchmarks.macro.cluster_failover import failover
from benchmarks.macro.cluster_row_by_row import one_by_one
from benchmarks.macro.harness import Others, Table
from tests.support import postgres
from tests.support.postgres import PostgresServer


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="little of everything and one round: a smoke test"
    )
    parser.add_argument("--only", action="append", metavar="NAME")
    arguments = parser.parse_args()
    if (reason := postgres.missing()) is not None:
        sys.exit(reason)
    quick = arguments.quick
    rounds = 1 if quick else 3
    suites: dict[str, Callable[[PostgresServer], Table]] = {
        "commits": lambda server: commits(server, 20 if quick else 600),
        "one_by_one": lambda server: one_by_one(server, 20 if quick else 300),
        "contention": lambda server: contention(server, rounds, 1.0 if quick else 5.0),
        "visibility": lambda server: visibility(server, 50 if quick else 500),
        "failover": lambda server: failover(server, 1 if quick else 6),
        "agents": lambda server: several(server, 20_000 if quick else 150_000, rounds),
        "idle": lambda server: idle(server, rounds, 2.0 if quick else 15.0),
    }
    unknown = set(arguments.only or ()) - suites.keys()
    if unknown:
        parser.error(f"unknown benchmark {min(unknown)!r}; there are {', '.join(suites)}")
    tables: list[Table] = []
    with PostgresServer() as server:
        for name in arguments.only or suites:
            others, begun = Others(), time.monotonic()
            tables.append(suites[name](server))
            tables[-1].beside = others.describe()
            tables[-1].print()
            print(f"\n{time.monotonic() - begun:.0f} s; {tables[-1].beside}", flush=True)
    if not quick and not arguments.only:
        print(f"\nstored in {harness.store('cluster', tables)}")


if __name__ == "__main__":
    main()
