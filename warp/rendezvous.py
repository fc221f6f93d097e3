"""Rendezvous hashing: who out of several looks after a thing, agreed upon by all without a word.

Everybody who knows the same candidates comes to the same order; a candidate that comes or goes moves only what falls to
it. Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def ranking(key: str, candidates: Iterable[int]) -> list[int]:
    """The candidates, each once, in the order in which they are to look after `key`."""
    return sorted(set(candidates), key=lambda candidate: (_weight(key, candidate), candidate), reverse=True)


def first(key: str, candidates: Iterable[int]) -> int | None:
    """The first of `ranking`; None without candidates."""
    return max(candidates, key=lambda candidate: (_weight(key, candidate), candidate), default=None)


def _weight(key: str, candidate: int) -> bytes:
    return blake2b(key.encode(), digest_size=8, salt=candidate.to_bytes(8, "big", signed=True)).digest()
