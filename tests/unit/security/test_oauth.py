"""OAUTHBEARER: tokens that let in, tokens that don't, and messages that are none."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings, strategies as st

from tests.unit.security.sasl_support import NOW_MS, NOW_S, SigningKeys, bearer
from warp.security.exchange import AuthenticationFailed, Outcome, Step
from warp.security.jwks import KeySource, NoKeySet, SigningKey, parse_key_set
from warp.security.names import check_name
from warp.security.oauth import (
    CLOCK_SKEW_MS,
    BearerExchange,
    TokenRules,
    Tokens,
    check_claims,
    parse_client_message,
    parse_token,
)
from warp.security.principal import Principal

KEYS = SigningKeys()
RULES = TokenRules("https://issuer", "warp", "sub")
REFUSED = Step(b'{"status":"invalid_token"}')


class StoppedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.seconds = 1_000.0

    def time_ms(self) -> int:
        return self.now_ms

    def monotonic(self) -> float:
        return self.seconds

    def boottime(self) -> float:
        return self.seconds


class Issuer:
    """Where keys are read from, without a thread's delay mattering."""

    def __init__(self, data: bytes | None = None) -> None:
        self.data = KEYS.key_set() if data is None else data
        self.reads = 0

    def read(self) -> list[SigningKey]:
        self.reads += 1
        if not self.data:
            raise NoKeySet("nobody answers")
        return parse_key_set(self.data)


class World:
    """Tokens, their issuer and a clock."""

    def __init__(self, rules: TokenRules = RULES, data: bytes | None = None) -> None:
        self.clock = StoppedClock()
        self.issuer = Issuer(data)
        self.source = KeySource(self.issuer.read, "here", self.clock, refresh_s=600)
        self.tokens = Tokens(self.source, rules, self.clock)

    def show(
        self, message: bytes, session_max_ms: int | None = None
    ) -> tuple[Step, AuthenticationFailed | None]:
        """The answer to a message, and the failure that follows a refusal."""

        async def test() -> tuple[Step, AuthenticationFailed | None]:
            exchange = self.tokens.begin(session_max_ms)
            step = await exchange.step(message)
            if step.principal is not None:
                return step, None
            with pytest.raises(AuthenticationFailed) as raised:
                await exchange.step(b"\x01")
            return step, raised.value

        return asyncio.run(test())


def refusal(token: str, rules: TokenRules = RULES) -> AuthenticationFailed:
    """The failure that a token ends with; it is told as RFC 7628 has it, and quotes nothing of the token."""
    step, error = World(rules).show(bearer(token))
    assert step == REFUSED
    assert error is not None
    assert error.outcome is Outcome.REFUSED
    for part in token.split("."):
        assert len(part) < 8 or part not in str(error) + error.reason
    return error


@pytest.mark.parametrize("name", ["rsa", "ec", "ec384", "ed"])
def test_a_token_of_the_issuer_lets_in_until_it_expires(name: str) -> None:
    step, error = World().show(bearer(KEYS.token(name)))
    assert error is None
    assert step == Step(b"", Principal("User", "alice"), 600_000)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_may_sign_by_all_of_its_algorithms(algorithm: str) -> None:
    token = jwt.encode(
        {"sub": "alice", "iss": "https://issuer", "aud": ["other", "warp"], "exp": NOW_S + 5.5},
        KEYS.private["rsa"],
        algorithm,
    )
    step, _ = World().show(bearer(token))
    assert step == Step(b"", Principal("User", "alice"), 5_500)


def test_a_session_is_no_longer_than_it_may_be() -> None:
    for session_max_ms, expected in ((1_000, 1_000), (900_000, 600_000), (None, 600_000)):
        step, _ = World().show(bearer(KEYS.token()), session_max_ms)
        assert step.lifetime_ms == expected


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"exp": NOW_S}, "expired"),
        ({"exp": NOW_S - 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "not a time"),
        ({"exp": True}, "not a time"),
        ({"exp": -1}, "out of range"),
        ({"exp": 10**400}, "out of range"),
        ({"exp": float("inf")}, "out of range"),
        ({"exp": float("nan")}, "out of range"),
        ({"exp": [NOW_S + 9]}, "not a time"),
        ({"nbf": NOW_S + 31}, "nbf"),
        ({"nbf": "x"}, "not a time"),
        ({"iat": NOW_S + 31}, "iat"),
        ({"iat": {}}, "not a time"),
        ({"iss": "https://other"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ["https://issuer"]}, "issuer"),
        ({"iss": "https://issuer/"}, "issuer"),
        ({"aud": "other"}, "somebody else"),
        ({"aud": None}, "somebody else"),
        ({"aud": []}, "somebody else"),
        ({"aud": {"warp": 1}}, "somebody else"),
        ({"aud": "warped"}, "somebody else"),
        ({"sub": None}, "names nobody"),
        ({"sub": 7}, "names nobody"),
        ({"sub": ["alice"]}, "names nobody"),
        ({"sub": ""}, "empty"),
        ({"sub": "a\nb"}, "printed"),
        ({"sub": "a\ud800"}, "printed"),
        ({"sub": "x" * 1025}, "longer"),
        ({"sub": "*"}, "can be called"),
        ({"sub": "ANONYMOUS"}, "can be called"),
    ],
)
def test_claims_that_are_wrong_are_refused_with_the_reason(claims: dict[str, Any], problem: str) -> None:
    assert problem in str(refusal(signed(claims)))


