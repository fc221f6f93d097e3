"""Rounds of visits of all kinds, and rest after each: agents and stores come to hold no more from round to round."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.load.agent import MIB, LoadAgent, with_tls
from tests.load.churn import PARTITIONS, Churn
from tests.load.figures import Figures
from tests.load.levels import ROUNDS_MIN, Allowed, Level, growth
from tests.soak.places import Place
from tests.support.postgres import PostgresServer
from tests.support.process import free_port
from tests.support.s3 import S3Server, environment_of
from tests.support.tls import Certificate

pytestmark = [pytest.mark.load, pytest.mark.timeout(4 * 3600)]

MEMORY_DIRECTORY = Path("/dev/shm")
"""Where syncing a file costs nothing, so that more happens in a minute."""
EXPIRY_S = 2
CACHE_MIB = 16
QUICK = (
    "--flush-bytes", "64KiB", "--jobs-memory", "64MiB", "--merge-interval", "100ms", "--compaction-interval", "500ms",
    "--retention-check-interval", "200ms", "--delete-grace", "1s", "--orphan-age", "20s", "--orphan-interval", "5s",
    "--producer-expiry", f"{EXPIRY_S}s", "--cache-bytes", f"{CACHE_MIB}MiB", "--group-rebalance-delay", "0",
    "--sasl-mechanisms", "PLAIN,SCRAM-SHA-256", "--authorization", "enforce",
    "--super-users", "User:ANONYMOUS;User:lasting",
)  # fmt: skip
REST_S_MAX = 60.0
SEGMENTS_MAX = 64 + 2 * 32 + 16
"""Live segments when the jobs have done what there is to do, as tests/soak reckons them."""
FORGOTTEN_S = 1200 + 120
"""After so long at the latest, nothing knows of a segment any more whose object has been deleted."""
EPOCHS = 11
"""Objects that number the history of a bucket, and as many settings; there are fewer in the beginning."""
THREADS_MAX = 24
"""Pools make threads as they need them, up to a few each, and keep them."""
HELD = (
    "warp_connections", "warp_connections_unauthenticated", "warp_request_memory_bytes",
    "warp_request_memory_waiting", "warp_fetch_memory_bytes", "warp_fetches_waiting", "warp_buffer_bytes",
    "warp_sealed_bytes", "warp_group_members", "warp_quota_clients", "warp_loop_errors_total",
    "warp_handler_bugs_total",
)  # fmt: skip


METADATA_CONNECTIONS = 3
"""Each remembers its statements; so few have learned them soon."""
STORE_CONNECTIONS = 8
"""To the S3 server; they are kept for some seconds, whether or not there is something to do."""
CLUSTER = ("--flush-interval", "100ms", "--metadata-connections-max", str(METADATA_CONNECTIONS))
ALLOWED = Allowed(
    rows={"extents": SEGMENTS_MAX * PARTITIONS, "segments live": SEGMENTS_MAX, "settings": EPOCHS},
    objects=EPOCHS,
    threads=THREADS_MAX,
)
_TABLES = "select name from sqlite_master where type = 'table' and name not like 'sqlite%'"


class Grounds:
    """Agents to visit, and where they keep what they have."""

    def __init__(self, place: Place, agents: Sequence[LoadAgent], churn: Churn, allowed: Allowed) -> None:
        self.place = place
        self.agents = agents
        self.churn = churn
        self.allowed = allowed

    def rows(self) -> dict[str, int]:
        """How many rows there are in each table; those of segments by what has become of these."""
        tables = self._tables()
        counts = self.place.query("select " + ", ".join(f"(select count(*) from {name})" for name in tables))
        rows = dict(zip(tables, counts, strict=True))
        states = self.place.query(
            "select sum(case when state = 0 then 1 else 0 end), sum(case when state = 1 then 1 else 0 end),"
            " sum(case when state = 2 then 1 else 0 end) from segments"
        )
        del rows["segments"]
        return {**rows, "segments live": states[0], "segments dead": states[1], "segments gone": states[2]}

    def kept_rows(self, rows: dict[str, int]) -> dict[str, int]:
        """Those that stay for a while though nobody needs them: so many as the visits can have left."""
        done = self.churn.done
        return {
            "deleted_topics": done["make_and_delete_topic"],  # 30 days
            "catalogue_entries": min(rows["catalogue_entries"], 3 * done["settings"]),  # 10,000 versions
            "group_offsets": min(rows["group_offsets"], done["group"]),  # 10 minutes
            "segments gone": rows["segments gone"],  # 20 minutes, see `problems_of_age`
        }

    def problems_of_age(self) -> list[str]:
        """Rows of segments that should have been forgotten."""
        before_ms = round((time.time() - FORGOTTEN_S) * 1000)
        [old] = self.place.query(f"select count(*) from segments where state = 2 and died_ms < {before_ms}")
        return [f"{old} segments are gone and not forgotten"] if old else []

    def rest(self) -> list[Level]:
        """Wait until the jobs have caught up and nobody is known any more; what each agent holds then."""
        deadline_s = time.monotonic() + REST_S_MAX
        while True:
            rows = self.rows()
            busy = self._busy(rows)
            if not busy and rows["segments live"] <= SEGMENTS_MAX:
                # Jobs may leave a few segments or many, up to that bound, as it happens: the others are to be the same.
                objects = len(self.place.objects()) - rows["segments live"]
                if self.rows()["segments gone"] == rows["segments gone"]:
                    return [self._level(agent, rows, objects) for agent in self.agents]
            problems = self.churn.problems[:5]
            assert time.monotonic() < deadline_s, f"never comes to rest: {busy}, {rows}, {problems}"
            time.sleep(0.2)

    def _busy(self, rows: dict[str, int]) -> dict[str, int]:
        """What jobs have not done yet, and connections of which agents have not yet heard that they are over."""
        names = ("producers", "deleted_logs", "segments dead", "groups", "group_members")
        counts = {name: rows[name] for name in names}
        for agent in self.agents:
            counts[f"connections of {agent.port}"] = round(agent.metric("warp_connections"))
        return {name: count for name, count in counts.items() if count}

    def _level(self, agent: LoadAgent, rows: dict[str, int], objects: int) -> Level:
        metrics = agent.metrics()
        held = {name: metrics.get(name, 0.0) for name in HELD}
        facts = agent.facts()
        return Level(facts, rows, objects, self.kept_rows(rows), held | facts.kept)

    def _tables(self) -> list[str]:
        if self.place.postgres is not None:
            return self.place.postgres.execute(
                "select tablename from pg_tables where schemaname = 'public' order by 1",
                urlsplit(self.place.metadata).path[1:],
            )
        path = urlsplit(self.place.metadata).path
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found = connection.execute(_TABLES)
            return [name for (name,) in found]


@contextmanager
def one_agent(directory: Path) -> Iterator[Grounds]:
    """SQLite, and objects in a directory."""
    with ExitStack() as stack:
        if os.access(MEMORY_DIRECTORY, os.W_OK):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY_DIRECTORY)))
        certificate = Certificate(directory)
        tls_port, tls_options = with_tls(certificate)
        sasl_port = free_port()
        data = directory / "data"
        listen = ("--listen", f"SASL_PLAINTEXT://127.0.0.1:{sasl_port}")
        agent = stack.enter_context(LoadAgent(data, *QUICK, *tls_options, *listen))
        place = Place(
            "local", [agent], f"sqlite://{data / 'metadata.sqlite'}", (data / "objects").as_uri(), {}
        )
        tls = ssl.create_default_context(cafile=str(certificate.ca_file))
        churn = Churn([agent.port], tls_port=tls_port, tls=tls, sasl_port=sasl_port)
        yield Grounds(place, [agent], churn, ALLOWED)


@contextmanager
def cluster(directory: Path) -> Iterator[Grounds]:
    """Two agents, PostgreSQL, and objects at an S3 server."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        s3 = stack.enter_context(S3Server(directory))
        environment = environment_of(s3.credentials)
        os.environ.update(environment)  # Of this process as well, which lists the bucket.
        url, metadata = s3.url("warp", connections=str(STORE_CONNECTIONS)), postgres.create_database()
        certificate = Certificate(directory)
        agents: list[LoadAgent] = []
        tls_port = sasl_port = 0
        for number in range(2):
            tls_port, tls_options = with_tls(certificate)
            sasl_port = free_port()
            stores = ("--metadata", metadata, "--object-store", url, *CLUSTER)
            listen = ("--listen", f"SASL_PLAINTEXT://127.0.0.1:{sasl_port}")
            data = directory / f"agent-{number}"
            agents.append(
                stack.enter_context(
                    LoadAgent(data, *stores, *QUICK, *tls_options, *listen, environment=environment)
                )
            )
        place = Place("cluster", agents, metadata, url, environment, postgres)
        tls = ssl.create_default_context(cafile=str(certificate.ca_file))
        churn = Churn([agent.port for agent in agents], tls_port=tls_port, tls=tls, sasl_port=sasl_port)
        sockets = {"socket": METADATA_CONNECTIONS + STORE_CONNECTIONS}
        yield Grounds(place, agents, churn, replace(ALLOWED, descriptors=sockets))


