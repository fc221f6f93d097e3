"""That the simulator would notice what jobs can break: they are broken on purpose, and a promise has to break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.sim.test_sensitivity import promises_seen_to_break
from warp.lifecycle import dead
from warp.lifecycle.orphans import OrphanSweep
from warp.metadata import swaps
from warp.metadata.group_model import Lease
from warp.metadata.life_model import Swap
from warp.metadata.store import MetadataStore
from warp.objectstore.base import ObjectInfo


def test_objects_that_are_deleted_without_grace_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "is_old", lambda *_, **__: True)
    assert "P9" in promises_seen_to_break()


def test_a_swap_that_loses_a_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    write = swaps._write_rows

    async def losing(session: Any, statement: Any, rows: Sequence[Any]) -> None:
        await write(session, statement, rows[:-1] if statement is swaps.INSERT_EXTENTS else rows)

    monkeypatch.setattr(swaps, "_write_rows", losing)
    assert promises_seen_to_break() & {"P1", "P3", "P9"}


def test_a_swap_that_does_not_look_whether_its_extents_have_changed_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swaps, "_changed", lambda *_: set())
    swap = MetadataStore.swap

    async def twice(self: MetadataStore, lease: Lease | None, change: Swap) -> Any:
        """Two holders of a lease that have read the same: the second swaps what the first has swapped."""
        done = await swap(self, lease, change)
        again = [segment._replace(key=self._ids.segment_key()) for segment in change.segments]
        await swap(self, lease, Swap(again, change.removed, change.added, change.clean_offsets))
        return done

    monkeypatch.setattr(MetadataStore, "swap", twice)
    assert promises_seen_to_break()


def test_orphans_that_are_deleted_without_a_claim_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hasty(self: OrphanSweep, lease: Lease, page: Sequence[ObjectInfo]) -> None:
        known = await self._store.known_keys([found.key for found in page])
        await self._objects.delete([found.key for found in page if found.key not in known])

    monkeypatch.setattr(OrphanSweep, "_claim", hasty)
    assert "P9" in promises_seen_to_break()
