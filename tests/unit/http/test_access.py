"""Who may ask the HTTP face for what: passwords, certificates, ACLs, and what checking passwords may cost."""

from __future__ import annotations

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import Awaitable, Callable

import pytest

from tests.support.zone import HandClock
from warp.http.access import Access, AccessLimits, BasicAuthentication, parse_basic
from warp.http.app import AgentFace, App
from warp.http.messages import Peer, Request, Response
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.audit import Audit
from warp.security.authorizer import OPEN, Authorizer, OpenAccess
from warp.security.exchange import AuthenticationFailed, Outcome
from warp.security.principal import ANONYMOUS, USER, Principal

ALICE = Principal(USER, "alice")
PASSWORD = "pencil: ä"
OPEN_PATHS = ("/v1/status", "/v1/ready")
FACTS = ("/metrics", "/v1/cluster", "/v1/jobs", "/v1/object-store", "/v1/trace/last")
INTERNAL = "/internal/v1/chunk"
LIMITS = AccessLimits(failure_delay_ms=1)


class Rules(OpenAccess):
    """Lets the named principals DESCRIBE the cluster, and nobody anything else."""

    is_on = True

    def __init__(self, *allowed: Principal) -> None:
        self.allowed = allowed
        self.asked: list[tuple[Principal, str]] = []

    def permits(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        return principal in self.allowed

    def allows(
        self,
        principal: Principal,
        host: str,
        operation: AclOperation,
        resource: AclResourceType,
        name: str,
    ) -> bool:
        self.asked.append((principal, host))
        assert (operation, resource, name) == (
            AclOperation.DESCRIBE,
            AclResourceType.CLUSTER,
            "kafka-cluster",
        )
        return principal in self.allowed


class Bench:
    """An app behind an Access, with a verifier that counts."""

    def __init__(
        self,
        *,
        authenticate: bool = True,
        authorizer: Authorizer = OPEN,
        limits: AccessLimits = LIMITS,
    ) -> None:
        self.clock = HandClock()
        self.outcomes: list[str] = []
        self.denied: list[str] = []
        self.verified: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = self.at_once_max = 0
        self.passwords = BasicAuthentication(self.verify, self.clock, bytes, limits)
        audit = Audit(self.clock.monotonic, observe=self.denied.append)
        access = Access(
            self.clock,
            passwords=self.passwords if authenticate else None,
            authorizer=authorizer,
            audit=audit,
            count=self.outcomes.append,
            limits=limits,
        )

        self.reasons: list[str] = []

        async def reasons() -> list[str]:
            return self.reasons

        async def metrics() -> bytes:
            return b"warp_x 1\n"

        async def chunk(request: Request) -> Response:
            return Response(200, b"chunk", "text/plain")

        self.app = App(AgentFace(dict, reasons, metrics, dict, dict, dict, dict), {INTERNAL: chunk}, access)

    async def verify(self, user: str, password: str) -> Principal:
        self.verified.append(user)
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await self.gate.wait()
        self.at_once -= 1
        if not password:
            raise AuthenticationFailed("empty", reason="it is empty", outcome=Outcome.MALFORMED)
        if (user, password) != ("alice", PASSWORD):
            raise AuthenticationFailed("wrong", reason=f"wrong password: {user!r}")
        return ALICE

    async def get(
        self, path: str, header: str | None = None, certified: Principal | None = None, method: str = "GET"
    ) -> Response:
        headers = {} if header is None else {"authorization": header}
        return await self.app(Request(method, path, headers=headers, peer=Peer("10.0.0.1", 5, certified)))


def basic(user: str = "alice", password: str = PASSWORD) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


def test_only_health_checks_and_peers_need_no_password() -> None:
    async def test() -> None:
        bench = Bench()
        for path in (*OPEN_PATHS, INTERNAL):
            assert (await bench.get(path)).status == 200
        for path in (*FACTS, "/", "/nothing"):
            answer = await bench.get(path)
            assert answer.status == 401
            assert ("WWW-Authenticate", 'Basic realm="warp", charset="UTF-8"') in answer.headers
            assert b"/metrics" not in answer.body
        assert (await bench.get("/metrics", method="POST")).status == 401
        assert bench.verified == []
        assert set(bench.outcomes) == {"unauthenticated"}

    run(test)


def test_strangers_learn_that_an_agent_is_not_ready_and_no_details() -> None:
    async def test() -> None:
        bench = Bench()
        bench.reasons = ["metadata: the connection to db.internal was lost (role 'warp')", "draining"]
        answer = await bench.get("/v1/ready")
        assert answer.status == 503
        assert json.loads(answer.body) == {"ready": False, "reasons": ["metadata", "draining"]}

    run(test)


def test_name_and_password_open_the_rest_and_are_remembered_for_a_while() -> None:
    async def test() -> None:
        bench = Bench()
        for path in (*FACTS, "/"):
            assert (await bench.get(path, basic())).status == 200
        assert (await bench.get("/nothing", basic())).status == 404
        assert (await bench.get("/metrics", basic(), method="POST")).status == 405
        assert bench.verified == ["alice"]
        assert bench.outcomes == []
        bench.clock.now_s += LIMITS.remembered_ms / 1000
        assert (await bench.get("/metrics", basic())).status == 200
        assert bench.verified == ["alice", "alice"]

    run(test)


def test_changed_credentials_are_not_remembered() -> None:
    async def test() -> None:
        bench = Bench()
        await bench.get("/metrics", basic())
        bench.passwords.forget()
        await bench.get("/metrics", basic())
        assert bench.verified == ["alice"] * 2
        # Also not when they change while a password is being checked.
        bench.passwords.forget()
        bench.gate.clear()
        asking = asyncio.create_task(bench.get("/metrics", basic()))
        while len(bench.verified) < 3:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)
        bench.passwords.forget()
        bench.gate.set()
        assert (await asking).status == 200
        await bench.get("/metrics", basic())
        assert len(bench.verified) == 4

    run(test)


