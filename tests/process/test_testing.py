"""The agent that users of the product get for their own tests."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.process.conftest import ROOT, environment, run_warp
from warp.errors import StartError
from warp.testing import LocalAgent

USERS_TEST = """
from confluent_kafka import Producer

def test_my_program(warp_agent):
    producer = Producer({"bootstrap.servers": warp_agent.bootstrap})
    producer.produce("mine", b"x")
    assert producer.flush(30) == 0

def test_the_agent_is_the_same_in_every_test(warp_agent):
    warp_agent.require_alive()
"""


def test_the_fixture_serves_a_users_test(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "warp.testing.plugin", str(tmp_path)]
    # Without the entry point, which would load the plugin a second time where the package is installed.
    env = environment(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_an_entry_point_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = project["entry-points"]["pytest11"]["warp"]
    assert hasattr(importlib.import_module(name), "warp_agent")


def test_an_agent_can_be_killed_and_started_again_on_its_data(tmp_path: Path) -> None:
    with LocalAgent(tmp_path / "data") as agent:
        producer = Producer({"bootstrap.servers": agent.bootstrap, "log_level": 0})
        producer.produce("t", b"x")
        assert producer.flush(30) == 0
        before = agent.bootstrap
        agent.kill()
        agent.start()
        assert agent.bootstrap == before
        assert run_warp("consume", "t", "--to", "end", "-b", agent.bootstrap)[1] == "x\n"
        with urllib.request.urlopen(f"{agent.http}/v1/ready", timeout=60) as answer:
            assert answer.status == 200
        assert agent.stop() == 0
        assert any("stopped" in line for line in agent.log)


def test_an_agent_may_do_without_http(tmp_path: Path) -> None:
    with LocalAgent(tmp_path / "data", "--http", "off") as agent:
        assert not agent.bootstrap.endswith(":0")


def test_an_agent_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"the agent did not start: .*unknown option --no-such"):
        LocalAgent(tmp_path, "--no-such").start()
    with (
        LocalAgent(tmp_path / "data") as agent,
        pytest.raises(StartError, match=f"in use by process {agent.pid}"),
    ):
        LocalAgent(tmp_path / "data").start()


def test_an_agent_that_has_died_is_noticed(tmp_path: Path) -> None:
    with LocalAgent(tmp_path / "data") as agent:
        agent.require_alive()
        process = agent._process
        assert process is not None
        process.kill()
        process.wait()
        with pytest.raises(StartError, match="the agent ended with code -9"):
            agent.require_alive()
