"""Epochs: how an object store and the metadata that speak of it find out that they no longer belong together.

A database that was put back from a backup does not know what was written since; of two copies of one database each
takes the other's segments for orphans. Either would delete what somebody needs. So before they delete, agents number
the bucket's history: a random token goes into the database first, then into a new object `epoch/<n+1>`. Whoever finds a
newest epoch whose token its database does not know has metadata that are not the ones that the bucket lives by: a
starting agent refuses, a running one deletes nothing any more. docs/adr/0015-epochs.md has the reasons.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from warp.errors import ObjectNotFound, ObjectStoreError, StartError, WarpError
from warp.ids import IdSource
from warp.objectstore.base import ObjectStore

_log = logging.getLogger(__name__)

EPOCH_PREFIX = "epoch/"
EPOCH_BYTES_MAX = 4096
EPOCHS_KEPT = 10
READS_MAX = 3
SETTLE_S = 1.0
"""On a store that can't keep two from creating the same object: for two that take an epoch at once."""
HAS_EPOCHS = "epochs.have_begun"
"""The setting that tells that the object store has epochs."""
_NAME = re.compile(r"epoch/(\d{12})")
_TOKEN = re.compile(r"[0-9a-f]{32}")


class ReadSettings(Protocol):
    """The part of the metadata store that is needed to look. `MetadataStore` says what each does."""

    async def setting(self, name: str) -> str | None: ...


class Settings(ReadSettings, Protocol):
    """The part of the metadata store that is needed to take epochs."""

    async def set_setting(self, name: str, value: str) -> None: ...

    async def forget_settings(self, prefix: str) -> None: ...


class Epoch(NamedTuple):
    """The newest epoch of a bucket. An object without a token, damaged that is, has "", which nobody knows."""

    number: int
    token: str


class EpochRefused(WarpError):
    """The bucket lives by other metadata than these, or by a newer state of them. The text says how that shows."""


def epoch_key(number: int) -> str:
    """The key of an epoch's object."""
    return f"{EPOCH_PREFIX}{number:012d}"


def _setting_prefix(number: int) -> str:
    return f"epoch.{number:012d}."


def _setting_name(epoch: Epoch) -> str:
    return _setting_prefix(epoch.number) + epoch.token


async def begin_epoch(
    objects: ObjectStore, settings: Settings, ids: IdSource, where: str, *, is_conditional: bool = True
) -> int:
    """Make sure, at the start of an agent, that these metadata are those that the bucket lives by; its epoch.

    A bucket without epochs gets its first one, unless the metadata remember that it had some. `where` names the store
    in what is raised: StartError, when the bucket is ahead of the metadata or can't be read or written. MetadataError
    when the settings can't. `is_conditional`: the store has conditional puts.
    """
    taker = EpochTaker(objects, settings, ids, is_conditional=is_conditional)
    try:
        newest = await taker.known_newest()
        return await taker.take(0) if newest is None else newest
    except EpochRefused as refused:
        raise StartError(
            f"the metadata are not the ones that the object store {where} lives by: {refused}. After an older database "
            "was put back, run `warp restore`; a copy of a database needs a bucket or prefix of its own"
        ) from refused
    except ObjectStoreError as error:
        raise StartError(f"can't tell the epoch of the object store {where}: {error}") from error


class EpochCheck:
    """Asked before each pass that deletes objects. Takes a new epoch, so that of two databases one alone goes on.

    `refused` is told why, each time that the reason is another one. `refusals` counts passes that may not delete.
    """

    def __init__(
        self,
        objects: ObjectStore,
        settings: Settings,
        ids: IdSource,
        *,
        is_conditional: bool = True,
        refused: Callable[[str], None] | None = None,
    ) -> None:
        self.refusals = 0
        self._taker = EpochTaker(objects, settings, ids, is_conditional=is_conditional)
        self._refused = refused or _complain
        self._reason = ""

    async def may_delete(self) -> bool:
        """May this pass delete? Raises ObjectStoreError and MetadataError: then it may not either."""
        try:
            newest = await self._taker.known_newest()
            await self._taker.take(0 if newest is None else newest)
        except EpochRefused as refused:
            self.refusals += 1
            if str(refused) != self._reason:
                self._reason = str(refused)
                self._refused(self._reason)
            return False
        self._reason = ""
        return True


