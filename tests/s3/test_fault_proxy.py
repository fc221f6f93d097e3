"""The fault proxy of the tests does what its plan says, and nothing when the plan is empty."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.fault_plan import (
    SLOW_DOWN,
    CutAnswer,
    CutRequest,
    Delay,
    FaultPlan,
    Hang,
    Latency,
    Moment,
    Refuse,
    RequestHead,
    Rule,
)
from tests.support.fault_proxy import FaultProxy

BIG = bytes(range(256)) * 4096


class _Echo(BaseHTTPRequestHandler):
    """PUT stores, GET gives back; GET /chunked in chunks."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    stored: dict[str, bytes]

    def do_PUT(self) -> None:
        wanted = int(self.headers["Content-Length"])
        body = self.rfile.read(wanted)
        if len(body) == wanted:
            self.stored[self.path] = body
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        body = self.stored.get(self.path, BIG)
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 100_000):
                part = body[start : start + 100_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Torn connections are what these tests are about."""


@pytest.fixture
def stored() -> dict[str, bytes]:
    return {}


@pytest.fixture
def proxy(stored: dict[str, bytes]) -> Iterator[FaultProxy]:
    handler = type("Handler", (_Echo,), {"stored": stored})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with FaultProxy(f"http://127.0.0.1:{server.server_port}") as made:
            yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    with contextlib.closing(connection):
        yield connection


def ask(
    client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    client.request(method, path, body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_without_faults_everything_passes_on_one_connection(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    assert ask(client, "PUT", "/a?x=1&y=2", BIG) == (200, b"")
    assert ask(client, "PUT", "/empty", b"") == (200, b"")
    assert ask(client, "GET", "/a?x=1&y=2") == (200, BIG)
    assert ask(client, "GET", "/chunked") == (200, BIG)
    assert ask(client, "HEAD", "/a") == (200, b"")
    assert ask(client, "GET", "/empty") == (200, b"")
    found = [(r.method, r.path, r.query, r.status, r.bytes_in, r.bytes_out) for r in proxy.requests()]
    assert found == [
        ("PUT", "/a", "x=1&y=2", 200, len(BIG), 0),
        ("PUT", "/empty", "", 200, 0, 0),
        ("GET", "/a", "x=1&y=2", 200, 0, len(BIG)),
        ("GET", "/chunked", "", 200, 0, len(BIG)),
        ("HEAD", "/a", "", 200, 0, 0),
        ("GET", "/empty", "", 200, 0, 0),
    ]
    assert proxy.connection_count() == 1


def test_the_next_requests_are_refused_and_the_connection_lives(
    proxy: FaultProxy, client: http.client.HTTPConnection, stored: dict[str, bytes]
) -> None:
    rule = proxy.fail(SLOW_DOWN, "PUT", times=2)
    assert ask(client, "GET", "/a")[0] == 200
    for _ in range(2):
        status, body = ask(client, "PUT", "/a", BIG)
        assert status == 503
        assert b"<Code>SlowDown</Code>" in body
    assert not stored
    assert ask(client, "PUT", "/a", b"x") == (200, b"")
    assert rule.happened == 2
    assert [r.fault for r in proxy.requests()] == ["", "Refuse", "Refuse", ""]
    assert ask(client, "HEAD", "/a") == (200, b"")


def test_a_refused_head_request_has_no_body(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.fail(Refuse(404, "NoSuchKey"), times=1)
    assert ask(client, "HEAD", "/a") == (404, b"")
    assert ask(client, "HEAD", "/a") == (200, b"")


def test_a_share_of_requests_is_the_same_in_every_run(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.fail(SLOW_DOWN, share=0.3)
    statuses = [ask(client, "GET", "/empty-handed")[0] for _ in range(40)]
    again = FaultPlan()
    again.add(Rule(SLOW_DOWN, share=0.3))
    head = RequestHead("GET", "/empty-handed", "", {})
    assert statuses == [503 if again.decide(head).fault else 200 for _ in range(40)]
    assert 0 < statuses.count(503) < 40


@pytest.mark.parametrize("moment", list(Moment))
def test_a_request_that_hangs_has_reached_the_server_or_not(
    proxy: FaultProxy, client: http.client.HTTPConnection, stored: dict[str, bytes], moment: Moment
) -> None:
    proxy.fail(Hang(moment), times=1)
    client.timeout = 0.3
    with pytest.raises(TimeoutError):
        ask(client, "PUT", "/a", BIG)
    if moment is Moment.AFTER_SERVER:
        wait_until(lambda: "/a" in stored)
    if moment is Moment.AFTER_SERVER:
        assert stored["/a"] == BIG
    else:
        assert not stored
    client.close()
    client.timeout = 10
    assert ask(client, "PUT", "/b", b"x") == (200, b"")


def test_a_request_that_is_cut_leaves_no_object(
    proxy: FaultProxy, client: http.client.HTTPConnection, stored: dict[str, bytes]
) -> None:
    proxy.fail(CutRequest(1000), times=1)
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(client, "PUT", "/a", BIG)
    assert not stored
    client.close()
    assert ask(client, "PUT", "/a", BIG) == (200, b"")
    assert [r.bytes_in for r in proxy.requests()] == [1000, len(BIG)]


def test_an_answer_that_is_cut_is_short_by_as_much(
    proxy: FaultProxy, client: http.client.HTTPConnection, stored: dict[str, bytes]
) -> None:
    proxy.fail(CutAnswer(), "PUT", times=1)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(client, "PUT", "/a", BIG)
    assert stored["/a"] == BIG
    for path in ("/a", "/chunked"):
        proxy.fail(CutAnswer(123_456), "GET", times=1)
        client.close()
        with pytest.raises(http.client.IncompleteRead) as caught:
            ask(client, "GET", path)
        assert BIG.startswith(caught.value.partial)
        assert path == "/chunked" or len(caught.value.partial) == 123_456
    assert [r.bytes_out for r in proxy.requests()] == [0, 123_456, 123_456]


def test_a_latency_is_at_least_what_was_asked_for(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    proxy.delay("GET", fixed_s=0.05)
    proxy.fail(Delay(0.1), "GET", times=1)
    tick_s = 0.002  # timers count in milliseconds, and two of them ran
    for expected_s in (0.15, 0.05):
        assert ask(client, "GET", "/a")[0] == 200
        assert proxy.requests()[-1].took_s >= expected_s - tick_s


def test_latencies_are_drawn_by_share_and_jitter() -> None:
    plan = FaultPlan(latencies={"PUT": Latency(0.02, 0.01, slow_share=0.25, slow_s=1.0)})
    drawn = [plan.decide(RequestHead("PUT", "/", "", {})).latency_s for _ in range(1000)]
    assert all(0.02 <= seconds <= 1.03 for seconds in drawn)
    assert 200 < sum(seconds > 1 for seconds in drawn) < 300
    assert len({round(seconds, 6) for seconds in drawn}) > 900
    assert plan.decide(RequestHead("GET", "/", "", {})).latency_s == 0


def test_who_vanishes_refuses_connections_and_comes_back_on_its_port(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    for _ in range(3):
        assert ask(client, "GET", "/a")[0] == 200
        proxy.vanish()
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            ask(client, "GET", "/a")
        client.close()
        with pytest.raises(ConnectionRefusedError):
            client.connect()
        client.close()
        proxy.come_back()
    assert ask(client, "GET", "/a")[0] == 200


def test_idle_connections_are_dropped_and_busy_ones_are_not(
    proxy: FaultProxy, client: http.client.HTTPConnection
) -> None:
    assert ask(client, "GET", "/a")[0] == 200
    proxy.fail(Delay(0.2), times=1)
    busy = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    with contextlib.closing(busy):
        busy.request("GET", "/busy")
        proxy.wait_for(lambda requests: any(request.path == "/busy" for request in requests))
        wait_until(lambda: proxy.drop_idle() == 1)
        assert busy.getresponse().read() == BIG
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(client, "GET", "/a")


def test_only_requests_that_match_are_touched(proxy: FaultProxy, client: http.client.HTTPConnection) -> None:
    proxy.fail(SLOW_DOWN, matches=lambda head: "old-key" in head.headers.get("authorization", ""))
    with proxy.failing(SLOW_DOWN, path_has="/epoch/"):
        assert ask(client, "GET", "/b/epoch/1")[0] == 503
        assert ask(client, "GET", "/b/segments/1")[0] == 200
    assert ask(client, "GET", "/b/epoch/1")[0] == 200
    client.request("GET", "/a", headers={"Authorization": "Credential=old-key/x"})
    assert client.getresponse().status == 503


def test_a_client_that_leaves_in_the_middle_of_its_body_stores_nothing(
    proxy: FaultProxy, stored: dict[str, bytes]
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as raw:
        raw.sendall(b"PUT /a HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + bytes(500))
        proxy.wait_for(lambda requests: bool(requests) and requests[0].bytes_in == 500)
    wait_until(lambda: proxy.connection_count() == 0)
    assert not stored


def test_a_client_that_waits_before_sending_its_body_is_told_to_go_on(
    proxy: FaultProxy, stored: dict[str, bytes]
) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as raw:
        raw.sendall(b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"abc")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200")
    assert stored["/a"] == b"abc"


def test_a_server_that_is_away_ends_the_connection() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with FaultProxy(f"http://127.0.0.1:{nobody.getsockname()[1]}") as proxy:
            client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
            with contextlib.closing(client), pytest.raises(http.client.RemoteDisconnected):
                ask(client, "GET", "/a")
            assert [request.status for request in proxy.requests()] == [0]


def wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
