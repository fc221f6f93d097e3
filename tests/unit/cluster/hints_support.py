"""Agents side by side over one metadata store and one object store, on virtual time: their logs, topics and hints."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tests.sim.loop import SimClock, SimLoop
from tests.sim.notices import NoticeBus, SimNotices
from warp._records import build_batch, iterate_records
from warp.cluster.catalogue import CatalogueService, TopicInfo
from warp.cluster.hints import HintBus, HintLimits
from warp.cluster.topic_request import TopicRequest
from warp.errors import ErrorCode, MetadataUnavailable
from warp.handlers.context import Client, Endpoint, HandlerSettings, RequestContext
from warp.ids import BrokerId, IdSource, LogId
from warp.lifecycle.backlog import NOBODY
from warp.log.answer import FetchAnswer, FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.flush import Flusher
from warp.log.memory import MemoryBudget
from warp.log.model import Append, AppendOutcome
from warp.log.observer import FlushObserver
from warp.log.offsets import OffsetService
from warp.log.produce import ProduceService
from warp.log.tail import TailIndex
from warp.metadata.model import CommitResult, ExtentQuery, LogRead
from warp.metadata.sqlite import IN_MEMORY, SqliteDatabase
from warp.metadata.store import MetadataStore
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore
from warp.security.audit import Audit
from warp.security.authorizer import OPEN
from warp.security.quotas.quotas import UNLIMITED

MIB = 2**20


class SlowStore(MetadataStore):
    """A metadata store that answers questions about extents late: what it says was true when it was asked."""

    delay_s = 0.002
    is_down = False
    reads = 0

    async def read_extents(self, queries: Sequence[ExtentQuery]) -> list[LogRead]:
        self.reads += 1
        if self.is_down:
            raise MetadataUnavailable("down")
        answer = await super().read_extents(queries)
        await asyncio.sleep(self.delay_s)
        return list(answer)


class Feed(FlushObserver):
    def __init__(self, fetch: FetchService) -> None:
        self._fetch = fetch

    def committed(self, result: CommitResult, images: Mapping[str, Sequence[Buffer]]) -> None:
        self._fetch.committed(result, images)


class Member:
    """The parts of one agent that matter to readers."""

    def __init__(self, cluster: Cluster, number: int, limits: HintLimits) -> None:
        clock = self.clock = cluster.clock
        ids = IdSource(clock, random.Random(number).randbytes)
        self.notices: SimNotices = cluster.bus.join()
        self.metadata = SlowStore(cluster.database, clock, ids)
        cache = ChunkCache(cluster.objects, bytes_max=64 * MIB)
        memory = MemoryBudget(100 * MIB)
        self.tail = TailIndex()
        self.fetches = FetchService(
            self.metadata, cache, self.tail, memory, hears=lambda: self.notices.is_connected
        )
        self.catalogue = CatalogueService(self.metadata, clock, ids, broker={"num.partitions": "1"})
        self.hints = HintBus(self.notices, BrokerId(number), self.fetches, self.catalogue, limits)
        self.catalogue.observe(self.hints)
        self.hints.start()
        flusher = Flusher(
            cluster.objects, self.metadata, clock, ids, observers=(Feed(self.fetches), self.hints)
        )
        self.produces = ProduceService(flusher, clock)
        self.offsets = OffsetService(
            self.metadata, cache, memory, self.hints.log_starts_at, decompressed_bytes_max=MIB
        )

    def context(self, version: int) -> RequestContext:
        """The circumstances of a request to this agent, for handlers that need no other services."""
        services: Any = SimpleNamespace(
            discovery=SimpleNamespace(is_cut_off=False),
            clock=self.clock,
            catalogue=self.catalogue,
            fetch=self.fetches,
            produce=self.produces,
            offsets=self.offsets,
            settings=HandlerSettings(),
            hold_back=NOBODY,
            authorizer=OPEN,
            audit=Audit(self.clock.monotonic),
            quotas=UNLIMITED,
        )
        client = Client("192.0.2.1:1", Endpoint("broker.test", 9092))
        return RequestContext(services, [], client, None, version)

    async def create(self, name: str, partitions: int = 1) -> TopicInfo:
        [info] = await self.catalogue.create([TopicRequest(name, partitions)])
        assert isinstance(info, TopicInfo), info
        return info

    async def produce(self, info: TopicInfo, *values: bytes, partition: int = 0) -> AppendOutcome:
        """Append one batch, and return when it is acknowledged."""
        target = info.target(partition)
        assert target is not None
        data = build_batch([(None, value, (), 1_700_000_000_000) for value in values])
        staged = await self.produces.stage([Append(target, data)], 30_000)
        [outcome] = await staged.outcomes
        return outcome

    async def fetch(self, *queries: tuple[LogId, int], **options: Any) -> FetchAnswer:
        settings: dict[str, Any] = {"bytes_max": 50 * MIB, "bytes_min": 1, "wait_ms": 0, **options}
        return await self.fetches.fetch([FetchPartitionQuery(*query, MIB) for query in queries], **settings)


class Cluster:
    """Agents 1, 2, … on a loop of virtual time."""

    def __init__(self, loop: SimLoop, count: int = 2, *, seed: int = 0, **limits: Any) -> None:
        self.loop = loop
        self.clock = SimClock(loop)
        self.database = SqliteDatabase(IN_MEMORY, now_ms=self.clock.time_ms, is_shared=True)
        self.objects = MemoryStore(self.clock, bytes_max=2**30)
        self.bus = NoticeBus(loop, random.Random(seed))
        self.members = [Member(self, number, HintLimits(**limits)) for number in range(1, count + 1)]

    async def open(self) -> list[Member]:
        await self.members[0].metadata.open()
        for member in self.members:
            await member.catalogue.refresh()
        return self.members


def found(answer: FetchAnswer, partition: int = 0) -> list[tuple[int, bytes]]:
    """(offset, value) of every record of one partition, which has no error."""
    part = answer.partitions[partition]
    assert part.error is ErrorCode.NONE
    data = b"".join(bytes(piece) for piece in part.records)
    return [(record.offset, record.value or b"") for record in iterate_records(data, 2**30)]
