"""One agent process for all client tests, and what is needed to call clients that live outside Python."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import AgentProcess


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A real `warp agent` on free loopback ports, with its data in a temporary directory."""
    with AgentProcess(tmp_path_factory.mktemp("clients") / "data") as process:
        yield process


@pytest.fixture(scope="session")
def bootstrap(agent: AgentProcess) -> str:
    return agent.bootstrap


@pytest.fixture
def topic() -> str:
    """A topic name that no other test uses; it comes into being by auto creation."""
    return f"t-{uuid.uuid4().hex[:12]}"


def require_tool(name: str) -> str:
    """The path of a program; the test is skipped without it, or fails where everything has to run."""
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed")
    return str(path)


def require_folder(path: Path, remedy: str) -> Path:
    if not path.is_dir():
        missing(f"{path.name} is missing: {remedy}")
    return path


def missing(reason: str) -> None:
    if os.environ.get("WARP_TEST_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)
