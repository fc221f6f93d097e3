"""The kinds of thing that an agent counts and measures by: counters, histograms, and numbers that others keep.

Recording is a dictionary update or a bisection on the loop's own thread, with no locks: it happens for every request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

SECONDS_BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip


class Counter:
    """A number that only grows, per combination of label values. A name without `_total` is shown as a gauge."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help_text
        self.labels = tuple(labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def add(self, amount: float, *label_values: str) -> None:
        """Raise the number that belongs to these label values."""
        self._values[label_values] = self._values.get(label_values, 0) + amount

    def value(self, *label_values: str) -> float:
        """The number now; 0 when it was never raised."""
        return self._values.get(label_values, 0)

    def collect(self) -> Metric:
        """What Prometheus is shown."""
        shape = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        family = shape(self.name, self.help, labels=self.labels)
        for label_values, value in sorted(self._values.items()):
            family.add_metric(label_values, value)
        return family


class Distribution:
    """How often a measured value fell into each range, and the sum of all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one measured value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus writes them."""
        below = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            below += count
            rows.append((bound, below))
        return rows


class Histogram:
    """A `Distribution` per combination of label values."""

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS_BOUNDS
    ) -> None:
        self.name = name
        self.help = help_text
        self.labels = tuple(labels)
        self._bounds = bounds
        self._children: dict[tuple[str, ...], Distribution] = {} if labels else {(): Distribution(bounds)}

    def of(self, *label_values: str) -> Distribution:
        """The distribution of these label values. Hot paths keep it."""
        child = self._children.get(label_values)
        if child is None:
            child = self._children[label_values] = Distribution(self._bounds)
        return child

    def observe(self, value: float, *label_values: str) -> None:
        """Count one measured value."""
        self.of(*label_values).observe(value)

    def collect(self) -> Metric:
        """What Prometheus is shown."""
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for label_values, child in sorted(self._children.items()):
            family.add_metric(label_values, child.buckets(), child.total)
        return family


class Reading:
    """A number that somebody else keeps and that is read when Prometheus asks: a gauge, or a counter (`_total`).

    Until `read` is set, it is not shown.
    """

    def __init__(self, name: str, help_text: str) -> None:
        self.name = name
        self.help = help_text
        self.labels: tuple[str, ...] = ()
        self.read: Callable[[], float] | None = None

    def collect(self) -> Metric | None:
        """What Prometheus is shown; None when nobody keeps the number."""
        if self.read is None:
            return None
        family = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        return family(self.name, self.help, value=self.read())


class Readings:
    """Numbers that somebody else keeps, one per combination of label values, read when Prometheus asks: a gauge, or a
    counter (`_total`).

    Until `read` is set, they are not shown. Whoever sets it bounds how many there are.
    """

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        self.name = name
        self.help = help_text
        self.labels = tuple(labels)
        self.read: Callable[[], Iterable[tuple[Sequence[str], float]]] | None = None

    def collect(self) -> Metric | None:
        """What Prometheus is shown; None when nobody keeps the numbers."""
        if self.read is None:
            return None
        shape = CounterMetricFamily if self.name.endswith("_total") else GaugeMetricFamily
        family = shape(self.name, self.help, labels=self.labels)
        for label_values, value in self.read():
            family.add_metric(label_values, value)
        return family


Instrument = Counter | Histogram | Reading | Readings
