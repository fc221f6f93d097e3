"""Requests and answers of the HTTP face, free of sockets and of the parser."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from warp.security.principal import Principal


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection: where it is, and whose certificate it has shown, if it has."""

    host: str = ""
    port: int = 0
    principal: Principal | None = None

    @property
    def address(self) -> str:
        """HOST:PORT, for log lines."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


NOBODY = Peer()


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. `path` is without its query and not percent-decoded; header names are lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: Peer = NOBODY


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer. A long body stands in `parts`, each sent as it is, without being copied.

    `done` is called once, when `parts` aren't needed any more, whether they were taken or not.
    """

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    parts: Sequence[bytes | bytearray | memoryview] = ()
    done: Callable[[], None] | None = None

    @property
    def size_bytes(self) -> int:
        """Of the whole body."""
        return len(self.body) + sum(map(len, self.parts))


Handler = Callable[[Request], Awaitable[Response]]


def json_response(status: int, content: Mapping[str, Any], *headers: tuple[str, str]) -> Response:
    """An answer that holds one JSON object."""
    return Response(status, json.dumps(content).encode() + b"\n", "application/json", headers)


def error_response(status: int, reason: str | None = None, *headers: tuple[str, str]) -> Response:
    """An answer that says what went wrong: `{"error": …}`."""
    return json_response(status, {"error": reason or HTTPStatus(status).phrase}, *headers)
