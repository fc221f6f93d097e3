"""What the micro benchmarks share: contenders that take turns, medians, Markdown tables and JSON.

Absolute figures move with the machine and with whatever else runs on it; ratios within one run hold better. So all
contenders of a comparison run in turn, round by round, on one pinned processor, in processor time, and what is held
against a target is the ratio of their medians.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"
SAMPLE_SECONDS = 0.02
"""How long one sample of a contender lasts, by repeating its call; a slower call is repeated once."""

ROUNDS, QUICK_ROUNDS = 21, 5
SLOW_ROUNDS = 3
"""Of contenders marked slow, whose single call takes longer than a sample should."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work. `run` does it once and checks nothing."""

    name: str
    run: Callable[[], object]
    slow: bool = False


@dataclass(frozen=True)
class Target:
    """What is asked of the ratio of two contenders' speeds: `fast` is at least `at_least` times as fast as `than`."""

    fast: str
    than: str
    at_least: float


@dataclass(frozen=True)
class Row:
    """One contender's figures."""

    contender: str
    seconds: float
    """The median processor time of one call."""
    rate: float
    """Work done per second, in the comparison's unit."""


@dataclass(frozen=True)
class Verdict:
    """A target and the ratio that was found."""

    fast: str
    than: str
    at_least: float
    ratio: float

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.at_least


@dataclass(frozen=True)
class Comparison:
    """The outcome of one comparison; `unit` is what `rate` counts per second."""

    title: str
    unit: str
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]


def compare(
    title: str,
    contenders: Sequence[Contender],
    *,
    work: float,
    unit: str,
    targets: Iterable[Target] = (),
    quick: bool = False,
) -> Comparison:
    """Let the contenders take turns and compare their medians. One call of each does `work` in `unit`."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    calls = {each.name: _calls_per_sample(each) for each in contenders}
    samples: dict[str, list[float]] = {each.name: [] for each in contenders}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            # Another one begins each round, so that none always follows the same one.
            for each in [*contenders[turn % len(contenders) :], *contenders[: turn % len(contenders)]]:
                if not each.slow or turn < SLOW_ROUNDS:
                    samples[each.name].append(_sample(each.run, calls[each.name]))
    finally:
        gc.enable()
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return Comparison(
        title,
        unit,
        [Row(name, seconds, work / seconds) for name, seconds in medians.items()],
        [
            Verdict(each.fast, each.than, each.at_least, medians[each.than] / medians[each.fast])
            for each in targets
        ],
    )


def _calls_per_sample(contender: Contender) -> int:
    contender.run()
    if contender.slow:
        return 1
    return max(1, round(SAMPLE_SECONDS / max(_sample(contender.run, 1), 1e-9)))


def _sample(run: Callable[[], object], calls: int) -> float:
    """Seconds of processor time per call; time that others take from this process is not in it."""
    start = time.process_time_ns()
    for _ in range(calls):
        run()
    return (time.process_time_ns() - start) / calls / 1e9


# ---- what is printed and stored ----


def markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown table, and a list of its targets."""
    lines = [
        f"### {comparison.title}",
        "",
        f"| | time per call | {comparison.unit}/s |",
        "|---|--:|--:|",
        *(f"| {row.contender} | {duration(row.seconds)} | {quantity(row.rate)} |" for row in comparison.rows),
        "",
    ]
    for verdict in comparison.verdicts:
        found = f"{quantity(verdict.ratio)} x {verdict.than}"
        wanted = f"wanted ≥ {quantity(verdict.at_least)} x"
        lines.append(f"- {verdict.fast}: {found} ({wanted}{'' if verdict.is_met else ', **missed**'})")
    return "\n".join(lines) + ("\n" if comparison.verdicts else "")


def duration(seconds: float) -> str:
    """A time in the unit that suits it: `1.23 µs`."""
    for factor, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def quantity(value: float) -> str:
    """A number to three digits: `0.957`, `7,997`, `76.4 M`."""
    for factor, suffix in ((1e9, " G"), (1e6, " M")):
        if value >= factor:
            return f"{value / factor:.3g}{suffix}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def store(name: str, comparisons: Sequence[Comparison]) -> Path:
    """Write the comparisons of one run to benchmarks/results/<name>.json, with what they ran on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"environment": environment(), "comparisons": [asdict(each) for each in comparisons]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def environment() -> dict[str, str | int | float]:
    """What the figures depend on beside the code."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": models[0] if models else "unknown",
        "processors": os.cpu_count() or 1,
        "load_average": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main(name: str, run: Callable[[bool], Sequence[Comparison]]) -> int:
    """The command line of one benchmark: `[--quick] [--no-store]`. Returns 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.micro.bench_{name}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it runs")
    parser.add_argument("--no-store", action="store_true", help="leave benchmarks/results/ as it is")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    comparisons = run(options.quick)
    for comparison in comparisons:
        print(markdown(comparison))
    if not options.no_store and not options.quick:
        store(f"micro-{name}", comparisons)
    missed = [verdict for comparison in comparisons for verdict in comparison.verdicts if not verdict.is_met]
    for verdict in missed:
        print(f"missed: {verdict.fast} at {verdict.ratio:.3g} x {verdict.than}", file=sys.stderr)
    return 1 if missed else 0
