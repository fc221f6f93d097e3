"""One client's connection to the fault proxy: request by request, with the faults that the plan has for each."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

from tests.support.fault_plan import (
    CutAnswer,
    CutRequest,
    Decision,
    Delay,
    Fault,
    FaultPlan,
    Hang,
    Moment,
    Refuse,
    RequestHead,
)
from tests.support.http_log import LoggedRequest

CHUNK_BYTES = 2**18
NO_BODY_STATUS = (204, 304)


class Journal:
    """The requests that came through a proxy. The proxy's thread writes, any thread reads."""

    def __init__(self) -> None:
        self._requests: list[LoggedRequest] = []
        self._changed = threading.Condition()

    def begin(self, head: RequestHead) -> LoggedRequest:
        """Note a request on arrival."""
        request = LoggedRequest(head.method, head.path, head.query, arrived_s=time.monotonic())
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
        return request

    def update(self, request: LoggedRequest, **changes: object) -> None:
        """Change fields of a request that has begun; how long it took follows."""
        with self._changed:
            for name, value in changes.items():
                setattr(request, name, value)
            request.took_s = time.monotonic() - request.arrived_s
            self._changed.notify_all()

    def requests(self, since: int = 0) -> list[LoggedRequest]:
        """Copies, in the order of arrival."""
        with self._changed:
            return [dataclasses.replace(request) for request in self._requests[since:]]

    def wait_for(self, condition: Callable[[Sequence[LoggedRequest]], bool], timeout_s: float) -> None:
        """Block until the requests fulfil a condition. Raises AssertionError when they don't in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._requests), timeout_s):
                raise AssertionError(f"after {timeout_s} s: {self._requests[-20:]}")


class _Ended(Exception):
    """The connection has come to its end, on purpose or because a peer left."""


class ProxyConnection:
    """Serves one client until one of the two sides, or a fault, ends it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        target: tuple[str, int],
        plan: FaultPlan,
        journal: Journal,
    ) -> None:
        self.idle = True
        self._reader = reader
        self._writer = writer
        self._target = target
        self._plan = plan
        self._journal = journal
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def serve(self) -> None:
        """Return when the connection is over."""
        self._writer.transport.set_write_buffer_limits(0)  # so that drain() means: given to the kernel
        try:
            while True:
                self.idle = True
                lines = await _head_lines(self._reader)
                self.idle = False
                head = parse_request(lines)
                request = self._journal.begin(head)
                try:
                    await self._exchange(head, lines, request)
                finally:
                    self._journal.update(request)
        except (_Ended, OSError, asyncio.IncompleteReadError):
            return

    def abort(self) -> None:
        """End it at once, on both sides."""
        self._writer.transport.abort()
        if self._server is not None:
            self._server[1].transport.abort()

    async def _exchange(self, head: RequestHead, lines: list[bytes], request: LoggedRequest) -> None:
        decision = self._plan.decide(head)
        fault = decision.fault
        if fault is not None:
            self._journal.update(request, fault=type(fault).__name__)
        if isinstance(fault, Hang) and fault.moment is Moment.BEFORE_BODY:
            await _forever()
        if head.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "transfer-encoding" in head.headers:
            fault = Refuse(501, "NotImplemented", "the proxy takes bodies with a length only")
        if isinstance(fault, (Refuse, Hang)) and fault != Hang(Moment.AFTER_SERVER):
            await self._answer_alone(head, request, fault, decision.latency_s)
        else:
            await self._pass_on(head, lines, request, decision)
        if head.headers.get("connection", "").lower() == "close" or "transfer-encoding" in head.headers:
            await self._finish()

    async def _answer_alone(
        self, head: RequestHead, request: LoggedRequest, fault: Refuse | Hang, latency_s: float
    ) -> None:
        """Without the server."""
        async for part in self._body(head, head.body_bytes):
            self._journal.update(request, bytes_in=request.bytes_in + len(part))
        if isinstance(fault, Hang):
            await self._until_client_leaves()
        else:
            await asyncio.sleep(latency_s)
            body = b"" if head.method == "HEAD" else error_body(fault)
            self._journal.update(request, status=fault.status, bytes_out=len(body))
            self._writer.write(error_head(fault, len(error_body(fault))) + body)
            await self._writer.drain()

    async def _pass_on(
        self, head: RequestHead, lines: list[bytes], request: LoggedRequest, decision: Decision
    ) -> None:
        """To the server, and its answer back."""
        fault, latency_s = decision.fault, decision.latency_s
        reader, writer = await self._connected()
        kept = [line for line in lines if not line.lower().startswith(b"expect:")]
        writer.write(b"".join(kept) + b"\r\n")
        wanted = min(head.body_bytes, fault.body_bytes) if isinstance(fault, CutRequest) else head.body_bytes
        async for part in self._body(head, wanted):
            writer.write(part)
            await writer.drain()
            self._journal.update(request, bytes_in=request.bytes_in + len(part))
        if isinstance(fault, CutRequest):
            await self._finish()
        arrived_s = time.monotonic()
        answer = await _head_lines(reader)
        if isinstance(fault, Hang):
            await self._until_client_leaves()
        latency_s += fault.delay_s if isinstance(fault, Delay) else 0.0
        await asyncio.sleep(max(0.0, arrived_s + latency_s - time.monotonic()))
        await self._give_back(head, answer, reader, request, fault)

    async def _give_back(
        self,
        head: RequestHead,
        answer: list[bytes],
        reader: asyncio.StreamReader,
        request: LoggedRequest,
        fault: Fault | None,
    ) -> None:
        """The server's answer, as much of it as the fault lets through."""
        if isinstance(fault, CutAnswer) and fault.body_bytes is None:
            await self._finish()
        budget = fault.body_bytes if isinstance(fault, CutAnswer) else None
        status, headers = parse_answer(answer)
        self._journal.update(request, status=status)
        self._writer.write(b"".join(answer) + b"\r\n")
        async for part, is_content in _answer_body(reader, head.method, status, headers):
            sent = part if budget is None or not is_content else part[: budget - request.bytes_out]
            # Noted first: who has the answer may look here at once.
            self._journal.update(request, bytes_out=request.bytes_out + (len(sent) if is_content else 0))
            self._writer.write(sent)
            await self._writer.drain()
            if len(sent) < len(part):
                await self._finish()
        await self._writer.drain()
        if isinstance(fault, CutAnswer) or headers.get("connection", "").lower() == "close":
            await self._finish()

    async def _body(self, head: RequestHead, wanted: int) -> AsyncIterator[bytes]:
        while wanted:
            part = await self._reader.read(min(wanted, CHUNK_BYTES))
            if not part:
                raise _Ended
            wanted -= len(part)
            yield part

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection to the server: that of the last request, unless the server has closed it."""
        if self._server is None or self._server[0].at_eof() or self._server[1].is_closing():
            if self._server is not None:
                self._server[1].transport.abort()
            self._server = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
        return self._server

    async def _until_client_leaves(self) -> None:
        while await self._reader.read(CHUNK_BYTES):
            pass
        raise _Ended

    async def _finish(self) -> None:
        """End the connection after what has been written."""
        await self._writer.drain()
        self._writer.close()
        raise _Ended


async def _forever() -> None:
    await asyncio.Event().wait()


async def _head_lines(reader: asyncio.StreamReader) -> list[bytes]:
    """The lines of a head, with their ends, without the empty one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise _Ended from error
    return head[:-2].splitlines(keepends=True)


