"""A raw Kafka client over the simulated network: real frames, pipelined, answers matched in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tests.sim.network import Network
from warp._decode import decode
from warp._encode import encode
from warp.protocol.apis import APIS
from warp.protocol.schema import Request, Response


class Lost(Exception):
    """The connection is gone, or an answer did not come in time; what became of the requests is not known."""


class BrokenAnswer(Exception):
    """The agent answered with what is not the protocol."""


def frame_of(request: Request, version: int, correlation_id: int, client_id: str) -> bytes:
    """A request's bytes with its header, version 1 or 2, and the length before it."""
    api = APIS[request.api]
    header = int(api.key).to_bytes(2, "big") + version.to_bytes(2, "big") + correlation_id.to_bytes(4, "big")
    header += len(client_id).to_bytes(2, "big") + client_id.encode()
    if api.flexible is not None and version >= api.flexible:
        header += b"\0"
    body = header + encode(request, version)
    return len(body).to_bytes(4, "big") + body


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.mechanism = ""
        """By which it has authenticated."""
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: deque[tuple[int, Request, int, asyncio.Future[Any]]] = deque()
        self._correlation_id = 0
        self.is_lost = False
        self.life = ""
        """The name of the agent's process at the other end."""

    @classmethod
    async def open(cls, network: Network, address: str, client_id: str) -> Connection:
        """Connect, and do what clients do first in this world. Raises Lost."""
        connection = await cls.dial(network, address, client_id)
        if network.greet is not None:
            try:
                await network.greet(connection)
            except Lost:
                connection.close()
                raise
        return connection

    @classmethod
    async def dial(cls, network: Network, address: str, client_id: str) -> Connection:
        """Connect, and say nothing. Raises Lost."""
        connection = cls(client_id)
        try:
            connection.life = await network.connect(address, connection)
        except ConnectionRefusedError as error:
            raise Lost(f"refused: {error}") from error
        return connection

    def send(self, request: Request, version: int) -> asyncio.Future[Any]:
        """Send without waiting; the future has the response, or raises Lost."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.is_lost or self._transport is None:
            answer.set_exception(Lost("not connected"))
            answer.exception()
            return answer
        self._correlation_id += 1
        self._waiting.append((self._correlation_id, request, version, answer))
        self._transport.write(frame_of(request, version, self._correlation_id, self.client_id))
        return answer

    async def ask(self, request: Request, version: int, timeout_s: float = 10.0) -> Any:
        """Send and wait. Raises Lost, also when the time is up: then the connection is given up."""
        answer = self.send(request, version)
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            self.close()
            raise Lost("no answer in time") from None

    def close(self) -> None:
        """Give the connection up; what waits gets Lost."""
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Split frames and match them with the requests."""
        self._received += data
        while len(self._received) >= 4:
            size = int.from_bytes(self._received[:4], "big")
            if len(self._received) < 4 + size:
                return
            frame = bytes(self._received[4 : 4 + size])
            del self._received[: 4 + size]
            self._answered(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side is gone."""
        self._lose()

    def _answered(self, frame: bytes) -> None:
        if not self._waiting:
            raise BrokenAnswer("an answer that nobody asked for")
        correlation_id, request, version, answer = self._waiting.popleft()
        if int.from_bytes(frame[:4], "big") != correlation_id:
            raise BrokenAnswer(f"answer {frame[:4].hex()} in place of {correlation_id}")
        api = APIS[request.api]
        is_flexible = api.flexible is not None and version >= api.flexible
        response: Response = decode(api.response, version, frame, 5 if is_flexible else 4)
        if not answer.done():
            answer.set_result(response)

    def _lose(self) -> None:
        self.is_lost = True
        waiting, self._waiting = self._waiting, deque()
        for _, _, _, answer in waiting:
            if not answer.done():
                answer.set_exception(Lost("connection lost"))
                answer.exception()
