"""That the simulator would notice what can go wrong with data that goes: the product is broken on purpose."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import pytest

from tests.sim.cluster import has_cluster
from tests.sim.life import has_life
from tests.sim.life_topics import some_topics
from tests.sim.world import simulate
from warp._compaction import compact_batches
from warp.errors import ErrorCode
from warp.ids import LogId
from warp.lifecycle import compact_plan, output
from warp.lifecycle.retention import Retention
from warp.metadata import commits
from warp.metadata.session import LOCK_PATTERN
from warp.metadata.store import MetadataStore

SEEDS_MAX = 6
"""How many lives it may take until something is noticed."""


def seeds_with(topic: str, *, in_cluster: bool = False) -> Iterator[int]:
    """Seeds in whose worlds there is such a topic."""
    for seed in range(2_000):
        if has_life(seed) and has_cluster(seed) == in_cluster:
            topics = some_topics(random.Random(f"{seed} life"))
            if any(found.name == topic for found in topics):
                yield seed


def complaints(seeds: Iterator[int]) -> str:
    """What the first of them says that says anything."""
    for seed in islice(seeds, SEEDS_MAX):
        violations = simulate(seed, settle_s=30.0).violations
        if violations:
            return "\n".join(violations)
    return ""


def test_records_that_retention_takes_early_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = Retention._bounds

    def hasty(self: Retention) -> Iterator[Any]:
        for bound in bounds(self):
            before_ms = bound.before_ms
            yield bound if before_ms is None else bound._replace(before_ms=before_ms + 3_600_000)

    monkeypatch.setattr(Retention, "_bounds", hasty)
    assert "was taken early" in complaints(seeds_with("brief"))


def test_retention_by_size_that_keeps_less_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = Retention._bounds

    def greedy(self: Retention) -> Iterator[Any]:
        for bound in bounds(self):
            yield bound._replace(size_bytes_max=0) if bound.size_bytes_max is not None else bound

    monkeypatch.setattr(Retention, "_bounds", greedy)
    assert "bytes are kept" in complaints(seeds_with("sized"))


def test_records_that_are_said_to_be_deleted_and_stay_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    delete_records = MetadataStore.delete_records

    async def forgetful(self: MetadataStore, before_offsets: Mapping[LogId, int]) -> dict[LogId, Any]:
        done = await delete_records(self, dict.fromkeys(before_offsets, 0))
        asked = {log_id: max(0, offset) for log_id, offset in before_offsets.items()}
        return {
            log_id: asked[log_id] if not isinstance(start, ErrorCode) else start
            for log_id, start in done.items()
        }

    monkeypatch.setattr(MetadataStore, "delete_records", forgetful)
    found = complaints(seeds_with("trimmed"))
    assert "deleted records stay away" in found or "watermarks never go back" in found


def test_compaction_that_loses_the_last_of_a_key_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)

    def careless(data: Any, base_offset: int, keys: Any, *arguments: Any, **options: Any) -> Any:
        """At times as if everything after it were known to have the same keys."""
        shift = 1 if chance.random() < 0.5 else 0
        return compact_batches(data, base_offset - shift, keys, *arguments, **options)

    monkeypatch.setattr("warp.lifecycle.compact_log.compact_batches", careless)
    assert complaints(seeds_with("latest"))


def test_commits_that_do_not_lock_their_logs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only several agents that write at once can show, each in a transaction of its own."""
    unlocked = dataclasses.replace(commits.LOCK_LOGS, text=LOCK_PATTERN.sub("", commits.LOCK_LOGS.text))
    monkeypatch.setattr(commits, "LOCK_LOGS", unlocked)
    assert complaints(seed for seed in range(2_000) if has_cluster(seed))


def test_extents_that_are_joined_over_spans_of_time_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_later", lambda *_: False)
    monkeypatch.setattr(compact_plan, "is_later", lambda *_: False)
    assert "beside what is of an earlier" in complaints(seeds_with("aged"))


def test_retention_that_takes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Retention, "_bounds", lambda _: iter(()))
    assert "has been" in complaints(seeds_with("aged"))
