"""The keys that sign tokens: a JSON Web Key Set (RFC 7517) at a URL or in a file, fetched aside and kept.

Keys are fetched now and then, and when a token names a key that is not known, but then no more than once in 10 s. When
they can't be fetched, those that are known serve on for a day. Only public keys of asymmetric algorithms count, each
for the algorithms that its own kind allows (RFC 8725, section 3.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

import jwt
from cryptography.exceptions import UnsupportedAlgorithm

from warp.config_values import mask_url
from warp.errors import UsageError

if TYPE_CHECKING:
    from warp.clock import Clock

log = logging.getLogger("warp.security")

T = TypeVar("T")

KEY_SET_BYTES_MAX: Final = 1024 * 1024
KEYS_MAX: Final = 100
CANDIDATES_MAX: Final = 4
"""Keys that are tried for a token that does not name one."""
RSA_BITS_MIN: Final = 2_048
RSA_BITS_MAX: Final = 16_384
READ_TIMEOUT_S: Final = 10.0
READ_WAIT_S: Final = 2 * READ_TIMEOUT_S
READS_MAX: Final = 3
"""Threads that read: a server that sends a header byte by byte can keep one for days."""
REFRESH_URL_S: Final = 600.0
REFRESH_FILE_S: Final = 30.0
REFRESH_FAILED_S: Final = 30.0
LOOK_AGAIN_S: Final = 10.0
"""Between two fetches at least, whatever tokens come."""
KEYS_KEPT_S: Final = 86_400.0
"""How long keys serve that could not be fetched again."""

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA"}),
    "Ed448": frozenset({"EdDSA"}),
}
_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""What makes up a public key of each type; nothing else of it is looked at, private parts above all."""


class Unverified(NamedTuple):
    """A token that says of itself how it is signed."""

    token: str
    algorithm: str
    key_id: str | None


class SigningKey(NamedTuple):
    """A public key, and the algorithms that it may have been used with."""

    key_id: str | None
    algorithms: frozenset[str]
    key: Any


class NoKeySet(Exception):
    """What was read is no key set, or nothing could be read."""


