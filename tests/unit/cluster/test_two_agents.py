"""P5 between agents: what one has acknowledged another one shows, with hints soon, without them right all the same."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.sim.notices import NoticeWeather
from tests.support.log import run_sim
from tests.unit.cluster.hints_support import Cluster, Member, found
from warp._records import build_batch
from warp.cluster.catalogue import TopicInfo
from warp.cluster.topic_request import PartitionsRequest
from warp.errors import ErrorCode
from warp.handlers.fetch import fetch as handle_fetch
from warp.handlers.offsets import (
    delete_records as handle_delete_records,
    list_offsets as handle_list_offsets,
    offset_for_leader_epoch as handle_epochs,
)
from warp.handlers.produce import produce as handle_produce
from warp.ids import LogId
from warp.log.hints import LogHint
from warp.log.offsets import OffsetQuery, SpecialTimestamp
from warp.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic
from warp.protocol.messages.offsets import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsTopic,
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsTopic,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from warp.protocol.messages.produce import ProducePartition, ProduceRequest, ProduceTopic

LOST = NoticeWeather(lost=1.0)
MINUTE_MS = 60_000


def run(scenario: Any, count: int = 2, **options: Any) -> None:
    async def main(loop: Any) -> None:
        cluster = Cluster(loop, count, **options)
        members = await cluster.open()
        await scenario(cluster, *members)
        for member in members:
            await member.hints.close()
            await member.fetches.close()
            await member.catalogue.close()

    run_sim(main)


def one_log(info: TopicInfo) -> LogId:
    [log_id] = info.topic.logs
    return log_id


async def waits(member: Member, *queries: tuple[LogId, int], **options: Any) -> asyncio.Task[Any]:
    """A fetch that has begun to wait."""
    before = member.fetches.waiting
    task = asyncio.create_task(member.fetch(*queries, **{"wait_ms": MINUTE_MS, **options}))
    async with asyncio.timeout(1):
        while member.fetches.waiting == before:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
    return task


# Soon


def test_a_fetch_that_waits_at_another_agent_gets_a_record_within_20_ms() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await a.create("t")
        for number in range(50):
            task = await waits(b, (one_log(info), number))
            await asyncio.sleep(0.05)
            await a.produce(info, b"%d" % number)
            acknowledged_at = cluster.loop.time()
            assert found(await task) == [(number, b"%d" % number)]
            assert cluster.loop.time() - acknowledged_at < 0.020

    run(scenario)


def test_a_hint_that_overtakes_the_answer_of_the_store_is_not_missed() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await a.create("t")
        b.metadata.delay_s = 0.1
        for number in range(5):
            # The answer on its way to the fetch is older than the record whose hint comes before it: at first of a log
            # that nothing is known of, then of one whose end is known.
            task = asyncio.create_task(b.fetch((one_log(info), number), wait_ms=MINUTE_MS))
            await asyncio.sleep(0.05)
            await a.produce(info, b"x")
            acknowledged_at = cluster.loop.time()
            assert found(await task) == [(number, b"x")]
            assert cluster.loop.time() - acknowledged_at < 0.3

    run(scenario)


def test_a_log_that_starts_later_elsewhere_is_looked_into() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await a.create("t")
        log_id = one_log(info)
        await a.produce(info, b"a", b"b", b"c")
        assert len(found(await b.fetch((log_id, 0)))) == 3
        task = await waits(b, (log_id, 3))
        deleted = await a.offsets.delete_records({log_id: 2})
        assert deleted[log_id].low_watermark == 2
        await asyncio.sleep(0.02)
        assert (await b.fetch((log_id, 1))).partitions[0].error is ErrorCode.OFFSET_OUT_OF_RANGE
        assert (await b.fetch((log_id, 2))).partitions[0].log_start_offset == 2
        assert not task.done()
        await a.produce(info, b"d")
        assert found(await task) == [(3, b"d")]
        assert (await task).partitions[0].log_start_offset == 2

    run(scenario)


def test_a_log_that_is_deleted_elsewhere_ends_the_wait_of_its_readers() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await a.create("t")
        await b.catalogue.lookup(names=["t"])
        task = await waits(b, (one_log(info), 0))
        await a.catalogue.delete([info.topic_id])
        deleted_at = cluster.loop.time()
        assert (await task).partitions[0].error is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert cluster.loop.time() - deleted_at < 0.020
        assert b.catalogue.current.by_name == {}
        assert b.tail.extent_count == 0

    run(scenario)


def test_topics_created_elsewhere_are_known_soon_and_many_hints_share_a_look() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        for number in range(40):
            await a.create(f"t{number}")
        await asyncio.sleep(0.02)
        assert len(b.catalogue.current.by_name) == 40
        assert b.catalogue.current.version == a.catalogue.current.version
        assert a.hints.hints["sent", "catalogue"] <= 40
        for member in (a, b):
            # What is known, or was one's own doing, is not looked at.
            current = member.catalogue.current
            member.catalogue.hinted(current.version)
            await asyncio.sleep(0.02)
            assert member.catalogue.current is current

    run(scenario)


def test_hints_of_the_catalogue_that_can_not_be_followed_are_forgotten() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        await a.create("t")
        await cluster.database.close()
        for version in (None, 99):
            b.catalogue.hinted(version)
            await asyncio.sleep(0.02)
        await cluster.database.open()
        await b.metadata.open()
        # A version that never comes to be costs one look.
        before = b.catalogue.current
        b.catalogue.hinted(10**9)
        await asyncio.sleep(1)
        assert b.catalogue.current is before or b.catalogue.current.version < 10**9

    run(scenario)


# Right, whatever becomes of the hints


@pytest.mark.parametrize(("is_connected", "within_s"), [(True, 5.1), (False, 0.6)])
def test_a_waiting_fetch_looks_into_the_store_from_time_to_time(is_connected: bool, within_s: float) -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        cluster.bus.weather = LOST
        b.notices.is_connected = is_connected
        info = await a.create("t")
        for number in range(3):
            task = await waits(b, (one_log(info), number))
            await asyncio.sleep(0.3)
            await a.produce(info, b"x")
            acknowledged_at = cluster.loop.time()
            assert found(await task) == [(number, b"x")]
            assert cluster.loop.time() - acknowledged_at < within_s

    run(scenario)


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_consumer_that_waits_half_a_second_asks_the_store_no_more_than_once(is_connected: bool) -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        b.notices.is_connected = is_connected
        log_id = one_log(await a.create("t"))
        assert found(await b.fetch((log_id, 0), wait_ms=500)) == []
        b.metadata.reads = 0
        for _ in range(10):
            assert found(await b.fetch((log_id, 0), wait_ms=500)) == []
        assert (b.metadata.reads, b.fetches.counters.looks) == (10, 0)

    run(scenario)


def test_many_waiting_fetches_share_their_looks() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        b.notices.is_connected = False
        log_id = one_log(await a.create("t"))
        tasks = [asyncio.create_task(b.fetch((log_id, 0), wait_ms=10_000)) for _ in range(100)]
        await asyncio.gather(*tasks)
        assert b.metadata.reads <= 3 + 10 / 0.5

    run(scenario)


@pytest.mark.parametrize("bytes_min", [0, 1, 100_000])
def test_a_fetch_after_the_acknowledgement_sees_the_record_without_any_hint(bytes_min: int) -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        cluster.bus.weather = LOST
        info = await a.create("t")
        log_id = one_log(info)
        for number in range(20):
            writer, reader = (a, b) if number % 3 else (b, a)
            await writer.produce(info, b"%d" % number)
            for agent in (reader, writer):
                answer = await agent.fetch((log_id, number), bytes_min=bytes_min, wait_ms=10)
                assert found(answer) == [(number, b"%d" % number)]
                part = answer.partitions[0]
                assert (part.high_watermark, part.last_stable_offset) == (number + 1, number + 1)
            latest = [OffsetQuery(log_id, SpecialTimestamp.LATEST)]
            assert [each.offset for each in await reader.offsets.list_offsets(latest)] == [number + 1]

    run(scenario)


def test_an_offset_is_out_of_range_on_the_word_of_the_store_alone() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        cluster.bus.weather = LOST
        info = await a.create("t")
        log_id = one_log(info)
        await b.produce(info, b"a", b"b")
        await a.produce(info, b"c", b"d")
        assert found(await b.fetch((log_id, 3))) == [(2, b"c"), (3, b"d")]
        await a.offsets.delete_records({log_id: 2})
        await a.produce(info, b"e")
        assert found(await b.fetch((log_id, 4))) == [(4, b"e")]
        assert (await b.fetch((log_id, 6))).partitions[0].error is ErrorCode.OFFSET_OUT_OF_RANGE
        # Somebody says what is not so: it costs a look, and nothing else.
        b.fetches.hinted([LogHint(log_id, 1_000, 900, 1_000)])
        assert found(await b.fetch((log_id, 4))) == [(4, b"e")]
        assert (await b.fetch((log_id, 1))).partitions[0].error is ErrorCode.OFFSET_OUT_OF_RANGE

    run(scenario)


def test_partitions_that_always_have_something_do_not_keep_another_agents_records_back() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        cluster.bus.weather = LOST
        info = await a.create("t", 2)
        busy, quiet = info.topic.logs
        await b.fetch((busy, 0), (quiet, 0))
        await a.produce(info, b"quiet", partition=1)
        acknowledged_at = cluster.loop.time()
        offset = 0
        seen: list[tuple[int, bytes]] = []
        while not seen and cluster.loop.time() - acknowledged_at < 5.2:
            await b.produce(info, b"busy")
            answer = await b.fetch((busy, offset), (quiet, 0), wait_ms=500)
            offset += len(found(answer))
            seen = found(answer, 1)
            await asyncio.sleep(0.1)
        assert seen == [(0, b"quiet")]
        assert b.metadata.reads < offset / 2

    run(scenario)


def test_when_notices_may_have_been_lost_all_who_wait_look_and_so_does_the_catalogue() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info, other = await a.create("t"), await a.create("other")
        task, idle = await waits(b, (one_log(info), 0)), await waits(b, (one_log(other), 0))
        cluster.bus.cut(b.notices, 0.2)
        await a.produce(info, b"x")
        await a.create("new")
        await asyncio.sleep(0.1)
        assert not task.done()
        assert "new" not in b.catalogue.current.by_name
        await asyncio.sleep(0.15)
        assert found(await task) == [(0, b"x")]
        assert "new" in b.catalogue.current.by_name
        assert not idle.done()
        await b.fetches.close()
        await idle

    run(scenario)


def test_hints_about_logs_that_nobody_reads_here_leave_nothing_behind() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await a.create("t", 20)
        for partition in range(20):
            await a.produce(info, b"x", partition=partition)
        await asyncio.sleep(0.1)
        assert b.hints.hints["received", "log"] == 20
        assert (b.tail.extent_count, b.metadata.reads) == (0, 0)

    run(scenario)


def test_a_hint_that_says_nothing_new_wakes_nobody() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await a.create("t")
        log_id = one_log(info)
        await a.produce(info, b"a", b"b")
        await b.fetch((log_id, 0))
        task = await waits(b, (log_id, 2))
        asked = b.metadata.reads
        for hint in (LogHint(log_id, 2, 0, 2), LogHint(log_id, 1, 0, 1), LogHint(log_id)):
            b.fetches.hinted([hint])
        await asyncio.sleep(1)
        assert b.metadata.reads == asked
        assert b.tail.state(log_id) is not None
        b.fetches.hinted([LogHint(log_id, 3, 0, 3)])
        assert b.tail.end_offset(log_id) == 2, "the run ends where it did: only the store extends it"
        await a.produce(info, b"c")
        assert found(await task) == [(2, b"c")]

    run(scenario)


def test_a_store_that_fails_while_a_fetch_waits_does_not_end_the_wait() -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        b.notices.is_connected = False
        info = await a.create("t")
        task = await waits(b, (one_log(info), 0))
        b.metadata.is_down = True
        await asyncio.sleep(3)
        assert not task.done()
        assert b.fetches.counters.metadata_failures >= 5
        b.metadata.is_down = False
        await a.produce(info, b"x")
        assert found(await task) == [(0, b"x")]

    run(scenario)


@pytest.mark.parametrize("seed", range(25))
def test_readers_skip_nothing_and_see_no_watermark_go_back_whatever_becomes_of_hints(seed: int) -> None:
    async def scenario(cluster: Cluster, *members: Member) -> None:
        chance = random.Random(seed)
        info = await members[0].create("t", 2)
        written: list[dict[int, bytes]] = [{}, {}]

        async def write(member: Member, number: int) -> None:
            for step in range(15):
                await asyncio.sleep(chance.expovariate(1 / 0.1))
                partition = chance.randrange(2)
                values = [b"%d-%d-%d" % (number, step, each) for each in range(chance.randint(1, 3))]
                outcome = await member.produce(info, *values, partition=partition)
                assert outcome.error is ErrorCode.NONE
                written[partition].update(enumerate(values, outcome.base_offset))
                if chance.random() < 0.3:
                    cluster.bus.weather = NoticeWeather.rough(chance)
                if chance.random() < 0.1:
                    victim = chance.choice(members)
                    if victim.notices.is_connected:
                        cluster.bus.cut(victim.notices, chance.choice((0.05, 2.0)))

        async def read(member: Member) -> list[dict[int, bytes]]:
            member.metadata.delay_s = chance.choice((0.0, 0.01, 0.2))
            got: list[dict[int, bytes]] = [{}, {}]
            marks = [0, 0]
            while not writing.done() or got != written:
                places = [(log, len(got[index])) for index, log in enumerate(info.topic.logs)]
                answer = await member.fetch(*places, wait_ms=500, bytes_min=chance.choice((0, 1, 200)))
                for index, part in enumerate(answer.partitions):
                    records = [record for record in found(answer, index) if record[0] >= len(got[index])]
                    assert [offset for offset, _ in records] == list(
                        range(len(got[index]), len(got[index]) + len(records))
                    )
                    got[index].update(records)
                    assert part.high_watermark >= marks[index]
                    assert part.high_watermark >= len(got[index])
                    marks[index] = part.high_watermark
                await asyncio.sleep(0.001)
            return got

        writing = asyncio.gather(*(write(member, number) for number, member in enumerate(members[:2])))
        reading = [asyncio.create_task(read(member)) for member in members]
        await writing
        assert sum(map(len, written)) >= 2 * 15
        async with asyncio.timeout(20):
            assert await asyncio.gather(*reading) == [written] * len(members)

    run(scenario, 3, seed=seed)


# Partitions that only another agent knows of


async def grown(cluster: Cluster, a: Member, b: Member) -> TopicInfo:
    """A topic that has grown to three partitions at one agent, and of which the other one knows one."""
    cluster.bus.weather = LOST
    info = await a.create("t")
    await b.catalogue.lookup(names=["t"], topic_ids=[info.topic_id])
    await a.catalogue.create_partitions(PartitionsRequest("t", 3, None))
    assert b.catalogue.current.by_name["t"].partitions == 1
    return a.catalogue.current.by_name["t"]


@pytest.mark.parametrize("version", [12, 13])
def test_fetch_finds_a_partition_that_another_agent_has_added(version: int) -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await grown(cluster, a, b)
        await a.produce(info, b"x", partition=2)
        request = FetchRequest(
            max_wait_ms=0,
            min_bytes=1,
            max_bytes=2**20,
            topics=[
                FetchTopic(
                    topic="t",
                    topic_id=info.topic_id,
                    partitions=[
                        FetchPartition(partition=index, fetch_offset=0, partition_max_bytes=2**20)
                        for index in (2, 7)
                    ],
                )
            ],
        )
        held = await handle_fetch(b.context(version), request)
        found_part, unknown = held.response.responses[0].partitions
        assert (found_part.error_code, found_part.high_watermark) == (ErrorCode.NONE, 1)
        assert unknown.error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        held.release()

    run(scenario)


@pytest.mark.parametrize("version", [9, 13])
def test_produce_finds_a_partition_that_another_agent_has_added(version: int) -> None:
    async def scenario(cluster: Cluster, a: Member, b: Member) -> None:
        info = await grown(cluster, a, b)
        records = build_batch([(None, b"x", (), 1_700_000_000_000)])
        request = ProduceRequest(
            acks=-1,
            timeout_ms=1_000,
            topic_data=[
                ProduceTopic(
                    name="t",
                    topic_id=info.topic_id,
                    partition_data=[ProducePartition(index=index, records=records) for index in (2, 7)],
                )
            ],
        )
        later = await handle_produce(b.context(version), request)
        response = later.build(await later.outcome)
        appended, unknown = response.responses[0].partition_responses
        assert (appended.error_code, appended.base_offset) == (ErrorCode.NONE, 0)
        assert unknown.error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert found(await a.fetch((info.topic.logs[2], 0))) == [(0, b"x")]

    run(scenario)


def test_questions_about_offsets_find_partitions_that_another_agent_has_added() -> None:
    async def offsets(agent: Member) -> list[tuple[int, int]]:
        asked = [
            ListOffsetsPartition(partition_index=index, timestamp=SpecialTimestamp.LATEST) for index in (2, 7)
        ]
        request = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name="t", partitions=asked)])
        response = await handle_list_offsets(agent.context(7), request)
        return [(part.error_code, part.offset) for part in response.topics[0].partitions]

    async def epochs(agent: Member) -> list[tuple[int, int]]:
        asked = [OffsetForLeaderPartition(partition=index, leader_epoch=0) for index in (2, 7)]
        request = OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic="t", partitions=asked)])
        response = await handle_epochs(agent.context(3), request)
        return [(part.error_code, part.end_offset) for part in response.topics[0].partitions]

    async def deletions(agent: Member) -> list[tuple[int, int]]:
        asked = [DeleteRecordsPartition(partition_index=index, offset=1) for index in (2, 7)]
        request = DeleteRecordsRequest(
            timeout_ms=1_000, topics=[DeleteRecordsTopic(name="t", partitions=asked)]
        )
        response = await handle_delete_records(agent.context(2), request)
        return [(part.error_code, part.low_watermark) for part in response.topics[0].partitions]

    for ask in (offsets, epochs, deletions):

        async def scenario(cluster: Cluster, a: Member, b: Member, ask: Any = ask) -> None:
            info = await grown(cluster, a, b)
            await a.produce(info, b"x", partition=2)
            expected = [(ErrorCode.NONE, 1), (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1)]
            assert await ask(b) == expected

        run(scenario)