def soak(grounds: Grounds, rounds: int, round_s: float, figures: Figures) -> None:
    """Rounds of visits and rest. The first is not compared: what is made once is made in it."""
    asyncio.run(grounds.churn.prepare())
    asyncio.run(grounds.churn.fill_cache(CACHE_MIB * MIB))
    levels: list[list[Level]] = []
    for _ in range(rounds + 1):
        asyncio.run(grounds.churn.run(round_s))
        levels.append(grounds.rest())
    figures.complain(grounds.churn.problems[:5] + grounds.problems_of_age())
    for name, count in sorted(grounds.churn.done.items()):
        figures.note(f"visits: {name.replace('_', ' ')}", count)
        assert count >= rounds, f"{name} was hardly done"
    figures.note("groups that lost their coordinator meanwhile", grounds.churn.passed)
    assert grounds.churn.passed <= grounds.churn.done["group"] // 2, "groups hardly live"
    figures.note("fetches that waited as their client vanished", grounds.churn.waited)
    assert grounds.churn.waited >= rounds, "hardly anybody waited"
    loads = sum(agent.metric("warp_cache_loads_total") for agent in grounds.agents)
    figures.note("chunks read from the store", loads)
    assert loads >= rounds, "readers found all in memory"
    for number, agent in enumerate(grounds.agents):
        of_agent = [level[number] for level in levels[1:]]
        figures.complain(growth(of_agent, grounds.allowed))
        _note(figures, f"agent {number}, " if len(grounds.agents) > 1 else "", of_agent)
        figures.complain(agent.bugs()[:3])
    rows, objects = levels[-1][0].rows, levels[-1][0].objects
    figures.note("rows at rest", sum(rows.values()) - sum(levels[-1][0].kept_rows.values()))
    figures.note("objects at rest beside live segments", objects)
    for agent in grounds.agents:
        assert agent.stop() == 0
    code, text = grounds.place.fsck()
    figures.exactly("exit code of fsck --deep", code, 0)
    if code:
        figures.complain([text[-2000:]])


