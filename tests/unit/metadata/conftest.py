"""The stores that the tests of their operations share: the same tests on SQLite and on PostgreSQL.

Those of OVER_POOLERS run through PgBouncer as well, in both of the modes that agents can work with.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import pgbouncer
from tests.support.pgbouncer import PgBouncer, PoolMode
from tests.support.postgres import PostgresServer
from tests.unit.metadata.support import Store, Stores, postgres_stores, sqlite_stores

OVER_POOLERS = (
    "test_agents",
    "test_commits",
    "test_entries",
    "test_group_offsets",
    "test_groups",
    "test_leases",
    "test_topics",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say which stores the tests that want some run on."""
    if "stores" in metafunc.fixturenames:
        on_postgres = ["postgres"]
        module = metafunc.module.__name__.rpartition(".")[2]
        if module in OVER_POOLERS:
            on_postgres.append("transaction_pooler")
        if module == "test_commits":
            # In session mode a pooler changes little; those that lean most on the session are enough.
            on_postgres.append("session_pooler")
        marked = [pytest.param(name, marks=pytest.mark.postgres) for name in on_postgres]
        metafunc.parametrize("stores", ["sqlite", *marked], indirect=True)


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Stores on a database of the test's own."""
    if request.param == "sqlite":
        return sqlite_stores(tmp_path / "metadata.sqlite")
    url: str = request.getfixturevalue("postgres_url")
    if request.param != "postgres":
        pooler: PgBouncer = request.getfixturevalue(request.param)
        url = pooler.url(url)
    return postgres_stores(url)


@pytest.fixture(scope="session")
def session_pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer as it is when nobody says otherwise; the tests are skipped where it is not installed."""
    yield from _pooler(postgres_server, "session")


@pytest.fixture(scope="session")
def transaction_pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer that hands out another server connection with every transaction."""
    yield from _pooler(postgres_server, "transaction")


def _pooler(server: PostgresServer, mode: PoolMode) -> Iterator[PgBouncer]:
    if (reason := pgbouncer.missing()) is not None:
        pytest.skip(reason)
    with PgBouncer(server, mode) as pooler:
        yield pooler


@pytest.fixture
def store(stores: Stores) -> Iterator[Store]:
    """One of them, open."""
    opened = stores.open()
    yield opened
    opened.close()
