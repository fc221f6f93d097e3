"""Signatures beside AWS's published examples and botocore's own client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import Session

from tests.support.s3_scripted import FakeServer, Request, TinyS3, fake_server
from tests.unit.objectstore.s3.support import run
from warp.clock import SystemClock
from warp.objectstore.s3.credentials import Credentials
from warp.objectstore.s3.signing import Signer

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


class ClockAt(SystemClock):
    """Shows the time that it is told."""

    def __init__(self, time: datetime) -> None:
        self.time = time

    def time_ms(self) -> int:
        return int(self.time.timestamp() * 1000)


@pytest.mark.parametrize(
    ("target", "headers", "signature"),
    [
        (
            "/test.txt", [("range", "bytes=0-9")],
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "/?lifecycle", [],
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "/?max-keys=2&prefix=J", [],
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)  # fmt: skip
def test_the_examples_of_the_s3_reference_are_signed_as_printed(
    target: str, headers: list[tuple[str, str]], signature: str
) -> None:
    """Amazon S3 API Reference, "Signature Calculations for the Authorization Header", transferring in one chunk."""
    clock = ClockAt(datetime(2013, 5, 24, tzinfo=UTC))
    signer = Signer("s3", "us-east-1", sign_payload=True, clock=clock)
    host = "examplebucket.s3.amazonaws.com"
    signed = dict(signer.sign(EXAMPLE, "GET", f"https://{host}{target}", [("host", host), *headers]))
    assert signed["authorization"].endswith(f"Signature={signature}")
    assert signed["x-amz-date"] == "20130524T000000Z"


OPERATIONS: dict[str, Callable[[Any], object]] = {
    "put": lambda s3: s3.put_object(
        Bucket="bucket", Key="p/a b/ü=~1", Body=b"abc", ChecksumCRC32C="Nks/tw=="
    ),
    "get": lambda s3: s3.get_object(Bucket="bucket", Key="p/k", Range="bytes=0-1", IfMatch='"e1"')[
        "Body"
    ].read(),
    "head": lambda s3: s3.head_object(Bucket="bucket", Key="p/k"),
    "list": lambda s3: s3.list_objects_v2(Bucket="bucket", Prefix="p/=& ü", MaxKeys=7, EncodingType="url"),
    "delete": lambda s3: s3.delete_object(Bucket="bucket", Key="p/k"),
    "delete many": lambda s3: s3.delete_objects(
        Bucket="bucket", Delete={"Objects": [{"Key": "a"}, {"Key": "b"}]}
    ),
}


@pytest.mark.parametrize("sign_payload", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("token", [None, "a+session/token=="], ids=["no token", "token"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_requests_are_signed_as_botocores_own_client_signs_them(
    operation: str, token: str | None, sign_payload: bool
) -> None:
    def ask(endpoint: str) -> None:
        session = Session()
        session.set_credentials("AKIDEXAMPLE", "secret", token)
        client = session.create_client(
            "s3",
            region_name="eu-central-1",
            endpoint_url=endpoint,
            config=Config(s3={"addressing_style": "path", "payload_signing_enabled": sign_payload}),
        )
        OPERATIONS[operation](client)
        client.close()

    async def whole() -> FakeServer:
        async with fake_server(TinyS3(objects={"p/k": b"abc"})) as server:
            await asyncio.to_thread(ask, server.endpoint)
        return server

    server = run(whole())
    (theirs,) = server.requests
    assert signed_by_us(theirs, server.endpoint, token, sign_payload) == theirs.headers["authorization"]


def signed_by_us(theirs: Request, endpoint: str, token: str | None, sign_payload: bool) -> str:
    """What we say to the same request at the same time."""
    names = re.search(r"SignedHeaders=([^,]+),", theirs.headers["authorization"])
    assert names is not None
    ours = {"x-amz-date", "x-amz-content-sha256", "x-amz-security-token"}
    headers = [(name, theirs.headers[name]) for name in names[1].split(";") if name not in ours]
    time = datetime.strptime(theirs.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    signer = Signer("s3", "eu-central-1", sign_payload=sign_payload, clock=ClockAt(time))
    credentials = Credentials("AKIDEXAMPLE", "secret", token)
    parts = [theirs.body[:2], theirs.body[2:]]
    signed = signer.sign(credentials, theirs.method, endpoint + theirs.target, headers, parts)
    return dict(signed)["authorization"]


def test_the_key_of_the_day_is_made_anew_for_another_day_and_other_credentials() -> None:
    clock = ClockAt(datetime(2013, 5, 24, 23, 59, 59, tzinfo=UTC))
    kept = Signer("s3", "us-east-1", sign_payload=False, clock=clock)
    moments = [
        (EXAMPLE, datetime(2013, 5, 24, 23, 59, 59, tzinfo=UTC)),
        (EXAMPLE, datetime(2013, 5, 25, 0, 0, 0, tzinfo=UTC)),
        (Credentials(EXAMPLE.access_key, "another secret"), datetime(2013, 5, 25, 0, 0, 0, tzinfo=UTC)),
    ]
    seen = set()
    for credentials, clock.time in moments:
        fresh = Signer("s3", "us-east-1", sign_payload=False, clock=clock)
        asked = ("GET", "https://h/k", [("host", "h")])
        assert kept.sign(credentials, *asked) == fresh.sign(credentials, *asked)
        seen.add(dict(kept.sign(credentials, *asked))["authorization"])
    assert len(seen) == 3
