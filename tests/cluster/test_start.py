"""What keeps an agent from joining a cluster: each a line that says what to do, exit code 1, and nothing changed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cluster.conftest import MakeCluster
from tests.process.conftest import run_warp
from tests.support.cluster import ClusterAgent, eventually
from tests.support.postgres import PostgresServer
from tests.support.process import free_port

pytestmark = pytest.mark.postgres


class Starter:
    """Starts agents that are to be refused, on a directory of objects."""

    def __init__(self, directory: Path, metadata: str) -> None:
        self.metadata = metadata
        self.objects = (directory / "objects").as_uri()
        self._directory = directory

    def refusal(self, *options: str) -> tuple[int, str]:
        """Exit code, and the one line that is not of the log."""
        given = {option for option in options if option.startswith("--")}
        wanted = {
            "--listen": "127.0.0.1:0",
            "--http": "127.0.0.1:0",
            "--metadata": self.metadata,
            "--object-store": self.objects,
            "--data-dir": str(self._directory / "data"),
        }
        defaults = [word for name, value in wanted.items() if name not in given for word in (name, value)]
        code, output, errors = run_warp("agent", *defaults, *options)
        assert output == ""
        [line] = [line for line in errors.splitlines() if not line.startswith("{")]
        return code, line

    def agent(self, *options: str, zone: str = "a") -> ClusterAgent:
        """One that is to serve, not started yet."""
        stores = ["--metadata", self.metadata, "--object-store", self.objects]
        return ClusterAgent(self._directory / "agent", zone, [*stores, *options], {})


@pytest.fixture
def starter(tmp_path: Path, database: str) -> Starter:
    return Starter(tmp_path, database)


def name_of(database: str) -> str:
    return urlsplit(database).path[1:]


def test_a_server_that_is_not_there_is_told_with_its_address(starter: Starter) -> None:
    port = free_port()
    code, line = starter.refusal("--metadata", f"postgresql://warp:hunter2@127.0.0.1:{port}/warp")
    assert code == 1
    assert f"127.0.0.1:{port}" in line
    assert "nobody answers there" in line
    assert "hunter2" not in line


def test_a_wrong_password_is_told_without_it(starter: Starter, postgres_server: PostgresServer) -> None:
    user = f"reader{free_port()}"
    postgres_server.create_user(user, "right")
    url = postgres_server.url(name_of(starter.metadata), user, "hunter2")
    code, line = starter.refusal("--metadata", url)
    assert code == 1
    assert "it refuses the user or the password" in line
    assert "hunter2" not in line
    postgres_server.execute(f"drop user {user}")


def test_a_database_that_does_not_exist_is_told(starter: Starter, postgres_server: PostgresServer) -> None:
    code, line = starter.refusal("--metadata", postgres_server.url("nowhere"))
    assert code == 1
    assert "there is no such database" in line


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("default_transaction_read_only = on", "is set to read-only"),
        ("synchronous_commit = off", "has synchronous_commit off"),
    ],
)
def test_a_database_that_keeps_nothing_is_refused(
    starter: Starter, postgres_server: PostgresServer, setting: str, words: str
) -> None:
    postgres_server.execute(f"alter database {name_of(starter.metadata)} set {setting}")
    code, line = starter.refusal()
    assert code == 1
    assert words in line


def test_a_schema_of_a_newer_release_is_refused(starter: Starter, postgres_server: PostgresServer) -> None:
    with starter.agent() as agent:
        assert agent.stop() == 0
    postgres_server.execute(
        "insert into warp_migrations (version, name, applied_ms, needed_version) values (999, 'later', 0, 999)",
        name_of(starter.metadata),
    )
    code, line = starter.refusal()
    assert code == 1
    assert "belongs to a newer release (schema 999" in line


def test_a_format_of_a_newer_release_is_refused(starter: Starter, postgres_server: PostgresServer) -> None:
    with starter.agent() as agent:
        assert agent.stop() == 0
    postgres_server.execute(
        "update settings set value = '999' where name = 'format.level'", name_of(starter.metadata)
    )
    code, line = starter.refusal()
    assert code == 1
    assert "the cluster writes format level 999" in line


def test_the_id_of_another_cluster_is_refused(starter: Starter) -> None:
    with starter.agent("--cluster-id", "one") as agent:
        assert agent.stop() == 0
    code, line = starter.refusal("--cluster-id", "two")
    assert (code, line) == (1, "warp agent: this metadata belongs to cluster one, not two")


def test_an_object_store_of_another_cluster_is_refused_and_left_as_it_is(
    starter: Starter, postgres_server: PostgresServer
) -> None:
    with starter.agent("--cluster-id", "one") as agent:
        other = postgres_server.create_database()
        code, line = starter.refusal("--metadata", other, "--cluster-id", "two")
        assert code == 1
        assert "belongs to cluster one, but the metadata to cluster two" in line
        assert agent.stop() == 0
    # Its own agents still get in.
    with starter.agent("--cluster-id", "one") as agent:
        assert agent.stop() == 0
    postgres_server.drop_database(other)


def test_metadata_that_agents_share_needs_an_object_store_that_they_share(starter: Starter) -> None:
    code, _, errors = run_warp("agent", "--metadata", starter.metadata)
    assert code == 2
    assert "name the object store that they share as well" in errors


def test_the_address_of_an_agent_that_lives_is_refused(starter: Starter) -> None:
    with starter.agent() as agent:
        broker_id = agent.broker_id()
        code, line = starter.refusal("--advertise", agent.bootstrap)
        assert code == 1
        assert f"another agent that lives advertises {agent.bootstrap}" in line
        assert agent.view()["own"]["session"] == "live"
        assert agent.broker_id() == broker_id
        assert agent.stop() == 0


def test_an_address_that_is_taken_on_this_machine_is_refused_before_anybody_hears_of_it(
    starter: Starter,
) -> None:
    with starter.agent() as agent:
        code, line = starter.refusal("--listen", agent.bootstrap)
        assert code == 1
        assert f"can't listen on {agent.bootstrap}" in line
        assert len(agent.view()["agents"]) == 1
        assert agent.stop() == 0


def test_an_agent_whose_address_another_one_has_taken_over_ends_with_one_line(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster("--agent-timeout", "1s")
    victim, witness = cluster.agents[0], cluster.agents[1]
    broker_id = victim.broker_id()
    victim.freeze()
    follower = cluster.add(victim.zone, "--advertise", victim.bootstrap)
    follower.start()
    eventually(lambda: witness.states()[victim.bootstrap] == "serving", "the follower has taken over")
    assert follower.broker_id() == broker_id
    victim.thaw()
    assert victim.wait() == 1
    lines = [line for line in victim.output if line.startswith("warp agent: ")]
    assert len(lines) == 1
    assert victim.bootstrap in lines[0]
    assert follower.view()["own"]["session"] == "live"
