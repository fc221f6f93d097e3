"""What follows the body of a request: an error of the codec by default, left alone where a client relies on it."""

from __future__ import annotations

import pytest

from warp._codec import DecodeError
from warp._decode import decode
from warp.protocol.messages.metadata import MetadataRequest

LIBRDKAFKA_METADATA_V13 = bytes.fromhex("00000000010000")
"""The body that librdkafka 2.16 sends for all topics: its empty array is four bytes long, so three are left over."""


def test_bytes_after_the_body_are_refused_unless_they_are_allowed() -> None:
    with pytest.raises(DecodeError, match="3 bytes after the end"):
        decode(MetadataRequest, 13, LIBRDKAFKA_METADATA_V13)
    request = decode(MetadataRequest, 13, LIBRDKAFKA_METADATA_V13, allow_trailing=True)
    assert request.topics is None


def test_a_short_body_is_refused_also_where_a_long_one_is_allowed() -> None:
    with pytest.raises(DecodeError):
        decode(MetadataRequest, 13, LIBRDKAFKA_METADATA_V13[:3], allow_trailing=True)
