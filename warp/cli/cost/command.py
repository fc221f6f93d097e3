"""`warp cost`: its words, and where it reads."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warp.cli.agent_http import AgentAddress, add_http_option, agent_address, get_json
from warp.cli.arguments import Parser
from warp.cli.cost.bill import Bill, Reading, reading_of
from warp.cli.cost.prices import PRICE_MAX, PRICE_NAMES, S3_STANDARD, Prices, read_prices, with_changes
from warp.cli.cost.report import to_json, to_text
from warp.cli.interrupt import Interrupt
from warp.units import parse_duration_ms

PATH: Final = "/v1/object-store"
EXAMPLES: Final = """\
  warp cost                                        # since the agent's start, at S3's list prices
  warp cost --window 60s --retention 7d
  warp cost --prices prices.toml --json
  warp cost --put-price 0.0055 --storage-price 0.0245
"""
HELP: Final = {
    "put_price": "1,000 PUT requests",
    "get_price": "1,000 GET and HEAD requests",
    "list_price": "1,000 LIST requests",
    "delete_price": "1,000 DELETE requests",
    "storage_price": "a GB stored for a month",
    "transfer_price": "a GB read",
}


def run(words: Sequence[str]) -> int:
    """Run the command; the exit code."""
    found = _parser().parse_all(words)
    changes = {name: value for name in PRICE_NAMES if (value := getattr(found, name)) is not None}
    prices = with_changes(_base(found.prices), changes)
    reading = _read(agent_address(found), found.window)
    bill = Bill(reading, prices, found.retention)
    since_start = found.window is None
    if found.json:
        print(json.dumps(to_json(bill, since_start=since_start)))
    else:
        print(to_text(bill, since_start=since_start))
    return 0


def _base(path: Path | None) -> Prices:
    return S3_STANDARD if path is None else read_prices(path)


def _read(agent: AgentAddress, window_s: float | None) -> Reading:
    """What happened since the agent's start, or from now on for so long. Ctrl-C ends the window early."""
    first = reading_of(get_json(agent, PATH))
    if window_s is None:
        return first
    with Interrupt() as interrupt:
        try:
            with interrupt.raising():
                time.sleep(window_s)
        except KeyboardInterrupt:
            print()
    return reading_of(get_json(agent, PATH)).since(first)


def _parser() -> Parser:
    parser = Parser(
        "warp cost",
        "Show what a running agent asks of its object store, per GB of records produced and per month at the same\n"
        "rate, and what that costs. Every attempt counts, also the failed ones.",
        EXAMPLES,
    )
    add_http_option(parser)
    parser.add_argument(
        "-w",
        "--window",
        type=_duration_s,
        metavar="DURATION",
        help="Watch the agent for so long. Default: take all since its start.",
    )
    parser.add_argument(
        "--retention",
        type=_duration_s,
        metavar="DURATION",
        help="How long records are kept, to tell what storage costs in the long run.",
    )
    parser.add_argument(
        "--prices",
        type=Path,
        metavar="FILE",
        help="TOML file with any of the prices below, without the dashes, and name and currency.",
    )
    for name in PRICE_NAMES:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_price,
            metavar="PRICE",
            help=f"Price of {HELP[name]}. Default: {getattr(S3_STANDARD, name):g} ({S3_STANDARD.currency}, "
            f"{S3_STANDARD.name}).",
        )
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    return parser


def _duration_s(text: str) -> float:
    try:
        seconds = parse_duration_ms(text) / 1000
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return seconds


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price <= PRICE_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price from 0 to {PRICE_MAX:g}")
    return price
