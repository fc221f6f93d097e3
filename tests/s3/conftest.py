"""The S3 servers as fixtures: moto everywhere, Ceph's gateway where it is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.rgw import RgwServer
from tests.support.s3 import S3Server, environment_of

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
