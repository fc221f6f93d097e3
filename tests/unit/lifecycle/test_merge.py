"""Merging on a real index: what is read back is the same, in fewer and larger pieces."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.lifecycle.merge_support import Cluster, run


@pytest.mark.parametrize("seed", range(4))
def test_every_offset_reads_the_same_after_merging(tmp_path: Path, seed: int) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path / "db", partitions=5, seed=seed)
        await cluster.open()
        for _ in range(30):
            await cluster.commit_random()
        job = await cluster.merge()
        levels = await cluster.levels()
        assert sum(map(len, levels.values())) < 12
        assert job.counters.merges >= 1
        await cluster.check(every_offset=True)
        await cluster.check_objects()
        await cluster.close()

    run(scenario())
