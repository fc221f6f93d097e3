"""An S3 server on the test's own loop that answers as it is told, for what real servers do rarely or never.

`respond(request)` gives the answer: the bytes to send, or a `Fault`. `TinyS3` answers like a small, correct S3; tests
change one thing about it.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from warp._crc32c import crc32c

BUCKET = "bucket"
WAIT_S = 30.0
MODIFIED = "2026-11-22T10:11:12.000Z"
MODIFIED_MS = 1_795_342_272_000


@dataclass
class Request:
    """What arrived. `connection` numbers connections from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def key(self) -> str:
        return self.path.removeprefix(f"/{BUCKET}").removeprefix("/")

    @property
    def query(self) -> dict[str, str]:
        text = self.target.partition("?")[2]
        return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


@dataclass
class Fault:
    """Sends these bytes; then cuts the connection, or says nothing more for as long as the client stays."""

    data: bytes = b""
    hangs: bool = False


Respond = Callable[[Request], bytes | Fault]


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer with its length; `_` in header names stands for a dash."""
    named = {"content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items() if value != "absent")
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode("latin-1") + body


def error(status: int, code: str, message: str = "for a reason", more: str = "", **headers: str) -> bytes:
    """S3's error document."""
    document = (
        f"<Error><Code>{code}</Code><Message>{message}</Message>{more}<RequestId>R1</RequestId></Error>"
    )
    return answer(status, f'<?xml version="1.0"?>\n{document}'.encode(), **headers)


def part_of(data: bytes, start: int, end: int, *, etag: str = '"e1"', **headers: str) -> bytes:
    """A 206 with the bytes from `start` to before `end`."""
    content_range = f"bytes {start}-{end - 1}/{len(data)}"
    return answer(206, data[start:end], **{"content_range": content_range, "etag": etag, **headers})


def listing(keys: Iterable[str], next_token: str = "", size: int = 3) -> bytes:
    """A page of ListObjectsV2."""
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><LastModified>{MODIFIED}</LastModified></Contents>"
        for key in keys
    )
    more = (
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>{next_token}</NextContinuationToken>"
        if next_token
        else "<IsTruncated>false</IsTruncated>"
    )
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return answer(
        200,
        f'<ListBucketResult xmlns="{namespace}"><EncodingType>url</EncodingType>{more}{contents}'
        "</ListBucketResult>".encode(),
    )


def delete_result(*failures: tuple[str, str]) -> bytes:
    """The answer to DeleteObjects, with (key, code) of those that failed."""
    errors = "".join(f"<Error><Key>{key}</Key><Code>{code}</Code></Error>" for key, code in failures)
    return answer(200, f"<DeleteResult>{errors}</DeleteResult>".encode())


def scripted(*answers: bytes | Fault, then: Respond | None = None) -> Respond:
    """Gives each answer once, in order; afterwards asks `then`."""
    left = list(answers)

    def respond(request: Request) -> bytes | Fault:
        if left:
            return left.pop(0)
        assert then is not None, f"nobody expected {request.method} {request.target}"
        return then(request)

    return respond


Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeServer:
    """The listening side. `requests` are those that arrived whole, in order."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.requests: list[Request] = []
        self.connections = 0
        self.open_connections = 0
        self.endpoint = ""
        self.writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Condition()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something holds that requests or connections change."""
        async with self._changed, asyncio.timeout(WAIT_S):
            await self._changed.wait_for(is_so)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open_connections += 1
        self.writers.append(writer)
        try:
            await self._serve(reader, writer, self.connections)
        finally:
            self.open_connections -= 1
            async with self._changed:
                self._changed.notify_all()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int
    ) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])
            }
            request = Request(method, target, headers, b"", connection)
            if "expect" in headers:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append(request)
            async with self._changed:
                self._changed.notify_all()
            given = self.respond(request)
            if isinstance(given, Fault):
                writer.write(given.data)
                await writer.drain()
                if given.hangs:
                    await reader.read()
                elif given.data:
                    # What was written leaves before the connection ends.
                    writer.close()
                    await writer.wait_closed()
                return
            writer.write(given)
            await writer.drain()


@asynccontextmanager
async def raw_server(handle: Handle, **options: Any) -> AsyncIterator[str]:
    """Gives each connection to `handle`, whatever it sends; yields the endpoint. All of it ends with the context."""
    tasks: set[asyncio.Task[Any]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await handle(reader, writer)
        tasks.discard(task)
        writer.transport.abort()

    listener = await asyncio.start_server(run, "127.0.0.1", 0, **options)
    try:
        yield f"http{'s' if options.get('ssl') else ''}://localhost:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports' turn to close


@asynccontextmanager
async def fake_server(respond: Respond, **options: Any) -> AsyncIterator[FakeServer]:
    """A running FakeServer; options as `asyncio.start_server` takes them."""
    server = FakeServer(respond)
    async with raw_server(server.serve, **options) as endpoint:
        server.endpoint = endpoint
        yield server


@dataclass
class TinyS3:
    """A small S3 with one bucket. Flags take abilities away."""

    is_conditional: bool = True
    checks_content: bool = True
    objects: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, request: Request) -> bytes | Fault:
        if request.method == "PUT":
            return self._put(request)
        if request.method == "POST":
            for key in re.findall("<Key>(.*?)</Key>", request.body.decode()):
                self.objects.pop(key, None)
            return delete_result()
        if request.method == "DELETE":
            self.objects.pop(request.key, None)
            return answer(204)
        if not request.key:
            if request.method == "HEAD":
                return answer(200)
            prefix = request.query.get("prefix", "")
            return listing(key for key in sorted(self.objects) if key.startswith(prefix))
        if request.key not in self.objects:
            return answer(404) if request.method == "HEAD" else error(404, "NoSuchKey")
        return self._get(request, self.objects[request.key])

    def _put(self, request: Request) -> bytes:
        checksum = base64.b64encode(crc32c(request.body).to_bytes(4, "big")).decode()
        if self.checks_content and request.headers["x-amz-checksum-crc32c"] != checksum:
            return error(400, "BadDigest")
        if self.is_conditional and "if-none-match" in request.headers and request.key in self.objects:
            return error(412, "PreconditionFailed")
        self.objects[request.key] = request.body
        return answer(200, etag='"e1"')

    def _get(self, request: Request, data: bytes) -> bytes:
        if request.method == "HEAD":
            return answer(
                200, content_length=str(len(data)), last_modified=formatdate(MODIFIED_MS / 1000, usegmt=True)
            )
        first, last = map(int, request.headers["range"].removeprefix("bytes=").split("-"))
        if first >= len(data):
            return error(416, "InvalidRange")
        return part_of(data, first, min(last + 1, len(data)))


def iterate(values: Iterable[float]) -> Callable[[], float]:
    """A source of randomness with known values; the last one for ever."""
    iterator: Iterator[float] = iter(values)
    last = 0.0

    def random() -> float:
        nonlocal last
        last = next(iterator, last)
        return last

    return random
