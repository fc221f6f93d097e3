"""The standbys that the tests start: that they follow, keep what a synchronous one has to, and can be held back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import postgres
from tests.support.cluster import eventually
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.postgres


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """One that no other test needs: it is killed here."""
    if (reason := postgres.missing()) is not None:
        pytest.skip(reason)
    with PostgresServer(fsync="off") as server:
        server.execute("create table t (x integer)")
        yield server


def test_a_synchronous_standby_has_what_was_committed_and_takes_over(primary: PostgresServer) -> None:
    with primary.standby() as standby:
        primary.wait_for_standby()
        primary.execute("insert into t values (1)")
        primary.crash()
        with pytest.raises(AssertionError, match="read-only transaction"):
            standby.execute("insert into t values (2)")
        standby.promote()
        standby.execute("insert into t values (2)")
        assert standby.execute("select x from t order by x") == ["1", "2"]


def test_a_standby_that_is_held_back_does_not_have_what_came_after(primary: PostgresServer) -> None:
    with primary.standby() as standby:
        primary.execute("insert into t values (1)")
        eventually(lambda: standby.execute("select x from t") == ["1"], "the standby follows")
        primary.hold_back_standbys()
        primary.execute("insert into t values (2)")
        primary.crash()
        standby.promote()
        assert standby.execute("select x from t") == ["1"]
        # Nothing was lost where it was committed.
        primary.start()
        assert primary.execute("select x from t order by x") == ["1", "2"]
