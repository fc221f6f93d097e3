"""What several agents cost beside one: processor time and requests for the same load, and what they take when idle.

Agents are processes on one processor, with the stub S3 server; clients (librdkafka in C) have the other. PostgreSQL
runs where there is room, and what it takes is told apart.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient

from benchmarks.macro import harness
from benchmarks.macro.bench_agent import AGENT_CPU, CLIENT_CPU, Run
from benchmarks.macro.harness import GB, Table, cpu_seconds, median, resident_mib
from benchmarks.macro.s3_stub import ENVIRONMENT, S3Stub
from tests.support.cluster import Cluster, ClusterAgent, eventually
from tests.support.postgres import PostgresServer

AGENTS = 3
RECORD_BYTES = 1024
PARTITIONS = 4
"""Of each of the topics; there is one topic for each agent."""
RECORDS_PER_S = 10_000
"""Of each of the producers."""
REQUEST_MS = 20
LOOK_S = 0.5
SETTLED_S = 3.0
"""After which an agent that has started does nothing but wait."""
CLIENT_IDS_MAX = 200
SILENT = {"log_level": 0}
"""librdkafka tells of every connection that is refused."""
FOLDER = os.environ.get("TMPDIR", "/var/tmp")
REQUESTS = {"put_ms": REQUEST_MS, "get_ms": REQUEST_MS, "other_ms": REQUEST_MS}
SPREAD = {name: f"bench-{name},warp_pas=consistent,_" for name in ("producer", "consumer")}


@contextmanager
def cluster_of(agents: int, server: PostgresServer, object_store: str, *options: str) -> Iterator[Cluster]:
    """A running cluster in one zone, on the agents' processor, in a database of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="warp-bench-", dir=FOLDER) as folder,
        quiet_cluster(Path(folder), server, object_store, agents, *options) as cluster,
    ):
        yield cluster


@contextmanager
def quiet_cluster(
    folder: Path, server: PostgresServer, object_store: str, agents: int, *options: str
) -> Iterator[Cluster]:
    """The same in a folder that is there already. Says nothing of its agents unless something goes wrong."""
    cluster = Cluster(
        folder, server.create_database(), object_store, zones=["zone"] * agents, options=options,
        environment=ENVIRONMENT,
    )  # fmt: skip
    try:
        for agent in cluster.agents:
            agent.start()
            pin(agent)
        cluster.settle()
        settle_slots(cluster)
        yield cluster
    except BaseException:
        for agent in cluster.agents:
            print(f"--- {agent.bootstrap}:", *agent.output[-20:], sep="\n")
        raise
    finally:
        for agent in cluster.agents:
            agent.kill()


