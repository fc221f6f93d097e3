"""What the URL of an S3 store says, and what is said of one that says it wrongly."""

from __future__ import annotations

import os

import pytest

from warp.clock import SystemClock
from warp.errors import UsageError
from warp.ids import IdSource
from warp.objectstore.s3.settings import S3Settings
from warp.objectstore.s3.store import S3Store
from warp.objectstore.urls import open_object_store


def settings_of(url: str) -> S3Settings:
    clock = SystemClock()
    store = open_object_store(url, clock=clock, ids=IdSource(clock, os.urandom))
    assert isinstance(store, S3Store)
    assert not store.requests_are_free
    return store.settings


def test_a_bucket_is_enough() -> None:
    assert settings_of("s3://bucket") == S3Settings("bucket")
    assert settings_of("s3://bucket/") == S3Settings("bucket")
    assert settings_of("s3://My_old.Bucket//") == S3Settings("My_old.Bucket")


def test_every_setting_is_read() -> None:
    url = (
        "s3://bucket/a/b%2Dc/?region=eu-central-1&endpoint=https://s3.example.net:9000/&addressing=virtual"
        "&connect_timeout=500ms&read_timeout=1m&connections=8&attempts=2&sign_payload=true&profile=me&ca_bundle=/ca.pem"
    )
    assert settings_of(url) == S3Settings(
        bucket="bucket",
        prefix="a/b-c/",
        region="eu-central-1",
        endpoint="https://s3.example.net:9000",
        addressing="virtual",
        connect_timeout_s=0.5,
        read_timeout_s=60.0,
        connections=8,
        attempts=2,
        sign_payload=True,
        profile="me",
        ca_bundle="/ca.pem",
    )


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://", "name a bucket"),
        ("s3:///prefix", "name a bucket"),
        ("s3://b", "not the name of a bucket"),
        ("s3://bucket:80/", "not the name of a bucket"),
        ("s3://bucket/with space", "write its prefix in"),
        ("s3://bucket/a/../b", "write its prefix in"),
        ("s3://bucket/a//b", "write its prefix in"),
        ("s3://bucket/" + "a" * 101, "prefix is longer than 100"),
        ("s3://bucket?regio=x", "unknown parameter 'regio'; did you mean 'region'"),
        ("s3://bucket?timeout=1s", "did you mean '(read|connect)_timeout'"),
        ("s3://bucket?region=a&region=b", "region is given twice"),
        ("s3://bucket?region=", "not a region"),
        ("s3://bucket?region=eu west", "not a region"),
        ("s3://bucket?endpoint=minio:9000", "write it like https://"),
        ("s3://bucket?endpoint=ftp://x", "write it like https://"),
        ("s3://bucket?endpoint=http://", "write it like https://"),
        ("s3://bucket?endpoint=http://h:99999", "write it like https://"),
        ("s3://bucket?endpoint=http://h/path", "more than a scheme, a host and a port"),
        ("s3://bucket?endpoint=http://me:hidden@h", "have no place in it"),
        ("s3://bucket?addressing=dns", "none of auto, path, virtual"),
        ("s3://bucket?connect_timeout=2", "has no unit"),
        ("s3://bucket?read_timeout=0", "not between 50ms and 600s"),
        ("s3://bucket?read_timeout=2h", "not between 50ms and 600s"),
        ("s3://bucket?connections=0", "number from 1 to 1024"),
        ("s3://bucket?connections=many", "number from 1 to 1024"),
        ("s3://bucket?attempts=11", "number from 1 to 10"),
        ("s3://bucket?sign_payload=yes", "neither true nor false"),
        ("s3://bucket?profile=", "give a value or leave it out"),
        ("s3://bucket?secret_access_key=hidden", "has no place in a URL; set AWS_ACCESS_KEY_ID"),
        ("s3://bucket?session_token=hidden", "has no place in a URL"),
        ("s3://bucket?regio=x&aws_secret_access_key=hidden", "unknown parameter 'regio'"),
        ("s3://me:hidden@bucket/", "takes no user name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_that_hides_secrets(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        settings_of(url)
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)
