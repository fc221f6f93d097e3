"""The S3 servers as fixtures: moto everywhere, Ceph's gateway where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.broker.support import BrokerTest, RunWithBroker, beside_agent
from tests.support.fault_proxy import FaultProxy
from tests.support.rgw import RgwServer
from tests.support.s3 import S3Server, environment_of, s3_url

AnyServer = S3Server | RgwServer


@pytest.fixture(params=["moto", pytest.param("rgw", marks=pytest.mark.rgw)])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AnyServer:
    """An S3 server; the environment holds credentials for it."""
    found: AnyServer = request.getfixturevalue("s3_server" if request.param == "moto" else "rgw_server")
    for name, value in environment_of(found.credentials).items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def proxy(server: AnyServer) -> Iterator[FaultProxy]:
    """In front of the server, without faults."""
    with FaultProxy(server.endpoint) as made:
        yield made


@pytest.fixture
def store_url(server: AnyServer, proxy: FaultProxy) -> str:
    """Of a store in a new bucket, by way of the proxy."""
    return s3_url(server.new_bucket(), "warp", endpoint=proxy.endpoint)


@pytest.fixture
def with_s3_broker(store_url: str, tmp_path: Path) -> RunWithBroker:
    """Run a test's coroutine beside an agent on S3, behind the proxy; again for an agent that has been restarted.

    Keyword arguments are settings of the agent, but for `store`: parameters of the store's URL.
    """

    def run(test: BrokerTest, *, store: str = "", **settings: str) -> None:
        url = f"{store_url}&{store}" if store else store_url
        uvloop.run(
            beside_agent(test, tmp_path, {"object_store": url, "flush_interval_ms": "20ms", **settings})
        )

    return run
