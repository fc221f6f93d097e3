"""The Kafka protocol as data: tables of messages (`messages/`), the notation that they are written in (`schema`), the
list of APIs (`apis`), and what reads and writes headers and frames (`frames`).
"""

from warp._codec import DecodeError, EncodeError
from warp._decode import RequestHeader, decode
from warp._encode import encode, encode_parts
from warp._frames import FrameSplitter, SharedReceiveBuffer
from warp.protocol.apis import APIS, Api
from warp.protocol.frames import (
    encode_request_frame,
    encode_response_frame,
    parse_request_header,
    response_body_offset,
)
from warp.protocol.schema import Buffer, Message, Request, Response, Struct
from warp.protocol.types import ApiKey

__all__ = [
    "APIS",
    "Api",
    "ApiKey",
    "Buffer",
    "DecodeError",
    "EncodeError",
    "FrameSplitter",
    "Message",
    "Request",
    "RequestHeader",
    "Response",
    "SharedReceiveBuffer",
    "Struct",
    "decode",
    "encode",
    "encode_parts",
    "encode_request_frame",
    "encode_response_frame",
    "parse_request_header",
    "response_body_offset",
]
