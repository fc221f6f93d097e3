"""Agents cut off from each other, and one that is cut off from PostgreSQL alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import MakeCluster
from tests.support.cluster import eventually
from tests.support.cluster_load import ClusterLoad
from tests.support.postgres import PostgresServer
from tests.support.process import free_port
from tests.support.relay import RelayThread

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

CUT_OFF_S = 4.0
"""Twice a session of an agent; less than PostgreSQL gives a transaction that does nothing."""


@pytest.fixture
def relay(postgres_server: PostgresServer) -> Iterator[RelayThread]:
    """In front of PostgreSQL."""
    with RelayThread(postgres_server.port) as made:
        yield made


def test_agents_that_do_not_reach_each_other_serve_as_well(make_cluster: MakeCluster) -> None:
    # What the others of its zone are told of each agent's HTTP address is a port at which nobody listens.
    own = [["--advertise-http", f"127.0.0.1:{free_port()}"] for _ in range(3)]
    cluster = make_cluster(zones=("zone-1", "zone-1", "zone-1"), own_options=own)
    with ClusterLoad(cluster) as load:
        load.go_on(20)
    assert len(cluster.running) == len(cluster.agents)
    for agent in cluster.agents:
        assert agent.metric('warp_cache_loads_total{source="peer"}') == 0
        assert agent.metric('warp_cache_loads_total{source="store"}') > 0


@pytest.mark.parametrize("way", ["held up", "held up and cut", "refused"])
def test_clients_of_an_agent_that_has_lost_the_database_go_on_at_others_until_it_is_back(
    make_cluster: MakeCluster,
    postgres_server: PostgresServer,
    database: str,
    relay: RelayThread,
    way: str,
) -> None:
    relayed = database.replace(f":{postgres_server.port}/", f":{relay.port}/")
    cluster = make_cluster(own_metadata={0: relayed})
    lonely, witness, _ = cluster.agents
    with ClusterLoad(cluster) as load:
        began_s = time.monotonic()
        (relay.refuse if way == "refused" else relay.hold)()
        eventually(lambda: witness.states()[lonely.bootstrap] == "lost", "it counts as gone")
        load.go_on()
        pause_s, who = load.longest_pause_s(began_s)
        print(f"all clients were served again within {pause_s:.2f} s, the last one was {who}")
        time.sleep(max(0.0, began_s + CUT_OFF_S - time.monotonic()))
        if way == "held up and cut":
            relay.cut_all()
        # Where nothing was cut, what was on its way arrives now, COMMIT messages among it.
        relay.release()
        cluster.settle()
        load.go_on()
    assert len(cluster.running) == len(cluster.agents)
