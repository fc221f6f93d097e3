"""kill -9 of any agent, again and again, while all of them are worked on."""

from __future__ import annotations

import random
import time

import pytest

from tests.cluster.conftest import MakeCluster
from tests.support.cluster_load import ClusterLoad

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

KILLS = 3
SERVED_S_MAX = 30.0
"""A generous bound: a session lasts two seconds, and the machine may be busy."""


def test_clients_of_killed_agents_go_on_at_others_and_lose_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    source = random.Random(1)
    with ClusterLoad(cluster) as load:
        for number in range(KILLS):
            victim = source.choice(cluster.agents)
            victim.kill()
            killed_s = time.monotonic()
            if number % 2:
                # At once: it finds its own registration, and the leases that it held, as it left them.
                victim.start()
            load.go_on()
            pause_s, who = load.longest_pause_s(killed_s)
            print(
                f"kill {number}: all clients were served again within {pause_s:.2f} s, the last one was {who}"
            )
            assert pause_s < SERVED_S_MAX
            if not victim.is_running:
                victim.start()
        cluster.settle()
