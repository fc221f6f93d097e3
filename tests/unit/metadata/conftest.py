"""The stores that the tests of their operations share: the same tests on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.metadata.support import Store, Stores, postgres_stores, sqlite_stores


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Stores on a database of the test's own."""
    if request.param == "sqlite":
        return sqlite_stores(tmp_path / "metadata.sqlite")
    return postgres_stores(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(stores: Stores) -> Iterator[Store]:
    """One of them, open."""
    opened = stores.open()
    yield opened
    opened.close()
