"""A connection without sockets or services: a transport in memory, a clock by hand, handlers that do as told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from warp.errors import ErrorCode
from warp.handlers.context import Endpoint, Later, NoAnswer, RequestContext, Services
from warp.handlers.produce import batches_of
from warp.handlers.table import ApiEntry, Order
from warp.log.memory import MemoryBudget
from warp.protocol import ApiKey, Request, Response, decode, encode_request_frame
from warp.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from warp.protocol.messages.fetch import FetchRequest, FetchResponse
from warp.protocol.messages.metadata import MetadataRequest, MetadataResponse
from warp.protocol.messages.produce import (
    ProducePartition,
    ProduceRequest,
    ProduceResponse,
    ProduceTopic,
)
from warp.security.quotas.quotas import Quotas
from warp.server.connection import Connection
from warp.server.dispatch import Dispatcher
from warp.server.limits import ServerLimits
from warp.server.pool import ConnectionPool

MIB = 2**20


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine to its end, in bounded time."""

    async def bounded() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(bounded())


async def settle() -> None:
    """Let everything that is ready happen."""
    for _ in range(20):
        await asyncio.sleep(0)


class HandClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def time_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    def boottime(self) -> float:
        return self.now_s


class MemoryTransport(asyncio.Transport):
    """What the connection sees of a socket; `room` is how much the peer's side takes before writing is paused."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1234)})
        self.protocol: Connection | None = None
        self.written = bytearray()
        self.unsent = 0
        self.takes_all = True
        self.is_paused = False
        self.is_writing_paused = False
        self.closed_by: str | None = None
        self.high = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        assert self.closed_by is None, "written after the end"
        self.written += data
        if not self.takes_all:
            self.unsent += len(data)
            if self.unsent > self.high and not self.is_writing_paused:
                self.is_writing_paused = True
                assert self.protocol is not None
                self.protocol.pause_writing()

    def drain(self) -> None:
        """The peer takes everything."""
        self.takes_all = True
        self.unsent = 0
        assert self.protocol is not None
        if self.is_writing_paused:
            self.is_writing_paused = False
            self.protocol.resume_writing()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def is_closing(self) -> bool:
        return self.closed_by is not None

    def _end(self, how: str) -> None:
        if self.closed_by is None:
            self.closed_by = how
            if how == "abort" or not self.unsent:
                self.lose()

    def lose(self) -> None:
        """The connection is gone."""
        self.closed_by = self.closed_by or "lost"
        assert self.protocol is not None
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Peer:
    """One connection and its client's side."""

    def __init__(self, bench: Bench) -> None:
        self.transport = MemoryTransport()
        self.connection = bench.pool.connection(Endpoint("broker.test", 9092))
        self.transport.protocol = self.connection
        self.connection.connection_made(self.transport)

    def feed(self, data: bytes, step: int = 0) -> None:
        """Bytes from the client, `step` at a time, for as long as the connection reads."""
        while data and not self.transport.is_paused and not self.transport.is_closing():
            buffer = memoryview(self.connection.get_buffer(-1)).cast("B")
            part = data[: min(len(buffer), step or len(data))]
            buffer[: len(part)] = part
            self.connection.buffer_updated(len(part))
            data = data[len(part) :]

    def send(self, *requests: tuple[int, Request]) -> None:
        """Requests by correlation id, all at once."""
        self.feed(b"".join(frame(number, request) for number, request in requests))

    def is_paused(self) -> bool:
        """Whether the connection has stopped reading."""
        return self.transport.is_paused

    def ended(self) -> str | None:
        """How the connection was ended: "close", "abort" or "lost"; None while it is open."""
        return self.transport.closed_by

    def answered(self) -> list[int]:
        """Correlation ids of the answers that were written, in their order."""
        data = bytes(self.transport.written)
        found = []
        while data:
            size = int.from_bytes(data[:4], "big")
            found.append(int.from_bytes(data[4:8], "big"))
            data = data[4 + size :]
        return found

    def bodies(self) -> list[bytes]:
        """What follows the correlation id in each answer."""
        data = bytes(self.transport.written)
        found = []
        while data:
            size = int.from_bytes(data[:4], "big")
            found.append(data[8 : 4 + size])
            data = data[4 + size :]
        return found


VERSIONS = {ApiVersionsRequest: 0, MetadataRequest: 1, FetchRequest: 4, ProduceRequest: 3}


def frame(number: int, request: Request) -> bytes:
    return b"".join(encode_request_frame(number, "test", request, VERSIONS[type(request)]))


