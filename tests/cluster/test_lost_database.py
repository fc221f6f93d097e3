"""A database that has lost what it acknowledged, as after a failover to a server that lagged behind."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer

from tests.cluster.conftest import MakeCluster
from tests.cluster.test_serve import create_topic
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize("lost", ["update agents set counter = 1", "update segments set key = 'x' || key"])
def test_agents_notice_that_the_database_went_back_in_time_and_end_with_one_line(
    make_cluster: MakeCluster, postgres_server: PostgresServer, lost: str
) -> None:
    cluster = make_cluster(zones=["a"])
    [agent] = cluster.agents
    create_topic(cluster, "t")
    producer = Producer({"bootstrap.servers": agent.bootstrap})
    producer.produce("t", b"x")
    assert producer.flush(30) == 0
    postgres_server.execute(lost, urlsplit(cluster.metadata).path[1:])
    assert agent.wait() == 1
    [line] = [line for line in agent.output if line.startswith("warp agent: ")]
    assert "the metadata database has lost what was committed" in line
    assert "docs/postgres.md" in line
