"""Where a soak runs: one agent with all its data on disk, or two of a cluster over PostgreSQL and an S3 server."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.process import AgentProcess
from tests.support.s3 import S3Server, environment_of
from warp.clock import SystemClock
from warp.ids import IdSource
from warp.objectstore.base import ObjectInfo
from warp.objectstore.urls import open_object_store

ROOT = Path(__file__).parents[2]
GRACE_S = 2.0
FSCK_TIMEOUT_S = 300.0
QUICK = (
    "--flush-bytes", "64KiB", "--jobs-memory", "64MiB", "--merge-interval", "1s", "--compaction-interval", "1s",
    "--retention-check-interval", "1s", "--delete-grace", f"{GRACE_S:g}s", "--orphan-age", "20s",
    "--orphan-interval", "5s", "--producer-expiry", "60s", "--cache-bytes", "32MiB",
    "--group-rebalance-delay", "300ms",
)  # fmt: skip


class Facts(NamedTuple):
    """How much there is, by the metadata and by the object store."""

    live_segments: int
    live_segment_bytes: int
    level_0_segments: int
    dead_segments: int
    old_dead_segments: int
    """Dead for longer than the grace period and a few passes."""
    gone_segments: int
    extents: int
    logs: int
    log_bytes: int
    deleted_logs: int
    quarantined: int
    segment_objects: int
    segment_object_bytes: int
    other_objects: int


@dataclass
class Place:
    """Agents at work. `query` runs SQL that both databases understand; `url` is the object store's."""

    name: str
    agents: Sequence[AgentProcess]
    metadata: str
    url: str
    environment: dict[str, str]
    postgres: PostgresServer | None = None

    @property
    def bootstrap(self) -> str:
        """The addresses of all agents."""
        return ",".join(agent.bootstrap for agent in self.agents)

    def query(self, sql: str) -> list[int]:
        """The one row that a statement answers."""
        if self.postgres is not None:
            [line] = self.postgres.execute(sql, urlsplit(self.metadata).path[1:])
            return [int(field or 0) for field in line.split("|")]
        path = urlsplit(self.metadata).path
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return [int(field or 0) for field in connection.execute(sql).fetchone()]

    def objects(self) -> list[ObjectInfo]:
        """All of them."""

        async def look() -> list[ObjectInfo]:
            clock = SystemClock()
            store = open_object_store(self.url, clock=clock, ids=IdSource(clock, os.urandom))
            await store.open()
            try:
                return [info async for info in store.list("")]
            finally:
                await store.close()

        return asyncio.run(look())

    def facts(self, now_ms: int) -> Facts:
        """How much there is now."""
        old_ms = now_ms - round((GRACE_S + 15.0) * 1000)
        segments = self.query(
            "select sum(case when state = 0 then 1 else 0 end), sum(case when state = 0 then size_bytes else 0 end),"
            " sum(case when state = 0 and level = 0 then 1 else 0 end), sum(case when state = 1 then 1 else 0 end),"
            f" sum(case when state = 1 and died_ms < {old_ms} then 1 else 0 end),"
            " sum(case when state = 2 then 1 else 0 end) from segments"
        )
        [extents] = self.query("select count(*) from extents")
        logs, log_bytes = self.query("select count(*), sum(size_bytes) from logs")
        [deleted] = self.query("select count(*) from deleted_logs")
        [quarantined] = self.query("select count(*) from quarantined_extents")
        found = self.objects()
        stored = [info for info in found if info.key.startswith("segments/")]
        size_bytes = sum(info.size_bytes for info in stored)
        others = len(found) - len(stored)
        numbers = [*segments, extents, logs, log_bytes, deleted, quarantined, len(stored), size_bytes, others]
        return Facts._make(numbers)

    def fsck(self) -> tuple[int, str]:
        """Exit code and output of a deep check. The agents have ended."""
        done = subprocess.run(
            [
                sys.executable, "-m", "warp", "fsck", "--deep", "--metadata", self.metadata,
                "--object-store", self.url,
            ],
            capture_output=True, text=True, timeout=FSCK_TIMEOUT_S, check=False, cwd=ROOT,
            env={**os.environ, **self.environment},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@contextmanager
def local(directory: Path) -> Iterator[Place]:
    """One agent, SQLite, and objects in a directory."""
    data = directory / "data"
    with AgentProcess(data, *QUICK) as agent:
        yield Place("local", [agent], f"sqlite://{data / 'metadata.sqlite'}", (data / "objects").as_uri(), {})


@contextmanager
def cluster(directory: Path) -> Iterator[Place]:
    """Two agents, PostgreSQL, and objects at an S3 server."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        directory.mkdir(parents=True, exist_ok=True)
        s3 = stack.enter_context(S3Server(directory))
        environment = environment_of(s3.credentials)
        # Of this process as well, which lists the bucket.
        os.environ.update(environment)
        url, metadata = s3.url("warp"), postgres.create_database()
        options = ["--flush-interval", "150ms", *QUICK]
        agents = stack.enter_context(
            Cluster(
                directory / "cluster",
                metadata,
                url,
                zones=("zone-1", "zone-1"),
                options=options,
                environment=environment,
            )
        ).agents
        yield Place("cluster", agents, metadata, url, environment, postgres)


PLACES = {"local": local, "cluster": cluster}