def parse_request(lines: Sequence[bytes]) -> RequestHead:
    """The head of a request."""
    method, target, _ = lines[0].decode("latin-1").split()
    path, _, query = target.partition("?")
    return RequestHead(method, path, query, _headers(lines))


def parse_answer(lines: Sequence[bytes]) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer."""
    return int(lines[0].split()[1]), _headers(lines)


def _headers(lines: Sequence[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in lines[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _answer_body(
    reader: asyncio.StreamReader, method: str, status: int, headers: dict[str, str]
) -> AsyncIterator[tuple[bytes, bool]]:
    """The parts of an answer's body as they stand on the wire, and whether each is content or framing."""
    if method == "HEAD" or status in NO_BODY_STATUS:
        return
    if headers.get("transfer-encoding", "").lower() == "chunked":
        size = -1
        while size != 0:
            line = await reader.readline()
            yield line, False
            size = int(line.split(b";")[0], 16)
            async for part in _parts(reader, size):
                yield part, True
            yield await reader.readexactly(2), False
    elif "content-length" in headers:
        async for part in _parts(reader, int(headers["content-length"])):
            yield part, True
    else:  # until the server closes
        while part := await reader.read(CHUNK_BYTES):
            yield part, True
        headers["connection"] = "close"


async def _parts(reader: asyncio.StreamReader, wanted: int) -> AsyncIterator[bytes]:
    while wanted:
        part = await reader.read(min(wanted, CHUNK_BYTES))
        if not part:
            raise _Ended
        wanted -= len(part)
        yield part


def error_body(refusal: Refuse) -> bytes:
    """What S3 writes about an error."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message>"
        "<RequestId>fault-proxy</RequestId></Error>"
    ).encode()


def error_head(refusal: Refuse, body_bytes: int) -> bytes:
    """The head of the answer that has `error_body`."""
    return (
        f"HTTP/1.1 {refusal.status} {refusal.code}\r\nContent-Type: application/xml\r\n"
        f"x-amz-request-id: fault-proxy\r\nContent-Length: {body_bytes}\r\n\r\n"
    ).encode()
