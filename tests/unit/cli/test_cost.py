"""`warp cost`: arithmetic on counters that are given here, prices from everywhere they may come from, and the words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from warp.cli.agent_http import NoAgentAnswer
from warp.cli.cost.bill import MONTH_S, Bill, Reading, reading_of
from warp.cli.cost.prices import S3_STANDARD, read_prices, with_changes
from warp.cli.cost.report import to_json, to_text
from warp.cli.main import main
from warp.errors import UsageError

DOCS = Path(__file__).parents[3] / "docs" / "cost.md"


def answer(**changes: Any) -> dict[str, Any]:
    """What an agent tells after an hour: a GB produced with 1000 PUTs, of which 20 were refused."""
    return {
        "url": "s3://bucket/warp",
        "requests_are_free": False,
        "abilities": {"conditional_create": True, "checks_content": True},
        "uptime_s": 3600.0,
        "requests": [
            {"kind": "put", "status": "ok", "count": 970},
            {"kind": "put", "status": "slow_down", "count": 20},
            {"kind": "put", "status": "cut", "count": 10},
            {"kind": "get", "status": "ok", "count": 250},
            {"kind": "get", "status": "not_found", "count": 5},
            {"kind": "head", "status": "ok", "count": 45},
            {"kind": "list", "status": "ok", "count": 2},
            {"kind": "delete", "status": "ok", "count": 7},
        ],
        "sent_bytes": 1_100_000_000,
        "received_bytes": 2**30,
        "produced_bytes": 1_000_000_000,
        "fetched_bytes": 3_000_000_000,
        **changes,
    }


def bill(retention_s: float | None = None, **changes: Any) -> Bill:
    return Bill(reading_of(answer(**changes)), S3_STANDARD, retention_s)


def test_every_attempt_counts_and_all_but_slow_down_are_priced() -> None:
    found = bill()
    assert [found.reading.count(kind) for kind in ("put", "get", "head", "list", "delete")] == [
        1000,
        255,
        45,
        2,
        7,
    ]
    assert found.request_cost("put") == pytest.approx(980 * 0.005 / 1000)
    assert found.request_cost("get") == pytest.approx(255 * 0.0004 / 1000)
    assert found.request_cost("head") == pytest.approx(45 * 0.0004 / 1000)
    assert found.request_cost("list") == pytest.approx(2 * 0.005 / 1000)
    assert found.request_cost("delete") == 0
    assert found.total_cost == pytest.approx(0.0049 + 0.000102 + 0.000018 + 0.00001)


def test_amounts_per_gb_and_per_month_are_proportions() -> None:
    found = bill(produced_bytes=500_000_000)
    assert found.per_gb(1000) == 2000
    assert found.per_month(1000) == 1000 * 730
    assert MONTH_S == 730 * 3600


def test_transfer_is_priced_per_gibibyte_read() -> None:
    prices = with_changes(S3_STANDARD, {"transfer_price": 0.09})
    assert Bill(reading_of(answer()), prices).transfer_cost == pytest.approx(0.09)
    assert bill().transfer_cost == 0


def test_storage_is_what_the_retention_keeps_of_the_rate() -> None:
    added = 1_000_000_000 * 730 / 2**30
    assert bill().stored_per_month == pytest.approx(added)
    assert bill().stored is bill().storage_cost_per_month is None
    found = bill(retention_s=MONTH_S / 10)
    assert found.stored == pytest.approx(added / 10)
    assert found.storage_cost_per_month == pytest.approx(added / 10 * 0.023)


def test_nothing_produced_is_nothing_per_gb_and_no_time_is_nothing_per_month() -> None:
    found = bill(produced_bytes=0)
    assert found.per_gb(5) is None
    assert "nothing was produced in this time" in to_text(found, since_start=True)
    still = bill(uptime_s=0.0)
    assert still.per_month(5) is still.stored_per_month is still.stored is None
    assert json.loads(json.dumps(to_json(still, since_start=True)))["per_month"]["put_requests"] is None
    assert "PUT" in to_text(still, since_start=True)


def test_a_window_is_the_difference_of_two_readings() -> None:
    first = reading_of(answer())
    requests = [*answer()["requests"], {"kind": "put", "status": "error", "count": 3}]
    requests[0] = {"kind": "put", "status": "ok", "count": 1000}
    later = reading_of(
        answer(requests=requests, uptime_s=3660.0, produced_bytes=1_000_000_500, sent_bytes=1_100_000_600)
    )
    window = later.since(first)
    assert dict(window.requests) == {("put", "ok"): 30, ("put", "error"): 3}
    assert (window.uptime_s, window.produced_bytes, window.sent_bytes, window.fetched_bytes) == (
        60.0,
        500,
        600,
        0,
    )


def test_an_agent_that_was_restarted_in_the_window_is_noticed() -> None:
    first = reading_of(answer())
    for changes in ({"uptime_s": 5.0}, {"url": "s3://other", "uptime_s": 4000.0}):
        with pytest.raises(NoAgentAnswer, match="started anew"):
            reading_of(answer(**changes)).since(first)


@pytest.mark.parametrize(
    "changes", [{"requests": None}, {"uptime_s": "soon"}, {"requests": [{"kind": "put"}]}]
)
def test_an_answer_that_is_none_is_told(changes: dict[str, Any]) -> None:
    with pytest.raises(NoAgentAnswer, match="was not understood"):
        reading_of(answer(**changes))


def test_the_table_shows_counts_rates_and_money() -> None:
    lines = to_text(bill(retention_s=7 * 86_400), since_start=False).splitlines()
    assert lines[0] == "s3://bucket/warp in 60 min: 954 MiB produced, 2.79 GiB fetched"
    rows = {line[:14].strip(): line[14:].split() for line in lines[3:11]}
    assert rows["PUT"] == ["1,000", "1,000", "730,000", "0.0049", "3.58"]
    assert rows["GET"] == ["255", "255", "186,150", "0.000102", "0.0745"]
    assert rows["together"] == ["0.00503", "3.67"]
    text = "\n".join(lines)
    assert "Storage: 156 GB are kept by a retention of 7 days at this rate, 3.60 USD per month." in text
    assert "Prices: S3 Standard, us-east-1, list prices of June 2025, in USD." in text
    assert "30 of the requests failed" in text


def test_a_store_without_prices_says_so() -> None:
    assert "charges nothing for requests" in to_text(bill(requests_are_free=True), since_start=True)
    assert "charges nothing" not in to_text(bill(), since_start=True)


def test_every_field_and_price_stands_in_the_docs() -> None:
    def names(content: Any) -> set[str]:
        if isinstance(content, dict):
            return set(content) | {name for each in content.values() for name in names(each)}
        return {name for each in content for name in names(each)} if isinstance(content, list) else set()

    docs = DOCS.read_text()
    told = names(to_json(bill(), since_start=True)) | names(answer())
    assert sorted(name for name in told if f"`{name}`" not in docs) == []
    for name in ("put", "get", "list", "delete", "storage", "transfer"):
        price = getattr(S3_STANDARD, f"{name}_price")
        assert f"| `--{name}-price`, `{name}-price` | {price:g} |" in docs


def test_prices_come_from_a_file_and_options_override_it(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('name = "ours"\ncurrency = "EUR"\nput-price = 1\nget-price = 0.5\n')
    found = read_prices(file)
    assert (found.name, found.currency, found.put_price, found.get_price) == ("ours", "EUR", 1.0, 0.5)
    assert found.storage_price == S3_STANDARD.storage_price
    changed = with_changes(found, {"put_price": 2.0})
    assert (changed.put_price, changed.get_price) == (2.0, 0.5)
    assert changed.name == "ours, with another put price"
    assert with_changes(found, {}) is found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("put_price = 1", "unknown key put_price; did you mean put-price?"),
        ("put-price = -1", "put-price is not a price"),
        ("put-price = true", "put-price is not a price"),
        ("put-price = nan", "put-price is not a price"),
        ('put-price = "1"', "put-price is not a price"),
        ("currency = 1", "currency is not a text"),
        ("put-price", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_told(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        read_prices(file)


@contextmanager
def agent(*answers: dict[str, Any]) -> Iterator[str]:
    """Somebody who answers so, the last one again and again; its address."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(left.pop(0) if len(left) > 1 else left[0]).encode()
            self.send_response(200 if self.path == "/v1/object-store" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *words: object) -> None:  # noqa: A002 - the base class's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_command_reads_an_agent_once_or_over_a_window(capsys: pytest.CaptureFixture[str]) -> None:
    later = answer(uptime_s=3601.0, produced_bytes=1_000_001_000)
    with agent(answer(), later) as address:
        assert main(["cost", "--http", address, "--window", "1ms", "--json", "--put-price", "5"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["since_start"], told["window_s"], told["window"]["produced_bytes"]) == (False, 1.0, 1000)
        assert told["requests"] == []
        assert told["prices"]["put_price"] == 5.0
        assert main(["cost", "--http", address, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["since_start"], told["window_s"], told["window"]["put_requests"]) == (True, 3601.0, 1000)
        assert main(["cost", "--http", address]) == 0
        assert "since the agent's start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--put-price", "-1"], "argument --put-price: '-1' is not a price"),
        (["--put-price", "nan"], "argument --put-price: 'nan' is not a price"),
        (["--window", "60"], "argument -w/--window: '60' has no unit"),
        (["--window", "0"], "argument -w/--window: '0' is no time at all"),
        (["--prices", "/no/such/file"], "can't read /no/such/file: No such file"),
        (["--put-prise", "1"], "unknown option --put-prise; did you mean --put-price?"),
    ],
)
def test_a_mistake_in_the_words_is_one_line_and_exit_code_2(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", *words]) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1


def test_an_agent_that_is_not_there_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--http", "127.0.0.1:1"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("warp cost: no agent answers on http://127.0.0.1:1")
    assert shown.count("\n") == 1


def test_a_reading_counts_what_is_billed() -> None:
    reading = Reading("u", False, 1.0, {("put", "ok"): 3, ("put", "slow_down"): 2}, 0, 0, 0, 0)
    assert (reading.count("put"), reading.billed("put"), reading.count("get")) == (5, 3, 0)
