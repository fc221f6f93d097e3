"""Headers that tell whether a record has come back with the headers and the timestamp with which it was sent.

The verifier knows records by their keys and values alone. What a record carries beside them is sealed into a header of
its own, so whoever reads it can say whether anything of it has changed: merging and compaction write records anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

Header = tuple[str, bytes | None]
EMPTY: Header = ("empty", None)
"""A header may lack a value, and stays so."""
DIGEST_BYTES = 6


def headers_of(key: bytes | None, value: bytes | None, timestamp_ms: int) -> list[Header]:
    """With what a record is to be sent."""
    text = repr((key, value, timestamp_ms)).encode()
    return [("seal", hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()), EMPTY]


def opened(
    key: bytes | None,
    value: bytes | None,
    timestamp_ms: int,
    headers: Iterable[tuple[str, str | bytes | None]],
) -> bytes | None:
    """The value of a record that has come as it was sent; of another one something that nobody has sent."""
    found = list(headers)
    if found == headers_of(key, value, timestamp_ms):
        return value
    # The verifier shows the beginning.
    return b"other headers, time than sent: %r of %d with %r" % (value, timestamp_ms, found)


def note_of(offset: int) -> str:
    """The metadata with which an offset is to be committed; empty where nothing is."""
    return f"at {offset}" if offset >= 0 else ""
