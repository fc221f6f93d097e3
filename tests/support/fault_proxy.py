"""A proxy in front of an HTTP server that makes its life hard, as `tests.support.fault_plan` says.

It runs in a thread with an event loop of its own, so that tests with and without one can use it. It speaks HTTP/1.1 as
S3 clients do: bodies with a length, one request after the other on a connection, which is kept open.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.parse
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import uvloop

from tests.support.fault_plan import Fault, FaultPlan, Latency, Rule
from tests.support.http_log import LoggedRequest
from tests.support.proxy_connection import Journal, ProxyConnection

CALL_TIMEOUT_S = 30.0
STREAM_BYTES_MAX = 2**18

T = TypeVar("T")


class FaultProxy:
    """In front of the server at `target`, an URL, at a free port of `host`. Use as a context manager.

    `plan` can be changed at any time.
    """

    def __init__(self, target: str, *, seed: int = 1, host: str = "127.0.0.1") -> None:
        parts = urllib.parse.urlsplit(target)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.plan = FaultPlan(seed)
        self.journal = Journal()
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._connections: set[ProxyConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        # Holds the port while nothing listens on it, so that nobody else gets it.
        self._host = host
        self._placeholder = _bound(host, 0)
        self.port: int = self._placeholder.getsockname()[1]
        self.endpoint = f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()
        self._placeholder.close()

    def fail(self, fault: Fault, method: str = "", **rule: Any) -> Rule:
        """Put a rule in force; more of its fields by name, as `times=3`, `share=0.1`, `path_has="segments/"`."""
        return self.plan.add(Rule(fault, method, **rule))

    @contextmanager
    def failing(self, fault: Fault, method: str = "", **rule: Any) -> Iterator[Rule]:
        """A rule that is in force inside of a `with`."""
        added = self.fail(fault, method, **rule)
        try:
            yield added
        finally:
            self.plan.remove(added)

    def delay(self, method: str = "", **latency: float) -> None:
        """Set the latency of a method, or that of all without their own; fields of `Latency` by name."""
        self.plan.latencies[method] = Latency(**latency)

    def vanish(self) -> None:
        """Listen no longer and cut every connection: who connects is refused."""
        self._call(self._shut())

    def come_back(self) -> None:
        """Listen again, on the same port."""
        self._call(self._listen())

    def drop_idle(self) -> int:
        """Close the connections on which no request is under way. Returns how many."""
        return self._call(self._drop_idle())

    def connection_count(self) -> int:
        """How many clients are connected now."""
        return len(self._connections)

    def requests(self, since: int = 0) -> list[LoggedRequest]:
        """What came, in the order of arrival, without the first `since`; copies."""
        return self.journal.requests(since)

    def wait_for(self, condition: Callable[[Sequence[LoggedRequest]], bool], timeout_s: float = 30.0) -> None:
        """Block until the requests so far fulfil a condition. Raises AssertionError when they don't in time."""
        self.journal.wait_for(condition, timeout_s)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_TIMEOUT_S)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, sock=_bound(self._host, self.port), limit=STREAM_BYTES_MAX, backlog=1024
            )

    async def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drop_idle(self) -> int:
        idle = [connection for connection in self._connections if connection.idle]
        for connection in idle:
            connection.abort()
        return len(idle)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = ProxyConnection(reader, writer, self._target, self.plan, self.journal)
        self._connections.add(connection)
        self._tasks.add(task)
        try:
            if self._server is not None:  # not one that was accepted while the proxy vanished
                await connection.serve()
        except asyncio.CancelledError:
            pass  # only this proxy cancels, and then the connection shall end
        finally:
            connection.abort()
            self._connections.discard(connection)
            self._tasks.discard(task)


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made
