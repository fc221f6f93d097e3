"""Which object store an URL means: `file:///dir`, `mem://`, `s3://bucket/prefix`.

The S3 store is imported only when its URL is used: a local agent never pays for an S3 client.
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from warp.clock import Clock
from warp.errors import UsageError
from warp.ids import IdSource
from warp.objectstore.base import ObjectStore
from warp.objectstore.local import LocalStore
from warp.objectstore.memory import MemoryStore
from warp.units import parse_size

RESERVE_FREE_BYTES = 256 * 2**20
MEMORY_BYTES_MAX = 2**30

_EXAMPLES = "file:///var/lib/warp/objects, s3://bucket/prefix, or mem://"


def open_object_store(url: str, *, clock: Clock, ids: IdSource) -> ObjectStore:
    """The store that `url` names; nothing is touched before its `open()`.

    * `file:///dir?reserve=256MiB`: a local directory; writes are refused when less than `reserve` is free.
    * `mem://?size=1GiB`: the memory of this process, at most `size` of it.
    * `s3://bucket/prefix?region=…&endpoint=…`: a bucket; `warp.objectstore.s3.settings` has all parameters.

    Raises UsageError, in one line, for anything else.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or parts.fragment:
        raise UsageError("object store: its URL takes no user name, password or fragment")
    opener = {"file": _open_local, "mem": _open_memory, "s3": _open_s3}.get(parts.scheme)
    if opener is None:
        raise UsageError(f"object store {url!r}: unknown kind {parts.scheme or 'of URL'!r}; use {_EXAMPLES}")
    return opener(url, parts, clock, ids)


def _open_local(url: str, parts: SplitResult, clock: Clock, ids: IdSource) -> ObjectStore:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(
            f"object store {url!r}: give an absolute path after three slashes, as in file:///dir"
        )
    sizes = _sizes(url, parts, {"reserve": RESERVE_FREE_BYTES})
    directory = Path(unquote(parts.path))
    if directory == Path("/"):
        raise UsageError(f"object store {url!r}: name a directory below the root")
    return LocalStore(directory, token=ids.token(), reserve_free_bytes=sizes["reserve"])


def _open_memory(url: str, parts: SplitResult, clock: Clock, ids: IdSource) -> ObjectStore:
    if parts.netloc or parts.path not in ("", "/"):
        raise UsageError(f"object store {url!r}: a memory store has no name; use mem://")
    return MemoryStore(clock, bytes_max=_sizes(url, parts, {"size": MEMORY_BYTES_MAX})["size"])


def _open_s3(url: str, parts: SplitResult, clock: Clock, ids: IdSource) -> ObjectStore:
    from warp.objectstore.s3.settings import parse_settings  # noqa: PLC0415
    from warp.objectstore.s3.store import S3Store  # noqa: PLC0415

    settings = parse_settings(parts)
    # Pauses between attempts need no better randomness than this.
    return S3Store(settings, clock=clock, random=random.Random(ids.token()).random, token=ids.token())


def _sizes(url: str, parts: SplitResult, defaults: Mapping[str, int]) -> dict[str, int]:
    """The parameters of a URL, all of them sizes. Unknown ones are refused with the nearest name."""
    sizes = dict(defaults)
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in sizes:
            nearest = difflib.get_close_matches(name, sizes, n=1, cutoff=0.0)[0]
            raise UsageError(f"object store {url!r}: unknown parameter {name!r}; did you mean {nearest!r}?")
        try:
            sizes[name] = parse_size(text)
        except ValueError as error:
            raise UsageError(f"object store {url!r}: {name}: {error}") from error
    return sizes
