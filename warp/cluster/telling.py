"""What a member of a cluster says in its log: one line for each thing that changes, none for what goes on."""

from __future__ import annotations

import logging

from warp.cluster.clock_check import ClockCheck, ClockState
from warp.ids import BrokerId
from warp.metadata.agents import NOTHING_KNOWN
from warp.metadata.cluster_model import AgentState, ClusterRows, ClusterView, LiveAgent

_log = logging.getLogger("warp.cluster")


class Teller:
    """Keeps in mind what it has said. `timeout_s` is the time after which an agent that stands still is gone."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._away_s: float | None = None
        self._unreadable: dict[BrokerId, str] = {}
        self._bug = ""

    def failed(self, error: BaseException, age_s: float | None) -> None:
        """A beat has failed, and this is the first after which the session does not last any more, or a later one."""
        if self._away_s is not None:
            return
        self._away_s = age_s or 0.0
        _log.warning(
            "the metadata store has not answered for %.1f s: until it does, this agent coordinates no groups, and to "
            "the others it is gone: %s: %s",
            self._away_s,
            type(error).__name__,
            error,
        )

    def answered(self, age_s: float | None, *, was_live: bool) -> None:
        """A beat has gone through, the one before was sent `age_s` ago."""
        if self._away_s is not None:
            self._away_s = None
            _log.warning("the metadata store answers again, after %.1f s", age_s or 0.0)
        elif not was_live and age_s is not None and age_s != float("inf"):
            _log.warning(
                "this agent has shown no sign of life for %.1f s: the machine or the process stood still, or the "
                "metadata store was slow; the others may have taken over what it held",
                age_s,
            )

    def clock(self, clocks: ClockCheck) -> None:
        """This machine's clock is off, or right again."""
        skew_s = abs(clocks.skew_ms or 0) / 1000
        side = "ahead of" if (clocks.skew_ms or 0) > 0 else "behind"
        if clocks.state is ClockState.RIGHT:
            _log.warning("this machine's clock agrees with the database's again")
        elif clocks.state is ClockState.OFF:
            _log.warning("this machine's clock is %.1f s %s the database's: set it", skew_s, side)
        else:
            _log.error(
                "this machine's clock is %.1f s %s the database's: until it is set, no clients are sent here and no "
                "jobs run here",
                skew_s,
                side,
            )

    def seen(self, old: ClusterView, new: ClusterView, rows: ClusterRows) -> None:
        """One view has followed another."""
        self._tell_unreadable(new)
        if old.version == new.version:
            return
        states = {row.broker_id: row.state for row in rows.agents}
        for broker_id, agent in new.agents.items():
            if broker_id == new.own:
                continue
            before = old.agents.get(broker_id)
            if before is None:
                _log.info("agent %d is there", broker_id, extra=_words(agent))
            elif before.incarnation != agent.incarnation:
                _log.info("agent %d has been started again", broker_id, extra=_words(agent))
            elif agent.is_leaving and not before.is_leaving:
                _log.info("agent %d is leaving", broker_id, extra=_words(agent))
        for broker_id, agent in old.agents.items():
            if broker_id in new.agents:
                continue
            if states.get(broker_id) is AgentState.GONE:
                _log.info("agent %d has said goodbye", broker_id, extra=_words(agent))
            else:
                _log.warning(
                    "agent %d is gone: no sign of life for %g s",
                    broker_id,
                    self._timeout_s,
                    extra=_words(agent),
                )

    def bug(self, error: BaseException, doing: str) -> None:
        """An error that nobody expected; with its traceback, unless it is the same as before."""
        text = f"{doing}: {error!r}"
        if text != self._bug:
            self._bug = text
            _log.error("unexpected error while %s", doing, exc_info=error)

    def _tell_unreadable(self, view: ClusterView) -> None:
        unreadable = {
            broker_id: agent.incarnation
            for broker_id, agent in view.agents.items()
            if agent.facts == NOTHING_KNOWN and broker_id != view.own
        }
        for broker_id, incarnation in unreadable.items():
            if self._unreadable.get(broker_id) != incarnation:
                _log.warning(
                    "what agent %d says of itself can't be read: nobody is sent there; is it of another release?",
                    broker_id,
                )
        self._unreadable = unreadable


def _words(agent: LiveAgent) -> dict[str, object]:
    facts = agent.facts
    return {
        "endpoint": facts.endpoints[0] if facts.endpoints else None,
        "zone": facts.zone,
        "version": facts.version,
    }
