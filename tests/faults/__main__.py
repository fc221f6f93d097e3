"""Real processes and everything that can happen to them, by chance and from a seed; the verifier has the last word.

- `python -m tests.faults --seed 7`: one run of 60 s
- `python -m tests.faults --seed 7 --show`: its schedule alone
- `python -m tests.faults --seed 0 --minutes 60`: sixty runs, with the seeds from 0 on
- `python -m tests.faults --seed 1 --break write-under-a-lost-lease`: one run over a product that is broken so

It needs PostgreSQL's server programs, takes Ceph's S3 gateway where that is installed, and root for namespaces and
mounts; what it has to do without is said. WARP_TEST_REQUIRE_ALL=1: then it is a failure.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.faults.broken import NAMES, broken_copy
from tests.faults.places import PLACES
from tests.faults.run import Run
from tests.faults.schedule import Schedule, draw, place_of
from tests.support import postgres

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "faults" / "failed"
PROBLEMS_SHOWN = 30


def main() -> int:
    """Exit code 0: no promise was broken. 1: some were; 2: nothing can be run here; 130: it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=0, help="what happens when; the first one of several")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of one run, without what comes before and after"
    )
    parser.add_argument("--place", choices=sorted(PLACES), help="default: three seeds of four a cluster")
    parser.add_argument("--minutes", type=float, help="so many minutes of runs in all")
    parser.add_argument("--at-once", type=int, default=1, help="how many of several")
    parser.add_argument("--show", action="store_true", help="print the schedule, and do nothing")
    parser.add_argument(
        "--break",
        dest="breakage",
        metavar="NAME",
        choices=NAMES,
        help="break the product so; see tests.breakages",
    )
    options = parser.parse_args()
    if not options.show and (reason := _missing(options.place)) is not None:
        print(f"nothing can be run here: {reason}", file=sys.stderr)
        return 2
    try:
        if options.breakage is not None:
            with _orderly_end(), broken_copy(ROOT, options.breakage) as copy:
                return _several(options, copy)
        if options.minutes is not None:
            return _several(options, ROOT)
        schedule = draw(options.seed, options.seconds, options.place or place_of(options.seed))
        print(schedule, flush=True)
        return 0 if options.show or _one(schedule) else 1
    except KeyboardInterrupt:
        print("ended before its time")
        return 130


def _missing(place: str | None) -> str | None:
    """Why there can be no run here at all, None when there can."""
    if shutil.which("setpriv") is None:
        return "setpriv is not installed (Debian: apt-get install util-linux)"
    return None if place == "local" else postgres.missing()


def _one(schedule: Schedule) -> bool:
    """One run, in this process. Did all go well?"""
    begin_s = time.monotonic()

    def say(text: str) -> None:
        print(f"[seed {schedule.seed}] {time.monotonic() - begin_s:5.1f}: {text}", flush=True)

    with _orderly_end() as clean_up_undisturbed, tempfile.TemporaryDirectory(prefix="warp-faults-") as name:
        directory = Path(name)
        with PLACES[schedule.place](directory, schedule.seed) as place:
            run = Run(place, schedule, say)
            for reason in place.lacks:
                say(f"to do without: {reason}")
                if os.environ.get("WARP_TEST_REQUIRE_ALL", "") not in ("", "0"):
                    run.problems.append(f"done without where everything must run: {reason}")
            try:
                run.work()
            except Exception:  # noqa: BLE001  whatever it is, logs are kept and the run has failed
                run.problems.append(f"the run itself: {traceback.format_exc()}")
            report = "\n".join(f"  {line}" for line in run.report().splitlines())
            say(f"\n{report}")
            if run.problems:
                kept = KEPT / f"seed-{schedule.seed}-{schedule.place}"
                run.save_logs(kept)
                for problem in run.problems[:PROBLEMS_SHOWN]:
                    say(f"PROBLEM {problem}")
                replay = f"--seed {schedule.seed} --seconds {schedule.seconds:g} --place {schedule.place}"
                say(f"{len(run.problems)} problems; logs in {kept}; again: python -m tests.faults {replay}")
            clean_up_undisturbed()
    say(f"{'FAILED' if run.problems else 'passed'}, {time.monotonic() - begin_s:.0f} s in all")
    return not run.problems


def _several(options: argparse.Namespace, tree: Path) -> int:
    """As many runs as fit, some at once, each in a process of its own. What fails does not stop the others."""
    count = max(1, round((options.minutes or 0.0) * 60 / options.seconds))
    failed: list[int] = []
    lock = threading.Lock()
    children: set[subprocess.Popen[str]] = set()
    is_over = False

    def one(seed: int) -> None:
        with lock:
            if is_over:
                return
            child = _started(seed, options, tree)
            children.add(child)
        with child:
            assert child.stdout is not None
            for line in child.stdout:
                with lock:
                    print(line, end="", flush=True)
        children.discard(child)
        if child.returncode:
            failed.append(seed)

    seeds = range(options.seed, options.seed + count)
    with _orderly_end(), ThreadPoolExecutor(options.at_once) as runs:
        try:
            list(runs.map(one, seeds))
        except BaseException:
            with lock:
                is_over = True
            for child in list(children):
                child.send_signal(signal.SIGTERM)
            raise
    told = f"{count - len(failed)} passed; failed: {sorted(failed) or 'none'}"
    print(f"{count} runs, seeds {seeds[0]} to {seeds[-1]}: {told}")
    return 1 if failed else 0


def _started(seed: int, options: argparse.Namespace, tree: Path) -> subprocess.Popen[str]:
    """One run in a process that is told to end with this one, and puts everything right before it does."""
    environment = dict(os.environ)
    if tree != ROOT:
        environment["PYTHONPATH"] = str(tree)
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "tests.faults"]
    command += ["--seed", str(seed), "--seconds", str(options.seconds)]
    if options.place is not None:
        command += ["--place", options.place]
    # In a session of its own, so that Ctrl-C comes to it once: from here.
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tree, env=environment,
        start_new_session=True,
    )  # fmt: skip


@contextmanager
def _orderly_end() -> Iterator[Callable[[], None]]:
    """SIGTERM and Ctrl-C end everything that was started, and remove what was mounted; a second one changes nothing.

    Nor does the first after the call of what is given here.
    """

    def ignore() -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)

    def stop(*_: object) -> None:
        ignore()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    raise SystemExit(main())
