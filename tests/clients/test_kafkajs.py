"""kafkajs produces with the codecs it has; a consumer of librdkafka reads it back (kafkajs consumes by groups only)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.clients.test_confluent import read_partition
from tests.clients.toolchain import require_folder, require_tool

pytestmark = pytest.mark.toolchain
FOLDER = Path(__file__).parent / "kafkajs"


@pytest.mark.parametrize("idempotent", ["plain", "idempotent"])
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy"])
def test_kafkajs_records_are_read_by_librdkafka(
    bootstrap: str, topic: str, codec: str, idempotent: str
) -> None:
    node = require_tool("node")
    require_folder(FOLDER / "node_modules", "run `make clients`, which installs it with npm")
    command = [node, str(FOLDER / "produce.mjs"), bootstrap, topic, codec, idempotent, "200"]
    done = subprocess.run(command, capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["baseOffsets"] == ["0", "100"]
    messages = read_partition(bootstrap, topic, 200)
    assert [(m.key(), m.value()) for m in messages] == [
        (b"key-%d" % (number % 7), b"value %d %s" % (number, b"y" * number)) for number in range(200)
    ]
