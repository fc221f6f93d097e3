"""An agent that stands still for longer than its leases, and goes on as if nothing had happened."""

from __future__ import annotations

import time

import pytest

from tests.cluster.conftest import MakeCluster
from tests.support.cluster import eventually
from tests.support.cluster_load import ClusterLoad

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

FROZEN_S = 5.0
"""More than twice a session of an agent."""


def test_what_an_agent_held_when_it_froze_is_done_once_or_not_at_all(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    with ClusterLoad(cluster) as load:
        for sleeper in cluster.agents[:2]:
            witness = next(agent for agent in cluster.agents if agent is not sleeper)
            # It holds requests of all kinds then: some read and being carried out, some still in its sockets.
            sleeper.freeze()
            frozen_s = time.monotonic()
            eventually(lambda: witness.states()[sleeper.bootstrap] == "lost", "it counts as gone")  # noqa: B023
            load.go_on()
            pause_s, who = load.longest_pause_s(frozen_s)
            print(f"all clients were served again within {pause_s:.2f} s, the last one was {who}")
            time.sleep(max(0.0, frozen_s + FROZEN_S - time.monotonic()))
            sleeper.thaw()
            load.go_on()
            cluster.settle()
    assert len(cluster.running) == len(cluster.agents)
