"""Makes an agent a member of its cluster, and builds what it shares with the others, by its configuration.

An agent on a database of its own is alone: it has a registration and a view of itself, and nothing else of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from warp import __version__
from warp.agent_metrics import read_zone
from warp.agent_settings import peer_address
from warp.clock import Clock
from warp.cluster.catalogue import CatalogueService
from warp.cluster.describe import describe
from warp.cluster.forgetting import FORGET_INTERVAL_S, Forgetting
from warp.cluster.hints import HintBus
from warp.cluster.jobs import Job, JobLimits, JobRunner
from warp.cluster.membership import Membership, MembershipLimits
from warp.cluster.membership_metrics import beat_counter, show_membership
from warp.cluster.slot_policy import ClusterSlotPolicy
from warp.config import AgentConfig
from warp.config_values import Address
from warp.handlers.context import Endpoint
from warp.ids import BrokerId, IdSource
from warp.log.fetch import FetchService
from warp.log.observer import FlushObserver
from warp.metadata.cluster_model import JOBS, AgentFacts
from warp.metadata.model import CommitResult
from warp.metadata.store import MetadataStore
from warp.metrics import Metrics
from warp.objectstore.base import Buffer

if TYPE_CHECKING:
    from warp.cluster.peer_auth import PeerAuth
    from warp.cluster.zone_cache import ZoneCache
    from warp.http.messages import Handler
    from warp.log.cache import ChunkCache

log = logging.getLogger("warp.agent")

RATE_S_MIN = 1.0
"""Over how long a rate is measured at least."""
LEAVE_S_MAX = 5.0
"""How long an agent that stops tries to let the others know."""


class LastCommit(FlushObserver):
    """Remembers the key of the segment that was committed last: should the database forget it, it went back in time."""

    def __init__(self) -> None:
        self.key: str | None = None

    def committed(self, result: CommitResult, images: Mapping[str, Sequence[Buffer]]) -> None:
        """See FlushObserver."""
        known = [key for place, key in enumerate(images) if place not in result.refused]
        if known:
            self.key = known[-1]


class LoadMeter:
    """Bytes per second that were produced and fetched here lately, from counters of all bytes so far."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at_s = clock.monotonic()
        self._counted = (0, 0)
        self._rates = (0, 0)

    def rates(self, produced_bytes: int, fetched_bytes: int) -> tuple[int, int]:
        """The rates since the last measurement, or those of that one as long as it is recent."""
        passed_s = self._clock.monotonic() - self._at_s
        if passed_s >= RATE_S_MIN:
            produced, fetched = self._counted
            self._rates = (
                int((produced_bytes - produced) / passed_s),
                int((fetched_bytes - fetched) / passed_s),
            )
            self._at_s += passed_s
            self._counted = (produced_bytes, fetched_bytes)
        return self._rates


def fixed_facts(
    config: AgentConfig,
    endpoints: Sequence[Endpoint],
    http: Address | None,
    now_ms: int,
    certificate_hash: str = "",
) -> AgentFacts:
    """What an agent that has its addresses tells of itself, but for its load.

    `certificate_hash` is of the certificate that it shows over HTTP; empty where that speaks no TLS.
    """
    peer = peer_address(config, endpoints[0], http)
    if peer is not None and certificate_hash:
        peer = f"https://{peer}"
    return AgentFacts(
        endpoints=tuple(map(str, endpoints)),
        peer=peer,
        peer_certificate=certificate_hash,
        zone=config.zone,
        group=config.agent_group,
        roles=config.roles,
        version=__version__,
        started_ms=now_ms,
    )


