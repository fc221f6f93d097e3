"""Runs the macro benchmarks: `python -m benchmarks.macro [--quick] [--only NAME ...]`.

Prints Markdown tables, and after a full run stores benchmarks/results/macro.json. About ten minutes; `--only s3` runs
all those on S3 in four. What others took of the processors meanwhile is told and stored with the figures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from benchmarks.macro import bench_groups, bench_s3, bench_s3_client, bench_s3_reads, harness
from benchmarks.macro.bench_agent import latency, start_and_memory, throughput
from benchmarks.macro.bench_yardsticks import beside_stub, flood, partitions
from benchmarks.macro.harness import Others, Table


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the data and one round: a smoke test"
    )
    parser.add_argument("--only", action="append", metavar="NAME")
    arguments = parser.parse_args()
    quick = arguments.quick
    count, rounds, seconds = (30_000, 1, 2) if quick else (300_000, 3, 5)
    suites: dict[str, Callable[[], Table]] = {
        "start": lambda: start_and_memory(2 * rounds - 1, count),
        "latency": lambda: latency(seconds, rounds),
        "partitions": lambda: partitions(seconds, rounds),
        "flood": lambda: flood(rounds, seconds * 2 / 5),
        "stub": lambda: beside_stub(count, rounds),
        "throughput": lambda: throughput(count, rounds),
        "groups-large": lambda: bench_groups.large_groups((count // 300,)),
        "groups-living": lambda: bench_groups.living_members((count // 300,), 2 * seconds),
        "groups-commits": lambda: bench_groups.many_commits((100,), seconds),
        "s3-start": lambda: bench_s3.start(2 * rounds - 1),
        "s3-latency": lambda: bench_s3.latency(seconds),
        "s3-window": lambda: bench_s3.window(count * 2 // 3, min(rounds, 2)),
        "s3-slow-puts": lambda: bench_s3.slow_puts(4 * seconds),
        "s3-reads": lambda: bench_s3_reads.reads(count),
        "s3-throughput": lambda: bench_s3.throughput(count, rounds),
        "s3-client": lambda: bench_s3_client.s3_client(count // 5000, min(rounds, 2)),
    }
    names = [name for name in suites if _is_wanted(name, arguments.only)]
    unknown = [only for only in arguments.only or [] if not any(_is_wanted(name, [only]) for name in names)]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are {', '.join(suites)}")
    tables: list[Table] = []
    all_others = Others()
    for name in names:
        others, begin = Others(), time.monotonic()
        tables.append(suites[name]())
        tables[-1].beside = others.describe()
        tables[-1].print()
        print(f"\n{time.monotonic() - begin:.0f} s; {tables[-1].beside}", flush=True)
    print(f"\nall: {all_others.describe()}")
    if not quick and not arguments.only:
        print(f"stored in {harness.store('macro', tables)}")


def _is_wanted(name: str, only: list[str] | None) -> bool:
    """`s3` stands for all benchmarks whose names begin with `s3-`."""
    return not only or any(name == each or name.startswith(f"{each}-") for each in only)


if __name__ == "__main__":
    main()
