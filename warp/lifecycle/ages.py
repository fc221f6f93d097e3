"""How old things are, where clocks may jump: what is deleted by its age has to be so old by two clocks.

Times in the metadata and in object stores are wall-clock times, of several machines; any of these clocks may be set, by
hours, forward or back. A boot-time clock is never set, but tells only how long one process has been watching. So what
was noted as dead is deleted when both agree; and what goes by wall-clock times alone, because it outlives every
process, goes by a wall clock whose jumps forward count only after they have lasted for a day.
"""

from __future__ import annotations

import logging
import math

from warp.clock import Clock

_log = logging.getLogger("warp.jobs")

JUMP_MS = 60_000
"""Less is corrected now and then, and hurts nobody."""
SETTLE_S = 86_400.0
"""How long a wall clock has to stand by a jump forward. Somebody will have set it right, if it was wrong."""
JUST_NOW_MS = 3_600_000
"""What lies in the future by more than that was noted by a clock that was wrong, or this one is."""


class SteadyTime:
    """Wall time that a jump of the wall clock does not hurry. One for all jobs of an agent tells of a jump once.

    It goes on as boot time does from where the wall clock stood, as long as the two are apart, unless the wall clock
    is behind. A clock that was set back and then forward again is where it was.
    """

    def __init__(self, clock: Clock, *, settle_s: float = SETTLE_S) -> None:
        self._clock = clock
        self._settle_s = settle_s
        self._anchor_ms = clock.time_ms()
        self._anchor_s = clock.boottime()
        self._off_ms = 0
        """By how much the wall clock was ahead after its last jump."""
        self._jumped_at_s = -math.inf

    def time_ms(self) -> int:
        """Milliseconds since 1970: the wall clock's, or less, while that has just jumped ahead."""
        wall_ms, now_s = self._clock.time_ms(), self._clock.boottime()
        steady_ms = self._anchor_ms + int((now_s - self._anchor_s) * 1000)
        off_ms = wall_ms - steady_ms
        if abs(off_ms - self._off_ms) > JUMP_MS:
            self._tell(off_ms - self._off_ms)
            self._off_ms, self._jumped_at_s = off_ms, now_s
        if abs(off_ms) > JUMP_MS and now_s - self._jumped_at_s < self._settle_s:
            return min(wall_ms, steady_ms)
        self._anchor_ms, self._anchor_s, self._off_ms = wall_ms, now_s, 0
        return wall_ms

    def has_jumped_within(self, seconds: float) -> bool:
        """Was the wall clock seen to be set, one way or the other, so recently?"""
        self.time_ms()
        return self._clock.boottime() - self._jumped_at_s < seconds

    def _tell(self, by_ms: int) -> None:
        way = "ahead: nothing is deleted for that, unless it lasts" if by_ms > 0 else "back"
        _log.warning("this machine's wall clock has jumped %.0f s %s", abs(by_ms) / 1000, way)


class FirstSeen:
    """When this process first saw each of the things that it comes across in every pass, by boot time.

    Remembers `things_max` of them (80 bytes each, twice that for moments). Between `begin` and `end` lies one pass
    that goes through all; what it did not meet is forgotten then.
    """

    def __init__(self, clock: Clock, *, things_max: int) -> None:
        self._clock = clock
        self._things_max = things_max
        self._known: dict[int, float] = {}
        self._met: dict[int, float] = {}

    @property
    def is_full(self) -> bool:
        """Is there no room for another one in this pass?"""
        return len(self._met) >= self._things_max

    def begin(self) -> None:
        """A pass begins. What one that came to no end has met is remembered as well, as far as there is room."""
        for thing, first_s in self._met.items():
            if len(self._known) >= self._things_max:
                break
            self._known.setdefault(thing, first_s)
        self._met = {}

    def age_s(self, thing: int) -> float:
        """How long ago the thing was first seen; 0 for a new one, also when there is no room to remember it."""
        now_s = self._clock.boottime()
        first_s = self._met.get(thing)
        if first_s is None:
            if self.is_full:
                return now_s - self._known.get(thing, now_s)
            # Taken over, not copied: there may be very many.
            first_s = self._met[thing] = self._known.pop(thing, now_s)
        return now_s - first_s

    def end(self) -> None:
        """The pass has come to its end."""
        self._known, self._met = self._met, {}


def is_old(noted_ms: int, now_ms: int, seen_s: float, *, wall_s: float, boot_s: float) -> bool:
    """Is something so old by both clocks: noted at `noted_ms`, watched for `seen_s` by boot time?

    Where it was noted in the future, wall clocks tell nothing: then boot time alone decides, after longer.
    """
    if noted_ms > now_ms:
        return seen_s >= max(2 * boot_s, wall_s)
    return now_ms - noted_ms >= wall_s * 1000 and seen_s >= boot_s
