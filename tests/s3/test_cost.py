"""`warp cost` beside the logs of the S3 server and of the proxy in front of it: the same requests, the same bytes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.process.conftest import run_warp
from tests.s3.conftest import AnyServer
from tests.support.fault_plan import INTERNAL_ERROR, SLOW_DOWN, CutAnswer
from tests.support.fault_proxy import FaultProxy
from tests.support.http_log import LoggedRequest
from tests.support.process import AgentProcess
from tests.support.s3 import S3Server, environment_of, s3_url

SETTLE_S = 30.0
CUT_BYTES = 1000
KINDS = ("put", "get", "head", "list", "delete")


def kind_of(request: LoggedRequest) -> str:
    """What S3 bills a request as."""
    if request.method == "GET" and "list-type=" in request.query:
        return "list"
    return {"POST": "delete"}.get(request.method, request.method.lower())


def status_of(request: LoggedRequest) -> str:
    """What the store counts an answer as."""
    if request.status < 300:
        return "ok"
    return {404: "not_found", 409: "conflict", 412: "conflict", 503: "slow_down"}.get(request.status, "error")


def counts_of(requests: Iterable[LoggedRequest]) -> dict[str, int]:
    counted = Counter(map(kind_of, requests))
    return {kind: counted[kind] for kind in KINDS}


def told_by(agent: AgentProcess, *words: str) -> dict[str, Any]:
    code, out, error = run_warp("cost", "--http", f"127.0.0.1:{agent.http_port}", "--json", *words)
    assert (code, error) == (0, "")
    told: dict[str, Any] = json.loads(out)
    return told


def cost_when_quiet(
    agent: AgentProcess, proxy: FaultProxy, since: int = 0
) -> tuple[dict[str, Any], list[LoggedRequest]]:
    """What the command tells, and the log, taken when no request was under way between the two.

    An agent that has nothing to do still sends a request now and then, so it is tried until they agree; they have to.
    """
    deadline = time.monotonic() + SETTLE_S
    while True:
        told, log = told_by(agent, "--put-price", "1", "--get-price", "10"), proxy.requests(since)
        counts = {kind: told["window"][f"{kind}_requests"] for kind in KINDS}
        if counts == counts_of(log) or time.monotonic() > deadline:
            assert counts == counts_of(log)
            return told, log
        time.sleep(0.1)


def bench(agent: AgentProcess, *words: str) -> None:
    code, _, error = run_warp("bench", *words, "--bootstrap", agent.bootstrap, "--timeout", "30")
    assert code == 0, error


@pytest.mark.timeout(240)
def test_the_command_counts_what_the_server_was_asked_failures_included(
    server: AnyServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    bucket = server.new_bucket()
    url = s3_url(bucket, "warp", endpoint=proxy.endpoint)
    options = ("--object-store", url, "--flush-interval", "50ms")
    agent = AgentProcess(tmp_path / "data", *options, environment=environment_of(server.credentials))
    with agent:
        proxy.fail(SLOW_DOWN, "PUT", times=2, path_has="/segments/")
        proxy.fail(INTERNAL_ERROR, "PUT", times=1, path_has="/segments/")
        bench(
            agent, "produce", "--topic", "t", "--rate", "200/s", "--record-size", "10KiB", "--duration", "2s"
        )
        told, log = cost_when_quiet(agent, proxy)
        assert agent.stop() == 0
    attempts = Counter({(each["kind"], each["status"]): each["count"] for each in told["requests"]})
    answers = Counter((kind_of(request), status_of(request)) for request in log)
    # A request that was given up, as the slower of a hedged pair is, may have been answered all the same.
    cuts = attempts.pop(("put", "cut"), 0)
    assert attempts <= answers
    assert (answers - attempts).total() == cuts
    refused = attempts["put", "slow_down"]
    assert 2 - cuts <= refused <= 2
    puts = [request for request in log if request.method == "PUT"]
    largest_bytes = max(request.bytes_in for request in log)
    sent_bytes = sum(request.bytes_in for request in log)
    assert abs(told["window"]["sent_bytes"] - sent_bytes) <= cuts * largest_bytes
    assert told["window"]["put_cost"] == pytest.approx((len(puts) - refused) * 1 / 1000)
    produced = told["window"]["produced_bytes"]
    assert produced > 400 * 10 * 1024
    assert told["per_gb_produced"]["put_requests"] == pytest.approx(len(puts) / produced * 1e9)
    assert told["per_month"]["put_requests"] == pytest.approx(len(puts) / told["window_s"] * 730 * 3600)
    before = len(proxy.requests())
    with agent:
        # With an empty cache now; one answer ends in its middle.
        proxy.fail(CutAnswer(CUT_BYTES), "GET", times=1, path_has="/segments/")
        bench(agent, "consume", "--topic", "t")
        told, log = cost_when_quiet(agent, proxy, before)
    gets = [request for request in log if kind_of(request) == "get"]
    assert told["window"]["get_requests"] == len(gets) > 1
    cuts = sum(each["count"] for each in told["requests"] if each["status"] == "cut")
    if cuts == 1:
        # The one that was cut on purpose; others were hedged and given up.
        whole_bytes = sum(request.bytes_out for request in gets if not request.fault)
        assert 0 <= told["window"]["received_bytes"] - whole_bytes <= CUT_BYTES
    assert told["window"]["get_cost"] == pytest.approx(len(gets) * 10 / 1000)
    assert told["window"]["fetched_bytes"] >= produced
    if isinstance(server, S3Server):
        # The server saw the same, but for what the proxy has answered itself.
        seen = [
            request
            for request in server.requests(bucket=bucket)
            if request.path.rstrip("/") != f"/{bucket}" or request.method != "PUT"
        ]
        answered = Counter(kind_of(request) for request in proxy.requests() if 0 < request.status < 500)
        given_up = Counter(kind_of(request) for request in proxy.requests() if not request.status)
        assert answered <= Counter(map(kind_of, seen)) <= answered + given_up
