"""SASL on one connection: what may be asked before it has succeeded, and what its outcome is (KIP-43, 152, 255, 368).

The states are Kafka's: a connection WAITING for SaslHandshake, one that has CHOSEN a mechanism and exchanges tokens,
and one that is DONE. Until then nothing else than ApiVersions, SaslHandshake and SaslAuthenticate is looked at. After
SaslHandshake v0 the tokens are bare frames, which here become SaslAuthenticate requests in place of those. Kafka
answers what comes in the middle of it with an error before it closes; here only SASL's own two APIs are, because an
answer to any other would have to be decoded for, and some tell of the cluster.

A connection whose session has an end may authenticate again before it, by the same mechanism as the same principal;
meanwhile it may not ask for anything else either. Where the first request comes after the end, the connection closes.

A failure is answered late, so that passwords can't be tried fast, and ends the connection. What the client is told does
not say what was wrong; the log does, without secrets. Where the agent could not find out who the client is, the
connection ends without an answer: clients take a failure as final, and come again after an end, as they should here.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from warp._frames import FRAME_BYTES_MIN
from warp.errors import ErrorCode, ProtocolError
from warp.handlers.context import SaslOutcome
from warp.protocol import ApiKey
from warp.security.mechanisms import AuthenticationFailed, Outcome

if TYPE_CHECKING:
    from warp.clock import Clock
    from warp.handlers.context import Client
    from warp.protocol import Buffer
    from warp.security.mechanisms import Mechanism, Mechanisms, Step
    from warp.security.principal import Principal
    from warp.server.dispatch import Call
    from warp.server.limits import ServerLimits
    from warp.server.pool import ConnectionPool

_API_VERSIONS: Final = int(ApiKey.API_VERSIONS)
_SASL_HANDSHAKE: Final = int(ApiKey.SASL_HANDSHAKE)
_PASSING: Final = frozenset((_API_VERSIONS, _SASL_HANDSHAKE, int(ApiKey.SASL_AUTHENTICATE)))
"""What may be asked before it has succeeded."""
_NOT_FOUND_OUT: Final = (Outcome.BUSY, Outcome.UNAVAILABLE)


class State(enum.Enum):
    """How far it is."""

    WAITING = "waiting for SaslHandshake"
    CHOSEN = "exchanging tokens"
    DONE = "authenticated"
    FAILED = "failed"


class ConnectionAuthentication:
    """Authenticates the client of one connection, who is then told by `succeeded`."""

    def __init__(
        self, pool: ConnectionPool, client: Client, mechanisms: Mechanisms, succeeded: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._dispatcher = pool.dispatcher
        self._client = client
        self._mechanisms = mechanisms
        self._succeeded = succeeded
        self._clock: Clock = pool.clock
        self._limits: ServerLimits = pool.limits
        self._state = State.WAITING
        self._name = ""  # of the mechanism; lasts over re-authentication
        self._exchange: Mechanism | None = None
        self._ends_s: float | None = None
        self._is_again = False
        self._takes_tokens = False  # frames are bare tokens, as after SaslHandshake v0

    @property
    def has_failed(self) -> bool:
        """The connection ends when its last answer has been written."""
        return self._state is State.FAILED

    # ---- what the connection asks ----

    @property
    def frame_bytes_min(self) -> int:
        """The smallest frame that may come next."""
        return 1 if self._takes_tokens else FRAME_BYTES_MIN

    def open(self, frame: Buffer, client: Client, received_s: float) -> Call:
        """Read a frame, if it may be read now. Raises ProtocolError where the connection has to be closed."""
        dispatcher = self._dispatcher
        if self._takes_tokens:
            return dispatcher.open_token(frame, client, received_s)
        key = int.from_bytes(frame[:2], "big", signed=True)
        if self._state is State.DONE:
            self._check_session(key)
        elif key not in _PASSING:
            raise ProtocolError(f"API key {key} before authentication")
        return dispatcher.open(frame, client, received_s)

    def _check_session(self, key: int) -> None:
        """Raises ProtocolError for a request after the end of the session, but for what begins a new one."""
        if self._ends_s is None or key in (_API_VERSIONS, _SASL_HANDSHAKE):
            return
        if self._clock.monotonic() >= self._ends_s:
            self._pool.sessions_expired += 1
            raise ProtocolError("its session has ended and it has not authenticated again")

    # ---- what the handlers ask ----

    def handshake(self, mechanism: str, version: int) -> tuple[ErrorCode, tuple[str, ...]]:
        """See warp.handlers.context.Authentication."""
        names = self._mechanisms.names
        if self._state is State.DONE:
            if self._ends_s is None:
                return ErrorCode.ILLEGAL_SASL_STATE, ()
            if mechanism != self._name:
                self._fail(f"re-authentication by {mechanism[:40]!r} in place of {self._name}")
                return ErrorCode.SASL_AUTHENTICATION_FAILED, names
            self._is_again = True
        elif self._state is not State.WAITING:
            self._fail("a second SaslHandshake")
            return ErrorCode.ILLEGAL_SASL_STATE, ()
        try:
            self._exchange = self._mechanisms.begin(mechanism, self._pool.random_bytes)
        except KeyError:
            self._fail(f"the mechanism {mechanism[:40]!r} is not enabled")
            return ErrorCode.UNSUPPORTED_SASL_MECHANISM, names
        self._name = mechanism
        self._state = State.CHOSEN
        self._takes_tokens = version == 0
        return ErrorCode.NONE, names

    async def authenticate(self, token: bytes, version: int) -> SaslOutcome:
        """See warp.handlers.context.Authentication."""
        if self._state is State.DONE:
            return _refused(ErrorCode.ILLEGAL_SASL_STATE, "already authenticated")
        if self._state is not State.CHOSEN or self._exchange is None:
            self._fail("SaslAuthenticate before SaslHandshake")
            return _refused(ErrorCode.ILLEGAL_SASL_STATE, "SaslHandshake has to come first")
        try:
            step = self._exchange.step(token)
            if inspect.isawaitable(step):
                step = await step
            if step.principal is None:
                return SaslOutcome(ErrorCode.NONE, None, step.token, 0)
            self._check_principal(step.principal)
        except AuthenticationFailed as failure:
            self._fail(failure.reason)
            await asyncio.sleep(self._limits.authentication_delay_ms / 1000)
            if failure.outcome in _NOT_FOUND_OUT:
                raise ProtocolError(f"who it is can't be found out now: {failure.reason}") from None
            return _refused(ErrorCode.SASL_AUTHENTICATION_FAILED, failure.message, failure.token)
        except BaseException:
            # Nobody may go on in an exchange whose outcome is not known.
            self._state = State.FAILED
            raise
        return SaslOutcome(ErrorCode.NONE, None, step.token, self._done(step.principal, step))

    def _check_principal(self, principal: Principal) -> None:
        if self._is_again and principal != self._client.principal:
            raise AuthenticationFailed(
                "Authentication failed: the principal can't change",
                reason=f"re-authentication as {principal}",
            )

    def _done(self, principal: Principal, step: Step) -> int:
        """It has succeeded; milliseconds that the session lasts, 0 for one without an end."""
        # 0 would say that there is no end.
        lifetime_ms = None if step.lifetime_ms is None else max(1, step.lifetime_ms)
        self._ends_s = None if lifetime_ms is None else self._clock.monotonic() + lifetime_ms / 1000
        self._state = State.DONE
        self._exchange = None
        self._takes_tokens = False
        if not self._is_again:
            self._client.principal = principal
            self._client.is_authenticated = True
            self._succeeded()
        self._is_again = False
        return lifetime_ms or 0

    def _fail(self, reason: str) -> None:
        """It has failed, for a reason that the log may tell; the connection ends after its answer."""
        self._state = State.FAILED
        self._exchange = None
        self._pool.authentication_failed(self._client.address, self._name, reason)


def _refused(error: ErrorCode, message: str, token: bytes = b"") -> SaslOutcome:
    return SaslOutcome(error, message, token, 0)
