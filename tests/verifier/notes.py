"""What is noted while a history is gone through, to be judged then or in the end: how far logs had come, and when."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import NamedTuple

from tests.verifier.timeline import NEVER


class Floor(NamedTuple):
    """What a request has to see of a log, as of when it was sent."""

    log: int
    acknowledged: int
    """The end of what was acknowledged."""
    agent_end: int
    """The high watermark that this agent has told."""
    agent_start: int
    end: int
    """The highest that anybody has told."""
    start: int
    trim_asked: int
    """The highest offset that DeleteRecords was asked for: what lies below may be gone."""


class Gap(NamedTuple):
    """Offsets that a reader passed by."""

    log: int
    begin: int
    end: int
    who: str


class Look(NamedTuple):
    """Somebody was told how far a log goes."""

    log: int
    began: int
    """The moment at which he asked."""
    end: int
    """Nothing that he was told lies at or past it."""
    text: str


class Heights:
    """How high something of a log had come: moments, and what was reached by then."""

    def __init__(self) -> None:
        self.moments = array("q")
        self.heights = array("q")

    def reach(self, height: int, moment: int) -> None:
        """It had come so far, if not further. Moments don't go back."""
        if not self.heights or height > self.heights[-1]:
            self.moments.append(moment)
            self.heights.append(height)

    def before(self, moment: int) -> int:
        """How high it was before a moment."""
        index = bisect_left(self.moments, moment)
        return self.heights[index - 1] if index else 0

    def when_above(self, offset: int) -> int:
        """The first moment at which it was higher than an offset; NEVER if it never was."""
        index = bisect_left(self.heights, offset + 1)
        return self.moments[index] if index < len(self.moments) else NEVER


class Refusal(NamedTuple):
    """Somebody was told that an offset is out of range, though it lay before the end of what was acknowledged."""

    log: int
    position: int
    text: str
    moment: int
