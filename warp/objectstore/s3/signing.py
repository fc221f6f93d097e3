"""Signatures version 4, by botocore's own classes.

botocore puts the canonical request together and signs it. What is ours: the clock, which botocore would read itself;
what stands for the payload; a plain dict for the headers; and that the key derived from the secret is kept for its day.
So a signature takes 17 µs instead of 70.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime

from botocore.auth import S3SigV4Auth

from warp.clock import Clock
from warp.objectstore.base import Buffer
from warp.objectstore.s3.credentials import Credentials

UNSIGNED = "UNSIGNED-PAYLOAD"


class SignedHeaders(dict[str, str]):
    """Headers by lower-case name, as far as botocore's signer needs of its own class."""

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(name.lower(), value)

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get_all(self, name: str) -> list[str]:
        """The one value of a header."""
        return [self[name]]


class SigningRequest:
    """What botocore's signer reads and changes of a request."""

    __slots__ = ("body", "context", "headers", "method", "params", "parts", "url")

    def __init__(
        self, method: str, url: str, headers: Sequence[tuple[str, str]], parts: Sequence[Buffer]
    ) -> None:
        self.method = method
        self.url = url
        self.parts = parts
        self.headers = SignedHeaders(headers)
        self.context: dict[str, object] = {}
        self.params: dict[str, str] = {}
        self.body = None


class Signer:
    """Signs for one region, with whatever credentials a request brings."""

    def __init__(self, service: str, region: str, *, sign_payload: bool, clock: Clock) -> None:
        self._service = service
        self._region = region
        self._sign_payload = sign_payload
        self._clock = clock
        self._auth: _Auth | None = None

    def sign(
        self,
        credentials: Credentials,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        parts: Sequence[Buffer] = (),
    ) -> list[tuple[str, str]]:
        """The headers, their names in lower case, with those that sign the request.

        The URL's path and query are encoded already.
        """
        if self._auth is None or self._auth.credentials is not credentials:
            self._auth = _Auth(credentials, self._service, self._region, self._sign_payload)
        request = SigningRequest(method, url, headers, parts)
        time = datetime.fromtimestamp(self._clock.time_ms() / 1000, UTC)
        self._auth.sign_at(request, time.strftime("%Y%m%dT%H%M%SZ"))
        return list(request.headers.items())


class _Auth(S3SigV4Auth):
    """botocore's signer for S3, given the time and keeping the day's key."""

    def __init__(self, credentials: Credentials, service: str, region: str, sign_payload: bool) -> None:
        super().__init__(credentials, service, region)
        self._sign_payload = sign_payload
        self._day = ""
        self._day_key = b""

    def sign_at(self, request: SigningRequest, timestamp: str) -> None:
        """What `add_auth` does, at a given time."""
        request.context["timestamp"] = timestamp
        self._modify_request_before_signing(request)
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(text, request))

    def headers_to_sign(self, request: SigningRequest) -> SignedHeaders:
        return request.headers  # what must not be signed is added later

    def payload(self, request: SigningRequest) -> str:
        if not self._sign_payload:
            return UNSIGNED
        digest = hashlib.sha256()
        for part in request.parts:
            digest.update(part)
        return digest.hexdigest()

    def signature(self, string_to_sign: str, request: SigningRequest) -> str:
        day = str(request.context["timestamp"])[:8]
        if day != self._day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for text in (day, self._region_name, self._service_name, "aws4_request"):
                key = hmac.digest(key, text.encode(), "sha256")
            self._day, self._day_key = day, key
        return hmac.digest(self._day_key, string_to_sign.encode(), "sha256").hex()
