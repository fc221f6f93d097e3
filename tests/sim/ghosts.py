"""A COMMIT that is carried out, or not, after the agent that had sent it was told that nobody knows.

So it is when the connection is lost while the database is at work on it: locks are held until then, and whoever comes
again with the same key has to wait for what becomes of it. That the agent dies meanwhile changes nothing.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.faults import Sky
from tests.sim.loop import OUTSIDE

if TYPE_CHECKING:
    from tests.sim.database import Transaction

LINGERS_S = 0.7
"""How long it takes on average."""
LINGERS_S_MAX = 8.0
APPLIED_SHARE = 0.7


def haunt(transaction: Transaction, sky: Sky, committed: Callable[[Transaction], None]) -> None:
    """End a transaction some time from now, one way or the other."""
    transaction.is_ghost = True
    is_applied = sky.chance.random() < APPLIED_SHARE
    delay_s = min(LINGERS_S_MAX, sky.chance.expovariate(1 / LINGERS_S))

    async def end() -> None:
        if is_applied:
            await transaction.commit()
            committed(transaction)
        else:
            await transaction.roll_back()

    def begin_to_end() -> None:
        _ = sky.loop.create_task(end(), context=contextvars.Context())

    sky.loop.call_later(delay_s, begin_to_end, context=OUTSIDE)
