"""That the simulator would notice what is wrong with groups: the product is broken on purpose, and that has to show."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.sim.groups import SEEDS_PER_GROUPS
from tests.sim.world import simulate
from warp.errors import ErrorCode
from warp.groups import state, sync
from warp.groups.model import Reply, SyncAnswer
from warp.groups.offsets import OffsetCommitter
from warp.groups.runner import GroupRunner
from warp.metadata import group_offsets, groups
from warp.metadata.group_model import OffsetCommit
from warp.metadata.store import MetadataStore

SEEDS = range(0, 15 * SEEDS_PER_GROUPS, SEEDS_PER_GROUPS)


def complaints() -> str:
    """What the first seed says that says anything about groups."""
    for seed in SEEDS:
        outcome = simulate(seed, settle_s=30.0)
        found = [line for line in outcome.violations if "group-" in line]
        if found:
            return "\n".join(found)
    return ""


def test_commits_that_are_acknowledged_and_not_stored_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hasty(self: OffsetCommitter, commit: OffsetCommit) -> list[ErrorCode]:
        return [ErrorCode.NONE] * len(commit.rows)

    monkeypatch.setattr(OffsetCommitter, "commit", hasty)
    assert "it is not stored" in complaints()


def test_commits_of_members_that_were_replaced_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "commit_error", lambda *_: ErrorCode.NONE)
    found = complaints()
    assert "was accepted after" in found or "in the store" in found


def test_writes_under_lost_leases_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lenient(*_: Any) -> None:
        pass

    monkeypatch.setattr(groups, "share_leases", lenient)
    monkeypatch.setattr(group_offsets, "share_leases", lenient)
    assert complaints()


def test_offsets_that_lag_behind_commits_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_offsets = MetadataStore.fetch_offsets

    async def old(self: MetadataStore, *arguments: Any) -> Any:
        rows = await fetch_offsets(self, *arguments)
        return [[row._replace(offset=max(0, row.offset - 1)) for row in found] for found in rows]

    monkeypatch.setattr(MetadataStore, "fetch_offsets", old)
    assert "was told that" in complaints()


def test_shares_of_other_members_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def shuffled(group: Any, member: Any) -> SyncAnswer:
        others = [other.assignment for other in group.roster if other is not member]
        share = (others or [member.assignment])[0]
        return SyncAnswer(ErrorCode.NONE, group.protocol_type, group.protocol, share)

    monkeypatch.setattr(sync, "assignment_answer", shuffled)
    assert "which the leader did not send it" in complaints()


def test_replies_that_are_lost_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = GroupRunner._reply

    def forgetful(self: GroupRunner, replies: Sequence[Reply]) -> None:
        reply(self, [one for one in replies if asyncio.get_running_loop().time() < 15.0 or len(replies) == 1])

    monkeypatch.setattr(GroupRunner, "_reply", forgetful)
    assert "had no answer to" in complaints()


def test_generations_that_are_not_stored_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hasty(*_: Any) -> None:
        pass

    monkeypatch.setattr(MetadataStore, "save_groups", hasty)
    assert complaints()
