"""The object store on S3: each method is one operation, or a few."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from warp._crc32c import crc32c
from warp.clock import Clock
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject, StartError
from warp.objectstore.base import Abilities, Buffer, ObjectInfo, SummedParts, check_key
from warp.objectstore.s3.client import Client, Operation
from warp.objectstore.s3.credentials import Chain, CredentialKeeper, Source
from warp.objectstore.s3.documents import DeleteFailure, delete_request, parse_delete_result, parse_listing
from warp.objectstore.s3.endpoint import Endpoint, resolve
from warp.objectstore.s3.errors import Answer, BadAnswer, Cut, S3Error
from warp.objectstore.s3.pool import Pool, Server
from warp.objectstore.s3.probe import probe
from warp.objectstore.s3.ranges import RangeRead
from warp.objectstore.s3.retries import pause_s
from warp.objectstore.s3.settings import S3Settings
from warp.objectstore.s3.signing import Signer
from warp.objectstore.traffic import Traffic

LISTING_KEYS_MAX = 1000
LISTING_BYTES_MAX = 8 * 2**20
DELETE_KEYS_MAX = 1000
DELETE_ANSWER_BYTES_MAX = 4 * 2**20
SINGLE_DELETES_AT_A_TIME = 8
PUT_ANSWER_BYTES_MAX = 64 * 1024
"""The answer to a put has no body, but S3-compatible servers may send one."""

_RETRIED_DELETE_CODES = ("InternalError", "SlowDown", "ServiceUnavailable")


class S3Store:
    """Objects in a bucket, under a prefix.

    `random` gives numbers from 0 to 1 for pauses; `token` names what the probe stores; `source` has the credentials,
    botocore's chain if none is given.
    """

    requests_are_free = False

    def __init__(
        self,
        settings: S3Settings,
        *,
        clock: Clock,
        random: Callable[[], float],
        token: str,
        source: Source | None = None,
    ) -> None:
        self.settings = settings
        self.traffic = Traffic()
        self._clock = clock
        self._random = random
        self._token = token
        self._credentials = CredentialKeeper(source or Chain(settings.profile), clock)
        self._pool: Pool | None = None
        self._client_once_open: Client | None = None
        self._deletes_singly = False

    # ---- start and end ----

    async def open(self) -> Abilities:
        """Find the bucket and the credentials, and see what can be done there."""
        endpoint = await self.connect()
        return await probe(self, endpoint, clock=self._clock, token=self._token)

    async def connect(self) -> Endpoint:
        """Get ready to send requests; sends none. Raises StartError."""
        endpoint = await asyncio.to_thread(resolve, self.settings)
        await self._credentials.open()
        tls = await asyncio.to_thread(_tls_context, endpoint) if endpoint.is_tls else None
        self._pool = Pool(
            Server(endpoint.host, endpoint.port, tls),
            connections_max=self.settings.connections,
            connect_timeout_s=self.settings.connect_timeout_s,
            read_timeout_s=self.settings.read_timeout_s,
        )
        self._client_once_open = Client(
            self._pool,
            endpoint,
            Signer(
                endpoint.service,
                endpoint.region,
                sign_payload=self.settings.sign_payload,
                clock=self._clock,
            ),
            self._credentials,
            self.traffic,
            self._clock,
            self._random,
            attempts=self.settings.attempts,
        )
        return endpoint

    async def check(self) -> None:
        """Ask for the bucket itself, once."""
        try:
            await self._client.ask(Operation("head", "HeadBucket", "HEAD"), attempts=1)
        except S3Error as error:
            if error.status == 404:
                raise ObjectStoreError(f"the bucket {self.settings.bucket!r} does not exist") from error
            raise

    async def close(self) -> None:
        await self._credentials.close()
        if self._pool is not None:
            self._pool.close()

    @property
    def _client(self) -> Client:
        assert self._client_once_open is not None, "a store is opened before it is used"
        return self._client_once_open

    # ---- writing ----

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Store the parts as one object; S3 compares their CRC-32C with what arrived."""
        await self._client.ask(self._put_operation(key, parts, _crc32c(parts)))

    async def put_damaged(self, key: str, data: Buffer) -> bool:
        """Send an object with a checksum that is not its own. True if the server stored it all the same."""
        operation = self._put_operation(key, [data], crc32c(data) ^ 1)
        operation.expected = frozenset({400})
        reply = await self._client.ask(operation, attempts=1)
        return reply.answer.is_success

    async def create(self, key: str, data: Buffer) -> bool:
        """Store a small object only if the key is free.

        When an answer was lost, the object itself tells whose it is: whoever creates under one key at the same time as
        others has to write different bytes.
        """
        operation = self._put_operation(key, [data], crc32c(data))
        operation.headers = [*operation.headers, ("if-none-match", "*")]
        operation.expected = frozenset({409, 412})
        may_have_happened = False
        for attempt in range(1, self.settings.attempts + 1):
            try:
                reply = await self._client.ask(operation)
            except (BadAnswer, Cut, S3Error) as error:
                if isinstance(error, S3Error) and error.status < 500:
                    raise
                is_ours = await self._is_ours(key, data)
                if is_ours is None:
                    raise
                return is_ours
            may_have_happened |= reply.may_have_happened
            if reply.answer.is_success:
                return True
            if reply.answer.status == 412 and not may_have_happened:
                return False
            # 409 says that another request for this key is under way: it may still fail.
            is_ours = await self._is_ours(key, data)
            if is_ours is not None:
                return is_ours and may_have_happened
            await asyncio.sleep(pause_s(attempt, self._random))
        raise ObjectStoreError(f"{operation.describe()}: others write the same key again and again")

    async def _is_ours(self, key: str, data: Buffer) -> bool | None:
        """Whether the object under a key has these bytes; None when there is none."""
        try:
            await self.get(key, 0, len(data) + 1)
        except ObjectNotFound:
            return None
        except ShortObject as error:
            return error.data is not None and bytes(error.data) == bytes(data)
        return False

    def _put_operation(self, key: str, parts: Sequence[Buffer], crc: int) -> Operation:
        checksum = base64.b64encode(crc.to_bytes(4, "big")).decode("ascii")
        return Operation(
            "put",
            "PutObject",
            "PUT",
            self._whole_key(key),
            headers=[("x-amz-checksum-crc32c", checksum), ("x-amz-sdk-checksum-algorithm", "CRC32C")],
            parts=parts,
            body_bytes_max=PUT_ANSWER_BYTES_MAX,
        )

    # ---- reading ----

    async def get(self, key: str, start: int, length: int) -> Buffer:
        """Read a range; a request that is cut is continued where it ended."""
        if length == 0:
            return await self._get_nothing(key, start)
        read = RangeRead(self._whole_key(key), start, length)
        try:
            reply = await self._client.ask(read.operation)
        except S3Error as error:
            if error.code == "NoSuchKey":
                raise ObjectNotFound(key) from error
            raise
        return read.finish(reply.answer)

    async def _get_nothing(self, key: str, start: int) -> bytes:
        """No bytes of an object: HTTP has no empty ranges."""
        size_bytes = (await self.head(key)).size_bytes
        if start > size_bytes:
            raise ShortObject(f"{key}: wanted 0 bytes from {start}, it has {size_bytes}", b"")
        return b""

    async def head(self, key: str) -> ObjectInfo:
        """Size and time of one object."""
        operation = Operation("head", "HeadObject", "HEAD", self._whole_key(key))
        try:
            answer = (await self._client.ask(operation)).answer
        except S3Error as error:
            if error.status != 404:
                raise
            # The answer has no body to say whether the object or the whole bucket is missing.
            await self.check()
            raise ObjectNotFound(key) from error
        return ObjectInfo(key, _size_bytes(operation, answer), _modified_ms(operation, answer))

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects page by page. Keys that are none of ours are left out."""
        whole_prefix = self.settings.prefix + prefix
        token = ""
        while True:
            query = (
                f"encoding-type=url&list-type=2&max-keys={LISTING_KEYS_MAX}&prefix={_quoted(whole_prefix)}"
            )
            if token:
                query = f"continuation-token={_quoted(token)}&{query}"
            operation = Operation(
                "list", "ListObjectsV2", "GET", query=query, body_bytes_max=LISTING_BYTES_MAX
            )
            page = parse_listing((await self._client.ask(operation)).answer.body)
            for found in page.objects:
                key = found.key.removeprefix(self.settings.prefix)
                if found.key.startswith(whole_prefix) and _is_key(key):
                    yield ObjectInfo(key, found.size_bytes, found.modified_ms)
            if not page.next_token:
                return
            if page.next_token == token:
                raise BadAnswer("ListObjectsV2: the server sends the same page again and again")
            token = page.next_token

    # ---- deleting ----

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, a thousand at a time; one by one where the server can't do that, or doesn't allow it."""
        whole_keys = [self._whole_key(key) for key in keys]
        for start in range(0, len(whole_keys), DELETE_KEYS_MAX):
            batch = whole_keys[start : start + DELETE_KEYS_MAX]
            if len(batch) == 1 or self._deletes_singly:
                await self._delete_singly(batch)
            elif not await self._delete_together(batch):
                await self._delete_singly(batch)
                self._deletes_singly = True

    async def _delete_together(self, keys: Sequence[str]) -> bool:
        """Delete with one request, repeated for those that failed for the moment. False: the server won't.

        Ceph's gateway 16.2 holds a policy of objects against the bucket here, and refuses what it allows one by one.
        """
        for attempt in range(1, self.settings.attempts + 1):
            body = delete_request(keys)
            digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")
            operation = Operation(
                "delete",
                "DeleteObjects",
                "POST",
                query="delete",
                headers=[("content-md5", digest), ("content-type", "application/xml")],
                parts=[body],
                body_bytes_max=DELETE_ANSWER_BYTES_MAX,
                expected=frozenset({405, 501}),
            )
            try:
                answer = (await self._client.ask(operation)).answer
            except S3Error as error:
                if error.status == 403:
                    return False
                raise
            if not answer.is_success:
                return False
            failures = [each for each in parse_delete_result(answer.body) if each.code != "NoSuchKey"]
            keys = _to_repeat(keys, failures)
            if not keys:
                return True
            await asyncio.sleep(pause_s(attempt, self._random))
        raise ObjectStoreError(
            f"DeleteObjects: {len(keys)} keys failed again and again, {keys[0]} among them"
        )

    async def _delete_singly(self, keys: Sequence[str]) -> None:
        """Delete a few at a time. Each failure stops one of these: a store that is away is not asked for every key."""
        left = iter(keys)

        async def work() -> None:
            for key in left:
                await self._delete_one(key)

        workers = (work() for _ in range(min(len(keys), SINGLE_DELETES_AT_A_TIME)))
        outcomes = await asyncio.gather(*workers, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _delete_one(self, key: str) -> None:
        operation = Operation("delete", "DeleteObject", "DELETE", key, body_bytes_max=PUT_ANSWER_BYTES_MAX)
        try:
            await self._client.ask(operation)
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise

    def _whole_key(self, key: str) -> str:
        check_key(key)
        return self.settings.prefix + key


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=endpoint.ca_bundle or None)
    except OSError as error:
        raise StartError(f"can't read the certificates in {endpoint.ca_bundle!r}: {error}") from error


