"""Bytes from somebody who means no good: every message cut short, with bits flipped, and with impossible lengths.

Whatever comes, decoding ends in a message or in DecodeError, soon, and with memory in proportion to the bytes.
"""

from __future__ import annotations

import sys

import pytest

from tests.reference import codec as reference
from tests.wire.messages import MESSAGE_VERSIONS
from tests.wire.strategies import sample
from warp._decode import DECODE_ELEMENTS_MAX
from warp.protocol import DecodeError, Message, decode, encode
from warp.protocol.messages.fetch import FetchRequest
from warp.protocol.messages.groups import DescribeGroupsRequest, FindCoordinatorRequest
from warp.protocol.messages.metadata import MetadataRequest

GIANT_LENGTHS = (
    b"\x7f\xff\xff\xff",  # int32, the largest
    b"\x80\x00\x00\x00",  # int32, the smallest
    b"\x7f\xff",  # int16, the largest
    b"\xff\xff\xff\xff\x0f",  # unsigned varint, the largest
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a varint of more than 32 bits
    b"\x80\x80\x80\x80\x80\x80",  # a varint that does not end
)


def outcome(message: type[Message], version: int, data: bytes) -> Message | None:
    """What decoding gives; None when the bytes are refused. Anything else than that is raised."""
    try:
        return decode(message, version, data)
    except DecodeError:
        return None


def reference_outcome(message: type[Message], version: int, data: bytes) -> Message | None:
    try:
        return reference.decode(message, version, data)
    except reference.MalformedError:
        return None


@pytest.mark.parametrize(("message", "version"), MESSAGE_VERSIONS)
def test_every_truncation_is_refused(message: type[Message], version: int) -> None:
    encoded = encode(sample(message, version), version)
    for size in range(len(encoded)):
        with pytest.raises(DecodeError):
            decode(message, version, encoded[:size])
    with pytest.raises(DecodeError, match="1 bytes after the end"):
        decode(message, version, encoded + b"\0")


@pytest.mark.parametrize(("message", "version"), MESSAGE_VERSIONS)
def test_flipped_bits_are_refused_or_read_as_the_reference_reads_them(
    message: type[Message], version: int
) -> None:
    encoded = encode(sample(message, version), version)
    for bit in range(len(encoded) * 8):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        decoded = outcome(message, version, bytes(flipped))
        if bit % 101 == 0:  # the reference is slow
            assert decoded == reference_outcome(message, version, bytes(flipped)), bit
        if decoded is not None:
            again = encode(decoded, version)
            assert outcome(message, version, again) == decoded, bit


@pytest.mark.parametrize(("message", "version"), MESSAGE_VERSIONS)
def test_giant_lengths_anywhere_are_refused_or_read_as_the_reference_reads_them(
    message: type[Message], version: int
) -> None:
    encoded = encode(sample(message, version), version)
    for index, giant in enumerate(GIANT_LENGTHS):
        for at in range(len(encoded)):
            hostile = encoded[:at] + giant + encoded[at + len(giant) :]
            decoded = outcome(message, version, hostile)
            if (at + index) % 31 == 0:
                expected = reference_outcome(message, version, hostile)
                # NaN is no equal of its own, but it looks the same.
                assert decoded == expected or repr(decoded) == repr(expected), (at, giant)


def test_a_long_array_is_refused_before_memory_is_taken_for_it() -> None:
    claimed = (2**31 - 1).to_bytes(4, "big")
    with pytest.raises(DecodeError, match="2147483647 elements where 20 bytes are left"):
        decode(MetadataRequest, 1, claimed + bytes(20))


def test_the_shortest_encoding_of_elements_bounds_their_number() -> None:
    # A partition of FetchRequest v4 takes 16 bytes: 100 of them don't fit into 1,599.
    head = bytes(17) + (1).to_bytes(4, "big") + b"\0\1t" + (100).to_bytes(4, "big")
    with pytest.raises(DecodeError, match="100 elements where 1599 bytes are left"):
        decode(FetchRequest, 4, head + bytes(1599))
    assert len(decode(FetchRequest, 4, head + bytes(1600)).topics[0].partitions) == 100