def signed(claims: dict[str, Any]) -> str:
    """As SigningKeys.token, with claims that no JWT library would make."""
    made = {
        "sub": "alice",
        "iss": "https://issuer",
        "aud": "warp",
        "iat": NOW_S,
        "exp": NOW_S + 600,
        **claims,
    }
    payload = json.dumps({name: value for name, value in made.items() if value is not None}).encode()
    return jwt.PyJWS().encode(payload, KEYS.private["rsa"], "RS256", headers={"kid": "rsa"})


def test_the_issuers_clock_may_be_a_little_ahead() -> None:
    ahead_s = CLOCK_SKEW_MS // 1000
    step, _ = World().show(bearer(KEYS.token(iat=NOW_S + ahead_s, nbf=NOW_S + ahead_s)))
    assert step.principal is not None


def test_without_rules_any_issuer_and_audience_will_do_and_any_claim_may_name_the_user() -> None:
    rules = TokenRules(None, None, "preferred_username")
    token = KEYS.token(iss=None, aud=None, preferred_username="Jürgen, CN=x")
    step, _ = World(rules).show(bearer(token))
    assert step.principal == Principal("User", "Jürgen, CN=x")


def test_who_a_client_wants_to_be_has_to_be_who_the_token_names() -> None:
    token = KEYS.token(sub="a,b=c")
    step, _ = World().show(bearer(token, authorization="a=2Cb=3Dc", extensions="host=x\x01port=9092\x01"))
    assert step.principal == Principal("User", "a,b=c")
    step, error = World().show(bearer(token, authorization="root"))
    assert step == REFUSED
    assert "another" in str(error)


# ---- how a token is signed ----


def part(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: Any, signature: bytes = b"", claims: Any = None) -> str:
    made = claims or {"sub": "root", "iss": "https://issuer", "aud": "warp", "exp": NOW_S + 600}
    return f"{part(header)}.{part(made)}.{part(signature)}"


