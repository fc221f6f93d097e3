"""Opens the stores of a cluster to put its metadata right: nobody else may use them meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from warp.agent_build import directories_in_use, object_store_url
from warp.clock import Clock
from warp.cluster.marker import read_marker
from warp.config import AgentConfig, is_in_memory, is_shared
from warp.config_values import mask_url
from warp.data_directory import DirectoryLock
from warp.errors import ObjectStoreError, StartError, UsageError
from warp.ids import IdSource
from warp.metadata.restore_store import RestoreStore
from warp.metadata.store import CLUSTER_ID, MetadataStore
from warp.metadata.urls import open_database
from warp.objectstore.base import ObjectStore
from warp.objectstore.urls import open_object_store

STATEMENT_TIMEOUT_S: Final = 3_600.0
"""One transaction changes all there is to change."""
LOOK_S: Final = 2.0
"""An agent that lives moves its counter four times a second."""


@dataclass(frozen=True, slots=True)
class OpenStores:
    """Both stores of a cluster, open for writing."""

    objects: ObjectStore
    is_conditional: bool
    metadata: MetadataStore
    rows: RestoreStore


def refuse_memory(config: AgentConfig) -> None:
    """Raises UsageError where there is nothing that could outlive an agent."""
    if is_in_memory(config.metadata) or is_in_memory(config.object_store):
        raise UsageError("stores in memory are gone with their agent; name --metadata and --object-store")


def sqlite_path(metadata_url: str) -> Path | None:
    """The file of a SQLite database, None for another one."""
    parts = urlsplit(metadata_url)
    return Path(unquote(parts.path)) if parts.scheme == "sqlite" else None


@contextmanager
def held(config: AgentConfig, clock: Clock) -> Iterator[None]:
    """Keep agents from the directories that would be theirs. Raises StartError when one is at work."""
    locks: list[DirectoryLock] = []
    try:
        for path in directories_in_use(config):
            lock = DirectoryLock(path)
            lock.acquire(clock.time_ms())
            locks.append(lock)
        yield
    finally:
        for lock in locks:
            lock.release()


@asynccontextmanager
async def writing(
    config: AgentConfig, metadata_url: str, *, clock: Clock, ids: IdSource
) -> AsyncIterator[OpenStores]:
    """Open both stores. Raises StartError, also when an agent is at work."""
    objects = open_object_store(object_store_url(config), clock=clock, ids=ids)
    try:
        abilities = await objects.open()
        database = open_database(metadata_url, clock, connections_max=2, timeout_s=STATEMENT_TIMEOUT_S)
        metadata, rows = MetadataStore(database, clock, ids), RestoreStore(database)
        await metadata.open()
        try:
            if is_shared(metadata_url):
                await expect_no_agents(rows)
            yield OpenStores(objects, abilities.conditional_create, metadata, rows)
        finally:
            await metadata.close()
    finally:
        await objects.close()


async def expect_no_agents(rows: RestoreStore) -> None:
    """Raises StartError that names an agent which shows signs of life."""
    before = await rows.agents()
    await asyncio.sleep(LOOK_S)
    for broker_id, (name, counter) in (await rows.agents()).items():
        if broker_id not in before or before[broker_id][1] != counter:
            raise StartError(f"agent {broker_id} ({name}) is at work on this database: stop all agents first")


async def owner_of(objects: ObjectStore, url: str) -> str | None:
    """The id of the cluster whose object store it is, None when it says nothing. Raises StartError."""
    try:
        return await read_marker(objects)
    except (ObjectStoreError, ValueError) as error:
        raise StartError(f"can't read the object store {mask_url(url)}: {error}") from error


async def expect_own(rows: RestoreStore, objects: ObjectStore, url: str) -> None:
    """Raises StartError when metadata and object store are those of two clusters, or the metadata nobody's."""
    if await rows.is_empty():
        raise StartError(
            "there is nothing in this database to restore: put a backup in its place, name one with --from, or make "
            "the metadata anew by `warp rebuild --from-bucket`"
        )
    owner, own = await owner_of(objects, url), await rows.setting(CLUSTER_ID)
    if owner is not None and own is not None and owner != own:
        raise StartError(
            f"the object store {mask_url(url)} belongs to cluster {owner}, the metadata to cluster {own}: name those "
            "that belong together"
        )
