"""What clients have used, as many as are remembered: clients choose their ids, and must not fill memory with them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

REMEMBERED_MAX: Final = 10_000
"""Clients of each kind, about 0.5 KiB each. Beyond that the one that has been silent longest is forgotten."""
_NAME_CHARACTERS_MAX: Final = 128
_LOOKED_AT: Final = 2
"""How many of the longest silent are looked at for each new one: idle ones go faster than new ones come."""


class Idle(Protocol):
    """Something that is kept for a client."""

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing is lost by forgetting it."""


T = TypeVar("T", bound=Idle)


class Usage(Generic[T]):
    """Finds what is kept for a name, or makes it."""

    def __init__(self, make: Callable[[], T], remembered_max: int = REMEMBERED_MAX) -> None:
        self._make = make
        self._max = remembered_max
        self._kept: OrderedDict[tuple[str, ...], T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, now_s: float, *names: str) -> T:
        """What is kept for these names."""
        key = tuple(map(_short, names))
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        for _ in range(_LOOKED_AT):
            self._forget_one(now_s)
        made = self._kept[key] = self._make()
        return made

    def clear(self) -> None:
        """Forget everybody."""
        self._kept.clear()

    def _forget_one(self, now_s: float) -> None:
        """Forget the one that has been silent longest, if it is idle or there are too many."""
        oldest = next(iter(self._kept), None)
        if oldest is not None and (len(self._kept) >= self._max or self._kept[oldest].is_idle(now_s)):
            del self._kept[oldest]


def _short(name: str) -> str:
    """A name that takes little memory and is still this one's alone."""
    if len(name) <= _NAME_CHARACTERS_MAX:
        return name
    return "#" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
