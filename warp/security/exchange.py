"""What a SASL mechanism is made of: an exchange of tokens that ends with a principal, or with a failure.

Nothing here or in the mechanisms knows sockets or Kafka's messages: tokens go in, tokens come out.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable
from typing import NamedTuple, Protocol

from warp.errors import WarpError
from warp.security.principal import Principal

WRONG_CREDENTIALS = "Authentication failed: wrong user name or password"
"""What clients are told, whether there is no such user or the password is wrong."""


class Outcome(enum.StrEnum):
    """How an attempt to authenticate ended, as the metrics count it."""

    OK = "ok"
    REFUSED = "refused"
    """Wrong password, unknown user, a token that is not valid."""
    MALFORMED = "malformed"
    """A message that is none of the mechanism."""
    BUSY = "busy"
    """Too many attempts at once."""
    UNAVAILABLE = "unavailable"
    """The keys that tokens are checked with are not known."""


class AuthenticationFailed(WarpError):
    """The client is not who it says it is, or this agent can't find out.

    `message`, which is also the text of the error, is for the client: it does not tell whether there is such a user.
    `reason` is for this agent's log; neither holds a secret. `token` is what the mechanism answers with, if anything.
    """

    def __init__(
        self, message: str, *, reason: str, outcome: Outcome = Outcome.REFUSED, token: bytes = b""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.outcome = outcome
        self.token = token


class Step(NamedTuple):
    """What one token led to: the token to answer with and, when the exchange is over, who the client is."""

    token: bytes
    principal: Principal | None = None
    """None while the client has to send more."""
    lifetime_ms: int | None = None
    """How long it may stay without authenticating again; None for ever."""


class Mechanism(Protocol):
    """One exchange on one connection."""

    def step(self, token: bytes) -> Step | Awaitable[Step]:
        """Take the client's next token. An Awaitable where keys have to be derived or fetched, off the event loop.

        Raises AuthenticationFailed, at once or when awaited; the exchange is over then.
        """


def malformed(mechanism: str, problem: str) -> AuthenticationFailed:
    """The failure of a message that is none of the mechanism. `problem` must not quote the message."""
    return AuthenticationFailed(
        f"Authentication failed: malformed {mechanism} message, {problem}",
        reason=f"malformed message: {problem}",
        outcome=Outcome.MALFORMED,
    )


def over(mechanism: str) -> AuthenticationFailed:
    """The failure of a token that comes after the end of the exchange."""
    return malformed(mechanism, "the exchange is over")