def parse_key_set(data: bytes) -> list[SigningKey]:
    """The keys of a set that can sign tokens; others are left out. Raises NoKeySet when that leaves none."""
    if len(data) > KEY_SET_BYTES_MAX:
        raise NoKeySet(f"the key set is larger than {KEY_SET_BYTES_MAX} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise NoKeySet("the key set is not JSON") from None
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise NoKeySet("the key set has no list of keys")
    if len(keys) > KEYS_MAX:
        raise NoKeySet(f"the key set has more than {KEYS_MAX} keys")
    usable = [key for fields in keys if (key := _parse_key(fields)) is not None]
    if not usable:
        raise NoKeySet("the key set has no public key that signs tokens")
    return usable


def verify(unverified: Unverified, keys: Sequence[SigningKey]) -> bytes | None:
    """The payload of a token that one of the keys has signed; None when none has."""
    for key in keys[:CANDIDATES_MAX]:
        try:
            found = jwt.PyJWS().decode_complete(
                unverified.token, key=key.key, algorithms=sorted(key.algorithms & {unverified.algorithm})
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, UnsupportedAlgorithm):
            continue
        payload = found["payload"]
        return payload if isinstance(payload, bytes) else None
    return None


class KeySource:
    """The keys as they were last read by `read`, which blocks and runs in a thread."""

    def __init__(
        self, read: Callable[[], Sequence[SigningKey]], where: str, clock: Clock, *, refresh_s: float
    ) -> None:
        self._read = read
        self._where = where
        self._clock = clock
        self._refresh_s = refresh_s
        self._keys: Sequence[SigningKey] = ()
        self._read_s = float("-inf")
        self._open_at_s = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._reads_under_way = 0  # threads, also those that nobody waits for any more
        self._refreshing: asyncio.Task[None] | None = None
        self.failures = 0
        """How often the keys could not be read, one after another."""

    @property
    def is_known(self) -> bool:
        """Are there keys that still serve?"""
        return self.age_s < KEYS_KEPT_S

    @property
    def age_s(self) -> float:
        """How long ago the keys were read; infinity when they never were."""
        return self._clock.boottime() - self._read_s

    def find(self, unverified: Unverified) -> list[SigningKey]:
        """The keys that may have signed a token."""
        if not self.is_known:
            return []
        return [
            key
            for key in self._keys
            if unverified.algorithm in key.algorithms
            and (unverified.key_id is None or key.key_id in (None, unverified.key_id))
        ]

    def start(self) -> None:
        """Read the keys now and whenever it is time."""
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def close(self) -> None:
        """Read no more; a thread that still reads is left alone."""
        tasks = [task for task in (self._refreshing, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def look_again(self) -> None:
        """Read the keys, unless that was done a moment ago. Those who ask meanwhile wait for the same."""
        if self._reading is None:
            now_s = self._clock.monotonic()
            if now_s < self._open_at_s:
                return
            self._open_at_s = now_s + LOOK_AGAIN_S
            self._reading = asyncio.get_running_loop().create_task(self._read_once())
        await asyncio.wait([self._reading])

    async def _refresh(self) -> None:
        while True:
            await self.look_again()
            await asyncio.sleep(REFRESH_FAILED_S if self.failures else self._refresh_s)

    async def _read_once(self) -> None:
        began_s = self._clock.boottime()
        try:
            if self._reads_under_way >= READS_MAX:
                raise NoKeySet(f"{READS_MAX} earlier tries are not over")
            self._reads_under_way += 1
            self._keys = await asyncio.wait_for(_in_thread(self._read, self._read_ended), READ_WAIT_S)
        except (NoKeySet, TimeoutError) as error:
            self.failures += 1
            serve = "those that are known serve on" if self.is_known else "no token can be checked"
            log.warning(
                "the keys that sign tokens can't be read from %s: %s; %s",
                self._where, str(error) or "it takes too long", serve,
            )  # fmt: skip
        else:
            if self.failures or self._read_s == float("-inf"):
                log.info("%d keys that sign tokens were read from %s", len(self._keys), self._where)
            self.failures = 0
            self._read_s = began_s
        finally:
            self._reading = None

    def _read_ended(self) -> None:
        self._reads_under_way -= 1


def key_source(where: str, clock: Clock) -> KeySource:
    """The keys at an https:// URL or in a file. Raises UsageError for any other place."""
    if "://" not in where:
        path = Path(where).expanduser()
        return KeySource(lambda: parse_key_set(read_file(path)), where, clock, refresh_s=REFRESH_FILE_S)
    if not where.lower().startswith("https://"):
        raise UsageError("--oauth-jwks is neither an https:// URL nor a file")
    return KeySource(lambda: parse_key_set(read_url(where)), mask_url(where), clock, refresh_s=REFRESH_URL_S)


def read_file(path: Path) -> bytes:
    """A file that may be a key set. Raises NoKeySet."""
    try:
        with path.open("rb") as file:
            return file.read(KEY_SET_BYTES_MAX + 1)
    except OSError as error:
        raise NoKeySet(error.strerror or str(error)) from None


def read_url(url: str, timeout_s: float = READ_TIMEOUT_S) -> bytes:
    """What an https:// URL answers with, which may be a key set. Redirections are not followed. Raises NoKeySet.

    The server's certificate is checked by the system's authorities (or those of SSL_CERT_FILE).
    """
    context = ssl.create_default_context()
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirections())
    request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})
    deadline_s = time.monotonic() + timeout_s
    parts: list[bytes] = []
    left = KEY_SET_BYTES_MAX + 1
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            while left > 0 and (part := answer.read1(min(left, 65_536))):
                parts.append(part)
                left -= len(part)
                if time.monotonic() > deadline_s:
                    raise NoKeySet("it takes too long")
    except urllib.error.HTTPError as error:
        error.close()
        raise NoKeySet(f"the server answers {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoKeySet(str(getattr(error, "reason", error)) or type(error).__name__) from None
    return b"".join(parts)


class _NoRedirections(urllib.request.HTTPRedirectHandler):
    """A redirection could lead from https:// to anywhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """urllib: what to ask instead; None for nothing."""


def _parse_key(fields: object) -> SigningKey | None:
    """A key of a set; None for one that does not sign tokens, or that this release can't use."""
    if not isinstance(fields, dict) or fields.get("use", "sig") != "sig":
        return None
    key_type, key_id = fields.get("kty"), fields.get("kid")
    operations = fields.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(key_id, str | None):
        return None
    members = _MEMBERS.get(key_type) if isinstance(key_type, str) else None
    if members is None:
        return None
    public = {name: fields.get(name) for name in members}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    algorithms = _RSA if key_type == "RSA" else _CURVES.get(str(public["crv"]), frozenset())
    if "alg" in fields:
        algorithms = frozenset(name for name in algorithms if name == fields["alg"])
    key = _load_key({"kty": key_type, **public}) if algorithms else None
    return None if key is None else SigningKey(key_id, algorithms, key)


def _load_key(public: Mapping[str, Any]) -> Any:
    kinds: dict[str, Any] = {
        "RSA": jwt.algorithms.RSAAlgorithm,
        "EC": jwt.algorithms.ECAlgorithm,
        "OKP": jwt.algorithms.OKPAlgorithm,
    }
    try:
        key = kinds[public["kty"]].from_jwk(dict(public))
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if public["kty"] == "RSA" and not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        return None
    return key


async def _in_thread(read: Callable[[], T], ended: Callable[[], None]) -> T:
    """What `read` returns. The thread does not keep the process from ending, nor does it hinder other work.

    `ended` is called on the loop when the thread is done, whether anybody still waits for it or not.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        ended()
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("T", result))

    def run() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = read()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is waited for
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name="warp-jwks", daemon=True).start()
    return await done
