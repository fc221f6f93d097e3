"""Credentials from botocore's chain (environment, files, web identity, instance metadata, roles), at hand at once.

Finding and renewing them may block for seconds (a metadata service, STS), so both happen in a thread, well before the
old ones run out: botocore renews within 15 minutes of the end, and it is asked every POLL_S. A request takes what is at
hand. When S3 says that they have run out, or refuses, the chain is asked anew, because files may have changed: once for
all requests that were refused meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from botocore.credentials import Credentials as BotocoreCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from warp.clock import Clock
from warp.errors import ObjectStoreError, StartError

POLL_S = 30.0
RENEW_S_MIN = 30.0
"""Between two times that the chain is asked anew because a request was refused for another reason than their age."""
STALE_RENEW_S_MIN = 0.1
"""The same when they are too old: looking takes processor time, and there may be hundreds of requests a second."""
RENEW_WAIT_S_MAX = 10.0
"""How long a request waits for the chain, which may hang, before it fails as it was refused."""

NONE_FOUND = (
    "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile= in the object"
    " store's URL, or run where an instance role or web identity gives them"
)

_FAILURES = (BotoCoreError, ClientError, OSError, ValueError)
"""botocore's own errors (two families: what STS refuses is a ClientError), and what a credential process that can't be
run, or its output, comes out as."""

_log = logging.getLogger(__name__)
# At DEBUG botocore logs what STS and metadata services answer: secrets.
logging.getLogger("botocore").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs requests. Shows nothing of itself but the public part of its name."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class Source(Protocol):
    """Where credentials come from. Its methods may block; they run in a thread, one at a time."""

    def load(self) -> Credentials:
        """The credentials as they are now, renewed if that is due. Raises StartError, ObjectStoreError."""

    def reload(self) -> Credentials:
        """Look for credentials anew, from the beginning."""

    @property
    def runs_out(self) -> bool:
        """They have an end, and are renewed before it; known after `load`."""


class Chain:
    """botocore's chain of credential providers. Starts anew with each `reload`, and so reads changed files."""

    def __init__(self, profile: str) -> None:
        self._profile = profile or None
        self._found: BotocoreCredentials | None = None

    def load(self) -> Credentials:
        return self._frozen() if self._found else self.reload()

    def reload(self) -> Credentials:
        try:
            found = Session(profile=self._profile).get_credentials()
        except _FAILURES as error:
            raise StartError(f"credentials for S3: {error}") from error
        if found is None:
            raise StartError(NONE_FOUND)
        self._found = found
        return self._frozen()

    @property
    def runs_out(self) -> bool:
        return type(self._found) is not BotocoreCredentials

    def _frozen(self) -> Credentials:
        assert self._found is not None
        try:
            frozen = self._found.get_frozen_credentials()
        except _FAILURES as error:
            raise ObjectStoreError(f"credentials for S3 can't be renewed: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)


class CredentialKeeper:
    """Has credentials at hand, and keeps them from running out."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._current: Credentials | None = None
        self._lock = asyncio.Lock()
        self._renewed_at = float("-inf")
        self._renewal: asyncio.Task[None] | None = None
        self._poller: asyncio.Task[None] | None = None

    @property
    def current(self) -> Credentials:
        """What requests are signed with now."""
        assert self._current is not None, "credentials are there once the store is open"
        return self._current

    async def open(self) -> None:
        """Find credentials. Raises StartError when there are none."""
        try:
            self._current = await asyncio.to_thread(self._source.load)
        except ObjectStoreError as error:
            raise StartError(str(error)) from error
        if self._source.runs_out and self._poller is None:
            self._poller = asyncio.create_task(self._poll())

    async def renew(self, refused: Credentials, *, are_stale: bool) -> bool:
        """Look for other credentials than those that were refused; True if there are any now.

        The chain is asked no more often than every RENEW_S_MIN, or STALE_RENEW_S_MIN when S3 has said that they are
        stale. Whoever asks while it is being asked waits for the same answer; if he is cancelled, the others wait on.
        """
        if self._current == refused and self._renewal is None:
            now = self._clock.monotonic()
            if now < self._renewed_at + (STALE_RENEW_S_MIN if are_stale else RENEW_S_MIN):
                return False
            self._renewal = asyncio.create_task(self._renew())
        if self._current == refused and self._renewal is not None:
            await asyncio.wait([self._renewal], timeout=RENEW_WAIT_S_MAX)
        return self._current != refused

    async def close(self) -> None:
        """Stop renewing."""
        tasks = [task for task in (self._poller, self._renewal) if task is not None]
        self._poller = None
        for task in tasks:
            task.cancel()
        for task in tasks:
            await asyncio.wait([task])

    async def _renew(self) -> None:
        try:
            await self._ask(self._source.reload)
        finally:
            self._renewed_at = self._clock.monotonic()
            self._renewal = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._ask(self._source.load)

    async def _ask(self, look: Callable[[], Credentials]) -> None:
        """Take what the source has; what there was stays when it fails, in whatever way."""
        async with self._lock:
            try:
                self._current = await asyncio.to_thread(look)
            except (ObjectStoreError, StartError) as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - a bug, of ours or of botocore: told of, and tried again
                _log.exception("looking for credentials failed unexpectedly")
