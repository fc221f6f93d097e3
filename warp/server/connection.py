"""One client's connection: bytes to frames, frames to requests, answers back in the order of arrival.

Requests start in the order in which they came, and how far one holds back the next is its `Order` (handlers/table):
a serial one until it is answered, a staged one (Produce) until its batches have their place in the buffer, a concurrent
one (Fetch) not at all. Answers wait for those before them.

Reading stops while too many requests wait, while memory for the next frame is not to be had, while the peer does not
take its answers, and at the end. So each connection's memory is bounded, whatever its peer does.

The transport is anything that asyncio calls one: a socket's, TLS over that, or an in-memory one in a simulation.

Until it is known who the peer is, only authentication is let through, as `warp.server.incoming` says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, cast

from warp.errors import ErrorCode, KafkaError, ProtocolError
from warp.handlers.context import Held, Later, NoAnswer
from warp.handlers.table import Order
from warp.protocol import DecodeError, FrameSplitter
from warp.server.dispatch import OUTCOME_DROPPED
from warp.server.exchange import REQUEST_BYTES, Exchange, request_bytes
from warp.server.incoming import Incoming
from warp.server.mute import HOLD_THROTTLE, Mute
from warp.server.outgoing import Outgoing
from warp.server.patience import Patience
from warp.server.peer import frame_error, has_left, peer_text

if TYPE_CHECKING:
    from warp.handlers.context import Client
    from warp.log.memory import MemoryBudget
    from warp.protocol import Buffer
    from warp.server.authentication import ConnectionAuthentication
    from warp.server.early_memory import EarlyMemory
    from warp.server.pool import ConnectionPool

_QUIETLY = ""
"""As the reason for closing: nobody is at fault, nothing is logged."""

# Reasons not to read from the peer, as bits: plain integers, because they are looked at several times per request. Each
# is set by `_stop_reading` and ends with `_read_again`; while any is set the transport is paused.
HOLD_REQUESTS: Final = 1
HOLD_MEMORY: Final = 2
HOLD_ANSWERS: Final = 4
HOLD_END: Final = 8
_HOLD_STARTS: Final = HOLD_ANSWERS | HOLD_THROTTLE


class Connection(Incoming, asyncio.BufferedProtocol):
    """The broker's side of one connection."""

    def __init__(self, pool: ConnectionPool, client: Client) -> None:
        Incoming.__init__(self, pool, client)
        self._dispatcher = pool.dispatcher
        self._clock = pool.clock
        self._limits = pool.limits
        self._transport: asyncio.Transport
        # Frames that wait to be started, and requests that were started and whose answers are still to be written.
        self._frames: deque[Buffer] = deque()
        self._exchanges: deque[Exchange] = deque()
        # Requests without an answer that are still going on behind the back of the client (acks 0).
        self._unanswerable: dict[Exchange, None] = {}
        self._holder: Exchange | None = None
        self._fetches_running = 0
        self._hold = 0
        self._is_ending = False  # no more frames are taken; it closes when those that were are answered
        self._is_closed = False  # nothing more is written
        self._is_lost = False  # the transport is gone
        self._peer_waits = True  # somebody is there to wait for data that may come
        self._reservation: asyncio.Task[None] | None = None
        self._patience = Patience(pool.limits)
        self._is_flush_due = False
        self._ready_bytes = 0  # of answers that may be written and have not been
        self._outgoing = Outgoing(pool.sent)
        self._mute = Mute(self._stop_reading, self._read_again, self._go_on)
        client.mute = self._mute.extend

    @property
    def peer(self) -> str:
        """The peer's address, for log lines."""
        return self.client.address

    # ---- what the transport tells ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or end at once when there are too many connections."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = transport = cast("asyncio.Transport", transport)
        self._outgoing.open(transport)
        self.client.address = peer_text(transport)
        self._patience.begins(self._clock.monotonic())
        if self._pool.admit(self):
            transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        else:
            self._is_ending = True
            transport.abort()

    def buffer_updated(self, nbytes: int) -> None:  # type: ignore[override]  # a splitter's returns its frames
        """So many bytes have come."""
        self._patience.heard_s = self._clock.monotonic()
        self._pool.received_bytes += nbytes
        if self._is_ending:
            return
        try:
            frames = FrameSplitter.buffer_updated(self, nbytes)
        except DecodeError as error:
            self._close(frame_error(error))
            return
        self._take(frames)

    def eof_received(self) -> bool:
        """The peer sends nothing more; what it has sent is still answered, but nobody waits for data on its behalf."""
        self._end()
        self._give_up_waiting()
        return not self._is_closed

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone. Its waiting Fetches are given up; what it has produced is stored all the same."""
        self._is_ending = self._is_lost = self._is_closed = True
        self._stop_reading(HOLD_END)
        self._drop_frames(keep_staged=True)
        self._give_up_waiting()
        self._written()
        self._mute.close()
        self._go_on()

    def pause_writing(self) -> None:
        """The peer is slow to take its answers: its next requests wait."""
        self._watch_unsent()
        self._stop_reading(HOLD_ANSWERS)

    def resume_writing(self) -> None:
        """The peer has taken most of what was written."""
        self._written()
        self._read_again(HOLD_ANSWERS)
        self._go_on()

    def insecure(self, why: str) -> None:
        """TLS could not be had."""
        self._close(why)

    # ---- what the pool tells ----

    def check(self, now_s: float) -> None:
        """Apply the limits in time."""
        self._written()
        if self._is_lost:
            return
        patience = self._patience
        if not self.client.is_authenticated and not self._is_closed and patience.is_late(now_s):
            self._close("it has not authenticated in time")
        needed_bytes = sum(map(len, self._frames)) + self.reserved_bytes if self._pool.memory.waiting else 0
        if patience.is_hoard(needed_bytes, now_s):
            self._close("it holds memory behind a request that waits for others, who need it")
        if self._mute.is_on and (needed_bytes or has_left(self._transport)):
            self._mute.lift()
        if self._is_closed or self._hold & HOLD_ANSWERS:
            unsent_bytes = self._transport.get_write_buffer_size()
            if patience.is_stuck(unsent_bytes, now_s):
                self._pool.stalled(self, unsent_bytes)
                self.abort()
        elif self._hold:
            return  # it is us who don't read: the peer can't be blamed for its silence
        elif self.reserved_bytes:
            why = patience.with_partial_frame(now_s)
            if why is not None:
                self._close(why)
        elif patience.is_idle(now_s) and not self._is_busy() and not self.blocked:
            self._close(_QUIETLY)

    def drain(self) -> None:
        """Read nothing more, answer what has been read, then close."""
        self._end()

    def abort(self) -> None:
        """Close at once; what waits for an answer gets none."""
        self._is_ending = self._is_closed = True
        self._drop_frames(keep_staged=False)
        for exchange in self._exchanges:
            if exchange.task is not None:
                exchange.task.cancel()
        self._transport.abort()

    # ---- frames ----

    def _take(self, frames: Sequence[Buffer]) -> None:
        """Frames have come: start what may start, and see whether more can be read."""
        if frames:
            self._outgoing.release_sent()  # who asks on has mostly read: his next answer may wait for that memory
            self._frames.extend(frames)
            self._patience.frames_came()
            if not self.client.is_authenticated and self._asks_too_much(len(frames)):
                self._close(f"it asks more than {self._limits.early_requests_max} times unauthenticated")
                return
        if self.blocked:
            self._wait_for_memory()
        self._start_waiting()
        if self._is_full():
            self._stop_reading(HOLD_REQUESTS)

    def _is_full(self) -> bool:
        waiting = len(self._frames) + len(self._exchanges) + len(self._unanswerable)
        return waiting >= self._limits.requests_in_flight_max

    def _wait_for_memory(self) -> None:
        """Stop reading until the next frame's memory is there."""
        self._stop_reading(HOLD_MEMORY)
        wanted_bytes, memory = self.wanted_bytes, self._memory
        self._reservation = asyncio.get_running_loop().create_task(memory.reserve(wanted_bytes))
        self._reservation.add_done_callback(lambda task: self._granted(task, wanted_bytes, memory))

    def _granted(
        self, reservation: asyncio.Task[None], size_bytes: int, memory: MemoryBudget | EarlyMemory
    ) -> None:
        """Memory for the next frame is there."""
        self._reservation = None
        if reservation.cancelled():
            return
        if memory is not self._memory:  # it has authenticated meanwhile
            memory.release(size_bytes)
            self._memory.charge(size_bytes)
        if self._is_ending:
            self._memory.release(size_bytes)
            return
        self._patience.heard_s = self._clock.monotonic()
        try:
            frames = self.resume()
        except DecodeError as error:
            self._memory.release(size_bytes)
            self._close(frame_error(error))
            return
        self._read_again(HOLD_MEMORY)
        self._take(frames)

    def _drop_frames(self, *, keep_staged: bool) -> None:
        """Drop what has been read and not been started; with `keep_staged` all but the Produces."""
        kept: deque[Buffer] = deque()
        for frame in self._frames:
            if keep_staged and self._dispatcher.order(frame) is Order.STAGED:
                kept.append(frame)
            else:
                self._memory.release(len(frame))
        self._frames = kept

    # ---- requests ----

    def _start_waiting(self) -> None:
        """Start requests in the order of their arrival, as far as those before them let them."""
        while self._frames and self._holder is None and (self._is_lost or not self._hold & _HOLD_STARTS):
            is_full = self._fetches_running >= self._limits.fetches_running_max
            if is_full and self._dispatcher.order(self._frames[0]) is Order.CONCURRENT:
                break
            self._start(self._frames.popleft())
        if self._exchanges and self._exchanges[0].answered:
            self._write_answers()

    def _start(self, frame: Buffer) -> None:
        try:
            call = self._open_request(frame, self.client, self._patience.heard_s)
        except ProtocolError as error:
            self._memory.release(len(frame))
            self._close(str(error))
            return
        beside_bytes = request_bytes(call)
        self._memory.charge(beside_bytes)
        exchange = Exchange(call, len(frame) + beside_bytes)
        self._exchanges.append(exchange)
        self._advance(exchange, self._dispatcher.begin(call))

    def _advance(self, exchange: Exchange, result: Any) -> None:
        """Go on with what a handler gave: an answer, or something that will lead to one."""
        if type(result) is CoroutineType:
            self._run(exchange, result)
        elif type(result) is Later:
            self._wait(exchange, result)
        else:
            self._answer(exchange, result)

    def _run(self, exchange: Exchange, coroutine: Coroutine[Any, Any, Any]) -> None:
        if exchange.order is Order.CONCURRENT:
            self._fetches_running += 1
        else:
            self._holder = exchange
        exchange.task = asyncio.get_running_loop().create_task(coroutine)
        exchange.task.add_done_callback(lambda task: self._ran(exchange, task))
        if exchange.order is Order.CONCURRENT:
            self._wait_for_peer(exchange, exchange.task)

    def _wait_for_peer(self, exchange: Exchange, outcome: asyncio.Future[Any]) -> None:
        """Remember what to give up when the peer is gone; or give it up, for it is gone."""
        exchange.for_peer = outcome
        if not self._peer_waits:
            outcome.cancel()

    def _ran(self, exchange: Exchange, task: asyncio.Task[Any]) -> None:
        """A handler's task is done."""
        exchange.task = None
        if exchange.order is Order.CONCURRENT:
            self._fetches_running -= 1
        if self._holder is exchange:
            self._holder = None
        if not task.cancelled():
            result = self._dispatcher.guarded(exchange.call, task.result)
        elif self._is_ending:
            result = NoAnswer(close=_QUIETLY)
        else:
            result = self._dispatcher.refusal(exchange.call, KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER))
        self._advance(exchange, result)
        # Others that run beside it may end in the same round of the loop.
        if len(self._exchanges) > 1:
            self._flush_soon()
        else:
            self._go_on()

    def _wait(self, exchange: Exchange, later: Later) -> None:
        """Answer when the outcome is there; one that gets no answer makes room for those behind it now."""
        if exchange.order is Order.SERIAL:
            self._holder = exchange
        if not later.needs_request:
            self._memory.release(exchange.size_bytes - REQUEST_BYTES)
            exchange.size_bytes = REQUEST_BYTES
            self._patience.parked_since_s = self._clock.monotonic()
        if not later.is_answered:
            # Nothing was started behind it: until now it held back the others.
            self._exchanges.pop()
            self._unanswerable[exchange] = None
        later.outcome.add_done_callback(lambda outcome: self._concluded(exchange, later))
        if later.ends_with_client:
            self._wait_for_peer(exchange, later.outcome)

    def _concluded(self, exchange: Exchange, later: Later) -> None:
        """What an answer waited for has happened."""
        if self._holder is exchange:
            self._holder = self._patience.parked_since_s = None
        result: Any
        if later.outcome.cancelled():
            is_given_up = later.ends_with_client and self._is_ending
            result = NoAnswer(close=_QUIETLY if is_given_up else "what became of it is not known")
        else:
            result = self._dispatcher.guarded(exchange.call, lambda: later.build(later.outcome.result()))
        if later.is_answered:
            self._answer(exchange, result)
        else:
            del self._unanswerable[exchange]
            self._finish(exchange)
            if isinstance(result, NoAnswer) and result.close is not None:
                self._close(result.close)
        self._flush_soon()

    # ---- answers ----

    def _answer(self, exchange: Exchange, result: Any) -> None:
        """A request has its answer; it leaves when those before it have left."""
        if type(result) is Held:
            exchange.release = result.release
            result = result.response
        if type(result) is NoAnswer:
            exchange.closes = result.close
        elif not self._is_lost:
            encoded = self._dispatcher.encode(exchange.call, result)
            if isinstance(encoded, NoAnswer):
                exchange.closes = encoded.close
            else:
                exchange.parts = encoded
        exchange.answered = True
        if self._gate is not None:
            self._heed(self._gate)
        self._finish(exchange)
        self._ready_bytes += sum(map(len, exchange.parts))
        if self._ready_bytes > self._limits.write_buffer_bytes:
            self._write_answers()

    def _heed(self, gate: ConnectionAuthentication) -> None:
        """An answer of authentication may change what frames look like, or be the last one."""
        self.frame_bytes_min = gate.frame_bytes_min
        if gate.has_failed and not self._is_ending:
            self._drop_frames(keep_staged=False)
            self._end()
            self._flush_soon()

    def _finish(self, exchange: Exchange) -> None:
        """The request itself is over: its frame is not needed any more."""
        self._dispatcher.ended(exchange.call, OUTCOME_DROPPED if self._is_lost else None)
        exchange.call.request = None
        self._memory.release(exchange.size_bytes)

    def _write_answers(self) -> None:
        """Write the answers whose turn it is, until the peer takes no more for now."""
        self._ready_bytes = 0
        outgoing = self._outgoing
        while self._exchanges and self._exchanges[0].answered:
            if self._hold & HOLD_ANSWERS and not self._is_closed:
                break
            exchange = self._exchanges.popleft()
            if self._is_closed:
                if exchange.release is not None:
                    exchange.release()
                continue
            if exchange.closes is not None:
                outgoing.flush()
                self._close(exchange.closes)
                continue
            outgoing.put(exchange.parts, exchange.release)
        outgoing.flush()
        if outgoing.holds_memory:
            asyncio.get_running_loop().call_soon(self._written)

    def _flush_soon(self) -> None:
        """Go on when everything that is ready by now has been looked at, so that answers leave together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._go_on()

    def _written(self) -> None:
        """Give the memory back of what has left, or never will."""
        if self._is_lost:
            self._outgoing.release_all()
        else:
            self._outgoing.release_sent()

    def _go_on(self) -> None:
        """After something has ended: write, start and read what that makes room for; or finish."""
        self._write_answers()
        self._start_waiting()
        if self._hold & HOLD_REQUESTS and not self._is_full():
            self._read_again(HOLD_REQUESTS)
        if self._is_ending and not self._is_busy():
            if not self._is_closed:
                self._close(_QUIETLY)
            elif self._is_lost and not self._unanswerable:
                self._pool.forget(self)

    def _is_busy(self) -> bool:
        """Whether the peer has requests that are not answered."""
        return bool(self._exchanges or self._frames)

    # ---- the end ----

    def _end(self) -> None:
        """Take no more requests; close when those that were taken are answered."""
        self._is_ending = True
        self._stop_reading(HOLD_END)
        self._mute.close()
        if not self._is_busy():
            self._close(_QUIETLY)

    def _close(self, why: str) -> None:
        """Close after what was written has left; nothing more is read, started or written. Errors are logged once."""
        if self._is_closed:
            return
        self._is_ending = self._is_closed = True
        if why:
            self._pool.broke_protocol(self, why)
        self._stop_reading(HOLD_END)
        self._drop_frames(keep_staged=not why)
        self._watch_unsent()
        self._transport.close()

    def _give_up_waiting(self) -> None:
        """Nobody is there to take what Fetches would bring, or to be in a group."""
        self._peer_waits = False
        for exchange in self._exchanges:
            if exchange.for_peer is not None:
                exchange.for_peer.cancel()

    def _watch_unsent(self) -> None:
        """From now on the peer has to take what was written for it."""
        self._patience.watches_unsent(self._transport.get_write_buffer_size(), self._clock.monotonic())

    # ---- reading ----

    def _stop_reading(self, reason: int) -> None:
        if reason == HOLD_END and not self._hold & HOLD_END:
            self._forget_partial_frame()
        if not self._hold and not self._is_lost:
            self._transport.pause_reading()
        self._hold |= reason

    def _read_again(self, reason: int) -> None:
        was, self._hold = self._hold, self._hold & ~reason
        if was and not self._hold:
            self._patience.reads_again(self._clock.monotonic())
            self._transport.resume_reading()

    def _forget_partial_frame(self) -> None:
        """Let go of a frame that is on its way: nobody reads the rest of it."""
        if self._reservation is not None:
            self._reservation.cancel()
        self._memory.release(self.reserved_bytes)
        self.close()
