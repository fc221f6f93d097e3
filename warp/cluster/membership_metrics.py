"""Connects a member of a cluster to the agent's metrics."""

from __future__ import annotations

from collections.abc import Callable

from warp.cluster.describe import states
from warp.cluster.membership import BeatOutcome, Membership
from warp.metrics import Metrics


def beat_counter(metrics: Metrics) -> Callable[[BeatOutcome], None]:
    """The `beaten` of a Membership: counts beats by what became of them."""
    for outcome in BeatOutcome:
        metrics.cluster_beats.add(0, outcome.value)
    return lambda outcome: metrics.cluster_beats.add(1, outcome.value)


def show_membership(metrics: Metrics, membership: Membership) -> None:
    """Show what a member that has joined knows; read when somebody asks."""
    metrics.cluster_agents.read = lambda: [
        ((state,), count) for state, count in states(membership.view, membership.rows).items()
    ]
    metrics.cluster_session_live.read = lambda: int(membership.is_live)
    metrics.cluster_session_lapses.read = lambda: membership.lapses
    metrics.cluster_clock_skew_seconds.read = lambda: (membership.clock_skew_ms or 0) / 1000
