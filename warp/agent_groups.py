"""Builds what serves consumer groups in an agent, by its configuration, and connects it to the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warp.agent_metrics import GroupMetrics
from warp.clock import Clock
from warp.cluster.jobs import Job
from warp.config import AgentConfig
from warp.groups.coordinator import GroupCoordinator
from warp.groups.lag import GroupLags
from warp.groups.model import GroupSettings
from warp.groups.slots import GroupStore, SlotPolicy
from warp.groups.transitions import State
from warp.groups.upkeep import UpkeepSettings
from warp.ids import BrokerId, IdSource
from warp.metrics import Metrics

ORPHANS_INTERVAL_S = 600.0
"""Between two passes over the committed offsets of topics and groups that are gone."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The services of consumer groups."""

    coordinator: GroupCoordinator
    lags: GroupLags


def build_groups(
    config: AgentConfig,
    store: GroupStore,
    clock: Clock,
    ids: IdSource,
    holder: BrokerId,
    metrics: Metrics,
    policy: SlotPolicy | None = None,
    *,
    is_clock_trusted: Callable[[], bool] = lambda: True,
) -> Groups:
    """The services, not open yet. Without a policy all slots are this agent's."""
    coordinator = GroupCoordinator(
        store,
        clock,
        ids,
        holder=holder,
        settings=GroupSettings(
            session_timeout_min_ms=config.group_session_min_ms,
            session_timeout_max_ms=config.group_session_max_ms,
            initial_rebalance_delay_ms=config.group_rebalance_delay_ms,
            members_max=config.group_members_max,
        ),
        upkeep=UpkeepSettings(retention_ms=config.offsets_retention_ms, is_clock_trusted=is_clock_trusted),
        policy=policy,
        observer=GroupMetrics(metrics),
    )
    lags = GroupLags(store, clock, coordinator.some_groups, config.group_lag_series_max)
    _read_groups(metrics, coordinator, lags)
    return Groups(coordinator, lags)


def group_jobs(groups: Groups) -> list[Job]:
    """What one agent of a cluster does for all groups."""
    return [Job("orphaned-offsets", ORPHANS_INTERVAL_S, groups.coordinator.upkeep.sweep_orphans_once)]


def _read_groups(metrics: Metrics, coordinator: GroupCoordinator, lags: GroupLags) -> None:
    """Show what the coordinator knows; counted when somebody asks."""

    def states() -> list[tuple[tuple[str], float]]:
        counts, _ = coordinator.census()
        return [((state.value,), counts[state.value]) for state in State if state is not State.DEAD]

    metrics.groups.read = states
    metrics.group_members.read = lambda: coordinator.census()[1]
    metrics.group_lag.read = lambda: [
        ((row.group_id, row.topic, str(row.partition)), row.lag) for row in lags.rows
    ]
