"""What the trace says of requests on their ways through the log, on virtual time."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.sim.loop import SimClock, SimLoop
from tests.support.log import Bench, append, run_sim, unavailable
from tests.unit.log.read_support import LOG, PlainLogs, PlainStore
from warp.errors import ErrorCode, MetadataUnavailable, ObjectStoreError
from warp.log.answer import FetchPartitionQuery
from warp.log.cache import ChunkCache
from warp.log.fetch import FetchService
from warp.log.flush import FlushLimits
from warp.log.hedge import HedgeLimits
from warp.log.memory import MemoryBudget
from warp.log.pacing import PacingLimits
from warp.log.tail import TailIndex
from warp.log.trace import FetchNote, FetchTrace, ProduceTrace, RequestTrace, TraceLimits, hedges_json

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def rows(bench: Bench, which: str = "last", kind: str = "produce") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bench.flusher.trace.as_json()[kind][which]
    return found


def test_a_produce_request_is_told_of_phase_by_phase() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, requests_are_free=False)
        bench.store.put_delay_s, bench.metadata.delay_s = 0.06, 0.002
        await asyncio.sleep(3.0)
        unit = await bench.add(append(1), append(2))
        await unit.result
        (row,) = rows(bench)
        assert row["segment_key"] == bench.store.keys[0]
        expected = {
            "arrived_ms": 1_700_000_003_000,
            "total_ms": pytest.approx(62.0),
            "outcome": "NONE",
            "request_bytes": unit.size_bytes,
            "partitions": 2,
            "requests": 1,
            "check_ms": 0.0,
            "backlog_ms": 0.0,
            "buffer_ms": 0.0,
            "held_by": None,
            "seal_ms": 0.0,
            "upload_ms": pytest.approx(60.0),
            "order_ms": 0.0,
            "commit_ms": pytest.approx(2.0),
            "answer_ms": 0.0,
            "segment_bytes": len(bench.store.images()[0]),
            "put_attempts": 1,
            "hedged_after_ms": None,
            "is_hedge_won": False,
            "is_hedge_denied": False,
            "commit_attempts": 1,
        }
        assert {name: row[name] for name in expected} == expected
        assert rows(bench, "slowest") == [row]

    run_sim(main)


def test_a_segment_is_told_of_once_by_its_slowest_request() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop, requests_are_free=False)
        await bench.add(append(1))
        await asyncio.sleep(0.001)
        first = await bench.add(append(1))
        await asyncio.sleep(0.004)
        others = [await bench.add(append(2, value=bytes(500))) for _ in range(4)]
        await asyncio.gather(*(unit.result for unit in (first, *others)))
        row, _ = rows(bench)
        assert row["requests"] == 5
        assert row["request_bytes"] == first.size_bytes
        assert row["held_by"] == "flush_in_flight"
        assert row["buffer_ms"] == pytest.approx(19.0)

    run_sim(main)


def test_the_reasons_for_waiting_are_told_apart() -> None:
    async def main(loop: SimLoop) -> None:
        pacing = PacingLimits(flush_bytes=5_000, bytes_per_request=5_000, burst_requests=1.0)
        limits = FlushLimits(pacing=pacing, uploads_max=2, sealed_segments_max=3)
        bench = Bench(loop, limits=limits, requests_are_free=False)
        await (await bench.add(append(1))).result
        await (await bench.add(append(1))).result
        assert rows(bench)[0]["held_by"] == "request_budget"
        large = append(1, value=bytes(4_900))
        bench.store.put_delay_s = 1.0
        bench.metadata.delay_s = 10.0
        units = [await bench.add(large) for _ in range(2)]
        units.append(await bench.add(large))
        waiting = [asyncio.ensure_future(bench.add(large)) for _ in range(2)]
        units += [await adding for adding in waiting]
        await asyncio.gather(*(unit.result for unit in units))
        last = rows(bench)[:5]
        assert [row["held_by"] for row in last] == [
            "sealed_segments",
            "sealed_segments",
            "uploads",
            None,
            None,
        ]
        assert last[0]["backlog_ms"] > 1_000
        assert last[1]["order_ms"] > 5_000

    run_sim(main)


def test_attempts_and_hedges_are_told_of() -> None:
    async def main(loop: SimLoop) -> None:
        limits = FlushLimits(hedge=HedgeLimits(delay_unknown_s=0.2))
        bench = Bench(loop, limits=limits, requests_are_free=False)
        bench.store.faults = {1: unavailable()}
        bench.store.delays_s = {2: 2.0}
        bench.metadata.faults = {1: MetadataUnavailable("busy")}
        await (await bench.add(append(1))).result
        (row,) = rows(bench)
        assert (row["put_attempts"], row["commit_attempts"]) == (2, 2)
        assert (row["hedged_after_ms"], row["is_hedge_won"]) == (pytest.approx(200.0), True)
        assert row["segment_key"] == bench.store.keys[2]
        told = hedges_json(bench.flusher.put_hedges)
        assert told == {"hedges": 1, "hedges_won": 1, "hedges_denied": 0, "latencies": []}

    run_sim(main)


def test_failures_are_told_of_with_the_phase_that_they_ended_in() -> None:
    async def main(loop: SimLoop) -> None:
        bench = Bench(loop)
        bench.store.fail_all = ObjectStoreError("down")
        await (await bench.add(append(1))).result
        (row,) = rows(bench)
        assert (row["outcome"], row["put_attempts"], row["order_ms"]) == ("KAFKA_STORAGE_ERROR", 3, None)
        bench.store.fail_all = None
        bench.store.put_delay_s = 2.0
        uploading = await bench.add(append(1), timeout_s=0.5)
        await asyncio.sleep(0.1)
        waiting = await bench.add(append(1), timeout_s=0.2)
        await asyncio.gather(uploading.result, waiting.result)
        late, early = rows(bench)[:2]
        assert (early["outcome"], early["segment_key"], early["total_ms"]) == (
            "REQUEST_TIMED_OUT",
            None,
            200.0,
        )
        assert (early["held_by"], early["upload_ms"]) == ("flush_in_flight", None)
        assert (late["outcome"], late["total_ms"]) == ("REQUEST_TIMED_OUT", pytest.approx(500.0))
        assert (late["upload_ms"], late["order_ms"]) == (pytest.approx(495.0), None)
        await asyncio.sleep(10)
        assert rows(bench)[:2] == [late, early]

    run_sim(main)


def test_memory_is_bounded_and_the_slowest_leave_when_they_are_old() -> None:
    async def main(loop: SimLoop) -> None:
        limits = TraceLimits(last_max=3, slowest_max=4, window_s=300.0, slices=5)
        trace = RequestTrace(SimClock(loop), limits)

        def told(kind: str) -> list[float]:
            return [row["total_ms"] for row in trace.as_json()["fetch"][kind]]

        async def fetches(*totals_s: float) -> None:
            for total_s in totals_s:
                trace.fetched(FetchNote(gets=1), total_s, ErrorCode.NONE, 1, 1)

        await fetches(9, 1, 2, 3, 4, 5, 6)
        assert told("last") == [6_000, 5_000, 4_000]
        assert told("slowest") == [9_000, 6_000, 5_000, 4_000]
        await asyncio.sleep(200)
        await fetches(7, 1, 8)
        assert told("slowest") == [9_000, 8_000, 7_000, 6_000]
        await asyncio.sleep(110)
        assert told("slowest") == [8_000, 7_000, 1_000]
        await asyncio.sleep(1_000)
        assert told("slowest") == []
        for number in range(10_000):
            await fetches(number % 97)
            await asyncio.sleep(0.1)
        assert len(told("slowest")) == 4
        assert sum(len(part) for _, part in trace.fetch._slowest._slices) <= 4 * 5

    run_sim(main)


def test_a_fetch_is_told_of_when_it_had_to_load_or_to_wait_for_the_index() -> None:
    async def main(loop: SimLoop) -> None:
        store = PlainStore()
        logs = PlainLogs(store)
        logs.append({LOG: [[(bytes(1_000), 1)]]})
        trace = RequestTrace(SimClock(loop))
        cache = ChunkCache(store, bytes_max=64 * 2**20)  # type: ignore[arg-type]
        service = FetchService(logs, cache, TailIndex(), MemoryBudget(2**20), trace=trace)

        async def fetch(offset: int, wait_ms: int = 0) -> dict[str, Any]:
            query = FetchPartitionQuery(LOG, offset, 2**20)
            (await service.fetch([query], bytes_max=2**20, bytes_min=1, wait_ms=wait_ms)).release()
            told: list[dict[str, Any]] = trace.as_json()["fetch"]["last"]
            return told[0] if told else {}

        store.gate.clear()
        loop.call_later(0.3, store.gate.set)
        row = await fetch(0)
        assert (row["gets"], row["partitions"], row["outcome"]) == (1, 1, "NONE")
        assert (row["load_ms"], row["total_ms"]) == (pytest.approx(300.0), pytest.approx(300.0))
        assert row["answer_bytes"] > 1_000
        assert await fetch(0) == row, "what comes from memory is not told of"
        assert await fetch(1, wait_ms=1_000) == row, "nor is a wait for new records"
        logs.gate.clear()
        loop.call_later(0.4, logs.gate.set)
        slow = await fetch(1, wait_ms=1_000)
        assert (slow["index_ms"], slow["gets"]) == (pytest.approx(400.0), 0)
        assert slow["wait_ms"] == pytest.approx(600.0)
        assert slow["total_ms"] == pytest.approx(400.0)

    run_sim(main)


@pytest.mark.parametrize("kind", [ProduceTrace, FetchTrace])
def test_every_field_is_documented(kind: type[Any]) -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    for field in dataclasses.fields(kind):
        assert f"`{field.name}`" in text
