"""The agent beside a stub broker, with many partitions, and under a flood: the rest of the macro figures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka.admin import AdminClient

from benchmarks.macro import harness
from benchmarks.macro.bench_agent import (
    AGENT_CPU,
    BIG_BATCHES,
    CLIENT_CPU,
    FETCH,
    STORES,
    Run,
    warm_up,
)
from benchmarks.macro.bench_commit_beside_flood import measure, percentile
from benchmarks.macro.harness import GB, Table, cpu_seconds, median
from tests.support.process import free_port

TOPICS, PARTITIONS_EACH = 10, 1000
METADATA_REQUESTS = 20


@contextmanager
def stub_broker(produce_ms: float = 0.0) -> Iterator[tuple[int, str]]:
    """A stub broker in a process of its own, which answers a Produce after so long: its process id and address."""
    port = free_port()
    command = ["taskset", "-c", str(AGENT_CPU), sys.executable, "-m", "benchmarks.macro.stub"]
    command += [str(port), str(produce_ms)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid, f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def beside_stub(count: int, rounds: int) -> Table:
    """One producer and one consumer, at the agent (memory store) and at the stub, in turn."""
    runs: dict[str, list[dict[str, Any]]] = {}

    def add(what: str, pid: int, *arguments: object) -> None:
        before = cpu_seconds(pid)
        run = harness.load(*arguments, cpu=CLIENT_CPU)
        run["agent_cpu_seconds"] = cpu_seconds(pid) - before
        runs.setdefault(what, []).append(run)

    for _ in range(rounds):
        with Run([*STORES["memory"], "--cache-bytes", "512MiB"]) as agent:
            warm_up(agent, count)
            harness.create_topic(agent.bootstrap, "t", 1)
            add("agent produce", agent.pid, "produce", agent.bootstrap, "t", 1, count, 1024, 0, *BIG_BATCHES)
            add("agent fetch", agent.pid, "consume", agent.bootstrap, "t", 1, count, *FETCH)
        with stub_broker() as (pid, address):
            add("stub produce", pid, "produce", address, "t", 1, count, 1024, 0, *BIG_BATCHES)
            add("stub fetch", pid, "consume", address, "t", 1, count, *FETCH)
    rows: list[list[Any]] = []
    for what in ("produce", "fetch"):
        agents, stubs = runs[f"agent {what}"], runs[f"stub {what}"]
        rate, stub_rate = (
            median([run["bytes"] / run["seconds"] / 1e6 for run in each]) for each in (agents, stubs)
        )
        cost, stub_cost = (
            median([run["agent_cpu_seconds"] * GB / run["bytes"] for run in each]) for each in (agents, stubs)
        )
        rows.append([what, rate, stub_rate, rate / stub_rate, cost, stub_cost, cost / stub_cost])
    return Table(
        "stub",
        "One client, 1 KiB records in 1 MB batches: the agent (memory store) beside a stub that answers with canned "
        "bytes (fetch: a bare transport.write); CPU-seconds per GB",
        ["what", "agent MB/s", "stub MB/s", "agent ÷ stub", "agent CPU", "stub CPU", "agent ÷ stub"],
        rows,
    )


def partitions(seconds: int, rounds: int) -> Table:
    """Ten thousand partitions beside one: produce latency, and what a Metadata of all topics costs."""
    rows: list[list[Any]] = []
    for topics in (0, TOPICS):
        with Run([]) as agent:
            admin = AdminClient({"bootstrap.servers": agent.bootstrap})
            for number in range(topics):
                harness.create_topic(agent.bootstrap, f"many-{number}", PARTITIONS_EACH)
            harness.create_topic(agent.bootstrap, "one", 1)
            admin.list_topics(timeout=60)
            before = cpu_seconds(agent.pid)
            for _ in range(METADATA_REQUESTS):
                admin.list_topics(timeout=60)
            metadata_ms = (cpu_seconds(agent.pid) - before) * 1000 / METADATA_REQUESTS
            runs = [
                harness.load(
                    "produce", agent.bootstrap, "one", 1, 50 * seconds, 100, 50, "linger.ms=0", cpu=CLIENT_CPU
                )
                for _ in range(rounds)
            ]
            latencies = [median([run[key] for run in runs]) / 1000 for key in ("p50_us", "p99_us")]
            rows.append([topics * PARTITIONS_EACH + 1, metadata_ms, *latencies])
    return Table(
        "partitions",
        "Many partitions, local store: CPU of one Metadata of all, and produce latency at 50 records/s (ms)",
        ["partitions", "Metadata of all, CPU", "produce p50", "p99"],
        rows,
    )


def flood(rounds: int, seconds: float) -> Table:
    """Commits on an idle loop and beside a flood of 200-byte frames; bench_commit_beside_flood has all placements."""
    took: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for flooded in (False, True):
            took[flooded] += measure("as the agent does", flooded, 1, 0, seconds)["commit_ms"]
    p99 = {flooded: percentile(values, 0.99) for flooded, values in took.items()}
    return Table(
        "flood",
        "Commit on SQLite beside a flood of 200-byte frames (ms)",
        ["p50 idle", "p50 flooded", "p99 idle", "p99 flooded", "p99 flooded ÷ idle"],
        [
            [
                percentile(took[False], 0.5),
                percentile(took[True], 0.5),
                p99[False],
                p99[True],
                p99[True] / p99[False],
            ]
        ],
    )
