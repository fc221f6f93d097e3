"""Fixtures that run a test's coroutine beside a whole agent, on real sockets, over each kind of store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.broker.support import BrokerTest, RunWithBroker, beside_agent


@pytest.fixture(params=["memory", "local"])
def with_broker(request: pytest.FixtureRequest, tmp_path: Path) -> RunWithBroker:
    """Run a test's coroutine beside an agent: on uvloop with stores in memory, on asyncio with stores on disk.

    Keyword arguments are settings of the agent, by the names of its configuration.
    """

    def run(test: BrokerTest, **settings: str) -> None:
        if request.param == "memory":
            stores = {"object_store": "mem://", "metadata": "mem://"}
            uvloop.run(beside_agent(test, tmp_path, {**stores, **settings}))
        else:
            asyncio.run(beside_agent(test, tmp_path, settings))

    return run


@pytest.fixture
def with_memory_broker(tmp_path: Path) -> RunWithBroker:
    """As `with_broker`, for tests to which the kind of store makes no difference."""

    def run(test: BrokerTest, **settings: str) -> None:
        stores = {"object_store": "mem://", "metadata": "mem://"}
        uvloop.run(beside_agent(test, tmp_path, {**stores, **settings}))

    return run
