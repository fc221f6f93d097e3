"""TLS on one connection: a protocol to the socket's transport, and a transport to the connection above it.

The event loop's own TLS holds 256 KiB for each connection, and tells nobody of a connection before its handshake is
over. Here all connections receive into one buffer that they share, as they do without TLS, so that an idle one costs
little more than OpenSSL's state; what waits to be sent is encrypted only as fast as the socket takes it, so that an
answer is never in memory twice; and the connection above is there from the accept on, so that it counts, and its limits
in time hold, while the handshake lasts.

No I/O happens here: ciphertext goes from and to the transport below.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from warp.security.tls_errors import tls_error_text

if TYPE_CHECKING:
    from warp.security.principal import Principal

CIPHER_BUFFER_BYTES = 65_536
"""The buffer that all connections share to receive into; as much may wait in a connection that is not read from."""

_FED_BYTES = 32_768
"""Ciphertext given to OpenSSL at a time: its buffer keeps the size that it once had."""
_RECORD_BYTES = 16_384
"""The largest record of TLS."""
_SENT_BYTES_MAX = 131_072
"""Ciphertext that waits in the socket's transport; the rest of what is to be sent waits in the clear."""


class Secured(Protocol):
    """What is above: an asyncio.BufferedProtocol that is told of the handshake."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection, whose handshake is to come."""

    def secured(self, principal: Principal) -> None:
        """The handshake is over; by its certificate the peer is this."""

    def insecure(self, why: str) -> None:
        """There is no TLS, or no more; the connection has to be closed."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio.BufferedProtocol; and so for the others."""

    def buffer_updated(self, nbytes: int) -> None: ...
    def eof_received(self) -> bool | None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class Phase(enum.Enum):
    """How far it is."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    ENDED = "the peer sends nothing more"
    OVER = "over"


class TlsEndpoint(asyncio.Transport, asyncio.BufferedProtocol):
    """The server's end. `receive` is the buffer that it shares; `principal_of` reads who the peer is.

    `principal_of` raises ValueError where the certificate says nothing that can be used.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        above: Secured,
        receive: memoryview,
        principal_of: Callable[[ssl.SSLObject], Principal],
    ) -> None:
        super().__init__()
        self._context = context
        self._above = above
        self._receive = receive
        self._principal_of = principal_of
        self._below: asyncio.Transport
        self._from_peer = ssl.MemoryBIO()
        self._to_peer = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_peer, self._to_peer, server_side=True)
        self._phase = Phase.HANDSHAKE
        self._held = b""  # ciphertext that came and has not been given to OpenSSL: while reading is paused
        self._is_paused = False
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._high, self._low = 65_536, 16_384
        self._is_below_full = False
        self._is_above_paused = False
        self._is_pump_due = False
        self._is_closing = False

    # ---- what the transport below tells ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection, whose handshake is to come."""
        # uvloop's transports are none of asyncio's classes.
        self._below = cast("asyncio.Transport", transport)
        self._below.set_write_buffer_limits(high=_SENT_BYTES_MAX - 1)
        self._above.connection_made(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where ciphertext is received."""
        return self._receive

    def buffer_updated(self, nbytes: int) -> None:
        """So much ciphertext has come."""
        self._take(self._receive[:nbytes])

    def eof_received(self) -> bool | None:
        """The peer has ended its side, maybe without a word of TLS: frames say themselves where they end."""
        if self._phase is Phase.HANDSHAKE or self._phase is Phase.OVER:
            return False
        return self._end()

    def pause_writing(self) -> None:
        """The socket takes no more for now. Nor is it read from: TLS itself answers some of what comes."""
        self._is_below_full = True
        if self._is_below_there():
            self._below.pause_reading()

    def resume_writing(self) -> None:
        """The socket takes more again."""
        self._is_below_full = False
        self._read_below()
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._phase = Phase.OVER
        self._is_closing = True
        self._held = b""
        self._unsent.clear()
        self._unsent_bytes = 0
        self._above.connection_lost(exc)

    # ---- reading ----

    def _take(self, data: memoryview) -> None:
        """Ciphertext has come: decrypt as much as the connection above will have, keep the rest."""
        at = 0
        while self._phase is not Phase.OVER:
            self._from_peer.write(data[at : at + _FED_BYTES])
            at += _FED_BYTES
            if self._phase is Phase.HANDSHAKE:
                self._shake_hands()
            if self._phase is Phase.OPEN:
                self._read()
            if at >= len(data):
                return
            if self._is_paused:
                self._held = bytes(data[at:])
                return

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(tls_error_text(error))
            return
        self._flush()
        try:
            principal = self._principal_of(self._tls)
        except ValueError as error:
            self._fail(str(error))
            return
        self._phase = Phase.OPEN
        self._above.secured(principal)

    def _read(self) -> None:
        """Give what can be decrypted to the connection above, until it has enough."""
        is_dry = False
        while not is_dry and not self._is_paused and self._phase is Phase.OPEN:
            buffer = self._above.get_buffer(-1)
            room, filled, is_end = len(buffer), 0, False
            failure: ssl.SSLError | None = None
            try:
                while filled < room and not is_end:
                    size = self._tls.read(room - filled, buffer[filled:])
                    filled += size  # type: ignore[operator]  # with a buffer it is a number
                    is_end = not size
            except ssl.SSLWantReadError:
                is_dry = True
            except ssl.SSLError as error:
                failure = error
            del buffer
            if filled:
                self._above.buffer_updated(filled)
            if failure is not None:
                self._fail(tls_error_text(failure))
            elif is_end:
                self._end()
        if self._to_peer.pending:
            self._flush()  # an answer of TLS itself, as to a change of keys

    def _end(self) -> bool:
        """The peer sends nothing more; True while the connection above has something for it."""
        if self._phase is Phase.OPEN:
            self._phase = Phase.ENDED
            return bool(self._above.eof_received())
        return self._phase is Phase.ENDED

    def _fail(self, why: str) -> None:
        """No TLS with this peer. What TLS has to say about that is sent before the end."""
        if self._phase is Phase.OVER:
            return
        self._phase = Phase.OVER
        self._flush()
        self._above.insecure(why)

    # ---- the transport of the connection above ----

    def pause_reading(self) -> None:
        """Give no more to the connection above."""
        self._is_paused = True
        if self._is_below_there():
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading: first what is here already."""
        if not self._is_paused:
            return
        self._is_paused = False
        if self._held or self._from_peer.pending or self._tls.pending():
            asyncio.get_running_loop().call_soon(self._catch_up)
        else:
            self._read_below()

    def _catch_up(self) -> None:
        if self._is_paused or self._phase is Phase.OVER:
            return
        held, self._held = self._held, b""
        self._take(memoryview(held))
        if not self._is_over():
            self._read_below()

    def _read_below(self) -> None:
        """Read from the socket, unless something speaks against it."""
        if self._is_paused or self._is_below_full or self._held or not self._is_below_there():
            return
        self._below.resume_reading()

    def _is_below_there(self) -> bool:
        """Whether the transport below can be used: a peer may have closed it, and that it is lost be told later."""
        return not self._below.is_closing()

    def _is_over(self) -> bool:
        return self._phase is Phase.OVER

    def is_reading(self) -> bool:
        """Whether the connection above is given what comes."""
        return not self._is_paused

    def write(self, data: Any) -> None:
        """Send to the peer; large data is kept as it is until the socket has room, so it must not change."""
        if self._is_closing or not data:
            return
        self._unsent.append(memoryview(data))
        self._unsent_bytes += len(data)
        self._encrypt()
        if not self._is_above_paused and self.get_write_buffer_size() > self._high:
            self._is_above_paused = True
            self._above.pause_writing()
        if self._unsent or self._is_above_paused:
            self._pump_soon()

    def _pump(self) -> None:
        """Encrypt and send as much as the socket takes; see that the rest follows."""
        self._encrypt()
        if not self._unsent and self._is_closing:
            self._say_goodbye()
            return
        if self._is_above_paused and not self._is_below_full and self._unsent_bytes <= self._low:
            self._is_above_paused = False
            self._above.resume_writing()
        if self._unsent:
            self._pump_soon()

    def _pump_soon(self) -> None:
        """Go on in the loop's next round: some transports send at the end of one, and say only then that they are full.

        Never within `write`: the connection above must not be told to write on while it writes.
        """
        if not self._is_below_full and not self._is_pump_due:
            self._is_pump_due = True
            asyncio.get_running_loop().call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._is_pump_due = False
        if self._phase is not Phase.OVER:
            self._pump()

    def _encrypt(self) -> None:
        room_bytes = _SENT_BYTES_MAX - self._below.get_write_buffer_size()
        ready: list[bytes] = []
        while self._unsent and room_bytes > 0 and self._phase in (Phase.OPEN, Phase.ENDED):
            part = self._unsent[0]
            # A record at a time: OpenSSL's buffer keeps the size that it once had.
            size = self._tls.write(part[:_RECORD_BYTES])
            self._unsent_bytes -= size
            room_bytes -= size
            if size == len(part):
                self._unsent.popleft()
            else:
                self._unsent[0] = part[size:]
            ready.append(self._to_peer.read())
        if ready and self._is_below_there():
            self._below.writelines(ready)

    def _flush(self) -> None:
        """Send what TLS has to say."""
        if self._to_peer.pending and self._is_below_there():
            self._below.write(self._to_peer.read())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio.WriteTransport."""
        self._high = 65_536 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent, whether in the clear or encrypted."""
        return self._unsent_bytes + self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._tls if name == "ssl_object" else self._below.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether it is closed, or will be when what was written has been sent."""
        return self._is_closing

    def close(self) -> None:
        """Close when what was written has been sent."""
        if self._is_closing:
            return
        self._is_closing = True
        if not self._unsent or self._phase is Phase.OVER:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._phase in (Phase.OPEN, Phase.ENDED):
            # It would wait for the peer's goodbye, which nobody needs; a peer that broke TLS gets none.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        self._phase = Phase.OVER
        self._below.close()

    def abort(self) -> None:
        """Close now."""
        self._phase = Phase.OVER
        self._is_closing = True
        self._below.abort()
