"""Background jobs in a whole agent: they run wherever it keeps its metadata, hold producers back, and stop in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.broker.client import produce_request
from tests.broker.support import Broker, RunWithBroker, batch
from warp import agent_lifecycle
from warp.ids import SEGMENT_PREFIX
from warp.metadata.group_model import Lease
from warp.protocol.messages.api_versions import ApiVersionsRequest

BATCH = batch(b"x" * 10_000)
SOON = {
    "retention_check_interval_ms": "50ms",
    "delete_grace_ms": "1s",
    "orphan_interval_ms": "1s",
    "merge_interval_ms": "1h",
    "compaction_interval_ms": "1h",
}


async def until(met: Callable[[], bool]) -> None:
    while not met():  # noqa: ASYNC110 - what it waits for has no event
        await asyncio.sleep(0.01)


async def segment_count(broker: Broker) -> int:
    """How many objects hold records."""
    return len([found async for found in broker.agent._object_store.list(SEGMENT_PREFIX)])


def job(broker: Broker, name: str) -> dict[str, Any]:
    """What the agent shows of a job."""
    [found] = [found for found in broker.agent.lifecycle.describe()["jobs"] if found["name"] == name]
    return dict(found)


def test_what_has_had_its_time_is_deleted_and_its_objects_go_after_the_grace_period(
    with_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic(retention_bytes="25000", retention_ms="-1")
        client = await broker.connect()
        for _ in range(10):
            answer = await client.ask(produce_request({topic: {0: BATCH}}), 9)
            assert answer.responses[0].partition_responses[0].error_code == 0
        await until(lambda: job(broker, "segments")["done"]["segments_deleted"] >= 7)
        assert await segment_count(broker) == 3
        assert job(broker, "retention")["done"]["extents_trimmed"] == 7
        assert job(broker, "segments")["deleted_objects"] >= 7
        rest = await client.fetch(topic, offset=9)
        assert rest.error_code == 0
        assert rest.log_start_offset == 7
        shown = broker.agent.metrics.render().decode()
        assert 'warp_job_done_total{job="retention",what="extents_trimmed"} ' in shown
        assert 'warp_jobs_held{job="segments"} 1.0' in shown

    with_broker(test, **SOON)


def test_a_producer_is_held_back_while_too_much_waits_and_its_records_are_there(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        topic = await broker.topic()
        client = await broker.connect()
        before = await client.ask(produce_request({topic: {0: BATCH}}), 9)
        hold_back = broker.agent.lifecycle.hold_back
        await broker.agent.lifecycle.close()  # What it sees by itself would end it again.
        hold_back.seen(6.0)
        held = await client.ask(produce_request({topic: {0: BATCH}}), 9)
        for answer in (before, held):
            assert answer.responses[0].partition_responses[0].error_code == 0
        assert before.throttle_time_ms == 0
        assert held.throttle_time_ms == pytest.approx(5 * (20 + 1000 * len(BATCH) / 2**20), abs=2)
        waiting = client.send(ApiVersionsRequest(), 0)
        other = await broker.connect()
        for _ in range(5):
            assert (await other.ask(ApiVersionsRequest(), 0)).error_code == 0
        assert not client.reader._buffer  # type: ignore[attr-defined]
        assert (await other.fetch(topic, offset=1)).records
        hold_back.seen(0.0)
        assert (await client.answer(ApiVersionsRequest.api, 0, waiting)).error_code == 0
        free = await client.ask(produce_request({topic: {0: BATCH}}), 9)
        assert free.throttle_time_ms == 0

    with_memory_broker(test)


def test_an_agent_that_does_not_merge_holds_producers_back_until_it_does(
    with_memory_broker: RunWithBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_lifecycle, "BACKLOG_INTERVAL_S", 0.05)
    monkeypatch.setattr(agent_lifecycle, "WATCH_S", 0.02)

    async def test(broker: Broker) -> None:
        topic = await broker.topic(retention_bytes="0")
        client = await broker.connect()
        lifecycle = broker.agent.lifecycle
        while not lifecycle.hold_back.is_on:
            answer = await client.ask(produce_request({topic: {0: batch(b"small")}}), 9)
            assert answer.responses[0].partition_responses[0].error_code == 0
            await asyncio.sleep(0)
        assert lifecycle.describe()["holds_producers_back"]
        assert lifecycle.describe()["merge_debt"] > 1
        answer = await client.ask(produce_request({topic: {0: BATCH}}), 9)
        assert answer.throttle_time_ms > 0
        assert b"warp_held_back_total 0.0" not in broker.agent.metrics.render()
        # What retention deletes need not be merged any more.
        await until(lambda: not lifecycle.hold_back.is_on)

    with_memory_broker(
        test, **{**SOON, "merge_backlog_bytes_max": "256MiB", "retention_check_interval_ms": "2s"}
    )


def test_an_agent_without_the_role_runs_no_job(with_memory_broker: RunWithBroker) -> None:
    async def test(broker: Broker) -> None:
        shown = broker.agent.lifecycle.describe()
        assert not shown["has_role"]
        await asyncio.sleep(0.2)
        assert {found["passes"] for found in broker.agent.lifecycle.describe()["jobs"]} == {0}

    with_memory_broker(test, roles="produce,fetch", **SOON)


def test_an_agent_that_stops_in_the_midst_of_a_pass_cancels_it_and_gives_the_lease_up(
    with_memory_broker: RunWithBroker,
) -> None:
    async def test(broker: Broker) -> None:
        agent = broker.agent
        ended = asyncio.Event()
        begun = asyncio.Event()

        async def hang(_: Lease) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        jobs = agent.cluster.jobs
        assert jobs is not None
        [seat] = [seat for seat in jobs._seats if seat.job.name == "retention"]
        object.__setattr__(seat.job, "run", hang)
        await begun.wait()
        assert job(broker, "retention")["running_s"] >= 0
        await agent.cluster.leave(5.0)
        assert ended.is_set()
        assert jobs.held == []
        states = await agent._metadata.read_leases(["job/retention"])
        assert states["job/retention"].holder is None

    with_memory_broker(test, **SOON)
