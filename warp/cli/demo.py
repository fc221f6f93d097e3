"""`warp demo`: a broker, a producer and a consumer at work, to be watched.

The broker is a real `warp agent` in a process of its own, on free ports of the loopback address and with its data in a
temporary directory. Producer and consumer use librdkafka, as somebody's own programs would.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warp.cli.arguments import Parser, positive_count, positive_seconds
from warp.cli.demo_load import Load, Sample
from warp.config import ENVIRONMENT_PREFIX
from warp.errors import StartError
from warp.units import approximate_size

EXAMPLES = """\
  warp demo
  warp demo --seconds 10 --rate 2000
  warp demo | cat                      # plain lines, as in scripts
"""
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 40.0
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
        with _Broker(directory) as broker:
            print(f"A broker runs in a process of its own (process {broker.pid}), its data in {directory}.")
            print(
                f"Records of {found.record_bytes} bytes go through topic {TOPIC!r}, {found.rate} per second."
            )
            print(f"\nYour own client, while this runs:\n  {_paste_line(broker.bootstrap)}\n")
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


def _watch(load: Load, broker: _Broker, seconds: float | None) -> bool:
    """Show the load until the time is over or the user has seen enough, then sum up. True when something broke."""
    view = _LiveView() if sys.stdout.isatty() else _PlainView()
    until = None if seconds is None else time.monotonic() + seconds
    load.start()
    try:
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


class _Broker:
    """A `warp agent` process with embedded defaults, on free ports; ended on exit."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._log: deque[str] = deque(maxlen=20)
        self.bootstrap = ""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> _Broker:
        # The demo shows the defaults, whatever this shell has set for other agents.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)
        }
        package_parent = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [package_parent, environment.get("PYTHONPATH")])
        )
        command = [
            sys.executable, "-m", "warp", "agent", "--data-dir", str(self._directory), "--listen", "127.0.0.1:0",
            "--http", "127.0.0.1:0", "--log-level", "warning",
        ]  # fmt: skip
        # A process group of its own: Ctrl-C is for the demo, which then stops its broker in order.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        try:
            self._wait_until_it_serves()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process in order; by force when it does not end."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def require_alive(self) -> None:
        """Raises StartError, with the end of its log, when the process is gone."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise StartError(f"the broker ended with code {self._process.returncode}: {self._last_words()}")

    def _wait_until_it_serves(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        reader = threading.Thread(target=self._read_log, daemon=True)
        reader.start()
        # A broker that hangs before it serves is ended, which ends the wait below.
        timer = threading.Timer(START_TIMEOUT_S, self._process.kill)
        timer.daemon = True
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        match = re.search(r"serves Kafka on (\S+?:\d+)", line)
        if match is None:
            self._process.wait(STOP_TIMEOUT_S)
            reader.join(1)
            raise StartError(f"the broker did not start: {self._last_words()}")
        self.bootstrap = match[1]

    def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line.strip())

    def _last_words(self) -> str:
        return " / ".join(list(self._log)[-3:]) or "it left no message"


class _PlainView:
    """One line per sample, for pipes and files."""

    def show(self, sample: Sample) -> None:
        """Print the sample."""
        print(sample.text(), flush=True)


class _LiveView:
    """A few lines that are drawn again and again, with a small history, for terminals."""

    LINES = 6
    BARS = " ▁▂▃▄▅▆▇█"

    def __init__(self) -> None:
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._is_drawn = False

    def show(self, sample: Sample) -> None:
        """Draw the sample over the last one."""
        self._history.append(sample.consumed_bytes_per_s)
        produced, consumed = map(approximate_size, (sample.produced_bytes_per_s, sample.consumed_bytes_per_s))
        half, most = sample.latency_ms(0.5), sample.latency_ms(0.99)
        rows = [
            f"produced   {sample.produced_per_s:>10,.0f} records/s   {produced}/s",
            f"consumed   {sample.consumed_per_s:>10,.0f} records/s   {consumed}/s",
            f"latency    {half:>7.1f} ms half   {most:>7.1f} ms 99 of 100   (from send to receive)",
            f"lag        {sample.lag:>10,} records   in total {sample.consumed_total:,}",
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
