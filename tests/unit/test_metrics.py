"""What Prometheus is shown, and that the documentation lists every metric."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from warp.instruments import SECONDS_BOUNDS, Counter, Distribution, Histogram, Reading, Readings
from warp.metrics import Metrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The rendered text as Prometheus understands it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_api_and_outcome() -> None:
    metrics = Metrics()
    metrics.count_request("Produce", 9, 0.002, "NONE")
    metrics.count_request("Produce", 9, 0.004, "NONE")
    metrics.count_request("Produce", 9, 3.0, "REQUEST_TIMED_OUT")
    shown = samples(metrics)
    assert shown["warp_requests_total", (("api", "Produce"), ("outcome", "NONE"))] == 2
    assert shown["warp_requests_total", (("api", "Produce"), ("outcome", "REQUEST_TIMED_OUT"))] == 1
    assert shown["warp_request_seconds_count", (("api", "Produce"),)] == 3
    assert shown["warp_request_seconds_sum", (("api", "Produce"),)] == pytest.approx(3.006)
    assert shown["warp_request_seconds_bucket", (("api", "Produce"), ("le", "0.0025"))] == 1
    assert shown["warp_request_seconds_bucket", (("api", "Produce"), ("le", "0.005"))] == 2
    assert shown["warp_request_seconds_bucket", (("api", "Produce"), ("le", "+Inf"))] == 3


@pytest.mark.parametrize(("value", "index"), [(0.0, 0), (0.0001, 0), (0.00011, 1), (30.0, 16), (31.0, 17)])
def test_a_value_falls_into_the_bucket_whose_bound_it_does_not_exceed(value: float, index: int) -> None:
    distribution = Distribution(SECONDS_BOUNDS)
    distribution.observe(value)
    assert distribution.counts.index(1) == index


def test_readings_show_what_others_keep_and_nothing_before() -> None:
    metrics = Metrics()
    assert ("warp_connections", ()) not in samples(metrics)
    metrics.connections.read = lambda: 7
    metrics.connections_opened.read = lambda: 9
    shown = samples(metrics)
    assert shown["warp_connections", ()] == 7
    assert shown["warp_connections_opened_total", ()] == 9


def test_counters_without_labels_start_at_zero() -> None:
    counter = Counter("warp_x_total", "x")
    assert [sample.value for sample in counter.collect().samples] == [0]
    counter.add(2.5)
    assert counter.value() == 2.5


def test_two_agents_in_one_process_keep_their_metrics_apart() -> None:
    first, second = Metrics(), Metrics()
    first.count_request("Fetch", 12, 0.1, "NONE")
    assert second.requests.value("Fetch", "NONE") == 0


def test_process_metrics_are_shown_when_asked_for() -> None:
    metrics = Metrics()
    metrics.watch_process()
    assert samples(metrics)["process_resident_memory_bytes", ()] > 2**20


def test_names_are_prometheus_names_with_their_unit() -> None:
    for instrument in Metrics().instruments():
        assert instrument.name.startswith("warp_")
        if isinstance(instrument, Counter):
            assert instrument.name.endswith(("_total", "_info"))
        if isinstance(instrument, Histogram):
            assert instrument.name.endswith(("_seconds", "_bytes"))
        assert instrument.help
        assert "\n" not in instrument.help


def kind_of(instrument: Counter | Histogram | Reading | Readings) -> str:
    if isinstance(instrument, Histogram):
        return "histogram"
    return "counter" if instrument.name.endswith("_total") else "gauge"


def expected_rows() -> list[str]:
    """The table of docs/metrics.md, one line per metric."""
    return [
        f"| `{item.name}` | {kind_of(item)} | {', '.join(item.labels)} | {item.help}. |"
        for item in Metrics().instruments()
    ]


def test_the_documentation_lists_every_metric_as_it_is() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `warp_")] == expected_rows()
