"""`warp doctor` on the database of a cluster: before its first agent, beside one, and where none could start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.test_doctor import ANY, doctor, finding, severity
from tests.support.cluster import ClusterAgent
from tests.support.postgres import PostgresServer
from tests.support.process import free_port

pytestmark = pytest.mark.postgres

TABLES = "select count(*) from pg_tables where schemaname = 'public'"
MEASURED = ("metadata.round-trip", "metadata.commit")


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a new and empty database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def test_before_the_first_agent_everything_is_measured_and_nothing_made(
    tmp_path: Path, database: str, postgres_server: PostgresServer
) -> None:
    objects = tmp_path / "objects"
    code, found = doctor("--metadata", database, "--object-store", objects.as_uri(), *ANY)
    assert code == 0, found
    for check in MEASURED:
        assert finding(found, check)["measured"]["samples"] == 3
    for check in ("metadata.open", "metadata.durability", "metadata.notices", "clock.metadata", "cluster.id"):
        assert severity(found, check) == "ok"
    assert "makes the tables" in finding(found, "metadata.open")["text"]
    assert finding(found, "object-store.produce")["measured"]["p50_ms"] > 0
    assert postgres_server.execute(TABLES, database.rpartition("/")[2]) == ["0"]
    assert not objects.exists()


def test_beside_an_agent_it_knows_that_one_and_tells_another_that_the_name_is_taken(
    tmp_path: Path, database: str, postgres_server: PostgresServer
) -> None:
    stores = ["--metadata", database, "--object-store", (tmp_path / "objects").as_uri()]
    with ClusterAgent(tmp_path / "agent", "a", stores, {}) as agent:
        cluster = json.loads(agent.get("/v1/status")[1])["cluster_id"]
        http = ("--http", f"127.0.0.1:{agent.http_port}")
        code, found = doctor(*stores, "--listen", agent.bootstrap, *http)
        assert code == 0, found
        assert finding(found, "cluster.id")["measured"] == {"cluster_id": cluster}
        assert finding(found, "cluster.object-store")["measured"] == {"cluster_id": cluster}
        name = finding(found, "cluster.name")
        assert (name["severity"], name["subject"]) == ("ok", agent.bootstrap)
        assert name["measured"] == {"broker_id": agent.broker_id()}

        elsewhere = ("--listen", f"127.0.0.1:{free_port()}", "--http", "off", "--advertise", agent.bootstrap)
        code, found = doctor(*stores, *elsewhere)
        assert (code, severity(found, "cluster.name")) == (1, "problem")

        other = postgres_server.create_database()
        code, found = doctor("--metadata", other, *stores[2:], *ANY)
        assert (code, severity(found, "cluster.object-store")) == (1, "problem")
        assert cluster in finding(found, "cluster.object-store")["text"]
        postgres_server.drop_database(other)

        assert agent.view()["own"]["session"] == "live"
        agent.kill()
    code, found = doctor(*stores, *elsewhere)
    assert severity(found, "cluster.name") == "ok"
    assert "is gone" in finding(found, "cluster.name")["text"]


def test_a_database_that_no_agent_can_use_is_one_problem_without_the_password(
    tmp_path: Path, database: str, postgres_server: PostgresServer
) -> None:
    objects = ("--object-store", (tmp_path / "objects").as_uri())
    nobody = f"postgresql://warp:hunter2@127.0.0.1:{free_port()}/warp"
    code, found = doctor("--metadata", nobody, *objects, *ANY)
    assert (code, severity(found, "metadata.open")) == (1, "problem")
    assert "nobody answers there" in finding(found, "metadata.open")["text"]
    assert "hunter2" not in str(found)
    assert not any(each["check"] in MEASURED for each in found["findings"])
    postgres_server.execute(f"alter database {database.rpartition('/')[2]} set synchronous_commit = off")
    code, found = doctor("--metadata", database, *objects, *ANY)
    assert code == 1
    assert "has synchronous_commit off" in finding(found, "metadata.open")["text"]


def test_a_server_with_too_few_connections_is_a_problem(
    tmp_path: Path, database: str, postgres_server: PostgresServer
) -> None:
    objects = ("--object-store", (tmp_path / "objects").as_uri())
    name = database.rpartition("/")[2]
    postgres_server.execute(f"alter database {name} with connection limit 12")
    code, found = doctor("--metadata", database, *objects, *ANY)
    assert (code, finding(found, "metadata.connections")["measured"]["connections_max"]) == (0, 12)
    code, found = doctor("--metadata", database, *objects, *ANY, "--metadata-connections-max", "12")
    assert (code, severity(found, "metadata.connections")) == (1, "problem")
