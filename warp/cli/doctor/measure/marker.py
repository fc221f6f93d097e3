"""Reads whose an object store is, and marks none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from warp.cli.doctor.detached import detached
from warp.cli.doctor.facts import MarkerFacts
from warp.clock import Clock
from warp.cluster.marker import MARKER_KEY, parse_marker, read_marker
from warp.errors import WarpError
from warp.ids import IdSource
from warp.objectstore.urls import open_object_store

TIMEOUT_S: Final = 30.0


async def look_at_marker(url: str, *, clock: Clock, ids: IdSource) -> MarkerFacts:
    """The marker of the object store that a URL names. Of a directory it is read as a file: nothing is tidied up."""
    late = MarkerFacts(None, f"no answer within {TIMEOUT_S:g} s")
    parts = urlsplit(url)
    if parts.scheme == "file":
        path = Path(unquote(parts.path)) / MARKER_KEY
        return await detached(lambda: _of_file(path), timeout_s=TIMEOUT_S, late=late)
    store = open_object_store(url, clock=clock, ids=ids)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await store.open()
            return MarkerFacts(await read_marker(store))
    except TimeoutError:
        return late
    except (WarpError, ValueError) as error:
        return MarkerFacts(None, str(error))
    finally:
        await store.close()


def _of_file(path: Path) -> MarkerFacts:
    try:
        return MarkerFacts(parse_marker(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return MarkerFacts(None)
    except (OSError, ValueError) as error:
        return MarkerFacts(None, str(error))
