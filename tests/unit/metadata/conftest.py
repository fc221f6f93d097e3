"""The store that the tests of its operations share. A second database joins by one more name in the list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.metadata.support import Store, sqlite_store


@pytest.fixture(params=["sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    assert request.param == "sqlite"
    opened = sqlite_store(tmp_path / "metadata.sqlite")
    yield opened
    opened.close()
