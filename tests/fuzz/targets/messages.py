"""Messages: every API's requests and responses in every version, and what members say of themselves to groups.

The first two bytes choose message and version; the rest is its body. The native decoder and encoder are held against
the reference: both accept the same bytes, read the same values, and write the same bytes for them.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.fuzz.marks import mark, said
from tests.fuzz.target import Target
from tests.reference import codec as reference
from tests.wire.messages import MESSAGE_VERSIONS
from tests.wire.strategies import sample
from warp.protocol import DecodeError, Message, decode, encode, encode_parts


def check(data: bytes) -> None:
    """Decode, compare, encode, compare."""
    message, version = MESSAGE_VERSIONS[int.from_bytes(data[:2], "big") % len(MESSAGE_VERSIONS)]
    body = data[2:]
    decoded = _decoded(message, version, body)
    try:
        expected = reference.decode(message, version, body)
    except reference.MalformedError:
        assert decoded is None, "accepted what the reference refuses"
        return
    assert decoded is not None, "refused what the reference accepts"
    _compare_encodings(decoded, expected, version)


def _decoded(message: type[Message], version: int, body: bytes) -> Message | None:
    try:
        decoded = decode(message, version, body)
    except DecodeError as error:
        mark(message.__name__, version, said(error))
        return None
    mark(message.__name__, version, "accepted")
    return decoded


def _compare_encodings(decoded: Message, expected: Message, version: int) -> None:
    """Bytes and not values, because a float that is no number does not equal itself."""
    encoded = encode(decoded, version)
    assert encoded == reference.encode(expected, version)
    again = decode(type(decoded), version, memoryview(encoded))
    assert encode(again, version) == encoded
    frame = b"".join(encode_parts(decoded, version, b"prefix"))
    assert frame == (len(encoded) + 6).to_bytes(4, "big") + b"prefix" + encoded


def seeds() -> Iterable[bytes]:
    """One sample of each, and an empty one."""
    for number, (message, version) in enumerate(MESSAGE_VERSIONS):
        yield number.to_bytes(2, "big") + encode(sample(message, version), version)


TARGET = Target(
    check,
    seeds,
    words=(
        b"\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x80\x00\x00\x00",
        b"\xff\xff\xff\xff\x0f",
        b"\x80\x80\x80\x80\x80\x80",
        b"\x00\x00\x00\x01",
        b"\x00\x01a",
        b"\x02a",
        b"\x01",
        b"\xc3\x28",
        b"\x80\x80\x02",
    ),
)
