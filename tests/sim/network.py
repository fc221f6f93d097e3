"""Connections in memory: bytes arrive late, in pieces of any size, in order, or not at all.

Each end looks like asyncio's transport to the protocol above it, back-pressure included. What a process sends travels
outside of it, so the network may still deliver what a dead process had written.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from tests.sim.loop import OUTSIDE, Process, SimLoop

Protocol = asyncio.Protocol | asyncio.BufferedProtocol
Accept = Callable[[], Protocol]
"""Makes the protocol for one more connection of a listener; called inside the listener's process."""

WRITE_BUFFER_HIGH = 65_536
LATENCIES_S = (0.0005, 0.005, 0.05, 0.3)
TROUBLE_S = (0.2, 1.0, 4.0)
"""How long connections stand still; less than the most patient clients wait."""
CUT_SHARE = 0.25
"""Of deliveries: those that bring only a piece of what could come."""


class Network:
    """Who listens where, and the connections between them."""

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.latency_s = LATENCIES_S[0]
        self.greet: Callable[[Any], Awaitable[None]] | None = None
        """What a client does first on a connection that it has opened, where agents ask for it."""
        self.chunk_bytes_max = chance.choice((1_000, 30_000))
        self._listeners: dict[str, tuple[Process, Accept]] = {}
        self._links: dict[int, Link] = {}
        self._opened = 0

    def listen(self, address: str, process: Process, accept: Accept) -> None:
        """Take connections for an address."""
        self._listeners[address] = (process, accept)

    def stop_listening(self, address: str, process: Process) -> None:
        """Refuse connections to an address, if it is this process that listens there."""
        if address in self._listeners and self._listeners[address][0] is process:
            del self._listeners[address]

    async def connect(self, address: str, protocol: Protocol) -> str:
        """Connect a client's protocol; the name of the process that it is connected to.

        Raises ConnectionRefusedError.
        """
        await asyncio.sleep(self.delay_s())
        listener = self._listeners.get(address)
        if listener is None or not listener[0].is_alive:
            raise ConnectionRefusedError(address)
        process, accept = listener
        self._opened += 1
        link = Link(self, self._opened, process)
        self._links[link.number] = link
        self.loop.call_soon(link.server.open, accept, context=process.context)
        link.client.open(lambda: protocol)
        return process.name

    def cut(self, count_max: int) -> int:
        """Break some connections at random, without a word to either side for now."""
        alive = [link for link in self._links.values() if not link.is_cut]
        chosen = self.chance.sample(alive, min(count_max, len(alive)))
        for link in chosen:
            link.cut()
        return len(chosen)

    def trouble(self, count_max: int) -> str:
        """Make things worse for all connections, or for some: what has become of which."""
        alive = [link for link in self._links.values() if not link.is_cut]
        chosen = self.chance.sample(alive, min(count_max, len(alive)))
        seconds = self.chance.choice(TROUBLE_S)
        match self.chance.choice(("slow", "stall", "drop")):
            case "slow":
                self.latency_s = self.chance.choice(LATENCIES_S)
                return f"latency is {self.latency_s} s"
            case "stall":
                for link in chosen:
                    link.stall(seconds)
                return f"{len(chosen)} connections bring nothing for {seconds} s"
            case _:
                for link in chosen:
                    link.drop(seconds)
                return f"{len(chosen)} connections lose everything, and are found broken after {seconds} s"

    def calm(self) -> None:
        """Nothing bad happens any more; what stands still goes on in its time."""
        self.latency_s = LATENCIES_S[0]

    def process_died(self, process: Process) -> None:
        """A machine without the process resets its connections."""
        for link in list(self._links.values()):
            if link.process is process:
                link.cut()

    def forget(self, link: Link) -> None:
        """A connection is over on both sides."""
        self._links.pop(link.number, None)

    def delay_s(self) -> float:
        """How long something takes to the other side."""
        return self.chance.expovariate(1 / self.latency_s)


class Link:
    """One connection: its two ends."""

    def __init__(self, network: Network, number: int, process: Process) -> None:
        self.network = network
        self.number = number
        self.process = process
        self.is_cut = False
        self.is_dropping = False
        """Whatever is sent gets lost."""
        self.stalled_until_s = 0.0
        here = contextvars.copy_context()
        self.client = End(self, here, f"client-{number}")
        self.server = End(self, process.context, f"server-{number}")
        self.client.peer, self.server.peer = self.server, self.client

    def stall(self, seconds: float) -> None:
        """Bring nothing for a while."""
        self.stalled_until_s = self.network.loop.time() + seconds

    def drop(self, seconds: float) -> None:
        """Lose what is sent from now on, and be found broken some time later."""
        self.is_dropping = True
        self.network.loop.call_later(seconds, self.cut, context=OUTSIDE)

    def delay_s(self) -> float:
        """How long the next piece takes."""
        stalled_s = self.stalled_until_s - self.network.loop.time()
        return self.network.delay_s() + max(0.0, stalled_s)

    def cut(self) -> None:
        """Drop what is on the way; each side learns of it in its own time."""
        if not self.is_cut:
            self.is_cut = True
            for end in (self.client, self.server):
                error = ConnectionResetError("cut by the simulation")
                delay_s = self.network.delay_s()
                self.network.loop.call_later(delay_s, end.lose, error, context=OUTSIDE)


