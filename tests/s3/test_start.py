"""What an operator is told when an agent can't start on its bucket: by the server itself, not by a fault proxy."""

from __future__ import annotations

import asyncio
import os
import re

import pytest

from tests.s3.conftest import AnyServer
from tests.support.rgw import RgwServer
from tests.support.s3 import S3Server, s3_url
from warp.clock import SystemClock
from warp.errors import StartError
from warp.ids import IdSource
from warp.objectstore.base import Abilities
from warp.objectstore.urls import open_object_store


def opened(url: str) -> Abilities:
    """What a store says of itself when it is opened."""

    async def whole() -> Abilities:
        clock = SystemClock()
        store = open_object_store(url, clock=clock, ids=IdSource(clock, os.urandom))
        try:
            return await store.open()
        finally:
            await store.close()

    return asyncio.run(whole())


def refusal(url: str) -> str:
    """The one line with which a start is refused."""
    with pytest.raises(StartError) as caught:
        opened(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_a_server_can_do_is_seen_at_start(server: AnyServer) -> None:
    bucket = server.new_bucket()
    found = opened(s3_url(bucket, "some/prefix", endpoint=server.endpoint))
    assert found == Abilities(conditional_create=True, checks_content=isinstance(server, S3Server))
    listing = server.ask("GET", f"/{bucket}", query={"list-type": "2"})
    assert b"<Key>" not in listing.body


@pytest.mark.rgw
def test_signed_payloads_are_accepted_by_a_server_that_compares_them(
    rgw_server: RgwServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", rgw_server.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", rgw_server.credentials.secret_key)
    url = s3_url(rgw_server.new_bucket(), endpoint=rgw_server.endpoint, sign_payload="true")
    assert opened(url).conditional_create


def test_a_bucket_that_is_not_there_is_named(server: AnyServer) -> None:
    text = refusal(s3_url("no-such-bucket-anywhere", endpoint=server.endpoint))
    assert "there is no bucket 'no-such-bucket-anywhere'" in text


def test_a_server_that_is_not_there_is_named(server: AnyServer) -> None:
    text = refusal(s3_url("bucket", endpoint="http://127.0.0.1:1", attempts="1"))
    assert "127.0.0.1:1" in text
    assert "check endpoint=" in text


@pytest.mark.rgw
@pytest.mark.parametrize(
    ("access_key", "secret_key", "remedy"),
    [
        ("warp-test", "wrong", "AWS_SECRET_ACCESS_KEY"),
        ("nobody", "wrong", "AWS_ACCESS_KEY_ID"),
        ("stranger", "stranger-secret", "allow s3:PutObject on arn:aws:s3:::bucket"),
    ],
)
def test_credentials_that_the_server_refuses_have_their_remedy(
    rgw_server: RgwServer, monkeypatch: pytest.MonkeyPatch, access_key: str, secret_key: str, remedy: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)
    text = refusal(s3_url(rgw_server.new_bucket(), "warp", endpoint=rgw_server.endpoint))
    assert re.search(re.escape(remedy), text), text


def test_without_credentials_it_says_where_to_put_them(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    text = refusal(s3_url(s3_server.new_bucket(), endpoint=s3_server.endpoint))
    assert "AWS_ACCESS_KEY_ID" in text
