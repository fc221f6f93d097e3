"""PostgreSQL put back from a dump of its own, and lost altogether, under a cluster on S3 whose jobs are at work."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic
from tests.process.conftest import run_warp
from tests.support import postgres
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.process import AgentProcess
from tests.support.restore_load import PARTITIONS, TOPIC, Load, consumed
from tests.support.s3 import S3Server, environment_of

pytestmark = pytest.mark.postgres

JOBS = (
    "--flush-interval", "100ms", "--merge-interval", "300ms", "--delete-grace", "2s", "--orphan-age", "5s",
    "--orphan-interval", "5s",
)  # fmt: skip


def program(name: str, *words: str) -> None:
    """Run one of PostgreSQL's own."""
    binaries = postgres.find_binaries()
    assert binaries is not None
    subprocess.run([str(binaries / name), *words], check=True, capture_output=True, timeout=60)


def warp(cluster: Cluster, s3: S3Server, *words: str, metadata: str | None = None) -> tuple[int, str, str]:
    """Run a command on the stores of the cluster."""
    stores = ["--metadata", metadata or cluster.metadata, "--object-store", cluster.object_store]
    return run_warp(*words, *stores, env=environment_of(s3.credentials))


def restored(cluster: Cluster, s3: S3Server, *words: str, metadata: str | None = None) -> dict[str, int]:
    """What a command says that it has done."""
    code, out, error = warp(cluster, s3, *words, "--yes", "--json", metadata=metadata)
    assert code == 0, error
    done: dict[str, int] = json.loads(out)
    assert done["is_done"]
    return done


def expect_all(acknowledged: dict[str, tuple[int, int, float]], found: dict[tuple[int, int], str]) -> int:
    """All records are there, and none twice; how many have moved."""
    values = sorted(found.values())
    assert values == sorted(set(values)), "nothing twice"
    assert set(acknowledged) <= set(values), "nothing lost"
    return sum(found.get((part, offset)) != value for value, (part, offset, _) in acknowledged.items())


def test_a_dump_is_put_back_and_then_the_whole_database_is_lost(
    make_cluster: MakeCluster, postgres_server: PostgresServer, s3: S3Server, tmp_path: Path
) -> None:
    cluster = make_cluster(*JOBS, zones=["a", "a"])
    create_topic(cluster, TOPIC, PARTITIONS)
    dump = str(tmp_path / "dump")
    with Load(cluster.bootstrap) as load:
        load.wait_for(200)
        program("pg_dump", "--format=custom", f"--file={dump}", cluster.metadata)
        load.wait_for(len(load.acknowledged) + 200)
        code, _, error = warp(cluster, s3, "restore", "--yes")
        assert code == 1
        assert "is at work on this database: stop all agents first" in error
        for agent in cluster.agents:
            agent.terminate()
        assert [agent.wait() for agent in cluster.agents] == [0, 0]
        # Stopped in order, both have written their receipts.
        acknowledged = dict(load.acknowledged)
        program("pg_restore", "--clean", "--if-exists", f"--dbname={cluster.metadata}", dump)
        code, out, _ = warp(cluster, s3, "restore")
        assert (code, "Nothing was changed" in out) == (0, True)
        done = restored(cluster, s3, "restore")
        assert (done["moved"], done["lost"]) == (0, 0)
        for agent in cluster.agents:
            agent.start()
        load.wait_for(len(acknowledged) + 50)
        assert expect_all(acknowledged, consumed(cluster.bootstrap)) == 0
    rebuild_elsewhere(cluster, postgres_server, s3, load)


def rebuild_elsewhere(cluster: Cluster, server: PostgresServer, s3: S3Server, load: Load) -> None:
    """The agents are killed and their database is gone; an agent on a new one serves what they took."""
    for agent in cluster.agents:
        agent.kill()
    server.drop_database(cluster.metadata)
    metadata = server.create_database()
    try:
        restored(cluster, s3, "rebuild", "--from-bucket", metadata=metadata)
        code, out, _ = warp(cluster, s3, "fsck", "--deep", metadata=metadata)
        assert (code, out.splitlines()[-1]) == (0, "clean"), out
        stores = ["--metadata", metadata, "--object-store", cluster.object_store]
        survivor = AgentProcess(
            cluster.directory / "survivor", *stores, environment=environment_of(s3.credentials)
        )
        with survivor:
            moved = expect_all(load.acknowledged, consumed(survivor.bootstrap))
            assert moved < len(load.acknowledged) / 2
            assert survivor.stop() == 0
    finally:
        server.drop_database(metadata)
        server.execute(f"create database {cluster.metadata.rpartition('/')[2]}")
