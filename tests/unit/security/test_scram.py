"""SCRAM as RFC 5802 and RFC 7677 have it: the examples, whole exchanges, and messages that are none."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.security.sasl_support import (
    SECRET,
    ScramClient,
    credentials_of,
    entries_of,
    salted,
    scram,
    stepped,
)
from warp.security import scram as scram_module
from warp.security.credentials import SCRAM_HASHES, SHA_256, SHA_512, Credentials, ScramHash
from warp.security.exchange import WRONG_CREDENTIALS, AuthenticationFailed, Outcome, Step
from warp.security.names import saslprep
from warp.security.principal import Principal
from warp.security.scram import ScramExchange, is_proof, parse_client_final, parse_client_first

USERS = {"alice": "right", "böb, the =": "pässword ✓"}
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")


def randomness(count: int) -> bytes:
    return b"\x5a" * count


def exchange(
    scram_hash: ScramHash = SHA_256, credentials: Credentials | None = None, **options: Any
) -> ScramExchange:
    return ScramExchange(
        scram_hash, credentials or credentials_of(USERS), randomness, options.get("lifetime_ms")
    )


def test_the_example_of_rfc_7677_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    server_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    encode = base64.b64encode
    monkeypatch.setattr(
        base64,
        "b64encode",
        lambda data: server_nonce.encode() if data == b"nonce" else encode(data),
    )
    credentials = credentials_of({"user": "pencil"}, salt=SALT, hashes=(SHA_256,))
    server = ScramExchange(SHA_256, credentials, lambda count: b"nonce", None)
    first = stepped(server, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert first == Step(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = stepped(
        server,
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    )
    assert final == Step(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", Principal("User", "user"))


@pytest.mark.parametrize("scram_hash", SCRAM_HASHES)
@pytest.mark.parametrize("name", USERS)
def test_who_knows_the_password_gets_in_and_knows_the_server(scram_hash: ScramHash, name: str) -> None:
    client = ScramClient(scram_hash.algorithm, name, USERS[name])
    done = scram(exchange(scram_hash, lifetime_ms=60_000), client)
    assert done.principal == Principal("User", name)
    assert done.token == b"v=" + base64.b64encode(client.server_signature)
    assert done.lifetime_ms == 60_000


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=30, deadline=None)
@given(name=names, password=names, other=names, scram_hash=st.sampled_from(SCRAM_HASHES))
def test_every_name_and_password_make_a_round_trip(
    name: str, password: str, other: str, scram_hash: ScramHash
) -> None:
    try:
        prepared = saslprep(name)
    except UnicodeError:
        return
    if not prepared.isprintable() or prepared in ("", "*", "ANONYMOUS"):
        return
    credentials = credentials_of({prepared: password})
    client = ScramClient(scram_hash.algorithm, name, password)
    assert scram(exchange(scram_hash, credentials), client).principal == Principal("User", prepared)
    if other != password:
        with pytest.raises(AuthenticationFailed):
            scram(exchange(scram_hash, credentials), ScramClient(scram_hash.algorithm, name, other))


@pytest.mark.parametrize("scram_hash", SCRAM_HASHES)
def test_unknown_user_and_wrong_password_look_the_same_to_the_client(scram_hash: ScramHash) -> None:
    seen = []
    for name, password in (("alice", "wrong"), ("nobody", "right")):
        server = exchange(scram_hash)
        client = ScramClient(scram_hash.algorithm, name, password)
        first = stepped(server, client.first())
        with pytest.raises(AuthenticationFailed) as raised:
            server.step(client.final(first.token))
        error = raised.value
        assert (error.outcome, error.message, error.token) == (Outcome.REFUSED, WRONG_CREDENTIALS, b"")
        fields = first.token.split(b",")
        seen.append((str(error), len(first.token), [field[:2] for field in fields], fields[2]))
        assert repr(name) in error.reason
    assert seen[0] == seen[1]


@pytest.mark.parametrize("left", [{}, {"alice": "another"}])
def test_a_credential_that_changes_in_the_middle_of_an_exchange_lets_nobody_in(left: dict[str, str]) -> None:
    credentials = credentials_of(USERS)
    ongoing = exchange(SHA_256, credentials)
    client = ScramClient("sha256", "alice", "right")
    answer = stepped(ongoing, client.first())
    credentials.entries_changed(entries_of(left), ())
    with pytest.raises(AuthenticationFailed) as raised:
        ongoing.step(client.final(answer.token))
    assert raised.value.message == WRONG_CREDENTIALS
    assert raised.value.reason == "the credential has changed meanwhile: 'alice'"


def test_an_unknown_user_has_the_same_salt_always_and_another_than_others() -> None:
    def salt(name: str, secret: bytes = SECRET, scram_hash: ScramHash = SHA_256) -> bytes:
        credentials = credentials_of(USERS, secret)
        first = stepped(exchange(scram_hash, credentials), ScramClient("sha256", name, "").first())
        return first.token.split(b",")[1]

    assert salt("nobody") == salt("nobody")
    others = [salt("nobody2"), salt("nobody", b"another secret"), salt("nobody", scram_hash=SHA_512)]
    assert len({salt("nobody"), *others}) == 4


def test_no_proof_fits_a_user_that_does_not_exist() -> None:
    credentials = credentials_of(USERS)
    made_up = credentials.make_up(SHA_256, "nobody")
    assert not is_proof(made_up, b"signed", bytes(32))
    # Nor does one by whoever would know the made-up keys, because the exchange knows that there is no such user.
    server = exchange(SHA_256, credentials)
    stepped(server, b"n,,n=nobody,r=abc")
    nonce = "abc" + base64.b64encode(randomness(24)).decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scram_module, "is_proof", lambda *_: True)
        with pytest.raises(AuthenticationFailed, match="wrong user name or password"):
            server.step(f"c=biws,r={nonce},p={base64.b64encode(bytes(32)).decode()}".encode())


BAD_FIRST = [
    b"",
    b"n",
    b"n,",
    b"n,,",
    b"n,,n=alice",
    b"n,,r=abc,n=alice",
    b"n,,n=alice,r=",
    b"n,,n=,r=abc",
    b"y,,n=alice,r=abc",
    b"p=tls-unique,,n=alice,r=abc",
    b"x,,n=alice,r=abc",
    b"n,b=alice,n=alice,r=abc",
    b"n,a=bob,n=alice,r=abc",
    b"n,a=a=b,n=alice,r=abc",
    b"n,,m=ext,n=alice,r=abc",
    b"n,,n=al=ice,r=abc",
    b"n,,n=al=2cice,r=abc",
    b"n,,n=alice,r=a\x01bc",
    "n,,n=alice,r=äbc".encode(),
    b"n,,n=alice,r=a bc",
    b"n,,n=alice,r=abc,",
    b"n,,n=alice,r=abc,x",
    b"n,,n=alice,r=abc,=y",
    b"n,,n=alice,r=abc,1=y",
    b"n,,n=alice,r=abc,x=a\0",
    b"n,,n=alice,r=abc,tokenauth=true",
    b"n,,n=\xff\xfe,r=abc",
    b"n,,n=a\x00b,r=abc",
    b"n,,n=a\nb,r=abc",
    b"n,,n=*,r=abc",
    b"n,,n=ANONYMOUS,r=abc",
    b"n,,n=" + b"x" * 1025 + b",r=abc",
    b"n,,n=alice,r=" + b"x" * 1025,
    b"n,,n=alice,r=" + b"x" * 20_000,
]


@pytest.mark.parametrize("message", BAD_FIRST)
def test_a_first_message_that_is_none_is_refused(message: bytes) -> None:
    server = exchange()
    with pytest.raises(AuthenticationFailed) as raised:
        server.step(message)
    assert raised.value.outcome is Outcome.MALFORMED
    assert "alice" not in str(raised.value)
    # The exchange is over: what would have been right comes too late.
    with pytest.raises(AuthenticationFailed, match="over"):
        server.step(b"n,,n=alice,r=abc")


def after_first(build: Callable[[str, str], str]) -> tuple[ScramExchange, bytes]:
    server = exchange()
    client = ScramClient("sha256", "alice", "right", nonce="abc")
    final = client.final(stepped(server, client.first()).token).decode()
    without_proof, _, proof = final.rpartition(",p=")
    return server, build(without_proof.removeprefix("c=biws,"), proof).encode()


@pytest.mark.parametrize(
    "build",
    [
        lambda nonce, proof: "",
        lambda nonce, proof: f"c=biws,{nonce}",
        lambda nonce, proof: f"c=biws,{nonce},p=",
        lambda nonce, proof: f"c=biws,{nonce},p=***",
        lambda nonce, proof: f"c=biws,{nonce},p={proof}\n",
        lambda nonce, proof: f"c=biws,{nonce},p={proof},x=y",
        lambda nonce, proof: f"c=biws,{nonce}x,p={proof}",
        lambda nonce, proof: f"c=biws,{nonce[:-1]},p={proof}",
        lambda nonce, proof: f"c=biws,r=ü,p={proof}",
        lambda nonce, proof: f"c=biws,r=abc,p={proof}",
        lambda nonce, proof: f"{nonce},c=biws,p={proof}",
        lambda nonce, proof: f"c=eSws,{nonce},p={proof}",
        lambda nonce, proof: f"c=,{nonce},p={proof}",
        lambda nonce, proof: f"c=!,{nonce},p={proof}",
        lambda nonce, proof: f"c=biws,{nonce},x,p={proof}",
        lambda nonce, proof: f"c=biws,{nonce},p={proof}" + "A" * 20_000,
    ],
)
def test_a_final_message_that_is_none_is_refused(build: Callable[[str, str], str]) -> None:
    server, message = after_first(build)
    with pytest.raises(AuthenticationFailed):
        server.step(message)
    server, message = after_first(lambda nonce, proof: f"c=biws,{nonce},p={proof}")
    assert stepped(server, message).principal == Principal("User", "alice")


def test_a_right_proof_with_the_nonce_of_another_exchange_is_refused() -> None:
    client = ScramClient("sha256", "alice", "right", nonce="abc")
    server = exchange()
    first = stepped(server, client.first()).token
    key = salted(SHA_256, "right", b"salt", 4096)
    for nonce in ("abc", "abc" + "x" * 32):
        server = exchange()
        stepped(server, client.first())
        without_proof = f"c=biws,r={nonce}"
        signed = f"n=alice,r=abc,{first.decode()},{without_proof}".encode()
        client_key = hmac.digest(key, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
        with pytest.raises(AuthenticationFailed, match="nonce"):
            server.step(f"{without_proof},p={proof}".encode())


def test_a_proof_of_the_wrong_length_or_with_one_bit_changed_is_wrong() -> None:
    for change in (
        lambda proof: proof[:-1],
        lambda proof: proof + b"x",
        lambda proof: bytes([proof[0] ^ 1]) + proof[1:],
    ):

        def changed(nonce: str, proof: str, change: Callable[[bytes], bytes] = change) -> str:
            return f"c=biws,{nonce},p={base64.b64encode(change(base64.b64decode(proof))).decode()}"

        server, message = after_first(changed)
        with pytest.raises(AuthenticationFailed, match="wrong user name or password"):
            server.step(message)


def test_extensions_that_are_not_known_are_left_alone() -> None:
    first = parse_client_first(b"n,a=alice,n=alice,r=abc,ext=1,tokenauth=false")
    assert (first.header, first.authorization, first.user, first.nonce) == (
        "n,a=alice,",
        "alice",
        "alice",
        "abc",
    )
    assert first.bare == "n=alice,r=abc,ext=1,tokenauth=false"
    final = parse_client_final(b"c=biws,r=abc,ext=1,p=AAAA")
    assert final.without_proof == "c=biws,r=abc,ext=1"


def test_an_exchange_that_is_over_takes_no_more_tokens() -> None:
    server = exchange()
    client = ScramClient("sha256", "alice", "right")
    final = client.final(stepped(server, client.first()).token)
    assert stepped(server, final).principal is not None
    with pytest.raises(AuthenticationFailed, match="over"):
        server.step(final)


tokens = st.one_of(
    st.binary(max_size=200),
    st.text("n,=arcp0AZ\x01\0é", max_size=60).map(lambda text: text.encode()),
    st.builds(
        lambda name, rest: b"n,,n=" + name + b",r=abc" + rest, st.binary(max_size=20), st.binary(max_size=20)
    ),
)


@given(st.lists(tokens, min_size=1, max_size=3))
def test_any_bytes_lead_to_a_step_or_a_failure_and_never_to_a_principal(messages: list[bytes]) -> None:
    server = exchange(credentials=CREDENTIALS)
    for message in messages:
        try:
            assert stepped(server, message).principal is None
        except AuthenticationFailed:
            return


CREDENTIALS = credentials_of(USERS)


@given(st.binary(max_size=200), st.sampled_from(["c=biws,", ""]))
def test_any_final_message_fails_as_it_should(data: bytes, prefix: str) -> None:
    server = exchange(credentials=CREDENTIALS)
    stepped(server, b"n,,n=alice,r=abc")
    with pytest.raises(AuthenticationFailed):
        server.step(prefix.encode() + data)
