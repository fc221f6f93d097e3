"""Failovers of PostgreSQL to a real standby: what a synchronous one keeps, and how agents notice what one has lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer

from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic
from tests.faults.test_kill import PARTITIONS, Load, assert_all_is_there
from tests.process.conftest import run_warp
from tests.support import postgres
from tests.support.cluster import eventually
from tests.support.postgres import ADMINISTRATOR, PostgresServer

pytestmark = pytest.mark.postgres

NAME = "warp"
DOCUMENT = Path(__file__).parents[2] / "docs" / "postgres.md"


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """One that no other test needs: it is killed here."""
    if (reason := postgres.missing()) is not None:
        pytest.skip(reason)
    with PostgresServer() as server:
        server.create_database(NAME)
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """It follows asynchronously, unless a test has it otherwise."""
    with primary.standby() as server:
        yield server


@pytest.fixture
def database(primary: PostgresServer, standby: PostgresServer) -> str:
    """The URL of both servers, the primary first."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in (primary, standby))
    return f"postgresql://{ADMINISTRATOR}@/{NAME}?host={hosts}"


def refusal(directory: Path, metadata: str) -> str:
    """The one line of an agent that does not start, which is not of the log."""
    code, output, errors = run_warp(
        "agent", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir", str(directory / "data"),
        "--metadata", metadata, "--object-store", (directory / "objects").as_uri(),
    )  # fmt: skip
    assert (code, output) == (1, "")
    [line] = [line for line in errors.splitlines() if not line.startswith("{")]
    return line


def test_a_standby_is_refused_alone_and_beside_another(tmp_path: Path, standby: PostgresServer) -> None:
    line = refusal(tmp_path, standby.url(NAME))
    assert line == (
        f"warp agent: PostgreSQL at 127.0.0.1:{standby.port}/{NAME} is a standby, which takes no writes: "
        "give the address of the primary"
    )
    both = f"127.0.0.1:{standby.port},127.0.0.1:{standby.port}"
    line = refusal(tmp_path, f"postgresql://{ADMINISTRATOR}@{both}/{NAME}")
    assert line.startswith(f"warp agent: can't use the metadata in PostgreSQL at {both}/{NAME}: ")
    assert "none of the servers takes writes" in line


@pytest.mark.parametrize("death", [PostgresServer.crash, PostgresServer.pause], ids=["killed", "silent"])
def test_agents_go_on_at_a_synchronous_standby_that_has_taken_over_and_lose_nothing(
    make_cluster: MakeCluster,
    primary: PostgresServer,
    standby: PostgresServer,
    death: Callable[[PostgresServer], None],
) -> None:
    primary.wait_for_standby()
    cluster = make_cluster("--metadata-timeout", "2s", zones=["a", "a"])
    create_topic(cluster, "t", PARTITIONS)
    load = Load(cluster.bootstrap, "t")
    try:
        eventually(lambda: load.acknowledged > 500, "producing")
        death(primary)
        standby.promote()
        before = load.acknowledged
        eventually(lambda: load.acknowledged > before + 500, "producing goes on", 60)
    finally:
        load.finish()
    assert_all_is_there(load, cluster.bootstrap)
    cluster.settle()
    assert all(agent.is_running for agent in cluster.agents)


def test_agents_that_miss_acknowledged_commits_after_a_failover_end_with_one_line(
    make_cluster: MakeCluster, primary: PostgresServer, standby: PostgresServer
) -> None:
    cluster = make_cluster(zones=["a", "a"])
    create_topic(cluster, "t")
    producer = Producer({"bootstrap.servers": cluster.bootstrap})
    producer.produce("t", b"kept")
    assert producer.flush(30) == 0
    primary.hold_back_standbys()
    producer.produce("t", b"lost")
    assert producer.flush(30) == 0
    # Each agent tells the primary twice a second that it lives.
    counters = counters_of(primary)
    eventually(
        lambda: all(now > then for now, then in zip(counters_of(primary), counters, strict=True)), "beats"
    )
    primary.crash()
    standby.promote()
    told = documented_line()
    for agent in cluster.agents:
        assert agent.wait() == 1
        [line] = [line for line in agent.output if line.startswith("warp agent: ")]
        before, _, after = told.partition("(…)")
        assert line.startswith(f"warp agent: {before}(this agent's counter is ")
        assert line.endswith(after)
    # Whoever starts them again has read what stands there: they take the database as it is.
    agent = cluster.agents[0]
    agent.start()
    eventually(lambda: agent.get("/v1/ready")[0] == 200, "the agent serves again")


def counters_of(server: PostgresServer) -> list[int]:
    return [int(counter) for counter in server.execute("select counter from agents order by broker_id", NAME)]


def documented_line() -> str:
    """What docs/postgres.md says that such an agent says, in one line, with (…) for the details."""
    text = DOCUMENT.read_text()
    start = text.index("    the metadata database has lost")
    return " ".join(text[start : text.index("\n\n", start)].split())


def test_nothing_is_acknowledged_that_a_synchronous_standby_does_not_have(
    make_cluster: MakeCluster, primary: PostgresServer, standby: PostgresServer
) -> None:
    primary.wait_for_standby()
    cluster = make_cluster("--metadata-timeout", "1s", zones=["a"])
    create_topic(cluster, "t")
    told: list[str] = []
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "message.timeout.ms": 6000})
    primary.hold_back_standbys()
    # The commit is there once its connection is given up, at the primary alone. Who asks for its outcome has to wait as
    # long as who commits, since that transaction writes too, if only the locks that it takes.
    producer.produce("t", b"x", on_delivery=lambda error, _: told.append(str(error)))
    assert producer.flush(30) == 0
    assert told == [str(KafkaError(KafkaError._MSG_TIMED_OUT))]