class End(asyncio.Transport):
    """One side's transport."""

    def __init__(self, link: Link, context: contextvars.Context, name: str) -> None:
        super().__init__({"peername": (name, link.number), "sockname": ("sim", 0)})
        self.peer: End
        self._link = link
        self._network = link.network
        self._context = context
        self._protocol: Any = None
        self._outgoing: deque[bytes] = deque()
        self._outgoing_bytes = 0
        self._incoming: deque[bytes] = deque()
        """Bytes that have come while nobody read."""
        self._high = WRITE_BUFFER_HIGH
        self._is_writing_paused = False
        self._is_reading = True
        self._is_delivering = False
        self._is_closing = False
        self._is_lost = False

    def open(self, make: Accept) -> None:
        """Put a protocol on top. Runs inside its process."""
        if self._is_lost:
            return
        self._protocol = make()
        self._protocol.connection_made(self)
        self.peer._pump()

    # What a protocol calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; the bytes are copied at once."""
        if self._is_closing or self._link.is_cut or not data:
            return
        self._outgoing.append(bytes(data))
        self._outgoing_bytes += len(data)
        self._pump()
        if self._outgoing_bytes > self._high and not self._is_writing_paused:
            self._is_writing_paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """Send what is left, then end."""
        if not self._is_closing:
            self._is_closing = True
            self._pump()
            self._close_if_done()

    def abort(self) -> None:
        """End now."""
        self._is_closing = True
        self._link.cut()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._is_closing or self._link.is_cut

    def pause_reading(self) -> None:
        """Deliver nothing until further notice."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        if not self._is_reading:
            self._is_reading = True
            self._network.loop.call_soon(self._feed, context=self._context)
            self.peer._pump()

    def is_reading(self) -> bool:
        """Whether bytes are delivered."""
        return self._is_reading

    def get_write_buffer_size(self) -> int:
        """Bytes that have not arrived."""
        return self._outgoing_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When to ask the protocol to stop writing."""
        self._high = WRITE_BUFFER_HIGH if high is None else high

    def can_write_eof(self) -> bool:
        """Half-closed connections are not simulated."""
        return False

    # The way to the other side

    def _pump(self) -> None:
        """See to it that the next piece is on its way."""
        if self._outgoing and not self._is_delivering and self.peer._is_reading and self.peer._protocol:
            self._is_delivering = True
            self._network.loop.call_later(self._link.delay_s(), self._deliver, context=OUTSIDE)

    def _deliver(self) -> None:
        self._is_delivering = False
        if self._link.is_cut or self._link.is_dropping or not self.peer._is_reading or not self._outgoing:
            return
        first = self._outgoing.popleft()
        size = min(len(first), self._network.chunk_bytes_max)
        if self._network.chance.random() < CUT_SHARE:
            size = self._network.chance.randint(1, size)
        if size < len(first):
            self._outgoing.appendleft(first[size:])
        self._outgoing_bytes -= size
        loop = self._network.loop
        loop.call_soon(self.peer._receive, first[:size], context=self.peer._context)
        if self._is_writing_paused and self._outgoing_bytes <= self._high // 4:
            self._is_writing_paused = False
            loop.call_soon(self._resume_writing, context=self._context)
        self._pump()
        self._close_if_done()

    def _resume_writing(self) -> None:
        if not self._is_lost:
            self._protocol.resume_writing()

    def _receive(self, data: bytes) -> None:
        """Bytes have come. Runs inside the receiver's process."""
        self._incoming.append(data)
        self._feed()

    def _feed(self) -> None:
        """Hand over what has come, until the protocol wants no more."""
        while self._incoming and self._is_reading and not (self._is_lost or self._is_closing):
            data = self._incoming.popleft()
            if isinstance(self._protocol, asyncio.Protocol):
                self._protocol.data_received(data)
                continue
            buffer = memoryview(self._protocol.get_buffer(-1))
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            if size < len(data):
                self._incoming.appendleft(data[size:])
            self._protocol.buffer_updated(size)

    def _close_if_done(self) -> None:
        if self._is_closing and not self._outgoing and not self._is_delivering and not self._link.is_cut:
            self._link.is_cut = True
            for end in (self, self.peer):
                self._network.loop.call_later(self._network.delay_s(), end.lose, None, context=OUTSIDE)

    def lose(self, error: Exception | None) -> None:
        """The connection is gone; tell the protocol, inside its process."""
        if not self._is_lost:
            self._is_lost = True
            if self._protocol is not None:
                self._network.loop.call_soon(self._protocol.connection_lost, error, context=self._context)
            if self.peer._is_lost:
                self._network.forget(self._link)
