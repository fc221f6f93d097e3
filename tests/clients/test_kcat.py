"""kcat, as people use it at the shell: pipe lines in, read them back, every codec, metadata, offsets by time."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.clients.toolchain import require_tool

pytestmark = pytest.mark.toolchain
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def kcat(*arguments: str, stdin: bytes = b"") -> bytes:
    command = [require_tool("kcat"), *arguments]
    return subprocess.run(command, input=stdin, stdout=subprocess.PIPE, timeout=60, check=True).stdout


@pytest.mark.parametrize("idempotent", ["false", "true"])
@pytest.mark.parametrize("codec", CODECS)
def test_lines_come_back_as_piped_in(bootstrap: str, topic: str, codec: str, idempotent: str) -> None:
    lines = b"".join(b"line %d %s\n" % (number, b"x" * (number % 300)) for number in range(500))
    kcat("-b", bootstrap, "-P", "-t", topic, "-p", "0", "-X", f"compression.codec={codec}",
         "-X", f"enable.idempotence={idempotent}", stdin=lines)  # fmt: skip
    assert kcat("-b", bootstrap, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q") == lines


def test_metadata_lists_the_topic_with_its_leader(bootstrap: str, topic: str) -> None:
    kcat("-b", bootstrap, "-P", "-t", topic, stdin=b"hello\n")
    listing = json.loads(kcat("-b", bootstrap, "-L", "-J", "-t", topic))
    assert [broker["name"] for broker in listing["brokers"]] == [bootstrap]
    (described,) = listing["topics"]
    assert described["topic"] == topic
    assert [partition["leader"] for partition in described["partitions"]] == [listing["brokers"][0]["id"]]
