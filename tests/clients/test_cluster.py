"""Clients of every language over three agents in two zones, each of which is killed once while they work (P6)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients.members import Kind, Member, Seen, kinds_named
from tests.clients.test_groups import make_topic
from tests.clients.test_groups_churn import PARTITIONS, Stream, Watch
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.s3 import S3Server, environment_of, s3_url

pytestmark = [pytest.mark.toolchain, pytest.mark.postgres, pytest.mark.timeout(300)]

KINDS = kinds_named("confluent", "kafka-python", "franz-go", "java")
BETWEEN_S = 4.0
SETTLE_S = 90.0


@pytest.fixture
def cluster(postgres_server: PostgresServer, s3_server: S3Server, tmp_path: Path) -> Iterator[Cluster]:
    """Three agents in two zones over PostgreSQL and S3."""
    url = s3_url(s3_server.new_bucket(), "warp", endpoint=s3_server.endpoint)
    quick = ["--group-rebalance-delay", "300ms", "--flush-interval", "50ms"]
    environment = environment_of(s3_server.credentials)
    database = postgres_server.create_database()
    with Cluster(tmp_path, database, url, options=quick, environment=environment) as made:
        yield made
    postgres_server.drop_database(database)


class Party:
    """Two members of a kind in a group of their own, in different zones, and who watches what they commit."""

    def __init__(self, kind: Kind, cluster: Cluster, topic: str, stack: ExitStack) -> None:
        self.kind = kind
        self.seen = Seen()
        group = f"{topic}-{kind.name}"
        self.watch = Watch(cluster.bootstrap, group, may_fail=True)
        self.members = [
            stack.enter_context(Member(kind, cluster.bootstrap, topic, group, self.seen, session_ms=10_000))
            for _ in range(2)
        ]

    @property
    def committed(self) -> int:
        return sum(self.watch.offsets.values())


def test_clients_process_every_record_while_each_agent_is_killed_in_turn(
    cluster: Cluster, topic: str
) -> None:
    make_topic(cluster.bootstrap, topic, PARTITIONS)
    stream = Stream(cluster.bootstrap, topic)
    with ExitStack() as stack:
        parties = [Party(kind, cluster, topic, stack) for kind in KINDS]
        stream.start()
        for party in parties:
            party.members[0].wait_for(lambda seen=party.seen: len(seen.commits) > 0, "it has committed")  # type: ignore[misc]
            party.watch.start()
        for agent in cluster.agents:
            agent.kill()
            time.sleep(BETWEEN_S)
            agent.start()
            cluster.settle()
            time.sleep(BETWEEN_S / 2)
        stream.end()
        sent = stream.acknowledged
        deadline = time.monotonic() + SETTLE_S
        while any(party.committed < len(sent) for party in parties) and time.monotonic() < deadline:
            time.sleep(0.2)
        for party in parties:
            party.watch.end()
            for member in party.members:
                member.stop()
    ends = dict.fromkeys(range(PARTITIONS), 0)
    for partition in sent.values():
        ends[partition] += 1
    assert len(sent) > 1_000
    for party in parties:
        missed = sent.keys() - party.seen.values()
        assert sorted(missed, key=int)[:20] == [], (
            f"{party.kind.name}: {len(missed)} of {len(sent)} records, {party.seen.problems[-10:]}"
        )
        assert party.watch.looks > 20, party.kind.name
        assert party.watch.went_back == [], party.kind.name
        assert party.watch.offsets == ends, party.kind.name
