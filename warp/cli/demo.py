"""`warp demo`: a broker, a producer and a consumer at work, to be watched.

The broker is a real `warp agent` in a process of its own, on free ports of the loopback address and with its data in a
temporary directory. Producer and consumer use librdkafka, as somebody's own programs would.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warp.cli.arguments import Parser, positive_count, positive_seconds
from warp.cli.demo_load import GROUP, Load, Sample
from warp.cli.local_agent import LocalAgent
from warp.units import approximate_size

EXAMPLES = """\
  warp demo
  warp demo --seconds 10 --rate 2000
  warp demo | cat                      # plain lines, as in scripts
"""
INTERVAL_S: Final = 1.0
HISTORY: Final = 40
TOPIC: Final = "demo"


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    found = _parser().parse_all(words)
    # Whoever stops the demo in another way than Ctrl-C wants it as tidy.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="warp-demo-"))
    try:
        # Nobody else joins the demo's group, so there is nobody to wait for.
        with LocalAgent(directory, "--log-level", "warning", "--group-rebalance-delay", "0") as broker:
            print(f"A broker runs in a process of its own (process {broker.pid}), its data in {directory}.")
            print(
                f"Records of {found.record_bytes} bytes go through topic {TOPIC!r}, {found.rate} per second."
            )
            print(f"\nYour own client, while this runs:\n  {_paste_line(broker.bootstrap)}")
            print(f"  warp group describe {GROUP} --bootstrap {broker.bootstrap}\n")
            load = Load(broker.bootstrap, TOPIC, rate=found.rate, record_bytes=found.record_bytes)
            ended_early = _watch(load, broker, found.seconds)
    finally:
        if found.keep:
            print(f"The data stays in {directory}; run it again with: warp agent --data-dir {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if not found.keep:
        print("Nothing is left behind." if not directory.exists() else f"Could not remove {directory}.")
    return 1 if ended_early else 0


def _watch(load: Load, broker: LocalAgent, seconds: float | None) -> bool:
    """Show the load until the time is over or the user has seen enough, then sum up. True when something broke."""
    view = _LiveView() if sys.stdout.isatty() else _PlainView()
    try:
        load.start()
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            left = INTERVAL_S if until is None else min(INTERVAL_S, max(0.05, until - time.monotonic()))
            time.sleep(left)
            broker.require_alive()
            load.require_alive()
            view.show(load.sample())
    except KeyboardInterrupt:
        print()
    summary = load.stop()
    print(summary.text())
    return summary.is_incomplete


def _paste_line(bootstrap: str) -> str:
    if shutil.which("kcat"):
        return f"kcat -b {bootstrap} -C -t {TOPIC} -o end"
    return f"warp consume {TOPIC} --bootstrap {bootstrap} --from end"


class _PlainView:
    """One line per sample, for pipes and files."""

    def show(self, sample: Sample) -> None:
        """Print the sample."""
        print(sample.text(), flush=True)


class _LiveView:
    """A few lines that are drawn again and again, with a small history, for terminals."""

    LINES = 7
    BARS = " ▁▂▃▄▅▆▇█"

    def __init__(self) -> None:
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._is_drawn = False

    def show(self, sample: Sample) -> None:
        """Draw the sample over the last one."""
        self._history.append(sample.consumed_bytes_per_s)
        produced, consumed = map(approximate_size, (sample.produced_bytes_per_s, sample.consumed_bytes_per_s))
        p50, p99 = sample.latency_ms(0.5), sample.latency_ms(0.99)
        rows = [
            f"produced   {sample.produced_per_s:>10,.0f} records/s   {produced}/s",
            f"consumed   {sample.consumed_per_s:>10,.0f} records/s   {consumed}/s",
            f"latency    p50 {p50:>7.1f} ms   p99 {p99:>7.1f} ms   (end to end, from send to receive)",
            f"lag        {sample.lag:>10,} records",
            f"group      {sample.committed_total:>10,} of {sample.consumed_total:,} records committed by {GROUP}",
            f"           {self._bars()}",
            "           Ctrl-C ends the demo",
        ]
        up = f"\x1b[{self.LINES}A" if self._is_drawn else ""
        sys.stdout.write(up + "".join(f"\x1b[2K{row}\n" for row in rows))
        sys.stdout.flush()
        self._is_drawn = True

    def _bars(self) -> str:
        top = max(self._history, default=0) or 1
        return "".join(self.BARS[round(value / top * (len(self.BARS) - 1))] for value in self._history)


def _parser() -> Parser:
    parser = Parser(
        "warp demo",
        "Run a broker with its defaults, send records through it, and show what happens. Needs no network.",
        EXAMPLES,
    )
    parser.add_argument(
        "-s",
        "--seconds",
        type=positive_seconds,
        metavar="SECONDS",
        help="End after this time; without it, at Ctrl-C.",
    )
    parser.add_argument(
        "--rate",
        type=positive_count,
        default=1000,
        metavar="NUMBER",
        help="Records per second. Default: 1000.",
    )
    parser.add_argument(
        "--record-bytes",
        type=positive_count,
        default=1000,
        metavar="NUMBER",
        help="Size of a record. Default: 1000.",
    )
    parser.add_argument("--keep", action="store_true", help="Leave the data directory behind, and say where.")
    return parser
