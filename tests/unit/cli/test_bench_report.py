"""What a run's arguments come to, and what it tells: every word of it from counts that are given here."""

from __future__ import annotations

import argparse
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from warp.cli.bench.histogram import Histogram
from warp.cli.bench.progress import Progress
from warp.cli.bench.report import Report, milliseconds, to_json, to_text
from warp.cli.bench.results import Side
from warp.cli.bench.settings import Rate, Settings, parse_rate, share
from warp.cli.bench.tasks import Interval, Phase
from warp.cli.bench.topic import BenchTopic
from warp.cli.main import main

DOCS = Path(__file__).parents[3] / "docs" / "bench.md"


def latencies(*values_us: int) -> Histogram:
    made = Histogram()
    for value in values_us:
        made.record(value)
    return made


def interval(number: int, phase: Phase = "measured", **fields: Any) -> Interval:
    return Interval(number, phase, **{"seconds": 1.0, **fields})


def ending(**fields: Any) -> dict[str, Any]:
    return {
        "sent_records": 100, "acknowledged_records": 100, "failed_records": 0, "unanswered_records": 0,
        "unsent_records": 0, "unsent_for_ns": 0, "queue_full_ns": 0, "own_lag": Histogram().to_json(), **fields,
    }  # fmt: skip


def settings(**fields: Any) -> Settings:
    plain: dict[str, Any] = {
        "action": "end-to-end", "topic": "t", "partitions": None, "delete_topic": False, "producers": 2,
        "consumers": 1, "warmup_s": 1.0, "duration_s": 2.0, "drain_s": 10.0, "client_options": {},
        "record_bytes": 1000, "records_per_s": 50.0,
    }  # fmt: skip
    return Settings(**{**plain, **fields})


def sides() -> tuple[Side, Side]:
    """Two producers and a consumer that were measured for two seconds."""
    producers, consumers = Side(2), Side(1)
    for worker in range(2):
        producers.take(
            worker, interval(0, "warm-up", records=7, bytes=7000, early_latency=latencies(9_000_000))
        )
        for number in (1, 2):
            found = interval(
                number, records=25, bytes=25_000, cpu_s=0.05, latency=latencies(*[4000] * 25), backlog=3
            )
            producers.take(worker, found)
        producers.endings[worker] = ending(sent_records=57, acknowledged_records=57)
    for number in (1, 2):
        found = interval(number, records=50, bytes=50_000, cpu_s=0.01, latency=latencies(*[6000] * 50))
        consumers.take(0, found)
    consumers.endings[0] = {"received_records": 114, "first_record_ns": 5_000_000, "is_complete": True}
    return producers, consumers


def report(producers: Side | None, consumers: Side | None, **fields: Any) -> Report:
    topic = BenchTopic("t", [0, 1, 2], True, "cluster", 1)
    began = datetime(2026, 1, 2, tzinfo=UTC)
    is_interrupted = fields.pop("is_interrupted", False)
    return Report(settings(**fields), "h:1", topic, began, is_interrupted, producers, consumers)


def test_totals_are_those_of_the_measured_time_over_all_workers() -> None:
    told = to_json(report(*sides()))
    produced, consumed = told["produced"], told["consumed"]
    assert (produced["records"], produced["bytes"], produced["measured_s"]) == (100, 100_000, 2.0)
    assert (produced["records_per_s"], produced["mb_per_s"]) == (50.0, 0.05)
    assert produced["cpu_s_per_gb"] == pytest.approx(0.2 / 100_000 * 1e9)
    assert (produced["latency"]["count"], produced["latency"]["max_ms"]) == (100, 4.0)
    assert produced["latency"]["histogram_us"] == [[4000, 4015, 100]]
    assert consumed["latency"]["p99.9_ms"] == 6.0
    assert (consumed["received_records"], consumed["missing_records"]) == (114, 0)
    assert told["failure"] is None
    assert [(row["second"], row["phase"]) for row in told["series"]] == [
        (0, "warm-up"),
        (1, "measured"),
        (2, "measured"),
    ]
    second = told["series"][1]
    assert (second["produced_records_per_s"], second["waiting_records"], second["consumed_p50_ms"]) == (
        50.0,
        6,
        6.0,
    )
    json.dumps(told)


