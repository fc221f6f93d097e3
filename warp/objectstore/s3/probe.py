"""What a bucket can do, seen at start by doing it under `probe/<token>/`, which is removed again.

Four round trips: a put, so that what is wrong with the way to the bucket is seen first and once; then everything else
side by side (conditional puts are two in a row; the bucket itself is asked for, as readiness will); then the removal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

from warp.clock import Clock
from warp.errors import ObjectStoreError, StartError
from warp.objectstore.base import Abilities, Buffer, ObjectStore
from warp.objectstore.s3.endpoint import Endpoint
from warp.objectstore.s3.errors import S3Error
from warp.objectstore.s3.settings import S3Settings
from warp.objectstore.s3.start import start_error

_DATA = bytes(range(256)) * 4
_RANGE_START, _RANGE_LENGTH = 100, 500
_NOT_IMPLEMENTED = (400, 405, 501)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Probed(ObjectStore, Protocol):
    """What is probed."""

    settings: S3Settings

    async def put_damaged(self, key: str, data: Buffer) -> bool:
        """Send an object with a checksum that is not its own. True if the server stored it all the same."""


async def probe(store: Probed, endpoint: Endpoint, *, clock: Clock, token: str) -> Abilities:
    """Do once what an agent will do. Raises StartError, which says what is wrong and what to do."""
    return await _Probe(store, endpoint, clock, f"probe/{token}/").run()


class _Probe:
    def __init__(self, store: Probed, endpoint: Endpoint, clock: Clock, prefix: str) -> None:
        self._store = store
        self._endpoint = endpoint
        self._clock = clock
        self._prefix = prefix
        self._whole, self._conditional, self._damaged = (
            prefix + name for name in ("whole", "conditional", "damaged")
        )

    async def run(self) -> Abilities:
        keys = [self._whole, self._conditional, self._damaged]
        await self._step("s3:PutObject", self._store.put(self._whole, [_DATA]))
        try:
            abilities = await self._try_all()
        except BaseException:
            await self._tidy(keys)
            raise
        await self._step("s3:DeleteObject", self._store.delete(keys))
        if not abilities.conditional_create:
            _log.warning(
                "%s: this server has no conditional puts (If-None-Match: *), so nothing keeps two agents or clusters"
                " from writing the same object; give each cluster a bucket or prefix of its own",
                self._store.settings.describe(),
            )
        if not abilities.checks_content and not self._store.settings.sign_payload:
            _log.info(
                "%s: this server does not compare CRC-32C checksums; with sign_payload=true it notices damaged bodies",
                self._store.settings.describe(),
            )
        return abilities

    async def _try_all(self) -> Abilities:
        outcomes = await asyncio.gather(
            self._step("s3:PutObject", self._has_conditional_create()),
            self._step("s3:PutObject", self._store.put_damaged(self._damaged, _DATA)),
            self._step("s3:GetObject", self._read()),
            self._step("s3:ListBucket", self._list()),
            self._check(),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        is_conditional, stores_damaged = outcomes[0], outcomes[1]
        return Abilities(conditional_create=is_conditional is True, checks_content=stores_damaged is False)

    async def _has_conditional_create(self) -> bool:
        """A second create of the same key loses."""
        try:
            if not await self._store.create(self._conditional, b"first"):
                return False
            return not await self._store.create(self._conditional, b"second")
        except S3Error as error:
            if error.status in _NOT_IMPLEMENTED and not error.may_be_credentials:
                return False
            raise

    async def _read(self) -> None:
        found = await self._store.get(self._whole, _RANGE_START, _RANGE_LENGTH)
        if bytes(found) != _DATA[_RANGE_START : _RANGE_START + _RANGE_LENGTH]:
            raise StartError(
                f"{self._endpoint.origin} gives back other bytes than it was given: it can't be used"
            )

    async def _list(self) -> None:
        found = [each.key async for each in self._store.list(self._prefix)]
        if self._whole not in found:
            raise StartError(
                f"{self._endpoint.origin} does not list an object that was stored before: it can't be used"
            )

    async def _check(self) -> None:
        """What readiness will ask for. Other failures than a refusal pass, or are those of every other request."""
        try:
            await self._store.check()
        except ObjectStoreError as error:
            if isinstance(error, S3Error) and error.status == 403:
                settings = self._store.settings
                raise StartError(
                    f"object store {settings.describe()}: {error}: allow s3:ListBucket on"
                    f" arn:aws:s3:::{settings.bucket} also for HeadBucket; a condition on s3:prefix has to be"
                    " StringLikeIfExists"
                ) from error
            _log.debug("the bucket could not be asked for at start: %s", error)

    async def _step(self, action: str, work: Awaitable[_T]) -> _T:
        try:
            return await work
        except ObjectStoreError as error:
            raise start_error(error, action, self._store.settings, self._endpoint, self._clock) from error

    async def _tidy(self, keys: Sequence[str]) -> None:
        """Remove what was stored before the probe failed. That this may fail too is no news."""
        try:
            await self._store.delete(keys)
        except ObjectStoreError as error:
            _log.debug("what the probe stored under %s stays: %s", self._prefix, error)
