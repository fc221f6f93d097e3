"""Agents that commit to the same logs at once: each commit locks them all, so they wait for one another.

Every committer is a process of its own, with its own producer, connections and metadata store, as an agent is. What
they reach together stands beside what one alone reaches; rounds of the one and the other take turns.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import uvloop

from benchmarks.macro.cluster_commits import (
    WARM_UP,
    Appender,
    RetriedAppender,
    create_topic,
    opened_store,
    percentile,
)
from benchmarks.macro.harness import Table, cpu_seconds, median
from tests.support.postgres import PostgresServer
from warp.ids import LogId, ProducerId

LOGS = 64
COMMITTERS = (1, 2, 8)
START_S_MAX = 60.0


class Worked(NamedTuple):
    """What one committer did."""

    latencies_ms: list[float]
    repeats: int
    """Commits that failed and were tried again."""
    cpu_s: float


class Round(NamedTuple):
    """What several did at once."""

    rate: float
    """Commits per second, of all together."""
    latencies_ms: list[float]
    repeats: int
    own_ms: float
    """The committers' processor time per commit, ms."""
    server_ms: float


def commit_for(
    url: str, logs: Sequence[LogId], producer_id: int, seconds: float, barrier: Barrier, answer: Connection
) -> None:
    """The work of one process: commit one segment after the other until the time is over."""

    gc.freeze()  # as agents do when they have started

    async def work() -> Worked:
        async with opened_store(url) as store:
            appender = RetriedAppender(Appender(store, logs, ProducerId(producer_id)))
            for _ in range(WARM_UP):
                await appender.commit()
            # Nothing else runs in this loop.
            barrier.wait(START_S_MAX)
            appender.repeats = 0
            latencies_ms: list[float] = []
            cpu, begun = time.process_time(), time.perf_counter()
            while (now := time.perf_counter()) < begun + seconds:
                await appender.commit()
                latencies_ms.append(1000 * (time.perf_counter() - now))
            return Worked(latencies_ms, appender.repeats, time.process_time() - cpu)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer.send(runner.run(work()))
    answer.close()


def run_round(
    server: PostgresServer,
    url: str,
    logs: Sequence[LogId],
    first_producer: int,
    committers: int,
    seconds: float,
) -> Round:
    """So many commit to the logs for a while."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(committers + 1)
    processes, answers = [], []
    for number in range(committers):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=commit_for,
            args=(url, logs, first_producer + number, seconds, barrier, sender),
            daemon=True,
        )
        process.start()
        sender.close()
        processes.append(process)
        answers.append(receiver)
    barrier.wait(START_S_MAX)
    pids = server.pids()
    server_cpu = sum(map(cpu_seconds, pids))
    time.sleep(seconds)
    # Their connections close once the last commit is answered, and with them the server's processes go.
    server_s = _cpu_of_those_left(pids) - server_cpu
    worked: list[Worked] = [answer.recv() for answer in answers]
    for process in processes:
        process.join(START_S_MAX)
    latencies_ms = sorted(latency for each in worked for latency in each.latencies_ms)
    count = len(latencies_ms)
    return Round(
        count / seconds,
        latencies_ms,
        sum(each.repeats for each in worked),
        1000 * sum(each.cpu_s for each in worked) / count,
        1000 * server_s / count,
    )


def _cpu_of_those_left(pids: Sequence[int]) -> float:
    used = 0.0
    for pid in pids:
        try:
            used += cpu_seconds(pid)
        except OSError:
            continue  # a committer was done a moment early; its server process is gone
    return used


async def _make_logs(url: str) -> tuple[LogId, ...]:
    async with opened_store(url) as store:
        return tuple((await create_topic(store, LOGS)).logs)


def contention(server: PostgresServer, rounds: int, seconds: float) -> Table:
    """One, two and eight committers in turns."""
    url = server.create_database()
    logs = asyncio.run(_make_logs(url))
    done: dict[int, list[Round]] = {committers: [] for committers in COMMITTERS}
    producer = 1
    for _ in range(rounds):
        for committers in COMMITTERS:
            done[committers].append(run_round(server, url, logs, producer, committers, seconds))
            producer += committers
    rows: list[list[Any]] = []
    for committers, found in done.items():
        latencies_ms = sorted(latency for each in found for latency in each.latencies_ms)
        beside = [each.rate / alone.rate for each, alone in zip(found, done[1], strict=True)]
        rows.append([
            committers, median([each.rate for each in found]), percentile(latencies_ms, 0.5),
            percentile(latencies_ms, 0.99), sum(each.repeats for each in found),
            median([each.own_ms for each in found]), median([each.server_ms for each in found]), median(beside),
        ])  # fmt: skip
    return Table(
        "contention",
        f"Processes that commit segments with a batch for each of the same {LOGS} logs, as fast as they are answered",
        ["committers", "commits/s together", "p50 ms", "p99 ms", "tried again", "own CPU, ms a commit",
         "server's CPU, ms a commit", "÷ one alone (8: ≥ 0.8)"],
        rows,
    )  # fmt: skip
