"""The caches of a zone's agents as one: each chunk of an object has an owner, whom the others ask for it.

The owner is chosen by rendezvous among the agents of the zone that live, aren't leaving and can be reached, so all that
know the same agents ask the same one without a word. Where they know different ones for a moment, a chunk is read from
the store once more than needed, and that is all. Ownership goes by places in the object that are the same for all,
whatever the size of the chunks of an agent's own cache.

A peer is believed when it proves that it knows the cluster's secret and its bytes have the checksum that it says. What
it says of objects that are gone or too short is not believed: the store is asked. A peer that fails is left alone for a
while (`warp.cluster.peer_circuit`), until its process is another one.

Where a peer speaks TLS, it has to show the very certificate of which it tells the hash in the cluster's metadata: what
proves the secret proves nothing about who listens in between. That is stricter than trust in whoever signs
certificates, needs no authority and no name in them, and follows a peer that replaces its certificate.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from warp._crc32c import crc32c
from warp.clock import Clock
from warp.cluster.peer_auth import NONCE_BYTES, Claim, PeerAuth
from warp.cluster.peer_circuit import Circuit, CircuitLimits
from warp.config_values import parse_address
from warp.errors import ObjectStoreError
from warp.ids import BrokerId
from warp.log.cache import CHUNK_BYTES
from warp.metadata.cluster_model import ClusterView, LiveAgent
from warp.objectstore.base import Buffer
from warp.objectstore.s3.connection import Meter, Request
from warp.objectstore.s3.errors import Answer, CannotConnect, Cut
from warp.objectstore.s3.pool import Pool, Server
from warp.rendezvous import first

CHUNK_PATH: Final = "/internal/v1/chunk"
CRC_HEADER: Final = "x-warp-crc32c"
"""Of the body, in decimal."""
SIGNATURE_HEADER: Final = "x-warp-signature"

FALLBACKS: Final = (
    "left_alone", "unreachable", "untrusted", "slow", "cut", "denied", "busy", "missing", "short", "refused",
    "bad_answer", "given_up",
)  # fmt: skip
"""Why the store was read though another agent owns the chunk."""

TLS_SCHEME: Final = "https://"
"""Before the address of a peer that speaks TLS."""

_NUMBER = re.compile("[0-9]{1,10}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ZoneLimits:
    """What asking the others may cost."""

    connections_max: int = 16
    """To one peer."""
    connections_to_all: int = 64
    """To all peers together, but for CONNECTIONS_MIN to each; so it is also about what one agent gets from all."""
    connections_min: int = 2
    connect_timeout_s: float = 1.0
    circuit: CircuitLimits = field(default_factory=CircuitLimits)


class _Peer:
    """Another agent of the zone, in one life of its process."""

    def __init__(self, agent: LiveAgent, server: Server, limits: ZoneLimits, mates: int) -> None:
        self.agent = agent
        self.server = server
        self.circuit = Circuit(limits.circuit)
        self._limits = limits
        share = limits.connections_to_all // max(1, mates)
        self._connections_max = min(limits.connections_max, max(limits.connections_min, share))
        self._pool: Pool | None = None

    @property
    def host(self) -> str:
        """For the header of that name."""
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return f"{host}:{self.server.port}"

    def is_same(self, agent: LiveAgent, server: Server) -> bool:
        return self.agent.incarnation == agent.incarnation and self.server == server

    async def ask(self, request: Request, meter: Meter) -> Answer:
        """Send a request, again when the connection turns out to have been closed while it was idle."""
        pool = self._pool
        if pool is None:
            pool = self._pool = Pool(
                self.server,
                connections_max=self._connections_max,
                connect_timeout_s=self._limits.connect_timeout_s,
                read_timeout_s=60.0,
            )
        try:
            return await pool.ask(request, meter)
        except Cut:
            if not meter.is_reused or meter.is_answered:
                raise
        return await pool.ask(request, Meter(), on_new=True)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


class ZoneCache:
    """The other agents of the zone; see `warp.log.zone.ChunkPeers`.

    `view` is the newest of the membership. `random_bytes(n)` makes nonces. `place_bytes` is what is owned in one piece,
    the same for all agents of the cluster.
    """

    def __init__(
        self,
        view: Callable[[], ClusterView],
        auth: PeerAuth,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        *,
        limits: ZoneLimits | None = None,
        place_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.fallbacks = dict.fromkeys(FALLBACKS, 0)
        """How often the store was read though another agent owns the chunk, by reason."""
        self._view = view
        self._auth = auth
        self._clock = clock
        self._random_bytes = random_bytes
        self._limits = limits or ZoneLimits()
        self._place_bytes = place_bytes
        self._is_closed = False
        self._tls: ssl.SSLContext | None = None
        self._version: int | None = None
        self._own = BrokerId(-1)
        self._candidates: tuple[BrokerId, ...] = ()
        """Who may own a chunk; empty when that is nobody else than this agent."""
        self._peers: dict[BrokerId, _Peer] = {}

    def owner(self, key: str, position: int) -> BrokerId | None:
        """Who looks after this place of an object; None when no other agent could be asked."""
        if self._is_closed:
            return None
        self._follow(self._view())
        if not self._candidates:
            return None
        return _owner(f"{key}:{position // self._place_bytes}", self._candidates)

    def ask(
        self, key: str, position: int, size: int, timeout_s: float
    ) -> Coroutine[Any, Any, Buffer | None] | None:
        """See ChunkPeers."""
        owner = self.owner(key, position)
        if owner is None or owner == self._own:
            return None
        peer = self._peers[owner]
        if peer.circuit.is_open(self._clock.monotonic()):
            self.fallbacks["left_alone"] += 1
            return None
        return self._ask(peer, key, position, size, timeout_s)

    def close(self) -> None:
        """Close all connections; the requests under way fail."""
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        self._is_closed = True

    def _follow(self, view: ClusterView) -> None:
        """Take over a newer view."""
        if view.version == self._version:
            return
        self._version, self._own = view.version, view.own
        servers = self._servers(view)
        others = [broker_id for broker_id in servers if broker_id != view.own]
        self._candidates = tuple(servers) if others else ()
        peers: dict[BrokerId, _Peer] = {}
        for broker_id in others:
            agent, server = view.agents[broker_id], servers[broker_id]
            known = self._peers.pop(broker_id, None)
            if known is not None and not known.is_same(agent, server):
                known.close()
                known = None
            peers[broker_id] = known or _Peer(agent, server, self._limits, len(others))
        for gone in self._peers.values():
            gone.close()
        self._peers = peers

    def _servers(self, view: ClusterView) -> dict[BrokerId, Server]:
        """The agents of the own zone that may own chunks, with where they are reached."""
        own = view.agents.get(view.own)
        if own is None:
            return {}
        found: dict[BrokerId, Server] = {}
        for broker_id, agent in view.agents.items():
            if agent.is_leaving or agent.facts.peer is None or agent.facts.zone != own.facts.zone:
                continue
            try:
                found[broker_id] = self._server(agent.facts.peer, agent.facts.peer_certificate)
            except ValueError:
                continue  # all agents read the same text, so it is a candidate for none of them
        return found

    def _server(self, peer: str, certificate_sha256: str) -> Server:
        """Where a peer is reached, and how. Raises ValueError."""
        address = parse_address(peer.removeprefix(TLS_SCHEME))
        if not peer.startswith(TLS_SCHEME):
            return Server(address.host, address.port)
        if not _SHA256.fullmatch(certificate_sha256):
            raise ValueError("a peer that speaks TLS tells the hash of its certificate")
        if self._tls is None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Not trust in an authority: the certificate itself is compared.
            self._tls.check_hostname = False
            self._tls.verify_mode = ssl.CERT_NONE
        return Server(address.host, address.port, self._tls, certificate_sha256)

    async def _ask(self, peer: _Peer, key: str, position: int, size: int, timeout_s: float) -> Buffer | None:
        """The bytes; None, and the reason counted, when they did not come."""
        claim = Claim(self._own, self._clock.time_ms(), self._random_bytes(NONCE_BYTES).hex())
        target = f"{CHUNK_PATH}?{urlencode({'key': key, 'start': position, 'length': size}, safe='/')}"
        headers = [
            ("host", peer.host),
            ("authorization", self._auth.sign("GET", target, claim)),
        ]
        reason = "given_up"
        data: Buffer | None = None
        try:
            async with asyncio.timeout(timeout_s):
                answer = await peer.ask(Request("GET", target, headers, body_bytes_max=size), Meter())
            if answer.status == 200 and self._is_right(answer, claim.nonce):
                reason, data = "", answer.body
            else:
                reason = _REASONS.get(answer.status, "bad_answer")
        except TimeoutError:
            reason = "slow"
        except CannotConnect as error:
            reason = "untrusted" if error.reason == CannotConnect.CERTIFICATE else "unreachable"
        except Cut:
            reason = "cut"
        except ObjectStoreError:
            reason = "bad_answer"
        finally:
            if reason:
                self.fallbacks[reason] += 1
        self._judge(peer, reason)
        return data

    def _is_right(self, answer: Answer, nonce: str) -> bool:
        """Was it made by an agent of the cluster, and are the bytes those that it meant?"""
        stated = answer.headers.get(CRC_HEADER, "")
        signature = answer.headers.get(SIGNATURE_HEADER, "")
        length = len(answer.body)
        if not length or not _NUMBER.fullmatch(stated):
            return False
        checksum = int(stated)
        return self._auth.is_answer(signature, nonce, length, checksum) and crc32c(answer.body) == checksum

    def _judge(self, peer: _Peer, reason: str) -> None:
        """Let the circuit know how a request ended."""
        now = self._clock.monotonic()
        if reason == "slow":
            peer.circuit.was_slow(now)
        elif reason in _FAULTS:
            peer.circuit.failed(now)
        else:
            peer.circuit.succeeded()


_REASONS: Final = {403: "denied", 404: "missing", 416: "short", 502: "refused", 503: "busy"}
_FAULTS: Final = frozenset({"unreachable", "untrusted", "cut", "denied", "bad_answer"})


def _owner(place: str, candidates: tuple[BrokerId, ...]) -> BrokerId:
    owner = first(place, candidates)
    assert owner is not None, "there are candidates"
    return BrokerId(owner)
