"""Who may ask the HTTP face for what: authentication, then ACLs, before any handler runs.

A request is its client certificate's, or that of a name and password by HTTP basic authentication (RFC 7617): the same
users, principals and ACLs as the Kafka listeners have. Health checks stay open, so that load balancers need no secret;
what agents ask of each other has its own authentication. All the rest shows facts about the cluster: whoever may
DESCRIBE the cluster may read it.

Deriving a key from a password is expensive by intent. So a password that was right is remembered for a short time, as a
hash under a key of this process; derivations run a few at a time, and each failed attempt is answered late.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from warp.clock import Clock
from warp.http.messages import Request, Response, error_response
from warp.protocol.types import AclOperation, AclResourceType
from warp.security.audit import Asker, Audit
from warp.security.authorizer import CLUSTER_NAME, OPEN, Authorizer
from warp.security.exchange import AuthenticationFailed, Outcome
from warp.security.principal import ANONYMOUS, Principal
from warp.server.limits import LogLimit

log = logging.getLogger("warp.http")

Verify = Callable[[str, str], Awaitable[Principal]]
"""Whose name and password these are; derives keys off the loop. Raises AuthenticationFailed."""

CHALLENGE: Final = ("WWW-Authenticate", 'Basic realm="warp", charset="UTF-8"')
REFUSALS: Final = ("unauthenticated", "malformed", "refused", "busy", "denied")
"""Why a request was not let through: nobody has said who asks, or not as one does; a wrong name or password; too many
at once; ACLs."""
TOO_MANY: Final = "too many passwords are being checked, try again"

DESCRIBE: Final = AclOperation.DESCRIBE
CLUSTER: Final = AclResourceType.CLUSTER
LISTENER: Final = "HTTP"
"""How the audit log names where the request came in."""
PATH_CHARACTERS_MAX: Final = 200

_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class AccessLimits:
    """What authentication may cost."""

    derivations_max: int = 2
    """At a time; the processors have other things to do."""
    waiting_max: int = 32
    """Requests that wait for one; beyond, 503."""
    failure_delay_ms: int = 100
    """Between a failed attempt and its answer."""
    remembered_ms: int = 30_000
    """A password that was right need not be derived again for so long."""
    remembered_max: int = 256


class BasicAuthentication:
    """Checks names and passwords with `verify`, within limits."""

    def __init__(
        self,
        verify: Verify,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        limits: AccessLimits | None = None,
    ) -> None:
        self._verify = verify
        self._clock = clock
        self._key = random_bytes(_KEY_BYTES)
        self._limits = limits or AccessLimits()
        self._turns = asyncio.Semaphore(self._limits.derivations_max)
        self._waiting = 0
        self._remembered: dict[bytes, tuple[float, Principal]] = {}
        """Until when (monotonic), and whose; in the order of time."""
        self._age = 0

    def forget(self) -> None:
        """Credentials have changed: what was right may be wrong."""
        self._age += 1
        self._remembered.clear()

    def recall(self, user: str, password: str) -> Principal | None:
        """Whose they are, when that was found out a short time ago."""
        known = self._remembered.get(self._digest(user, password))
        return known[1] if known is not None and known[0] > self._clock.monotonic() else None

    async def check(self, user: str, password: str) -> Principal:
        """Whose they are. Raises AuthenticationFailed."""
        if self._waiting >= self._limits.derivations_max + self._limits.waiting_max:
            reason = f"{self._waiting} passwords wait to be checked"
            raise AuthenticationFailed(TOO_MANY, reason=reason, outcome=Outcome.BUSY)
        self._waiting += 1
        try:
            async with self._turns:
                # Others may have asked with the same ones meanwhile.
                known = self.recall(user, password)
                if known is not None:
                    return known
                age = self._age
                principal = await self._verify(user, password)
        finally:
            self._waiting -= 1
        if age == self._age:
            self._remember(user, password, principal)
        return principal

    def _remember(self, user: str, password: str, principal: Principal) -> None:
        now = self._clock.monotonic()
        while self._remembered:
            oldest = next(iter(self._remembered))
            if self._remembered[oldest][0] > now and len(self._remembered) < self._limits.remembered_max:
                break
            del self._remembered[oldest]
        digest = self._digest(user, password)
        self._remembered.pop(digest, None)
        self._remembered[digest] = now + self._limits.remembered_ms / 1000, principal

    def _digest(self, user: str, password: str) -> bytes:
        # Lengths first, so that no other name and password make the same text.
        text = f"{len(user)}:{user}{password}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256")


class Access:
    """Decides who may ask for what.

    With `passwords`, who asks has to authenticate, by certificate or password; without, everybody without a certificate
    is ANONYMOUS. `count` is told one of REFUSALS for each request that is not let through, `audit` what ACLs refuse.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        passwords: BasicAuthentication | None = None,
        authorizer: Authorizer = OPEN,
        audit: Audit | None = None,
        count: Callable[[str], None] = lambda refusal: None,
        limits: AccessLimits | None = None,
    ) -> None:
        self._passwords = passwords
        self._authorizer = authorizer
        self._audit = audit
        self._count = count
        self._limits = limits or AccessLimits()
        self._log_limit = LogLimit(clock)

    async def refusal(self, request: Request, *, shows_cluster: bool) -> Response | None:
        """The answer for those who may not ask that; None for those who may.

        What `shows_cluster` is for whoever may DESCRIBE the cluster; the rest for whoever is known.
        """
        who = await self._authenticate(request)
        if isinstance(who, Response):
            return who
        if not shows_cluster:
            return None
        asked = (who, request.peer.host, DESCRIBE, CLUSTER, CLUSTER_NAME)
        if not self._authorizer.permits(*asked) and self._audit is not None:
            # One of a few, because metrics count by it.
            api = f"HTTP {request.path}"
            asker = Asker(who, request.peer.address, LISTENER, request.headers.get("user-agent"), api, 1)
            self._audit.denied(asker, [(DESCRIBE, CLUSTER, CLUSTER_NAME)], 1)
        if self._authorizer.allows(*asked):
            return None
        self._count("denied")
        return error_response(403, f"{who} may not DESCRIBE the cluster")

    async def _authenticate(self, request: Request) -> Principal | Response:
        """Who asks; or the answer for those who don't say so, or wrongly."""
        certified = request.peer.principal
        if self._passwords is None:
            return certified or ANONYMOUS
        header = request.headers.get("authorization")
        if header is None:
            if certified is not None:
                return certified
            return self._refuse(
                "unauthenticated", "name and password, or a client certificate, are needed here"
            )
        try:
            user, password = parse_basic(header)
        except ValueError as error:
            return await self._fail(request, "malformed", str(error), str(error))
        principal = self._passwords.recall(user, password)
        if principal is not None:
            return principal
        try:
            return await self._passwords.check(user, password)
        except AuthenticationFailed as error:
            if error.outcome in (Outcome.BUSY, Outcome.UNAVAILABLE):
                self._count("busy")
                return error_response(503, error.message, ("Retry-After", "1"))
            refusal = "malformed" if error.outcome is Outcome.MALFORMED else "refused"
            return await self._fail(request, refusal, error.message, error.reason)

    async def _fail(self, request: Request, refusal: str, message: str, reason: str) -> Response:
        """After a while, so that guessing takes long. `message` is for who asks, `reason` for the log."""
        if self._log_limit.passes():
            more = self._log_limit.note()
            where = {"client": request.peer.address, "path": request.path[:PATH_CHARACTERS_MAX]}
            log.warning("HTTP authentication failed: %s%s", reason, more, extra=where)
        await asyncio.sleep(self._limits.failure_delay_ms / 1000)
        return self._refuse(refusal, message)

    def _refuse(self, refusal: str, message: str) -> Response:
        self._count(refusal)
        return error_response(401, message, CHALLENGE)


def parse_basic(header: str) -> tuple[str, str]:
    """Name and password in an Authorization header (RFC 7617). Raises ValueError, without either in its text."""
    scheme, _, credentials = header.strip().partition(" ")
    if scheme.lower() != "basic":
        raise ValueError("only basic authentication is spoken here")
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError("the Authorization header is not base64 of UTF-8 text") from None
    user, colon, password = text.partition(":")
    if not colon or not user:
        raise ValueError("the Authorization header holds no NAME:PASSWORD")
    return user, password
