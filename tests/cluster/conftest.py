"""Clusters of real agents over PostgreSQL and an S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.fault_proxy import FaultProxy
from tests.support.postgres import PostgresServer
from tests.support.rgw import RgwServer
from tests.support.s3 import S3Server, environment_of, s3_url

MakeCluster = Callable[..., Cluster]


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a new and empty database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def s3(request: pytest.FixtureRequest) -> S3Server | RgwServer:
    """An S3 server: moto, or by a parameter "rgw" Ceph's gateway."""
    found: S3Server | RgwServer = request.getfixturevalue(
        "rgw_server" if getattr(request, "param", "moto") == "rgw" else "s3_server"
    )
    return found


@pytest.fixture
def proxy(s3: S3Server | RgwServer) -> Iterator[FaultProxy]:
    """In front of the S3 server, without faults."""
    with FaultProxy(s3.endpoint) as made:
        yield made


@pytest.fixture
def bucket(s3: S3Server | RgwServer, proxy: FaultProxy) -> str:
    """The URL of an object store in a new bucket, by way of the proxy."""
    return s3_url(s3.new_bucket(), "warp", endpoint=proxy.endpoint)


@pytest.fixture
def make_cluster(
    database: str, s3: S3Server | RgwServer, bucket: str, tmp_path: Path
) -> Iterator[MakeCluster]:
    """Makes the test's cluster, and starts it; keyword arguments are those of `Cluster`."""
    with ExitStack() as stack:

        def make(
            *options: str, metadata: str = database, object_store: str = bucket, **arguments: object
        ) -> Cluster:
            environment = environment_of(s3.credentials)
            quick = ["--group-rebalance-delay", "300ms", *options]
            if "--flush-interval" not in options:
                quick += ["--flush-interval", "20ms"]
            cluster = Cluster(
                tmp_path / "cluster", metadata, object_store, options=quick, environment=environment, **arguments  # type: ignore[arg-type]
            )  # fmt: skip
            return stack.enter_context(cluster)

        yield make
