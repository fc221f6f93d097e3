"""Holds a coordinator to its session in the cluster: once that has lapsed it acts for nobody, until it has seen again.

Others may have taken the slots of an agent whose session has lapsed, for all that it knows. So it is asked at every
request, and from time to time for those who wait, whether the session is still the one in which this agent knew what it
has. When a new one has begun, the leases are looked at before anybody is served: they are renewed, so that who has made
up its mind to take them before finds them changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from warp.errors import MetadataError
from warp.groups.slots import SlotPolicy

_log = logging.getLogger("warp.groups")


class SessionGuard:
    """Tells whether this agent may act as a coordinator now.

    `lapsed()` is called when it may not any more, `check()` awaited when it may again if the leases are still there
    (it sees to those that are not; it may raise MetadataError, and is called again then), `revived()` after that.
    """

    def __init__(
        self,
        policy: SlotPolicy,
        watch_s: float,
        *,
        lapsed: Callable[[], None],
        check: Callable[[], Awaitable[None]],
        revived: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._watch_s = watch_s
        self._lapsed = lapsed
        self._check = check
        self._revived = revived
        self._session: int | None = policy.session()
        """The session in which this agent knows what it has; None after that has lapsed."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_serving(self) -> bool:
        """May this agent act as a coordinator? As of this very moment."""
        if not self._policy.is_shared:
            return True
        if self._session is not None:
            if self._policy.session() == self._session:
                return True
            self._session = None
            if not self._is_closed:
                _log.warning(
                    "the agent's session in the cluster has lapsed: it coordinates no groups until it is back"
                )
                self._lapsed()
        return False

    def open(self) -> None:
        """Begin to watch."""
        if self._policy.is_shared:
            self._session = self._policy.session()
            self._policy.subscribe(self._look)
            self._watch()

    async def close(self) -> None:
        """Watch no more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _watch(self) -> None:
        if not self._is_closed:
            self._timer = asyncio.get_running_loop().call_later(self._watch_s, self._watch)
            self._look()

    def _look(self) -> None:
        is_back = not self.is_serving and self._policy.session() is not None
        if is_back and self._task is None and not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._revive())

    async def _revive(self) -> None:
        """One attempt; the next comes with the watch."""
        try:
            session = self._policy.session()
            await self._check()
            if session is not None and self._policy.session() == session:
                self._session = session
                _log.info("the agent's session in the cluster lives again")
                self._revived()
        except MetadataError as error:
            _log.warning(
                "the leases of coordinator slots can't be looked at: %s: %s", type(error).__name__, error
            )
        except Exception:  # noqa: BLE001 - a bug: logged, and tried again
            _log.exception("looking at the leases of coordinator slots failed")
        finally:
            self._task = None
