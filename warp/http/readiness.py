"""Whether clients can be sent to this agent: asked of the stores themselves, but not more often than helps.

A load balancer may ask several times a second, and a store may charge for each request, so what was found out is good
for a few seconds, and those who ask meanwhile share one look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from warp.clock import Clock
from warp.errors import WarpError

log = logging.getLogger("warp.http")


class Readiness:
    """Runs probes of what the agent depends on; `probes` maps a name for people to a call that raises when it is down.

    `at_once` tells of what needs no look. `state` is a reason that goes before all others (starting, draining), or None
    while the agent serves.
    """

    def __init__(
        self,
        probes: Mapping[str, Callable[[], Awaitable[None]]],
        clock: Clock,
        *,
        at_once: Callable[[], str | None] = lambda: None,
        good_for_s: float = 5.0,
        probe_timeout_s: float = 5.0,
    ) -> None:
        self.state: str | None = "starting"
        self._probes = dict(probes)
        self._at_once = at_once
        self._clock = clock
        self._good_for_s = good_for_s
        self._probe_timeout_s = probe_timeout_s
        self._reasons: list[str] = []
        self._probed_at: float | None = None
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """What was found out last, without a new look."""
        return self.state is None and self._at_once() is None and not self._reasons

    async def reasons(self) -> list[str]:
        """Why clients should not be sent here; empty when they can be."""
        if self._state_reason():
            return self._state_reason()
        if self._probed_at is None or self._clock.monotonic() - self._probed_at >= self._good_for_s:
            if self._probing is None or self._probing.done():
                self._probing = asyncio.get_running_loop().create_task(self._probe_all())
            await asyncio.shield(self._probing)
        sudden = self._at_once()
        return self._state_reason() or [*self._reasons, *([] if sudden is None else [sudden])]

    async def close(self) -> None:
        """Give up a look that is under way."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    def _state_reason(self) -> list[str]:
        return [] if self.state is None else [self.state]

    async def _probe_all(self) -> None:
        reasons = []
        for name, probe in self._probes.items():
            reason = await self._probe(probe)
            if reason is not None:
                reasons.append(f"{name}: {reason}")
        if reasons != self._reasons:
            log.warning("what this agent depends on: %s", "; ".join(reasons) or "everything answers again")
        self._reasons = reasons
        self._probed_at = self._clock.monotonic()

    async def _probe(self, probe: Callable[[], Awaitable[None]]) -> str | None:
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                await probe()
        except TimeoutError:
            return f"no answer within {self._probe_timeout_s:g} s"
        except WarpError as error:
            return str(error)
        except Exception as error:  # a probe with a bug must not pass for a store that answers
            log.exception("a readiness probe failed unexpectedly")
            return repr(error)
        return None