def _complain(reason: str) -> None:
    _log.error(
        "nothing is deleted from the object store any more, for these metadata are not the ones that it lives by: %s. "
        "Find out who else uses it, or run `warp restore` if an older database was put back",
        reason,
    )


class EpochTaker:
    """Reads and takes epochs on behalf of one database."""

    def __init__(
        self, objects: ObjectStore, settings: Settings, ids: IdSource, *, is_conditional: bool = True
    ) -> None:
        self._objects = objects
        self._settings = settings
        self._ids = ids
        self._is_conditional = is_conditional

    async def known_newest(self) -> int | None:
        """See `known_newest_epoch`."""
        return await known_newest_epoch(self._objects, self._settings)

    async def take(self, after: int) -> int:
        """Take the epoch after that number. Raises EpochRefused when somebody with other metadata was first."""
        epoch = Epoch(after + 1, self._ids.token())
        # The token first: an epoch that is in the bucket and not in the database would lock out its own maker.
        await self._settings.set_setting(_setting_name(epoch), "1")
        body = json.dumps({"token": epoch.token}).encode()
        if self._is_conditional:
            is_own = await self._objects.create(epoch_key(epoch.number), body)
        else:
            await self._objects.put(epoch_key(epoch.number), [body])
            await asyncio.sleep(SETTLE_S)
            is_own = False
        if not is_own:
            # Another agent of this cluster may have been first, which is as good.
            token = await _read_token(self._objects, epoch_key(epoch.number))
            await _expect_known(self._settings, Epoch(epoch.number, token))
        if await self._settings.setting(HAS_EPOCHS) is None:
            await self._settings.set_setting(HAS_EPOCHS, "1")
        await self._forget_old(epoch.number)
        return epoch.number

    async def _forget_old(self, newest: int) -> None:
        """One epoch comes, one goes: so there are never more to list than a few."""
        number = newest - EPOCHS_KEPT
        if number > 0:
            await self._objects.delete([epoch_key(number)])
            await self._settings.forget_settings(_setting_prefix(number))


async def known_newest_epoch(objects: ObjectStore, settings: ReadSettings) -> int | None:
    """The number of the bucket's newest epoch, None when neither side has any. Changes nothing.

    Raises EpochRefused when the database does not know it, or knows that there were some and there are none.
    """
    newest = await newest_epoch(objects)
    if newest is None:
        if await settings.setting(HAS_EPOCHS) is None:
            return None
        # Another agent may have begun the first one between the two looks. Its object came before the setting, so now
        # there is one.
        newest = await newest_epoch(objects)
    if newest is None:
        raise EpochRefused("it had epochs (objects under epoch/), and now it has none")
    await _expect_known(settings, newest)
    return newest.number


async def _expect_known(settings: ReadSettings, epoch: Epoch) -> None:
    if not epoch.token or await settings.setting(_setting_name(epoch)) is None:
        raise EpochRefused(f"its newest epoch, {epoch.number}, was taken with other ones")


async def newest_epoch(objects: ObjectStore) -> Epoch | None:
    """The bucket's newest epoch, None when it has none. Raises ObjectStoreError."""
    for _ in range(READS_MAX):
        numbers = [
            int(match[1])
            async for found in objects.list(EPOCH_PREFIX)
            if (match := _NAME.fullmatch(found.key)) is not None
        ]
        if not numbers:
            return None
        try:
            return Epoch(max(numbers), await _read_token(objects, epoch_key(max(numbers))))
        except ObjectNotFound:
            # Old ones are removed by whoever takes newer ones; so list again.
            continue
    raise ObjectStoreError("its newest epoch was listed, and then it was not there")


async def _read_token(objects: ObjectStore, key: str) -> str:
    """The token in an epoch's object; "" when it holds none."""
    size_bytes = (await objects.head(key)).size_bytes
    if size_bytes > EPOCH_BYTES_MAX:
        return ""
    try:
        content = json.loads(bytes(await objects.get(key, 0, size_bytes)))
    except ValueError:
        return ""
    token = content.get("token") if isinstance(content, dict) else None
    return token if isinstance(token, str) and _TOKEN.fullmatch(token) else ""
