"""Opens the stores of an agent beside it, for commands that look at them: nothing is made, marked or migrated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

from warp.clock import Clock
from warp.cluster.marker import read_marker
from warp.config import AgentConfig, is_in_memory
from warp.config_values import mask_url
from warp.errors import ObjectStoreError, StartError, UsageError
from warp.ids import IdSource
from warp.metadata.fsck_store import FsckStore
from warp.metadata.readers import open_reader
from warp.metadata.session import Database
from warp.metadata.store import CLUSTER_ID
from warp.objectstore.base import ObjectStore
from warp.objectstore.urls import open_object_store


@asynccontextmanager
async def reading_metadata(config: AgentConfig) -> AsyncIterator[Database]:
    """The metadata of an agent. Raises StartError or UsageError."""
    database = open_reader(config.metadata, timeout_s=config.metadata_timeout_ms / 1000)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def reading_objects(url: str, *, clock: Clock, ids: IdSource) -> AsyncIterator[ObjectStore]:
    """An object store, without the probe that an agent begins with. Raises StartError or UsageError."""
    if is_in_memory(url):
        raise UsageError("an object store in memory can't be read from outside of its agent")
    store = open_object_store(url, clock=clock, ids=ids)
    parts = urlsplit(url)
    try:
        if parts.scheme == "s3":
            from warp.objectstore.s3.store import S3Store  # noqa: PLC0415

            await cast("S3Store", store).connect()
        else:
            _expect_directory(unquote(parts.path))
        yield store
    finally:
        await store.close()


def _expect_directory(path: str) -> None:
    if not Path(path).is_dir():
        raise StartError(f"there is no object store in {path}: name the agent's --object-store")


async def expect_same_cluster(store: FsckStore, objects: ObjectStore, url: str) -> None:
    """Raises StartError when metadata and object store are those of two clusters: every object would seem foreign."""
    try:
        owner = await read_marker(objects)
    except (ObjectStoreError, ValueError) as error:
        raise StartError(f"can't read the object store {mask_url(url)}: {error}") from error
    cluster_id = await store.setting(CLUSTER_ID)
    if owner is not None and cluster_id is not None and owner != cluster_id:
        raise StartError(
            f"the object store {mask_url(url)} belongs to cluster {owner}, the metadata to cluster {cluster_id}: "
            "name those that belong together"
        )
