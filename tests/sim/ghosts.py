"""A COMMIT that is carried out, or not, after the agent that had sent it was told that nobody knows.

So it is when the connection is lost while the database is at work on it: locks are held until then, and whoever comes
again with the same key has to wait for what becomes of it. That the agent dies meanwhile changes nothing.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from tests.sim.loop import OUTSIDE
from warp.errors import MetadataUnavailable
from warp.metadata.session import Session

if TYPE_CHECKING:
    from tests.sim.database import SimDatabase

LINGERS_S = 0.7
"""How long it takes on average."""
LINGERS_S_MAX = 8.0
APPLIED_SHARE = 0.7


class Ghost:
    """One such COMMIT; `leave` lets go of what it has locked."""

    def __init__(
        self, database: SimDatabase, transaction: AbstractAsyncContextManager[Session], leave: Callable[[], None]
    ) -> None:
        self.is_over = False
        self._database = database
        self._transaction = transaction
        self._leave = leave
        sky = database.sky
        self._is_applied = sky.chance.random() < APPLIED_SHARE
        delay_s = min(LINGERS_S_MAX, sky.chance.expovariate(1 / LINGERS_S))
        sky.loop.call_later(delay_s, self._begin_to_end, context=OUTSIDE)

    def _begin_to_end(self) -> None:
        self._database.sky.loop.create_task(self._end(), context=contextvars.Context())

    async def _end(self) -> None:
        self.is_over = True
        try:
            if self._is_applied:
                await self._transaction.__aexit__(None, None, None)
                self._database.committed()
            else:
                await self._roll_back()
        finally:
            self._leave()
            self._database.bury()

    async def _roll_back(self) -> None:
        error = MetadataUnavailable("the database was stopped in the commit")
        try:
            await self._transaction.__aexit__(type(error), error, None)
        except MetadataUnavailable:
            return
