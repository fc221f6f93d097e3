"""What an agent counts and measures, as Prometheus reads it.

Recording needs no locks (`warp.instruments`); the rendering, with its locks and text, happens when somebody asks.
Labels only ever take values out of closed lists (APIs, error codes, phases, operations, jobs), so the number of series
is bounded. The one metric with names that clients choose, the lag of groups, has a bound of its own.

One `Metrics` per agent; every metric is an attribute of it, so that what exists can be read in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric

from warp.instruments import Counter, Histogram, Instrument, Reading, Readings
from warp.job_metrics import JobMetrics

BYTES_BOUNDS: Final = tuple(float(4**power * 1024) for power in range(10))

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(JobMetrics):
    """All metrics of one agent, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._make_server_metrics()
        self._make_quota_metrics()
        self._make_log_metrics()
        self._make_group_metrics()
        self._make_cluster_metrics()
        self._make_hint_metrics()
        self._make_zone_metrics()
        self._make_job_metrics()
        self._make_store_metrics()
        self._make_process_metrics()
        self.registry.register(self)

    def _make_server_metrics(self) -> None:
        self.requests = Counter(
            "warp_requests_total",
            "Kafka requests answered, by API and outcome: NONE, the first error code of the answer, "
            "BUG, or DROPPED when the client was gone",
            ["api", "outcome"],
        )
        self.request_seconds = Histogram(
            "warp_request_seconds",
            "From the last byte of a request to its answer; waits that the client asked for included",
            ["api"],
        )
        self.received_bytes = Reading("warp_received_bytes_total", "Bytes read from Kafka connections")
        self.sent_bytes = Reading("warp_sent_bytes_total", "Bytes handed to Kafka connections")
        self.connections = Reading("warp_connections", "Kafka connections open now")
        self.connections_max = Reading("warp_connections_max", "Kafka connections that may be open at once")
        self.connections_opened = Reading("warp_connections_opened_total", "Kafka connections taken")
        self.connections_refused = Reading(
            "warp_connections_refused_total", "Kafka connections closed at once because of the limit"
        )
        self.connections_early = Reading(
            "warp_connections_unauthenticated",
            "Kafka connections open now whose clients have not authenticated",
        )
        self.connections_crowded_out = Reading(
            "warp_connections_crowded_out_total",
            "Kafka connections dropped for others because too many had not authenticated",
        )
        self.sessions_expired = Reading(
            "warp_sessions_expired_total",
            "Connections closed because they went on after the end of their session without authenticating again",
        )
        self.protocol_errors = Reading(
            "warp_protocol_errors_total", "Connections closed because the peer broke the protocol"
        )
        self.handler_bugs = Reading(
            "warp_handler_bugs_total", "Requests that ended in an error of the agent's own"
        )
        self.authentications = Counter(
            "warp_authentications_total",
            "Attempts to authenticate by SASL, or by a password over HTTP (as PLAIN), by mechanism and outcome: ok, "
            "refused, malformed, busy (too many at once), unavailable (no keys to check tokens with)",
            ["mechanism", "outcome"],
        )
        self.token_keys_age_seconds = Reading(
            "warp_token_keys_age_seconds",
            "How long ago the keys that sign OAUTHBEARER's tokens were read; they serve for a day",
        )
        self.denied_requests = Counter(
            "warp_denied_requests_total",
            "Requests that authorization has denied something, or with --authorization log would have, by API",
            ["api"],
        )
        self.http_refused = Counter(
            "warp_http_refused_total",
            "HTTP requests that were not let through, by reason: unauthenticated, malformed, refused (a wrong name or "
            "password), busy, denied (by ACLs)",
            ["reason"],
        )

    def _make_quota_metrics(self) -> None:
        self.throttled = Readings(
            "warp_throttled_total",
            "How often clients were held back by a quota, by kind: "
            "produce, fetch, request, mutation, connection (refused)",
            ["kind"],
        )
        self.throttled_seconds = Readings(
            "warp_throttled_seconds_total",
            "For how long clients were held back by a quota, by kind",
            ["kind"],
        )
        self.quota_clients = Reading(
            "warp_quota_clients", "Clients whose use of quotas is remembered at present"
        )

    def _make_log_metrics(self) -> None:
        self.produced_bytes = Reading("warp_produced_bytes_total", "Bytes of record batches committed")
        self.fetched_bytes = Reading(
            "warp_fetched_bytes_total", "Bytes of record batches handed to consumers"
        )
        self.flush_seconds = Histogram(
            "warp_flush_seconds", "Time that a segment spends in each phase of its flush", ["phase"]
        )
        self.segment_bytes = Histogram("warp_segment_bytes", "Size of flushed segments", bounds=BYTES_BOUNDS)
        self.flush_failures = Counter(
            "warp_flush_failures_total", "Segments that could not be stored or committed, by phase", ["phase"]
        )
        self.put_hedges = Reading("warp_put_hedges_total", "Slow PUTs that were sent a second time")
        self.put_hedges_won = Reading("warp_put_hedges_won_total", "PUTs of which the second was the faster")
        self.put_hedges_denied = Reading(
            "warp_put_hedges_denied_total", "Slow PUTs for which no second one was allowed when it was due"
        )
        self.get_hedges = Reading("warp_get_hedges_total", "Slow GETs that were sent a second time")
        self.get_hedges_won = Reading("warp_get_hedges_won_total", "GETs of which the second was the faster")
        self.get_hedges_denied = Reading(
            "warp_get_hedges_denied_total", "Slow GETs for which no second one was allowed when it was due"
        )
        self.timed_out_requests = Reading(
            "warp_produce_timeouts_total",
            "Produce requests that were not committed in the time that they allow",
        )
        self.buffer_bytes = Reading("warp_buffer_bytes", "Bytes of records that wait for a flush")
        self.sealed_bytes = Reading(
            "warp_sealed_bytes", "Bytes of segments between their seal and their answers"
        )
        self.request_memory_bytes = Reading(
            "warp_request_memory_bytes", "Memory that requests and waiting records hold"
        )
        self.request_memory_bytes_max = Reading(
            "warp_request_memory_bytes_max", "Memory that requests and waiting records may hold"
        )
        self.request_memory_waiting = Reading(
            "warp_request_memory_waiting", "Requests that wait for memory before they are read"
        )
        self.fetch_memory_bytes = Reading("warp_fetch_memory_bytes", "Memory that answers to consumers hold")
        self.fetch_memory_bytes_max = Reading(
            "warp_fetch_memory_bytes_max", "Memory that answers to consumers may hold"
        )
        self.fetches_waiting = Reading("warp_fetches_waiting", "Fetch requests that wait for records")
        self.missing_objects = Reading(
            "warp_missing_objects_total", "Reads of objects that were gone or not what the index says"
        )
        self.cache_bytes = Reading("warp_cache_bytes", "Memory that the cache of record data holds")
        self.cache_bytes_max = Reading("warp_cache_bytes_max", "Memory that the cache may hold")
        self.cache_hit_bytes = Reading("warp_cache_hit_bytes_total", "Bytes that readers found in the cache")
        self.cache_loaded_bytes = Reading(
            "warp_cache_loaded_bytes_total", "Bytes that the cache had to load from the object store"
        )
        self.cache_evictions = Reading("warp_cache_evictions_total", "Chunks that made room for others")
        self.tail_extents = Reading(
            "warp_tail_extents", "Recent extents remembered for consumers that keep up"
        )

    def _make_group_metrics(self) -> None:
        self.groups = Readings("warp_groups", "Consumer groups, by state", ["state"])
        self.group_members = Reading("warp_group_members", "Members of all consumer groups")
        self.group_events = Counter(
            "warp_group_events_total",
            "What happened to groups: rebalances, generations, members that came and went, by kind",
            ["event"],
        )
        self.group_lag = Readings(
            "warp_group_lag",
            "Records between a group's committed offset and the end of the partition; "
            "at most --group-lag-series of them",
            ["group", "topic", "partition"],
        )
        self.offset_commit_seconds = Histogram(
            "warp_offset_commit_seconds", "From a request to commit offsets to its answer"
        )
        self.offsets_committed = Counter("warp_offsets_committed_total", "Offsets committed")

    def _make_cluster_metrics(self) -> None:
        self.cluster_agents = Readings(
            "warp_cluster_agents",
            "Agents of the cluster as this one sees it, by state: serving, leaving, "
            "lost (without a goodbye, and not forgotten yet)",
            ["state"],
        )
        self.cluster_session_live = Reading(
            "warp_cluster_session_live",
            "1 while this agent's session lasts, 0 when the others may think it gone",
        )
        self.cluster_session_lapses = Reading(
            "warp_cluster_session_lapses_total", "Sessions of this agent that lapsed and began anew"
        )
        self.cluster_beats = Counter(
            "warp_cluster_beats_total",
            "Signs of life that this agent has given, by outcome: ok, failed, unknown, lost, bug",
            ["outcome"],
        )
        self.cluster_clock_skew_seconds = Reading(
            "warp_cluster_clock_skew_seconds", "By how much this machine's clock is ahead of the database's"
        )

    def _make_hint_metrics(self) -> None:
        self.cluster_hints = Readings(
            "warp_cluster_hints_total",
            "Hints between agents, by direction (sent, received) and kind: log, catalogue, look (at everything), "
            "unknown (of a format that this release does not know)",
            ["direction", "kind"],
        )
        self.cluster_notices_published = Reading(
            "warp_cluster_notices_published_total",
            "Notices sent to the other agents, with many hints in each",
        )
        self.cluster_notices_failed = Reading(
            "warp_cluster_notices_failed_total",
            "Notices that could not be sent: other agents saw commits later",
        )
        self.fetch_looks = Reading(
            "warp_fetch_looks_total",
            "Questions to the metadata store by fetches that waited, after a hint or because none had come for long",
        )

    def _make_zone_metrics(self) -> None:
        self.cache_loads = Readings(
            "warp_cache_loads_total",
            "Chunks that the cache asked the object store for, and those that an agent of the same zone gave, "
            "by source",
            ["source"],
        )
        self.peer_loaded_bytes = Reading(
            "warp_peer_loaded_bytes_total", "Bytes that agents of the same zone gave to the cache"
        )
        self.peer_fallbacks = Readings(
            "warp_peer_fallbacks_total",
            "Chunks read from the object store though another agent looks after them, by reason",
            ["reason"],
        )
        self.peer_requests = Readings(
            "warp_peer_requests_total",
            "Requests of other agents for chunks, by outcome: served, or why not",
            ["outcome"],
        )
        self.peer_served_bytes = Reading(
            "warp_peer_served_bytes_total", "Bytes of chunks handed to other agents"
        )

    def _make_store_metrics(self) -> None:
        self.object_store_seconds = Histogram(
            "warp_object_store_seconds", "Time of object store requests, failed ones included", ["operation"]
        )
        self.object_store_errors = Counter(
            "warp_object_store_errors_total",
            "Object store requests that failed, by kind",
            ["operation", "error"],
        )
        self.object_store_bytes = Counter(
            "warp_object_store_bytes_total", "Bytes written to and read from the object store", ["operation"]
        )
        self.metadata_seconds = Histogram(
            "warp_metadata_seconds", "Time of metadata operations, failed ones included", ["operation"]
        )
        self.metadata_errors = Counter(
            "warp_metadata_errors_total", "Metadata operations that failed, by kind", ["operation", "error"]
        )

    def _make_process_metrics(self) -> None:
        self.info = Counter("warp_build_info", "Always 1; the version of the agent is its label", ["version"])
        self.ready = Reading(
            "warp_ready", "1 when the agent serves, 0 when it starts, stops or misses a store"
        )
        self.loop_lag_seconds = Histogram(
            "warp_loop_lag_seconds", "How late the event loop runs what is due, sampled four times a second"
        )
        self.loop_errors = Counter(
            "warp_loop_errors_total", "Errors that reached the event loop: each is a bug, and is logged"
        )
        self.gc_pause_seconds = Histogram(
            "warp_gc_pause_seconds", "Time that a garbage collection stopped the process", ["generation"]
        )
        self.log_lines_dropped = Reading(
            "warp_log_lines_dropped_total", "Log lines lost because nobody read them fast enough"
        )

    def instruments(self) -> list[Instrument]:
        """Every metric, in the order of their definition."""
        return [value for value in vars(self).values() if isinstance(value, Instrument)]

    def count_request(self, api: str, version: int, seconds: float, outcome: str) -> None:
        """The server's request observer."""
        self.requests.add(1, api, outcome)
        self.request_seconds.observe(seconds, api)

    def count_authentication(self, mechanism: str, outcome: str) -> None:
        """The mechanisms' observer."""
        self.authentications.add(1, mechanism, outcome)

    def count_denied(self, api: str) -> None:
        """The audit log's observer of refusals."""
        self.denied_requests.add(1, api)

    def count_http_refusal(self, reason: str) -> None:
        """The observer of those who ask over HTTP and are not let through."""
        self.http_refused.add(1, reason)

    def watch_process(self) -> None:
        """Add the standard `process_…` metrics: memory, CPU seconds, file descriptors, start time."""
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for on every scrape."""
        for instrument in self.instruments():
            metric = instrument.collect()
            if metric is not None:
                yield metric

    def render(self) -> bytes:
        """The Prometheus text format of everything on the registry."""
        return generate_latest(self.registry)
