"""An agent's own session: how long what it holds is still its own, and what ends it for good."""

from __future__ import annotations

from warp.errors import MetadataUnavailable
from warp.ids import BrokerId
from warp.metadata.cluster_model import ClusterRows

WENT_BACK = (
    "the metadata database has lost what was committed ({}): it was restored from a backup, or failed over to a server "
    "that lagged behind; see docs/postgres.md before starting agents again"
)

FORGOTTEN = (
    "the others have forgotten this agent, broker id {}, which showed no sign of life for {:.0f} hours: "
    "start it again"
)
FORGOTTEN_S_MIN = 12 * 3600.0
"""Others forget an agent after a day by the database's clock. Silence for half of it is enough of a reason here."""


class Session:
    """The session of one incarnation: it lasts `length_s` from the sending of the last beat that went through."""

    def __init__(self, length_s: float) -> None:
        self.is_over = False
        self._length_s = length_s
        self._sent_s: float | None = None
        self._counter: int | None = None

    def joined(self, sent_s: float) -> None:
        """The registration is this incarnation's since a request that was sent then."""
        self._sent_s = sent_s

    def end(self) -> None:
        """It never comes back."""
        self.is_over = True

    def is_live(self, now_s: float) -> bool:
        """Does it last at this boot time?"""
        return not self.is_over and self._sent_s is not None and now_s - self._sent_s <= self._length_s

    def age_s(self, now_s: float) -> float | None:
        """How long ago the last beat that went through was sent."""
        return None if self._sent_s is None else now_s - self._sent_s

    def beaten(self, rows: ClusterRows, own: BrokerId, incarnation: str, sent_s: float) -> str | None:
        """Take in the answer to a beat; why the agent must end, None if it goes on.

        Raises MetadataUnavailable when the answer doesn't say whose the registration is.
        """
        if rows.counter is None:
            reason = self._lost(rows, own, incarnation, sent_s)
        elif self._counter is not None and rows.counter <= self._counter:
            reason = WENT_BACK.format(f"this agent's counter is {rows.counter} after {self._counter}")
        else:
            self._counter, self._sent_s = rows.counter, sent_s
            return None
        self.end()
        return reason

    def _lost(self, rows: ClusterRows, own: BrokerId, incarnation: str, sent_s: float) -> str:
        row = next((row for row in rows.agents if row.broker_id == own), None)
        if row is None:
            silent_s = sent_s - (sent_s if self._sent_s is None else self._sent_s)
            if silent_s > FORGOTTEN_S_MIN:
                return FORGOTTEN.format(own, silent_s / 3600)
            return WENT_BACK.format(f"broker id {own} is not registered any more")
        if row.incarnation == incarnation:
            raise MetadataUnavailable("the registration changed while it was read")
        if self._counter is not None and row.counter <= self._counter:
            return WENT_BACK.format(f"this agent's registration is at {row.counter} after {self._counter}")
        return (
            f"another agent has taken over broker id {own}, because it advertises {row.name} too and this one did not "
            "answer for a while: give each agent an address of its own (--advertise)"
        )
