"""What an object store answers, or whoever is in its place: heads, bodies and documents of HTTP.

The input is a script: a method, how much is allowed, what kind of document is expected, then the bytes of the answer in
pieces. The client comes to an answer or to an error that its callers know, within what is allowed; a head that it reads
by itself is read as h11 reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, cast

import h11

from tests.fuzz.marks import mark, said
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.targets.users import run
from tests.unit.server.support import MemoryTransport, settle
from warp.errors import ObjectStoreError
from warp.objectstore.s3.connection import ERROR_BODY_BYTES_MAX, Connection, Meter, Request
from warp.objectstore.s3.documents import parse_delete_result, parse_error, parse_listing
from warp.objectstore.s3.errors import Answer, BadAnswer, Cut
from warp.objectstore.s3.heads import parse_usual_head

METHODS: Final = ("GET", "HEAD", "PUT", "POST")
PIECES_MAX: Final = 8


def check(data: bytes) -> None:
    """One exchange, and what the answer holds."""
    script = Script(data)
    choice = script.byte()
    method = METHODS[choice & 3]
    allowed_bytes = script.number(2)
    pieces = [script.take(script.number(2)) for _ in range(choice >> 2 & 7)]
    pieces.append(script.rest())
    _compare_heads(b"".join(pieces), method)
    answer = run(_exchange(Request(method, "/", [("host", "a")], body_bytes_max=allowed_bytes), pieces))
    for body in (b"".join(pieces), b"" if answer is None else bytes(answer.body)):
        for parse in (parse_error, parse_listing, parse_delete_result):
            _parse(parse, body)


def _parse(parse: Any, body: bytes) -> None:
    try:
        found = parse(body)
    except ObjectStoreError as error:
        mark(parse.__name__, said(error))
        return
    mark(parse.__name__, "read")
    if parse is parse_listing:
        assert all(one.size_bytes >= 0 for one in found.objects)


def _compare_heads(data: bytes, method: str) -> None:
    found = parse_usual_head(data, method)
    mark("usual", found is not None)
    if found is None:
        return
    status, headers, length, begin = found
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(data) + 1)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    reader.receive_data(data[:begin])
    event = reader.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == status
    joined: dict[str, str] = {}
    for name, value in event.headers:
        text = value.decode("latin-1")
        known = joined.get(name.decode())
        joined[name.decode()] = text if known is None else f"{known}, {text}"
    assert joined == headers
    assert data[:begin].endswith(b"\r\n\r\n")
    assert length >= 0


async def _exchange(request: Request, pieces: list[bytes]) -> Answer | None:
    lost: list[Connection] = []
    connection, transport = Connection(60.0, lost.append), MemoryTransport()
    transport.protocol = cast("Any", connection)
    connection.connection_made(transport)
    asked = asyncio.get_running_loop().create_task(connection.ask(request, Meter()))
    await settle()
    for piece in pieces:
        while piece and not transport.is_closing():
            buffer = connection.get_buffer(-1)
            part = piece[: len(buffer)]
            assert part
            buffer[: len(part)] = part
            del buffer
            connection.buffer_updated(len(part))
            piece = piece[len(part) :]
        await settle()
    if not transport.is_closing():
        connection.eof_received()
        transport.abort()
    await settle()
    assert lost == [connection]
    assert asked.done()
    try:
        answer = asked.result()
    except (Cut, BadAnswer) as error:
        mark(type(error).__name__, said(error))
        return None
    mark("answer", answer.status, answer.is_success)
    assert len(answer.body) <= (request.body_bytes_max if answer.is_success else ERROR_BODY_BYTES_MAX)
    return answer


LISTING = b"""<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>
<Contents><Key>a%2Fb</Key><LastModified>2026-11-22T10:11:12.000Z</LastModified><Size>5</Size></Contents>
</ListBucketResult>"""
ERROR = b"<Error><Code>SlowDown</Code><Message>later</Message><Region>here</Region><RequestId>1</RequestId></Error>"
DELETED = (
    b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
)


def _head(status: int, *lines: bytes) -> bytes:
    return b"HTTP/1.1 %d OK\r\n" % status + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def seeds() -> Iterable[bytes]:
    """Answers with a length, in chunks, up to the end; interim ones; every document."""
    start = b"\0\xff\xff"
    for status, body in ((200, LISTING), (503, ERROR), (200, DELETED), (206, b"bytes")):
        length = b"Content-Length: %d" % len(body)
        yield start + _head(status, length, b"ETag: x", b"etag: y") + body
        yield (
            start
            + _head(status, b"Transfer-Encoding: chunked")
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        )
        yield start + _head(status, b"Connection: close") + body
        yield start + _head(100) + _head(status, length) + body
        yield bytes([2 << 2]) + b"\0\x04\0\x09\0\x20" + _head(status, length) + body
    yield b"\1\0\0" + _head(200, b"Content-Length: 5")
    yield b"\2\0\0" + _head(204)
    yield b"\0\0\x05" + b"HTTP/1.0 200 OK\r\n\r\nabcde"
    yield start + b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><Error>&b;</Error>'
    yield start + LISTING
    yield start + ERROR
    yield start + DELETED


TARGET = Target(
    check,
    seeds,
    words=(
        b"HTTP/1.1 200 OK\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n",
        b"Connection: close\r\n", b"0\r\n\r\n", b"<Contents>", b"</Contents>", b"<Key>", b"<Size>", b"<LastModified>",
        b"0001-01-01T00:00:00+23:59",
        b"9999-12-31T23:59:59-23:59", b"<ListBucketResult>", b"<Error>", b"<DeleteResult>", b"<!DOCTYPE", b"<?xml",
        b'encoding="utf-16"', b"&#0;", b"&#xD800;", b"\xff\xfe", b"99999999999999999999",
    ),
)  # fmt: skip
