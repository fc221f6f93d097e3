"""`python -m tests.sim --seeds 0..9999`: run seeds, and show the history of those that fail."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.sim.batch import Progress, cores, run_seeds
from tests.sim.cluster import has_cluster
from tests.sim.story import LINES_MAX
from tests.sim.world import simulate


def main() -> int:
    """Exit code 0: no promise was broken, and every twentieth seed gave the same history twice."""
    options = _options()
    seeds = [seed for seed in options.seeds if has_cluster(seed) or not options.clusters]
    if options.show or options.digests:
        for seed in seeds:
            outcome = simulate(seed)
            _say("\n".join(outcome.history.lines) if options.show else f"{seed} {outcome.digest}")
        return 0
    failed: list[int] = []
    totals: Counter[str] = Counter()
    progress = Progress(len(seeds))
    began_s = time.perf_counter()
    for result in run_seeds(seeds, options.processes, lines_max=options.lines):
        if result.problems:
            failed.append(result.seed)
            progress.end()
            _say(result.report)
        totals += result.figures
        progress.add(result)
    progress.end()
    took_s = time.perf_counter() - began_s
    _say(", ".join(f"{name.replace('_', ' ')} {total:,}" for name, total in totals.items()))
    _say(f"{len(seeds)} seeds, {len(failed)} failed {sorted(failed)} in {took_s:.0f} s")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(50), help="FIRST..LAST, or one seed")
    parser.add_argument(
        "--processes", type=int, default=cores(), help="how many at once (default: the cores)"
    )
    parser.add_argument(
        "--clusters", action="store_true", help="of these seeds, only those that have a cluster"
    )
    parser.add_argument(
        "--lines", type=int, default=LINES_MAX, help="lines of a failed seed's history around what went wrong"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the whole history of each seed, no verdict"
    )
    parser.add_argument("--digests", action="store_true", help="print each seed's digest, nothing else")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _seeds(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


if __name__ == "__main__":
    raise SystemExit(main())
