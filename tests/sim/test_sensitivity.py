"""That the simulator would notice: the product is broken on purpose, and a promise has to be seen to break."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from tests.sim.world import simulate
from warp.ids import SEGMENT_PREFIX
from warp.log.buffer import OpenBuffer, Unit
from warp.log.fetch import FetchService
from warp.log.model import Append
from warp.log.offsets import OffsetAnswer, OffsetQuery, OffsetService
from warp.log.produce import ProduceService, Staged
from warp.log.tail import TailIndex
from warp.log.upload import Uploader
from warp.metadata import commit
from warp.metadata.session import Session
from warp.metadata.sqlite import SqliteDatabase
from warp.metadata.store import MetadataStore

SEEDS = (0, 4, 2, 10, 8, 7, 3, 1, 5, 9)
"""The short lives first; of the first twelve all but those that take longer to settle than they get here."""
SETTLE_S = 20.0


def promises_seen_to_break(seeds: Iterable[int] = SEEDS) -> set[str]:
    """What the first seed finds that finds anything."""
    for seed in seeds:
        violations = simulate(seed, settle_s=SETTLE_S).violations
        if violations:
            return {violation.partition(":")[0] for violation in violations}
    return set()


def test_acknowledging_before_the_put_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Uploader.upload
    chance = random.Random(1)

    async def hasty(self: Uploader, *arguments: Any) -> str:
        if chance.random() < 0.9:
            return await upload(self, *arguments)
        return f"{SEGMENT_PREFIX}00/{chance.getrandbits(48):012x}-{chance.getrandbits(80):020x}"

    monkeypatch.setattr(Uploader, "upload", hasty)
    assert "P1" in promises_seen_to_break()


def test_acknowledging_without_a_commit_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgotten(Exception):
        pass

    transaction = SqliteDatabase.transaction
    commit_segments = MetadataStore.commit
    chance = random.Random(1)
    commits: set[asyncio.Task[Any] | None] = set()

    @asynccontextmanager
    async def forgetful(self: SqliteDatabase) -> AsyncIterator[Session]:
        with suppress(Forgotten):
            async with transaction(self) as session:
                yield session
                if asyncio.current_task() in commits and chance.random() < 0.2:
                    raise Forgotten

    async def committing(self: MetadataStore, *arguments: Any) -> Any:
        task = asyncio.current_task()
        commits.add(task)
        try:
            return await commit_segments(self, *arguments)
        finally:
            commits.discard(task)

    monkeypatch.setattr(SqliteDatabase, "transaction", forgetful)
    monkeypatch.setattr(MetadataStore, "commit", committing)
    assert promises_seen_to_break() & {"P1", "P3", "P4", "P5"}


def test_two_batches_that_change_places_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    take = OpenBuffer.take

    def reversed_take(self: OpenBuffer) -> list[Unit]:
        return take(self)[::-1]

    monkeypatch.setattr(OpenBuffer, "take", reversed_take)
    monkeypatch.setattr(commit, "_sequence_verdict", lambda *_: None)
    assert "P4" in promises_seen_to_break()


def test_duplicates_that_are_stored_again_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "_sequence_verdict", lambda *_: None)
    assert "P4" in promises_seen_to_break()


def test_a_request_in_two_commits_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ProduceService.stage

    async def torn(self: ProduceService, appends: Sequence[Append], timeout_ms: int) -> Staged:
        parts = [await stage(self, [append], timeout_ms) for append in appends]
        together = asyncio.gather(*(part.outcomes for part in parts))
        outcomes = asyncio.get_running_loop().create_future()
        together.add_done_callback(lambda done: outcomes.set_result([outcome for [outcome] in done.result()]))
        return Staged(outcomes)

    monkeypatch.setattr(ProduceService, "stage", torn)
    assert "P2" in promises_seen_to_break()


def test_reading_from_memory_what_another_agent_has_changed_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lazy(self: FetchService, *_: Any) -> None:
        """The store has nothing new."""

    monkeypatch.setattr(FetchService, "_refresh_ends", lazy)
    # It takes a second agent, which short lives do not have: this seed has several.
    assert "P5" in promises_seen_to_break([5, *SEEDS])


def test_an_end_that_lags_behind_acknowledgements_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    list_offsets = OffsetService.list_offsets

    async def late(self: OffsetService, queries: Sequence[OffsetQuery]) -> list[OffsetAnswer]:
        answers = await list_offsets(self, queries)
        return [answer._replace(offset=max(0, answer.offset - 1)) for answer in answers]

    monkeypatch.setattr(OffsetService, "list_offsets", late)
    assert "P5" in promises_seen_to_break()


def test_a_tail_index_that_skips_a_gap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(self: TailIndex, tail: Any, extent: Any, now: float) -> bool:
        if extent.base_offset >= tail.end_offset:
            tail.append(extent, now)
            self.extent_count += 1
        return True

    monkeypatch.setattr(TailIndex, "_join", join)
    assert promises_seen_to_break() & {"P3", "P5", "P7"}
