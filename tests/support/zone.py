"""Agents of one zone, as far as chunks go: cache, zone cache and HTTP face of each, over one store that counts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from warp.cluster.peer_auth import PeerAuth
from warp.cluster.zone_cache import ZoneCache, ZoneLimits
from warp.config_values import Address
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.http.chunks import ChunkRoute
from warp.http.server import HttpServer
from warp.http.tls import HttpTls
from warp.ids import BrokerId
from warp.log.cache import ChunkCache
from warp.log.zone import PeerLimits
from warp.metadata.cluster_model import AgentFacts, ClusterView, LiveAgent
from warp.objectstore.base import ObjectInfo

CHUNK = 1000
SECRET = bytes(range(32))
PATIENT = PeerLimits(timeout_min_s=20, timeout_unknown_s=20, timeout_max_s=20)
"""So that a slow machine makes no difference."""


class CountingStore:
    """Objects in a dictionary; requests wait for `gate` and fail while `failure` is set."""

    requests_are_free = False

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self.objects = dict(objects)
        self.gets: list[tuple[str, int]] = []
        self.failure: ObjectStoreError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, key: str, start: int, length: int) -> bytes:
        self.gets.append((key, start))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if key not in self.objects:
            raise ObjectNotFound(key)
        data = self.objects[key][start : start + length]
        if len(data) < length:
            raise ShortObject(key, data)
        return data

    async def head(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.objects[key]), 0)


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_ms = 1_700_000_000_000

    def time_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.now_s

    def boottime(self) -> float:
        return self.now_s


@dataclass
class Zone:
    """The registrations that all agents see, unless one is given a view of its own."""

    agents: dict[BrokerId, LiveAgent] = field(default_factory=dict)
    version: int = 0

    def put(
        self,
        broker_id: int,
        peer: str | None,
        *,
        zone: str | None = "a",
        incarnation: str = "1",
        is_leaving: bool = False,
        certificate: str = "",
    ) -> None:
        facts = AgentFacts(peer=peer, zone=zone, peer_certificate=certificate)
        self.agents[BrokerId(broker_id)] = LiveAgent(BrokerId(broker_id), incarnation, facts, is_leaving)
        self.version += 1

    def remove(self, broker_id: int) -> None:
        del self.agents[BrokerId(broker_id)]
        self.version += 1

    def view(self, own: int) -> ClusterView:
        return ClusterView(self.version, BrokerId(own), dict(sorted(self.agents.items())))


class Node:
    """One agent."""

    def __init__(
        self,
        broker_id: int,
        zone: Zone,
        store: CountingStore,
        *,
        secret: bytes = SECRET,
        chunk_bytes: int = CHUNK,
        cache_chunks: int = 40,
        peer_limits: PeerLimits = PATIENT,
        limits: ZoneLimits | None = None,
        requests_max: int = 64,
        view: Callable[[], ClusterView] | None = None,
        tls: HttpTls | None = None,
    ) -> None:
        self.broker_id = broker_id
        self.clock = HandClock()
        auth = PeerAuth(secret)
        self.zone_cache = ZoneCache(
            view or (lambda: zone.view(broker_id)),
            auth,
            self.clock,
            random.Random(broker_id).randbytes,
            limits=limits,
            place_bytes=CHUNK,
        )
        self.cache = ChunkCache(
            store,  # type: ignore[arg-type]  # only what the cache calls
            bytes_max=cache_chunks * CHUNK,
            chunk_bytes=chunk_bytes,
            peers=self.zone_cache,
            peer_limits=peer_limits,
        )
        self.route = ChunkRoute(self.cache, auth, self.clock, length_max=4 * CHUNK, requests_max=requests_max)
        self.http = HttpServer(Address("127.0.0.1", 0), tls=tls)

    async def read(self, key: str, position: int, size: int) -> bytes:
        return b"".join(await self.cache.read(key, position, size))

    @property
    def fallbacks(self) -> dict[str, int]:
        """Those that there were."""
        return {reason: count for reason, count in self.zone_cache.fallbacks.items() if count}

    @property
    def refused(self) -> dict[str, int]:
        """Those that there were."""
        return {reason: count for reason, count in self.route.refused.items() if count}

    async def close(self) -> None:
        self.zone_cache.close()
        await self.http.stop(5)
        await self.cache.close()


@asynccontextmanager
async def running(zone: Zone, nodes: Sequence[Node]) -> AsyncIterator[None]:
    """Serve on free ports, and register all in the zone."""
    try:
        for node in nodes:
            await node.http.bind()
            await node.http.start(node.route)
            zone.put(node.broker_id, str(node.http.bound))
        yield
    finally:
        for node in nodes:
            await node.close()


def chunk_of(node: Node, owner: int, key: str = "a") -> int:
    """The first byte of a chunk that `owner` looks after, as `node` sees it."""
    return next(
        start for start in range(0, 1000 * CHUNK, CHUNK) if node.zone_cache.owner(key, start) == owner
    )


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


@asynccontextmanager
async def scripted(answer: Callable[[bytes], Awaitable[bytes] | bytes]) -> AsyncIterator[str]:
    """A server that gives to the head of each request what `answer` makes of it, and closes after that."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            given = answer(head)
            writer.write(given if isinstance(given, bytes) else await given)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the asker has gone, which is its right
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        await server.wait_closed()
