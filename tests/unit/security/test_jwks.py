"""Key sets: which keys count, where they are read from, and what happens when they can't be."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, strategies as st

from tests.support.tls import Certificate
from tests.unit.security.sasl_support import SigningKeys
from tests.unit.security.test_oauth import StoppedClock
from warp.errors import UsageError
from warp.security import jwks
from warp.security.jwks import (
    KEY_SET_BYTES_MAX,
    KEYS_KEPT_S,
    KEYS_MAX,
    LOOK_AGAIN_S,
    KeySource,
    NoKeySet,
    SigningKey,
    Unverified,
    key_source,
    parse_key_set,
    read_file,
    read_url,
)

KEYS = SigningKeys()
RSA, EC, EC384, ED = KEYS.public()


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def rsa_of(bits: int) -> dict[str, Any]:
    key = rsa.generate_private_key(65537, bits)
    return dict(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))


def test_each_key_has_the_algorithms_of_its_kind() -> None:
    found = {key.key_id: key.algorithms for key in parse_key_set(KEYS.key_set())}
    assert found == {
        "rsa": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
        "ec": {"ES256"},
        "ec384": {"ES384"},
        "ed": {"EdDSA"},
    }
    assert [key.algorithms for key in parse_key_set(key_set({**RSA, "alg": "PS384"}))] == [{"PS384"}]


K256 = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True)


@pytest.mark.parametrize(
    "key",
    [
        None,
        "key",
        [],
        {},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
        {"kty": ["RSA"]},
        {**RSA, "use": "enc"},
        {**RSA, "use": None},
        {**RSA, "key_ops": ["encrypt"]},
        {**RSA, "key_ops": "verify"},
        {**RSA, "kid": 5},
        {**RSA, "alg": "HS256"},
        {**RSA, "alg": "ES256"},
        {**RSA, "alg": "RSA-OAEP"},
        {**RSA, "alg": 5},
        {**RSA, "n": 5},
        {**RSA, "n": "*"},
        {**RSA, "n": ""},
        {**RSA, "e": ""},
        {**EC, "x": "AAAA"},
        {**EC, "crv": "P-384"},
        {**EC, "crv": 5},
        {**EC, "crv": "P-192"},
        {**K256},
        {**ED, "x": "AAAA"},
        {**ED, "crv": "X25519"},
        rsa_of(1024),
    ],
)
def test_a_key_that_does_not_sign_tokens_is_left_out(key: Any) -> None:
    assert [found.key_id for found in parse_key_set(key_set(key, EC))] == ["ec"]
    with pytest.raises(NoKeySet, match="no public key"):
        parse_key_set(key_set(key))


def test_of_a_private_key_only_the_public_part_is_kept() -> None:
    private = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(KEYS.private["rsa"]))
    assert "d" in private
    del private["key_ops"]
    (found,) = parse_key_set(key_set(private))
    assert not hasattr(found.key, "private_numbers")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b"[" * 100_000,
        b" " * (KEY_SET_BYTES_MAX + 1),
        key_set(*[EC] * (KEYS_MAX + 1)),
    ],
)
def test_what_is_no_key_set_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NoKeySet, match="key set"):
        parse_key_set(data)


fields = st.dictionaries(
    st.sampled_from(["kty", "use", "kid", "alg", "n", "e", "crv", "x", "y", "key_ops", "d"]),
    st.none()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB"]),
)


@given(st.one_of(st.binary(max_size=50), st.lists(fields, max_size=4).map(lambda keys: key_set(*keys))))
def test_any_bytes_are_a_key_set_or_none(data: bytes) -> None:
    try:
        assert all(key.algorithms for key in parse_key_set(data))
    except NoKeySet:
        return


# ---- keeping ----


class Reader:
    """What is read next, and how often something was."""

    def __init__(self) -> None:
        self.keys: list[SigningKey] | None = parse_key_set(key_set(RSA))
        self.reads = 0
        self.held: threading.Event | None = None

    def __call__(self) -> list[SigningKey]:
        self.reads += 1
        if self.held is not None:
            assert self.held.wait(20)
        if self.keys is None:
            raise NoKeySet("nobody answers")
        return self.keys


TOKEN = Unverified("", "RS256", "rsa")


def source_of(reader: Reader, clock: StoppedClock) -> KeySource:
    return KeySource(reader, "https://issuer/keys", clock, refresh_s=600)


def test_keys_that_can_not_be_fetched_again_serve_on_for_a_day(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        reader, clock = Reader(), StoppedClock()
        source = source_of(reader, clock)
        assert not source.is_known
        await source.look_again()
        assert source.find(TOKEN)
        reader.keys = None
        clock.seconds += KEYS_KEPT_S - 1
        with caplog.at_level(logging.INFO):
            await source.look_again()
        assert (source.failures, len(source.find(TOKEN))) == (1, 1)
        clock.seconds += LOOK_AGAIN_S + 1
        await source.look_again()
        assert (source.failures, source.is_known, source.find(TOKEN)) == (2, False, [])
        reader.keys = parse_key_set(key_set(RSA))
        clock.seconds += LOOK_AGAIN_S + 1
        await source.look_again()
        assert (source.failures, len(source.find(TOKEN))) == (0, 1)

    asyncio.run(test())
    assert "nobody answers; those that are known serve on" in caplog.text


def test_those_who_wait_for_keys_share_one_read_and_the_loop_goes_on_meanwhile() -> None:
    async def test() -> None:
        reader, clock = Reader(), StoppedClock()
        reader.held = threading.Event()
        source = source_of(reader, clock)
        waiting = [asyncio.ensure_future(source.look_again()) for _ in range(20)]
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        # One who goes away does not end the read for the others.
        waiting[0].cancel()
        reader.held.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert waiting[0].cancelled()
        assert (reader.reads, len(source.find(TOKEN))) == (1, 1)

    asyncio.run(test())


def test_reads_that_never_end_are_few(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("warp.security.jwks.READ_WAIT_S", 0.01)

    async def test() -> None:
        reader, clock = Reader(), StoppedClock()
        hanging = reader.held = threading.Event()
        source = source_of(reader, clock)
        for _ in range(6):
            clock.seconds += LOOK_AGAIN_S + 1
            await source.look_again()
        assert (reader.reads, source.failures) == (3, 6)
        assert "3 earlier tries are not over" in caplog.text
        # Once they are over, it is read again.
        reader.held = None
        hanging.set()
        while not source.is_known:
            clock.seconds += LOOK_AGAIN_S + 1
            await source.look_again()
            await asyncio.sleep(0.005)
        assert source.failures == 0

    asyncio.run(test())


def test_keys_are_read_at_the_start_and_reading_can_be_ended() -> None:
    async def test() -> None:
        reader, clock = Reader(), StoppedClock()
        source = source_of(reader, clock)
        source.start()
        while not source.is_known:  # noqa: ASYNC110  a thread reads
            await asyncio.sleep(0.001)
        await source.close()
        held = Reader()
        held.held = threading.Event()
        source = source_of(held, clock)
        source.start()
        while not held.reads:  # noqa: ASYNC110  a thread reads
            await asyncio.sleep(0.001)
        await source.close()
        held.held.set()
        assert not source.is_known

    asyncio.run(test())


def test_keys_are_read_again_from_time_to_time_and_sooner_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, clock = Reader(), StoppedClock()
    source = source_of(reader, clock)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.seconds += seconds
        reader.keys = None if len(slept) == 1 else parse_key_set(key_set(EC))
        if len(slept) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)

    async def test() -> None:
        source.start()
        assert source._refreshing is not None
        await asyncio.wait([source._refreshing])

    asyncio.run(test())
    assert slept == [600, jwks.REFRESH_FAILED_S, 600]
    assert [key.key_id for key in source.find(Unverified("", "ES256", "ec"))] == ["ec"]


# ---- places ----


def test_a_file_is_read_and_what_is_wrong_with_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(NoKeySet, match="No such file"):
        read_file(path)
    path.write_bytes(KEYS.key_set())
    assert read_file(path) == KEYS.key_set()
    path.write_bytes(b" " * (KEY_SET_BYTES_MAX + 100))
    assert len(read_file(path)) == KEY_SET_BYTES_MAX + 1


def test_the_keys_of_a_file_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(KEYS.key_set())
    source = key_source(str(path), StoppedClock())
    asyncio.run(source.look_again())
    assert source.find(TOKEN)


@pytest.mark.parametrize("where", ["http://issuer/keys", "ftp://issuer/keys", "file:///keys", "s3://b/k"])
def test_other_places_than_https_and_files_are_refused(where: str) -> None:
    with pytest.raises(UsageError, match="https"):
        key_source(where, StoppedClock())


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by what stands in the path."""

    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/keys")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        body = b" " * (2 * KEY_SET_BYTES_MAX) if self.path == "/large" else KEYS.key_set()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (10 if self.path == "/short" else 0)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        """Be silent."""


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    certificate = Certificate(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = certificate.server_context().wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.ca_file))
    monkeypatch.setenv("no_proxy", "*")
    yield lambda path: f"https://localhost:{server.server_address[1]}{path}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_key_set_is_fetched_over_tls(url: Callable[[str], str]) -> None:
    assert read_url(url("/keys")) == KEYS.key_set()
    source = key_source(url("/keys"), StoppedClock())
    asyncio.run(source.look_again())
    assert source.find(TOKEN)


@pytest.mark.parametrize(("path", "problem"), [("/redirect", "answers 302"), ("/missing", "answers 404")])
def test_what_is_not_there_or_elsewhere_is_no_key_set(
    url: Callable[[str], str], path: str, problem: str
) -> None:
    with pytest.raises(NoKeySet, match=problem):
        read_url(url(path))


def test_no_more_is_read_than_a_key_set_may_be_long(url: Callable[[str], str]) -> None:
    assert len(read_url(url("/large"))) == KEY_SET_BYTES_MAX + 1
    with pytest.raises(NoKeySet):
        parse_key_set(read_url(url("/short"))[:-5])


def test_a_server_that_nobody_vouches_for_is_not_believed(
    url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(NoKeySet, match="certificate verify failed"):
        read_url(url("/keys"))


def test_an_answer_that_drips_is_not_waited_for(
    url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 100.0, 200.0])
    clock = StoppedClock()
    monkeypatch.setattr(clock, "monotonic", lambda: next(times))
    monkeypatch.setattr(jwks, "time", clock)
    with pytest.raises(NoKeySet, match="too long"):
        read_url(url("/large"), timeout_s=10)


def test_nobody_at_the_address_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(NoKeySet, match="refused"):
        read_url("https://127.0.0.1:9/keys")


def test_a_password_in_the_url_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    secret = base64.b16encode(b"password").decode()
    source = key_source(f"https://user:{secret}@127.0.0.1:9/keys?token={secret}", StoppedClock())
    with caplog.at_level(logging.DEBUG):
        asyncio.run(source.look_again())
    assert "can't be read from https://user:" in caplog.text
    assert secret not in caplog.text
