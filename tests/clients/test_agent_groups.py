"""Clients of every language in consumer groups whose coordinator is in another group of agents than theirs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from confluent_kafka import Producer

from tests.clients.members import KINDS, Kind, Member
from tests.support.cluster import Cluster, ClusterAgent, eventually
from tests.support.postgres import PostgresServer
from warp.metadata.group_model import coordinator_lease, slot_of

pytestmark = [pytest.mark.toolchain, pytest.mark.postgres, pytest.mark.timeout(180)]

TOPIC, RECORDS = "t", 5
SHARE_MIN = 10
"""Slots that each of two agents has once they are shared, at least."""


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[str]:
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="module")
def agents(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterAgent]]:
    """One agent of each of two groups, which share the slots."""
    directory = tmp_path_factory.mktemp("agent-groups")
    options = ["--group-rebalance-delay", "300ms"]
    cluster = Cluster(directory, database, (directory / "objects").as_uri(), zones=(), options=options)
    both = [cluster.add("zone-1", "--agent-group", name) for name in ("ours", "theirs")]
    with cluster:
        eventually(lambda: all(slots_of(agent) >= SHARE_MIN for agent in both), "the slots are shared")
        producer = Producer({"bootstrap.servers": both[0].bootstrap})
        for number in range(RECORDS):
            producer.produce(TOPIC, str(number))
        assert producer.flush(30) == 0
        yield both


def slots_of(agent: ClusterAgent) -> int:
    view = agent.view()
    return next(int(row["slots"]) for row in view["agents"] if row["broker_id"] == view["own"]["broker_id"])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_group_that_agents_of_another_group_coordinate_is_served(
    agents: list[ClusterAgent], kind: Kind, postgres_server: PostgresServer, database: str
) -> None:
    ours, theirs = agents
    name = database.rpartition("/")[2]
    wanted = f"select name from leases where holder = {theirs.broker_id()}"
    held = postgres_server.execute(wanted, database=name)
    group = next(
        group
        for group in (f"{kind.name}-{number}" for number in count())
        if coordinator_lease(slot_of(group)) in held
    )
    with Member(kind, ours.bootstrap, TOPIC, group) as member:
        member.wait_for(lambda: len(member.seen.records) == RECORDS, "it has read everything")