def _crc32c(parts: Sequence[Buffer]) -> int:
    if isinstance(parts, SummedParts):
        return parts.crc32c
    crc = 0
    for part in parts:
        crc = crc32c(part, crc)
    return crc


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _is_key(key: str) -> bool:
    try:
        check_key(key)
    except ValueError:
        return False
    return True


def _size_bytes(operation: Operation, answer: Answer) -> int:
    text = answer.headers.get("content-length", "")
    if not (text.isascii() and text.isdigit()):
        raise BadAnswer(f"{operation.describe()}: the server does not say how large it is")
    return int(text)


def _modified_ms(operation: Operation, answer: Answer) -> int:
    try:
        return int(parsedate_to_datetime(answer.headers.get("last-modified", "")).timestamp() * 1000)
    except ValueError:
        raise BadAnswer(f"{operation.describe()}: the server does not say when it was stored") from None


def _to_repeat(keys: Sequence[str], failures: Sequence[DeleteFailure]) -> list[str]:
    """The keys to ask for again. Raises ObjectStoreError for those that won't be deleted later either."""
    asked = set(keys)
    for failure in failures:
        if failure.code not in _RETRIED_DELETE_CODES or failure.key not in asked:
            raise ObjectStoreError(
                f"DeleteObjects {failure.key[:200]!r}: {failure.code[:60]!r} {failure.message[:200]!r}"
            )
    return [failure.key for failure in failures]
