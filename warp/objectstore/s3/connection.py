"""One HTTP/1.1 connection: a request out, its answer in, one at a time.

A body to send is handed to the transport in slices of the caller's own buffers; a body of known length is received
straight into the memory that the caller gets. h11 reads whatever answer is not of the usual kind.

What a server sends is bounded: the head by HEAD_BYTES_MAX, the body by what the request allows, waiting by the time
since the last byte moved and by a multiple of that for the whole request.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import h11

from warp._blocks import Block
from warp.objectstore.base import Buffer
from warp.objectstore.s3.errors import Answer, BadAnswer, Cut
from warp.objectstore.s3.heads import parse_usual_head, request_head

HEAD_BYTES_MAX = 32 * 1024
ERROR_BODY_BYTES_MAX = 64 * 1024
SLICE_BYTES = 512 * 1024
"""Of a body that is sent."""
TLS_SLICE_BYTES = 256 * 1024
"""The same under TLS, where a slice is encrypted without a pause, in about 0.2 ms, while it is in the cache."""
RECEIVE_BYTES = 16 * 1024
"""At a time, outside bodies of known length."""
INTERIM_ANSWERS_MAX = 8
READ_TIMEOUTS_PER_REQUEST_MAX = 6
"""A request may take this many read timeouts in all, however steadily its bytes trickle."""


@dataclass(slots=True)
class Request:
    """A request, complete with its headers."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    parts: Sequence[Buffer] = ()
    body_bytes_max: int = 0
    """The largest body that the answer may have if it is a success; others may have ERROR_BODY_BYTES_MAX."""


@dataclass(slots=True)
class Meter:
    """How many bytes of bodies one request moved, also if it failed."""

    sent_bytes: int = 0
    received_bytes: int = 0
    is_begun: bool = False
    """At least a byte of the request was handed over to be sent."""
    is_answered: bool = False
    """At least a byte of an answer came."""
    is_reused: bool = False
    """The connection had carried other requests before."""


@dataclass(slots=True)
class _Exchange:
    """A request that is under way."""

    request: Request
    meter: Meter
    answer: asyncio.Future[Answer]
    status: int = 0
    """Known once the head of the answer is complete."""
    headers: dict[str, str] = field(default_factory=dict)
    collected: bytearray = field(default_factory=bytearray)
    """What came of a body of unknown length."""
    body: memoryview | None = None
    """Memory for a body of known length, and how much of it is filled."""
    received_bytes: int = 0
    interim_answers: int = 0
    is_sent: bool = False
    has_end: bool = True
    """The answer tells where it ends, and another may follow it: HTTP/1.1 with a length or chunked."""
    is_followed: bool = False
    """Bytes came behind the answer."""


