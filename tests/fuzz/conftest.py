"""Ends what targets keep from input to input."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def ended() -> Iterator[None]:
    """After a module's tests: no agent, no loop."""
    yield
    from tests.fuzz.targets import requests, users

    while requests.LIVES:
        users.run(requests.LIVES.pop().end())
    users.loop().close()
    users.loop.cache_clear()
    users.shared_mechanisms.cache_clear()
