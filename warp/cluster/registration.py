"""How a process gets its agent's registration, when it starts.

An agent is known by the address that it advertises first, so that a process that follows another keeps its broker id.
The one before may not have said goodbye: then this one watches whether the registration still moves. One that stands
still is taken over; one that moves belongs to an agent that lives, and two can't be reached at one address.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from warp.clock import Clock
from warp.cluster.observing import Stillness
from warp.errors import MetadataError, StartError
from warp.ids import BrokerId
from warp.metadata.cluster_model import AgentFacts, AgentRow, AgentState

_log = logging.getLogger("warp.cluster")


class RegistrationStore(Protocol):
    """The part of the metadata store that joining needs. `MetadataStore` says what each does."""

    async def find_agent(self, name: str) -> AgentRow | None: ...

    async def join_agent(
        self, name: str, incarnation: str, facts: AgentFacts, seen: AgentRow | None
    ) -> BrokerId | None: ...


class Registration:
    """The way of one process, an `incarnation`, to the registration under `name`.

    The one before is looked at every `look_s` and counts as gone after `timeout_s`; all in all this takes no longer
    than `join_s_max`, and each request `request_s_max`.
    """

    def __init__(
        self,
        store: RegistrationStore,
        clock: Clock,
        name: str,
        incarnation: str,
        *,
        look_s: float,
        timeout_s: float,
        join_s_max: float,
        request_s_max: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self._incarnation = incarnation
        self._look_s = look_s
        self._timeout_s = timeout_s
        self._join_s_max = join_s_max
        self._request_s_max = request_s_max
        self._stillness = Stillness(gap_s=timeout_s / 2)
        self._is_interrupted = False
        self._has_told = False
        self.sent_s = 0.0
        """Boot time at which the request was sent that got the registration."""

    async def get(self, facts: AgentFacts) -> BrokerId:
        """The broker id. Raises StartError when an agent that lives has the name, or the store doesn't answer."""
        began_s = self._clock.monotonic()
        while True:
            problem = "another process holds its registration, and is about to leave or to start"
            try:
                async with asyncio.timeout(self._request_s_max):
                    broker_id = await self._attempt(facts)
                if broker_id is not None:
                    return broker_id
            except TimeoutError:
                self._is_interrupted = True
                problem = f"the metadata store did not answer within {self._request_s_max:g} s"
            except MetadataError as error:
                # Nothing was changed, or the next look finds this incarnation in the registration.
                self._is_interrupted = True
                problem = str(error)
            if self._clock.monotonic() - began_s > self._join_s_max:
                raise StartError(
                    f"can't register {self._name} within {self._join_s_max:g} s: {problem}"
                ) from None
            await asyncio.sleep(self._look_s)

    async def _attempt(self, facts: AgentFacts) -> BrokerId | None:
        """One look, and the joining if the way is free; None if not, or if somebody else was faster."""
        sent_s = self._clock.boottime()
        row = await self._store.find_agent(self._name)
        if row is not None and row.incarnation == self._incarnation:
            # An attempt before went through, though its answer did not come. When it did is not known.
            self.sent_s = float("-inf")
            return row.broker_id
        if row is not None and not self._may_follow(row, sent_s):
            return None
        self.sent_s = self._clock.boottime()
        return await self._store.join_agent(self._name, self._incarnation, facts, row)

    def _may_follow(self, row: AgentRow, sent_s: float) -> bool:
        """Is the process gone that has the registration? Raises StartError when it certainly lives."""
        if row.state is AgentState.GONE:
            return True
        received_s = self._clock.boottime()
        has_moved = self._stillness.see((row.incarnation, row.counter), sent_s, received_s)
        if has_moved and self._has_told and row.state is AgentState.SERVING:
            raise StartError(
                f"another agent that lives advertises {self._name}: give each agent an address of its own "
                "(--advertise), or stop the other one"
            )
        if self._is_interrupted:
            self._is_interrupted = False
            self._stillness.restart(received_s)
        self._tell(row)
        return self._stillness.still_s > self._timeout_s

    def _tell(self, row: AgentRow) -> None:
        if not self._has_told:
            self._has_told = True
            _log.warning(
                "the agent that advertised %s before has not said goodbye: watching for %g s whether it lives",
                self._name,
                self._timeout_s,
                extra={"broker_id": row.broker_id},
            )
