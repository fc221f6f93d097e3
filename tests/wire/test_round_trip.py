"""Every message in every version: what is encoded decodes to the same, and the reference codec agrees on both."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.reference import codec as reference
from tests.wire.messages import MESSAGE_VERSIONS, MESSAGES
from tests.wire.strategies import every_version, sample
from warp.protocol import DecodeError, Message, decode, encode, encode_parts


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.__name__)
def test_what_is_encoded_decodes_to_the_same_and_as_the_reference_says(message: type[Message]) -> None:
    @settings(max_examples=8, suppress_health_check=list(HealthCheck))
    @given(every_version(message))
    def check(made: list[tuple[int, Message]]) -> None:
        for version, original in made:
            encoded = encode(original, version)
            assert encoded == reference.encode(original, version)
            decoded = decode(message, version, encoded)
            assert decoded == original
            assert decoded == reference.decode(message, version, encoded)
            assert encode(decoded, version) == encoded
            frame = b"".join(encode_parts(original, version, b"head"))
            assert frame == (len(encoded) + 4).to_bytes(4, "big") + b"head" + encoded

    check()


@pytest.mark.parametrize(("message", "version"), MESSAGE_VERSIONS)
def test_a_message_with_every_field_set_survives(message: type[Message], version: int) -> None:
    original = sample(message, version)
    encoded = encode(original, version)
    assert encoded == reference.encode(original, version)
    assert decode(message, version, encoded) == original
    assert decode(message, version, b"header" + encoded, 6) == original


@given(st.binary(max_size=40), st.sampled_from(MESSAGE_VERSIONS))
@settings(max_examples=1000)
def test_random_bytes_are_read_as_the_reference_reads_them(
    data: bytes, message_version: tuple[type[Message], int]
) -> None:
    message, version = message_version
    try:
        expected = reference.decode(message, version, data)
    except reference.MalformedError:
        with pytest.raises(DecodeError):
            decode(message, version, data)
    else:
        assert decode(message, version, data) == expected
