"""PLAIN as RFC 4616 and Kafka have it, and how few passwords are checked at once."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable

import pytest
from hypothesis import given, strategies as st

from tests.unit.security.sasl_support import credentials_of
from warp.security.credentials import SHA_256, SHA_512, Credentials
from warp.security.exchange import WRONG_CREDENTIALS, AuthenticationFailed, Outcome, Step
from warp.security.plain import Derivations, Passwords, PlainExchange, parse_token
from warp.security.principal import Principal

USERS = {"alice": "right", "böb": "pässword, =✓", "fin": "x"}


class Derived:
    """Derives at once, and remembers of what."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, int]] = []

    async def __call__(self, algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        self.calls.append((algorithm, password, iterations))
        return hashlib.pbkdf2_hmac(algorithm, password, salt, iterations)


def authenticate(token: bytes, credentials: Credentials | None = None, derive: Derived | None = None) -> Step:
    passwords = Passwords(credentials or credentials_of(USERS), derive or Derived())
    return asyncio.run(run(PlainExchange(passwords, 5_000).step(token)))


async def run(step: Awaitable[Step]) -> Step:
    return await step


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (b"\0alice\0right", "alice"),
        (b"alice\0alice\0right", "alice"),
        ("\0böb\0pässword, =✓".encode(), "böb"),
        ("\0bo\u0308b\0pässword, =✓".encode(), "böb"),
        ("\0\ufb01n\0x".encode(), "fin"),
    ],
)
def test_name_and_password_let_in(token: bytes, name: str) -> None:
    assert authenticate(token) == Step(b"", Principal("User", name), 5_000)


def test_a_password_may_be_spelled_as_saslprep_has_it_or_as_it_was_set() -> None:
    prepared, raw = credentials_of({"u": "é"}), credentials_of({"u": "e\u0301"})
    for credentials in (prepared, raw):
        assert authenticate("\0u\0e\u0301".encode(), credentials).principal == Principal("User", "u")
    with pytest.raises(AuthenticationFailed):
        authenticate("\0u\0é".encode(), raw)


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"\0",
        b"alice",
        b"alice\0right",
        b"\0alice\0right\0",
        b"\0alice\0right\0more",
        b"\0\0right",
        b"\0alice\0",
        b"bob\0alice\0right",
        b"\0al\xffice\0right",
        b"\0ali\nce\0right",
        b"\0*\0right",
        b"\0ANONYMOUS\0right",
        b"\0" + b"x" * 1025 + b"\0right",
        b"\0alice\0" + b"x" * 5_000,
        b"\0alice\0" + b"x" * 20_000,
    ],
)
def test_a_token_that_is_none_is_refused_without_deriving_anything(token: bytes) -> None:
    derive = Derived()
    with pytest.raises(AuthenticationFailed) as raised:
        authenticate(token, derive=derive)
    assert raised.value.outcome is Outcome.MALFORMED
    assert derive.calls == []
    assert "right" not in str(raised.value) + raised.value.reason


def test_unknown_user_and_wrong_password_are_the_same_message_and_the_same_work() -> None:
    for options in ({}, {"iterations": 9_999}, {"hashes": (SHA_512,)}):
        credentials = credentials_of(USERS, **options)
        work = []
        for token in (b"\0alice\0guess", b"\0nobody\0guess"):
            derive = Derived()
            with pytest.raises(AuthenticationFailed) as raised:
                authenticate(token, credentials, derive)
            assert (raised.value.outcome, str(raised.value)) == (Outcome.REFUSED, WRONG_CREDENTIALS)
            assert "guess" not in raised.value.reason
            work.append(derive.calls)
        assert len(work[0]) == 1
        assert work[0] == work[1]


def test_a_user_that_is_deleted_while_keys_are_derived_does_not_get_in() -> None:
    credentials = credentials_of(USERS)

    class Deleting(Derived):
        async def __call__(self, algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
            derived = await super().__call__(algorithm, password, salt, iterations)
            credentials.entries_changed({}, ())
            return derived

    with pytest.raises(AuthenticationFailed, match=WRONG_CREDENTIALS):
        authenticate(b"\0alice\0right", credentials, Deleting())


def test_a_user_with_one_kind_of_credential_can_use_it() -> None:
    for scram in (SHA_256, SHA_512):
        credentials = credentials_of({"u": "p"}, hashes=(scram,))
        assert authenticate(b"\0u\0p", credentials).principal == Principal("User", "u")


def test_a_second_token_is_too_many() -> None:
    async def test() -> None:
        exchange = PlainExchange(Passwords(credentials_of(USERS), Derived()), None)
        assert (await exchange.step(b"\0alice\0right")).lifetime_ms is None
        with pytest.raises(AuthenticationFailed, match="over"):
            await exchange.step(b"\0alice\0right")

    asyncio.run(test())


@given(st.one_of(st.binary(max_size=100), st.text("\0aé", max_size=30).map(str.encode)))
def test_any_bytes_are_a_token_or_a_value_error(data: bytes) -> None:
    try:
        user, password = parse_token(data)
    except ValueError:
        return
    assert data.decode().endswith(f"\0{user}\0{password}")
    assert user
    assert password


def test_keys_are_derived_in_threads_and_only_so_many_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    right = hashlib.pbkdf2_hmac("sha256", b"p", b"s", 1)
    held, names = threading.Event(), set()

    def derive(algorithm: str, password: bytes, salt: bytes, iterations: int) -> bytes:
        names.add(threading.current_thread().name)
        assert held.wait(20)
        return right

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", derive)

    async def test() -> None:
        derivations = Derivations(threads=1, waiting_max=2)
        try:
            waiting = [asyncio.ensure_future(derivations.derive("sha256", b"p", b"s", 1)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(AuthenticationFailed, match="too many attempts") as raised:
                await derivations.derive("sha256", b"p", b"s", 1)
            assert raised.value.outcome is Outcome.BUSY
            held.set()
            assert await asyncio.gather(*waiting) == [right] * 3
            assert await derivations.derive("sha256", b"p", b"s", 1) == right
        finally:
            held.set()
            derivations.close()
        assert names == {"warp-derive_0"}

    asyncio.run(test())


def test_who_goes_away_leaves_a_place_when_the_thread_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    monkeypatch.setattr(hashlib, "pbkdf2_hmac", lambda *_: b"key" if held.wait(20) else b"")

    async def test() -> None:
        derivations = Derivations(threads=1, waiting_max=0)
        try:
            gone = asyncio.ensure_future(derivations.derive("sha256", b"p", b"s", 1))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
            held.set()
            while True:
                # Its place comes free with the end of what it began.
                try:
                    assert await derivations.derive("sha256", b"p", b"s", 1) == b"key"
                    break
                except AuthenticationFailed:
                    await asyncio.sleep(0.001)
        finally:
            held.set()
            derivations.close()

    asyncio.run(test())
