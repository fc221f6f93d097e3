"""Connects what the parts of an agent count to its metrics: timed stores, the observer of flushes, the readings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from warp.clock import Clock
from warp.cluster.hints import HintBus
from warp.groups.observer import GroupObserver
from warp.groups.rebalance import EVENTS
from warp.ids import IdSource
from warp.instruments import Reading
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.flush import Flusher
from warp.log.memory import MemoryBudget
from warp.log.observer import FlushObserver
from warp.log.race import HedgedRequests
from warp.log.tail import TailIndex
from warp.metadata.session import Database
from warp.metadata.store import MetadataStore
from warp.metrics import Metrics
from warp.objectstore.base import Abilities, Buffer, ObjectInfo, ObjectStore
from warp.security.quotas.quotas import Quotas
from warp.server.listener import Server

if TYPE_CHECKING:
    # Loaded in a cluster alone.
    from warp.cluster.zone_cache import ZoneCache
    from warp.http.chunks import ChunkRoute

T = TypeVar("T")

METADATA_OPERATIONS: Final = (
    "advance_log_starts", "allocate_producer_ids", "beat", "catalogue", "catalogue_changes",
    "catalogue_version", "change_entries", "check", "claim_key", "claim_keys", "clear_deleted_logs", "commit",
    "commit_offsets", "create_partitions", "create_topics", "dead_segments", "delete_groups",
    "delete_groups_without_offsets", "delete_offsets", "delete_records", "delete_topics", "expire_offsets",
    "expire_producers", "extent_of_max_timestamp", "extents_for_time", "extents_in_segments",
    "extents_of_log", "fetch_offsets", "find_agent", "forget_agents", "forget_segments", "gone_segments",
    "is_committed", "join_agent", "known_keys", "load_groups", "log_dirt", "log_heads", "log_states",
    "logs_to_trim", "mark_dead", "mark_dead_among", "mark_gone", "offset_lags", "offset_reaching_time",
    "oldest_segments", "quarantine", "quarantined", "quarantined_of_log", "read_extents", "register_agent",
    "release_quarantined", "remove_orphan_offsets", "save_groups", "segment_totals", "set_topic_configs",
    "swap", "take_leases", "take_leases_as_seen", "trim_logs",
)  # fmt: skip


class MeasuredObjectStore:
    """An object store that times and counts the requests to another one."""

    def __init__(self, store: ObjectStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self.requests_are_free = store.requests_are_free
        self.traffic = store.traffic

    async def open(self) -> Abilities:
        """See ObjectStore."""
        return await self._timed("open", self._store.open())

    async def check(self) -> None:
        """See ObjectStore."""
        await self._timed("check", self._store.check())

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ObjectStore."""
        await self._timed("put", self._store.put(key, parts))
        self._metrics.object_store_bytes.add(sum(map(len, parts)), "put")

    async def create(self, key: str, data: Buffer) -> bool:
        """See ObjectStore."""
        return await self._timed("create", self._store.create(key, data))

    async def get(self, key: str, start: int, length: int) -> Buffer:
        """See ObjectStore."""
        data = await self._timed("get", self._store.get(key, start, length))
        self._metrics.object_store_bytes.add(len(data), "get")
        return data

    async def head(self, key: str) -> ObjectInfo:
        """See ObjectStore."""
        return await self._timed("head", self._store.head(key))

    async def delete(self, keys: Sequence[str]) -> None:
        """See ObjectStore."""
        await self._timed("delete", self._store.delete(keys))

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See ObjectStore. Not timed: how long it takes is up to the caller."""
        return self._store.list(prefix)

    async def close(self) -> None:
        """See ObjectStore."""
        await self._store.close()

    async def _timed(self, operation: str, request: Awaitable[T]) -> T:
        began = perf_counter()
        try:
            return await request
        except Exception as error:
            self._metrics.object_store_errors.add(1, operation, type(error).__name__)
            raise
        finally:
            self._metrics.object_store_seconds.observe(perf_counter() - began, operation)


class MeasuredMetadataStore(MetadataStore):
    """A metadata store that times and counts its operations."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ids: IdSource,
        metrics: Metrics,
        *,
        beats: Database | None = None,
    ) -> None:
        super().__init__(database, clock, ids, beats=beats)
        self._metrics = metrics
        for name in METADATA_OPERATIONS:
            setattr(self, name, self._timed(name, getattr(self, name)))

    def _timed(self, name: str, operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        seconds = self._metrics.metadata_seconds.of(name)

        async def timed(*args: Any, **kwargs: Any) -> Any:
            began = perf_counter()
            try:
                return await operation(*args, **kwargs)
            except Exception as error:
                self._metrics.metadata_errors.add(1, name, type(error).__name__)
                raise
            finally:
                seconds.observe(perf_counter() - began)

        return timed


class FlushMetrics(FlushObserver):
    """Turns what the write path tells into metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def phase_done(self, phase: str, seconds: float) -> None:
        """See FlushObserver."""
        self._metrics.flush_seconds.observe(seconds, phase)

    def phase_failed(self, phase: str) -> None:
        """See FlushObserver."""
        self._metrics.flush_failures.add(1, phase)

    def sealed(self, size_bytes: int) -> None:
        """See FlushObserver."""
        self._metrics.segment_bytes.observe(size_bytes)

    def validated(self, seconds: float) -> None:
        """See FlushObserver."""
        self._metrics.flush_seconds.observe(seconds, "validate")


class GroupMetrics(GroupObserver):
    """Turns what the coordinator of groups tells into metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for event in EVENTS:
            metrics.group_events.add(0, _label(event))

    def noted(self, event: str) -> None:
        """See GroupObserver."""
        self._metrics.group_events.add(1, _label(event))

    def committed(self, offsets: int, seconds: float) -> None:
        """See GroupObserver."""
        self._metrics.offsets_committed.add(offsets)
        self._metrics.offset_commit_seconds.observe(seconds)


def _label(words: str) -> str:
    return words.replace(" ", "_")


def _read_hedges(hedges: HedgedRequests | None, started: Reading, won: Reading, denied: Reading) -> None:
    """Show the second requests of one kind; none are ever sent to a store whose requests are free."""
    if hedges is not None:
        started.read = lambda: hedges.started
        won.read = lambda: hedges.won
        denied.read = lambda: hedges.denied


def read_server(metrics: Metrics, server: Server, connections_max: int) -> None:
    """Show the counters of the server."""
    metrics.received_bytes.read = lambda: server.received_bytes
    metrics.sent_bytes.read = lambda: server.sent_bytes
    metrics.connections.read = lambda: server.connection_count
    metrics.connections_max.read = lambda: connections_max
    metrics.connections_opened.read = lambda: server.connections_opened
    metrics.connections_refused.read = lambda: server.connections_refused
    metrics.connections_early.read = lambda: server.early_count
    metrics.connections_crowded_out.read = lambda: server.crowded_out
    metrics.sessions_expired.read = lambda: server.sessions_expired
    metrics.protocol_errors.read = lambda: server.protocol_errors
    metrics.handler_bugs.read = lambda: server.handler_bugs


def read_quotas(metrics: Metrics, quotas: Quotas) -> None:
    """Show whom quotas have held back."""
    throttled = quotas.throttled
    metrics.throttled.read = lambda: [((kind,), times) for kind, times in throttled.times.items()]
    metrics.throttled_seconds.read = lambda: [((kind,), s) for kind, s in throttled.seconds.items()]
    metrics.quota_clients.read = lambda: quotas.remembered


def read_hints(metrics: Metrics, bus: HintBus, fetch: FetchService) -> None:
    """Show what agents tell each other."""
    metrics.cluster_hints.read = lambda: sorted(bus.hints.items())
    metrics.cluster_notices_published.read = lambda: bus.published
    metrics.cluster_notices_failed.read = lambda: bus.failed
    metrics.fetch_looks.read = lambda: fetch.counters.looks


def read_zone(metrics: Metrics, cache: ChunkCache, peers: ZoneCache, route: ChunkRoute) -> None:
    """Show what the agents of a zone read through each other."""
    metrics.peer_loaded_bytes.read = lambda: cache.source.peer_bytes
    metrics.peer_fallbacks.read = lambda: [((reason,), count) for reason, count in peers.fallbacks.items()]
    metrics.peer_requests.read = lambda: [
        (("served",), route.served),
        *(((reason,), count) for reason, count in route.refused.items()),
    ]
    metrics.peer_served_bytes.read = lambda: route.served_bytes


def read_log(
    metrics: Metrics,
    *,
    flusher: Flusher,
    fetch: FetchService,
    cache: ChunkCache,
    tail: TailIndex,
    request_memory: MemoryBudget,
    fetch_memory: MemoryBudget,
) -> None:
    """Show the counters of the log's services."""
    metrics.produced_bytes.read = lambda: flusher.committed_bytes
    metrics.buffer_bytes.read = lambda: flusher.waiting_bytes
    metrics.sealed_bytes.read = lambda: flusher.sealed_bytes
    _read_hedges(flusher.put_hedges, metrics.put_hedges, metrics.put_hedges_won, metrics.put_hedges_denied)
    _read_hedges(cache.hedges, metrics.get_hedges, metrics.get_hedges_won, metrics.get_hedges_denied)
    metrics.timed_out_requests.read = lambda: flusher.timed_out_requests
    metrics.fetched_bytes.read = lambda: fetch.counters.records_bytes
    metrics.fetches_waiting.read = lambda: fetch.waiting
    metrics.missing_objects.read = lambda: fetch.counters.missing_objects
    metrics.cache_bytes.read = lambda: cache.used_bytes
    metrics.cache_bytes_max.read = lambda: cache.bytes_max
    metrics.cache_hit_bytes.read = lambda: cache.hit_bytes
    metrics.cache_loaded_bytes.read = lambda: cache.source.store_bytes
    metrics.cache_evictions.read = lambda: cache.evictions
    source = cache.source
    metrics.cache_loads.read = lambda: [(("store",), source.store_loads), (("peer",), source.peer_loads)]
    metrics.tail_extents.read = lambda: tail.extent_count
    metrics.request_memory_bytes.read = lambda: request_memory.used_bytes
    metrics.request_memory_bytes_max.read = lambda: request_memory.bytes_max
    metrics.request_memory_waiting.read = lambda: request_memory.waiting
    metrics.fetch_memory_bytes.read = lambda: fetch_memory.used_bytes
    metrics.fetch_memory_bytes_max.read = lambda: fetch_memory.bytes_max
