"""Requests signed as S3 wants them (AWS Signature Version 4), in a few lines: for what tests ask a server themselves.

An implementation of its own, so that it can disagree with the one under test.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key pair and the region that signatures name."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request, complete."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


def ask(
    endpoint: str,
    credentials: Credentials,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Answer:
    """One signed request on a connection of its own. `path` holds unreserved characters and slashes alone."""
    host = urllib.parse.urlsplit(endpoint).netloc
    target = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in sorted((query or {}).items()))
    signed = sign(credentials, method, host, path, target, body, {**(headers or {})})
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        connection.request(method, path + ("?" + target if target else ""), body, signed)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def sign(
    credentials: Credentials,
    method: str,
    host: str,
    path: str,
    query: str,
    body: bytes,
    headers: dict[str, str],
) -> dict[str, str]:
    """The headers with a signature over all of them. `query` is in canonical form: sorted and quoted."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{stamp[:8]}/{credentials.region}/s3/aws4_request"
    digest = hashlib.sha256(body).hexdigest()
    headers = {name.lower(): value for name, value in headers.items()}
    headers |= {"host": host, "x-amz-date": stamp, "x-amz-content-sha256": digest}
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name].strip()}\n" for name in sorted(headers)]
    canonical = "\n".join([method, path, query, "".join(lines), names, digest])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + credentials.secret_key).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="-_.~")
