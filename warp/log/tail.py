"""What an agent remembers of the ends of logs, so that consumers that keep up cost no query.

The extents of a log tile its offsets without a gap. The index keeps the last of them, one run per log that reaches up
to some offset, and extends the run only with what joins it: an extent that begins later stays out until the store has
filled the gap, so nothing is ever skipped. It never says that an offset does not exist; it only says "ask the store".

Hints of other agents move the ends of logs that are known here, and make none known: what they promise beyond the run
is the store's to show.

Merging and compaction put other segments in the place of those that are remembered here, and delete these after a time
of grace. So what was learned long ago is not used any more: the store is asked again.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter

from warp.ids import LogId
from warp.log.hints import LogHint
from warp.metadata.model import CommitResult, Extent, LogRead, LogState

_END_OFFSET = attrgetter("end_offset")


class _Tail:
    """The run of one log: `extents` tile up to `end_offset`, which may lag behind the log's state.

    `learned_at` has the time of each extent; it never falls along the run.
    """

    __slots__ = ("asked_at", "end_offset", "extents", "learned_at", "state")

    def __init__(self, state: LogState, end_offset: int) -> None:
        self.state = state
        self.end_offset = end_offset
        self.extents: list[Extent] = []
        self.learned_at: list[float] = []
        self.asked_at = -math.inf

    @property
    def begin_offset(self) -> int:
        return self.extents[0].base_offset if self.extents else self.end_offset

    def append(self, extent: Extent, learned_at: float) -> None:
        """Extend the run by the extent that joins it."""
        self.end_offset = extent.end_offset
        self.extents.append(extent)
        self.learned_at.append(learned_at)

    def drop_first(self, count: int) -> int:
        """Let the run begin so many extents later; how many were dropped."""
        if count:
            del self.extents[:count], self.learned_at[:count]
        return count


class TailIndex:
    """The recent extents of the logs that were written or read last.

    `extents_max` bounds the extents of all logs together (a log without any counts as one), `extents_per_log_max` those
    of one log. Whole logs are forgotten in order of last use, the oldest extents of one log first.

    `age_s_max` is how long it is used what was learned, by `now`, in seconds: a clock that goes on while the machine
    sleeps.
    """

    def __init__(
        self,
        *,
        extents_max: int = 200_000,
        extents_per_log_max: int = 4_096,
        age_s_max: float = math.inf,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if extents_max < 1 or extents_per_log_max < 1:
            raise ValueError("the tail index needs room for one extent")
        self._extents_max = extents_max
        self._extents_per_log_max = extents_per_log_max
        self._age_s_max = age_s_max
        self._now = now
        self._tails: OrderedDict[LogId, _Tail] = OrderedDict()
        self.extent_count = 0
        """Extents held, plus one for each log."""
        self.gaps = 0
        """How often an extent did not join the run of its log."""

    def state(self, log_id: LogId) -> LogState | None:
        """The newest ends known of a log; None when nothing is known."""
        tail = self._tails.get(log_id)
        return tail.state if tail is not None else None

    def end_offset(self, log_id: LogId) -> int | None:
        """Up to where the run of a log is known; None when nothing is known."""
        tail = self._tails.get(log_id)
        return tail.end_offset if tail is not None else None

    def asked_at(self, log_id: LogId) -> float:
        """When the store was last asked how a log goes on, as told to `fill`; minus infinity when nothing is known."""
        tail = self._tails.get(log_id)
        return tail.asked_at if tail is not None else -math.inf

    def read(self, log_id: LogId, offset: int, bytes_max: int) -> LogRead | None:
        """Extents from the one that holds `offset` on until `bytes_max` is reached; None: only the store can tell.

        With `offset` at the end of the log the answer has no extents.
        """
        tail = self._tails.get(log_id)
        if tail is None:
            return None
        self._drop_old(tail)
        if not max(tail.begin_offset, tail.state.start_offset) <= offset <= tail.end_offset:
            return None
        if offset == tail.end_offset < tail.state.next_offset:
            return None
        self._tails.move_to_end(log_id)
        return LogRead(tail.state, _until(tail.extents, offset, bytes_max))

    def committed(self, result: CommitResult) -> None:
        """Take over what a commit of this agent made."""
        begins: dict[LogId, int] = {}
        for extent in result.extents:
            begins.setdefault(extent.log_id, extent.base_offset)
        tails = {state.log_id: self._meet(state, begins.get(state.log_id)) for state in result.logs}
        now = self._now()
        for extent in result.extents:
            if not self._join(tails[extent.log_id], extent, now):
                self.gaps += 1
        self._trim()

    def fill(self, read: LogRead, asked_at: float = -math.inf) -> LogState | None:
        """Take over what the store said, and give back the newest state known, which may be newer than the answer's.

        `asked_at` is a time, by the caller's clock, before which the question was not asked.
        """
        if read.state is None:
            return None
        reaches_end = not read.extents or read.extents[-1].end_offset >= read.state.next_offset
        if not reaches_end and read.state.log_id not in self._tails:
            return read.state
        tail = self._meet(read.state, read.extents[0].base_offset if read.extents else None)
        now = self._now()
        for extent in read.extents:
            self._join(tail, extent, now)
        if reaches_end and read.extents and tail.end_offset < read.extents[-1].end_offset:
            self._restart(tail, read.extents, now)
        tail.asked_at = max(tail.asked_at, asked_at)
        self._trim()
        return tail.state

    def hinted(self, hint: LogHint) -> bool:
        """Let the ends of a log come forward, if the log is known here; False when that is no news.

        Not so its last stable offset: that belongs to the aborted transactions below it, of which a hint says nothing.
        """
        tail = self._tails.get(hint.log_id)
        if tail is None:
            return True
        known = tail.state
        start_offset = max(known.start_offset, hint.start_offset)
        next_offset = max(known.next_offset, hint.next_offset, start_offset)
        if start_offset > known.start_offset or next_offset > known.next_offset:
            tail.state = replace(known, start_offset=start_offset, next_offset=next_offset)
            return True
        return hint.last_stable_offset > known.last_stable_offset

    def log_starts_at(self, log_id: LogId, start_offset: int) -> None:
        """The records of a log before `start_offset` were deleted."""
        tail = self._tails.get(log_id)
        if tail is not None and tail.state.start_offset < start_offset:
            tail.state = replace(tail.state, start_offset=start_offset)

    def forget(self, log_id: LogId) -> None:
        """Drop a log: it is gone, or what was known of it proved wrong."""
        tail = self._tails.pop(log_id, None)
        if tail is not None:
            self.extent_count -= 1 + len(tail.extents)

    def _meet(self, state: LogState, begin: int | None) -> _Tail:
        """The tail of a log, with its state brought up to date; a new one starts at `begin`, or at the log's end."""
        tail = self._tails.get(state.log_id)
        if tail is None:
            tail = self._tails[state.log_id] = _Tail(state, state.next_offset if begin is None else begin)
            self.extent_count += 1
        else:
            tail.state = _newer(tail.state, state)
            self._tails.move_to_end(state.log_id)
        return tail

    def _join(self, tail: _Tail, extent: Extent, now: float) -> bool:
        """Extend a run by an extent that begins where it ends; False for one that leaves a gap."""
        if extent.base_offset == tail.end_offset:
            tail.append(extent, now)
            self.extent_count += 1
            if len(tail.extents) > self._extents_per_log_max:
                # Half at once, so that dropping from the front of a list costs little per extent.
                self.extent_count -= tail.drop_first(len(tail.extents) - self._extents_per_log_max // 2)
        return extent.end_offset <= tail.end_offset

    def _drop_old(self, tail: _Tail) -> None:
        """Let a run begin with what is young enough to be used."""
        oldest = self._now() - self._age_s_max
        if tail.learned_at and tail.learned_at[0] < oldest:
            self.extent_count -= tail.drop_first(bisect_left(tail.learned_at, oldest))

    def _restart(self, tail: _Tail, extents: Sequence[Extent], now: float) -> None:
        """Begin a run anew with extents that reach the log's end but don't join what was known."""
        self.extent_count -= tail.drop_first(len(tail.extents))
        tail.end_offset = extents[0].base_offset
        for extent in extents:
            self._join(tail, extent, now)

    def _trim(self) -> None:
        while self.extent_count > self._extents_max and len(self._tails) > 1:
            self.forget(next(iter(self._tails)))


def _until(extents: Sequence[Extent], offset: int, bytes_max: int) -> list[Extent]:
    """The extents from the one that holds `offset` on whose sizes reach `bytes_max`; at least one, if there is one."""
    chosen: list[Extent] = []
    size_bytes = 0
    for index in range(bisect_right(extents, offset, key=_END_OFFSET), len(extents)):
        chosen.append(extents[index])
        size_bytes += extents[index].size_bytes
        if size_bytes >= bytes_max:
            break
    return chosen


def _newer(known: LogState, other: LogState) -> LogState:
    """The later of two states of a log, part by part: none of its ends ever goes back."""
    ends = (other.next_offset >= known.next_offset, other.last_stable_offset >= known.last_stable_offset)
    if all(ends) and other.start_offset >= known.start_offset:
        return other
    newest = other if other.next_offset > known.next_offset else known
    return replace(
        newest,
        start_offset=max(known.start_offset, other.start_offset),
        last_stable_offset=max(known.last_stable_offset, other.last_stable_offset),
    )
