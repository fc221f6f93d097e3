"""How an operation is tried again, slowed down, signed anew and counted."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from tests.support.s3_scripted import (
    FakeServer,
    Fault,
    Request,
    answer,
    error,
    fake_server,
    iterate,
    scripted,
)
from tests.unit.objectstore.s3.support import CREDENTIALS, FixedSource, check, connected, run
from warp.clock import SystemClock
from warp.errors import ObjectStoreError, StoreFull
from warp.objectstore.s3.client import Client
from warp.objectstore.s3.credentials import Credentials
from warp.objectstore.s3.errors import CannotConnect, Cut, S3Error
from warp.objectstore.s3.retries import BUDGET_TOKENS_MAX, RATE_MIN, RETRY_TOKENS
from warp.objectstore.s3.store import S3Store

OK = answer(200)
NEWER = Credentials("AKIDNEWER", "another secret", None)


def client_of(store: S3Store) -> Client:
    return store._client


@pytest.mark.parametrize(
    "given",
    [
        error(500, "InternalError"),
        error(502, "BadGateway"),
        answer(504, b"<html>gateway timeout</html>"),
        error(503, "SlowDown"),
        error(429, "TooManyRequests"),
        error(400, "RequestTimeout"),
        error(400, "BadDigest"),
        Fault(),
        Fault(b"HTTP/1.1 200 OK\r\ncontent-le"),
        Fault(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"),
    ],
    ids=lambda given: str(given[:30] if isinstance(given, bytes) else given),
)
def test_what_may_pass_is_tried_again(given: bytes | Fault) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("k", [b"abc"])
        assert [request.body for request in server.requests] == [b"abc", b"abc"]
        assert store.traffic.total("put") == 2
        assert store.traffic.requests["put", "ok"] == 1
        assert store.traffic.sent_bytes == 6

    check(scripted(given, OK), test)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (error(400, "InvalidRequest"), r"^PutObject p/k: S3 answered 400 InvalidRequest for a reason \(request R1\)$"),
        (error(403, "AccessDenied"), "403 AccessDenied"),
        (error(404, "NoSuchBucket"), "404 NoSuchBucket"),
        (answer(301), "S3 answered 301"),
        (answer(418, b"no xml"), "S3 answered 418$"),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_not_tried_again(given: bytes, reason: str) -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(S3Error, match=reason):
            await store.put("k", [b"abc"])
        assert len(server.requests) == 1

    check(scripted(given), test, prefix="p/")


def test_a_message_of_the_server_stays_on_one_line_and_short() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(S3Error) as caught:
            await store.put("k", [b"abc"])
        assert "\n" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 300

    check(scripted(error(400, "Odd", "line\nanother&#155;[31m" + "x" * 10_000)), test)


def test_a_full_store_says_so() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        for _ in range(2):
            with pytest.raises(StoreFull):
                await store.put("k", [b"abc"])

    check(scripted(error(507, "XMinioStorageFull"), error(403, "QuotaExceeded")), test)


def test_attempts_are_bounded() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(S3Error, match="500 InternalError"):
            await store.put("k", [b"abc"])
        assert len(server.requests) == 3

    check(lambda _: error(500, "InternalError"), test, attempts=3)


def test_the_store_as_a_whole_tries_again_only_as_long_as_its_budget_lasts() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        for _ in range(100):
            with pytest.raises(S3Error):
                await store.put("k", [b"abc"])
        assert len(server.requests) == 100 + BUDGET_TOKENS_MAX // RETRY_TOKENS
        # Successes earn a little of it back.
        server.respond = lambda _: OK
        for _ in range(RETRY_TOKENS):
            await store.put("k", [b"abc"])
        server.respond = scripted(error(500, "InternalError"), OK)
        await store.put("k", [b"abc"])

    check(lambda _: error(500, "InternalError"), test)


def test_a_connection_that_was_closed_while_idle_costs_neither_a_pause_nor_an_attempt() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("k", [b"1"])
        await store.put("k", [b"2"])
        assert [(request.connection, request.body) for request in server.requests] == [
            (1, b"1"),
            (1, b"2"),
            (2, b"2"),
        ]
        assert store.traffic.requests == {("put", "ok"): 2, ("put", "cut"): 1}

    # One attempt is all that it has, and a pause would never end.
    check(scripted(OK, Fault(), OK), test, attempts=1, random=iterate([1e9]))


def test_a_new_connection_that_is_cut_uses_up_an_attempt() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(Cut, match=r"^PutObject k: the server closed the connection$"):
            await store.put("k", [b"1"])
        assert len(server.requests) == 1

    check(scripted(Fault()), test, attempts=1)


def test_slow_down_makes_everybody_wait() -> None:
    """A request that waits for its turn and is given up takes no turn."""

    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("first", [b""])
        given_up = asyncio.create_task(store.put("given-up", [b""]))
        others = [asyncio.create_task(store.put(key, [b""])) for key in "abcd"]
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(*others)
        gaps_s = [after - before for before, after in pairwise(arrived_at[1:])]
        assert [request.key for request in server.requests] == ["first", "first", *"abcd"]
        # The loop's timers are exact to the millisecond, and the rate grows with each request that is taken.
        assert gaps_s[0] > 1 / RATE_MIN - 0.02
        assert store.traffic.requests == {("put", "slow_down"): 1, ("put", "ok"): 5}

    arrived_at: list[float] = []
    answers = scripted(error(503, "SlowDown"), then=lambda _: OK)

    def respond(request: Request) -> bytes | Fault:
        arrived_at.append(asyncio.get_running_loop().time())
        return answers(request)

    check(respond, test)


def test_refusals_for_coming_too_fast_use_up_no_budget() -> None:
    """They are bounded by the throttle; other failures must find the budget as it was."""

    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(S3Error, match="SlowDown"):
            await store.put("k", [b""])
        assert len(server.requests) == 3
        assert client_of(store)._budget.tokens == BUDGET_TOKENS_MAX

    check(lambda _: error(503, "SlowDown"), test, attempts=3)


def test_a_server_that_is_not_there_is_named() -> None:
    async def whole() -> None:
        async with fake_server(lambda _: OK) as server:
            endpoint = server.endpoint
        store = await connected(endpoint, attempts=2)
        with pytest.raises(CannotConnect, match=endpoint) as caught:
            await store.put("k", [b"x"])
        assert caught.value.reason == CannotConnect.REFUSED
        assert not store.traffic.requests, "nothing was sent that could stand on a bill"
        await store.close()

    run(whole())


# ---- credentials ----


def signed_by(request: Request) -> str:
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


@pytest.mark.parametrize(
    "given",
    [error(400, "ExpiredToken"), error(403, "RequestExpired"), error(403, "AccessDenied"), answer(403)],
)
def test_refused_credentials_are_looked_for_anew_and_used(given: bytes) -> None:
    source = FixedSource([CREDENTIALS, NEWER])

    async def test(store: S3Store, server: FakeServer) -> None:
        await store.put("k", [b"x"])
        assert [signed_by(request) for request in server.requests] == ["AKIDEXAMPLE", "AKIDNEWER"]
        assert server.requests[0].headers["x-amz-security-token"] == CREDENTIALS.token
        assert "x-amz-security-token" not in server.requests[1].headers

    check(scripted(given, OK), test, source=source, attempts=1)


def test_many_requests_that_are_refused_at_once_renew_the_credentials_once() -> None:
    source = FixedSource([CREDENTIALS, NEWER, Credentials("AKIDNEVER", "x")])

    def respond(request: Request) -> bytes:
        return OK if signed_by(request) == "AKIDNEWER" else error(400, "ExpiredToken")

    async def test(store: S3Store, server: FakeServer) -> None:
        await asyncio.gather(*(store.put("k", [b"x"]) for _ in range(20)))
        assert source.reloads == 1

    check(respond, test, source=source)


def test_credentials_that_stay_the_same_fail_the_request_and_are_not_looked_for_again_at_once() -> None:
    source = FixedSource()

    async def test(store: S3Store, server: FakeServer) -> None:
        for _ in range(5):
            with pytest.raises(S3Error, match="AccessDenied"):
                await store.put("k", [b"x"])
        assert len(server.requests) == 5
        assert source.reloads == 1

    check(lambda _: error(403, "AccessDenied"), test, source=source)


@dataclass
class SlowSource:
    """Takes its time in `reload`, in whatever thread that runs."""

    may_go_on: threading.Event = field(default_factory=threading.Event)
    runs_out: bool = True

    def load(self) -> Credentials:
        return CREDENTIALS

    def reload(self) -> Credentials:
        assert self.may_go_on.wait(30)
        return NEWER


def test_requests_that_need_no_new_credentials_go_on_while_others_wait_for_them() -> None:
    source = SlowSource()

    async def test(store: S3Store, server: FakeServer) -> None:
        refused = asyncio.create_task(store.put("refused", [b"x"]))
        await server.until(lambda: len(server.requests) == 1)
        for number in range(10):
            await store.put(f"k{number}", [b"x"])
        assert not refused.done()
        source.may_go_on.set()
        await refused

    def respond(request: Request) -> bytes:
        is_old = signed_by(request) == "AKIDEXAMPLE"
        return error(400, "ExpiredToken") if is_old and request.key == "refused" else OK

    check(respond, test, source=source)


def test_nothing_shows_a_secret() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        with pytest.raises(ObjectStoreError) as caught:
            await store.put("k", [b"x"])
        for shown in (str(caught.value), repr(CREDENTIALS), repr(store.settings), repr(caught.value)):
            assert "secret" not in shown
            assert "token" not in shown

    check(lambda _: error(403, "SignatureDoesNotMatch"), test, clock=SystemClock())


def test_a_request_that_is_given_up_before_it_left_is_not_counted() -> None:
    async def test(store: S3Store, server: FakeServer) -> None:
        first = asyncio.create_task(store.put("first", [b"x"]))
        await server.until(lambda: bool(server.requests))
        waiting = asyncio.create_task(store.put("second", [b"x"]))
        await asyncio.sleep(0)
        for task in (waiting, first):
            task.cancel()
            await asyncio.wait([task])
        assert store.traffic.requests == {("put", "cut"): 1}

    check(scripted(Fault(hangs=True)), test, connections=1)
