"""What a target is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One kind of input.

    `check` takes any bytes, and returns; whatever it raises is a find. It keeps nothing from one call to the next that
    could change the outcome. `seeds` gives well-formed inputs, `words` what the format consists of.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    input_bytes_max: int = 4096
