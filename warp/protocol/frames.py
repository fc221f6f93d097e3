"""Frames: the headers around messages, and the size in front.

Request headers are v1, or v2 (with tagged fields) for flexible versions; the client id keeps its int16 length in
both. Response headers are v0, or v1 (with tagged fields) for flexible versions, except that ApiVersions is always
answered with v0, because a client has to read that answer before it knows what the broker can do (KIP-511).
"""

from __future__ import annotations

import struct

from warp._decode import RequestHeader, read_request_header
from warp._encode import encode_parts
from warp.protocol.apis import APIS
from warp.protocol.schema import Buffer, Request, Response
from warp.protocol.types import ApiKey

_NO_TAGS = b"\0"
_CORRELATION_ID = struct.Struct(">i")
_REQUEST_HEADER = struct.Struct(">hhi")
_CLIENT_ID_LENGTH = struct.Struct(">h")

_FLEXIBLE_FROM = tuple(APIS[ApiKey(key)].flexible if key in APIS else None for key in range(max(APIS) + 1))
_API_VERSIONS_MAX = APIS[ApiKey.API_VERSIONS].versions[1]


def parse_request_header(frame: Buffer) -> RequestHeader:
    """Read the header of a request frame (without its size field); `body_offset` tells where the body begins.

    Of an API that the tables don't know, and of an ApiVersions newer than they know, the header is read as v1, up to
    the client id: that is enough to answer or to close. Raises DecodeError.
    """
    return read_request_header(frame, _FLEXIBLE_FROM, _API_VERSIONS_MAX)


def encode_response_frame(correlation_id: int, response: Response, version: int) -> list[Buffer]:
    """A whole response frame, size included, as parts that are sent one after the other.

    Large record data is passed on by reference. Raises EncodeError.
    """
    prefix = _CORRELATION_ID.pack(correlation_id)
    if response.is_flexible(version) and response.api is not ApiKey.API_VERSIONS:
        prefix += _NO_TAGS
    return encode_parts(response, version, prefix)


def encode_request_frame(
    correlation_id: int, client_id: str | None, request: Request, version: int
) -> list[Buffer]:
    """A whole request frame, size included, as parts that are sent one after the other. Raises EncodeError."""
    name = b"" if client_id is None else client_id.encode()
    prefix = (
        _REQUEST_HEADER.pack(request.api, version, correlation_id)
        + _CLIENT_ID_LENGTH.pack(-1 if client_id is None else len(name))
        + name
    )
    if request.is_flexible(version):
        prefix += _NO_TAGS
    return encode_parts(request, version, prefix)


def response_body_offset(api: ApiKey, version: int) -> int:
    """How long the header of a response frame (without its size field) is when it carries no tagged fields."""
    return 5 if APIS[api].response.is_flexible(version) and api is not ApiKey.API_VERSIONS else 4
