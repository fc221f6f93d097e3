"""The SASL mechanisms of one agent: which there are, and how an exchange of each begins.

OAUTHBEARER is loaded for agents that serve it alone: its libraries take time to load, and memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from warp.errors import UsageError
from warp.security.credentials import SCRAM_HASHES, Credentials
from warp.security.exchange import (
    WRONG_CREDENTIALS,
    AuthenticationFailed,
    Mechanism,
    Outcome,
    Step,
)
from warp.security.plain import NAME as PLAIN, Derivations, Derive, Passwords, PlainExchange
from warp.security.principal import Principal
from warp.security.scram import ScramExchange

if TYPE_CHECKING:
    from warp.clock import Clock
    from warp.config import AgentConfig
    from warp.security.oauth import Tokens

__all__ = [
    "OAUTHBEARER",
    "PLAIN",
    "WRONG_CREDENTIALS",
    "AuthenticationFailed",
    "Mechanism",
    "Mechanisms",
    "Outcome",
    "Step",
    "build_mechanisms",
]

OAUTHBEARER: Final = "OAUTHBEARER"

Attempted = Callable[[str, Outcome], None]
"""Told of each attempt that has ended: mechanism, outcome."""

_HASHES = {scram.mechanism: scram for scram in SCRAM_HASHES}


class Mechanisms:
    """Begins exchanges. `names` are the enabled ones, in order; `start` and `close` belong to the agent's life."""

    def __init__(
        self,
        names: Sequence[str],
        credentials: Credentials,
        *,
        derive: Derive | None = None,
        tokens: Tokens | None = None,
        session_max_ms: int = 0,
        attempted: Attempted = lambda mechanism, outcome: None,
    ) -> None:
        if OAUTHBEARER in names and tokens is None:
            raise UsageError("OAUTHBEARER needs --oauth-jwks: it says where the keys are that sign tokens")
        self.names = tuple(dict.fromkeys(names))
        self._credentials = credentials
        self._derivations = Derivations()
        self._passwords = Passwords(credentials, derive or self._derivations.derive)
        self._tokens = tokens
        self._session_max_ms = session_max_ms
        self._attempted = attempted

    def start(self) -> None:
        """Have the keys of tokens fetched, now and whenever it is time. Needs a running event loop."""
        if self._tokens is not None:
            self._tokens.start()

    async def close(self) -> None:
        """Stop fetching keys and checking passwords."""
        self._derivations.close()
        if self._tokens is not None:
            await self._tokens.close()

    @property
    def keys_age_s(self) -> float | None:
        """How long ago the keys that sign tokens were read; None where no tokens are taken."""
        return None if self._tokens is None else self._tokens.keys_age_s

    def begin(self, name: str, random_bytes: Callable[[int], bytes]) -> Mechanism:
        """A new exchange. Raises KeyError for a mechanism that is not enabled."""
        if name not in self.names:
            raise KeyError(name)
        return _Counted(name, self._exchange(name, random_bytes), self._attempted)

    async def check_password(self, user: str, password: str) -> Principal:
        """Who this is, for faces without SASL; counted as PLAIN. Raises AuthenticationFailed."""
        try:
            principal = await self._passwords.check(user, password)
        except AuthenticationFailed as error:
            self._attempted(PLAIN, error.outcome)
            raise
        self._attempted(PLAIN, Outcome.OK)
        return principal

    def _exchange(self, name: str, random_bytes: Callable[[int], bytes]) -> Mechanism:
        lifetime_ms = self._session_max_ms or None
        if name in _HASHES:
            return ScramExchange(_HASHES[name], self._credentials, random_bytes, lifetime_ms)
        if name == PLAIN:
            return PlainExchange(self._passwords, lifetime_ms)
        assert self._tokens is not None, "OAUTHBEARER is not enabled without"
        return self._tokens.begin(lifetime_ms)


class _Counted:
    """An exchange whose end is told."""

    def __init__(self, name: str, exchange: Mechanism, attempted: Attempted) -> None:
        self._name = name
        self._exchange = exchange
        self._attempted = attempted

    def step(self, token: bytes) -> Step | Awaitable[Step]:
        """See Mechanism."""
        try:
            step = self._exchange.step(token)
        except AuthenticationFailed as error:
            self._attempted(self._name, error.outcome)
            raise
        if inspect.isawaitable(step):
            return self._waited(step)
        return self._told(step)

    async def _waited(self, awaited: Awaitable[Step]) -> Step:
        try:
            return self._told(await awaited)
        except AuthenticationFailed as error:
            self._attempted(self._name, error.outcome)
            raise

    def _told(self, step: Step) -> Step:
        if step.principal is not None:
            self._attempted(self._name, Outcome.OK)
        return step


def build_mechanisms(
    config: AgentConfig, credentials: Credentials, clock: Clock, *, attempted: Attempted
) -> Mechanisms:
    """The mechanisms that an agent is configured to have. Raises UsageError."""
    tokens: Tokens | None = None
    if OAUTHBEARER in config.sasl_mechanisms and config.oauth_jwks is not None:
        from warp.security.oauth import TokenRules, build_tokens  # noqa: PLC0415  see above

        rules = TokenRules(config.oauth_issuer, config.oauth_audience, config.oauth_principal_claim)
        tokens = build_tokens(config.oauth_jwks, rules, clock)
    return Mechanisms(
        config.sasl_mechanisms,
        credentials,
        tokens=tokens,
        session_max_ms=config.sasl_session_max_ms,
        attempted=attempted,
    )
