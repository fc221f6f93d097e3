"""What TLS costs beside plaintext: records per second, processor time of the agent, and memory of its connections.

`python -m benchmarks.macro.bench_tls [--quick]` prints Markdown tables and stores benchmarks/results/tls.json. One
agent listens with both; librdkafka is the client, over loopback, with stores in memory so that they take little part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.macro import harness
from benchmarks.macro.harness import Table, cpu_seconds, create_topic, load, median, resident_mib
from tests.broker.client import Client, fetch_request, produce_request
from tests.broker.support import batch
from tests.support.certificates import Authority
from tests.support.process import AgentProcess, free_port
from warp.protocol.messages.api_versions import ApiVersionsRequest

RECORD_BYTES = 1_000
PARTITIONS = 4
MOVED_BYTES = 200_000
"""How much each connection has written and read before its memory is looked at."""
MOVED = batch(bytes(MOVED_BYTES))


@dataclass
class Both:
    """An agent with a plaintext listener and one with TLS."""

    process: AgentProcess
    encrypted_port: int
    authority: Authority

    def properties(self, protocol: str) -> list[str]:
        """For the load driver."""
        if protocol == "PLAINTEXT":
            return []
        return ["security.protocol=ssl", f"ssl.ca.location={self.authority.ca}"]

    def port(self, protocol: str) -> int:
        return self.process.port if protocol == "PLAINTEXT" else self.encrypted_port

    def context(self, protocol: str) -> ssl.SSLContext | None:
        return None if protocol == "PLAINTEXT" else self.authority.client_context()


@contextmanager
def listening() -> Iterator[Both]:
    with tempfile.TemporaryDirectory(prefix="warp-bench-") as folder:
        authority = Authority(Path(folder))
        server = authority.issue("server")
        port = free_port()
        options = ["--listen", f"SSL://127.0.0.1:{port}", "--tls-certificate", str(server.certificate)]
        options += ["--tls-key", str(server.key), "--object-store", "mem://", "--metadata", "mem://"]
        options += ["--log-level", "error"]
        with AgentProcess(Path(folder) / "data", *options) as process:
            yield Both(process, port, authority)


def throughput(count: int, rounds: int) -> Table:
    """Write and read as fast as it goes, over each."""
    rows: list[list[object]] = []
    for what in ("produce", "consume"):
        for protocol in ("PLAINTEXT", "SSL"):
            speeds, costs = [], []
            for number in range(rounds):
                with listening() as both:
                    speed, cost = _move(both, what, protocol, f"t{number}", count)
                speeds.append(speed)
                costs.append(cost)
            rows.append([what, protocol, median(speeds), median(costs)])
    columns = ["", "protocol", "MB/s", "agent's CPU ms per MB"]
    return Table("tls-throughput", f"TLS beside plaintext, records of {RECORD_BYTES} bytes", columns, rows)


def _move(both: Both, what: str, protocol: str, topic: str, count: int) -> tuple[float, float]:
    """Megabytes per second, and milliseconds of the agent's processor time for each."""
    create_topic(both.process.bootstrap, topic, PARTITIONS)
    bootstrap = f"127.0.0.1:{both.port(protocol)}"
    own = both.properties(protocol)
    if what == "consume":
        load("produce", both.process.bootstrap, topic, PARTITIONS, count, RECORD_BYTES, 0)
    before = cpu_seconds(both.process.pid)
    if what == "produce":
        done = load("produce", bootstrap, topic, PARTITIONS, count, RECORD_BYTES, 0, *own)
    else:
        done = load("consume", bootstrap, topic, PARTITIONS, count, *own)
    megabytes = count * RECORD_BYTES / 1e6
    cpu_ms = 1000 * (cpu_seconds(both.process.pid) - before)
    return megabytes / done["seconds"], cpu_ms / megabytes


def connections(count: int) -> Table:
    """Open many, let each say little or much, and look at the agent."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * count + 1_000), most))
    rows: list[list[object]] = []
    for protocol in ("PLAINTEXT", "SSL"):
        for what, talk in (
            ("said hello", say_hello),
            (f"moved {MOVED_BYTES // 1000} KB each way", move_data),
        ):
            with listening() as both, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                rows.append([protocol, what, *runner.run(_open(both, protocol, count, talk))])
    columns = ["protocol", f"{count} connections that", "KiB each, idle", "agent's CPU ms each"]
    return Table("tls-connections", "What a connection costs", columns, rows)


async def say_hello(client: Client) -> None:
    assert (await client.ask(ApiVersionsRequest(), 0)).error_code == 0


async def move_data(client: Client) -> None:
    # For a topic that does not exist, so that nothing of it is kept.
    assert (await client.ask(produce_request({"nowhere": {0: MOVED}}), 9)).responses
    assert len(await _fetched(client)) > MOVED_BYTES


async def _fetched(client: Client) -> bytes:
    client.send(fetch_request({"moved": {0: 0}}, partition_max_bytes=1), 12)
    return await client.frame()


async def _open(
    both: Both, protocol: str, count: int, talk: Callable[[Client], Awaitable[None]]
) -> list[float]:
    pid = both.process.pid
    await asyncio.to_thread(create_topic, both.process.bootstrap, "moved", 1)
    async with connected(both, protocol) as first:
        assert (await first.produce("moved", MOVED)).error_code == 0
        # What is taken once, and not for each.
        for _ in range(20):
            await talk(first)
    await asyncio.sleep(0.5)
    memory_mib, cpu_s = resident_mib(pid), cpu_seconds(pid)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await talk(await stack.enter_async_context(connected(both, protocol)))
        cpu_s = cpu_seconds(pid) - cpu_s
        await asyncio.sleep(1)
        return [(resident_mib(pid) - memory_mib) * 1024 / count, 1000 * cpu_s / count]


@asynccontextmanager
async def connected(both: Both, protocol: str) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", both.port(protocol), ssl=both.context(protocol)
    )
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it: a smoke test")
    quick = parser.parse_args().quick
    tables = [
        throughput(30_000 if quick else 300_000, 1 if quick else 3),
        connections(100 if quick else 1_000),
    ]
    for table in tables:
        table.print()
    if not quick:
        print(f"\nstored in {harness.store('tls', tables)}")


if __name__ == "__main__":
    main()
