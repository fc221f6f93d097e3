"""Tells the fuzzer of what its counters in the code can't see.

Code that interprets tables runs through the same few branches whatever it reads. A target says here which of the many
things that could happen has happened, and an input that makes a new one happen is kept like one that reaches new code.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

COUNTERS = 4096

_told: Callable[[int], None] | None = None


_VARYING = re.compile(r"[0-9]+|'[^']*'|\"[^\"]*\"|[^ -~]+")


def tell(told: Callable[[int], None] | None) -> None:
    """From now on call `told` with a number below COUNTERS for each mark; None: tell nobody."""
    global _told  # noqa: PLW0603  one process fuzzes one target
    _told = told


def mark(*what: object) -> None:
    """This has happened. `what` has a `repr` that says so in few, recurring ways."""
    if _told is not None:
        _told(zlib.crc32(repr(what).encode()) % COUNTERS)


def said(error: Exception) -> str:
    """What an error says, without the names and numbers in it: each of those would be something new."""
    return _VARYING.sub("", str(error))[:60]
