"""Builds one agent out of all its parts, starts it, and stops it in order.

Everything volatile hangs on the `Agent`: dropping one without a word is what a crash looks like to its stores, and
`start` of the next one is the recovery. Clock, ids, stores and the event loop come from outside, so a simulation can
build agents that have no sockets, no HTTP and no real time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from warp import __version__
from warp._blocks import set_free_bytes_max
from warp.agent_groups import Groups, build_groups
from warp.agent_metrics import (
    FlushMetrics,
    MeasuredMetadataStore,
    MeasuredObjectStore,
    read_log,
    read_server,
)
from warp.agent_settings import broker_settings
from warp.clock import Clock
from warp.cluster.catalogue import CatalogueService
from warp.cluster.producer_ids import ProducerIds
from warp.config import AgentConfig, is_in_memory
from warp.config_values import Address, mask_url
from warp.data_directory import DirectoryLock
from warp.errors import StartError, UsageError
from warp.handlers.context import Endpoint, HandlerSettings, Services
from warp.http.app import AgentFace, App
from warp.http.readiness import Readiness
from warp.http.server import HttpServer
from warp.ids import BrokerId, IdSource
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.flush import Flusher, FlushLimits
from warp.log.hedge import HedgeLimits
from warp.log.memory import MemoryBudget
from warp.log.observer import FlushObserver
from warp.log.offsets import OffsetService
from warp.log.pacing import PacingLimits
from warp.log.produce import ProduceLimits, ProduceService
from warp.log.race import HedgedRequests
from warp.log.tail import TailIndex
from warp.log.trace import RequestTrace, hedges_json
from warp.metadata.model import CommitResult
from warp.metadata.session import Database
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.metrics import Metrics
from warp.objectstore.base import Abilities, Buffer, ObjectStore
from warp.objectstore.urls import open_object_store
from warp.server.limits import ServerLimits
from warp.server.listener import ListenerConfig, Server

log = logging.getLogger("warp.agent")

EMBEDDED_AGENT_NAME = "embedded"
"""The one agent of a data directory keeps its broker id over restarts by this name."""

HTTP_STOP_S = 1.0

# Shares of --request-memory; docs/operations.md has the sum of all bounds.
SEALED_BYTES_MAX = 64 * 2**20
"""Segments between seal and answer take half of it, at most this."""
FREE_BLOCK_BYTES_MAX = 32 * 2**20
"""Blocks that wait to be used again take an eighth of it, at most this."""


class _ReaderFeed(FlushObserver):
    """Lets this agent's readers know what it has committed, before producers do."""

    def __init__(self, fetch: FetchService) -> None:
        self._fetch = fetch

    def committed(self, result: CommitResult, images: Mapping[str, Sequence[Buffer]]) -> None:
        self._fetch.committed(result, images)


@dataclass(frozen=True, slots=True)
class Log:
    """The services of the log, and the bounds that they share."""

    request_memory: MemoryBudget
    fetch_memory: MemoryBudget
    cache: ChunkCache
    tail: TailIndex
    flusher: Flusher
    flush_limits: FlushLimits
    produce: ProduceService
    fetch: FetchService
    offsets: OffsetService

    async def close(self) -> None:
        """Stop everything at once; what is not finished is answered as a failure or not at all."""
        self.produce.close()
        await self.flusher.close()
        await self.fetch.close()
        await self.cache.close()