def _note(figures: Figures, prefix: str, levels: Sequence[Level]) -> None:
    """Where each number was after the first round that counts, and where it is in the end."""
    first, last = levels[0].facts, levels[-1].facts
    for name, early, late, unit in (
        ("resident", first.resident_bytes / MIB, last.resident_bytes / MIB, "MiB"),
        ("blocks of memory", first.blocks, last.blocks, ""),
        ("descriptors", sum(first.descriptors.values()), sum(last.descriptors.values()), ""),
        ("tasks", sum(first.tasks.values()), sum(last.tasks.values()), ""),
        ("threads", first.threads, last.threads, ""),
    ):
        figures.note(f"{prefix}{name}, at first", early, unit)
        figures.note(f"{prefix}{name}, at last", late, unit)


def test_one_agent_holds_no_more_after_any_round(tmp_path: Path, figures: Figures, minutes: float) -> None:
    with one_agent(tmp_path) as grounds:
        soak(grounds, *_plan(minutes, 4.0), figures)


@pytest.mark.postgres
def test_agents_of_a_cluster_hold_no_more_after_any_round(
    tmp_path: Path, figures: Figures, minutes: float
) -> None:
    with cluster(tmp_path) as grounds:
        soak(grounds, *_plan(minutes / 2, 4.0), figures)


def _plan(minutes: float, round_s: float) -> tuple[int, float]:
    """How many rounds are compared, and how long each is."""
    if not minutes:
        return ROUNDS_MIN, round_s
    return 10, minutes * 60 / 11
