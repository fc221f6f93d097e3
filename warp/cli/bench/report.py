"""What a run has found: as JSON with stable names (docs/bench.md), and as a few lines for people."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import confluent_kafka

from warp import __version__
from warp.cli.bench.histogram import Histogram, highest_us, lowest_us
from warp.cli.bench.results import Side, lag_of
from warp.cli.bench.settings import Settings
from warp.cli.bench.topic import BenchTopic
from warp.units import approximate_size

FORMAT: Final = 1
PERCENTILES: Final = (50, 90, 99, 99.9)
MB: Final = 10**6


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about a run. `latency` is whose latency the run is about: the producers' or the consumers'."""

    settings: Settings
    bootstrap: str
    topic: BenchTopic
    began: datetime
    is_interrupted: bool
    producers: Side | None
    consumers: Side | None

    @property
    def is_paced(self) -> bool:
        """True when records were due at fixed times."""
        return self.settings.records_per_s is not None

    @property
    def missing(self) -> int:
        """End to end: records that were acknowledged, and did not come back."""
        if self.producers is None or self.consumers is None:
            return 0
        return self.producers.total("acknowledged_records") - self.consumers.total("received_records")

    def failure(self) -> str | None:
        """One line when the run did not do what it was to; None when it did."""
        producers, consumers = self.producers, self.consumers
        if producers is not None and producers.failed:
            kinds = ", ".join(f"{name} {count}" for name, count in sorted(producers.errors.items()))
            return f"{producers.failed} of {producers.total('sent_records')} records were not stored: {kinds}"
        if producers is not None and (unanswered := producers.total("unanswered_records")):
            return f"{unanswered} records had no answer within {self.settings.drain_s:g} s of the end"
        if consumers is not None and self.missing > 0 and not self.is_interrupted:
            return f"{self.missing} records were acknowledged, but not read back"
        return None


