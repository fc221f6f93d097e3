"""Times of repeated calls, and their percentiles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Latency:
    """Sorted times in seconds; at least one."""

    samples_s: tuple[float, ...]

    @classmethod
    def of(cls, samples_s: Iterable[float]) -> Latency | None:
        """None when nothing was measured."""
        found = tuple(sorted(samples_s))
        return cls(found) if found else None

    def percentile_s(self, percent: float) -> float:
        """The smallest sample that at least `percent` of all are not above (nearest rank)."""
        rank = ceil(percent / 100 * len(self.samples_s))
        return self.samples_s[max(0, rank - 1)]

    @property
    def p50_s(self) -> float:
        return self.percentile_s(50)

    @property
    def p90_s(self) -> float:
        return self.percentile_s(90)

    @property
    def p99_s(self) -> float:
        return self.percentile_s(99)

    @property
    def max_s(self) -> float:
        return self.samples_s[-1]

    def words(self) -> str:
        """`p50 1.2 ms  p90 2.5 ms  p99 9.1 ms  max 9.1 ms`."""
        named = {"p50": self.p50_s, "p90": self.p90_s, "p99": self.p99_s, "max": self.max_s}
        return "  ".join(f"{name} {time_words(time_s)}" for name, time_s in named.items())

    def measured(self) -> dict[str, float]:
        """The same for scripts, in milliseconds, and the number of samples."""
        times_s = {"p50_ms": self.p50_s, "p90_ms": self.p90_s, "p99_ms": self.p99_s, "max_ms": self.max_s}
        rounded = {name: round(time_s * 1000, 3) for name, time_s in times_s.items()}
        return {"samples": len(self.samples_s), **rounded}


def time_words(time_s: float) -> str:
    """A time for people, three digits: `0.85 ms`, `12.3 ms`, `2.5 s`."""
    if time_s < 1:
        return f"{time_s * 1000:.3g} ms"
    return f"{time_s:.3g} s" if time_s < 1000 else f"{time_s:.0f} s"