class Connection(asyncio.BufferedProtocol):
    """A connection that is open. `on_lost` is told when it no longer is; `is_usable` says whether it can be asked."""

    def __init__(self, read_timeout_s: float, on_lost: Callable[[Connection], None]) -> None:
        self.is_usable = False
        self._read_timeout_s = read_timeout_s
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._transport: asyncio.Transport | None = None
        self._exchange: _Exchange | None = None
        self._parser: h11.Connection | None = None
        """Of an answer that is not read in the usual way."""
        self._writable: asyncio.Future[None] | None = None
        self._moved_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._slice_bytes = SLICE_BYTES

    async def ask(self, request: Request, meter: Meter) -> Answer:
        """Send a request and wait for its answer.

        Raises Cut and BadAnswer; after those, and when it is cancelled, the connection is not usable any more.
        """
        assert self.is_usable, "a connection is asked only while it is usable"
        assert self._exchange is None, "a connection is asked one thing at a time"
        assert self._transport is not None
        exchange = self._exchange = _Exchange(request, meter, self._loop.create_future())
        self._parser = None
        is_whole = False
        started_at = self._moved_at = self._loop.time()
        self._timer = self._loop.call_later(self._read_timeout_s, self._on_timer, exchange, started_at)
        try:
            await self._send(exchange)
            answer = await exchange.answer
            if answer.is_success and not self._is_sent(exchange):
                raise BadAnswer("the server says that it is done, before all of the request was sent")
            is_whole = True
            return answer
        finally:
            self._timer.cancel()
            self._exchange = None
            if not exchange.answer.done():
                exchange.answer.cancel()
            elif not is_whole and not exchange.answer.cancelled():
                exchange.answer.exception()  # it was cancelled at the moment in which it failed
            if not (is_whole and self._can_go_on(exchange)):
                self.abort()

    def abort(self) -> None:
        """Close at once; nothing more is sent."""
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()

    def certificate_sha256(self) -> str:
        """Of the certificate that the server has shown, in hex; empty without TLS."""
        shown = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        certificate = None if shown is None else shown.getpeercert(binary_form=True)
        return hashlib.sha256(certificate).hexdigest() if certificate else ""

    def _is_sent(self, exchange: _Exchange) -> bool:
        assert self._transport is not None
        return exchange.is_sent and self._transport.get_write_buffer_size() == 0

    def _can_go_on(self, exchange: _Exchange) -> bool:
        says_close = "close" in exchange.headers.get("connection", "").lower()
        return self._is_sent(exchange) and exchange.has_end and not exchange.is_followed and not says_close

    # ---- sending ----

    async def _send(self, exchange: _Exchange) -> None:
        """Hand everything to the transport, unless the answer comes before that."""
        request = exchange.request
        assert self._transport is not None
        head = request_head(request.method, request.target, request.headers)
        exchange.meter.is_begun = True
        self._transport.write(head)
        for part in request.parts:
            view = memoryview(part).cast("B")
            for start in range(0, len(view), self._slice_bytes):
                if self._writable is not None:
                    await self._writable
                if exchange.answer.done():
                    return
                piece = view[start : start + self._slice_bytes]
                self._transport.write(piece)
                exchange.meter.sent_bytes += len(piece)
                self._moved_at = self._loop.time()
        exchange.is_sent = True

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        self._moved_at = self._loop.time()
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _on_timer(self, exchange: _Exchange, started_at: float) -> None:
        now = self._loop.time()
        ends_at = min(
            self._moved_at + self._read_timeout_s,
            started_at + self._read_timeout_s * READ_TIMEOUTS_PER_REQUEST_MAX,
        )
        # The loop's clock may run ahead of a timer by its resolution.
        if now < ends_at - 0.001:
            self._timer = self._loop.call_at(ends_at, self._on_timer, exchange, started_at)
            return
        waited = f"nothing came or went for {self._read_timeout_s:g} s"
        if now < self._moved_at + self._read_timeout_s - 0.001:
            waited = f"not complete after {now - started_at:.0f} s"
        self._fail(exchange, Cut(waited, _partial(exchange), is_timeout=True))

    # ---- receiving ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own do not derive from it
        if transport.get_extra_info("ssl_object") is not None:
            self._slice_bytes = TLS_SLICE_BYTES
        self.is_usable = True

    def get_buffer(self, sizehint: int) -> memoryview:
        exchange = self._exchange
        if exchange is not None and exchange.body is not None and not exchange.answer.done():
            return exchange.body[exchange.received_bytes :]
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        exchange = self._exchange
        if exchange is None:
            self.abort()  # nobody asked
            return
        self._moved_at = self._loop.time()
        if exchange.answer.done():
            exchange.is_followed = True
            return
        exchange.meter.is_answered = True
        if exchange.body is None:
            self._read(exchange, bytes(self._buffer[:nbytes]))
            return
        exchange.received_bytes += nbytes
        exchange.meter.received_bytes += nbytes
        if exchange.received_bytes == len(exchange.body):
            self._finish(exchange)

    def _read(self, exchange: _Exchange, data: bytes) -> None:
        """Take bytes (none at the end of the stream) that come before a body of known length has begun."""
        if self._parser is None:
            usual = parse_usual_head(data, exchange.request.method)
            if usual is not None:
                exchange.status, exchange.headers, length, begin = usual
                self._begin_body(exchange, length, data[begin:])
                return
            self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
            self._parser.send(
                h11.Request(method=exchange.request.method, target="/", headers=[("host", "answers")])
            )
        self._read_unusual(exchange, self._parser, data)

    def _read_unusual(self, exchange: _Exchange, parser: h11.Connection, data: bytes) -> None:
        try:
            parser.receive_data(data)
            while exchange.body is None and not exchange.answer.done():
                event = parser.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    return
                self._take(exchange, parser, event)
        except h11.RemoteProtocolError as error:
            if not data:
                self._fail(exchange, Cut("the server closed the connection", _partial(exchange)))
            else:
                self._fail(exchange, BadAnswer(f"the server does not speak HTTP/1.1: {error}"))

    def _take(self, exchange: _Exchange, parser: h11.Connection, event: object) -> None:
        if isinstance(event, h11.InformationalResponse):
            exchange.interim_answers += 1
            if exchange.interim_answers > INTERIM_ANSWERS_MAX:
                self._fail(exchange, BadAnswer("the server sends interim answers without end"))
        elif isinstance(event, h11.Response):
            self._begin(exchange, event, parser.trailing_data[0])
        elif isinstance(event, h11.Data):
            exchange.meter.received_bytes += len(event.data)
            if len(exchange.collected) + len(event.data) > _body_bytes_max(exchange):
                self._fail(exchange, _too_large(exchange))
            else:
                exchange.collected += event.data
        elif isinstance(event, h11.EndOfMessage):
            exchange.is_followed = bool(parser.trailing_data[0])
            self._finish(exchange)

    def _begin(self, exchange: _Exchange, head: h11.Response, begun: bytes) -> None:
        """The head is complete: find out where the body ends (RFC 9112, section 6.3)."""
        exchange.status = head.status_code
        exchange.has_end = head.http_version >= b"1.1"
        for name, value in head.headers:
            text = value.decode("latin-1")
            known = exchange.headers.get(name.decode("ascii"))
            exchange.headers[name.decode("ascii")] = text if known is None else f"{known}, {text}"
        if exchange.request.method == "HEAD" or head.status_code in (204, 304):
            length = 0
        elif "transfer-encoding" in exchange.headers:
            return  # chunked, as h11 has made sure
        elif "content-length" in exchange.headers:
            # h11 has made sure that it is one number, but not of how many digits.
            text = exchange.headers["content-length"]
            length = int(text) if len(text) < 20 else sys.maxsize
        else:
            exchange.has_end = False
            return
        self._begin_body(exchange, length, begun)

    def _begin_body(self, exchange: _Exchange, length: int, begun: bytes) -> None:
        """Make room for a body of known length, and put in what has come of it."""
        if length > _body_bytes_max(exchange):
            self._fail(exchange, _too_large(exchange))
            return
        exchange.is_followed = len(begun) > length
        exchange.received_bytes = min(len(begun), length)
        exchange.meter.received_bytes += exchange.received_bytes
        exchange.body = memoryview(Block(length) if length else b"")
        if exchange.received_bytes:
            exchange.body[: exchange.received_bytes] = begun[:length]
        if exchange.received_bytes == length:
            self._finish(exchange)

    def eof_received(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.body is None and not exchange.answer.done():
            self._read(exchange, b"")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_usable = False
        if self._exchange is not None:
            how = f"the connection was lost: {error}" if error else "the server closed the connection"
            self._fail(self._exchange, Cut(how, _partial(self._exchange)))
        self.resume_writing()
        self._on_lost(self)

    def _finish(self, exchange: _Exchange) -> None:
        if not exchange.answer.done():
            body = exchange.collected if exchange.body is None else exchange.body.toreadonly()
            exchange.answer.set_result(Answer(exchange.status, exchange.headers, body))
        if not exchange.is_sent:
            self.resume_writing()  # the rest of the request need not be sent

    def _fail(self, exchange: _Exchange, error: Cut | BadAnswer) -> None:
        if not exchange.answer.done():
            exchange.answer.set_exception(error)
        self.resume_writing()
        self.abort()


def _body_bytes_max(exchange: _Exchange) -> int:
    is_success = 200 <= exchange.status < 300
    return exchange.request.body_bytes_max if is_success else ERROR_BODY_BYTES_MAX


def _too_large(exchange: _Exchange) -> BadAnswer:
    return BadAnswer(
        f"the server's answer ({exchange.status}) is larger than the {_body_bytes_max(exchange)} bytes"
        " that it may have"
    )


def _partial(exchange: _Exchange) -> Answer | None:
    """What came of an answer whose head is complete."""
    if not exchange.status:
        return None
    received = exchange.collected if exchange.body is None else exchange.body[: exchange.received_bytes]
    return Answer(exchange.status, exchange.headers, received)
