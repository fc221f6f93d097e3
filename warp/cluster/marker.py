"""The object that says whose object store this is.

Two clusters that were pointed at one bucket by mistake would each take the other's segments for orphans and delete them
in the end. So the first agent of a cluster leaves its cluster's id there, and every agent compares at start.
"""

from __future__ import annotations

import json

from warp.errors import ObjectNotFound, ObjectStoreError, StartError
from warp.objectstore.base import ObjectStore

MARKER_KEY = "warp-cluster.json"
MARKER_BYTES_MAX = 4096
READS_MAX = 3


async def check_marker(store: ObjectStore, cluster_id: str, where: str) -> None:
    """Make sure that the store is this cluster's, or make it so where it is nobody's yet.

    `where` names the store in what is raised: StartError, when it is another cluster's, or can't be read or written.
    """
    try:
        owner = await _owner(store, cluster_id)
    except (ObjectStoreError, ValueError) as error:
        raise StartError(
            f"can't tell whose object store {where} is, by its object {MARKER_KEY}: {error}"
        ) from error
    if owner != cluster_id:
        raise StartError(
            f"the object store {where} belongs to cluster {owner}, but the metadata to cluster {cluster_id}: give each "
            f"cluster a bucket or a prefix of its own, or the metadata that belongs to this one (only if cluster "
            f"{owner} is gone for good and its data with it, delete the object {MARKER_KEY})"
        )


async def _owner(store: ObjectStore, cluster_id: str) -> str:
    """The id that the marker holds; without one, it is created with this id."""
    for _ in range(READS_MAX):
        found = await _read(store)
        if found is not None:
            return found
        await store.create(MARKER_KEY, json.dumps({"cluster_id": cluster_id}).encode())
        # Read again, whoever was first: that this agent's object was stored does not mean that no other was.
    raise ValueError("it was created, and then it was not there")


async def _read(store: ObjectStore) -> str | None:
    """The cluster id in the marker, None where there is none. Raises ObjectStoreError, or ValueError for rubbish."""
    try:
        size_bytes = (await store.head(MARKER_KEY)).size_bytes
        if size_bytes > MARKER_BYTES_MAX:
            raise ValueError(f"it has {size_bytes} bytes")
        content = json.loads(bytes(await store.get(MARKER_KEY, 0, size_bytes)))
    except ObjectNotFound:
        return None
    if not isinstance(content, dict) or not isinstance(content.get("cluster_id"), str):
        raise ValueError("it holds no cluster id")
    return str(content["cluster_id"])