def test_the_text_names_throughput_latencies_and_cpu() -> None:
    text = to_text(report(*sides()))
    assert "end-to-end at h:1, topic t of 3 partitions, records of 1e+03 B" not in text
    assert re.search(
        r"produced +50 records/s   0\.050 MB/s   100 records in 2\.0 s   client CPU 2e\+03 s/GB", text
    )
    assert (
        "latency     p50 4.00 ms   p90 4.00 ms   p99 4.00 ms   p99.9 4.00 ms   max 4.00 ms   (from due to"
        in text
    )
    assert "note:" not in text


def test_latencies_of_full_speed_say_that_they_count_from_the_call() -> None:
    found = report(*sides(), records_per_s=None)
    assert to_json(found)["produced"]["latency_counts_from"] == "produce call"
    assert to_json(found)["produced"]["client_lag"] is None
    assert "from handed to the client library to acknowledged" in to_text(found)


def test_a_load_generator_that_was_too_slow_says_so_with_its_share() -> None:
    producers, consumers = sides()
    producers.endings[0] = ending(
        own_lag=latencies(*[2000] * 50).to_json(), unsent_records=12, unsent_for_ns=3 * 10**8
    )
    found = report(producers, consumers)
    lag = to_json(found)["produced"]["client_lag"]
    assert (lag["share_of_latency"], lag["is_considerable"], lag["p99_ms"]) == (0.25, True, 2.0)
    text = to_text(found)
    assert "could not keep to the schedule: 25% of the latency is its own" in text
    assert (
        "12 records were due and not even sent when the time was over, the first of them for 300 ms, "
        "because this machine was too slow: latencies leave them out"
    ) in text


def test_a_broker_that_lets_the_queue_fill_is_named() -> None:
    producers, consumers = sides()
    producers.endings[0] = ending(queue_full_ns=1_500_000_000, unsent_records=5, unsent_for_ns=2 * 10**9)
    text = to_text(report(producers, consumers))
    assert "queue was full for 1.50 s: the broker took less than was due" in text
    assert "the first of them for 2.00 s, because the broker took less than was due" in text
    assert "could not keep" not in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"unanswered_records": 3}, "3 records had no answer within 10 s of the end"),
        ({"acknowledged_records": 60}, "3 records were acknowledged, but not read back"),
    ],
)
def test_what_is_missing_is_a_failure(change: dict[str, int], expected: str) -> None:
    producers, consumers = sides()
    producers.endings[0] = ending(**{"sent_records": 60, "acknowledged_records": 57, **change})
    assert report(producers, consumers).failure() == expected


def test_errors_are_a_failure_that_names_their_kinds() -> None:
    producers, consumers = sides()
    producers.take(0, interval(3, "drain", errors={"REQUEST_TIMED_OUT": 2, "_MSG_TIMED_OUT": 1}))
    found = report(producers, consumers)
    assert found.failure() == "3 of 114 records were not stored: REQUEST_TIMED_OUT 2, _MSG_TIMED_OUT 1"
    assert "3 errors" in to_text(found)


def test_secrets_among_the_client_options_are_masked() -> None:
    options = {
        "sasl.username": "u",
        "sasl.password": "hidden",
        "ssl.key.pem": "hidden",
        "sasl.oauthbearer.client.secret": "hidden",
        "ssl.key.password": "hidden",
    }
    told = json.dumps(to_json(report(*sides(), client_options=options)))
    assert "hidden" not in told
    assert '"sasl.username": "u"' in told


