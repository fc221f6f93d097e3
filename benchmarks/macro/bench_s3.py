"""The agent on S3: what a request waits for, what limits a producer, what slow PUTs do to it, and what it all costs.

Each figure stands beside its yardstick of the same run: a bare PUT to the same stub S3 server, a bare commit on the
same disk, the same client at a stub broker that answers as late as both together.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.macro import harness
from benchmarks.macro.bench_agent import (
    AGENT_CPU,
    BIG_BATCHES,
    CLIENT_CPU,
    STORES,
    Run,
    durable_floor_us,
    measured,
    ratios,
    warm_up,
)
from benchmarks.macro.bench_yardsticks import stub_broker
from benchmarks.macro.harness import Table, cpu_seconds, median, resident_mib
from benchmarks.macro.s3_stub import S3Stub, agent_on_s3
from tests.support.process import AgentProcess

DELAYS_MS = (20, 60)
FIXED_TIMER_PER_MINUTE = 240
"""What a timer of 250 ms makes of a minute, one PUT each time."""

SLOW = {"slow_every": 100, "slow_ms": 2000}
IDEMPOTENT = ["enable.idempotence=true"]
REQUESTS_IN_FLIGHT_MAX = 5
"""Of an idempotent producer; librdkafka 2.16 sends one at a time per partition all the same."""
FIVE_IN_FLIGHT = [f"max.in.flight={REQUESTS_IN_FLIGHT_MAX}"]
REQUEST_BYTES, REQUEST_RECORDS = 1_000_000, 967
"""librdkafka's batch.size, and how many records of 1 KiB fit: what its requests hold when there is more to send."""


def all_ms(delay_ms: float) -> dict[str, float]:
    """Settings of a stub all of whose answers take so long."""
    return {"put_ms": delay_ms, "get_ms": delay_ms, "other_ms": delay_ms}


def commit_floor_ms() -> float:
    """p50 of a bare SQLite commit on the disk where the agents keep their metadata."""
    with tempfile.TemporaryDirectory(prefix="warp-bench-") as folder:
        return durable_floor_us(Path(folder), 50, with_file=False) / 1000


class Deltas:
    """What the agent and the store have counted since this was made."""

    def __init__(self, agent: AgentProcess, stub: S3Stub) -> None:
        self._agent, self._stub = agent, stub
        self._metrics, self._counts = harness.metrics(agent.http), stub.counts()

    def metric(self, name: str) -> float:
        """A counter of the agent."""
        return harness.metrics(self._agent.http).get(name, 0.0) - self._metrics.get(name, 0.0)

    def count(self, name: str) -> int:
        """A counter of the stub S3 server."""
        return self._stub.counts()[name] - self._counts[name]


def latency(seconds_each: int) -> Table:
    """Produce latency of a client that is quiet, and of one that sends more often than PUTs are paid for."""
    rows: list[list[Any]] = []
    for delay_ms in DELAYS_MS:
        with agent_on_s3(**all_ms(delay_ms)) as (agent, stub):
            harness.create_topic(agent.bootstrap, "low", 1)
            harness.load("produce", agent.bootstrap, "low", 1, 5, 100, 2, "linger.ms=0", cpu=CLIENT_CPU)
            for rate, seconds in ((2, 2 * seconds_each), (50, seconds_each)):
                put_ms, commits_ms = stub.put_p50_ms(20), [commit_floor_ms()]
                since = Deltas(agent, stub)
                run = harness.load("produce", agent.bootstrap, "low", 1, rate * seconds, 100, rate,
                                   "linger.ms=0", cpu=CLIENT_CPU)  # fmt: skip
                p50, p99 = run["p50_us"] / 1000, run["p99_us"] / 1000
                per_minute = since.count("put") * 60 / run["seconds"]
                commits_ms.append(commit_floor_ms())  # the disk of a shared machine is slower at times
                floor_ms = put_ms + sum(commits_ms) / 2
                rows.append(
                    [delay_ms, rate, p50, p99, floor_ms, p50 - floor_ms, per_minute, FIXED_TIMER_PER_MINUTE]
                )
    return Table(
        "s3-latency",
        "Produce latency at low load, S3 (ms), beside one bare PUT and one bare SQLite commit; PUTs beside a timer of "
        "250 ms",
        ["PUT takes", "records/s", "p50", "p99", "PUT + commit", "p50 beyond it (2/s: ≤ 5)",
         "PUTs/min, with a burst of 3", "timer's"],
        rows,
    )  # fmt: skip


