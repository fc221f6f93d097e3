"""A range of an object, read over as many answers as it takes: what came of a cut one is not asked for again."""

from __future__ import annotations

import re

from warp.errors import ObjectStoreError, ShortObject
from warp.objectstore.base import Buffer
from warp.objectstore.s3.client import Operation
from warp.objectstore.s3.errors import Answer, BadAnswer

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class RangeRead:
    """Reads `length` (at least 1) bytes from `start`. `operation` asks for what is still missing."""

    def __init__(self, key: str, start: int, length: int) -> None:
        self._start = start
        self._end = start + length
        self._pieces: list[Buffer] = []
        self._position = start
        self._etag = ""
        self.operation = Operation("get", "GetObject", "GET", key, on_cut=self._keep)
        self._aim()

    def finish(self, answer: Answer) -> Buffer:
        """The range, given the last answer.

        Raises ShortObject with what is there, ObjectStoreError when the object was replaced meanwhile, and BadAnswer.
        """
        if answer.status == 412:
            raise self._replaced()
        body: Buffer = b""
        size: int | None = None
        if answer.status == 206:
            size = self._check_content_range(answer)
            if self._etag and answer.headers.get("etag") != self._etag:
                raise self._replaced()
            body = answer.body
            if len(body) < self._end - self._position and self._position + len(body) != size:
                raise self._bad(f"{len(body)} bytes from {self._position}, and not for want of more")
        elif answer.status == 200:
            # A server that knows no ranges sends the whole object; no more of it was let in than was asked for.
            if self._position:
                raise self._bad("the whole object instead of a range")
            body = answer.body
            size = len(body)
        elif answer.status != 416:
            raise self._bad(f"status {answer.status}")
        data = body if not self._pieces else b"".join([*self._pieces, body])
        if len(data) < self._end - self._start:
            has = "it is shorter" if size is None else f"it has {size}"
            wanted = f"wanted {self._end - self._start} bytes from {self._start}, {has}"
            raise ShortObject(f"{self.operation.key}: {wanted}", data)
        return data

    def _aim(self) -> None:
        headers = [("range", f"bytes={self._position}-{self._end - 1}")]
        expected = {416}
        if self._etag:
            headers.append(("if-match", self._etag))
            expected.add(412)
        self.operation.headers = headers
        self.operation.expected = frozenset(expected)
        self.operation.body_bytes_max = self._end - self._position

    def _keep(self, partial: Answer) -> None:
        """Keep what came of an answer, if the rest can be asked for by the object's tag; else begin again."""
        etag = partial.headers.get("etag", "")
        if partial.status != 206 or not len(partial.body) or not etag.startswith('"'):
            return
        self._check_content_range(partial, is_whole=False)
        if self._etag not in ("", etag):
            raise self._replaced()
        # A byte is left to ask for: an empty range can't be. Copied, so as not to keep room for what did not come.
        piece = bytes(memoryview(partial.body)[: self._end - self._position - 1])
        self._pieces.append(piece)
        self._position += len(piece)
        self._etag = etag
        self._aim()

    def _check_content_range(self, answer: Answer, *, is_whole: bool = True) -> int | None:
        """The size of the object, where it is told. Raises BadAnswer unless the bytes are those asked for."""
        text = answer.headers.get("content-range", "")
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None:
            raise self._bad(f"a Content-Range of {text[:60]!r}")
        first, last = int(match[1]), int(match[2])
        promised = last - first + 1
        is_it = first == self._position and last < self._end and len(answer.body) <= promised
        if not is_it or (is_whole and len(answer.body) != promised):
            raise self._bad(f"{text!r} and {len(answer.body)} bytes for {self._position}-{self._end - 1}")
        return None if match[3] == "*" else int(match[3])

    def _replaced(self) -> ObjectStoreError:
        return ObjectStoreError(f"{self.operation.key}: replaced while it was read")

    def _bad(self, what: str) -> BadAnswer:
        return BadAnswer(f"GetObject {self.operation.key}: the server answered with {what}")
