"""What an agent does for the others of its zone: hands out chunks of objects that it looks after.

`GET /internal/v1/chunk?key=KEY&start=FIRST_BYTE&length=BYTES`, signed as `warp.cluster.peer_auth` says. Answers:

* 200: the bytes, fewer where the object ends inside the range, with their CRC-32C and a signature.
* 400: not a range of an object. 403: not signed by an agent of this cluster, or its clock is far off.
* 404: the store has no such object. 416: it ends before the range begins. 502: the store failed.
* 503: too many such requests at a time, or no memory for another chunk.

Whether the asker is the one that should ask is not looked at: agents may know different ones for a moment. An answer is
sent from the cache's own memory, where its chunk stays until the asker has taken it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

from warp._crc32c import crc32c
from warp.clock import Clock
from warp.cluster.peer_auth import Denial, NotAuthentic, PeerAuth
from warp.cluster.zone_cache import CRC_HEADER, SIGNATURE_HEADER
from warp.errors import ObjectNotFound, ObjectStoreError, ShortObject
from warp.http.messages import Request, Response, error_response
from warp.ids import BrokerId
from warp.log.cache import CHUNK_BYTES, ChunkCache, Hold
from warp.objectstore.base import check_key

log = logging.getLogger("warp.http")

REQUESTS_MAX: Final = 64
"""At a time; each keeps a chunk or more in memory, within what the cache allows to be held."""
PART_BYTES_MIN: Final = 32 * 1024
"""Parts that are shorter on average are copied into one: so many writes would cost more."""
WARNING_INTERVAL_S: Final = 60.0
WARNED_MAX: Final = 64
"""Senders that are remembered as warned of; beyond, refusals are counted but not logged."""

REFUSALS: Final = ("bad_request", "unsigned", "signature", "clock", "missing", "short", "failed", "busy")
"""Why a peer did not get what it asked for."""

_NUMBER_CHARACTERS_MAX = 15


class ChunkRoute:
    """Answers the other agents' requests for chunks, out of `cache`."""

    def __init__(
        self,
        cache: ChunkCache,
        auth: PeerAuth,
        clock: Clock,
        *,
        length_max: int = CHUNK_BYTES,
        requests_max: int = REQUESTS_MAX,
    ) -> None:
        self.served = 0
        self.served_bytes = 0
        self.refused = dict.fromkeys(REFUSALS, 0)
        self._cache = cache
        self._auth = auth
        self._clock = clock
        self._length_max = length_max
        self._requests_max = requests_max
        self._requests = 0
        self._warned_at: dict[BrokerId | None, float] = {}

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        try:
            target = f"{request.path}?{request.query}" if request.query else request.path
            header = request.headers.get("authorization", "")
            claim = self._auth.check(request.method, target, header, self._clock.time_ms())
        except NotAuthentic as error:
            self._warn(error)
            return self._refuse(403, error.denial.value)
        try:
            key, start, length = _parse(request.query, self._length_max)
        except ValueError:
            return self._refuse(400, "bad_request")
        if self._requests >= self._requests_max:
            return self._refuse(503, "busy")
        self._requests += 1
        response: Response | None = None
        try:
            response = await self._serve(key, start, length, claim.nonce)
            return response
        finally:
            if response is None or response.done is None:
                self._requests -= 1

    async def _serve(self, key: str, start: int, length: int, nonce: str) -> Response:
        try:
            found = await self._cache.serve(key, start, length)
        except ObjectNotFound:
            return self._refuse(404, "missing")
        except ShortObject:
            return self._refuse(416, "short")
        except ObjectStoreError as error:
            log.info("a chunk could not be read for another agent: %s", error)
            return self._refuse(502, "failed")
        if found is None:
            return self._refuse(503, "busy")
        views, hold = found
        try:
            return self._answer(views, hold, nonce)
        except BaseException:
            self._cache.let_go(hold)
            raise

    def _answer(self, views: Sequence[memoryview], hold: Hold, nonce: str) -> Response:
        size_bytes = sum(map(len, views))
        parts: Sequence[bytes | memoryview] = views
        if size_bytes < PART_BYTES_MIN * len(views):
            parts = [b"".join(views)]
        checksum = 0
        for part in parts:
            checksum = crc32c(part, checksum)
        self.served += 1
        self.served_bytes += size_bytes

        def done() -> None:
            self._requests -= 1
            self._cache.let_go(hold)

        headers = (
            (CRC_HEADER, str(checksum)),
            (SIGNATURE_HEADER, self._auth.sign_answer(nonce, size_bytes, checksum)),
        )
        return Response(200, b"", "application/octet-stream", headers, parts, done)

    def _refuse(self, status: int, reason: str) -> Response:
        self.refused[reason] += 1
        return error_response(status)

    def _warn(self, error: NotAuthentic) -> None:
        """One line a minute for each agent, real or not; what was signed and how is nobody's business."""
        now = self._clock.monotonic()
        # In the order of time, as it was put in.
        while self._warned_at and now - next(iter(self._warned_at.values())) >= WARNING_INTERVAL_S:
            del self._warned_at[next(iter(self._warned_at))]
        if error.sender in self._warned_at or len(self._warned_at) >= WARNED_MAX:
            return
        self._warned_at[error.sender] = now
        sender = "somebody" if error.sender is None else f"agent {error.sender}"
        advice = "set its clock right" if error.denial is Denial.CLOCK else "does it belong to this cluster?"
        log.warning("refused to hand out chunks to %s: %s; %s", sender, error, advice)


def _parse(query: str, length_max: int) -> tuple[str, int, int]:
    """Key, first byte and length. Raises ValueError."""
    fields = dict(parse_qsl(query, strict_parsing=True, max_num_fields=3))
    if sorted(fields) != ["key", "length", "start"]:
        raise ValueError("a range of an object has key, start and length")
    check_key(fields["key"])
    start, length = _number(fields["start"]), _number(fields["length"])
    if not 0 < length <= length_max:
        raise ValueError(f"{length} bytes are not what one asks for")
    return fields["key"], start, length


def _number(text: str) -> int:
    if len(text) > _NUMBER_CHARACTERS_MAX or not (text.isascii() and text.isdigit()):
        raise ValueError("not a number")
    return int(text)
