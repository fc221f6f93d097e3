"""The table of APIs, and what the docs say of it."""

from __future__ import annotations

import re
from pathlib import Path

from warp.handlers.table import TABLE, Order
from warp.protocol import ApiKey

ROOT = Path(__file__).parents[3]


def test_readme_lists_every_api_with_the_versions_that_are_served() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## What is served", 1)[1].split("\n\n", 2)[1]
    listed = dict(re.findall(r"\| ([A-Z][A-Za-z]+) \| ([0-9–]+) ", section))
    served = {
        entry.name: str(entry.served[0])
        if entry.served[0] == entry.served[1]
        else "–".join(map(str, entry.served))
        for entry in TABLE
    }
    assert listed == served


def test_only_what_must_runs_beside_others() -> None:
    """LeaveGroup too: sent behind a JoinGroup that waits, it is heeded though its client hangs up at once."""
    orders = {entry.key: entry.order for entry in TABLE if entry.order is not Order.SERIAL}
    assert orders == {
        ApiKey.PRODUCE: Order.STAGED,
        ApiKey.LEAVE_GROUP: Order.STAGED,
        ApiKey.FETCH: Order.CONCURRENT,
    }


def test_nothing_is_served_that_is_not_advertised() -> None:
    for entry in TABLE:
        assert entry.advertised[0] <= entry.served[0]
        assert entry.advertised[1] == entry.served[1]


def test_every_handler_opens_with_its_behaviour_and_version_notes() -> None:
    modules = {entry.handler.__module__ for entry in TABLE}
    for name in sorted(modules):
        text = (ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
        docstring = text.split('"""', 2)[1]
        assert "Behaviour:" in docstring, name
        assert "Version notes:" in docstring, name
