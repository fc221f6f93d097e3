"""Peers over TLS: trusted by the hash of their certificate that the metadata hold, and by nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from tests.support.tls import Certificate
from tests.support.zone import CHUNK, CountingStore, Node, Zone, chunk_of, running, until
from warp.http.tls import HttpTls

DATA = random.Random(7).randbytes(30 * CHUNK + 123)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """On both event loops: their transports differ."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())
    uvloop.run(bounded())


def fingerprint(certificate: Certificate) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.ca_file.read_text())).hexdigest()


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Certificate, Certificate]:
    made = []
    for name in ("one", "two"):
        directory = tmp_path / name
        directory.mkdir()
        # Names don't matter: what is compared is the certificate.
        made.append(Certificate(directory, [f"{name}.example"]))
    return made[0], made[1]


def test_chunks_come_over_tls_from_the_peer_with_the_right_certificate(
    certificates: tuple[Certificate, Certificate],
) -> None:
    async def scenario() -> None:
        zone = Zone()
        context = certificates[0].server_context()
        mine, its = CountingStore({"a": DATA}), CountingStore({"a": DATA})
        asker = Node(1, zone, mine)
        owner = Node(2, zone, its, tls=HttpTls(lambda: context))
        async with running(zone, [asker, owner]):
            zone.put(2, f"https://{owner.http.bound}", certificate=fingerprint(certificates[0]))
            start = chunk_of(asker, 2)
            assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert (asker.fallbacks, owner.route.served, mine.gets) == ({}, 1, [])

    run(scenario)


def test_a_peer_with_another_certificate_is_asked_nothing_until_it_is_told_of(
    certificates: tuple[Certificate, Certificate],
) -> None:
    async def scenario() -> None:
        zone = Zone()
        context = certificates[1].server_context()
        mine, its = CountingStore({"a": DATA}), CountingStore({"a": DATA})
        asker = Node(1, zone, mine)
        owner = Node(2, zone, its, tls=HttpTls(lambda: context))
        async with running(zone, [asker, owner]):
            address = f"https://{owner.http.bound}"
            zone.put(2, address, certificate=fingerprint(certificates[0]))
            start = chunk_of(asker, 2)
            assert await asker.read("a", start, 10) == DATA[start : start + 10]
            assert (asker.fallbacks, owner.refused, len(mine.gets)) == ({"untrusted": 1}, {}, 1)
            await until(lambda: owner.http.connection_count == 0)
            # The metadata follow a certificate that was replaced.
            zone.put(2, address, certificate=fingerprint(certificates[1]))
            other = chunk_of(asker, 2, "a") + CHUNK
            while asker.zone_cache.owner("a", other) != 2:
                other += CHUNK
            assert await asker.read("a", other, 10) == DATA[other : other + 10]
            assert (asker.fallbacks, owner.route.served) == ({"untrusted": 1}, 1)

    run(scenario)


@pytest.mark.parametrize("certificate", ["", "ab", "X" * 64])
def test_a_peer_that_tells_no_certificate_owns_nothing(certificate: str) -> None:
    async def scenario() -> None:
        zone = Zone()
        asker = Node(1, zone, CountingStore({"a": DATA}))
        async with running(zone, [asker]):
            zone.put(2, "https://127.0.0.1:1", certificate=certificate)
            assert asker.zone_cache.owner("a", 0) is None

    run(scenario)
