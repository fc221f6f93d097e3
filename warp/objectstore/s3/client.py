"""One operation on a bucket: signed, sent, tried again as long as that helps, and counted.

Every operation may be repeated: puts write the same bytes under the same key, and whoever needs to know whether an
earlier attempt took effect (`create`) is told that one may have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from warp.clock import Clock
from warp.errors import ObjectStoreError, StoreFull
from warp.objectstore.base import Buffer
from warp.objectstore.s3.connection import Meter, Request
from warp.objectstore.s3.credentials import CredentialKeeper, Credentials
from warp.objectstore.s3.endpoint import Endpoint
from warp.objectstore.s3.errors import SLOW_DOWN_STATUSES, Answer, BadAnswer, CannotConnect, Cut, S3Error
from warp.objectstore.s3.pool import Pool
from warp.objectstore.s3.retries import RetryBudget, Throttle, pause_s
from warp.objectstore.s3.signing import Signer
from warp.objectstore.traffic import RequestKind, RequestStatus, Traffic


@dataclass(slots=True)
class Operation:
    """What is asked for. A range that is read may change it between two attempts."""

    kind: RequestKind
    name: str
    """As in S3's API reference and in policies: `PutObject`."""
    method: str
    key: str = ""
    """The whole key, with the store's prefix; empty for operations on the bucket."""
    query: str = ""
    """Encoded as it is sent."""
    headers: Sequence[tuple[str, str]] = ()
    parts: Sequence[Buffer] = ()
    body_bytes_max: int = 0
    expected: frozenset[int] = frozenset()
    """Statuses that are handed over like successes."""
    on_cut: Callable[[Answer], None] | None = None
    """Is given what came of an answer that was cut, before the next attempt."""

    def describe(self) -> str:
        """For messages."""
        return f"{self.name} {self.key}" if self.key else self.name


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer, and whether an attempt before it may have taken effect unseen."""

    answer: Answer
    may_have_happened: bool


class Client:
    """Sends operations to one bucket."""

    def __init__(
        self,
        pool: Pool,
        endpoint: Endpoint,
        signer: Signer,
        credentials: CredentialKeeper,
        traffic: Traffic,
        clock: Clock,
        random: Callable[[], float],
        *,
        attempts: int,
    ) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._signer = signer
        self._credentials = credentials
        self._traffic = traffic
        self._clock = clock
        self._random = random
        self._attempts = attempts
        self._budget = RetryBudget()
        self._throttle = Throttle()
        self._turn = asyncio.Lock()

    async def ask(self, operation: Operation, *, attempts: int = 0) -> Reply:
        """Carry out an operation, in at most `attempts` attempts (0: what the store is set to).

        Two are not counted among them: the repetition after a connection turned out to have been closed while it was
        idle, and that with renewed credentials.

        Raises S3Error, CannotConnect, Cut, BadAnswer, StoreFull.
        """
        attempts = attempts or self._attempts
        progress = _Progress()
        while True:
            await self._wait_for_turn()
            credentials = self._credentials.current
            try:
                answer = await self._attempt(operation, credentials, progress)
            except (Cut, CannotConnect) as error:
                failure: Cut | CannotConnect | S3Error = error
                if self._keep(operation, error, progress):
                    continue
            else:
                if answer.is_success or answer.status in operation.expected:
                    self._budget.succeeded(progress.taken_tokens)
                    return Reply(answer, progress.may_have_happened)
                failure = S3Error(operation.describe(), answer)
                # A 503 without S3's own word may come from a proxy that had passed the request on.
                progress.may_have_happened |= failure.status >= 500 and failure.code != "SlowDown"
                if await self._has_renewed(failure, credentials, progress):
                    continue
            progress.retries += 1
            if progress.retries >= attempts or not self._may_retry(failure, progress):
                raise _final(operation, failure)
            await asyncio.sleep(pause_s(progress.retries, self._random))

    def _keep(self, operation: Operation, error: Cut | CannotConnect, progress: _Progress) -> bool:
        """Note what a failed attempt leaves behind; True if the next is due at once."""
        if isinstance(error, CannotConnect):
            return False
        progress.may_have_happened = True
        if error.partial is not None and operation.on_cut is not None:
            operation.on_cut(error.partial)
        was_stale = progress.meter.is_reused and not progress.meter.is_answered and not error.is_timeout
        is_first = not progress.needs_new_connection
        progress.needs_new_connection = True
        return was_stale and is_first

    async def _has_renewed(self, failure: S3Error, used: Credentials, progress: _Progress) -> bool:
        """There are other credentials than those that were refused, for the first time in this operation."""
        if progress.has_renewed or not failure.may_be_credentials:
            return False
        progress.has_renewed = True
        return await self._credentials.renew(used, are_stale=failure.are_credentials_stale)

    def _may_retry(self, failure: Cut | CannotConnect | S3Error, progress: _Progress) -> bool:
        if isinstance(failure, S3Error) and not failure.is_transient:
            return False
        if isinstance(failure, CannotConnect) and failure.reason == CannotConnect.CERTIFICATE:
            return False
        if isinstance(failure, S3Error) and failure.status in SLOW_DOWN_STATUSES:
            progress.taken_tokens = 0
            return True  # the throttle bounds these, whether they are first or further attempts
        is_timeout = isinstance(failure, Cut) and failure.is_timeout
        progress.taken_tokens = self._budget.take(after_timeout=is_timeout)
        return progress.taken_tokens > 0

    async def _wait_for_turn(self) -> None:
        """Wait until the throttle lets a request out, in order of asking."""
        if self._turn.locked() or self._throttle.wait_s(self._clock.monotonic()):
            async with self._turn:
                wait_s = self._throttle.wait_s(self._clock.monotonic())
                while wait_s:
                    await asyncio.sleep(wait_s)
                    wait_s = self._throttle.wait_s(self._clock.monotonic())
                self._throttle.send(self._clock.monotonic())
        else:
            self._throttle.send(self._clock.monotonic())

    async def _attempt(self, operation: Operation, credentials: Credentials, progress: _Progress) -> Answer:
        request = self._request(operation, credentials)
        meter = progress.meter = Meter()
        status: RequestStatus = "cut"
        has_object = operation.kind == "get"
        try:
            answer = await self._pool.ask(request, meter, on_new=progress.needs_new_connection)
            status = _status(answer)
            has_object = has_object and answer.is_success
            if answer.status in SLOW_DOWN_STATUSES:
                self._throttle.refuse(self._clock.monotonic())
            elif answer.status < 500:
                self._throttle.take(self._clock.monotonic())
            return answer
        except BadAnswer as error:
            status = "error"
            raise BadAnswer(f"{operation.describe()}: {error}") from error
        finally:
            # What never left, for want of a connection or because it was given up before, is on nobody's bill.
            if meter.is_begun:
                self._traffic.count(
                    operation.kind,
                    status,
                    sent_bytes=meter.sent_bytes,
                    received_bytes=meter.received_bytes if has_object else 0,
                )

    def _request(self, operation: Operation, credentials: Credentials) -> Request:
        target = self._endpoint.target(operation.key)
        if operation.query:
            target += f"?{operation.query}"
        headers = self._signer.sign(
            credentials,
            operation.method,
            self._endpoint.origin + target,
            [("host", self._endpoint.authority), *operation.headers],
            operation.parts,
        )
        headers.append(("user-agent", "warp"))
        if operation.method in ("PUT", "POST"):
            headers.append(("content-length", str(sum(memoryview(part).nbytes for part in operation.parts))))
        return Request(operation.method, target, headers, operation.parts, operation.body_bytes_max)


@dataclass(slots=True)
class _Progress:
    """Of one operation over its attempts."""

    retries: int = 0
    taken_tokens: int = 0
    may_have_happened: bool = False
    needs_new_connection: bool = False
    has_renewed: bool = False
    meter: Meter = field(default_factory=Meter)


def _final(operation: Operation, failure: Cut | CannotConnect | S3Error) -> ObjectStoreError:
    if isinstance(failure, S3Error):
        return StoreFull(str(failure)) if failure.is_full else failure
    if isinstance(failure, Cut):
        return Cut(f"{operation.describe()}: {failure}", failure.partial, is_timeout=failure.is_timeout)
    return failure


def _status(answer: Answer) -> RequestStatus:
    if answer.is_success or answer.status == 416:
        return "ok"
    if answer.status == 404:
        return "not_found"
    if answer.status in (409, 412):
        return "conflict"
    return "slow_down" if answer.status in SLOW_DOWN_STATUSES else "error"
