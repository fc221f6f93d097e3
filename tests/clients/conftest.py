"""Agent processes for all client tests, and the virtual machine of Kafka's own tools."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.clients.java_tools import JavaTools
from tests.clients.secured import Secured
from tests.support.process import AgentProcess


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A real `warp agent` on free loopback ports, with its data in a temporary directory.

    New groups don't wait for more members for as long as by default: `own_agent` of the tests of groups does.
    """
    directory = tmp_path_factory.mktemp("clients") / "data"
    with AgentProcess(directory, "--group-rebalance-delay", "300ms") as process:
        yield process


@pytest.fixture(scope="session")
def bootstrap(agent: AgentProcess) -> str:
    return agent.bootstrap


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """An agent that asks who is there, for all tests of clients that authenticate and may do some things alone."""
    with Secured(tmp_path_factory.mktemp("secured")) as found:
        yield found


@pytest.fixture(scope="session")
def java_tools() -> Iterator[JavaTools]:
    with JavaTools() as tools:
        yield tools


@pytest.fixture
def topic() -> str:
    """A topic name that no other test uses; it comes into being by auto creation."""
    return f"t-{uuid.uuid4().hex[:12]}"
