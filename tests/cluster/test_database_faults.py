"""PostgreSQL restarted, and connections to it cut in the middle of a COMMIT, while agents and clients are at work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.conftest import MakeCluster
from tests.support.cluster import eventually
from tests.support.cluster_load import ClusterLoad
from tests.support.postgres import PostgresServer, StopMode
from tests.support.relay import RelayThread

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

RESTARTS: tuple[StopMode, ...] = ("fast", "immediate", "fast", "immediate")
COMMIT = b"commit\0"
"""As it is on the wire: the text of a Query message."""
CUTS = 40


@pytest.fixture
def relay(postgres_server: PostgresServer) -> Iterator[RelayThread]:
    """In front of PostgreSQL."""
    with RelayThread(postgres_server.port) as made:
        yield made


def test_a_database_that_is_restarted_again_and_again_interrupts_and_loses_nothing(
    make_cluster: MakeCluster, postgres_server: PostgresServer
) -> None:
    cluster = make_cluster()
    with ClusterLoad(cluster) as load:
        for mode in RESTARTS:
            postgres_server.restart(mode)
            load.go_on()
    assert len(cluster.running) == len(cluster.agents)


def test_commits_whose_answers_are_lost_are_neither_lost_nor_done_twice(
    make_cluster: MakeCluster, postgres_server: PostgresServer, database: str, relay: RelayThread
) -> None:
    relayed = database.replace(f":{postgres_server.port}/", f":{relay.port}/")
    cluster = make_cluster(metadata=relayed)
    with ClusterLoad(cluster) as load:
        for number in range(CUTS):
            # The database has committed in every other case.
            (relay.cut_after if number % 2 else relay.cut_before)(COMMIT)
            eventually(lambda number=number: relay.cuts > number, "a commit is cut")  # type: ignore[misc]
        load.go_on()
    assert len(cluster.running) == len(cluster.agents)
