"""Producers that have written nothing for long are forgotten: their sequence numbers, per log.

A producer that comes back after that begins anew, as in Kafka (`producer.id.expiration.ms`). One with an open
transaction is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from warp.clock import Clock
from warp.ids import LogId, ProducerId
from warp.lifecycle.ages import SteadyTime
from warp.metadata.group_model import Lease

_log = logging.getLogger("warp.jobs")

PRODUCERS_MAX = 1_000
"""Producers of logs that are looked at together."""


class ProducerStore(Protocol):
    """The part of the metadata store that is needed here; `warp.metadata.life_store` says what it does."""

    async def expire_producers(
        self, lease: Lease, after: tuple[LogId, ProducerId], limit: int, written_before_ms: int
    ) -> tuple[int, tuple[LogId, ProducerId] | None]: ...


@dataclass(slots=True)
class ProducerCounters:
    """What has been done so far, for metrics."""

    producers_expired: int = 0
    """A producer counts once for each log that it wrote to."""


class ProducerExpiry:
    """The job. `expiry_ms` is the time since its last write after which a producer is forgotten.

    `is_clock_trusted`: can this machine's clock tell what has had its time? Where it can't, all are kept; and so they
    are for `expiry_ms` after the clock was set, for what was written before may bear a wrong time.
    """

    def __init__(
        self,
        store: ProducerStore,
        clock: Clock,
        *,
        expiry_ms: int,
        time: SteadyTime | None = None,
        is_clock_trusted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.counters = ProducerCounters()
        self._store = store
        self._time = time or SteadyTime(clock)
        self._expiry_ms = expiry_ms
        self._is_clock_trusted = is_clock_trusted

    async def run(self, lease: Lease) -> None:
        """One pass. Raises LeaseLost or another MetadataError: some is done by then, the rest by the next pass."""
        if not self._is_clock_trusted() or self._time.has_jumped_within(self._expiry_ms / 1000):
            return
        before_ms = self._time.time_ms() - self._expiry_ms
        expired_before = self.counters.producers_expired
        after: tuple[LogId, ProducerId] | None = (LogId(0), ProducerId(-1))
        while after is not None:
            expired, after = await self._store.expire_producers(lease, after, PRODUCERS_MAX, before_ms)
            self.counters.producers_expired += expired
            await asyncio.sleep(0)
        if expired := self.counters.producers_expired - expired_before:
            _log.info("forgot %d idle producers, each counted once per log", expired)
