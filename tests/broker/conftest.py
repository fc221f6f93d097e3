"""Fixtures that run a test's coroutine beside a whole agent, on real sockets, over each kind of store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.broker.support import BrokerTest, RunWithBroker, beside_agent
from tests.support.rgw import RgwServer
from tests.support.s3 import S3Server, environment_of

OF_OBJECTS = {"test_fetch", "test_produce"}
"""The modules whose tests have most to do with objects: they run on S3 as well. On Ceph's gateway all do."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say which stores the tests that want a broker run on."""
    if "with_broker" in metafunc.fixturenames:
        stores = ["memory", "local"]
        if metafunc.module.__name__.rpartition(".")[2] in OF_OBJECTS:
            stores.append("s3")
        on_postgres = pytest.param("postgres", marks=pytest.mark.postgres)
        on_rgw = pytest.param("rgw", marks=pytest.mark.rgw)
        metafunc.parametrize("with_broker", [*stores, on_postgres, on_rgw], indirect=True)


@pytest.fixture
def with_broker(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunWithBroker:
    """Run a test's coroutine beside an agent: on uvloop with stores in memory, on asyncio with stores on disk.

    Metadata in PostgreSQL come with objects on disk, on uvloop; objects on S3 with metadata on disk, once on each kind
    of loop. Keyword arguments are settings of the agent, by the names of its configuration.
    """

    def run(test: BrokerTest, **settings: str) -> None:
        if request.param == "memory":
            stores = {"object_store": "mem://", "metadata": "mem://"}
            uvloop.run(beside_agent(test, tmp_path, {**stores, **settings}))
        elif request.param == "local":
            asyncio.run(beside_agent(test, tmp_path, settings))
        elif request.param == "postgres":
            on_postgres = {
                "object_store": (tmp_path / "objects").as_uri(),
                "metadata": request.getfixturevalue("postgres_url"),
            }
            uvloop.run(beside_agent(test, tmp_path, {**on_postgres, **settings}))
        else:
            server: S3Server | RgwServer = request.getfixturevalue(f"{request.param}_server")
            for name, value in environment_of(server.credentials).items():
                monkeypatch.setenv(name, value)
            run_loop = uvloop.run if request.param == "s3" else asyncio.run
            on_s3 = {"object_store": server.url("warp"), "flush_interval_ms": "25ms"}
            run_loop(beside_agent(test, tmp_path, {**on_s3, **settings}))

    return run


@pytest.fixture
def with_memory_broker(tmp_path: Path) -> RunWithBroker:
    """As `with_broker`, for tests to which the kind of store makes no difference."""

    def run(test: BrokerTest, **settings: str) -> None:
        stores = {"object_store": "mem://", "metadata": "mem://"}
        uvloop.run(beside_agent(test, tmp_path, {**stores, **settings}))

    return run