class AgentCluster:
    """One agent's part in its cluster: `join`, then the services that others build upon, then `start`.

    `stop` is told why the agent has to end at once, should its registration be another's or the database have lost
    what was committed. What is None exists only where other agents may be.
    """

    def __init__(
        self,
        config: AgentConfig,
        store: MetadataStore,
        clock: Clock,
        ids: IdSource,
        *,
        name: str,
        facts: Callable[[], AgentFacts],
        stop: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        self.is_shared = store.is_shared
        self.last_commit = LastCommit()
        timeout_s = config.agent_timeout_ms / 1000
        self.membership = Membership(
            store,
            clock,
            name=name,
            incarnation=ids.token(),
            facts=facts,
            limits=MembershipLimits.of_timeout(timeout_s),
            is_shared=self.is_shared,
            stop=stop,
            last_commit=lambda: self.last_commit.key,
            beaten=beat_counter(metrics) if self.is_shared else lambda outcome: None,
        )
        self.policy: ClusterSlotPolicy | None = None
        self.peers: ZoneCache | None = None
        self.hints: HintBus | None = None
        self.jobs: JobRunner | None = None
        self._auth: PeerAuth | None = None
        self._metrics = metrics
        self._config = config
        self._read_facts = facts
        self._store = store
        self._clock = clock
        self._ids = ids

    async def join(self) -> BrokerId:
        """Get a registration, to which nobody is sent before `start`: this agent's broker id.

        Raises StartError and MetadataError.
        """
        broker_id = await self.membership.join()
        if not self.is_shared:
            return broker_id
        # What only a cluster needs is not loaded without one.
        from warp.cluster.peer_auth import PeerAuth  # noqa: PLC0415
        from warp.cluster.zone_cache import ZoneCache  # noqa: PLC0415

        member = self.membership
        show_membership(self._metrics, member)
        self.policy = ClusterSlotPolicy(member, self._clock, timeout_s=member.limits.timeout_s)
        self._auth = PeerAuth(await self._store.peer_secret())
        self.peers = ZoneCache(lambda: member.view, self._auth, self._clock, self._ids.random_bytes)
        log.info(
            "joined the cluster as agent %d, %s", broker_id, member.name, extra={"zone": self._config.zone}
        )
        if urlsplit(self._config.object_store).scheme == "file":
            log.warning(
                "the object store is a directory: all agents of this cluster have to be on this machine"
            )
        if self._read_facts().peer is None:
            log.info(
                "other agents can't reach this agent's HTTP port, so it reads the object store by itself"
            )
        return broker_id

    @property
    def hears(self) -> Callable[[], bool] | None:
        """Do hints of others arrive at present? None where there are no others."""
        if not self.is_shared:
            return None
        notices = self._store.notices
        return lambda: notices is not None and notices.is_connected

    def share_hints(self, fetch: FetchService, catalogue: CatalogueService) -> HintBus | None:
        """Tell the others of this agent's commits and topics from now on, and hear of theirs."""
        notices = self._store.notices
        if notices is None:
            return None
        self.hints = HintBus(notices, self.membership.view.own, fetch, catalogue)
        catalogue.observe(self.hints)
        self.hints.start()
        return self.hints

    def share_jobs(
        self, jobs: Sequence[Job], of_clusters: Sequence[Job], limits: JobLimits | None = None
    ) -> None:
        """Take part in running jobs from `start` on: those, and where there may be other agents `of_clusters` too."""
        member = self.membership
        if self.is_shared:
            forgetting = Forgetting(self._store, lambda: member.rows, lambda: member.view)
            jobs = [*jobs, *of_clusters, Job("gone-agents", FORGET_INTERVAL_S, forgetting.run)]
        self.jobs = JobRunner(
            self._store,
            self._clock,
            jobs,
            view=lambda: member.view,
            may_run=self._may_run_jobs,
            limits=limits,
        )

    def chunk_routes(self, cache: ChunkCache) -> dict[str, Handler]:
        """What only the other agents ask for over HTTP, by path."""
        if self._auth is None:
            return {}
        from warp.cluster.zone_cache import CHUNK_PATH  # noqa: PLC0415
        from warp.http.chunks import ChunkRoute  # noqa: PLC0415

        assert self.peers is not None, "there is a secret, so there are peers to be asked"
        route = ChunkRoute(cache, self._auth, self._clock)
        read_zone(self._metrics, cache, self.peers, route)
        return {CHUNK_PATH: route}

    def describe(self) -> dict[str, Any]:
        """The fields of /v1/cluster, but for what jobs have to do."""
        return describe(self.membership, self._clock.time_ms())

    def start(self) -> None:
        """Let clients be sent here, and jobs run here."""
        self.membership.start()
        if self.jobs is not None:
            self.jobs.start()

    async def leave(self, timeout_s: float) -> None:
        """Let nobody be sent here any more, and no job run here."""
        try:
            async with asyncio.timeout(min(timeout_s, LEAVE_S_MAX)):
                if self.is_shared:
                    await self.membership.leave()
                await self._close_jobs()
        except TimeoutError:
            log.warning("the others could not be told in time that this agent leaves")

    async def close_sharing(self) -> None:
        """Tell the others no more, and ask them for nothing."""
        await self._close_jobs()
        if self.hints is not None:
            await self.hints.close()
        if self.peers is not None:
            self.peers.close()

    async def close(self) -> None:
        """End the membership: the others take this agent for gone."""
        if self.policy is not None:
            self.policy.close()
        await self.membership.close()

    async def _close_jobs(self) -> None:
        if self.jobs is not None:
            await self.jobs.close()

    def _may_run_jobs(self) -> bool:
        member = self.membership
        own = member.view.agents[member.view.own]
        is_here = member.is_live and member.is_clock_trusted and not own.is_leaving
        return is_here and JOBS in self._config.roles