def pem(name: str) -> bytes:
    key: bytes = (
        KEYS.private[name]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return key


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_a_token_that_nobody_has_signed_is_refused(algorithm: str) -> None:
    for header in ({"alg": algorithm}, {"alg": algorithm, "kid": "rsa"}):
        refusal(forged(header))
        refusal(forged(header).rstrip("."))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_no_secret_to_sign_with(algorithm: str) -> None:
    numbers = KEYS.private["rsa"].public_key().public_numbers()
    modulus = numbers.n.to_bytes(256, "big")
    for secret in (pem("rsa"), pem("rsa").strip(), pem("ec"), modulus, part(modulus).encode(), b""):
        for kid in ({"kid": "rsa"}, {"kid": "ec"}, {}):
            text = forged({"alg": algorithm, **kid}).rpartition(".")[0]
            signature = hmac.digest(secret, text.encode(), f"sha{algorithm[2:]}")
            assert "does not offer" in str(refusal(f"{text}.{part(signature)}"))


def test_a_symmetric_key_in_the_set_is_none() -> None:
    secret = b"x" * 32
    key = {"kty": "oct", "k": part(secret), "kid": "oct", "alg": "HS256"}
    world = World(data=json.dumps({"keys": [key, *KEYS.public("rsa")]}).encode())
    text = forged({"alg": "HS256", "kid": "oct"}).rpartition(".")[0]
    step, _ = world.show(bearer(f"{text}.{part(hmac.digest(secret, text.encode(), 'sha256'))}"))
    assert step == REFUSED


def test_a_key_signs_only_by_its_own_algorithms_and_only_under_its_own_id() -> None:
    assert "does not offer" in str(refusal(KEYS.token("rsa", header={"kid": "ec"})))
    assert "does not offer" in str(refusal(KEYS.token("ec384", header={"kid": "ec"})))
    assert "does not offer" in str(refusal(KEYS.token("rsa", header={"kid": "unknown"})))
    restricted = [{**KEYS.public("rsa")[0], "alg": "RS512"}]
    step, _ = World(data=json.dumps({"keys": restricted}).encode()).show(bearer(KEYS.token("rsa")))
    assert step == REFUSED


def test_a_key_that_a_token_brings_along_is_not_looked_at() -> None:
    own = rsa.generate_private_key(65537, 2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key(), as_dict=True)
    for header in (
        {"jwk": public, "kid": "rsa"},
        {"jwk": public},
        {"jku": "https://evil.invalid/keys", "kid": "rsa"},
        {"x5u": "https://evil.invalid/chain", "kid": "rsa"},
    ):
        token = jwt.encode(
            {"sub": "root", "iss": "https://issuer", "aud": "warp", "exp": NOW_S + 9},
            own,
            "RS256",
            headers=header,
        )
        assert "signature is wrong" in str(refusal(token))


def test_a_token_that_was_changed_is_refused() -> None:
    header, claims, signature = KEYS.token().split(".")
    other = part({"sub": "root", "iss": "https://issuer", "aud": "warp", "exp": NOW_S + 600})
    for token in (
        f"{header}.{other}.{signature}",
        f"{header}.{claims}.{signature[:-4]}",
        f"{header}.{claims}.",
        f"{header}.{claims}.{part(bytes(256))}",
        f"{header}.{claims}",
        f"{header}.{claims}.{signature}.more",
        f"{header}.{claims}.{signature}.a.b",
        f"{part({'alg': 'RS256', 'kid': 'rsa', 'x': 1})}.{claims}.{signature}",
    ):
        refusal(token)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b"null",
        b'"RS256"',
        b"[" * 6_000,
        b"\xff",
        {},
        {"alg": None},
        {"alg": 5},
        {"alg": ["RS256"]},
        {"alg": "RS256", "kid": 5},
        {"alg": "RS256", "kid": ["rsa"]},
        {"alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": False},
        {"alg": "RS256", "kid": "rsa", "crit": []},
        {"alg": "RS256", "kid": "x" * 9_000},
    ],
)
def test_a_header_that_is_none_is_refused(header: Any) -> None:
    refusal(forged(header, b"signature"))


def test_a_token_without_a_key_id_is_tried_with_the_keys_of_its_algorithm() -> None:
    token = jwt.encode(
        {"sub": "alice", "iss": "https://issuer", "aud": "warp", "exp": NOW_S + 9},
        KEYS.private["ec"],
        "ES256",
    )
    assert World().show(bearer(token))[0].principal == Principal("User", "alice")
    assert "signature is wrong" in str(refusal(forged({"alg": "ES256"}, bytes(64))))


# ---- keys that come and go ----


def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    world = World(data=KEYS.key_set("rsa"))
    assert world.show(bearer(KEYS.token("rsa")))[0].principal is not None
    assert world.issuer.reads == 1
    world.issuer.data = KEYS.key_set("ec")
    world.clock.seconds += 60
    assert world.show(bearer(KEYS.token("ec")))[0].principal is not None
    assert world.issuer.reads == 2
    # The old one is gone with that.
    assert world.show(bearer(KEYS.token("rsa")))[0] == REFUSED


def test_tokens_with_keys_that_nobody_has_fetch_no_more_than_once_in_a_while() -> None:
    world = World(data=KEYS.key_set("rsa"))
    for _ in range(50):
        assert world.show(bearer(KEYS.token("ec")))[0] == REFUSED
    assert world.issuer.reads == 1
    world.clock.seconds += 11
    world.show(bearer(KEYS.token("ec")))
    world.show(bearer(KEYS.token("rsa")))
    assert world.issuer.reads == 2


def test_without_keys_tokens_can_not_be_checked() -> None:
    world = World(data=b"")
    with pytest.raises(AuthenticationFailed, match="at the moment") as raised:
        world.show(bearer(KEYS.token()))
    assert raised.value.outcome is Outcome.UNAVAILABLE