def pin(agent: ClusterAgent) -> None:
    """Keep an agent on the agents' processor."""
    if (os.cpu_count() or 1) > 1:
        for thread in Path(f"/proc/{agent.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {AGENT_CPU})


def settle_slots(cluster: Cluster, still_s: float = 1.5) -> None:
    """Wait until every agent coordinates its part of the groups, and that has not changed for a while."""
    looks = round(still_s / LOOK_S)
    seen: list[list[int]] = []

    def have_settled() -> bool:
        time.sleep(LOOK_S)
        view = cluster.running[0].view()
        seen.append([agent["slots"] for agent in view["agents"] if agent["state"] == "serving"])
        return all(seen[-1]) and len(seen) > looks and seen[-looks:] == [seen[-1]] * looks

    eventually(have_settled, f"all of {len(cluster.running)} agents coordinate some groups")


def client_ids(cluster: Cluster, topic: str, name: str) -> list[str]:
    """For each agent, in their order, an id whose owner is sent to it."""
    ports = {agent.port: place for place, agent in enumerate(cluster.agents)}
    found: dict[int, str] = {}
    for number in range(CLIENT_IDS_MAX):
        client_id = f"bench-{name}-{number}"
        options: dict[str, Any] = {"bootstrap.servers": cluster.agents[0].bootstrap, "client.id": client_id}
        admin = AdminClient(options | SILENT)
        told = admin.list_topics(topic, timeout=30)
        leader = told.topics[topic].partitions[0].leader
        found.setdefault(ports[told.brokers[leader].port], client_id)
        if len(found) == len(cluster.agents):
            return [found[place] for place in range(len(found))]
    raise ValueError(f"{CLIENT_IDS_MAX} clients, and none is sent to {set(ports.values()) - found.keys()}")


class Load(NamedTuple):
    """How the load is put on."""

    name: str
    distance: int | None
    """How many agents on from where a topic's producer is its consumer is; None: both work with all agents, each of
    which has its part of the partitions."""
    rate: int
    """Records per second of each producer; 0: as fast as it goes."""


LOADS = (
    Load("each client at one agent, reads what came in there", 0, RECORDS_PER_S),
    Load("each client at one agent, reads what came in at another", 1, RECORDS_PER_S),
    Load("each client at all agents", None, RECORDS_PER_S),
    Load("each client at one agent, unlimited", 0, 0),
)


class Ran(NamedTuple):
    """One run of a load; processor time in seconds per GB of record values, requests per GB."""

    rate_mb: float
    agents_cpu: float
    postgres_cpu: float
    clients_cpu: float
    puts: float
    gets: float
    peer_loads: float
    behind_ms: float
    """p99 of the producers' latency."""


def run_load(cluster: Cluster, server: PostgresServer, stub: S3Stub, load: Load, count: int) -> Ran:
    """Producers write `count` records each, and consumers read them at the same time."""
    topics = [f"topic-{number}" for number in range(AGENTS)]
    for topic in topics:
        harness.create_topic(cluster.bootstrap, topic, PARTITIONS)
    if load.distance is None:
        producers, consumers = [SPREAD["producer"]] * AGENTS, [SPREAD["consumer"]] * AGENTS
    else:
        producing, consuming = (client_ids(cluster, topics[0], name) for name in ("producer", "consumer"))
        producers = [producing[number % len(producing)] for number in range(AGENTS)]
        consumers = [consuming[(number + load.distance) % len(consuming)] for number in range(AGENTS)]

    def produce(number: int, records: int) -> dict[str, Any]:
        return harness.load(
            "produce", cluster.bootstrap, topics[number], PARTITIONS, records, RECORD_BYTES, load.rate,
            f"client.id={producers[number]}", "linger.ms=20", "queue.buffering.max.messages=500000", cpu=CLIENT_CPU,
        )  # fmt: skip

    def consume(number: int, records: int) -> dict[str, Any]:
        return harness.load(
            "consume", cluster.bootstrap, topics[number], PARTITIONS, records,
            f"client.id={consumers[number]}", cpu=CLIENT_CPU,
        )  # fmt: skip

    pids = [agent.pid for agent in cluster.agents]
    with ThreadPoolExecutor(2 * AGENTS) as clients:
        list(
            clients.map(lambda number: produce(number, max(count // 10, PARTITIONS)), range(AGENTS))
        )  # warm-up
        server_pids = server.pids()
        before, cpu = stub.counts(), sum(map(cpu_seconds, pids))
        server_cpu, peers = sum(map(cpu_seconds, server_pids)), peer_loads(cluster)
        reading = [clients.submit(consume, number, count) for number in range(AGENTS)]
        written = list(clients.map(lambda number: produce(number, count), range(AGENTS)))
        read = [each.result() for each in reading]
    gb = sum(each["bytes"] for each in written) / GB
    after = stub.counts()
    # A server process whose connection has closed is gone with what it took: pools stay open, so none should be.
    alive = [pid for pid in server_pids if Path(f"/proc/{pid}").exists()]
    return Ran(
        rate_mb=1000 * gb / max(each["seconds"] for each in written),
        agents_cpu=(sum(map(cpu_seconds, pids)) - cpu) / gb,
        postgres_cpu=(sum(map(cpu_seconds, alive)) - server_cpu) / gb,
        clients_cpu=sum(each["cpu_seconds"] for each in (*written, *read)) / gb,
        puts=(after["put"] - before["put"]) / gb,
        gets=(after["get"] - before["get"]) / gb,
        peer_loads=(peer_loads(cluster) - peers) / gb,
        behind_ms=max(each["p99_us"] for each in written) / 1000,
    )


def peer_loads(cluster: Cluster) -> float:
    """How many chunks agents have got from each other."""
    return sum(agent.metric('warp_cache_loads_total{source="peer"') for agent in cluster.agents)


def several(server: PostgresServer, count: int, rounds: int) -> Table:
    """One agent and three under the same loads, in turns."""
    rows: list[list[Any]] = []
    keep_mib = (AGENTS * count * RECORD_BYTES * 13 // 10 >> 20) + 64
    for load in LOADS:
        done: dict[int, list[Ran]] = {1: [], AGENTS: []}
        for _ in range(rounds):
            for agents, found in done.items():
                with (
                    S3Stub(keep_mib=keep_mib, **REQUESTS) as stub,
                    cluster_of(agents, server, stub.url(), "--merge-interval", "1h") as cluster,
                ):
                    found.append(run_load(cluster, server, stub, load, count))
        for agents, found in done.items():
            beside = [ran.agents_cpu / one.agents_cpu for ran, one in zip(found, done[1], strict=True)]
            figures = [median(list(values)) for values in zip(*found, strict=True)]
            rows.append([load.name, agents, *figures[:2], median(beside), *figures[2:]])
    return Table(
        "agents",
        f"Three agents beside one under the same load: {AGENTS} producers and as many consumers that read along, "
        f"1 KiB records, S3 that takes {REQUEST_MS} ms; CPU-seconds and requests per GB written and read once",
        ["load", "agents", "MB/s", "agents' CPU", "÷ one agent's (≤ 1.15)", "PostgreSQL's CPU", "clients' CPU", "PUTs",
         "GETs", "chunks from agents", "produce p99, ms"],
        rows,
    )  # fmt: skip


class Idle:
    """Figures of one kind of agent that has nothing to do."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.memory: list[float] = []
        self.agent: list[float] = []
        self.postgres: list[float] = []
        self.transactions: list[float] = []

    def watch(self, agents: list[int], server: PostgresServer | None, database: str, seconds: float) -> None:
        """Take down what agents use for a while, and what PostgreSQL does on their behalf."""
        pids = server.pids() if server else []
        before, begun = [cpu_seconds(pid) for pid in agents], time.monotonic()
        server_cpu, counted = sum(map(cpu_seconds, pids)), _transactions(server, database)
        time.sleep(seconds)
        took = time.monotonic() - begun
        used = [(cpu_seconds(pid) - then) / took for pid, then in zip(agents, before, strict=True)]
        self.agent += [1000 * each for each in used]
        self.memory += map(resident_mib, agents)
        if server:
            alive = [pid for pid in pids if Path(f"/proc/{pid}").exists()]
            self.postgres.append(1000 * (sum(map(cpu_seconds, alive)) - server_cpu) / took)
            self.transactions.append((_transactions(server, database) - counted) / took)

    def row(self) -> list[Any]:
        """Medians; a dash for what there is none of."""
        found = (self.starts, self.memory, self.agent, self.postgres, self.transactions)
        return [median(values) if values else "-" for values in found]


def _transactions(server: PostgresServer | None, database: str) -> int:
    if server is None:
        return 0
    [count] = server.execute(f"select xact_commit from pg_stat_database where datname = '{database}'")
    return int(count)


def idle(server: PostgresServer, rounds: int, seconds: float) -> Table:
    """Start, and what agents take that have nothing to do, beside one with a database of its own."""
    kinds = {name: Idle() for name in ("alone, SQLite", "alone in a cluster", "one of three")}
    with S3Stub(**REQUESTS) as stub:
        for number in range(rounds):
            alone = kinds["alone, SQLite"]
            with Run(["--object-store", stub.url(f"alone-{number}")], ENVIRONMENT) as agent:
                alone.starts.append(agent.start_seconds)  # type: ignore[attr-defined]
                time.sleep(SETTLED_S)
                alone.watch([agent.pid], None, "", seconds)
            _idle_cluster(server, stub.url(f"cluster-{number}"), seconds, kinds)
    return Table(
        "idle",
        f"Start to serving on S3 that takes {REQUEST_MS} ms, and agents that have nothing to do (thousandths of a "
        "core; PostgreSQL's on behalf of all)",
        ["agent", "start, s", "resident MiB", "agent", "PostgreSQL", "transactions/s"],
        [[name, *kind.row()] for name, kind in kinds.items()],
    )


def _idle_cluster(server: PostgresServer, store: str, seconds: float, kinds: dict[str, Idle]) -> None:
    url = server.create_database()
    with tempfile.TemporaryDirectory(prefix="warp-bench-", dir=FOLDER) as folder:
        cluster = Cluster(Path(folder), url, store, zones=["zone"] * AGENTS, environment=ENVIRONMENT)
        try:
            for place, agent in enumerate(cluster.agents):
                kind = kinds["one of three" if place else "alone in a cluster"]
                begun = time.monotonic()
                agent.start()
                kind.starts.append(time.monotonic() - begun)
                pin(agent)
                if place in (0, AGENTS - 1):
                    cluster.settle()
                    settle_slots(cluster)
                    time.sleep(SETTLED_S)
                    pids = [running.pid for running in cluster.running]
                    kind.watch(pids, server, url.rpartition("/")[2], seconds)
        finally:
            for agent in cluster.agents:
                agent.kill()
