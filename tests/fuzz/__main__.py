"""`python -m tests.fuzz --minutes 3`: fuzz the targets, two at a time, and say what was found and how to see it again.

With `--replay FILE --target NAME` one input is given to one target on the build in place, as a debugger would want it.
"""

from __future__ import annotations

import argparse
import atexit
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fuzz import corpus, figures
from tests.fuzz.places import WORK
from tests.fuzz.process import Slice, explain, fuzz, interesting, kill_all, prepare, run
from tests.fuzz.table import TABLE

SLICE_MINUTES: Final = 10.0
"""How long a target runs before it is the next one's turn, if there is so much time."""
FINDS_MAX: Final = 20
"""Of one target; a target that has found so much in one run is left alone."""
OUTPUT_LINES: Final = 40


def main() -> int:
    """Exit code 0: nothing was found."""
    options = parse_options(sys.argv[1:])
    targets = options.target or list(TABLE)
    if options.figures:
        print(figures.table(options.log, targets))
        return 0
    if options.replay:
        for path in options.replay:
            TABLE[targets[0]].load().check(path.read_bytes())
        print(f"{len(options.replay)} inputs, nothing found")
        return 0
    if options.minimise:
        return _minimise(targets, options.corpus)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    atexit.register(kill_all)
    campaign = Campaign(targets, options)
    campaign.run()
    print(campaign.report())
    return 1 if campaign.finds or campaign.failures else 0


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """What stands on the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="in all, by the clock")
    parser.add_argument(
        "--target", action="append", choices=sorted(TABLE), help="default: all, one after the other"
    )
    parser.add_argument("--slice-minutes", type=float, default=SLICE_MINUTES, help="of one target at a time")
    parser.add_argument("--at-once", type=int, default=2, help="processes")
    parser.add_argument(
        "--corpus", type=Path, default=WORK / "corpus", help="where inputs are kept from run to run"
    )
    parser.add_argument(
        "--finds", type=Path, default=WORK / "finds", help="where inputs that find something go"
    )
    parser.add_argument("--log", type=Path, default=WORK / "log", help="a line for each target's slices")
    parser.add_argument("--figures", action="store_true", help="only print what the log comes to")
    parser.add_argument("--replay", type=Path, nargs="+", help="give these inputs to the target")
    parser.add_argument(
        "--minimise", action="store_true", help="pack the smallest set of inputs with the same coverage"
    )
    return parser.parse_args(arguments)


class Campaign:
    """All targets in turn, slice after slice, until the time is up."""

    def __init__(self, targets: Sequence[str], options: argparse.Namespace) -> None:
        self.finds: list[tuple[str, Path, str]] = []
        self.failures: list[str] = []
        self._targets = list(targets)
        self._at_once = min(options.at_once, len(targets))
        self._corpus: Path = options.corpus
        self._finds: Path = options.finds
        self._log: Path = options.log
        self._seconds = 60 * options.minutes
        self._ends_s = time.monotonic() + self._seconds
        self._slice_s = max(
            1, min(int(60 * options.slice_minutes), int(self._seconds * self._at_once / len(targets)))
        )
        self._lock = threading.Lock()
        self._turn = 0
        self._counts = dict.fromkeys(targets, 0)

    def run(self) -> None:
        """Fuzz."""
        for target in self._targets:
            prepare(target, self._corpus / target)
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def report(self) -> str:
        """What it came to."""
        lines = [
            f"FOUND in {target}: {summary}\n    {path}, report in {path.name}.txt\n    {_replay(target, path)}"
            for target, path, summary in self.finds
        ]
        lines += [f"FAILED: {failure}" for failure in self.failures]
        lines.append(figures.table(self._log, self._targets))
        lines.append(f"{len(self.finds)} finds, {len(self.failures)} failures")
        return "\n".join(lines)

    def _work(self) -> None:
        while (target := self._next()) is not None:
            left_s = self._ends_s - time.monotonic()
            made = fuzz(
                target, max(1, min(self._slice_s, int(left_s))), self._corpus / target, self._finds / target
            )
            figures.note(self._log, made, time.time())
            for find in made.finds:
                explain(target, find)
            with self._lock:
                self._take(made)

    def _next(self) -> str | None:
        with self._lock:
            is_over = time.monotonic() >= self._ends_s and self._turn >= len(self._targets)
            if is_over or not self._targets:
                return None
            target = self._targets[self._turn % len(self._targets)]
            self._turn += 1
            return target

    def _take(self, made: Slice) -> None:
        sys.stderr.write(
            f"{time.strftime('%H:%M:%S')} {made.target}: {made.executions:,} executions in {made.seconds:.0f} s, "
            f"{made.edges:,} edges, {made.features:,} features, {made.inputs} inputs\n"
        )
        for path in made.finds:
            self.finds.append((made.target, path, _summary(made)))
            self._counts[made.target] += 1
            sys.stderr.write(f"FOUND in {made.target}: {path}\n{_last_lines(made)}\n")
        if made.failure:
            self.failures.append(f"{made.target} {made.failure}")
            self._counts[made.target] += 1
            sys.stderr.write(f"FAILED: {made.target} {made.failure}\n{_last_lines(made)}\n")
        if self._counts[made.target] >= FINDS_MAX and made.target in self._targets:
            self._targets.remove(made.target)


def _summary(made: Slice) -> str:
    """The line that says what is wrong."""
    lines = [line.strip() for line in made.output.splitlines()]
    for index, line in enumerate(lines):
        if "Uncaught Python exception" in line and index + 1 < len(lines):
            return lines[index + 1]
    for line in lines:
        if line.startswith("SUMMARY:") or "runtime error:" in line:
            return line
    return "see its output"


def _last_lines(made: Slice) -> str:
    """What was printed about the end, without the fuzzer's progress."""
    return "\n".join(interesting(made)[-OUTPUT_LINES:])


def _replay(target: str, path: Path) -> str:
    return f"see it again: .venv/bin/python -m tests.fuzz --target {target} --replay {path}"


def _minimise(targets: Sequence[str], folder: Path) -> int:
    """Keep of each corpus what is needed to reach all that it reaches, the small inputs first, and pack that."""
    for target in targets:
        kept = folder / f"{target}.kept"
        kept.mkdir(parents=True, exist_ok=True)
        prepare(target, folder / target)
        made = run(
            target,
            3600,
            "-set_cover_merge=1",
            f"-max_len={TABLE[target].load().input_bytes_max}",
            str(kept),
            str(folder / target),
        )
        inputs = [path.read_bytes() for path in kept.iterdir()]
        for path in kept.iterdir():
            path.unlink()
        kept.rmdir()
        if made.failure or not inputs:
            print(f"{target}: {made.failure or 'nothing left'}\n{_last_lines(made)}")
            return 1
        seeds = {corpus.name_of(seed) for seed in TABLE[target].load().seeds()}
        size = corpus.pack(target, (data for data in inputs if corpus.name_of(data) not in seeds))
        print(f"{target}: {len(inputs)} inputs, packed in {size:,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