# ---- messages ----


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x01",
        b"n,,",
        b"n,,\x01",
        b"n,,\x01\x01",
        b"n,,\x01auth=Bearer abc\x01",
        b"n,,\x01auth=Bearer abc",
        b"y,,\x01auth=Bearer abc\x01\x01",
        b"p=x,,\x01auth=Bearer abc\x01\x01",
        b"n,b=x,\x01auth=Bearer abc\x01\x01",
        b"n,a=x=y,\x01auth=Bearer abc\x01\x01",
        b",,\x01auth=Bearer abc\x01\x01",
        b"n,,\x01auth=Basic abc\x01\x01",
        b"n,,\x01auth=Bearer\x01\x01",
        b"n,,\x01auth=Bearer \x01\x01",
        b"n,,\x01auth=Bearer a b\x01\x01",
        b"n,,\x01auth=Bearer a\x01auth=Bearer b\x01\x01",
        b"n,,\x01auth=Bearer abc\x01ext\x01\x01",
        b"n,,\x01auth=Bearer abc\x011=x\x01\x01",
        b"n,,\x01auth=Bearer abc\x01x=\xc3\xa4\x01\x01",
        b"n,,\x01auth=Bearer \xff\x01\x01",
        b"n,,\x01auth=Bearer " + b"x" * 70_000 + b"\x01\x01",
    ],
)
def test_a_message_that_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(AuthenticationFailed) as raised:
        World().show(message)
    assert raised.value.outcome is Outcome.MALFORMED


def test_the_scheme_may_be_written_in_any_case() -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert parse_client_message(f"n,,\x01auth={scheme} abc\x01\x01".encode()) == ("", "abc")


def test_a_refusal_is_ended_by_one_byte_and_a_success_by_nothing() -> None:
    async def test() -> None:
        world = World()
        refused = world.tokens.begin(None)
        assert await refused.step(bearer("a.b.c")) == REFUSED
        with pytest.raises(AuthenticationFailed) as raised:
            await refused.step(bearer(KEYS.token()))
        assert raised.value.outcome is Outcome.MALFORMED
        with pytest.raises(AuthenticationFailed, match="over"):
            await refused.step(b"\x01")
        done = world.tokens.begin(None)
        assert (await done.step(bearer(KEYS.token()))).principal is not None
        for token in (b"\x01", bearer(KEYS.token())):
            with pytest.raises(AuthenticationFailed, match="over"):
                await done.step(token)

    asyncio.run(test())


# ---- anything at all ----

FUZZED = World()
FUZZED.show(bearer(KEYS.token()))
GOOD = KEYS.token()


def fails(message: bytes) -> None:
    """Whatever it is, it lets nobody in, and nothing else is raised than a failure to authenticate."""

    async def test() -> None:
        exchange = BearerExchange(FUZZED.tokens, None)
        try:
            assert (await exchange.step(message)).principal is None
        except AuthenticationFailed:
            return
        with pytest.raises(AuthenticationFailed):
            await exchange.step(b"\x01")

    asyncio.run(test())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
headers = st.fixed_dictionaries(
    {"alg": st.sampled_from(["RS256", "ES256", "ES384", "EdDSA", "PS256", "none", "HS256"]) | json_values},
    optional={
        "kid": st.sampled_from(["rsa", "ec", "ed"]) | json_values,
        "crit": json_values,
        "b64": json_values,
    },
)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=100),
        st.binary(max_size=60).map(lambda data: b"n,,\x01auth=Bearer " + data + b"\x01\x01"),
        st.text("abc._-=+/~", max_size=60).map(bearer),
        st.builds(lambda header, data: bearer(forged(header, data)), headers, st.binary(max_size=300)),
        st.builds(
            lambda header, claims: bearer(forged(header, b"x", claims)), st.binary(max_size=60), json_values
        ),
    )
)
def test_any_message_lets_nobody_in(message: bytes) -> None:
    fails(message)


# The last characters of base64 have bits that mean nothing.
@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 3), st.sampled_from("ABab01-_.="))
def test_a_token_with_one_character_changed_lets_nobody_in(index: int, character: str) -> None:
    changed = GOOD[:index] + character + GOOD[index + 1 :]
    if changed != GOOD:
        fails(bearer(changed))


@given(json_values, st.sampled_from([RULES, TokenRules()]))
def test_any_claims_are_accepted_or_a_value_error(claims: Any, rules: TokenRules) -> None:
    try:
        accepted = check_claims(json.dumps(claims).encode(), rules, NOW_MS)
    except ValueError:
        return
    assert check_name(accepted.name)
    assert accepted.expires_ms > NOW_MS


@given(st.text(max_size=100))
def test_any_text_is_a_token_or_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_token(text)
