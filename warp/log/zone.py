"""What the cache asks of the other agents of its zone: chunks, before it asks the object store.

Each chunk has one agent of the zone that looks after it; the others ask that one, so that the store is asked about once
a chunk in the zone. It is a saving and nothing else: whatever goes wrong with a peer, the store has the bytes.

How long a peer is waited for follows from how long the store takes: an owner that has to read the chunk itself takes as
long as this agent would, so one that takes twice that is not worth waiting for.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from warp.log.hedge import HedgeLimits, LatencyWindow
from warp.objectstore.base import Buffer


class ChunkPeers(Protocol):
    """The other agents of the zone, as the cache sees them."""

    def ask(
        self, key: str, position: int, size: int, timeout_s: float
    ) -> Coroutine[Any, Any, Buffer | None] | None:
        """Ask whoever looks after these bytes; None: that is this agent, or nobody who can be asked.

        The answer is the range, or what there is of it where the object ends inside; None when the peer did not give it
        within `timeout_s`. It raises nothing: the failures of peers are theirs.
        """


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """How long a peer may take, by the 95th percentile of what the store takes."""

    timeout_ratio: float = 2.0
    timeout_min_s: float = 0.05
    """Below this a pause of either process is the likelier reason."""
    timeout_unknown_s: float = 1.0
    """While too little is known of the store."""
    timeout_max_s: float = 5.0


class StoreTimes:
    """How long the store took lately for a chunk, and how long a peer may take therefore."""

    def __init__(self, limits: PeerLimits) -> None:
        self._limits = limits
        self._window = LatencyWindow(HedgeLimits())

    def add(self, now: float, took_s: float) -> None:
        """The store gave a chunk after so long."""
        self._window.add(now, took_s)

    @property
    def peer_timeout_s(self) -> float:
        """After how long the store is asked instead."""
        limits = self._limits
        usual_s = self._window.p95_s()
        if usual_s is None:
            return limits.timeout_unknown_s
        return min(limits.timeout_max_s, max(limits.timeout_min_s, limits.timeout_ratio * usual_s))
