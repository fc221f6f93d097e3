"""Puts segments into the object store: fresh keys, a bound on the time and number of attempts.

A PUT whose answer is an error may have stored the object, and may still do so; so no key is used twice. Copies that
nobody commits are orphans, which the sweep removes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warp.errors import ObjectStoreError, StoreFull
from warp.ids import IdSource
from warp.objectstore.base import Buffer, ObjectStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How hard a segment is tried to be stored."""

    attempts_max: int = 3
    put_timeout_s: float = 20.0
    retry_delay_s: float = 0.1
    """Before the second attempt; doubled for each further one."""


class Uploader:
    """Stores images under keys of its own making."""

    def __init__(self, store: ObjectStore, ids: IdSource, limits: UploadLimits) -> None:
        self._store = store
        self._ids = ids
        self._limits = limits
        self._is_full = False
        self.failed_puts = 0
        """Attempts that failed, also those that a later one made good."""

    async def upload(self, image: Sequence[Buffer], is_wanted: Callable[[], bool]) -> str:
        """Store an image, given in pieces; returns its key.

        Raises ObjectStoreError (StoreFull among it) after the last attempt, and when nobody wants it any more.
        """
        delay_s = self._limits.retry_delay_s
        for attempt in range(1, self._limits.attempts_max + 1):
            key = self._ids.segment_key()
            try:
                await self._put(key, image)
                return key
            except ObjectStoreError as error:
                self.failed_puts += 1
                is_last = attempt == self._limits.attempts_max or isinstance(error, StoreFull)
                self._tell(error, sum(map(len, image)), attempt)
                if is_last or not is_wanted():
                    raise
            await asyncio.sleep(delay_s)
            delay_s *= 2
        raise AssertionError("the last attempt returns or raises")

    async def put_receipts(self, key: str, image: Sequence[Buffer]) -> None:
        """Store an image under a given key, in one attempt. Raises ObjectStoreError."""
        await self._put(key, image)

    async def _put(self, key: str, image: Sequence[Buffer]) -> None:
        try:
            async with asyncio.timeout(self._limits.put_timeout_s):
                await self._store.put(key, image)
        except TimeoutError as error:
            raise ObjectStoreError(f"{key}: not stored within {self._limits.put_timeout_s:g} s") from error
        if self._is_full:
            self._is_full = False
            _log.warning("the object store takes writes again")

    def _tell(self, error: ObjectStoreError, size_bytes: int, attempt: int) -> None:
        """Log a failure; a store that stays full is told of once."""
        if isinstance(error, StoreFull):
            if not self._is_full:
                _log.error("the object store is full, producers are refused: %s", error)
            self._is_full = True
        else:
            _log.warning("PUT of %d bytes failed (attempt %d): %s", size_bytes, attempt, error)
