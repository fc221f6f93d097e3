"""How long a connection waits for its peer: what the peer did last, held against the limits in time.

The connection says what happens; the pool has it look every second, and what is found here says why it has to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warp.server.limits import ServerLimits


class Patience:
    """With one peer. All times are seconds of the monotonic clock."""

    __slots__ = (
        "_begun_s",
        "_limits",
        "_partial_since_s",
        "_unsent_bytes",
        "_unsent_since_s",
        "heard_s",
        "parked_since_s",
    )

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._begun_s = 0.0
        self.heard_s = 0.0
        """When bytes came last, or when reading began again."""
        self.parked_since_s: float | None = None
        """Since when a request waits that others have to end."""
        self._partial_since_s: float | None = None
        self._unsent_bytes = 0
        self._unsent_since_s = 0.0

    def begins(self, now_s: float) -> None:
        """The connection is there."""
        self._begun_s = self.heard_s = now_s

    def is_late(self, now_s: float) -> bool:
        """Whether one that has not authenticated has had its time."""
        return (now_s - self._begun_s) * 1000 >= self._limits.authentication_ms_max

    def frames_came(self) -> None:
        """Whole frames: one that is on its way from here on has begun later."""
        self._partial_since_s = None

    def reads_again(self, now_s: float) -> None:
        """The peer was not read from; its silence until now was not its fault."""
        self.heard_s = now_s
        self._partial_since_s = None

    def watches_unsent(self, unsent_bytes: int, now_s: float) -> None:
        """From now on the peer has to take what was written for it."""
        self._unsent_bytes = unsent_bytes
        self._unsent_since_s = now_s

    def is_hoard(self, behind_bytes: int, now_s: float) -> bool:
        """Whether it holds too much, for too long, behind a request that waits for others."""
        since_s = self.parked_since_s
        return since_s is not None and self._limits.is_hoard(behind_bytes, now_s - since_s)

    def is_idle(self, now_s: float) -> bool:
        """Whether it has been silent for as long as a connection without requests may be."""
        return (now_s - self.heard_s) * 1000 >= self._limits.idle_ms_max

    def is_stuck(self, unsent_bytes: int, now_s: float) -> bool:
        """Whether it takes nothing of what was written for it, though it had the time."""
        if unsent_bytes < self._unsent_bytes:
            self.watches_unsent(unsent_bytes, now_s)
            return False
        return (now_s - self._unsent_since_s) * 1000 >= self._limits.write_stall_ms_max

    def with_partial_frame(self, now_s: float) -> str | None:
        """Why a peer that holds memory for a frame on its way is not waited for any longer; None while it is."""
        if self._partial_since_s is None:
            self._partial_since_s = now_s
        if (now_s - self.heard_s) * 1000 >= self._limits.partial_frame_ms_max:
            return "it stopped in the middle of a frame"
        if (now_s - self._partial_since_s) * 1000 >= self._limits.frame_ms_max:
            return "a frame takes too long to come"
        return None
