"""How soon does a consumer at one agent get a record that another agent has acknowledged?

`python -m benchmarks.macro.bench_hints [--quick]` prints a Markdown table and stores benchmarks/results/hints.json. Two
agents in one process, over a PostgreSQL server of its own and a directory of objects, without the wire: a record is
produced at the one, and a fetch that waits for it at the other ends. The time is from the producer's answer to the
consumer's, the read of the index and of the object included; both are told by the same clock. "heard" is when the hint
came. Producers beside append to other logs of both agents as fast as they are answered. Without notices the fetch finds
the record at its next look into the store.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks.macro import harness
from benchmarks.macro.harness import Others, Table
from tests.support.postgres import PostgresServer
from warp._records import build_batch
from warp.agent import Agent
from warp.agent_build import build_agent
from warp.clock import SystemClock
from warp.cluster.catalogue import TopicInfo
from warp.cluster.topic_request import TopicRequest
from warp.config import config_of
from warp.ids import IdSource, LogId
from warp.log.answer import FetchPartitionQuery
from warp.log.hints import LogHint
from warp.log.model import Append
from warp.metrics import Metrics

CLOCK = SystemClock()
VALUE = bytes(1_000)
WAIT_MS = 10_000
PAUSE_S = 0.02


async def start_agent(folder: Path, url: str, number: int) -> Agent:
    config = config_of(
        listen=f"127.0.0.1:{19_092 + number}",
        http="off",
        data_dir=str(folder / f"agent-{number}"),
        object_store=(folder / "objects").as_uri(),
        metadata=url,
    )
    agent = build_agent(config, clock=CLOCK, ids=IdSource(CLOCK, os.urandom), metrics=Metrics())
    await agent.start()
    return agent


async def produce(agent: Agent, topic: TopicInfo, partition: int) -> float:
    """Append a record; when it was acknowledged, by the process's clock."""
    target = topic.target(partition)
    assert target is not None
    data = build_batch([(None, VALUE, (), CLOCK.time_ms())])
    staged = await agent.log.produce.stage([Append(target, data)], 30_000)
    [outcome] = await staged.outcomes
    assert not outcome.error, outcome
    return time.perf_counter()


async def fetch(agent: Agent, topic: TopicInfo, offset: int) -> float:
    """Wait for the record at an offset; when it was there."""
    query = FetchPartitionQuery(topic.topic.logs[0], offset, 2**20)
    answer = await agent.log.fetch.fetch([query], bytes_max=2**20, bytes_min=1, wait_ms=WAIT_MS)
    assert answer.records_bytes > len(VALUE), answer.partitions
    answer.release()
    return time.perf_counter()


async def append_on(agent: Agent, topic: TopicInfo, partition: int, counts: list[int]) -> None:
    while True:
        await produce(agent, topic, partition)
        counts[0] += 1


class Ears:
    """Hears the hints that an agent gets of one log, or keeps all from it."""

    def __init__(self, agent: Agent, log_id: LogId, *, hears: bool) -> None:
        self.heard_at = 0.0
        self._log_id = log_id
        self._hears = hears
        self._fetch = agent.log.fetch
        self._hinted = self._fetch.hinted
        self._fetch.hinted = self.hinted  # type: ignore[method-assign]
        self._fetch._hears = lambda: hears

    def hinted(self, hints: Sequence[LogHint]) -> None:
        if self._hears:
            if any(hint.log_id == self._log_id for hint in hints):
                self.heard_at = time.perf_counter()
            self._hinted(hints)

    def close(self) -> None:
        self._fetch.hinted = self._hinted  # type: ignore[method-assign]


def milliseconds(seconds: Sequence[float], part: float) -> float:
    """The value below which that part of the others lie."""
    ordered = sorted(seconds)
    return 1_000 * ordered[min(len(ordered) - 1, int(len(ordered) * part))]


async def measure(a: Agent, b: Agent, name: str, records: int, *, beside: int, hears: bool) -> list[object]:
    """One row: with so many who append beside at each agent."""
    [topic] = await a.catalogue.create([TopicRequest(name, 1 + 2 * max(beside, 1))])
    assert isinstance(topic, TopicInfo), topic
    chance = random.Random(1)
    appended = [0]
    tasks = [
        asyncio.create_task(append_on(agent, topic, 1 + beside * place + number, appended))
        for place, agent in enumerate((a, b))
        for number in range(beside)
    ]
    ears = Ears(b, topic.topic.logs[0], hears=hears)
    taken: list[float] = []
    heard: list[float] = []
    began = time.perf_counter()
    for offset in range(records):
        waiting = asyncio.create_task(fetch(b, topic, offset))
        await asyncio.sleep(PAUSE_S * (1 + chance.random()))
        acknowledged_at = await produce(a, topic, 0)
        taken.append(max(0.0, await waiting - acknowledged_at))
        heard.append(max(0.0, ears.heard_at - acknowledged_at))
    took_s = time.perf_counter() - began
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    ears.close()
    columns = [f"{milliseconds(heard, part):.1f}" if hears else "-" for part in (0.5, 0.99)]
    columns += [f"{milliseconds(taken, part):.1f}" for part in (0.5, 0.99, 1.0)]
    return ["with" if hears else "without", 2 * beside, appended[0] / took_s, len(taken), *columns]


async def run(folder: Path, url: str, records: int) -> list[list[object]]:
    a = await start_agent(folder, url, 1)
    b = await start_agent(folder, url, 2)
    rows = [
        await measure(a, b, "alone", records, beside=0, hears=True),
        await measure(a, b, "some", records, beside=2, hears=True),
        await measure(a, b, "many", records, beside=16, hears=True),
        await measure(a, b, "deaf", records // 20, beside=0, hears=False),
    ]
    for agent in (a, b):
        await agent.stop(10)
    return rows


def visibility(server: PostgresServer, records: int) -> Table:
    """With and without notices, with and without others who append."""
    with (
        tempfile.TemporaryDirectory(prefix="warp-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rows = runner.run(run(Path(folder), server.create_database(), records))
    columns = ["notices", "producers beside", "appends/s beside", "records"]
    columns += ["heard p50 ms", "heard p99 ms", "there p50 ms", "there p99 ms", "there max ms"]
    title = "From the acknowledgement at one agent to the record at another, over PostgreSQL"
    return Table("hints", title, columns, rows)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few records each: a smoke test")
    arguments = parser.parse_args()
    others = Others()
    with PostgresServer() as server:
        table = visibility(server, 50 if arguments.quick else 500)
    table.beside = others.describe()
    table.print()
    print(table.beside)
    if not arguments.quick:
        print(f"\nstored in {harness.store('hints', [table])}")


if __name__ == "__main__":
    main()
