"""`warp fsck` and `warp inspect` on a bucket: they only read, and tell an outage from damage."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.process.conftest import Spawn, run_warp
from tests.support.fault_proxy import FaultProxy
from warp.cli.main import main
from warp.clock import SystemClock
from warp.ids import IdSource
from warp.objectstore.base import ObjectInfo
from warp.objectstore.urls import open_object_store


def look(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, error = capsys.readouterr()
    return code, out, error


def objects(url: str, *, remove: str = "") -> list[ObjectInfo]:
    """What a bucket holds, once one object has been removed from it."""

    async def listed() -> list[ObjectInfo]:
        clock = SystemClock()
        store = open_object_store(url, clock=clock, ids=IdSource(clock, os.urandom))
        await store.open()
        if remove:
            await store.delete([remove])
        found = [info async for info in store.list()]
        await store.close()
        return sorted(found, key=lambda info: info.key)

    return asyncio.run(listed())


def test_a_bucket_is_looked_at_and_stays_as_it_is(
    store_url: str, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spawn = Spawn(tmp_path / "data")
    agent = spawn.agent("--object-store", store_url)
    for number in range(3):
        text = b"line %d\n" % number
        assert run_warp("produce", "greetings", "-b", agent.bootstrap, stdin=text)[0] == 0
    stores = ("--data-dir", str(spawn.data_dir), "--object-store", store_url)
    code, out, error = look(capsys, "fsck", *stores, "--deep")
    assert (code, error, out.splitlines()[-1]) == (0, "", "clean"), out
    assert agent.stop() == 0
    agent.close()
    before = objects(store_url)
    code, out, _ = look(capsys, "fsck", *stores, "--json")
    assert (code, json.loads(out)["counts"]["live segments"]) == (0, 3)
    assert objects(store_url) == before
    key = next(info.key for info in before if info.key.startswith("segments/"))
    code, out, _ = look(capsys, "inspect", "segment", key, "--records", "--object-store", store_url)
    assert (code, "= 'line " in out) == (0, True)
    objects(store_url, remove=key)
    code, out, _ = look(capsys, "fsck", *stores)
    assert (code, out.splitlines()[-1]) == (1, "1 finding: 1 object-missing")
    proxy.vanish()
    code, out, error = look(capsys, "fsck", *stores)
    assert (code, out) == (2, "")
    assert "can't read the object store s3://" in error
