"""OAUTHBEARER (RFC 7628): clients show a token that an issuer has signed, a JWT (RFC 7519), and agents check it.

Which key may have signed, and by which algorithm, is said by the issuer's key set and never by the token: none of the
attacks on what a token says of itself (`none`, a public key used as a secret) finds anything to work on.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from warp.security.exchange import AuthenticationFailed, Outcome, Step, malformed, over
from warp.security.jwks import KeySource, Unverified, key_source, verify
from warp.security.names import check_name, unescape_name
from warp.security.principal import USER, Principal

if TYPE_CHECKING:
    from warp.clock import Clock

NAME: Final = "OAUTHBEARER"
MESSAGE_BYTES_MAX: Final = 65_536
HEADER_CHARACTERS_MAX: Final = 8_192
CLOCK_SKEW_MS: Final = 30_000
"""How far the issuer's clock may be ahead of this agent's."""
TIME_S_MAX: Final = 2**40
"""No token speaks of times after that, which is the year 36,812."""

_INVALID_TOKEN = b'{"status":"invalid_token"}'
_ACKNOWLEDGEMENT = b"\x01"
_SEPARATOR = "\x01"
_EXTENSION_NAME = re.compile(r"[A-Za-z]+")
_EXTENSION_VALUE = re.compile(r"[\x21-\x7e \t\r\n]*")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class ClientMessage(NamedTuple):
    """What a client sends first."""

    authorization: str
    """Who it wants to be taken for; "" for whom the token names."""
    token: str


class TokenRules(NamedTuple):
    """What a token has to say, besides being signed."""

    issuer: str | None = None
    audience: str | None = None
    principal_claim: str = "sub"


class Accepted(NamedTuple):
    """What a valid token says."""

    name: str
    expires_ms: int


def parse_client_message(message: bytes) -> ClientMessage:
    """Raises ValueError, which does not quote the message (RFC 7628, section 3.1)."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise ValueError(f"it is longer than {MESSAGE_BYTES_MAX} bytes")
    try:
        header, *pairs = message.decode("utf-8").split(_SEPARATOR)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if pairs[-2:] != ["", ""]:
        raise ValueError("its end is missing")
    found = re.fullmatch(r"n,(?:a=([^,]*))?,", header)
    if found is None:
        raise ValueError("its header is none, or asks for channel binding")
    values: dict[str, str] = {}
    for pair in pairs[:-2]:
        name, equals, value = pair.partition("=")
        if not equals or not _EXTENSION_NAME.fullmatch(name) or not _EXTENSION_VALUE.fullmatch(value):
            raise ValueError("a pair of name and value is none")
        if name in values:
            raise ValueError("a name stands there twice")
        values[name] = value
    scheme, _, token = values.get("auth", "").partition(" ")
    if scheme.lower() != "bearer" or not _TOKEN.fullmatch(token.strip(" ")):
        raise ValueError("the token is missing")
    return ClientMessage(unescape_name(found[1] or ""), token.strip(" "))


