"""Real processes and everything that can happen to them, by chance and from a seed; the verifier has the last word.

- `python -m tests.faults --seed 7`: one run of 60 s
- `python -m tests.faults --seed 7 --show`: its schedule alone
- `python -m tests.faults --seed 0 --minutes 60`: sixty runs, with the seeds from 0 on

WARP_TEST_REQUIRE_ALL=1: a kind of misfortune that can't be had here, for want of a right or a program, is a failure.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.faults.places import PLACES
from tests.faults.run import Run
from tests.faults.schedule import Schedule, draw, place_of

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "faults" / "failed"
PROBLEMS_SHOWN = 30


def main() -> int:
    """Exit code 0: no promise was broken. 1: some were; 130: it was interrupted."""
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
    options = parser.parse_args()
    try:
        if options.minutes is not None:
            return _several(options)
        schedule = draw(options.seed, options.seconds, options.place or place_of(options.seed))
        print(schedule, flush=True)
        return 0 if options.show or _one(schedule) else 1
    except KeyboardInterrupt:
        print("ended before its time")
        return 130


def _one(schedule: Schedule) -> bool:
    """One run, in this process. Did all go well?"""
    begin_s = time.monotonic()

    def say(text: str) -> None:
        print(f"[seed {schedule.seed}] {time.monotonic() - begin_s:5.1f}: {text}", flush=True)

    with _orderly_end(), tempfile.TemporaryDirectory(prefix="warp-faults-") as name:
        directory = Path(name)
        with PLACES[schedule.place](directory, schedule.seed) as place:
            run = Run(place, schedule, say)
            for kind, reason in place.left_out.items():
                say(f"left out: {kind.value}: {reason}")
                if os.environ.get("WARP_TEST_REQUIRE_ALL", "") not in ("", "0"):
                    run.problems.append(f"left out where everything must run: {kind.value}: {reason}")
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
    say(f"{'FAILED' if run.problems else 'passed'}, {time.monotonic() - begin_s:.0f} s in all")
    return not run.problems


def _several(options: argparse.Namespace) -> int:
    """As many runs as fit, some at once, each in a process of its own. What fails does not stop the others."""
    count = max(1, round(options.minutes * 60 / options.seconds))
    failed: list[int] = []
    lock = threading.Lock()
    children: set[subprocess.Popen[str]] = set()

    def one(seed: int) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.faults",
            "--seed",
            str(seed),
            "--seconds",
            str(options.seconds),
        ]
        if options.place is not None:
            command += ["--place", options.place]
        # In a session of its own, so that Ctrl-C comes to it once: from here.
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
        ) as child:  # fmt: skip
            children.add(child)
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
            runs.shutdown(wait=False, cancel_futures=True)
            for child in list(children):
                child.send_signal(signal.SIGINT)
            raise
    told = f"{count - len(failed)} passed; failed: {sorted(failed) or 'none'}"
    print(f"{count} runs, seeds {seeds[0]} to {seeds[-1]}: {told}")
    return 1 if failed else 0


@contextmanager
def _orderly_end() -> Iterator[None]:
    """SIGTERM and Ctrl-C end everything that was started, and remove what was mounted; a second one changes nothing."""

    def stop(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    raise SystemExit(main())
