"""`warp user` against a real agent, and a client that gets in with what it has made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.process.conftest import Running, Spawn, run_warp

NAME = "jürgen, the =1"
PASSWORD = "sécret, =✓"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str, str]]:
    """An agent, its open address, and the one where clients have to authenticate."""
    spawn = Spawn(tmp_path_factory.mktemp("users") / "data")
    running = spawn.agent(
        "--listen", "127.0.0.1:0", "--listen", "SASL_PLAINTEXT://127.0.0.1:0",
        "--sasl-mechanisms", "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        serving=False,
    )  # fmt: skip
    line = running.serving_line()
    open_address, sasl_address = re.findall(r"127\.0\.0\.1:\d+", line)[:2]
    yield running, open_address, sasl_address
    assert running.stop() == 0
    running.close()


def test_who_was_created_gets_in_until_deleted(agent: tuple[Running, str, str], tmp_path: Path) -> None:
    running, open_address, sasl_address = agent
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n", encoding="utf-8")

    def warp(*words: str) -> tuple[int, str, str]:
        return run_warp("user", *words, "--bootstrap", open_address)

    assert warp("create", NAME, "--password-file", str(path))[0] == 0
    listed = json.loads(warp("list", "--json")[1])
    assert listed == [{"user": NAME, "credentials": {"SCRAM-SHA-256": 8192, "SCRAM-SHA-512": 8192}}]
    for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        assert gets_in(sasl_address, mechanism, PASSWORD)
        assert not gets_in(sasl_address, mechanism, "wrong")
    assert warp("delete", NAME)[:2] == (0, f"deleted user {NAME}\n")
    assert not gets_in(sasl_address, "SCRAM-SHA-256", PASSWORD)
    shown = "\n".join(running.errors)
    assert "authentication of" in shown
    assert PASSWORD not in shown


def gets_in(address: str, mechanism: str, password: str) -> bool:
    errors: list[str] = []
    settings: dict[str, Any] = {
        "bootstrap.servers": address,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": NAME,
        "sasl.password": password,
        "error_cb": lambda error: errors.append(error.str()),
        "log_level": 0,
    }
    client = AdminClient(settings)
    for _ in range(100):
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            client.poll(0)
            if any("wrong user name or password" in error for error in errors):
                return False
    raise AssertionError(errors)
