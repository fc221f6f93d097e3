"""Adds up what the workers of a run tell, second by second and in total."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from warp.cli.bench.histogram import Histogram
from warp.cli.bench.tasks import Interval, Phase

GB: Final = 10**9
SERIES_SECONDS_MAX: Final = 100_000
CONSIDERABLE_SHARE: Final = 0.1
CONSIDERABLE_US: Final = 1_000


@dataclass(slots=True)
class Second:
    """One second of a side, over its workers; rates add up, for each worker has its own exact time."""

    phase: Phase
    records_per_s: float = 0.0
    bytes_per_s: float = 0.0
    errors: int = 0
    backlog: int = 0
    reports: int = 0
    latency: Histogram = field(default_factory=Histogram)


class Side:
    """All producers or all consumers of a run."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.seconds: dict[tuple[int, bool], Second] = {}
        self.records = 0
        self.bytes = 0
        self.measured_s: dict[int, float] = {}
        self.cpu_s = 0.0
        self.errors: Counter[str] = Counter()
        self.latency = Histogram()
        self.endings: dict[int, dict[str, Any]] = {}

    def take(self, worker: int, interval: Interval) -> None:
        """Count an interval of a worker."""
        self.errors.update(interval.errors)
        self.latency.add(interval.latency)
        if interval.phase == "measured":
            self.records += interval.records
            self.bytes += interval.bytes
            self.cpu_s += interval.cpu_s
            self.measured_s[worker] = self.measured_s.get(worker, 0.0) + interval.seconds
        if len(self.seconds) < SERIES_SECONDS_MAX:
            self._take_second(interval)

    def _take_second(self, interval: Interval) -> None:
        key = (interval.number, interval.phase == "drain")
        second = self.seconds.setdefault(key, Second(interval.phase))
        second.reports += 1
        if interval.seconds > 0:
            second.records_per_s += interval.records / interval.seconds
            second.bytes_per_s += interval.bytes / interval.seconds
        second.errors += sum(interval.errors.values())
        second.backlog += interval.backlog
        second.latency.add(interval.latency)
        second.latency.add(interval.early_latency)

    @property
    def seconds_measured(self) -> float:
        """How long was measured: the time of the worker that took longest."""
        return max(self.measured_s.values(), default=0.0)

    @property
    def records_per_s(self) -> float:
        """Records in the measured time."""
        return self.records / self.seconds_measured if self.seconds_measured else 0.0

    @property
    def bytes_per_s(self) -> float:
        """Bytes in the measured time."""
        return self.bytes / self.seconds_measured if self.seconds_measured else 0.0

    @property
    def cpu_s_per_gb(self) -> float | None:
        """CPU time of the workers for 10^9 bytes; None when there were none."""
        return self.cpu_s / (self.bytes / GB) if self.bytes else None

    @property
    def failed(self) -> int:
        """Everything that went wrong, warm-up included."""
        return sum(self.errors.values())

    def total(self, name: str) -> int:
        """The sum of a count over what the workers told last."""
        return sum(ending[name] for ending in self.endings.values())

    def longest(self, name: str) -> int:
        """The largest of a value over what the workers told last."""
        return max((ending[name] for ending in self.endings.values()), default=0)


@dataclass(slots=True)
class Lag:
    """How far the load generator itself was behind the schedule."""

    own: Histogram
    latency: Histogram
    queue_full_s: float
    unsent: int
    unsent_for_s: float

    @property
    def share_of_latency(self) -> float:
        """What part of all the time that latencies are made of is the load generator's own."""
        return min(1.0, self.own.total_us / self.latency.total_us) if self.latency.total_us else 0.0

    @property
    def is_cause_of_unsent(self) -> bool:
        """True when records were left unsent and the queue was not full for most of the time that they were due."""
        return self.unsent > 0 and self.queue_full_s < self.unsent_for_s / 2

    @property
    def is_considerable(self) -> bool:
        """True when the latencies say more about the load generator than they should."""
        own_us, seen_us = (histogram.percentile_us(99) for histogram in (self.own, self.latency))
        return own_us >= CONSIDERABLE_US and (
            self.share_of_latency > CONSIDERABLE_SHARE or own_us > CONSIDERABLE_SHARE * seen_us
        )


def lag_of(producers: Side) -> Lag:
    """The lag of all producers together."""
    own = Histogram()
    for ending in producers.endings.values():
        own.add(Histogram.from_json(ending["own_lag"]))
    return Lag(
        own=own,
        latency=producers.latency,
        queue_full_s=producers.longest("queue_full_ns") / 1e9,
        unsent=producers.total("unsent_records"),
        unsent_for_s=producers.longest("unsent_for_ns") / 1e9,
    )
