"""`python -m tests.breakages [NAME...]`: break the product in each way, or in those named; a test has to notice."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.breakages.table import BREAKAGES
from tests.breakages.tree import BadBreakage, Breakage, Tree, Verdict, judge

ROOT = Path(__file__).resolve().parent.parent.parent


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
        tree = Tree(ROOT, Path(directory))
        if not _is_green(tree, chosen):
            return 2
        unnoticed = [breakage.name for breakage in chosen if not _is_noticed(tree, breakage)]
    if unnoticed:
        _say(f"\nnot caught: {', '.join(unnoticed)}")
    return 1 if unnoticed else 0


def _is_green(tree: Tree, breakages: Sequence[Breakage]) -> bool:
    """Whether the tests pass while nothing is broken; otherwise their failures would show nothing."""
    began = time.perf_counter()
    tests = sorted({test for breakage in breakages for test in breakage.caught_by})
    exit_code, output = tree.run(tests)
    if exit_code:
        _say(f"{output}\nthe tests fail though nothing is broken (pytest exited with {exit_code})")
        return False
    _say(f"{len(tests)} tests pass while nothing is broken ({time.perf_counter() - began:.1f} s)\n")
    _say("| breakage | promise | caught by | seconds |\n|---|---|---|---:|")
    return True


def _is_noticed(tree: Tree, breakage: Breakage) -> bool:
    """Break, test, mend; a row of the table."""
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
    _say(f"| {breakage.name} | {breakage.promise} | {caught} | {time.perf_counter() - began:.1f} |")
    if verdict.caught_by is None:
        sys.stderr.write(f"{output}\n")
    return verdict.caught_by is not None


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
