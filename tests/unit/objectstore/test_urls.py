"""Which store an URL means, and what is said of one that means none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warp.clock import SystemClock
from warp.errors import UsageError
from warp.ids import IdSource
from warp.objectstore.base import ObjectStore
from warp.objectstore.local import LocalStore
from warp.objectstore.memory import MemoryStore
from warp.objectstore.urls import MEMORY_BYTES_MAX, RESERVE_FREE_BYTES, open_object_store


def opened(url: str) -> ObjectStore:
    clock = SystemClock()
    return open_object_store(url, clock=clock, ids=IdSource(clock, os.urandom))


@pytest.mark.parametrize(
    ("url", "directory", "reserve"),
    [
        ("file:///var/lib/warp", "/var/lib/warp", RESERVE_FREE_BYTES),
        ("file://localhost/a%20b", "/a b", RESERVE_FREE_BYTES),
        ("file:///d?reserve=1GiB", "/d", 2**30),
        ("file:///d?reserve=0", "/d", 0),
    ],
)
def test_a_file_url_is_a_directory(url: str, directory: str, reserve: int) -> None:
    store = opened(url)
    assert isinstance(store, LocalStore)
    assert store.directory == Path(directory)
    assert store._reserve_free_bytes == reserve


@pytest.mark.parametrize(("url", "size"), [("mem://", MEMORY_BYTES_MAX), ("mem://?size=64MiB", 2**26)])
def test_a_memory_url_is_memory(url: str, size: int) -> None:
    store = opened(url)
    assert isinstance(store, MemoryStore)
    assert store.bytes_max == size


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "unknown kind"),
        ("/var/lib/warp", "unknown kind"),
        ("http://host/x", "unknown kind 'http'"),
        ("file://", "absolute path"),
        ("file://host/dir", "absolute path"),
        ("file:relative", "absolute path"),
        ("file:///", "below the root"),
        ("file:///d?reserv=1GiB", "did you mean 'reserve'"),
        ("file:///d?reserve=lots", "reserve: "),
        ("file:///d#x", "takes no user name"),
        ("file://user:secret@/d", "takes no user name"),
        ("mem://name", "has no name"),
        ("mem:///path", "has no name"),
        ("mem://?reserve=1", "did you mean 'size'"),
    ],
)
def test_other_urls_are_refused_in_one_line_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        opened(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
