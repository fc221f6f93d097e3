"""Looks at the catalogue again and again, so that what others have changed is known here whether they told it or not.

ACLs, credentials and quotas are asked for with every request, without a look at the store. Hints bring changes at once
but may be lost; this look finds them within a second. In a cluster it goes on always, not only once there are entries:
else the first one would be what is missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from warp.errors import MetadataError

logger = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.5
"""Between two looks: what was changed a second ago is known, as long as the store answers within half of one."""
LOOK_S_MAX = 2.0
"""After so long a look is given up: the next one may find a connection that does not hang."""


class CatalogueWatch:
    """Calls `look` every LOOK_INTERVAL_S, from `start` to `close`. While the store is away, what is known stays."""

    def __init__(self, look: Callable[[], Awaitable[None]]) -> None:
        self._look = look
        self._task: asyncio.Task[None] | None = None
        self._is_away = False
        self._bug = ""

    def start(self) -> None:
        """Begin, with a pause. Needs a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop, also in the middle of a look."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            try:
                async with asyncio.timeout(LOOK_S_MAX):
                    await self._look()
            except (MetadataError, TimeoutError) as error:
                if not self._is_away:
                    self._is_away = True
                    logger.warning(
                        "the catalogue can't be looked at: until it can, the ACLs, users, quotas and configs that this "
                        "agent knows stay in force: %s",
                        str(error) or f"no answer within {LOOK_S_MAX:g} s",
                    )
            except Exception as error:  # a bug: logged, once for the same one, and tried again
                if repr(error) != self._bug:
                    self._bug = repr(error)
                    logger.exception("a look at the catalogue failed")
            else:
                if self._is_away:
                    self._is_away = False
                    logger.info("the catalogue can be looked at again")
