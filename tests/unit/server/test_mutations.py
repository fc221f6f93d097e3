"""Conversations that authenticate, mutated: nobody gets in as somebody else, nothing is left, and nothing is a bug.

`python -m tests.unit.server.test_mutations SEED COUNT` goes on for as long as one likes.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import random
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.unit.security.sasl_support import NOW_S, ScramClient, SigningKeys, bearer, credentials_of
from tests.unit.server.sasl_support import SaslBench, SaslPeer
from tests.unit.server.support import MemoryTransport, settle
from warp.handlers.context import Endpoint
from warp.protocol import Request, encode_request_frame
from warp.protocol.messages.api_versions import ApiVersionsRequest
from warp.protocol.messages.metadata import MetadataRequest
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.security.jwks import KeySource, parse_key_set
from warp.security.mechanisms import Mechanisms
from warp.security.oauth import TokenRules, Tokens
from warp.security.principal import ANONYMOUS, Principal
from warp.security.tls import Tls, TlsSettings
from warp.security.tls_endpoint import CIPHER_BUFFER_BYTES, TlsEndpoint

ALICE = Principal("User", "alice")
PASSWORD = "right"
SEED = 20
COUNT = 600
HELLOS = 250

Conversation = list[bytes]


@functools.cache
def derived(algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac(algorithm, password, salt, iterations)


async def derive(algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    await asyncio.sleep(0)
    return derived(algorithm, password, salt, iterations)


def randomness(count: int) -> bytes:
    return b"\x5a" * count


class World:
    """Mechanisms as an agent has them, and conversations with them."""

    def __init__(self, lifetime_ms: int) -> None:
        self.keys = SigningKeys()
        self.lifetime_ms = lifetime_ms

    async def bench(self) -> SaslBench:
        bench = SaslBench(early_requests_max=30)
        bench.clock.now_s = float(NOW_S)
        bench.pool.random_bytes = randomness
        source = KeySource(
            lambda: parse_key_set(self.keys.key_set("ed")), "a test", bench.clock, refresh_s=600
        )
        await source.look_again()
        bench.pool.mechanisms = Mechanisms(
            ("PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"),
            credentials_of({"alice": PASSWORD, "bob": "other"}),
            derive=derive,
            tokens=Tokens(source, TokenRules("https://issuer", "warp"), bench.clock),
            session_max_ms=self.lifetime_ms,
        )
        return bench

    async def conversations(self, password: str) -> list[Conversation]:
        """By every mechanism, with tokens in requests and bare ones."""
        spoken: list[Conversation] = []
        token = self.keys.token("ed") if password == PASSWORD else self.keys.token("ed", aud="another")
        for version in (0, 1):
            spoken.append(_spoken("PLAIN", version, [f"\0alice\0{password}".encode()]))
            spoken.append(
                _spoken("OAUTHBEARER", version, [bearer(token), b"\x01"][: 1 + (password != PASSWORD)])
            )
            spoken.append(_spoken("SCRAM-SHA-256", version, await self._scram(password)))
        return spoken

    async def _scram(self, password: str) -> list[bytes]:
        bench = await self.bench()
        assert bench.pool.mechanisms is not None
        exchange = bench.pool.mechanisms.begin("SCRAM-SHA-256", randomness)
        client = ScramClient("sha256", "alice", password)
        step: Any = exchange.step(client.first())
        return [client.first(), client.final(step.token)]


def _spoken(mechanism: str, version: int, tokens: list[bytes]) -> Conversation:
    bare = [len(token).to_bytes(4, "big") + token for token in tokens]
    wrapped = [_frame(SaslAuthenticateRequest(auth_bytes=token), 1 + version) for token in tokens]
    return [
        _frame(ApiVersionsRequest(client_software_name="test", client_software_version="1"), 3),
        _frame(SaslHandshakeRequest(mechanism=mechanism), version),
        *(wrapped if version else bare),
        _frame(MetadataRequest(topics=[]), 1),
    ]


def _frame(request: Request, version: int) -> bytes:
    return b"".join(encode_request_frame(7, "test", request, version))


# ---- mutations ----


def cut(chance: random.Random, said: Conversation, _other: Conversation) -> Conversation:
    at = chance.randrange(len(said))
    part = said[at]
    start = chance.randrange(len(part))
    return [*said[:at], part[:start] + part[start + chance.randrange(1, 9) :], *said[at + 1 :]]


def truncate(chance: random.Random, said: Conversation, _other: Conversation) -> Conversation:
    return [b"".join(said)[: chance.randrange(sum(map(len, said)))]]


def flip(chance: random.Random, said: Conversation, _other: Conversation) -> Conversation:
    data = bytearray(b"".join(said))
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return [bytes(data)]


def duplicate(chance: random.Random, said: Conversation, _other: Conversation) -> Conversation:
    at = chance.randrange(len(said))
    return said[: at + 1] + [said[at]] * chance.choice((1, 2, 40)) + said[at + 1 :]


def reorder(chance: random.Random, said: Conversation, _other: Conversation) -> Conversation:
    return chance.sample(said, len(said))


def splice(chance: random.Random, said: Conversation, other: Conversation) -> Conversation:
    at = chance.randrange(len(said) + 1)
    return said[:at] + other[chance.randrange(len(other)) :]


def insert(chance: random.Random, said: Conversation, _other: Conversation) -> Conversation:
    at = chance.randrange(len(said))
    part = said[at]
    start = chance.randrange(len(part))
    return [
        *said[:at],
        part[:start] + chance.randbytes(chance.randrange(1, 20)) + part[start:],
        *said[at + 1 :],
    ]


def drop(chance: random.Random, said: Conversation, _other: Conversation) -> Conversation:
    at = chance.randrange(len(said))
    return said[:at] + said[at + 1 :]


Mutate = Callable[[random.Random, Conversation, Conversation], Conversation]
MUTATIONS: tuple[Mutate, ...] = (cut, truncate, flip, flip, duplicate, reorder, splice, insert, drop)


async def say(chance: random.Random, peer: SaslPeer, said: Conversation) -> None:
    data = b"".join(said)
    while data and peer.ended() is None and not peer.is_paused():
        size = chance.choice((1, 7, 60, 400, len(data)))
        peer.feed(data[:size])
        data = data[size:]
        for _ in range(chance.choice((0, 1, 5))):
            await asyncio.sleep(0)
    for _ in range(8):  # as many requests as there may be, one after the other
        await settle()


async def mutate(seed: int, count: int, password: str, lifetime_ms: int) -> set[Principal]:
    """Who was let in, by conversations with that password that were mutated."""
    chance = random.Random(seed)
    world = World(lifetime_ms)
    conversations = await world.conversations(password)
    bench = await world.bench()
    let_in: set[Principal] = set()
    for _ in range(count):
        said = chance.choice(conversations)
        if lifetime_ms:
            said = said + said[1:]  # and again
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            mutated = chance.choice(MUTATIONS)(chance, said, chance.choice(conversations))
            said = [part for part in mutated if part] or [b"\0"]
        bench.asked.clear()
        peer = bench.connect()
        await say(chance, peer, said)
        client = peer.connection.client
        assert (client.principal == ANONYMOUS) == (not client.is_authenticated), said
        assert set(bench.asked) <= {str(client.principal)}, said
        assert client.is_authenticated or not bench.asked, said
        if client.is_authenticated:
            let_in.add(client.principal)
        peer.transport.lose()
        await settle()
        assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0, said
        assert (len(bench.pool), bench.pool.early_count) == (0, 0), said
        assert bench.pool.dispatcher.bugs == 0, said
    return let_in


async def watched(mutating: Any) -> set[Principal]:
    """What it comes to, while nothing goes wrong in a callback of the loop."""
    wrong: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
    found: set[Principal] = await mutating
    assert wrong == []
    return found


@pytest.mark.parametrize("lifetime_ms", [0, 60_000])
def test_mutated_conversations_let_in_who_has_the_password_or_nobody(
    lifetime_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert asyncio.run(watched(mutate(SEED, COUNT, PASSWORD, lifetime_ms))) == {ALICE}
    assert asyncio.run(watched(mutate(SEED, COUNT, "wrong", lifetime_ms))) == set()
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


# ---- below TLS ----


class Socket(MemoryTransport):
    """A transport that TLS is above."""

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))


async def mutate_hellos(directory: Path, seed: int, count: int) -> set[Principal]:
    """The same with the first flight of a TLS client, above which nobody can have authenticated."""
    chance = random.Random(seed)
    authority = Authority(directory)
    server = authority.issue("server")
    tls = Tls(TlsSettings(server.certificate, server.key))
    bench = SaslBench("SASL_SSL")
    receive = memoryview(bytearray(CIPHER_BUFFER_BYTES))
    for _ in range(count):
        flight = ssl.MemoryBIO()
        client = authority.client_context().wrap_bio(ssl.MemoryBIO(), flight, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = flight.read()
        said = chance.choice(MUTATIONS)(chance, [hello[:5], hello[5:]], [hello])
        connection = bench.pool.connection(Endpoint("broker.test", 9092), 0, "SASL_SSL", has_tls=True)
        endpoint = TlsEndpoint(tls.context(), connection, receive, tls.principal)
        below = Socket()
        below.protocol = endpoint  # type: ignore[assignment]
        endpoint.connection_made(below)
        data = b"".join(said)
        while data and not below.is_closing() and not below.is_paused:
            size = min(chance.choice((1, 60, 400, len(data))), len(data))
            receive[:size] = data[:size]
            endpoint.buffer_updated(size)
            data = data[size:]
        assert not connection.client.is_authenticated
        below.lose()
        await settle()
        assert bench.memory.used_bytes == bench.pool.early_memory.used_bytes == 0
        assert (len(bench.pool), bench.pool.early_count) == (0, 0)
    return set()


def test_mutated_hellos_of_tls_let_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(watched(mutate_hellos(tmp_path, SEED, HELLOS))) == set()
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


if __name__ == "__main__":
    for each in (0, 60_000):
        for secret in (PASSWORD, "wrong"):
            found = asyncio.run(watched(mutate(int(sys.argv[1]), int(sys.argv[2]), secret, each)))
            sys.stdout.write(f"{secret} {each}: {sorted(found)}\n")