class Agent:
    """One agent: `start`, then `stop`. The stores are its own from `start` on: it opens and closes them."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        clock: Clock,
        ids: IdSource,
        object_store: ObjectStore,
        metadata: MetadataStore,
        metrics: Metrics | None = None,
        name: str = EMBEDDED_AGENT_NAME,
        hedge_limits: HedgeLimits | None = None,
    ) -> None:
        self.config = config
        self.metrics = metrics or Metrics()
        self.clock = clock
        self.cluster_id = ""
        self.broker_id = BrokerId(-1)
        self.abilities: Abilities | None = None
        """What the object store was seen to do at start."""
        self._ids = ids
        self._made_at_s = clock.monotonic()
        self._name = name
        self._hedge_limits = hedge_limits or HedgeLimits()
        self._object_store = object_store
        self._metadata = metadata
        self._metadata_is_open = False
        self._locks: list[DirectoryLock] = []
        self._catalogue: CatalogueService | None = None
        self._log: Log | None = None
        self._groups: Groups | None = None
        self._server: Server | None = None
        self._http: HttpServer | None = None
        self.readiness = Readiness({"metadata": metadata.check, "object store": object_store.check}, clock)
        self.metrics.info.add(1, __version__)
        self.metrics.ready.read = lambda: float(self.readiness.is_ready)

    @property
    def server(self) -> Server:
        """The Kafka face. Valid after `start`."""
        assert self._server is not None, "the agent has not been started"
        return self._server

    @property
    def log(self) -> Log:
        """The log's services. Valid after `start`."""
        assert self._log is not None, "the agent has not been started"
        return self._log

    @property
    def catalogue(self) -> CatalogueService:
        """The topics. Valid after `start`."""
        assert self._catalogue is not None, "the agent has not been started"
        return self._catalogue

    @property
    def groups(self) -> Groups:
        """The services of consumer groups. Valid after `start`."""
        assert self._groups is not None, "the agent has not been started"
        return self._groups

    @property
    def http_address(self) -> Address | None:
        """Where HTTP is served, None when it is off. Valid after `start`."""
        return self._http.bound if self._http is not None else None

    async def start(self, *, listen: bool = True) -> None:
        """Open the stores, recover what a crash has left, and serve.

        With `listen=False` no socket is made; connections then come from `server.connect`. Raises StartError or
        UsageError, in one line; what had been opened by then is closed again.
        """
        try:
            await self._open_stores()
            self._catalogue = self._build_catalogue()
            await self._catalogue.refresh()
            self._log = self._build_log()
            self._groups = build_groups(
                self.config, self._metadata, self.clock, self._ids, self.broker_id, self.metrics
            )
            await self._groups.coordinator.open()
            self._server = self._build_server(self._catalogue, self._log, self._groups)
            if listen:
                await self._server.start()
                await self._start_http()
        except BaseException:
            await self.close()
            raise
        self.readiness.state = None

    async def stop(self, timeout_s: float) -> bool:
        """Take no more, finish what clients have sent, write what has to be written, and close.

        False when something was cut because it was not finished in time. What was acknowledged is safe in any case.
        """
        self.readiness.state = "draining"
        finished = True
        deadline = self.clock.monotonic() + timeout_s
        if self._log is not None:
            self._log.fetch.stop_waiting()
        if self._groups is not None:
            self._groups.coordinator.stop_waiting()
        if self._server is not None:
            finished = await self._server.drain(0.7 * timeout_s)
        if self._log is not None:
            left_s = max(0.1, 0.9 * (deadline - self.clock.monotonic()))
            finished = await self._log.flusher.drain(left_s) and finished
        if self._groups is not None:
            left_s = max(0.1, 0.9 * (deadline - self.clock.monotonic()))
            finished = await self._groups.coordinator.drain(left_s) and finished
        await self.close()
        return finished

    async def close(self) -> None:
        """Let go of everything now. Only parts that were opened are closed, so it serves a failed start as well."""
        self.readiness.state = "stopped"
        await self.readiness.close()
        if self._server is not None:
            self._server.abort()
        if self._http is not None:
            await self._http.stop(HTTP_STOP_S)
        if self._log is not None:
            await self._log.close()
        if self._groups is not None:
            await self._groups.coordinator.close()
        if self._metadata_is_open:
            self._metadata_is_open = False
            await self._metadata.close()
        await self._object_store.close()
        for lock in self._locks:
            lock.release()

    def lock_directories(self, directories: Sequence[Path]) -> None:
        """Hold directories until everything is closed. Raises StartError when another agent holds one."""
        try:
            for directory in directories:
                lock = DirectoryLock(directory)
                lock.acquire(self.clock.time_ms())
                self._locks.append(lock)
        except StartError:
            for lock in self._locks:
                lock.release()
            raise

    async def _open_stores(self) -> None:
        self.abilities = await self._object_store.open()
        if not self._object_store.requests_are_free:
            log.info("the object store can be used; %s", self.abilities.describe())
        await self._metadata.open()
        self._metadata_is_open = True
        self.cluster_id = await self._metadata.cluster_id(self.config.cluster_id)
        self.broker_id = await self._metadata.register_agent(self._name)

    def _build_catalogue(self) -> CatalogueService:
        return CatalogueService(
            self._metadata,
            self.clock,
            self._ids,
            broker=broker_settings(self.config, self.broker_id),
            broker_ids=lambda: [self.broker_id],
        )

    def _build_log(self) -> Log:
        config = self.config
        request_memory = MemoryBudget(config.request_memory_bytes_max)
        set_free_bytes_max(min(FREE_BLOCK_BYTES_MAX, config.request_memory_bytes_max // 8))
        fetch_memory = MemoryBudget(config.fetch_memory_bytes_max)
        is_paid = not self._object_store.requests_are_free
        cache = ChunkCache(
            self._object_store,
            bytes_max=config.cache_bytes_max,
            hedges=HedgedRequests(self.clock, self._hedge_limits) if is_paid else None,
        )
        tail = TailIndex()
        trace = RequestTrace(self.clock)
        fetch = FetchService(self._metadata, cache, tail, fetch_memory, trace=trace)
        flush_metrics = FlushMetrics(self.metrics)
        flush_limits = FlushLimits(
            pacing=PacingLimits(
                flush_interval_s=config.flush_interval_ms / 1000, flush_bytes=config.flush_bytes_max
            ),
            hedge=self._hedge_limits,
            uploads_max=config.flush_uploads_max,
            sealed_segments_max=max(8, 2 * config.flush_uploads_max),
            sealed_bytes_max=min(SEALED_BYTES_MAX, config.request_memory_bytes_max // 2),
        )
        flusher = Flusher(
            self._object_store,
            self._metadata,
            self.clock,
            self._ids,
            limits=flush_limits,
            observers=(_ReaderFeed(fetch), flush_metrics),
            trace=trace,
        )
        limits = ProduceLimits()
        produce = ProduceService(flusher, self.clock, limits=limits, observer=flush_metrics)
        offsets = OffsetService(
            self._metadata,
            cache,
            fetch_memory,
            fetch.log_starts_at,
            decompressed_bytes_max=limits.decompressed_bytes_max,
        )
        parts = Log(request_memory, fetch_memory, cache, tail, flusher, flush_limits, produce, fetch, offsets)
        read_log(
            self.metrics,
            flusher=flusher,
            fetch=fetch,
            cache=cache,
            tail=tail,
            request_memory=request_memory,
            fetch_memory=fetch_memory,
        )
        return parts

    def _build_server(self, catalogue: CatalogueService, parts: Log, groups: Groups) -> Server:
        config = self.config
        services = Services(
            cluster_id=self.cluster_id,
            broker_id=self.broker_id,
            rack=config.zone,
            clock=self.clock,
            catalogue=catalogue,
            produce=parts.produce,
            fetch=parts.fetch,
            offsets=parts.offsets,
            producer_ids=ProducerIds(self._metadata),
            groups=groups.coordinator,
            answer_memory=parts.fetch_memory,
            settings=HandlerSettings(auto_create_topics=config.auto_create_topics),
        )
        limits = ServerLimits(
            connections_max=config.connections_max,
            request_bytes_max=config.request_bytes_max,
            idle_ms_max=config.connection_idle_ms,
        )
        server = Server(
            listener_configs(config),
            services,
            parts.request_memory,
            self.clock,
            limits,
            observe=self.metrics.count_request,
        )
        read_server(self.metrics, server, config.connections_max)
        return server

    async def _start_http(self) -> None:
        if self.config.http is None:
            return
        face = AgentFace(
            self.status, self.readiness.reasons, self.render_metrics, self.trace, self.object_store_facts
        )
        http = HttpServer(self.config.http, App(face))
        await http.start()
        self._http = http

    def status(self) -> dict[str, object]:
        """The fields of /v1/status."""
        return {"version": __version__, "cluster_id": self.cluster_id, "broker_id": self.broker_id}

    async def render_metrics(self) -> bytes:
        """What /metrics answers."""
        await self.groups.lags.refresh()
        return self.metrics.render()

    def trace(self) -> dict[str, object]:
        """The fields of /v1/trace/last. Valid after `start`."""
        flusher = self.log.flusher
        return {
            **flusher.trace.as_json(),
            "settings": flush_settings_json(self.log.flush_limits, is_free=flusher.put_hedges is None),
            "put": hedges_json(flusher.put_hedges),
            "get": hedges_json(self.log.cache.hedges),
        }

    def object_store_facts(self) -> dict[str, object]:
        """The fields of /v1/object-store. Valid after `start`."""
        store, traffic = self._object_store, self._object_store.traffic
        return {
            "url": mask_url(self.config.object_store),
            "requests_are_free": store.requests_are_free,
            "abilities": None if self.abilities is None else asdict(self.abilities),
            "uptime_s": self.clock.monotonic() - self._made_at_s,
            "requests": [
                {"kind": kind, "status": status, "count": count}
                for (kind, status), count in sorted(traffic.requests.items())
            ],
            "sent_bytes": traffic.sent_bytes,
            "received_bytes": traffic.received_bytes,
            "produced_bytes": self.log.flusher.committed_bytes,
            "fetched_bytes": self.log.fetch.counters.records_bytes,
        }


def flush_settings_json(limits: FlushLimits, *, is_free: bool) -> dict[str, object]:
    """The bounds that a Produce may have waited for."""
    return {
        "requests_are_free": is_free,
        "flush_interval_ms": 1000 * limits.pacing.flush_interval_s,
        "flush_bytes": limits.pacing.flush_bytes,
        "bytes_per_request": limits.pacing.bytes_per_request,
        "uploads_max": limits.uploads_max,
        "sealed_segments_max": limits.sealed_segments_max,
        "sealed_bytes_max": limits.sealed_bytes_max,
    }


def listener_configs(config: AgentConfig) -> list[ListenerConfig]:
    """What the server listens on, and what it tells clients of each listener."""
    advertised = config.advertise or (None,) * len(config.listen)
    listeners = []
    for bind, told in zip(config.listen, advertised, strict=True):
        advertise = None if told is None else Endpoint(told.host, told.port or bind.port)
        listeners.append(ListenerConfig(Endpoint(bind.host, bind.port), advertise))
    return listeners


def build_agent(config: AgentConfig, *, clock: Clock, ids: IdSource, metrics: Metrics) -> Agent:
    """The agent that a configuration describes, on its own stores; its data directory is locked.

    Raises UsageError for stores that can't be, StartError when the directory is held by another agent.
    """
    object_store = open_object_store(object_store_url(config), clock=clock, ids=ids)
    database = open_database(config.metadata, clock)
    agent = Agent(
        config,
        clock=clock,
        ids=ids,
        object_store=MeasuredObjectStore(object_store, metrics),
        metadata=MeasuredMetadataStore(database, clock, ids, metrics),
        metrics=metrics,
    )
    agent.lock_directories(directories_in_use(config))
    return agent


def directories_in_use(config: AgentConfig) -> list[Path]:
    """The directories that must be this agent's alone: that of the database, and the data directory if it holds more.

    A directory of objects is none of them: keys are unique, so agents may share it.
    """
    data_directory = config.data_dir.resolve()
    paths = [
        Path(unquote(urlsplit(url).path)).resolve()
        for url in (config.object_store, config.metadata)
        if not is_in_memory(url)
    ]
    found = [data_directory] if any(path.is_relative_to(data_directory) for path in paths) else []
    if urlsplit(config.metadata).scheme == "sqlite" and paths[-1].parent not in found:
        found.append(paths[-1].parent)
    return found


def object_store_url(config: AgentConfig) -> str:
    """The URL with the reserve of --free-space-reserve, unless it names one itself."""
    parts = urlsplit(config.object_store)
    if parts.scheme != "file" or "reserve=" in parts.query:
        return config.object_store
    reserve = f"reserve={config.free_space_reserve_bytes}B"
    return parts._replace(query=f"{parts.query}&{reserve}" if parts.query else reserve).geturl()


def open_database(url: str, clock: Clock) -> Database:
    """The database that a metadata URL names. Raises UsageError."""
    parts = urlsplit(url)
    if parts.scheme == "mem":
        return SqliteDatabase(":memory:", now_ms=clock.time_ms)
    if parts.scheme == "sqlite":
        if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
            raise UsageError(
                f"metadata {url!r}: give an absolute path after three slashes, as in sqlite:///dir/file"
            )
        return SqliteDatabase(Path(unquote(parts.path)), now_ms=clock.time_ms)
    raise UsageError(
        f"metadata: unknown kind {parts.scheme!r}; this release knows sqlite:///dir/file.sqlite, and mem://"
    )
