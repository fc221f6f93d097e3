"""PLAIN (RFC 4616): name and password in the clear, so for connections over TLS; and the check of a password itself.

The password is checked against the user's SCRAM credential: salted, iterated, and compared in constant time. That takes
milliseconds of a processor, so it runs in a few threads, which let the interpreter lock go, and few may wait for them:
whoever floods an agent with passwords makes others who come with one wait for a moment, and nobody else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from warp.security.credentials import SHA_256, SHA_512, Credential, Credentials, digest
from warp.security.exchange import (
    WRONG_CREDENTIALS,
    AuthenticationFailed,
    Outcome,
    Step,
    malformed,
    over,
)
from warp.security.names import check_name, prepare_name, saslprep
from warp.security.principal import USER, Principal

NAME: Final = "PLAIN"
TOKEN_BYTES_MAX: Final = 16_384
PASSWORD_BYTES_MAX: Final = 4_096
DERIVATION_THREADS: Final = 2
DERIVATIONS_WAITING_MAX: Final = 128
"""About half a second of waiting at 8 ms each."""

Derive = Callable[[str, bytes, bytes, int], Awaitable[bytes]]
"""PBKDF2 with HMAC: algorithm, password, salt, iterations. Raises AuthenticationFailed when too many wait."""


class Derivations:
    """Derives keys in threads of its own."""

    def __init__(self, threads: int = DERIVATION_THREADS, waiting_max: int = DERIVATIONS_WAITING_MAX) -> None:
        self._threads = threads
        self._waiting_max = waiting_max
        self._executor: ThreadPoolExecutor | None = None
        self._under_way = 0

    async def derive(self, algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        """See Derive."""
        if self._under_way >= self._threads + self._waiting_max:
            raise AuthenticationFailed(
                "Authentication failed: too many attempts at once, try again",
                reason=f"{self._under_way} passwords are being checked",
                outcome=Outcome.BUSY,
            )
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="warp-derive")
        self._under_way += 1
        derived = asyncio.get_running_loop().run_in_executor(
            self._executor, hashlib.pbkdf2_hmac, algorithm, password, salt, iterations
        )
        # Also when the client has gone meanwhile: the thread goes on.
        derived.add_done_callback(self._ended)
        return await derived

    def _ended(self, _: asyncio.Future[bytes]) -> None:
        self._under_way -= 1

    def close(self) -> None:
        """Let the threads end; nobody is answered any more."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


class Passwords:
    """Checks names with passwords, for PLAIN and for HTTP."""

    def __init__(self, credentials: Credentials, derive: Derive) -> None:
        self._credentials = credentials
        self._derive = derive

    async def check(self, user: str, password: str) -> Principal:
        """Who this is. Raises AuthenticationFailed; it takes as long for a user that does not exist."""
        try:
            name = prepare_name(user)
            spellings = _spellings(password)
        except ValueError as error:
            raise malformed(NAME, str(error)) from None
        found = self._find(name)
        credential = found or self._make_up(name)
        is_right = False
        for spelling in spellings:
            is_right |= await self._is_password(credential, spelling)
        # It may have been deleted while keys were derived.
        if found is None or not is_right or self._find(name) != found:
            problem = "no such user" if found is None else "wrong password"
            raise AuthenticationFailed(WRONG_CREDENTIALS, reason=f"{problem}: {name!r}")
        return Principal(USER, name)

    def _find(self, name: str) -> Credential | None:
        return self._credentials.find(SHA_256, name) or self._credentials.find(SHA_512, name)

    def _make_up(self, name: str) -> Credential:
        has_256 = self._credentials.shape(SHA_256) is not None or self._credentials.shape(SHA_512) is None
        return self._credentials.make_up(SHA_256 if has_256 else SHA_512, name)

    async def _is_password(self, credential: Credential, password: bytes) -> bool:
        scram = credential.hash
        salted = await self._derive(scram.algorithm, password, credential.salt, credential.iterations)
        client_key = hmac.digest(salted, b"Client Key", scram.algorithm)
        return hmac.compare_digest(digest(scram, client_key), credential.stored_key)


class PlainExchange:
    """One exchange of one token."""

    def __init__(self, passwords: Passwords, lifetime_ms: int | None) -> None:
        self._passwords = passwords
        self._lifetime_ms = lifetime_ms
        self._is_over = False

    async def step(self, token: bytes) -> Step:
        """See Mechanism."""
        if self._is_over:
            raise over(NAME)
        self._is_over = True
        try:
            user, password = parse_token(token)
        except ValueError as error:
            raise malformed(NAME, str(error)) from None
        return Step(b"", await self._passwords.check(user, password), self._lifetime_ms)


def parse_token(token: bytes) -> tuple[str, str]:
    """Name and password. Raises ValueError, which does not quote the token."""
    if len(token) > TOKEN_BYTES_MAX:
        raise ValueError(f"it is longer than {TOKEN_BYTES_MAX} bytes")
    try:
        parts = token.decode("utf-8").split("\0")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if len(parts) != 3:
        raise ValueError(f"it has {len(parts)} parts, not 3")
    authorization, user, password = parts
    if authorization not in ("", user):
        raise ValueError("a user can't act for another one")
    check_name(user)
    if not password:
        raise ValueError("the password is empty")
    return user, password


def _spellings(password: str) -> list[bytes]:
    """The password as it was sent and, where that differs, as SASLprep makes it: clients salt either of them."""
    if len(password) > PASSWORD_BYTES_MAX:
        raise ValueError(f"the password is longer than {PASSWORD_BYTES_MAX} bytes")
    found = [password.encode("utf-8", "surrogatepass")]
    if not password.isascii():
        try:
            prepared = saslprep(password).encode("utf-8", "surrogatepass")
        except UnicodeError:
            return found
        if prepared not in found:
            found.append(prepared)
    return found
