"""Builds one agent out of all its parts, starts it, and stops it in order.

Everything volatile hangs on the `Agent`: dropping one without a word is what a crash looks like to its stores, and
`start` of the next one is the recovery. Clock, ids, stores and the event loop come from outside, so a simulation can
build agents that have no sockets, no HTTP and no real time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from warp import __version__
from warp.agent_cluster import AgentCluster, LoadMeter, fixed_facts
from warp.agent_groups import Groups, build_groups, group_jobs
from warp.agent_http import AgentHttp
from warp.agent_lifecycle import AgentLifecycle, LifecycleLimits
from warp.agent_log import Log, LogLimits, build_log, flush_settings_json
from warp.agent_metrics import read_quotas, read_server
from warp.agent_security import AgentSecurity, build_security
from warp.agent_settings import broker_settings, listener_configs, server_limits
from warp.agent_tls import AgentTls
from warp.clock import Clock
from warp.cluster.catalogue import CatalogueService
from warp.cluster.discovery import Discovery
from warp.cluster.marker import check_marker
from warp.cluster.producer_ids import ProducerIds
from warp.config import AgentConfig, is_in_memory
from warp.config_values import Address, mask_url
from warp.data_directory import DirectoryLock
from warp.errors import StartError
from warp.handlers.context import Services
from warp.http.app import AgentFace, App
from warp.http.readiness import Readiness
from warp.ids import BrokerId, IdSource
from warp.lifecycle.epoch import begin_epoch
from warp.log.trace import hedges_json
from warp.metadata.cluster_model import AgentFacts
from warp.metadata.store import MetadataStore
from warp.metrics import Metrics
from warp.objectstore.base import Abilities, ObjectStore
from warp.security.audit import Audit
from warp.server.listener import Listener, Server, bind_all

log = logging.getLogger("warp.agent")

EMBEDDED_AGENT_NAME = "embedded"
"""The one agent of a data directory keeps its broker id over restarts by this name."""

HTTP_STOP_S = 1.0


class Agent:
    """One agent: `start`, then `stop`. The stores are its own from `start` on: it opens and closes them.

    `name` is what it is registered under: without one, in a cluster its first advertised address, otherwise a constant.
    `ended` is told why, when the agent must not serve any longer: whoever runs it then calls `close`.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        clock: Clock,
        ids: IdSource,
        object_store: ObjectStore,
        metadata: MetadataStore,
        metrics: Metrics | None = None,
        name: str | None = None,
        log_limits: LogLimits | None = None,
        lifecycle_limits: LifecycleLimits | None = None,
        ended: Callable[[str], None] | None = None,
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
        self._log_limits = log_limits or LogLimits()
        self._lifecycle_limits = lifecycle_limits
        self._object_store = object_store
        self._metadata = metadata
        self._metadata_is_open = False
        self._locks: list[DirectoryLock] = []
        self._ended = ended or (lambda reason: log.error("this agent must end: %s", reason))
        self._facts = AgentFacts()
        self._load = LoadMeter(clock)
        self._cluster: AgentCluster | None = None
        self._catalogue: CatalogueService | None = None
        self._security: AgentSecurity | None = None
        self._discovery: Discovery | None = None
        self._log: Log | None = None
        self._groups: Groups | None = None
        self._lifecycle: AgentLifecycle | None = None
        self._listeners = [Listener(listener) for listener in listener_configs(config)]
        self._tls = AgentTls(config)
        self._audit = Audit(
            clock.monotonic,
            only_logs=config.authorization == "log",
            observe=self.metrics.count_denied,
        )
        self._server: Server | None = None
        self._http: AgentHttp | None = None
        probes = {"metadata": metadata.check, "object store": object_store.check}
        self.readiness = Readiness(probes, clock, at_once=self._out_of_session)
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
    def cluster(self) -> AgentCluster:
        """This agent's part in its cluster. Valid after `start`."""
        assert self._cluster is not None, "the agent has not been started"
        return self._cluster

    @property
    def catalogue(self) -> CatalogueService:
        """The topics. Valid after `start`."""
        assert self._catalogue is not None, "the agent has not been started"
        return self._catalogue

    @property
    def security(self) -> AgentSecurity:
        """What decides who may do what. Valid after `start`."""
        assert self._security is not None, "the agent has not been started"
        return self._security

    @property
    def groups(self) -> Groups:
        """The services of consumer groups. Valid after `start`."""
        assert self._groups is not None, "the agent has not been started"
        return self._groups

    @property
    def lifecycle(self) -> AgentLifecycle:
        """The jobs that look after data. Valid after `start`."""
        assert self._lifecycle is not None, "the agent has not been started"
        return self._lifecycle

    @property
    def http_address(self) -> Address | None:
        """Where HTTP is served, None when it is off. Valid after `start`."""
        return self._http.server.bound if self._http is not None else None

    @property
    def http_url(self) -> str | None:
        """The same as a URL. Valid after `start`."""
        return f"{self._http.server.scheme}://{self.http_address}" if self._http is not None else None

    async def start(self, *, listen: bool = True) -> None:
        """Open the stores, recover what a crash has left, and serve.

        With `listen=False` no socket is made; connections then come from `server.connect`. Raises StartError or
        UsageError, in one line; what had been opened by then is closed again.
        """
        try:
            if listen:
                self._tls.open()
            await self._open_stores()
            if listen:
                await self._bind()
            await self._join()
            await self._build_services()
            await self.groups.coordinator.open()
            if listen:
                await self.server.start()
                await self._start_http()
            self.cluster.start()
            self.lifecycle.start()
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
        if self._cluster is not None:
            await self._cluster.leave(0.2 * timeout_s)
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
        for listener in self._listeners:
            listener.close()
        await self._tls.close()
        if self._http is not None:
            await self._http.server.stop(HTTP_STOP_S)
        if self._lifecycle is not None:
            await self._lifecycle.close()
        if self._cluster is not None:
            await self._cluster.close_sharing()
        if self._log is not None:
            await self._log.close()
        if self._groups is not None:
            await self._groups.coordinator.close()
        if self._security is not None:
            await self._security.close()
        if self._catalogue is not None:
            await self._catalogue.close()
        if self._cluster is not None:
            await self._cluster.close()
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
        if not is_in_memory(self.config.object_store):
            where = mask_url(self.config.object_store)
            await check_marker(
                self._object_store,
                self._metadata,
                self.cluster_id,
                where,
                is_conditional=self.abilities.conditional_create,
            )
            await begin_epoch(
                self._object_store,
                self._metadata,
                self._ids,
                where,
                is_conditional=self.abilities.conditional_create,
            )

    async def _bind(self) -> None:
        """Take the addresses, so that the agent knows them, and that they are its own, before it tells anybody."""
        await bind_all(self._listeners)
        if self.config.http is not None:
            http = AgentHttp(self.config, self.config.http, self._tls.tls)
            await http.server.bind()
            self._http = http

    async def _join(self) -> None:
        """Become a member of the cluster, to which nobody is sent yet."""
        endpoints = [listener.advertised for listener in self._listeners]
        self._facts = fixed_facts(
            self.config, endpoints, self.http_address, self.clock.time_ms(), self._certificate_hash()
        )
        cluster = self._cluster = AgentCluster(
            self.config,
            self._metadata,
            self.clock,
            self._ids,
            name=self._name
            or (self._facts.endpoints[0] if self._metadata.is_shared else EMBEDDED_AGENT_NAME),
            facts=self._read_facts,
            stop=self._ended,
            metrics=self.metrics,
        )
        self.broker_id = await cluster.join()

    def _read_facts(self) -> AgentFacts:
        """What this agent tells the others of itself at this moment."""
        if self._server is None or self._log is None or self._discovery is None:
            return self._facts
        produced, fetched = self._load.rates(
            self._log.flusher.committed_bytes, self._log.fetch.counters.records_bytes
        )
        return replace(
            self._facts,
            connections=self._server.connection_count - self._discovery.elsewhere,
            produced_bytes_per_s=produced,
            fetched_bytes_per_s=fetched,
            peer_certificate=self._certificate_hash(),
            merge_debt_permille=int(1000 * self.lifecycle.own_debt),
            quarantined_extents=self.lifecycle.own_quarantined_extents,
        )

    def _certificate_hash(self) -> str:
        """Of the certificate that HTTP shows at the moment; empty without one."""
        return "" if self._http is None else self._http.certificate_hash()

    async def _build_services(self) -> None:
        """Everything that serves clients, for an agent that has joined its cluster."""
        cluster = self.cluster
        member = cluster.membership
        discovery = Discovery(lambda: member.view, self.clock, is_live=lambda: member.is_live)
        self._discovery = discovery
        catalogue = self._catalogue = CatalogueService(
            self._metadata,
            self.clock,
            self._ids,
            broker=broker_settings(self.config, self.broker_id),
            broker_ids=discovery.broker_ids,
        )
        await catalogue.refresh()
        self._security = await build_security(
            self.config, catalogue, self.clock, self._metadata, self.metrics
        )
        parts = self._log = build_log(
            self.config,
            self._object_store,
            self._metadata,
            self.clock,
            self._ids,
            self._log_limits,
            self.metrics,
            catalogue,
            cluster,
        )
        groups = self._groups = build_groups(
            self.config,
            self._metadata,
            self.clock,
            self._ids,
            self.broker_id,
            self.metrics,
            cluster.policy,
            is_clock_trusted=lambda: cluster.membership.is_clock_trusted,
        )
        lifecycle = self._lifecycle = self._build_lifecycle(catalogue, parts)
        cluster.share_jobs(lifecycle.jobs, group_jobs(groups), lifecycle.runner_limits)
        self._server = self._build_server(catalogue, parts, groups, discovery)

    def _build_lifecycle(self, catalogue: CatalogueService, parts: Log) -> AgentLifecycle:
        assert self.abilities is not None, "the object store is open"
        lifecycle = AgentLifecycle(
            self.config,
            self._metadata,
            self._object_store,
            self.clock,
            self._ids,
            catalogue,
            self.cluster,
            (self.cluster.hints or parts.fetch).log_starts_at,
            lambda: parts.flusher.committed_bytes,
            has_conditional_puts=self.abilities.conditional_create,
            limits=self._lifecycle_limits,
        )
        lifecycle.show(self.metrics)
        return lifecycle

    def _build_server(
        self, catalogue: CatalogueService, parts: Log, groups: Groups, discovery: Discovery
    ) -> Server:
        config = self.config
        services = Services(
            cluster_id=self.cluster_id,
            broker_id=self.broker_id,
            clock=self.clock,
            discovery=discovery,
            catalogue=catalogue,
            produce=parts.produce,
            fetch=parts.fetch,
            offsets=parts.offsets,
            producer_ids=ProducerIds(self._metadata),
            groups=groups.coordinator,
            answer_memory=parts.fetch_memory,
            audit=self._audit,
            authorizer=self.security.authorizer,
            mechanisms=self.security.mechanisms,
            quotas=self.security.quotas,
            acls=self.security.acls,
            hold_back=self.lifecycle.hold_back,
        )
        server = Server(
            self._listeners,
            services,
            parts.request_memory,
            self.clock,
            server_limits(config),
            observe=self.metrics.count_request,
            tls=self._tls.tls,
            random_bytes=self._ids.random_bytes,
        )
        read_server(self.metrics, server, config.connections_max)
        read_quotas(self.metrics, self.security.quotas)
        return server

    def _out_of_session(self) -> str | None:
        """Why clients should not be sent here though the stores answer: the others take this agent for gone."""
        if self._cluster is None or self._cluster.membership.is_live:
            return None
        return "cluster: the session of this agent has lapsed, others may have taken over what it held"

    async def _start_http(self) -> None:
        if self._http is None:
            return
        face = AgentFace(
            status=self.status,
            reasons_not_ready=self.readiness.reasons,
            metrics=self.render_metrics,
            trace=self.trace,
            object_store=self.object_store_facts,
            cluster=lambda: {**self.cluster.describe(), **self.lifecycle.summary()},
            jobs=self.lifecycle.describe,
        )
        security = self.security
        access = self._http.access(
            security.mechanisms,
            security.authorizer,
            self._audit,
            self.catalogue,
            self.clock,
            self._ids.random_bytes,
            self.metrics,
        )
        await self._http.server.start(App(face, self.cluster.chunk_routes(self.log.cache), access))

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
