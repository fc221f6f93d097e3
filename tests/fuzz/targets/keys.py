"""What an identity provider answers with: a key set, and tokens that go with none, or with one of its keys.

The first byte says how the input is cut into a key set and a token. Reading either gives what can be used, or the error
that says so; a token counts as signed only if its signature is right for its very bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import ED_KEY, HEADER, RULES, claims, key_set, signed
from tests.unit.security.sasl_support import NOW_MS
from warp.security.jwks import KEYS_MAX, NoKeySet, parse_key_set, verify
from warp.security.oauth import check_claims, parse_token

OWN_KEYS = parse_key_set(key_set())


def check(data: bytes) -> None:
    """A key set, then a token."""
    script = Script(data)
    keys = script.take(script.number(2))
    token = script.rest().decode("utf-8", "replace")
    found = list(OWN_KEYS)
    if keys:
        try:
            found = parse_key_set(keys)
        except NoKeySet as error:
            mark(said(error))
        else:
            mark("keys", min(len(found), 3), sorted(found[0].algorithms)[:1])
            assert 0 < len(found) <= KEYS_MAX
    try:
        unverified = parse_token(token)
    except ValueError as error:
        mark(said(error))
        return
    payload = verify(unverified, found)
    mark("payload", payload is None)
    if payload is None:
        return
    if not keys:
        front, _, signature = token.rpartition(".")
        assert signed_again(front) == signature or unverified.algorithm != "EdDSA"
    try:
        accepted = check_claims(payload, RULES, NOW_MS)
    except ValueError as error:
        mark(said(error))
        return
    mark("accepted")
    assert accepted.name
    assert accepted.expires_ms > NOW_MS


def signed_again(front: str) -> str:
    """The signature that belongs to header and payload."""
    import jwt

    return jwt.utils.base64url_encode(ED_KEY.sign(front.encode())).decode()


def seeds() -> Iterable[bytes]:
    """Key sets of every type, and tokens."""
    import json

    good = signed(HEADER, json.dumps(claims()).encode()).encode()
    yield bytes(2) + good
    yield bytes(2) + good[:-4] + b"AAAA"
    yield bytes(2) + signed(b'{"alg":"EdDSA"}', json.dumps(claims(exp="soon")).encode()).encode()
    yield bytes(2) + signed(b'{"alg":"EdDSA","b64":false,"crit":["b64"]}', b"{}").encode()
    yield len(key_set()).to_bytes(2, "big") + key_set() + good
    rsa = {"kty": "RSA", "kid": "r", "n": "0" * 342 + "A", "e": "AQAB", "alg": "RS256"}
    for keys in (
        [rsa],
        [{**rsa, "use": "enc"}],
        [{"kty": "oct", "k": "AAAA"}],
        [{"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}],
        [],
    ):
        made = json.dumps({"keys": keys}).encode()
        yield len(made).to_bytes(2, "big") + made + good


TARGET = Target(
    check,
    seeds,
    words=(
        b'"kty":"RSA"', b'"kty":"EC"', b'"kty":"OKP"', b'"crv":"P-256"', b'"crv":"Ed25519"', b'"n":', b'"e":', b'"x":',
        b'"y":', b'"use":"sig"', b'"key_ops":["verify"]', b'"alg":', b'"kid":', b"null", b"[[[[[[[[", b"1e400", b"NaN",
        b"AQAB", b"eyJ",
    ),
)  # fmt: skip
