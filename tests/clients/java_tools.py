"""Kafka's own tools, all in one virtual machine: to start one takes longer than what most tools do."""

from __future__ import annotations

import base64
import subprocess
from typing import Self

from tests.clients.members import java

ACLS = "org.apache.kafka.tools.AclCommand"
CONFIGS = "kafka.admin.ConfigCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
TOPICS = "org.apache.kafka.tools.TopicCommand"


class JavaTools:
    """Use as a context manager; it ends with the virtual machine."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*java(), "member.Tools"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, tool: str, *arguments: str) -> tuple[int, str]:
        """The exit code of a tool, by the name of its class, and all that it has printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert not any(mark in argument for argument in arguments for mark in "\t\n")
        self._process.stdin.write("\t".join((tool, *arguments)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().removesuffix("\n")
        assert answer, "the virtual machine has ended"
        code, printed = answer.split(" ")
        return int(code), base64.b64decode(printed).decode()

    def succeed(self, tool: str, *arguments: str) -> str:
        code, printed = self.run(tool, *arguments)
        assert code == 0, printed
        return printed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
