"""What looking after data costs, and what it is good for: merging, reading old data before and after it, compaction.

`python -m benchmarks.macro.bench_life [--quick] [--only NAME ...] [--gigabytes 5]`. Data of many partitions is written
as their producers write it, interleaved, while no job runs; then the agent starts again with the job that is measured.
About five minutes with 0.5 GB. Stores benchmarks/results/life.json after a full run.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.macro import harness
from benchmarks.macro.bench_agent import CLIENT_CPU, SMALL_BATCHES
from benchmarks.macro.bench_s3 import Deltas, all_ms
from benchmarks.macro.harness import GB, Others, Table, cpu_seconds, median
from benchmarks.macro.s3_stub import ENVIRONMENT, S3Stub
from tests.support.process import AgentProcess

PARTITIONS = 1000
FEW = 10
RECORD_BYTES = 1024
GET_MS = 20
QUIET = ("--merge-interval", "1h", "--compaction-interval", "24h", "--merge-backlog-max", "900GiB")
MERGING = ("--merge-interval", "100ms", "--compaction-interval", "24h", "--merge-backlog-max", "900GiB")
COMPACTING = ("--merge-interval", "1h", "--compaction-interval", "100ms")
PROBE_RATE = 100
PROBE_S = 15.0
STILL_S = 3.0
JOB_S_MAX = 600.0
CATCH_UP = ["fetch.message.max.bytes=1048576", "queued.max.messages.kbytes=65536"]


@contextmanager
def agent_in(folder: Path, *options: str) -> Iterator[AgentProcess]:
    """An agent on the data of those that have run there before."""
    with AgentProcess(folder / "data", *options, environment=ENVIRONMENT) as agent:
        yield agent
        agent.stop()


def write(agent: AgentProcess, size_bytes: float) -> None:
    """So much into all partitions of a new topic, by a producer that fills no batch."""
    harness.create_topic(agent.bootstrap, "t", PARTITIONS)
    harness.load(
        "produce", agent.bootstrap, "t", PARTITIONS, int(size_bytes / RECORD_BYTES), RECORD_BYTES, 0, *SMALL_BATCHES,
        cpu=CLIENT_CPU,
    )  # fmt: skip


def job(agent: AgentProcess, name: str) -> dict[str, Any]:
    """What an agent says of one of its jobs."""
    with urllib.request.urlopen(f"{agent.http}/v1/jobs", timeout=30) as answer:
        jobs: list[dict[str, Any]] = json.load(answer)["jobs"]
    return next(found for found in jobs if found["name"] == name)


def until_done(agent: AgentProcess, name: str) -> tuple[dict[str, Any], float, float]:
    """Wait until a job has done something and then nothing more: what it did, its seconds and the agent's of CPU.

    CPU counts from now on, so that what the job does before it first tells of anything is counted too.
    """
    began_s, began_cpu = time.monotonic(), cpu_seconds(agent.pid)
    last, first_s, changed_s, changed_cpu = job(agent, name), began_s, began_s, began_cpu
    while time.monotonic() < began_s + JOB_S_MAX:
        now = job(agent, name)
        if now["done"] != last["done"]:
            last, changed_s, changed_cpu = now, time.monotonic(), cpu_seconds(agent.pid)
        elif not any(last["done"].values()):
            first_s = first_s if now["running_s"] is not None else time.monotonic()
        elif time.monotonic() > changed_s + STILL_S and now["running_s"] is None:
            return last, changed_s - first_s, changed_cpu - began_cpu
        time.sleep(0.1)
    raise TimeoutError(f"the job {name} comes to no end: {last}")


def merging(size_bytes: float, rounds: int) -> Table:
    """How fast level-0 segments become large ones."""
    rows: list[list[Any]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="warp-bench-") as name:
            folder = Path(name)
            with agent_in(folder, *QUIET) as agent:
                write(agent, size_bytes)
            with agent_in(folder, *MERGING) as agent:
                done, seconds, cpu_s = until_done(agent, "merge")
            read = done["done"]["read_bytes"]
            rows.append([read / 1e6, read / 1e6 / cpu_s, read / 1e6 / seconds, done["done"]["segments_read"]])
    return Table(
        "merging",
        f"Merging segments of {PARTITIONS} partitions, local store",
        ["MB read", "MB/s per core (≥ 150)", "MB/s", "segments"],
        rows,
    )


def beside_merging(size_bytes: float, rounds: int) -> Table:
    """Latency of a quiet producer while nothing else happens, and while the agent merges what others have written.

    The producer begins together with the merging, which spares it from then on.
    """
    quiet: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    rates: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="warp-bench-") as name:
            folder = Path(name)
            with agent_in(folder, *QUIET) as agent:
                write(agent, size_bytes)
                harness.create_topic(agent.bootstrap, "probe", 1)
                quiet.append(probe(agent, PROBE_S))
            with agent_in(folder, *MERGING) as agent, ThreadPoolExecutor(1) as aside:
                watched = aside.submit(until_done, agent, "merge")
                beside.append(probe(agent, PROBE_S))
                rates.append(job(agent, "merge")["done"]["read_bytes"] / beside[-1]["seconds"] / 1e6)
                watched.result()
    rows = []
    for what in ("p50_us", "p99_us"):
        alone, busy = (median([run[what] for run in runs]) / 1000 for runs in (quiet, beside))
        rows.append([what[:3], alone, busy, busy / alone, median(rates)])
    return Table(
        "beside-merging",
        f"Produce latency at {PROBE_RATE} records/s beside merging, local store (ms)",
        ["", "without", "beside merging", "ratio (p99: ≤ 1.2)", "merged meanwhile, MB/s"],
        rows,
    )


def probe(agent: AgentProcess, seconds: float) -> dict[str, Any]:
    """One run of a producer that sends little and does not wait."""
    count = int(PROBE_RATE * seconds)
    arguments = (agent.bootstrap, "probe", 1, count, 100, PROBE_RATE, "linger.ms=0")
    return harness.load("produce", *arguments, cpu=CLIENT_CPU)


def catching_up(size_bytes: float) -> Table:
    """Reading all that was written, and a few partitions of it, before merging and after, each from an empty cache."""
    rows: list[list[Any]] = []
    keep_mib = int(3.3 * size_bytes / 2**20) + 256
    with (
        tempfile.TemporaryDirectory(prefix="warp-bench-") as name,
        S3Stub(keep_mib=keep_mib, **all_ms(GET_MS)) as stub,
    ):
        folder, store = Path(name), ("--object-store", stub.url())
        with agent_in(folder, *store, *QUIET) as agent:
            write(agent, size_bytes)
        for when in ("before", "after"):
            if when == "after":
                with agent_in(folder, *store, *MERGING) as agent:
                    until_done(agent, "merge")
            extents, index_bytes = index_of(folder)
            for partitions in (PARTITIONS, FEW):
                with agent_in(folder, *store, *QUIET, "--cache-bytes", "128MiB") as agent:
                    since = Deltas(agent, stub)
                    count = records_in(folder, partitions)
                    run = harness.load(
                        "consume", agent.bootstrap, "t", partitions, count, *CATCH_UP, cpu=CLIENT_CPU
                    )
                    gets, read = since.count("get"), run["bytes"]
                    if not read:
                        raise ValueError(f"of {count} records of {partitions} partitions none came: {run}")
                rate = read / run["seconds"] / 1e6
                rows.append(
                    [when, partitions, read / 1e6, gets * GB / read, rate, extents * GB / index_bytes]
                )
    return Table(
        "catching-up",
        f"Catching up on {PARTITIONS} partitions that were written interleaved, S3 with {GET_MS} ms per request",
        ["merging", "partitions read", "MB", "GETs per GB", "MB/s", "index rows per GB"],
        rows,
    )


def index_of(folder: Path) -> tuple[int, int]:
    """Rows of the index, and the bytes that they tell of."""
    with closing(sqlite3.connect(folder / "data" / "metadata.sqlite")) as database:
        rows, size_bytes = database.execute("select count(*), sum(size_bytes) from extents").fetchone()
    return rows, size_bytes


def records_in(folder: Path, partitions: int) -> int:
    """How many records the first partitions hold."""
    with closing(sqlite3.connect(folder / "data" / "metadata.sqlite")) as database:
        [count] = database.execute(
            "select sum(next_offset) from logs where partition < ?", (partitions,)
        ).fetchone()
    return int(count)


def compaction(records: int, keys: int, rounds: int) -> Table:
    """How fast a log is compacted of which each key was written again and again."""
    rows: list[list[Any]] = []
    for codec in ("none", "lz4"):
        for _ in range(rounds):
            with tempfile.TemporaryDirectory(prefix="warp-bench-") as name:
                folder = Path(name)
                with agent_in(folder, *QUIET) as agent:
                    write_keys(agent, records, keys, codec)
                with agent_in(folder, *COMPACTING) as agent:
                    done, seconds, cpu_s = until_done(agent, "compact")
                kept, dropped = done["done"]["records_kept"], done["done"]["records_dropped"]
                seen = kept + dropped
                rows.append([codec, seen, kept, seen / cpu_s, seen / seconds])
    return Table(
        "compaction",
        f"Compaction by key of one log, {keys} keys, values of 100 bytes, local store",
        ["codec", "records", "kept", "records/s per core (≥ 500,000)", "records/s"],
        rows,
    )


def write_keys(agent: AgentProcess, records: int, keys: int, codec: str) -> None:
    """All keys in turn, until there are so many records."""
    admin = AdminClient({"bootstrap.servers": agent.bootstrap})
    topic = NewTopic("table", 1, 1, config={"cleanup.policy": "compact"})
    admin.create_topics([topic])["table"].result(60)
    settings = {"bootstrap.servers": agent.bootstrap, "compression.type": codec, "linger.ms": 50}
    producer = Producer({**settings, "queue.buffering.max.messages": 500_000})
    value = bytes(range(100))
    for number in range(records):
        producer.produce("table", value, b"key-%d" % (number % keys))
        if number % 10_000 == 0:
            while len(producer) > 200_000:
                producer.poll(0.01)
    producer.flush()


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="little of everything and one round: a smoke test"
    )
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--gigabytes", type=float, default=0.5, help="that are written and caught up with")
    arguments = parser.parse_args()
    quick = arguments.quick
    rounds = 1 if quick else 3
    size_bytes = 0.2 * GB if quick else arguments.gigabytes * GB
    suites: dict[str, Callable[[], Table]] = {
        "merging": lambda: merging(min(size_bytes, GB), rounds),
        "beside-merging": lambda: beside_merging(min(size_bytes, GB), rounds),
        "catching-up": lambda: catching_up(size_bytes),
        "compaction": lambda: compaction(
            200_000 if quick else 2_000_000, 20_000 if quick else 100_000, rounds
        ),
    }
    unknown = set(arguments.only or ()) - suites.keys()
    if unknown:
        parser.error(f"unknown benchmark {min(unknown)!r}; there are {', '.join(suites)}")
    tables: list[Table] = []
    for name in arguments.only or suites:
        others, begun = Others(), time.monotonic()
        tables.append(suites[name]())
        tables[-1].beside = others.describe()
        tables[-1].print()
        print(f"\n{time.monotonic() - begun:.0f} s; {tables[-1].beside}", flush=True)
    if not quick and not arguments.only:
        print(f"\nstored in {harness.store('life', tables)}")


if __name__ == "__main__":
    main()