def window(count: int, rounds: int) -> Table:
    """One producer with one partition: at an agent on S3, and at a stub broker that answers after PUT + commit."""
    rows: list[list[Any]] = []
    for name, properties, share in (
        ("idempotent", IDEMPOTENT, 5),
        ("5 in flight", FIVE_IN_FLIGHT, 1),
    ):
        for delay_ms in DELAYS_MS:
            requests = count // share // (delay_ms // 20) // REQUEST_RECORDS
            records = max(20, requests) * REQUEST_RECORDS
            rows.append([name, delay_ms, *_window(properties, delay_ms, records, rounds)])
    return Table(
        "s3-window",
        "One librdkafka producer, default settings, one partition, 1 KiB records, S3: limited by its own requests in "
        "flight? In flight is what it holds open at a stub broker that answers after PUT + commit (ms)",
        ["producer", "PUT takes", "PUT + commit", "in flight, MB", "MB/s", "in flight ÷ (PUT + commit)",
         "ratio (≥ 0.9)", "stub broker's MB/s", "ratio", "PUTs per request"],
        rows,
    )  # fmt: skip


def _window(properties: list[str], delay_ms: int, count: int, rounds: int) -> list[Any]:
    rates, stub_rates, floors, puts = [], [], [], []
    for _ in range(rounds):
        with agent_on_s3(**all_ms(delay_ms)) as (agent, stub):
            floors.append(_floor_beside_client_ms(stub, properties, delay_ms, count))
            harness.create_topic(agent.bootstrap, "t", 1)
            since = Deltas(agent, stub)
            run = harness.load(
                "produce", agent.bootstrap, "t", 1, count, 1024, 0, *properties, cpu=CLIENT_CPU
            )
            rates.append(middle_rate(run))
            requests = since.metric('warp_request_seconds_count{api="Produce"}')
            puts.append(since.count("put") / requests)
        with stub_broker(floors[-1]) as (_, address):
            run = harness.load("produce", address, "t", 1, count, 1024, 0, *properties, cpu=CLIENT_CPU)
            stub_rates.append(middle_rate(run))
    floor_ms, stub_rate, rate = median(floors), median(stub_rates), median(rates)
    # By Little's law, but whole requests: the time that the client itself takes for each of them is not in flight.
    request_mb = REQUEST_RECORDS * 1024 / 1e6
    requests = math.ceil(stub_rate * floor_ms / 1e3 / request_mb - 0.1)
    in_flight_mb = min(REQUESTS_IN_FLIGHT_MAX, requests) * request_mb
    limit = in_flight_mb / floor_ms * 1e3
    return [floor_ms, in_flight_mb, rate, limit, rate / limit, stub_rate, rate / stub_rate, median(puts)]


def _floor_beside_client_ms(stub: S3Stub, properties: list[str], delay_ms: int, count: int) -> float:
    """p50 of a bare PUT of one request and of a bare commit, on the agent's processor, while such a client runs.

    For librdkafka is not a quiet neighbour: while an idempotent producer waits for an answer, it spins.
    """
    own = os.sched_getaffinity(0)
    with stub_broker(delay_ms) as (_, address), ThreadPoolExecutor(1) as beside:
        client = beside.submit(
            harness.load, "produce", address, "t", 1, count, 1024, 0, *properties, cpu=CLIENT_CPU
        )
        time.sleep(0.5)
        if len(own) > 1:
            os.sched_setaffinity(0, {AGENT_CPU})
        try:
            floor_ms = stub.put_p50_ms(10, bytes(REQUEST_BYTES)) + commit_floor_ms()
        finally:
            os.sched_setaffinity(0, own)
        client.result()
    return floor_ms


def middle_rate(run: dict[str, Any]) -> float:
    """MB/s of a run of the load driver, without its start and its end."""
    return float(run["middle_bytes"]) / float(run["middle_seconds"]) / 1e6


