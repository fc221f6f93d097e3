"""The object that says whose object store this is.

Two clusters that were pointed at one bucket by mistake would each take the other's segments for orphans and delete them
in the end. So the first agent of a cluster leaves its cluster's id there, and every agent compares at start.

And agents of one cluster that were pointed at two buckets would acknowledge what the others can't read. So the metadata
remember that the cluster's object store has its marker: one without is another one, or has lost what it held.
"""

from __future__ import annotations

import asyncio
import json
from typing import Protocol

from warp.errors import ObjectNotFound, ObjectStoreError, StartError
from warp.objectstore.base import ObjectStore

MARKER_KEY = "warp-cluster.json"
MARKER_BYTES_MAX = 4096
READS_MAX = 3
SETTLE_S = 1.0
"""On a store that can't keep two from creating the same object: for agents of two clusters that begin at once."""
IS_MARKED = "object-store.is_marked"
"""The setting that tells that the cluster's object store has its marker."""


class Settings(Protocol):
    """The part of the metadata store that is needed here. `MetadataStore` says what each does."""

    async def setting(self, name: str) -> str | None: ...

    async def set_setting(self, name: str, value: str) -> None: ...


async def check_marker(
    store: ObjectStore, settings: Settings, cluster_id: str, where: str, *, is_conditional: bool = True
) -> None:
    """Make sure that the store is this cluster's, or make it so where neither has another one yet.

    `where` names the store in what is raised: StartError, when it is another cluster's, or not this cluster's, or can't
    be read or written. MetadataError when the settings can't. `is_conditional`: the store has conditional puts.
    """
    is_marked = await settings.setting(IS_MARKED) is not None
    try:
        owner = await _owner(store, cluster_id, may_create=not is_marked, is_conditional=is_conditional)
    except (ObjectStoreError, ValueError) as error:
        raise StartError(
            f"can't tell whose object store {where} is, by its object {MARKER_KEY}: {error}"
        ) from error
    if owner is None:
        raise StartError(
            f"the object store {where} is not the one of cluster {cluster_id}, for it lacks the object {MARKER_KEY}: "
            "name the store that the cluster's data is in (who moves it moves that object too)"
        )
    if owner != cluster_id:
        raise StartError(
            f"the object store {where} belongs to cluster {owner}, but the metadata to cluster {cluster_id}: give each "
            f"cluster a bucket or a prefix of its own, or the metadata that belongs to this one (if they were lost, "
            f"`warp rebuild --from-bucket` makes them anew; only if cluster {owner} is gone for good and its data with "
            f"it, delete the object {MARKER_KEY})"
        )
    if not is_marked:
        await settings.set_setting(IS_MARKED, "1")


async def _owner(
    store: ObjectStore, cluster_id: str, *, may_create: bool, is_conditional: bool
) -> str | None:
    """The id that the marker holds; without one, it is created with this id, if it may be."""
    for _ in range(READS_MAX):
        found = await read_marker(store)
        if found is not None or not may_create:
            return found
        marker = json.dumps({"cluster_id": cluster_id}).encode()
        if is_conditional:
            await store.create(MARKER_KEY, marker)
        else:
            await store.put(MARKER_KEY, [marker])
            await asyncio.sleep(SETTLE_S)
        # Read again, whoever was first: that this agent's object was stored does not mean that no other was.
    raise ValueError("it was created, and then it was not there")


async def read_marker(store: ObjectStore) -> str | None:
    """The cluster id in the marker, None where there is none. Raises ObjectStoreError, or ValueError for rubbish."""
    try:
        size_bytes = (await store.head(MARKER_KEY)).size_bytes
        if size_bytes > MARKER_BYTES_MAX:
            raise ValueError(f"it has {size_bytes} bytes")
        return parse_marker(bytes(await store.get(MARKER_KEY, 0, size_bytes)))
    except ObjectNotFound:
        return None


def parse_marker(data: bytes) -> str:
    """The cluster id in a marker. Raises ValueError for rubbish."""
    content = json.loads(data)
    if not isinstance(content, dict) or not isinstance(content.get("cluster_id"), str):
        raise ValueError("it holds no cluster id")
    return str(content["cluster_id"])
