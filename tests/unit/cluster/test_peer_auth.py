"""Signatures between agents: what they cover, and that nothing else is taken for one."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, strategies as st

from warp.cluster.peer_auth import Claim, Denial, NotAuthentic, PeerAuth
from warp.ids import BrokerId

SECRET = bytes(range(32))
AUTH = PeerAuth(SECRET)
CLAIM = Claim(BrokerId(7), 1_700_000_000_000, "00112233445566778899aabb")
TARGET = "/internal/v1/chunk?key=a&start=0&length=1"


def mac(text: str) -> str:
    """RFC 2104, written out."""
    key = SECRET + bytes(32)
    inner = sha256(bytes(each ^ 0x36 for each in key) + text.encode()).digest()
    return sha256(bytes(each ^ 0x5C for each in key) + inner).hexdigest()


def denial(header: str, *, auth: PeerAuth = AUTH, now_ms: int = CLAIM.time_ms) -> Denial:
    with pytest.raises(NotAuthentic) as raised:
        auth.check("GET", TARGET, header, now_ms)
    assert SECRET.hex() not in str(raised.value)
    return raised.value.denial


def test_an_agent_that_knows_the_secret_is_known() -> None:
    header = AUTH.sign("GET", TARGET, CLAIM)
    assert PeerAuth(SECRET).check("GET", TARGET, header, CLAIM.time_ms + 500) == CLAIM


def test_the_signature_is_the_one_that_other_releases_make() -> None:
    signed = f"request\nGET\n{TARGET}\n7\n1700000000000\n00112233445566778899aabb"
    assert AUTH.sign("GET", TARGET, CLAIM) == (
        "WARP-HMAC-SHA256 agent=7, time=1700000000000, nonce=00112233445566778899aabb, signature="
        + mac(signed)
    )
    assert AUTH.sign_answer(CLAIM.nonce, 10, 20) == mac("answer\n00112233445566778899aabb\n10\n20")


def test_a_request_of_another_time_is_told_apart_from_one_of_a_stranger() -> None:
    header = AUTH.sign("GET", TARGET, CLAIM)
    assert denial(header, now_ms=CLAIM.time_ms + 120_001) is Denial.CLOCK
    assert denial(header, now_ms=CLAIM.time_ms - 120_001) is Denial.CLOCK
    assert denial(header, auth=PeerAuth(bytes(32))) is Denial.SIGNATURE
    # A stranger learns nothing about clocks.
    assert denial(header, auth=PeerAuth(bytes(32)), now_ms=0) is Denial.SIGNATURE


@given(st.integers(0, 200), st.characters(codec="latin-1"))
def test_no_other_header_is_taken_for_a_right_one(place: int, character: str) -> None:
    header = AUTH.sign("GET", TARGET, CLAIM)
    changed = header[:place] + character + header[place + 1 :]
    if changed != header:
        assert denial(changed) in (Denial.UNSIGNED, Denial.SIGNATURE)


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    assert denial(text) is Denial.UNSIGNED


@pytest.mark.parametrize("signature", ["", "x", "é", "\udc80", "0" * 64, AUTH.sign_answer(CLAIM.nonce, 2, 3)])
def test_an_answer_is_signed_for_its_request_and_its_bytes(signature: str) -> None:
    right = AUTH.sign_answer(CLAIM.nonce, 1, 2)
    assert AUTH.is_answer(right, CLAIM.nonce, 1, 2)
    assert not AUTH.is_answer(signature, CLAIM.nonce, 1, 2)
    assert not AUTH.is_answer(right, CLAIM.nonce[::-1], 1, 2)
    assert not PeerAuth(bytes(32)).is_answer(right, CLAIM.nonce, 1, 2)


def test_a_request_can_not_be_passed_off_as_an_answer() -> None:
    signature = AUTH.sign("GET", TARGET, CLAIM).rpartition("signature=")[2]
    assert not AUTH.is_answer(signature, CLAIM.nonce, 1, 2)


def test_a_secret_that_could_be_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="15 bytes"):
        PeerAuth(bytes(15))
