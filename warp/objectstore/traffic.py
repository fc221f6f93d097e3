"""What an object store was asked for, counted as its bill counts: each attempt, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from warp.errors import ObjectNotFound, ShortObject

RequestKind = Literal["put", "get", "head", "list", "delete"]
"""What a request is billed as; `put` stands for `create` too."""

RequestStatus = Literal["ok", "not_found", "conflict", "slow_down", "error", "cut"]
"""How a request was answered. `conflict`: the key was taken. `slow_down`: the store asked for fewer requests.
`cut`: no whole answer came (time-outs, lost connections, requests that were given up)."""


class Traffic:
    """The requests that a store was sent, counted as a bill counts them: every attempt, whatever became of it."""

    __slots__ = ("received_bytes", "requests", "sent_bytes")

    def __init__(self) -> None:
        self.requests: dict[tuple[RequestKind, RequestStatus], int] = {}
        self.sent_bytes = 0
        """Bytes of object bodies sent, also those of requests that failed."""
        self.received_bytes = 0
        """Bytes of object bodies received."""

    def count(
        self, kind: RequestKind, status: RequestStatus, *, sent_bytes: int = 0, received_bytes: int = 0
    ) -> None:
        """Count one request that has ended."""
        self.requests[kind, status] = self.requests.get((kind, status), 0) + 1
        self.sent_bytes += sent_bytes
        self.received_bytes += received_bytes

    def total(self, kind: RequestKind) -> int:
        """Requests of a kind, whatever their status."""
        return sum(count for (counted, _), count in self.requests.items() if counted == kind)


@contextmanager
def counted(traffic: Traffic, kind: RequestKind) -> Iterator[None]:
    """Count what happens inside as one request, by how it ends. For stores whose calls are single steps."""
    status: RequestStatus = "cut"
    try:
        yield
        status = "ok"
    except ObjectNotFound:
        status = "not_found"
        raise
    except ShortObject:
        status = "ok"
        raise
    except Exception:
        status = "error"
        raise
    finally:
        traffic.count(kind, status)
