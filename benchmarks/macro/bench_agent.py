"""A whole agent beside its client: CPU per GB, latency, start, memory. Figures are ratios within one run.

`python -m benchmarks.macro` runs it and the other macro benchmarks. The agent runs on one processor and the load driver
(librdkafka in C) on another.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.macro import harness
from benchmarks.macro.harness import GB, Table, cpu_seconds, median, peak_mib, resident_mib
from tests.support.process import AgentProcess

AGENT_CPU, CLIENT_CPU = 0, 1
STORES = {
    "memory": ["--object-store", "mem://"],
    "local, fsync": [],
}
BIG_BATCHES = [
    "linger.ms=50",
    "batch.size=1000000",
    "batch.num.messages=100000",
    "queue.buffering.max.messages=500000",
]
FETCH = ["fetch.message.max.bytes=10000000", "queued.max.messages.kbytes=100000"]
SMALL_BATCHES = ["linger.ms=5", "batch.size=16384", "queue.buffering.max.messages=500000"]


class Run:
    """An agent for one group of measurements, with its own temporary directory."""

    def __init__(self, options: list[str], environment: dict[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warp-bench-")
        self.agent = AgentProcess(Path(self._folder.name) / "data", *options, environment=environment)

    def __enter__(self) -> AgentProcess:
        self.start()
        return self.agent

    def start(self) -> None:
        """Start the agent, on its own processor; also again after it was killed."""
        begin = time.monotonic()
        self.agent.start()
        self.agent.start_seconds = time.monotonic() - begin  # type: ignore[attr-defined]
        if (os.cpu_count() or 1) > 1:
            for thread in Path(f"/proc/{self.agent.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {AGENT_CPU})

    def __exit__(self, *_: object) -> None:
        self.agent.kill()
        self._folder.cleanup()


def measured(agent: AgentProcess, *arguments: object) -> dict[str, Any]:
    """One run of the load driver, with the agent's CPU seconds over it."""
    before = cpu_seconds(agent.pid)
    answer = harness.load(*arguments, cpu=CLIENT_CPU)
    answer["agent_cpu_seconds"] = cpu_seconds(agent.pid) - before
    return answer


def throughput(count: int, rounds: int) -> Table:
    """Produce, then fetch from the cache, for each store, codec and batch size; each round on an agent of its own.

    Compressed once: their figures are stated, not held against a target.
    """
    rows: list[list[Any]] = []
    for store, options in STORES.items():
        for codec in ("none", "lz4", "zstd"):
            for batch, properties in (("1 MB", BIG_BATCHES), ("16 KiB", SMALL_BATCHES)):
                produced, consumed = [], []
                for _ in range(rounds if codec == "none" else 1):
                    with Run([*options, "--cache-bytes", "512MiB"]) as agent:
                        warm_up(agent, count)
                        harness.create_topic(agent.bootstrap, "t", 1)
                        produced.append(measured(
                            agent, "produce", agent.bootstrap, "t", 1, count, 1024, 0,
                            f"compression.codec={codec}", *properties,
                        ))  # fmt: skip
                        consumed.append(measured(agent, "consume", agent.bootstrap, "t", 1, count, *FETCH))
                rows.append([store, codec, batch, *ratios(produced), *ratios(consumed)])
    return Table(
        "throughput",
        "Agent beside its client (librdkafka in C), 1 KiB records, one partition; CPU-seconds per GB of record values",
        ["store", "codec", "batches", "produce: agent", "client", "agent ÷ client", "MB/s",
         "fetch: agent", "client", "agent ÷ client", "MB/s"],
        rows,
    )  # fmt: skip


def warm_up(agent: AgentProcess, count: int) -> None:
    """Fill the cache, so that what is measured works with memory that the agent already has."""
    harness.create_topic(agent.bootstrap, "warm-up", 1)
    harness.load(
        "produce", agent.bootstrap, "warm-up", 1, count * 9 // 5, 1024, 0, *BIG_BATCHES, cpu=CLIENT_CPU
    )


