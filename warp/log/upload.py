"""Puts segments into the object store: fresh keys, a bound on the time and number of attempts, hedges of slow ones.

A PUT whose answer is an error, or that was given up, may have stored the object, and may still do so; so no key is used
twice, neither by an attempt nor by a hedge. Copies that nobody commits are orphans, which the sweep removes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warp.errors import ObjectStoreError, StoreFull
from warp.ids import IdSource
from warp.log.race import HedgedRequests, HedgeNote
from warp.objectstore.base import Buffer, ObjectStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """How hard a segment is tried to be stored."""

    attempts_max: int = 3
    put_timeout_s: float = 20.0
    retry_delay_s: float = 0.1
    """Before the second attempt; doubled for each further one."""


class UploadNote(HedgeNote):
    """How an upload went, for the trace. What is said of hedging belongs to the last attempt."""

    __slots__ = ("attempts",)

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0


class Uploader:
    """Stores images under keys of its own making.

    `hedges` is None where a second request gains nothing. `may_spend` says whether there is a request to spare for a
    hedge, and takes it.
    """

    def __init__(
        self,
        store: ObjectStore,
        ids: IdSource,
        limits: UploadLimits,
        *,
        hedges: HedgedRequests | None = None,
        may_spend: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._ids = ids
        self._limits = limits
        self._may_spend = may_spend
        self._is_full = False
        self.hedges = hedges
        self.failed_puts = 0
        """PUTs that failed, also those that a later one made good."""

    async def upload(
        self, image: Sequence[Buffer], is_wanted: Callable[[], bool], note: UploadNote | None = None
    ) -> str:
        """Store an image, given in pieces; returns its key.

        Raises ObjectStoreError (StoreFull among it) after the last attempt, and when nobody wants it any more.
        """
        note = note or UploadNote()
        delay_s = self._limits.retry_delay_s
        while True:
            note.attempts += 1
            try:
                return await self._attempt(image, is_wanted, note)
            except ObjectStoreError as error:
                is_last = note.attempts == self._limits.attempts_max or isinstance(error, StoreFull)
                if is_last or not is_wanted():
                    raise
            await asyncio.sleep(delay_s)
            delay_s *= 2

    async def close(self) -> None:
        """Wait until the PUTs that were given up are gone."""
        if self.hedges is not None:
            await self.hedges.close()

    async def _attempt(self, image: Sequence[Buffer], is_wanted: Callable[[], bool], note: UploadNote) -> str:
        """One PUT, or two when the first is slow; the key of the one that came first."""

        async def put() -> str:
            return await self._put_anew(image, note.attempts)

        if self.hedges is None:
            return await put()
        size_bytes = sum(map(len, image))
        return await self.hedges.send(
            size_bytes, put, note, may_hedge=lambda: is_wanted() and self._may_spend()
        )

    async def _put_anew(self, image: Sequence[Buffer], attempt: int) -> str:
        """Store an image under a key that was never used; returns the key."""
        key = self._ids.segment_key()
        try:
            await self._put(key, image)
        except ObjectStoreError as error:
            self.failed_puts += 1
            self._tell(error, sum(map(len, image)), attempt)
            raise
        return key

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
