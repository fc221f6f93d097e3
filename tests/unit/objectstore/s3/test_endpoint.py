"""Where requests go, for AWS and for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warp.errors import StartError
from warp.objectstore.s3.endpoint import Endpoint, resolve
from warp.objectstore.s3.settings import S3Settings


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("REGION", "DEFAULT_REGION", "ENDPOINT_URL", "ENDPOINT_URL_S3", "PROFILE", "CA_BUNDLE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def found(**settings: Any) -> Endpoint:
    return resolve(S3Settings(**{"bucket": "my-bucket", **settings}))


@pytest.mark.parametrize(
    ("settings", "origin", "path"),
    [
        ({"region": "eu-central-1"}, "https://my-bucket.s3.eu-central-1.amazonaws.com", ""),
        ({"region": "cn-north-1"}, "https://my-bucket.s3.cn-north-1.amazonaws.com.cn", ""),
        (
            {"region": "eu-central-1", "addressing": "path"},
            "https://s3.eu-central-1.amazonaws.com",
            "/my-bucket",
        ),
        (
            {"region": "eu-central-1", "bucket": "with.dots"},
            "https://s3.eu-central-1.amazonaws.com",
            "/with.dots",
        ),
        ({"endpoint": "http://127.0.0.1:9000"}, "http://127.0.0.1:9000", "/my-bucket"),
        ({"endpoint": "https://s3.example.net"}, "https://s3.example.net", "/my-bucket"),
        (
            {"endpoint": "https://s3.example.net:9000", "addressing": "virtual"},
            "https://my-bucket.s3.example.net:9000",
            "",
        ),
        ({"endpoint": "http://[::1]:9000"}, "http://[::1]:9000", "/my-bucket"),
    ],
)
def test_addresses_follow_botocores_rules(settings: dict[str, str], origin: str, path: str) -> None:
    endpoint = found(**settings)
    assert (endpoint.origin, endpoint.path) == (origin, path)
    assert endpoint.service == "s3"
    assert endpoint.region == settings.get("region", "us-east-1")


def test_hosts_and_ports_are_those_of_the_address() -> None:
    endpoint = found(endpoint="http://[::1]:9000")
    assert (endpoint.is_tls, endpoint.host, endpoint.port, endpoint.authority) == (
        False,
        "::1",
        9000,
        "[::1]:9000",
    )
    endpoint = found(region="eu-west-1")
    assert (endpoint.is_tls, endpoint.port, endpoint.authority) == (True, 443, endpoint.host)
    assert found(endpoint="http://h").port == 80


def test_keys_are_encoded_as_they_are_signed() -> None:
    assert found(endpoint="http://h").target("a/b=c~d.e-f_g") == "/my-bucket/a/b%3Dc~d.e-f_g"
    assert found(region="eu-west-1").target("") == "/"


def test_directory_buckets_are_signed_for_their_own_service() -> None:
    endpoint = found(bucket="name--usw2-az1--x-s3", region="us-west-2")
    assert endpoint.service == "s3express"
    assert endpoint.host == "name--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com"


def test_a_region_has_to_be_known_for_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match="which region"):
        found()
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert found().region == "eu-west-2"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert found().region == "eu-west-3"
    assert found(region="eu-west-1").region == "eu-west-1"


def test_the_environment_and_the_profile_may_name_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[default]\nendpoint_url = http://profile:1\nregion = eu-west-1\nca_bundle = /ca.pem\n"
    )
    endpoint = found()
    assert (endpoint.origin, endpoint.region, endpoint.ca_bundle) == (
        "http://profile:1",
        "eu-west-1",
        "/ca.pem",
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://any:1")
    assert found().origin == "http://any:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:1")
    assert found().origin == "http://s3:1"
    assert found(endpoint="http://url:1").origin == "http://url:1"


def test_a_bucket_that_the_rules_refuse_is_a_start_error() -> None:
    with pytest.raises(StartError, match="s3://name--x-s3"):
        found(bucket="name--x-s3", region="eu-west-1")


def test_a_profile_that_is_not_there_is_a_start_error() -> None:
    with pytest.raises(StartError, match="nobody"):
        found(profile="nobody", region="eu-west-1")


@pytest.mark.parametrize(
    "endpoint", ["http://[::1:9", "http://me:secret@host:1", "http://host:99999", "host", ""]
)
def test_an_endpoint_of_the_environment_that_is_none_is_a_start_error(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint or "http://")
    with pytest.raises(StartError, match="AWS_ENDPOINT_URL") as caught:
        found(region="eu-west-1")
    assert "secret" not in str(caught.value)


def test_an_address_of_ipv6_is_an_endpoint() -> None:
    endpoint = found(endpoint="http://[::1]:9000")
    assert (endpoint.host, endpoint.port, endpoint.authority) == ("::1", 9000, "[::1]:9000")
