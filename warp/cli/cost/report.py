"""A bill as a table for people, and as JSON with stable names (docs/cost.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from warp.cli.cost.bill import KINDS, Bill
from warp.units import approximate_size

FORMAT: Final = 1
LABELS: Final = {"put": "PUT", "get": "GET", "head": "HEAD", "list": "LIST", "delete": "DELETE"}


def to_json(bill: Bill, *, since_start: bool) -> dict[str, Any]:
    """The bill as docs/cost.md describes it."""
    reading = bill.reading
    counts = {kind: reading.count(kind) for kind in KINDS}
    span = {
        **{f"{kind}_requests": count for kind, count in counts.items()},
        "sent_bytes": reading.sent_bytes,
        "received_bytes": reading.received_bytes,
        "produced_bytes": reading.produced_bytes,
        "fetched_bytes": reading.fetched_bytes,
        **{f"{kind}_cost": bill.request_cost(kind) for kind in KINDS},
        "transfer_cost": bill.transfer_cost,
        "total_cost": bill.total_cost,
    }
    return {
        "format": FORMAT,
        "object_store": reading.url,
        "requests_are_free": reading.requests_are_free,
        "since_start": since_start,
        "window_s": reading.uptime_s,
        "requests": [
            {"kind": kind, "status": status, "count": count}
            for (kind, status), count in sorted(reading.requests.items())
        ],
        "window": span,
        "per_gb_produced": {name: bill.per_gb(amount) for name, amount in span.items()},
        "per_month": {name: bill.per_month(amount) for name, amount in span.items()},
        "storage": {
            "retention_s": bill.retention_s,
            "added_gb_per_month": bill.stored_per_month,
            "stored_gb": bill.stored,
            "cost_per_month": bill.storage_cost_per_month,
        },
        "prices": asdict(bill.prices),
    }


def to_text(bill: Bill, *, since_start: bool) -> str:
    """The bill for people."""
    reading = bill.reading
    span = f"in {_duration(reading.uptime_s)}" + (", since the agent's start" if since_start else "")
    produced, fetched = map(approximate_size, (reading.produced_bytes, reading.fetched_bytes))
    lines = [
        f"{reading.url} {span}: {produced} produced, {fetched} fetched",
        "",
        *_table(bill),
        "",
        _storage(bill),
        f"Prices: {bill.prices.name}, in {bill.prices.currency}.",
        *(f"note: {note}" for note in _notes(bill)),
    ]
    return "\n".join(lines)


def _table(bill: Bill) -> list[str]:
    reading, currency = bill.reading, bill.prices.currency
    requests = [
        (LABELS[kind], *_amounts(bill, reading.count(kind), _number), *_costs(bill, bill.request_cost(kind)))
        for kind in KINDS
    ]
    rows: list[tuple[str, ...]] = [
        ("", "counted", "per GB produced", "per month", f"{currency} per GB", f"{currency} per month"),
        *requests,
        ("bytes sent", *_amounts(bill, reading.sent_bytes, _size), "", ""),
        ("bytes received", *_amounts(bill, reading.received_bytes, _size), *_costs(bill, bill.transfer_cost)),
        ("together", "", "", "", *_costs(bill, bill.total_cost)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in rows]


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def _amounts(bill: Bill, amount: int, show: Callable[[float | None], str]) -> tuple[str, str, str]:
    return show(amount), show(bill.per_gb(amount)), show(bill.per_month(amount))


def _costs(bill: Bill, cost: float) -> tuple[str, str]:
    return _money(bill.per_gb(cost)), _money(bill.per_month(cost))


def _storage(bill: Bill) -> str:
    currency, price = bill.prices.currency, bill.prices.storage_price
    added, stored, cost = bill.stored_per_month, bill.stored, bill.storage_cost_per_month
    if stored is not None and cost is not None and bill.retention_s is not None:
        return (
            f"Storage: {stored:,.3g} GB are kept by a retention of {_duration(bill.retention_s)} at this rate, "
            f"{_money(cost)} {currency} per month."
        )
    each_month = "" if added is None else f"; at this rate each month adds {added:,.3g} GB"
    return f"Storage: {price:g} {currency} per GB and month{each_month} (--retention tells what stays)."


def _notes(bill: Bill) -> list[str]:
    reading, notes = bill.reading, []
    if reading.requests_are_free:
        notes.append(
            "this store charges nothing for requests, so the agent does not save them; "
            "the table tells what the same requests would cost elsewhere"
        )
    if not reading.produced_bytes:
        notes.append("nothing was produced in this time, so there is nothing to tell per GB")
    failed = sum(
        count for (_, status), count in reading.requests.items() if status in ("slow_down", "error", "cut")
    )
    if failed:
        notes.append(f"{failed:,} of the requests failed; they are counted, and all but SlowDown are priced")
    return notes


def _number(amount: float | None) -> str:
    if amount is None:
        return "-"
    return f"{amount:,.0f}" if amount >= 100 or amount == 0 else f"{amount:.3g}"


def _size(amount: float | None) -> str:
    return "-" if amount is None else approximate_size(amount)


def _money(amount: float | None) -> str:
    if amount is None:
        return "-"
    if amount == 0:
        return "0"
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.3g}"


def _duration(seconds: float) -> str:
    for name, unit_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.3g} {name}"
    return f"{seconds:.3g} s"
