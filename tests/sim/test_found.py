"""What the simulator has found, each reduced to what it takes."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.sim import group_requests, requests
from tests.sim.client import Connection
from tests.sim.cluster import CLUSTER_SEED
from tests.sim.facts import Batch, Partition
from tests.sim.faults import Weather
from tests.sim.notices import NoticeWeather
from tests.sim.world import World, play
from warp._records import build_batch
from warp.errors import ErrorCode
from warp.ids import LogId, TopicId
from warp.log.flush import Flusher, FlushLimits
from warp.log.model import Append, LogTarget, TopicRules
from warp.log.pacing import PacingLimits
from warp.log.produce import ProduceService
from warp.metadata.model import BatchOutcome, CommitResult, SegmentCommit
from warp.objectstore.base import Buffer
from warp.objectstore.memory import MemoryStore
from warp.protocol.messages.fetch import FetchRequest

LARGE = 2**40
LARGE32 = 2**31 - 1


def test_a_connection_that_is_reset_is_forgotten() -> None:
    """connection_lost without eof_received before it: the pool kept the connection, and counted it for ever."""

    async def story(world: World) -> None:
        host = world.hosts[0]
        agent = await host.serves()
        for _ in range(3):
            await Connection.open(world.network, host.address, "client")
        await asyncio.sleep(1.0)
        assert agent.server.connection_count == 3
        world.network.cut(3)
        await asyncio.sleep(1.0)
        assert agent.server.connection_count == 0
        assert await agent.stop(5.0)

    assert play(0, story).violations == []


class SlowStore(MemoryStore):
    """PUTs wait for `gate`."""

    gate: asyncio.Event

    async def put(self, key: str, parts: list[Buffer]) -> None:  # type: ignore[override]
        await self.gate.wait()
        await super().put(key, parts)


class Committing:
    """Accepts everything."""

    async def commit(self, segments: list[SegmentCommit], now_ms: int) -> CommitResult:
        accepted = BatchOutcome(ErrorCode.NONE, 0)
        return CommitResult([[accepted for _ in segment.batches] for segment in segments], [], [])


def append_of(size_bytes: int, **producer: Any) -> Append:
    """A batch of about that size."""
    target = LogTarget(LogId(1), TopicId(bytes(16)), 0, "apples", TopicRules())
    return Append(target, build_batch([(None, b"v" * size_bytes, (), 0)], **producer))


def test_requests_enter_the_buffer_when_those_before_them_have_timed_out() -> None:
    """The buffer became empty without a seal, and nothing let the waiting requests in: the agent stood still."""

    async def story(world: World) -> None:
        store = SlowStore(world.clock, bytes_max=LARGE)
        store.gate = asyncio.Event()
        limits = FlushLimits(pacing=PacingLimits(flush_bytes=1000), uploads_max=1)
        flusher = Flusher(store, Committing(), world.clock, world.ids, limits=limits)  # type: ignore[arg-type]
        produce = ProduceService(flusher, world.clock)
        first = await produce.stage([append_of(800)], 100_000)
        await asyncio.sleep(0.5)
        second = await produce.stage([append_of(800)], 1_000)
        staging = asyncio.ensure_future(produce.stage([append_of(800)], 100_000))
        await asyncio.sleep(2.0)
        assert (await second.outcomes)[0].error == ErrorCode.REQUEST_TIMED_OUT
        store.gate.set()
        async with asyncio.timeout(10.0):
            assert (await first.outcomes)[0].error == ErrorCode.NONE
            third = await staging
            assert (await third.outcomes)[0].error == ErrorCode.NONE
        produce.close()
        await flusher.drain(5.0)

    assert play(0, story).violations == []


def test_batches_do_not_overtake_one_of_their_producer_that_has_timed_out() -> None:
    """They were committed without it. After the grace period for gaps the log took them, and it never again."""

    async def story(world: World) -> None:
        store = SlowStore(world.clock, bytes_max=LARGE)
        store.gate = asyncio.Event()
        flusher = Flusher(store, Committing(), world.clock, world.ids)  # type: ignore[arg-type]
        produce = ProduceService(flusher, world.clock)
        producer = {"producer_id": 7, "producer_epoch": 0}
        early = await produce.stage([append_of(10, **producer, base_sequence=0)], 1_000)
        late = await produce.stage([append_of(10, **producer, base_sequence=1)], 100_000)
        other = await produce.stage([append_of(10)], 100_000)
        await asyncio.sleep(0.5)
        behind = await produce.stage([append_of(10, **producer, base_sequence=2)], 100_000)
        await asyncio.sleep(2.0)
        store.gate.set()
        async with asyncio.timeout(10.0):
            assert (await early.outcomes)[0].error == ErrorCode.REQUEST_TIMED_OUT
            assert (await late.outcomes)[0].error == ErrorCode.NOT_ENOUGH_REPLICAS
            assert (await behind.outcomes)[0].error == ErrorCode.NOT_ENOUGH_REPLICAS
            assert (await other.outcomes)[0].error == ErrorCode.NONE
        produce.close()
        await flusher.drain(5.0)

    assert play(0, story).violations == []


class LazyReader(Connection):
    """Stops to read once so many bytes have come."""

    limit_bytes = 120_000
    came_bytes = 0

    def data_received(self, data: bytes) -> None:
        self.came_bytes += len(data)
        if self.came_bytes >= self.limit_bytes and self._transport is not None:
            self._transport.pause_reading()
        super().data_received(data)

    def go_on(self) -> None:
        assert self._transport is not None
        self.limit_bytes = LARGE
        self._transport.resume_reading()


def test_memory_of_an_answer_is_held_until_its_last_byte_has_left() -> None:
    """It was given back when little of it was left in the transport, which still kept all of it alive."""

    async def story(world: World) -> None:
        host = world.hosts[0]
        agent = await host.serves()
        place = Partition("apples", 0)
        writer = await Connection.open(world.network, host.address, "writer")
        await writer.ask(requests.create_topics({"apples": 1}), requests.CREATE_TOPICS_VERSION)
        data = build_batch([(None, b"v" * 150_000, (), world.clock.time_ms())])
        batch = Batch("writer", place, 0, [b"v" * 150_000], data, is_idempotent=False)
        await writer.ask(requests.produce([batch], 5_000), requests.PRODUCE_VERSION)
        reader = await LazyReader.open(world.network, host.address, "reader")
        assert isinstance(reader, LazyReader)
        answer = reader.send(
            requests.fetch(
                [(place, 0)], max_wait_ms=0, min_bytes=1, max_bytes=LARGE32, partition_bytes=LARGE32
            ),
            requests.FETCH_VERSION,
        )
        await asyncio.sleep(5.0)
        assert 0 < 150_000 - reader.came_bytes < 65_536, "less than what a transport may keep without a word"
        assert agent.log.cache.held_bytes + agent.log.fetch_memory.used_bytes > 0
        reader.go_on()
        await asyncio.sleep(5.0)
        assert requests.records_of(requests.fetched(answer.result())[place]) == [(0, b"v" * 150_000)]
        assert agent.log.cache.held_bytes + agent.log.fetch_memory.used_bytes == 0
        assert await agent.stop(5.0)

    assert play(0, story).violations == []


def test_members_learn_where_to_begin_while_readers_hold_all_the_memory() -> None:
    """Small answers waited for memory behind every Fetch, then failed: members were given up, and began anew."""

    async def story(world: World) -> None:
        host = world.hosts[0]
        agent = await host.serves()
        memory = agent.log.fetch_memory
        await memory.reserve(memory.bytes_max)
        waiting = asyncio.ensure_future(memory.reserve(1))
        member = await Connection.open(world.network, host.address, "member")
        request = group_requests.fetch_offsets("group", [Partition("apples", 0), Partition("apples", 1)])
        response = await member.ask(request, group_requests.OFFSET_FETCH_VERSION, timeout_s=5.0)
        assert response.error_code == ErrorCode.NONE
        assert list(group_requests.fetched_offsets(response).values()) == [-1, -1]
        assert not waiting.done()
        memory.release(memory.bytes_max)
        await waiting
        memory.release(1)
        assert await agent.stop(5.0)

    assert play(0, story).violations == []


def test_a_partition_that_is_out_of_range_hides_nothing_of_the_others() -> None:
    """Seed 1000: one error answered the Fetch at once, from memory, that knew less of the other logs than the store."""

    async def story(world: World) -> None:
        assert world.cluster is not None
        for host in world.hosts:
            await host.serves()
        await world.create_topics()
        world.cluster.bus.weather = NoticeWeather(lost=1.0)
        writer, reader = [
            await Connection.open(world.network, host.address, "root") for host in world.hosts[:2]
        ]
        gone, there = Partition("apples", 0), Partition("pears", 0)
        for number in range(2):
            data = build_batch([(None, b"v", (), world.clock.time_ms())])
            batches = [
                Batch("root", place, number, [b"v"], data, is_idempotent=False) for place in (gone, there)
            ]
            await writer.ask(requests.produce(batches, 5_000), requests.PRODUCE_VERSION)
            if number == 0:
                await reader.ask(fetch([(there, 0)]), requests.FETCH_VERSION)
        response = await reader.ask(fetch([(gone, 7), (there, 1)]), requests.FETCH_VERSION)
        parts = requests.fetched(response)
        assert parts[gone].error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        assert requests.records_of(parts[there]) == [(1, b"v")]

    assert play(CLUSTER_SEED, story).violations == []


def fetch(positions: list[tuple[Partition, int]]) -> FetchRequest:
    return requests.fetch(positions, max_wait_ms=500, min_bytes=1, max_bytes=LARGE32, partition_bytes=LARGE32)


def test_a_fetch_does_not_take_back_what_list_offsets_has_told() -> None:
    """Seeds 1057 and 1194: ListOffsets asked the store, and a Fetch at the same agent told older ends from memory."""

    async def story(world: World) -> None:
        assert world.cluster is not None
        for host in world.hosts:
            await host.serves()
        await world.create_topics()
        world.cluster.bus.weather = NoticeWeather(lost=1.0)
        writer, reader = [
            await Connection.open(world.network, host.address, "root") for host in world.hosts[:2]
        ]
        place = Partition("pears", 0)
        for number in range(2):
            data = build_batch([(None, b"v", (), world.clock.time_ms())])
            batch = Batch("root", place, number, [b"v"], data, is_idempotent=False)
            await writer.ask(requests.produce([batch], 5_000), requests.PRODUCE_VERSION)
            if number == 0:
                await reader.ask(fetch([(place, 0)]), requests.FETCH_VERSION)
        listed = await reader.ask(requests.list_ends([place]), requests.LIST_OFFSETS_VERSION)
        assert requests.listed(listed)[place] == (ErrorCode.NONE, 2)
        # It asks for what is in memory, and would be answered from there.
        response = await reader.ask(fetch([(place, 0)]), requests.FETCH_VERSION)
        assert requests.fetched(response)[place].high_watermark == 2

    assert play(CLUSTER_SEED, story).violations == []


def test_an_agent_that_is_told_to_stop_and_must_end_meanwhile_has_not_drained() -> None:
    """Between seeds 8021 and 8040: the end of the coordinator ended whoever waited for it to drain, without a word."""

    async def story(world: World) -> None:
        for host in world.hosts:
            await host.serves()
        agent = world.hosts[0].agent
        assert agent is not None
        world.sky.weather = Weather(statement_s=5.0)
        stopping = asyncio.ensure_future(agent.stop(20.0))
        await asyncio.sleep(0.5)
        await agent.close()
        assert not await stopping
        world.sky.weather = Weather.fine()

    assert play(CLUSTER_SEED, story).violations == []
