"""How agents know each other over HTTP: by a secret that those share who can read the cluster's metadata.

A request carries an HMAC-SHA256 (RFC 2104) of its method and target, its sender, the time and a nonce. The answer with
the bytes carries one too, of the nonce, the length and the checksum: so an address that has gone over to somebody else
gives nothing that would be believed.

Nobody remembers nonces: a request changes nothing, and who can listen in to repeat it has seen the answer as well. For
the same reason none of this replaces a network that is closed to others.
"""

from __future__ import annotations

import hmac
import re
from enum import Enum
from typing import NamedTuple

from warp.errors import WarpError
from warp.ids import BrokerId

SECRET_BYTES_MIN = 16
CLOCK_SKEW_MS_MAX = 120_000
"""How far the clocks of two agents may differ, the way of the request included."""
NONCE_BYTES = 12

_SCHEME = "WARP-HMAC-SHA256"
_HEADER = re.compile(
    rf"{_SCHEME} agent=([0-9]{{1,10}}), time=([0-9]{{1,15}}), nonce=([0-9a-f]{{{2 * NONCE_BYTES}}}),"
    r" signature=([0-9a-f]{64})"
)


class Denial(Enum):
    """Why a request is not taken for an agent's."""

    UNSIGNED = "unsigned"
    """It has no signature, or none of this form."""
    SIGNATURE = "signature"
    """It was made with another secret, or for another request."""
    CLOCK = "clock"
    """It is an agent's, but of another time."""


class NotAuthentic(WarpError):
    """The request is not, or not now, of an agent of this cluster. `sender` is who it says it is, if it does."""

    def __init__(self, denial: Denial, message: str, sender: BrokerId | None = None) -> None:
        super().__init__(message)
        self.denial = denial
        self.sender = sender


class Claim(NamedTuple):
    """What an authentic request says of itself."""

    sender: BrokerId
    time_ms: int
    nonce: str


class PeerAuth:
    """Signs and checks with one cluster's secret. Raises ValueError when that is too short to be one."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES_MIN:
            raise ValueError(f"a secret of {len(secret)} bytes is none")
        self._secret = secret

    def sign(self, method: str, target: str, claim: Claim) -> str:
        """The Authorization header of a request; `target` is path and query as they are sent."""
        signature = self._request_signature(method, target, claim)
        return f"{_SCHEME} agent={claim.sender}, time={claim.time_ms}, nonce={claim.nonce}, signature={signature}"

    def check(self, method: str, target: str, header: str, now_ms: int) -> Claim:
        """What an authentic request says of itself. Raises NotAuthentic."""
        match = _HEADER.fullmatch(header)
        if match is None:
            raise NotAuthentic(Denial.UNSIGNED, "it is not signed")
        claim = Claim(BrokerId(int(match[1])), int(match[2]), match[3])
        if not hmac.compare_digest(match[4], self._request_signature(method, target, claim)):
            raise NotAuthentic(Denial.SIGNATURE, "its signature is wrong", claim.sender)
        skew_ms = claim.time_ms - now_ms
        if abs(skew_ms) > CLOCK_SKEW_MS_MAX:
            raise NotAuthentic(Denial.CLOCK, f"its clock differs by {skew_ms / 1000:.0f} s", claim.sender)
        return claim

    def sign_answer(self, nonce: str, length: int, crc32c: int) -> str:
        """The signature of an answer with that many bytes of that checksum."""
        return self._mac(f"answer\n{nonce}\n{length}\n{crc32c}")

    def is_answer(self, signature: str, nonce: str, length: int, crc32c: int) -> bool:
        """Was the answer to the request with this nonce made by an agent of the cluster?"""
        # compare_digest refuses text that is not ASCII.
        return hmac.compare_digest(
            signature.encode("ascii", "replace"), self.sign_answer(nonce, length, crc32c).encode("ascii")
        )

    def _request_signature(self, method: str, target: str, claim: Claim) -> str:
        return self._mac(f"request\n{method}\n{target}\n{claim.sender}\n{claim.time_ms}\n{claim.nonce}")

    def _mac(self, text: str) -> str:
        return hmac.digest(self._secret, text.encode("utf-8", "surrogatepass"), "sha256").hex()