def test_what_is_remembered_is_no_password_and_bounded() -> None:
    async def test() -> None:
        bench = Bench(limits=AccessLimits(failure_delay_ms=1, remembered_max=3))

        async def anybody(user: str, password: str) -> Principal:
            return Principal(USER, user)

        passwords = BasicAuthentication(
            anybody, bench.clock, lambda count: b"k" * count, AccessLimits(remembered_max=3)
        )
        for number in range(10):
            await passwords.check(f"user{number}", PASSWORD)
        remembered = vars(passwords)["_remembered"]
        assert len(remembered) == 3
        assert not any(PASSWORD.encode() in digest for digest in remembered)
        assert passwords.recall("user9", PASSWORD) == Principal(USER, "user9")
        assert passwords.recall("user9p", PASSWORD[1:]) is None
        assert passwords.recall("user0", PASSWORD) is None

    run(test)


@pytest.mark.parametrize(
    ("header", "outcome"),
    [
        (basic(password="pencil"), "refused"),
        (basic(user="Alice"), "refused"),
        (basic(password=""), "malformed"),
        ("", "malformed"),
        ("Bearer abc", "malformed"),
        ("Basic", "malformed"),
        ("Basic !!!", "malformed"),
        ("Basic " + b64encode(b"alice").decode(), "malformed"),
        ("Basic " + b64encode(b":password").decode(), "malformed"),
        ("Basic " + b64encode(b"\xff:\xff").decode(), "malformed"),
    ],
)
def test_wrong_credentials_are_refused_and_logged_without_the_password(
    header: str, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        bench = Bench()
        with caplog.at_level(logging.INFO, "warp.http"):
            answer = await bench.get("/metrics", header)
        assert (answer.status, bench.outcomes) == (401, [outcome])
        assert "WWW-Authenticate" in dict(answer.headers)
        assert len(caplog.records) == 1
        assert "pencil" not in str(vars(caplog.records[0]))
        assert "pencil" not in answer.body.decode()
        # A certificate does not make up for a wrong password.
        assert (await bench.get("/metrics", header, ALICE)).status == 401

    run(test)


def test_a_certificate_does_in_place_of_a_password() -> None:
    async def test() -> None:
        bench = Bench(authorizer=Rules(ALICE))
        assert (await bench.get("/metrics", certified=ALICE)).status == 200
        assert (await bench.get("/metrics", certified=Principal(USER, "CN=bob"))).status == 403
        assert bench.outcomes == ["denied"]

    run(test)


def test_acls_decide_about_what_shows_the_cluster() -> None:
    async def test() -> None:
        bench = Bench(authenticate=False, authorizer=Rules())
        for path in FACTS:
            answer = await bench.get(path)
            assert answer.status == 403
            assert json.loads(answer.body) == {"error": "User:ANONYMOUS may not DESCRIBE the cluster"}
        assert bench.denied == [f"HTTP {path}" for path in FACTS]
        for path in (*OPEN_PATHS, INTERNAL, "/"):
            assert (await bench.get(path)).status == 200
        allowed = Rules(ALICE)
        bench = Bench(authorizer=allowed)
        for path in FACTS:
            assert (await bench.get(path, basic())).status == 200
        assert allowed.asked == [(ALICE, "10.0.0.1")] * len(FACTS)
        assert bench.denied == []

    run(test)


def test_an_authorizer_that_only_logs_lets_pass_what_it_tells_of(caplog: pytest.LogCaptureFixture) -> None:
    class Logging(Rules):
        only_logs = True

        def allows(self, *asked: object) -> bool:
            return True

    async def test() -> None:
        bench = Bench(authenticate=False, authorizer=Logging())
        with caplog.at_level(logging.INFO, "warp.audit"):
            assert (await bench.get("/metrics")).status == 200
        told = vars(caplog.records[-1])
        assert (told["principal"], told["address"]) == ("User:ANONYMOUS", "10.0.0.1:5")
        assert (told["api"], told["operation"], told["resource"]) == ("HTTP /metrics", "DESCRIBE", "CLUSTER")

    run(test)


def test_without_authentication_passwords_mean_nothing() -> None:
    async def test() -> None:
        rules = Rules(ANONYMOUS)
        bench = Bench(authenticate=False, authorizer=rules)
        assert (await bench.get("/metrics", basic(password="wrong"))).status == 200
        assert (bench.verified, bench.outcomes, rules.asked[0][0]) == ([], [], ANONYMOUS)

    run(test)


def test_few_passwords_are_checked_at_a_time_and_few_wait() -> None:
    async def test() -> None:
        bench = Bench(limits=AccessLimits(derivations_max=2, waiting_max=3, failure_delay_ms=1))
        bench.gate.clear()
        asking = [asyncio.create_task(bench.get("/metrics", basic(f"user{number}"))) for number in range(5)]
        while bench.at_once < 2:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)
        busy = await bench.get("/metrics", basic("one more"))
        assert (busy.status, dict(busy.headers)["Retry-After"]) == (503, "1")
        bench.gate.set()
        assert [answer.status for answer in await asyncio.gather(*asking)] == [401] * 5
        assert (bench.at_once_max, len(bench.verified)) == (2, 5)
        assert (await bench.get("/metrics", basic())).status == 200

    run(test)


def test_names_and_passwords_are_read_as_they_are() -> None:
    assert parse_basic(basic()) == ("alice", PASSWORD)
    assert parse_basic(basic().replace("Basic", "bASIC")) == ("alice", PASSWORD)
    assert parse_basic(basic("ä", "::")) == ("ä", "::")
