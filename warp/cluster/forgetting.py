"""Agents that are gone for good: their registrations are removed, a day after the last that was heard of them.

An agent that is started again within that time has the broker id that it had before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentRow, ClusterRows, ClusterView
from warp.metadata.group_model import Lease

_log = logging.getLogger("warp.jobs")

FORGET_AFTER_MS = 86_400_000
FORGET_INTERVAL_S = 3_600.0


class AgentStore(Protocol):
    """The part of the metadata store that forgets."""

    async def forget_agents(self, seen: Sequence[AgentRow]) -> list[BrokerId]: ...


class Forgetting:
    """The job. `rows` is what the last beat has read, `view` who lives."""

    def __init__(
        self, store: AgentStore, rows: Callable[[], ClusterRows | None], view: Callable[[], ClusterView]
    ) -> None:
        self._store = store
        self._rows = rows
        self._view = view

    async def run(self, _lease: Lease) -> None:
        """One pass. Needs no lease to be right: only a registration that has not moved since is removed."""
        rows = self._rows()
        if rows is None:
            return
        live = self._view().agents
        old = [
            row
            for row in rows.agents
            if row.broker_id not in live and rows.time_ms - row.beat_ms >= FORGET_AFTER_MS
        ]
        forgotten = await self._store.forget_agents(old)
        if forgotten:
            _log.info("forgot %d agents that have been gone for a day or more", len(forgotten))