def at_once() -> Request:
    return ApiVersionsRequest()


def serial() -> Request:
    return MetadataRequest(topics=[])


def fetch() -> Request:
    return FetchRequest(max_wait_ms=0, min_bytes=0, topics=[])


def produce(acks: int = 1, batches: int = 0) -> Request:
    partitions = [ProducePartition(index=index, records=b"") for index in range(batches)]
    topics = [ProduceTopic(name="t", partition_data=partitions)] if batches else []
    return ProduceRequest(acks=acks, timeout_ms=1000, topic_data=topics)


class Bench:
    """A pool whose handlers wait until the test says so.

    `waiting` holds, by API, a future per request that has begun and not ended; `begun` the order of their beginnings.
    """

    def __init__(self, memory_bytes: int = MIB, **limits: Any) -> None:
        self.clock = HandClock()
        self.memory = MemoryBudget(memory_bytes)
        self.begun: list[str] = []
        self.waiting: dict[str, list[asyncio.Future[Any]]] = {
            "serial": [],
            "fetch": [],
            "stage": [],
            "commit": [],
        }
        self.observed: list[tuple[str, str]] = []
        self.stage_waits = False
        self.at_once_takes_s = 0.0
        self.serial_parks = False
        table = (
            ApiEntry(ApiKey.API_VERSIONS, self._at_once, self._failed),
            ApiEntry(ApiKey.METADATA, self._serial_or_parked, self._failed_metadata),
            ApiEntry(ApiKey.FETCH, self._fetch, self._failed, Order.CONCURRENT),
            ApiEntry(ApiKey.PRODUCE, self._produce, self._failed, Order.STAGED, parts=batches_of),
        )
        self.quotas = Quotas(self.clock.monotonic)
        services = cast(Services, SimpleNamespace(quotas=self.quotas))
        self.dispatcher = Dispatcher(table, services, self.clock, self._observe)
        self.pool = ConnectionPool(self.dispatcher, self.memory, self.clock, ServerLimits(**limits))

    def connect(self) -> Peer:
        return Peer(self)

    def end(self, what: str, result: Any = None) -> None:
        """Let the oldest waiting request of a kind go on; with an exception, fail."""
        future = self.waiting[what].pop(0)
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    def _observe(self, api: str, version: int, seconds: float, outcome: str) -> None:
        self.observed.append((api, outcome))

    def _wait(self, what: str) -> asyncio.Future[Any]:
        self.begun.append(what)
        future = asyncio.get_running_loop().create_future()
        self.waiting[what].append(future)
        return future

    def _at_once(self, context: RequestContext, request: Request) -> Response:
        self.begun.append("at once")
        self.clock.now_s += self.at_once_takes_s
        return ApiVersionsResponse(error_code=0, api_keys=[])

    def _serial_or_parked(self, context: RequestContext, request: Request) -> Any:
        if not self.serial_parks:
            return self._serial(context, request)
        response = MetadataResponse(brokers=[], topics=[])
        return Later(self._wait("serial"), lambda _: response, ends_with_client=True, needs_request=False)

    async def _serial(self, context: RequestContext, request: Request) -> Response:
        result = await self._wait("serial")
        return result if isinstance(result, Response) else MetadataResponse(brokers=[], topics=[])

    async def _fetch(self, context: RequestContext, request: Request) -> Any:
        result = await self._wait("fetch")
        return result if result is not None else FetchResponse(error_code=0, responses=[])

    def _produce(self, context: RequestContext, request: ProduceRequest) -> Any:
        return self._stage(request) if self.stage_waits else self._later(request)

    async def _stage(self, request: ProduceRequest) -> Later:
        await self._wait("stage")
        return self._later(request)

    def _later(self, request: ProduceRequest) -> Later:
        return Later(
            self._wait("commit"), lambda result: self._outcome(request, result), is_answered=request.acks != 0
        )

    def _outcome(self, request: ProduceRequest, result: Any) -> Any:
        if request.acks == 0:
            return NoAnswer(close=result)
        return ProduceResponse(responses=[])

    def _failed(
        self, context: RequestContext, request: Any, code: ErrorCode, message: str
    ) -> Response | None:
        return None

    def _failed_metadata(
        self, context: RequestContext, request: Any, code: ErrorCode, message: str
    ) -> Response:
        return MetadataResponse(brokers=[], topics=[], controller_id=int(code))


def decoded(body: bytes, response: type[Response], version: int) -> Any:
    return decode(response, version, body)
