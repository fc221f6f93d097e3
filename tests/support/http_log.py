"""What a server or a proxy of the tests has been asked: one record per request, for tests that count."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(slots=True)
class LoggedRequest:
    """One HTTP request and what became of it."""

    method: str
    path: str
    """Percent-encoded as it came, without the query."""
    query: str
    status: int = 0
    """Of the answer; 0 when there was none."""
    bytes_in: int = 0
    """Of the request's body, as far as it arrived."""
    bytes_out: int = 0
    """Of the answer's body, as far as it was sent."""
    arrived_s: float = 0.0
    """When its head arrived: `time.monotonic`, which all processes of a machine share."""
    took_s: float = 0.0
    fault: str = ""
    """What was done to it on purpose."""

    def to_json(self) -> str:
        """One line, without its end."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> LoggedRequest:
        """What `to_json` wrote."""
        return cls(**json.loads(line))


def count(requests: Iterable[LoggedRequest], method: str, *, under: str = "") -> int:
    """How many requests of a method there were, of those whose path begins with `under`."""
    return sum(request.method == method and request.path.startswith(under) for request in requests)
