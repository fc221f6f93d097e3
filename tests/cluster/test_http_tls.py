"""Agents that share what they have read over TLS, also while their certificate is replaced."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.broker.client import Client, joined
from tests.broker.support import batch
from tests.cluster.conftest import MakeCluster
from tests.support.certificates import Authority
from tests.support.cluster import ClusterAgent, eventually

pytestmark = pytest.mark.postgres

RECORDS = 12
"""Each is a segment, and half of those are looked after by either agent."""
FROM_PEERS = 'warp_cache_loads_total{source="peer"}'


def test_chunks_travel_over_tls_and_a_replaced_certificate_is_followed(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    # Of no authority that anybody trusts: agents know each other by the certificate itself.
    authority = Authority(tmp_path)
    issued, later = authority.issue("first"), authority.issue("second")
    cluster = make_cluster(
        "--http-tls", "true", "--tls-certificate", str(issued.certificate), "--tls-key", str(issued.key),
        zones=("zone-1", "zone-1"),
    )  # fmt: skip
    writer, reader = cluster.agents
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.create_topics([NewTopic("t", 1)])["t"].result(30)
    assert {agent["peer"] for agent in reader.view()["agents"]} == {writer.http, reader.http}

    read_all(writer, reader, 0)
    assert reader.metric(FROM_PEERS) > 0
    assert reader.metric("warp_peer_fallbacks_total") == 0

    shutil.copy(later.key, issued.key)
    shutil.copy(later.certificate, issued.certificate)
    eventually(lambda: all("new certificates" in text(agent) for agent in cluster.agents), "both reload")
    first = reader.metric(FROM_PEERS)
    written = RECORDS

    def is_shared_again() -> bool:
        nonlocal written
        read_all(writer, reader, written)
        written += RECORDS
        return reader.metric(FROM_PEERS) > first

    eventually(is_shared_again, "the new certificate is known")


def text(agent: ClusterAgent) -> str:
    return "\n".join(agent.output)


def read_all(writer: ClusterAgent, reader: ClusterAgent, first: int) -> None:
    """Write records at one agent, then read them at the other."""

    async def work() -> None:
        producer, consumer = await Client.connect(writer.port), await Client.connect(reader.port)
        try:
            for offset in range(first, first + RECORDS):
                value = b"record %d" % offset
                produced = await producer.produce("t", batch(value))
                assert (produced.error_code, produced.base_offset) == (0, offset)
            for offset in range(first, first + RECORDS):
                found = await consumer.fetch("t", offset, max_wait_ms=0)
                assert b"record %d" % offset in joined(found.records)
        finally:
            await producer.close()
            await consumer.close()

    asyncio.run(work())