def parse_token(token: str) -> Unverified:
    """The parts of a signed token. Raises ValueError, which does not quote it."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("the token is not a signed JWT")
    if len(parts[0]) > HEADER_CHARACTERS_MAX:
        raise ValueError("the token's header is too long")
    header = _json_object(_from_base64url(parts[0]), "header")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        raise ValueError("the token's header does not say how it is signed")
    if "crit" in header:
        raise ValueError("the token's header demands what is not known here")
    return Unverified(token, algorithm, key_id)


def check_claims(payload: bytes, rules: TokenRules, now_ms: int) -> Accepted:
    """What a token with these claims says. Raises ValueError, which does not quote them."""
    claims = _json_object(payload, "payload")
    expires_ms = _time_ms(claims, "exp")
    if expires_ms is None:
        raise ValueError("the token does not say when it expires (exp)")
    if expires_ms <= now_ms:
        raise ValueError("the token has expired")
    for name in ("nbf", "iat"):
        if (_time_ms(claims, name) or 0) > now_ms + CLOCK_SKEW_MS:
            raise ValueError(f"the token is not valid yet ({name})")
    if rules.issuer is not None and claims.get("iss") != rules.issuer:
        raise ValueError("the token is of another issuer (iss)")
    if rules.audience is not None and rules.audience not in _audiences(claims):
        raise ValueError("the token is for somebody else (aud)")
    user = claims.get(rules.principal_claim)
    if not isinstance(user, str):
        raise ValueError(f"the token names nobody ({rules.principal_claim})")
    try:
        return Accepted(check_name(user), expires_ms)
    except ValueError as error:
        raise ValueError(f"{error} ({rules.principal_claim})") from None


class Tokens:
    """Checks tokens by the keys of one issuer."""

    def __init__(self, keys: KeySource, rules: TokenRules, clock: Clock) -> None:
        self._keys = keys
        self._rules = rules
        self._clock = clock

    def start(self) -> None:
        """Have the keys fetched from now on."""
        self._keys.start()

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._keys.close()

    @property
    def keys_age_s(self) -> float:
        """How long ago the issuer's keys were read; infinity when they never were."""
        return self._keys.age_s

    def begin(self, session_max_ms: int | None) -> BearerExchange:
        """A new exchange."""
        return BearerExchange(self, session_max_ms)

    async def check(self, token: str) -> Accepted:
        """What a valid token says. Raises ValueError, or AuthenticationFailed when there are no keys to check it by."""
        unverified = parse_token(token)
        keys = self._keys.find(unverified)
        if not keys:
            await self._keys.look_again()
            keys = self._keys.find(unverified)
        if not keys:
            if not self._keys.is_known:
                raise AuthenticationFailed(
                    "Authentication failed: tokens can't be checked at the moment",
                    reason="the keys of the issuer are not known",
                    outcome=Outcome.UNAVAILABLE,
                )
            raise ValueError("the token is signed by a key, or in a way, that the issuer does not offer")
        payload = verify(unverified, keys)
        if payload is None:
            raise ValueError("the token's signature is wrong")
        return check_claims(payload, self._rules, self._clock.time_ms())

    def left_ms(self, accepted: Accepted, session_max_ms: int | None) -> int:
        """How long a session lasts: no longer than its token."""
        left_ms = max(1, accepted.expires_ms - self._clock.time_ms())
        return left_ms if session_max_ms is None else min(left_ms, session_max_ms)


class BearerExchange:
    """One exchange. A token that is refused is answered with why, and fails when the client has taken note of it."""

    def __init__(self, tokens: Tokens, session_max_ms: int | None) -> None:
        self._tokens = tokens
        self._session_max_ms = session_max_ms
        self._refusal: AuthenticationFailed | None = None
        self._has_begun = False

    async def step(self, token: bytes) -> Step:
        """See Mechanism."""
        if self._has_begun:
            refusal, self._refusal = self._refusal, None
            if refusal is None:
                raise over(NAME)
            if token != _ACKNOWLEDGEMENT:
                raise malformed(NAME, "after a refusal it has to be one byte 0x01")
            raise refusal
        self._has_begun = True
        try:
            message = parse_client_message(token)
        except ValueError as error:
            raise malformed(NAME, str(error)) from None
        try:
            accepted = await self._tokens.check(message.token)
            if message.authorization not in ("", accepted.name):
                raise ValueError("a user can't act for another one")
        except ValueError as error:
            self._refusal = AuthenticationFailed(f"Authentication failed: {error}", reason=str(error))
            return Step(_INVALID_TOKEN)
        lifetime_ms = self._tokens.left_ms(accepted, self._session_max_ms)
        return Step(b"", Principal(USER, accepted.name), lifetime_ms)


def build_tokens(where: str, rules: TokenRules, clock: Clock) -> Tokens:
    """Checks tokens by the key set at an https:// URL or in a file. Raises UsageError for any other place."""
    return Tokens(key_source(where, clock), rules, clock)


def _json_object(data: bytes, part: str) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"the token's {part} is not JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"the token's {part} is not a JSON object")
    return found


def _from_base64url(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("the token is not base64url") from None


def _time_ms(claims: Mapping[str, Any], name: str) -> int | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the token's {name} is not a time")
    if not 0 <= value <= TIME_S_MAX:
        raise ValueError(f"the token's {name} is out of range")
    return int(value * 1000)


def _audiences(claims: Mapping[str, Any]) -> list[Any]:
    found = claims.get("aud")
    return found if isinstance(found, list) else [found]
