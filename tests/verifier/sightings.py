"""What stands at each offset of a log, as everybody saw it who read there: one order for everybody (P3)."""

from __future__ import annotations

from array import array

from tests.verifier.history import UNKNOWN


class Sights:
    """One log: the content at each offset, UNKNOWN where nobody saw one. Nothing lies at or past `limit`."""

    def __init__(self, limit: int) -> None:
        self.contents = array("q")
        self._limit = limit

    def at(self, offset: int) -> int:
        """What stands there."""
        return self.contents[offset] if 0 <= offset < len(self.contents) else UNKNOWN

    def see(self, offset: int, content: int) -> int | None:
        """Note what stands at an offset; what was seen there before if that is something else.

        Raises IndexError for an offset at which nothing that was ever sent can stand.
        """
        if not 0 <= offset < self._limit:
            raise IndexError(offset)
        self._grow(offset + 1)
        known = self.contents[offset]
        if known == UNKNOWN:
            self.contents[offset] = content
            return None
        return None if known == content else known

    def see_run(self, offset: int, contents: array[int]) -> list[tuple[int, int]]:
        """Note what stands from an offset on; offsets and what was seen there before, where that is something else."""
        end = offset + len(contents)
        if not 0 <= offset <= end <= self._limit:
            raise IndexError(offset)
        self._grow(end)
        known = self.contents[offset:end]
        if known == contents:
            return []
        conflicts = []
        for place, (before, now) in enumerate(zip(known, contents, strict=True)):
            if before == UNKNOWN:
                self.contents[offset + place] = now
            elif before != now:
                conflicts.append((offset + place, before))
        return conflicts

    def _grow(self, size: int) -> None:
        missing = size - len(self.contents)
        if missing > 0:
            self.contents.extend(array("q", [UNKNOWN]) * missing)
