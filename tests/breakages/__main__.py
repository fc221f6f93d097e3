"""`python -m tests.breakages [NAME...]`: break the product in each way, or in those named; a test has to notice."""

from __future__ import annotations

import argparse
import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tests.breakages.table import BREAKAGES
from tests.breakages.tree import BadBreakage, Breakage, Tree, Verdict, judge

ROOT = Path(__file__).resolve().parent.parent.parent
COPIES_MAX = 4

T = TypeVar("T")
R = TypeVar("R")


def main() -> int:
    """Exit code 0: every breakage was noticed. 1: one was not. 2: the tests fail also when nothing is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.breakages", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="breakages; all of them without")
    parser.add_argument("--list", action="store_true", help="print the names, promises and files alone")
    options = parser.parse_args()
    known = {breakage.name: breakage for breakage in BREAKAGES}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no such breakage: {', '.join(unknown)}")
    chosen = [known[name] for name in options.names] or list(BREAKAGES)
    if options.list:
        for breakage in chosen:
            _say(f"{breakage.promise}  {breakage.name}  {breakage.file}")
        return 0
    with tempfile.TemporaryDirectory(prefix="warp-breakages-") as directory:
        copies = min(os.cpu_count() or 1, COPIES_MAX, len(chosen))
        trees = [Tree(ROOT, Path(directory, str(number))) for number in range(copies)]
        if not _is_green(trees, chosen):
            return 2
        unnoticed = []
        for breakage, (is_noticed, row) in zip(chosen, _spread(trees, _notice, chosen), strict=True):
            _say(row)
            if not is_noticed:
                unnoticed.append(breakage.name)
    if unnoticed:
        _say(f"\nnot caught: {', '.join(unnoticed)}")
    return 1 if unnoticed else 0


def _spread(trees: Sequence[Tree], act: Callable[[Tree, T], R], items: Sequence[T]) -> Iterator[R]:
    """`act` on each item in a tree that nobody else uses meanwhile; the results in the order of the items."""
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)

    def act_on(item: T) -> R:
        tree = free.get()
        try:
            return act(tree, item)
        finally:
            free.put(tree)

    with ThreadPoolExecutor(len(trees)) as pool:
        yield from pool.map(act_on, items)


def _is_green(trees: Sequence[Tree], breakages: Sequence[Breakage]) -> bool:
    """Whether the tests pass while nothing is broken; otherwise their failures would show nothing."""
    began = time.perf_counter()
    tests = sorted({test for breakage in breakages for test in breakage.caught_by})
    shares = [share for number in range(len(trees)) if (share := tests[number :: len(trees)])]
    for exit_code, output in _spread(trees, Tree.run, shares):
        if exit_code:
            _say(f"{output}\nthe tests fail though nothing is broken (pytest exited with {exit_code})")
            return False
    _say(f"{len(tests)} tests pass while nothing is broken ({time.perf_counter() - began:.1f} s)\n")
    _say("| breakage | promise | caught by | seconds |\n|---|---|---|---:|")
    return True


def _notice(tree: Tree, breakage: Breakage) -> tuple[bool, str]:
    """Break, test, mend; whether a test noticed, and a row of the table."""
    began = time.perf_counter()
    output = ""
    try:
        with tree.broken(breakage):
            exit_code, output = tree.run(breakage.caught_by)
    except BadBreakage as error:
        verdict = Verdict(None, str(error))
    else:
        verdict = judge(exit_code, output)
    caught = verdict.caught_by or f"**NOT CAUGHT**: {verdict.told}"
    row = f"| {breakage.name} | {breakage.promise} | {caught} | {time.perf_counter() - began:.1f} |"
    return verdict.caught_by is not None, row if verdict.caught_by else f"{row}\n{output}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