def slow_puts(slow_seconds: int) -> Table:
    """The same producers at about half of what they can, with and without PUTs that take two seconds."""
    rows: list[list[Any]] = []
    for name, properties, records_per_second in (
        ("idempotent", IDEMPOTENT, 12_000),
        ("5 in flight", FIVE_IN_FLIGHT, 40_000),
    ):
        for slow, seconds in (({}, slow_seconds // 2), (SLOW, slow_seconds)):
            with agent_on_s3(**all_ms(60)) as (agent, stub):
                harness.create_topic(agent.bootstrap, "t", 1)
                # What a PUT usually takes is known before the first slow one.
                harness.load("produce", agent.bootstrap, "t", 1, records_per_second * 3, 1024,
                             records_per_second, *properties, cpu=CLIENT_CPU)  # fmt: skip
                if slow:
                    stub.set(**slow)
                since = Deltas(agent, stub)
                run = harness.load("produce", agent.bootstrap, "t", 1, records_per_second * seconds, 1024,
                                   records_per_second, *properties, cpu=CLIENT_CPU)  # fmt: skip
                puts, segments = since.count("put"), since.metric("warp_segment_bytes_count")
                p50, p99, most = (run[key] / 1000 for key in ("p50_us", "p99_us", "max_us"))
                rows.append([
                    name, records_per_second * 1024 / 1e6, "1 % take 2 s" if slow else "all take 60 ms", p50, p99,
                    most, p99 / p50, puts, since.count("slowed"), 100 * (puts - segments) / segments,
                ])  # fmt: skip
    return Table(
        "s3-slow-puts",
        "Produce latency (ms, open loop) with PUTs of 60 ms, of which every hundredth takes 2 s",
        ["producer", "MB/s", "PUTs", "p50", "p99", "max", "p99 ÷ p50 (≤ 3)", "PUTs", "slow ones",
         "extra PUTs, % (≤ 3)"],
        rows,
    )  # fmt: skip


def throughput(count: int, rounds: int) -> Table:
    """Produce 1 KiB records in 1 MB batches to each store: processor time of the agent and of its client."""
    rows: list[list[Any]] = []
    for store, options in STORES.items():
        produced = []
        for _ in range(rounds):
            with Run(options) as agent:
                produced.append(_produce(agent, count))
        rows.append([store, *ratios(produced), ""])
    for delay_ms in (0, *DELAYS_MS):
        produced, stub_cpu = [], []
        for _ in range(rounds):
            with agent_on_s3(**all_ms(delay_ms)) as (agent, stub):
                produced.append(_produce(agent, count, stub))
                stub_cpu.append(produced[-1]["stub_cpu_seconds"] * harness.GB / produced[-1]["bytes"])
        rows.append([f"S3, {delay_ms} ms", *ratios(produced), median(stub_cpu)])
    return Table(
        "s3-throughput",
        "Produce, 1 KiB records in 1 MB batches, one partition; CPU-seconds per GB (the stub S3 server runs on the "
        "agent's processor)",
        ["store", "agent", "client", "agent ÷ client (S3: ≤ 0.6)", "MB/s", "stub S3"],
        rows,
    )  # fmt: skip


def _produce(agent: AgentProcess, count: int, stub: S3Stub | None = None) -> dict[str, Any]:
    warm_up(agent, count)
    harness.create_topic(agent.bootstrap, "t", 1)
    before = cpu_seconds(stub.pid) if stub else 0.0
    run = measured(agent, "produce", agent.bootstrap, "t", 1, count, 1024, 0, *BIG_BATCHES)
    run["stub_cpu_seconds"] = cpu_seconds(stub.pid) - before if stub else 0.0
    return run


def start(rounds: int) -> Table:
    """Time from exec to the serving line, with all that is asked of the bucket before, and resident memory then."""
    rows: list[list[Any]] = []
    for delay_ms in (0, *DELAYS_MS):
        starts, cpu, idle, requests = [], [], [], []
        for _ in range(rounds):
            with agent_on_s3(**all_ms(delay_ms)) as (agent, stub):
                starts.append(agent.start_seconds)  # type: ignore[attr-defined]
                cpu.append(cpu_seconds(agent.pid))
                idle.append(resident_mib(agent.pid))
                counts = stub.counts()
                requests.append(sum(counts[kind] for kind in ("put", "get", "head", "list", "delete")))
        rows.append([delay_ms, median(starts), median(cpu), median(idle), median(requests)])
    return Table(
        "s3-start",
        "Start to serving on S3, and resident memory",
        [
            "a request takes, ms",
            "start, s (≤ 1.0)",
            "its processor time, s",
            "idle, MiB (≤ 90)",
            "requests to S3",
        ],
        rows,
    )
