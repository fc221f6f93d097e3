"""What an agent says of the end of its session, when its registration is gone."""

from __future__ import annotations

import pytest

from warp.cluster.session import Session
from warp.ids import BrokerId
from warp.metadata.cluster_model import ClusterRows

HOUR_S = 3600.0
GONE = ClusterRows(counter=None, time_ms=0, agents=(), leases={})


@pytest.mark.parametrize(("silent_s", "words"), [(1.0, "restored from a backup"), (25 * HOUR_S, "25 hours")])
def test_who_was_silent_for_a_day_was_forgotten_and_the_database_lost_nothing(
    silent_s: float, words: str
) -> None:
    session = Session(length_s=1.5)
    session.joined(100.0)
    reason = session.beaten(GONE, BrokerId(7), "own", 100.0 + silent_s)
    assert reason is not None
    assert words in reason
    assert session.is_over
