"""`python -m tests.sim --seeds 0..999`: run seeds, and show the history of those that fail."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.cluster import has_cluster
from tests.sim.world import Outcome, simulate

HISTORY_LINES = 200
PROBLEMS_SHOWN = 20


def main() -> int:
    """Exit code 0: no promise was broken, and every tenth seed gave the same history twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(50), help="FIRST..LAST, or one seed")
    parser.add_argument(
        "--clusters", action="store_true", help="of these seeds, only those that have a cluster"
    )
    parser.add_argument("--lines", type=int, default=HISTORY_LINES, help="lines of a failed seed's history")
    parser.add_argument("--show", action="store_true", help="print the whole history of each seed")
    parser.add_argument("--digests", action="store_true", help="print each seed's digest, nothing else")
    options = parser.parse_args()
    failed = []
    began = time.perf_counter()
    seeds = [seed for seed in options.seeds if has_cluster(seed) or not options.clusters]
    for number, seed in enumerate(seeds):
        outcome = simulate(seed)
        problems = list(outcome.violations)
        if options.digests:
            _say(f"{seed} {outcome.digest}")
            continue
        if options.show:
            _say("\n".join(outcome.history.lines))
        if number % 10 == 0 and simulate(seed).digest != outcome.digest:
            problems.append("the same seed gave another history")
        if problems:
            failed.append(seed)
            _say(report(outcome, problems, options.lines))
        elif sys.stderr.isatty() or number % 50 == 0:
            sys.stderr.write(summary(outcome) + "\n")
    if not options.digests:
        took_s = time.perf_counter() - began
        _say(f"{len(seeds)} seeds, {len(failed)} failed {failed} in {took_s:.0f} s")
    return 1 if failed else 0


def summary(outcome: Outcome) -> str:
    """A line on what a seed went through."""
    return (
        f"seed {outcome.seed}: {outcome.acknowledged} batches acknowledged, {outcome.records_read} records read, "
        f"{outcome.crashes} crashes, {outcome.faults} faults, "
        f"{outcome.hedges_won} of {outcome.hedges} hedges won, {outcome.groups} groups, "
        f"{outcome.group_commits} commits of theirs, {outcome.merges} merges, "
        f"{outcome.objects_deleted} objects deleted, {outcome.steps} steps, {outcome.virtual_s:.0f} s"
    )


def report(outcome: Outcome, problems: list[str], lines: int) -> str:
    """What went wrong, and how it came to it."""
    return "\n".join(
        (
            f"=== seed {outcome.seed}: the last {lines} lines of its history",
            outcome.history.tail(lines),
            summary(outcome),
            *(f"  {problem}" for problem in problems[:PROBLEMS_SHOWN]),
            f"  {len(problems)} problems in all",
            f"again: python -m tests.sim --seeds {outcome.seed} --show",
        )
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    raise SystemExit(main())
