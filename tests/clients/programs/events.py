"""What the member programs in Python share: their command line, and the events that they print."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Security:
    """How to come in where an agent asks who is there; empty is what the protocol or the mechanism goes without."""

    protocol: str
    ca: str
    mechanism: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True)
class Job:
    """`PROGRAM consume BOOTSTRAP TOPIC GROUP [NAME=VALUE ...]`."""

    bootstrap: str
    topic: str
    group: str
    settings: dict[str, str]

    @property
    def session_ms(self) -> int:
        return int(self.settings.get("session_ms", "10000"))

    @property
    def heartbeat_ms(self) -> int:
        return int(self.settings.get("heartbeat_ms", "1000"))

    @property
    def assignor(self) -> str:
        return self.settings.get("assignor", "range")

    @property
    def security(self) -> Security | None:
        """The content of the file PATH.json, when the setting `security` is PATH."""
        if (path := self.settings.get("security")) is None:
            return None
        return Security(**json.loads(Path(f"{path}.json").read_text()))

    @property
    def instance(self) -> str | None:
        return self.settings.get("instance")


def read_job() -> Job:
    _, command, bootstrap, topic, group, *settings = sys.argv
    assert command == "consume", command
    return Job(bootstrap, topic, group, dict(setting.split("=", 1) for setting in settings))


class Stop:
    """True once SIGTERM or SIGINT has come."""

    def __init__(self) -> None:
        self.is_asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.is_asked = True

    def __bool__(self) -> bool:
        return self.is_asked


def emit(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def assigned(partitions: Iterable[int]) -> None:
    emit("assigned", partitions=sorted(partitions))


def record(partition: int, offset: int, value: bytes) -> None:
    emit("record", partition=partition, offset=offset, value=value.decode())


def committed(partition: int, offset: int) -> None:
    emit("committed", partition=partition, offset=offset)


def problem(error: object) -> None:
    emit("problem", message=f"{type(error).__name__}: {error}")
