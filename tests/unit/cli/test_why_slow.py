"""`warp why-slow`: what it says of the requests of a real trace, and of agents that do not answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.sim.loop import SimLoop
from tests.support.log import Bench, append, run_sim
from tests.support.process import free_port
from warp.agent_log import flush_settings_json
from warp.cli.diagnosis import diagnose_fetch, diagnose_produce, seconds
from warp.cli.main import main
from warp.cli.why_slow import report
from warp.errors import ErrorCode, MetadataUnavailable
from warp.log.flush import FlushLimits
from warp.log.hedge import HedgeLimits
from warp.log.trace import FetchNote, hedges_json

LIMITS = FlushLimits(hedge=HedgeLimits(delay_unknown_s=0.2))


def trace_of(bench: Bench) -> dict[str, Any]:
    """What /v1/trace/last answers, over the wire."""
    answer = {
        **bench.flusher.trace.as_json(),
        "settings": flush_settings_json(LIMITS, is_free=bench.store.requests_are_free),
        "put": hedges_json(bench.flusher.put_hedges),
        "get": None,
    }
    over_the_wire: dict[str, Any] = json.loads(json.dumps(answer))
    return over_the_wire


def a_trace() -> dict[str, Any]:
    """A request whose PUT was hedged, and one whose commit failed at first; and a fetch."""

    async def main(loop: SimLoop) -> dict[str, Any]:
        bench = Bench(loop, limits=LIMITS, requests_are_free=False)
        for _ in range(20):
            await (await bench.add(append(1))).result
            await asyncio.sleep(1.0)
        bench.store.delays_s = {21: 1.9}
        await (await bench.add(append(1))).result
        bench.metadata.faults = {22: MetadataUnavailable("busy"), 23: MetadataUnavailable("busy")}
        await asyncio.sleep(1.0)
        await (await bench.add(append(1))).result
        note = FetchNote(load_s=0.3, gets=3, hedged_gets=1, hedges_won=1, index_s=0.001)
        bench.flusher.trace.fetched(note, 0.302, ErrorCode.NONE, 12_345, 2)
        return trace_of(bench)

    return run_sim(main)


def test_the_slowest_requests_stand_in_a_table_with_a_sentence_each() -> None:
    text = report(a_trace(), "slowest", 2)
    lines = text.splitlines()
    assert lines[0] == "Produce requests of the last 5 minutes, slowest first:"
    assert lines[1].split() == [
        "arrived", "outcome", "bytes", "reqs", "total", "check", "backlog", "buffer", "seal", "upload", "order",
        "commit", "answer",
    ]  # fmt: skip
    assert "the commit took 90 ms in 3 attempts: see the log" in lines[3]
    assert "hedged after 25 ms by a second one, which won" in text
    assert "Fetch requests that had to load, of the last 5 minutes, slowest first:" in lines
    assert (
        "waited 300 ms for 3 GETs of what was not in the cache, 1 of them hedged (1 won by the second)"
        in text
    )
    assert "PUTs: 95 % within 10 ms up to 64KiB; 1 hedged since start, 1 won by the second one" in text
    assert "GETs" not in text.splitlines()[-1]
    assert len({len(line) for line in (lines[1], lines[2], lines[4])}) == 1


def test_without_any_requests_it_says_so() -> None:
    async def main(loop: SimLoop) -> dict[str, Any]:
        return trace_of(Bench(loop))

    text = report(run_sim(main), "last", 5)
    assert text.splitlines()[0] == "Produce requests that ended last, latest first: none"


PRODUCE = {
    **dict.fromkeys(("check_ms", "backlog_ms", "buffer_ms", "seal_ms"), 0.0),
    **dict.fromkeys(("upload_ms", "order_ms", "commit_ms", "answer_ms"), None),
    "outcome": "NONE",
    "held_by": None,
    "put_attempts": 1,
    "commit_attempts": 1,
    "segment_bytes": 10,
    "hedged_after_ms": None,
    "is_hedge_won": False,
    "is_hedge_denied": False,
}
TRACE = {
    "settings": flush_settings_json(FlushLimits(), is_free=False),
    "put": {"latencies": [{"size_bytes_max": 65_536, "samples": 20, "p95_ms": 60.0}]},
}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"check_ms": 90.0}, "checking its batches took 90 ms"),
        ({"backlog_ms": 2_500.0}, "waited 2.5 s for room in the buffer"),
        ({"buffer_ms": 240.0, "held_by": "request_budget"}, "waited 240 ms for the request budget"),
        ({"buffer_ms": 240.0, "held_by": "request_budget"}, "a lower --flush-interval grants more"),
        ({"buffer_ms": 200.0, "held_by": "flush_in_flight"}, "waited 200 ms for the flush before it"),
        (
            {"buffer_ms": 200.0, "held_by": "uploads"},
            "while 8 uploads were under way: raise --flush-uploads-max",
        ),
        ({"buffer_ms": 200.0, "held_by": "sealed_segments"}, "while 16 segments or 64MiB waited"),
        ({"buffer_ms": 200.0}, "the agent was busy"),
        ({"seal_ms": 100.0}, "making its segment took 100 ms"),
        ({"upload_ms": 1_900.0}, "the PUT took 1.9 s; 95 % of such PUTs take less than 60 ms"),
        ({"upload_ms": 1_900.0, "segment_bytes": 10**6}, "the PUT took 1.9 s"),
        (
            {"upload_ms": 1_900.0, "hedged_after_ms": 200.0},
            "the PUT took 1.9 s, hedged after 200 ms by a second one, but the first one won",
        ),
        ({"upload_ms": 1_900.0, "is_hedge_denied": True}, "no second one was allowed"),
        ({"upload_ms": 900.0, "put_attempts": 3}, "the PUTs took 900 ms in 3 attempts"),
        ({"upload_ms": 60.0, "order_ms": 99.0}, "waited 99 ms for the commit of an earlier segment"),
        ({"commit_ms": 52.0}, "the commit took 52 ms: the metadata store"),
        ({"answer_ms": 52.0}, "telling readers of it took 52 ms"),
        ({"upload_ms": 500.0, "outcome": "REQUEST_TIMED_OUT"}, "REQUEST_TIMED_OUT; the PUT took 500 ms"),
    ],
)
def test_a_sentence_names_what_took_longest(row: dict[str, Any], sentence: str) -> None:
    assert sentence in diagnose_produce({**PRODUCE, **row}, TRACE)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"index_ms": 80.0, "total_ms": 90.0}, "the metadata store took 80 ms"),
        ({"load_ms": 80.0, "gets": 2, "hedged_gets": 0, "total_ms": 90.0}, "waited 80 ms for 2 GETs"),
        ({"memory_ms": 80.0, "total_ms": 90.0}, "raise --fetch-memory"),
        ({"load_ms": 10.0, "gets": 1, "hedged_gets": 0, "total_ms": 90.0}, "80 ms went by beside its waits"),
        ({"load_ms": 9.0, "gets": 1, "hedged_gets": 0, "total_ms": 9.0, "outcome": "X"}, "X; waited 9.0 ms"),
    ],
)
def test_a_sentence_on_a_fetch(row: dict[str, Any], sentence: str) -> None:
    blank: dict[str, Any] = {"index_ms": 0.0, "load_ms": 0.0, "memory_ms": 0.0, "outcome": "NONE"}
    blank |= {"gets": 0, "hedged_gets": 0}
    assert sentence in diagnose_fetch({**blank, **row})


def test_times_are_written_for_people() -> None:
    assert [seconds(value) for value in (0.44, 9.96, 240.4, 999, 1_949)] == [
        "0.4 ms", "10.0 ms", "240 ms", "999 ms", "1.9 s",
    ]  # fmt: skip


@contextmanager
def serving(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything alike; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    trace = a_trace()
    with serving(200, json.dumps(trace).encode()) as address:
        assert main(["why-slow", "--http", address]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("Produce requests of the last 5 minutes")
        assert shown.count(" NONE ") == 6
        assert main(["why-slow", "--http", address, "--last", "--count", "1"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("Produce requests that ended last")
        assert shown.count(" NONE ") == 2
        assert main(["why-slow", "--http", address, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == trace


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (404, b"{}", "knows no /v1/trace/last: it is no Warp agent, or one of an older release"),
        (200, b"<html>", "did not answer with JSON"),
        (200, b"[1]", "did not answer with JSON"),
        (503, b"no room", "answered 503: no room"),
    ],
)
def test_whoever_is_no_agent_is_told_apart(
    status: int, body: bytes, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(status, body) as address:
        assert main(["why-slow", "--http", address]) == 1
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1


def test_no_agent_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why-slow", "--http", f"127.0.0.1:{free_port()}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("warp why-slow: no agent answers on http://127.0.0.1:")
    assert "--http HOST:PORT" in error
    assert error.count("\n") == 1


def test_a_mistake_in_the_address_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why-slow", "--http", "nowhere"]) == 2
    assert "is not HOST:PORT" in capsys.readouterr().err