def ratios(runs: list[dict[str, Any]]) -> list[float]:
    agent = median([run["agent_cpu_seconds"] * GB / run["bytes"] for run in runs])
    client = median([run["cpu_seconds"] * GB / run["bytes"] for run in runs])
    ratio = median([run["agent_cpu_seconds"] / run["cpu_seconds"] for run in runs])
    rate = median([run["bytes"] / run["seconds"] / 1e6 for run in runs])
    return [agent, client, ratio, rate]


def latency(seconds: int, rounds: int) -> Table:
    """Produce latency at low load (open loop), beside the same durable work done bare: one file and one commit."""
    rows: list[list[Any]] = []
    with Run([]) as agent, tempfile.TemporaryDirectory(prefix="warp-bench-") as folder:
        floor = durable_floor_us(Path(folder), 300)
        harness.create_topic(agent.bootstrap, "low", 1)
        harness.load("produce", agent.bootstrap, "low", 1, 100, 100, 100)
        for rate in (2, 50, 200):
            runs = [
                harness.load("produce", agent.bootstrap, "low", 1, max(rate * seconds, 20), 100, rate,
                             "linger.ms=0", cpu=CLIENT_CPU)
                for _ in range(rounds)
            ]  # fmt: skip
            p50 = median([run["p50_us"] for run in runs])
            rows.append(
                [rate, p50 / 1000, median([run["p99_us"] for run in runs]) / 1000, floor / 1000, p50 / floor]
            )
    return Table(
        "latency",
        "Produce latency at low load, local store (ms), beside one fsync'ed file write and one SQLite commit",
        ["records/s", "p50", "p99", "floor p50", "p50 ÷ floor"],
        rows,
    )


def durable_floor_us(folder: Path, rounds: int, *, with_file: bool = True) -> float:
    """p50 of: write and fsync a new 4 KiB file, fsync its directory, commit two rows to SQLite (WAL, FULL).

    Without the file, of the commit alone.
    """
    database = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
    database.execute("pragma journal_mode=wal")
    database.execute("pragma synchronous=full")
    database.execute("create table rows (id integer primary key, data blob)")
    directory = os.open(folder, os.O_RDONLY)
    took: list[float] = []
    for number in range(rounds):
        begin = time.perf_counter()
        if with_file:
            file = os.open(folder / f"{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(file, bytes(4096))
            os.fsync(file)
            os.close(file)
            os.fsync(directory)
        database.execute("begin immediate")
        database.executemany("insert into rows (data) values (?)", [(bytes(100),), (bytes(100),)])
        database.execute("commit")
        took.append((time.perf_counter() - begin) * 1e6)
        time.sleep(0.005)
    os.close(directory)
    database.close()
    return median(took)


def start_and_memory(rounds: int, count: int) -> Table:
    """Time from exec to the serving line, and resident memory idle, loaded and at its peak."""
    starts, idle = [], []
    for _ in range(rounds):
        with Run([]) as agent:
            starts.append(agent.start_seconds)  # type: ignore[attr-defined]
            idle.append(resident_mib(agent.pid))
    with Run(["--cache-bytes", "128MiB", "--request-memory", "128MiB"]) as agent:
        harness.create_topic(agent.bootstrap, "memory", 8)
        harness.load("produce", agent.bootstrap, "memory", 8, count, 1024, 0, *BIG_BATCHES, cpu=CLIENT_CPU)
        harness.load("consume", agent.bootstrap, "memory", 8, count, cpu=CLIENT_CPU)
        loaded = [resident_mib(agent.pid), peak_mib(agent.pid)]
    return Table(
        "start",
        "Start to serving, and resident memory (loaded: 128 MiB cache and 128 MiB request memory configured)",
        ["start, s (median)", "idle, MiB", "loaded, MiB", "peak, MiB"],
        [[median(starts), median(idle), *loaded]],
    )
