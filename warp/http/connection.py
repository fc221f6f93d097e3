"""One HTTP/1.1 connection: h11 reads the bytes, limits say how much and how long.

Everything that a peer can make large or slow has a bound: the header, the body, the time for sending a request, for
its handler, for taking the answer, and for silence between requests. One request at a time; reading stops meanwhile.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import h11

from warp.http.messages import NOBODY, Handler, Peer, Request, Response, error_response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from warp.security.principal import Principal

log = logging.getLogger("warp.http")

SERVER_HEADER: Final = ("Server", "warp")

SLICE_BYTES: Final = 512 * 1024
"""Of a long body, handed to the transport at a time: some transports copy what they can't send at once."""
TLS_SLICE_BYTES: Final = 64 * 1024
"""The same under TLS, which keeps buffers as large as what it was once given."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What the HTTP face may cost."""

    connections_max: int = 200
    header_bytes_max: int = 16 * 1024
    body_bytes_max: int = 64 * 1024
    request_ms_max: int = 10_000
    """From the first byte of a request to its last."""
    handler_ms_max: int = 30_000
    answer_ms_max: int = 10_000
    """For the peer to take the answer."""
    idle_ms_max: int = 60_000
    """Between requests."""


class Phase(enum.Enum):
    """What a connection waits for."""

    IDLE = "idle"
    READING = "reading"
    HANDLING = "handling"
    ANSWERING = "answering"
    CLOSED = "closed"


