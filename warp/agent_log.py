"""Builds the services of the log in an agent, by its configuration, and connects them to the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from warp._blocks import set_free_bytes_max
from warp.agent_cluster import AgentCluster
from warp.agent_metrics import FlushMetrics, read_hints, read_log
from warp.clock import Clock
from warp.cluster.catalogue import CatalogueService
from warp.config import AgentConfig
from warp.ids import IdSource
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
from warp.log.trace import RequestTrace
from warp.metadata.model import CommitResult
from warp.metadata.store import MetadataStore
from warp.metrics import Metrics
from warp.objectstore.base import Buffer, ObjectStore

# Shares of --request-memory; docs/operations.md has the sum of all bounds.
SEALED_BYTES_MAX = 64 * 2**20
"""Segments between seal and answer take half of it, at most this."""
FREE_BLOCK_BYTES_MAX = 32 * 2**20
"""Blocks that wait to be used again take an eighth of it, at most this."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Bounds that no option sets; a simulation has smaller ones. A chunk size of None is made by the cache's."""

    hedge: HedgeLimits = field(default_factory=HedgeLimits)
    chunk_bytes: int | None = None


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


class _ReaderFeed(FlushObserver):
    """Lets this agent's readers know what it has committed, before producers do."""

    def __init__(self, fetch: FetchService) -> None:
        self._fetch = fetch

    def committed(self, result: CommitResult, images: Mapping[str, Sequence[Buffer]]) -> None:
        self._fetch.committed(result, images)


def build_log(
    config: AgentConfig,
    object_store: ObjectStore,
    metadata: MetadataStore,
    clock: Clock,
    ids: IdSource,
    limits: LogLimits,
    metrics: Metrics,
    catalogue: CatalogueService,
    cluster: AgentCluster,
) -> Log:
    """The log's services, on stores that are open, for an agent that has joined its cluster."""
    request_memory = MemoryBudget(config.request_memory_bytes_max)
    set_free_bytes_max(min(FREE_BLOCK_BYTES_MAX, config.request_memory_bytes_max // 8))
    fetch_memory = MemoryBudget(config.fetch_memory_bytes_max)
    cache = _build_cache(config, object_store, clock, limits, cluster)
    tail = TailIndex(age_s_max=config.delete_grace_ms / 2000, now=clock.boottime)
    trace = RequestTrace(clock)
    fetch = FetchService(metadata, cache, tail, fetch_memory, trace=trace, hears=cluster.hears)
    hints = cluster.share_hints(fetch, catalogue)
    flush_metrics = FlushMetrics(metrics)
    observers: list[FlushObserver] = [_ReaderFeed(fetch), flush_metrics]
    if hints is not None:
        read_hints(metrics, hints, fetch)
        observers += [cluster.last_commit, hints]
    flush_limits = _flush_limits(config, limits.hedge)
    flusher = Flusher(
        object_store,
        metadata,
        clock,
        ids,
        limits=flush_limits,
        observers=observers,
        trace=trace,
    )
    produce_limits = ProduceLimits()
    produce = ProduceService(flusher, clock, limits=produce_limits, observer=flush_metrics)
    offsets = OffsetService(
        metadata,
        cache,
        fetch_memory,
        (hints or fetch).log_starts_at,
        decompressed_bytes_max=produce_limits.decompressed_bytes_max,
        ends_told=fetch.hinted,
    )
    built = Log(request_memory, fetch_memory, cache, tail, flusher, flush_limits, produce, fetch, offsets)
    read_log(
        metrics,
        flusher=flusher,
        fetch=fetch,
        cache=cache,
        tail=tail,
        request_memory=request_memory,
        fetch_memory=fetch_memory,
    )
    return built


def _build_cache(
    config: AgentConfig,
    object_store: ObjectStore,
    clock: Clock,
    limits: LogLimits,
    cluster: AgentCluster,
) -> ChunkCache:
    is_paid = not object_store.requests_are_free
    return ChunkCache(
        object_store,
        bytes_max=config.cache_bytes_max,
        chunk_bytes=limits.chunk_bytes,
        hedges=HedgedRequests(clock, limits.hedge) if is_paid else None,
        peers=cluster.peers,
    )


def _flush_limits(config: AgentConfig, hedge_limits: HedgeLimits) -> FlushLimits:
    return FlushLimits(
        pacing=PacingLimits(
            flush_interval_s=config.flush_interval_ms / 1000, flush_bytes=config.flush_bytes_max
        ),
        hedge=hedge_limits,
        uploads_max=config.flush_uploads_max,
        sealed_segments_max=max(8, 2 * config.flush_uploads_max),
        sealed_bytes_max=min(SEALED_BYTES_MAX, config.request_memory_bytes_max // 2),
    )


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
