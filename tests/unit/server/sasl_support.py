"""A mechanism that does as told, and a connection of a SASL listener that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from tests.unit.server.support import HandClock, MemoryTransport, Peer
from warp.errors import ErrorCode
from warp.handlers import api_versions, metadata, sasl
from warp.handlers.context import Endpoint, RequestContext, Services
from warp.handlers.table import ApiEntry, Order
from warp.log.memory import MemoryBudget
from warp.protocol import ApiKey, Request, Response, encode_request_frame
from warp.protocol.messages.metadata import MetadataRequest, MetadataResponse
from warp.protocol.messages.sasl import SaslAuthenticateRequest, SaslHandshakeRequest
from warp.security.exchange import AuthenticationFailed, Outcome, Step
from warp.security.mechanisms import Mechanisms
from warp.security.principal import USER, Principal
from warp.security.quotas.quotas import UNLIMITED
from warp.server.dispatch import Dispatcher
from warp.server.limits import ServerLimits
from warp.server.pool import ConnectionPool

SECRET = b"open sesame"


class Scripted:
    """An exchange: `NAME` makes that user of it, `more` asks for another token, `wait` waits,
    `busy` can't be found out, `bug` is one, anything else fails."""

    def __init__(self, mechanisms: ScriptedMechanisms) -> None:
        self._mechanisms = mechanisms

    def step(self, token: bytes) -> Step | Awaitable[Step]:
        if token == b"more":
            return Step(b"go on")
        if token == b"wait":
            return self._later()
        if token == b"busy":
            raise AuthenticationFailed("Try again", reason="130 wait", outcome=Outcome.BUSY)
        if token == b"bug":
            raise RuntimeError("a bug in a mechanism")
        if token.startswith(b"user:"):
            return self._step(token[5:].decode())
        raise AuthenticationFailed("Authentication failed", reason="wrong password of somebody")

    async def _later(self) -> Step:
        await self._mechanisms.waiting
        return self._step("late")

    def _step(self, name: str) -> Step:
        return Step(b"welcome", Principal(USER, name), self._mechanisms.lifetime_ms)


class ScriptedMechanisms:
    """In place of those of an agent."""

    names = ("PLAIN", "OTHER")

    def __init__(self) -> None:
        self.lifetime_ms: int | None = None
        self.waiting: asyncio.Future[None]

    def begin(self, name: str, random_bytes: Callable[[int], bytes]) -> Scripted:
        if name not in self.names:
            raise KeyError(name)
        return Scripted(self)


class SaslBench:
    """A pool whose listener asks for SASL."""

    def __init__(self, protocol: str = "SASL_PLAINTEXT", memory_bytes: int = 2**20, **limits: Any) -> None:
        self.protocol = protocol
        self.clock = HandClock()
        self.memory = MemoryBudget(memory_bytes)
        self.mechanisms = ScriptedMechanisms()
        self.asked: list[str] = []
        table = (
            ApiEntry(ApiKey.API_VERSIONS, api_versions.api_versions, api_versions.api_versions_failed),
            ApiEntry(ApiKey.METADATA, self._metadata, metadata.metadata_failed, Order.SERIAL),
            ApiEntry(ApiKey.SASL_HANDSHAKE, sasl.sasl_handshake, sasl.sasl_handshake_failed),
            ApiEntry(ApiKey.SASL_AUTHENTICATE, sasl.sasl_authenticate, sasl.sasl_authenticate_failed),
        )
        services = cast(Services, SimpleNamespace(quotas=UNLIMITED, audit=None))
        dispatcher = Dispatcher(table, services, self.clock)
        self.pool = ConnectionPool(
            dispatcher,
            self.memory,
            self.clock,
            ServerLimits(**{"authentication_delay_ms": 0, **limits}),
            mechanisms=cast(Mechanisms, self.mechanisms),
        )

    def connect(self, host: str = "192.0.2.1") -> SaslPeer:
        return SaslPeer(self, host)

    def _metadata(self, context: RequestContext, request: MetadataRequest) -> Response:
        self.asked.append(str(context.client.principal))
        return MetadataResponse(brokers=[], topics=[])


class SaslPeer(Peer):
    """A client of that listener."""

    def __init__(self, bench: SaslBench, host: str) -> None:
        self.transport = MemoryTransport()
        self.transport._extra["peername"] = (host, 1234)  # type: ignore[attr-defined]
        protocol = bench.protocol
        self.connection = bench.pool.connection(
            Endpoint("broker.test", 9092), 0, protocol, has_tls=protocol.endswith("SSL")
        )
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def ask(self, request: Request, version: int, number: int = 1) -> None:
        self.feed(b"".join(encode_request_frame(number, "test", request, version)))

    def handshake(self, mechanism: str = "PLAIN", version: int = 1) -> None:
        self.ask(SaslHandshakeRequest(mechanism=mechanism), version)

    def token(self, token: bytes, version: int = 1) -> None:
        self.ask(SaslAuthenticateRequest(auth_bytes=token), version)

    def metadata(self) -> None:
        self.ask(MetadataRequest(topics=[]), 1)

    def codes(self) -> list[ErrorCode]:
        """The first field of each answer, which for SASL's is its error."""
        return [ErrorCode(int.from_bytes(body[:2], "big", signed=True)) for body in self.bodies()]