class HttpConnection(asyncio.Protocol):
    """The agent's side of one connection. `closed` is called once, when it is gone."""

    def __init__(
        self,
        handler: Handler,
        limits: HttpLimits,
        closed: Callable[[HttpConnection], None],
        principal: Callable[[ssl.SSLObject], Principal | None] = lambda shown: None,
    ) -> None:
        self._handler = handler
        self._principal = principal
        self._peer = NOBODY
        self._limits = limits
        self._closed = closed
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes_max)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._phase = Phase.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._drained = asyncio.Event()
        self._drained.set()
        self._ends_after_answer = False
        self._slice_bytes = SLICE_BYTES

    @property
    def is_idle(self) -> bool:
        """True between requests."""
        return self._is_in(Phase.IDLE)

    def end(self) -> None:
        """Close now when idle, otherwise after the answer."""
        self._ends_after_answer = True
        if self.is_idle:
            self._close()

    def abort(self) -> None:
        """Close now, whatever is in progress."""
        self._enter(Phase.CLOSED)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        # A cast, because uvloop's transports only look like asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        # Under TLS a limit of 0 is reached by an empty buffer, and the answer would never be taken.
        is_tls = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=1 if is_tls else 0)
        self._slice_bytes = TLS_SLICE_BYTES if is_tls else SLICE_BYTES
        try:
            self._peer = self._peer_of(transport)
        except ValueError as error:
            log.info("an HTTP connection is closed because of its certificate: %s", error)
            self.abort()
            return
        self._enter(Phase.IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._enter(Phase.CLOSED)
        self._drained.set()
        if self._task is not None:
            self._task.cancel()
        self._closed(self)

    def pause_writing(self) -> None:
        """asyncio: the peer does not take the answer as fast as it is written."""
        self._drained.clear()

    def resume_writing(self) -> None:
        """asyncio: the peer has taken the answer."""
        self._drained.set()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of the peer."""
        if self._phase is Phase.CLOSED:
            return
        if self._phase is Phase.IDLE:
            self._enter(Phase.READING)
        self._parser.receive_data(data)
        self._read_events()

    def eof_received(self) -> None:
        """asyncio: the peer sends nothing more. asyncio closes the transport."""

    def _read_events(self) -> None:
        """Take what the parser has, until a request is whole."""
        try:
            while self._phase is Phase.READING:
                event = self._parser.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._read_event(event)
        except h11.RemoteProtocolError as error:
            log.info("bad HTTP request: %s", error)
            self._fail(error.error_status_hint, None)

    def _read_event(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._head = event
            self._body.clear()
            # A peer that waits for leave to send its body need not be kept waiting; h11 knows whether it does.
            if self._parser.they_are_waiting_for_100_continue:
                self._write(h11.InformationalResponse(status_code=100, headers=[]))
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._limits.body_bytes_max:
                self._fail(413, f"the body is larger than {self._limits.body_bytes_max} bytes")
        elif isinstance(event, h11.EndOfMessage):
            self._handle_request()
        elif isinstance(event, h11.ConnectionClosed):
            self._close()

    def _handle_request(self) -> None:
        assert self._head is not None
        assert self._transport is not None
        self._enter(Phase.HANDLING)
        self._transport.pause_reading()
        path, _, query = self._head.target.decode("latin-1").partition("?")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._head.headers}
        method = self._head.method.decode("latin-1")
        request = Request(method, path, query, headers, bytes(self._body), self._peer)
        self._task = self._loop.create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        response = await self._handle(request)
        try:
            if not self._is_in(Phase.HANDLING):
                return
            self._enter(Phase.ANSWERING)
            self._send(response)
            await self._send_parts(response)
            await self._drained.wait()
        finally:
            if response.done is not None:
                response.done()
        if self._is_in(Phase.ANSWERING):
            self._next_request()

    async def _handle(self, request: Request) -> Response:
        try:
            async with asyncio.timeout(self._limits.handler_ms_max / 1000):
                return await self._handler(request)
        except TimeoutError:
            return error_response(503, "the answer took too long")
        except Exception:  # one place, so that a bug in a handler is seen and answered
            log.exception("an HTTP handler failed", extra={"path": request.path})
            return error_response(500)

    def _peer_of(self, transport: asyncio.Transport) -> Peer:
        """Raises ValueError for a certificate that says nothing that can be used."""
        address = transport.get_extra_info("peername")
        shown = transport.get_extra_info("ssl_object")
        principal = None if shown is None else self._principal(shown)
        return Peer(str(address[0]), int(address[1]), principal) if isinstance(address, tuple) else NOBODY

    def _is_in(self, phase: Phase) -> bool:
        """A method, because the phase changes during every await."""
        return self._phase is phase

    def _next_request(self) -> None:
        """After an answer: wait for the next request, or close when there can't be one."""
        assert self._transport is not None
        self._task = self._head = None
        if (
            self._ends_after_answer
            or self._parser.our_state is not h11.DONE
            or self._parser.their_state is not h11.DONE
        ):
            self._close()
            return
        self._parser.start_next_cycle()
        self._enter(Phase.IDLE)
        self._transport.resume_reading()
        if self._parser.trailing_data[0]:
            self._enter(Phase.READING)
            self._read_events()

    def _send(self, response: Response) -> None:
        headers = [
            SERVER_HEADER,
            ("Content-Type", response.content_type),
            ("Content-Length", str(response.size_bytes)),
            ("Cache-Control", "no-store"),
            *response.headers,
        ]
        if self._ends_after_answer:
            headers.append(("Connection", "close"))
        self._write(h11.Response(status_code=response.status, headers=headers))
        if self._has_body and response.body:
            self._write(h11.Data(data=response.body))
        if not self._has_body or not response.parts:
            self._write(h11.EndOfMessage())

    async def _send_parts(self, response: Response) -> None:
        """Write the parts, each slice once the one before it was taken."""
        assert self._transport is not None
        if not response.parts or not self._has_body:
            return
        for part in response.parts:
            view = memoryview(part)
            for start in range(0, len(view), self._slice_bytes):
                await self._drained.wait()
                if not self._is_in(Phase.ANSWERING):
                    return
                # h11 passes on whatever has a length.
                event = h11.Data(data=cast("bytes", view[start : start + self._slice_bytes]))
                for piece in self._parser.send_with_data_passthrough(event) or ():
                    self._transport.write(piece)
        self._write(h11.EndOfMessage())

    @property
    def _has_body(self) -> bool:
        """Has the answer to this request a body?"""
        return self._head is None or self._head.method != b"HEAD"

    def _write(self, event: h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage) -> None:
        assert self._transport is not None
        data = self._parser.send(event)
        if data:
            self._transport.write(data)

    def _fail(self, status: int, reason: str | None) -> None:
        """Answer an unreadable request, as far as that is still possible, and close."""
        self._ends_after_answer = True
        if self._parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._enter(Phase.ANSWERING)
            self._send(error_response(status, reason))
        self._close()

    def _close(self) -> None:
        """Close once what is written has been taken, or after the time for that."""
        self._enter(Phase.ANSWERING)
        if self._transport is not None:
            self._transport.close()

    def _enter(self, phase: Phase) -> None:
        """Begin a phase, and its time."""
        if self._phase is Phase.CLOSED:
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        after_ms = {
            Phase.IDLE: self._limits.idle_ms_max,
            Phase.READING: self._limits.request_ms_max,
            Phase.ANSWERING: self._limits.answer_ms_max,
        }.get(phase)
        if after_ms is not None:
            self._timer = self._loop.call_later(after_ms / 1000, self._expire, phase)

    def _expire(self, phase: Phase) -> None:
        if phase is Phase.READING:
            self._fail(408, "the request took too long to arrive")
        elif phase is Phase.IDLE:
            self._close()
        else:
            self.abort()