def to_json(report: Report) -> dict[str, Any]:
    """The report as docs/bench.md describes it."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "action": report.settings.action,
        "began_at": report.began.isoformat(timespec="milliseconds"),
        "is_interrupted": report.is_interrupted,
        "failure": report.failure(),
        "versions": {
            "warp": __version__,
            "confluent_kafka": confluent_kafka.version()[0],
            "librdkafka": confluent_kafka.libversion()[0],
            "python": platform.python_version(),
        },
        "broker": {
            "bootstrap": report.bootstrap,
            "cluster_id": report.topic.cluster_id,
            "broker_count": report.topic.broker_count,
        },
        "settings": {**report.settings.to_json(), "partitions": len(report.topic.partitions)},
        "produced": None if report.producers is None else _produced(report, report.producers),
        "consumed": None if report.consumers is None else _consumed(report, report.consumers),
        "series": _series(report),
    }
    return content


def _produced(report: Report, side: Side) -> dict[str, Any]:
    lag = lag_of(side)
    return {
        **_side(side),
        "sent_records": side.total("sent_records"),
        "acknowledged_records": side.total("acknowledged_records"),
        "unanswered_records": side.total("unanswered_records"),
        "unsent_records": lag.unsent,
        "unsent_for_s": lag.unsent_for_s,
        "latency_counts_from": "schedule" if report.is_paced else "produce call",
        "latency": _latency(side.latency),
        "client_lag": {
            "share_of_latency": round(lag.share_of_latency, 6),
            "queue_full_s": lag.queue_full_s,
            "is_considerable": lag.is_considerable,
            **_percentiles(lag.own),
        }
        if report.is_paced
        else None,
    }


def _consumed(report: Report, side: Side) -> dict[str, Any]:
    firsts = [
        ending["first_record_ns"] for ending in side.endings.values() if ending["first_record_ns"] is not None
    ]
    content = {
        **_side(side),
        "received_records": side.total("received_records"),
        "first_record_ms": min(firsts) / 1e6 if firsts else None,
    }
    if report.settings.action == "end-to-end":
        content["missing_records"] = report.missing
        content["latency_counts_from"] = "schedule" if report.is_paced else "produce call"
        content["latency"] = _latency(side.latency)
    return content


def _side(side: Side) -> dict[str, Any]:
    return {
        "workers": side.workers,
        "measured_s": side.seconds_measured,
        "records": side.records,
        "bytes": side.bytes,
        "records_per_s": side.records_per_s,
        "mb_per_s": side.bytes_per_s / MB,
        "cpu_s": side.cpu_s,
        "cpu_s_per_gb": side.cpu_s_per_gb,
        "errors": dict(sorted(side.errors.items())),
    }


def _percentiles(histogram: Histogram) -> dict[str, Any]:
    names = {f"p{percent:g}_ms": histogram.percentile_us(percent) / 1000 for percent in PERCENTILES}
    return {
        "count": histogram.count,
        "mean_ms": round(histogram.mean_us / 1000, 6),
        **names,
        "max_ms": histogram.max_us / 1000,
    }


def _latency(histogram: Histogram) -> dict[str, Any]:
    buckets = [[lowest_us(bucket), highest_us(bucket), count] for bucket, count in histogram.pairs()]
    return {**_percentiles(histogram), "histogram_us": buckets}


def _series(report: Report) -> list[dict[str, Any]]:
    sides = [("produced", report.producers), ("consumed", report.consumers)]
    rows: dict[tuple[bool, int], dict[str, Any]] = {}
    for name, side in sides:
        if side is None:
            continue
        for (number, is_drain), second in side.seconds.items():
            row = rows.setdefault((is_drain, number), {"second": number, "phase": second.phase})
            row[f"{name}_records_per_s"] = second.records_per_s
            row[f"{name}_mb_per_s"] = second.bytes_per_s / MB
            row[f"{name}_errors"] = second.errors
            if name == "produced":
                row["waiting_records"] = second.backlog
            if second.latency.count:
                row[f"{name}_p50_ms"] = second.latency.percentile_us(50) / 1000
                row[f"{name}_p99_ms"] = second.latency.percentile_us(99) / 1000
                row[f"{name}_max_ms"] = second.latency.max_us / 1000
    return [rows[key] for key in sorted(rows)]


def to_text(report: Report) -> str:
    """The report for people."""
    lines = [_headline(report)]
    if report.producers is not None:
        lines.append(_throughput("produced", report.producers))
        meaning = "due to be sent" if report.is_paced else "handed to the client library"
        lines.append(_latencies("latency", report.producers.latency, f"from {meaning} to acknowledged"))
    if report.consumers is not None:
        lines.append(_throughput("consumed", report.consumers))
        if report.settings.action == "end-to-end":
            meaning = "due to be sent" if report.is_paced else "handed to the producer"
            lines.append(_latencies("end to end", report.consumers.latency, f"from {meaning} to received"))
    lines += [f"note: {note}" for note in _notes(report)]
    return "\n".join(lines)


def _headline(report: Report) -> str:
    settings, topic = report.settings, report.topic
    words = [
        f"{settings.action} at {report.bootstrap}",
        f"topic {topic.name} of {len(topic.partitions)} partitions",
    ]
    if settings.record_bytes is not None:
        words.append(f"records of {approximate_size(settings.record_bytes)}")
        words.append(
            f"{settings.records_per_s:,.6g} records/s" if settings.records_per_s else "as fast as it goes"
        )
    return ", ".join(words) + (" (ended early)" if report.is_interrupted else "")


def _throughput(name: str, side: Side) -> str:
    cpu = "" if side.cpu_s_per_gb is None else f"   client CPU {side.cpu_s_per_gb:.3g} s/GB"
    errors = f"   {side.failed:,} errors" if side.failed else ""
    return (
        f"{name:<11} {side.records_per_s:>12,.0f} records/s   {side.bytes_per_s / MB:,.3f} MB/s   "
        f"{side.records:,} records in {side.seconds_measured:.1f} s{cpu}{errors}"
    )


def _latencies(name: str, histogram: Histogram, meaning: str) -> str:
    if not histogram.count:
        return f"{name:<11} nothing to tell"
    parts = [f"p{percent:g} {milliseconds(histogram.percentile_us(percent))}" for percent in PERCENTILES]
    return f"{name:<11} {'   '.join([*parts, f'max {milliseconds(histogram.max_us)}'])}   ({meaning})"


def _notes(report: Report) -> list[str]:
    notes = []
    if report.producers is not None and report.is_paced:
        lag = lag_of(report.producers)
        if lag.is_considerable:
            notes.append(
                f"this machine could not keep to the schedule: {lag.share_of_latency:.0%} of the latency is its own "
                f"(records handed over late, p99 {milliseconds(lag.own.percentile_us(99))}); "
                "more --producers or a lower --rate may help"
            )
        if lag.unsent:
            why = (
                "this machine was too slow" if lag.is_cause_of_unsent else "the broker took less than was due"
            )
            notes.append(
                f"{lag.unsent:,} records were due and not even sent when the time was over, the first of them for "
                f"{milliseconds(lag.unsent_for_s * 1e6)}, because {why}: latencies leave them out"
            )
        if lag.queue_full_s:
            notes.append(
                f"the client library's queue was full for {milliseconds(lag.queue_full_s * 1e6)}: the broker took less "
                "than was due"
            )
    return notes


def milliseconds(value_us: float) -> str:
    """A duration for people to read: `0.42 ms`, `17.3 ms`, `2.35 s`."""
    if value_us < 10_000:
        return f"{value_us / 1000:.2f} ms"
    if value_us < 1_000_000:
        return f"{value_us / 1000:.3g} ms"
    return f"{value_us / 1e6:.2f} s"
