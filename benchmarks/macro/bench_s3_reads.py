"""What reading costs in GETs: consumers that keep up, and one that reads everything after a restart."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.macro import harness
from benchmarks.macro.bench_agent import BIG_BATCHES, CLIENT_CPU, FETCH, Run
from benchmarks.macro.bench_s3 import Deltas, all_ms
from benchmarks.macro.harness import GB, Table
from benchmarks.macro.s3_stub import ENVIRONMENT, S3Stub

CHUNK_BYTES = 4 * 2**20
SEGMENT_BYTES = 16 * 2**20
"""Large enough that the last chunk of a segment, which is rarely full, weighs little."""

LARGE_SEGMENTS_PUT_MS = 250
"""How slow PUTs are while records are made to be caught up with: then each takes much along."""

MEMORY = ["--cache-bytes", "128MiB"]
NO_JOBS = ["--merge-interval", "1h"]
"""What jobs read is no consumer's."""


def reads(count: int) -> Table:
    """GETs of a consumer that reads along, and of one that reads the same records after a restart."""
    rows: list[list[Any]] = []
    keep_mib = 2 * count * 1024 // 2**20 + 64
    with S3Stub(keep_mib=keep_mib, **all_ms(60)) as stub:
        options = ["--object-store", stub.url(), "--flush-bytes", f"{SEGMENT_BYTES}B", *MEMORY, *NO_JOBS]
        run = Run(options, ENVIRONMENT)
        with run as agent:
            for name, put_ms, rate in (
                ("reads along", 60, 50_000),
                ("reads along", LARGE_SEGMENTS_PUT_MS, 0),
            ):
                topic = f"put-{put_ms}"
                harness.create_topic(agent.bootstrap, topic, 1)
                stub.set(put_ms=put_ms)
                since = Deltas(agent, stub)
                with ThreadPoolExecutor(1) as beside:
                    consumer = beside.submit(
                        harness.load, "consume", agent.bootstrap, topic, 1, count, *FETCH, cpu=CLIENT_CPU
                    )
                    time.sleep(1)
                    harness.load("produce", agent.bootstrap, topic, 1, count, 1024, rate, *BIG_BATCHES,
                                 cpu=CLIENT_CPU)  # fmt: skip
                    consumed = consumer.result()
                rows.append(_row(name, put_ms, since, consumed))
            segment_mb, caught_up = rows[-1][2], f"put-{LARGE_SEGMENTS_PUT_MS}"
            agent.kill()
            run.start()
            since = Deltas(agent, stub)
            consumed = harness.load("consume", agent.bootstrap, caught_up, 1, count, *FETCH, cpu=CLIENT_CPU)
            rows.append(_row("catches up after a restart", LARGE_SEGMENTS_PUT_MS, since, consumed))
            rows[-1][2] = segment_mb
    return Table(
        "s3-reads",
        "GETs of a consumer on S3 with 60 ms; PUTs that take longer make larger segments",
        ["consumer", "PUT takes", "MB per segment", "MB/s", "GETs", "GETs per GB (along: 0)",
         "GETs per 4 MiB (catching up: ≤ 1.05)"],
        rows,
    )  # fmt: skip


def _row(name: str, put_ms: float, since: Deltas, consumed: dict[str, Any]) -> list[Any]:
    gets, size_bytes = since.count("get"), consumed["bytes"]
    segments = since.metric("warp_segment_bytes_count")
    segment_mb = since.metric("warp_segment_bytes_sum") / segments / 1e6 if segments else 0.0
    rate = size_bytes / consumed["seconds"] / 1e6
    return [name, put_ms, segment_mb, rate, gets, gets * GB / size_bytes, gets * CHUNK_BYTES / size_bytes]