def test_every_field_of_the_json_stands_in_the_docs() -> None:
    def names(content: Any) -> set[str]:
        if isinstance(content, dict):
            return set(content) | {name for each in content.values() for name in names(each)}
        return {name for each in content for name in names(each)} if isinstance(content, list) else set()

    producers, consumers = sides()
    docs = DOCS.read_text()
    told = to_json(report(producers, consumers))
    assert sorted(name for name in names(told) if f"`{name}`" not in docs) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unlimited", Rate()),
        ("2000/s", Rate(records_per_s=2000)),
        ("0.5/s", Rate(records_per_s=0.5)),
        ("50MB/s", Rate(bytes_per_s=50_000_000)),
        ("1 KiB / s", Rate(bytes_per_s=1024)),
    ],
)
def test_rates_are_records_or_bytes_per_second(text: str, expected: Rate) -> None:
    assert parse_rate(text) == expected
    assert expected.in_records(1024) in (None, 2000, 0.5, 50_000_000 / 1024, 1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prduce"], "unknown action prduce; did you mean produce?"),
        (["--rate", "2000"], "argument -r/--rate: '2000' is not a rate; write it like 2000/s"),
        (["--rate", "0/s"], "argument -r/--rate: '0/s' is not between 0 and"),
        (["--rate", "nan/s"], "'nan' is not a size"),
        (["--rate", "5furlongs/s"], "unknown unit 'furlongs'"),
        (["produce", "--record-size", "1024"], "argument -s/--record-size: '1024' has no unit"),
        (["--record-size", "15B"], "--record-size: end-to-end needs at least 16B"),
        (["produce", "--duration", "30"], "argument -d/--duration: '30' has no unit"),
        (["produce", "--duration", "0"], "argument -d/--duration: '0' is not between 1ms and 7d"),
        (["produce", "--compressible", "2"], "argument --compressible: '2' is not between 0 and 1"),
        (["produce", "--producers", "0"], "argument --producers: '0' is not between 1 and 64"),
        (["produce", "--acks", "1"], "--acks 1 needs --no-idempotence"),
        (["consume", "--warmup", "1s"], "--warmup goes with --tail"),
        (["consume", "--rate", "1/s"], "unknown option --rate"),
        (["produce", "-X", "no.such=1"], "the client library refuses its settings: No such configuration"),
        (["produce", "--json", "/no/such/dir/x.json"], "--json: there is no directory /no/such/dir"),
    ],
)
def test_a_mistake_in_the_words_is_one_line_and_exit_code_2(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("warp bench: ")
    assert line in shown.err
    assert shown.err.count("\n") == 1


def test_help_shows_examples_and_needs_no_broker(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["produce"], ["consume"], ["end-to-end"]):
        assert main(["bench", *words, "--help"]) == 0
        assert "examples:\n  warp bench" in capsys.readouterr().out


def test_a_broker_that_is_not_there_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "produce", "--bootstrap", "127.0.0.1:1", "--timeout", "0.3"]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("warp bench: no broker answered at 127.0.0.1:1 within 0.3 s")
    assert shown.err.count("\n") == 1


def test_nonsense_is_no_share() -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        share("much")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_rewritten_on_a_terminal_and_sparse_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    for stream, expected in ((Terminal(), 7), (io.StringIO(), 2)):
        side = Side(2)
        progress = Progress(stream, side, None)
        for number in range(1, 8):
            for worker in range(2):
                side.take(worker, interval(number, records=10, bytes=10_000, latency=latencies(2500)))
                progress.update()
        progress.close()
        shown = stream.getvalue()
        assert shown.count("produced 20/s (0.02 MB/s) p50 2.50 ms p99 2.50 ms") == expected
        assert all(len(line) <= 69 for line in re.split(r"[\r\n]+(?:\x1b\[2K)?", shown))
        assert shown.count("\n") == (1 if expected == 7 else expected)
        assert shown.count("\r") == (7 if expected == 7 else 0)


@pytest.mark.parametrize(
    ("value_us", "expected"),
    [(0, "0.00 ms"), (420, "0.42 ms"), (17_300, "17.3 ms"), (999_400, "999 ms"), (2_350_000, "2.35 s")],
)
def test_durations_read_well(value_us: float, expected: str) -> None:
    assert milliseconds(value_us) == expected