def test_elements_are_counted_over_the_whole_message() -> None:
    def groups(count: int) -> bytes:
        return count.to_bytes(4, "big") + bytes(2 * count)

    assert len(decode(DescribeGroupsRequest, 0, groups(DECODE_ELEMENTS_MAX)).groups) == DECODE_ELEMENTS_MAX
    with pytest.raises(DecodeError, match="the message may hold 262144 more"):
        decode(DescribeGroupsRequest, 0, groups(DECODE_ELEMENTS_MAX + 1))
    raised = decode(DescribeGroupsRequest, 0, groups(300_000), elements_max=300_000)
    assert len(raised.groups) == 300_000
    topics = (2).to_bytes(4, "big") + 2 * (b"\0\1t" + (2).to_bytes(4, "big") + bytes(4 + 4 + 4 + 4) * 2)
    fetch = bytes(17) + topics
    decode(FetchRequest, 4, fetch, elements_max=6)
    with pytest.raises(DecodeError, match="the message may hold 1 more"):
        decode(FetchRequest, 4, fetch, elements_max=5)


def test_refused_messages_leave_nothing_behind() -> None:
    hostile = []
    for message, version in MESSAGE_VERSIONS[::7]:
        encoded = encode(sample(message, version), version)
        hostile += [(message, version, encoded[:size]) for size in range(len(encoded))]
    for _ in range(2):  # the free lists and caches fill
        for message, version, data in hostile:
            assert outcome(message, version, data) is None
    before = sys.getallocatedblocks()
    for _ in range(10):
        for message, version, data in hostile:
            assert outcome(message, version, data) is None
    assert sys.getallocatedblocks() - before < len(hostile) // 10


def test_null_where_the_version_knows_none_is_refused() -> None:
    one_topic_without_a_name = b"\x02\x00\x00" + b"\1\0\0\0"
    with pytest.raises(
        DecodeError, match=r"MetadataRequestTopic.name at byte 2: null where the version knows none"
    ):
        decode(MetadataRequest, 9, one_topic_without_a_name)
    by_id = decode(MetadataRequest, 12, b"\x02" + bytes(16) + b"\x00\x00" + b"\1\0\0")
    assert by_id.topics is not None
    assert by_id.topics[0].name is None


def test_strings_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(DecodeError, match=r"MetadataRequestTopic.name at byte 6: not UTF-8"):
        decode(MetadataRequest, 1, (1).to_bytes(4, "big") + b"\0\2\xc3\x28")


def test_strings_longer_than_kafka_allows_are_refused() -> None:
    longest, too_long = b"\x80\x80\x02" + b"a" * 32767, b"\x81\x80\x02" + b"a" * 32768
    assert decode(FindCoordinatorRequest, 3, longest + b"\0\0").key == "a" * 32767
    with pytest.raises(DecodeError, match="a string of 32768 bytes"):
        decode(FindCoordinatorRequest, 3, too_long + b"\0\0")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (b"\x02\x05\x00\x05\x00", "tag 5 after tag 5"),
        (b"\x02\x05\x00\x04\x00", "tag 4 after tag 5"),
        (b"\x01\x05\x02\x00", "tag 5 of 2 bytes where 1 are left"),
        (b"\x01\x05", "a tag or its size is no unsigned varint"),
        (b"\x80", "the number of tags is no unsigned varint"),
    ],
)
def test_tagged_sections_out_of_order_or_too_long_are_refused(tags: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=f"tagged fields of FindCoordinatorRequest at byte .*: {said}"):
        decode(FindCoordinatorRequest, 3, b"\x02k\x00" + tags)


def test_unknown_tags_are_skipped() -> None:
    known = decode(FindCoordinatorRequest, 3, b"\x02k\x01\x00")
    assert decode(FindCoordinatorRequest, 3, b"\x02k\x01\x02\x05\x02ab\xc8\x01\x00") == known


def test_a_known_tag_with_bytes_to_spare_is_refused() -> None:
    # Tag 0 of FetchRequest is the cluster id: "a" in two bytes, and one too many.
    whole = encode(FetchRequest(max_wait_ms=1, min_bytes=1, topics=[], cluster_id="a"), 15)
    assert whole.endswith(b"\x01\x00\x02\x02a")
    with pytest.raises(DecodeError, match="1 bytes too many in tag 0"):
        decode(FetchRequest, 15, whole[:-3] + b"\x03\x02a\x00")


def test_an_offset_outside_of_the_buffer_is_refused() -> None:
    for offset in (-1, 5):
        with pytest.raises(DecodeError, match="in a buffer of 4 bytes"):
            decode(MetadataRequest, 0, bytes(4), offset)
