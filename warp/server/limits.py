"""The server's limits, and log lines that a flood can't multiply.

Every limit names its unit. Defaults are Kafka's where Kafka has one; its name stands in brackets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warp.clock import Clock


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one agent's listeners and connections may cost."""

    connections_max: int = 10_000
    """Open connections over all listeners; more are closed at once [max.connections]."""
    connections_per_address_max: int | None = None
    """Open connections of one client address [max.connections.per.ip]; None: no limit of their own."""
    connection_rate_max: int | None = None
    """New connections per second over all listeners; those above it wait [max.connection.creation.rate]."""
    early_connections_part: int = 4
    """Connections that have not authenticated may be one in so many of `connections_max`. One more than that takes the
    place of the one that has waited longest."""
    authentication_ms_max: int = 10_000
    """A connection that has not authenticated after so long, the TLS handshake included, is closed."""
    authentication_delay_ms: int = 100
    """How late a failed authentication is answered [connection.failed.authentication.delay.ms]."""
    early_requests_max: int = 100
    """Requests and tokens of a connection until it has authenticated; one more, and it is closed. Few are needed, and
    each of them, however small, costs the time of all and memory beside that of its bytes."""
    early_frame_bytes_max: int = 524_288
    """The largest frame before authentication [sasl.server.max.receive.size]."""
    early_allowance_bytes: int = 16_384
    """Memory that each connection may hold before it has authenticated."""
    early_memory_bytes_max: int = 16_777_216
    """Memory that all of them may hold above that."""
    request_bytes_max: int = 104_857_600
    """The largest frame [socket.request.max.bytes]."""
    requests_in_flight_max: int = 1_000
    """Requests of one connection that are read and not answered; at the limit it is not read from."""
    fetches_running_max: int = 2
    """Fetches of one connection that run at once; what they may return waits in memory for its turn."""
    idle_ms_max: int = 600_000
    """A connection that owes no answer and has been silent for so long is closed [connections.max.idle.ms]."""
    partial_frame_ms_max: int = 30_000
    """A connection that stops in the middle of a frame holds memory, and is closed after so long a silence."""
    frame_ms_max: int = 300_000
    """A frame that is not complete after so long will not be waited for, though bytes of it still come."""
    parked_ms_max: int = 10_000
    """How long frames may wait for memory while a connection whose request waits for other members holds much."""
    parked_bytes_max: int = 65_536
    """What such a connection may hold behind that request in any case."""
    write_stall_ms_max: int = 30_000
    """A connection that takes no byte of its answers for so long is dropped."""
    write_buffer_bytes: int = 65_536
    """Answers that may wait in a connection's transport before its next requests wait too."""
    receive_buffer_bytes: int = 262_144
    """The buffer that all connections share to receive into."""
    sweep_ms: int = 1_000
    """How often the limits in time are looked at."""

    @property
    def early_connections_max(self) -> int:
        """Connections that have not authenticated."""
        return max(1, self.connections_max // self.early_connections_part)

    def is_hoard(self, behind_bytes: int, parked_s: float) -> bool:
        """Is that too much, for too long, to be held behind a request that waits for other members of a group?"""
        return behind_bytes > self.parked_bytes_max and parked_s * 1000 >= self.parked_ms_max


class LogLimit:
    """Lets at most one log line pass per interval and counts the rest."""

    def __init__(self, clock: Clock, interval_ms: int = 1_000) -> None:
        self._clock = clock
        self._interval_s = interval_ms / 1000
        self._open_at = clock.monotonic()
        self._held_back = 0

    def passes(self) -> bool:
        """Whether a line may be written now."""
        now = self._clock.monotonic()
        if now < self._open_at:
            self._held_back += 1
            return False
        self._open_at = now + self._interval_s
        return True

    def note(self) -> str:
        """What to append to the line that passes: how many were held back since the last one."""
        held_back, self._held_back = self._held_back, 0
        return f" ({held_back} more like it not logged)" if held_back else ""
