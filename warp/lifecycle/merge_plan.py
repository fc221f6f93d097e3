"""What a merge writes, decided from the index alone: pure, before a byte is read.

The bytes of a log stay what they are, so the index knows how large everything will be. Outputs follow the order of
log ids, one after the other, so that the next level is merged by reading its segments from front to back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from warp.ids import LogId
from warp.lifecycle.levels import TOP_LEVEL, MergeLimits
from warp.lifecycle.output import EXTENT_BYTES_MAX
from warp.metadata.life_model import IndexRow

ROWS_PER_STEP = 128


@dataclass(slots=True)
class Portion:
    """What one output segment is made of: extents by log and offset. A single one may be larger than an output."""

    level: int
    rows: list[IndexRow] = field(default_factory=list)
    size_bytes: int = 0

    def take(self, row: IndexRow) -> None:
        self.rows.append(row)
        self.size_bytes += row.size_bytes

    def cut_off(self, log_id: LogId, limits: MergeLimits) -> list[IndexRow]:
        """Give back what of a log at the end fills no extent, so that it can begin the next portion: a log that is cut
        elsewhere has two small extents. Nothing, if that would leave less than half a portion."""
        at, of_log = len(self.rows), 0
        while at and self.rows[at - 1].log_id == log_id:
            at -= 1
            of_log += self.rows[at].size_bytes
        full_bytes, kept_bytes = of_log // EXTENT_BYTES_MAX * EXTENT_BYTES_MAX, self.size_bytes - of_log
        while at < len(self.rows) and self.rows[at].size_bytes <= full_bytes:
            full_bytes -= self.rows[at].size_bytes
            kept_bytes += self.rows[at].size_bytes
            at += 1
        if kept_bytes < limits.output_bytes // 2 and at < limits.swap_rows_max // 2:
            return []
        rest = self.rows[at:]
        del self.rows[at:]
        self.size_bytes = kept_bytes
        return rest

    def leave_out(self, logs: Collection[LogId]) -> None:
        """Forget the extents of some logs."""
        if logs:
            self.rows = [row for row in self.rows if row.log_id not in logs]
            self.size_bytes = sum(row.size_bytes for row in self.rows)

    def has_room(self, row: IndexRow, limits: MergeLimits) -> bool:
        """Whether one more extent still belongs here. The first always does."""
        is_small = self.size_bytes + row.size_bytes <= limits.output_bytes
        return not self.rows or (is_small and len(self.rows) < limits.swap_rows_max)


def settled_logs(log_bytes: Mapping[LogId, int], limits: MergeLimits) -> dict[LogId, int]:
    """The logs with enough data in a merge to lie in full extents for good, and how many bytes of each: whole extents.

    What is left stays where it is: it goes on with what comes next, and so fills an extent in the next merge.
    """
    return {
        log_id: size_bytes // EXTENT_BYTES_MAX * EXTENT_BYTES_MAX
        for log_id, size_bytes in log_bytes.items()
        if size_bytes >= max(limits.settled_bytes, EXTENT_BYTES_MAX)
    }


def climb(
    rows: Iterable[IndexRow], level: int, settled: Mapping[LogId, int], limits: MergeLimits
) -> Iterator[Portion | None]:
    """The portions of what is not settled, one level up; None now and then, for those who wait meanwhile."""
    return _portions(rows, min(level + 1, TOP_LEVEL), limits, lambda row: row.log_id not in settled)


def settle(
    rows: Iterable[IndexRow], settled: Mapping[LogId, int], limits: MergeLimits
) -> Iterator[Portion | None]:
    """The portions of settled logs, on top; None now and then."""
    return _portions(rows, TOP_LEVEL, limits, _Front(settled))


def rewrite(rows: Iterable[IndexRow], level: int, limits: MergeLimits) -> Iterator[Portion | None]:
    """All of it, on the level on which it is; None now and then."""
    return _portions(rows, level, limits, lambda row: True)


class _Front:
    """Of each settled log says yes to the extents at its front, as many bytes as it settles; to one at least."""

    def __init__(self, settled: Mapping[LogId, int]) -> None:
        self._settled = settled
        self._log_id = LogId(-1)
        self._left_bytes = 0

    def __call__(self, row: IndexRow) -> bool:
        is_first = row.log_id != self._log_id
        if is_first:
            self._log_id, self._left_bytes = row.log_id, self._settled.get(row.log_id, 0)
        if self._left_bytes and (is_first or row.size_bytes <= self._left_bytes):
            self._left_bytes = max(0, self._left_bytes - row.size_bytes)
            return True
        self._left_bytes = 0
        return False


def _portions(
    rows: Iterable[IndexRow], level: int, limits: MergeLimits, is_wanted: Callable[[IndexRow], bool]
) -> Iterator[Portion | None]:
    portion = Portion(level)
    for number, row in enumerate(rows, 1):
        if is_wanted(row):
            while not portion.has_room(row, limits):
                rest = portion.cut_off(row.log_id, limits)
                yield portion
                portion = Portion(level, rest, sum(row.size_bytes for row in rest))
            portion.take(row)
        if number % ROWS_PER_STEP == 0:
            yield None
    if portion.rows:
        yield portion
